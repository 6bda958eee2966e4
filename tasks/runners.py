"""Which of Prefect's task runners a scan's batches go to: a matter of configuration."""

from __future__ import annotations

from typing import Any

from prefect.task_runners import ThreadPoolTaskRunner

from tasks import settings


def task_runner() -> Any:
    """The runner that SUTURE_TASK_RUNNER names.

    (Prefect declares its runners invariant in the futures they give, so no type fits but Any.)
    """
    # A thread only waits for its batch's process; one more, so that no process waits for a thread.
    return ThreadPoolTaskRunner(max_workers=settings.scan_processes() + 1)
