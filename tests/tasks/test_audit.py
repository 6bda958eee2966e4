"""The audit chain holds as written, and any row altered, removed, added or moved is found."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.audit import (
    GENESIS,
    Entry,
    body_hash,
    chained_hash,
    first_broken,
    joined_hash,
    next_entry,
    said_hash,
    whose_hash,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
SAYINGS = st.tuples(st.text(), st.text(), st.text(), st.dictionaries(st.text(), JSON, max_size=3))


def build(sayings: list[tuple[str, str, str, dict[str, Any]]]) -> list[Entry]:
    chain: list[Entry] = []
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for actor, action, subject, details in sayings:
        last = (chain[-1].number, chain[-1].hash) if chain else None
        at += timedelta(microseconds=1)
        chain.append(
            next_entry(last, at=at, actor=actor, action=action, subject=subject, details=details)
        )
    return chain


def head(chain: list[Entry]) -> tuple[int, str]:
    return (chain[-1].number, chain[-1].hash) if chain else (0, GENESIS)


CHAINS = st.lists(SAYINGS, min_size=1, max_size=6).map(build)


@given(CHAINS)
def test_a_chain_as_written_holds(chain: list[Entry]) -> None:
    assert first_broken(chain, head(chain)) is None
    half = len(chain) // 2
    assert first_broken(chain[half:], head(chain), start=chain[half - 1] if half else None) is None


@given(CHAINS, st.data())
def test_an_altered_row_is_found_where_it_is(chain: list[Entry], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(chain) - 1))
    field = data.draw(
        st.sampled_from(["actor", "action", "subject", "details", "hash", "at", "salt"])
    )
    old = getattr(chain[index], field)
    new = old + (timedelta(microseconds=1) if field == "at" else "x")
    altered = [*chain[:index], replace(chain[index], **{field: new}), *chain[index + 1 :]]
    broken = first_broken(altered, head(chain))
    assert broken is not None
    assert broken.number == index + 1


@given(CHAINS, st.data())
def test_a_row_rehashed_after_altering_breaks_the_next_or_the_head(
    chain: list[Entry], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(chain) - 1))
    old = chain[index]
    forged = next_entry(
        (old.number - 1, old.prev_hash),
        at=old.at,
        actor=old.actor + "x",
        action=old.action,
        subject=old.subject,
        details={},
    )
    broken = first_broken([*chain[:index], forged, *chain[index + 1 :]], head(chain))
    assert broken is not None


@given(CHAINS, st.data())
def test_a_removed_row_is_found(chain: list[Entry], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(chain) - 1))
    broken = first_broken([*chain[:index], *chain[index + 1 :]], head(chain))
    assert broken is not None
    assert (broken.number, broken.reason) == (index + 1, f"entry {index + 1} is missing")


@given(CHAINS, st.data())
def test_an_inserted_row_is_found(chain: list[Entry], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(chain)))
    before = chain[index - 1] if index else None
    forged = next_entry(
        (before.number, before.hash) if before else None,
        at=datetime(2026, 1, 1, tzinfo=UTC),
        actor="eve",
        action="approved",
        subject="x",
        details={},
    )
    broken = first_broken([*chain[:index], forged, *chain[index:]], head(chain))
    assert broken is not None
    # It is itself in order: what follows it is not, or the head, which is one before it.
    assert broken.number in {index + 1, index + 2}


@given(st.lists(SAYINGS, min_size=2, max_size=6).map(build), st.data())
def test_rows_that_changed_places_are_found(chain: list[Entry], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(chain) - 2))
    second = data.draw(st.integers(first + 1, len(chain) - 1))
    swapped = list(chain)
    swapped[first], swapped[second] = swapped[second], swapped[first]
    assert first_broken(swapped, head(chain)) is not None


def test_what_was_said_cannot_be_moved_between_fields() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    one = next_entry(None, at=at, actor="a", action="bc", subject="", details={})
    other = next_entry(None, at=at, actor="ab", action="c", subject="", details={})
    assert one.hash != other.hash


def test_the_same_moment_in_another_zone_is_the_same_entry() -> None:
    at = datetime(2026, 1, 1, 12, tzinfo=UTC)
    there = at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    (entry,) = build([("a", "b", "c", {})])
    moved = replace(entry, at=entry.at.astimezone(there.tzinfo))
    assert first_broken([moved]) is None


@given(CHAINS, st.data())
def test_an_entry_is_not_taken_for_one_of_another_version(
    chain: list[Entry], data: st.DataObject
) -> None:
    index = data.draw(st.integers(0, len(chain) - 1))
    turned = [*chain]
    turned[index] = replace(turned[index], version=data.draw(st.sampled_from([0, 1, 2, 4])))
    broken = first_broken(turned)
    assert broken is not None
    assert broken.number == index + 1


def test_chains_of_all_versions_hold() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    said = {"at": at, "actor": "a", "action": "b", "subject": "c", "details": {}}
    old = next_entry(None, **said, version=1)
    salt = "5a" * 16
    second = next_entry((old.number, old.hash), **said, version=2, salt=salt)
    third = next_entry((second.number, second.hash), **said, salt=salt)
    assert first_broken([old, second, third], (3, third.hash)) is None
    assert chained_hash(old.hash, 2, body_hash(second)) == second.hash
    whole = joined_hash(whose_hash("c", salt), said_hash(third))
    assert chained_hash(second.hash, 3, whole) == third.hash


def test_whose_an_entry_is_cannot_be_guessed_but_by_who_knows_a_uuid() -> None:
    own = "6e8bc430-9c3a-11d9-9669-0800200c9a66"
    assert whose_hash(own, "5a" * 16) == whose_hash(own)
    assert len({whose_hash("policy prod", salt) for salt in ("", "5a" * 16, "a5" * 16)}) == 3
    assert whose_hash(own.upper(), "5a" * 16) != whose_hash(own.upper())
