"""One scanner for all that a process reads, where the process has one: its sign-ins stay good.

A process that closes findings one after another would else sign in anew for every look. What was
read a moment ago, to be judged, is planned from as well.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from tasks.calls import CallMade
from tasks.clouds.scanner import Scanner
from tasks.inventory import Inventory
from tasks.model import Resource

T = TypeVar("T")

FRESH = timedelta(seconds=2)  # what was read longer ago is not planned from


@dataclass(frozen=True, slots=True)
class Reading:
    """A resource as it was read, right after ``read_at``, by these calls."""

    resource: Resource
    read_at: datetime
    calls: tuple[CallMade, ...]


class Readings:
    """What was read a moment ago. Each reading is taken once: by then somebody may change it."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, str], Reading] = {}
        self._turn = threading.Lock()

    def keep(self, reading: Reading) -> None:
        """Keep a reading for as long as it is fresh, and let go of those that are not any more."""
        resource = reading.resource
        key = (resource.cloud, resource.account, resource.id)
        with self._turn:
            self._latest.pop(key, None)
            self._latest[key] = reading  # at the end: the oldest come first
            for other, one in list(self._latest.items()):
                if _is_fresh(one):
                    break
                del self._latest[other]

    def take(self, cloud: str, account: str, resource: str) -> Reading | None:
        """The fresh reading of a resource, for whoever asks first."""
        with self._turn:
            reading = self._latest.pop((cloud, account, resource), None)
        return reading if reading is not None and _is_fresh(reading) else None


def _is_fresh(reading: Reading) -> bool:
    return timedelta(0) <= datetime.now(UTC) - reading.read_at <= FRESH


@dataclass(frozen=True, slots=True)
class _Shared:
    scanner: Scanner
    inventory: Inventory
    loop: asyncio.AbstractEventLoop
    readings: Readings


_SHARED: ContextVar[_Shared | None] = ContextVar("shared_scanner", default=None)


@contextmanager
def shared(scanner: Scanner, inventory: Inventory) -> Iterator[Readings]:
    """Threads that are started inside read by this scanner, in the event loop that runs here, and
    plan from what is kept in the readings that it yields.
    """
    readings = Readings()
    token = _SHARED.set(_Shared(scanner, inventory, asyncio.get_running_loop(), readings))
    try:
        yield readings
    finally:
        _SHARED.reset(token)


def just_read(inventory: Inventory, cloud: str, account: str, resource: str) -> Reading | None:
    """The resource as this process has read it a moment ago; None where it has not."""
    there = _SHARED.get()
    if there is None or there.inventory != inventory:
        return None
    return there.readings.take(cloud, account, resource)


def read_with(inventory: Inventory, work: Callable[[Scanner], Awaitable[T]]) -> T:
    """What ``work`` reads, by the shared scanner of this inventory, or one of its own.

    Not to be called in an event loop. Raises what ``work`` raises.
    """
    there = _SHARED.get()
    if there is None or there.inventory != inventory:
        return asyncio.run(_alone(inventory, work))

    async def within() -> T:
        return await work(there.scanner)

    # Called with this thread's context, so that the calls are noted where they are wanted.
    return asyncio.run_coroutine_threadsafe(within(), there.loop).result()


async def _alone(inventory: Inventory, work: Callable[[Scanner], Awaitable[T]]) -> T:
    async with Scanner(inventory) as scanner:
        return await work(scanner)
