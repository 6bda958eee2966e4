"""Prints how a scan scales over task runners and workers, and what Prefect's share of its CPU is.

    python tests/benchmarks/benchmark_runners.py --accounts 2000

Each case is a run of the deployment scan-fleet/nightly by real workers, on a Prefect server and an
embedded PostgreSQL, of a simulated fleet that answers in 40 ms. Every worker scans with one
process, so that what is compared is one process against two. The simulator's CPU is not counted; it
runs on the same cores all the same. Linux only: it reads /proc.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parents[1] / "simulator"))  # scripts, not a package

import httpx
from harness import simulator
from ruamel.yaml import YAML

from deployments.local.children import Child, free_port
from deployments.local.postgres import OWNER, EmbeddedPostgres
from deployments.local.prefect_api import PrefectApi
from deployments.local.stack import SERVER_SETTINGS
from tasks.warehouse.database import connect, upgrade

POOL = "benchmark"
PREFECT = str(Path(sys.executable).with_name("prefect"))
TICKS = os.sysconf("SC_CLK_TCK")
SAMPLED = 0.2  # seconds
SECONDS = 1_800  # for one case
REST_SECONDS = 10.0
# What is Prefect's, and what only waits for its scan to begin: importing, starting a cluster.
PREFECTS = ("server", "prefect database", "workers", "runs", "dask", "ray")
DEPLOY = """
from deployments.serve import served_deployments
for one in served_deployments():
    if one.name in ("nightly", "scan-share"):
        one.apply(work_pool_name="benchmark")
"""


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    workers: int = 1
    env: tuple[tuple[str, str], ...] = ()


def cluster(runner: str, workers: int) -> tuple[tuple[str, str], ...]:
    return ("SUTURE_TASK_RUNNER", runner), ("SUTURE_SCAN_PROCESSES", str(workers))


CASES = [
    Case("threads, one worker"),
    Case("threads, two workers share", workers=2),
    Case("Dask, one of its workers", env=cluster("dask", 1)),
    Case("Dask, two of its workers", env=cluster("dask", 2)),
]
if find_spec("prefect_ray"):
    CASES += [
        Case("Ray, one of its workers", env=cluster("ray", 1)),
        Case("Ray, two of its workers", env=cluster("ray", 2)),
    ]


class Cpu:
    """CPU seconds by what a process is for, of process trees, sampled as long as it is open.

    A process's last fifth of a second may be missing.
    """

    def __init__(self, roots: list[int]) -> None:
        self._roots = roots
        self._seconds: dict[int, float] = {}
        self._kinds: dict[int, str] = {}
        self._before: dict[int, float] = {}
        self._at_work: dict[int, float] = {}  # what a run had used when its first batch began
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> Cpu:
        self._take()
        self._before = dict(self._seconds)
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._ended.set()
        self._thread.join()
        self._take()

    def by_kind(self) -> Counter[str]:
        total: Counter[str] = Counter()
        for pid, seconds in self._seconds.items():
            kind = self._kinds[pid]
            used = seconds - self._before.get(pid, 0.0)
            if kind in ("runs", "dask", "ray"):
                start = self._at_work.get(pid, seconds)
                total["starting"] += start
                used -= start
            total[kind] += used
        return total

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLED):
            self._take()

    def _take(self) -> None:
        parents, seconds = {}, {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                text = (folder / "stat").read_text()
            except OSError:  # it has ended meanwhile
                continue
            fields = text[text.rindex(")") + 2 :].split()  # the name before may hold anything
            parents[int(folder.name)] = int(fields[1])
            seconds[int(folder.name)] = (int(fields[11]) + int(fields[12])) / TICKS
        for pid in parents:
            if self._is_below(pid, parents):
                self._seconds[pid] = seconds[pid]
                self._kinds[pid] = kind_of(pid, self._kinds.get(pid, ""))
                if self._kinds[pid] == "scanning":
                    for above in self._above(pid, parents):
                        if self._kinds.get(above) in ("runs", "dask", "ray"):
                            self._at_work.setdefault(above, seconds[above])

    def _above(self, pid: int, parents: dict[int, int]) -> Iterator[int]:
        while (pid := parents.get(pid, 0)) > 1:
            yield pid

    def _is_below(self, pid: int, parents: dict[int, int]) -> bool:
        return any(above in self._roots for above in self._above(pid, parents))


def kind_of(pid: int, known: str) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
    except OSError:
        return known or "other"
    if words.startswith("postgres: "):  # it names the database once it has one
        return "prefect database" if " prefect " in words else "warehouse"
    for sign, kind in (
        ("tasks.scan_processes", "scanning"),
        ("deployments.cli server", "server"),
        ("worker start", "workers"),
        ("multiprocessing", "dask"),
        ("ray::", "ray"),
        ("/ray/", "ray"),
        ("prefect", "runs"),
        ("serve.py", "simulator"),
    ):
        if sign in words:
            return kind
    return known or "other"


@contextmanager
def servers(
    options: argparse.Namespace, folder: Path
) -> Iterator[tuple[EmbeddedPostgres, dict[str, str]]]:
    """PostgreSQL, a Prefect server, a simulated fleet, and the environment that leads there."""
    folder.chmod(0o755)  # PostgreSQL may run as a system user of its own
    port = free_port()
    api = f"http://127.0.0.1:{port}/api"
    with (
        EmbeddedPostgres(
            folder / "postgres", databases=["prefect"], warehouses=["empty"]
        ) as postgres,
        simulator(
            *("--aws", str(options.accounts), "--latency-ms", str(options.latency_ms))
        ) as fleet,
    ):
        upgrade(postgres.url("empty"), postgres.url("empty", OWNER))
        env = {
            **os.environ,
            **SERVER_SETTINGS,
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": str(folder / "prefect"),
            "PREFECT_API_URL": api,
            "PREFECT_API_DATABASE_CONNECTION_URL": postgres.url("prefect", driver="asyncpg"),
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_LOGGING_LEVEL": "WARNING",
            "SUTURE_INVENTORY": str(inventory(folder, fleet.told)),
            "SUTURE_SCAN_PROCESSES": "1",
            "BENCHMARK_KEY": fleet.told["aws"]["hub"]["access_key_id"],
            "BENCHMARK_SECRET": fleet.told["aws"]["hub"]["secret_access_key"],
        }
        command = [sys.executable, "-m", "deployments.cli", "server", "--port", str(port)]
        server = Child("server", command, env, folder / "server.log")
        try:
            server.wait_until(lambda: answers(api), seconds=120)
            pool = {"name": POOL, "type": "process"}
            httpx.post(f"{api}/work_pools/", json=pool, trust_env=False).raise_for_status()
            deploy = Child("deploy", [sys.executable, "-c", DEPLOY], env, folder / "deploy.log")
            if deploy.process.wait(120):
                raise SystemExit(deploy.tail())
            yield postgres, env
        finally:
            server.stop()


def answers(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False


def inventory(folder: Path, told: dict[str, Any]) -> Path:
    aws = told["aws"]
    first = int(aws["first_account"])
    source = {
        "name": "simulated",
        "regions": aws["regions"],
        "accounts": [str(first + number) for number in range(aws["accounts"])],
        "external_id": aws["external_id"],
        "scanner_role": aws["role"],
        "endpoint": told["endpoint"],
        "ca_file": told["ca_file"],
        "credentials": {
            "access_key_id_env": "BENCHMARK_KEY",
            "secret_access_key_env": "BENCHMARK_SECRET",
        },
    }
    path = folder / "inventory.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump({"suture": 1, "aws": [source]}, file)
    return path


def measure(
    case: Case,
    options: argparse.Namespace,
    folder: Path,
    postgres: EmbeddedPostgres,
    env: dict[str, str],
) -> tuple[float, Counter[str]]:
    """Accounts a second, from the beginning of the scan to its merge, and CPU by kind."""
    name = f"warehouse_{CASES.index(case)}"
    postgres.create_warehouse(name, template="empty")
    own = {**env, "SUTURE_WAREHOUSE_URL": postgres.url(name), **dict(case.env)}
    command = [PREFECT, "worker", "start", "--type", "process", "--pool", POOL, "--limit", "1"]
    names = [f"{name}-{number}" for number in range(case.workers)]
    workers = [Child(one, [*command, "--name", one], own, folder / f"{one}.log") for one in names]
    api = PrefectApi(env["PREFECT_API_URL"])
    try:
        for worker, one in zip(workers, names, strict=True):
            worker.wait_until(lambda one=one: one in online(env["PREFECT_API_URL"]), seconds=120)
        roots = [os.getpid(), postgres.pid or 0]
        with Cpu(roots) as rest:
            time.sleep(REST_SECONDS)
        began = time.monotonic()
        with Cpu(roots) as cpu:
            run = api.start(
                "scan-fleet/nightly",
                {
                    "batch_size": options.batch_size,
                    "hand_to_triage": False,
                    "workers": case.workers,
                },
            )
            while not finished(own["SUTURE_WAREHOUSE_URL"]) and not api.ended(run):
                time.sleep(5.0)  # asking Prefect is work for Prefect
            state = api.wait([run], seconds=SECONDS)[run]
        used = cpu.by_kind()
        # What Prefect uses in the same time when there is nothing to do.
        asleep = sum(rest.by_kind()[kind] for kind in PREFECTS)
        used["at rest"] = asleep / REST_SECONDS * (time.monotonic() - began)
        if state["name"] != "Completed":
            raise SystemExit(f"{case.name}: {state['name']}: {state['message']}")
        if case.workers > 1:
            (share,) = api.runs_of("scan-share/scan-share")
            print(f"  the other worker: {api.wait([share], seconds=60)[share]['message']}")
    finally:
        api.close()
        for worker in workers:
            worker.stop()
    with connect(own["SUTURE_WAREHOUSE_URL"]) as warehouse:
        row = warehouse.execute(
            "SELECT accounts_covered, extract(epoch FROM finished_at - started_at) FROM scans"
        ).fetchone()
    assert row is not None
    if row[0] != options.accounts:
        raise SystemExit(f"{case.name}: {row[0]} accounts were covered")
    return options.accounts / float(row[1]), used


def finished(warehouse_url: str) -> bool:
    with connect(warehouse_url) as warehouse:
        return bool(warehouse.execute("SELECT FROM scans WHERE finished_at IS NOT NULL").fetchall())


def online(api: str) -> list[str]:
    """The workers that have told the server that they are there."""
    found = httpx.post(f"{api}/work_pools/{POOL}/workers/filter", json={}, trust_env=False).json()
    return [one["name"] for one in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="the cases whose name has this in it")
    parser.add_argument("--accounts", type=int, default=2_000)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--latency-ms", type=float, default=40.0)
    options = parser.parse_args()
    first = 0.0
    folder = Path(tempfile.mkdtemp(prefix="suture-benchmark-"))
    try:
        with servers(options, folder) as (postgres, env):
            for case in (one for one in CASES if options.only in one.name):
                speed, cpu = measure(case, options, folder, postgres, env)
                cpu.pop("simulator", None)
                first = first or speed
                rest = cpu.pop("at rest")
                whole = sum(cpu.values())
                prefects = sum(cpu[kind] for kind in PREFECTS)
                print(
                    f"{case.name:27} {speed:7.1f} accounts/s  x{speed / first:.2f}  "
                    f"{whole:.1f} CPU s, {1000 * whole / options.accounts:.1f} ms an account  "
                    f"Prefect's share {prefects / whole:.1%}, "
                    f"{(prefects - rest) / whole:.1%} beyond what it uses at rest\n    "
                    + "  ".join(f"{kind} {seconds:.1f}" for kind, seconds in cpu.most_common()),
                    flush=True,
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
