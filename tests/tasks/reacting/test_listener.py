"""What the listener makes one run of. The rest of it is tested whole, in tests/flows/test_react."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import SutureError
from tasks.inventory import Inventory
from tasks.policy import Group, Mode, Policy
from tasks.reacting import listener as module
from tasks.reacting.answering import Answer, Answers
from tasks.reacting.listener import NOT_BEGUN, Listener, _Key, _one_run
from tasks.reacting.metrics import Metrics
from tasks.remediation_run import More


def answer(policy: Policy, ids: set[int]) -> Answer:
    found: Any = tuple(SimpleNamespace(id=str(one), cloud="aws") for one in ids)
    return Answer(Group(policy, "aws", "1" * 12, found), {}, ())


@given(
    st.lists(st.sets(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=12),
    st.integers(4, 9),
)
def test_runs_carry_all_answers_in_order_and_none_more_than_its_policy_lets_it(
    groups: list[set[int]], most: int
) -> None:
    policy = replace(Policy("close", Mode.AUTOMATIC), most_changes=most)
    waiting = [answer(policy, ids) for ids in groups]
    runs = []
    left = waiting
    while left:
        taken, left = _one_run(left)
        assert taken, "each run takes some"
        assert len({one.id for part in taken for one in part.group.findings}) <= most
        runs += taken
    assert runs == waiting


@given(
    st.lists(st.sets(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=12),
    st.sets(st.integers(0, 9), min_size=1),
    st.integers(4, 12),
)
def test_a_run_that_goes_on_has_each_finding_once_and_no_more_than_its_policy_lets_it(
    groups: list[set[int]], before: set[int], most: int
) -> None:
    policy = replace(Policy("close", Mode.AUTOMATIC), most_changes=most)
    had = {str(one) for one in before}
    taken, left = _one_run(waiting := [answer(policy, ids) for ids in groups], had)
    assert [*taken, *left] == waiting
    ids = {one.id for part in taken for one in part.group.findings}
    assert not ids & had
    assert not taken or len(ids | had) <= most
    if left:
        following = {one.id for one in left[0].group.findings}
        assert following & had or len(ids | had | following) > most


# --- What comes while a run is under way ---------------------------------------------------------


class Closes:
    """A remediator whose run asks for more until there is none, ``meanwhile`` called each time."""

    def __init__(self, meanwhile: Callable[[int], None]) -> None:
        self.runs: list[list[tuple[str, ...]]] = []
        self.rounds = 0
        self._meanwhile = meanwhile

    def close(self, group: Group, requested_by: str, more: Callable[[], More | None]) -> None:
        rounds = [tuple(one.id for one in group.findings)]
        self.runs.append(rounds)
        while True:
            self.rounds += 1
            self._meanwhile(self.rounds)
            following = more()
            if following is None:
                return
            rounds.append(following.finding_ids)

    def ask(self, group: Group, requested_by: str) -> None:
        raise AssertionError("nobody is to be asked")

    def settle(self, run_id: str) -> None:
        raise AssertionError("no run is dead")

    def reconcile(self) -> None:
        raise AssertionError("nothing is left behind")


@pytest.fixture
def without_warehouse(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """How findings ended, by their ids; what is missing there was not begun."""
    ended = {str(number): "remediated" for number in range(10)}
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.05)
    monkeypatch.setattr(module, "connect", lambda: nullcontext(None))
    monkeypatch.setattr(module, "why_held_back", lambda _warehouse, _policy: "")
    monkeypatch.setattr(module.answering, "note_causes", lambda *_: None)
    monkeypatch.setattr(module.answering, "how_it_ended", lambda _warehouse, _group: ended)
    return ended


POLICY = replace(Policy("close", Mode.AUTOMATIC), most_changes=4)
KEY: _Key = ("aws", "1" * 12, "close", Mode.AUTOMATIC)


def make_listener(remediator: Closes, *waiting: Answer) -> tuple[Listener, list[str]]:
    """A listener with answers that wait, and why each that has come to its end is tried again."""
    listener = Listener(Inventory(), [], remediator, Metrics(), rules=[])
    ends: list[str] = []

    async def ended(_works: object, again: str) -> None:
        ends.append(again)

    listener._ended = ended  # type: ignore[method-assign, assignment]
    listener._waiting[KEY] += waiting
    return listener, ends


async def the_end_of(listener: Listener) -> None:
    while listener._tasks:
        await asyncio.wait(listener._tasks)


async def carried(first: set[int], later: dict[int, list[set[int]]]) -> tuple[Closes, list[str]]:
    """What runs were made of ``first``, and of what came ``later`` in each round; and for each
    answer that came to its end why it is to be tried again.
    """

    def meanwhile(round_: int) -> None:
        listener._waiting[KEY].extend(answer(POLICY, ids) for ids in later.get(round_, []))

    remediator = Closes(meanwhile)
    listener, ends = make_listener(remediator, answer(POLICY, first))
    await listener._fix(KEY)
    await the_end_of(listener)
    if listener._broken is not None:
        raise listener._broken
    assert not listener._fixers.locked()
    return remediator, ends


@pytest.mark.usefixtures("without_warehouse")
async def test_what_comes_meanwhile_is_given_to_the_run_that_is_under_way() -> None:
    remediator, ends = await carried({1}, {1: [{2}, {3}], 2: [{4}]})
    assert [[set(one) for one in run] for run in remediator.runs] == [[{"1"}, {"2", "3"}, {"4"}]]
    assert ends == ["", "", ""]


async def until(so: Callable[[], object]) -> None:
    for _ in range(2_000):
        if so():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come to that")


@pytest.mark.usefixtures("without_warehouse")
async def test_a_run_that_is_done_waits_for_a_moment_for_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 60.0)
    remediator = Closes(lambda _round: None)
    listener, ends = make_listener(remediator)
    first, second = answer(POLICY, {1}), answer(POLICY, {2})
    await listener._answer(Answers((first,)))
    await until(lambda: listener._lingering)
    assert ends == [""]  # what is done is told at once
    await listener._answer(Answers((second,)))
    await until(lambda: len(ends) == 2)
    await until(lambda: listener._lingering)
    assert remediator.runs == [[("1",), ("2",)]]
    listener.stop()
    await the_end_of(listener)
    assert len(remediator.runs) == 1


@pytest.mark.usefixtures("without_warehouse")
async def test_a_run_that_waits_for_more_makes_room_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 60.0)
    monkeypatch.setattr(module, "MOST_FIXING", 1)
    remediator = Closes(lambda _round: None)
    listener, ends = make_listener(remediator)
    elsewhere = replace(answer(POLICY, {2}).group, account="2" * 12)
    await listener._answer(Answers((answer(POLICY, {1}),)))
    await until(lambda: listener._lingering)
    await listener._answer(Answers((Answer(elsewhere, {}, ()),)))
    await until(lambda: len(ends) == 2)
    assert remediator.runs == [[("1",)], [("2",)]]
    listener.stop()
    await the_end_of(listener)


@pytest.mark.usefixtures("without_warehouse")
async def test_what_comes_back_is_another_run_s() -> None:
    remediator, ends = await carried({1}, {1: [{2}, {1}, {3}]})
    assert [[set(one) for one in run] for run in remediator.runs] == [[{"1"}, {"2"}], [{"1", "3"}]]
    assert ends == [""] * 3


@pytest.mark.usefixtures("without_warehouse")
async def test_no_run_takes_on_more_than_its_policy_lets_it_change() -> None:
    remediator, _ = await carried({1, 2}, {1: [{3}, {4}, {5}, {6}]})
    assert [sum(map(len, run)) for run in remediator.runs] == [4, 2]


async def test_what_was_not_begun_is_tried_again_and_the_rest_is_not(
    without_warehouse: dict[str, str],
) -> None:
    del without_warehouse["2"]
    _, ends = await carried({1}, {1: [{2}], 2: [{3}]})
    assert ends == ["", NOT_BEGUN, ""]


@pytest.mark.usefixtures("without_warehouse")
async def test_a_run_ends_well_where_the_warehouse_is_away_for_what_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def note_causes(_warehouse: object, group: Group, _causes: object) -> None:
        if any(one.id == "2" for one in group.findings):
            raise psycopg.OperationalError("away")

    monkeypatch.setattr(module.answering, "note_causes", note_causes)
    remediator, ends = await carried({1}, {1: [{2}], 2: [{3}]})
    assert [[set(one) for one in run] for run in remediator.runs] == [[{"1"}]]
    assert [bool(one) for one in ends] == [False, True]


@pytest.mark.usefixtures("without_warehouse")
async def test_a_run_that_breaks_lets_go_of_what_it_had_and_of_nothing_else() -> None:
    def breaks(round_: int) -> None:
        if round_ == 2:
            raise SutureError("the server is away")

    remediator = Closes(breaks)
    listener, ends = make_listener(remediator, answer(POLICY, {1, 2, 3, 4}), answer(POLICY, {5}))
    await listener._fix(KEY)
    await the_end_of(listener)
    assert ends == ["", "the server is away"]
    assert len(remediator.runs) == 2
