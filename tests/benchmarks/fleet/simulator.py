"""The fleet simulator as the benchmark uses it: started once, asked what it served."""

from __future__ import annotations

import contextlib
import json
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
SERVE = ROOT / "tests" / "simulator" / "serve.py"
CEILING = ROOT / "tests" / "simulator" / "ceiling.py"
START_SECONDS = 60


class SimulatorFailed(Exception):
    """The simulator did not start or does not answer."""


class Simulator:
    """A running simulator of so many AWS ``accounts`` and Azure ``subscriptions``.

    ``fleet`` is its own description: endpoint, CA, accounts, subscriptions, the keys to both.

    ``verify`` is the fraction of the signatures that it checks.
    """

    def __init__(
        self,
        *,
        accounts: int,
        latency_ms: float,
        subscriptions: int = 0,
        processes: int = 1,
        verify: float = 0.01,
    ) -> None:
        self._command = [
            *(sys.executable, str(SERVE), "--aws", str(accounts), "--azure", str(subscriptions)),
            *("--latency-ms", f"{latency_ms:g}", "--processes", str(processes), "--port", "0"),
            *("--verify", f"{verify:g}"),
        ]

    def __enter__(self) -> Simulator:
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.__exit__()
            raise SimulatorFailed("the simulator did not start; its own words are above")
        self.fleet: dict[str, Any] = json.loads(line)
        self._trust = ssl.create_default_context(cafile=self.fleet["ca_file"])
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def reset(self) -> None:
        """Count anew from here."""
        self._ask("POST", "/-/reset")

    def stats(self) -> dict[str, Any]:
        """What it served since the last reset, and the CPU seconds that took."""
        stats: dict[str, Any] = json.loads(self._ask("GET", "/-/stats"))
        return stats

    def _ask(self, method: str, path: str) -> bytes:
        url = self.fleet["endpoint"] + path
        request = urllib.request.Request(url, method=method)
        direct = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._trust)
        )
        try:
            with direct.open(request, timeout=30) as answer:
                body: bytes = answer.read()
                return body
        except OSError as error:
            raise SimulatorFailed(f"the simulator does not answer {path}: {error}") from None


def measured_ceiling() -> dict[str, Any]:
    """What the simulator can serve on this machine, by its own measurement."""
    done = subprocess.run(
        [sys.executable, str(CEILING)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SimulatorFailed(f"the ceiling could not be measured: {done.stderr.strip()[-500:]}")
    ceiling: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return ceiling
