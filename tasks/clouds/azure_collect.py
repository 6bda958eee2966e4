"""What Suture reads of an Azure subscription: one row per kind of resource.

ARM lists every type the same way, so a kind is data: its type, its api-version and which parts of
an answer are configuration. ``COLLECTORS`` is all there is to add to for a new kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.clouds.azure_api import AzureApi
from tasks.clouds.transport import reason
from tasks.errors import CloudError
from tasks.inventory import AzureSource
from tasks.model import Account, Cloud, Config, Covered, Resource, in_order

EVERY_REGION = "global"  # Covered.region of what one list answers for all regions at once
SUBSCRIPTIONS_API = "2022-12-01"

# What ARM changes by itself: no rule reads it, and it must not look like drift.
VOLATILE = frozenset({"etag", "provisioningState", "resourceGuid"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """How one kind is read: the ARM type it has, and the top-level keys that are configuration."""

    kind: str
    type: str
    api_version: str
    keys: tuple[str, ...]
    volatile: frozenset[str] = VOLATILE

    @property
    def reads(self) -> tuple[str, ...]:
        """The Azure operations that listing and re-reading need."""
        return (f"{self.type}/read",)


COLLECTORS: Mapping[str, Collector] = {
    collector.kind: collector
    for collector in (
        Collector(
            kind="azure.network.security_group",
            type="Microsoft.Network/networkSecurityGroups",
            api_version="2024-05-01",
            keys=("name", "location", "properties"),
            # What is attached to a group changes with every machine, and no rule reads it.
            volatile=VOLATILE | {"networkInterfaces", "subnets", "flowLogs"},
        ),
        Collector(
            kind="azure.storage.account",
            type="Microsoft.Storage/storageAccounts",
            api_version="2023-05-01",
            keys=("name", "location", "kind", "sku", "properties"),
            volatile=VOLATILE | {"statusOfPrimary", "statusOfSecondary", "lastGeoFailoverTime"},
        ),
    )
}


async def collect(
    api: AzureApi, subscription: str, kinds: Iterable[str]
) -> tuple[list[Resource], list[Covered]]:
    """Everything of ``kinds`` in the subscription, and what of it was read to the end.

    Never raises CloudError: a kind that ARM refuses is a Covered that is not ok.
    """
    answers = await asyncio.gather(
        *(_collect_one(api, subscription, COLLECTORS[kind]) for kind in kinds)
    )
    resources = [resource for found, _ in answers for resource in found]
    return resources, [covered for _, covered in answers]


async def _collect_one(
    api: AzureApi, subscription: str, collector: Collector
) -> tuple[list[Resource], Covered]:
    path = f"/subscriptions/{subscription}/providers/{collector.type}"
    try:
        resources = [
            _resource(subscription, collector, item)
            async for item in api.items(path, collector.api_version)
        ]
    except CloudError as error:
        covered = Covered(EVERY_REGION, collector.kind, ok=False, reason=reason(error))
        return [], covered
    return resources, Covered(EVERY_REGION, collector.kind, ok=True)


async def read_one(api: AzureApi, subscription: str, kind: str, resource_id: str) -> Resource:
    """One resource as it is now. Raises ResourceGone, or another CloudError."""
    collector = COLLECTORS[kind]
    item = await api.get(resource_id, collector.api_version)
    return _resource(subscription, collector, item)


def _resource(subscription: str, collector: Collector, item: Any) -> Resource:
    try:
        return Resource(
            cloud=Cloud.AZURE,
            account=subscription,
            region=item["location"].lower().replace(" ", ""),
            kind=collector.kind,
            id=item["id"].lower(),
            name=item["name"],
            config=Config(
                {
                    key: in_order(without(item[key], collector.volatile))
                    for key in collector.keys
                    if key in item
                }
            ),
            tags={key: value or "" for key, value in (item.get("tags") or {}).items()},
            etag=item.get("etag", ""),
        )
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"ARM described a {collector.type} that Suture cannot read: {error!r}"
        raise CloudError(problem, operation=f"GET {collector.type}") from None


def without(value: Any, keys: frozenset[str]) -> Any:
    """``value`` with ``keys`` taken out of every object in it, at any depth."""
    if isinstance(value, dict):
        return {key: without(part, keys) for key, part in value.items() if key not in keys}
    if isinstance(value, list):
        return [without(part, keys) for part in value]
    return value


async def discover(source: AzureSource, api: AzureApi) -> list[Account]:
    """The subscriptions of a source, disabled ones too.

    One that the inventory lists but the identity does not see is still there: scanning it will
    say why it cannot be read.
    """
    seen = {
        account.id: account
        async for account in _subscriptions(source, api)
        if not source.subscriptions or account.id in source.subscriptions
    }
    for id in source.subscriptions:
        if id not in seen:
            seen[id] = Account(cloud=Cloud.AZURE, id=id, source=source.name, status="enabled")
    return list(seen.values())


async def _subscriptions(source: AzureSource, api: AzureApi) -> Any:
    async for item in api.items("/subscriptions", SUBSCRIPTIONS_API):
        try:
            yield Account(
                cloud=Cloud.AZURE,
                id=item["subscriptionId"].lower(),
                name=item.get("displayName", ""),
                source=source.name,
                status=item["state"].lower(),
                tags=item.get("tags") or {},
            )
        except (KeyError, TypeError, AttributeError):
            problem = "ARM described a subscription that Suture cannot read"
            raise CloudError(problem, operation="GET /subscriptions") from None
