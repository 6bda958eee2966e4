"""Suture's read engine alone: the scanner over all accounts, rules judged, in one process.

No Prefect, no warehouse. What it costs is the CPU of reading and judging an account.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import uvloop
from contender import Job, Outcome, Prepared, contend
from inventory import write_inventory

from tasks.clouds.scanner import Scanner
from tasks.inventory import Inventory, load_inventory
from tasks.model import AccountScan, Verdict


@contextmanager
def prepare(job: Job) -> Iterator[Prepared]:
    with write_inventory(job) as (path, variables):
        os.environ.update(variables)
        inventory = load_inventory(path)
        yield Prepared(lambda: uvloop.run(_scan(inventory, job)))


async def _scan(inventory: Inventory, job: Job) -> Outcome:
    outcome = Outcome(findings=0)

    def count(scan: AccountScan) -> None:
        gaps = [covered.reason for covered in scan.coverage if not covered.ok]
        if scan.failed or gaps:
            outcome.errors = [*outcome.errors, f"{scan.account.id}: {scan.failed or gaps[0]}"][:5]
        else:
            outcome.covered += 1
        verdicts = [observation.verdict for observation in scan.observations]
        outcome.findings = (outcome.findings or 0) + verdicts.count(Verdict.FAIL)

    async with Scanner(inventory) as scanner:
        waiting = iter((await scanner.discover()).accounts)

        async def one_after_another() -> None:
            for account in waiting:
                count(await scanner.scan(account))

        # Scanner has a limit of its own; this one only keeps ten thousand results from piling up.
        await asyncio.gather(*(one_after_another() for _ in range(2 * job.accounts_at_once)))
    return outcome


if __name__ == "__main__":
    contend(prepare)
