"""A snapshot's content is one text for one content, and a diff says what differs and no more."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.model import Cloud, Config, Resource
from tasks.snapshot import content_diff, content_of

SCALARS = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
CONFIGS = st.dictionaries(
    st.text(max_size=4),
    st.recursive(
        SCALARS,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=6,
    ),
    max_size=4,
)


def thing(config: dict[str, Any], etag: str = "") -> Resource:
    return Resource(Cloud.AZURE, "sub", "eu", "azure.x.y", "/x", "x", Config(config), etag=etag)


@given(CONFIGS)
def test_the_order_of_keys_and_the_etag_are_not_part_of_it(config: dict[str, Any]) -> None:
    turned = dict(reversed(config.items()))
    assert content_of(thing(config)) == content_of(thing(turned, etag='W/"2"'))
    assert json.loads(content_of(thing(config)))["resource"]["config"] == config


@given(CONFIGS, CONFIGS)
def test_a_diff_is_empty_only_for_equal_contents(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    before, after = content_of(thing(one)), content_of(thing(other))
    assert (content_diff(before, after) == ()) == (json.loads(before) == json.loads(after))
    assert len(content_diff(before, after)) == len(content_diff(after, before))


def test_what_hangs_on_it_is_compared_too() -> None:
    before = content_of(thing({}), {"subnets": [{"id": "/a"}]})
    after = content_of(thing({}), {"subnets": [{"id": "/a"}, {"id": "/b"}]})
    (change,) = content_diff(before, after)
    assert (change.field, change.before, change.after) == ("around.subnets[]", "–", '{"id":"/b"}')


def test_a_changed_item_of_a_list_is_compared_field_by_field() -> None:
    def rules(source: str) -> dict[str, Any]:
        return {"rules": [{"name": "ssh", "from": source, "port": 22}, {"name": "web"}]}

    (change,) = content_diff(content_of(thing(rules("*"))), content_of(thing(rules("10.0.0.0/8"))))
    assert (change.field, change.before, change.after) == (
        *("resource.config.rules[].from", "*", "10.0.0.0/8"),
    )


def test_what_is_added_and_removed_is_said_of_each() -> None:
    before = content_of(thing({"a": 1, "list": ["x", "y"]}))
    after = content_of(thing({"b": None, "list": ["z", "w", "y"]}))
    assert [(one.field, one.before, one.after) for one in content_diff(before, after)] == [
        ("resource.config.a", "1", "–"),
        ("resource.config.b", "–", "null"),
        ("resource.config.list[]", "x", "–"),
        ("resource.config.list[]", "–", "z"),
        ("resource.config.list[]", "–", "w"),
    ]
