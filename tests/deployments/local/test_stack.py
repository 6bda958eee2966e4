"""The embedded default: what it hands to whom, and that a start that fails leaves nothing."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from deployments.local import stack as stack_module
from deployments.local.children import Child
from deployments.local.stack import CUSTOMER_NAMES, Stack
from tasks.errors import SutureError

pytestmark = pytest.mark.slow


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="suture-stack-"))
    folder.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    shutil.rmtree(folder)


def test_suture_and_the_customer_have_each_their_own_secrets(stack: Stack) -> None:
    customers = {
        stack.fleet["aws"]["customer"]["secret_access_key"],
        stack.fleet["azure"]["customer"]["client_secret"],
        stack.fleet["customer_seed_file"],
    }
    assert not customers & set(stack.env.values())
    assert customers <= set(stack.customer_env.values())
    assert "AWS_ACCESS_KEY_ID" not in stack.env or "AWS_ACCESS_KEY_ID" in os.environ


def test_the_customers_script_runs_the_command_with_the_customers_own(stack: Stack) -> None:
    script = stack.customer_script()
    assert stat.S_IMODE(script.stat().st_mode) == 0o700
    account = stack.fleet["aws"]["organization"]["management_account"]
    bare = {name: value for name, value in os.environ.items() if name not in CUSTOMER_NAMES}
    # Closed first: other tests on this stack may have opened it.
    closed, told = (
        subprocess.run(
            [str(script), "gate", verb, account],
            env=bare,
            capture_output=True,
            text=True,
            check=False,
        )
        for verb in ("close", "status")
    )
    assert (closed.returncode, closed.stderr) == (0, "")
    assert (told.returncode, told.stderr) == (0, "")
    assert "open: no" in told.stdout


def test_the_analyst_reads_and_cannot_write(stack: Stack) -> None:
    with psycopg.connect(stack.analyst_url) as analyst:
        assert analyst.execute("SELECT count(*) FROM open_by_severity_and_age").fetchone()
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            analyst.execute("DELETE FROM findings")


def test_a_start_that_fails_ends_what_had_started(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Child] = []
    child = Stack.child

    def remember(self: Stack, name: str, *arguments: str, pipe: bool = False) -> Child:
        started.append(child(self, name, *arguments, pipe=pipe))
        return started[-1]

    def fail(*_: str) -> None:
        raise SutureError("no tables today")

    monkeypatch.setattr(Stack, "child", remember)
    monkeypatch.setattr(stack_module, "upgrade", fail)
    whole = Stack(aws=1, azure=1, seed=31)
    with pytest.raises(SutureError, match="no tables today"), whole:
        raise AssertionError("it came up")
    assert [one.name for one in started] == ["server", "clouds"]
    assert not any(one.running for one in started)
    assert whole.postgres.pid is None
    assert not list(temporary.iterdir())


def test_it_ends_from_another_thread_too(temporary: Path) -> None:
    """Only the main thread may hold interruptions off, and only there they arrive."""
    whole = Stack(aws=1, azure=1, seed=32)
    closed = threading.Event()
    whole.closing(closed.set)
    thread = threading.Thread(target=whole.stop)
    thread.start()
    thread.join()
    assert closed.is_set()
