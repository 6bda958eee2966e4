"""Codes that people present: drift, once each, five wrong ones; alone and all at once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from deployments.opener.codes import (
    LOCK_SECONDS,
    MOST_WRONG,
    Verdict,
    _judged,
    check,
    locked_for,
)
from deployments.opener.store import Document, FileStore, Store
from tasks.errors import BadInput

pytestmark = pytest.mark.attack

AtOnce = Callable[..., list[Any]]

SEED = SecretStr("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")
TOTP = pyotp.TOTP(SEED.get_secret_value())
NOW = 1_764_000_015.0  # the middle of a step


@pytest.fixture
def quick(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "store")


def shown(steps: int = 0, now: float = NOW) -> str:
    return TOTP.at(int(now) + 30 * steps)


def wrong(now: float = NOW) -> str:
    """Six digits that no step near shows."""
    near = {shown(steps, now) for steps in range(-3, 4)}
    return next(code for code in ("000000", "111111", "222222", "333333") if code not in near)


@pytest.mark.parametrize(
    ("steps", "verdict"),
    [
        (-2, Verdict.WRONG),
        (-1, Verdict.RIGHT),
        (0, Verdict.RIGHT),
        (1, Verdict.RIGHT),
        (2, Verdict.WRONG),
    ],
)
def test_one_step_of_drift(quick: FileStore, steps: int, verdict: Verdict) -> None:
    assert check(quick, SEED, shown(steps), now=NOW) is verdict


def test_rfc_6238_s_own_example(quick: FileStore) -> None:
    seed = SecretStr("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ")  # its 20 bytes of ASCII, in base32
    assert check(quick, seed, "081804", now=1_111_111_109) is Verdict.RIGHT


def test_a_code_is_good_once_also_after_a_restart(quick: FileStore, tmp_path: Path) -> None:
    assert check(quick, SEED, shown(), now=NOW) is Verdict.RIGHT
    assert check(quick, SEED, shown(), now=NOW + 20) is Verdict.USED
    again = FileStore(tmp_path / "store")
    assert check(again, SEED, shown(), now=NOW + 30) is Verdict.USED
    assert check(again, SEED, shown(1), now=NOW + 30) is Verdict.RIGHT


def test_five_wrong_codes_lock_it_for_ten_minutes(quick: FileStore, tmp_path: Path) -> None:
    for _ in range(MOST_WRONG):
        assert check(quick, SEED, wrong(), now=NOW) is Verdict.WRONG
    again = FileStore(tmp_path / "store")
    assert check(again, SEED, shown(), now=NOW) is Verdict.LOCKED
    assert locked_for(again, now=NOW) == LOCK_SECONDS == 600
    late = NOW + LOCK_SECONDS - 1
    assert check(again, SEED, shown(now=late), now=late) is Verdict.LOCKED
    assert check(again, SEED, wrong(late), now=late) is Verdict.LOCKED  # prolongs nothing
    over = NOW + LOCK_SECONDS + 1
    assert check(again, SEED, shown(now=over), now=over) is Verdict.RIGHT
    assert locked_for(again, now=over) == 0


def test_a_right_code_forgives_the_wrong_ones_before(quick: FileStore) -> None:
    for steps in (0, 1):
        for _ in range(MOST_WRONG - 1):
            assert check(quick, SEED, wrong(), now=NOW) is Verdict.WRONG
        assert check(quick, SEED, shown(steps), now=NOW) is Verdict.RIGHT


def test_a_replay_is_no_guess(quick: FileStore) -> None:
    assert check(quick, SEED, shown(), now=NOW) is Verdict.RIGHT
    for _ in range(2 * MOST_WRONG):
        assert check(quick, SEED, shown(), now=NOW) is Verdict.USED
    assert locked_for(quick, now=NOW) == 0


@pytest.mark.parametrize(
    "code", [None, 123456, "", "12345", "1234567", "12345a", "１２３４５６", " 123456", ["123456"]]
)
def test_what_is_no_code_is_no_guess(quick: FileStore, code: object) -> None:
    for _ in range(2 * MOST_WRONG):
        assert check(quick, SEED, code, now=NOW) is Verdict.NO_CODE
    assert check(quick, SEED, shown(), now=NOW) is Verdict.RIGHT


@pytest.mark.slow
def test_of_sixteen_right_ones_at_once_one_is_right(store: Store, at_once: AtOnce) -> None:
    code = shown()
    found = at_once(lambda: check(store, SEED, code, now=NOW))
    assert sorted(found) == sorted([Verdict.RIGHT, *[Verdict.USED] * 15])


@pytest.mark.slow
def test_of_sixteen_guesses_at_once_five_are_judged(store: Store, at_once: AtOnce) -> None:
    found = at_once(lambda: check(store, SEED, wrong(), now=NOW))
    assert sorted(found) == sorted([*[Verdict.WRONG] * 5, *[Verdict.LOCKED] * 11])


def test_the_store_holds_no_code_and_no_seed(quick: FileStore, tmp_path: Path) -> None:
    for code in (wrong(), shown()):
        check(quick, SEED, code, now=NOW)
    kept = "".join(path.read_text() for path in (tmp_path / "store").glob("*.json"))
    assert "used" in kept
    for secret in (shown(), wrong(), SEED.get_secret_value()):
        assert not re.search(rf"(?<!\d){secret}(?!\d)", kept)


def test_a_seed_that_is_none_is_said_without_it(quick: FileStore) -> None:
    for seed in ("not base32!", "JBSWY3DP"):
        with pytest.raises(BadInput) as caught:
            check(quick, SecretStr(seed), "123456", now=NOW)
        assert seed not in str(caught.value)


PRESENTED = st.lists(st.tuples(st.integers(0, 400), st.integers(-3, 3), st.booleans()), max_size=40)


@given(PRESENTED)
def test_whatever_is_presented_no_step_opens_twice_and_guesses_are_few(
    presented: list[tuple[int, int, bool]],
) -> None:
    """(seconds that pass, the step shown, or a guess): an adversary's whole afternoon."""
    known: Document = {}
    now, opened, guesses = NOW, [], []
    for seconds, steps, guess in presented:
        now += seconds
        code = wrong(now) if guess else shown(steps, now)
        changed, verdict = _judged(known, TOTP, code, now)
        known = known if changed is None else changed
        if verdict is Verdict.RIGHT:
            opened.append(code)
            assert abs(steps) <= 1
            guesses.clear()
        if verdict is Verdict.WRONG:
            guesses.append(now)
            assert len([one for one in guesses if one > now - LOCK_SECONDS]) <= MOST_WRONG
    assert len(opened) == len(set(opened))


def test_the_time_it_takes_is_the_same_for_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """All three steps are compared, in constant time, whichever of them was meant."""
    compared: list[str] = []

    def compare(one: str, other: str) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("deployments.opener.codes.hmac.compare_digest", compare)
    for steps in (-1, 0, 1, 2):
        compared.clear()
        _judged({}, TOTP, shown(steps), NOW)
        assert len(compared) == 3


def test_the_clock_is_the_machines(quick: FileStore) -> None:
    assert check(quick, SEED, shown(now=time.time())) is Verdict.RIGHT
