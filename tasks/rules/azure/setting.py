"""Rules about one setting of an Azure resource: read it, set it, put it back. Data, not code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.model import (
    Call,
    Change,
    Cloud,
    Config,
    Fix,
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
    that a PUT must leave out, ``beside`` those that every call must say, and ``top`` what of the
    resource, beside its properties, a PUT would take away if it did not say it again. ``optional``:
    some resources of the kind have no such part (it is read as None), have nothing to set, and
    pass.
    """

    method: str
    api_version: str
    action: str
    part: str = PROPERTIES
    path: str = ""
    read_only: frozenset[str] = frozenset()
    beside: Mapping[str, Any] = field(default_factory=dict, hash=False)
    optional: bool = False
    top: tuple[str, ...] = ()

    def lacks(self, resource: Resource) -> bool:
        """Whether the resource is one that has no such part."""
        return self.optional and resource.config[self.part] is None

    def call(self, resource: Resource, properties: Mapping[str, Any]) -> Call:
        target = f"{resource.id}{self.path}"
        said = {name: resource.config[name] for name in self.top if name in resource.config}
        body = {**said, "properties": {**properties, **self.beside}}
        return Call(Cloud.AZURE, self.api_version, self.method, body, target)

    def changed(self, resource: Resource, path: str, value: Any) -> Mapping[str, Any]:
        """The body that leaves ``value`` at ``path``; _MISSING takes it away, where a PUT can."""
        return self.all_changed(resource, {path: value})

    def all_changed(self, resource: Resource, values: Mapping[str, Any]) -> Mapping[str, Any]:
        """The body that leaves each of ``values`` at its path."""
        new: Any = mapping(resource.config[self.part], self.part)
        for path, value in values.items():
            new = _put(new, path, value)
        if self.method == "PATCH":
            return {name: new[name] for name in (path.partition(".")[0] for path in values)}
        return {key: one for key, one in new.items() if key not in self.read_only}


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
        if home.lacks(resource):
            return True
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
    return judged(
        rule_id,
        kind,
        severity,
        title,
        home,
        (Wanted(path, good[0], meaning, unset),),
        passes=is_set(home, path, good, bad, absent=absent),
        reads=reads,
        guide=guide,
        aka=aka,
        events=events,
        fixable=fixable,
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a fix leaves at a path: ``good``, or what ``good`` makes of the old value.

    ``unset`` is as for ``setting``. ``for_good``: once there, the cloud never takes it away, so
    that the undo leaves it where there was nothing before.
    """

    path: str
    good: Any
    meaning: str
    unset: Any = None
    for_good: bool = False

    def value(self, old: Any) -> Any:
        return self.good(old) if callable(self.good) else self.good

    def back(self, old: Any) -> Any:
        """What the undo sets; _MISSING where it takes the setting away."""
        if self.for_good and not old:
            return self.value(old)
        back = self.unset if old is None else old
        return _MISSING if back is None else back

    def change(self, part: str, old: Any) -> Change:
        before = word(old)
        if self.for_good and not old:
            before += " (an undo cannot bring that back: it leaves what the fix sets)"
        elif old is None and self.unset is not None:
            before = f"not set (an undo can only set {word(self.unset)}, which means that)"
        return Change(f"{part}.{self.path}", before, f"{word(self.value(old))}: {self.meaning}")


def judged(
    rule_id: str,
    kind: str,
    severity: Severity,
    title: str,
    home: Home,
    wanted: tuple[Wanted, ...],
    *,
    passes: Predicate,
    reads: tuple[str, ...],
    guide: str,
    aka: tuple[str, ...] = (),
    events: tuple[str, ...] = (),
    fixable: bool = True,
    refuses: Callable[[Resource], None] = lambda _resource: None,
) -> Rule:
    """The row of settings that a predicate of its own judges, written with one call.

    ``refuses`` raises BadInput for a resource that the cloud, or care, would not let be fixed.
    """
    return Rule(
        id=rule_id,
        kind=kind,
        severity=severity,
        title=title,
        passes=passes,
        fix=_setter(home, wanted, passes, refuses) if fixable else None,
        reads=reads,
        writes=(home.action,) if fixable else (),
        events=events or (home.action,),
        aka=aka,
        undone=_left(home, wanted) if fixable else as_it_was,
        guide=guide,
    )


def _setter(
    home: Home,
    wanted: tuple[Wanted, ...],
    passes: Predicate,
    refuses: Callable[[Resource], None],
) -> Fix:
    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        if passes(resource):
            return ()
        refuses(resource)
        old = {one.path: value_at(resource, home.part, one.path) for one in wanted}
        todo = [one for one in wanted if one.value(old[one.path]) != old[one.path]]
        good = {one.path: one.value(old[one.path]) for one in todo}
        back = {one.path: one.back(old[one.path]) for one in todo}
        return (
            Step(
                home.action,
                home.call(resource, home.all_changed(resource, good)),
                (home.call(resource, home.all_changed(resource, back)),),
                tuple(one.change(home.part, old[one.path]) for one in todo),
            ),
        )

    return fix


def _left(home: Home, wanted: tuple[Wanted, ...]) -> Callable[[Resource], Resource]:
    """What the undo leaves of a resource that never had a setting: it has it outright."""

    def undone(before: Resource) -> Resource:
        if home.lacks(before):
            return before
        new: Any = mapping(before.config[home.part], home.part)
        for one in wanted:
            old = value_at(before, home.part, one.path)
            back = one.back(old)
            if back is not _MISSING and back != old:
                new = _put(new, one.path, back)
        parts = {**before.config.as_dict(), home.part: new}
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
    if value == []:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)
