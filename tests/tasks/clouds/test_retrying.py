"""Patience: faults by count, throttles by time, and a first attempt that costs nothing extra."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from tasks.clouds import retrying
from tasks.clouds.budgets import Budgets, aws_key
from tasks.clouds.retrying import Patience, TryAgain, patiently, retry_after_seconds
from tasks.errors import AccessRefused, CloudError, Throttled
from tasks.rate import Rate

Run = Callable[[Any], Any]
PATIENCE = Patience()
SLOW_DOWN = Throttled("reduce your request rate", code="SlowDown", operation="ListBuckets")
BROKEN = CloudError("the connection failed")
KEY = aws_key("111122223333", "eu-central-1", "s3", "ListBuckets")


class Attempts:
    """An attempt that ends as told, one after another, then in an answer; with their times."""

    def __init__(self, *ends: Exception | None, for_ever: Exception | None = None) -> None:
        self._ends: Iterator[Exception | None] = iter(ends)
        self._for_ever = for_ever
        self.times: list[float] = []

    async def __call__(self) -> str:
        self.times.append(asyncio.get_running_loop().time())
        if end := next(self._ends, self._for_ever):
            raise end
        return "answer"


async def tried(attempts: Callable[[], Awaitable[str]], patience: Patience = PATIENCE) -> str:
    return await patiently(attempts, patience)


async def tried_within(attempts: Callable[[], Awaitable[str]]) -> str:
    loop = asyncio.get_running_loop()
    return await patiently(attempts, PATIENCE, Budgets(clock=loop.time).of(KEY))


ways = pytest.mark.parametrize("way", [tried, tried_within])


@ways
def test_a_first_attempt_that_answers_needs_no_retrying(
    virtually: Run, way: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrying, "_again", None)
    assert virtually(way(Attempts())) == "answer"
    with pytest.raises(AccessRefused):
        virtually(way(Attempts(AccessRefused("no"))))
    with pytest.raises(TypeError):  # the proof that it would have been used
        virtually(way(Attempts(TryAgain(BROKEN))))


@ways
def test_faults_that_may_pass_are_counted(virtually: Run, way: Any) -> None:
    attempts = Attempts(*[TryAgain(BROKEN)] * 4)
    assert virtually(way(attempts)) == "answer"
    attempts = Attempts(for_ever=TryAgain(BROKEN))
    with pytest.raises(CloudError, match="the connection failed"):
        virtually(way(attempts))
    assert len(attempts.times) == PATIENCE.attempts


@ways
def test_throttles_between_faults_do_not_count(virtually: Run, way: Any) -> None:
    ends = [TryAgain(BROKEN), TryAgain(SLOW_DOWN)] * 4
    assert virtually(way(Attempts(*ends))) == "answer"


@ways
def test_throttled_for_good_ends_when_patience_does(virtually: Run, way: Any) -> None:
    for _ in range(20):
        attempts = Attempts(for_ever=TryAgain(SLOW_DOWN))
        with pytest.raises(Throttled, match="reduce your request rate") as caught:
            virtually(way(attempts))
        assert caught.value.code == "SlowDown"
        assert len(attempts.times) > PATIENCE.attempts
        assert PATIENCE.seconds - PATIENCE.longest_wait < attempts.times[-1] <= PATIENCE.seconds


@ways
def test_retry_after_is_never_cut_short(virtually: Run, way: Any) -> None:
    attempts = Attempts(TryAgain(SLOW_DOWN, 12.0), TryAgain(BROKEN, 3.0))
    assert virtually(way(attempts)) == "answer"
    first, second, third = attempts.times
    assert second - first >= 12.0
    assert third - second >= 3.0


@ways
def test_who_asks_for_more_than_our_patience_is_not_asked_again(virtually: Run, way: Any) -> None:
    attempts = Attempts(for_ever=TryAgain(SLOW_DOWN, 60.0))
    with pytest.raises(Throttled):
        virtually(way(attempts))
    assert len(attempts.times) == 1


def test_not_everyone_comes_back_at_once(virtually: Run) -> None:
    async def crowd() -> list[float]:
        all_attempts = [Attempts(TryAgain(SLOW_DOWN, 1.0)) for _ in range(200)]
        await asyncio.gather(*(tried(attempts) for attempts in all_attempts))
        return [attempts.times[1] for attempts in all_attempts]

    times = virtually(crowd())
    assert min(times) >= 1.0
    assert statistics.stdev(times) > 0.03
    assert len(set(times)) > 190


def test_a_budget_learns_what_became_of_each_attempt(virtually: Run) -> None:
    async def one() -> tuple[int, float | None]:
        loop = asyncio.get_running_loop()
        budget = Budgets(clock=loop.time).of(KEY)
        await patiently(Attempts(TryAgain(SLOW_DOWN), TryAgain(BROKEN)), PATIENCE, budget)
        with pytest.raises(AccessRefused):  # an answer as any other
            await patiently(Attempts(AccessRefused("no")), PATIENCE, budget)
        return budget.rate.successes, budget.rate.cut_age(loop.time())

    successes, cut_age = virtually(one())
    assert successes == 2
    assert cut_age is not None


def test_a_key_throttled_for_good_costs_its_patience_once(virtually: Run) -> None:
    async def one_after_another() -> list[int]:
        loop = asyncio.get_running_loop()
        budgets, tries = Budgets(clock=loop.time), []
        for _ in range(4):
            attempts = Attempts(for_ever=TryAgain(SLOW_DOWN))
            with pytest.raises(Throttled):
                await patiently(attempts, PATIENCE, budgets.of(KEY))
            tries.append(len(attempts.times))
        assert loop.time() < PATIENCE.seconds + 10
        return tries

    first, *others = virtually(one_after_another())
    assert first > PATIENCE.attempts
    assert all(tries <= 1 for tries in others)


# --- A fleet -------------------------------------------------------------------------------------


async def scan_fleet(accounts: int, at_once: int, calls: int, throttled: float) -> dict[int, str]:
    """``accounts`` of a role session and ``calls`` in five services each; why any failed."""
    loop, chance = asyncio.get_running_loop(), random.Random(7)
    budgets, slots = Budgets(clock=loop.time), asyncio.Semaphore(at_once)
    failed: dict[int, str] = {}

    async def exchange() -> None:
        await asyncio.sleep(0.04)
        if chance.random() < throttled:
            raise TryAgain(SLOW_DOWN)

    async def scan(number: int) -> None:
        account = f"{number:012}"

        def ask(service: str) -> Awaitable[None]:
            key = aws_key(account, "eu-central-1", service, f"Describe{service}")
            return patiently(exchange, PATIENCE, budgets.of(key))

        async with slots:
            hub = budgets.of(aws_key("hub", "eu-central-1", "sts", "AssumeRole"))
            try:
                await patiently(exchange, PATIENCE, hub)
                for first in range(0, calls, 5):
                    some = ("s3", "ec2", "iam", "rds", "kms")[: calls - first]
                    await asyncio.gather(*(ask(service) for service in some))
            except Throttled as error:
                failed[number] = str(error)

    await asyncio.gather(*(scan(number) for number in range(accounts)))
    return failed


@pytest.mark.parametrize("throttled", [0.05, 0.2])
def test_every_account_is_covered_though_some_answers_are_throttled(
    virtually: Run, throttled: float
) -> None:
    assert virtually(scan_fleet(300, 64, 50, throttled)) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("accounts", "throttled"), [(10_000, 0.05), (2_000, 0.2)])
def test_a_large_fleet_is_covered(virtually: Run, accounts: int, throttled: float) -> None:
    assert virtually(scan_fleet(accounts, 256, 50, throttled)) == {}


def test_a_fleet_that_is_throttled_for_good_fails_in_words(virtually: Run) -> None:
    failed = virtually(scan_fleet(20, 20, 5, 1.0))
    assert len(failed) == 20


SERVICES = [f"service{number}" for number in range(30)]


def asked_after(budgets: Budgets, service: str, attempts: Attempts) -> Any:
    return patiently(attempts, PATIENCE, budgets.of(KEY._replace(service=service)))


def test_an_account_that_throttles_all_is_waited_for_once_and_not_for_each_service(
    virtually: Run,
) -> None:
    async def scan() -> tuple[list[Attempts], float]:
        loop = asyncio.get_running_loop()
        budgets, slots, every = Budgets(clock=loop.time), asyncio.Semaphore(4), list[Attempts]()

        async def ask(service: str) -> None:
            async with slots:
                every.append(Attempts(for_ever=TryAgain(SLOW_DOWN)))
                with pytest.raises(Throttled, match="reduce your request rate"):
                    await asked_after(budgets, service, every[-1])

        await asyncio.gather(*map(ask, SERVICES))
        return every, loop.time()

    every, took = virtually(scan())
    assert took <= 2 * PATIENCE.seconds
    assert all(attempts.times for attempts in every)  # each has been asked
    assert [len(attempts.times) for attempts in every[8:]] == [1] * (len(SERVICES) - 8)


def test_an_account_that_answers_some_is_waited_for_at_each_of_the_others(
    virtually: Run,
) -> None:
    async def scan() -> list[float]:
        loop = asyncio.get_running_loop()
        budgets, waited = Budgets(clock=loop.time), []
        for service in SERVICES[:4]:
            began = loop.time()
            with pytest.raises(Throttled):
                await asked_after(budgets, service, Attempts(for_ever=TryAgain(SLOW_DOWN)))
            waited.append(loop.time() - began)
            await asked_after(budgets, "answers", Attempts())
        return waited

    assert all(seconds > PATIENCE.seconds / 2 for seconds in virtually(scan()))


def test_another_account_is_none_of_its_business(virtually: Run) -> None:
    async def scan() -> list[str]:
        loop = asyncio.get_running_loop()
        budgets = Budgets(clock=loop.time)
        with pytest.raises(Throttled):
            await asked_after(budgets, "ec2", Attempts(for_ever=TryAgain(SLOW_DOWN)))
        other = budgets.of(KEY._replace(account="999922223333"))
        return [await patiently(Attempts(*[TryAgain(SLOW_DOWN)] * 3), PATIENCE, other)]

    assert virtually(scan()) == ["answer"]


# --- The header ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 0), ("", 0), ("7", 7), ("0.5", 0.5), ("-3", 0), ("soon", 0), ("nan", 0), ("inf", 0)],
)
def test_retry_after_in_seconds(header: str | None, seconds: float) -> None:
    assert retry_after_seconds(header) == seconds


def test_retry_after_as_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.clouds.retrying.time.time", lambda: 1_800_000_000.0)
    assert retry_after_seconds("Fri, 15 Jan 2027 08:00:09 GMT") == 9.0
    assert retry_after_seconds("Fri, 15 Jan 2027 07:00:00 GMT") == 0.0


def test_limits_hold_for_retries_too(virtually: Run) -> None:
    """Whoever is sent again takes a turn like a first call."""

    async def crowd() -> list[float]:
        loop = asyncio.get_running_loop()
        budgets = Budgets(lambda _key: Rate(10, 5), clock=loop.time)
        all_attempts = [Attempts(TryAgain(BROKEN)) for _ in range(40)]
        await asyncio.gather(
            *(patiently(attempts, PATIENCE, budgets.of(KEY)) for attempts in all_attempts)
        )
        return sorted(time for attempts in all_attempts for time in attempts.times)

    times = virtually(crowd())
    assert len(times) == 80
    for first in range(70):
        assert times[first + 9] - times[first] >= (10 - 5) / 10 - 1e-6
