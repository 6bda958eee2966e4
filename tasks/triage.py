"""What triage is made of: reconcile approvals, sort findings by policy, start remediation runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from tasks import settings
from tasks.errors import SutureError
from tasks.policy import Assignment, Group, assign, load_policies
from tasks.rules import RULES
from tasks.warehouse import audit, remediations
from tasks.warehouse.database import connect
from tasks.warehouse.findings import open_findings

DEPLOYMENT = "remediate/remediate"


@task(cache_policy=NO_CACHE)
def reconcile_approvals() -> int:
    """Expire approvals that nobody gave in time, and end their runs in Prefect too.

    Prefect itself leaves such a run paused for ever. Returns how many findings are free again.
    """
    with connect() as warehouse:
        expired = remediations.expire_overdue(warehouse)
        for record in expired:
            audit.append(warehouse, "triage", "expired", record.id, {"run": record.run_id})
    with get_client(sync_client=True) as client:
        for run_id in {record.run_id for record in expired}:
            _cancel(client, run_id)
    if expired:
        get_run_logger().warning("%d approvals expired", len(expired))
    return len(expired)


def _cancel(client: SyncPrefectClient, run_id: str) -> None:
    try:
        client.set_flow_run_state(
            UUID(run_id),
            Cancelled(name="Expired", message="Nobody approved it in time."),
            force=True,
        )
    except ObjectNotFound:
        return  # Prefect's retention removed the run; the warehouse keeps the record


@task(cache_policy=NO_CACHE)
def assign_findings() -> Assignment:
    """Sort the open findings into remediation runs by the policies, within their caps."""
    policies = load_policies(settings.policies_path())
    fixable = {rule.id for rule in RULES if rule.fix is not None}
    with connect() as warehouse:
        found = open_findings(warehouse)
        busy = remediations.active_findings(warehouse, [finding.id for finding in found])
        waiting = remediations.waiting(warehouse)
    runs = {(record.run_id, record.policy) for record in waiting}
    assignment = assign(
        (finding for finding in found if finding.id not in busy and finding.rule in fixable),
        policies,
        waiting=Counter(policy for _, policy in runs),
    )
    get_run_logger().info(
        "%d remediations by policy, %d approvals, %d findings left to people, %d over a cap",
        len(assignment.automatic),
        len(assignment.assisted),
        len(assignment.guided),
        len(assignment.capped),
    )
    return assignment


@task(cache_policy=NO_CACHE, task_run_name="ask-{group.account}")
def start_approval(group: Group) -> str:
    """Start the remediation run that asks an approver; it suspends by itself. Returns its id."""
    started = start_remediation(
        [finding.id for finding in group.findings],
        policy=group.policy.name,
        requested_by="triage",
        account=group.account,
    )
    return started["run"]


def start_remediation(
    finding_ids: Sequence[str], *, policy: str = "", requested_by: str, account: str = ""
) -> dict[str, str]:
    """Start a run of the remediation deployment. Returns its id and its page in the UI.

    A deployment run of its own, not a subflow: only such a run can suspend and free its process.
    Raises SutureError when the deployment is not there.
    """
    try:
        run: FlowRun = run_deployment(  # type: ignore[assignment]
            DEPLOYMENT,
            parameters={
                "finding_ids": list(finding_ids),
                "policy": policy,
                "requested_by": requested_by,
            },
            flow_run_name=f"remediate {account or f'{len(finding_ids)} findings'}",
            tags=["suture", f"account:{account}"] if account else ["suture"],
            timeout=0,
            as_subflow=False,
        )
    except ObjectNotFound:
        raise SutureError(
            f"There is no deployment {DEPLOYMENT}. Run `prefect deploy --all` or `suture serve`."
        ) from None
    return {"run": str(run.id), "address": settings.run_address(str(run.id))}
