"""What is read of an Azure subscription: the shapes, and what was covered."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.local.azure.server import EmulatedAzure
from deployments.templates import scanner_permissions
from tasks.calls import recording
from tasks.clouds.azure_api import AzureApi
from tasks.clouds.azure_collect import (
    COLLECTORS,
    collect,
    discover,
    look,
    read_one,
    settled,
)
from tasks.clouds.azure_collect import SUBSCRIPTION as SUBSCRIPTIONS
from tasks.clouds.azure_graph import GRAPH_READS
from tasks.clouds.transport import Limits
from tasks.errors import AccessRefused, CloudError, ResourceGone
from tasks.inventory import AzureSource
from tasks.model import Cloud, Covered, in_order
from tasks.rules import RULES

SUBSCRIPTION = "9a0c2a0e-1111-4222-8333-444455556602"
SOURCE = AzureSource(
    name="contoso",
    tenant="9a0c2a0e-1111-4222-8333-444455556601",
    client_id="9a0c2a0e-1111-4222-8333-444455556603",
    client_secret_env="UNUSED",
)
NSG = "azure.network.security_group"
STORAGE = "azure.storage.account"
# The kinds whose answers are given here, without the parts that calls of their own read; what
# every row reads is proved by test_contract.py.
BASE = (NSG, STORAGE)
NEEDED = frozenset(COLLECTORS[kind].read for kind in BASE)
GROUP = {
    "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/RG/providers/"
    "Microsoft.Network/networkSecurityGroups/Web",
    "name": "Web",
    "type": "Microsoft.Network/networkSecurityGroups",
    "location": "West Europe",
    "etag": 'W/"1"',
    "tags": {"env": "dev", "empty": None},
    "properties": {
        "provisioningState": "Succeeded",
        "resourceGuid": "g",
        "securityRules": [
            {
                "name": "ssh",
                "etag": 'W/"1"',
                "properties": {"provisioningState": "Succeeded", "access": "Allow"},
            }
        ],
    },
}
ACCOUNT = {
    "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/"
    "Microsoft.Storage/storageAccounts/data",
    "name": "data",
    "location": "westeurope",
    "kind": "StorageV2",
    "sku": {"name": "Standard_LRS"},
    "properties": {"supportsHttpsTrafficOnly": True, "statusOfPrimary": "available"},
}


NOT_THERE = ResourceGone("no", code="ResourceNotFound")


class ScriptedApi(AzureApi):
    """Answers lists from a table: the end of the path -> items, or an error."""

    def __init__(self, lists: dict[str, Any]) -> None:
        super().__init__(SOURCE)
        self._lists = lists

    async def items(self, path: str, api_version: str, **query: str) -> AsyncIterator[Any]:
        answer = self._lists.get(path.rpartition("/")[2], NOT_THERE)
        if isinstance(answer, Exception):
            raise answer
        for item in answer:
            yield item


async def test_kinds_in_the_shape_rules_read() -> None:
    api = ScriptedApi({"networkSecurityGroups": [GROUP], "storageAccounts": [ACCOUNT]})
    (group, account), coverage = await collect(api, SUBSCRIPTION, BASE, needed=NEEDED)
    assert group.id == str(GROUP["id"]).lower()
    assert (group.name, group.region, group.etag) == ("Web", "westeurope", 'W/"1"')
    assert group.tags == {"env": "dev", "empty": ""}
    assert group.config.as_dict() == {
        "name": "Web",
        "location": "westeurope",
        "properties": {"securityRules": [{"name": "ssh", "properties": {"access": "Allow"}}]},
    }
    assert account.config.as_dict() == {
        "name": "data",
        "location": "westeurope",
        "kind": "StorageV2",
        "sku": {"name": "Standard_LRS"},
        "properties": {"supportsHttpsTrafficOnly": True},
    }
    assert coverage == [Covered("global", NSG, ok=True), Covered("global", STORAGE, ok=True)]


WATCHED = "azure.network.subscription"
WATCHERS = "Microsoft.Network/networkWatchers/read"
SEEN = "Microsoft.Resources/subscriptions/read"


class OneSubscription(ScriptedApi):
    async def get(self, path: str, api_version: str, **query: str) -> dict[str, Any]:
        return {"id": path, "displayName": "one", "subscriptionId": SUBSCRIPTION}


async def test_subscription_that_is_only_seen_is_not_read() -> None:
    """Who may discover it gets it named; all that rules judge is refused."""
    refused = AccessRefused("no", code="AuthorizationFailed")
    parts = [part.path.rpartition("/")[2] for part in COLLECTORS[WATCHED].parts]
    api = OneSubscription(dict.fromkeys(parts, refused))
    assert await collect(api, SUBSCRIPTION, [WATCHED]) == (
        [],
        [Covered("global", WATCHED, ok=False, reason="refused: AuthorizationFailed: no")],
    )
    with pytest.raises(AccessRefused, match="AuthorizationFailed"):
        await read_one(api, SUBSCRIPTION, WATCHED, f"/subscriptions/{SUBSCRIPTION}")
    gone = OneSubscription({})  # no such provider, whichever is asked
    _, (covered,) = await collect(gone, SUBSCRIPTION, [WATCHED])
    assert not covered.ok


async def test_subscription_of_which_a_part_is_refused_has_a_gap() -> None:
    refused = AccessRefused("no", code="AuthorizationFailed")
    parts = [part.path.rpartition("/")[2] for part in COLLECTORS[WATCHED].parts]
    api = OneSubscription({**dict.fromkeys(parts, ()), "networkWatchers": refused})
    (found,), (covered,) = await collect(api, SUBSCRIPTION, [WATCHED])
    assert covered.ok
    assert found.config.gaps == {"watchers": "refused: AuthorizationFailed: no"}
    assert found.config["networks"] == []


async def test_what_is_listed_to_a_role_on_a_part_of_it_is_no_answer() -> None:
    """ARM lists what such a role may see; only what it may do on the whole tells that apart."""
    reads = [part.read(SUBSCRIPTIONS) for part in COLLECTORS[WATCHED].parts]
    parts = [part.path.rpartition("/")[2] for part in COLLECTORS[WATCHED].parts]
    lists: dict[str, Any] = {**dict.fromkeys(parts, ()), "networkSecurityGroups": [GROUP]}

    def may(*actions: str) -> ScriptedApi:
        permissions = [{"actions": actions, "notActions": []}]
        return OneSubscription({**lists, "permissions": permissions})

    part = "is not allowed on the whole subscription"
    only_seen = may(SEEN)
    nothing, coverage = await collect(only_seen, SUBSCRIPTION, [NSG, WATCHED])
    assert nothing == []
    assert [(one.ok, one.reason) for one in coverage] == [
        (False, f"refused: {COLLECTORS[NSG].read} {part}"),
        (False, f"refused: {reads[0]} {part}"),
    ]
    half_blind = may(SEEN, COLLECTORS[NSG].read, *(one for one in reads if one != WATCHERS))
    (group, found), coverage = await collect(half_blind, SUBSCRIPTION, [NSG, WATCHED])
    assert [one.ok for one in coverage] == [True, True]
    assert group.name == "Web"
    assert found.config.gaps == {"watchers": f"refused: {WATCHERS} {part}"}
    assert "watchers" not in found.config
    whole = may("*/read")
    (_, found), _ = await collect(whole, SUBSCRIPTION, [NSG, WATCHED])
    assert found.config.gaps == {}


async def test_kind_that_is_refused_harms_no_other() -> None:
    refused = AccessRefused("no", code="AuthorizationFailed")
    api = ScriptedApi({"networkSecurityGroups": refused, "storageAccounts": [ACCOUNT]})
    resources, coverage = await collect(api, SUBSCRIPTION, BASE, needed=NEEDED)
    assert [resource.kind for resource in resources] == [STORAGE]
    assert coverage[0] == Covered(
        "global", NSG, ok=False, reason="refused: AuthorizationFailed: no"
    )
    assert coverage[1].ok


@pytest.mark.parametrize("strange", [None, {}, "text", {**GROUP, "location": None}])
async def test_item_that_cannot_be_read_leaves_the_kind_uncovered(strange: Any) -> None:
    api = ScriptedApi({"networkSecurityGroups": [GROUP, strange]})
    resources, (covered,) = await collect(api, SUBSCRIPTION, [NSG])
    assert resources == []
    assert not covered.ok
    assert "cannot read" in covered.reason


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["etag", "a", "b", "ä"]), inner, max_size=3)
    ),
)


def without(value: Any, keys: frozenset[str]) -> Any:
    if isinstance(value, dict):
        return {key: without(part, keys) for key, part in value.items() if key not in keys}
    if isinstance(value, list):
        return [without(part, keys) for part in value]
    return value


@given(JSON)
def test_volatile_keys_go_and_lists_are_in_the_order_of_the_model(value: Any) -> None:
    keys = frozenset({"etag"})
    assert settled(value, keys) == in_order(without(value, keys))
    assert settled(value, frozenset()) == in_order(value)


@given(JSON)
def test_settling_leaves_what_it_was_given_alone(value: Any) -> None:
    before = copy.deepcopy(value)
    settled(value, frozenset({"etag"}))
    assert value == before


# --- Subscriptions -------------------------------------------------------------------------------


async def test_subscriptions_and_their_states() -> None:
    listed = [
        {"subscriptionId": SUBSCRIPTION.upper(), "displayName": "a", "state": "Enabled"},
        {"subscriptionId": "b", "displayName": "b", "state": "Disabled", "tags": {"env": "dev"}},
        {"subscriptionId": "c", "state": "PastDue"},
        {"subscriptionId": "d", "state": "Deleted"},
        {"subscriptionId": "e", "state": "Warned"},
    ]
    found = await discover(SOURCE, ScriptedApi({"subscriptions": listed}))
    assert [(one.id, one.scannable) for one in found] == [
        (SUBSCRIPTION, True),
        ("b", False),
        ("c", True),
        ("d", False),
        ("e", True),
    ]
    assert found[1].tags == {"env": "dev"}


async def test_listed_subscriptions_bound_what_is_scanned_and_are_never_lost() -> None:
    listed = [
        {"subscriptionId": SUBSCRIPTION, "displayName": "a", "state": "Enabled"},
        {"subscriptionId": "other", "displayName": "b", "state": "Enabled"},
    ]
    source = replace(SOURCE, subscriptions=(SUBSCRIPTION, "hidden"))
    found = await discover(source, ScriptedApi({"subscriptions": listed}))
    assert [(one.id, one.name, one.scannable) for one in found] == [
        (SUBSCRIPTION, "a", True),
        ("hidden", "", True),
    ]


@pytest.mark.parametrize("strange", [None, {"subscriptionId": "x"}, {"state": "Enabled"}])
async def test_subscription_that_cannot_be_read(strange: Any) -> None:
    with pytest.raises(CloudError, match="cannot read"):
        await discover(SOURCE, ScriptedApi({"subscriptions": [strange]}))


# --- The table -----------------------------------------------------------------------------------


def test_every_azure_rule_has_a_collector_that_reads_what_it_reads() -> None:
    for rule in RULES:
        if rule.cloud == "azure":
            assert set(rule.reads) <= set(COLLECTORS[rule.kind].reads), rule.id


def test_least_role_of_the_scanner_reads_every_kind_and_may_ask_the_graph() -> None:
    needed = {read for collector in COLLECTORS.values() for read in collector.reads}
    allowed = scanner_permissions(Cloud.AZURE)
    assert needed | GRAPH_READS <= set(allowed)
    assert all(action.endswith("/read") and "*" not in action for action in allowed)


async def test_what_hangs_on_a_group_is_seen_and_is_no_part_of_it() -> None:
    interface = {"id": "/nic/1", "etag": "w"}
    attached = {"networkInterfaces": [interface], "subnets": [{"id": "/subnets/b"}]}
    item = {**GROUP, "properties": {**GROUP["properties"], **attached}}  # type: ignore[dict-item]

    class OneGroup(ScriptedApi):
        async def get(self, path: str, api_version: str, **query: str) -> dict[str, Any]:
            return item

    seen = await look(OneGroup({}), SUBSCRIPTION, NSG, str(GROUP["id"]))
    assert seen.around == {
        "networkInterfaces": [{"id": "/nic/1"}],
        "subnets": [{"id": "/subnets/b"}],
    }
    listed = ScriptedApi({"networkSecurityGroups": [GROUP]})
    assert [seen.resource] == (await collect(listed, SUBSCRIPTION, [NSG]))[0]


@pytest.mark.slow
async def test_emulated_subscription_in_full(
    azure: EmulatedAzure, azure_source: AzureSource, subscription: str, quick: Limits
) -> None:
    async with AzureApi(azure_source, quick) as api:
        resources, coverage = await collect(api, subscription, COLLECTORS)
        assert all(covered.ok for covered in coverage)
        assert {resource.kind for resource in resources} >= set(BASE)
        for resource in resources:
            with recording() as calls:
                again = await read_one(api, subscription, resource.kind, resource.id)
            assert again == resource
            first, *of_parts = calls
            above = resource.id.removesuffix(COLLECTORS[resource.kind].view)
            assert (first.operation, first.target.lower()) == ("GET", above)
            assert all(call.target.lower().startswith(f"{above}/") for call in of_parts)
            assert all(call.request_id for call in calls)
            assert {call.status for call in calls} <= {200, 404}
            assert again.fingerprint == resource.fingerprint
        assert any(resource.etag for resource in resources)
        missing = resources[0].id + "-not-there"
        with pytest.raises(ResourceGone):
            await read_one(api, subscription, resources[0].kind, missing)
