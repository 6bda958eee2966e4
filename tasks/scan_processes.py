"""Processes that only scan: batches go to them as lines of JSON, and so they stay small.

A process with Prefect in it takes twice the memory, and one of Python's runs on one core only.
``python -m tasks.scan_processes`` is what they run.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from typing import IO, Any, TextIO

import uvloop

from tasks.batch import BatchOrder, BatchResult, BatchScanner
from tasks.errors import SutureError
from tasks.garbage import collect_rarely
from tasks.settings import inventory_path

COMMAND = (sys.executable, "-m", "tasks.scan_processes")
# Batches of one process. All but one wait for the last answers of slow accounts, each with a
# connection to the warehouse.
AT_ONCE = 6
END_SECONDS = 10.0  # what an idle process may take to end by itself
IDLE_SECONDS = 60.0  # without a batch; then the processes end, and new ones start when needed


class ScanProcesses:
    """At most ``most`` scanning processes, started when there is work.

    Threads may call ``scan`` at once: ``AT_ONCE`` batches go to each process. ``end`` ends the
    processes, as does a minute without work (a cluster's worker is not told when a scan is over).
    What is left ends with the process that started it, when its input closes, even in the middle of
    a batch.
    """

    def __init__(self, most: int, idle_seconds: float = IDLE_SECONDS) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._idle_seconds = idle_seconds
        self._idle_end: threading.Timer | None = None
        self._processes: list[_Process] = []

    def end(self) -> None:
        """End all processes, those in the middle of a batch too. New ones may be started."""
        with self._changed:
            ending, self._processes = self._processes, []
            if self._idle_end is not None:
                self._idle_end.cancel()
                self._idle_end = None
            for process in ending:
                if process.orders:  # nobody waits for these any more
                    process.kill()
        _end(ending)

    def _end_idle(self) -> None:
        with self._changed:  # what is ended here, nobody is given meanwhile
            ending = [process for process in self._processes if not process.orders]
            self._processes = [process for process in self._processes if process.orders]
        _end(ending)

    def _end_idle_later(self) -> None:
        if self._idle_end is not None:
            self._idle_end.cancel()
        self._idle_end = threading.Timer(self._idle_seconds, self._end_idle)
        self._idle_end.daemon = True
        self._idle_end.start()

    def scan(self, order: BatchOrder) -> BatchResult:
        """Have a process scan one batch. Raises SutureError when it could not, or has died."""
        process = self._take(alone=order.alone)
        try:
            answer = process.ask(asdict(order))
        finally:
            self._put_back(process)
        if "error" in answer:
            raise SutureError(answer["error"])
        return BatchResult.from_json(answer)

    def _take(self, *, alone: bool) -> _Process:
        with self._changed:
            while (process := self._with_room(1 if alone else AT_ONCE)) is None:
                self._changed.wait()
            process.orders += 1
            process.alone = alone
            return process

    def _with_room(self, room: int) -> _Process | None:
        """The process that has the least to do, if there is room in it: an idle or a new one."""
        self._processes = [process for process in self._processes if not process.dead]
        least = min(self._processes, key=lambda process: process.orders, default=None)
        if least is not None and least.orders == 0:
            return least
        if len(self._processes) < self._most:
            self._processes.append(_Process())
            return self._processes[-1]
        free = [one for one in self._processes if one.orders < room and not one.alone]
        return min(free, key=lambda process: process.orders, default=None)

    def _put_back(self, process: _Process) -> None:
        with self._changed:
            process.orders -= 1
            process.alone = False
            if self._processes and not any(one.orders for one in self._processes):
                self._end_idle_later()
            self._changed.notify_all()


def _end(processes: Sequence[_Process]) -> None:
    for process in processes:  # all at once, and then each is waited for
        process.close()
    for process in processes:
        process.end()


class _Process:
    """One scanning process: any number of threads ask it at once, and it answers in its order.

    ``orders`` are the batches it has, ``alone`` whether it is to have no other beside that one:
    both are kept by whoever gives them.
    """

    def __init__(self) -> None:
        self.orders = 0
        self.alone = False
        self.dead = False
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._process = subprocess.Popen(  # noqa: S603 - ours
            COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            bufsize=1,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders: IO[str] = self._process.stdin
        self._answers: IO[str] = self._process.stdout
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def ask(self, order: dict[str, Any]) -> dict[str, Any]:
        """Give an order and wait for what becomes of it. Raises SutureError when it has died."""
        answer: Future[dict[str, Any]] = Future()
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = answer
            with suppress(OSError, ValueError):  # it has ended: the listener says so
                self._orders.write(json.dumps({"number": number, "order": order}) + "\n")
            if self.dead:
                self._lose()
        return answer.result()

    def _listen(self) -> None:
        for line in self._answers:
            said = json.loads(line)
            with self._lock:
                waiting = self._waiting.pop(said["number"])
            waiting.set_result(said["answer"])
        self._process.wait()
        self._answers.close()
        with self._lock:
            self.dead = True
            with suppress(OSError):  # what was written and not read
                self._orders.close()
            self._lose()

    def _lose(self) -> None:
        died = f"a scanning process has died ({self._process.returncode})"
        while self._waiting:
            self._waiting.popitem()[1].set_exception(SutureError(died))

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        """Close its input, which ends it."""
        with self._lock, suppress(OSError):
            self._orders.close()

    def end(self) -> None:
        """End it and wait, but not for ever."""
        self.close()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()


def main() -> None:
    """Scan a batch for each line that comes in; end when there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends whoever started this, and so this
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # whatever prints, it is no answer
    collect_rarely()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_work(answers))
        # Whoever gave the orders waits: freeing what goes with the process anyway takes a while.
        sys.stderr.flush()
        os._exit(0)


async def _work(answers: TextIO) -> None:
    """Scan batches as orders come in, one beside the other, until there are no more.

    When they end in the middle of a batch, so does this process: whoever gave the order has died
    then, nobody waits for the answer, and another may take the accounts as soon as this process's
    connections to the warehouse are gone.
    """
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    scanner: BatchScanner | None = None
    under_way = 0

    def say(number: int, answer: dict[str, Any]) -> None:
        answers.write(json.dumps({"number": number, "answer": answer}) + "\n")

    async def scan(number: int, order: BatchOrder, scanner: BatchScanner) -> None:
        nonlocal under_way
        try:
            answer = (await scanner.scan(order)).as_json()
        except SutureError as error:
            answer = {"error": str(error)}
        under_way -= 1
        say(number, answer)

    async with asyncio.TaskGroup() as batches:  # what breaks one unforeseen ends the process
        while line := await orders.readline():
            said = json.loads(line)
            order = BatchOrder(**said["order"])
            try:
                if scanner is None:
                    scanner = await BatchScanner(
                        inventory_path(), order.request_seconds
                    ).__aenter__()
            except SutureError as error:
                say(said["number"], {"error": str(error)})
                continue
            under_way += 1
            batches.create_task(scan(said["number"], order, scanner))
        if under_way:
            os._exit(1)
    if scanner is not None:
        await scanner.__aexit__(None, None, None)


if __name__ == "__main__":
    main()
