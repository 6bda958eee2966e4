"""Start and stop the processes of the embedded default; each ends with its parent."""

from __future__ import annotations

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tasks.errors import SutureError


class StartFailed(SutureError):
    """A process of the embedded default did not come up."""


class Child:
    """One process of ours, its output in a log file.

    It leads a process group of its own; ``stop`` ends it with all that it started, first politely.
    Make it on the main thread: the kernel ends it when the thread that made it does.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        *,
        pipe: bool = False,
    ) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own commands
                list(command),
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipe else output,
                stderr=output,
                process_group=0,
                preexec_fn=_end_with_parent,
                text=pipe,
            )

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait_until(self, ready: Callable[[], bool], *, seconds: float) -> None:
        """Wait for ``ready``. Raises StartFailed, with the log's end, on death or delay."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise StartFailed(
                    f"{self.name} ended with {self.process.returncode}.\n{self.tail()}"
                )
            if time.monotonic() > deadline:
                raise StartFailed(f"{self.name} was not ready in {seconds:.0f} s.\n{self.tail()}")
            time.sleep(0.05)

    def first_line(self, *, seconds: float) -> str:
        """The first line of its standard output (only for a piped child).

        Raises StartFailed when it ends or keeps silent for so long.
        """
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = self.process.stdout.readline() if readable else ""
        if not line:
            raise StartFailed(f"{self.name} said nothing.\n{self.tail()}")
        return str(line)

    def tail(self, lines: int = 20) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, *, seconds: float = 5) -> None:
        """End the process and its group: SIGINT, then SIGTERM, then SIGKILL."""
        for sent, patience in (
            (signal.SIGINT, seconds),
            (signal.SIGTERM, 2.0),
            (signal.SIGKILL, 2.0),
        ):
            if not self.running:
                break
            self._signal(sent)
            try:
                self.process.wait(patience)
            except subprocess.TimeoutExpired:
                continue
        self._signal(signal.SIGKILL)  # what it started and left behind
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return


def _end_with_parent() -> None:
    """Ask Linux to send SIGTERM when the parent dies; elsewhere ``stop`` alone must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
