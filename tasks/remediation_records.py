"""How a remediation run is written down and read back: a resumed run starts from the top."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import psycopg
from psycopg import Connection
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from tasks import settings
from tasks.approvers import Terms, terms_from_json
from tasks.calls import CallMade, calls_json, recording
from tasks.carrying import caps
from tasks.closing import Closed
from tasks.errors import BadInput
from tasks.model import AccountScan, Resource, observe
from tasks.plan import Plan, plan_from_json, plan_json
from tasks.planning import Planned, look_at
from tasks.policy import Mode, Policy
from tasks.remediation_run import WAITING, Answered, Item, Run
from tasks.rules import rule, rules_of
from tasks.rules.edition import edition_of
from tasks.warehouse import audit, limits, remediations, scans
from tasks.warehouse.database import connect
from tasks.warehouse.findings import account_of
from tasks.warehouse.remediations import RemediationRecord as Record

RECORD_SECONDS = 60.0  # how long what was done to a cloud is kept trying to be written down

T = TypeVar("T")


@dataclass(slots=True)
class Watched:
    """The calls made while a finding is closed and not written down yet.

    ``calls`` signed in and wrote, in order; ``reads`` gave what is known of the resource now, and
    of what hangs on it (``around``).
    """

    calls: list[CallMade] = field(default_factory=list)
    reads: list[CallMade] = field(default_factory=list)
    around: Mapping[str, Any] = field(default_factory=dict)

    def look(self, run: Run, known: Resource) -> Resource:
        """The resource as it is now. Raises CloudError, ResourceGone where it is no more."""
        with recording() as self.reads:
            seen = look_at(run.inventory, run.account, known)
        self.around = seen.around
        return seen.resource

    def taken(self) -> dict[str, Any]:
        """What an entry of the audit log says of the calls since the last one; empties them."""
        made = calls_json(self.calls)
        self.calls.clear()
        return {"calls": made} if made else {}

    def keep(
        self, warehouse: Connection, remediation_id: str, stage: str, resource: Resource
    ) -> dict[str, Any]:
        """Keep a snapshot of the resource as it was just read; what an entry says of it."""
        around, calls = self.around, self.reads
        kept = remediations.add_snapshot(
            warehouse, remediation_id, stage, resource, around=around, calls=calls
        )
        return {"snapshot": kept}


def save(run: Run, planned: Sequence[Planned], requested_by: str = "") -> None:
    """Write plans down before anything waits, and record what is settled already: they are the
    run's from here on, numbered from its ``next_number``.

    What another run carries already is left out of this one. ``requested_by`` is who asks for
    these, where that is somebody else than for the run.
    """
    first = run.next_number
    rows = [
        remediations.NewRemediation(
            finding_id=one.finding.id,
            number=number,
            mode=run.policy.mode.value,
            policy=run.policy.name,
            values=one.plan.values if one.plan else {},
            plan=_plan_row(run, one.plan) if one.plan else {},
            plan_hash=one.plan.hash if one.plan else "",
            fingerprint=one.plan.resource.fingerprint if one.plan else "",
            requested_by=requested_by or run.requested_by,
            expires_at=run.expires_at,
            state=one.state,
            message=one.message,
        )
        for number, one in enumerate(planned, start=first)
    ]
    with connect() as warehouse, warehouse.transaction():
        carried = remediations.save_plan(warehouse, run.id, rows)
        records = [record for record in carried if record.number >= first]
        for record in records:
            _save_more(warehouse, run, record, planned[record.number - first])
    run.next_number += len(planned)
    run.items += [_item(record) for record in records]


def _save_more(warehouse: Connection, run: Run, record: Record, one: Planned) -> None:
    if one.state == "already_resolved":
        place = (one.finding.region, one.finding.kind, one.finding.resource)
        _observe(warehouse, run, place, one.resource, one.read_at, one.finding.rule)
    kept = None
    if one.state != "already_resolved" and one.plan is not None:
        before = one.plan.resource
        kept = remediations.add_snapshot(warehouse, record.id, "before", before, calls=one.calls)
    details = {
        "finding": one.finding.id,
        "rule": one.finding.rule,
        "resource": one.finding.resource,
        "account": one.finding.account,
        "cloud": one.finding.cloud.value,
        "state": one.state,
        "message": one.message,
        "plan": record.plan_hash,
        "policy": run.policy.name,
        "mode": run.policy.mode.value,
        "requested_by": record.requested_by,
        "requester_verified": run.requester_verified,
        "undoes": run.undoes,
        "snapshot": kept,
    }
    note(warehouse, run, "planned", record.id, {name: one for name, one in details.items() if one})


def read_back(warehouse: Connection, run_id: str) -> Run | None:
    """The run as it was written down before it waited; None where nothing was.

    The policy is what it was then: a file that has changed since does not reach an approval that
    somebody is reading.
    """
    records = remediations.load_run(warehouse, run_id)
    if not records:
        return None
    first = records[0]
    waiting = [record for record in records if record.state in WAITING]
    return Run(
        run_id,
        account_of(warehouse, first.cloud, first.account),
        Policy(first.policy, Mode(first.mode)),
        first.requested_by,
        [_item(record) for record in records],
        round_=max((record.plan.get("round", 1) for record in waiting), default=1),
        expires_at=first.expires_at,
        notes=list(dict.fromkeys(record.message for record in waiting if record.message)),
        undoes=next((one.plan["undoes"] for one in records if one.plan.get("undoes")), ""),
        terms=next(
            (terms_from_json(one.plan["terms"]) for one in waiting if "terms" in one.plan), Terms()
        ),
    )


def _plan_row(run: Run, plan: Plan) -> dict[str, Any]:
    """The plan as it is kept, with what the run must know when it starts from the top again."""
    return {
        **plan_json(plan),
        "round": run.round,
        "undoes": run.undoes,
        "terms": run.terms.as_json(),
    }


def _item(record: Record) -> Item:
    plan = plan_from_json(record.plan) if record.plan else None
    return Item(record.id, record.finding_id, plan, record.state, record.message)


def keep_waiting(run: Run, message: str = "", *, approved: bool = False) -> None:
    """Write down the plans of what waits, as they are now, in the round that they are now in.

    What is approved does not expire while the run gets to it; what is asked again expires when the
    run does.
    """
    until = run.expires_at
    if approved:
        until = max(until, datetime.now(UTC) + remediations.WRITING)
    with connect() as warehouse, warehouse.transaction():
        for item in run.waiting:
            plan = item.planned
            remediations.set_state(
                warehouse,
                item.id,
                "waiting",
                message,
                values=plan.values,
                plan=_plan_row(run, plan),
                plan_hash=plan.hash,
                fingerprint=plan.resource.fingerprint,
                expires_at=until,
            )
            item.state, item.message = "waiting", message
            if message:
                again = {"round": run.round, "why": message, "plan": plan.hash}
                note(warehouse, run, "asked again", item.id, again)


def begin_writing(
    run: Run, item: Item, before: Resource, answer: Answered, watched: Watched | None = None
) -> None:
    """Write down that the resource is about to be changed, by whom, and how it was right before.

    Raises IllegalTransition when the remediation is over already, such as by its expiry, and Capped
    when as many were begun within the hour as may be.
    """
    with connect() as warehouse, warehouse.transaction():
        remediations.set_state(
            warehouse,
            item.id,
            "applying",
            approver=answer.approver,
            approver_verified=answer.verified,
        )
        watched = watched or Watched()
        details = {
            "plan": item.planned.hash,
            "approver": answer.approver,
            "steps": [step.action for step in item.planned.steps],
            **watched.keep(warehouse, item.id, "before", before),
            **watched.taken(),
        }
        if not run.undoes:  # late: others that begin wait for the end of this transaction
            limits.begin(warehouse, item.id, run.policy.name, caps())
        note(warehouse, run, "applying", item.id, details)
    item.state = "applying"
    run.changed.add(before.id)


def note_refused(run: Run, item: Item, why: str, watched: Watched) -> None:
    """Write down that the gate did not let us in, with the cloud's answer."""
    details = {"message": why, **watched.taken()}
    _patiently(lambda warehouse: note(warehouse, run, "gate refused", item.id, details))


def keep_snapshot(run: Run, item: Item, stage: str, resource: Resource, watched: Watched) -> None:
    """Keep the resource as it is on the way, with the calls that were made since the last look."""
    calls = list(watched.calls)
    try:
        with connect() as warehouse, warehouse.transaction():
            kept = watched.keep(warehouse, item.id, stage, resource)
            action = "wrote" if stage == "during" else "put back"
            note(warehouse, run, action, item.id, {**kept, **watched.taken()})
    except psycopg.Error:
        watched.calls[:] = calls  # still to be written down, with the end
        raise


def record(
    run: Run, item: Item, closed: Closed, answer: Answered, watched: Watched | None = None
) -> None:
    """Write down how one finding ended, and merge what was seen of its resource: all or nothing.

    Something was done to a cloud: a database that is away is waited for.
    """
    known = item.planned.resource
    watched = watched or Watched()
    details = {"message": closed.message, **watched.taken()}

    def write(warehouse: Connection) -> None:
        remediations.set_state(
            warehouse,
            item.id,
            closed.state,
            closed.message,
            approver=answer.approver,
            approver_verified=answer.verified,
        )
        kept = {}
        if closed.stage and closed.resource is not None:
            kept = watched.keep(warehouse, item.id, closed.stage, closed.resource)
        if closed.state == "restored":
            words = f"Put back by run {run.id}."
            remediations.set_state(warehouse, run.undoes, "undone", words)
            note(warehouse, run, "undone", run.undoes, {"message": words, "by": item.id})
        if closed.resource is not None or closed.state == "already_resolved":
            place = (known.region, known.kind, known.id)
            _observe(warehouse, run, place, closed.resource, closed.read_at, item.planned.rule)
        note(warehouse, run, closed.state, item.id, {**details, **kept})

    _patiently(write)
    item.state, item.message = closed.state, closed.message


def leave_in_part(run: Run, item: Item) -> None:
    """Write down that a change may stand in part: reconciliation looks, and has it put back."""
    _patiently(
        lambda warehouse: remediations.mark_half_applied(warehouse, run.undoes or item.id, True)
    )


def settle(
    run: Run,
    items: Sequence[Item],
    state: str,
    message: str,
    who: str = "",
    *,
    verified: bool = False,
) -> None:
    """Bring some of the run's findings to an end that needs no cloud."""

    def write(warehouse: Connection) -> None:
        for item in items:
            given = {"approver": who, "approver_verified": verified} if who else {}
            remediations.set_state(warehouse, item.id, state, message, **given)  # type: ignore[arg-type]
            note(warehouse, run, state, item.id, {"message": message}, actor=who)

    _patiently(write)
    for item in items:
        item.state, item.message = state, message


def note_approval(run: Run, approved: Terms) -> None:
    """Append to the audit log who has just approved what waits: the last of those given."""
    last = approved.given[-1]
    with connect() as warehouse, warehouse.transaction():
        for item in run.waiting:
            details = {
                "verified": last.verified,
                "approval": len(approved.given),
                "of": approved.needed,
                "plan": item.planned.hash,
                "values": {} if item.planned.restores else dict(item.planned.values),
                "round": run.round,
            }
            note(warehouse, run, "approved", item.id, details, actor=last.approver)


def look_up(item: Item) -> None:
    """Take over the state that the warehouse has: somebody else ended this remediation."""
    with connect() as warehouse:
        now = remediations.load_remediation(warehouse, item.id)
    item.state, item.message = now.state, now.message


def note(
    warehouse: Connection,
    run: Run,
    action: str,
    subject: str,
    details: Mapping[str, Any],
    *,
    actor: str = "",
) -> None:
    """Append to the audit log, with the run's id; who did it is the run unless ``actor`` is."""
    audit.append(
        warehouse, actor or f"flow run {run.id}", action, subject, {**details, "run": run.id}
    )


def _patiently(write: Callable[[Connection], T]) -> T:
    """Run ``write`` in one transaction, again while the database is away (it must be repeatable).

    Raises what the last try raised.
    """
    trying = Retrying(
        retry=retry_if_exception_type((psycopg.OperationalError, BadInput)),
        stop=stop_after_delay(RECORD_SECONDS),
        wait=wait_exponential(multiplier=0.5, max=5),
        reraise=True,
    )

    def once() -> T:
        with connect() as warehouse, warehouse.transaction():
            return write(warehouse)

    return trying(once)


def _observe(
    warehouse: Connection,
    run: Run,
    place: tuple[str, str, str],
    resource: Resource | None,
    read_at: datetime | None,
    its_rule: str,
) -> None:
    """Merge what the resource showed at ``read_at`` (None: it was gone), by every rule in force,
    and by the finding's own even where that is in force no more.

    As of then, not of now: a scan that has looked at it since knows better.
    """
    seen = [resource] if resource is not None else []
    in_force = rules_of(settings.rules())
    judging = {each.id: each for each in (*in_force, rule(its_rule))}
    observations = [
        observe(each, one) for one in seen for each in judging.values() if each.kind == one.kind
    ]
    scans.merge_one(
        warehouse,
        AccountScan(run.account, seen, observations),
        trigger="verify",
        flow_run_id=run.id,
        gone=[] if seen else [place],
        observed_at=read_at,
        edition=edition_of(in_force),
    )
