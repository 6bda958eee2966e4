"""SQS's standard queues, however many messages are in them; and its long polls.

moto looks at every message of a queue for each that comes, goes or is handed out. ``install()``
has its queues keep what they hold by what is asked for; FIFO queues stay as moto makes them.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
import secrets
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from heapq import heappop, heappush
from urllib.parse import urlencode

from moto.sqs import models
from moto.sqs.exceptions import InvalidParameterValue, ReceiptHandleIsInvalid
from moto.sqs.models import Message, Queue, SQSBackend, _filter_message_attributes, sqs_backends

from deployments.local.aws.calls import Call
from deployments.local.aws.errors import Response
from deployments.local.aws.resources import parameters

LONGEST_WAIT = 20  # seconds
RECEIPT_BYTES = 138  # before they are made letters
LONGEST_HIDDEN = 12 * 3600  # seconds from a message's coming


def _milliseconds() -> float:
    return time.time() * 1000


class Shelf:
    """The messages of one queue, in the order they came, as moto's own list of them.

    Each has a number. ``_free`` are the numbers of those that may be received, ``_held`` says when
    those that are hidden or delayed may be. Both heaps keep what is no longer so until its turn.
    """

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        self._numbers = itertools.count()
        self._messages: dict[int, Message] = {}
        self._number: dict[Message, int] = {}
        self._receipts: dict[str, int] = {}
        self._free: list[int] = []
        self._held: dict[int, float] = {}
        self._delayed: set[int] = set()
        self._coming: list[tuple[float, int]] = []
        for message in messages:
            self.append(message)

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(list(self._messages.values()))

    def append(self, message: Message) -> None:
        number = next(self._numbers)
        self._messages[number] = message
        self._number[message] = number
        self._hold(number)

    def remove(self, message: Message) -> None:
        number = self._number.pop(message)
        del self._messages[number]
        self._held.pop(number, None)
        self._delayed.discard(number)
        for receipt in message.all_receipt_handles:
            self._receipts.pop(receipt, None)

    def hold(self, message: Message) -> None:
        """A message has been handed out, or its time to be hidden has been changed."""
        number = self._number[message]
        if message.receipt_handle:
            self._receipts[message.receipt_handle] = number
        self._hold(number)

    def _hold(self, number: int) -> None:
        message = self._messages[number]
        until = max(message.visible_at, message.delayed_until)
        self._held[number] = until
        if message.delayed_until > _milliseconds():
            self._delayed.add(number)
        heappush(self._coming, (until, number))

    def by_receipt(self, receipt: str) -> Message | None:
        return self._messages.get(self._receipts.get(receipt, -1))

    def next(self, now: float) -> Message | None:
        """The first that may be received, which stays so until it is held or removed."""
        self._let_go(now)
        while self._free:
            number = self._free[0]
            if number in self._messages and number not in self._held:
                return self._messages[number]
            heappop(self._free)
        return None

    def next_at(self) -> float:
        """When another one may be received, at the latest."""
        return self._coming[0][0] if self._coming else float("inf")

    def _let_go(self, now: float) -> None:
        """What is hidden or delayed no longer may be received."""
        while self._coming and self._coming[0][0] < now:
            until, number = heappop(self._coming)
            if self._held.get(number) == until:
                del self._held[number]
                self._delayed.discard(number)
                heappush(self._free, number)

    def counts(self) -> tuple[int, int, int]:
        """How many may be received, are hidden, are delayed."""
        self._let_go(_milliseconds())
        held, delayed = len(self._held), len(self._delayed)
        return len(self) - held, held - delayed, delayed


# ---------------------------------------------------------------- moto's queues


@functools.cache
def install() -> None:
    # moto draws each letter of a receipt by itself, and takes long to see what time it is.
    models.generate_receipt_handle = lambda: secrets.token_urlsafe(RECEIPT_BYTES)
    models.unix_time_millis = _milliseconds
    # moto remembers every message there ever was, for a page that nobody sees here.
    Message.__new__ = staticmethod(lambda cls, *_, **__: object.__new__(cls))
    Queue._messages = property(lambda self: self._shelf, _set_messages)
    for place, name in enumerate(("", "_not_visible", "_delayed")):
        attribute = f"approximate_number_of_messages{name}"
        setattr(Queue, attribute, _counted(getattr(Queue, attribute), place))
    Queue.delete_message = _delete(Queue.delete_message)
    SQSBackend.receive_message = _receive(SQSBackend.receive_message)
    SQSBackend.change_message_visibility = _change_visibility(SQSBackend.change_message_visibility)


def _set_messages(queue: Queue, messages: Iterable[Message]) -> None:
    queue._shelf = Shelf(messages)


def _counted(original: property, place: int) -> property:
    """One of a shelf's counts."""

    def count(self: Queue) -> int:
        if self.fifo_queue:
            return original.fget(self)
        with self._messages_lock:
            return self._shelf.counts()[place]

    return property(count)


def _receive(original: Callable[..., list[Message]]) -> Callable[..., list[Message]]:
    def receive(
        self: SQSBackend,
        queue_name: str,
        count: int,
        wait_seconds_timeout: int,
        visibility_timeout: int,
        message_attribute_names: list[str] | None = None,
    ) -> list[Message]:
        queue = self.get_queue(queue_name)
        names = message_attribute_names or []
        if queue.fifo_queue:
            waits = wait_seconds_timeout, visibility_timeout
            return original(self, queue_name, count, *waits, names)
        if wait_seconds_timeout:
            wait_for_message(queue, wait_seconds_timeout)
        now, found, dead = _milliseconds(), [], []
        with queue._messages_lock:
            shelf = queue._shelf
            while len(found) < count and (message := shelf.next(now)) is not None:
                if message.sent_timestamp + 1000 * queue.message_retention_period <= now:
                    shelf.remove(message)
                elif _tried_enough(queue, message):
                    shelf.remove(message)
                    dead.append(message)
                else:
                    message.mark_received(visibility_timeout=visibility_timeout)
                    if not visibility_timeout:
                        message.visible_at = now  # which keeps it from being found twice
                    shelf.hold(message)
                    shown = copy.copy(message)
                    _filter_message_attributes(shown, names)
                    found.append(shown)
        for message in dead:
            queue.dead_letter_queue.add_message(message)
        return found

    return receive


def _tried_enough(queue: Queue, message: Message) -> bool:
    if queue.dead_letter_queue is None or not queue.redrive_policy:
        return False
    most: int = queue.redrive_policy["maxReceiveCount"]
    return message.approximate_receive_count >= most


def _delete(original: Callable[..., None]) -> Callable[..., None]:
    """moto also loses what comes while it writes its list anew."""

    def delete(self: Queue, receipt_handle: str) -> None:
        if self.fifo_queue:
            return original(self, receipt_handle)
        with self._messages_lock:
            if receipt_handle in self.deleted_messages:
                return None
            message = self._shelf.by_receipt(receipt_handle)
            if message is None:
                raise ReceiptHandleIsInvalid
            self.deleted_messages.update(one for one in message.all_receipt_handles if one)
            self._shelf.remove(message)
        return None

    return delete


def _change_visibility(original: Callable[..., None]) -> Callable[..., None]:
    def change(
        self: SQSBackend, queue_name: str, receipt_handle: str, visibility_timeout: int
    ) -> None:
        queue = self.get_queue(queue_name)
        if queue.fifo_queue:
            return original(self, queue_name, receipt_handle, visibility_timeout)
        with queue._messages_lock:
            message = queue._shelf.by_receipt(receipt_handle)
            if message is None:
                raise ReceiptHandleIsInvalid
            until = _milliseconds() + 1000 * int(visibility_timeout)
            if until - message.sent_timestamp > 1000 * LONGEST_HIDDEN:
                raise InvalidParameterValue(
                    f"Value {visibility_timeout} for parameter VisibilityTimeout is invalid. "
                    "Reason: Total VisibilityTimeout for the message is beyond the limit "
                    f"[{LONGEST_HIDDEN} seconds]"
                )
            message.visible_at = until
            queue._shelf.hold(message)
            queue._messages_lock.notify_all()
        return None

    return change


def put(account: str, region: str, name: str, body: str) -> None:
    """A message from AWS itself into a queue; nothing where somebody has deleted that."""
    queue = sqs_backends[account][region].queues.get(name)
    if queue is not None:
        message = Message(str(uuid.uuid4()), body)
        message.mark_sent()
        queue.add_message(message)


# ---------------------------------------------------------------- long polls


def wait_for_message(queue: Queue, seconds: float) -> bool:
    """Whether there is something to receive, now or within so many seconds."""
    end = time.monotonic() + seconds
    with queue._messages_lock:
        while True:
            now = _milliseconds()
            if queue._shelf.next(now) is not None:
                return True
            left = end - time.monotonic()
            if left <= 0:
                return False
            # A millisecond more: it may be received after that time, not at it.
            until_next = (queue._shelf.next_at() - now + 1) / 1000
            queue._messages_lock.wait(min(left, until_next))


def without_waiting(call: Call, account: str) -> tuple[Call, Queue | None, float]:
    """A ReceiveMessage that moto answers at once, its queue, and how many seconds it was to wait.

    Where moto will refuse what the call says, it stays as it is.
    """
    in_json = call.body[:1] == b"{"
    asked = parameters("json" if in_json else "query", {}, call.form(), call.body)
    address = str(asked.get("QueueUrl") or call.environ["PATH_INFO"])
    queue = sqs_backends[account][call.region].queues.get(address.rpartition("/")[2])
    said = asked.get("WaitTimeSeconds")
    if said is None and queue is not None:
        said = queue.receive_message_wait_time_seconds
    if queue is None or not str(said).isdecimal() or int(said) > LONGEST_WAIT:
        return call, None, 0
    at_once = {**asked, "WaitTimeSeconds": 0}
    text = json.dumps(at_once) if in_json else urlencode(at_once)
    if not call.body:  # everything is in the query
        environ = {**call.environ, "QUERY_STRING": text}
        return replace(call, environ=environ), queue, int(said)
    environ = {**call.environ, "CONTENT_LENGTH": str(len(text.encode()))}
    return replace(call, environ=environ, body=text.encode()), queue, int(said)


def is_empty(answer: Response) -> bool:
    """Whether an answer to ReceiveMessage says that there is nothing."""
    status, _, body = answer
    return status < 400 and b'"Messages"' not in body and b"<Message>" not in body
