"""Databricks' rules: examples of workspaces, and how to plant them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

API = "2024-05-01"
INSIGHTS = "2021-05-01-preview"
GROUP = "/subscriptions/s/resourceGroups/databricks-rg"
VNET = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/data"
PLACE = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.OperationalInsights/workspaces/w"


def apply(_config: dict[str, Any], call: Call) -> None:
    raise AssertionError(f"nothing is fixed here: {call}")


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    known = dict(config["properties"])
    known.pop("privateEndpointConnections", None)
    body = {"location": "westeurope", "sku": config["sku"], "properties": known}
    made = str(cloud.put(f"Microsoft.Databricks/workspaces/ws{uuid.uuid4().hex[:8]}", API, body))
    for one in config["diagnosticSettings"]:
        where = f"{made}/providers/Microsoft.Insights/diagnosticSettings/{one['name']}"
        cloud.put(where, INSIGHTS, {"properties": one["properties"]})
    return made


def workspace(parameters: Any = None, **properties: Any) -> dict[str, Any]:
    values = {name: {"type": "x", "value": one} for name, one in (parameters or {}).items()}
    return {
        "name": "acme",
        "location": "westeurope",
        "sku": {"name": "premium"},
        "properties": {"managedResourceGroupId": GROUP, "parameters": values, **properties},
        "diagnosticSettings": [],
    }


def endpoint(*states: str) -> dict[str, Any]:
    connections = [
        {"properties": {"privateLinkServiceConnectionState": {"status": state}}} for state in states
    ]
    return workspace(privateEndpointConnections=connections)


def logging(*logs: tuple[str, bool], place: str = PLACE) -> dict[str, Any]:
    sent = [{"category": name, "enabled": on} for name, on in logs]
    setting = {"name": "logs", "properties": {"workspaceId": place, "logs": sent}}
    return {**workspace(), "diagnosticSettings": [setting]}


OWN = "properties"
RULE = "azure_databricks_workspace_"
EXAMPLES: dict[str, Any] = {
    f"{RULE}own_network": (
        [workspace({"customVirtualNetworkId": VNET, "customPublicSubnetName": "host"})],
        [
            workspace({"enableNoPublicIp": True}),
            {**workspace(), "properties": {"managedResourceGroupId": GROUP}},
        ],
        OWN,
    ),
    f"{RULE}clusters_without_public_ip": (
        [workspace({"enableNoPublicIp": True})],
        [workspace({"enableNoPublicIp": False})],
        OWN,
    ),
    f"{RULE}public_network_access_off": (
        [workspace(publicNetworkAccess="Disabled")],
        [workspace(publicNetworkAccess="Enabled"), workspace()],
        OWN,
    ),
    f"{RULE}private_endpoint": (
        [endpoint("Approved"), endpoint("Rejected", "Approved")],
        [workspace(), endpoint("Pending")],
        OWN,
    ),
    f"{RULE}logged": (
        [logging(("clusters", False), ("notebook", True))],
        [workspace(), logging(("notebook", False)), logging(), logging(("jobs", True), place="")],
        "diagnosticSettings",
    ),
}
KINDS: dict[str, Any] = {
    "azure.databricks.workspace": {
        "id": "/subscriptions/s/resourcegroups/rg/providers/microsoft.databricks/workspaces/acme",
        "apply": apply,
        "plant": plant,
    },
}
