"""`suture serve`: the deployments of prefect.yaml, their runs forked from one warm process."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prefect.types.entrypoint import EntrypointType

from deployments.local.children import Child
from deployments.local.prefect_api import PrefectApi
from deployments.local.stack import Stack
from deployments.serve import served_deployments
from tasks.warehouse.database import connect

SERVER = """
import asyncio, sys
from prefect.types.entrypoint import EntrypointType
from deployments import warm_runs
import own_flows
from flows.react import react
warm_runs.PRELOADED = (*warm_runs.PRELOADED, "own_flows")
runner = warm_runs.WarmRunner(pause_on_shutdown=False)
for each in (own_flows.answers, own_flows.dies, own_flows.sleeps, react):
    runner.add_deployment(
        each.to_deployment(name="warm", entrypoint_type=EntrypointType.MODULE_PATH)
    )
print("serving", flush=True)
asyncio.run(runner.start())
"""
FLOWS = """
import os, time
from prefect import flow, get_run_logger
from prefect.states import Completed
PRELOADED_BY = os.getpid()

@flow
def answers(word: str):
    inherited = os.getppid() == PRELOADED_BY
    return Completed(message=f"{word}, imports inherited: {inherited}")

@flow
def dies():
    os._exit(3)

@flow
def sleeps():
    time.sleep(60)
"""


def test_the_deployments_of_prefect_yaml_are_served_as_they_stand() -> None:
    served = {one.flow_name + "/" + one.name: one for one in served_deployments()}
    assert set(served) == {
        "scan-fleet/nightly",
        "scan-share/scan-share",
        "triage/triage",
        "reconcile/reconcile",
        "remediate/remediate",
        "restore/restore",
        "react/react",
        "housekeeping/housekeeping",
    }
    assert served["remediate/remediate"].entrypoint == "flows.remediate.remediate"
    assert served["remediate/remediate"].concurrency_limit == 20
    assert served["scan-fleet/nightly"].tags == ["suture", "scan"]
    for one in served.values():
        assert one.entrypoint_type is EntrypointType.MODULE_PATH
        assert not any(schedule.active for schedule in one.schedules or [])


def test_a_file_that_is_no_prefect_yaml_is_not_served(tmp_path: Path) -> None:
    other = tmp_path / "prefect.yaml"
    other.write_text("deployments:\n  - {name: x, entrypoint: flows.scan.not_there}\n")
    with pytest.raises(AttributeError, match="not_there"):
        served_deployments(other)


@pytest.mark.slow
def test_what_is_preloaded_can_be_forked() -> None:
    """A thread of the process that forks would be missing in the fork, with the locks it holds."""
    code = (
        "import importlib, threading\n"
        "from deployments.warm_runs import PRELOADED\n"
        "for name in PRELOADED: importlib.import_module(name)\n"
        "with open('/proc/self/status') as status:\n"
        "    print(next(line.split()[1] for line in status if line.startswith('Threads')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.fixture(scope="module")
def warm(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectApi]:
    """A warm runner of flows of its own, beside the stack's, and the API to start them by."""
    folder = tmp_path_factory.mktemp("warm")
    (folder / "own_flows.py").write_text(FLOWS)
    (folder / "policies.yaml").write_text("suture: 1\npolicies: []\n")
    env = {
        **stack.env,
        "PYTHONPATH": str(folder),
        "PREFECT_LOGGING_LEVEL": "WARNING",
        "SUTURE_POLICIES": str(folder / "policies.yaml"),
    }
    child = Child("warm", [sys.executable, "-c", SERVER], env, folder / "log", pipe=True)
    api = PrefectApi(stack.api_url)
    try:
        child.first_line(seconds=60)
        child.wait_until(lambda: _deployed(stack.api_url), seconds=30)
        yield api
    finally:
        api.close()
        child.stop()


@pytest.mark.slow
def test_a_run_is_a_fork_of_the_process_that_has_the_imports(warm: PrefectApi) -> None:
    run = warm.start("answers/warm", {"word": "warm"})
    state = warm.wait([run], seconds=60)[run]
    assert state["message"] == "warm, imports inherited: True"


@pytest.mark.slow
def test_a_run_whose_process_dies_is_crashed_and_a_cancelled_one_ends(
    warm: PrefectApi, stack: Stack
) -> None:
    dead, sleeping = warm.start("dies/warm", {}), warm.start("sleeps/warm", {})
    assert warm.wait([dead], seconds=60)[dead]["type"] == "CRASHED"
    deadline = time.monotonic() + 30
    while warm.state(sleeping)["type"] != "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.1)
    cancel(stack, sleeping)
    assert warm.wait([sleeping], seconds=40)[sleeping]["type"] == "CANCELLED"


def cancel(stack: Stack, run: str) -> None:
    body = {"state": {"type": "CANCELLING"}}
    httpx.post(
        f"{stack.api_url}/flow_runs/{run}/set_state", json=body, trust_env=False
    ).raise_for_status()


@pytest.mark.slow
def test_a_listener_is_started_and_ended_like_any_run(warm: PrefectApi, stack: Stack) -> None:
    def listening() -> list[tuple[str]]:
        return warehouse.execute("SELECT flow_run_id FROM listeners").fetchall()

    with connect(stack.env["SUTURE_WAREHOUSE_URL"]) as warehouse:
        before = listening()
        run = warm.start("react/warm", {})
        deadline = time.monotonic() + 60
        while (run,) not in listening() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert (run,) in listening()
        cancel(stack, run)
        assert warm.wait([run], seconds=60)[run]["type"] in ("CANCELLED", "COMPLETED")
        assert listening() == before, "it has said that it is gone"


def _deployed(api_url: str) -> bool:
    answer = httpx.get(f"{api_url}/deployments/name/sleeps/warm", timeout=5, trust_env=False)
    return answer.is_success
