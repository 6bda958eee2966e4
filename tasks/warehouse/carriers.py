"""Who carries a run: a lock that PostgreSQL frees when its process ends, however it ends.

As in ``claims``, the connection that carries stays open for as long as the work takes, outside of a
pooler that shares it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import psycopg

SETTLING = timedelta(seconds=60)  # after the database has started: its restart ended all locks
# A machine that is cut off says no farewell: this is how soon its lock is free, in seconds.
KEEPALIVE = {"tcp_keepalives_idle": 10, "tcp_keepalives_interval": 5, "tcp_keepalives_count": 3}

KEY = "hashtextextended('suture run ' || %s, 0)"


def carry(conn: psycopg.Connection, run_id: str) -> bool:
    """Make this connection the one whose process carries the run. False: another's does."""
    for name, value in KEEPALIVE.items():
        with suppress(psycopg.Error):  # over a Unix socket there is nothing to keep alive
            conn.execute("SELECT set_config(%s, %s, false)", (name, str(value)))
    got = conn.execute(f"SELECT pg_try_advisory_lock({KEY})".encode(), (run_id,)).fetchone()
    return got == (True,)


def let_go(conn: psycopg.Connection, run_id: str) -> None:
    """Free the run's lock now: the server ends a closed connection's a moment later."""
    with suppress(psycopg.Error):  # a connection that is broken has lost it
        conn.execute(f"SELECT pg_advisory_unlock({KEY})".encode(), (run_id,))


def is_carried(conn: psycopg.Connection, run_id: str) -> bool:
    """Whether any process carries the run."""
    row = conn.execute(
        f"""
        SELECT EXISTS (
            SELECT FROM pg_locks l
            JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
            WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
              AND ((l.classid::bigint << 32) | l.objid::bigint) = {KEY}
        )
        """.encode(),  # noqa: S608 - ours
        (run_id,),
    ).fetchone()
    return row == (True,)


def still_carries(conn: psycopg.Connection, run_id: str) -> bool:
    """Whether this connection has the run's lock. Raises psycopg.Error when it is broken."""
    row = conn.execute(
        f"""
        SELECT EXISTS (
            SELECT FROM pg_locks
            WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND pid = pg_backend_pid()
              AND ((classid::bigint << 32) | objid::bigint) = {KEY}
        )
        """.encode(),  # noqa: S608 - ours
        (run_id,),
    ).fetchone()
    return row == (True,)


def locks_can_be_trusted(conn: psycopg.Connection) -> bool:
    """Whether a free lock proves a dead process. Not right after the database was started: those
    who live on have yet to find out that they have lost theirs.
    """
    row = conn.execute("SELECT now() - pg_postmaster_start_time() > %s", (SETTLING,)).fetchone()
    return row == (True,)
