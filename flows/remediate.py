"""Close findings of one account: plan -> approve -> open the gate -> apply -> verify -> record."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.flow_runs import suspend_flow_run
from prefect.runtime import flow_run

from flows.forms import approval_form
from tasks.remediation import (
    Answered,
    Run,
    ask_customer,
    begin_remediation,
    close_findings,
    finish_remediation,
    take_answer,
)


@flow(name="remediate", flow_run_name="remediate-{policy}")
def remediate(
    finding_ids: list[str], policy: str = "", requested_by: str = "a person in the Prefect UI"
) -> State:
    """Close findings by their ids, as one run with one approval and one 6-digit code.

    Args:
        finding_ids: Ids from the posture artifact or the warehouse; all of one account.
        policy: The policy they are closed under; empty for an approval with nothing preset.
        requested_by: Who or what asks, for the audit log.
    """
    return carry_through(begin_remediation(flow_run.id, finding_ids, policy, requested_by))


def carry_through(run: Run) -> State:
    """From a planned run to its end: ask until it is answered, and close what was chosen."""
    while run.waiting:
        answer = ask_customer(run) if run.automatic else ask_approver(run)
        if answer.chosen:
            close_findings(run, answer)
    return finish_remediation(run)


def ask_approver(run: Run) -> Answered:
    """Suspend until someone answers; the process ends here and starts from the top when they do.

    Each round has a key of its own: a resumed run finds the answer of the round it waited in.
    """
    form = approval_form(run.inputs, run.page(), numbers=run.last_number)
    answer = suspend_flow_run(
        wait_for_input=form, key=f"approval-{run.round}", timeout=run.seconds_left
    )
    return take_answer(run, answer.model_dump())
