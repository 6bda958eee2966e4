"""The arithmetic of a rate budget: never too much, less after a throttle, and back again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.rate import (
    CUT,
    FORGOTTEN,
    LONGEST_PAUSE,
    RECOVERY,
    SLOWEST,
    UNLIMITED,
    AdaptiveRate,
    Drought,
    Rate,
)

rates = st.floats(0.1, 1000)
bursts = st.floats(1, 500)
limits = st.builds(Rate, rates, bursts)


def assert_within(limit: Rate, sent: Sequence[float]) -> None:
    """No window holds more than the limit: the tightest begin and end with a call."""
    # How far a call is ahead of the long-run rate, against the one before that was least so.
    lowest = inf
    for number, at in enumerate(sent):
        ahead = number - limit.per_second * at
        lowest = min(lowest, ahead)
        assert ahead - lowest + 1 <= limit.burst + 1e-6 * (number + 1)


def greedy(rate: AdaptiveRate, begin: float, end: float) -> list[float]:
    """When calls go out if there are always more of them."""
    sent, now = [], begin
    while now < end:
        if rate.take(now):
            sent.append(now)
        else:
            now += max(rate.wait(now), 1e-6)
    return sent


def test_the_check_of_windows_can_fail() -> None:
    assert_within(Rate(1, 2), [0, 0, 1, 2, 3])
    with pytest.raises(AssertionError):
        assert_within(Rate(1, 2), [0, 0, 1, 1.5, 3])


# --- Never too much ------------------------------------------------------------------------------


@given(limits, st.lists(st.tuples(st.floats(0, 10), st.integers(1, 40)), max_size=60))
def test_no_window_holds_more_than_burst_and_rate(
    limit: Rate, arrivals: list[tuple[float, int]]
) -> None:
    rate, now, sent = AdaptiveRate(limit), 0.0, []
    for pause, calls in arrivals:
        now += pause
        sent += [now for _ in range(calls) if rate.take(now)]
    assert_within(limit, sent)


@given(
    limits,
    st.lists(
        st.tuples(st.floats(0, 4), st.sampled_from(["send", "send", "throttle", "adopt", "share"])),
        max_size=80,
    ),
    st.randoms(use_true_random=False),
)
def test_whatever_happens_the_documented_limit_holds(
    limit: Rate, events: list[tuple[float, str]], chance: random.Random
) -> None:
    rate, now, sent, epoch = AdaptiveRate(limit), 0.0, [], 1
    for pause, event in events:
        now += pause
        for _ in range(20):
            if taken := rate.take(now):
                sent.append(now)
                epoch = taken
        if event == "throttle":
            rate.throttled(chance.choice([epoch, epoch - 1]), now, chance.choice([0, 0, 1.5]))
        elif event == "adopt":
            rate.adopt(chance.uniform(0.1, limit.per_second), now, now)
        elif event == "share":
            rate.share(chance.randint(1, 9), now)
        else:
            rate.answered(epoch)
    assert_within(limit, sent)


@given(limits, st.integers(0, 600), st.floats(0, 5))
def test_a_wait_is_as_long_as_it_says(limit: Rate, calls: int, after: float) -> None:
    rate = AdaptiveRate(limit)
    for _ in range(calls):
        rate.take(0.0)
    wait = rate.wait(after)
    if wait > 1e-6:
        assert not rate.take(after + wait * 0.99)
    assert rate.take(after + wait)


def test_without_limit_nothing_waits() -> None:
    rate = AdaptiveRate()
    assert all(rate.take(0.0) for _ in range(10_000))
    assert rate.wait(0.0) == 0.0
    assert rate.per_second(0.0) == inf


# --- Throttled -----------------------------------------------------------------------------------


@given(
    st.one_of(st.just(UNLIMITED), st.builds(Rate, st.floats(5, 1000), st.floats(5, 500))),
    st.integers(10, 300),
    st.integers(1, 300),
)
def test_a_burst_of_throttles_is_one_cut_to_less_than_was_achieved(
    limit: Rate, calls: int, throttles: int
) -> None:
    rate = AdaptiveRate(limit)
    spread = [number / calls for number in range(calls)]
    epochs = [epoch for at in spread if (epoch := rate.take(at))]
    cuts = [rate.throttled(epoch, 1.0) for epoch in epochs[:throttles]]
    assert cuts[0]
    assert sum(cuts) == 1
    achieved = len(epochs)  # in one second
    assert rate.per_second(1.0) == pytest.approx(
        max(SLOWEST, CUT * min(achieved, limit.per_second))
    )
    assert len(greedy(rate, 1.0, 2.0)) < achieved


def test_a_cut_rate_grows_back_where_it_was_and_then_on_to_the_limit() -> None:
    rate = AdaptiveRate(Rate(100, 100))
    epoch = rate.take(0.0)
    greedy(rate, 0.0, 3.0)
    rate.throttled(epoch, 3.0)
    cut = rate.per_second(3.0)
    assert cut < 100
    seen = [rate.per_second(3.0 + second / 10) for second in range(100)]
    assert seen == sorted(seen)
    assert rate.cut_age(13.0) is None
    greedy(rate, 13.0, 14.0)  # what had gathered
    assert len(greedy(rate, 14.0, 15.0)) == pytest.approx(100, abs=1)


def test_an_idle_key_forgets_its_cut() -> None:
    rate = AdaptiveRate()
    rate.throttled(rate.take(0.0), 0.1)
    assert not rate.free
    assert not rate.idle(10.0, 5.0)
    later = 0.1 + RECOVERY * FORGOTTEN + 1
    assert rate.take(later)
    assert rate.free
    assert rate.idle(later + 100, 60.0)


@given(st.floats(0.1, 1000))
def test_nothing_is_sent_before_the_cloud_wants_to_be_asked_again(retry_after: float) -> None:
    rate = AdaptiveRate()
    rate.throttled(rate.take(5.0), 5.0, retry_after)
    pause = min(retry_after, LONGEST_PAUSE)
    assert rate.paused(5.0) == pytest.approx(pause)
    assert rate.wait(5.0) >= pause
    assert not rate.take(5.0 + pause * 0.999)
    assert rate.take(5.0 + pause + rate.wait(5.0 + pause))


def test_how_long_nothing_but_throttles_came() -> None:
    rate = AdaptiveRate()
    assert rate.dry(0.0) is None
    for second in range(8):
        rate.throttled(1, float(second))
    assert rate.dry(8.0) == 8.0
    assert rate.dry(20.0) is None  # long ago
    rate.answered(1)
    assert rate.dry(8.0) is None


def test_how_long_an_account_answered_nothing_but_throttles() -> None:
    drought = Drought()
    assert drought.seconds(0.0) is None
    for second in range(8):
        drought.throttled(float(second))
    assert drought.seconds(8.0) == 8.0
    assert drought.seconds(20.0) is None  # long ago
    drought.throttled(20.0)
    assert drought.seconds(21.0) == 1.0
    drought.answered()
    assert drought.seconds(21.0) is None


class Cloud:
    """A service that answers ``per_second``, and throttles ``noise`` of the rest at random."""

    def __init__(self, per_second: float, noise: float = 0.0, seed: int = 1) -> None:
        self.bucket = AdaptiveRate(Rate(per_second, max(1.0, per_second / 5)))
        self._noise, self._chance = noise, random.Random(seed)

    def throttles(self, now: float) -> bool:
        return self._chance.random() < self._noise or not self.bucket.take(now)


def drive(cloud: Cloud, seconds: float, latency: float = 0.04) -> tuple[list[float], list[float]]:
    """When calls were sent and when throttled, by a caller who always has more of them."""
    rate, now = AdaptiveRate(), 0.0
    sent, throttled, flying = [], [], []
    while now < seconds:
        # At most 100 in flight, as real callers have.
        while len(flying) < 100 and (epoch := rate.take(now)):
            sent.append(now)
            flying.append((now + latency, epoch))
        now += 0.002
        while flying and flying[0][0] <= now:
            _, epoch = flying.pop(0)
            if cloud.throttles(now):
                throttled.append(now)
                rate.throttled(epoch, now)
            else:
                rate.answered(epoch)
    return sent, throttled


@pytest.mark.parametrize("per_second", [3, 20, 100, 600])
def test_a_limit_nobody_documents_is_found_and_kept_to(per_second: float) -> None:
    sent, throttled = drive(Cloud(per_second), 60.0)
    settled = [at for at in sent if at >= 10]
    assert 0.65 * per_second * 50 <= len(settled) <= 1.15 * per_second * 50 + 5
    assert sum(at >= 10 for at in throttled) <= 0.12 * len(settled) + 5


@pytest.mark.parametrize("noise", [0.05, 0.2])
@pytest.mark.parametrize("seed", range(3))
def test_throttles_at_random_do_not_slow_to_a_crawl(noise: float, seed: int) -> None:
    """The cloud allows 500 a second, and throttles some whatever the rate."""
    sent, _ = drive(Cloud(500, noise, seed), 60.0)
    assert len(sent) / 60 > 75


# --- Shared --------------------------------------------------------------------------------------


@given(limits, st.integers(1, 64))
def test_shares_sum_to_the_rate_at_most(limit: Rate, holders: int) -> None:
    shares = []
    for _ in range(holders):
        rate = AdaptiveRate(limit)
        rate.share(holders, 0.0)
        shares.append(rate.per_second(0.0))
    assert sum(shares) <= limit.per_second * (1 + 1e-9)
    assert limit.among(holders).burst * holders <= max(limit.burst, holders) + 1e-6


def test_a_cut_is_shared_too_when_another_holder_comes() -> None:
    rate = AdaptiveRate()
    for number in range(100):
        rate.take(number / 100)
    rate.throttled(1, 1.0)
    alone = rate.per_second(1.0)
    rate.share(2, 1.0)
    assert rate.per_second(1.0) == pytest.approx(alone / 2)
    rate.share(1, 1.0)
    assert rate.per_second(1.0) == pytest.approx(alone)


def test_anothers_cut_counts_once_and_only_if_it_is_lower_and_newer() -> None:
    rate = AdaptiveRate()
    assert rate.adopt(10.0, cut_at=5.0, now=6.0)
    assert rate.per_second(6.0) == 10.0
    assert not rate.adopt(10.0, cut_at=5.0, now=7.0)  # told again
    assert not rate.adopt(50.0, cut_at=7.0, now=7.5)  # no cut to us
    assert rate.adopt(4.0, cut_at=8.0, now=8.5)
