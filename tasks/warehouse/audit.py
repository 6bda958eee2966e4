"""The audit log in the warehouse: appended one at a time, verified from first row to head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import psycopg

from tasks.audit import Broken, Entry, first_broken, next_entry
from tasks.warehouse.rows import clean

AUDIT_LOCK = 5_782_003  # two writers must not both follow the same entry


def append(
    conn: psycopg.Connection,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, Any] | None = None,
) -> Entry:
    """Write down who did what to what. Never put a code into ``details``: it stays for ever.

    Inside a caller's transaction the entry is part of it, and other writers wait for its end.
    """
    with conn.transaction():
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (AUDIT_LOCK,))
        entry = next_entry(
            head(conn),
            at=datetime.now(UTC),
            actor=clean(actor),
            action=clean(action),
            subject=clean(subject),
            details=details or {},
        )
        conn.execute(
            """
            INSERT INTO audit_log (number, at, actor, action, subject, details, prev_hash, hash)
            VALUES (%s, %s, %s, %s, %s, %s::json, %s, %s)
            """,
            (
                *(entry.number, entry.at, entry.actor, entry.action, entry.subject),
                *(entry.details, entry.prev_hash, entry.hash),
            ),
        )
        conn.execute(
            """
            INSERT INTO audit_head (single, number, hash) VALUES (true, %(number)s, %(hash)s)
            ON CONFLICT (single) DO UPDATE SET number = excluded.number, hash = excluded.hash
            """,
            {"number": entry.number, "hash": entry.hash},
        )
    return entry


def was_said(
    conn: psycopg.Connection, action: str, subject: str, details: Mapping[str, str]
) -> bool:
    """Whether the log has an entry of this action on this subject with these details."""
    rows = conn.execute(
        "SELECT details FROM audit_log WHERE action = %s AND subject = %s", (action, subject)
    )
    return any(details.items() <= found.items() for (found,) in rows)


def head(conn: psycopg.Connection) -> tuple[int, str] | None:
    """The last entry's number and hash. A copy kept elsewhere proves that none was cut off."""
    row = conn.execute("SELECT number, hash FROM audit_head").fetchone()
    return (row[0], row[1]) if row else None


def entries(conn: psycopg.Connection) -> Iterator[Entry]:
    """The audit log from its first row, without holding it in memory."""
    with conn.transaction(), conn.cursor(name="audit_entries") as cursor:
        cursor.execute(
            "SELECT number, at, actor, action, subject, details::text, prev_hash, hash "
            "FROM audit_log ORDER BY number"
        )
        for row in cursor:
            yield Entry(*row)


def verify_chain(
    conn: psycopg.Connection, expected_head: tuple[int, str] | None = None
) -> Broken | None:
    """Where the log was altered or cut, or None where it holds.

    ``expected_head`` is a copy of ``head`` from elsewhere: with the database's own, somebody who
    can rewrite both tables and all hashes after a row goes unseen.
    """
    with conn.transaction():
        # A writer at work would show a head that the rows we read do not reach yet.
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (AUDIT_LOCK,))
        broken = first_broken(entries(conn), head(conn) or (0, "0" * 64))
        if broken is not None or expected_head is None:
            return broken
        number, expected = expected_head
        row = conn.execute("SELECT hash FROM audit_log WHERE number = %s", (number,)).fetchone()
    if row is None:
        return Broken(number, f"entry {number} is missing")
    return None if row[0] == expected else Broken(number, "it is not the entry that was kept")
