"""From open findings to remediation runs: one for each account and policy."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.names import dated
from flows.remediate import remediate
from tasks.triage import assign_findings, reconcile_approvals, start_approval


@flow(name="triage", flow_run_name=dated("triage"))
def triage() -> State:
    """Hand open findings to their policies: fix at once, ask an approver, or leave to the guide.

    Findings that are being remediated already are left alone, so it may run as often as one likes.
    """
    reconcile_approvals()
    assignment = assign_findings()
    for group in assignment.automatic:
        remediate(
            [finding.id for finding in group.findings],
            policy=group.policy.name,
            requested_by="triage",
            return_state=True,
        )
    for group in assignment.assisted:
        start_approval(group)
    return Completed(
        message=f"{len(assignment.automatic)} remediations by policy, "
        f"{len(assignment.assisted)} approvals asked for, "
        f"{len(assignment.guided)} findings left to people, {len(assignment.capped)} over a cap"
    )


@flow(name="reconcile")
def reconcile() -> State:
    """End what nobody approved in time and what killed runs left behind. Changes no resource."""
    freed = reconcile_approvals()
    return Completed(message=f"{freed} findings are free again")
