"""Processes that only scan: batches go to them as lines of JSON, and so they stay small.

A process with Prefect in it takes twice the memory, and one of Python's runs on one core only.
``python -m tasks.scan_processes`` is what they run.
"""

from __future__ import annotations

import gc
import json
import os
import queue
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
IDLE_SECONDS = 60.0  # without a batch; then the processes end, and new ones start when needed


class ScanProcesses:
    """At most ``most`` scanning processes, started when there is work.

    Threads may call ``scan`` at once. ``end`` ends the processes, as does a minute without work (a
    cluster's worker is not told when a scan is over). What is left ends with the process that
    started it, when its input closes, even in the middle of a batch.
    """

    def __init__(self, most: int, idle_seconds: float = IDLE_SECONDS) -> None:
        self._room = threading.BoundedSemaphore(most)
        self._lock = threading.Lock()
        self._idle_seconds = idle_seconds
        self._idle_end: threading.Timer | None = None
        self._idle: list[subprocess.Popen[str]] = []
        self._busy: set[subprocess.Popen[str]] = set()

    def end(self) -> None:
        """End all processes, those in the middle of a batch too. New ones may be started."""
        with self._lock:
            for process in self._busy:  # nobody waits for these any more
                process.kill()
        self._end_idle()

    def _end_idle(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
            if self._idle_end is not None:
                self._idle_end.cancel()
                self._idle_end = None
        for process in idle:  # all at once, and then each is waited for
            _close(process)
        for process in idle:
            _end(process)

    def _end_idle_later(self) -> None:
        if self._idle_end is not None:
            self._idle_end.cancel()
        self._idle_end = threading.Timer(self._idle_seconds, self._end_idle)
        self._idle_end.daemon = True
        self._idle_end.start()

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
                self._end_idle_later()
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


def _close(process: subprocess.Popen[str]) -> None:
    """Close its input, which ends it."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _end(process: subprocess.Popen[str]) -> None:
    """End it and wait, but not for ever."""
    _close(process)
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
    orders = Orders()
    scanner: BatchScanner | None = None
    try:
        while (line := orders.next()) is not None:
            order = BatchOrder(**json.loads(line))
            try:
                if scanner is None:
                    scanner = BatchScanner(inventory_path(), order.request_seconds).__enter__()
                answer = scanner.scan(order).as_json()
            except SutureError as error:
                answer = {"error": str(error)}
            orders.done()
            answers.write(json.dumps(answer) + "\n")
    finally:
        if scanner is not None:
            scanner.__exit__(None, None, None)
    # Whoever gave the orders waits: freeing what goes with the process anyway takes a while.
    sys.stderr.flush()
    os._exit(0)


class Orders:
    """The lines that come in. When they end in the middle of a batch, so does this process.

    Whoever gave the order has died then: nobody waits for the answer, and another may take the
    accounts as soon as this process's connection to the warehouse is gone.
    """

    def __init__(self) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._busy = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def next(self) -> str | None:
        """The next order; None when there are no more."""
        return self._lines.get()

    def done(self) -> None:
        """The order that ``next`` gave is done."""
        self._busy.clear()

    def _listen(self) -> None:
        for line in sys.stdin:
            self._busy.set()
            self._lines.put(line)
        if self._busy.is_set():
            os._exit(1)
        self._lines.put(None)


if __name__ == "__main__":
    main()
