"""Scanning processes end: when told, when nothing is left to do, and when whoever asked is gone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tasks.batch import BatchOrder
from tasks.errors import SutureError
from tasks.scan_processes import ScanProcesses

pytestmark = pytest.mark.slow

ORDER = BatchOrder("00000000-0000-0000-0000-000000000000", 1, 1.0)
# What a scanning process does with its orders, but for the scan: it takes long, or no time.
TAKES_ORDERS = """
import sys, time
from tasks.scan_processes import Orders
orders = Orders()
while (order := orders.next()) is not None:
    print("begun", flush=True)
    time.sleep(float(order))
    orders.done()
    print("done", flush=True)
"""


@pytest.fixture
def no_inventory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that scans says at once that it cannot, and waits for the next order."""
    monkeypatch.delenv("SUTURE_INVENTORY", raising=False)


def test_a_process_that_is_idle_ends_by_and_by(no_inventory: None) -> None:
    processes = ScanProcesses(1, idle_seconds=0.3)
    with pytest.raises(SutureError, match="SUTURE_INVENTORY"):
        processes.scan(ORDER)
    (process,) = processes._idle
    until(lambda: process.poll() is not None)
    assert process.returncode == 0
    with pytest.raises(SutureError, match="SUTURE_INVENTORY"):  # by a new one
        processes.scan(ORDER)
    processes.end()


def test_ending_ends_the_idle_and_one_may_start_anew(no_inventory: None) -> None:
    processes = ScanProcesses(2)
    for _ in range(2):
        with pytest.raises(SutureError, match="SUTURE_INVENTORY"):
            processes.scan(ORDER)
        (process,) = processes._idle
        processes.end()
        assert process.returncode == 0


@pytest.mark.parametrize(
    ("seconds", "says", "returncode"), [("0", "done", 0), ("60", "begun", 1)], ids=["idle", "busy"]
)
def test_it_ends_with_whoever_gives_the_orders(seconds: str, says: str, returncode: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TAKES_ORDERS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(seconds + "\n")
        process.stdin.flush()
        while process.stdout.readline() != says + "\n":
            assert process.poll() is None
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


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
