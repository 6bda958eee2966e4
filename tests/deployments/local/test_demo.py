"""`suture demo`, as people and machines run it: the whole story, and an end that leaves nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

DEMO = [sys.executable, "-m", "deployments.cli", "demo"]
PATIENCE = 60  # seconds for an end that takes three on a machine with nothing else to do


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A directory for temporary files that also PostgreSQL's own user can walk into."""
    folder = Path(tempfile.mkdtemp(prefix="suture-demo-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def begin(temporary: Path, *options: str) -> subprocess.Popen[str]:
    """Start the demo in a process group of its own, as a shell does."""
    env = {**os.environ, "TMPDIR": str(temporary), "COLUMNS": "80"}
    env.pop("PREFECT_HOME", None)
    return subprocess.Popen(
        [*DEMO, *options],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )


def family(pid: int) -> set[int]:
    """A process with all below it, whoever they run as."""
    below: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        below.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found, new = set[int](), {pid}
    while new:
        found |= new
        new = {child for parent in new for child in below.get(parent, [])} - found
    return found


def running(pids: Sequence[int] | set[int]) -> set[int]:
    """Those of them that still run; a zombie does not."""
    alive = set()
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            alive.add(pid)
    return alive


def wait_for_end(pids: set[int]) -> set[int]:
    deadline = time.monotonic() + PATIENCE
    while (left := running(pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def test_once_with_approval_every_step_holds(temporary: Path) -> None:
    demo = begin(
        temporary, "--once", "--approve", "--json", "--aws", "7", "--azure", "5", "--seed", "3"
    )
    said, told = demo.communicate(timeout=240)
    assert demo.returncode == 0, said + told
    (line,) = said.splitlines()
    summary = json.loads(line)
    assert set(summary) == {
        *("accounts", "subscriptions", "resources", "findings", "remediations"),
        *("code_found_at_rest", "seconds", "problems"),
    }
    assert summary["problems"] == []
    assert summary["accounts"] == {"scanned": 4, "failed": 3}
    assert summary["subscriptions"] == {"scanned": 3, "failed": 2}
    assert summary["resources"] > 0
    findings = summary["findings"]
    assert set(findings) == {"open", "resolved", "by_severity", "by_cloud"}
    assert set(findings["by_severity"]) == {"critical", "high", "medium", "low"}
    assert sum(findings["by_severity"].values()) == findings["open"]
    assert sum(findings["by_cloud"].values()) == findings["open"]
    remediations = summary["remediations"]
    assert set(remediations) == {"automatic", "approved", "denied", "failed"}
    assert remediations["automatic"] > 0
    assert remediations["approved"] > 0
    assert remediations["denied"] > 0
    assert remediations["failed"] == 0
    assert findings["resolved"] >= remediations["automatic"] + remediations["approved"]
    assert summary["code_found_at_rest"] == 0
    assert not list(temporary.iterdir())


def test_a_staying_demo_shows_all_and_ends_by_ctrl_c_with_all_it_started(temporary: Path) -> None:
    demo = begin(temporary, "--aws", "2", "--azure", "2")
    shown = _until(demo, "Ctrl-C stops everything")
    for what in ("Scanned 2 AWS", "Open findings", "Closed by policy", "Waiting for an approver"):
        assert what in shown
    assert shown.index("Scanned") < shown.index("Closed by") < shown.index("Waiting for")
    assert "/runs/flow-run/" in shown
    (command,) = (line.strip() for line in shown.splitlines() if " gate open " in line)
    assert Path(command.split()[0]).is_file()
    (address,) = (line.strip() for line in shown.splitlines() if "postgresql://analyst" in line)
    assert address.endswith("/warehouse")

    started = family(demo.pid)
    assert len(started) > 5
    os.killpg(demo.pid, signal.SIGINT)  # what a terminal does on Ctrl-C
    time.sleep(0.3)
    os.killpg(demo.pid, signal.SIGINT)  # and again, by somebody in a hurry
    said, told = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 0, said + told
    assert "everything the demo started is gone" in said
    assert "Traceback" not in told
    assert not wait_for_end(started)
    assert not list(temporary.iterdir())


def test_a_demo_that_is_ended_while_it_starts_leaves_nothing(temporary: Path) -> None:
    demo = begin(temporary, "--once", "--aws", "2", "--azure", "1")
    started: set[int] = set()
    deadline = time.monotonic() + 60
    while not list(temporary.glob("suture-*/logs/server.log")):
        assert demo.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started = family(demo.pid)
    demo.terminate()
    said, told = demo.communicate(timeout=PATIENCE)
    assert demo.returncode == 130, said + told
    assert "Traceback" not in told
    assert not wait_for_end(started)
    assert not list(temporary.iterdir())


def _until(demo: subprocess.Popen[str], text: str) -> str:
    """Its output until a line holds ``text``."""
    assert demo.stdout is not None
    lines: list[str] = []
    for line in demo.stdout:
        lines.append(line)
        if text in line:
            return "".join(lines)
    raise AssertionError("".join(lines))
