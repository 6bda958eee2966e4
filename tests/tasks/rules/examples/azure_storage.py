"""Azure Storage's rules: examples, what ARM makes of their calls, and how to plant them."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

STORAGE = "2023-05-01"
OBJECTS = {"networkAcls", "encryption", "keyPolicy", "sasPolicy"}
PARTS = {"/blobServices/default": "blobServices", "/fileServices/default": "fileServices"}


class Refused(Exception):
    """The simulated API's error."""


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.service == STORAGE
    path = call.target.partition("/acme")[2]
    if path:
        assert call.operation == "PUT"
        config[PARTS[path]] = copy.deepcopy(dict(call.params["properties"]))
        return
    assert call.operation == "PATCH"
    for name, value in call.params["properties"].items():
        if value is None:
            raise Refused("what null does is not documented")
        config["properties"][name] = value


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    name = f"planted{uuid.uuid4().hex[:16]}"
    head = {"location": "westeurope", "kind": "StorageV2", "sku": {"name": "Standard_LRS"}}
    made = str(cloud.put(f"Microsoft.Storage/storageAccounts/{name}", STORAGE, head))
    # What the account never had is taken away again: Azure's own accounts of old have none.
    unset = {"allowBlobPublicAccess": None, "minimumTlsVersion": None}
    cloud.write("PATCH", made, STORAGE, {"properties": {**unset, **config["properties"]}})
    for path, part in PARTS.items():
        if part in config:
            cloud.write("PUT", f"{made}{path}", STORAGE, {"properties": config[part]})
    return made


def storage(**properties: Any) -> dict[str, Any]:
    return {"name": "acme", "kind": "StorageV2", "properties": properties}


def acls(**changes: Any) -> dict[str, Any]:
    rules = {"bypass": "AzureServices", "defaultAction": "Deny", "ipRules": []}
    return storage(networkAcls={**rules, "virtualNetworkRules": [], **changes})


def blobs(**settings: Any) -> dict[str, Any]:
    cors = {"cors": {"corsRules": []}}
    return {**storage(allowBlobPublicAccess=False), "blobServices": {**cors, **settings}}


def retention(enabled: bool, days: int | None = None) -> dict[str, Any]:
    return {"enabled": enabled, **({} if days is None else {"days": days})}


OWN = "properties"
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
}
PREFIX = "/subscriptions/s/resourcegroups/rg/providers"
KINDS: dict[str, Any] = {
    "azure.storage.account": {
        "id": f"{PREFIX}/microsoft.storage/storageaccounts/acme",
        "apply": apply,
        "plant": plant,
    },
}
