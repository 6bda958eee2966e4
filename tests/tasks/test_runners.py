"""Which task runner is chosen, and what is said where it cannot be."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import cloudpickle
import dask
import pytest
from prefect.task_runners import ThreadPoolTaskRunner
from prefect_dask import DaskTaskRunner

from deployments.local.children import free_port
from tasks.batch import BatchOrder
from tasks.errors import BadInput
from tasks.runners import most_waiting, running, task_runner
from tasks.scan_processes import AT_ONCE
from tasks.scanning import scan_batch


def test_threads_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUTURE_TASK_RUNNER", raising=False)
    monkeypatch.setenv("SUTURE_SCAN_PROCESSES", "4")
    runner = task_runner()
    assert isinstance(runner, ThreadPoolTaskRunner)
    assert (
        most_waiting(runner) == 4 * AT_ONCE + 1
    )  # what keeps four processes busy, and not a whole scan


def test_dask_is_a_local_cluster_unless_a_scheduler_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SUTURE_TASK_RUNNER", "dask")
    monkeypatch.setenv("SUTURE_SCAN_PROCESSES", "4")
    local = task_runner()
    assert isinstance(local, DaskTaskRunner)
    assert local.address is None
    assert local.cluster_kwargs["n_workers"] == 5
    assert local.cluster_kwargs["threads_per_worker"] == 1
    assert most_waiting(local) > 10_000
    monkeypatch.setenv("SUTURE_DASK_ADDRESS", "tcp://scheduler:8786")
    remote = task_runner()
    assert isinstance(remote, DaskTaskRunner)
    assert (remote.address, remote.cluster_kwargs) == ("tcp://scheduler:8786", {})


def test_a_runner_that_is_not_known_names_those_that_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUTURE_TASK_RUNNER", "celery")
    with pytest.raises(BadInput, match=r"SUTURE_TASK_RUNNER.*celery.*threads or dask or ray"):
        task_runner()


@pytest.mark.skipif(importlib.util.find_spec("prefect_ray") is not None, reason="Ray is installed")
def test_a_runner_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SUTURE_TASK_RUNNER", "ray")
    with pytest.raises(BadInput, match=r"SUTURE_TASK_RUNNER.*prefect_ray.*suture\[ray\]"):
        task_runner()


@pytest.mark.slow
def test_a_cluster_that_does_not_answer_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUTURE_TASK_RUNNER", "dask")
    monkeypatch.setenv("SUTURE_DASK_ADDRESS", f"tcp://127.0.0.1:{free_port()}")
    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(BadInput, match=r"SUTURE_TASK_RUNNER.*SUTURE_DASK_ADDRESS"),
        running(task_runner()),
    ):
        pytest.fail("it was reached")


def test_what_goes_to_a_cluster_holds_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SUTURE_WAREHOUSE_URL", "postgresql://suture:hunter2@db/warehouse")
    order = BatchOrder("00000000-0000-0000-0000-000000000000", 50, 20.0)
    sent = cloudpickle.dumps((scan_batch, {"number": 1, "order": order}))
    assert b"scan_batch" in sent
    assert b"hunter2" not in sent


@pytest.mark.slow
def test_a_scan_imports_no_runner_that_it_does_not_use() -> None:
    code = (
        "import sys, flows.scan, flows.scan_share; print({'distributed', 'ray'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
