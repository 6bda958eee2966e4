"""From open findings to remediation runs: one for each account and policy."""

from __future__ import annotations

from collections import Counter

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.names import dated
from flows.remediate import remediate
from tasks.policy import Mode
from tasks.triage import assign_findings, held_back, reconcile_approvals, start_approval


@flow(name="triage", flow_run_name=dated("triage"))
def triage() -> State:
    """Hand open findings to their policies: fix at once, ask an approver, or leave to the guide.

    Findings that are being remediated already are left alone, so it may run as often as one likes.
    What a halt or a cap by the hour holds back waits for a triage that comes later.
    """
    reconcile_approvals()
    assignment = assign_findings()
    done: Counter[Mode] = Counter()
    waiting: Counter[str] = Counter()
    for group in (*assignment.automatic, *assignment.assisted):
        if why := held_back(group.policy):
            waiting[why] += len(group.findings)
            continue
        done[group.policy.mode] += 1
        if group.policy.mode is Mode.AUTOMATIC:
            remediate(
                [finding.id for finding in group.findings],
                policy=group.policy.name,
                requested_by="triage",
                return_state=True,
            )
        else:
            start_approval(group)
    held = [f". {count} findings wait: {why}" for why, count in waiting.items()]
    return Completed(
        message=f"{done[Mode.AUTOMATIC]} remediations by policy, "
        f"{done[Mode.ASSISTED]} approvals asked for, "
        f"{len(assignment.guided)} findings left to people, {len(assignment.capped)} over a cap"
        + "".join(held)
    )


@flow(name="reconcile")
def reconcile() -> State:
    """End what nobody approved in time, and settle what killed runs left behind.

    Changes no resource itself: what stands in part is put back by a run of its own.
    """
    freed = reconcile_approvals()
    return Completed(message=f"{freed} findings are free again")
