"""The Storage queue that Event Grid puts the activity log's events into.

The SDK is imported where a queue is opened: it takes 0.3 s, and azure-identity 15 MB, which a
process that only scans does not pay.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import orjson
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
)

from tasks.clouds.queues import Depth, Message, all_tried, with_more
from tasks.clouds.transport import USER_AGENT, Limits, trust
from tasks.errors import AccessRefused, CloudError, CloudTimeout, Throttled
from tasks.inventory import AzureSource

_QUEUE = "Microsoft.Storage/storageAccounts/queueServices/queues"
# What the listener's application may do with the messages of ``event_queue`` (data actions):
# "Storage Queue Data Message Processor" holds both.
QUEUE_ACTIONS = (f"{_QUEUE}/messages/read", f"{_QUEUE}/messages/process/action")
# … with those of ``event_dead_letter_queue``: "Storage Queue Data Message Sender".
DEAD_LETTER_ACTIONS = (f"{_QUEUE}/messages/add/action",)
# … and with the queue itself, for its depth. No data action: it stands among a role's actions.
DEPTH_ACTION = f"{_QUEUE}/read"

VISIBILITY_SECONDS = 60
A_CALL = 32  # messages of one call, at most
MORE_CALLS = 3  # made at once after a full one
DELETES = 16  # at once
# The service takes 64 KiB of base64, which is three quarters as much of what is encoded.
LARGEST = 48 * 1024
_AADSTS = re.compile(r"AADSTS\d+")
# Somebody else was faster, or our time with the message is up: it is no longer ours to delete.
_NOT_OURS = {"MessageNotFound", "PopReceiptMismatch"}


class StorageQueue:
    """An Azure source's ``event_queue``: an EventQueue. Use as an async context manager.

    ``visibility_timeout`` is how many seconds a message that was received and not deleted stays
    hidden from other listeners.
    """

    def __init__(
        self,
        source: AzureSource,
        limits: Limits | None = None,
        *,
        visibility_timeout: int = VISIBILITY_SECONDS,
    ) -> None:
        self._source = source
        self._limits = limits or Limits()
        self._hidden = visibility_timeout
        self._deletes = asyncio.Semaphore(DELETES)
        self._dead_letters: Any = None

    @property
    def source(self) -> str:
        return self._source.name

    async def __aenter__(self) -> StorageQueue:
        from tasks.clouds import azure_credentials

        async with AsyncExitStack() as stack:
            self._credential = azure_credentials.credential(self._source, self._limits)
            await stack.enter_async_context(self._credential)
            self._queue = await stack.enter_async_context(self._client(self._source.event_queue))
            if self._source.event_dead_letter_queue:
                self._dead_letters = await stack.enter_async_context(
                    self._client(self._source.event_dead_letter_queue)
                )
            self._closing = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._closing.aclose()

    def _client(self, url: str) -> Any:
        from azure.storage.queue.aio import QueueClient

        patience = self._limits.patience
        return QueueClient.from_queue_url(
            url,
            credential=self._credential,
            transport=self._transport(url),
            # Short waits that do not grow: what lasts longer, the listener itself waits for.
            retry_total=patience.attempts - 1,
            initial_backoff=patience.first_wait,
            increment_base=0,
            random_jitter_range=patience.first_wait,
            user_agent=USER_AGENT,
        )

    def _transport(self, url: str) -> Any:
        """The SDK's own, which would look for a proxy in a thread at each request, and read a CA
        file anew and connect anew, too.
        """
        import aiohttp
        from azure.core.pipeline.transport import AioHttpTransport

        limits = self._limits
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=trust(self._source.ca_file)),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            proxy=_proxy(url),
        )
        return AioHttpTransport(
            session=session,
            connection_timeout=limits.connect_seconds,
            read_timeout=limits.request_seconds,
        )

    async def receive(self) -> list[Message]:
        """Up to 128 messages, at once: a Storage queue does not wait for one to come.

        Raises CloudError.
        """
        return await with_more(await self._take(), A_CALL, self._take, MORE_CALLS)

    async def _take(self) -> list[Message]:
        every = self._queue.receive_messages(
            messages_per_page=A_CALL, visibility_timeout=self._hidden
        )
        with _errors("Get Messages"):
            async for page in every.by_page():  # the first only: each is a call
                return [_message(one) async for one in page]
        return []

    async def delete(self, messages: Sequence[Message]) -> None:
        """Take messages away, several at once. Raises CloudError once all have been tried."""
        await all_tried(self._delete(message) for message in messages)

    async def _delete(self, message: Message) -> None:
        async with self._deletes:
            try:
                with _errors("Delete Message"):
                    await self._queue.delete_message(message.id, message.receipt)
            except CloudError as error:
                if error.code not in _NOT_OURS:
                    raise

    async def bury(self, message: Message, reason: str) -> None:
        """Put the message into the dead-letter queue, where it stays until somebody deletes it:
        base64 of {"reason", "queue", "message_id", "deliveries", "body"}. A body too long for one
        message is cut, and "body_length" says how many characters it had. Raises CloudError.
        """
        if self._dead_letters is not None:
            text = base64.b64encode(self._letter(message, reason)).decode()
            with _errors("Put Message"):
                await self._dead_letters.send_message(text, time_to_live=-1)
        await self.delete([message])

    def _letter(self, message: Message, reason: str) -> bytes:
        about = {
            "reason": reason[:1000],
            "queue": self._source.event_queue,
            "message_id": message.id,
            "deliveries": message.deliveries,
        }
        whole = orjson.dumps({**about, "body": message.body})
        if len(whole) <= LARGEST:
            return whole
        about["body_length"] = len(message.body)
        # Characters take one to six bytes: the most that fit are found by halving.
        fits, too_many = 0, len(message.body)
        letter = orjson.dumps({**about, "body": ""})
        while fits + 1 < too_many:
            middle = (fits + too_many) // 2
            tried = orjson.dumps({**about, "body": message.body[:middle]})
            if len(tried) <= LARGEST:
                fits, letter = middle, tried
            else:
                too_many = middle
        return letter

    async def depth(self) -> Depth:
        """About how many messages there are. Those in a listener's hands are counted with the
        waiting ones: the cloud does not tell them apart. Raises CloudError.
        """
        with _errors("Get Queue Metadata"):
            about = await self._queue.get_queue_properties()
        return Depth(about.approximate_message_count)


def _proxy(url: str) -> str | None:
    """The proxy that the environment names for an address (HTTPS_PROXY, NO_PROXY), if any."""
    to = urlsplit(url)
    return None if proxy_bypass(to.netloc) else getproxies().get(to.scheme)


def _message(given: Any) -> Message:
    return Message(
        id=given.id,
        receipt=given.pop_receipt,
        body=_decoded(given.content),
        deliveries=given.dequeue_count,
        sent_at=given.inserted_on,
    )


def _decoded(text: str) -> str:
    """The text that was sent as base64, as Event Grid sends it; anything else as it is."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return text


@contextmanager
def _errors(operation: str) -> Iterator[None]:
    """Raise what the SDK raises inside as a CloudError, without the original: it may quote us."""
    try:
        yield
    except AzureError as error:
        raise _failure(error, operation) from None


def _failure(error: AzureError, operation: str) -> CloudError:
    """The error of the queue service, or of Entra, when it gave no token."""
    lines = str(error.message or "").strip().splitlines()  # then come request ids, and times
    message = (lines[0] if lines else "")[:300] or "refused"
    given = getattr(error, "error_code", None) or ""
    code = str(getattr(given, "value", given))
    status = error.status_code if isinstance(error, HttpResponseError) else None
    if found := _AADSTS.search(str(error.message or "")):
        code = found.group()
    if isinstance(error, ClientAuthenticationError):
        return AccessRefused(message, code=code, operation=operation)
    if isinstance(error, ServiceRequestTimeoutError | ServiceResponseError):
        return CloudTimeout("Azure did not answer in time", operation=operation)
    match status:
        case HTTPStatus.TOO_MANY_REQUESTS | HTTPStatus.SERVICE_UNAVAILABLE:
            return Throttled(message, code=code, operation=operation)
        case HTTPStatus.UNAUTHORIZED | HTTPStatus.FORBIDDEN:
            return AccessRefused(message, code=code, operation=operation)
        case HTTPStatus.REQUEST_TIMEOUT | HTTPStatus.GATEWAY_TIMEOUT:
            return CloudTimeout(message, code=code, operation=operation)
        case None:
            return CloudError(
                "Azure cannot be reached", code=type(error).__name__, operation=operation
            )
    if code == "OperationTimedOut":
        return CloudTimeout(message, code=code, operation=operation)
    return CloudError(message, code=code or str(status), operation=operation)
