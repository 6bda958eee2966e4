"""One connection to the warehouse, and the thread that it is used in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

import psycopg

from tasks.warehouse.database import connect

T = TypeVar("T")


class Desk:
    """Takes work on the warehouse, one after another. Use as an async context manager.

    A connection that broke is made anew for the next piece of work; its locks are lost by then.
    """

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"warehouse-{name}")
        self._conn: psycopg.Connection | None = None

    async def __aenter__(self) -> Desk:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await asyncio.to_thread(self._end)

    async def ask(self, work: Callable[[psycopg.Connection], T]) -> T:
        """What ``work`` makes of the connection. Raises what it raises, and BadInput or
        psycopg.OperationalError while the warehouse is away.
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._do, work)

    def _do(self, work: Callable[[psycopg.Connection], T]) -> T:
        if self._conn is None or self._conn.closed or self._conn.broken:
            self._conn = connect()
        try:
            return work(self._conn)
        except psycopg.OperationalError:
            self._conn.close()
            raise

    def _end(self) -> None:
        self._thread.submit(lambda: self._conn.close() if self._conn else None).result()
        self._thread.shutdown()
