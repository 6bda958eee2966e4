"""What every contender is to the harness: a program that prepares, waits, works and answers.

    harness -> {"fleet": …, "accounts": …, …}   what there is to scan, and how
    harness <- {"ready": true, …}               programs are loaded, servers are up
    harness -> go                               here the clock starts
    harness <- {"covered": …, "errors": …, …}   and here it ends
    harness -> (end of input)                   clean up and leave

One JSON value a line. The harness measures from outside, the same way for all; a contender only
says what it covered.
"""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from typing import Any

PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is to be scanned: ``fleet`` is the simulator's own description of itself, ``cloud``
    whether its AWS accounts or its Azure subscriptions, which count as accounts here.

    ``processes`` and the limits (accounts at once in a process, calls at once for an account,
    connections of a process) are the same for every contender that can be told them.
    """

    fleet: dict[str, Any]
    accounts: int
    processes: int
    accounts_at_once: int
    calls_at_once: int
    connections: int
    cloud: str = "aws"
    cache: str = ""  # a folder for environments of their own
    rules: str = ""  # the rules in force, for Suture; all of them, unless said

    @property
    def endpoint(self) -> str:
        return str(self.fleet["endpoint"])

    @property
    def ca_file(self) -> str:
        return str(self.fleet["ca_file"])

    @property
    def aws(self) -> dict[str, Any]:
        return dict(self.fleet["aws"])

    @property
    def azure(self) -> dict[str, Any]:
        return dict(self.fleet["azure"])

    @property
    def region(self) -> str:
        return str(self.aws["regions"][0])

    def account_ids(self) -> list[str]:
        if self.cloud == "azure":
            head, _, number = str(self.azure["first_subscription"]).rpartition("-")
            return [f"{head}-{int(number) + index:012}" for index in range(self.accounts)]
        first = int(self.aws["first_account"])
        return [f"{first + number:012}" for number in range(self.accounts)]

    def role_arn(self, account: str) -> str:
        return f"arn:aws:iam::{account}:role/{self.aws['role']}"


@dataclass(slots=True)
class Outcome:
    """What a contender says of itself. ``errors`` are the first few, in words; none means well."""

    covered: int = 0
    errors: list[str] = field(default_factory=list)
    findings: int | None = None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Prepared:
    """``work`` does it; ``apart`` are process ids whose trees are also reported separately."""

    work: Callable[[], Outcome]
    apart: tuple[int, ...] = ()


def contend(prepare: Callable[[Job], Any]) -> None:
    """Be a contender. ``prepare(job)`` is a context manager that gives a ``Prepared``.

    Anything that a library prints goes to stderr; stdout belongs to the harness.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    adopt_orphans()
    job = Job(**json.loads(sys.stdin.readline()))
    with prepare(job) as prepared:
        print(json.dumps({"ready": True, "apart": prepared.apart}), file=answers)
        if sys.stdin.readline().strip() == "go":
            print(json.dumps(asdict(prepared.work())), file=answers)
            sys.stdin.read()


def adopt_orphans() -> None:
    """Have Linux give this process the orphans of its tree, so that their CPU is counted."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


@contextmanager
def worker_processes(job: Job, work: Callable[[Job, list[str]], Outcome]) -> Iterator[Prepared]:
    """The accounts dealt out to ``job.processes`` processes that are up before the clock starts.

    ``work(job, accounts)`` runs in each; its module must be importable by name, or the main one.
    """
    context = multiprocessing.get_context("spawn")
    shares = [job.account_ids()[start :: job.processes] for start in range(job.processes)]
    workers, pipes = [], []
    for share in shares:
        ours, theirs = context.Pipe()
        worker = context.Process(target=_worker, args=(theirs, job, share, work), daemon=True)
        worker.start()
        theirs.close()
        workers.append(worker)
        pipes.append(ours)
    for pipe in pipes:
        pipe.recv()

    def all_at_once() -> Outcome:
        for pipe in pipes:
            pipe.send("go")
        whole = Outcome()
        for pipe in pipes:
            try:
                part: Outcome = pipe.recv()
            except EOFError:
                whole.errors.append("a worker process died")
                continue
            whole.covered += part.covered
            whole.errors += part.errors
        whole.errors = whole.errors[:5]
        return whole

    yield Prepared(all_at_once)
    for worker, pipe in zip(workers, pipes, strict=True):
        pipe.close()
        worker.join(5)
        if worker.is_alive():
            worker.kill()


def _worker(
    pipe: Connection, job: Job, share: list[str], work: Callable[[Job, list[str]], Outcome]
) -> None:
    pipe.send("ready")
    try:
        pipe.recv()
        pipe.send(work(job, share))
        pipe.recv()  # until the other end closes: what ended with the clock running would not count
    except EOFError:
        return
