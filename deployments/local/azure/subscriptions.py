"""Microsoft.Resources: subscriptions, resource groups, the generic resource list, providers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deployments.local.azure.operations import OperationFailure
from deployments.local.azure.protocol import (
    ArmError,
    ArmRequest,
    Reply,
    ResourceKind,
    body_object,
    method_not_allowed,
    tags_of,
)
from deployments.local.azure.tenant import Resource, ResourceGroup, Subscription, Tenant

API_VERSIONS = (
    "2025-04-01",
    "2025-03-01",
    "2024-11-01",
    "2024-08-01",
    "2024-07-01",
    "2024-03-01",
    "2023-07-01",
    "2022-12-01",
    "2022-09-01",
    "2022-01-01",
    "2021-04-01",
    "2021-01-01",
    "2020-10-01",
    "2020-06-01",
    "2020-01-01",
    "2019-11-01",
    "2019-10-01",
    "2019-06-01",
    "2018-05-01",
    "2016-06-01",
)
LOCATIONS = ("germanywestcentral", "westeurope", "northeurope", "westus", "eastus")
_NAME = re.compile(r"[\w().-]{0,89}[\w()-]")
_TERM = re.compile(
    r"(?P<field>resourceType|name|location|resourceGroup|tagName|tagValue)\s+"
    r"(?P<sign>eq|ne)\s+'(?P<value>[^']*)'",
    re.IGNORECASE,
)


def render_subscription(subscription: Subscription, tenant_id: str) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/{subscription.id}",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": subscription.id,
        "tenantId": tenant_id,
        "displayName": subscription.name,
        "state": subscription.state,
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "PayAsYouGo_2014-09-01",
            "spendingLimit": "Off",
        },
    }


def visible_subscriptions(tenant: Tenant, principal: str) -> list[dict[str, Any]]:
    """Every subscription where the principal has a role: on it, above it or inside it."""
    now = tenant.clock()
    return [
        render_subscription(subscription, tenant.id)
        for subscription in tenant.subscriptions.values()
        if tenant.access.touches(principal, f"/subscriptions/{subscription.id}", now)
    ]


def matches_filter(resource: Resource, text: str) -> bool:
    """The generic list's $filter: terms of eq and ne joined by and; anything else is 400."""
    for term in re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE) if text.strip() else ():
        match = _TERM.fullmatch(term.strip())
        if match is None:
            raise ArmError(
                400,
                "InvalidFilterInQueryString",
                f"Invalid $filter '{text}' specified in the query string.",
            )
        value = match["value"].lower()
        equal = value in _field_values(resource, match["field"].lower())
        if equal != (match["sign"].lower() == "eq"):
            return False
    return True


def _field_values(resource: Resource, name: str) -> set[str]:
    values = {
        "resourcetype": [resource.type],
        "name": [resource.name],
        "location": [resource.location],
        "resourcegroup": [resource.id.split("/")[4]],
        "tagname": list(resource.tags),
        "tagvalue": list(resource.tags.values()),
    }
    return {value.lower() for value in values[name]}


class ResourceGroups:
    """resourceGroups: they stand outside /providers/, so they are no ResourceKind."""

    def __init__(self, tenant: Tenant, resource_manager: str) -> None:
        self.tenant = tenant
        self.resource_manager = resource_manager

    def members(self, request: ArmRequest) -> list[dict[str, Any]]:
        groups = self.tenant.subscription(request.path.subscription).groups
        return [groups[key].render() for key in sorted(groups)]

    def answer(self, request: ArmRequest) -> Reply:
        write = {"PUT": self._put, "PATCH": self._patch, "DELETE": self._delete}
        if request.method in write:
            return write[request.method](request)
        if request.method not in {"GET", "HEAD"}:
            raise method_not_allowed(request.method)
        group = self.tenant.group(request.path.subscription, request.path.group)
        return Reply(200, group.render()) if request.method == "GET" else Reply(204)

    def _put(self, request: ArmRequest) -> Reply:
        name, body = request.path.group, body_object(request)
        location, tags = body.get("location"), tags_of(body)
        groups = self.tenant.subscription(request.path.subscription).groups
        existing = groups.get(name.lower())
        if not isinstance(location, str) or not location:
            raise ArmError(400, "LocationRequired", "The location property is required.")
        if not _NAME.fullmatch(name):
            raise ArmError(400, "InvalidResourceGroup", "The resource group name is not valid.")
        if existing and existing.location != location.replace(" ", "").lower():
            raise ArmError(
                409,
                "InvalidResourceGroupLocation",
                f"Invalid resource group location '{location}'. The resource group already "
                f"exists in location '{existing.location}'.",
            )
        if existing:
            existing.tags = tags
            return Reply(200, existing.render())
        group = ResourceGroup(
            f"/subscriptions/{request.path.subscription}/resourceGroups/{name}",
            name,
            location.replace(" ", "").lower(),
            tags,
        )
        groups[name.lower()] = group
        return Reply(201, group.render())

    def _patch(self, request: ArmRequest) -> Reply:
        group = self.tenant.group(request.path.subscription, request.path.group)
        group.tags = tags_of(body_object(request))
        return Reply(200, group.render())

    def _delete(self, request: ArmRequest) -> Reply:
        """Everything in the group goes with it, when the operation ends."""
        subscription = self.tenant.subscription(request.path.subscription)
        group = self.tenant.group(request.path.subscription, request.path.group)

        def finish(failure: OperationFailure | None) -> None:
            if failure:
                return
            for resource in self.tenant.resources(subscription.id, group.name):
                self.tenant.remove_resource(resource)
            subscription.groups.pop(group.name.lower(), None)

        operations = self.tenant.operations
        operation = operations.begin(
            group.id.lower(),
            request.caller.object_id,
            finish,
            lambda: Reply(200),
            self.tenant.faults.take_failure(group.id.lower()),
        )
        address = (
            f"{self.resource_manager}/subscriptions/{subscription.id}/operationresults"
            f"/{operation.id}?api-version={request.query['api-version']}"
        )
        return Reply(202, None, {"Location": address, **operations.headers()})


def render_provider(
    namespace: str, subscription: str, kinds: Mapping[str, ResourceKind]
) -> dict[str, Any] | None:
    """A resource provider as /providers tells of it, or None when there is no such namespace."""
    own = [k for k in kinds.values() if k.type.lower().startswith(f"{namespace.lower()}/")]
    if not own:
        return None
    name = own[0].type.partition("/")[0]
    return {
        "id": f"/subscriptions/{subscription}/providers/{name}",
        "namespace": name,
        "registrationPolicy": "RegistrationRequired",
        "registrationState": "Registered",
        "resourceTypes": [
            {
                "resourceType": kind.type.partition("/")[2],
                "locations": list(LOCATIONS),
                "apiVersions": list(kind.api_versions),
            }
            for kind in own
        ],
    }
