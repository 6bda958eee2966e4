"""The customer's sweep on Azure, as a flow: close every gate that stands past its time."""

from __future__ import annotations

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.names import dated
from tasks import settings
from tasks.clouds.gate_sweep import sweep_gates
from tasks.errors import SutureError
from tasks.inventory import load_inventory


@flow(name="sweep-gates", flow_run_name=dated("sweep"), persist_result=False)
def sweep(source: str = "") -> State:
    """Close what stands past its time: federated credentials, and role assignments left behind.

    It needs the customer's own credentials, which Suture has not: run it on a worker of theirs.

    Args:
        source: Only this entry of the inventory; empty for all of Azure.
    """
    log = get_run_logger()
    looked_at = closed = 0
    problems: list[str] = []
    try:
        for one in sweep_gates(load_inventory(settings.inventory_path()), source=source):
            looked_at, closed = looked_at + 1, closed + one.closed
            if one.closed:
                log.warning("Closed %d left open in %s", one.closed, one.subscription)
            if one.problem:
                problems.append(one.subscription)
                log.error("%s could not be looked at: %s", one.subscription, one.problem)
    except SutureError as problem:
        return Failed(name="Cannot sweep", message=str(problem))
    message = f"{closed} closed that stood past their time, in {looked_at} subscriptions"
    if problems:
        missed = f"{message}; {len(problems)} could not be looked at: {', '.join(problems[:5])}"
        return Failed(name="Partly swept", message=missed)
    return Completed(name="Swept", message=message)
