"""What a snapshot holds, as one text per content, and what two of them differ in. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.model import Change, Resource, canonical_json
from tasks.plan import resource_json

ABSENT = "–"


@dataclass(frozen=True, slots=True)
class Seen:
    """A resource as it was read, and what hangs on it as far as the scanner may read that."""

    resource: Resource
    around: Mapping[str, Any] = field(default_factory=dict)


def content_of(resource: Resource, around: Mapping[str, Any] | None = None) -> str:
    """A resource as it was read, and what hangs on it (``around``), as canonical JSON.

    Its sha256 is the snapshot's address. ARM's ETag is left out: it changes with every write, also
    with one that puts back what was there.
    """
    described = {name: part for name, part in resource_json(resource).items() if name != "etag"}
    return canonical_json({"resource": described, "around": dict(around or {})})


def content_diff(before: str, after: str) -> tuple[Change, ...]:
    """What differs between two contents, field by field, in the order of the fields' names.

    A list whose objects are a set for the cloud is compared as one: by what is in it.
    """
    return tuple(_differences("", json.loads(before), json.loads(after)))


_NOTHING = object()


def _differences(field: str, old: Any, new: Any) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            inner = f"{field}.{name}" if field else name
            yield from _differences(inner, old.get(name, _NOTHING), new.get(name, _NOTHING))
    elif isinstance(old, list) and isinstance(new, list):
        yield from _list_differences(field, old, new)
    else:
        yield Change(field, _text(old), _text(new))


def _list_differences(field: str, old: list[Any], new: list[Any]) -> Iterator[Change]:
    """Items that only one has; where just one was exchanged for another, what in it changed."""
    added = list(new)
    gone = []
    for item in old:
        if item in added:
            added.remove(item)
        else:
            gone.append(item)
    if len(gone) == len(added) == 1:
        yield from _differences(f"{field}[]", gone[0], added[0])
        return
    for item in gone:
        yield Change(f"{field}[]", _text(item), ABSENT)
    for item in added:
        yield Change(f"{field}[]", ABSENT, _text(item))
    if not gone and not added:
        yield Change(field, _text(old), _text(new))  # the order, and nothing else


def _text(value: Any) -> str:
    if value is _NOTHING:
        return ABSENT
    return value if isinstance(value, str) else canonical_json(value)
