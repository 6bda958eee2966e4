"""What the clouds would make of a rule's calls, by the simulators beside the examples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from tasks.model import Call, Cloud, Config, Resource, Step

Do = Callable[[Resource, Iterable[Step]], Resource]


def _apply(table: Any, resource: Resource, call: Call) -> Resource:
    assert call.cloud is resource.cloud
    if call.cloud is Cloud.AZURE:
        assert call.target.startswith(resource.id)
    config = copy.deepcopy(resource.config.as_dict())
    table.kinds[resource.kind]["apply"](config, call)
    return replace(resource, config=Config(config, resource.config.gaps))


@pytest.fixture(scope="session")
def apply(table: Any) -> Do:
    """Do every step's call."""

    def do(resource: Resource, steps: Iterable[Step]) -> Resource:
        for step in steps:
            resource = _apply(table, resource, step.call)
        return resource

    return do


@pytest.fixture(scope="session")
def undo(table: Any) -> Do:
    """Take every step back, the last one first."""

    def do(resource: Resource, steps: Iterable[Step]) -> Resource:
        for step in reversed(tuple(steps)):
            for call in step.undo:
                resource = _apply(table, resource, call)
        return resource

    return do


@pytest.fixture(scope="session")
def snapshot(table: Any) -> Callable[[Resource], Any]:
    """A resource's configuration without the order of what has none in the cloud."""

    def take(resource: Resource) -> Any:
        config = copy.deepcopy(resource.config.as_dict())
        return table.kinds[resource.kind].get("snapshot", lambda one: one)(config)

    return take
