"""Microsoft.Storage: storage accounts. Creation answers 202 and is followed by its Location.

Storage accounts have no ETag in ARM, so If-Match means nothing here, as in Azure.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from typing import Any

from deployments.local.azure.operations import OperationFailure
from deployments.local.azure.protocol import (
    ArmError,
    ArmRequest,
    Reply,
    ResourceKind,
    body_object,
    properties_of,
    resource_not_found,
    tags_of,
)
from deployments.local.azure.tenant import Resource, Tenant

API_VERSIONS = (
    "2025-06-01",
    "2025-01-01",
    "2024-01-01",
    "2023-05-01",
    "2023-04-01",
    "2023-01-01",
    "2022-09-01",
    "2022-05-01",
    "2021-09-01",
    "2021-04-01",
)
ACCOUNT_TYPE = "Microsoft.Storage/storageAccounts"
SKUS = (
    "Standard_LRS",
    "Standard_GRS",
    "Standard_RAGRS",
    "Standard_ZRS",
    "Standard_GZRS",
    "Standard_RAGZRS",
    "Premium_LRS",
    "Premium_ZRS",
)
KINDS = ("StorageV2", "Storage", "BlobStorage", "BlockBlobStorage", "FileStorage")
BOOLEANS = {
    "supportsHttpsTrafficOnly",
    "allowBlobPublicAccess",
    "allowSharedKeyAccess",
    "allowCrossTenantReplication",
    "defaultToOAuthAuthentication",
    "isHnsEnabled",
    "isSftpEnabled",
    "isLocalUserEnabled",
    "isNfsV3Enabled",
}
CHOICES = {
    "minimumTlsVersion": ("TLS1_0", "TLS1_1", "TLS1_2", "TLS1_3"),
    "publicNetworkAccess": ("Enabled", "Disabled", "SecuredByPerimeter"),
    "accessTier": ("Hot", "Cool", "Cold", "Premium"),
    "largeFileSharesState": ("Enabled", "Disabled"),
    "dnsEndpointType": ("Standard", "AzureDnsZone"),
}
OBJECTS = {"networkAcls", "encryption", "keyPolicy", "sasPolicy", "routingPreference"}
READ_ONLY = {
    "provisioningState",
    "primaryEndpoints",
    "secondaryEndpoints",
    "primaryLocation",
    "secondaryLocation",
    "statusOfPrimary",
    "statusOfSecondary",
    "creationTime",
    "keyCreationTime",
    "privateEndpointConnections",
}
# Needed for the account to work: null leaves these as they are. Every other property goes away.
NEVER_ABSENT = {"supportsHttpsTrafficOnly", "networkAcls", "encryption"}
PATCHABLE = {"sku", "kind", "tags", "properties"}
_NAME = re.compile(r"[a-z0-9]{3,24}")


@dataclass(kw_only=True)
class StorageAccount(Resource):
    """A storage account; ``properties`` are the settings a client may write."""

    type: str = ACCOUNT_TYPE
    kind: str = "StorageV2"
    sku: str = "Standard_LRS"
    properties: dict[str, Any] = field(default_factory=dict)
    state: str = "Succeeded"
    created: str = "2022-03-01T08:00:00.0000000Z"

    def render(self) -> dict[str, Any]:
        return {
            "sku": {"name": self.sku, "tier": self.sku.partition("_")[0]},
            "kind": self.kind,
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "location": self.location,
            "tags": dict(self.tags),
            "properties": {
                "keyCreationTime": {"key1": self.created, "key2": self.created},
                "privateEndpointConnections": [],
                **self.properties,
                "provisioningState": self.state,
                "creationTime": self.created,
                "primaryEndpoints": {
                    service: f"https://{self.name}.{service}.core.windows.net/"
                    for service in ("blob", "dfs", "file", "queue", "table", "web")
                },
                "primaryLocation": self.location,
                "statusOfPrimary": "available",
            },
        }

    def summary(self) -> dict[str, Any]:
        sku = {"name": self.sku, "tier": self.sku.partition("_")[0]}
        return {**super().summary(), "kind": self.kind, "sku": sku}


def default_properties() -> dict[str, Any]:
    """What Azure gives an account that says nothing."""
    return {
        "supportsHttpsTrafficOnly": True,
        "allowBlobPublicAccess": False,
        "minimumTlsVersion": "TLS1_0",
        "networkAcls": {
            "bypass": "AzureServices",
            "virtualNetworkRules": [],
            "ipRules": [],
            "defaultAction": "Allow",
        },
        "encryption": {
            "services": {
                service: {"keyType": "Account", "enabled": True} for service in ("file", "blob")
            },
            "keySource": "Microsoft.Storage",
        },
    }


def checked_properties(given: dict[str, Any]) -> dict[str, Any]:
    """The writable properties of a body (None: take it away), or 400 with the reason."""
    known = BOOLEANS | set(CHOICES) | OBJECTS
    for name, value in given.items():
        if name in READ_ONLY or value is None:
            continue
        if name not in known:
            raise _bad_value(f"Could not find member '{name}' on object of a storage account.")
        if name in BOOLEANS and not isinstance(value, bool):
            raise _bad_value(f"'{name}' must be true or false.")
        if name in CHOICES and value not in CHOICES[name]:
            raise ArmError(
                400,
                "InvalidValuesForRequestParameters",
                f"Values for request parameters are invalid: {name}.",
            )
        if name in OBJECTS and not isinstance(value, dict):
            raise _bad_value(f"'{name}' must be an object.")
    acls = given.get("networkAcls")
    if acls and acls.get("defaultAction") not in {"Allow", "Deny"}:
        raise _bad_value("'networkAcls' needs a 'defaultAction' of Allow or Deny.")
    return {name: value for name, value in given.items() if name in known}


def merged(properties: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Properties after a write: objects merge one level deep, null takes an optional one away."""
    result = copy.deepcopy(properties)
    for name, value in changes.items():
        if value is None:
            if name not in NEVER_ABSENT:
                result.pop(name, None)
        elif name in OBJECTS:
            result[name] = {**result.get(name, {}), **copy.deepcopy(value)}
        else:
            result[name] = value
    return result


def _bad_value(message: str) -> ArmError:
    return ArmError(400, "InvalidRequestContent", f"The request content was invalid: {message}")


class StorageAccounts(ResourceKind):
    """storageAccounts."""

    type = ACCOUNT_TYPE
    api_versions = API_VERSIONS

    def __init__(self, tenant: Tenant, resource_manager: str) -> None:
        self.tenant = tenant
        self.resource_manager = resource_manager

    def get(self, request: ArmRequest) -> Reply:
        return Reply(200, self._require(request).render())

    def members(self, request: ArmRequest) -> list[dict[str, Any]]:
        path = request.path
        return [x.render() for x in self.tenant.resources(path.subscription, path.group, self.type)]

    def put(self, request: ArmRequest) -> Reply:
        """Create (202, then Location), or update what exists as Azure does (200)."""
        body = body_object(request)
        location, sku, kind = _checked_head(body)
        changes, tags = checked_properties(properties_of(body)), tags_of(body)
        account = self._find(request)
        if account is None:
            return self._create(request, location, sku, kind, changes, tags)
        if account.location != location:
            raise ArmError(
                409,
                "InvalidResourceLocation",
                f"The resource '{account.name}' already exists in location '{account.location}'. "
                "A resource with the same name cannot be created in another location.",
            )
        account.sku, account.tags = sku, tags
        account.properties = merged(account.properties, changes)
        return Reply(200, account.render())

    def patch(self, request: ArmRequest) -> Reply:
        account, body = self._require(request), body_object(request)
        if unknown := set(body) - PATCHABLE - {"id", "name", "type", "location"}:
            raise _bad_value(f"Could not find member '{min(unknown)}'.")
        changes = checked_properties(properties_of(body))
        if "tags" in body:
            account.tags = tags_of(body)
        if "sku" in body:
            account.sku = _checked_sku(body)
        account.properties = merged(account.properties, changes)
        return Reply(200, account.render())

    def delete(self, request: ArmRequest) -> Reply:
        account = self._find(request)
        if account is None:
            return Reply(204)
        self.tenant.remove_resource(account)
        return Reply(200)

    def _create(
        self,
        request: ArmRequest,
        location: str,
        sku: str,
        kind: str,
        changes: dict[str, Any],
        tags: dict[str, str],
    ) -> Reply:
        self._check_name(request.path.name)
        group = self.tenant.group(request.path.subscription, request.path.group)
        account = StorageAccount(
            id=f"{group.id}/providers/{ACCOUNT_TYPE}/{request.path.name}",
            name=request.path.name,
            location=location,
            tags=tags,
            kind=kind,
            sku=sku,
            properties=merged(default_properties(), changes),
            state="Creating",
            created=self.tenant.now_text(),
        )
        self.tenant.add_resource(account)

        def finish(failure: OperationFailure | None) -> None:
            account.state = "Succeeded"
            if failure:
                self.tenant.remove_resource(account)

        operations = self.tenant.operations
        operation = operations.begin(
            account.id.lower(),
            request.caller.object_id,
            finish,
            lambda: Reply(200, account.render()),
            self.tenant.faults.take_failure(request.path.key),
        )
        address = (
            f"{self.resource_manager}/subscriptions/{request.path.subscription}/providers"
            f"/Microsoft.Storage/locations/{location}/asyncoperations/{operation.id}"
            f"?monitor=true&api-version={request.query['api-version']}"
        )
        return Reply(202, None, {"Location": address, **operations.headers()})

    def _find(self, request: ArmRequest) -> StorageAccount | None:
        found = self.tenant.resource(request.path.key)
        return found if isinstance(found, StorageAccount) else None

    def _require(self, request: ArmRequest) -> StorageAccount:
        account = self._find(request)
        if account is None:
            raise resource_not_found(request.path)
        return account

    def _check_name(self, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise ArmError(
                400,
                "AccountNameInvalid",
                f"{name} is not a valid storage account name. Storage account name must be "
                "between 3 and 24 characters in length and use numbers and lower-case letters "
                "only.",
            )
        everything = self.tenant.every_resource()
        if any(isinstance(x, StorageAccount) and x.name == name for x in everything):
            raise ArmError(
                409, "StorageAccountAlreadyTaken", f"The storage account named {name} is taken."
            )


def _checked_head(body: dict[str, Any]) -> tuple[str, str, str]:
    location = body.get("location")
    if not isinstance(location, str) or not location.strip():
        raise ArmError(
            400, "LocationRequired", "The location property is required for this definition."
        )
    kind = body.get("kind")
    if kind not in KINDS:
        raise ArmError(
            400, "AccountPropertyIsInvalid", f"Account property kind '{kind}' is invalid."
        )
    return location.replace(" ", "").lower(), _checked_sku(body), kind


def _checked_sku(body: dict[str, Any]) -> str:
    sku = body.get("sku")
    name = sku.get("name") if isinstance(sku, dict) else None
    if name not in SKUS:
        raise ArmError(400, "InvalidSkuName", f"The sku name '{name}' is not a known one.")
    return str(name)
