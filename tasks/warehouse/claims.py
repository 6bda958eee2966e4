"""Who works at a scan: accounts handed out to many processes, scans held, stopped, gone on with.

Both are tied to session-level advisory locks, which PostgreSQL frees when a connection ends,
however its process ended. So a connection that claims or holds stays open, outside of a pooler that
shares it, for as long as the work takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import LiteralString

import psycopg
from psycopg.rows import dict_row

from tasks.errors import BadInput
from tasks.model import Account
from tasks.warehouse.rows import clean, to_account
from tasks.warehouse.scans import finish_scan, scan_uuid, selection_key

ABANDONED = "It was abandoned: the process that ran it ended, and nobody went on with it in time."
CLAIMS = 5_782_004  # the first half of a claim's advisory lock; the second is its number

SUBSCRIPTIONS = 10  # count as one account: they share what they ask, and are better off together

# All of one cloud and one source: a batch is scanned with one identity. A row that another claim
# holds this moment is passed over, not waited for.
CLAIM = """
WITH first AS (
    SELECT cloud, source
    FROM scan_accounts
    WHERE scan_id = %(scan)s AND status = 'pending' AND claim IS NULL
    ORDER BY cloud, source, account
    LIMIT 1
    FOR UPDATE SKIP LOCKED
), taken AS (
    SELECT cloud, account
    FROM scan_accounts
    WHERE scan_id = %(scan)s AND status = 'pending' AND claim IS NULL
      AND cloud = (SELECT cloud FROM first) AND source = (SELECT source FROM first)
    ORDER BY account
    LIMIT %(limit)s
          * CASE (SELECT cloud FROM first) WHEN 'azure' THEN %(subscriptions)s ELSE 1 END
    FOR UPDATE SKIP LOCKED
), claimed AS (
    UPDATE scan_accounts s
    SET claim = %(claim)s
    FROM taken t
    WHERE s.scan_id = %(scan)s AND s.cloud = t.cloud AND s.account = t.account
    RETURNING s.cloud, s.account
)
SELECT a.*
FROM claimed c
JOIN accounts a ON a.cloud = c.cloud AND a.id = c.account
ORDER BY a.id
"""

# What nobody has loaded, or left out.
LEFT_OVER: LiteralString = """
s.scan_id = %(scan)s AND s.status = 'pending' AND NOT EXISTS (
    SELECT FROM stage_accounts t
    WHERE t.scan_id = s.scan_id AND t.cloud = s.cloud AND t.account = s.account
)
"""

# A claim whose lock nobody has is of a process that is no more, or of a server that was started
# anew. What it has loaded counts; where the loading dock was emptied by a crash, it has not.
FREE_LOST: LiteralString = f"""
UPDATE scan_accounts s
SET claim = NULL
WHERE {LEFT_OVER} AND s.claim IS NOT NULL
  AND s.claim <> ALL (
      ARRAY(
          SELECT l.objid::bigint::integer
          FROM pg_locks l
          JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
          WHERE l.locktype = 'advisory' AND l.classid = %(claims)s AND l.objsubid = 2
            AND l.granted
      )
  )
"""  # noqa: S608 - ours

OWN_CLAIM = """
SELECT objid::bigint::integer
FROM pg_locks
WHERE locktype = 'advisory' AND classid = %s AND objsubid = 2 AND pid = pg_backend_pid() AND granted
"""

REMAINING: LiteralString = f"SELECT count(*) FROM scan_accounts s WHERE {LEFT_OVER}"  # noqa: S608 - ours

# A batch is of one source; of Azure's it takes more.
BATCHES: LiteralString = f"""
SELECT coalesce(sum(ceil(accounts / batch)), 0)::integer
FROM (
    SELECT count(*)::numeric AS accounts,
           %(limit)s * CASE s.cloud WHEN 'azure' THEN %(subscriptions)s ELSE 1 END AS batch
    FROM scan_accounts s
    WHERE {LEFT_OVER}
    GROUP BY s.cloud, s.source
) of_a_source
"""  # noqa: S608 - ours

# Scans that somebody holds: the lock is the first half of the scan's id.
KEY: LiteralString = "('x' || left(replace(s.id::text, '-', ''), 16))::bit(64)::bigint"
HELD: LiteralString = f"""
EXISTS (
    SELECT FROM pg_locks l
    JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
      AND ((l.classid::bigint << 32) | l.objid::bigint) = {KEY}
)
"""


def claim_accounts(conn: psycopg.Connection, scan_id: str, limit: int) -> list[Account]:
    """Take up to ``limit`` accounts of the scan that nobody has taken and nobody has loaded.

    They are of one cloud and one source (of Azure, ten times ``limit``), and this connection's
    until it loads them, gives them back (``release_claims``) or ends. Accounts of processes that
    ended before they loaded are handed out when no others are left. Empty: all are loaded, or
    others are at work on the rest (see ``remaining``). Raises BadInput where ``limit`` is less than
    one.
    """
    if limit < 1:
        raise BadInput("limit", f"{limit} takes nothing.", "Write a number of at least 1.")
    given = {
        "scan": scan_uuid(scan_id),
        "limit": limit,
        "subscriptions": SUBSCRIPTIONS,
        "claims": CLAIMS,
        "claim": _own_claim(conn),
    }
    with conn.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(CLAIM, given).fetchall()
        if not rows and cursor.execute(FREE_LOST, given).rowcount:
            rows = cursor.execute(CLAIM, given).fetchall()
    return [to_account(row) for row in rows]


def release_claims(conn: psycopg.Connection, scan_id: str) -> int:
    """Give back what this connection took and did not load: a batch broke, the process lives on."""
    return conn.execute(
        f"UPDATE scan_accounts s SET claim = NULL WHERE {LEFT_OVER} AND s.claim = %(claim)s",  # noqa: S608 - ours
        {"scan": scan_uuid(scan_id), "claim": _own_claim(conn)},
    ).rowcount


def remaining(conn: psycopg.Connection, scan_id: str) -> int:
    """How many of the scan's accounts are neither loaded nor skipped, claimed or not."""
    row = conn.execute(REMAINING, {"scan": scan_uuid(scan_id)}).fetchone()
    assert row is not None
    return int(row[0])


def batches_left(conn: psycopg.Connection, scan_id: str, limit: int) -> int:
    """How many batches of up to ``limit`` accounts what remains makes: see ``claim_accounts``."""
    given = {"scan": scan_uuid(scan_id), "limit": limit, "subscriptions": SUBSCRIPTIONS}
    row = conn.execute(BATCHES, given).fetchone()
    assert row is not None
    return int(row[0])


def hold_scan(conn: psycopg.Connection, scan_id: str) -> bool:
    """Make this connection the one that runs the scan. False: another does.

    A scan that was interrupted is running again. Raises BadInput where there is none of that id.
    """
    scan = scan_uuid(scan_id)
    row = conn.execute(
        f"SELECT {KEY} FROM scans s WHERE s.id = %s",  # noqa: S608 - ours
        (scan,),
    ).fetchone()
    if row is None:
        raise BadInput("scan_id", f"there is no scan {scan_id}.")
    got = conn.execute("SELECT pg_try_advisory_lock(%s)", (row[0],)).fetchone()
    if got != (True,):
        return False
    conn.execute(
        "UPDATE scans SET state = 'running', message = '' WHERE id = %s AND state = 'interrupted'",
        (scan,),
    )
    return True


def unfinished_scan(
    conn: psycopg.Connection, selection: Sequence[str], younger_than: timedelta
) -> str | None:
    """The newest fleet scan that was asked for the same, was not merged and that nobody runs.

    None where there is none that began within ``younger_than``: what was read before that is too
    old to be merged as if it were of today.
    """
    row = conn.execute(
        f"""
        SELECT s.id
        FROM scans s
        WHERE NOT s.targeted AND s.merged_at IS NULL AND s.state IN ('running', 'interrupted')
          AND s.selection = %s AND s.started_at > now() - %s AND NOT {HELD}
        ORDER BY s.started_at DESC, s.id
        LIMIT 1
        """,  # noqa: S608 - ours
        (selection_key(selection), younger_than),
    ).fetchone()
    return str(row[0]) if row else None


def interrupt_scan(conn: psycopg.Connection, scan_id: str, message: str) -> None:
    """Write down that a scan was stopped before its merge. What it has loaded waits for the rest.

    A scan that was merged or has ended stays as it is.
    """
    conn.execute(
        """
        UPDATE scans SET state = 'interrupted', message = %s
        WHERE id = %s AND merged_at IS NULL AND state IN ('running', 'interrupted')
        """,
        (clean(message), scan_uuid(scan_id)),
    )


def close_abandoned(conn: psycopg.Connection, older_than: timedelta) -> list[str]:
    """End the scans that nobody runs and that are too old to go on with; returns their ids.

    What they loaded is dropped. One that was merged and then lost only its end is finished.
    """
    rows = conn.execute(
        f"""
        SELECT s.id, s.merged_at IS NOT NULL
        FROM scans s
        WHERE NOT s.targeted AND s.finished_at IS NULL AND s.started_at <= now() - %s
          AND NOT {HELD}
        ORDER BY s.started_at, s.id
        """,  # noqa: S608 - ours
        (older_than,),
    ).fetchall()
    for scan, merged in rows:
        if merged and not remaining(conn, str(scan)):
            finish_scan(conn, str(scan))
        else:
            finish_scan(
                conn, str(scan), "failed", "It was abandoned: the process that ran it ended."
            )
    return [str(scan) for scan, _ in rows]


def _own_claim(conn: psycopg.Connection) -> int:
    """The number of this connection's claims: an advisory lock that it has, or takes now."""
    row = conn.execute(OWN_CLAIM, (CLAIMS,)).fetchone()
    if row is None:
        row = conn.execute("SELECT nextval('claim_ids')::integer").fetchone()
        assert row is not None
        conn.execute("SELECT pg_advisory_lock(%s, %s)", (CLAIMS, row[0]))
    return int(row[0])
