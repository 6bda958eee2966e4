"""The fleet scan: accounts -> batches -> observations -> warehouse -> triage."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.triage import triage
from tasks.scanning import begin_scan, merge_findings, publish_posture, scan_batch

# Batches mostly wait for clouds; four at once keep two cores busy.
# (Prefect declares its runners invariant in the futures they give, so no type fits but Any.)
RUNNER: Any = ThreadPoolTaskRunner(max_workers=4)


@flow(name="scan-fleet", task_runner=RUNNER)
def scan_fleet(
    accounts: list[str] | None = None,
    batch_size: int = 25,
    hand_to_triage: bool = True,
    request_seconds: int = 20,
) -> State:
    """Scan every account and subscription of the inventory, read-only, and keep the findings.

    Args:
        accounts: Account or subscription ids to scan; all of the inventory when left empty.
        batch_size: Accounts scanned by one task.
        hand_to_triage: Start remediation for the open findings that a policy covers.
        request_seconds: How long one answer of a cloud may take.
    """
    scan = begin_scan(accounts or [], flow_run.id)
    batches = [
        scan_batch.submit(scan.id, number, batch, request_seconds)
        for number, batch in enumerate(scan.batches(batch_size), start=1)
    ]
    for batch in batches:
        batch.wait()  # one that fails leaves its accounts uncovered, and the scan goes on
    counts = merge_findings(scan.id)
    publish_posture(scan.id)
    if hand_to_triage:
        triage()
    return Completed(message=f"{counts.opened} findings opened, {counts.resolved} resolved")
