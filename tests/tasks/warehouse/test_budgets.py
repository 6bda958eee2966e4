"""Rate budgets shared through the warehouse: by holders in one process, and by two processes."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import psycopg
import pytest

from deployments.local.postgres import EmbeddedPostgres
from tasks.rate import Announcement, Standing
from tasks.warehouse.budgets import SharedBudgets

STS = "aws/hub of acme/eu-central-1/sts"
S3 = "aws/111122223333/eu-central-1/s3"


def test_holders_are_counted(warehouse_url: str) -> None:
    with SharedBudgets(warehouse_url) as one, SharedBudgets(warehouse_url) as other:
        assert one.exchange([Announcement(STS)]) == [Standing(STS, 1)]
        assert other.exchange([Announcement(STS), Announcement(S3)]) == [
            Standing(S3, 1),
            Standing(STS, 2),
        ]
        assert one.exchange([Announcement(STS)]) == [Standing(STS, 2)]
        assert other.exchange([Announcement(S3)]) == [Standing(S3, 1)]
        assert one.exchange([Announcement(STS)]) == [Standing(STS, 1)]
        assert one.exchange([]) == []


def test_cuts_reach_the_others_even_unasked(warehouse_url: str) -> None:
    with (
        SharedBudgets(warehouse_url) as one,
        SharedBudgets(warehouse_url) as other,
        SharedBudgets(warehouse_url) as third,
    ):
        one.exchange([Announcement(STS, 40.0, 3.0)])
        other.exchange([Announcement(STS, 20.0, 1.0), Announcement(S3)])
        (seen,) = third.exchange([])
    assert (seen.key, seen.holders, seen.per_second) == (STS, 3, 30.0)
    assert seen.cut_age is not None
    assert 1.0 <= seen.cut_age < 3.0


def test_who_is_silent_does_not_count_and_is_forgotten(
    warehouse_url: str, conn: psycopg.Connection
) -> None:
    def age(seconds: int) -> None:
        conn.execute(
            "UPDATE rate_budgets SET seen_at = seen_at - %s * interval '1 second'", (seconds,)
        )

    with SharedBudgets(warehouse_url) as one, SharedBudgets(warehouse_url) as other:
        one.exchange([Announcement(STS, 5.0, 0.0)])
        age(9)
        assert other.exchange([Announcement(STS)])[0].holders == 2
        age(2)
        assert other.exchange([Announcement(STS)]) == [Standing(STS, 1)]
        age(60)
        other.exchange([Announcement(STS)])
        assert conn.execute("SELECT count(*) FROM rate_budgets").fetchone() == (1,)
        assert one.exchange([Announcement(STS)]) == [Standing(STS, 2)]  # back again
        age(120)
        assert one.exchange([Announcement(STS)]) == [Standing(STS, 1)]  # its own row is no other's


def test_whole_numbers_and_others_are_said_together(warehouse_url: str) -> None:
    with SharedBudgets(warehouse_url) as one, SharedBudgets(warehouse_url) as other:
        one.exchange([Announcement(STS, 5, 0), Announcement(S3, 2.5, 1.5)])
        found = other.exchange([Announcement(STS), Announcement(S3)])
    assert [(each.holders, each.per_second) for each in found] == [(2, 5.0), (2, 2.5)]


def test_who_leaves_is_gone_at_once(warehouse_url: str, conn: psycopg.Connection) -> None:
    with SharedBudgets(warehouse_url) as one:
        with SharedBudgets(warehouse_url) as other:
            other.exchange([Announcement(STS)])
        assert one.exchange([Announcement(STS)]) == [Standing(STS, 1)]
    assert conn.execute("SELECT count(*) FROM rate_budgets").fetchone() == (0,)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://suture:hunter2@127.0.0.1:1/warehouse",
        "mysql://suture:hunter2@127.0.0.1/warehouse",
    ],
)
def test_no_warehouse_is_said_without_its_password(url: str) -> None:
    with SharedBudgets(url) as budgets, pytest.raises(ConnectionError) as caught:
        budgets.exchange([Announcement(STS)])
    assert "hunter2" not in str(caught.value)


def test_a_broken_connection_is_opened_again(warehouse_url: str, conn: psycopg.Connection) -> None:
    with SharedBudgets(warehouse_url) as one, SharedBudgets(warehouse_url) as other:
        other.exchange([Announcement(STS)])
        one.exchange([Announcement(STS)])
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        with pytest.raises(ConnectionError, match="the warehouse failed"):
            one.exchange([Announcement(STS)])
        assert one.exchange([Announcement(STS)])[0].holders == 2
    with SharedBudgets(warehouse_url) as third:  # other could not say that it left
        assert third.exchange([Announcement(STS)])[0].holders == 2


# What each of two worker processes does: calls as fast as it may, and says when it called.
WORKER = """
import asyncio, json, sys, time
from tasks.clouds.budgets import Budgets, aws_key
from tasks.clouds.retrying import Patience, patiently
from tasks.rate import Rate
from tasks.warehouse.budgets import SharedBudgets

sent = []
key = aws_key("hub of acme", "eu-central-1", "sts", "AssumeRole")
budgets = Budgets(lambda _key: Rate(per_second=100, burst=20))

async def call():
    sent.append(time.time())
    await asyncio.sleep(0.01)

async def caller(end):
    while time.time() < end:
        await patiently(call, Patience(), budgets.of(key))

async def main(end):
    await asyncio.gather(*(caller(end) for _ in range(30)))

begin = float(sys.argv[2])
time.sleep(max(0, begin - time.time()))
budgets.of(key)
with budgets.shared(SharedBudgets(sys.argv[1])):
    asyncio.run(main(begin + float(sys.argv[3])))
print(json.dumps(sent))
"""


@pytest.mark.slow
def test_two_processes_share_one_budget(warehouse_url: str, postgres: EmbeddedPostgres) -> None:
    begin = time.time() + 8  # by then both have their imports behind them
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, warehouse_url, str(begin), str(seconds)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for seconds in (9, 6)
    ]
    try:
        answers = [worker.communicate(timeout=60)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0]
    one, other = (json.loads(answer) for answer in answers)

    def calls(sent: list[float], first: float, last: float) -> int:
        return sum(begin + first <= at < begin + last for at in sent)

    # After the first exchange: half each, and together no more than one of them may alone.
    assert calls(one, 2, 5) == pytest.approx(150, rel=0.15)
    assert calls(other, 2, 5) == pytest.approx(150, rel=0.15)
    assert calls(one + other, 2, 5) <= 100 * 3 + 20
    # When the second has left, the first has all again.
    assert calls(one, 7.5, 8.8) >= 1.3 * 100 * 0.75
