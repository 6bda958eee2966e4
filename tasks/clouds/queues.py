"""What the listener needs of a queue of events, whichever cloud keeps it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Protocol

from tasks.errors import CloudError


@dataclass(frozen=True, slots=True)
class Message:
    """One message as a queue gave it: invisible to others until it is deleted or time is up.

    ``receipt`` is what deleting it takes. ``body`` is its text, as sent (Azure's base64 is undone).
    ``deliveries`` counts this one, from 1. ``sent_at`` is when the queue took it in.
    """

    id: str
    receipt: str
    body: str
    deliveries: int = 1
    sent_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Depth:
    """About how many messages a queue holds, and how many of them a listener has in hand.

    ``in_hand`` is None where the cloud does not say.
    """

    waiting: int
    in_hand: int | None = None


async def with_more(
    first: list[Message], full: int, take: Callable[[], Awaitable[list[Message]]], calls: int
) -> list[Message]:
    """The messages of a first call and, where that was ``full``, of so many more at once."""
    if len(first) < full:
        return first
    # What one of these fails with the next receive will tell: to raise it now would hide for a
    # minute what the others have taken.
    more = await asyncio.gather(*(take() for _ in range(calls)), return_exceptions=True)
    found = list(first)
    for taken in more:
        if not isinstance(taken, BaseException):
            found += taken
        elif not isinstance(taken, CloudError):
            raise taken
    return found


async def all_tried(tries: Iterable[Awaitable[None]]) -> None:
    """Raise what the first of them failed with, once all have been tried."""
    for error in await asyncio.gather(*tries, return_exceptions=True):
        if isinstance(error, BaseException):
            raise error


class EventQueue(Protocol):
    """One queue. Use as an async context manager. Its calls raise CloudError."""

    async def __aenter__(self) -> EventQueue: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    @property
    def source(self) -> str:
        """The inventory entry whose events come by it."""
        ...

    async def receive(self) -> list[Message]:
        """The next messages, several at once where the cloud gives them; none when it has none.

        Waits for the first as long as the cloud does so itself (SQS: 20 s).
        """
        ...

    async def delete(self, messages: Sequence[Message]) -> None:
        """Take messages away for good. One that is gone already is no error."""
        ...

    async def bury(self, message: Message, reason: str) -> None:
        """Put a message that nobody can read into the dead-letter queue, with the reason.

        Where there is no such queue it is only deleted. Nothing is lost in between: it is deleted
        after it has been put there.
        """
        ...

    async def depth(self) -> Depth:
        """How much there is in it, about."""
        ...
