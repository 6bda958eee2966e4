"""Azure Storage's rules: examples, what ARM makes of their calls, and how to plant them."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call, canonical_json

STORAGE = "2023-05-01"
READ_ONLY = {"keyCreationTime", "privateEndpointConnections"}
CONTAINERS = "/blobServices/default/containers/"
PARTS = {"/blobServices/default": "blobServices", "/fileServices/default": "fileServices"}


class Refused(Exception):
    """The simulated API's error."""


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.service == STORAGE
    path = call.target.partition("/acme")[2]
    if path.startswith(CONTAINERS):
        assert call.operation == "PATCH"
        _set_access(config, path.removeprefix(CONTAINERS), call.params["properties"])
        return
    if path:
        assert call.operation == "PUT"
        config[PARTS[path]] = copy.deepcopy(dict(call.params["properties"]))
        return
    assert call.operation == "PATCH"
    for name, value in call.params["properties"].items():
        if value is None:
            raise Refused("what null does is not documented")
        config["properties"][name] = value


def _set_access(config: dict[str, Any], name: str, properties: Mapping[str, Any]) -> None:
    """Only those that are public are read; their order is the collector's."""
    access = properties["publicAccess"]
    if access != "None" and config["properties"].get("allowBlobPublicAccess") is False:
        raise Refused("PublicAccessNotPermitted")
    rest = [one for one in config["containers"] if one["name"] != name]
    public = [container(name, access)] if access != "None" else []
    config["containers"] = sorted([*rest, *public], key=canonical_json)


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    name = f"planted{uuid.uuid4().hex[:16]}"
    head = {"location": "westeurope", "kind": config["kind"], "sku": config["sku"]}
    made = str(cloud.put(f"Microsoft.Storage/storageAccounts/{name}", STORAGE, head))
    # What the account never had is taken away again: Azure's own accounts of old have none.
    unset = {"allowBlobPublicAccess": None, "minimumTlsVersion": None}
    known = {name: one for name, one in config["properties"].items() if name not in READ_ONLY}
    cloud.write("PATCH", made, STORAGE, {"properties": {**unset, **known}})
    for path, part in PARTS.items():
        if config.get(part) is not None:
            cloud.write("PUT", f"{made}{path}", STORAGE, {"properties": config[part]})
    for one in config.get("containers") or ():
        cloud.put(f"{made}{CONTAINERS}{one['name']}", STORAGE, {"properties": one["properties"]})
    if config.get("containers"):
        cloud.put(f"{made}{CONTAINERS}private", STORAGE, {})
    return made


def storage(**properties: Any) -> dict[str, Any]:
    return {
        "name": "acme",
        "kind": "StorageV2",
        "sku": {"name": "Standard_LRS", "tier": "Standard"},
        "properties": properties,
    }


def acls(**changes: Any) -> dict[str, Any]:
    rules = {"bypass": "AzureServices", "defaultAction": "Deny", "ipRules": []}
    return storage(networkAcls={**rules, "virtualNetworkRules": [], **changes})


def keys(**policy: Any) -> dict[str, Any]:
    made = {"key1": "2024-02-01T08:00:00Z", "key2": "2024-02-01T08:00:00Z"}
    return storage(keyCreationTime=made, **policy)


def expiring(days: int) -> dict[str, Any]:
    return keys(keyPolicy={"keyExpirationPeriodInDays": days})


def endpoints(*states: str) -> dict[str, Any]:
    listed = [
        {
            "name": f"acme.{number}",
            "properties": {
                "privateEndpoint": {"id": f"/subscriptions/s/endpoints/{number}"},
                "privateLinkServiceConnectionState": {"status": state},
            },
        }
        for number, state in enumerate(states)
    ]
    return storage(privateEndpointConnections=listed)


def redundant(sku: str) -> dict[str, Any]:
    return {**storage(), "sku": {"name": sku, "tier": sku.partition("_")[0]}}


def blobs(**settings: Any) -> dict[str, Any]:
    cors = {"cors": {"corsRules": []}}
    return {**storage(allowBlobPublicAccess=False), "blobServices": {**cors, **settings}}


def files(**settings: Any) -> dict[str, Any]:
    cors = {"cors": {"corsRules": []}}
    return {**storage(), "fileServices": {**cors, **settings}}


def smb(**settings: Any) -> dict[str, Any]:
    return files(protocolSettings={"smb": settings})


def without(part: str, kind: str) -> dict[str, Any]:
    """A kind of account that has no such service."""
    return {**storage(), "kind": kind, part: None}


def retention(enabled: bool, days: int | None = None) -> dict[str, Any]:
    return {"enabled": enabled, **({} if days is None else {"days": days})}


def container(name: str, access: str) -> dict[str, Any]:
    return {"name": name, "properties": {"publicAccess": access}}


def containers(*public: dict[str, Any], **properties: Any) -> dict[str, Any]:
    listed = sorted(public, key=canonical_json)
    return {**storage(**{"allowBlobPublicAccess": True, **properties}), "containers": listed}


OWN = "properties"
NO_BLOBS = without("blobServices", "FileStorage")
NO_FILES = without("fileServices", "BlockBlobStorage")
EXAMPLES: dict[str, Any] = {
    "azure_storage_account_https_only": (
        [storage(supportsHttpsTrafficOnly=True)],
        [storage(supportsHttpsTrafficOnly=False)],
        OWN,
    ),
    "azure_storage_account_public_blob_access_off": (
        [storage(allowBlobPublicAccess=False)],
        [storage(allowBlobPublicAccess=True), storage()],
        OWN,
    ),
    "azure_storage_account_minimum_tls": (
        [storage(minimumTlsVersion="TLS1_2"), storage(minimumTlsVersion="TLS1_3")],
        [storage(minimumTlsVersion="TLS1_0"), storage()],
        OWN,
    ),
    "azure_storage_account_network_default_deny": (
        [acls(), acls(ipRules=[{"value": "203.0.113.7", "action": "Allow"}])],
        [
            acls(defaultAction="Allow"),
            acls(
                defaultAction="Allow",
                bypass="None",
                ipRules=[{"value": "203.0.113.0/24", "action": "Allow"}],
            ),
            storage(),
        ],
        OWN,
    ),
    "azure_storage_account_public_network_access_off": (
        [
            storage(publicNetworkAccess="Disabled"),
            storage(publicNetworkAccess="SecuredByPerimeter"),
        ],
        [storage(publicNetworkAccess="Enabled"), storage()],
        OWN,
    ),
    "azure_storage_account_shared_key_access_off": (
        [storage(allowSharedKeyAccess=False)],
        [storage(allowSharedKeyAccess=True), storage()],
        OWN,
    ),
    "azure_storage_account_entra_authorization_by_default": (
        [storage(defaultToOAuthAuthentication=True)],
        [storage(defaultToOAuthAuthentication=False), storage()],
        OWN,
    ),
    "azure_storage_account_cross_tenant_replication_off": (
        [storage(allowCrossTenantReplication=False)],
        [storage(allowCrossTenantReplication=True), storage()],
        OWN,
    ),
    "azure_storage_account_trusts_azure_services": (
        [acls(), acls(bypass="Logging, Metrics, AzureServices")],
        [acls(bypass="None"), acls(bypass="Logging, Metrics"), acls(bypass="Logging")],
        OWN,
    ),
    "azure_storage_account_key_expiration_reminder": (
        [expiring(90), expiring(30)],
        [expiring(365), keys(), expiring(0)],
        OWN,
    ),
    "azure_storage_account_infrastructure_encryption": (
        [storage(encryption={"requireInfrastructureEncryption": True})],
        [
            storage(encryption={"keySource": "Microsoft.Storage"}),
            storage(encryption={"requireInfrastructureEncryption": False}),
        ],
        OWN,
    ),
    "azure_storage_account_geo_redundant": (
        [redundant("Standard_GRS"), redundant("Standard_RAGZRS"), redundant("StandardV2_GZRS")],
        [redundant("Standard_LRS"), redundant("Premium_ZRS")],
        "sku",
    ),
    "azure_storage_account_private_endpoint": (
        [endpoints("Approved"), endpoints("Rejected", "Approved")],
        [endpoints(), storage(), endpoints("Pending")],
        OWN,
    ),
    "azure_storage_account_blob_soft_delete": (
        [blobs(deleteRetentionPolicy=retention(True, 14)), NO_BLOBS],
        [
            blobs(deleteRetentionPolicy={"enabled": False, "allowPermanentDelete": False}),
            blobs(deleteRetentionPolicy=retention(False, 30), isVersioningEnabled=True),
            blobs(),
        ],
        "blobServices",
    ),
    "azure_storage_account_container_soft_delete": (
        [blobs(containerDeleteRetentionPolicy=retention(True, 7)), NO_BLOBS],
        [blobs(containerDeleteRetentionPolicy=retention(False)), blobs()],
        "blobServices",
    ),
    "azure_storage_account_blob_versioning": (
        [
            blobs(isVersioningEnabled=True),
            {**blobs(), **storage(isHnsEnabled=True)},
            NO_BLOBS,
        ],
        [
            blobs(isVersioningEnabled=False),
            blobs(deleteRetentionPolicy=retention(True, 7)),
            {**blobs(), **storage(isHnsEnabled=False)},
        ],
        "blobServices",
    ),
    "azure_storage_account_file_share_soft_delete": (
        [files(shareDeleteRetentionPolicy=retention(True, 7)), NO_FILES],
        [files(shareDeleteRetentionPolicy=retention(False)), files()],
        "fileServices",
    ),
    "azure_storage_account_smb_version": (
        [smb(versions="SMB3.1.1;"), smb(versions="SMB3.1.1"), NO_FILES],
        [
            smb(versions="SMB2.1;SMB3.0;SMB3.1.1", multichannel={"enabled": True}),
            smb(),
            files(),
        ],
        "fileServices",
    ),
    "azure_storage_account_smb_channel_encryption": (
        [smb(channelEncryption="AES-256-GCM"), NO_FILES],
        [smb(channelEncryption="AES-128-GCM;AES-256-GCM;"), smb(versions="SMB3.1.1"), files()],
        "fileServices",
    ),
    "azure_storage_account_containers_private": (
        [
            containers(),
            containers(container("web", "Blob"), allowBlobPublicAccess=False),
            {**without("containers", "FileStorage")},
        ],
        [
            containers(container("web", "Blob"), container("$web", "Container")),
            {**storage(), "containers": [container("old", "Container")]},
        ],
        "containers",
    ),
}
PREFIX = "/subscriptions/s/resourcegroups/rg/providers"
KINDS: dict[str, Any] = {
    "azure.storage.account": {
        "id": f"{PREFIX}/microsoft.storage/storageaccounts/acme",
        "apply": apply,
        "plant": plant,
    },
}
