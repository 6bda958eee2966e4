"""Rate budgets at work: who waits for whom, what is kept, what processes share."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clouds import budgets as module
from tasks.clouds.budgets import (
    ARM_READ,
    EC2_READ,
    EC2_UNPAGED_READ,
    EC2_WRITE,
    RESOURCE_GRAPH,
    STS,
    BudgetKey,
    Budgets,
    arm_key,
    aws_key,
    documented,
    process_budgets,
)
from tasks.clouds.retrying import Patience, TryAgain, patiently
from tasks.errors import Throttled
from tasks.rate import UNLIMITED, AdaptiveRate, Announcement, Rate, Standing

Run = Callable[[Any], Any]
KEY = BudgetKey("aws", "111122223333", "eu-central-1", "s3")
HUB = aws_key("hub", "eu-central-1", "sts", "AssumeRole")
TENANT = "9a0c2a0e-1111-4222-8333-444455556601"
SUBSCRIPTION = "9a0c2a0e-1111-4222-8333-4444555566AA"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# --- Keys and what the clouds document -----------------------------------------------------------


@pytest.mark.parametrize(
    ("service", "operation", "paged", "limit"),
    [
        ("ec2", "DescribeVpcs", False, EC2_READ),
        ("ec2", "GetEbsEncryptionByDefault", False, EC2_READ),
        ("ec2", "DescribeSecurityGroups", False, EC2_UNPAGED_READ),
        ("ec2", "DescribeSecurityGroups", True, EC2_READ),
        ("ec2", "RevokeSecurityGroupIngress", False, EC2_WRITE),
        ("sts", "AssumeRole", False, STS),
        ("iam", "ListUsers", False, UNLIMITED),
        ("s3", "GetBucketPolicy", False, UNLIMITED),
    ],
)
def test_limits_of_aws(service: str, operation: str, paged: bool, limit: Rate) -> None:
    assert documented(aws_key("1", "eu-central-1", service, operation, paged=paged)) == limit


def test_what_aws_counts_together_has_one_key() -> None:
    def key(*call: str, paged: bool = False) -> BudgetKey:
        return aws_key("1", *call, paged=paged)

    assert key("a", "ec2", "DescribeVpcs") != key("a", "ec2", "DescribeSubnets")
    assert key("a", "ec2", "DescribeVpcs") != key("b", "ec2", "DescribeVpcs")
    assert key("a", "ec2", "DescribeVpcs") == key("a", "ec2", "DescribeVpcs", paged=True)
    assert key("a", "ec2", "DescribeVolumes") != key("a", "ec2", "DescribeVolumes", paged=True)
    assert key("a", "sts", "AssumeRole") == key("a", "sts", "GetCallerIdentity")
    assert key("a", "iam", "ListUsers") == key("b", "iam", "ListRoles")


@pytest.mark.parametrize(
    ("path", "account", "service", "limit"),
    [
        (f"/subscriptions/{SUBSCRIPTION}", SUBSCRIPTION.lower(), "arm", ARM_READ),
        (
            f"/Subscriptions/{SUBSCRIPTION}/providers/Microsoft.Network/networkSecurityGroups",
            SUBSCRIPTION.lower(),
            "arm",
            ARM_READ,
        ),
        ("/subscriptions", TENANT, "arm:tenant", ARM_READ),
        ("/subscriptions/", TENANT, "arm:tenant", ARM_READ),
        ("/tenants", TENANT, "arm:tenant", ARM_READ),
        (
            "/providers/Microsoft.ResourceGraph/resources",
            TENANT,
            "resourcegraph",
            RESOURCE_GRAPH,
        ),
    ],
)
def test_limits_of_azure(path: str, account: str, service: str, limit: Rate) -> None:
    key = arm_key(TENANT, path)
    assert key == BudgetKey("azure", account, "", service)
    assert documented(key) == limit


def test_resource_graph_answers_fifteen_queries_in_any_five_seconds() -> None:
    assert RESOURCE_GRAPH.burst + 5 * RESOURCE_GRAPH.per_second <= 15


@given(
    st.text("ab /:", min_size=1),
    st.sampled_from(["", "eu-central-1"]),
    st.sampled_from(["s3", "ec2:X"]),
)
def test_a_key_survives_its_text(account: str, region: str, service: str) -> None:
    key = BudgetKey("aws", account, region, service)
    assert BudgetKey.parse(str(key)) == key


# --- Turns ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(
    st.builds(Rate, st.floats(1, 50), st.floats(1, 20)),
    st.lists(st.floats(0, 2), min_size=1, max_size=60),
)
def test_first_come_first_served_and_nobody_starves(
    virtually: Run, limit: Rate, pauses: list[float]
) -> None:
    async def crowd() -> list[int]:
        loop = asyncio.get_running_loop()
        budgets, served = Budgets(lambda _key: limit, clock=loop.time), list[int]()

        async def call(number: int) -> None:
            budget = budgets.of(KEY)
            epoch = budget.take() or await budget.turn(1e6)
            served.append(number)
            budget.answered(epoch)

        tasks = []
        for number, pause in enumerate(pauses):
            tasks.append(asyncio.create_task(call(number)))
            await asyncio.sleep(pause)
        await asyncio.gather(*tasks)
        longest = len(pauses) / limit.per_second
        assert loop.time() <= sum(pauses) + longest + 1
        return served

    assert virtually(crowd()) == list(range(len(pauses)))


def test_a_call_that_is_sent_again_keeps_its_place(virtually: Run) -> None:
    async def crowd() -> list[str]:
        loop = asyncio.get_running_loop()
        budget = Budgets(lambda _key: Rate(1, 1), clock=loop.time).of(KEY)
        served = list[str]()

        async def call(name: str, since: float | None) -> None:
            await budget.turn(100, since)
            served.append(name)

        await asyncio.sleep(10)
        budget.take()
        names = [("first", None), ("second", None), ("again", 5.0)]
        await asyncio.gather(*(call(*each) for each in names))
        return served

    assert virtually(crowd()) == ["again", "first", "second"]


def test_who_leaves_the_queue_holds_nobody_up(virtually: Run) -> None:
    async def crowd() -> tuple[list[int], float, int]:
        loop = asyncio.get_running_loop()
        budget = Budgets(lambda _key: Rate(1, 1), clock=loop.time).of(KEY)
        served = list[int]()

        async def call(number: int) -> None:
            await budget.turn(1000)
            served.append(number)

        budget.take()
        tasks = [asyncio.create_task(call(number)) for number in range(100)]
        await asyncio.sleep(0.5)
        for number, task in enumerate(tasks):
            if number not in (50, 99):
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return served, loop.time(), budget.waiting

    assert virtually(crowd()) == ([50, 99], pytest.approx(2.0), 0)


def test_a_wait_ends_when_nobody_is_answered_for_as_long_as_patience(virtually: Run) -> None:
    async def wait(answers_until: float) -> float:
        loop = asyncio.get_running_loop()
        budget = Budgets(lambda _key: Rate(0.01, 1), clock=loop.time).of(KEY)
        epoch = budget.take()

        async def answer() -> None:
            while loop.time() < answers_until:
                budget.answered(epoch)
                await asyncio.sleep(1)

        answering = asyncio.create_task(answer())
        with pytest.raises(Throttled, match="s3 of 111122223333"):
            await budget.turn(20)
        await answering
        return loop.time()

    assert virtually(wait(0)) == pytest.approx(20)
    assert 40 <= virtually(wait(35)) <= 60


def test_nobody_waits_out_a_pause_longer_than_patience(virtually: Run) -> None:
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        budget = Budgets(clock=loop.time).of(KEY)
        budget.throttled(budget.take(), 60)
        assert not budget.take()
        with pytest.raises(Throttled, match="to be left alone for 60 s"):
            await budget.turn(20)
        assert await budget.turn(70)
        return loop.time()

    assert 60 <= virtually(wait()) < 62


def test_several_event_loops_share_a_budget() -> None:
    """Prefect runs batches in threads, each with a loop of its own."""
    limit = Rate(200, 10)
    budgets, sent, begun = Budgets(lambda _key: limit), list[float](), time.monotonic()

    async def call() -> None:
        budget = budgets.of(KEY)
        epoch = budget.take() or await budget.turn(60)
        sent.append(time.monotonic())
        budget.answered(epoch)

    async def batch() -> None:
        await asyncio.gather(*(call() for _ in range(30)))

    threads = [threading.Thread(target=asyncio.run, args=(batch(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(sent) == 120
    for at in (begun + 0.1, begun + 0.3):
        assert sum(one <= at for one in sent) <= limit.burst + limit.per_second * (at - begun) + 1
    assert budgets.of(KEY).waiting == 0


class Service:
    """Throttles over ``per_second``, in the real time of a real loop."""

    def __init__(self, per_second: float) -> None:
        self._bucket = AdaptiveRate(Rate(per_second, per_second / 5), time.monotonic())
        self.asked: list[float] = []
        self.throttled = 0

    async def __call__(self) -> str:
        await asyncio.sleep(0.02)
        self.asked.append(time.monotonic())
        if not self._bucket.take(time.monotonic()):
            self.throttled += 1
            raise TryAgain(Throttled("slow down", code="Throttling"))
        return "answer"


async def test_two_hundred_callers_of_a_service_that_throttles() -> None:
    service, budgets, begun = Service(100), Budgets(), time.monotonic()

    async def caller() -> None:
        for _ in range(4):
            answer = await patiently(service, Patience(), budgets.of(KEY))
            assert answer == "answer"

    await asyncio.gather(*(caller() for _ in range(200)))
    took = time.monotonic() - begun
    late = [at for at in service.asked if at >= begun + 2]
    assert len(service.asked) == 800 + service.throttled
    assert len(late) > 200
    assert len(late) <= 1.25 * 100 * (took - 2) + 10


# --- What is kept --------------------------------------------------------------------------------


def test_a_key_has_one_budget() -> None:
    budgets = Budgets()
    assert budgets.of(KEY) is budgets.of(BudgetKey(*KEY))
    assert budgets.of(KEY) is not budgets.of(HUB)
    assert process_budgets() is process_budgets()


def test_budgets_of_accounts_that_are_done_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 100)
    clock = Clock()
    budgets = Budgets(clock=clock)
    throttled = budgets.of(KEY)
    largest = 0
    for number in range(5000):
        clock.now += 1
        if number % 10 == 0:
            throttled.throttled(throttled.rate.take(clock.now) or throttled.rate._epoch)
        budget = budgets.of(aws_key(str(number), "eu-central-1", "ec2", "DescribeVpcs"))
        assert budget.take()
        largest = max(largest, len(budgets))
    assert largest <= 250
    assert budgets.of(KEY) is throttled  # what was learned is not forgotten


# --- Shared --------------------------------------------------------------------------------------


class Table:
    """The warehouse's part, in memory, for one process among several."""

    def __init__(self, rows: dict[str, dict[str, Announcement]], name: str) -> None:
        self.rows, self.name = rows, name
        self.fails = False
        self.rounds = 0
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def exchange(self, announced: Sequence[Announcement]) -> list[Standing]:
        self.rounds += 1
        if self.fails:
            raise ConnectionError("the warehouse failed: OperationalError")
        self.rows[self.name] = {one.key: one for one in announced}
        others: dict[str, list[Announcement]] = {}
        for name, said in self.rows.items():
            if name != self.name:
                for one in said.values():
                    others.setdefault(one.key, []).append(one)
        standings = []
        for key in {one.key for one in announced} | set(others):
            those = others.get(key, [])
            cuts = [(one.cut_age, one.per_second) for one in those if one.cut_age is not None]
            age, rate = min(cuts, default=(None, None))
            standings.append(Standing(key, len(those) + 1, rate, age))
        return standings


def processes(clock: Clock, count: int, limit: Rate) -> list[tuple[Budgets, Table]]:
    rows: dict[str, dict[str, Announcement]] = {}
    return [
        (Budgets(lambda _key: limit, clock=clock), Table(rows, str(number)))
        for number in range(count)
    ]


def sync_all(together: Sequence[tuple[Budgets, Table]]) -> None:
    for _ in range(2):  # the first learns of the last in its second round
        for budgets, table in together:
            budgets.sync(table)


@given(st.integers(1, 12), st.floats(1, 1000))
def test_processes_share_equally_what_they_use_together(count: int, per_second: float) -> None:
    clock = Clock()
    together = processes(clock, count, Rate(per_second, 10))
    for budgets, _ in together:
        budgets.of(HUB).take()
    sync_all(together)
    shares = [budgets.of(HUB).rate.per_second(clock.now) for budgets, _ in together]
    assert sum(shares) <= per_second * (1 + 1e-9)
    assert max(shares) == pytest.approx(per_second / count)


def test_a_budget_of_one_account_is_not_shared_until_it_is_throttled() -> None:
    clock = Clock()
    together = processes(clock, 2, UNLIMITED)
    (one, _), (other, _) = together
    for budgets in (one, other):
        for _ in range(100):
            budgets.of(KEY).take()
    sync_all(together)
    assert other.of(KEY).rate.free
    clock.now += 1
    one.of(KEY).throttled(1)
    sync_all(together)
    cut = one.of(KEY).rate.per_second(clock.now)
    assert 0 < cut < 100
    assert other.of(KEY).rate.per_second(clock.now) == pytest.approx(cut)


def test_a_holder_that_left_gives_its_share_back() -> None:
    clock = Clock()
    together = processes(clock, 2, Rate(100, 10))
    (one, table), (other, _) = together
    for budgets in (one, other):
        budgets.of(HUB).take()
    sync_all(together)
    assert one.of(HUB).rate.per_second(clock.now) == 50
    table.rows.pop("1")
    one.sync(table)
    assert one.of(HUB).rate.per_second(clock.now) == 100


def test_without_the_others_a_process_goes_on_and_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = Clock()
    together = processes(clock, 2, Rate(100, 10))
    (one, table), (other, _) = together
    for budgets in (one, other):
        budgets.of(HUB).take()
    sync_all(together)
    table.fails = True
    with caplog.at_level(logging.WARNING, "tasks.clouds.budgets"):
        for _ in range(5):
            one.sync(table)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "not shared with other processes: the warehouse failed" in caplog.text
    assert one.of(HUB).take()
    assert one.of(HUB).rate.per_second(clock.now) == 50  # as last agreed
    table.fails = False
    one.sync(table)
    table.fails = True
    one.sync(table)
    assert len(caplog.records) == 2


def test_sharing_lasts_as_long_as_anybody_is_inside() -> None:
    table = Table({"else": {str(HUB): Announcement(str(HUB))}}, "this")
    budgets = Budgets(lambda _key: Rate(100, 10))
    budgets.of(HUB)
    with budgets.shared(table, every=0.01):
        assert budgets.of(HUB).rate.per_second(budgets.of(HUB).now) == 50  # from the first call on
        with budgets.shared(other := Table({}, "not used"), every=0.01):
            pass
        assert not table.closed
        assert not other.rounds
        seen = table.rounds
        deadline = time.monotonic() + 10
        while table.rounds < seen + 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert table.rounds >= seen + 3
    seen = table.rounds
    time.sleep(0.05)
    assert table.rounds == seen
    assert table.closed
    assert budgets.of(HUB).rate.per_second(budgets.of(HUB).now) == 100
    assert "suture-budgets" not in [thread.name for thread in threading.enumerate()]
