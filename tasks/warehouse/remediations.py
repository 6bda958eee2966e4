"""Remediations in the warehouse: plans saved, states changed legally, snapshots around a fix."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Json

from tasks.calls import CallMade, calls_json
from tasks.errors import BadInput
from tasks.lifecycle import ACTIVE_STATES, check_transition, is_end
from tasks.model import Resource, canonical_json, sha256
from tasks.plan import resource_from_json
from tasks.snapshot import content_of
from tasks.warehouse.database import whole
from tasks.warehouse.rows import clean

# Ends that leave a finding open, whoever or whatever decided so.
UNCLOSED_STATES = ("denied", "left_out", "refused", "failed", "undone", "expired", "drifted")

WRITING = timedelta(hours=1)  # longer than any run writes: a session lasts a quarter of this


@dataclass(frozen=True, kw_only=True, slots=True)
class NewRemediation:
    """One finding's fix as planned in one run. ``number`` is its number in the approver's table.

    ``plan`` is what would change, as JSON values; ``fingerprint`` the resource's that it was made
    from. Never a code in any field.
    """

    finding_id: str
    number: int
    mode: str
    policy: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    plan: Any = field(default_factory=dict)
    plan_hash: str = ""
    fingerprint: str = ""
    requested_by: str = ""
    expires_at: datetime | None = None
    state: str = "planned"
    message: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class RemediationRecord:
    """One row of ``remediations``: one finding in one run."""

    id: str
    run_id: str
    finding_id: str
    cloud: str
    account: str
    number: int
    policy: str
    mode: str
    state: str
    message: str
    values: Mapping[str, Any]
    plan: Any
    plan_hash: str
    fingerprint: str
    approver: str
    approver_verified: bool
    requested_by: str
    expires_at: datetime | None
    created_at: datetime
    decided_at: datetime | None
    began_at: datetime | None
    finished_at: datetime | None
    half_applied: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A resource's configuration at one stage of a fix: before, during, after or undone."""

    stage: str
    taken_at: datetime
    resource: Resource
    address: str  # sha256 of content
    content: str  # canonical JSON: the resource and what hangs on it
    calls: tuple[Mapping[str, Any], ...] = ()  # as CallMade.json


def save_plan(
    conn: psycopg.Connection, run_id: str, rows: Sequence[NewRemediation]
) -> list[RemediationRecord]:
    """Save what a run plans, and return all that the run now carries, by number.

    Saving again changes nothing (a resumed run starts from the top). A finding that another run
    is working on is not taken: it is missing in what is returned. Raises BadInput where a finding
    is not known.
    """
    with conn.transaction():
        for row in rows:
            check_transition("planned", row.state)
            found = conn.execute(
                "SELECT cloud, account FROM findings WHERE id = %s", (row.finding_id,)
            ).fetchone()
            if found is None:
                raise BadInput("finding", f"there is no finding {row.finding_id}.")
            # No conflict target: any of the unique rules may say that it is there or taken.
            conn.execute(
                """
                INSERT INTO remediations (id, run_id, finding_id, cloud, account, number, policy,
                    mode, state, message, "values", plan, plan_hash, fingerprint, requested_by,
                    expires_at, created_at, finished_at)
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s,
                    clock_timestamp(), CASE WHEN %s THEN clock_timestamp() END)
                ON CONFLICT DO NOTHING
                """,
                (
                    *(uuid4(), run_id, row.finding_id, *found, row.number, row.policy),
                    *(row.mode, row.state, clean(row.message), _json(row.values), _json(row.plan)),
                    *(row.plan_hash, row.fingerprint, clean(row.requested_by), row.expires_at),
                    is_end(row.state),
                ),
            )
    return load_run(conn, run_id)


def load_run(conn: psycopg.Connection, run_id: str) -> list[RemediationRecord]:
    """All that one run carries, by number."""
    return _records(conn, "WHERE run_id = %s ORDER BY number", (run_id,))


def load_remediation(conn: psycopg.Connection, remediation_id: str) -> RemediationRecord:
    """One remediation. Raises BadInput where there is none."""
    return _one(conn, remediation_id, lock=False)


def remediations_of(conn: psycopg.Connection, finding_id: str) -> list[RemediationRecord]:
    """A finding's remediations, the newest first."""
    return _records(conn, "WHERE finding_id = %s ORDER BY created_at DESC, id", (finding_id,))


def waiting(conn: psycopg.Connection) -> list[RemediationRecord]:
    """Remediations that wait for an approver, run by run."""
    return _records(conn, "WHERE state = 'waiting' ORDER BY created_at, run_id, number", ())


def set_state(
    conn: psycopg.Connection,
    remediation_id: str,
    state: str,
    message: str = "",
    *,
    approver: str | None = None,
    approver_verified: bool | None = None,
    values: Mapping[str, Any] | None = None,
    plan: Any | None = None,
    plan_hash: str | None = None,
    fingerprint: str | None = None,
    expires_at: datetime | None = None,
    at: datetime | None = None,
) -> RemediationRecord:
    """Move a remediation to ``state``, with what else is known by now, and return it.

    Raises IllegalTransition where it may not go there from where it is: of two processes that both
    want to apply it, one does. What is None stays as it was.
    """
    given = {
        "approver": None if approver is None else clean(approver),
        "approver_verified": approver_verified,
        "values": None if values is None else _json(values),
        "plan": None if plan is None else _json(plan),
        "plan_hash": plan_hash,
        "fingerprint": fingerprint,
        "expires_at": expires_at,
    }
    moment = at or datetime.now(UTC)
    changed: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    with whole(conn):
        record = _one(conn, remediation_id, lock=True)
        check_transition(record.state, state)
        changed |= {"state": state, "message": clean(message)}
        if state in {"applying", "denied", "left_out"} and record.decided_at is None:
            changed["decided_at"] = moment
        if is_end(state) and state != record.state:
            changed["finished_at"] = moment
        statement = sql.SQL("UPDATE remediations SET {} WHERE id = {} RETURNING *").format(
            sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name))
                for name in changed
            ),
            sql.Placeholder("id"),
        )
        with conn.cursor(row_factory=dict_row) as cursor:
            cursor.execute(statement, changed | {"id": _uuid(remediation_id)})
            (row,) = cursor
    return _record(row)


def expire_overdue(
    conn: psycopg.Connection, now: datetime | None = None
) -> list[RemediationRecord]:
    """Expire what was planned or waits and whose time is over; returns those, for their runs.

    A run that is writing was approved in time: what it has yet to reach is left to it.
    """
    moment = now or datetime.now(UTC)
    with conn.transaction():
        expired = conn.execute(
            """
            UPDATE remediations AS one
            SET state = 'expired', message = 'nobody approved it in time', finished_at = %(now)s
            WHERE state IN ('planned', 'waiting') AND expires_at <= %(now)s
              AND NOT EXISTS (
                SELECT FROM remediations AS other
                WHERE other.run_id = one.run_id AND other.state = 'applying'
              )
            RETURNING id
            """,
            {"now": moment},
        ).fetchall()
        ids = [identity for (identity,) in expired]
        return _records(conn, "WHERE id = ANY(%s) ORDER BY run_id, number", (ids,))


def finding_has_active_remediation(conn: psycopg.Connection, finding_id: str) -> bool:
    """Whether a run is planning, waiting for or applying a fix of this finding."""
    return bool(active_findings(conn, [finding_id]))


def active_findings(conn: psycopg.Connection, ids: Sequence[str]) -> set[str]:
    """Those of ``ids`` that some run is planning, waiting for or applying a fix of."""
    rows = conn.execute(
        "SELECT finding_id FROM remediations WHERE finding_id = ANY(%s) AND state = ANY(%s)",
        (list(ids), list(ACTIVE_STATES)),
    )
    return {finding for (finding,) in rows}


def active_of(conn: psycopg.Connection, ids: Sequence[str]) -> list[RemediationRecord]:
    """What some run is planning, waiting for or applying of these findings, by run."""
    return _records(
        conn,
        "WHERE finding_id = ANY(%s) AND state = ANY(%s) ORDER BY run_id, number",
        (list(ids), list(ACTIVE_STATES)),
    )


def active(conn: psycopg.Connection) -> list[RemediationRecord]:
    """All that some run is planning, waiting for or applying, by run."""
    return _records(conn, "WHERE state = ANY(%s) ORDER BY run_id, number", (list(ACTIVE_STATES),))


def mark_half_applied(conn: psycopg.Connection, remediation_id: str, half: bool) -> None:
    """Whether a change stands in part, and is to be put back."""
    conn.execute(
        "UPDATE remediations SET half_applied = %s WHERE id = %s", (half, _uuid(remediation_id))
    )


def half_applied(conn: psycopg.Connection) -> list[RemediationRecord]:
    """The changes that stand in part, and are to be put back."""
    return _records(
        conn,
        "WHERE half_applied AND state IN ('failed', 'remediated', 'restored') "
        "ORDER BY created_at, id",
        (),
    )


def put_backs(conn: psycopg.Connection, remediation_id: str) -> list[RemediationRecord]:
    """What was, or is being, tried to put a remediation back, the oldest first."""
    return _records(
        conn, "WHERE plan->>'undoes' = %s ORDER BY created_at, id", (str(remediation_id),)
    )


def recently_ended(conn: psycopg.Connection, ids: Sequence[str], since: datetime) -> set[str]:
    """Those of ``ids`` that a remediation has come to an end for since, without closing them."""
    rows = conn.execute(
        "SELECT finding_id FROM remediations WHERE finding_id = ANY(%s) AND finished_at >= %s "
        "AND state = ANY(%s)",
        (list(ids), since, list(UNCLOSED_STATES)),
    )
    return {finding for (finding,) in rows}


def decided_against(conn: psycopg.Connection, ids: Sequence[str], since: datetime) -> set[str]:
    """Those of ``ids`` that a remediation has come to an end for since, while they were open as
    they are now. What ended without a decision of anybody (see ``NO_DECISION``) is none, unless so
    many processes have died over a finding that it may be what they die of.
    """
    rows = conn.execute(
        f"""
        SELECT r.finding_id
        FROM remediations r JOIN findings f ON f.id = r.finding_id
        WHERE r.finding_id = ANY(%s) AND r.finished_at >= greatest(%s, f.opened_at)
          AND r.state = ANY(%s)
        GROUP BY r.finding_id
        HAVING NOT bool_and({NO_DECISION}) OR count(*) FILTER (WHERE {SETTLED}) >= %s
        """.encode(),  # noqa: S608 - ours
        (list(ids), since, list(UNCLOSED_STATES), MOST_DEATHS),
    )
    return {finding for (finding,) in rows}


MOST_DEATHS = 3  # of processes that were changing a resource for one finding

# Its process died while it was changing the resource, and it was looked at what had become of it.
SETTLED: LiteralString = """
r.state IN ('failed', 'undone')
AND EXISTS (SELECT FROM public.audit_log a WHERE a.subject = r.id::text AND a.action = 'settled')
"""


def undone_before(conn: psycopg.Connection, moments: Mapping[str, datetime]) -> set[str]:
    """The findings, of those with a moment, that were closed automatically and put back unproved
    the last time, where that had begun before the moment. Not what a process has died of.
    """
    rows = conn.execute(
        f"""
        SELECT g.finding_id
        FROM unnest(%s::text[], %s::timestamptz[]) AS g (finding_id, at)
        CROSS JOIN LATERAL (
            SELECT * FROM remediations r
            WHERE r.finding_id = g.finding_id ORDER BY created_at DESC, id LIMIT 1
        ) r
        WHERE r.mode = 'automatic' AND r.state = 'undone' AND r.began_at < g.at AND NOT ({SETTLED})
        """.encode(),  # noqa: S608 - ours
        (list(moments), list(moments.values())),
    )
    return {finding for (finding,) in rows}


# What broke before its resource was begun to be changed; and without anybody to be asked, what a
# run left behind whose process had ended, and what somebody changed while it was being planned.
NO_DECISION: LiteralString = f"""
r.state = 'failed' AND r.began_at IS NULL
OR r.mode = 'automatic' AND (r.state IN ('expired', 'drifted') OR {SETTLED})
"""


def ended_without_decision(record: RemediationRecord) -> bool:
    """Whether a remediation that this process saw to its end is to be tried again: ``NO_DECISION``
    but for deaths, and what was held back. A halt that stands is met before the next run begins;
    one that was only feared, while the warehouse was away, is not.
    """
    if record.state in ("halted", "capped"):
        return True
    if record.mode == "automatic" and record.state in ("expired", "drifted"):
        return True
    return record.state == "failed" and record.began_at is None


def automatic_closings(
    conn: psycopg.Connection, ids: Sequence[str], since: datetime
) -> dict[str, list[datetime]]:
    """When findings, by their ids, were closed by automatic policies since, in order."""
    found: dict[str, list[datetime]] = {}
    for finding, at in conn.execute(
        """
        SELECT finding_id, finished_at FROM remediations
        WHERE finding_id = ANY(%s) AND mode = 'automatic' AND state IN ('remediated', 'undone')
          AND began_at IS NOT NULL AND finished_at >= %s AND plan->>'undoes' = ''
        ORDER BY finished_at
        """,
        (list(ids), since),
    ):
        found.setdefault(finding, []).append(at)
    return found


def closed_before(conn: psycopg.Connection, ids: Sequence[str], scan_id: str) -> dict[str, int]:
    """Those of ``ids`` that this scan saw open again, and how often they had been remediated."""
    rows = conn.execute(
        """
        SELECT r.finding_id, count(*)
        FROM remediations r
        JOIN finding_episodes e ON e.finding_id = r.finding_id AND e.opened_by_scan = %s
        WHERE r.finding_id = ANY(%s) AND r.state = 'remediated'
        GROUP BY r.finding_id
        """,
        (_uuid(scan_id), list(ids)),
    )
    return dict(rows.fetchall())


def free_since(conn: psycopg.Connection, ids: Sequence[str]) -> datetime | None:
    """When the last of these findings was opened, or came to the end of a remediation."""
    row = conn.execute(
        """
        SELECT max(greatest(f.opened_at, r.finished_at))
        FROM findings f LEFT JOIN remediations r ON r.finding_id = f.id
        WHERE f.id = ANY(%s)
        """,
        (list(ids),),
    ).fetchone()
    return row[0] if row else None


def add_snapshot(
    conn: psycopg.Connection,
    remediation_id: str | UUID,
    stage: str,
    resource: Resource,
    *,
    around: Mapping[str, Any] | None = None,
    calls: Sequence[CallMade] = (),
    at: datetime | None = None,
) -> dict[str, Any]:
    """Keep a resource as it was read at ``stage``: before, during, after or undone.

    ``around`` is what hangs on it, ``calls`` those that gave both. The content is stored once,
    under its hash. Returns what the audit log says of the snapshot.
    """
    content = content_of(resource, around)
    address = sha256(content)
    made = calls_json(calls)
    # Not sorted: what restore writes back keeps the cloud's own order of keys.
    config = _exact_text(resource.config.as_dict())
    conn.execute(
        """
        INSERT INTO snapshot_contents (hash, content, config) VALUES (%s, %s, %s::json)
        ON CONFLICT DO NOTHING
        """,
        (address, content, config),
    )
    conn.execute(
        """
        INSERT INTO snapshots (remediation_id, stage, taken_at, cloud, account, region, kind,
                               resource, name, content, config, calls, etag, fingerprint)
        SELECT %s, %s, coalesce(%s, clock_timestamp()), %s, %s, %s, %s, %s, %s, hash,
               CASE WHEN config::text <> %s THEN %s::json END, %s, %s, %s
        FROM snapshot_contents WHERE hash = %s
        """,
        (
            *(_uuid(str(remediation_id)), stage, at, resource.cloud, resource.account),
            *(resource.region, resource.kind, resource.id, clean(resource.name)),
            *(config, config, _json(made), resource.etag, resource.fingerprint, address),
        ),
    )
    return {"stage": stage, "content": address, "calls": made}


def snapshots(conn: psycopg.Connection, remediation_id: str) -> list[Snapshot]:
    """A remediation's snapshots in the order they were taken."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            """
            SELECT s.*, c.content AS text, coalesce(s.config, c.config) AS exact
            FROM snapshots s JOIN snapshot_contents c ON c.hash = s.content
            WHERE s.remediation_id = %s ORDER BY s.id
            """,
            (_uuid(remediation_id),),
        )
        return [_snapshot(row) for row in cursor]


def _snapshot(row: Mapping[str, Any]) -> Snapshot:
    said = json.loads(row["text"])["resource"]
    resource = resource_from_json({**said, "config": row["exact"], "etag": row["etag"]})
    return Snapshot(
        row["stage"], row["taken_at"], resource, row["content"], row["text"], tuple(row["calls"])
    )


def _records(
    conn: psycopg.Connection, condition: str, values: tuple[Any, ...]
) -> list[RemediationRecord]:
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(("SELECT * FROM remediations " + condition).encode(), values)  # noqa: S608
        return [_record(row) for row in cursor]


def _record(row: dict[str, Any]) -> RemediationRecord:
    return RemediationRecord(**(row | {"id": str(row["id"])}))


def _one(conn: psycopg.Connection, remediation_id: str, *, lock: bool) -> RemediationRecord:
    condition = "WHERE id = %s" + (" FOR UPDATE" if lock else "")
    found = _records(conn, condition, (_uuid(remediation_id),))
    if not found:
        raise BadInput("remediation", f"there is no remediation {remediation_id}.")
    return found[0]


def _json(value: Any) -> Json:
    return Json(value, dumps=canonical_json)


def _exact_text(value: Any) -> str:
    return json.dumps(value, default=str)


def _uuid(remediation_id: str) -> UUID:
    try:
        return UUID(str(remediation_id))
    except ValueError:
        raise BadInput("remediation", f"{remediation_id!r} is not a remediation's id.") from None
