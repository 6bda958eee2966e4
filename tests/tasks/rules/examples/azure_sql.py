"""Azure SQL's rules: examples, what ARM makes of their calls, and how to plant them."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Any

from deployments.local.azure.plain import merged
from tasks.model import Call

API = "2021-11-01"
GROUPS = ["BATCH_COMPLETED_GROUP"]


class Refused(Exception):
    """The simulated API's error."""


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.service == API
    _, _, name = call.target.partition("/firewallRules/")
    if name:
        rules = [one for one in config["firewallRules"] if one["name"].lower() != name.lower()]
        if call.operation == "PUT":
            rules.append({"name": name, "properties": dict(call.params["properties"])})
        config["firewallRules"] = rules
        return
    given = call.params["properties"]
    if call.target.endswith("/auditingSettings/default"):
        assert call.operation == "PUT"
        new = copy.deepcopy(dict(given))
        if new["state"] == "Enabled":
            new["auditActionsAndGroups"] = new.get("auditActionsAndGroups") or GROUPS
        config["auditingSettings"] = new
        return
    assert call.operation == "PATCH"
    if given.get("minimalTlsVersion") in {"None", "1.0", "1.1"}:
        raise Refused("no longer taken")
    config["properties"] = merged(config["properties"], given)


def snapshot(config: dict[str, Any]) -> Any:
    """Without the order of what has none in ARM."""
    rules = {one["name"]: one["properties"] for one in config["firewallRules"]}
    return {**config, "firewallRules": rules}


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    login = {"administratorLogin": "dba", "administratorLoginPassword": uuid.uuid4().hex}
    body = {"location": "westeurope", "properties": {**login, **config["properties"]}}
    server = str(cloud.put(f"Microsoft.Sql/servers/sql{uuid.uuid4().hex[:12]}", API, body))
    for one in config["firewallRules"]:
        path = f"{server}/firewallRules/{one['name']}"
        cloud.write("PUT", path, API, {"properties": one["properties"]})
    audit = {"properties": config["auditingSettings"]}
    cloud.write("PUT", f"{server}/auditingSettings/default", API, audit)
    entra = {"properties": config["azureADOnlyAuthentications"]}
    cloud.write("PUT", f"{server}/azureADOnlyAuthentications/Default", API, entra)
    return server


def rule(name: str, first: str, last: str) -> dict[str, Any]:
    return {"name": name, "properties": {"startIpAddress": first, "endIpAddress": last}}


WORLD = rule("all the world", "0.0.0.0", "255.255.255.255")
AZURE = rule("AllowAllWindowsAzureIps", "0.0.0.0", "0.0.0.0")
OFFICE = rule("office 1", "203.0.114.10", "203.0.114.20")
DISABLED = {
    "state": "Disabled",
    "retentionDays": 0,
    "auditActionsAndGroups": [],
    "isAzureMonitorTargetEnabled": False,
}
STORED = {
    "state": "Disabled",
    "retentionDays": 90,
    "auditActionsAndGroups": GROUPS,
    "storageEndpoint": "https://acme.blob.core.windows.net/",
    "isManagedIdentityInUse": True,
    "isAzureMonitorTargetEnabled": False,
}


def server(
    *rules: dict[str, Any],
    audit: Mapping[str, Any] | None = None,
    entra: bool = False,
    without: str = "",
    **properties: Any,
) -> dict[str, Any]:
    own = {
        "administratorLogin": "dba",
        "version": "12.0",
        "minimalTlsVersion": "1.2",
        "publicNetworkAccess": "Enabled",
        **properties,
    }
    own.pop(without, None)
    return {
        "name": "acme",
        "location": "westeurope",
        "properties": own,
        "firewallRules": list(rules),
        "auditingSettings": dict(audit or DISABLED),
        "azureADOnlyAuthentications": {"azureADOnlyAuthentication": entra},
    }


OWN, FIREWALL = "properties", "firewallRules"
EXAMPLES: dict[str, Any] = {
    "azure_sql_server_internet_not_let_in": (
        [
            server(),
            server(OFFICE, AZURE),
            server(rule("half", "0.0.0.0", "127.255.255.255")),
            server(WORLD, publicNetworkAccess="Disabled"),
        ],
        [
            server(WORLD, OFFICE, AZURE),
            server(rule("a", "1.0.0.0", "223.255.255.255"), OFFICE),
            server(
                rule("low", "0.0.0.0", "127.255.255.255"),
                rule("high", "128.0.0.0", "255.255.255.255"),
                OFFICE,
            ),
        ],
        FIREWALL,
    ),
    "azure_sql_server_azure_not_let_in": (
        [server(), server(OFFICE, WORLD), server(AZURE, publicNetworkAccess="Disabled")],
        [server(AZURE, OFFICE), server(AZURE, rule("again", "0.0.0.0", "0.0.0.0"))],
        FIREWALL,
    ),
    "azure_sql_server_minimum_tls": (
        [server(), server(minimalTlsVersion="1.3")],
        [
            server(minimalTlsVersion="1.0"),
            server(minimalTlsVersion="1.1"),
            server(minimalTlsVersion="None"),
            server(without="minimalTlsVersion"),
        ],
        OWN,
    ),
    "azure_sql_server_public_network_off": (
        [
            server(publicNetworkAccess="Disabled"),
            server(publicNetworkAccess="SecuredByPerimeter"),
        ],
        [server()],
        OWN,
    ),
    "azure_sql_server_auditing_on": (
        [server(audit={**DISABLED, "state": "Enabled", "isAzureMonitorTargetEnabled": True})],
        [server(), server(audit=STORED), server(audit={**DISABLED, "isDevopsAuditEnabled": True})],
        "auditingSettings",
    ),
    "azure_sql_server_entra_only": (
        [server(entra=True)],
        [server()],
        "azureADOnlyAuthentications",
    ),
}
KINDS: dict[str, Any] = {
    "azure.sql.server": {
        "id": "/subscriptions/s/resourcegroups/rg/providers/microsoft.sql/servers/acme",
        "apply": apply,
        "snapshot": snapshot,
        "plant": plant,
    },
}
