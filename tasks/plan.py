"""What a fix would do, before it does it: the plan, its diff for people, and its identity. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from tasks.errors import BadInput, SutureError
from tasks.model import (
    Call,
    Change,
    Cloud,
    Config,
    Resource,
    Rule,
    Step,
    Verdict,
    canonical_json,
    sha256,
)
from tasks.rules import rule as rule_of

PUT_BACK, AGAIN = "Put back: ", "Apply again: "


@dataclass(frozen=True, slots=True)
class Plan:
    """The fix of one finding: the resource as it was read, and the steps it would take.

    ``number`` is the row's number in the approver's table, from 1. ``values`` are the parsed inputs
    the steps, or those of the fix that an undo is about, were made with. No steps means that the
    rule passes already. ``restores`` is empty for a fix; for an undo it is the fingerprint that the
    resource must have again.
    """

    number: int
    finding_id: str
    rule: str
    title: str
    severity: str
    resource: Resource
    values: Mapping[str, Any]
    steps: tuple[Step, ...]
    restores: str = ""

    def achieved(self, rule: Rule, now: Resource) -> bool:
        """Whether the resource is as this plan wants it: the rule passes, or it is restored."""
        if self.restores:
            return now.fingerprint == self.restores
        return rule.judge(now)[0] is Verdict.PASS

    @property
    def applies_again(self) -> bool:
        """Whether it undoes a put-back."""
        return self.title.startswith(AGAIN)

    @property
    def hash(self) -> str:
        """sha256 of what would be done to what: two plans with one hash do the same."""
        return sha256(canonical_json([self.resource.id, [_step_json(s) for s in self.steps]]))

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(change for step in self.steps for change in step.changes)

    @property
    def permissions(self) -> tuple[str, ...]:
        """The write permissions that the steps need, each once, in order."""
        return tuple(dict.fromkeys(step.action for step in self.steps))


def make_plan(
    rule: Rule, resource: Resource, values: Mapping[str, Any], *, finding_id: str, number: int = 1
) -> Plan:
    """Plan the fix of one finding.

    Raises BadInput when the rule has no fix, or when the values do not suit it.
    """
    if rule.fix is None:
        raise BadInput(
            "rule", f"{rule.id} has no fix.", f"Follow its guide: suture guide {rule.id}"
        )
    return Plan(
        number=number,
        finding_id=finding_id,
        rule=rule.id,
        title=rule.title,
        severity=str(rule.severity),
        resource=resource,
        values=values,
        steps=rule.fix(resource, values),
    )


def plan_digest(plans: Iterable[Plan]) -> str:
    """sha256 over several plans: what a machine approval is bound to."""
    return sha256(canonical_json([plan.hash for plan in plans]))


def restore_plan(
    done: Plan, before: Resource, now: Resource, *, permission: Callable[[Call], str]
) -> Plan:
    """The plan that takes ``done`` back: its undo calls, the last step's first.

    ``now`` is the resource as it is; ``before`` the snapshot to get back to. ``permission`` names
    the permission a call needs. Each step's own undo is the call that was applied, so that the plan
    can be taken back in turn.
    """
    steps = []
    for step in reversed(done.steps):
        backwards = tuple(Change(c.field, before=c.after, after=c.before) for c in step.changes)
        for position, call in enumerate(step.undo):
            steps.append(
                Step(
                    action=permission(call),
                    call=call,
                    undo=(step.call,) if position == len(step.undo) - 1 else (),
                    changes=backwards if position == len(step.undo) - 1 else (),
                )
            )
    return Plan(
        number=1,
        finding_id=done.finding_id,
        rule=done.rule,
        title=_other_way(done.title),
        severity=done.severity,
        resource=now,
        values=done.values,
        steps=tuple(steps),
        restores=rule_of(done.rule).undone(before).fingerprint,
    )


def _other_way(title: str) -> str:
    """What undoing is called: a put-back that is undone applies the fix again."""
    if title.startswith(PUT_BACK):
        return AGAIN + title.removeprefix(PUT_BACK)
    return PUT_BACK + title.removeprefix(AGAIN)


def applied_part(done: Plan, now: Resource) -> Plan:
    """Of a plan that was cut off, the steps that were taken: those that are not still to be taken.

    All of them where the resource does not tell.
    """
    try:
        again = make_plan(rule_of(done.rule), now, done.values, finding_id=done.finding_id)
    except SutureError:
        return done
    left = [step.call for step in again.steps]
    for taken in range(1, len(done.steps)):
        if _calls_json(_left_of_fix(done, taken)) == _calls_json(left):
            return replace(done, steps=done.steps[:taken])
    return done


def _left_of_fix(plan: Plan, taken: int) -> list[Call]:
    """What of the fix is still to be done when so many of a plan's steps stand.

    A put-back goes the other way: what it has taken is to be done again.
    """
    if plan.restores and not plan.applies_again:
        return [call for step in reversed(plan.steps[:taken]) for call in step.undo]
    return [step.call for step in plan.steps[taken:]]


def _calls_json(calls: Iterable[Call]) -> str:
    return canonical_json([asdict(call) for call in calls])


def drifted(approved: Plan, now: Resource, *, own_change: bool = False) -> bool:
    """Whether the resource is no longer what the approver was shown.

    After a change of our own to the same resource (``own_change``) its fingerprint differs by
    right; the caller then compares the steps of a new plan instead.
    """
    return not own_change and approved.resource.fingerprint != now.fingerprint


# --- for people --------------------------------------------------------------------------------


GUIDES_SHOWN = 3  # on an approval's page: each is a page of its own


def approval_page(
    plans: Sequence[Plan],
    *,
    heading: str,
    notes: Iterable[str] = (),
    reasons: Mapping[str, str] | None = None,
    needs: Callable[[Plan], Iterable[str]] | None = None,
    guides: Mapping[str, str] | None = None,
) -> str:
    """The markdown an approver reads: what, where, why, the diff, what it needs, and the guides.

    ``reasons`` says of each title in the table why it matters, ``needs`` which permissions a change
    and its undo take, ``guides`` has the guide of each rule, of which the first few are shown.
    Everything that comes from a cloud is shown as inert code: a bucket's name cannot become a link.
    """
    parts = [f"## {heading}", *notes, _table(plans)]
    why = [f"- *{title}:* {reason}" for title, reason in (reasons or {}).items() if reason]
    if why:
        parts += ["### Why", "\n".join(why)]
    for plan in plans:
        parts.append(_details(plan, needs(plan) if needs else plan.permissions))
    return "\n\n".join([*parts, *_guides(guides or {})])


def _guides(guides: Mapping[str, str]) -> list[str]:
    """The guides of a run's rules, by their ids; of many the others are named."""
    shown = [f"### Guide: {as_code(name)}\n\n{text}" for name, text in guides.items()]
    rest = [f"- {as_code(f'suture guide {name}')}" for name in list(guides)[GUIDES_SHOWN:]]
    more = ["### More guides\n\n" + "\n".join(rest)] if rest else []
    return [*shown[:GUIDES_SHOWN], *more]


def _table(plans: Sequence[Plan]) -> str:
    rows = ["| # | Severity | Goal | Resource | Region |", "|---|---|---|---|---|"]
    rows += [
        f"| {plan.number} | {plan.severity} | {plan.title} | {as_code(plan.resource.name)} "
        f"| {as_code(plan.resource.region)} |"
        for plan in plans
    ]
    return "\n".join(rows)


def _details(plan: Plan, needs: Iterable[str]) -> str:
    lines = [
        f"### {plan.number}. {plan.title}",
        f"Where: {as_code(plan.resource.id)}",
        "| Field | Before | After |",
        "|---|---|---|",
    ]
    lines[2:2] = [""]
    lines[1:1] = [""]
    lines += [
        f"| {as_code(change.field)} | {as_code(change.before)} | {as_code(change.after)} |"
        for change in plan.changes
    ]
    if not plan.changes:
        lines.append("| – | already as it should be | nothing to change |")
    listed = ", ".join(as_code(permission) for permission in needs) or "nothing"
    lines += ["", f"Needs, on this resource only, its undo included: {listed}"]
    lines += ["", f"Finding {as_code(short_id(plan.finding_id))}, rule {as_code(plan.rule)}"]
    return "\n".join(lines)


def short_id(finding_id: str) -> str:
    """The beginning of a finding's id: what fits a table, and names the finding well enough."""
    return finding_id[:12]


def as_code(text: str) -> str:
    """Text from outside as one inert code span, safe inside a markdown table."""
    clean = "".join(char if char.isprintable() else " " for char in text)
    clean = clean.replace("`", "'").replace("|", "¦").strip()
    return f"`{clean}`" if clean else "–"


# --- to and from the warehouse -----------------------------------------------------------------


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON, to be kept over a suspension."""
    return {
        "number": plan.number,
        "finding_id": plan.finding_id,
        "rule": plan.rule,
        "title": plan.title,
        "severity": plan.severity,
        "resource": resource_json(plan.resource),
        "values": dict(plan.values),
        "steps": [_step_json(step) for step in plan.steps],
        "restores": plan.restores,
    }


def plan_from_json(data: Mapping[str, Any]) -> Plan:
    """The plan that ``plan_json`` wrote down."""
    return Plan(
        number=data["number"],
        finding_id=data["finding_id"],
        rule=data["rule"],
        title=data["title"],
        severity=data["severity"],
        resource=resource_from_json(data["resource"]),
        values=data["values"],
        steps=tuple(_step_from_json(step) for step in data["steps"]),
        restores=data.get("restores", ""),
    )


def resource_json(resource: Resource) -> dict[str, Any]:
    reads = {} if resource.reads is None else {"reads": sorted(resource.reads)}
    return {
        "cloud": resource.cloud.value,
        "account": resource.account,
        "region": resource.region,
        "kind": resource.kind,
        "id": resource.id,
        "name": resource.name,
        "config": resource.config.as_dict(),
        "gaps": resource.config.gaps,
        "tags": dict(resource.tags),
        "etag": resource.etag,
        **reads,
    }


def resource_from_json(data: Mapping[str, Any]) -> Resource:
    return Resource(
        cloud=Cloud(data["cloud"]),
        account=data["account"],
        region=data["region"],
        kind=data["kind"],
        id=data["id"],
        name=data["name"],
        config=Config(data["config"], data.get("gaps")),
        tags=data.get("tags") or {},
        etag=data.get("etag") or "",
        reads=frozenset(data["reads"]) if "reads" in data else None,
    )


def _step_json(step: Step) -> dict[str, Any]:
    return asdict(step)


def _step_from_json(data: Mapping[str, Any]) -> Step:
    return Step(
        action=data["action"],
        call=_call_from_json(data["call"]),
        undo=tuple(_call_from_json(call) for call in data["undo"]),
        changes=tuple(Change(**change) for change in data["changes"]),
    )


def _call_from_json(data: Mapping[str, Any]) -> Call:
    return Call(**{**data, "cloud": Cloud(data["cloud"])})
