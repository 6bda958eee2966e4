"""The steps of a remediation run, each a task in the UI: plan, ask, close each finding, conclude.

Everything a run knows is in the warehouse before it waits, because a resumed run starts from the
top in a new process. Codes are SecretStr in memory; no task's result is ever stored.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from pydantic import SecretStr

from tasks import approval, codes, settings
from tasks import remediation_records as records
from tasks.approvers import REQUESTED_BY, Terms
from tasks.calls import recording
from tasks.carrying import carried
from tasks.closing import Closed, close_finding
from tasks.clouds.propagation import Propagation
from tasks.clouds.remediator import Session, open_session
from tasks.clouds.session_policy import permissions
from tasks.clouds.token_request import present_code, release, request_code
from tasks.core_dumps import forbid_core_dumps
from tasks.drift import ChangedSince, drift, in_words, table
from tasks.errors import (
    ApplyFailed,
    BadInput,
    CloudError,
    Drifted,
    GateRefused,
    HeldBack,
    ResourceGone,
    SutureError,
    VerifyFailed,
    words_of,
)
from tasks.lifecycle import IllegalTransition
from tasks.model import Finding, Resource, Step
from tasks.plan import as_code, make_plan, plan_digest
from tasks.planning import (
    by_account,
    can_go_back,
    find_findings,
    plan_back,
    plan_findings,
    read_resources,
)
from tasks.policy import (
    LONGEST,
    ON_REQUEST,
    Mode,
    Policy,
    check_automatic,
    escalated,
    load_policies,
    named,
    terms_for,
)
from tasks.reconciling import settle_run
from tasks.remediation_run import MOST_ROUNDS, NOTHING_CHOSEN, Answered, Item, More, Run
from tasks.rules import rule
from tasks.triage import start_remediation
from tasks.warehouse import gate_requests, remediations
from tasks.warehouse.database import connect
from tasks.warehouse.findings import account_of, findings_by_ids
from tasks.warehouse.remediations import load_remediation

BROKEN = "It broke while it was changed: compare the resource with its snapshots."
DRIFTED = "The resource changed since the plan was shown. Please look again."

# --- plan --------------------------------------------------------------------------------------


@task(cache_policy=NO_CACHE, persist_result=False)
def split_by_account(
    finding_ids: Sequence[str], policy: str, requested_by: str
) -> dict[str, dict[str, str]]:
    """Start a run for each account when the ids are of several: a code opens one account's gate.

    Returns {account: {"run": id, "address": page in the UI}}, empty when they are of one account.
    Raises BadInput for ids that cannot be used.
    """
    with connect() as warehouse:
        groups = by_account(find_findings(warehouse, finding_ids))
    if len(groups) == 1:
        return {}
    started = {
        found[0].account: start_remediation(
            [finding.id for finding in found],
            policy=policy,
            requested_by=requested_by,
            account=found[0].account,
        )
        for found in groups
    }
    rows = [f"| {as_code(name)} | [open]({one['address']}) |" for name, one in started.items()]
    create_markdown_artifact(
        "\n".join(["| Account | Run |", "|---|---|", *rows]),
        description="The findings are of several accounts: each has a run, with its own approval",
    )
    return started


@task(cache_policy=NO_CACHE, persist_result=False)
def begin_remediation(
    run_id: str,
    finding_ids: Sequence[str],
    policy_name: str,
    requested_by: str,
    signed_in: str = "",
) -> Run:
    """Plan the run and write it down, or read back what was written before it waited.

    ``signed_in`` is who started it by the sign-in proxy's word, which counts before
    ``requested_by``. Raises BadInput for ids that are not known, for rules without a fix, and for
    findings that the named policy does not close by itself although it is automatic.
    """
    with connect() as warehouse:
        if run := _began_before(warehouse, run_id):
            return run
        found, closings = _found(warehouse, finding_ids)
        account = account_of(warehouse, found[0].cloud, found[0].account)
    policies = load_policies(settings.policies_path())
    policy = escalated(named(policies, policy_name), closings)
    check_automatic(policy, policies, found)
    run = Run(
        run_id,
        account,
        policy,
        signed_in or requested_by,
        terms=terms_for(policy, policies, found, (signed_in, requested_by)),
        requester_verified=bool(signed_in),
    )
    records.save(run, plan_findings(run.inventory, account, found, policy))
    get_run_logger().info(
        "Planned %d fixes in %s under %s", len(run.waiting), account.id, policy.name
    )
    return run


def _found(
    warehouse: psycopg.Connection, finding_ids: Sequence[str]
) -> tuple[list[Finding], dict[str, list[datetime]]]:
    """The findings, and when policies closed them by themselves. Raises BadInput."""
    found = find_findings(warehouse, finding_ids)
    ids = [finding.id for finding in found]
    return found, remediations.automatic_closings(warehouse, ids, datetime.now(UTC) - LONGEST)


def take_on(run: Run, more: More) -> Answered:
    """Plan what else an automatic run is to close, write it down as its own, and ask the customer
    to open the gate for it.

    No task, for what a task costs is a twelfth of a single change: the run's log says what was
    planned, the record what was opened. Leaves the run as it is, and says why, where its policy
    does not close that by itself (any more), or not in one run.
    """
    try:
        found, policy = _further(run, more)
    except BadInput as problem:
        get_run_logger().warning("What came meanwhile is left to another run: %s", problem)
        return NOTHING_CHOSEN
    run.changed.clear()  # their plans are made after that
    run.expires_at = datetime.now(UTC) + policy.expires
    planned = plan_findings(run.inventory, run.account, found, policy, first=run.next_number)
    records.save(run, planned, more.requested_by)
    get_run_logger().info("Planned %d more fixes in %s", len(run.waiting), run.account.id)
    return ask_customer.fn(run) if run.waiting else NOTHING_CHOSEN


def _further(run: Run, more: More) -> tuple[list[Finding], Policy]:
    """The findings that an automatic run takes on, and its policy as it is now.

    Raises BadInput where that does not close them by itself, or not in one run.
    """
    with connect() as warehouse:
        found, closings = _found(warehouse, more.finding_ids)
    policies = load_policies(settings.policies_path())
    policy = escalated(named(policies, run.policy.name), closings)
    if policy.mode is not Mode.AUTOMATIC:
        raise BadInput("policy", f"{policy.name} asks somebody about these.")
    check_automatic(policy, policies, found, already=len(run.items))
    if any((one.cloud, one.account) != (run.account.cloud, run.account.id) for one in found):
        raise BadInput("finding_ids", f"are not all of {run.account.id}.")
    return found, policy


@task(cache_policy=NO_CACHE, persist_result=False)
def begin_restore(run_id: str, remediation_id: str, requested_by: str, signed_in: str = "") -> Run:
    """Plan to take one remediation back, or read back what was written before it waited.

    Raises BadInput when it changed nothing that stands, ChangedSince when the resource is not as it
    left it.
    """
    with connect() as warehouse:
        if run := _began_before(warehouse, run_id):
            return run
        back = can_go_back(warehouse, load_remediation(warehouse, remediation_id.strip()))
        account = account_of(warehouse, back.record.cloud, back.record.account)
        (finding,) = findings_by_ids(warehouse, [back.record.finding_id])
    policy = ON_REQUEST
    if back.record.half_applied and back.record.mode == Mode.AUTOMATIC:
        policy = Policy(back.record.policy, Mode.AUTOMATIC)  # whoever let it begin is asked
    policies = load_policies(settings.policies_path())
    run = Run(
        run_id,
        account,
        policy,
        signed_in or requested_by,
        undoes=back.record.id,
        terms=terms_for(policy, policies, [finding], (signed_in, requested_by)),
        requester_verified=bool(signed_in),
    )
    try:
        planned = plan_back(run.inventory, account, finding, back)
    except ChangedSince as changed:
        details = {"message": str(changed), "requested_by": run.requested_by}
        with connect() as warehouse:
            records.note(warehouse, run, "restore refused", back.record.id, details)
        raise
    records.save(run, [planned])
    return run


def cannot_restore(problem: BadInput) -> State:
    """The end of a restore that could not begin; where its resource has changed, an artifact too.

    Not a task, as ``finish_remediation`` is none.
    """
    if not isinstance(problem, ChangedSince):
        return Failed(name="Cannot start", message=str(problem))
    create_markdown_artifact(
        table(problem.drift), description="What has changed since the remediation that was to go"
    )
    return Failed(name="Drifted", message=str(problem))


def _began_before(warehouse: psycopg.Connection, run_id: str) -> Run | None:
    """The run as another process left it; what that one was writing to is looked at first."""
    settle_run(run_id)
    return records.read_back(warehouse, run_id)


def _settle_broken(run: Run, message: str) -> Run:
    """What is still being written to when nobody writes any more has failed, as far as we know."""
    broken = [item for item in run.items if item.state == "applying"]
    records.settle(run, broken, "failed", message)
    return run


@task(cache_policy=NO_CACHE, persist_result=False)
def who_signed_in(run_id: str) -> str:
    """Who started the run, as the sign-in proxy told the guard; empty where nobody did."""
    with get_client(sync_client=True) as client:
        return str(client.read_flow_run(UUID(run_id)).labels.get(REQUESTED_BY) or "")


def name_run(run: Run) -> None:
    """Give the flow run a name that a person recognises in a list."""
    if run.items and run.round == 1 and run.named != run.title:
        run.named = run.title
        with get_client(sync_client=True) as client:
            client.update_flow_run(UUID(run.id), name=run.title)


# --- ask ---------------------------------------------------------------------------------------


@task(cache_policy=NO_CACHE, persist_result=False)
def take_answer(run: Run, fields: Mapping[str, object]) -> Answered:
    """Read an approver's answer: deny, leave out, values; and redeem the code's handle.

    What cannot be used is said on the form of the next round, and nothing is changed. Of two
    approvals that are needed the first is kept, and the next round asks for the second.
    """
    forbid_core_dumps()  # the code comes into this process
    try:
        answer = approval.check(
            fields,
            numbers=run.last_number,
            inputs=run.inputs,
            typed=_as_typed(fields),
            code_needed=run.terms.last,
        )
        redeemed = _redeem(run, answer)
        if answer.approved:
            _check_approver(run, redeemed)
            _plan_with(run, answer)
    except (BadInput, GateRefused) as problem:
        ask_again(run, str(problem))
        return NOTHING_CHOSEN
    who, verified = redeemed.approver, redeemed.verified
    if not answer.approved:
        records.settle(run, run.waiting, "denied", f"Denied by {who}.", who, verified=verified)
        return NOTHING_CHOSEN
    last = run.terms.last
    if last and not _hold(run):
        return NOTHING_CHOSEN
    left_out = [item for item in run.waiting if item.number in answer.leave_out]
    records.settle(run, left_out, "left_out", "The approver left it out.", who, verified=verified)
    approved = run.terms.approved_by(who, verified=verified)
    records.note_approval(run, approved)
    if not last:
        _ask_the_next(run, approved)
        return NOTHING_CHOSEN
    chosen = tuple(item.number for item in run.waiting)
    return Answered(
        redeemed.code,
        chosen,
        ", ".join(one.approver for one in approved.given),
        all(one.verified for one in approved.given),
    )


def forget_typed(run: Run, fields: Mapping[str, object]) -> None:
    """Delete the answer to this round from Prefect's database when it holds a code as typed.

    It came past no guard: by a server that has none, whether there should be one or not. What the
    database keeps of a deleted row is beyond a client's reach.
    """
    code = str(fields.get("code") or "")
    if not code or approval.is_handle(code):
        return
    with get_client(sync_client=True) as client:
        client.delete_flow_run_input(UUID(run.id), f"suspended-{run.key}-response")


def _as_typed(fields: Mapping[str, object]) -> bool:
    """Whether the answer is to be read as it was typed: past no guard, and there is to be none."""
    return not settings.guarded() and not approval.is_handle(str(fields.get("code")))


def _check_approver(run: Run, redeemed: codes.Redeemed) -> None:
    """The guard has asked the same of the form, which is Prefect's; this is of our own record."""
    if words := run.terms.refusal(redeemed.approver, verified=redeemed.verified):
        raise GateRefused(words)


def _ask_the_next(run: Run, approved: Terms) -> None:
    """Wait for another person, in a round of its own: nobody is asked again."""
    run.terms = approved
    run.round += 1
    run.notes = []
    try:
        records.keep_waiting(run)
    except IllegalTransition:
        for item in run.waiting:
            records.look_up(item)


def _hold(run: Run) -> bool:
    """Keep what is approved from expiring until the run gets to it; whether it was still there."""
    try:
        records.keep_waiting(run, approved=True)
    except IllegalTransition:
        for item in run.waiting:
            records.look_up(item)
        return False
    return True


def _redeem(run: Run, answer: approval.Answer) -> codes.Redeemed:
    """The code and the name behind the answer's handle. Raises GateRefused when it is gone.

    A denial needs no code: one whose handle is gone counts, under the name as it was typed.
    """
    if not answer.handle:  # a denial past the guard, or all there is without one
        return codes.Redeemed(answer.code, answer.approver, verified=False)
    try:
        return codes.redeem(answer.handle, run.id)
    except GateRefused:
        if answer.approved:
            raise
        return codes.Redeemed(SecretStr(""), answer.approver, verified=False)


def _plan_with(run: Run, answer: approval.Answer) -> None:
    """Make the steps again with what the approver gave, from the resource as it was shown.

    All of them or, when a fix cannot take a value (BadInput), none. Who approved other values has
    not approved these: that approval stands no more, and this one is the first.
    """
    made = {}
    for item in run.waiting:
        plan = item.planned
        if plan.restores or item.number in answer.leave_out:
            continue
        own = {value.name for value in rule(plan.rule).inputs}
        given = {**plan.values, **{k: v for k, v in answer.values.items() if k in own}}
        made[item.number] = _planned_again(item, plan.resource, given)
    if any(run.item(number).planned.hash != plan.hash for number, plan in made.items()):
        run.terms = run.terms.unapproved()
    for number, plan in made.items():
        run.item(number).plan = plan


def _planned_again(item: Item, resource: Resource, values: Mapping[str, Any]) -> Any:
    return make_plan(
        rule(item.planned.rule),
        resource,
        values,
        finding_id=item.finding_id,
        number=item.number,
    )


@task(cache_policy=NO_CACHE, persist_result=False)
def ask_customer(run: Run) -> Answered:
    """Ask the customer's token endpoint to open the gate for this run. For automatic mode.

    A refusal settles every finding of the run as refused: there is nobody to ask again.
    """
    forbid_core_dumps()  # the machine's code comes into this process
    if not (_may_ask(run) and _hold(run)):
        return NOTHING_CHOSEN
    source = run.inventory.source(run.account.source)
    plans = [item.planned for item in run.waiting]
    with connect() as warehouse:
        gate_requests.asked(warehouse, run.id, run.account.cloud.value, run.account.id)
    try:
        opened = request_code(
            run.inventory,
            run.account,
            remediation=run.id,
            plan=plan_digest(plans),
            resources=sorted({plan.resource.id for plan in plans}),
            actions=sorted({one for plan in plans for one in permissions(plan.steps, undo=True)}),
            warm=run.policy.warm_gate,
        )
    except (GateRefused, CloudError, BadInput) as refusal:
        get_run_logger().warning("The customer's token endpoint did not open: %s", refusal)
        if isinstance(refusal, CloudError):
            _release(run)  # it may have opened, and its answer was lost
        else:
            with connect() as warehouse:
                gate_requests.released(warehouse, run.id)
        records.settle(run, run.waiting, "refused", str(refusal), source.name)
        return NOTHING_CHOSEN
    run.gate_stays = opened.warm
    who = f"{source.name} token endpoint"
    with connect() as warehouse:
        _note_opened(warehouse, run, run.waiting, who, opened.expires_at)
        if opened.warm:  # nothing was opened for this run, so that nothing is to be closed after it
            gate_requests.released(warehouse, run.id)
    chosen = tuple(item.number for item in run.waiting)
    return Answered(opened.code, chosen, who, True, opened.expires_at)


@task(cache_policy=NO_CACHE, persist_result=False)
def present_to_opener(run: Run, answer: Answered) -> Answered:
    """Present the approver's code to the customer's opener, which opens the gate for it.

    Where it does not, nothing is changed, and the next round says why. While the run may not write
    no gate is opened for it.
    """
    forbid_core_dumps()
    if not _may_ask(run):
        return NOTHING_CHOSEN
    chosen = [run.item(number) for number in answer.chosen]
    with connect() as warehouse:
        gate_requests.asked(warehouse, run.id, run.account.cloud.value, run.account.id)
    try:
        until = present_code(
            run.inventory,
            run.account,
            answer.code,
            resources=sorted({item.planned.resource.id for item in chosen}),
            remediation=run.id,
        )
    except (GateRefused, CloudError, BadInput) as refusal:
        if isinstance(refusal, CloudError):
            _release(run)  # it may have opened, and its answer was lost
        else:
            with connect() as warehouse:
                gate_requests.released(warehouse, run.id)
        for item in chosen:
            records.note_refused(run, item, str(refusal), records.Watched())
        ask_again(run, str(refusal))
        return NOTHING_CHOSEN
    with connect() as warehouse:
        _note_opened(warehouse, run, chosen, f"{run.account.source} opener", until)
    return replace(answer, until=until)


def _note_opened(
    warehouse: psycopg.Connection, run: Run, items: Sequence[Item], who: str, until: datetime
) -> None:
    for item in items:
        granted = {"plan": item.planned.hash, "until": until.isoformat(timespec="seconds")}
        records.note(warehouse, run, "gate opened", item.id, granted, actor=who)


def _may_ask(run: Run) -> bool:
    """Whether the run may begin; where not, what waits is held back, and triage takes it up."""
    try:
        with carried(run) as carrier:
            carrier.check_room()
    except HeldBack as held:
        records.settle(run, run.waiting, held.state, str(held))
        return False
    return True


def ask_again(run: Run, note: str) -> None:
    """Begin the next round with a note for the approver, or give up after ``MOST_ROUNDS``."""
    if run.automatic or run.round >= MOST_ROUNDS + run.terms.needed - 1:
        for state in ("drifted", "refused"):
            ended = [item for item in run.waiting if item.drifted == (state == "drifted")]
            records.settle(run, ended, state, note)
        return
    run.round += 1
    run.notes = [note]
    run.gate_refusal = ""
    records.keep_waiting(run, note)


# --- close -------------------------------------------------------------------------------------


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="close-{number}")
def close_one(run: Run, number: int, answer: Answered) -> State:
    """Close one finding of the run; the state it ends in says how, and never raises.

    A code that does not open the gate, and a resource that changed since the plan, leave it
    waiting: ``conclude_round`` asks again. What is held back by a halt or a cap is settled so.
    """
    if not run.goes_on:  # since it was submitted
        return Completed(name="Not begun", message=run.gate_refusal)
    with carried(run):
        return _close_one(run, number, answer)


def _close_one(run: Run, number: int, answer: Answered) -> State:
    item = run.item(number)
    place = _Place(run, item, answer)
    try:
        with place.watching():
            closed = close_finding(
                item.planned, place, own_change=item.planned.resource.id in run.changed
            )
        closed = replace(closed, read_at=place.read_at)
    except GateRefused as refusal:
        run.gate_refusal, item.state = str(refusal), "waiting"
        records.note_refused(run, item, str(refusal), place.watched)
        return Failed(name="Gate refused", message=str(refusal))
    except Drifted as drift:
        item.drifted, item.state = True, "waiting"
        return Failed(name="Drifted", message=str(drift))
    except IllegalTransition as over:
        records.look_up(item)
        return Failed(name="Too late", message=f"{over}; nothing was changed.")
    except HeldBack as held:
        records.settle(run, [item], held.state, str(held))
        return Completed(name=held.state.capitalize(), message=str(held))
    except (SutureError, OSError, psycopg.Error) as error:
        closed = _failure(error, begun=item.state == "applying")
        if closed.state == "failed" and item.state == "applying":
            records.leave_in_part(run, item)
    try:
        records.record(run, item, closed, answer, place.watched)
    except IllegalTransition as settled:
        records.look_up(item)
        return Failed(name="Settled meanwhile", message=f"{settled}: {item.message}")
    get_run_logger().info("Finding %s: %s. %s", item.finding_id, closed.state, closed.message)
    end = Failed if closed.state in END_NAMES else Completed
    return end(name=closed.state.replace("_", " ").capitalize(), message=closed.message)


class _Place:
    """Where one finding is closed: the real clouds and the real warehouse."""

    def __init__(self, run: Run, item: Item, answer: Answered) -> None:
        self._run, self._item, self._answer = run, item, answer
        self.read_at = datetime.now(UTC)  # right before the last look at the resource
        self.watched = records.Watched()
        self._hold = 0  # of the run, under which it is changed

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note every call that is made inside, but for those that look at the resource."""
        with recording() as self.watched.calls:
            yield

    def read(self) -> Resource:
        self.read_at = datetime.now(UTC)
        return self.watched.look(self._run, self._item.planned.resource)

    @contextmanager
    def open_session(self, now: Resource, steps: Sequence[Step]) -> Iterator[Session]:
        run, until = self._run, self._answer.until
        with carried(run) as carrier:
            self._hold = carrier.check()

            def go_on() -> None:
                carrier.check(self._hold)

            patience = Propagation(say=get_run_logger().info, go_on=go_on)
            patience = patience.until(until) if until else patience
            with open_session(
                run.inventory, run.account, now, steps, self._answer.code, propagation=patience
            ) as session:
                yield carrier.guard(session, lambda: self._hold)

    def begin_writing(self, before: Resource) -> None:
        with carried(self._run) as carrier:
            self._hold = carrier.check()
        records.begin_writing(self._run, self._item, before, self._answer, self.watched)

    def keep(self, stage: str, resource: Resource) -> None:
        try:
            records.keep_snapshot(self._run, self._item, stage, resource, self.watched)
        except psycopg.Error as error:
            raise SutureError(f"The warehouse is away ({type(error).__name__}).") from None


def _failure(error: Exception, *, begun: bool) -> Closed:
    undone = isinstance(error, VerifyFailed) or (isinstance(error, ApplyFailed) and error.undone)
    words = words_of(error)
    if not begun:
        words = f"Nothing was changed. {words}"
    if undone and isinstance(error.__cause__, HeldBack):
        return Closed(error.__cause__.state, words)
    return Closed("undone" if undone else "failed", words)


@task(cache_policy=NO_CACHE, persist_result=False)
def conclude_round(run: Run) -> None:
    """Plan afresh what changed under the plan, ask again for what is left, let go of the gate."""
    _settle_broken(run, BROKEN)
    if run.asks_opener and not run.gate_stays:
        _release(run)
    drifted = [item for item in run.waiting if item.drifted]
    if drifted and not run.automatic:  # else there is nobody to ask about another plan
        _plan_again(run, drifted)
    if run.waiting:
        notes = [run.gate_refusal] if run.gate_refusal else []
        if any(item.drifted for item in run.waiting):
            notes.append(DRIFTED)
        ask_again(run, " ".join(notes) or "It was approved and not reached.")
    for item in run.waiting:
        item.drifted = False


def _plan_again(run: Run, changed: Sequence[Item]) -> None:
    """Plan the changed resources afresh; what needs no plan any more is settled.

    Nobody has approved what is planned now.
    """
    run.terms = run.terms.unapproved()
    with connect() as warehouse:
        found = {f.id: f for f in findings_by_ids(warehouse, [i.finding_id for i in changed])}
    ordered: list[Finding] = [found[item.finding_id] for item in changed]
    read_at = datetime.now(UTC)
    resources = read_resources(run.inventory, run.account, ordered)
    for item, resource in zip(changed, resources, strict=True):
        if isinstance(resource, ResourceGone):
            words = "The resource does not exist any more."
            gone = Closed("already_resolved", words, read_at=read_at)
            records.record(run, item, gone, NOTHING_CHOSEN)
        elif isinstance(resource, SutureError):
            records.settle(run, [item], "failed", f"Could not be read again: {resource}")
        elif item.planned.restores:
            what = in_words(drift(item.planned.resource, resource))
            words = "The resource changed since the plan was shown; nothing was put back"
            words = f"{words}: {what}." if what else f"{words}."
            records.settle(run, [item], "drifted", words)
        else:
            _plan_changed(run, item, resource, read_at)


def _plan_changed(run: Run, item: Item, resource: Resource, read_at: datetime) -> None:
    its_rule = rule(item.planned.rule)
    try:
        plan = _planned_again(item, resource, item.planned.values)
        achieved = plan.achieved(its_rule, resource)
    except SutureError as error:
        records.settle(run, [item], "failed", f"Could not be planned again: {error}")
        return
    item.plan = plan
    if achieved:
        words = "The rule passes already."
        closed = Closed("already_resolved", words, resource, read_at=read_at)
        records.record(run, item, closed, NOTHING_CHOSEN)


def _release(run: Run) -> None:
    """Tell the customer's endpoint that the gate is not needed any more; it closes anyway.

    What it has not confirmed, reconciliation asks for again.
    """
    try:
        release(run.inventory, run.account, remediation=run.id, person=not run.automatic)
        with connect() as warehouse:
            gate_requests.released(warehouse, run.id)
    except (CloudError, GateRefused, BadInput, psycopg.Error) as error:
        said = words_of(error)
        get_run_logger().warning("The token endpoint did not close the gate early: %s", said)


# --- end ---------------------------------------------------------------------------------------


@contextmanager
def none_left_waiting(run: Run) -> Iterator[None]:
    """Whatever breaks the run, its findings do not stay with a run that is over.

    A suspension is no break: it is not an Exception, and passes. Raises SutureError when another
    process carries the run.
    """
    with carried(run) as carrier:
        carrier.take()
        yield from _settling(run)


def _settling(run: Run) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        kind = type(error).__name__
        records.settle(run, run.waiting, "failed", f"The run broke before this was changed: {kind}")
        raise


def finish_remediation(run: Run) -> State:
    """The run's end as a named state: what became of its findings.

    Not a task: a task that returns a state ends in it, and hands its caller the state's data.
    """
    count = Counter(item.state for item in run.items)
    message = ", ".join(
        f"{number} {state.replace('_', ' ')}" for state, number in sorted(count.items())
    )
    message = message or "Nothing to do: other runs carry these findings."
    done = count["remediated"] + count["restored"]
    good = done + count["already_resolved"]
    if bad := [state for state in END_NAMES if count[state]]:
        reasons = dict.fromkeys(item.message for item in run.items if item.state in bad)
        message = f"{message}. {' '.join(reasons)}"
        return Failed(name="Partly remediated" if good else END_NAMES[bad[0]], message=message)
    if count["restored"]:
        return Completed(name="Restored", message=message)
    if held := [state for state in HELD_BACK if count[state]]:
        reasons = dict.fromkeys(item.message for item in run.items if item.state in held)
        message = f"{message}. {' '.join(reasons)}"
    if not done:
        unfinished = next((state for state in NOT_DONE if count[state]), "")
        return Completed(name=NOT_DONE.get(unfinished, "Nothing to do"), message=message)
    partly = count["denied"] + count["expired"] + len(held)
    return Completed(name="Partly remediated" if partly else "Remediated", message=message)


# What a run is called whose findings ended badly, the worst first; and whose ended undone.
END_NAMES = {
    "failed": "Failed",
    "applying": "Failed",  # it was never said how it ended
    "undone": "Undone",
    "refused": "Gate refused",
    "drifted": "Drifted",
}
HELD_BACK = ("halted", "capped")  # nothing is wrong with these: triage takes them up again
NOT_DONE = {
    "halted": "Halted",
    "capped": "Over a cap",
    "denied": "Denied",
    "expired": "Expired",
    "left_out": "Left out",
    "already_resolved": "Already resolved",
}
