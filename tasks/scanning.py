"""What a fleet scan is made of: find the accounts, scan them in batches, merge, report."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

import psycopg
from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.futures import wait
from prefect.states import Completed, Failed

from tasks import settings
from tasks.batch import BatchOrder, BatchResult
from tasks.clouds.scanner import Discovery, Scanner
from tasks.errors import BadInput
from tasks.inventory import load_inventory
from tasks.model import Account, Finding
from tasks.report import posture_page
from tasks.scan_processes import ScanProcesses
from tasks.warehouse import claims, incremental, scans
from tasks.warehouse.database import connect
from tasks.warehouse.findings import open_findings
from tasks.warehouse.scans import MergeCounts, Posture

SHOWN = 500  # open findings in the artifact, the worst first
REASONS_LOGGED = 20  # of one batch: the warehouse has them all
# A scan that was cut off goes on when it is started again; an older one begins anew.
RESUMED_WITHIN = timedelta(hours=6)
# Batches that were lost are tried again, in smaller ones, so that what breaks one is alone at last.
ROUNDS = (1.0, 0.2, 0.0)
ROUND_SECONDS = 2.0  # before each round but the first


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

    def batches(self, accounts: int, size: int) -> int:
        """How many batches of ``size`` that is, so that orchestration stays small."""
        return math.ceil(accounts / size)


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
    Raises BadInput when ``wanted`` names an account that is not there.
    """
    log = get_run_logger()
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


def scan_in_batches(
    scan: Scan, batch_size: int, request_seconds: float, *, full: bool = False
) -> int:
    """Scan what is left of a scan, as tasks of the flow's task runner.

    Each takes a batch of the accounts that nobody has taken, so that any number of flow runs may
    work on one scan. Returns how many accounts no batch has reported.
    """
    number = 0
    left = scan.accounts
    for share in ROUNDS:
        if not left:
            break
        if number:
            time.sleep(ROUND_SECONDS)
        size = max(1, int(batch_size * share))
        numbers = range(number, number := number + scan.batches(left, size))
        orders = BatchOrder(scan.id, size, request_seconds, full)
        wait([scan_batch.submit(one + 1, orders) for one in numbers])
        with connect() as warehouse:
            left = claims.remaining(warehouse, scan.id)
    return left


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
    finally:
        scan_processes().end()


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
