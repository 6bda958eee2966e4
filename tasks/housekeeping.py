"""The warehouse's own upkeep: partitions ahead of time, and what is old goes."""

from __future__ import annotations

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from tasks.warehouse import partitions
from tasks.warehouse.database import connect
from tasks.warehouse.partitions import Retired


@task(cache_policy=NO_CACHE)
def make_partitions(ahead: int) -> list[str]:
    """Partitions of observations for this month and ``ahead`` more. Returns the new ones."""
    with connect() as warehouse:
        made = partitions.make_partitions(warehouse, ahead)
    for name in made:
        get_run_logger().info("Made %s", name)
    return made


@task(cache_policy=NO_CACHE)
def retire(observations_months: int, scans_days: int) -> Retired:
    """Drop observations and records of scans that are older. Findings and the audit log stay."""
    with connect() as warehouse:
        retired = partitions.retire(warehouse, observations_months, scans_days)
    for name in retired.partitions:
        get_run_logger().info("Dropped %s", name)
    return retired
