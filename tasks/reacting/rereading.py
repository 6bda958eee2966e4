"""Resources that events told of, read again as they are now, and merged into the findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import psycopg

from tasks.calls import CallMade, recording
from tasks.clouds.scanner import Scanner
from tasks.errors import BadInput, ResourceGone, SutureError, words_of
from tasks.model import Account, AccountScan, Covered, Resource, Rule, observe
from tasks.rules.edition import edition_of
from tasks.warehouse import events
from tasks.warehouse.events import Work
from tasks.warehouse.findings import account_of, resource_by_id
from tasks.warehouse.scans import Reread, merge_reread

TRIGGER = "event"


@dataclass(slots=True)
class ReadAgain:
    """What one piece of work showed: the resources, and what of the account that covers.

    ``failed`` is why it could not be read; then nothing is known anew. ``at`` is right before.
    ``calls`` are those that read one resource.
    """

    work: Work
    account: Account
    at: datetime
    resources: list[Resource] = field(default_factory=list)
    covered: list[tuple[Covered, str]] = field(default_factory=list)
    failed: str = ""
    calls: tuple[CallMade, ...] = ()

    @property
    def gone(self) -> bool:
        """Whether the one resource that it is about is no more."""
        return not self.failed and bool(self.work.target.resource) and not self.resources


def account_for(warehouse: psycopg.Connection, work: Work) -> Account:
    """The account as scans know it; one that none has seen yet is its queue's."""
    target = work.target
    try:
        return account_of(warehouse, target.cloud, target.account)
    except BadInput:
        return Account(target.cloud, target.account, source=work.source)


async def read_again(
    scanner: Scanner, work: Work, account: Account, rules: Sequence[Rule]
) -> ReadAgain:
    """Read what a piece of work is about, as it is now. Never raises for what a cloud does.

    ``rules`` are those of its kind that are in force.
    """
    target = work.target
    read = ReadAgain(work, account, datetime.now(UTC))
    if not target.resource:
        scan = await scanner.scan_kind(account, target.kind, target.region, rules)
        read.failed = scan.failed or next((one.reason for one in scan.coverage if not one.ok), "")
        if not read.failed:
            read.resources = list(scan.resources)
            read.covered = [(one, "") for one in scan.coverage]
        return read
    try:
        with recording() as calls:
            found = await scanner.read(
                *(account.cloud, account.id, account.source),
                *(target.kind, target.resource, target.region),
            )
    except ResourceGone:
        place = Covered(target.region, target.kind, ok=True)
        read.covered = [(place, target.resource)]
    except (SutureError, OSError) as error:
        read.failed = words_of(error)
    else:
        read.resources = [found]
        read.covered = [(Covered(found.region, found.kind, ok=True), found.id)]
        read.calls = tuple(calls)
    return read


def apart(warehouse: psycopg.Connection, reads: Sequence[ReadAgain]) -> list[list[ReadAgain]]:
    """Sort what was read into merges: what one merge has is all as of when its first was read.

    Where something is known of a resource that was seen between then and its own reading, such as a
    fix that was verified, the merge would take its reading for the older one: it has a merge of its
    own. So has all of a kind, of which nobody knows what it will resolve.
    """
    earliest = min(one.at for one in reads)
    ids = [found for one in reads for found in _ids(one)]
    seen_since = {
        tuple(row)
        for row in warehouse.execute(
            """
            SELECT cloud, account, resource FROM findings
            WHERE resource = ANY(%(ids)s) AND last_observed_at >= %(at)s
            UNION
            SELECT cloud, account, id FROM resources
            WHERE id = ANY(%(ids)s) AND last_seen_at >= %(at)s
            """,
            {"ids": ids, "at": earliest},
        )
    }
    together: list[ReadAgain] = []
    alone: list[ReadAgain] = []
    for one in sorted(reads, key=lambda read: read.at):
        places = {(one.account.cloud.value, one.account.id, found) for found in _ids(one)}
        whole = not one.work.target.resource
        (alone if whole or places & seen_since else together).append(one)
    return [*([together] if together else []), *([one] for one in alone)]


def _ids(read: ReadAgain) -> list[str]:
    """The resources that a reading is of, those that are gone too."""
    return [one.id for one in read.resources] or [read.work.target.resource]


def merge(
    warehouse: psycopg.Connection,
    reads: Sequence[ReadAgain],
    rules: Mapping[str, Sequence[Rule]],
    flow_run_id: str | None,
) -> str:
    """Merge what was read into the findings, as one targeted scan; returns its id.

    Each resource is judged by all rules of its kind that are in force, as a fleet scan would: what
    covers a resource must have an opinion on all that is said of it. As of before the first of them
    was read. Raises psycopg.Error.
    """
    by_account: dict[tuple[str, str], list[ReadAgain]] = {}
    for one in reads:
        by_account.setdefault((one.account.cloud, one.account.id), []).append(one)
    with warehouse.transaction():
        scan_id, _ = merge_reread(
            warehouse,
            [_reread(warehouse, some, rules) for some in by_account.values()],
            TRIGGER,
            flow_run_id,
            observed_at=min(one.at for one in reads),
            edition=edition_of(one for some in rules.values() for one in some),
        )
        events.note_scan(warehouse, [one.work for one in reads], scan_id)
    return scan_id


def _reread(
    warehouse: psycopg.Connection,
    reads: Sequence[ReadAgain],
    rules: Mapping[str, Sequence[Rule]],
) -> Reread:
    """What was read of one account, each resource once: of two readings the later."""
    ordered = sorted(reads, key=lambda one: one.at)
    account = ordered[-1].account
    resources = {found.id: found for one in ordered for found in one.resources}
    observations = [
        observe(rule, found) for found in resources.values() for rule in rules.get(found.kind, ())
    ]
    covered: dict[tuple[str, str, str], tuple[Covered, str]] = {}
    for one in ordered:
        for place, resource in one.covered:
            region = _known_region(warehouse, account, resource) if one.gone else ""
            where = replace(place, region=region or place.region)
            covered[where.region, where.kind, resource] = (where, resource)
    scan = AccountScan(account, list(resources.values()), observations)
    return Reread(scan, list(covered.values()))


def _known_region(warehouse: psycopg.Connection, account: Account, resource: str) -> str:
    """Where a resource lay that is gone: an event of Azure's does not say."""
    known = resource_by_id(warehouse, account.cloud, account.id, resource)
    return known.region if known is not None else ""
