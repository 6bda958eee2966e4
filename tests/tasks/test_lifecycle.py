"""A finding's life by single words, and the ways a remediation may go."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.lifecycle import (
    ACTIVE_STATES,
    REMEDIATION_STATES,
    TRANSITIONS,
    Change,
    FindingState,
    IllegalTransition,
    Word,
    check_transition,
    is_end,
    next_state,
)
from tasks.model import Severity, Verdict

T0 = datetime(2026, 1, 1, tzinfo=UTC)


def word(day: int, verdict: Verdict = Verdict.FAIL, *, gone: bool = False) -> Word:
    return Word(T0 + timedelta(days=day), verdict, Severity.HIGH, gone)


def live(*words: Word) -> tuple[FindingState | None, list[Change]]:
    finding: FindingState | None = None
    changes = []
    for one in words:
        finding, change = next_state(finding, one)
        changes.append(change)
    return finding, changes


def test_a_whole_life() -> None:
    finding, changes = live(
        word(1, Verdict.PASS),
        word(2),
        word(3),
        word(4, Verdict.UNKNOWN),
        word(5, Verdict.PASS),
        word(6, Verdict.PASS),
        word(7),
        word(8, gone=True),
        word(9, gone=True),
        word(10),
    )
    assert changes == [
        Change.NONE,
        Change.OPENED,
        Change.SEEN_AGAIN,
        Change.UNKNOWN,
        Change.RESOLVED,
        Change.STILL_RESOLVED,
        Change.REOPENED,
        Change.GONE,
        Change.NONE,
        Change.REOPENED,
    ]
    assert finding is not None
    assert (finding.status, finding.reopened) == ("open", 2)
    assert finding.first_seen_at == T0 + timedelta(days=2)
    assert finding.opened_at == T0 + timedelta(days=10)


def test_unknown_never_opens_and_never_resolves() -> None:
    assert live(word(1, Verdict.UNKNOWN)) == (None, [Change.NONE])
    opened, _ = live(word(1), word(2, Verdict.UNKNOWN))
    assert opened is not None
    assert (opened.status, opened.verdict) == ("open", Verdict.UNKNOWN)
    resolved, _ = live(word(1), word(2, Verdict.PASS), word(3, Verdict.UNKNOWN))
    assert resolved is not None
    assert resolved.status == "resolved"


def test_a_stale_word_changes_nothing() -> None:
    opened, _ = live(word(5))
    for stale in (word(5, Verdict.PASS), word(4, Verdict.PASS), word(4, gone=True)):
        assert next_state(opened, stale) == (opened, Change.NONE)
    assert next_state(None, word(5), known_at=T0 + timedelta(days=5)) == (None, Change.NONE)
    assert next_state(None, word(5), known_at=T0 + timedelta(days=4))[1] is Change.OPENED


WORDS = st.builds(word, st.integers(0, 20), st.sampled_from(Verdict), gone=st.booleans())


@given(st.lists(WORDS, max_size=20))
def test_what_always_holds(words: list[Word]) -> None:
    finding, changes = live(*words)
    opened = sum(change in {Change.OPENED, Change.REOPENED} for change in changes)
    closed = sum(change in {Change.RESOLVED, Change.GONE} for change in changes)
    if finding is None:
        assert opened == closed == 0
        return
    assert (finding.status == "open") == (finding.resolved_at is None)
    assert (finding.resolution is None) == (finding.resolved_at is None)
    assert opened - closed == (finding.status == "open")
    assert finding.reopened == opened - 1
    assert finding.first_seen_at <= finding.opened_at <= finding.last_seen_at
    assert finding.last_seen_at <= finding.last_observed_at


@given(st.lists(WORDS, max_size=10), WORDS)
def test_saying_the_same_word_twice_changes_nothing(words: list[Word], last: Word) -> None:
    finding, _ = live(*words, last)
    assert next_state(finding, last) == (finding, Change.NONE)


def test_every_transition_leads_to_a_known_state() -> None:
    for targets in TRANSITIONS.values():
        assert targets <= set(REMEDIATION_STATES)


def test_every_active_state_can_end_and_every_end_is_final_but_for_the_undo() -> None:
    for state in REMEDIATION_STATES:
        if state in ACTIVE_STATES:
            assert any(is_end(target) for target in TRANSITIONS[state])
        else:
            assert TRANSITIONS[state] <= {"undone"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("waiting", "remediated"),  # nothing was applied
        ("denied", "applying"),
        ("expired", "applying"),
        ("applying", "applying"),  # two processes
        ("remediated", "waiting"),
        ("nonsense", "waiting"),
        ("waiting", "nonsense"),
    ],
)
def test_illegal_ways_are_refused(old: str, new: str) -> None:
    with pytest.raises(IllegalTransition):
        check_transition(old, new)


@pytest.mark.parametrize("state", ["planned", "waiting", "remediated", "denied"])
def test_saying_it_again_is_no_change(state: str) -> None:
    check_transition(state, state)
