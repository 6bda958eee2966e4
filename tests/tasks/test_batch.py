"""Batches of one process: those with slow accounts in them hold up no other, and keep what is read.

The scanner is one that answers by itself; claims and loads are made in the real warehouse.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tasks import batch, settings
from tasks.batch import BatchOrder, BatchScanner
from tasks.errors import BadInput
from tasks.model import Account, AccountScan, Cloud, Config, Covered, Resource, Rule, observe
from tasks.warehouse import claims, scans

FLEET = [Account(Cloud.AWS, f"{n:012}", source="org") for n in range(80)]
SILENT = FLEET[7].id


class Answering:
    """A scanner of accounts that answer at once, but for one, which waits until it is told."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def scan_all(
        self, accounts: Sequence[Account], rules: Any
    ) -> AsyncGenerator[AccountScan, None]:
        silent = None
        for account in accounts:
            if account.id == SILENT:
                silent = account
            else:
                yield AccountScan(account)
        if silent is not None:
            await self.told.wait()
            yield AccountScan(silent, failed="timed out")


@pytest.fixture
def scan_id(conn: psycopg.Connection, warehouse_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("SUTURE_WAREHOUSE_URL", warehouse_url)
    monkeypatch.setattr(batch, "LOADED_EVERY", 0.05)
    scan_id = scans.begin_scan(conn, "fleet")
    scans.record_accounts(conn, scan_id, FLEET)
    return scan_id


def scanner(answering: Any) -> BatchScanner:
    made = BatchScanner(Path("not-read.yaml"), 1.0)
    made._scanner = answering
    return made


async def until_left(conn: psycopg.Connection, scan_id: str, left: int) -> None:
    async with asyncio.timeout(20):
        while claims.remaining(conn, scan_id) != left:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.02)


def test_an_account_that_does_not_answer_holds_up_neither_loading_nor_the_next_batch(
    conn: psycopg.Connection, scan_id: str
) -> None:
    async def scan() -> None:
        answering = Answering()
        batches = scanner(answering)
        first, second, third = (
            asyncio.create_task(batches.scan(BatchOrder(scan_id, 40, 1.0))) for _ in range(3)
        )
        done = await second
        assert (done.accounts, done.failed) == (40, ())
        assert (await third).accounts == 0
        await until_left(conn, scan_id, 1)  # the silent one's batch has loaded its others
        assert not first.done()
        answering.told.set()
        assert (await first).failed == (("aws", SILENT, "timed out"),)

    asyncio.run(scan())
    assert claims.remaining(conn, scan_id) == 0


def test_the_next_batch_takes_nothing_before_all_of_this_one_have_begun(
    conn: psycopg.Connection, scan_id: str
) -> None:
    async def scan() -> None:
        answering = Held()
        batches = scanner(answering)
        tasks = [asyncio.create_task(batches.scan(BatchOrder(scan_id, 40, 1.0))) for _ in range(2)]
        async with asyncio.timeout(20):
            await answering.begun.wait()
        await asyncio.sleep(0.2)
        assert answering.batches == 1
        answering.go_on.set()
        assert [one.accounts for one in await asyncio.gather(*tasks)] == [40, 40]
        assert answering.batches == 2

    asyncio.run(scan())


class Held:
    """A scanner that waits before its first answer of a batch."""

    def __init__(self) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.batches = 0

    async def scan_all(
        self, accounts: Sequence[Account], rules: Any
    ) -> AsyncGenerator[AccountScan, None]:
        self.batches += 1
        self.begun.set()
        await self.go_on.wait()
        for account in accounts:
            yield AccountScan(account)


def test_a_load_that_fails_breaks_the_batch_and_gives_its_accounts_back(
    conn: psycopg.Connection, scan_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise psycopg.errors.DiskFull("no space left on device")

    async def scan() -> None:
        monkeypatch.setattr(scans, "load_batch", full)
        with pytest.raises(psycopg.errors.DiskFull):
            await scanner(Answering()).scan(BatchOrder(scan_id, 40, 1.0))

    asyncio.run(scan())
    assert claims.remaining(conn, scan_id) == 80
    free = [claims.claim_accounts(conn, scan_id, 100) for _ in range(2)]  # the untouched ones first
    assert [len(accounts) for accounts in free] == [40, 40]


OPEN = {
    "IpProtocol": "-1",
    "IpRanges": [{"CidrIp": "0.0.0.0/0"}],
    "Ipv6Ranges": [],
    "PrefixListIds": [],
    "UserIdGroupPairs": [],
}


class Open:
    """A scanner of accounts with one security group each, always the same, open to everybody."""

    async def scan_all(
        self, accounts: Sequence[Account], rules: Sequence[Rule]
    ) -> AsyncGenerator[AccountScan, None]:
        for account in accounts:
            place = (account.cloud, account.id, "eu-central-1", "aws.ec2.security_group")
            group = Resource(*place, "sg-1", "open", Config({"IpPermissions": [OPEN]}))
            covered = Covered(group.region, group.kind, ok=True)
            yield AccountScan(account, [group], [observe(one, group) for one in rules], [covered])


def test_a_rule_that_comes_into_force_judges_what_has_not_changed(
    conn: psycopg.Connection, scan_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(*in_force: str) -> set[str]:
        monkeypatch.setenv("SUTURE_RULES", ",".join(in_force))
        one = scans.begin_scan(conn, "fleet")
        scans.record_accounts(conn, one, FLEET[:1])
        asyncio.run(scanner(Open()).scan(BatchOrder(one, 40, 1.0)))
        scans.merge_scan(conn, one)
        scans.finish_scan(conn, one)
        return {rule for (rule,) in conn.execute("SELECT rule FROM findings WHERE status = 'open'")}

    ssh, rdp = "aws_ec2_security_group_ssh_not_open", "aws_ec2_security_group_rdp_not_open"
    assert found(ssh) == {ssh}
    assert found(ssh, rdp) == {ssh, rdp}


def test_how_long_a_throttled_call_is_tried_again_is_a_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SUTURE_SCAN_PATIENCE", "")
    assert settings.scan_patience() is None
    monkeypatch.setenv("SUTURE_SCAN_PATIENCE", "90")
    assert settings.scan_patience() == 90
    for wrong in ("0", "601", "2.5", "-1", "long"):
        monkeypatch.setenv("SUTURE_SCAN_PATIENCE", wrong)
        with pytest.raises(BadInput, match=r"SUTURE_SCAN_PATIENCE.*from 1 to 600"):
            BatchScanner(Path("not-read.yaml"), 1.0)
