"""Key Vault's rules: examples, what ARM makes of their calls, and how to plant them."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

API = "2023-07-01"
INSIGHTS = "2021-05-01-preview"
READ_ONLY = {"vaultUri", "privateEndpointConnections"}
TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"


class Refused(Exception):
    """The simulated API's error."""


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.service == API
    assert call.operation == "PATCH"
    assert call.target.endswith("/acme")
    for name, value in call.params["properties"].items():
        if value is None:
            raise Refused("null leaves a vault's property as it is")
        if value is False and name in {"enablePurgeProtection", "enableSoftDelete"}:
            raise Refused("Enabling it is an irreversible action.")
        config["properties"][name] = copy.deepcopy(value)


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    name = f"kv{uuid.uuid4().hex[:16]}"
    known = {name: one for name, one in config["properties"].items() if name not in READ_ONLY}
    body = {"location": "westeurope", "properties": known}
    made = str(cloud.put(f"Microsoft.KeyVault/vaults/{name}", API, body))
    for one in config["keys"]:
        cloud.put(f"{made}/keys/{one['name']}", API, {"properties": {**one["properties"], **RSA}})
    for one in config["rotation"]:
        cloud.put(f"{made}/keys/{one['name']}", API, {"properties": {**one["properties"], **RSA}})
    own = {"rotationPolicy": policy("Rotate", "Notify"), "attributes": {"exp": 1893456000}}
    cloud.put(f"{made}/keys/rotating", API, {"properties": {**own, **RSA}})
    for one in config["secrets"]:
        inside = {**one["properties"], "value": "hidden"}
        cloud.put(f"{made}/secrets/{one['name']}", API, {"properties": inside})
    expiring = {"value": "hidden", "attributes": {"exp": 1893456000}}
    cloud.put(f"{made}/secrets/expiring", API, {"properties": expiring})
    off = {"value": "hidden", "attributes": {"enabled": False}}
    cloud.put(f"{made}/secrets/disabled", API, {"properties": off})
    for one in config["diagnosticSettings"]:
        where = f"{made}/providers/Microsoft.Insights/diagnosticSettings/{one['name']}"
        cloud.put(where, INSIGHTS, {"properties": one["properties"]})
    return made


RSA = {"kty": "RSA", "keySize": 2048}


def vault(**properties: Any) -> dict[str, Any]:
    return {
        "name": "acme",
        "location": "westeurope",
        "properties": {
            "tenantId": TENANT,
            "sku": {"family": "A", "name": "standard"},
            "accessPolicies": [],
            **properties,
        },
        "keys": [],
        "secrets": [],
        "rotation": [],
        "diagnosticSettings": [],
    }


def acls(**changes: Any) -> dict[str, Any]:
    rules = {"bypass": "AzureServices", "ipRules": [], "virtualNetworkRules": []}
    return vault(networkAcls={**rules, **changes})


def endpoint(state: str) -> dict[str, Any]:
    inside = {"privateLinkServiceConnectionState": {"status": state}}
    return vault(privateEndpointConnections=[{"id": "/x/endpoint", "properties": inside}])


def entry(name: str, **attributes: Any) -> dict[str, Any]:
    return {"name": name, "properties": {"attributes": {"enabled": True, **attributes}}}


def policy(*types: str) -> dict[str, Any]:
    actions = [{"trigger": {"timeBeforeExpiry": "P30D"}, "action": {"type": one}} for one in types]
    return {"attributes": {"expiryTime": "P1Y"}, "lifetimeActions": actions}


def rotating(**said: Any) -> dict[str, Any]:
    key = {"name": "disk", "properties": {"attributes": {"enabled": True}, **said}}
    return {**vault(), "rotation": [key]}


def logging(*logs: dict[str, Any]) -> dict[str, Any]:
    place = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.OperationalInsights/workspaces"
    inside = {"workspaceId": f"{place}/w", "logs": list(logs)}
    return {**vault(), "diagnosticSettings": [{"name": "audit", "properties": inside}]}


OWN = "properties"
RULE = "azure_keyvault_vault_"
EXAMPLES: dict[str, Any] = {
    f"{RULE}purge_protection_on": (
        [
            vault(enableSoftDelete=True, enablePurgeProtection=True),
            vault(enablePurgeProtection=True),
        ],
        [
            vault(enableSoftDelete=True),
            vault(),
            vault(enableSoftDelete=False),
            vault(enableSoftDelete=False, enablePurgeProtection=False),
        ],
        OWN,
    ),
    f"{RULE}soft_delete_on": (
        [vault(enableSoftDelete=True), vault()],
        [vault(enableSoftDelete=False)],
        OWN,
    ),
    f"{RULE}rbac_on": (
        [vault(enableRbacAuthorization=True)],
        [vault(enableRbacAuthorization=False), vault()],
        OWN,
    ),
    f"{RULE}public_network_access_off": (
        [vault(publicNetworkAccess="Disabled"), vault(publicNetworkAccess="disabled")],
        [vault(publicNetworkAccess="Enabled"), vault(publicNetworkAccess="enabled"), vault()],
        OWN,
    ),
    f"{RULE}network_default_deny": (
        [acls(defaultAction="Deny"), acls(defaultAction="Deny", bypass="None")],
        [
            vault(),
            acls(defaultAction="Allow", ipRules=[{"value": "203.0.113.7/32"}]),
            acls(defaultAction="Allow", bypass="None"),
        ],
        OWN,
    ),
    f"{RULE}private_endpoint": (
        [endpoint("Approved")],
        [vault(), endpoint("Pending"), vault(privateEndpointConnections=[])],
        OWN,
    ),
    f"{RULE}keys_expire": (
        [vault()],
        [{**vault(), "keys": [entry("disks")]}],
        "keys",
    ),
    f"{RULE}secrets_expire": (
        [vault()],
        [{**vault(), "secrets": [entry("a"), entry("b")]}],
        "secrets",
    ),
    f"{RULE}keys_rotate": (
        [vault(), rotating(rotationPolicy=policy("Notify", "rotate"))],
        [
            rotating(),
            rotating(rotationPolicy=policy("Notify")),
            rotating(rotationPolicy={"attributes": {}}),
        ],
        "rotation",
    ),
    f"{RULE}audit_logged": (
        [
            logging({"category": "AuditEvent", "enabled": True}),
            logging(
                {"categoryGroup": "allLogs", "enabled": True},
                {"categoryGroup": "audit", "enabled": False},
            ),
        ],
        [
            vault(),
            logging({"category": "AuditEvent", "enabled": False}),
            logging({"category": "AzurePolicyEvaluationDetails", "enabled": True}),
        ],
        "diagnosticSettings",
    ),
}
PREFIX = "/subscriptions/s/resourcegroups/rg/providers"
KINDS: dict[str, Any] = {
    "azure.keyvault.vault": {
        "id": f"{PREFIX}/microsoft.keyvault/vaults/acme",
        "apply": apply,
        "plant": plant,
    },
}
