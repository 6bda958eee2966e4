"""Where processes share rate budgets: each says once a second what it uses and learns the rest."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from types import TracebackType

import psycopg

from tasks.errors import BadInput
from tasks.rate import Announcement, Standing
from tasks.warehouse.database import connect

LIVE_SECONDS = 10  # a holder that is silent for longer does not count
FORGET_SECONDS = 60  # and its rows are deleted, by whoever comes by
MOST_CUTS = 500  # of budgets that this process did not name, the latest
STATEMENT_MS = 5000  # a warehouse that hangs must not hang the exchange for ever

# One statement, one snapshot: the rows that it writes are not among those it reads.
EXCHANGE = """
WITH mine AS (
    INSERT INTO rate_budgets (budget, holder, seen_at, per_second, cut_at)
    SELECT budget, %(holder)s, clock_timestamp(), per_second,
           clock_timestamp() - cut_age * interval '1 second'
    FROM unnest(%(budgets)s::text[], %(rates)s::float8[], %(ages)s::float8[])
         AS said (budget, per_second, cut_age)
    ON CONFLICT (budget, holder) DO UPDATE
    SET seen_at = excluded.seen_at, per_second = excluded.per_second, cut_at = excluded.cut_at
), not_mine_any_more AS (
    DELETE FROM rate_budgets WHERE holder = %(holder)s AND budget <> ALL (%(budgets)s::text[])
), silent AS (
    SELECT budget, holder FROM rate_budgets
    WHERE holder <> %(holder)s AND seen_at < clock_timestamp() - %(forget)s * interval '1 second'
    FOR UPDATE SKIP LOCKED
), forgotten AS (
    DELETE FROM rate_budgets USING silent
    WHERE rate_budgets.budget = silent.budget AND rate_budgets.holder = silent.holder
)
SELECT budget, count(*) + 1, avg(per_second),
       extract(epoch FROM clock_timestamp() - max(cut_at))::float8
FROM rate_budgets
WHERE holder <> %(holder)s AND seen_at > clock_timestamp() - %(live)s * interval '1 second'
GROUP BY budget
HAVING budget = ANY (%(budgets)s::text[]) OR max(cut_at) IS NOT NULL
ORDER BY budget = ANY (%(budgets)s::text[]) DESC, max(cut_at) DESC NULLS LAST
LIMIT cardinality(%(budgets)s::text[]) + %(most_cuts)s
"""


class SharedBudgets:
    """The exchange of one process: tasks.clouds.budgets says what passes here.

    After ``close``, also by way of ``with``, the process no longer counts as a holder. Not for
    several threads at once.
    """

    def __init__(self, url: str | None = None) -> None:
        self._url = url
        self._holder = uuid.uuid4()
        self._conn: psycopg.Connection | None = None

    def __enter__(self) -> SharedBudgets:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def exchange(self, announced: Sequence[Announcement]) -> list[Standing]:
        """Say what this process uses; how every budget of these stands, and every other that was
        cut.

        ``holders`` counts this process too. Raises ConnectionError, without the address, where the
        warehouse does not answer.
        """
        asked = {
            "holder": self._holder,
            "budgets": [one.key for one in announced],
            # The driver takes no list of whole numbers and others together.
            "rates": [_as_float(one.per_second) for one in announced],
            "ages": [_as_float(one.cut_age) for one in announced],
            "live": LIVE_SECONDS,
            "forget": FORGET_SECONDS,
            "most_cuts": MOST_CUTS,
        }
        try:
            rows = self._connected().execute(EXCHANGE, asked).fetchall()
        except BadInput as error:
            raise ConnectionError(str(error)) from None
        except psycopg.Error as error:
            self._disconnect()
            message = f"the warehouse failed: {type(error).__name__}"
            raise ConnectionError(message) from None
        others = {key: (holders, rate, age) for key, holders, rate, age in rows}
        alone = [Standing(one.key, 1) for one in announced if one.key not in others]
        return alone + [Standing(key, *standing) for key, standing in others.items()]

    def close(self) -> None:
        """Say that this process uses nothing any more, and disconnect."""
        try:
            if self._conn is not None and not self._conn.closed:
                self._conn.execute("DELETE FROM rate_budgets WHERE holder = %s", (self._holder,))
        except psycopg.Error:
            return  # it is silent from here on, and stops to count all the same
        finally:
            self._disconnect()

    def _connected(self) -> psycopg.Connection:
        if self._conn is None or self._conn.closed:
            self._conn = connect(self._url)
            self._conn.execute(f"SET statement_timeout = {STATEMENT_MS}".encode())
        return self._conn

    def _disconnect(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def _as_float(value: float | None) -> float | None:
    return None if value is None else float(value)
