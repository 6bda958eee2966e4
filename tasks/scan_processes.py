"""Processes that only scan: batches go to them as lines of JSON, and so they stay small.

A process with Prefect in it takes twice the memory, and one of Python's runs on one core only.
``python -m tasks.scan_processes`` is what they run.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import asdict
from typing import Any

from tasks.batch import BatchOrder, BatchResult, BatchScanner
from tasks.errors import SutureError
from tasks.settings import inventory_path

END_SECONDS = 10.0  # what an idle process may take to end by itself


class ScanProcesses:
    """At most ``most`` scanning processes, started when there is work.

    Threads may call ``scan`` at once. ``end`` ends the processes; what is left then ends with the
    process that started it, when its input closes.
    """

    def __init__(self, most: int) -> None:
        self._room = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[str]] = []
        self._busy: set[subprocess.Popen[str]] = set()

    def end(self) -> None:
        """End all processes, those in the middle of a batch too. New ones may be started."""
        with self._lock:
            idle, self._idle = self._idle, []
            for process in self._busy:  # nobody waits for these any more
                process.kill()
        for process in idle:
            _end(process)

    def scan(self, order: BatchOrder) -> BatchResult:
        """Have a process scan one batch. Raises SutureError when it could not, or has died."""
        with self._room:
            process = self._take()
            try:
                answer = _ask(process, asdict(order))
            except BaseException:
                process.kill()
                process.wait()
                raise
            finally:
                self._put_back(process)
        if "error" in answer:
            raise SutureError(answer["error"])
        return BatchResult.from_json(answer)

    def _take(self) -> subprocess.Popen[str]:
        with self._lock:
            process = self._idle.pop() if self._idle else _start()
            self._busy.add(process)
            return process

    def _put_back(self, process: subprocess.Popen[str]) -> None:
        with self._lock:
            self._busy.discard(process)
            if process.poll() is None:
                self._idle.append(process)
                return
        _end(process)


def _start() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.scan_processes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        bufsize=1,
    )


def _ask(process: subprocess.Popen[str], question: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(question) + "\n")
        line = process.stdout.readline()
    except OSError:
        line = ""
    if not line:
        raise SutureError(f"a scanning process has died ({process.wait()})")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _end(process: subprocess.Popen[str]) -> None:
    """Close its input, which ends it; wait, but not for ever."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    """Scan a batch for each line that comes in; end when there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends whoever started this, and so this
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever prints, it is no answer
    # What is imported stays, and what a scan makes is freed by its last reference: looking for
    # cycles so often took a quarter of a scan's time.
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    scanner: BatchScanner | None = None
    try:
        for line in sys.stdin:
            order = BatchOrder(**json.loads(line))
            try:
                if scanner is None:
                    scanner = BatchScanner(inventory_path(), order.request_seconds).__enter__()
                answer = scanner.scan(order).as_json()
            except SutureError as error:
                answer = {"error": str(error)}
            answers.write(json.dumps(answer) + "\n")
    finally:
        if scanner is not None:
            scanner.__exit__(None, None, None)


if __name__ == "__main__":
    main()
