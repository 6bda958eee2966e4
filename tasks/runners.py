"""Which of Prefect's task runners a scan's batches go to: a matter of configuration.

``SUTURE_TASK_RUNNER`` names it. Dask and Ray are imported only when they are chosen.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks import settings
from tasks.errors import BadInput
from tasks.scan_processes import AT_ONCE


def task_runner() -> TaskRunner[Any]:
    """The runner that ``SUTURE_TASK_RUNNER`` names, not yet started.

    Raises BadInput for a name that is none, or whose package is not installed.
    """
    match settings.task_runner():
        case "dask":
            return _dask()
        case "ray":
            return _ray()
    # A thread only waits for what becomes of its batch.
    return ThreadPoolTaskRunner(max_workers=settings.scan_processes() * AT_ONCE)


@contextmanager
def running(runner: TaskRunner[Any]) -> Iterator[None]:
    """A task runner at work, its cluster reached. Raises BadInput where none answers."""
    with ExitStack() as stack:
        try:
            stack.enter_context(runner)
            getattr(runner, "client", None)  # Dask would connect at the first task
        except OSError as error:
            named = settings.task_runner()
            raise BadInput(
                "SUTURE_TASK_RUNNER",
                f"is {named}, and its cluster cannot be reached: {type(error).__name__}.",
                f"Start it, or correct SUTURE_{named.upper()}_ADDRESS.",
            ) from error
        yield


def most_waiting(runner: TaskRunner[Any]) -> int:
    """How many batches a run gives to its runner before it looks whether there are more.

    A cluster's size is its own affair: it gets all there are. Threads get what keeps them busy, so
    that a run that shares its scan does not start a task for each batch that others take.
    """
    if isinstance(runner, ThreadPoolTaskRunner):
        return settings.scan_processes() * AT_ONCE + 1
    return sys.maxsize


def _dask() -> TaskRunner[Any]:
    package = _package("prefect_dask", "dask")
    if address := settings.dask_address():
        runner = package.DaskTaskRunner(address=address)
    else:
        # One thread each: a worker's thread waits for the process that scans. One more than that
        # many, because a batch's last answers leave its core idle. No dashboard: it would listen
        # on a port that nobody asked for.
        local = {
            "n_workers": settings.scan_processes() + 1,
            "threads_per_worker": 1,
            "dashboard_address": None,
        }
        runner = package.DaskTaskRunner(cluster_kwargs=local)
    assert isinstance(runner, TaskRunner)
    return runner


def _ray() -> TaskRunner[Any]:
    package = _package("prefect_ray", "ray")
    if address := settings.ray_address():
        runner = package.RayTaskRunner(address=address)
    else:
        local = {"num_cpus": settings.scan_processes(), "include_dashboard": False}
        runner = package.RayTaskRunner(init_kwargs=local)
    assert isinstance(runner, TaskRunner)
    return runner


def _package(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BadInput(
            "SUTURE_TASK_RUNNER",
            f"is {extra}, but {error.name} is not installed.",
            f"Install Suture with it, `pip install 'suture[{extra}]'`, or unset the variable.",
        ) from None
