"""How a scan ends: what it did not reach is said, and never taken for clean."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from tasks.scanning import Scan, Wanted, batch_limit, scan_state, what_was_lost
from tasks.warehouse.scans import MergeCounts, Posture

COUNTS = MergeCounts(opened=3, seen_again=4, resolved=2, reopened=1, unknown=0, gone=0)


def seen(**statuses: int) -> Posture:
    return Posture(
        scan_id="s",
        state="finished",
        started_at=datetime.now(UTC),
        finished_at=None,
        resources=9,
        counts=COUNTS,
        accounts={"aws": statuses, "azure": {"covered": 1}} if statuses else {},
    )


def test_only_a_scan_of_the_same_accounts_is_gone_on_with() -> None:
    since = datetime(2026, 11, 1, 12, tzinfo=UTC)
    elsewhere = since.astimezone(timezone(timedelta(hours=9)))
    selections = [
        Wanted().selection,
        Wanted(only=("1",)).selection,
        Wanted(since=since).selection,
        Wanted(touched=True).selection,
        Wanted(since=since, touched=True).selection,
    ]
    assert len(set(selections)) == len(selections)
    assert Wanted(since=elsewhere).selection == Wanted(since=since).selection


def test_a_scan_that_reached_all_is_completed_even_if_some_refused() -> None:
    state = scan_state(COUNTS, seen(covered=5, failed=2, skipped=1), "")
    assert (state.is_completed(), state.name) == (True, "Completed")
    assert state.message == (
        "6 accounts and subscriptions scanned, 2 failed, 1 skipped. "
        "Findings: 3 opened, 1 reopened, 2 resolved."
    )


@pytest.mark.parametrize(
    ("sources", "left", "words"),
    [
        ((), 1, "1 account was never reported"),
        ((), 2, "2 accounts were never reported"),
        (("acme",), 0, "acme could not"),
    ],
)
def test_what_was_not_reached_makes_a_scan_incomplete(
    sources: tuple[str, ...], left: int, words: str
) -> None:
    lost = what_was_lost(Scan("s", 7, sources), left)
    state = scan_state(COUNTS, seen(covered=5), lost)
    assert (state.is_failed(), state.name) == (True, "Incomplete")
    assert words in str(state.message)


def test_a_scan_that_read_nothing_is_no_success() -> None:
    assert scan_state(COUNTS, seen(), "").name == "Nothing scanned"
    assert what_was_lost(Scan("s", 7), 0) == ""


@pytest.mark.parametrize(
    ("most", "accounts", "limit"),
    [(100, 12, 25), (100, 100, 34), (100, 300, 100), (100, 10_000, 100), (10, 300, 10), (1, 5, 1)],
)
def test_a_small_scan_is_shared_out_among_the_processes(
    most: int, accounts: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUTURE_SCAN_PROCESSES", "3")
    assert batch_limit(most, accounts) == limit
