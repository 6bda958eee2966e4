"""One share of a fleet scan: batches of a scan that another run has begun, until none is left."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.names import dated
from tasks.batch import BatchOrder
from tasks.errors import BadInput
from tasks.runners import task_runner
from tasks.scanning import share_batches
from tasks.sharing import join_scan


@flow(name="scan-share", flow_run_name=dated("scan share"))
def scan_share(
    scan_id: str, batch_size: int = 100, request_seconds: float = 20, full: bool = False
) -> State:
    """Work on a scan that another run has begun. Nobody needs to start this: `scan-fleet` does.

    Args:
        scan_id: The scan, as the warehouse names it.
        batch_size: Accounts scanned by one task.
        request_seconds: How long one answer of a cloud may take.
        full: Judge and record resources anew that have not changed, too.
    """
    try:
        runner = task_runner()
        left = join_scan(scan_id)
    except BadInput as problem:
        return Failed(name="Cannot start", message=str(problem))
    order = BatchOrder(scan_id, batch_size, request_seconds, full)
    taken, lost = share_batches(order, runner) if left else (0, 0)
    if lost:
        return Failed(message=f"{taken} accounts taken; {lost} batches were lost to other runs.")
    return Completed(message=f"{taken} accounts taken." if taken else "Nothing was left to take.")
