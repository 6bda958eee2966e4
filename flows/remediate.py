"""Close findings of one account: plan -> approve -> open the gate -> apply -> verify -> record."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.forms import approval_form
from tasks.errors import BadInput
from tasks.remediation import (
    ask_customer,
    begin_remediation,
    close_one,
    conclude_round,
    finish_remediation,
    forget_typed,
    name_run,
    none_left_waiting,
    present_to_opener,
    split_by_account,
    take_answer,
    who_signed_in,
)
from tasks.remediation_run import Answered, Run


@flow(name="remediate", persist_result=False)
def remediate(
    finding_ids: list[str], policy: str = "", requested_by: str = "a person in the Prefect UI"
) -> State:
    """Close findings by their ids, as one run with one approval and one 6-digit code.

    Args:
        finding_ids: Ids from the posture artifact or the warehouse; several may stand in one line.
            Ids of several accounts become one run for each account.
        policy: The policy they are closed under; empty for an approval with nothing preset.
        requested_by: Who or what asks, for the audit log.
    """
    try:
        signed_in = ""
        if not _is_below_another():  # which has started it for one account
            signed_in = who_signed_in(flow_run.id)
            if started := split_by_account(finding_ids, policy, signed_in or requested_by):
                pages = "; ".join(f"{name}: {one['address']}" for name, one in started.items())
                return Completed(name="Split", message=f"One run for each account. {pages}")
        run = begin_remediation(flow_run.id, finding_ids, policy, requested_by, signed_in)
    except BadInput as problem:
        return Failed(name="Cannot start", message=str(problem))
    return carry_through(run)


def _is_below_another() -> bool:
    context = FlowRunContext.get()
    return bool(context and context.flow_run and context.flow_run.parent_task_run_id)


def carry_through(run: Run) -> State:
    """From a planned run to its end: ask until it is answered, and close what was chosen."""
    with none_left_waiting(run):
        name_run(run)
        while run.waiting:
            answer = ask_customer(run) if run.automatic else ask_approver(run)
            for number in answer.chosen:
                if not run.gate_refusal:  # a gate shut to one finding is shut to the rest
                    close_one(run, number, answer, return_state=True)
            if answer.chosen:
                conclude_round(run)
    return finish_remediation(run)


def ask_approver(run: Run) -> Answered:
    """Suspend until someone answers; the process ends here and starts from the top when they do.

    Each round has a key of its own: a resumed run finds the answer of the round it waited in.
    """
    form = approval_form(
        run.inputs,
        run.page(),
        numbers=run.last_number,
        terms=run.terms,
        opens_gate=run.presents_codes,
    )
    filled_in = suspend_flow_run(wait_for_input=form, key=run.key, timeout=run.seconds_left)
    fields = filled_in.model_dump()
    forget_typed(run, fields)
    answer = take_answer(run, fields)
    return present_to_opener(run, answer) if answer.chosen and run.presents_codes else answer
