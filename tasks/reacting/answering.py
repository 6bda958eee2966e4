"""What is done about findings that an event brought to light: closed at once, or somebody asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from prefect.events import emit_event

from tasks.model import Finding
from tasks.policy import Assignment, Group, Mode
from tasks.reacting.rereading import ReadAgain
from tasks.triage import QUIET, assigned
from tasks.warehouse import audit, carriers, events, remediations
from tasks.warehouse.events import Cause, Work
from tasks.warehouse.findings import open_findings

WHO = "react"
CAME_BACK = "suture.finding.came-back"  # a Prefect event, for automations to tell people by
PUTTING_BACK = timedelta(minutes=10)  # longer than it takes until a run has put a change back


@dataclass(frozen=True, slots=True)
class Answer:
    """Findings that one run closes or asks about, whose change each was, and the work they are of.

    ``causes`` go by the ids of the findings.
    """

    group: Group
    causes: Mapping[str, Cause]
    works: tuple[Work, ...]

    @property
    def asked_by(self) -> str:
        """Who or what asks for the run, in words: the change that it answers."""
        return requested_by(self.group, self.causes)


@dataclass(frozen=True, slots=True)
class Answers:
    """What follows from some resources that were read again.

    ``busy`` is to be read again in a while: work on resources that an automatic run is changing
    already, or has died over, and what is more than one run may change. ``done`` is what nothing
    follows from.
    """

    answers: tuple[Answer, ...] = ()
    busy: tuple[Work, ...] = ()
    busy_runs: tuple[str, ...] = ()
    done: tuple[Work, ...] = ()


def joined(parts: Sequence[Answers]) -> Answers:
    """Several answers as one. Each piece of work is in one of them."""
    return Answers(
        tuple(one for part in parts for one in part.answers),
        tuple(one for part in parts for one in part.busy),
        tuple(dict.fromkeys(run for part in parts for run in part.busy_runs)),
        tuple(one for part in parts for one in part.done),
    )


def answers(warehouse: psycopg.Connection, reads: Sequence[ReadAgain], scan_id: str) -> Answers:
    """Sort the open findings of what was read again by the policies, and say what came back.

    Findings that are accepted, being remediated, or that somebody has decided to leave open since
    they were opened, are left alone.
    """
    works: dict[tuple[str, str], list[Work]] = {}
    for read in reads:
        for resource in read.resources:
            works.setdefault((read.account.id, resource.id), []).append(read.work)
    found = _open(warehouse, reads)
    causes = _causes(warehouse, reads, found.values())
    _say_what_came_back(warehouse, found.values(), causes, scan_id)
    runs = _busy_runs(warehouse, found)
    held = {(found[one].account, found[one].resource) for one in runs}
    free = {id: one for id, one in found.items() if (one.account, one.resource) not in held}
    sorted_out = _assigned(warehouse, free, causes)
    running = {(group.cloud, group.account) for group in sorted_out.groups}
    more = [one for one in sorted_out.capped if (one.cloud, one.account) in running]
    waiting = [*(found[one] for one in runs), *more]
    busy = {work.target: work for work in _works_of(waiting, works)}
    to_do = tuple(
        Answer(
            group,
            causes,
            tuple(one for one in _works_of(group.findings, works) if one.target not in busy),
        )
        for group in sorted_out.groups
    )
    taken = {work.target for answer in to_do for work in answer.works}
    return Answers(
        to_do,
        tuple(busy.values()),
        tuple(sorted(set(runs.values()))),
        tuple(read.work for read in reads if read.work.target not in taken | busy.keys()),
    )


def _works_of(
    findings: Iterable[Finding], works: Mapping[tuple[str, str], Sequence[Work]]
) -> tuple[Work, ...]:
    """The work that some findings are of, each piece once."""
    found = {work.target: work for one in findings for work in works[one.account, one.resource]}
    return tuple(found.values())


def _assigned(
    warehouse: psycopg.Connection, found: Mapping[str, Finding], causes: Mapping[str, Cause]
) -> Assignment:
    """What could not be proved and was put back is tried again after an event that came since:
    somebody may have changed it while the fix was looked at. Such tries count for ``escalate``.
    """
    ids = list(found)
    if not ids:
        return Assignment((), (), ())
    alone = remediations.decided_against(warehouse, ids, datetime.now(UTC) - QUIET)
    if came := {one: causes[one].received_at for one in alone if one in causes}:
        alone -= remediations.undone_before(warehouse, came)
    alone |= remediations.active_findings(warehouse, ids)
    return assigned(warehouse, list(found.values()), alone)


def _busy_runs(warehouse: psycopg.Connection, found: Collection[str]) -> dict[str, str]:
    """The runs that are changing these findings without asking anybody, by the findings' ids.

    So are those whose change stands in part for now: a run is about to put it back.
    """
    lately = datetime.now(UTC) - PUTTING_BACK
    standing = (
        record
        for record in remediations.half_applied(warehouse)
        if record.finding_id in found
        and record.mode == Mode.AUTOMATIC
        and record.finished_at is not None
        and record.finished_at > lately
    )
    changing = (
        record
        for record in remediations.active_of(warehouse, list(found))
        if record.mode == Mode.AUTOMATIC or record.state == "applying"
    )
    return {record.finding_id: record.run_id for record in (*standing, *changing)}


def dead(warehouse: psycopg.Connection, runs: Sequence[str]) -> list[str]:
    """Those of these runs that no process carries any more."""
    if not runs or not carriers.locks_can_be_trusted(warehouse):
        return []
    return [run for run in runs if not carriers.is_carried(warehouse, run)]


def _open(warehouse: psycopg.Connection, reads: Sequence[ReadAgain]) -> dict[str, Finding]:
    """The open findings of what was read, by their ids: one query for each account."""
    read: dict[tuple[str, str], list[str]] = {}
    for one in reads:
        place = read.setdefault((one.account.cloud.value, one.account.id), [])
        place += [resource.id for resource in one.resources]
    return {
        found.id: found
        for (cloud, account), ids in read.items()
        for found in open_findings(warehouse, cloud=cloud, account=account, resource_ids=ids)
    }


def _causes(
    warehouse: psycopg.Connection, reads: Sequence[ReadAgain], found: Iterable[Finding]
) -> dict[str, Cause]:
    by_resource: dict[tuple[str, str], Cause] = {}
    for read in reads:
        cause = events.cause_of(warehouse, read.work)
        if cause is None:
            continue
        for resource in read.resources:
            known = by_resource.get((read.account.id, resource.id))
            if known is None or known.at < cause.at:
                by_resource[read.account.id, resource.id] = cause
    return {
        one.id: by_resource[one.account, one.resource]
        for one in found
        if (one.account, one.resource) in by_resource
    }


def note_causes(warehouse: psycopg.Connection, group: Group, causes: Mapping[str, Cause]) -> None:
    """Write down in the record by whose change each finding of a group is to be closed."""
    with warehouse.transaction():
        for finding in group.findings:
            cause = causes.get(finding.id)
            if cause is not None:
                details = {**_about(finding), **cause.json(), "policy": group.policy.name}
                audit.append(warehouse, WHO, "event", finding.id, details)


def requested_by(group: Group, causes: Mapping[str, Cause]) -> str:
    """Who or what asks for a run, in words: the change that it answers."""
    told = [causes[one.id] for one in group.findings if one.id in causes]
    if not told:
        return WHO
    last = max(told, key=lambda one: one.at)
    who = last.actor or "somebody unnamed"
    return f"{WHO}: {last.operation} by {who}, event {last.event}"


def how_it_ended(warehouse: psycopg.Connection, group: Group) -> dict[str, str]:
    """The state each finding of a group was brought to, by its id.

    What ended without a decision of anybody, so that it is to be tried again, is left out.
    """
    found: dict[str, str] = {}
    for finding in group.findings:
        last = next(iter(remediations.remediations_of(warehouse, finding.id)), None)
        if last is not None and not remediations.ended_without_decision(last):
            found[finding.id] = last.state
    return found


def _say_what_came_back(
    warehouse: psycopg.Connection,
    found: Iterable[Finding],
    causes: Mapping[str, Cause],
    scan_id: str,
) -> None:
    """Say of what Suture had closed and somebody has opened again: who, and what happens next.

    In the record, and as an event of Prefect's, from which an automation tells people.
    """
    by_id = {finding.id: finding for finding in found}
    again = remediations.closed_before(warehouse, list(by_id), scan_id)
    for finding in by_id.values():
        cause, times = causes.get(finding.id), again.get(finding.id)
        if not times:
            continue
        details: dict[str, Any] = {
            **_about(finding),
            **(cause.json() if cause else {}),
            "closed_before": times,
        }
        if audit.was_said(warehouse, "came back", finding.id, {"scan": scan_id}):
            continue
        audit.append(warehouse, WHO, "came back", finding.id, {**details, "scan": scan_id})
        emit_event(
            CAME_BACK,
            resource={
                "prefect.resource.id": f"suture.finding.{finding.id}",
                "prefect.resource.name": f"{finding.rule} on {finding.resource}",
            },
            payload=details,
        )


def _about(finding: Finding) -> dict[str, Any]:
    return {
        "finding": finding.id,
        "rule": finding.rule,
        "resource": finding.resource,
        "account": finding.account,
        "cloud": finding.cloud.value,
    }
