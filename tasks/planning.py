"""From finding ids to plans: find the findings, read their resources as they are now, plan."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from psycopg import Connection

from tasks import approval, settings
from tasks.calls import CallMade, about, recording
from tasks.clouds.scanner import Scanner
from tasks.clouds.session_policy import permission_of
from tasks.clouds.shared_scanner import Reading, just_read, read_with
from tasks.drift import ChangedSince, drift
from tasks.errors import BadInput, ResourceGone, SutureError
from tasks.inventory import Inventory, load_inventory
from tasks.model import Account, Finding, Resource
from tasks.plan import Plan, applied_part, make_plan, plan_from_json, restore_plan
from tasks.policy import Policy
from tasks.rules import rule
from tasks.snapshot import Seen
from tasks.warehouse.database import connect
from tasks.warehouse.findings import account_of, findings_by_ids, findings_named
from tasks.warehouse.remediations import RemediationRecord, load_remediation, snapshots

COPY_IDS = "Copy ids from the posture artifact of the last scan."


@dataclass(frozen=True, slots=True)
class Planned:
    """A finding with what a run begins with: its resource, its plan, its state and why.

    ``resource`` is None where it is gone or could not be read, ``plan`` where there is nothing to
    do or no way to tell. ``read_at`` is right before it was read, ``calls`` are those that read it.
    """

    finding: Finding
    resource: Resource | None
    plan: Plan | None
    state: str
    message: str = ""
    read_at: datetime | None = None
    calls: tuple[CallMade, ...] = ()


def find_findings(warehouse: Connection, finding_ids: Sequence[str]) -> list[Finding]:
    """The findings of these ids, the worst first.

    One text may hold several ids, with commas, spaces or quotes between, as people paste them; the
    beginning of an id is enough. Raises BadInput for ids that are not known or name several
    findings, and for rules without a fix.
    """
    ids = list(dict.fromkeys(part for text in finding_ids for part in re.findall(r"\w+", text)))
    if not ids:
        raise BadInput("finding_ids", "is empty.", COPY_IDS)
    named = findings_named(warehouse, ids)
    if missing := [text for text, some in named.items() if not some]:
        count = f"{len(missing)} of {len(ids)} are not known findings, such as {missing[0][:64]}."
        raise BadInput("finding_ids", count, COPY_IDS)
    if short := [text for text, some in named.items() if len(some) > 1]:
        several = f"{short[0]} is the beginning of several findings' ids."
        raise BadInput("finding_ids", several, "Write more of it.")
    found = list({some[0].id: some[0] for some in named.values()}.values())
    for finding in found:
        if rule(finding.rule).fix is None:
            raise BadInput(
                "finding_ids",
                f"{finding.id} cannot be fixed here: {finding.rule} has no fix.",
                "Leave it out and follow its guide.",
            )
    return sorted(found, key=lambda f: (f.severity.rank, f.resource, f.rule))


def by_account(found: Sequence[Finding]) -> list[list[Finding]]:
    """The findings of each account, as one run may carry them."""
    accounts: dict[tuple[str, str], list[Finding]] = {}
    for finding in found:
        accounts.setdefault((finding.cloud, finding.account), []).append(finding)
    return list(accounts.values())


def plan_findings(
    inventory: Inventory,
    account: Account,
    found: Sequence[Finding],
    policy: Policy,
    *,
    first: int = 1,
) -> list[Planned]:
    """Plan each finding from its resource as it is now; one that fails does not stop the others.
    Their plans are numbered from ``first``.

    A listener has read it a moment ago, to judge it: that will do, since it is read again before
    it is changed. Raises BadInput when the policy's presets are no values that the fixes take.
    """
    known = _just_read(inventory, found)
    read_at = datetime.now(UTC)
    with recording() as calls:
        unknown = [finding for finding in found if finding.resource not in known]
        resources = read_resources(inventory, account, unknown) if unknown else []
    read = {finding.id: one for finding, one in zip(unknown, resources, strict=True)}
    planned = []
    for number, finding in enumerate(found, start=first):
        if reading := known.get(finding.resource):
            plan = _plan(finding, reading.resource, policy, number)
            planned.append(replace(plan, read_at=reading.read_at, calls=reading.calls))
        else:
            plan = _plan(finding, read[finding.id], policy, number)
            made = tuple(about(calls, finding.resource))
            planned.append(replace(plan, read_at=read_at, calls=made))
    return planned


def _just_read(inventory: Inventory, found: Sequence[Finding]) -> dict[str, Reading]:
    """What this process has read a moment ago of the findings' resources, by their ids, where
    that shows all that their rules read."""
    places = {finding.resource: (finding.cloud, finding.account) for finding in found}
    readings = {one: just_read(inventory, *place, one) for one, place in places.items()}
    for finding in found:
        reading = readings[finding.resource]
        if reading is not None and not reading.resource.shows(rule(finding.rule)):
            readings[finding.resource] = None
    return {one: reading for one, reading in readings.items() if reading is not None}


def _plan(
    finding: Finding, resource: Resource | SutureError, policy: Policy, number: int
) -> Planned:
    if isinstance(resource, ResourceGone):
        return Planned(finding, None, None, "already_resolved", "The resource does not exist.")
    if isinstance(resource, SutureError):
        return Planned(finding, None, None, "failed", f"Could not be read: {resource}")
    its_rule = rule(finding.rule)
    values = approval.parse_values(its_rule.inputs, policy.values)
    try:
        plan = make_plan(its_rule, resource, values, finding_id=finding.id, number=number)
        achieved = plan.achieved(its_rule, resource)
    except SutureError as error:
        return Planned(finding, resource, None, "failed", f"Could not be planned: {error}")
    if achieved:
        return Planned(finding, resource, plan, "already_resolved", "The rule passes already.")
    if not plan.steps:
        return Planned(finding, resource, None, "failed", "The fix has nothing to change here.")
    return Planned(finding, resource, plan, "waiting")


def plan_back(inventory: Inventory, account: Account, finding: Finding, back: Back) -> Planned:
    """Plan to take one remediation back.

    Raises BadInput when that is not possible any more: ChangedSince, with what has changed, when
    the resource is not as the remediation left it.
    """
    try:
        now = look_at(inventory, account, back.after).resource
    except ResourceGone:
        raise BadInput("remediation_id", "its resource does not exist any more.") from None
    if now.fingerprint != back.after.fingerprint:
        raise ChangedSince(drift(back.after, now))
    done = plan_from_json(back.record.plan)
    if back.record.half_applied:
        done = applied_part(done, now)
    plan = restore_plan(done, back.before, now, permission=permission_of)
    return Planned(finding, now, plan, "waiting")


@dataclass(frozen=True, slots=True)
class Back:
    """A remediation that can be taken back, with its resource before and after it."""

    record: RemediationRecord
    before: Resource
    after: Resource


def can_go_back(warehouse: Connection, record: RemediationRecord) -> Back:
    """What is needed to take ``record`` back. Raises BadInput when it changed nothing that stands.

    Of several snapshots at one stage the last counts: the first may be from before a drift.
    """
    kept = snapshots(warehouse, record.id)
    taken = {one.stage: one.resource for one in kept}
    if record.half_applied and record.state in ("failed", "remediated", "restored"):
        return Back(record, taken["before"], kept[-1].resource)
    stands = record.state in ("remediated", "restored")
    if not stands or not taken.keys() >= {"before", "after"}:
        raise BadInput(
            "remediation_id",
            f"is {record.state.replace('_', ' ')}: there is nothing of it to put back.",
            "Choose a remediation that is remediated or restored.",
        )
    return Back(record, taken["before"], taken["after"])


def plan_restore(remediation_id: str) -> Plan:
    """The plan to take one remediation back, from its resource as it is now. Changes nothing.

    Raises BadInput, and ChangedSince, as the run of the restore would.
    """
    with connect() as warehouse:
        back = can_go_back(warehouse, load_remediation(warehouse, remediation_id))
        account = account_of(warehouse, back.record.cloud, back.record.account)
        (finding,) = findings_by_ids(warehouse, [back.record.finding_id])
    planned = plan_back(load_inventory(settings.inventory_path()), account, finding, back).plan
    assert planned is not None  # what cannot be planned was raised
    return planned


def plan_finding(finding_id: str, texts: Mapping[str, str]) -> Plan:
    """The plan for one finding with values as an approver would type them. Changes nothing.

    Raises BadInput for an unknown finding, a rule without a fix, or bad values.
    """
    with connect() as warehouse:
        found = find_findings(warehouse, [finding_id])
        if len(found) != 1:
            raise BadInput("finding", f"{len(found)} ids were given.", "Plan one at a time.")
        finding = found[0]
        account = account_of(warehouse, finding.cloud, finding.account)
    inventory = load_inventory(settings.inventory_path())
    (resource,) = read_resources(inventory, account, [finding])
    if isinstance(resource, SutureError):
        raise resource
    values = approval.parse_values(rule(finding.rule).inputs, texts)
    return make_plan(rule(finding.rule), resource, values, finding_id=finding.id)


def look_at(inventory: Inventory, account: Account, known: Resource) -> Seen:
    """The resource as it is now, with what hangs on it, for a snapshot. Raises CloudError."""
    return read_with(inventory, lambda scanner: scanner.look(account.source, known))


def read_resources(
    inventory: Inventory, account: Account, found: Sequence[Finding]
) -> list[Resource | SutureError]:
    """Each finding's resource as it is now, or why it could not be read."""

    async def read_all(scanner: Scanner) -> list[Resource | SutureError]:
        return await asyncio.gather(*(_read(scanner, account, finding) for finding in found))

    return read_with(inventory, read_all)


async def _read(scanner: Scanner, account: Account, finding: Finding) -> Resource | SutureError:
    try:
        return await scanner.read(
            account.cloud,
            account.id,
            account.source,
            finding.kind,
            finding.resource,
            finding.region,
            rule=rule(finding.rule),
        )
    except SutureError as error:
        return error
