"""The fleet scan: accounts -> batches -> observations -> warehouse -> triage."""

from __future__ import annotations

from datetime import datetime

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Failed

from flows.names import dated
from flows.triage import triage
from tasks.batch import BatchOrder
from tasks.errors import BadInput
from tasks.runners import task_runner
from tasks.scanning import (
    Wanted,
    batch_limit,
    begin_scan,
    interrupted_if_broken,
    merge_findings,
    publish_posture,
    scan_hold,
    scan_in_batches,
    scan_state,
    what_was_lost,
)
from tasks.sharing import Workers, shared


@flow(name="scan-fleet", flow_run_name=dated("scan"))
def scan_fleet(
    accounts: list[str] | None = None,
    batch_size: int = 100,
    hand_to_triage: bool = True,
    request_seconds: int = 20,
    since: datetime | None = None,
    touched: bool = False,
    full: bool = False,
    resume: bool = True,
    workers: Workers = 1,
) -> State:
    """Scan every account and subscription of the inventory, read-only, and keep the findings.

    A scan of the same accounts that was cut off in the last hours is gone on with.

    Args:
        accounts: Account or subscription ids to scan; all of the inventory when left empty.
        batch_size: Accounts scanned by one task, at the most.
        hand_to_triage: Start remediation for the open findings that a policy covers.
        request_seconds: How long one answer of a cloud may take.
        since: Only the accounts that have not been read since then.
        touched: Only the accounts on which an event was seen after they were last read.
        full: Judge and record resources anew that have not changed, too.
        resume: Go on where a scan of the same accounts was cut off.
        workers: Flow runs that share this scan, this one included.
    """
    wanted = Wanted(only=tuple(accounts or ()), since=since, touched=touched)
    with scan_hold() as hold:
        try:
            runner = task_runner()
            scan = begin_scan(hold, wanted, flow_run.id, resume)
        except BadInput as problem:
            return Failed(name="Cannot start", message=str(problem))
        limit = batch_limit(batch_size, scan.accounts)
        order = BatchOrder(scan.id, limit, request_seconds, full)
        with interrupted_if_broken(scan):
            with shared(order, scan.accounts, workers):
                left = scan_in_batches(scan, order, runner)
            lost = what_was_lost(scan, left)
            counts = merge_findings(scan.id, lost)
    posture = publish_posture(scan.id)
    if hand_to_triage:
        triage(return_state=True)  # its own state says how it went; the scan is what it is
    return scan_state(counts, posture, lost)
