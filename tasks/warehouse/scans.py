"""A scan's life in the warehouse: begun, loaded by COPY, merged once, finished; and its posture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
from psycopg.rows import dict_row

from tasks.errors import BadInput, SutureError
from tasks.model import Account, AccountScan, Covered, Resource, canonical_json
from tasks.warehouse import merge
from tasks.warehouse.database import whole
from tasks.warehouse.loading import Known, Load, stage
from tasks.warehouse.rows import as_json, clean


@dataclass(frozen=True, slots=True)
class MergeCounts:
    """What a merge did. ``resolved`` includes findings whose resource is gone; ``unknown`` counts
    verdicts that could not be given, whether there is a finding or not; ``gone`` counts resources.
    """

    opened: int
    seen_again: int
    resolved: int
    reopened: int
    unknown: int
    gone: int


@dataclass(frozen=True, slots=True)
class NotScanned:
    """An account that a scan did not read to the end.

    ``status`` is failed, skipped or pending; "in part" for one that was read but for some kinds of
    resource in some regions.
    """

    cloud: str
    account: str
    name: str
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Posture:
    """One scan's result, for a report.

    ``accounts`` is {cloud: {covered|failed|skipped|pending: count}}; ``findings`` is {cloud:
    {severity: open now}}; ``unknown`` is {cloud: verdicts that could not be given}.
    ``failed_sources`` are inventory entries whose accounts could not be listed, with the reason.
    Accounts of ``read_in_part`` count as covered: what was not read there left its findings alone.
    """

    scan_id: str
    state: str
    started_at: datetime
    finished_at: datetime | None
    resources: int
    counts: MergeCounts
    accounts: dict[str, dict[str, int]] = field(default_factory=dict)
    not_scanned: tuple[NotScanned, ...] = ()
    read_in_part: tuple[NotScanned, ...] = ()
    failed_sources: tuple[tuple[str, str], ...] = ()
    findings: dict[str, dict[str, int]] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)


def begin_scan(
    conn: psycopg.Connection,
    trigger: str,
    flow_run_id: str | None = None,
    *,
    targeted: bool = False,
    at: datetime | None = None,
    selection: Sequence[str] = (),
) -> str:
    """Write down that a scan begins, and return its id. ``targeted``: it reads a few resources.

    ``selection`` is what was asked for (account ids and the like, in any order; empty: everything):
    a scan that breaks is gone on with by one that is asked for the same.
    """
    scan = uuid4()
    conn.execute(
        "INSERT INTO scans (id, trigger, targeted, flow_run_id, selection, started_at) "
        "VALUES (%s, %s, %s, %s, %s, coalesce(%s, clock_timestamp()))",
        (scan, trigger, targeted, flow_run_id, selection_key(selection), at),
    )
    return str(scan)


def selection_key(selection: Sequence[str]) -> str:
    """One text for what was asked for, whatever its order. Empty for everything."""
    return clean(canonical_json(sorted(set(selection)))) if selection else ""


def record_accounts(
    conn: psycopg.Connection,
    scan_id: str,
    accounts: Sequence[Account],
    skipped: Sequence[tuple[Account, str]] = (),
    failed_sources: Sequence[tuple[str, str]] = (),
) -> None:
    """Write down what was discovered: who will be scanned (pending), who is skipped and why.

    A pending account that no batch reports is counted as failed when the scan ends.
    """
    known = {
        (account.cloud, account.id): (account, status, clean(reason))
        for accounts_, status in (
            (((account, "") for account in accounts), "pending"),
            (skipped, "skipped"),
        )
        for account, reason in accounts_
    }
    rows = [known[key] for key in sorted(known)]  # in order: two scans that begin do not deadlock
    given = {
        "scan": scan_id,
        "clouds": [str(account.cloud) for account, *_ in rows],
        "ids": [account.id for account, *_ in rows],
        "names": [clean(account.name) for account, *_ in rows],
        "sources": [account.source for account, *_ in rows],
        "statuses": [account.status for account, *_ in rows],
        "tags": [as_json(account.tags) for account, *_ in rows],
        "outcomes": [status for _, status, _ in rows],
        "reasons": [reason for *_, reason in rows],
    }
    with conn.transaction():
        given["started"] = _scan(conn, scan_id)["started_at"]
        for statement in (RECORD_ACCOUNTS, RECORD_PENDING):
            conn.execute(statement, given)
        conn.execute(
            "UPDATE scans SET failed_sources = %s WHERE id = %s",
            (json.dumps([[name, clean(reason)] for name, reason in failed_sources]), scan_id),
        )


RECORD_ACCOUNTS = """
INSERT INTO accounts AS known (cloud, id, name, source, status, tags, first_seen_at, last_outcome,
                               last_reason, last_outcome_at)
SELECT g.cloud, g.id, g.name, g.source, g.status, g.tags::jsonb, %(started)s,
       CASE WHEN g.outcome = 'skipped' THEN 'skipped' END, g.reason,
       CASE WHEN g.outcome = 'skipped' THEN %(started)s END
FROM unnest(
    %(clouds)s::text[], %(ids)s::text[], %(names)s::text[], %(sources)s::text[],
    %(statuses)s::text[], %(tags)s::text[], %(outcomes)s::text[], %(reasons)s::text[]
) AS g (cloud, id, name, source, status, tags, outcome, reason)
ON CONFLICT (cloud, id) DO UPDATE
SET name = excluded.name, source = excluded.source, status = excluded.status, tags = excluded.tags,
    last_outcome = coalesce(excluded.last_outcome, known.last_outcome),
    last_reason = CASE WHEN excluded.last_outcome IS NULL THEN known.last_reason
                       ELSE excluded.last_reason END,
    last_outcome_at = coalesce(excluded.last_outcome_at, known.last_outcome_at)
"""

RECORD_PENDING = """
INSERT INTO scan_accounts (scan_id, cloud, account, source, status, reason)
SELECT %(scan)s, g.cloud, g.id, g.source, g.outcome, g.reason
FROM unnest(
    %(clouds)s::text[], %(ids)s::text[], %(sources)s::text[], %(outcomes)s::text[],
    %(reasons)s::text[]
) AS g (cloud, id, source, outcome, reason)
ON CONFLICT DO NOTHING
"""


def load_batch(
    conn: psycopg.Connection,
    scan_id: str,
    scans: Sequence[AccountScan],
    observed_at: datetime | None = None,
    *,
    known: Known | None = None,
    edition: str = "",
) -> None:
    """COPY what one batch of accounts gave into the loading dock; nothing is merged yet.

    Many tasks may load at once, each on a connection of its own. An account loaded again (a
    retried task) replaces its first load. ``observed_at`` is the moment as of which the batch was
    read: when its reading began. Without it the scan's start counts, which is never too late.
    Raises SutureError when the scan is merged already.

    ``edition`` names the rules that judged (a hash of their code): with it each resource's digest
    is kept. A resource whose digest is the one in ``known`` (see ``known_digests``), in a place
    that was read without error, is unchanged: only its id is written, and the merge confirms what
    was said of it. Raises BadInput where ``known`` comes without ``edition``.
    """
    if known and not edition:
        raise BadInput("edition", "is missing beside known digests.", "Name the rules' edition.")
    # The last one counts where a batch names an account twice. In order, so that two batches that
    # share accounts do not wait for each other.
    batch = {(scan.account.cloud, scan.account.id): scan for scan in scans}
    with whole(conn):
        row = _scan(conn, scan_id, "FOR SHARE")
        if row["merged_at"] is not None:
            raise SutureError(f"scan {scan_id} is merged already: nothing can be loaded into it")
        loads = [
            Load(
                number,
                batch[key],
                [(part, "") for part in batch[key].coverage],
                (known or {}).get(key, {}),
                edition,
            )
            for number, key in zip(_load_ids(conn, len(batch)), sorted(batch), strict=True)
        ]
        stage(conn, scan_uuid(scan_id), observed_at or row["started_at"], loads)


def merge_scan(conn: psycopg.Connection, scan_id: str) -> MergeCounts:
    """Merge all that was loaded for a scan into findings and resources, in one transaction.

    A scan is merged once: another call changes nothing and returns the first one's counts. Findings
    of accounts that failed, and of places that were not covered, stay as they are; so do those of
    which a later scan has spoken.
    """
    scan = scan_uuid(scan_id)
    with conn.transaction():
        merge.lock(conn)
        # Waits for loads under way, which hold the row shared.
        if _scan(conn, scan_id, "FOR UPDATE")["merged_at"] is None:
            merge.apply(conn, scan)
            merge.clear_stage(conn, scan)
        return _counts(_scan(conn, scan_id))


def merge_one(
    conn: psycopg.Connection,
    account_scan: AccountScan,
    trigger: str = "verify",
    flow_run_id: str | None = None,
    *,
    gone: Sequence[tuple[str, str, str]] = (),
    observed_at: datetime | None = None,
    edition: str = "",
) -> MergeCounts:
    """Merge a re-read of a few resources of one account, as a small scan of its own.

    It covers the resources in ``account_scan`` and nothing else: their siblings are untouched.
    ``account_scan.coverage`` is not looked at. ``gone`` names resources that the cloud says do not
    exist, as (region, kind, id). ``observed_at`` is when the resources were read; default: now.
    ``edition`` is as for ``load_batch``; without it the next scan writes these resources in full.
    """
    reread = Reread(account_scan, [*_each_of(account_scan.resources), *_places(gone)])
    _, counts = merge_reread(
        conn, [reread], trigger, flow_run_id, observed_at=observed_at, edition=edition
    )
    return counts


@dataclass(frozen=True, slots=True)
class Reread:
    """A few resources of one account as they were read again, and what that covers.

    ``covered`` are places with the one resource that was read there, gone or not; with an empty
    text where all of the kind was read.
    """

    scan: AccountScan
    covered: Sequence[tuple[Covered, str]]


def merge_reread(
    conn: psycopg.Connection,
    rereads: Sequence[Reread],
    trigger: str,
    flow_run_id: str | None = None,
    *,
    observed_at: datetime | None = None,
    edition: str = "",
) -> tuple[str, MergeCounts]:
    """Merge what was read again of some accounts, one ``Reread`` each, as one small scan.

    ``observed_at`` is when the first of it was read; default: now. Returns the scan's id too.
    """
    at = observed_at or datetime.now(UTC)
    rows = sum(len(one.scan.observations) + len(one.scan.resources) for one in rereads)
    named = [resource for one in rereads for _, resource in one.covered]
    batch = {(one.scan.account.cloud, one.scan.account.id): one for one in rereads}
    loads = [
        Load(number, one.scan, one.covered, {}, edition)
        for number, one in enumerate(batch.values())
    ]
    with whole(conn):
        merge.own_stage(conn, rows)
        scan_id = begin_scan(conn, trigger, flow_run_id, targeted=True, at=at)
        scan = scan_uuid(scan_id)
        stage(conn, scan, at, loads)
        counts = merge.apply_own(conn, scan, at, rows, named if all(named) else None)
        return scan_id, MergeCounts(*counts)


def _each_of(resources: Sequence[Resource]) -> list[tuple[Covered, str]]:
    return _places([(one.region, one.kind, one.id) for one in resources])


def _places(places: Sequence[tuple[str, str, str]]) -> list[tuple[Covered, str]]:
    return [(Covered(region, kind, ok=True), resource) for region, kind, resource in places]


def finish_scan(
    conn: psycopg.Connection, scan_id: str, state: str = "finished", message: str = ""
) -> None:
    """Write down that a scan has ended: ``state`` is finished or failed, ``message`` says why.

    Accounts that never reported become failed. What was loaded and not merged is dropped.
    """
    scan = scan_uuid(scan_id)
    with conn.transaction():
        merge.clear_stage(conn, scan)
        conn.execute(
            """
            WITH lost AS (
                UPDATE scan_accounts
                SET status = 'failed', reason = 'its batch never reported'
                WHERE scan_id = %(scan)s AND status = 'pending'
                RETURNING cloud, account
            )
            UPDATE accounts a
            SET last_outcome = 'failed', last_reason = 'its batch never reported',
                last_outcome_at = s.started_at
            FROM lost, scans s
            WHERE s.id = %(scan)s AND a.cloud = lost.cloud AND a.id = lost.account
              AND (a.last_outcome_at IS NULL OR a.last_outcome_at <= s.started_at)
            """,
            {"scan": scan},
        )
        _finish(conn, scan_id, state, message)


def _finish(conn: psycopg.Connection, scan_id: str, state: str, message: str) -> None:
    conn.execute(
        """
        UPDATE scans
        SET state = %(state)s, message = %(message)s, finished_at = clock_timestamp(),
            accounts_covered = a.covered, accounts_failed = a.failed,
            accounts_skipped = a.skipped
        FROM (
            SELECT count(*) FILTER (WHERE status = 'covered') AS covered,
                   count(*) FILTER (WHERE status = 'failed') AS failed,
                   count(*) FILTER (WHERE status = 'skipped') AS skipped
            FROM scan_accounts WHERE scan_id = %(scan)s
        ) a
        WHERE id = %(scan)s
        """,
        {"scan": scan_uuid(scan_id), "state": state, "message": clean(message)},
    )


def latest_scan(conn: psycopg.Connection) -> str:
    """The newest merged scan of the fleet. Raises BadInput where there is none yet."""
    row = conn.execute(
        """
        SELECT id FROM scans
        WHERE NOT targeted AND merged_at IS NOT NULL
        ORDER BY started_at DESC, id LIMIT 1
        """
    ).fetchone()
    if row is None:
        raise BadInput("scan", "there is none in the warehouse yet.", "Run one: suture scan.")
    return str(row[0])


def posture(conn: psycopg.Connection, scan_id: str) -> Posture:
    """One scan's result as the report and the artifact show it."""
    scan = _scan(conn, scan_id)
    accounts: dict[str, dict[str, int]] = {}
    unknown: dict[str, int] = {}
    for cloud, status, count, unknowns in conn.execute(
        """
        SELECT cloud, status, count(*), sum(unknown)
        FROM scan_accounts WHERE scan_id = %s
        GROUP BY cloud, status ORDER BY cloud, status
        """,
        (scan_id,),
    ):
        accounts.setdefault(cloud, {})[status] = count
        unknown[cloud] = unknown.get(cloud, 0) + int(unknowns)
    not_scanned = conn.execute(
        """
        SELECT sa.cloud, sa.account, coalesce(a.name, ''), sa.status, sa.reason
        FROM scan_accounts sa
        LEFT JOIN accounts a ON a.cloud = sa.cloud AND a.id = sa.account
        WHERE sa.scan_id = %s AND sa.status <> 'covered'
        ORDER BY sa.cloud, sa.status, sa.account
        """,
        (scan_id,),
    ).fetchall()
    return Posture(
        scan_id=scan_id,
        state=scan["state"],
        started_at=scan["started_at"],
        finished_at=scan["finished_at"],
        resources=scan["resources"],
        counts=_counts(scan),
        accounts=accounts,
        not_scanned=tuple(NotScanned(*row) for row in not_scanned),
        read_in_part=_read_in_part(conn, scan_id),
        failed_sources=tuple((name, reason) for name, reason in scan["failed_sources"]),
        findings=open_by_cloud(conn),
        unknown=unknown,
    )


def _read_in_part(conn: psycopg.Connection, scan_id: str) -> tuple[NotScanned, ...]:
    """The covered accounts in which some kind of resource, somewhere, could not be read."""
    rows = conn.execute(
        """
        SELECT sc.cloud, sc.account, coalesce(a.name, ''), count(*),
               count(*) FILTER (WHERE NOT sc.ok),
               min(sc.kind || ' in ' || sc.region || ': ' || sc.reason) FILTER (WHERE NOT sc.ok)
        FROM scan_coverage sc
        JOIN scan_accounts sa USING (scan_id, cloud, account)
        LEFT JOIN accounts a ON a.cloud = sc.cloud AND a.id = sc.account
        WHERE sc.scan_id = %s AND sa.status = 'covered'
        GROUP BY sc.cloud, sc.account, a.name
        HAVING NOT bool_and(sc.ok)
        ORDER BY sc.cloud, sc.account
        """,
        (scan_id,),
    )
    return tuple(
        NotScanned(
            cloud, account, name, "in part", f"{bad} of {all_} readings failed, such as {one}"
        )
        for cloud, account, name, all_, bad, one in rows
    )


def open_by_cloud(conn: psycopg.Connection) -> dict[str, dict[str, int]]:
    """Open findings now: {cloud: {severity: count}}, the worst severity first."""
    found: dict[str, dict[str, int]] = {}
    for cloud, severity, count in conn.execute(
        """
        SELECT cloud, severity, count(*)
        FROM findings WHERE status = 'open'
        GROUP BY cloud, severity
        ORDER BY cloud, array_position(ARRAY['critical', 'high', 'medium', 'low'], severity)
        """
    ):
        found.setdefault(cloud, {})[severity] = count
    return found


def _load_ids(conn: psycopg.Connection, count: int) -> list[int]:
    rows = conn.execute("SELECT nextval('load_ids') FROM generate_series(1, %s)", (count,))
    return [load_id for (load_id,) in rows]


def _scan(conn: psycopg.Connection, scan_id: str, lock: LiteralString = "") -> dict[str, Any]:
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SELECT * FROM scans WHERE id = %s " + lock, (scan_uuid(scan_id),))  # noqa: S608
        row = cursor.fetchone()
    if row is None:
        raise BadInput("scan_id", f"there is no scan {scan_id}.")
    return row


def _counts(scan: dict[str, Any]) -> MergeCounts:
    return MergeCounts(
        opened=scan["opened"],
        seen_again=scan["seen_again"],
        resolved=scan["resolved"],
        reopened=scan["reopened"],
        unknown=scan["unknown"],
        gone=scan["gone"],
    )


def scan_uuid(scan_id: str) -> UUID:
    """The id as the database has it. Raises BadInput where it is none."""
    try:
        return UUID(str(scan_id))
    except ValueError:
        raise BadInput("scan_id", f"{scan_id!r} is not a scan's id.") from None
