"""Canonical JSON: whatever writes it, the same text, because hashes are taken of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.model import Cloud, Config, Resource, canonical_json, sha256


def by_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


ANY_TEXT = st.text() | st.text(st.characters(exclude_categories=())) | st.sampled_from(Cloud)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | ANY_TEXT
    | st.datetimes(timezones=st.none() | st.just(UTC))
    | st.dates()
    | st.times()
    | st.uuids()
    | st.decimals()
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(ANY_TEXT, inner, max_size=5)
        | st.dictionaries(st.integers(0, 9), inner, max_size=2)
    ),
    max_leaves=20,
)


@settings(max_examples=500, deadline=None)
@given(VALUES)
@example([1e16, -1.5, float("nan")])
@example({"a": -1e-07})
@example("\x7f")
@example([{"é": 1, "z": 2}])
@example(2**64)
@example("\ud800")
def test_it_is_what_json_writes(value: Any) -> None:
    assert canonical_json(value) == by_json(value)


@pytest.mark.parametrize("digits", ["0", "12", "-7"])
@pytest.mark.parametrize("rest", [".5", "e3", "e-3"])
def test_text_that_looks_like_a_number_is_written_as_well(digits: str, rest: str) -> None:
    value = {"a": f"x,{digits}{rest}:{digits}{rest}", "b": [f"[{digits}{rest}"]}
    assert canonical_json(value) == by_json(value)


def test_a_fingerprint_is_of_id_configuration_and_gaps() -> None:
    parts = {"At": datetime(2026, 1, 1, tzinfo=UTC), "Name": "é", "Ports": [22, 3389]}
    one = Resource(Cloud.AWS, "1", "eu", "aws.x.y", "arn:é", "n", Config(parts, {"Policy": "no"}))
    assert one.fingerprint == sha256(by_json(["arn:é", parts, {"Policy": "no"}]))
