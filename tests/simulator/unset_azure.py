"""What ARM answers of what a subscription has none of: empty lists, and settings at their defaults.

In the words of ARM's REST reference. What stands here is all that is answered beside the fleet's
own resources: a type that is missing is refused, so that nothing passes for empty by mistake.
"""

from __future__ import annotations

from typing import Any

from fleet_azure import OBJECT_ID, STORAGE_TYPE, SUBSCRIPTION

READER = "acdd72a7-3385-48ef-bd42-f606fba81ae7"  # the built-in role, the same in every tenant
_MADE = "2023-05-14T08:30:00.0000000Z"

_NOTHING = (
    "Microsoft.Authorization/roleDefinitions",  # of the subscription's own, see FILTERS
    "Microsoft.Compute/disks",
    "Microsoft.Compute/virtualMachines",
    "Microsoft.DBforMySQL/flexibleServers",
    "Microsoft.DBforMySQL/servers",
    "Microsoft.DBforPostgreSQL/flexibleServers",
    "Microsoft.DBforPostgreSQL/servers",
    "Microsoft.Databricks/workspaces",
    "Microsoft.Insights/activityLogAlerts",
    "Microsoft.Insights/components",
    "Microsoft.Insights/diagnosticSettings",
    "Microsoft.KeyVault/vaults",
    "Microsoft.Network/ApplicationGatewayWebApplicationFirewallPolicies",
    "Microsoft.Network/applicationGateways",
    "Microsoft.Network/bastionHosts",
    "Microsoft.Network/networkWatchers",
    "Microsoft.Network/virtualNetworks",
    "Microsoft.Security/assessments",
    "Microsoft.Security/securityContacts",
    "Microsoft.Sql/servers",
    "Microsoft.Web/sites",
)
# The plans of Defender for Cloud; some are no longer sold, and name what has taken their place.
_PLANS: dict[str, tuple[str, ...]] = {
    "VirtualMachines": (),
    "SqlServers": (),
    "AppServices": (),
    "StorageAccounts": (),
    "SqlServerVirtualMachines": (),
    "KubernetesService": ("Containers",),
    "ContainerRegistry": ("Containers",),
    "KeyVaults": (),
    "Dns": ("VirtualMachines",),
    "Arm": (),
    "OpenSourceRelationalDatabases": (),
    "CosmosDbs": (),
    "Containers": (),
    "CloudPosture": (),
    "Api": (),
}
# What a list may be filtered by; nothing, where a type is not named here.
FILTERS: dict[str, frozenset[str]] = {
    "microsoft.authorization/roleassignments": frozenset({"", "atScope()"}),
    # Unfiltered, the list has some hundreds of built-in roles.
    "microsoft.authorization/roledefinitions": frozenset({"type eq 'CustomRole'"}),
}


def _in_subscription(type: str, name: str, properties: dict[str, Any]) -> dict[str, Any]:
    id = f"/subscriptions/{SUBSCRIPTION}/providers/{type}/{name}"
    return {"id": id, "name": name, "type": type, "properties": properties}


def _plan(name: str, successors: tuple[str, ...]) -> dict[str, Any]:
    properties: dict[str, Any] = {"pricingTier": "Free", "freeTrialRemainingTime": "P30D"}
    if successors:
        properties |= {"deprecated": True, "replacedBy": list(successors)}
    return _in_subscription("Microsoft.Security/pricings", name, properties)


def _reader() -> dict[str, Any]:
    """The role by which the subscription can be read at all."""
    return _in_subscription(
        "Microsoft.Authorization/roleAssignments",
        "7e0a0000-5175-4000-8000-000000000004",
        {
            "roleDefinitionId": f"/subscriptions/{SUBSCRIPTION}/providers"
            f"/Microsoft.Authorization/roleDefinitions/{READER}",
            "principalId": OBJECT_ID,
            "principalType": "ServicePrincipal",
            "scope": f"/subscriptions/{SUBSCRIPTION}",
            "condition": None,
            "conditionVersion": None,
            "createdOn": _MADE,
            "updatedOn": _MADE,
            "createdBy": OBJECT_ID,
            "updatedBy": OBJECT_ID,
            "delegatedManagedIdentityResourceId": None,
            "description": None,
        },
    )


# The lists of a subscription, by their types in lower case; SUBSCRIPTION stands for its id.
LISTS: dict[str, list[dict[str, Any]]] = {
    **{type.lower(): [] for type in _NOTHING},
    "microsoft.authorization/roleassignments": [_reader()],
    "microsoft.security/pricings": [_plan(*plan) for plan in _PLANS.items()],
}
NAMESPACES = frozenset(type.partition("/")[0] for type in LISTS)


# --- Storage accounts ----------------------------------------------------------------------------

_SERVICES: dict[str, tuple[str, dict[str, Any]]] = {
    "blobservices/default": (
        "blobServices",
        {
            "cors": {"corsRules": []},
            "deleteRetentionPolicy": {"allowPermanentDelete": False, "enabled": False},
        },
    ),
    "fileservices/default": (
        "fileServices",
        {
            "protocolSettings": {"smb": {}},
            "cors": {"corsRules": []},
            "shareDeleteRetentionPolicy": {"enabled": True, "days": 7},
        },
    ),
}


def below_storage(account: str, path: str) -> dict[str, Any] | None:
    """What ARM says at ``path``, in lower case, below an account's id; None for no such child."""
    if path == "blobservices/default/containers":
        return {"value": []}
    if path not in _SERVICES:
        return None
    type, properties = _SERVICES[path]
    return {
        "sku": {"name": "Standard_LRS", "tier": "Standard"},
        "id": f"{account}/{type}/default",
        "name": "default",
        "type": f"{STORAGE_TYPE}/{type}",
        "properties": properties,
    }
