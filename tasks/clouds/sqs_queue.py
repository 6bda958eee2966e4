"""The SQS queue that EventBridge puts CloudTrail's events into."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from tasks.clouds.aws_api import AwsApi
from tasks.clouds.aws_credentials import AwsKeyring
from tasks.clouds.queues import Depth, Message, all_tried, with_more
from tasks.clouds.transport import Limits
from tasks.errors import CloudError
from tasks.inventory import AwsSource

# What Suture's own identity needs on its own queue: to take events out of it and to see how many
# there are; and on the dead-letter queue: to put in what nobody can read.
QUEUE_PERMISSIONS = ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes")
DEAD_LETTER_PERMISSIONS = ("sqs:SendMessage",)

WAIT_SECONDS = 20  # the longest that SQS waits for a message
VISIBILITY_SECONDS = 60
A_CALL = 10  # messages of one call, at most
MORE_CALLS = 9  # made at once after a full one
REASON_CHARACTERS = 500
# Our time with the message is up: it is no longer ours to delete.
_NOT_OURS = {"ReceiptHandleIsInvalid", "InvalidParameterValue"}
_HOST = re.compile(r"(?:sqs\.([a-z0-9-]+)|([a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?", re.ASCII)


def region_of(url: str, otherwise: str) -> str:
    """The region that a queue's URL names; ``otherwise`` where its host is not AWS's."""
    found = _HOST.fullmatch(urlsplit(url).hostname or "")
    return (found[1] or found[2]) if found else otherwise


class SqsQueue:
    """An AWS source's ``event_queue``: an EventQueue. Use as an async context manager.

    ``wait_seconds`` is how long SQS waits for a first message, ``visibility_seconds`` how long one
    that was received and not deleted stays hidden from other listeners.
    """

    def __init__(
        self,
        source: AwsSource,
        limits: Limits | None = None,
        *,
        wait_seconds: int = WAIT_SECONDS,
        visibility_seconds: int = VISIBILITY_SECONDS,
    ) -> None:
        known = limits or Limits()
        # A silence of so long is no fault of the service's.
        self._limits = replace(known, request_seconds=known.request_seconds + wait_seconds)
        self._source = source
        self._wait = wait_seconds
        self._hidden = visibility_seconds
        self._region = region_of(source.event_queue, source.regions[0])

    @property
    def source(self) -> str:
        return self._source.name

    async def __aenter__(self) -> SqsQueue:
        async with AsyncExitStack() as stack:
            api = AwsApi(
                endpoint=self._source.endpoint, ca_file=self._source.ca_file, limits=self._limits
            )
            self._api = await stack.enter_async_context(api)
            self._keys = AwsKeyring(self._source, self._api)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._closing.aclose()

    async def receive(self) -> list[Message]:
        """Up to 100 messages; waits for the first of them. Raises CloudError."""
        first = await self._take(self._wait)
        return await with_more(first, A_CALL, lambda: self._take(0), MORE_CALLS)

    async def _take(self, wait: int) -> list[Message]:
        answer = await self._call(
            "ReceiveMessage",
            self._source.event_queue,
            MaxNumberOfMessages=A_CALL,
            WaitTimeSeconds=wait,
            VisibilityTimeout=self._hidden,
            # The newer name of AttributeNames: known since 2023, and to all that speak JSON.
            MessageSystemAttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
        )
        return [_message(one) for one in answer.get("Messages", ())]

    async def delete(self, messages: Sequence[Message]) -> None:
        """Take messages away, ten by a call. Raises CloudError once all have been tried."""
        batches = [messages[start : start + A_CALL] for start in range(0, len(messages), A_CALL)]
        await all_tried(self._delete(batch) for batch in batches)

    async def _delete(self, messages: Sequence[Message]) -> None:
        failed = await self._try_to_delete(messages)
        if failed and (failed := await self._try_to_delete([message for message, _ in failed])):
            code = failed[0][1]
            raise CloudError(
                f"{len(failed)} messages could not be deleted: {code}",
                code=code,
                operation="DeleteMessageBatch",
            )

    async def _try_to_delete(self, messages: Sequence[Message]) -> list[tuple[Message, str]]:
        """What could not be deleted, with AWS's code for why."""
        answer = await self._call(
            "DeleteMessageBatch",
            self._source.event_queue,
            Entries=[
                {"Id": str(number), "ReceiptHandle": message.receipt}
                for number, message in enumerate(messages)
            ],
        )
        return [
            (messages[int(entry["Id"])], str(entry.get("Code", "")))
            for entry in answer.get("Failed", ())
            if entry.get("Code") not in _NOT_OURS
        ]

    async def bury(self, message: Message, reason: str) -> None:
        """Send the body to the dead-letter queue, with the attributes "reason" and "queue"; then
        delete the message. Raises CloudError.
        """
        if self._source.event_dead_letter_queue:
            about = {
                "reason": reason[:REASON_CHARACTERS] or "unknown",
                "queue": self._source.event_queue,
            }
            await self._call(
                "SendMessage",
                self._source.event_dead_letter_queue,
                MessageBody=message.body or "(empty)",
                MessageAttributes={
                    name: {"DataType": "String", "StringValue": value}
                    for name, value in about.items()
                },
            )
        await self.delete([message])

    async def depth(self) -> Depth:
        """About how many messages wait, delayed ones too, and how many are in hand."""
        names = ("", "NotVisible", "Delayed")
        answer = await self._call(
            "GetQueueAttributes",
            self._source.event_queue,
            AttributeNames=[f"ApproximateNumberOfMessages{name}" for name in names],
        )
        told = answer.get("Attributes", {})
        waiting, in_hand, delayed = (
            int(told.get(f"ApproximateNumberOfMessages{name}", 0)) for name in names
        )
        return Depth(waiting + delayed, in_hand)

    async def _call(self, operation: str, queue: str, **params: Any) -> dict[str, Any]:
        return await self._api.call(
            "sqs",
            operation,
            {"QueueUrl": queue, **params},
            region=region_of(queue, self._region),
            credentials=await self._keys.hub(),
        )


def _message(given: dict[str, Any]) -> Message:
    told = given.get("Attributes", {})
    sent = told.get("SentTimestamp")
    return Message(
        id=given["MessageId"],
        receipt=given["ReceiptHandle"],
        body=given.get("Body", ""),
        deliveries=int(told.get("ApproximateReceiveCount", 1)),
        sent_at=datetime.fromtimestamp(int(sent) / 1000, UTC) if sent else None,
    )
