"""React to control-plane events: targeted re-scan -> findings -> remediation, in one process."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.names import dated
from flows.remediate import remediate
from tasks.errors import BadInput
from tasks.policy import Group
from tasks.reacting.running import InThreads, listen, make_listener


@flow(name="react", flow_run_name=dated("react"), persist_result=False)
def react() -> State:
    """Listen for control-plane events until stopped, and close what they bring to light.

    Each event's resource is read again at once; what its policy closes without asking is closed
    by a remediation run below this one, what it asks about by a run of its own.
    """
    try:
        listener = make_listener(flow_run.id, InThreads(_close))
    except BadInput as problem:
        return Failed(name="Cannot start", message=str(problem))
    # What Prefect would import for the first of the runs below, while others wait for it.
    remediate.serialize_parameters({"finding_ids": [""]})
    listen(listener)
    return Completed(name="Stopped", message=listener.story)


def _close(group: Group, requested_by: str) -> State:
    """Close findings as triage does, as a run below the listener's."""
    return remediate(
        [finding.id for finding in group.findings],
        policy=group.policy.name,
        requested_by=requested_by,
        return_state=True,
    )
