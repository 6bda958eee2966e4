"""What a fleet scan is made of: find the accounts, scan them in batches, merge, report."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count, islice
from typing import Any

import psycopg
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner

from tasks import settings
from tasks.batch import BatchOrder, BatchResult
from tasks.clouds.scanner import Discovery, Scanner
from tasks.errors import BadInput
from tasks.inventory import load_inventory
from tasks.model import Account, Finding
from tasks.report import posture_page
from tasks.rules import rules_of
from tasks.runners import most_waiting, running
from tasks.scan_processes import ScanProcesses
from tasks.warehouse import claims, incremental, scans
from tasks.warehouse.database import connect
from tasks.warehouse.findings import open_findings
from tasks.warehouse.scans import MergeCounts, Posture

WORTH_A_PROCESS = 25  # accounts: fewer are scanned before another process has started
SHOWN = 500  # open findings in the artifact, the worst first
REASONS_LOGGED = 20  # of one batch: the warehouse has them all
# A scan that was cut off goes on when it is started again; an older one begins anew.
RESUMED_WITHIN = timedelta(hours=6)
# Batches that were lost are tried again, in smaller ones, so that what breaks one is alone at last.
ROUNDS = (1.0, 0.2, 0.0)
ROUND_SECONDS = 2.0  # after each
# Accounts that others have taken are waited for while their work goes on.
LOOK_SECONDS = 1.0
LOOKED_AT = 1_000  # accounts
# Without one more account in this time, or in that of so many answers, they are given up.
STALLED_SECONDS, STALLED_REQUESTS = 300.0, 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which accounts a scan is to cover: all of the inventory, unless told otherwise.

    ``only`` are account ids. ``since`` leaves out the accounts read since then; ``touched`` those
    on which no event was seen after they were last read.
    """

    only: tuple[str, ...] = ()
    since: datetime | None = None
    touched: bool = False

    @property
    def selection(self) -> tuple[str, ...]:
        """What tells this selection from others: only a scan of the same one is gone on with."""
        narrowed = [f"since {self.since.astimezone(UTC).isoformat()}"] if self.since else []
        return (*self.only, *narrowed, *(["touched"] if self.touched else []))


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan that has begun, or goes on: its id in the warehouse and how many accounts are left.

    ``failed_sources`` are the inventory's entries whose accounts could not be discovered.
    """

    id: str
    accounts: int
    failed_sources: tuple[str, ...] = ()


@contextmanager
def scan_hold() -> Iterator[psycopg.Connection]:
    """The connection that a scan is held by: it ends with this process, however that ends."""
    with connect() as connection:
        yield connection


@task(cache_policy=NO_CACHE)
def begin_scan(
    hold: psycopg.Connection, wanted: Wanted, flow_run_id: str | None, resume: bool = True
) -> Scan:
    """Go on with a scan of the same accounts that was cut off; else discover them and begin one.

    A source that cannot be discovered is recorded as failed, and its accounts' findings stay.
    Raises BadInput when ``wanted`` names an account, or SUTURE_RULES a rule, that is not there.
    """
    log = get_run_logger()
    rules_of(settings.rules())  # a pattern that matches nothing is said before anything is asked
    if resume and (scan := _resumed(hold, wanted)) is not None:
        log.info("Going on with the scan %s: %d accounts are left", scan.id, scan.accounts)
        return scan
    claims.close_abandoned(hold, RESUMED_WITHIN)
    discovery = asyncio.run(_discover())
    accounts = _chosen(hold, wanted, discovery)
    scan_id = scans.begin_scan(
        hold, trigger="fleet", flow_run_id=flow_run_id, selection=wanted.selection
    )
    claims.hold_scan(hold, scan_id)
    scans.record_accounts(hold, scan_id, accounts, discovery.skipped, discovery.failed)
    log.info("Scanning %d accounts and subscriptions", len(accounts))
    for account, reason in discovery.skipped[:REASONS_LOGGED]:
        log.info("Skipped %s %s: %s", account.cloud, account.id, reason)
    for source, reason in discovery.failed:
        log.warning("Could not discover the accounts of %s: %s", source, reason)
    return Scan(scan_id, len(accounts), tuple(source for source, _ in discovery.failed))


def _resumed(hold: psycopg.Connection, wanted: Wanted) -> Scan | None:
    scan_id = claims.unfinished_scan(hold, wanted.selection, RESUMED_WITHIN)
    if scan_id is None or not claims.hold_scan(hold, scan_id):
        return None
    sources = tuple(source for source, _ in scans.posture(hold, scan_id).failed_sources)
    return Scan(scan_id, claims.remaining(hold, scan_id), sources)


def _chosen(
    warehouse: psycopg.Connection, wanted: Wanted, discovery: Discovery
) -> Sequence[Account]:
    if missing := sorted(set(wanted.only) - {account.id for account in discovery.accounts}):
        raise BadInput("accounts", f"{', '.join(missing)} cannot be scanned or is not known.")
    named = [a for a in discovery.accounts if not wanted.only or a.id in wanted.only]
    return incremental.accounts_since(warehouse, named, wanted.since, wanted.touched)


async def _discover() -> Discovery:
    async with Scanner(load_inventory(settings.inventory_path())) as scanner:
        return await scanner.discover()


def batch_limit(most: int, accounts: int) -> int:
    """The accounts of one batch: ``most``, fewer where some processes would have nothing to do."""
    shared_out = math.ceil(accounts / settings.scan_processes())
    return min(most, max(WORTH_A_PROCESS, shared_out))


def scan_in_batches(scan: Scan, order: BatchOrder, runner: TaskRunner[Any]) -> int:
    """Scan what is left of a scan, as tasks of ``runner``.

    Each takes a batch of the accounts that nobody has taken, so that any number of flow runs may
    work on one scan. What others have taken is waited for, and taken over when their connections to
    the warehouse end before they have loaded it. Returns how many accounts no batch has reported.
    """
    patience = max(STALLED_SECONDS, STALLED_REQUESTS * order.request_seconds)
    left = Left(scan.id, scan.accounts)
    numbers = count(1)
    with started(runner):
        while left.accounts:
            _work_in_rounds(left, runner, numbers, order)
            if not left.wait_for_others(patience):
                break
    return left.accounts


def _work_in_rounds(
    left: Left, runner: TaskRunner[Any], numbers: Iterator[int], order: BatchOrder
) -> None:
    """Take what is free, and what breaks its batch again in smaller ones; give up what is left."""
    for share in ROUNDS:
        smaller = replace(order, limit=max(1, int(order.limit * share)))
        progress = True
        while progress:  # others may give back what they have taken
            before = left.accounts
            _, lost = _work(runner, numbers, smaller)
            left.look()
            if not left.free:
                return
            progress = not lost and left.accounts < before
        time.sleep(ROUND_SECONDS)
    left.give_up_on_free()


def share_batches(order: BatchOrder, runner: TaskRunner[Any]) -> tuple[int, int]:
    """Take batches of another run's scan, while there are any.

    Returns how many accounts that were, and how many batches were lost: the accounts of those are
    left to the run whose scan it is.
    """
    with started(runner):
        return _work(runner, count(1), order)


@contextmanager
def started(runner: TaskRunner[Any]) -> Iterator[None]:
    """A task runner at work. In the end this process's own scanning processes end too."""
    with running(runner):
        try:
            yield
        finally:  # before the runner waits for its threads, which wait for these processes
            scan_processes().end()


def _work(runner: TaskRunner[Any], numbers: Iterator[int], order: BatchOrder) -> tuple[int, int]:
    """As many batches as what is left needs, fewer where others take some.

    Returns how many accounts they took, and how many batches were lost.
    """
    taken: list[int | None] = []
    waiting: deque[PrefectFuture[int]] = deque()
    with connect() as warehouse:
        batches = claims.batches_left(warehouse, order.scan_id, order.limit)
    for number in islice(numbers, batches):
        if len(waiting) >= most_waiting(runner):
            taken.append(_taken(waiting.popleft()))
            if taken[-1] == 0:  # nothing is left to take
                break
        waiting.append(runner.submit(scan_batch, {"number": number, "order": order}))
    taken += [_taken(future) for future in waiting]
    return sum(one or 0 for one in taken), taken.count(None)


def _taken(future: PrefectFuture[int]) -> int | None:
    """How many accounts a batch has taken; None for one that was lost. Its task says why."""
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - whatever a runner says of a task that is lost
        get_run_logger().warning("A batch was lost: %s", type(error).__name__)
        return None


class Left:
    """What is left of a scan, as the warehouse has it, whatever became of tasks and runs.

    ``accounts`` have not been loaded. ``free`` are those of them that nobody had taken at the last
    look, as (cloud, id).
    """

    def __init__(self, scan_id: str, accounts: int) -> None:
        self._scan_id = scan_id
        self._given_up: frozenset[tuple[str, str]] = frozenset()
        self.accounts = accounts
        self.free: frozenset[tuple[str, str]] = frozenset()

    def look(self) -> None:
        """Ask the warehouse. What is free is taken for a moment: there is no other way to tell."""
        free: set[tuple[str, str]] = set()
        with connect() as warehouse:
            while accounts := claims.claim_accounts(warehouse, self._scan_id, LOOKED_AT):
                free.update((account.cloud.value, account.id) for account in accounts)
            claims.release_claims(warehouse, self._scan_id)
            self.accounts = claims.remaining(warehouse, self._scan_id)
        self.free = frozenset(free)

    def give_up_on_free(self) -> None:
        """What is free now has been tried alone, and did not work."""
        self._given_up |= self.free

    def wait_for_others(self, patience: float) -> bool:
        """While others hold accounts, wait; True when something is free that was not given up.

        ``patience`` is how many seconds it may take until one more account is loaded.
        """
        deadline = time.monotonic() + patience
        while self.accounts > len(self.free) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            before = self.accounts
            self.look()
            if not self.free <= self._given_up:
                return True
            if self.accounts < before:
                deadline = time.monotonic() + patience
        return False


@task(task_run_name="scan-batch-{number}", cache_policy=NO_CACHE)
def scan_batch(number: int, order: BatchOrder) -> int:
    """Scan a batch of accounts with the read-only identity and load what was seen.

    An account that fails is loaded with its reason and does not fail the batch. Returns how many
    accounts it took.
    """
    result: BatchResult = scan_processes().scan(order)
    log = get_run_logger()
    for cloud, account, reason in result.failed[:REASONS_LOGGED]:
        log.warning("%s %s: %s", cloud, account, reason)
    if (more := len(result.failed) - REASONS_LOGGED) > 0:
        log.warning("%d more accounts failed: the warehouse has the reasons", more)
    return result.accounts


@cache
def scan_processes() -> ScanProcesses:
    """This process's own scanning processes. They end with it."""
    return ScanProcesses(settings.scan_processes())


@task(cache_policy=NO_CACHE)
def merge_findings(scan_id: str, lost: str = "") -> MergeCounts:
    """Turn the scan's observations into findings: opened, seen again, resolved, reopened.

    ``lost`` says what the scan did not reach, for its record; empty for a scan that reached all.
    """
    with connect() as warehouse:
        counts = scans.merge_scan(warehouse, scan_id)
        scans.finish_scan(warehouse, scan_id, "failed" if lost else "finished", lost)
    get_run_logger().info(
        "Findings: %d opened, %d seen again, %d resolved, %d reopened, %d unknown",
        *(counts.opened, counts.seen_again, counts.resolved, counts.reopened, counts.unknown),
    )
    return counts


@contextmanager
def interrupted_if_broken(scan: Scan) -> Iterator[None]:
    """Whatever ends the scan early, a cancellation too, its record says so, and keeps what it has.

    Started again within hours, it goes on.
    """
    try:
        yield
    except BaseException as error:
        with connect() as warehouse:
            why = f"It was cut off: {type(error).__name__}."
            claims.interrupt_scan(warehouse, scan.id, why)
        raise


@task(cache_policy=NO_CACHE)
def publish_posture(scan_id: str) -> Posture:
    """Publish the posture and the open findings as an artifact in the Prefect UI.

    From there a person starts a fix: a finding's id leads to the run form that carries it.
    """
    with connect() as warehouse:
        posture = scans.posture(warehouse, scan_id)
        findings = open_findings(warehouse, limit=SHOWN)
    create_markdown_artifact(
        posture_page(posture, findings, _fix_address()),
        key="posture",
        description="Posture of the fleet and its open findings after the last scan",
    )
    return posture


def _fix_address() -> Callable[[Finding], str] | None:
    """Where a person starts the fix of a finding; None where remediation is not deployed."""
    with get_client(sync_client=True) as client:
        try:
            deployment = client.read_deployment_by_name("remediate/remediate")
        except ObjectNotFound:
            return None
    return lambda finding: settings.run_form_address(
        str(deployment.id), {"finding_ids": [finding.id]}
    )


def what_was_lost(scan: Scan, left: int) -> str:
    """What a scan did not reach, in words; empty for one that reached all it was to.

    An account that refuses is reached: it has answered. ``left`` accounts were in no batch that
    reported.
    """
    lost = []
    if left:
        what = "1 account was" if left == 1 else f"{left} accounts were"
        lost.append(f"{what} never reported, and count as failed.")
    if scan.failed_sources:
        lost.append(f"The accounts of {', '.join(scan.failed_sources)} could not be discovered.")
    return " ".join(lost)


def scan_state(counts: MergeCounts, posture: Posture, lost: str) -> State:
    """The scan's end as a named state.

    Completed: every account has answered, if only with a refusal. Incomplete: some were never
    asked, so that what it says of the fleet is not all. Nothing scanned: no account could be read.
    """
    by_status: Counter[str] = Counter()
    for statuses in posture.accounts.values():
        by_status.update(statuses)
    message = (
        f"{by_status['covered']} accounts and subscriptions scanned, {by_status['failed']} failed, "
        f"{by_status['skipped']} skipped. Findings: {counts.opened} opened, "
        f"{counts.reopened} reopened, {counts.resolved} resolved. {lost}"
    ).strip()
    if not by_status["covered"]:
        return Failed(name="Nothing scanned", message=message)
    if lost:
        return Failed(name="Incomplete", message=message)
    return Completed(message=message)
