"""How flow runs share one scan: one begins it and merges, the others take batches of it.

All that they share is in the warehouse. A run that dies gives back what it had taken, and one that
never starts takes nothing: the run that began the scan does what is left, all of it if need be.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated
from uuid import UUID

import httpx
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelled, Cancelling
from pydantic import Field

from tasks import settings
from tasks.batch import BatchOrder
from tasks.inventory import load_inventory
from tasks.warehouse import claims, scans
from tasks.warehouse.database import connect

MOST = 32  # flow runs on one scan; prefect.yaml lets as many shares run, less the one that begins
Workers = Annotated[int, Field(ge=1, le=MOST)]


@contextmanager
def shared(order: BatchOrder, accounts: int, workers: int) -> Iterator[None]:
    """Have other flow runs work on a scan meanwhile: ``workers`` with this one, fewer where there
    are not as many batches.

    In the end those that have not begun are cancelled; if this run is cut off, all of them are.
    """
    shares = min(workers, math.ceil(accounts / order.limit)) - 1
    started = start_shares(order, shares) if shares > 0 else []
    try:
        yield
    except BaseException:
        _end(started, running=True)
        raise
    _end(started, running=False)


@task(cache_policy=NO_CACHE)
def start_shares(order: BatchOrder, shares: int) -> list[str]:
    """Start runs of the deployment that shares a scan. Returns their ids, fewer if it cannot.

    They and this run get the tag scan:<id>, by which the UI shows them together.
    """
    log = get_run_logger()
    tag = f"scan:{order.scan_id}"
    started: list[str] = []
    try:
        with get_client(sync_client=True) as prefect:
            if flow_run.id:
                prefect.update_flow_run(UUID(flow_run.id), tags=[*(flow_run.tags or ()), tag])
        while len(started) < shares:
            started.append(str(_start(order, tag, len(started) + 1).id))
    except ObjectNotFound:
        log.warning(
            "There is no deployment %s: this run scans alone. Run `prefect deploy --all`.",
            settings.share_deployment(),
        )
    except httpx.HTTPError as error:
        log.warning("%d of %d shares were started: %s", len(started), shares, type(error).__name__)
    return started


def _start(order: BatchOrder, tag: str, number: int) -> FlowRun:
    return run_deployment(  # type: ignore[return-value]
        settings.share_deployment(),
        parameters={
            "scan_id": order.scan_id,
            "batch_size": order.limit,
            "request_seconds": order.request_seconds,
            "full": order.full,
        },
        flow_run_name=f"scan share {number} of {order.scan_id[:8]}",
        tags=["suture", tag],
        idempotency_key=f"{flow_run.id or order.scan_id}-{number}",
        timeout=0,
        as_subflow=False,
    )


def _end(shares: Sequence[str], *, running: bool) -> None:
    """Cancel the shares that have not begun; those that run too, if told so."""
    if not shares:
        return
    with get_client(sync_client=True) as prefect:
        for share in shares:
            try:
                _cancel(prefect, UUID(share), running=running)
            except (httpx.HTTPError, ObjectNotFound) as error:
                get_run_logger().warning("Share %s is not ended: %s", share, type(error).__name__)


def _cancel(prefect: SyncPrefectClient, share: UUID, *, running: bool) -> None:
    state = prefect.read_flow_run(share).state
    if state is None or state.is_final():
        return
    if state.is_scheduled() or state.is_pending():
        not_begun: State = Cancelled(name="Not needed", message="The scan ended before it began.")
        prefect.set_flow_run_state(share, not_begun)
    elif running:
        cut_off: State = Cancelling(message="The run that began the scan was cut off.")
        prefect.set_flow_run_state(share, cut_off)


@task(cache_policy=NO_CACHE)
def join_scan(scan_id: str) -> int:
    """How many accounts of a scan are left, those that others have taken included.

    Raises BadInput when there is no such scan, or no inventory here to reach its accounts by.
    """
    load_inventory(settings.inventory_path())
    with connect() as warehouse:
        scans.posture(warehouse, scan_id)
        return claims.remaining(warehouse, scan_id)
