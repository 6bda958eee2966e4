"""What a process and all that it started used: CPU seconds and memory, read from Linux's /proc."""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class _Process:
    """One line of the process table. ``cpu`` is in ticks, with what its ended children used."""

    pid: int
    parent: int
    cpu: int


def _processes() -> dict[int, _Process]:
    found = {}
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            text = (folder / "stat").read_text()
        except OSError:  # it has ended meanwhile
            continue
        # The name stands in brackets and may hold anything, so count from the last bracket.
        fields = text[text.rindex(")") + 2 :].split()
        pid = int(folder.name)
        # utime, stime, cutime and cstime of proc(5)
        found[pid] = _Process(pid, int(fields[1]), sum(int(field) for field in fields[11:15]))
    return found


def _below(roots: Collection[int], processes: dict[int, _Process]) -> list[_Process]:
    """The processes ``roots`` and all that descend from them."""
    children = defaultdict(list)
    for process in processes.values():
        children[process.parent].append(process)
    found, waiting = {}, [processes[pid] for pid in roots if pid in processes]
    while waiting:
        process = waiting.pop()
        if process.pid not in found:
            found[process.pid] = process
            waiting += children[process.pid]
    return list(found.values())


def cpu_seconds(roots: Collection[int]) -> float:
    """User and system time of whole process trees so far, children that have ended included.

    A child counts when its parent waited for it, or while it is a zombie: a root that is a
    subreaper (``adopt_orphans``) loses none.
    """
    return sum(process.cpu for process in _below(roots, _processes())) / TICKS


def memory_measure() -> str:
    """What ``Memory`` adds up here: "PSS" (shared pages divided among their users), or "RSS"."""
    try:
        return "PSS" if _pss(os.getpid()) else "RSS"
    except OSError:
        return "RSS"


def _pss(pid: int) -> int:
    for line in (PROC / str(pid) / "smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def _rss(pid: int) -> int:
    return int((PROC / str(pid) / "statm").read_text().split()[1]) * PAGE


def _bytes(pids: Iterable[int], measure: str) -> int:
    read = _pss if measure == "PSS" else _rss
    total = 0
    for pid in pids:
        try:
            total += read(pid)
        except OSError:  # it has ended meanwhile
            continue
    return total


class Memory:
    """The peak memory of a process tree while it is open, sampled from outside that tree.

    ``peak_mb`` is that of all of it, ``peak_mb_without`` of all but the trees ``apart``, each in
    units of 1024 x 1024 bytes. Sampling takes at most about 2 % of one core.
    """

    def __init__(self, root: int, apart: Collection[int] = ()) -> None:
        self._root, self._apart = root, apart
        self._measure = memory_measure()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.peak_mb = 0.0
        self.peak_mb_without = 0.0

    def __enter__(self) -> Memory:
        self._take()
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self._thread.join()
        self._take()

    def _sample(self) -> None:
        cost = 0.0
        while not self._ended.wait(max(0.1, 50 * cost)):
            began = time.thread_time()
            self._take()
            cost = time.thread_time() - began

    def _take(self) -> None:
        processes = _processes()
        apart = {process.pid for process in _below(self._apart, processes)}
        rest = {process.pid for process in _below([self._root], processes)} - apart
        without = _bytes(rest, self._measure) / 2**20
        whole = without + _bytes(apart, self._measure) / 2**20
        self.peak_mb = max(self.peak_mb, whole)
        self.peak_mb_without = max(self.peak_mb_without, without)
