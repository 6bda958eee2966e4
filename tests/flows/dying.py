"""Run remediations that are killed at a chosen moment: a child that the test of it starts.

Each line of its input is one: {"at": "<moment>", "finding": "<id>", "policy": "<name>"}, and "flow"
where it is to be a flow of Prefect's and not only its steps. It forks for each, so that what takes
long to import is imported once, and answers each with "ended": the number of the signal that ended
it, or 0 where it came to its end.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import azure.mgmt.resource.resources
import boto3
from prefect.logging import disable_run_logger

from flows.remediate import remediate
from tasks import remediation, remediation_records, triage
from tasks.clouds import aws_write, azure_write
from tasks.warehouse import gate_requests

AT_ONCE = 4
IMPORTED = (azure.mgmt.resource.resources, boto3, triage)


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(module: Any, name: str, nth: int = 1) -> None:
    """Die when this is called for the nth time, before it does anything."""
    _wrap(module, name, nth, lambda real, *args, **named: die())


def after(module: Any, name: str, nth: int = 1) -> None:
    """Die when this has returned for the nth time."""

    def then(real: Callable[..., Any], *args: Any, **named: Any) -> None:
        real(*args, **named)
        die()

    _wrap(module, name, nth, then)


def _wrap(module: Any, name: str, nth: int, then: Callable[..., Any]) -> None:
    real, calls = getattr(module, name), []

    def wrapped(*args: Any, **named: Any) -> Any:
        calls.append(1)
        return (then if len(calls) == nth else _as_ever)(real, *args, **named)

    setattr(module, name, wrapped)


def _as_ever(real: Callable[..., Any], *args: Any, **named: Any) -> Any:
    return real(*args, **named)


def when_open() -> None:
    """Die when the session is open and nothing is written down of it."""
    real = remediation.open_session

    @contextmanager
    def opened(*args: Any, **named: Any) -> Iterator[Any]:
        with real(*args, **named) as session:
            die()
            yield session

    remediation.open_session = opened  # type: ignore[assignment]


def at_step(how: Callable[..., None], nth: int) -> Callable[[], None]:
    def on_both() -> None:
        for session in (aws_write.AwsSession, azure_write.AzureSession):
            how(session, "apply", nth)

    return on_both


MOMENTS: dict[str, Callable[[], None]] = {
    "planned": lambda: after(remediation_records, "save"),
    "about to ask": lambda: before(gate_requests, "asked"),
    "asking": lambda: before(remediation, "request_code"),
    "gate open": lambda: after(remediation, "request_code"),
    "session open": when_open,
    "about to begin": lambda: before(remediation_records, "begin_writing"),
    "begun": lambda: after(remediation_records, "begin_writing"),
    "before step 1": at_step(before, 1),
    "after step 1": at_step(after, 1),
    "between": lambda: after(remediation_records, "keep_snapshot"),
    "before step 2": at_step(before, 2),
    "after step 2": at_step(after, 2),
    "proved": lambda: before(remediation_records, "record"),
    "recorded": lambda: after(remediation_records, "record"),
    "releasing": lambda: before(remediation, "release"),
    "released": lambda: after(remediation, "release"),
    "at its end": lambda: before(remediation, "finish_remediation"),
}


def run(job: dict[str, Any]) -> None:
    azure_write.POLL_SECONDS = 0.05
    MOMENTS[job["at"]]()
    if job.get("flow"):
        remediate([job["finding"]], policy=job["policy"], return_state=True)
        return
    with disable_run_logger():
        run_id = str(uuid4())
        begun = remediation.begin_remediation.fn(run_id, [job["finding"]], job["policy"], "a test")
        with remediation.none_left_waiting(begun):
            answer = remediation.ask_customer.fn(begun)
            for number in answer.chosen:
                remediation.close_one.fn(begun, number, answer)
            if answer.chosen:
                remediation.conclude_round.fn(begun)
        remediation.finish_remediation(begun)


def main() -> None:
    jobs: list[dict[str, Any]] = [json.loads(line) for line in sys.stdin]
    running: dict[int, dict[str, Any]] = {}
    while jobs or running:
        while jobs and len(running) < AT_ONCE:
            job = jobs.pop(0)
            pid = os.fork()
            if pid == 0:
                try:
                    run(job)
                except BaseException:  # noqa: BLE001 - the child of a fork goes no further
                    traceback.print_exc()
                os._exit(0)
            running[pid] = job
        pid, status = os.wait()
        ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        job = running.pop(pid)
        print(json.dumps({**job, "ended": ended}), flush=True)


if __name__ == "__main__":
    main()
