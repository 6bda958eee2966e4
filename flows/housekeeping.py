"""Housekeeping: the warehouse's months made ahead of time, and what is old dropped."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.names import dated
from tasks.errors import BadInput
from tasks.housekeeping import make_partitions, retire


@flow(name="housekeeping", flow_run_name=dated("housekeeping"))
def housekeeping(
    months_ahead: int = 2, observations_months: int = 13, scans_days: int = 400
) -> State:
    """Make the next months' partitions of observations, drop old ones and records of old scans.

    Findings, their episodes, remediations, snapshots and the audit log are never touched.

    Args:
        months_ahead: Months to make partitions for, beside the current one.
        observations_months: Whole months of observations to keep, beside the current one.
        scans_days: Days to keep the records of scans: their accounts and coverage.
    """
    try:
        made = make_partitions(months_ahead)
        retired = retire(observations_months, scans_days)
    except BadInput as problem:
        return Failed(name="Cannot start", message=str(problem))
    return Completed(
        message=f"{len(made)} partitions made, {len(retired.partitions)} dropped, "
        f"{retired.scans} scans retired"
    )
