"""Put a resource back as it was before a remediation, after the same approval."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.remediate import carry_through
from tasks.errors import BadInput
from tasks.remediation import begin_restore, cannot_restore, who_signed_in


@flow(name="restore", persist_result=False)
def restore(remediation_id: str, requested_by: str = "a person in the Prefect UI") -> State:
    """Undo one remediation: plan -> approve -> open the gate -> put back -> verify -> record.

    The resource must still be as the remediation left it; otherwise nothing is changed, and the run
    shows what is different. A restore is a remediation itself: it can be undone in turn, which
    applies the fix again.

    Args:
        remediation_id: The remediation to undo, from the warehouse's remediations table.
        requested_by: Who asks, for the audit log.
    """
    try:
        signed_in = who_signed_in(flow_run.id)
        run = begin_restore(flow_run.id, remediation_id, requested_by, signed_in)
    except BadInput as problem:
        return cannot_restore(problem)
    return carry_through(run)
