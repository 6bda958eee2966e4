"""Start flow runs as forks of one process that has their code imported already.

A flow run's own process spends two seconds of CPU on imports before its first line. For a team's
worker that is nothing; on one machine, with a person waiting after Resume, it is most of the wait.
"""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from uuid import UUID

import anyio
import anyio.abc
from prefect._internal.control_listener import configure_from_env
from prefect.client.schemas.objects import FlowRun
from prefect.engine import handle_engine_signals
from prefect.flow_engine import load_flow, load_flow_run, run_flow
from prefect.runner import Runner
from prefect.runner._control_channel import ControlChannel
from prefect.runner._process_manager import ProcessHandle
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from tasks.core_dumps import forbid_core_dumps

# Imported once; none of it starts a thread or opens a connection, which a fork would not survive.
PRELOADED = (
    "typer",
    "deployments.warm_runs",
    "prefect.artifacts",
    "flows.scan",
    "flows.scan_share",
    "flows.remediate",
    "flows.restore",
    "tasks.clouds.remediator",
)


class WarmRunner(Runner):
    """Prefect's runner, with its flow runs forked instead of started from nothing.

    Prefect has no setting for how a served run starts, so its poller's choice is replaced. The
    exact pin of Prefect makes that safe; tests/deployments/test_serve.py notices when it is not.
    """

    async def __aenter__(self) -> WarmRunner:
        await super().__aenter__()
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(list(PRELOADED))
        forkserver.ensure_running()  # it imports while nothing is to be run yet
        self._scheduled_run_poller._resolve_starter = lambda flow_run: ForkStarter(
            processes,
            self._control_channel,
            self._deployment_registry.get_deployment_name(flow_run.deployment_id)
            if flow_run.deployment_id
            else None,
        )
        return self


class ForkStarter:
    """Starts one flow run as a fork: what Prefect's ``EngineCommandStarter`` does by a command."""

    def __init__(
        self,
        processes: ForkServerContext,
        control: ControlChannel,
        deployment_name: str | None,
    ) -> None:
        self._processes = processes
        self._control = control
        self._deployment_name = deployment_name

    async def start(
        self,
        flow_run: FlowRun,
        task_status: anyio.abc.TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Start the run, say so, and stay until its process has ended."""
        port, token = self._control.register(flow_run.id)
        environment = {
            "PREFECT__FLOW_RUN_ID": str(flow_run.id),
            "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
            "PREFECT__CONTROL_PORT": str(port),
            "PREFECT__CONTROL_TOKEN": token,
            "PREFECT__DEPLOYMENT_NAME": self._deployment_name or "",
        }
        process = self._processes.Process(target=run, args=(flow_run.id, environment))
        try:
            # The first start waits for the imports: not in the loop that polls for other runs.
            await anyio.to_thread.run_sync(process.start)
        except BaseException:
            self._control.unregister(flow_run.id)
            raise
        task_status.started(ProcessHandle(process))  # type: ignore[arg-type]
        await anyio.to_thread.run_sync(process.join)


def run(run_id: UUID, environment: dict[str, str]) -> None:
    """In the fork: what `python -m prefect.engine` does for one flow run."""
    forbid_core_dumps()  # an approver's code comes into this process
    os.environ.update(environment)
    configure_from_env()
    # Heartbeats are for automations that look for dead runs. Here the runner sees its children die,
    # and each flow would wait up to a second at its end for the thread that sends them.
    no_heartbeats = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
    with no_heartbeats, handle_engine_signals(run_id):
        flow_run = load_flow_run(flow_run_id=run_id)
        run_flow(load_flow(flow_run), flow_run=flow_run)
