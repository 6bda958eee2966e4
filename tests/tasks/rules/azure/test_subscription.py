"""Rules of a subscription as a whole: what is unknown, and what of it is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from tasks.clouds.azure_collect import COLLECTORS, read_one
from tasks.errors import ResourceGone
from tasks.model import Resource, Verdict
from tasks.rules import rule
from tasks.rules.azure.owners import ACCESS_ADMINISTRATOR, OWNER

PATH = "/subscriptions/s"
ROLES = f"{PATH}/providers/Microsoft.Authorization/roleDefinitions"
EDR = "06e3a6db-6c0c-4ad9-943f-31d9d73ecf6c"


class Arm:
    """ARM with these lists, by the end of their path, and nothing else."""

    def __init__(self, lists: Mapping[str, list[Any]], gone: tuple[str, ...] = ()) -> None:
        self.lists, self.gone = lists, gone
        self.given: list[Any] = []

    async def get(self, path: str, version: str) -> Any:
        if path.rpartition("/")[2] in self.gone:
            raise ResourceGone("is not there")
        named = {"id": path, "name": path.rpartition("/")[2], "displayName": "Acme"}
        key = {"attributes": {"enabled": True}, "keyUri": "https://x"}
        return {**named, "properties": key if "/keys/" in path else {"tenantId": "t"}}

    async def items(self, path: str, version: str, **query: str) -> AsyncIterator[Any]:
        name = path.rpartition("/")[2]
        assert (query == {"$filter": "atScope()"}) == (name == "roleAssignments")
        if name in self.gone:
            raise ResourceGone("is not registered")
        for item in self.lists.get(name, ()):
            self.given.append(item)
            yield item


def read(arm: Any, kind: str, id: str = "") -> Resource:
    return asyncio.run(read_one(arm, "s", kind, id))


def assignment(role: str, scope: str, kind: str = "User", who: str = "a") -> dict[str, Any]:
    given = {
        "roleDefinitionId": f"{ROLES}/{role}",
        "scope": scope,
        "principalId": who,
        "principalType": kind,
        "createdOn": "2026-01-01",
    }
    return {"name": f"{who}-{scope}", "properties": given}


def test_what_kinds_make_of_one_subscription_are_different_resources() -> None:
    views = [(one.itself, one.view) for one in COLLECTORS.values() if one.itself]
    assert len(set(views)) == len(views)


def test_roles_that_do_not_give_the_subscription_away_are_left_out() -> None:
    contributor = "b24988ac-6180-42a0-ab88-20f7382dd24c"
    lists = [
        assignment(OWNER, PATH),
        assignment(OWNER.upper(), "/providers/Microsoft.Management/managementGroups/all"),
        assignment(ACCESS_ADMINISTRATOR, "/"),
        assignment(contributor, PATH),
    ]
    seen = read(Arm({"roleAssignments": lists}), "azure.authorization.subscription")
    assert seen.id == f"{PATH}/providers/microsoft.authorization"
    assert seen.name == "Acme"
    assert len(seen.config["roleAssignments"]) == 3
    assert all("createdOn" not in one["properties"] for one in seen.config["roleAssignments"])


@pytest.mark.parametrize(
    ("kinds", "verdict"),
    [
        ("User Group", Verdict.UNKNOWN),
        ("Group", Verdict.UNKNOWN),
        ("User User User User ForeignGroup", Verdict.FAIL),
        ("User User User Group", Verdict.UNKNOWN),
        ("User ForeignGroup", Verdict.UNKNOWN),
    ],
)
def test_a_group_among_the_owners_hides_its_members(kinds: str, verdict: Verdict) -> None:
    lists = [
        assignment(OWNER, PATH, kind, str(number)) for number, kind in enumerate(kinds.split())
    ]
    seen = read(Arm({"roleAssignments": lists}), "azure.authorization.subscription")
    assert rule("azure_authorization_subscription_two_or_three_owners").judge(seen)[0] is verdict


def test_a_long_list_is_not_read_to_know_that_it_is_not_empty() -> None:
    arm = Arm({"virtualMachines": [{"name": "a"}, {"name": "b"}, {"name": "c"}]})
    seen = read(arm, "azure.network.subscription")
    assert (seen.config["machines"], seen.config["bastions"]) == (True, False)
    assert arm.given == [{"name": "a"}]


def test_a_provider_that_is_not_there_is_a_gap_and_the_subscription_stays() -> None:
    seen = read(Arm({}, gone=("bastionHosts",)), "azure.network.subscription")
    assert "bastions" in seen.config.gaps
    assert rule("azure_network_subscription_bastion_host").judge(seen)[0] is Verdict.UNKNOWN
    watched = rule("azure_network_subscription_watchers_in_every_region")
    assert watched.judge(seen)[0] is Verdict.PASS


def assessed(name: str, code: str) -> dict[str, Any]:
    return {"name": name, "properties": {"status": {"code": code, "cause": "x"}, "displayName": ""}}


def test_what_defender_says_alike_of_many_machines_is_kept_once() -> None:
    said = [assessed(EDR, "Healthy")] * 3 + [assessed("another", "Unhealthy")]
    seen = read(Arm({"assessments": said}), "azure.security.subscription")
    kept = [{"name": EDR, "properties": {"status": {"code": "Healthy"}}}]
    assert seen.config["assessments"] == kept


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        ([], Verdict.UNKNOWN),
        ([assessed(EDR, "Perhaps")], Verdict.UNKNOWN),
        ([assessed(EDR, "Healthy")], Verdict.PASS),
    ],
)
def test_machines_that_nobody_looked_at_are_unknown(said: list[Any], verdict: Verdict) -> None:
    arm = Arm({"assessments": said, "virtualMachines": [{"name": "a"}]})
    judged = rule("azure_security_subscription_endpoint_protection_installed")
    assert judged.judge(read(arm, "azure.security.subscription"))[0] is verdict


def test_keys_are_asked_for_one_by_one_and_one_may_be_gone() -> None:
    keys = [
        {"name": name, "properties": {"attributes": {"enabled": name != "off"}}}
        for name in ("disk", "gone", "off")
    ]
    id = f"{PATH}/resourcegroups/rg/providers/microsoft.keyvault/vaults/acme"
    seen = read(Arm({"keys": keys}, gone=("gone",)), "azure.keyvault.vault", id)
    kept = [{"name": "disk", "properties": {"attributes": {"enabled": True}}}]
    assert seen.config["rotation"] == kept
