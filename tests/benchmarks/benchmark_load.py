"""Prints how many rows a second the warehouse loads and merges. Run this file with Python.

Without arguments: 200,000 observations through each change of their findings' lives, all of them
failing at first. With --rows N: that many observations, made on the fly, of which one in five
fails, loaded by two processes and merged once; then the same fleet again, unchanged.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.pool import Pool
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import psycopg

from deployments.local.postgres import OWNER, EmbeddedPostgres
from tasks.model import (
    Account,
    AccountScan,
    Cloud,
    Config,
    Covered,
    Observation,
    Resource,
    Severity,
    Verdict,
    finding_id,
)
from tasks.warehouse import database, incremental, scans

ACCOUNTS, RESOURCES, RULES = 1_000, 50, 4  # 200,000 observations of 50,000 resources
LARGE = 250  # resources of an account with --rows: 1,000 observations
BATCH, LOADERS = 50, 2
KIND, REGION, EDITION = "aws.ec2.security_group", "eu-central-1", "benchmark"
PERMISSIONS = [{"IpProtocol": "tcp", "FromPort": n, "ToPort": n} for n in (22, 443, 3389)]

Verdicts = Callable[[int], Verdict]


def failing(index: int) -> Verdict:
    return Verdict.FAIL


def passing(index: int) -> Verdict:
    return Verdict.PASS


def one_in_five_fails(index: int) -> Verdict:
    return Verdict.PASS if index % 5 else Verdict.FAIL


def account_scan(number: int, verdict: Verdicts, resources: int = RESOURCES) -> AccountScan:
    account = Account(Cloud.AWS, f"{number:012}", f"account {number}")
    found = [
        Resource(
            *(Cloud.AWS, account.id, REGION, KIND),
            f"arn:aws:ec2:{REGION}:{account.id}:security-group/sg-{index:017x}",
            f"sg-{index:017x}",
            Config({"GroupId": f"sg-{index:017x}", "IpPermissions": PERMISSIONS}),
        )
        for index in range(resources)
    ]
    observations = [
        Observation(
            finding_id(r.cloud, r.account, r.region, f"rule_{rule}", r.id),
            *(r.account, r.cloud, r.region, f"rule_{rule}", Severity.HIGH, KIND, r.id),
            verdict(index * RULES + rule),
        )
        for index, r in enumerate(found)
        for rule in range(RULES)
    ]
    return AccountScan(account, found, observations, [Covered(REGION, KIND, ok=True)])


def load(given: tuple[str, str, int, int, str, Verdicts, int, bool]) -> tuple[float, int]:
    """Make and load some batches in this process: seconds of CPU that loading took, peak KB."""
    url, scan_id, start, end, what, verdict, resources, known = given
    spent = 0.0
    with database.connect(url) as conn:
        for first in range(start, end, BATCH):
            batch = [
                account_scan(number, verdict, resources)
                for number in range(first, min(first + BATCH, end))
            ]
            if what == "nothing":
                batch = [replace(scan, resources=(), observations=()) for scan in batch]
            began = time.process_time()
            digests = (
                incremental.known_digests(conn, [scan.account for scan in batch]) if known else {}
            )
            scans.load_batch(conn, scan_id, batch, known=digests, edition=EDITION)
            spent += time.process_time() - began
    return spent, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run(
    url: str,
    name: str,
    verdict: Verdicts,
    *,
    what: str = "all",
    accounts: int = ACCOUNTS,
    resources: int = RESOURCES,
    known: bool = False,
) -> None:
    """Load from two processes, merge, and say how fast."""
    rows = accounts * resources * RULES
    share = -(-accounts // LOADERS // BATCH) * BATCH
    with database.connect(url) as conn, processes() as pool:
        scan_id = scans.begin_scan(conn, "benchmark")
        began = time.perf_counter()
        spent = pool.map(
            load,
            [
                (url, scan_id, start, min(start + share, accounts), what, verdict, resources, known)
                for start in range(0, accounts, share)
            ],
        )
        loaded = time.perf_counter()
        cpu = server_cpu(conn)
        counts = scans.merge_scan(conn, scan_id)
        merged = time.perf_counter()
        cpu = server_cpu(conn) - cpu
        scans.finish_scan(conn, scan_id)
    loader = sum(seconds for seconds, _ in spent)
    print(
        f"{name:26} load {loaded - began:6.1f} s {rows / (loaded - began):>9,.0f} rows/s "
        f"({rows / loader:>9,.0f} a loader's CPU second, {max(kb for _, kb in spent) >> 10} MB)  "
        f"merge {merged - loaded:6.1f} s {rows / (merged - loaded):>9,.0f} rows/s "
        f"({rows / max(cpu, 0.01):>9,.0f} a CPU second)\n{'':26} {counts}",
        flush=True,
    )


@contextmanager
def processes() -> Iterator[Pool]:
    """Loaders that begin empty, so that their memory is their own."""
    with multiprocessing.get_context("spawn").Pool(LOADERS) as pool:
        pool.map(time.sleep, [0.1] * LOADERS)
        yield pool


def server_cpu(conn: psycopg.Connection) -> float:
    """Seconds of CPU that this connection's server process has used so far; 0 but on Linux."""
    stat = Path(f"/proc/{conn.info.backend_pid}/stat")
    if not stat.exists():
        return 0.0
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=0, help="observations, such as 10000000")
    rows = parser.parse_args().rows
    folder = Path(tempfile.mkdtemp(prefix="suture-benchmark-"))
    folder.chmod(0o755)
    try:
        with EmbeddedPostgres(
            folder / "data", warehouses=["warehouse"], remove_data=True
        ) as server:
            url = server.url("warehouse")
            database.upgrade(url, server.url("warehouse", OWNER))
            if rows:
                accounts = max(1, rows // (LARGE * RULES))
                fleet = {"accounts": accounts, "resources": LARGE}
                run(url, f"{rows:,} new", one_in_five_fails, **fleet)
                run(url, "the same, unchanged", one_in_five_fails, known=True, **fleet)
                return
            run(url, "all new", failing)
            run(url, "all seen again", failing)
            run(url, "all unchanged", failing, known=True)
            run(url, "all resolved", passing)
            run(url, "all reopened", failing)
            run(url, "all gone", failing, what="nothing")
    finally:
        folder.rmdir()


if __name__ == "__main__":
    main()
