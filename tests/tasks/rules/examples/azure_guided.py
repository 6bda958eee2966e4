"""Rules about networks and roles that are guided only: examples, and how to plant them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

NETWORK = "2024-05-01"
ROLES = "2022-04-01"
NSG = {"id": "/subscriptions/s/resourceGroups/rg/providers/x/networkSecurityGroups/nsg"}
OF_SUBSCRIPTION = "/subscriptions/s"


def apply(config: dict[str, Any], call: Call) -> None:
    raise AssertionError("no rule about it has a fix")


def plant_network(cloud: Any, config: Mapping[str, Any]) -> str:
    body = {"location": "westeurope", "properties": config["properties"]}
    path = f"Microsoft.Network/virtualNetworks/vnet{uuid.uuid4().hex[:8]}"
    return str(cloud.put(path, NETWORK, body))


def plant_watcher(cloud: Any, config: Mapping[str, Any]) -> str:
    path = f"Microsoft.Network/networkWatchers/watcher{uuid.uuid4().hex[:8]}"
    made = str(cloud.put(path, NETWORK, {"location": "westeurope"}))
    for one in config["flowLogs"]:
        body = {"location": "westeurope", "properties": one["properties"]}
        cloud.write("PUT", f"{made}/flowLogs/{one['name']}", NETWORK, body)
    return made


def plant_role(cloud: Any, config: Mapping[str, Any]) -> str:
    subscription = f"/subscriptions/{cloud.subscription}"
    name = str(uuid.uuid4())
    path = f"{subscription}/providers/Microsoft.Authorization/roleDefinitions/{name}"
    given = {
        **config["properties"],
        "roleName": f"planted {name}",
        "assignableScopes": [subscription],
    }
    return str(cloud.put(path, ROLES, {"properties": given}))


def for_databricks(name: str, group: Any) -> dict[str, Any]:
    """A network whose subnet of that name is Databricks' own, beside one without a group."""
    made = network(("other", None), (name, group))
    delegation = {"name": "dbx", "properties": {"serviceName": "Microsoft.Databricks/workspaces"}}
    made["properties"]["subnets"][1]["properties"]["delegations"] = [delegation]
    return made


def network(*subnets: tuple[str, Any], **properties: Any) -> dict[str, Any]:
    made = [
        {
            "name": name,
            "properties": {
                "addressPrefix": "10.0.0.0/24",
                **({"networkSecurityGroup": group} if group else {}),
            },
        }
        for name, group in subnets
    ]
    space = {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}}
    own = {**space, "subnets": made, "enableDdosProtection": False, **properties}
    return {"name": "vnet", "location": "westeurope", "properties": own}


def watcher(*logs: dict[str, Any]) -> dict[str, Any]:
    named = [{"name": f"log{number}", "properties": one} for number, one in enumerate(logs)]
    return {"name": "watcher", "location": "westeurope", "properties": {}, "flowLogs": named}


def log(days: int, *, retains: bool = True, enabled: bool = True) -> dict[str, Any]:
    retention = {"days": days, "enabled": retains}
    return {"targetResourceId": "/x", "storageId": "/y", "enabled": enabled} | {
        "retentionPolicy": retention
    }


def role(
    *actions: str,
    refused: tuple[str, ...] = (),
    scope: str = OF_SUBSCRIPTION,
    kind: str = "CustomRole",
) -> dict[str, Any]:
    permission = {"actions": list(actions), "notActions": list(refused), "dataActions": []}
    return {
        "name": "5c2c0b0c-7a9b-4a61-8a9e-0b1f3d2c9a55",
        "properties": {
            "roleName": "deployer",
            "type": kind,
            "assignableScopes": [scope],
            "permissions": [permission],
        },
    }


EXAMPLES: dict[str, Any] = {
    "azure_network_virtual_network_subnets_guarded": (
        [
            network(),
            network(("web", NSG), ("GatewaySubnet", None)),
            network(("AzureFirewallSubnet", None)),
        ],
        [network(("web", None)), network(("web", NSG), ("AzureBastionSubnet", None))],
        "properties",
    ),
    "azure_network_virtual_network_databricks_subnets_guarded": (
        [network(), network(("web", None)), for_databricks("host", NSG)],
        [for_databricks("host", None)],
        "properties",
    ),
    "azure_network_virtual_network_ddos_protected": (
        [network(enableDdosProtection=True, ddosProtectionPlan={"id": "/plan"})],
        [network(), network(("web", NSG))],
        "properties",
    ),
    "azure_network_flow_log_kept_90_days": (
        [
            watcher(),
            watcher(log(90), log(365)),
            watcher(log(0)),
            watcher(log(7, retains=False)),
        ],
        [watcher(log(30)), watcher(log(365), log(89)), watcher(log(0, enabled=False))],
        "flowLogs",
    ),
    "azure_authorization_role_definition_no_custom_owner": (
        [
            role("Microsoft.Web/sites/*"),
            role("*", refused=("Microsoft.Authorization/*/Write",)),
            role("*", scope="/subscriptions/s/resourceGroups/rg"),
            role("*", scope="/", kind="BuiltInRole"),
        ],
        [
            role("*"),
            role("Microsoft.Web/*", "*", refused=("Microsoft.Blueprint/*/write",)),
            role("*", scope="/providers/Microsoft.Management/managementGroups/root"),
        ],
        "properties",
    ),
}
PREFIX = "/subscriptions/s/resourcegroups/rg/providers/microsoft.network"
KINDS: dict[str, Any] = {
    "azure.network.virtual_network": {
        "id": f"{PREFIX}/virtualnetworks/vnet",
        "apply": apply,
        "plant": plant_network,
    },
    "azure.network.flow_log": {
        "id": f"{PREFIX}/networkwatchers/watcher",
        "apply": apply,
        "plant": plant_watcher,
    },
    "azure.authorization.role_definition": {
        "id": "/subscriptions/s/providers/microsoft.authorization/roledefinitions/"
        "5c2c0b0c-7a9b-4a61-8a9e-0b1f3d2c9a55",
        "region": "global",
        "apply": apply,
        "plant": plant_role,
    },
}
