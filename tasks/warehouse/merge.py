"""The merge of one scan into findings and resources: set-based SQL, for one transaction.

Every statement reads the scan's rows from the loading dock (stage_*), where a load is one account's
rows under one number. Together they do to a whole scan what tasks.lifecycle.next_state does to one
finding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, date, datetime
from typing import LiteralString
from uuid import UUID

import psycopg
from psycopg import sql

from tasks.warehouse.partitions import has_partition, make_partition

MERGE_LOCK = 5_782_002  # merges run one after another: each compares with what the last one wrote

# Nothing is copied out of the loading dock but what is small: configurations are wide.
LOADS: LiteralString = """
SELECT load_id, cloud, account, observed_at
FROM stage_accounts
WHERE scan_id = %(scan)s AND failed = ''
"""

# Places that another scan covered without error as of the same time or later. What this scan says
# of them is older than what is known. Empty unless scans overlap or arrive late. The earliest time
# is given, so that coverage of past years is not even looked at.
KNOWN: LiteralString = """
SELECT c.cloud, c.account, c.region, c.kind, c.resource
FROM scan_coverage c
JOIN loads l ON l.cloud = c.cloud AND l.account = c.account
WHERE c.scan_id <> %(scan)s AND c.ok
  AND c.observed_at >= %(earliest)s AND c.observed_at >= l.observed_at
"""

# Resources that the loader knew by their digest. They are seen, whatever became of the digest
# since; what it says holds only where it is still the one that the warehouse has.
UNCHANGED: LiteralString = """
SELECT l.load_id, l.cloud, l.account, l.observed_at, u.id, r.last_seen_at,
       coalesce(r.gone_at IS NULL AND r.digest <> ''
                AND ('x' || left(r.digest, 16))::bit(64)::bigint = u.digest, false) AS holds
FROM loads l
JOIN stage_accounts a ON a.load_id = l.load_id AND a.scan_id = %(scan)s
CROSS JOIN LATERAL unnest(a.unchanged_ids, a.unchanged_digests) AS u (id, digest)
LEFT JOIN resources r ON r.cloud = l.cloud AND r.account = l.account AND r.id = u.id
"""

OBSERVATIONS = """
INSERT INTO observations (observed_at, scan_id, finding_id, cloud, account, region, rule, severity,
                          kind, resource, verdict, reason, detail)
SELECT l.observed_at, %(scan)s, o.finding_id, l.cloud, l.account, o.region, o.rule, o.severity,
       o.kind, o.resource, o.verdict, o.reason, o.detail
FROM stage_observations o
JOIN loads l USING (load_id)
"""

# What each word does to a finding that there is: see tasks.lifecycle.Change. A coverage row of the
# region "global" (or "*") speaks for the kind in every region; one with a resource only for that
# one. An unchanged resource says of its open findings what it said when it was written; a finding
# that was not observed then is none of a rule's that there is still.
CHANGES: LiteralString = """
SELECT f.id AS finding_id, l.observed_at, s.verdict, s.reason, s.severity,
       CASE
           WHEN s.verdict = 'unknown' THEN 'unknown'
           WHEN s.verdict = 'fail' AND f.status = 'open' THEN 'seen_again'
           WHEN s.verdict = 'fail' THEN 'reopened'
           WHEN f.status = 'open' THEN 'resolved'
           ELSE 'still_resolved'
       END AS change
FROM stage_observations s
JOIN loads l USING (load_id)
JOIN findings f ON f.id = s.finding_id
WHERE f.last_observed_at < l.observed_at
  AND NOT EXISTS (
      SELECT FROM known k
      WHERE k.cloud = l.cloud AND k.account = l.account AND k.kind = s.kind
        AND k.region IN (s.region, 'global', '*') AND k.resource IN ('', s.resource)
  )
UNION ALL
SELECT f.id, u.observed_at, f.verdict, f.reason, f.severity,
       CASE f.verdict WHEN 'unknown' THEN 'unknown' ELSE 'seen_again' END
FROM unchanged u
JOIN findings f ON f.cloud = u.cloud AND f.account = u.account AND f.resource = u.id
WHERE u.holds AND f.status = 'open'
  AND f.last_observed_at >= u.last_seen_at AND f.last_observed_at < u.observed_at
  AND NOT EXISTS (
      SELECT FROM known k
      WHERE k.cloud = f.cloud AND k.account = f.account AND k.kind = f.kind
        AND k.region IN (f.region, 'global', '*') AND k.resource IN ('', f.resource)
  )
"""

# The earliest moment of each month that a scan speaks of.
MOMENTS: LiteralString = """
SELECT min(observed_at)
FROM loads
GROUP BY date_trunc('month', observed_at AT TIME ZONE 'UTC')
"""

# A finding that was spoken of is among the changes already, or what was said of it was stale: then
# so would be its absence.
GONE = """
WITH unseen AS MATERIALIZED (
    SELECT l.load_id, l.observed_at, f.id, f.cloud, f.account, f.region, f.kind, f.resource,
           f.verdict, f.reason, f.severity
    FROM findings f
    JOIN loads l ON l.cloud = f.cloud AND l.account = f.account
    WHERE f.status = 'open' AND f.last_observed_at < l.observed_at
      AND NOT EXISTS (
          SELECT FROM stage_resources r WHERE r.load_id = l.load_id AND r.id = f.resource
      )
      AND NOT EXISTS (
          SELECT FROM unchanged u WHERE u.load_id = l.load_id AND u.id = f.resource
      )
      AND NOT EXISTS (SELECT FROM changes c WHERE c.finding_id = f.id)
)
INSERT INTO changes (finding_id, observed_at, verdict, reason, severity, change)
SELECT f.id, f.observed_at, f.verdict, f.reason, f.severity, 'gone'
FROM unseen f
JOIN stage_coverage c
  ON c.load_id = f.load_id AND c.kind = f.kind
 AND c.region IN (f.region, 'global', '*') AND c.resource IN ('', f.resource)
WHERE NOT EXISTS (
    SELECT FROM known k
    WHERE k.cloud = f.cloud AND k.account = f.account AND k.kind = f.kind
      AND k.region IN (f.region, 'global', '*') AND k.resource IN ('', f.resource)
)
GROUP BY f.id, f.observed_at, f.verdict, f.reason, f.severity
HAVING bool_and(c.ok)
"""

UPDATE_FINDINGS = """
UPDATE findings f
SET verdict = c.verdict,
    reason = c.reason,
    severity = CASE WHEN c.change IN ('unknown', 'gone') THEN f.severity ELSE c.severity END,
    last_observed_at = c.observed_at,
    last_seen_at = CASE WHEN c.change IN ('seen_again', 'reopened') THEN c.observed_at
                        ELSE f.last_seen_at END,
    status = CASE WHEN c.change IN ('resolved', 'gone') THEN 'resolved'
                  WHEN c.change = 'reopened' THEN 'open'
                  ELSE f.status END,
    opened_at = CASE WHEN c.change = 'reopened' THEN c.observed_at ELSE f.opened_at END,
    resolved_at = CASE WHEN c.change IN ('resolved', 'gone') THEN c.observed_at
                       WHEN c.change = 'reopened' THEN NULL
                       ELSE f.resolved_at END,
    resolution = CASE c.change WHEN 'resolved' THEN 'pass'
                               WHEN 'gone' THEN 'resource_gone'
                               WHEN 'reopened' THEN NULL
                               ELSE f.resolution END,
    reopened = f.reopened + (c.change = 'reopened')::integer,
    last_scan_id = %(scan)s
FROM changes c
WHERE f.id = c.finding_id
"""

# Episodes in the order of their index, which would else be written all over. Findings stay account
# by account: they are read so.
OPEN_NEW = """
WITH opened AS (
    INSERT INTO findings (id, cloud, account, region, rule, severity, kind, resource, detail,
                          status, verdict, reason, first_seen_at, opened_at, last_seen_at,
                          last_observed_at, last_scan_id)
    SELECT s.finding_id, l.cloud, l.account, s.region, s.rule, s.severity, s.kind, s.resource,
           s.detail, 'open', s.verdict, s.reason, l.observed_at, l.observed_at, l.observed_at,
           l.observed_at, %(scan)s
    FROM stage_observations s
    JOIN loads l USING (load_id)
    WHERE s.verdict = 'fail'
      AND NOT EXISTS (SELECT FROM findings f WHERE f.id = s.finding_id)
      AND NOT EXISTS (
          SELECT FROM known k
          WHERE k.cloud = l.cloud AND k.account = l.account AND k.kind = s.kind
            AND k.region IN (s.region, 'global', '*') AND k.resource IN ('', s.resource)
      )
    RETURNING id, severity, opened_at
)
INSERT INTO finding_episodes (finding_id, severity, opened_at, opened_by_scan)
SELECT id, severity, opened_at, %(scan)s
FROM opened
ORDER BY id
"""

CLOSE_EPISODES = """
UPDATE finding_episodes e
SET closed_at = c.observed_at, closed_by_scan = %(scan)s,
    resolution = CASE c.change WHEN 'gone' THEN 'resource_gone' ELSE 'pass' END
FROM changes c
WHERE e.finding_id = c.finding_id AND e.closed_at IS NULL AND c.change IN ('resolved', 'gone')
"""

OPEN_AGAIN = """
INSERT INTO finding_episodes (finding_id, severity, opened_at, opened_by_scan)
SELECT finding_id, severity, observed_at, %(scan)s
FROM changes
WHERE change = 'reopened'
ORDER BY finding_id
"""

UPDATE_RESOURCES = """
UPDATE resources r
SET region = s.region, kind = s.kind, name = s.name, tags = s.tags, config = s.config,
    gaps = s.gaps, etag = s.etag, fingerprint = s.fingerprint, digest = s.digest,
    changed_at = CASE WHEN r.fingerprint = s.fingerprint THEN r.changed_at ELSE l.observed_at END,
    last_seen_at = l.observed_at, gone_at = NULL, last_scan_id = %(scan)s
FROM stage_resources s
JOIN loads l USING (load_id)
WHERE r.cloud = l.cloud AND r.account = l.account AND r.id = s.id
  AND r.last_seen_at < l.observed_at
  AND NOT EXISTS (
      SELECT FROM known k
      WHERE k.cloud = l.cloud AND k.account = l.account AND k.kind = s.kind
        AND k.region IN (s.region, 'global', '*') AND k.resource IN ('', s.id)
  )
"""

INSERT_RESOURCES = """
INSERT INTO resources (cloud, account, id, region, kind, name, tags, config, gaps, etag,
                       fingerprint, digest, first_seen_at, changed_at, last_seen_at, last_scan_id)
SELECT l.cloud, l.account, s.id, s.region, s.kind, s.name, s.tags, s.config, s.gaps, s.etag,
       s.fingerprint, s.digest, l.observed_at, l.observed_at, l.observed_at, %(scan)s
FROM stage_resources s
JOIN loads l USING (load_id)
WHERE NOT EXISTS (
    SELECT FROM resources r WHERE r.cloud = l.cloud AND r.account = l.account AND r.id = s.id
)
AND NOT EXISTS (
    SELECT FROM known k
    WHERE k.cloud = l.cloud AND k.account = l.account AND k.kind = s.kind
      AND k.region IN (s.region, 'global', '*') AND k.resource IN ('', s.id)
)
"""

MARK_GONE = """
WITH unseen AS MATERIALIZED (
    SELECT l.load_id, l.observed_at, r.cloud, r.account, r.id, r.region, r.kind
    FROM resources r
    JOIN loads l ON l.cloud = r.cloud AND l.account = r.account
    WHERE r.gone_at IS NULL AND r.last_seen_at < l.observed_at {of_those}
      AND NOT EXISTS (
          SELECT FROM stage_resources s WHERE s.load_id = l.load_id AND s.id = r.id
      )
      AND NOT EXISTS (SELECT FROM unchanged u WHERE u.load_id = l.load_id AND u.id = r.id)
), missing AS (
    SELECT r.cloud, r.account, r.id, r.observed_at
    FROM unseen r
    JOIN stage_coverage c
      ON c.load_id = r.load_id AND c.kind = r.kind
     AND c.region IN (r.region, 'global', '*') AND c.resource IN ('', r.id)
    WHERE NOT EXISTS (
        SELECT FROM known k
        WHERE k.cloud = r.cloud AND k.account = r.account AND k.kind = r.kind
          AND k.region IN (r.region, 'global', '*') AND k.resource IN ('', r.id)
    )
    GROUP BY r.cloud, r.account, r.id, r.observed_at
    HAVING bool_and(c.ok)
)
UPDATE resources r
SET gone_at = m.observed_at
FROM missing m
WHERE r.cloud = m.cloud AND r.account = m.account AND r.id = m.id
"""

# Where a digest would no longer say all of its findings, it goes: the next scan then writes the
# resource in full. First: a finding went and its resource did not. Second: another scan came
# between the loader's look and this merge. Third: this scan is too late to write the resource, but
# its words are among the observations, and may have opened a finding.
FORGET_DIGESTS: tuple[LiteralString, ...] = (
    """
    UPDATE resources r SET digest = ''
    FROM changes c
    JOIN findings f ON f.id = c.finding_id
    WHERE c.change = 'gone' AND r.cloud = f.cloud AND r.account = f.account AND r.id = f.resource
      AND r.gone_at IS NULL AND r.digest <> ''
    """,
    """
    UPDATE resources r SET digest = ''
    FROM unchanged u
    WHERE NOT u.holds AND r.cloud = u.cloud AND r.account = u.account AND r.id = u.id
      AND r.digest <> ''
    """,
    """
    UPDATE resources r SET digest = ''
    FROM stage_resources s
    JOIN loads l USING (load_id)
    WHERE r.cloud = l.cloud AND r.account = l.account AND r.id = s.id
      AND r.last_scan_id <> %(scan)s AND r.digest NOT IN ('', s.digest)
    """,
)

COVERAGE = """
INSERT INTO scan_coverage (scan_id, cloud, account, region, kind, resource, ok, reason, observed_at,
                           resources, unchanged)
SELECT %(scan)s, l.cloud, l.account, c.region, c.kind, c.resource, bool_and(c.ok),
       coalesce(string_agg(c.reason, '; ') FILTER (WHERE NOT c.ok), ''), l.observed_at,
       max(c.resources), max(c.unchanged)
FROM stage_coverage c
JOIN loads l USING (load_id)
GROUP BY l.cloud, l.account, c.region, c.kind, c.resource, l.observed_at
"""

OUTCOMES = """
INSERT INTO scan_accounts (scan_id, cloud, account, source, status, reason, observed_at, resources,
                           unchanged, passed, failed, unknown, failed_critical, failed_high,
                           failed_medium, failed_low)
SELECT scan_id, cloud, account, source, CASE WHEN failed = '' THEN 'covered' ELSE 'failed' END,
       failed, observed_at, resources, unchanged, passed, failed_verdicts, unknown,
       failed_critical, failed_high, failed_medium, failed_low
FROM stage_accounts
WHERE scan_id = %(scan)s
ON CONFLICT (scan_id, cloud, account) DO UPDATE
SET status = excluded.status, reason = excluded.reason, observed_at = excluded.observed_at,
    resources = excluded.resources, unchanged = excluded.unchanged, passed = excluded.passed,
    failed = excluded.failed, unknown = excluded.unknown,
    failed_critical = excluded.failed_critical, failed_high = excluded.failed_high,
    failed_medium = excluded.failed_medium, failed_low = excluded.failed_low
"""

# A targeted scan read a resource, not the account: it says nothing of the account's coverage.
ACCOUNTS = """
INSERT INTO accounts AS known (cloud, id, name, source, status, tags, first_seen_at,
                               last_scanned_at, last_outcome_at, last_outcome, last_reason)
SELECT a.cloud, a.account, a.name, a.source, a.status, a.tags, a.observed_at,
       CASE WHEN a.failed = '' AND NOT s.targeted THEN a.observed_at END,
       CASE WHEN NOT s.targeted THEN a.observed_at END,
       CASE WHEN s.targeted THEN NULL WHEN a.failed = '' THEN 'covered' ELSE 'failed' END,
       CASE WHEN s.targeted THEN '' ELSE a.failed END
FROM stage_accounts a
JOIN scans s ON s.id = a.scan_id
WHERE a.scan_id = %(scan)s
ON CONFLICT (cloud, id) DO UPDATE
SET last_scanned_at = greatest(known.last_scanned_at, excluded.last_scanned_at),
    last_outcome_at = excluded.last_outcome_at,
    last_outcome = excluded.last_outcome,
    last_reason = excluded.last_reason
WHERE excluded.last_outcome_at IS NOT NULL
  AND (known.last_outcome_at IS NULL OR known.last_outcome_at <= excluded.last_outcome_at)
"""

COUNTS = """
UPDATE scans
SET state = %(state)s,
    merged_at = clock_timestamp(),
    finished_at = CASE WHEN %(state)s = 'finished' THEN clock_timestamp() ELSE finished_at END,
    resources = a.resources, unchanged = a.unchanged, observations = a.observations,
    unknown = a.unknown, gone = %(gone)s, opened = %(opened)s,
    seen_again = c.seen_again, resolved = c.resolved, reopened = c.reopened,
    accounts_covered = a.covered, accounts_failed = a.failed, accounts_skipped = a.skipped
FROM (
    SELECT count(*) FILTER (WHERE change = 'seen_again') AS seen_again,
           count(*) FILTER (WHERE change IN ('resolved', 'gone')) AS resolved,
           count(*) FILTER (WHERE change = 'reopened') AS reopened
    FROM changes
) c, (
    SELECT count(*) FILTER (WHERE status = 'covered') AS covered,
           count(*) FILTER (WHERE status IN ('failed', 'pending')) AS failed,
           count(*) FILTER (WHERE status = 'skipped') AS skipped,
           coalesce(sum(resources), 0) AS resources,
           coalesce(sum(unchanged), 0) AS unchanged,
           coalesce(sum(unknown), 0) AS unknown,
           coalesce(sum(passed + failed + unknown), 0) AS observations
    FROM scan_accounts WHERE scan_id = %(scan)s
) a
WHERE scans.id = %(scan)s
RETURNING opened, scans.seen_again, scans.resolved, scans.reopened, scans.unknown, gone
"""

# An interrupted scan goes on one day with what it has loaded.
OTHERS_LOADED = """
SELECT a.scan_id
FROM stage_accounts a
JOIN scans s ON s.id = a.scan_id
WHERE a.scan_id <> %(scan)s AND s.state IN ('running', 'interrupted')
LIMIT 1
"""

# What a merge works with, in this order: what each is made of.
WORK: Mapping[LiteralString, LiteralString] = {
    "loads": LOADS,
    "known": KNOWN,
    "unchanged": UNCHANGED,
    "changes": CHANGES,
}

STAGES: tuple[LiteralString, ...] = (
    "stage_observations",
    "stage_resources",
    "stage_coverage",
    "stage_accounts",
)

# A loading dock and a workplace of a connection's own, kept for its next small merge: to make them
# anew costs more than the merge. A few rows need no index, but for the one that says which load of
# an account counts. They are emptied when the next merge begins: a commit that empties tables takes
# as long as half a merge.
OWN_TABLES: LiteralString = "; ".join(
    [
        "SET search_path = public, pg_temp",
        *(
            f"CREATE TEMP TABLE {table} (LIKE public.{table} INCLUDING {what})"
            for table, what in zip(STAGES, ("DEFAULTS", "DEFAULTS", "DEFAULTS", "ALL"), strict=True)
        ),
    ]
)
_ALL_OWN: LiteralString = ", ".join(f"pg_temp.{table}" for table in (*STAGES, *WORK))
DROP_OWN: LiteralString = "DROP TABLE " + _ALL_OWN
TRUNCATE_OWN: LiteralString = "TRUNCATE " + _ALL_OWN
# What the last merge has left, in one statement.
_DELETES: LiteralString = ", ".join(
    f"_{table} AS (DELETE FROM pg_temp.{table})"  # noqa: S608 - ours
    for table in (*STAGES, *WORK)
)
CLEAR_OWN: LiteralString = f"WITH {_DELETES} SELECT"
# Deleted rows lie about until they are many: no vacuum comes by here.
MOST_LEFT = 256 * 1024  # bytes

# For this transaction: room to join a fleet in memory; samples that are large enough for us.
SETTINGS: Mapping[LiteralString, LiteralString] = {
    "work_mem": "128MB",
    "default_statistics_target": "10",
    "jit": "off",
}
# Few rows are looked up by an index each, whatever the planner guesses, by the plan of last time.
MOST_LOOKED_UP = 500
LOOK_UP: Mapping[LiteralString, LiteralString] = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "plan_cache_mode": "force_generic_plan",
}
OWN_PATH: Mapping[LiteralString, LiteralString] = {"search_path": "pg_temp, public"}


def _settings(*groups: Mapping[LiteralString, LiteralString]) -> LiteralString:
    """Expressions that make settings for this transaction: one statement makes all."""
    return ", ".join(
        f"set_config('{name}', '{value}', true)"
        for group in groups
        for name, value in group.items()
    )


# How much room the tables that grow take; empty where there are none.
_OWN: LiteralString = (
    "SELECT "
    + " + ".join(f"pg_total_relation_size(to_regclass('pg_temp.{table}'))" for table in STAGES)
    + ", "
)
OWN_FEW: LiteralString = _OWN + _settings(SETTINGS, LOOK_UP, OWN_PATH)
OWN_MANY: LiteralString = _OWN + _settings(SETTINGS, OWN_PATH)
# Among so many accounts no loop over rows is right, whatever the planner guesses of tables filled a
# moment ago.
MANY = 100
NO_LOOPS: LiteralString = "SET LOCAL enable_nestloop = off"
ANALYZE_STAGE = """
ANALYZE stage_accounts (load_id, scan_id), stage_coverage (load_id, region, kind),
        stage_resources (load_id, id), stage_observations (load_id, finding_id, verdict)
"""


def lock(conn: psycopg.Connection) -> None:
    """Wait until no other merge is under way; others wait until this transaction ends."""
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (MERGE_LOCK,))


def apply(conn: psycopg.Connection, scan: UUID) -> None:
    """Merge the loading dock's rows of ``scan``. The caller holds the transaction and the lock,
    and clears the loading dock.
    """
    if _has_own(conn):
        conn.execute(DROP_OWN)
    conn.execute("SELECT " + _settings(SETTINGS))
    conn.execute(ANALYZE_STAGE)  # nobody analyses tables that were filled a moment ago
    work = _Work(conn, scan)
    if work.fill("loads") > MANY:
        conn.execute(NO_LOOPS)
    work.look([moment for (moment,) in conn.execute(MOMENTS)])
    work.merge()
    conn.execute("DROP TABLE loads, known, unchanged, changes")


def apply_own(
    conn: psycopg.Connection, scan: UUID, at: datetime, rows: int, resources: Sequence[str] | None
) -> tuple[int, ...]:
    """Merge what is in this connection's ``own_stage``, under the lock, and end the scan. Returns
    its counts, in the order of MergeCounts.

    All was observed ``at`` one moment, in about so many ``rows``. Few are merged without a wait for
    each statement's answer: others wait for the lock meanwhile. ``resources`` are those that were
    covered, where no place was as a whole.
    """
    few = rows <= MOST_LOOKED_UP
    work = _Work(conn, scan, own=True, few=few, resources=resources)
    with ExitStack() as opened:
        if few and psycopg.Pipeline.is_supported():
            work.answered = opened.enter_context(conn.pipeline()).sync
        elif not few:
            conn.execute(ANALYZE_STAGE)
        if work.fill("loads") > MANY:
            conn.execute(NO_LOOPS)
        work.look([at])
        lock(conn)
        return work.merge()


class _Work:
    """The statements of one merge. ``answered`` waits for what became of those so far."""

    def __init__(
        self,
        conn: psycopg.Connection,
        scan: UUID,
        *,
        own: bool = False,
        few: bool = False,
        resources: Sequence[str] | None = None,
    ) -> None:
        self._conn, self._own, self._few = conn, own, few
        self._at: dict[str, object] = {"scan": scan}
        self._mark_gone = MARK_GONE.format(of_those="")
        if resources is not None:
            self._at["those"] = list(resources)
            self._mark_gone = MARK_GONE.format(of_those="AND r.id = ANY(%(those)s)")
        self._no_room: list[date] = []
        self.answered: Callable[[], None] = lambda: None

    def fill(self, table: LiteralString) -> int:
        """Fill one of the tables that a merge works with; how many rows it has, where not few."""
        made = "INSERT INTO {} " if self._own else "CREATE TEMP TABLE {} ON COMMIT DROP AS "
        rows = self._conn.execute(made.format(table) + WORK[table], self._at).rowcount
        if self._few:
            return 0
        if rows:
            self._conn.execute(f"ANALYZE {table}")
        return rows

    def look(self, moments: Sequence[datetime]) -> None:
        """What needs no lock: whether there is room for what was observed at these moments."""
        self._at["earliest"] = min(moments, default=None)
        months = {moment.astimezone(UTC).date().replace(day=1) for moment in moments}
        self._no_room = [one for one in sorted(months) if not has_partition(self._conn, one)]

    def merge(self) -> tuple[int, ...]:
        """The rest; returns what COUNTS does. What has a dock of its own is finished with it."""
        conn, at = self._conn, self._at
        for month in self._no_room:
            make_partition(conn, month)
        self.fill("known")
        if not self._own:  # what is read again is written in full
            self.fill("unchanged")
        conn.execute(OBSERVATIONS, at)
        self.fill("changes")
        if conn.execute(GONE, at).rowcount and not self._few:
            conn.execute("ANALYZE changes")
        conn.execute(UPDATE_FINDINGS, at)
        conn.execute(CLOSE_EPISODES, at)
        conn.execute(OPEN_AGAIN, at)
        opened = conn.execute(OPEN_NEW, at)
        conn.execute(UPDATE_RESOURCES, at)
        conn.execute(INSERT_RESOURCES, at)
        gone = conn.execute(self._mark_gone, at)
        for statement in (*FORGET_DIGESTS, COVERAGE, OUTCOMES, ACCOUNTS):
            conn.execute(statement, at)
        self.answered()
        state = "finished" if self._own else "merged"
        counted = {**at, "opened": opened.rowcount, "gone": gone.rowcount, "state": state}
        row = conn.execute(COUNTS, counted).fetchone()
        assert row is not None
        return tuple(row)


def own_stage(conn: psycopg.Connection, rows: int) -> None:
    """A loading dock that nobody else sees, for the rest of the caller's transaction, for about so
    many ``rows``.

    A scan of one resource would else look through all that a fleet scan has loaded so far. The
    temporary tables, which this connection keeps, hide the shared ones of the same names until the
    transaction ends; after that the shared ones are found first.
    """
    settings = OWN_FEW if rows <= MOST_LOOKED_UP else OWN_MANY
    (size, *_) = conn.execute(settings).fetchone() or (None,)
    if size is not None:
        conn.execute(CLEAR_OWN if size <= MOST_LEFT else TRUNCATE_OWN)
        return
    conn.execute(OWN_TABLES)
    conn.execute(settings)  # once more: making the tables has set the path of the whole session
    for table, made_of in WORK.items():
        conn.execute(
            f"CREATE TEMP TABLE {table} AS {made_of} WITH NO DATA",
            {"scan": None, "earliest": None},
        )


def _has_own(conn: psycopg.Connection) -> bool:
    return conn.execute("SELECT to_regclass('pg_temp.changes')").fetchone() != (None,)


def clear_stage(conn: psycopg.Connection, scan: UUID) -> None:
    """Empty the loading dock of one scan. In a transaction."""
    large = conn.execute("SELECT count(*) > 20 FROM stage_accounts WHERE scan_id = %s", (scan,))
    if large.fetchone() == (True,) and _truncated(conn, scan):
        return
    # Loads that were replaced have lost their account: so all that is nobody else's.
    for table in STAGES[:-1]:
        conn.execute(
            f"DELETE FROM {table} WHERE load_id NOT IN "  # noqa: S608 - ours
            "(SELECT load_id FROM stage_accounts WHERE scan_id <> %s)",
            (scan,),
        )
    conn.execute("DELETE FROM stage_accounts WHERE scan_id = %s", (scan,))


def _truncated(conn: psycopg.Connection, scan: UUID) -> bool:
    """Empty the whole loading dock at once, unless another scan is using it.

    Deleted rows of a fleet would lie about until a vacuum, and slow down every small merge.
    """
    tables = sql.SQL(", ").join(map(sql.Identifier, STAGES))
    try:
        with conn.transaction():
            conn.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE NOWAIT").format(tables))
            others = conn.execute(OTHERS_LOADED, {"scan": scan}).fetchone()
            if others is None:
                conn.execute(sql.SQL("TRUNCATE {}").format(tables))
    except psycopg.errors.LockNotAvailable:  # somebody is loading
        return False
    return others is None
