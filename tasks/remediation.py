"""One remediation run: plan, ask, close each finding on its own, record.

Everything a run knows is in the warehouse before it waits, because a resumed run starts from the
top in a new process. Codes are SecretStr in memory, and in no task's stored result.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed
from psycopg import Connection
from pydantic import SecretStr

from tasks import approval, codes, settings
from tasks.closing import Closed, close_finding
from tasks.clouds.scanner import Scanner
from tasks.clouds.session_policy import permission_of
from tasks.clouds.token_request import release, request_code
from tasks.errors import (
    ApplyFailed,
    BadAnswer,
    BadInput,
    CloudError,
    Drifted,
    GateRefused,
    ResourceGone,
    SutureError,
    VerifyFailed,
)
from tasks.inventory import Inventory, load_inventory
from tasks.model import Account, AccountScan, Finding, Input, Resource, observe
from tasks.plan import (
    Plan,
    approval_page,
    as_code,
    make_plan,
    plan_digest,
    plan_from_json,
    plan_json,
    restore_plan,
)
from tasks.policy import ON_REQUEST, Mode, Policy, load_policies, named
from tasks.rules import RULES, rule
from tasks.warehouse import audit, remediations, scans
from tasks.warehouse.database import connect
from tasks.warehouse.findings import account_of, findings_by_ids
from tasks.warehouse.remediations import RemediationRecord as Record

MOST_ROUNDS = 5  # how often one run asks again, after wrong codes, bad values or drift


@dataclass(slots=True)
class Item:
    """One finding in a run: its row in the warehouse, its plan, and where it stands."""

    id: str
    finding_id: str
    plan: Plan | None
    state: str
    message: str = ""

    @property
    def planned(self) -> Plan:
        """Its plan; only what could not be read, or was gone, has none, and is at its end."""
        if self.plan is None:
            raise SutureError(f"finding {self.finding_id} has no plan")
        return self.plan

    @property
    def number(self) -> int:
        return self.planned.number


@dataclass(frozen=True, slots=True)
class Answered:
    """What an approver or the customer's token endpoint answered.

    ``chosen`` are the items to be closed now; empty when it was denied or has to be asked again.
    """

    code: SecretStr
    chosen: tuple[Item, ...] = ()
    approver: str = ""
    verified: bool = False


class Run:
    """A remediation run: findings of one account under one policy.

    Not a dataclass on purpose: Prefect looks into those when they are passed to tasks.
    """

    def __init__(
        self,
        run_id: str,
        account: Account,
        policy: Policy,
        requested_by: str,
        items: Sequence[Item],
        *,
        round_: int = 1,
        expires_at: datetime | None = None,
        notes: Sequence[str] = (),
        undoes: str = "",
    ) -> None:
        self.id = run_id
        self.account = account
        self.policy = policy
        self.requested_by = requested_by
        self.items = list(items)
        self.round = round_
        self.expires_at = expires_at or datetime.now(UTC) + policy.expires
        self.notes = list(notes)
        self.undoes = undoes  # the remediation that this run takes back
        self.changed: set[str] = set()  # resources that this process has written to
        self.inventory: Inventory = load_inventory(settings.inventory_path())

    @property
    def waiting(self) -> list[Item]:
        return [item for item in self.items if item.state in ("planned", "waiting")]

    @property
    def automatic(self) -> bool:
        return self.policy.mode is Mode.AUTOMATIC

    @property
    def inputs(self) -> tuple[Input, ...]:
        """The values that the waiting fixes take, each asked once, with the policy's presets."""
        asked: dict[str, Input] = {}
        for item in self.waiting:
            if item.planned.restores:
                continue
            for value in rule(item.planned.rule).inputs:
                preset = self.policy.values.get(value.name, value.default)
                asked.setdefault(
                    value.name, Input(value.name, value.kind, value.label, value.required, preset)
                )
        return tuple(asked.values())

    @property
    def last_number(self) -> int:
        return max((item.number for item in self.waiting), default=0)

    @property
    def seconds_left(self) -> int:
        """Until the approval expires; at least one second."""
        return max(1, int((self.expires_at - datetime.now(UTC)).total_seconds()))

    def page(self) -> str:
        """What the approver reads above the form."""
        plans = [item.planned for item in self.waiting]
        name = f" ({as_code(self.account.name)})" if self.account.name else ""
        what = "change" if len(plans) == 1 else "changes"
        return approval_page(
            plans,
            heading=f"{len(plans)} {what} in {self.account.cloud} account {self.account.id}",
            notes=[
                *(f"**{note}**" for note in self.notes),
                f"Account {as_code(self.account.id)}{name}. Asked for by "
                f"{as_code(self.requested_by)} under {as_code(self.policy.name)}. "
                f"Waits until {self.expires_at:%Y-%m-%d %H:%M} UTC.",
                "The code: someone with the customer's own credentials runs "
                f"`suture gate open {self.account.id} --minutes 10` and reads it out.",
            ],
        )


# --- plan --------------------------------------------------------------------------------------


@task(cache_policy=NO_CACHE)
def begin_remediation(
    run_id: str, finding_ids: Sequence[str], policy_name: str, requested_by: str
) -> Run:
    """Plan the run and write it down, or read back what was written before it waited.

    Raises BadInput for ids that are not known, of several accounts, or of rules without a fix.
    """
    with connect() as warehouse:
        if records := remediations.load_run(warehouse, run_id):
            return _read_back(warehouse, run_id, records)
        found = _findings_of_one_account(warehouse, finding_ids)
        account = account_of(warehouse, found[0].cloud, found[0].account)
    policy = named(load_policies(settings.policies_path()), policy_name)
    run = Run(run_id, account, policy, requested_by, [])
    resources = asyncio.run(_read_all(run.inventory, account, found))
    plans = _plan_all(found, resources, policy)
    _save(run, plans, resources)
    get_run_logger().info(
        "Planned %d fixes in %s under %s", len(run.waiting), account.id, policy.name
    )
    return run


@task(cache_policy=NO_CACHE)
def begin_restore(run_id: str, remediation_id: str, requested_by: str) -> Run:
    """Plan to take one remediation back, or read back what was written before it waited.

    Raises BadInput when it changed nothing that stands, or when the resource is not as it left it.
    """
    with connect() as warehouse:
        if records := remediations.load_run(warehouse, run_id):
            return _read_back(warehouse, run_id, records)
        record = remediations.load_remediation(warehouse, remediation_id.strip())
        taken = {one.stage: one.resource for one in remediations.snapshots(warehouse, record.id)}
        account = account_of(warehouse, record.cloud, record.account)
        finding = findings_by_ids(warehouse, [record.finding_id])[0]
    if record.state != "remediated" or "before" not in taken or "after" not in taken:
        raise BadInput("remediation_id", f"is {record.state}: there is nothing of it to put back.")
    run = Run(run_id, account, ON_REQUEST, requested_by, [], undoes=record.id)
    now = asyncio.run(_read_all(run.inventory, account, [finding]))[0]
    if isinstance(now, SutureError):
        raise now
    if now.fingerprint != taken["after"].fingerprint:
        raise BadInput(
            "remediation_id",
            "its resource has been changed since.",
            "Undo that first, or change the resource by hand with the guide.",
        )
    plan = restore_plan(plan_from_json(record.plan), taken["before"], now, permission=permission_of)
    _save(run, [(finding, plan, "waiting", "")], [now])
    return run


def plan_finding(finding_id: str, texts: Mapping[str, str]) -> Plan:
    """The plan for one finding with values as an approver would type them. Changes nothing.

    Raises BadInput for an unknown finding, a rule without a fix, or bad values.
    """
    with connect() as warehouse:
        finding = _findings_of_one_account(warehouse, [finding_id])[0]
        account = account_of(warehouse, finding.cloud, finding.account)
    inventory = load_inventory(settings.inventory_path())
    resource = asyncio.run(_read_all(inventory, account, [finding]))[0]
    if isinstance(resource, SutureError):
        raise resource
    found = rule(finding.rule)
    values = approval.parse_values(found.inputs, texts)
    return make_plan(found, resource, values, finding_id=finding.id)


def _findings_of_one_account(warehouse: Connection, finding_ids: Sequence[str]) -> list[Finding]:
    ids = list(dict.fromkeys(text.strip().strip('`"') for text in finding_ids if text.strip()))
    if not ids:
        raise BadInput("finding_ids", "is empty.", "Copy ids from the posture artifact.")
    found = findings_by_ids(warehouse, ids)
    if missing := [text for text in ids if text not in {finding.id for finding in found}]:
        raise BadInput("finding_ids", f"{len(missing)} of {len(ids)} are not known findings.")
    if len({(finding.cloud, finding.account) for finding in found}) > 1:
        raise BadInput("finding_ids", "are of several accounts.", "Start one run for each account.")
    for finding in found:
        if rule(finding.rule).fix is None:
            raise BadInput("finding_ids", f"{finding.rule} has no fix.", "Follow its guide.")
    return sorted(found, key=lambda f: (f.severity.rank, f.resource, f.rule))


async def _read_all(
    inventory: Inventory, account: Account, found: Sequence[Finding]
) -> list[Resource | SutureError]:
    """Each finding's resource as it is now, or why it could not be read."""
    async with Scanner(inventory) as scanner:

        async def read(finding: Finding) -> Resource | SutureError:
            try:
                return await scanner.read(
                    account.cloud,
                    account.id,
                    account.source,
                    finding.kind,
                    finding.resource,
                    finding.region,
                )
            except SutureError as error:
                return error

        return await asyncio.gather(*(read(finding) for finding in found))


def _plan_all(
    found: Sequence[Finding], resources: Sequence[Resource | SutureError], policy: Policy
) -> list[tuple[Finding, Plan | None, str, str]]:
    """For each finding its plan, the state it starts in, and why if that is an end."""
    planned: list[tuple[Finding, Plan | None, str, str]] = []
    for number, (finding, resource) in enumerate(zip(found, resources, strict=True), start=1):
        its_rule = rule(finding.rule)
        if isinstance(resource, ResourceGone):
            planned.append((finding, None, "already_resolved", "The resource does not exist."))
        elif isinstance(resource, SutureError):
            planned.append((finding, None, "failed", f"Could not be read: {resource}"))
        else:
            values = approval.parse_values(its_rule.inputs, policy.values)
            plan = make_plan(its_rule, resource, values, finding_id=finding.id, number=number)
            done = plan.achieved(its_rule, resource)
            planned.append(
                (finding, plan, "already_resolved", "The rule passes already.")
                if done
                else (finding, plan, "waiting", "")
            )
    return planned


def _save(
    run: Run,
    planned: Sequence[tuple[Finding, Plan | None, str, str]],
    resources: Sequence[Resource | SutureError],
) -> None:
    """Write the plans down before anything waits, and record what is settled already."""
    rows = [
        remediations.NewRemediation(
            finding_id=finding.id,
            number=number,
            mode=run.policy.mode.value,
            policy=run.policy.name,
            plan=_plan_row(run, plan) if plan else {},
            plan_hash=plan.hash if plan else "",
            fingerprint=plan.resource.fingerprint if plan else "",
            requested_by=run.requested_by,
            expires_at=run.expires_at,
            state=state,
            message=message,
        )
        for number, (finding, plan, state, message) in enumerate(planned, start=1)
    ]
    with connect() as warehouse:
        records = remediations.save_plan(warehouse, run.id, rows)
        for record in records:
            finding, plan, state, _ = planned[record.number - 1]
            _audit(warehouse, run, "planned", record.id, {"finding": finding.id, "state": state})
            resource = resources[record.number - 1]
            if state == "already_resolved":
                _observe(
                    warehouse,
                    run,
                    finding_place(finding),
                    resource if isinstance(resource, Resource) else None,
                )
            elif plan is not None:
                remediations.add_snapshot(warehouse, record.id, "before", plan.resource)
    run.items = [_item(record) for record in records]


def finding_place(finding: Finding) -> tuple[str, str, str]:
    """Where a finding's resource is: region, kind, id."""
    return finding.region, finding.kind, finding.resource


def _read_back(warehouse: Connection, run_id: str, records: Sequence[Record]) -> Run:
    """The run as it was written down before it waited."""
    first = records[0]
    waiting = [record for record in records if record.state in ("planned", "waiting")]
    return Run(
        run_id,
        account_of(warehouse, first.cloud, first.account),
        named(load_policies(settings.policies_path()), first.policy),
        first.requested_by,
        [_item(record) for record in records],
        round_=max((record.plan.get("round", 1) for record in waiting), default=1),
        expires_at=first.expires_at,
        notes=list(dict.fromkeys(record.message for record in waiting if record.message)),
        undoes=first.plan.get("undoes", ""),
    )


def _plan_row(run: Run, plan: Plan) -> dict[str, Any]:
    """The plan as it is kept, with what the run must know when it starts from the top again."""
    return {**plan_json(plan), "round": run.round, "undoes": run.undoes}


def _item(record: Record) -> Item:
    plan = plan_from_json(record.plan) if record.plan else None
    return Item(record.id, record.finding_id, plan, record.state, record.message)


# --- ask ---------------------------------------------------------------------------------------


@task(cache_policy=NO_CACHE)
def take_answer(run: Run, fields: Mapping[str, object]) -> Answered:
    """Read an approver's answer: deny, leave out, values; and redeem the code's handle.

    What cannot be used is said on the form of the next round, and nothing is changed.
    """
    try:
        answer = approval.check(fields, numbers=run.last_number, inputs=run.inputs)
        redeemed = _redeem(run, answer)
    except (BadAnswer, GateRefused) as problem:
        ask_again(run, str(problem))
        return Answered(SecretStr(""))
    who, verified = redeemed.approver, redeemed.verified
    left_out = [i for i in run.waiting if i.number in answer.leave_out and answer.approved]
    _settle(run, left_out, "left_out", "The approver left it out.", who, verified)
    if not answer.approved:
        _settle(run, run.waiting, "denied", f"Denied by {who}.", who, verified)
        return Answered(SecretStr(""))
    try:
        _replan_with(run, answer.values)
    except BadInput as problem:
        ask_again(run, str(problem))
        return Answered(SecretStr(""))
    with connect() as warehouse:
        for item in run.waiting:
            _audit(warehouse, run, "approved", item.id, {"verified": verified}, actor=who)
    return Answered(redeemed.code, tuple(run.waiting), who, verified)


def _redeem(run: Run, answer: approval.Answer) -> codes.Redeemed:
    """The code and the name behind the answer's handle. Raises GateRefused when it is gone.

    A denial needs no code: one whose handle is gone counts, under the name as it was typed.
    """
    try:
        return codes.redeem(answer.handle, run.id)
    except GateRefused:
        if answer.approved:
            raise
        return codes.Redeemed(SecretStr(""), answer.approver, verified=False)


@task(cache_policy=NO_CACHE)
def ask_customer(run: Run) -> Answered:
    """Ask the customer's token endpoint to open the gate for this run. For automatic mode.

    A refusal settles every finding of the run as refused: there is nobody to ask again.
    """
    source = run.inventory.source(run.account.source)
    plans = [item.plan for item in run.waiting if item.plan]
    try:
        opened = request_code(
            run.inventory,
            run.account,
            remediation=run.id,
            plan=plan_digest(plans),
            resources=[plan.resource.id for plan in plans],
            actions=sorted({action for plan in plans for action in plan.permissions}),
        )
    except (GateRefused, CloudError, BadInput) as refusal:
        _settle(run, run.waiting, "refused", str(refusal), source.name, False)
        return Answered(SecretStr(""))
    return Answered(opened.code, tuple(run.waiting), f"{source.name} token endpoint", True)


def ask_again(run: Run, note: str) -> None:
    """Begin the next round with a note for the approver, or give up after ``MOST_ROUNDS``."""
    if run.automatic or run.round >= MOST_ROUNDS:
        _settle(run, run.waiting, "refused", note, "", False)
        return
    run.round += 1
    run.notes = [note]
    with connect() as warehouse:
        for item in run.waiting:
            remediations.set_state(
                warehouse, item.id, "waiting", note, plan=_plan_row(run, item.planned)
            )
        _audit(warehouse, run, "asked again", run.id, {"round": run.round, "why": note})


def _replan_with(run: Run, values: Mapping[str, Any]) -> None:
    """Make the steps again with what the approver gave, from the resource as it was shown."""
    with connect() as warehouse:
        for item in run.waiting:
            plan = item.planned
            if plan.restores:
                continue
            own = {value.name for value in rule(plan.rule).inputs}
            given = {**plan.values, **{k: v for k, v in values.items() if k in own}}
            item.plan = make_plan(
                rule(plan.rule),
                plan.resource,
                given,
                finding_id=plan.finding_id,
                number=plan.number,
            )
            remediations.set_state(
                warehouse,
                item.id,
                "waiting",
                values=given,
                plan=_plan_row(run, item.plan),
                plan_hash=item.plan.hash,
            )


# --- close -------------------------------------------------------------------------------------


@task(cache_policy=NO_CACHE)
def close_findings(run: Run, answer: Answered) -> None:
    """Close the chosen findings one by one; one that fails does not stop the others.

    A code that does not open the gate, and a resource that changed since the plan, are asked again.
    """
    log = get_run_logger()
    changed: list[Item] = []
    for item in answer.chosen:
        try:
            closed = _close(run, item, answer)
        except GateRefused as refusal:
            log.warning("The gate refused: %s", refusal)
            ask_again(run, str(refusal))
            break
        except Drifted as drift:
            changed.append(item)
            log.warning("Finding %s: %s", item.finding_id, drift)
            continue
        except (SutureError, OSError) as error:
            closed = _failure(error)
        _record(run, item, closed, answer)
        log.info("Finding %s: %s. %s", item.finding_id, closed.state, closed.message)
    if changed:
        _plan_again(run, changed)
    if run.automatic:
        _release(run)


def _close(run: Run, item: Item, answer: Answered) -> Closed:
    def snapshot(stage: str, resource: Resource) -> None:
        with connect() as warehouse:
            remediations.add_snapshot(warehouse, item.id, stage, resource)

    def before_writing() -> None:
        run.changed.add(item.planned.resource.id)
        item.state = "applying"
        with connect() as warehouse:
            remediations.set_state(
                warehouse,
                item.id,
                "applying",
                approver=answer.approver,
                approver_verified=answer.verified,
            )
            _audit(warehouse, run, "applying", item.id, {"plan": item.planned.hash})

    return close_finding(
        run.inventory,
        run.account,
        item.planned,
        answer.code,
        own_change=item.planned.resource.id in run.changed,
        snapshot=snapshot,
        before_writing=before_writing,
    )


def _failure(error: Exception) -> Closed:
    undone = isinstance(error, VerifyFailed) or (isinstance(error, ApplyFailed) and error.undone)
    return Closed("undone" if undone else "failed", str(error), None)


def _record(run: Run, item: Item, closed: Closed, answer: Answered) -> None:
    """Write down how one finding ended, and merge what was seen of its resource."""
    item.state, item.message = closed.state, closed.message
    resource = item.planned.resource
    place = (resource.region, resource.kind, resource.id)
    with connect() as warehouse:
        remediations.set_state(
            warehouse,
            item.id,
            closed.state,
            closed.message,
            approver=answer.approver,
            approver_verified=answer.verified,
        )
        _audit(warehouse, run, closed.state, item.id, {"message": closed.message})
        if closed.state == "restored":
            remediations.set_state(warehouse, run.undoes, "undone", f"Put back by run {run.id}.")
        if closed.resource is not None or closed.state == "already_resolved":
            _observe(warehouse, run, place, closed.resource)


def _plan_again(run: Run, changed: Sequence[Item]) -> None:
    """Plan the changed resources afresh and ask again; by policy alone there is nobody to ask."""
    if run.automatic:
        _settle(run, changed, "drifted", "The resource changed since the plan.", "", False)
        return
    with connect() as warehouse:
        found = {f.id: f for f in findings_by_ids(warehouse, [i.finding_id for i in changed])}
    ordered = [found[item.finding_id] for item in changed]
    resources = asyncio.run(_read_all(run.inventory, run.account, ordered))
    for item, resource in zip(changed, resources, strict=True):
        if isinstance(resource, SutureError):
            state = "already_resolved" if isinstance(resource, ResourceGone) else "failed"
            _settle(run, [item], state, str(resource), "", False)
            continue
        if item.planned.restores:
            _settle(run, [item], "drifted", "It changed again; nothing was put back.", "", False)
            continue
        its_rule = rule(item.planned.rule)
        item.plan = make_plan(
            its_rule,
            resource,
            item.planned.values,
            finding_id=item.finding_id,
            number=item.number,
        )
        if item.plan.achieved(its_rule, resource):
            closed = Closed("already_resolved", "The rule passes already.", resource)
            _record(run, item, closed, Answered(SecretStr("")))
    if run.waiting:
        ask_again(run, "The resource changed since the plan was shown. Please look again.")


def _release(run: Run) -> None:
    """Tell the customer's endpoint that the gate is not needed any more; it closes anyway."""
    try:
        release(run.inventory, run.account, remediation=run.id)
    except (CloudError, GateRefused) as error:
        get_run_logger().warning("The token endpoint did not close the gate early: %s", error)


# --- record ------------------------------------------------------------------------------------


def finish_remediation(run: Run) -> State:
    """The run's end as a named state: what became of its findings.

    Not a task: a task that returns a state ends in it, and hands its caller the state's data.
    """
    count = Counter(item.state for item in run.items)
    message = ", ".join(f"{number} {state}" for state, number in sorted(count.items()))
    message = message or "nothing to do: other runs carry these findings"
    good = count["remediated"] + count["restored"] + count["already_resolved"]
    bad = sum(count[state] for state in ("failed", "undone", "refused", "drifted"))
    if bad:
        name = "Partly remediated" if good else END_NAMES[_worst(count)]
        return Failed(name=name, message=message)
    if count["denied"]:
        return Completed(name="Denied", message=message)
    if count["expired"]:
        return Completed(name="Expired", message=message)
    if count["restored"]:
        return Completed(name="Restored", message=message)
    return Completed(name="Remediated" if good else "Nothing to do", message=message)


END_NAMES = {
    "failed": "Failed",
    "undone": "Undone",
    "refused": "Gate refused",
    "drifted": "Drifted",
}


def _worst(count: Counter[str]) -> str:
    return next(state for state in END_NAMES if count[state])


def _settle(
    run: Run, items: Sequence[Item], state: str, message: str, who: str, verified: bool
) -> None:
    """Bring some of the run's findings to an end that needs no cloud."""
    with connect() as warehouse:
        for item in items:
            remediations.set_state(
                warehouse, item.id, state, message, approver=who, approver_verified=verified
            )
            _audit(warehouse, run, state, item.id, {"message": message}, actor=who)
            item.state, item.message = state, message


def _observe(
    warehouse: Connection, run: Run, place: tuple[str, str, str], resource: Resource | None
) -> None:
    """Merge what the resource shows now (None: it is gone) into the findings, by every rule."""
    seen = [resource] if resource is not None else []
    observations = [observe(each, one) for one in seen for each in RULES if each.kind == one.kind]
    scans.merge_one(
        warehouse,
        AccountScan(run.account, seen, observations),
        trigger="verify",
        flow_run_id=run.id,
        gone=[] if seen else [place],
    )


def _audit(
    warehouse: Connection,
    run: Run,
    action: str,
    subject: str,
    details: Mapping[str, Any],
    *,
    actor: str = "",
) -> None:
    audit.append(
        warehouse, actor or f"flow run {run.id}", action, subject, {**details, "run": run.id}
    )
