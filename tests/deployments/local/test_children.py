"""Processes of the embedded default: they start, say their line, fail in words, and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments.local.children import Child, StartFailed, free_port

STUBBORN = """
import signal, subprocess, sys, time
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(grandchild.pid, flush=True)
time.sleep(60)
"""

Start = Callable[..., Child]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children: list[Child] = []

    def begin(code: str, *, pipe: bool = True) -> Child:
        child = Child(
            "a child", [sys.executable, "-c", code], os.environ, tmp_path / "log", pipe=pipe
        )
        children.append(child)
        return child

    yield begin
    for child in children:
        child.stop(seconds=0.1)


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_first_line_is_what_it_printed_first(start: Start) -> None:
    assert start("print('ready'); print('more')").first_line(seconds=10) == "ready\n"


def test_a_child_that_dies_or_keeps_silent_is_named_with_the_end_of_its_log(start: Start) -> None:
    with pytest.raises(StartFailed, match=r"(?s)a child said nothing.*no such luck"):
        start("import sys; sys.exit('no such luck')").first_line(seconds=10)
    begun = time.monotonic()
    with pytest.raises(StartFailed, match="a child said nothing"):
        start("import time; time.sleep(60)").first_line(seconds=0.3)
    assert time.monotonic() - begun < 5


def test_waiting_ends_with_readiness_death_or_patience(start: Start) -> None:
    child = start("import time; time.sleep(60)", pipe=False)
    child.wait_until(lambda: True, seconds=1)
    with pytest.raises(StartFailed, match=r"not ready in 0 s"):
        child.wait_until(lambda: False, seconds=0.2)
    with pytest.raises(StartFailed, match=r"(?s)ended with 3"):
        start("import sys; sys.exit(3)", pipe=False).wait_until(lambda: False, seconds=10)


def test_a_polite_child_ends_by_sigint(start: Start) -> None:
    code = (
        # The word is said inside of the try: the signal may come right behind it.
        "import time\n"
        "try: print('up', flush=True); time.sleep(60)\n"
        "except KeyboardInterrupt: raise SystemExit(7)"
    )
    child = start(code)
    child.first_line(seconds=10)
    child.stop(seconds=5)
    assert child.process.returncode == 7


def test_a_stubborn_child_ends_with_all_it_started(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = start(STUBBORN)
    grandchild = int(child.first_line(seconds=10))
    waited = subprocess.Popen.wait
    # SIGTERM gets two seconds and is ignored here, too: don't sit them out.
    monkeypatch.setattr(
        subprocess.Popen,
        "wait",
        lambda self, timeout=None: waited(self, min(timeout, 0.2) if timeout else None),
    )
    child.stop(seconds=0.2)
    assert child.process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 5
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(grandchild)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end children with parents")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = f"""
import os, sys, time
from pathlib import Path
from deployments.local.children import Child
child = Child("child", [sys.executable, "-c", "import time; time.sleep(60)"], os.environ,
              Path({str(tmp_path / "log")!r}))
print(child.process.pid, flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert alive(pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)


def test_a_free_port_can_be_listened_on() -> None:
    assert 1024 <= free_port() <= 65535
