"""Gates that token endpoints were asked to open, until they have confirmed that they closed them.

Written down before the endpoint is asked: a process that ends right after that leaves a trace.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

import psycopg
from psycopg.rows import dict_row

GIVE_UP = timedelta(days=1)  # every opening is long over by then


@dataclass(frozen=True, slots=True)
class GateRequest:
    """One run's gate that may be open. ``given_up_at``: nobody answered for a day."""

    run_id: str
    cloud: str
    account: str
    asked_at: datetime
    released_at: datetime | None
    given_up_at: datetime | None


def asked(conn: psycopg.Connection, run_id: str, cloud: str, account: str) -> None:
    """The run is about to ask for its gate."""
    conn.execute(
        """
        INSERT INTO gate_requests (run_id, cloud, account, asked_at)
        VALUES (%s, %s, %s, clock_timestamp())
        ON CONFLICT (run_id) DO UPDATE
        SET asked_at = excluded.asked_at, released_at = NULL, given_up_at = NULL
        """,
        (run_id, cloud, account),
    )


def released(conn: psycopg.Connection, run_id: str) -> None:
    """The customer has confirmed that the run's gate is closed."""
    conn.execute(
        "UPDATE gate_requests SET released_at = clock_timestamp() WHERE run_id = %s", (run_id,)
    )


def given_up(conn: psycopg.Connection, run_id: str) -> None:
    """Nobody is asked any more to close the run's gate."""
    conn.execute(
        "UPDATE gate_requests SET given_up_at = clock_timestamp() WHERE run_id = %s", (run_id,)
    )


def unreleased(conn: psycopg.Connection) -> list[GateRequest]:
    """The requests whose gate nobody has confirmed to be closed."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT * FROM gate_requests WHERE released_at IS NULL AND given_up_at IS NULL "
            "ORDER BY asked_at, run_id"
        )
        return [GateRequest(**row) for row in cursor]
