"""What processes that ended have left behind: found by the locks they lost, and settled.

Nothing is taken to be as it was planned: the resource is read again with the scanning identity.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from psycopg import Connection
from pydantic import SecretStr

from tasks import remediation_records as records
from tasks import settings
from tasks.closing import Closed
from tasks.clouds.token_request import release
from tasks.errors import ResourceGone, SutureError
from tasks.inventory import load_inventory
from tasks.model import Resource, Verdict
from tasks.plan import Plan
from tasks.remediation_records import Watched
from tasks.remediation_run import Answered, Item, Run
from tasks.rules import rule
from tasks.warehouse import audit, carriers, gate_requests, remediations
from tasks.warehouse.database import connect
from tasks.warehouse.findings import account_of
from tasks.warehouse.remediations import RemediationRecord

log = logging.getLogger(__name__)

WHO = "reconciliation"
RESTORE = "restore/restore"
QUIET = timedelta(days=1)  # after somebody said no to a put-back, until it is asked for again
MOST_TRIES = 3  # put-backs of one change within that time
SAID_NO = ("denied", "left_out", "refused", "expired")

DIED = "Its process ended while it was writing."
DONE = f"{DIED} The resource was read again: it is as it was to be."
AS_BEFORE = f"{DIED} The resource was read again: nothing was changed."
HALF = f"{DIED} The resource was read again: the change stands in part. A run puts it back."
HALF_BACK = f"{DIED} The resource was read again: it is put back in part. Another run goes on."
GONE = f"{DIED} The resource does not exist any more."
AS_IT_WAS = "It may have stood in part. The resource was read again: it is as it was before."


def settle_dead_writers(warehouse: Connection) -> int:
    """Settle what was being written to by processes that are no more; returns how many."""
    writing = [one for one in remediations.active(warehouse) if one.state == "applying"]
    return sum(settle_run(run_id) for run_id in dict.fromkeys(one.run_id for one in writing))


def settle_run(run_id: str) -> int:
    """Settle what one run was writing to when its process ended; returns how many.

    0 while its process lives, while that is not certain, and while nothing can be read: the next
    time will tell.
    """
    with connect() as own:
        if not carriers.locks_can_be_trusted(own) or not carriers.carry(own, run_id):
            return 0
        try:
            run = records.read_back(own, run_id)
            left = [item for item in run.items if item.state == "applying"] if run else []
            return sum(_settle(own, run, item) for item in left if run)
        finally:
            carriers.let_go(own, run_id)


def _settle(warehouse: Connection, run: Run, item: Item) -> bool:
    known = remediations.load_remediation(warehouse, item.id)
    watched = Watched()
    try:
        closed = _found(warehouse, run, item, watched)
    except SutureError as error:
        log.warning("%s cannot be settled yet: %s", item.planned.resource.id, error)
        return False
    half = closed.message in (HALF, HALF_BACK)
    subject = run.undoes or item.id  # half put back is still to be put back
    if half or not run.undoes:
        remediations.mark_half_applied(warehouse, subject, half)
    details: dict[str, Any] = {"run": run.id, "state": closed.state, "message": closed.message}
    if half and run.undoes and closed.resource is not None:
        kept = watched.keep(warehouse, subject, "during", closed.resource)
        audit.append(warehouse, WHO, "settled", subject, {**details, **kept})
    answered = Answered(SecretStr(""), (), known.approver, known.approver_verified)
    records.record(run, item, closed, answered, watched)
    audit.append(warehouse, WHO, "settled", item.id, details)
    return True


def _found(warehouse: Connection, run: Run, item: Item, watched: Watched) -> Closed:
    """How a change ended that nobody has said the end of. Raises SutureError: it cannot be told."""
    plan = item.planned
    read_at = datetime.now(UTC)
    try:
        now = watched.look(run, plan.resource)
    except ResourceGone:
        return Closed("already_resolved", GONE, read_at=read_at)
    if plan.achieved(rule(plan.rule), now):
        state = "restored" if plan.restores else "remediated"
        return Closed(state, DONE, now, "after", read_at)
    if _as_before(warehouse, plan, item.id, now):
        return Closed("failed", AS_BEFORE, now, "undone", read_at)
    if rule(plan.rule).judge(now)[0] is Verdict.UNKNOWN:
        raise SutureError("a part of it could not be read")
    return Closed("failed", HALF_BACK if plan.restores else HALF, now, "during", read_at)


def _as_before(warehouse: Connection, plan: Plan, remediation_id: str, now: Resource) -> bool:
    """Whether the resource is as before the change, or as its undo leaves it."""
    taken = remediations.snapshots(warehouse, remediation_id)
    before = [one.resource for one in taken if one.stage == "before"][-1]
    return now.fingerprint in {before.fingerprint, rule(plan.rule).undone(before).fingerprint}


# --- what stands in part -----------------------------------------------------------------------


def start_put_backs(warehouse: Connection) -> int:
    """Start a run for each change that stands in part, unless one is under way; returns how many.

    It asks an approver, or the customer's endpoint where the change was automatic.
    """
    started = 0
    for record in remediations.half_applied(warehouse):
        tried = remediations.put_backs(warehouse, record.id)
        if _may_try(tried) and _stands_in_part(warehouse, record, first=not tried):
            started += _start(warehouse, record, len(tried))
    return started


def _may_try(tried: list[RemediationRecord]) -> bool:
    """Not while one is under way, nor soon after somebody said no, nor again and again."""
    since = datetime.now(UTC) - QUIET
    lately = [one for one in tried if one.finished_at is None or one.finished_at > since]
    if len(lately) >= MOST_TRIES:
        return False
    return not any(one.finished_at is None or one.state in SAID_NO for one in lately)


def _stands_in_part(warehouse: Connection, record: RemediationRecord, *, first: bool) -> bool:
    """Whether there is something to put back. What is seen the ``first`` time is what it is put
    back from: a change that comes later is somebody else's, and stops it.
    """
    run = records.read_back(warehouse, record.run_id)
    plan = next((item.plan for item in run.items if item.id == record.id), None) if run else None
    if run is None or plan is None:
        return False
    watched = Watched()
    try:
        now = watched.look(run, plan.resource)
    except SutureError:
        return not first  # the run that puts it back will say so
    if _as_before(warehouse, plan, record.id, now):
        with warehouse.transaction():
            remediations.set_state(warehouse, record.id, "undone", AS_IT_WAS)
            details = {"run": record.run_id, "state": "undone", "message": AS_IT_WAS}
            audit.append(warehouse, WHO, "settled", record.id, details)
        return False
    *_, last = remediations.snapshots(warehouse, record.id)
    if first and last.resource.fingerprint != now.fingerprint:
        with warehouse.transaction():
            kept = watched.keep(warehouse, record.id, "during", now)
            audit.append(
                warehouse, WHO, "stands in part", record.id, {"run": record.run_id, **kept}
            )
    return True


def _start(warehouse: Connection, record: RemediationRecord, tried: int) -> bool:
    """Start the run once a day for each try: until it has begun the warehouse knows nothing of it.

    One that cannot start, because somebody has changed the resource since, says so in Prefect.
    """
    key = f"put-back-{record.id}-{tried}-{datetime.now(UTC):%Y-%m-%d}"
    try:
        run = run_deployment(
            RESTORE,
            parameters={"remediation_id": record.id, "requested_by": WHO},
            flow_run_name=f"put back {record.id[:8]}",
            tags=["suture", f"account:{record.account}"],
            idempotency_key=key,
            timeout=0,
            as_subflow=False,
        )
    except ObjectNotFound:
        log.warning("There is no deployment %s: %s stands in part.", RESTORE, record.id)
        return False
    by = str(run.id)  # type: ignore[union-attr]
    action = "put back asked for"
    if audit.was_said(warehouse, action, record.id, {"run": by}):
        return False
    audit.append(warehouse, WHO, action, record.id, {"run": by})
    return True


# --- gates -------------------------------------------------------------------------------------


def close_left_gates(warehouse: Connection) -> int:
    """Ask token endpoints to close what they opened for runs that are over; returns how many did.

    Suture cannot close a customer's gate itself. Closing twice is as closing once.
    """
    if not carriers.locks_can_be_trusted(warehouse):
        return 0
    return sum(_close(warehouse, one) for one in gate_requests.unreleased(warehouse))


def _close(warehouse: Connection, asked: gate_requests.GateRequest) -> bool:
    if carriers.is_carried(warehouse, asked.run_id):
        return False
    where = {"account": asked.account, "cloud": asked.cloud}
    try:
        account = account_of(warehouse, asked.cloud, asked.account)
        run = records.read_back(warehouse, asked.run_id)
        release(
            load_inventory(settings.inventory_path()),
            account,
            remediation=asked.run_id,
            person=run is not None and not run.automatic,
        )
    except SutureError as error:
        log.warning("The gate of run %s may still be open: %s", asked.run_id, error)
        if datetime.now(UTC) - asked.asked_at > gate_requests.GIVE_UP:
            gate_requests.given_up(warehouse, asked.run_id)
            audit.append(warehouse, WHO, "gate not confirmed closed", asked.run_id, where)
        return False
    gate_requests.released(warehouse, asked.run_id)
    audit.append(warehouse, WHO, "gate closed", asked.run_id, where)
    return True
