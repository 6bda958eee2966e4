"""Fixes that are one call with good parameters, whose undo is a call with the old ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tasks.model import Call, Change, Cloud, Fix, Predicate, Resource, Step

Params = Callable[[Resource], Mapping[str, Any]]


def nothing(_resource: Resource) -> Mapping[str, Any]:
    return {}


def switch(
    action: str,
    service: str,
    operation: str,
    *,
    passes: Predicate,
    names: Params,
    good: Mapping[str, Any] | Params,
    old: Params,
    changes: Callable[[Resource], tuple[Change, ...]],
    back: str = "",
) -> Fix:
    """A planner of one call: what ``names`` the resource with ``good``.

    Its undo is the same call, or ``back``, with what ``names`` the resource and ``old``, both made
    of the resource as it was read. ``action`` is IAM's name of the permission, ``service`` and
    ``operation`` botocore's of the call. ``changes`` says, for people, what becomes of what.
    """

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        if passes(resource):
            return ()
        named = dict(names(resource))
        wanted = good(resource) if callable(good) else good
        call = Call(Cloud.AWS, service, operation, {**named, **wanted})
        undo = Call(Cloud.AWS, service, back or operation, {**named, **old(resource)})
        return (Step(action, call, (undo,), changes(resource)),)

    return fix


def becomes(field: str, before: str, after: str) -> Callable[[Resource], tuple[Change, ...]]:
    """One change that reads the same whatever the resource."""
    return lambda _resource: (Change(field, before, after),)
