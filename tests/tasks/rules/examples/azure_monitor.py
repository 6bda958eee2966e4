"""Azure Monitor's rules: examples of a subscription's alerts and exports, and how to plant them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call
from tasks.rules.azure.monitor import CATEGORIES

ALERTS, LOGS = "Microsoft.Insights/activityLogAlerts", "Microsoft.Insights/diagnosticSettings"
ALERTS_API, LOGS_API = "2020-10-01", "2021-05-01-preview"
SUBSCRIPTION = "/subscriptions/00000000-0000-4000-8000-000000000001"
WORKSPACE = f"{SUBSCRIPTION}/resourcegroups/rg/providers/microsoft.operationalinsights/workspaces/w"


def apply(_config: dict[str, Any], call: Call) -> None:
    raise AssertionError(f"nothing is fixed here: {call}")


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    """The subscription is there already: its alerts and exports are made, others are taken away."""
    here = f"/subscriptions/{cloud.subscription}"
    for kind, version in ((ALERTS, ALERTS_API), (LOGS, LOGS_API)):
        for one in list(cloud.arm.members(f"{here}/providers/{kind}", version)):
            cloud.write("DELETE", one["id"], version, {})
    for one in config["alerts"]:
        properties = {**one["properties"]}
        properties["scopes"] = [scope.replace(SUBSCRIPTION, here) for scope in properties["scopes"]]
        body = {"location": "Global", "properties": properties}
        cloud.put(f"{ALERTS}/{one['name']}", ALERTS_API, body)
    for one in config["exports"]:
        body = {"properties": one["properties"]}
        cloud.put(f"{here}/providers/{LOGS}/{one['name']}", LOGS_API, body)
    return here


def alert(operation: str, **changes: Any) -> dict[str, Any]:
    conditions = [
        {"field": "category", "equals": "Administrative"},
        {"field": "operationName", "equals": operation},
        *changes.pop("more", []),
    ]
    properties = {
        "enabled": True,
        "scopes": [SUBSCRIPTION],
        "condition": {"allOf": conditions},
        **changes,
    }
    return {"name": "alert", "properties": properties}


def having(*alerts: dict[str, Any], exports: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    named = [{**one, "name": f"alert-{number}"} for number, one in enumerate(alerts)]
    return {"alerts": named, "exports": list(exports)}


def told_of(operation: str) -> tuple[list[Any], list[Any], str]:
    return (
        [
            having(alert(operation)),
            having(alert("Microsoft.Web/sites/write"), alert(operation.upper())),
        ],
        [
            having(
                alert(operation, enabled=False),
                alert(operation, scopes=[f"{SUBSCRIPTION}/resourceGroups/rg"]),
                alert(operation, more=[{"field": "status", "equals": "Succeeded"}]),
                alert(operation, more=[{"anyOf": [{"field": "level", "equals": "Error"}]}]),
                alert("Microsoft.Web/sites/write"),
            ),
            having(),
        ],
        "alerts",
    )


def health(**changes: Any) -> dict[str, Any]:
    waits = {"condition": {"allOf": [{"field": "category", "equals": "ServiceHealth"}]}}
    return alert("", **waits, **changes)


def export(*categories: str, place: str = "workspaceId", **changes: Any) -> dict[str, Any]:
    logs = [
        {"category": one, "enabled": one in categories} for one in (*CATEGORIES, "ServiceHealth")
    ]
    return {"name": "kept", "properties": {place: WORKSPACE, "logs": logs, **changes}}


OPERATIONS = {
    "policy_assignment_write": "Microsoft.Authorization/policyAssignments/write",
    "policy_assignment_delete": "Microsoft.Authorization/policyAssignments/delete",
    "security_group_write": "Microsoft.Network/networkSecurityGroups/write",
    "security_group_delete": "Microsoft.Network/networkSecurityGroups/delete",
    "security_solution_write": "Microsoft.Security/securitySolutions/write",
    "security_solution_delete": "Microsoft.Security/securitySolutions/delete",
    "sql_firewall_write": "Microsoft.Sql/servers/firewallRules/write",
    "sql_firewall_delete": "Microsoft.Sql/servers/firewallRules/delete",
    "public_address_write": "Microsoft.Network/publicIPAddresses/write",
    "public_address_delete": "Microsoft.Network/publicIPAddresses/delete",
}
LOG = "azure_monitor_activity_log"
EXAMPLES: dict[str, Any] = {
    **{f"{LOG}_{name}_alert": told_of(operation) for name, operation in OPERATIONS.items()},
    f"{LOG}_service_health_alert": (
        [having(health())],
        [having(health(enabled=False)), having(alert("Microsoft.Web/sites/write"))],
        "alerts",
    ),
    f"{LOG}_exported": (
        [having(exports=(export("Security"),)), having(exports=(export(*CATEGORIES),))],
        [having(), having(exports=(export(),))],
        "exports",
    ),
    f"{LOG}_categories_exported": (
        [
            having(exports=(export(*CATEGORIES),)),
            having(exports=(export(*CATEGORIES[:2]), export(*CATEGORIES[2:]))),
        ],
        [having(exports=(export("Administrative", "Security"),)), having()],
        "exports",
    ),
}
KINDS: dict[str, Any] = {
    "azure.monitor.activity_log": {
        "id": SUBSCRIPTION,
        "region": "global",
        "alone": True,
        "apply": apply,
        "plant": plant,
    },
}
