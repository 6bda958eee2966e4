"""Samples of events, damaged in every way that JSON can be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
Damage = Callable[[Any], st.SearchStrategy[Any]]


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON value but the whole of it."""
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    return [place for key, part in items for place in ((*path, key), *_places(part, (*path, key)))]


@st.composite
def _damaged(draw: st.DrawFn, sample: Any) -> Any:
    """The sample with some of its parts gone, or something else in their place."""
    found = copy.deepcopy(sample)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(found)
        if not places:
            break
        *before, last = draw(st.sampled_from(places))
        at = found
        for step in before:
            at = at[step]
        if draw(st.booleans()):
            at[last] = draw(JSON)
        else:
            del at[last]
    return found


@pytest.fixture(scope="session")
def damage() -> Damage:
    return _damaged
