"""Close findings of one account: plan -> approve -> open the gate -> apply -> verify -> record."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.flow_runs import suspend_flow_run
from prefect.futures import wait
from prefect.runtime import flow_run
from prefect.states import Completed, Failed
from prefect.task_runners import ThreadPoolTaskRunner

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
    take_on,
    who_signed_in,
)
from tasks.remediation_run import MORE, Answered, Run

AT_ONCE = 4  # resources that one run without an approver changes at a time


@flow(
    name="remediate",
    persist_result=False,
    task_runner=ThreadPoolTaskRunner(max_workers=AT_ONCE),  # type: ignore[arg-type]
)
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
        answered: Answered | None = None  # already, with the planning
        while run.waiting:
            answer = answered or (ask_customer(run) if run.automatic else ask_approver(run))
            answered = None
            for numbers in run.apart(answer.chosen):
                _close(run, numbers, answer)
            if answer.chosen:
                if not run.concluded:
                    conclude_round(run)
                if run.takes_more and (more := MORE.get()()):
                    answered = take_on(run, more)
        name_run(run)
    return finish_remediation(run)


def _close(run: Run, numbers: Sequence[int], answer: Answered) -> None:
    """Close findings of as many resources: one after another, or where nobody has approved them one
    by one several at a time. A gate shut to one is shut to the rest.
    """
    if not run.automatic or len(numbers) == 1:
        for number in numbers:
            if run.goes_on:
                close_one(run, number, answer, return_state=True)
        return
    begun = [close_one.submit(run, number, answer) for number in numbers]
    try:
        wait(begun)
    except BaseException:  # what is being changed is not left to itself, nor is more begun
        run.interrupted = True
        wait(begun)
        raise


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
