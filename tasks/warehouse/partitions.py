"""Monthly partitions of the observations, made ahead of time, and what is dropped when old."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import psycopg
from psycopg import sql

from tasks.errors import BadInput

PREFIX = "observations_"


@dataclass(frozen=True, slots=True)
class Retired:
    """What ``retire`` dropped. ``scans`` and ``events`` count those, the others rows; partitions
    are named.
    """

    partitions: tuple[str, ...]
    scans: int
    scan_accounts: int
    scan_coverage: int
    events: int = 0


def make_partitions(conn: psycopg.Connection, ahead: int = 2) -> list[str]:
    """The partitions of observations for this month and ``ahead`` more, made where missing.

    Returns the names of the new ones. The merge makes those that it needs, too; made beforehand,
    they cost no scan the lock on the table. Raises BadInput where ``ahead`` is negative.
    """
    if ahead < 0:
        raise BadInput("ahead", f"{ahead} is negative.", "Write how many months, such as 2.")
    month = datetime.now(UTC).date().replace(day=1)
    made = []
    for _ in range(ahead + 1):
        with conn.transaction():
            if make_partition(conn, month):
                made.append(_name(month))
        month = _following(month)
    return made


def make_partition(conn: psycopg.Connection, month: date) -> bool:
    """The partition of observations for a month (its first day, UTC). False: it was there."""
    name = _name(month)
    if _exists(conn, name):
        return False
    # Two at once would both find it missing.
    conn.execute("LOCK TABLE observations IN SHARE UPDATE EXCLUSIVE MODE")
    if _exists(conn, name):
        return False
    conn.execute(
        sql.SQL("CREATE TABLE {} PARTITION OF observations FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier("public", name),  # a merge's first place is for temporary tables
            sql.Literal(f"{month} 00:00:00+00"),
            sql.Literal(f"{_following(month)} 00:00:00+00"),
        )
    )
    conn.execute(
        sql.SQL("COMMENT ON TABLE {} IS {}").format(
            sql.Identifier(name), sql.Literal(f"Observations of {month:%B %Y} (UTC)")
        )
    )
    return True


def has_partition(conn: psycopg.Connection, month: date) -> bool:
    """Whether observations of a month (its first day, UTC) have their place."""
    return _exists(conn, _name(month))


def _exists(conn: psycopg.Connection, name: str) -> bool:
    return conn.execute("SELECT to_regclass(%s)", (name,)).fetchone() != (None,)


def retire(
    conn: psycopg.Connection, observations_months: int = 13, scans_days: int = 400
) -> Retired:
    """Drop old observations, month by month, and what is kept of how old scans went.

    ``observations_months`` whole months stay beside the current one. Scans that began more than
    ``scans_days`` ago go with their accounts and coverage, but for those that the newest look at an
    account is of, that findings still say were the last or first to see them, or that have not
    ended; events that were received before then go with what they were about, once all of that is
    done. Findings, episodes, remediations, snapshots and the audit log are never touched. Raises
    BadInput where a number is less than one.
    """
    for field, value in (("observations_months", observations_months), ("scans_days", scans_days)):
        if value < 1:
            raise BadInput(field, f"{value} keeps nothing.", "Write a number of at least 1.")
    with conn.transaction():
        partitions = tuple(_drop_partitions(conn, observations_months))
    with conn.transaction():
        # Made once: the four statements must mean the same scans.
        conn.execute(OLD_SCANS, {"before": datetime.now(UTC) - timedelta(days=scans_days)})
        coverage = conn.execute(
            "DELETE FROM scan_coverage c USING old_scans o WHERE c.scan_id = o.id"
        ).rowcount
        accounts = conn.execute(
            "DELETE FROM scan_accounts a USING old_scans o WHERE a.scan_id = o.id"
        ).rowcount
        scans = conn.execute("DELETE FROM scans s USING old_scans o WHERE s.id = o.id").rowcount
        conn.execute("DROP TABLE old_scans")
    events = conn.execute(OLD_EVENTS, {"before": datetime.now(UTC) - timedelta(days=scans_days)})
    return Retired(partitions, scans, accounts, coverage, events.rowcount)


OLD_EVENTS = """
DELETE FROM events e
WHERE e.received_at < %(before)s
  AND NOT EXISTS (
      SELECT FROM event_targets t
      WHERE t.cloud = e.cloud AND t.event_id = e.id AND t.state = 'pending'
  )
"""


# A scan that covered an account nobody has covered since is the only proof of what is known of it,
# and a scan that open findings and episodes name is looked up from there.
OLD_SCANS = """
CREATE TEMP TABLE old_scans ON COMMIT DROP AS
SELECT s.id
FROM scans s
WHERE s.started_at < %(before)s AND s.finished_at IS NOT NULL
  AND NOT EXISTS (
      SELECT FROM scan_accounts sa
      JOIN accounts a ON a.cloud = sa.cloud AND a.id = sa.account
      WHERE sa.scan_id = s.id AND NOT s.targeted AND sa.status = 'covered'
        AND a.last_scanned_at <= sa.observed_at
  )
  AND NOT EXISTS (
      SELECT FROM finding_episodes e WHERE e.closed_at IS NULL AND e.opened_by_scan = s.id
  )
  AND NOT EXISTS (
      SELECT FROM findings f WHERE f.status = 'open' AND f.last_scan_id = s.id
  )
"""


# Their last verdicts are in a partition that is next to go: the next scan writes them anew.
FORGET_OLD_DIGESTS = "UPDATE resources SET digest = '' WHERE digest <> '' AND last_seen_at < %s"


def _drop_partitions(conn: psycopg.Connection, months: int) -> list[str]:
    oldest = datetime.now(UTC).date().replace(day=1)
    for _ in range(months):
        oldest = (oldest - timedelta(days=1)).replace(day=1)
    rows = conn.execute(
        """
        SELECT c.relname
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = 'observations'::regclass
        ORDER BY c.relname
        """
    ).fetchall()
    dropped = []
    for (name,) in rows:
        month = _month(name)
        if month is not None and month < oldest:
            conn.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
            dropped.append(name)
    conn.execute("DELETE FROM observations_other WHERE observed_at < %s", (_start(oldest),))
    conn.execute(FORGET_OLD_DIGESTS, (_start(_following(oldest)),))
    return dropped


def _start(month: date) -> datetime:
    return datetime(month.year, month.month, month.day, tzinfo=UTC)


def _name(month: date) -> str:
    return f"{PREFIX}{month:%Y_%m}"


def _month(name: str) -> date | None:
    """The month of a partition; None for the one that takes the rest, and for strangers."""
    try:
        return datetime.strptime(name, f"{PREFIX}%Y_%m").replace(tzinfo=UTC).date()
    except ValueError:
        return None


def _following(month: date) -> date:
    return (month.replace(day=28) + timedelta(days=7)).replace(day=1)
