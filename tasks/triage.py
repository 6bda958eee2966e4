"""What triage is made of: reconcile approvals, sort findings by policy, start remediation runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from uuid import UUID

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Crashed
from psycopg import Connection

from tasks import settings
from tasks.errors import HeldBack, SutureError
from tasks.model import Finding, canonical_json, sha256
from tasks.policy import LONGEST, Assignment, Group, Mode, Policy, assign, load_caps, load_policies
from tasks.reconciling import close_left_gates, settle_dead_writers, start_put_backs
from tasks.rules import RULES
from tasks.warehouse import audit, carriers, halts, limits, remediations
from tasks.warehouse.database import connect
from tasks.warehouse.findings import open_findings
from tasks.warehouse.remediations import RemediationRecord

DEPLOYMENT = "remediate/remediate"
STARTING = timedelta(seconds=30)  # longer than a run takes from its start to carrying itself
FIXABLE = frozenset(rule.id for rule in RULES if rule.fix is not None)
QUIET = timedelta(days=1)  # from the end of a finding's remediation until triage takes it up again


@task(cache_policy=NO_CACHE)
def reconcile_approvals() -> int:
    """End what nobody approved in time, and what a run has left behind, here and in Prefect.

    Prefect itself leaves a run paused for ever. Returns how many findings are free again.
    """
    with connect() as warehouse, get_client(sync_client=True) as prefect:
        expired = remediations.expire_overdue(warehouse)
        for record in expired:
            audit.append(warehouse, "triage", "expired", record.id, {"run": record.run_id})
        for run_id in {record.run_id for record in expired}:
            _cancel(prefect, run_id)
        settled = settle_dead_writers(warehouse)
        dead = _end_dead_runs(warehouse, prefect)
        left = _free_what_was_left(warehouse, prefect)
        closed = close_left_gates(warehouse)
        back = start_put_backs(warehouse)
    log = get_run_logger()
    for count, what in (
        (settled, "changes were settled whose process had ended"),
        (dead, "runs had no process any more"),
        (closed, "gates were closed for runs that are over"),
        (back, "runs were started to put back what stands in part"),
    ):
        if count:
            log.warning("%d %s", count, what)
    if expired:
        log.warning("%d approvals expired", len(expired))
    if left:
        log.warning("%d findings were left behind by runs that are over", left)
    return len(expired) + settled + left


def _cancel(prefect: SyncPrefectClient, run_id: str) -> None:
    """End a run that waits. Any other is left as it is: one that runs may be writing, and will
    find that its approval is over.
    """
    run = _flow_run(prefect, run_id)
    state = run.state if run is not None else None
    if state is not None and (state.is_paused() or state.is_scheduled() or state.is_pending()):
        late: State = Cancelled(name="Expired", message="Nobody approved it in time.")
        prefect.set_flow_run_state(UUID(run_id), late, force=True)


def _flow_run(prefect: SyncPrefectClient, run_id: str) -> FlowRun | None:
    try:
        return prefect.read_flow_run(UUID(run_id))
    except ObjectNotFound:
        return None  # Prefect's retention removed the run; the warehouse keeps the record


def _end_dead_runs(warehouse: Connection, prefect: SyncPrefectClient) -> int:
    """End the runs that Prefect takes for running although no process carries them.

    One that has just been planned, or resumed, may not carry itself yet. One that ended before it
    had planned anything is left to Prefect: it holds nothing.
    """
    if not carriers.locks_can_be_trusted(warehouse):
        return 0
    quiet = datetime.now(UTC) - STARTING
    dead = 0
    for run in prefect.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=["remediate", "restore"])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING]))
        ),
    ):
        carried = remediations.load_run(warehouse, str(run.id))
        begun = max((one.created_at for one in carried), default=None)
        entered = run.state.timestamp if run.state is not None else None
        young = begun is None or begun > quiet or (entered is not None and entered > quiet)
        if young or carriers.is_carried(warehouse, str(run.id)):
            continue
        gone: State = Crashed(message="Its process ended before it could say so.")
        prefect.set_flow_run_state(run.id, gone, force=True)
        audit.append(warehouse, "triage", "run ended", str(run.id), {"message": gone.message})
        dead += 1
    return dead


def _free_what_was_left(warehouse: Connection, prefect: SyncPrefectClient) -> int:
    """Free the findings of runs that were cancelled, or crashed before they could say so.

    What such a run was writing to is settled by what is seen of it, and not here, for as long as
    that may still be seen.
    """
    freed = 0
    for run_id, carried in groupby(remediations.active(warehouse), key=lambda one: one.run_id):
        run = _flow_run(prefect, run_id)
        state = run.state if run is not None else None
        how = state.name if state is not None else "deleted"
        over = run is None or (state is not None and state.is_final())
        for record in carried:
            waits = record.state != "applying"
            if (over and waits) or _takes_too_long(record):
                _free(warehouse, record, str(how) if over else "without a word")
                freed += 1
    return freed


def _takes_too_long(record: RemediationRecord) -> bool:
    """Whether it has been written to for longer than any session lasts: its process is gone."""
    begun = record.decided_at
    return (
        record.state == "applying"
        and begun is not None
        and datetime.now(UTC) - begun > remediations.WRITING
    )


def _free(warehouse: Connection, record: RemediationRecord, how: str) -> None:
    """End a remediation whose run is over. Killed in the middle of a change, a run cannot have
    undone it: that finding is said to have failed, and its snapshot shows what was there.
    """
    if record.state == "applying":
        state, words = "failed", "while it was changed: compare the resource with its snapshots."
    else:
        state, words = "expired", "before anyone approved this; nothing was changed."
    message = f"Its run ended ({how}) {words}"
    remediations.set_state(warehouse, record.id, state, message)
    audit.append(warehouse, "triage", state, record.id, {"run": record.run_id, "message": message})


@task(cache_policy=NO_CACHE)
def assign_findings() -> Assignment:
    """Sort the open findings into remediation runs by the policies, within their caps.

    What is being remediated, or was and did not end well within a day, is left alone: nobody is
    asked every quarter of an hour what they have just denied.
    """
    with connect() as warehouse:
        found = open_findings(warehouse)
        ids = [finding.id for finding in found]
        busy = remediations.active_findings(warehouse, ids)
        busy |= remediations.recently_ended(warehouse, ids, datetime.now(UTC) - QUIET)
        assignment = assigned(warehouse, found, busy)
    get_run_logger().info(
        "%d remediations by policy, %d approvals, %d findings left to people, %d over a cap",
        len(assignment.automatic),
        len(assignment.assisted),
        len(assignment.guided),
        len(assignment.capped),
    )
    return assignment


def assigned(
    warehouse: Connection, found: Sequence[Finding], left_alone: Collection[str]
) -> Assignment:
    """Sort findings into runs by the policies, within their caps, and by what has been tried.

    ``left_alone`` are the ids of those that are not to be taken up now.
    """
    now = datetime.now(UTC)
    waiting = {(record.run_id, record.policy) for record in remediations.waiting(warehouse)}
    ids = [finding.id for finding in found]
    return assign(
        (one for one in found if one.id not in left_alone and one.rule in FIXABLE),
        load_policies(settings.policies_path()),
        waiting=Counter(policy for _, policy in waiting),
        closings=remediations.automatic_closings(warehouse, ids, now - LONGEST),
        now=now,
    )


def held_back(policy: Policy) -> str:
    """Why no run may be started under this policy now; empty: it may. Asked before each."""
    with connect() as warehouse:
        why = why_held_back(warehouse, policy)
    if why:
        get_run_logger().warning("Findings of %s wait. %s", policy.name, why)
    return why


def why_held_back(warehouse: Connection, policy: Policy) -> str:
    """The halt or the cap that keeps a run under this policy from being started now, in words."""
    caps = load_caps(settings.policies_path())
    try:
        halts.check(warehouse, policy.name, automatic=policy.mode is Mode.AUTOMATIC)
        limits.check_room(warehouse, policy.name, caps)
    except HeldBack as held:
        return str(held)
    return ""


@task(cache_policy=NO_CACHE, task_run_name="ask-{group.account}")
def start_approval(group: Group, requested_by: str = "triage") -> str:
    """Start the remediation run that asks an approver; it suspends by itself. Returns its id.

    Until the run has begun the warehouse knows nothing of it. A triage that sorts the same findings
    into the same group meanwhile gets the run that is queued already.
    """
    ids = sorted(finding.id for finding in group.findings)
    with connect() as warehouse:
        since = remediations.free_since(warehouse, ids)
    started = start_remediation(
        [finding.id for finding in group.findings],
        once=sha256(canonical_json([group.policy.name, ids, str(since)])),
        policy=group.policy.name,
        requested_by=requested_by,
        account=group.account,
    )
    return started["run"]


def start_remediation(
    finding_ids: Sequence[str],
    *,
    policy: str = "",
    requested_by: str,
    account: str = "",
    once: str = "",
) -> dict[str, str]:
    """Start a run of the remediation deployment. Returns its id and its page in the UI.

    A deployment run of its own, not a subflow: only such a run can suspend and free its process.
    While a run that was started with the same ``once`` is not over, that run is returned.
    Raises SutureError when the deployment is not there.
    """
    run = _run_deployment(finding_ids, policy, requested_by, account, once)
    while once and run.state is not None and run.state.is_final():
        once = f"{once[:64]}-{run.id}"  # it ended before it took the findings up: another one
        run = _run_deployment(finding_ids, policy, requested_by, account, once)
    return {"run": str(run.id), "address": settings.run_address(str(run.id))}


def _run_deployment(
    finding_ids: Sequence[str], policy: str, requested_by: str, account: str, key: str
) -> FlowRun:
    try:
        return run_deployment(  # type: ignore[return-value]
            DEPLOYMENT,
            parameters={
                "finding_ids": list(finding_ids),
                "policy": policy,
                "requested_by": requested_by,
            },
            flow_run_name=f"remediate {account or f'{len(finding_ids)} findings'}",
            tags=["suture", f"account:{account}"] if account else ["suture"],
            idempotency_key=key or None,
            timeout=0,
            as_subflow=False,
        )
    except ObjectNotFound:
        raise SutureError(
            f"There is no deployment {DEPLOYMENT}. Run `prefect deploy --all` or `suture serve`."
        ) from None
