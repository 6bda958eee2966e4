"""Rules about one setting of an Azure resource: read it, set it, put it back. Data, not code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tasks.model import (
    Call,
    Change,
    Cloud,
    Config,
    Predicate,
    Resource,
    Rule,
    Severity,
    Step,
    as_it_was,
)
from tasks.rules.shape import mapping, odd

PROPERTIES = "properties"
_MISSING = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where settings of a kind are written: which part of the configuration they stand in, and how.

    ``part`` is "properties" for the resource's own, or the name of a part that a child is read as;
    ``path`` is the child's, below the resource. A PATCH names the one property that changes (with
    all of the object around it); a PUT sends the whole part again. ``read_only`` are properties
    that a PUT must leave out.
    """

    method: str
    api_version: str
    action: str
    part: str = PROPERTIES
    path: str = ""
    read_only: frozenset[str] = frozenset()

    def call(self, resource: Resource, properties: Mapping[str, Any]) -> Call:
        target = f"{resource.id}{self.path}"
        body = {"properties": dict(properties)}
        return Call(Cloud.AZURE, self.api_version, self.method, body, target)

    def changed(self, resource: Resource, path: str, value: Any) -> Mapping[str, Any]:
        """The body that leaves ``value`` at ``path``; _MISSING takes it away, where a PUT can."""
        own = mapping(resource.config[self.part], self.part)
        name, _, rest = path.partition(".")
        new = _put(own.get(name), rest, value) if rest else value
        if self.method == "PATCH":
            return {name: new}
        whole = {key: one for key, one in own.items() if key not in self.read_only}
        whole[name] = new
        return {key: one for key, one in whole.items() if one is not _MISSING}


def value_at(resource: Resource, part: str, path: str) -> Any:
    """The value at a path of dots, None where it is absent. Raises MissingData for a gap."""
    found: Any = resource.config[part]
    where = part
    for name in path.split("."):
        if found is None:
            return None
        found = mapping(found, where).get(name)
        where = f"{where}.{name}"
    return found


def is_set(
    home: Home, path: str, good: tuple[Any, ...], bad: tuple[Any, ...], *, absent: bool | None
) -> Predicate:
    """A predicate: the setting has a good value.

    Only what is in ``bad`` fails: a value that no documentation knows is unknown. ``absent`` is
    what a resource passes or fails that does not have it; None: it cannot be told.
    """

    def passes(resource: Resource) -> bool:
        value = value_at(resource, home.part, path)
        if value is None:
            if absent is None:
                raise odd(f"{home.part}.{path}")
            return absent
        known = [one for one in (*good, *bad) if type(one) is type(value) and one == value]
        if not known:
            raise odd(f"{home.part}.{path}")
        return any(type(one) is type(value) and one == value for one in good)

    return passes


def setting(
    rule_id: str,
    kind: str,
    severity: Severity,
    title: str,
    home: Home,
    path: str,
    *,
    good: tuple[Any, ...],
    bad: tuple[Any, ...],
    meaning: str,
    reads: tuple[str, ...],
    guide: str,
    absent: bool | None = None,
    unset: Any = None,
    aka: tuple[str, ...] = (),
    events: tuple[str, ...] = (),
    fixable: bool = True,
) -> Rule:
    """The row of one setting; the first of ``good`` is what the fix sets.

    ``absent`` is as for ``is_set``. Where the cloud has no way back to "never set", ``unset`` is
    what absence means, and what the undo sets.
    """
    passes = is_set(home, path, good, bad, absent=absent)
    return Rule(
        id=rule_id,
        kind=kind,
        severity=severity,
        title=title,
        passes=passes,
        fix=_setter(home, path, good[0], meaning, passes, unset) if fixable else None,
        reads=reads,
        writes=(home.action,) if fixable else (),
        events=events or (home.action,),
        aka=aka,
        undone=_left(home, path, unset) if unset is not None and fixable else as_it_was,
        guide=guide,
    )


def _setter(
    home: Home, path: str, good: Any, meaning: str, passes: Predicate, unset: Any
) -> Callable[[Resource, Mapping[str, Any]], tuple[Step, ...]]:
    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        if passes(resource):
            return ()
        old = value_at(resource, home.part, path)
        before = word(old)
        if old is None and unset is not None:
            before = f"not set (an undo can only set {word(unset)}, which means that)"
        back = old if old is not None else unset if unset is not None else _MISSING
        return (
            Step(
                home.action,
                home.call(resource, home.changed(resource, path, good)),
                (home.call(resource, home.changed(resource, path, back)),),
                (Change(f"{home.part}.{path}", before, f"{word(good)}: {meaning}"),),
            ),
        )

    return fix


def _left(home: Home, path: str, unset: Any) -> Callable[[Resource], Resource]:
    """What the undo leaves of a resource that never had the setting: it has it outright."""

    def undone(before: Resource) -> Resource:
        if value_at(before, home.part, path) is not None:
            return before
        own = mapping(before.config[home.part], home.part)
        name, _, rest = path.partition(".")
        new = _put(own.get(name), rest, unset) if rest else unset
        parts = {**before.config.as_dict(), home.part: {**own, name: new}}
        return replace(before, config=Config(parts, before.config.gaps))

    return undone


def _put(standing: Any, path: str, value: Any) -> Any:
    """``standing`` with ``value`` at ``path``; what it holds beside that stays."""
    name, _, rest = path.partition(".")
    own = dict(mapping(standing, name)) if standing is not None else {}
    own[name] = _put(own.get(name), rest, value) if rest else value
    kept = {key: one for key, one in own.items() if one is not _MISSING}
    return kept if kept or standing is not None else _MISSING


def word(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return "not set"
    return str(value).lower() if isinstance(value, bool) else str(value)
