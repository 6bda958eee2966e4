"""Connections that are kept when they are let go of, for a process that connects all the time."""

from __future__ import annotations

import select
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

import psycopg
from psycopg.pq import TransactionStatus

MOST_KEPT = 32
SURE_SECONDS = 10.0  # for which one that was taken back is not asked whether it works


class KeptConnection(psycopg.Connection):
    """Closing it gives it back while ``keeping`` lasts, without the locks that it had."""

    keeper: Keeper | None = None
    url = ""
    taken_back = 0.0  # when, by the monotonic clock

    @property
    def is_quiet(self) -> bool:
        """Whether the server has said nothing, nor hung up, since the last answer."""
        waiting = select.poll()
        waiting.register(self.fileno(), select.POLLIN)
        return not waiting.poll(0)

    def close(self) -> None:
        keeper = self.keeper
        if keeper is None or self.closed or not keeper.take_back(self):
            super().close()

    def end(self) -> None:
        """Close it for good."""
        self.keeper = None
        self.close()


class Keeper:
    """The connections that nobody uses right now, by address. Safe for threads."""

    def __init__(self) -> None:
        self._free: dict[str, list[KeptConnection]] = defaultdict(list)
        self._lock = threading.Lock()
        self._ended = False

    def hand_out(self, url: str) -> KeptConnection | None:
        """A connection that works; None where none is kept. One that has broken is ended.

        It worked when it was taken back. A server that goes away says so, or hangs up: only what
        has something to be read, or has lain for long, is asked.
        """
        while True:
            with self._lock:
                if not self._free[url]:
                    return None
                kept = self._free[url].pop()
            if kept.is_quiet and time.monotonic() - kept.taken_back < SURE_SECONDS:
                return kept
            try:
                kept.execute("SELECT 1")
            except psycopg.Error:
                kept.end()
            else:
                return kept

    def take_back(self, connection: KeptConnection) -> bool:
        """Whether it is kept. Its locks are free then, as if it had been closed."""
        if connection.info.transaction_status is not TransactionStatus.IDLE:
            return False
        try:
            connection.execute("SELECT pg_advisory_unlock_all()")
        except psycopg.Error:
            return False
        with self._lock:
            room = not self._ended and len(self._free[connection.url]) < MOST_KEPT
            if room:
                connection.taken_back = time.monotonic()
                self._free[connection.url].append(connection)
        return room

    def end(self) -> None:
        with self._lock:
            self._ended = True
            left = [one for some in self._free.values() for one in some]
            self._free.clear()
        for one in left:
            with suppress(psycopg.Error):
                one.end()


KEEPER: ContextVar[Keeper | None] = ContextVar("kept_connections", default=None)


@contextmanager
def keeping() -> Iterator[None]:
    """What connects inside, in threads that are started inside too, gets what others let go of."""
    keeper = Keeper()
    token = KEEPER.set(keeper)
    try:
        yield
    finally:
        KEEPER.reset(token)
        keeper.end()
