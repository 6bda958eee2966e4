"""What a fleet scan is made of: find the accounts, scan a batch of them, merge, report."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from prefect import get_run_logger, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed

from tasks import settings
from tasks.clouds.scanner import Discovery, Scanner
from tasks.clouds.transport import Limits
from tasks.errors import BadInput
from tasks.inventory import load_inventory
from tasks.model import Account, Finding
from tasks.report import posture_page
from tasks.rules import RULES
from tasks.warehouse import scans
from tasks.warehouse.database import connect
from tasks.warehouse.findings import open_findings
from tasks.warehouse.scans import MergeCounts, Posture

SHOWN = 500  # open findings in the artifact, the worst first


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan that has begun: its id in the warehouse and the accounts to cover.

    ``failed_sources`` are the inventory's entries whose accounts could not be discovered.
    """

    id: str
    accounts: tuple[Account, ...]
    failed_sources: tuple[str, ...] = ()

    def batches(self, size: int) -> list[tuple[Account, ...]]:
        """The accounts, ``size`` to a Prefect task, so that orchestration stays small."""
        return [self.accounts[i : i + size] for i in range(0, len(self.accounts), size)]


@task(cache_policy=NO_CACHE)
def begin_scan(only: Sequence[str], flow_run_id: str | None) -> Scan:
    """Discover the accounts and write the scan down. ``only`` limits it to some account ids.

    A source that cannot be discovered is recorded as failed, and its accounts' findings stay.
    Raises BadInput when ``only`` names an account that is not there.
    """
    discovery = asyncio.run(_discover())
    wanted = tuple(a for a in discovery.accounts if not only or a.id in only)
    if missing := sorted(set(only) - {account.id for account in discovery.accounts}):
        raise BadInput("accounts", f"{', '.join(missing)} cannot be scanned or is not known.")
    with connect() as warehouse:
        scan_id = scans.begin_scan(warehouse, trigger="fleet", flow_run_id=flow_run_id)
        scans.record_accounts(warehouse, scan_id, wanted, discovery.skipped, discovery.failed)
    log = get_run_logger()
    log.info("Scanning %d accounts and subscriptions", len(wanted))
    for account, reason in discovery.skipped:
        log.info("Skipped %s %s: %s", account.cloud, account.id, reason)
    for source, reason in discovery.failed:
        log.warning("Could not discover the accounts of %s: %s", source, reason)
    return Scan(scan_id, wanted, tuple(source for source, _ in discovery.failed))


async def _discover() -> Discovery:
    async with Scanner(load_inventory(settings.inventory_path())) as scanner:
        return await scanner.discover()


@task(task_run_name="scan-batch-{number}", retries=1, retry_delay_seconds=2, cache_policy=NO_CACHE)
async def scan_batch(
    scan_id: str, number: int, accounts: Sequence[Account], request_seconds: float
) -> int:
    """Scan a batch of accounts with the read-only identity and load what was seen.

    An account that fails is loaded with its reason and does not fail the batch. Returns how many
    failed.
    """
    log = get_run_logger()
    begun = datetime.now(UTC)
    limits = Limits(request_seconds=request_seconds)
    async with Scanner(load_inventory(settings.inventory_path()), limits) as scanner:
        results = await asyncio.gather(*(scanner.scan(account, RULES) for account in accounts))
    for result in results:
        if result.failed:
            log.warning("%s %s: %s", result.account.cloud, result.account.id, result.failed)

    def load() -> None:
        with connect() as warehouse:
            scans.load_batch(warehouse, scan_id, results, observed_at=begun)

    await asyncio.to_thread(load)
    return sum(bool(result.failed) for result in results)


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
def ended_if_broken(scan: Scan) -> Iterator[None]:
    """Whatever ends the scan early, a cancellation too, its record does not say that it runs."""
    try:
        yield
    except BaseException as error:
        with connect() as warehouse:
            scans.finish_scan(warehouse, scan.id, "failed", f"It broke: {type(error).__name__}.")
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


def what_was_lost(scan: Scan, crashed: int) -> str:
    """What a scan did not reach, in words; empty for one that reached all it was to.

    An account that refuses is reached: it has answered. ``crashed`` batches never reported.
    """
    lost = []
    if crashed:
        what = "1 batch" if crashed == 1 else f"{crashed} batches"
        lost.append(f"{what} crashed: the accounts in it count as failed.")
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
