"""The merge of one scan into findings and resources: set-based SQL, for one transaction.

Every statement reads the scan's rows from the loading dock (stage_*) and takes %(scan)s. Together
they do to a whole scan what tasks.lifecycle.next_state does to one finding.
"""

from __future__ import annotations

from datetime import timedelta
from typing import LiteralString
from uuid import UUID

import psycopg
from psycopg import sql

# Places that another scan covered without error as of the same time or later. What this scan says
# of them is older than what is known. Empty unless scans overlap or arrive late.
KNOWN = """
CREATE TEMP TABLE known ON COMMIT DROP AS
SELECT c.cloud, c.account, c.region, c.kind, c.resource
FROM scan_coverage c
JOIN stage_accounts a ON a.cloud = c.cloud AND a.account = c.account
WHERE a.scan_id = %(scan)s AND a.failed = '' AND c.scan_id <> %(scan)s
  AND c.ok AND c.observed_at >= a.observed_at
"""

COVERED = """
CREATE TEMP TABLE covered ON COMMIT DROP AS
SELECT a.cloud, a.account, c.region, c.kind, c.resource, c.ok, a.observed_at
FROM stage_coverage c
JOIN stage_accounts a ON a.scan_id = c.scan_id AND a.load_id = c.load_id
WHERE c.scan_id = %(scan)s AND a.failed = ''
"""

SEEN = """
CREATE TEMP TABLE seen ON COMMIT DROP AS
SELECT a.cloud, a.account, a.observed_at, r.id, r.region, r.kind, r.name, r.tags, r.config,
       r.gaps, r.etag, r.fingerprint
FROM stage_resources r
JOIN stage_accounts a ON a.scan_id = r.scan_id AND a.load_id = r.load_id
WHERE r.scan_id = %(scan)s AND a.failed = ''
"""

SAID = """
CREATE TEMP TABLE said ON COMMIT DROP AS
SELECT a.cloud, a.account, a.observed_at, o.finding_id, o.region, o.rule, o.severity, o.kind,
       o.resource, o.verdict, o.reason, o.detail
FROM stage_observations o
JOIN stage_accounts a ON a.scan_id = o.scan_id AND a.load_id = o.load_id
WHERE o.scan_id = %(scan)s AND a.failed = ''
"""

OBSERVATIONS = """
INSERT INTO observations (observed_at, scan_id, finding_id, cloud, account, region, rule, severity,
                          kind, resource, verdict, reason, detail)
SELECT observed_at, %(scan)s, finding_id, cloud, account, region, rule, severity, kind, resource,
       verdict, reason, detail
FROM said
"""

# What each word does to its finding: see tasks.lifecycle.Change. A coverage row of the region
# "global" (or "*") speaks for the kind in every region; one with a resource only for that one.
CHANGES = """
CREATE TEMP TABLE changes ON COMMIT DROP AS
WITH unseen AS MATERIALIZED (
    SELECT f.*
    FROM findings f
    WHERE f.status = 'open'
      AND (f.cloud, f.account) IN (SELECT cloud, account FROM covered)
      AND NOT EXISTS (SELECT FROM said s WHERE s.finding_id = f.id)
      AND NOT EXISTS (
          SELECT FROM seen r
          WHERE r.cloud = f.cloud AND r.account = f.account AND r.id = f.resource
      )
), missing AS (
    SELECT f.id, f.cloud, f.account, f.region, f.rule, f.severity, f.kind, f.resource, f.detail,
           f.verdict, f.reason, c.observed_at
    FROM unseen f
    JOIN covered c
      ON c.cloud = f.cloud AND c.account = f.account AND c.kind = f.kind
     AND c.region IN (f.region, 'global', '*') AND c.resource IN ('', f.resource)
    WHERE NOT EXISTS (
        SELECT FROM known k
        WHERE k.cloud = f.cloud AND k.account = f.account AND k.kind = f.kind
          AND k.region IN (f.region, 'global', '*') AND k.resource IN ('', f.resource)
    )
    GROUP BY f.id, f.cloud, f.account, f.region, f.rule, f.severity, f.kind, f.resource, f.detail,
             f.verdict, f.reason, f.last_observed_at, c.observed_at
    HAVING bool_and(c.ok) AND f.last_observed_at < c.observed_at
)
SELECT s.finding_id, s.cloud, s.account, s.region, s.rule, s.severity, s.kind, s.resource,
       s.detail, s.verdict, s.reason, s.observed_at,
       CASE
           WHEN f.id IS NULL THEN 'opened'
           WHEN s.verdict = 'unknown' THEN 'unknown'
           WHEN s.verdict = 'fail' AND f.status = 'open' THEN 'seen_again'
           WHEN s.verdict = 'fail' THEN 'reopened'
           WHEN f.status = 'open' THEN 'resolved'
           ELSE 'still_resolved'
       END AS change
FROM said s
LEFT JOIN findings f ON f.id = s.finding_id
WHERE (f.id IS NOT NULL OR s.verdict = 'fail')
  AND (f.id IS NULL OR f.last_observed_at < s.observed_at)
  AND NOT EXISTS (
      SELECT FROM known k
      WHERE k.cloud = s.cloud AND k.account = s.account AND k.kind = s.kind
        AND k.region IN (s.region, 'global', '*') AND k.resource IN ('', s.resource)
  )
UNION ALL
SELECT m.id, m.cloud, m.account, m.region, m.rule, m.severity, m.kind, m.resource,
       m.detail, m.verdict, m.reason, m.observed_at, 'gone'
FROM missing m
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
WHERE f.id = c.finding_id AND c.change <> 'opened'
"""

INSERT_FINDINGS = """
INSERT INTO findings (id, cloud, account, region, rule, severity, kind, resource, detail, status,
                      verdict, reason, first_seen_at, opened_at, last_seen_at, last_observed_at,
                      last_scan_id)
SELECT finding_id, cloud, account, region, rule, severity, kind, resource, detail, 'open',
       verdict, reason, observed_at, observed_at, observed_at, observed_at, %(scan)s
FROM changes
WHERE change = 'opened'
"""

CLOSE_EPISODES = """
UPDATE finding_episodes e
SET closed_at = c.observed_at, closed_by_scan = %(scan)s,
    resolution = CASE c.change WHEN 'gone' THEN 'resource_gone' ELSE 'pass' END
FROM changes c
WHERE e.finding_id = c.finding_id AND e.closed_at IS NULL AND c.change IN ('resolved', 'gone')
"""

OPEN_EPISODES = """
INSERT INTO finding_episodes (finding_id, severity, opened_at, opened_by_scan)
SELECT finding_id, severity, observed_at, %(scan)s
FROM changes
WHERE change IN ('opened', 'reopened')
"""

UPSERT_RESOURCES = """
INSERT INTO resources AS r (cloud, account, id, region, kind, name, tags, config, gaps, etag,
                            fingerprint, first_seen_at, changed_at, last_seen_at, last_scan_id)
SELECT s.cloud, s.account, s.id, s.region, s.kind, s.name, s.tags, s.config, s.gaps, s.etag,
       s.fingerprint, s.observed_at, s.observed_at, s.observed_at, %(scan)s
FROM seen s
WHERE NOT EXISTS (
    SELECT FROM known k
    WHERE k.cloud = s.cloud AND k.account = s.account AND k.kind = s.kind
      AND k.region IN (s.region, 'global', '*') AND k.resource IN ('', s.id)
)
ON CONFLICT (cloud, account, id) DO UPDATE
SET region = excluded.region, kind = excluded.kind, name = excluded.name, tags = excluded.tags,
    config = excluded.config, gaps = excluded.gaps, etag = excluded.etag,
    fingerprint = excluded.fingerprint,
    changed_at = CASE WHEN r.fingerprint = excluded.fingerprint THEN r.changed_at
                      ELSE excluded.changed_at END,
    last_seen_at = excluded.last_seen_at, gone_at = NULL, last_scan_id = excluded.last_scan_id
WHERE r.last_seen_at < excluded.last_seen_at
"""

MARK_GONE = """
WITH unseen AS MATERIALIZED (
    SELECT r.cloud, r.account, r.id, r.region, r.kind, r.last_seen_at
    FROM resources r
    WHERE r.gone_at IS NULL
      AND (r.cloud, r.account) IN (SELECT cloud, account FROM covered)
      AND NOT EXISTS (
          SELECT FROM seen s WHERE s.cloud = r.cloud AND s.account = r.account AND s.id = r.id
      )
), missing AS (
    SELECT r.cloud, r.account, r.id, c.observed_at
    FROM unseen r
    JOIN covered c
      ON c.cloud = r.cloud AND c.account = r.account AND c.kind = r.kind
     AND c.region IN (r.region, 'global', '*') AND c.resource IN ('', r.id)
    WHERE NOT EXISTS (
        SELECT FROM known k
        WHERE k.cloud = r.cloud AND k.account = r.account AND k.kind = r.kind
          AND k.region IN (r.region, 'global', '*') AND k.resource IN ('', r.id)
    )
    GROUP BY r.cloud, r.account, r.id, r.last_seen_at, c.observed_at
    HAVING bool_and(c.ok) AND r.last_seen_at < c.observed_at
)
UPDATE resources r
SET gone_at = m.observed_at
FROM missing m
WHERE r.cloud = m.cloud AND r.account = m.account AND r.id = m.id
"""

COVERAGE = """
INSERT INTO scan_coverage (scan_id, cloud, account, region, kind, resource, ok, reason, observed_at)
SELECT %(scan)s, a.cloud, a.account, c.region, c.kind, c.resource, bool_and(c.ok),
       coalesce(string_agg(c.reason, '; ') FILTER (WHERE NOT c.ok), ''), a.observed_at
FROM stage_coverage c
JOIN stage_accounts a ON a.scan_id = c.scan_id AND a.load_id = c.load_id
WHERE c.scan_id = %(scan)s AND a.failed = ''
GROUP BY a.cloud, a.account, c.region, c.kind, c.resource, a.observed_at
"""

OUTCOMES = """
INSERT INTO scan_accounts (scan_id, cloud, account, status, reason, observed_at, resources, passed,
                           failed, unknown, failed_critical, failed_high, failed_medium, failed_low)
SELECT %(scan)s, a.cloud, a.account,
       CASE WHEN a.failed = '' THEN 'covered' ELSE 'failed' END, a.failed, a.observed_at,
       coalesce(r.resources, 0), coalesce(o.passed, 0), coalesce(o.failed, 0),
       coalesce(o.unknown, 0), coalesce(o.failed_critical, 0), coalesce(o.failed_high, 0),
       coalesce(o.failed_medium, 0), coalesce(o.failed_low, 0)
FROM stage_accounts a
LEFT JOIN (
    SELECT cloud, account, count(*) AS resources FROM seen GROUP BY cloud, account
) r ON r.cloud = a.cloud AND r.account = a.account
LEFT JOIN (
    SELECT cloud, account,
           count(*) FILTER (WHERE verdict = 'pass') AS passed,
           count(*) FILTER (WHERE verdict = 'fail') AS failed,
           count(*) FILTER (WHERE verdict = 'unknown') AS unknown,
           count(*) FILTER (WHERE verdict = 'fail' AND severity = 'critical') AS failed_critical,
           count(*) FILTER (WHERE verdict = 'fail' AND severity = 'high') AS failed_high,
           count(*) FILTER (WHERE verdict = 'fail' AND severity = 'medium') AS failed_medium,
           count(*) FILTER (WHERE verdict = 'fail' AND severity = 'low') AS failed_low
    FROM said GROUP BY cloud, account
) o ON o.cloud = a.cloud AND o.account = a.account
WHERE a.scan_id = %(scan)s
ON CONFLICT (scan_id, cloud, account) DO UPDATE
SET status = excluded.status, reason = excluded.reason, observed_at = excluded.observed_at,
    resources = excluded.resources, passed = excluded.passed, failed = excluded.failed,
    unknown = excluded.unknown, failed_critical = excluded.failed_critical,
    failed_high = excluded.failed_high, failed_medium = excluded.failed_medium,
    failed_low = excluded.failed_low
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
SET state = 'merged',
    merged_at = clock_timestamp(),
    resources = (SELECT count(*) FROM seen),
    observations = (SELECT count(*) FROM said),
    unknown = (SELECT count(*) FROM said WHERE verdict = 'unknown'),
    gone = %(gone)s,
    opened = c.opened, seen_again = c.seen_again, resolved = c.resolved, reopened = c.reopened,
    accounts_covered = a.covered, accounts_failed = a.failed, accounts_skipped = a.skipped
FROM (
    SELECT count(*) FILTER (WHERE change = 'opened') AS opened,
           count(*) FILTER (WHERE change = 'seen_again') AS seen_again,
           count(*) FILTER (WHERE change IN ('resolved', 'gone')) AS resolved,
           count(*) FILTER (WHERE change = 'reopened') AS reopened
    FROM changes
) c, (
    SELECT count(*) FILTER (WHERE status = 'covered') AS covered,
           count(*) FILTER (WHERE status IN ('failed', 'pending')) AS failed,
           count(*) FILTER (WHERE status = 'skipped') AS skipped
    FROM scan_accounts WHERE scan_id = %(scan)s
) a
WHERE scans.id = %(scan)s
"""

# A scan that has run for days was abandoned: what it loaded may go.
OTHERS_LOADED = """
SELECT a.scan_id
FROM stage_accounts a
JOIN scans s ON s.id = a.scan_id
WHERE a.scan_id <> %(scan)s AND s.state = 'running' AND s.started_at > now() - interval '2 days'
LIMIT 1
"""

STAGES: tuple[LiteralString, ...] = (
    "stage_observations",
    "stage_resources",
    "stage_coverage",
    "stage_accounts",
)


def apply(conn: psycopg.Connection, scan: UUID) -> None:
    """Merge the loading dock's rows of ``scan``. The caller holds the transaction and the lock."""
    at = {"scan": scan}
    # Nobody analyses tables that were filled a moment ago (nor temporary ones, ever), and without
    # it the planner takes them for small and loops over rows.
    conn.execute("ANALYZE stage_accounts, stage_coverage, stage_resources, stage_observations")
    for statement, table in (
        (KNOWN, "known"),
        (COVERED, "covered"),
        (SEEN, "seen"),
        (SAID, "said"),
    ):
        conn.execute(statement, at)
        conn.execute(f"ANALYZE {table}")
    _make_partitions(conn)
    conn.execute(OBSERVATIONS, at)
    conn.execute(CHANGES, at)
    conn.execute("ANALYZE changes")
    for statement in (UPDATE_FINDINGS, INSERT_FINDINGS, CLOSE_EPISODES, OPEN_EPISODES):
        conn.execute(statement, at)
    conn.execute(UPSERT_RESOURCES, at)
    gone = conn.execute(MARK_GONE, at).rowcount
    for statement in (COVERAGE, OUTCOMES, ACCOUNTS):
        conn.execute(statement, at)
    conn.execute(COUNTS, at | {"gone": gone})
    clear_stage(conn, scan)
    conn.execute("DROP TABLE known, covered, seen, said, changes")


def clear_stage(conn: psycopg.Connection, scan: UUID) -> None:
    """Empty the loading dock of one scan. In a transaction."""
    large = conn.execute("SELECT count(*) > 20 FROM stage_accounts WHERE scan_id = %s", (scan,))
    if large.fetchone() == (True,) and _truncated(conn, scan):
        return
    for table in STAGES:
        conn.execute(f"DELETE FROM {table} WHERE scan_id = %s", (scan,))  # noqa: S608 - ours


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


def _make_partitions(conn: psycopg.Connection) -> None:
    """A partition of observations for each month that this scan speaks of."""
    months = conn.execute(
        """
        SELECT DISTINCT date_trunc('month', observed_at AT TIME ZONE 'UTC')::date
        FROM said
        ORDER BY 1
        """
    ).fetchall()
    for (month,) in months:
        name = f"observations_{month:%Y_%m}"
        if conn.execute("SELECT to_regclass(%s)", (name,)).fetchone() != (None,):
            continue
        following = (month.replace(day=28) + timedelta(days=7)).replace(day=1)
        conn.execute(
            sql.SQL(
                "CREATE TABLE {} PARTITION OF observations FOR VALUES FROM ({}) TO ({})"
            ).format(
                sql.Identifier(name),
                sql.Literal(f"{month} 00:00:00+00"),
                sql.Literal(f"{following} 00:00:00+00"),
            )
        )
        conn.execute(
            sql.SQL("COMMENT ON TABLE {} IS {}").format(
                sql.Identifier(name), sql.Literal(f"Observations of {month:%B %Y} (UTC)")
            )
        )
