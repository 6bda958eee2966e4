"""Suture's read engine alone: the scanner over all accounts, rules judged, in one process.

No Prefect, no warehouse. What it costs is the CPU of reading and judging an account, or an Azure
subscription. It has failed where any kind of any account could not be read, and where a rule could
not tell: of a fleet that is described in full, all is to be known.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import aclosing, contextmanager

import uvloop
from contender import Job, Outcome, Prepared, contend
from inventory import write_inventory

from tasks.clouds.scanner import Scanner
from tasks.garbage import collect_rarely
from tasks.inventory import Inventory, load_inventory
from tasks.model import AccountScan, Verdict


@contextmanager
def prepare(job: Job) -> Iterator[Prepared]:
    with write_inventory(job) as (path, variables):
        os.environ.update(variables)
        inventory = load_inventory(path)
        collect_rarely()  # as the processes do that scan
        yield Prepared(lambda: uvloop.run(_scan(inventory)))


async def _scan(inventory: Inventory) -> Outcome:
    outcome = Outcome(findings=0)

    def count(scan: AccountScan) -> None:
        verdicts = [observation.verdict for observation in scan.observations]
        outcome.findings = (outcome.findings or 0) + verdicts.count(Verdict.FAIL)
        if why := _what_is_missing(scan):
            outcome.errors = [*outcome.errors, f"{scan.account.id}: {why}"][:5]
        else:
            outcome.covered += 1

    async with Scanner(inventory) as scanner:
        accounts = (await scanner.discover()).accounts
        async with aclosing(scanner.scan_all(accounts)) as scans:
            async for scan in scans:
                count(scan)
    return outcome


def _what_is_missing(scan: AccountScan) -> str:
    """The first reason why not all is known of the account; empty where all is."""
    gaps = (covered.reason for covered in scan.coverage if not covered.ok)
    unknown = (
        f"{observation.rule} is unknown: {observation.reason}"
        for observation in scan.observations
        if observation.verdict is Verdict.UNKNOWN
    )
    return scan.failed or next(gaps, "") or next(unknown, "")


if __name__ == "__main__":
    contend(prepare)
