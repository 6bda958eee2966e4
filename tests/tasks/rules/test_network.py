"""Networks and ports as sets: the internet in all its spellings, and what is left of a range."""

from __future__ import annotations

from ipaddress import collapse_addresses, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import BadAnswer
from tasks.rules.network import (
    allowed_networks,
    covers,
    exposing,
    is_internet,
    minus,
    network,
    segments,
    subtract,
)


def nets(*texts: str) -> list[Any]:
    return [network(text) for text in texts]


@pytest.mark.parametrize(
    ("texts", "answer"),
    [
        (("0.0.0.0/0",), True),
        (("::/0",), True),
        (("0.0.0.0/1", "128.0.0.0/1"), True),
        (("0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/1"), True),
        (("2000::/3",), True),
        (("::/1", "8000::/1"), True),
        (("0.0.0.0/1",), False),
        (("0.0.0.0/1", "::/1"), True),  # ::/1 holds all of 2000::/3
        (("0.0.0.0/1", "8000::/1"), False),
        (("10.0.0.0/8", "192.168.0.0/16"), False),
        ((), False),
    ],
)
def test_is_internet(texts: tuple[str, ...], answer: bool) -> None:
    assert is_internet(nets(*texts)) is answer
    assert bool(exposing(nets(*texts))) is answer


def test_all_public_addresses_are_the_internet() -> None:
    everything = nets("0.0.0.0/0")
    private = nets("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
    assert is_internet(subtract(everything, private))
    assert not is_internet(subtract(everything, nets("8.8.8.0/24")))


def test_exposing_spares_legitimate_sources() -> None:
    assert exposing(nets("0.0.0.0/0", "10.0.0.0/8", "203.0.113.0/24")) == set(nets("0.0.0.0/0"))
    halves = nets("0.0.0.0/1", "128.0.0.0/1")
    assert exposing([*halves, *nets("10.0.0.0/8")]) == set(halves)
    public = subtract(nets("0.0.0.0/0"), nets("10.0.0.0/8"))
    assert network("10.0.0.0/8") not in exposing([*public, *nets("10.0.0.0/8")])


@given(st.lists(st.integers(0, 15), max_size=16), st.lists(st.integers(0, 15), max_size=16))
def test_subtract_is_set_difference(left: list[int], right: list[int]) -> None:
    def sixteenths(numbers: set[int]) -> list[Any]:
        return list(collapse_addresses(ip_network((n << 28, 4)) for n in numbers))

    got = subtract(sixteenths(set(left)), sixteenths(set(right)))
    assert list(collapse_addresses(got)) == sixteenths(set(left) - set(right))


ranges = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda pair: (min(pair), max(pair))),
    max_size=4,
)


def members(some: list[tuple[int, int]]) -> set[int]:
    return {port for first, last in some for port in range(first, last + 1)}


@given(ranges, ranges)
def test_minus_and_covers_are_set_operations(one: Any, other: Any) -> None:
    left = one
    for closed in other:
        left = minus(left, closed)
    assert members(left) == members(one) - members(other)
    assert covers(other, one) is (members(one) <= members(other))


@given(ranges)
def test_segments_partition_and_are_cut_by_no_range(some: Any) -> None:
    cut = segments(some, (5, 30))
    assert [port for first, last in cut for port in range(first, last + 1)] == list(range(5, 31))
    for segment in cut:
        for one in some:
            shared = members([one]) & members([segment])
            assert not shared or shared == members([segment])


@pytest.mark.parametrize(
    "answer",
    [("0.0.0.0/0",), ("::/0",), ("0.0.0.0/1", "128.0.0.0/1"), ("2000::/3",)],
)
def test_the_internet_is_no_allowed_network(answer: tuple[str, ...]) -> None:
    with pytest.raises(BadAnswer) as caught:
        allowed_networks({"allowed_cidrs": answer})
    assert caught.value.field == "allowed_cidrs"
    assert answer[0] not in str(caught.value)


@pytest.mark.parametrize(
    "answer", [("sesame",), ("10.0.0.1/8",), ("10.0.0.0/33",), "10.0.0.0/8", (7,)]
)
def test_a_bad_network_is_refused_without_repeating_it(answer: Any) -> None:
    with pytest.raises(BadAnswer) as caught:
        allowed_networks({"allowed_cidrs": answer})
    assert "sesame" not in str(caught.value)
    assert "10.0.0" not in str(caught.value).replace("10.0.0.0/8 or", "").replace("10.0.0.0/8.", "")


def test_allowed_networks_are_given_once_and_in_order() -> None:
    given = {"allowed_cidrs": ("203.0.113.7", "10.0.0.0/8", "203.0.113.7/32")}
    assert allowed_networks(given) == tuple(nets("203.0.113.7/32", "10.0.0.0/8"))
    assert allowed_networks({}) == allowed_networks({"allowed_cidrs": ()}) == ()
