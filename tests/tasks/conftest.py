"""The examples of every rule, and what is known of every kind that rules are about.

They stand in tests/tasks/rules/examples, a file for each service. EXAMPLES has, for each rule, the
configurations that pass, those that fail, and the part of the configuration without which nothing
can be said. KINDS has, for each kind,

- "id": one resource's id, and its "region" where that is "global";
- "apply": (config, call) -> None, what the cloud's API makes of a call, strict where it is;
- "plant": (cloud, config) -> id, a resource with that configuration in an emulated cloud;
- "snapshot", if the cloud keeps things in no order: config -> something to compare;
- "failing", if its examples do not say enough: rule -> a strategy of failing configurations.
"""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from tasks.model import Config, Resource, Rule, Verdict
from tasks.rules import RULES

Configs = st.SearchStrategy[dict[str, Any]]
FOLDER = Path(__file__).parent / "rules" / "examples"


@dataclass
class Table:
    """All that the files say, and what can be made of it."""

    examples: dict[str, tuple[list[Any], list[Any], str]] = field(default_factory=dict)
    kinds: dict[str, dict[str, Any]] = field(default_factory=dict)

    def resource(
        self, row: Rule, config: Mapping[str, Any], gaps: dict[str, str] | None = None
    ) -> Resource:
        """A resource of the rule's kind."""
        kind = self.kinds[row.kind]
        return Resource(
            cloud=row.cloud,
            account="111122223333",
            region=kind.get("region", "eu-central-1"),
            kind=row.kind,
            id=kind["id"],
            name="example",
            config=Config(copy.deepcopy(dict(config)), gaps),
        )

    def values(self, row: Rule) -> dict[str, Any]:
        """Values for the inputs of a fix: its defaults, or what stands in them."""
        given: dict[str, Any] = {}
        for one in row.inputs:
            if one.kind == "cidrs":
                given[one.name] = ()
            elif one.kind == "number":
                given[one.name] = int(one.default) if one.default else 14
            else:
                given[one.name] = one.default or self.kinds[row.kind]["values"][one.name]
        return given

    def failing(self, row: Rule) -> Configs:
        """Configurations on which the rule fails, as the scanner would read them."""
        kind = self.kinds[row.kind]
        made = kind["failing"](row) if "failing" in kind else self._mixed(row)
        return made.map(lambda config: json.loads(json.dumps(config)))

    def _mixed(self, row: Rule) -> Configs:
        """A failing example, with other things taken from other examples of the kind."""
        every = [
            config
            for one in RULES
            if one.kind == row.kind
            for config in (*self.examples[one.id][0], *self.examples[one.id][1])
        ]
        values: dict[str, list[Any]] = {}
        for config in every:
            for name, value in _flat(config).items():
                values.setdefault(name, []).append(value)

        @st.composite
        def draw_one(draw: st.DrawFn) -> dict[str, Any]:
            config = copy.deepcopy(draw(st.sampled_from(self.examples[row.id][1])))
            for name in draw(st.lists(st.sampled_from(sorted(values)), max_size=4, unique=True)):
                if _flat(config).keys() >= {name} or draw(st.booleans()):
                    changed = _put(config, name, draw(st.sampled_from(values[name])))
                    if row.judge(self.resource(row, changed))[0] is Verdict.FAIL:
                        config = changed
            return config

        return draw_one()


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Its parts, and the properties of parts that are objects, by their path."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if name == "properties" and isinstance(value, Mapping):
            found |= {f"{name}/{inner}": one for inner, one in value.items()}
        else:
            found[name] = value
    return found


def _put(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(config)
    name, _, inner = path.partition("/")
    if inner:
        changed.setdefault(name, {})[inner] = copy.deepcopy(value)
    else:
        changed[name] = copy.deepcopy(value)
    return changed


@pytest.fixture(scope="session")
def table() -> Table:
    found = Table()
    for path in sorted(FOLDER.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"examples_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert not found.examples.keys() & module.EXAMPLES.keys()
        found.examples |= module.EXAMPLES
        for kind, known in module.KINDS.items():
            found.kinds[kind] = {**found.kinds.get(kind, {}), **known}
    return found


@pytest.fixture(scope="session")
def failing_configs(table: Table) -> Callable[[Rule], Configs]:
    """``failing_configs(rule)``: a strategy of configurations on which the rule fails."""
    return table.failing
