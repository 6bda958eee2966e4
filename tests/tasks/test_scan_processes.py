"""Scanning processes end: when told, when nothing is left to do, and when whoever asked is gone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from tasks import scan_processes
from tasks.batch import BatchOrder
from tasks.errors import SutureError
from tasks.scan_processes import AT_ONCE, ScanProcesses

pytestmark = pytest.mark.slow

ORDER = BatchOrder("00000000-0000-0000-0000-000000000000", 1, 1.0)
# A scanning process whose scans only wait; the order's scan says what is to become of it.
PRETENDS = """
import asyncio, os
from tasks import scan_processes
from tasks.batch import BatchResult
from tasks.errors import SutureError

class Pretends:
    beside = 0

    def __init__(self, *_): pass
    async def __aenter__(self): return self
    async def __aexit__(self, *_): pass

    async def scan(self, order):
        self.beside += 1
        beside = self.beside
        await asyncio.sleep(order.request_seconds)
        self.beside -= 1
        match order.scan_id:
            case "dies": os._exit(9)
            case "breaks": raise ZeroDivisionError
            case "fails": raise SutureError("no such scan")
        return BatchResult(beside)

scan_processes.BatchScanner = Pretends
scan_processes.inventory_path = lambda: None
scan_processes.main()
"""


@pytest.fixture
def no_inventory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that scans says at once that it cannot, and waits for the next order."""
    monkeypatch.delenv("SUTURE_INVENTORY", raising=False)


@pytest.fixture
def pretending(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], ScanProcesses]]:
    """Scanning processes that scan nothing."""
    monkeypatch.setattr(scan_processes, "COMMAND", (sys.executable, "-c", PRETENDS))
    started: list[ScanProcesses] = []

    def start(most: int) -> ScanProcesses:
        started.append(ScanProcesses(most))
        return started[-1]

    yield start
    for processes in started:
        processes.end()


def test_a_process_that_is_idle_ends_by_and_by(no_inventory: None) -> None:
    processes = ScanProcesses(1, idle_seconds=0.3)
    with pytest.raises(SutureError, match="SUTURE_INVENTORY"):
        processes.scan(ORDER)
    (process,) = processes._processes
    until(lambda: process.dead)
    assert process._process.returncode == 0
    with pytest.raises(SutureError, match="SUTURE_INVENTORY"):  # by a new one
        processes.scan(ORDER)
    processes.end()


def test_ending_ends_the_idle_and_one_may_start_anew(no_inventory: None) -> None:
    processes = ScanProcesses(2)
    for _ in range(2):
        with pytest.raises(SutureError, match="SUTURE_INVENTORY"):
            processes.scan(ORDER)
        (process,) = processes._processes
        processes.end()
        assert process._process.returncode == 0


def test_a_slow_batch_holds_up_no_other(pretending: Callable[[int], ScanProcesses]) -> None:
    processes = pretending(1)
    with ThreadPoolExecutor(8) as threads:
        slow = threads.submit(processes.scan, order(seconds=60))
        assert [
            threads.submit(processes.scan, order(seconds=0.0)).result(30).accounts for _ in range(3)
        ] == [2, 2, 2]
        assert not slow.done()
        processes.end()
        with pytest.raises(SutureError, match=r"has died \(-9\)"):
            slow.result(30)


def test_no_process_takes_more_than_its_share(pretending: Callable[[int], ScanProcesses]) -> None:
    processes = pretending(2)
    with ThreadPoolExecutor(3 * AT_ONCE) as threads:
        beside = [
            one.accounts for one in threads.map(processes.scan, [order(seconds=0.5)] * 3 * AT_ONCE)
        ]
    assert len(processes._processes) == 2
    assert AT_ONCE - 1 <= max(beside) <= AT_ONCE


def test_a_batch_of_one_account_is_scanned_beside_no_other(
    pretending: Callable[[int], ScanProcesses],
) -> None:
    processes = pretending(2)
    with ThreadPoolExecutor(8) as threads:
        orders = [order(seconds=0.1, limit=limit) for limit in (1, 1, 1, 5, 1, 1, 5, 1)]
        beside = [one.accounts for one in threads.map(processes.scan, orders)]
    assert [n for n, one in zip(beside, orders, strict=True) if one.alone] == [1] * 6


@pytest.mark.parametrize(("end", "code"), [("dies", 9), ("breaks", 1)])
def test_with_a_process_all_its_batches_are_lost_and_others_go_on(
    pretending: Callable[[int], ScanProcesses], end: str, code: int
) -> None:
    processes = pretending(1)
    with ThreadPoolExecutor(8) as threads:
        long = threads.submit(processes.scan, order(seconds=60))
        with pytest.raises(SutureError, match="no such scan"):
            processes.scan(order("fails"))
        for lost in (threads.submit(processes.scan, order(end)), long):
            with pytest.raises(SutureError, match=rf"has died \({code}\)"):
                lost.result(30)
    assert processes.scan(order()).accounts == 1  # by a new one


def test_a_process_that_died_idle_is_given_nothing(
    pretending: Callable[[int], ScanProcesses],
) -> None:
    processes = pretending(1)
    processes.scan(order())
    (died,) = processes._processes
    died.kill()
    until(lambda: died.dead)
    assert processes.scan(order()).accounts == 1  # by a new one


def test_ending_the_idle_leaves_the_busy_at_work(
    pretending: Callable[[int], ScanProcesses],
) -> None:
    processes = pretending(2)
    with ThreadPoolExecutor(2) as threads:
        busy = threads.submit(processes.scan, order(seconds=1.5))
        until(lambda: bool(processes._processes))
        processes.scan(order())
        idle = next(one for one in processes._processes if not one.orders)
        processes._end_idle()
        assert idle.dead
        assert busy.result(30).accounts == 1
    assert len(processes._processes) == 1


def test_an_order_that_came_with_the_end_of_all_orders_ends_it_too() -> None:
    told = json.dumps({"number": 1, "order": asdict(order(seconds=60.0))}) + "\n"
    ended = subprocess.run(
        [sys.executable, "-c", PRETENDS], input=told, capture_output=True, text=True, timeout=30
    )
    assert (ended.returncode, ended.stdout) == (1, "")


@pytest.mark.parametrize(("seconds", "returncode"), [(0.0, 0), (60.0, 1)], ids=["idle", "busy"])
def test_it_ends_with_whoever_gives_the_orders(seconds: float, returncode: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PRETENDS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number, takes in enumerate((seconds, 0.0)):
            ordered = {"number": number, "order": asdict(order(seconds=takes))}
            process.stdin.write(json.dumps(ordered) + "\n")
        process.stdin.flush()
        for _ in range(1 if seconds else 2):
            assert "answer" in json.loads(process.stdout.readline())
        process.stdin.close()  # as the kernel does for one that was killed
        assert process.wait(20) == returncode


def test_a_process_that_scans_imports_nothing_heavy() -> None:
    heavy = ("prefect", "azure", "boto3", "botocore.session", "sqlalchemy", "pandas", "dask")
    script = (
        "import sys, json, tasks.scan_processes\n"
        f"print(json.dumps([name for name in {heavy!r} if name in sys.modules]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(ran.stdout) == []


def order(scan: str = "scan", *, seconds: float = 0.0, limit: int = 100) -> BatchOrder:
    return BatchOrder(scan, limit, seconds)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
