"""The audit log in the warehouse: appended one at a time, verified from first row to head.

Its tables are named with their schema: a temporary table of the same name is not read instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from tasks.audit import GENESIS, Broken, Entry, first_broken
from tasks.model import canonical_json
from tasks.warehouse.rows import clean

COLUMNS = "number, at, actor, action, subject, details::text, prev_hash, hash, version, salt"
ENTRIES = f"SELECT {COLUMNS} FROM public.audit_log"  # noqa: S608


def append(
    conn: psycopg.Connection,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, Any] | None = None,
) -> Entry:
    """Write down who did what to what. Never put a code into ``details``: it stays for ever.

    Inside a caller's transaction the entry is part of it, and other writers wait for its end. The
    database gives it its number, time and hash: the application's role can do nothing else.
    """
    said = (clean(actor), clean(action), clean(subject), canonical_json(dict(details or {})))
    row = conn.execute(
        f"SELECT {COLUMNS} FROM public.audit_append(%s::text, %s::text, %s::text, %s::text)",  # noqa: S608
        said,
    ).fetchone()
    assert row is not None
    return Entry(*row)


def was_said(
    conn: psycopg.Connection, action: str, subject: str, details: Mapping[str, str]
) -> bool:
    """Whether the log has an entry of this action on this subject with these details."""
    rows = conn.execute(
        "SELECT details FROM public.audit_log WHERE action = %s AND subject = %s", (action, subject)
    )
    return any(details.items() <= found.items() for (found,) in rows)


def head(conn: psycopg.Connection) -> tuple[int, str] | None:
    """The last entry's number and hash. A copy kept elsewhere proves that none was cut off."""
    row = conn.execute("SELECT number, hash FROM public.audit_head").fetchone()
    return (row[0], row[1]) if row and row[0] else None


def entries(conn: psycopg.Connection) -> Iterator[Entry]:
    """The audit log from its first row, without holding it in memory."""
    with conn.transaction(), conn.cursor(name="audit_entries") as cursor:
        cursor.execute(f"{ENTRIES} ORDER BY number")
        for row in cursor:
            yield Entry(*row)


def entries_about(conn: psycopg.Connection, subjects: Sequence[str]) -> list[Entry]:
    """The entries on any of these subjects, in order."""
    rows = conn.execute(f"{ENTRIES} WHERE subject = ANY(%s) ORDER BY number", (list(subjects),))
    return [Entry(*row) for row in rows]


def entries_from(conn: psycopg.Connection, number: int) -> list[Entry]:
    """The audit log from one entry to its end."""
    rows = conn.execute(f"{ENTRIES} WHERE number >= %s ORDER BY number", (number,))
    return [Entry(*row) for row in rows]


def verify_chain(
    conn: psycopg.Connection, expected_head: tuple[int, str] | None = None
) -> Broken | None:
    """Where the log was altered or cut, or None where it holds.

    ``expected_head`` is a copy of ``head`` from elsewhere: with the database's own, somebody who
    can rewrite both tables and all hashes after a row goes unseen.
    """
    with conn.transaction():
        # One look at both: a writer at work would show a head that the rows do not reach.
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        broken = first_broken(entries(conn), head(conn) or (0, GENESIS))
        if broken is not None or expected_head is None:
            return broken
        number, expected = expected_head
        row = conn.execute(
            "SELECT hash FROM public.audit_log WHERE number = %s", (number,)
        ).fetchone()
    if row is None:
        return Broken(number, f"entry {number} is missing")
    return None if row[0] == expected else Broken(number, "it is not the entry that was kept")
