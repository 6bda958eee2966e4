"""Kinds that ARM lists in a way of their own: settings nobody has made, filtered lists, parts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest

from tasks.clouds.azure_api import AzureApi
from tasks.clouds.azure_collect import COLLECTORS, collect, look, read_one
from tasks.errors import AccessRefused, ResourceGone
from tasks.inventory import AzureSource

if TYPE_CHECKING:
    from deployments.local.azure.server import EmulatedAzure
    from tasks.clouds.transport import Limits

SUBSCRIPTION = "6f3ee3b4-0c9f-4f3b-9c55-0f1f6f0f3b11"
SECURITY = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Security"
CONTACT = "azure.security.contact"
OURS = [
    "azure.web.site",
    "azure.sql.server",
    "azure.dbformysql.server",
    "azure.dbforpostgresql.server",
    "azure.dbformysql.flexible_server",
    "azure.dbforpostgresql.flexible_server",
    "azure.network.virtual_network",
    "azure.network.flow_log",
    "azure.authorization.role_definition",
    "azure.security.contact",
    "azure.security.pricing",
]


class Told(AzureApi):
    """Answers from two tables, and remembers the queries of its lists."""

    def __init__(self, lists: dict[str, Any], things: dict[str, Any]) -> None:
        super().__init__(
            AzureSource(name="s", tenant="t", client_id="c", client_secret_env="NOT_THERE")
        )
        self._lists, self._things = lists, things
        self.queries: list[dict[str, str]] = []

    async def items(self, path: str, api_version: str, **query: str) -> AsyncIterator[Any]:
        if path.endswith("/permissions"):
            raise AccessRefused("no", code="AuthorizationFailed")
        self.queries.append(query)
        for item in self._lists[path.rpartition("/")[2]]:
            yield item

    async def get(self, path: str, api_version: str, **query: str) -> dict[str, Any]:
        for end, thing in self._things.items():
            if path.endswith(end):
                return dict(thing)
        raise ResourceGone("no", code="ResourceNotFound")


async def test_a_setting_that_nobody_has_made_is_there_without_properties() -> None:
    api = Told({"securityContacts": []}, {})
    (contact,), (covered,) = await collect(api, SUBSCRIPTION, [CONTACT])
    assert covered.ok
    assert contact.id == f"{SECURITY}/securityContacts/default".lower()
    assert contact.config.as_dict() == {"name": "default", "properties": {}}
    again = await read_one(api, SUBSCRIPTION, CONTACT, contact.id)
    assert again == contact


async def test_a_setting_that_somebody_has_made_is_there_once() -> None:
    item = {
        "id": f"{SECURITY}/securityContacts/default",
        "name": "default",
        "properties": {"emails": "a@example.com"},
    }
    api = Told({"securityContacts": [item]}, {})
    (contact,), _ = await collect(api, SUBSCRIPTION, [CONTACT])
    assert contact.config["properties"] == {"emails": "a@example.com"}


async def test_what_is_always_there_is_not_what_is_not() -> None:
    with pytest.raises(ResourceGone):
        await look(Told({}, {}), SUBSCRIPTION, CONTACT, f"{SECURITY}/securitycontacts/other")


async def test_only_custom_roles_are_asked_for() -> None:
    api = Told({"roleDefinitions": []}, {})
    await collect(api, SUBSCRIPTION, ["azure.authorization.role_definition"])
    assert api.queries == [{"$filter": "type eq 'CustomRole'"}]


@pytest.mark.parametrize("said", [{}, {"identity": None}, {"identity": {"type": "None"}}])
async def test_a_site_and_its_parts(said: dict[str, Any]) -> None:
    provider = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Web"
    site = {
        "id": f"{provider}/sites/acme",
        "name": "acme",
        "location": "West Europe",
        "properties": {"httpsOnly": True, "siteConfig": {}, "usageState": "Normal"},
        **said,
    }
    things = {
        "/config/web": {"properties": {"minTlsVersion": "1.2", "appCommandLine": "secret"}},
        "/config/authsettingsV2": {"properties": {"platform": {"enabled": True}}},
    }
    api = Told({"sites": [site], "diagnosticSettings": []}, things)
    (found,), _ = await collect(api, SUBSCRIPTION, ["azure.web.site"])
    assert found.config.as_dict() == {
        "name": "acme",
        "location": "westeurope",
        "identity": {"type": "None"},
        "properties": {"httpsOnly": True},
        "config/web": {"minTlsVersion": "1.2"},
        "config/authsettingsV2": {"platform": {"enabled": True}},
        "diagnosticSettings": [],
    }


async def test_a_part_of_a_strange_form_is_a_gap() -> None:
    server = {"id": f"/subscriptions/{SUBSCRIPTION}/x/y", "name": "db", "properties": {}}
    things = {"/require_secure_transport": {"properties": ["ON"]}}
    (found,), _ = await collect(
        Told({"flexibleServers": [server]}, things),
        SUBSCRIPTION,
        ["azure.dbformysql.flexible_server"],
    )
    assert "cannot read" in found.config.gaps["require_secure_transport"]


@pytest.mark.slow
async def test_every_kind_is_read_in_the_emulated_subscription(
    azure: EmulatedAzure, azure_source: AzureSource, subscription: str, quick: Limits
) -> None:
    async with AzureApi(azure_source, quick) as api:
        resources, coverage = await collect(api, subscription, OURS)
        assert [one.kind for one in coverage] == OURS
        assert [one.reason for one in coverage] == [""] * len(OURS)
        plans = [one for one in resources if one.kind == "azure.security.pricing"]
        assert len(plans) == 12
        assert sum(one.kind == CONTACT for one in resources) == 1
        for one in resources:
            assert await read_one(api, subscription, one.kind, one.id) == one
    assert set(OURS) <= COLLECTORS.keys()
