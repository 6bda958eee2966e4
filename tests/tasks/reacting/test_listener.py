"""What the listener makes one run of. The rest of it is tested whole, in tests/flows/test_react."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.policy import Group, Mode, Policy
from tasks.reacting.answering import Answer
from tasks.reacting.listener import _one_run


def answer(policy: Policy, ids: set[int]) -> Answer:
    found: Any = tuple(SimpleNamespace(id=str(one)) for one in ids)
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
