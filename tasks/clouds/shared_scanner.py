"""One scanner for all that a process reads, where the process has one: its sign-ins stay good.

A process that closes findings one after another would else sign in anew for every look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

from tasks.clouds.scanner import Scanner
from tasks.inventory import Inventory

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Shared:
    scanner: Scanner
    inventory: Inventory
    loop: asyncio.AbstractEventLoop


_SHARED: ContextVar[_Shared | None] = ContextVar("shared_scanner", default=None)


@contextmanager
def shared(scanner: Scanner, inventory: Inventory) -> Iterator[None]:
    """Threads that are started inside read by this scanner, in the event loop that runs here."""
    token = _SHARED.set(_Shared(scanner, inventory, asyncio.get_running_loop()))
    try:
        yield
    finally:
        _SHARED.reset(token)


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
