"""Serve the deployments of prefect.yaml from one process: the embedded default's worker."""

from __future__ import annotations

import asyncio
import importlib
import logging
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import TerminationSignal
from prefect.schedules import Cron, Interval, Schedule
from prefect.types.entrypoint import EntrypointType
from ruamel.yaml import YAML

from deployments.warm_runs import WarmRunner

logger = logging.getLogger("suture.serve")
PREFECT_YAML = Path(__file__).parent.parent / "prefect.yaml"


def serve_deployments(limit: int) -> None:
    """Serve every deployment until interrupted, at most ``limit`` flow runs at a time.

    Schedules stay off: here a person starts what runs.
    """
    runner = WarmRunner(limit=limit, pause_on_shutdown=False)
    for deployment in served_deployments():
        runner.add_deployment(deployment)
    try:
        asyncio.run(runner.start())
    except (KeyboardInterrupt, TerminationSignal):
        logger.info("Stopped serving the deployments.")


def served_deployments(path: Path = PREFECT_YAML) -> list[RunnerDeployment]:
    """The deployments of a prefect.yaml, to be run by this process instead of a work pool."""
    document = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    return [_deployment(entry) for entry in document["deployments"]]


def _deployment(entry: dict[str, Any]) -> RunnerDeployment:
    module, _, name = entry["entrypoint"].rpartition(".")
    flow: Flow[..., Any] = getattr(importlib.import_module(module), name)
    deployment = flow.to_deployment(
        name=entry["name"],
        description=entry.get("description"),
        tags=entry.get("tags"),
        parameters=entry.get("parameters"),
        concurrency_limit=entry.get("concurrency_limit"),
        schedules=[_schedule(schedule) for schedule in entry.get("schedules", [])],
        # By module, not by file: a file loaded by path would be a second copy of the flow.
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)
    return deployment


def _schedule(entry: dict[str, Any]) -> Schedule:
    if "cron" in entry:
        return Cron(entry["cron"], timezone=entry.get("timezone", "UTC"), active=False)
    return Interval(timedelta(seconds=entry["interval"]), active=False)
