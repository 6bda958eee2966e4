"""Which findings of a run may be changed at the same time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tasks.inventory import Inventory
from tasks.model import Account, Cloud
from tasks.policy import Mode, Policy
from tasks.remediation_run import Item, Run

GROUP = "/subscriptions/s/resourceGroups/g/providers"
SERVER = f"{GROUP}/Microsoft.Sql/servers/one"


def run_of(cloud: Cloud, resources: list[str]) -> Run:
    items = []
    for number, resource in enumerate(resources, start=1):
        plan: Any = SimpleNamespace(number=number, resource=SimpleNamespace(id=resource))
        items.append(Item(str(number), str(number), plan, "waiting"))
    account, policy = Account(cloud, "1", source="org"), Policy("close", Mode.AUTOMATIC)
    return Run("run", account, policy, "react", items, inventory=Inventory())


@given(st.lists(st.sampled_from("abcde"), max_size=12))
def test_turns_hold_all_findings_once_and_no_resource_twice(resources: list[str]) -> None:
    numbers = list(range(1, len(resources) + 1))
    turns = run_of(Cloud.AWS, resources).apart(numbers)
    assert sorted(number for turn in turns for number in turn) == numbers
    for turn in turns:
        assert turn
        named = [resources[number - 1] for number in turn]
        assert len(set(named)) == len(named)
    of_one = [number for turn in turns for number in turn if resources[number - 1] == "a"]
    assert of_one == sorted(of_one), "those of one resource are in the order of the table"


def test_parts_of_one_resource_of_azures_are_not_changed_at_once() -> None:
    resources = [
        f"{SERVER}/firewallRules/all",
        SERVER.upper(),
        f"{GROUP}/Microsoft.Sql/servers/two",
        "/subscriptions/s/providers/Microsoft.Security/pricings/KeyVaults",
    ]
    assert run_of(Cloud.AZURE, resources).apart([1, 2, 3, 4]) == [[1, 3, 4], [2]]
    assert run_of(Cloud.AWS, resources).apart([1, 2, 3, 4]) == [[1, 2, 3, 4]]
