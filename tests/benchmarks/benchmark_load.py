"""Prints how many rows a second the warehouse loads and merges. Run this file with Python."""

from __future__ import annotations

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from deployments.local.postgres import EmbeddedPostgres
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
from tasks.warehouse import database, scans

ACCOUNTS, RESOURCES, RULES = 1_000, 50, 4  # 200,000 observations of 50,000 resources
KIND, REGION = "aws.ec2.security_group", "eu-central-1"
PERMISSIONS = [{"IpProtocol": "tcp", "FromPort": n, "ToPort": n} for n in (22, 443, 3389)]


def account_scan(number: int) -> AccountScan:
    account = Account(Cloud.AWS, f"{number:012}", f"account {number}")
    resources = [
        Resource(
            *(Cloud.AWS, account.id, REGION, KIND),
            f"arn:aws:ec2:{REGION}:{account.id}:security-group/sg-{index:017x}",
            f"sg-{index:017x}",
            Config({"GroupId": f"sg-{index:017x}", "IpPermissions": PERMISSIONS}),
        )
        for index in range(RESOURCES)
    ]
    observations = [
        Observation(
            finding_id(r.cloud, r.account, r.region, f"rule_{rule}", r.id),
            *(r.account, r.cloud, r.region, f"rule_{rule}", Severity.HIGH, KIND, r.id),
            Verdict.FAIL,
        )
        for r in resources
        for rule in range(RULES)
    ]
    return AccountScan(account, resources, observations, [Covered(REGION, KIND, ok=True)])


def run(url: str, what: str, given: list[AccountScan]) -> None:
    """Load in batches of 50 accounts over two connections, merge, and say how fast."""
    rows = sum(len(scan.observations) for scan in given) or ACCOUNTS * RESOURCES * RULES

    def load(start: int) -> None:
        with database.connect(url) as conn:
            scans.load_batch(conn, scan_id, given[start : start + 50])

    with database.connect(url) as conn:
        scan_id = scans.begin_scan(conn, "benchmark")
        began = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(load, range(0, len(given), 50)))
        loaded = time.perf_counter()
        counts = scans.merge_scan(conn, scan_id)
        merged = time.perf_counter()
        scans.finish_scan(conn, scan_id)
    print(
        f"{what:28} load {rows / (loaded - began):>9,.0f} rows/s  "
        f"merge {rows / (merged - loaded):>9,.0f} rows/s ({merged - loaded:.1f} s)  {counts}"
    )


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="suture-benchmark-"))
    folder.chmod(0o755)
    given = [account_scan(number) for number in range(ACCOUNTS)]
    passing = [
        replace(scan, observations=[replace(o, verdict=Verdict.PASS) for o in scan.observations])
        for scan in given
    ]
    empty = [replace(scan, resources=(), observations=()) for scan in given]
    try:
        with EmbeddedPostgres(folder / "data", databases=["warehouse"], remove_data=True) as server:
            url = server.url("warehouse")
            database.upgrade(url)
            run(url, "all new", given)
            run(url, "all seen again", given)
            run(url, "all resolved", passing)
            run(url, "all reopened", given)
            run(url, "all gone", empty)
    finally:
        folder.rmdir()


if __name__ == "__main__":
    main()
