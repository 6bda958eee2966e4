"""What was served, counted in memory that all processes of the simulator share.

Each process writes a row of its own, so nothing is locked. A reset copies the rows into a baseline
that is subtracted from then on.
"""

from __future__ import annotations

import mmap
import time

OPERATIONS = (
    "AssumeRole",
    "GetCallerIdentity",
    "DescribeSecurityGroups",
    "GetEbsEncryptionByDefault",
    "DescribeRegions",
    "ListBuckets",
    "GetBucketLocation",
    "GetPublicAccessBlock",
    "GetBucketVersioning",
    "GetBucketPolicy",
    "GetBucketTagging",
    "GetAccountPasswordPolicy",
    "ListAccounts",
    "openid-configuration",
    "token",
    "subscriptions",
    "networkSecurityGroups",
    "storageAccounts",
    "permissions",
    "ResourceGraph",
    "other",
)
TOTALS = (
    "bytes_sent",
    "throttled",
    "errors",
    "faults",
    "verified",
    "wrong_signatures",
    "connections_opened",
    "busy_nanoseconds",
)
PEAKS = ("connections", "max_connections", "requests", "max_requests")
NAMES = OPERATIONS + TOTALS + PEAKS
INDEX = {name: place for place, name in enumerate(NAMES)}
_WIDTH = len(NAMES)


class Counters:
    """Rows for ``processes`` processes. Make it before forking; call ``own`` after."""

    def __init__(self, processes: int) -> None:
        self._processes = processes
        memory = mmap.mmap(-1, 2 * processes * _WIDTH * 8)  # anonymous, shared with children
        self._cells = memoryview(memory).cast("q")
        self._begun = processes * _WIDTH  # where the baseline begins

    def own(self, process: int) -> memoryview:
        """The row that process number ``process`` counts in, by INDEX."""
        return self._cells[process * _WIDTH : (process + 1) * _WIDTH]

    def reset(self) -> None:
        """Count from zero. Peaks start again from what is open now."""
        self._cells[self._begun :] = self._cells[: self._begun]
        for process in range(self._processes):
            row = self.own(process)
            for now, most in (("connections", "max_connections"), ("requests", "max_requests")):
                row[INDEX[most]] = row[INDEX[now]]

    def _total(self, name: str) -> int:
        place = INDEX[name]
        now = sum(self._cells[place : self._begun : _WIDTH].tolist())
        if name in PEAKS:
            return int(now)
        return int(now - sum(self._cells[self._begun + place :: _WIDTH].tolist()))

    def report(self) -> dict[str, object]:
        """Sums over all processes. The peaks are sums of each process's own peak.

        Without latency no request waits, and the peak of requests is 0.
        """
        operations = {name: self._total(name) for name in OPERATIONS}
        return {
            "requests": sum(operations.values()),
            "operations": {name: count for name, count in operations.items() if count},
            **{name: self._total(name) for name in TOTALS if name != "busy_nanoseconds"},
            "busy_cpu_seconds": self._total("busy_nanoseconds") / 1e9,
            "connections": self._total("connections"),
            "max_concurrent_connections": self._total("max_connections"),
            "max_concurrent_requests": self._total("max_requests"),
            "processes": self._processes,
        }


def note_busy(row: memoryview) -> None:
    """Write this process's CPU time, user and system, into its row."""
    row[INDEX["busy_nanoseconds"]] = time.process_time_ns()
