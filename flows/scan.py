"""The fleet scan: accounts -> batches -> observations -> warehouse -> triage."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import wait
from prefect.runtime import flow_run
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner

from flows.names import dated
from flows.triage import triage
from tasks.errors import BadInput
from tasks.scanning import (
    begin_scan,
    ended_if_broken,
    merge_findings,
    publish_posture,
    scan_batch,
    scan_state,
    what_was_lost,
)

# Batches mostly wait for clouds; four at once keep two cores busy.
# (Prefect declares its runners invariant in the futures they give, so no type fits but Any.)
RUNNER: Any = ThreadPoolTaskRunner(max_workers=4)


@flow(name="scan-fleet", flow_run_name=dated("scan"), task_runner=RUNNER)
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
    try:
        scan = begin_scan(accounts or [], flow_run.id)
    except BadInput as problem:
        return Failed(name="Cannot start", message=str(problem))
    with ended_if_broken(scan):
        batches = [
            scan_batch.submit(scan.id, number, batch, request_seconds)
            for number, batch in enumerate(scan.batches(batch_size), start=1)
        ]
        wait(batches)  # one that crashes leaves its accounts uncovered, and the scan goes on
        lost = what_was_lost(scan, sum(not batch.state.is_completed() for batch in batches))
        counts = merge_findings(scan.id, lost)
    posture = publish_posture(scan.id)
    if hand_to_triage:
        triage(return_state=True)  # its own state says how it went; the scan is what it is
    return scan_state(counts, posture, lost)
