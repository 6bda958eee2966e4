"""Defender for Cloud's rules: examples, what ARM makes of their calls, and how to plant them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

API = "2024-01-01"
PLANS = {
    "servers": "VirtualMachines",
    "app_services": "AppServices",
    "sql_databases": "SqlServers",
    "sql_on_machines": "SqlServerVirtualMachines",
    "open_source_databases": "OpenSourceRelationalDatabases",
    "cosmos_db": "CosmosDbs",
    "storage": "StorageAccounts",
    "containers": "Containers",
    "key_vaults": "KeyVaults",
    "resource_manager": "Arm",
    "apis": "Api",
    "posture": "CloudPosture",
}


def apply(config: dict[str, Any], call: Call) -> None:
    assert (call.service, call.operation) == (API, "PUT")
    kept = {name: one for name, one in config["properties"].items() if name == "deprecated"}
    config["properties"] = {**kept, **copy.deepcopy(dict(call.params["properties"]))}


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    provider = f"/subscriptions/{cloud.subscription}/providers/Microsoft.Security"
    body = {"properties": config["properties"]}
    return str(cloud.put(f"{provider}/pricings/{config['name']}", API, body))


def plan(name: str, tier: str, **properties: Any) -> dict[str, Any]:
    return {"name": name, "properties": {"pricingTier": tier, **properties}}


def examples(name: str) -> tuple[list[Any], list[Any], str]:
    extension = {"name": "AgentlessVmScanning", "isEnabled": "True"}
    other = "Dns" if name != "Dns" else "Arm"
    return (
        [
            plan(name, "Standard"),
            plan(name, "Standard", subPlan="P1", extensions=[extension]),
            plan(other, "Free", deprecated=True),
        ],
        [plan(name, "Free"), plan(name.lower(), "Free", enforce="True")],
        "properties",
    )


# --- the security contact ------------------------------------------------------------------------

CONTACTS = "2023-12-01-preview"
ALERT = {"sourceType": "Alert", "minimalSeverity": "Medium"}
PATHS = {"sourceType": "AttackPath", "minimalRiskLevel": "High"}


def apply_contact(config: dict[str, Any], call: Call) -> None:
    assert call.service == CONTACTS
    if call.operation == "DELETE":
        config["properties"] = {}
        return
    assert call.operation == "PUT"
    config["properties"] = copy.deepcopy(dict(call.params["properties"]))


def snapshot_contact(config: dict[str, Any]) -> Any:
    """Without the order of the sources."""
    properties = copy.deepcopy(config["properties"])
    properties.get("notificationsSources", []).sort(key=str)
    return {**config, "properties": properties}


def plant_contact(cloud: Any, config: Mapping[str, Any]) -> str:
    provider = f"/subscriptions/{cloud.subscription}/providers/Microsoft.Security"
    target = f"{provider}/securityContacts/default"
    method = "PUT" if config["properties"] else "DELETE"
    cloud.write(method, target, CONTACTS, {"properties": config["properties"]})
    return target.lower()


def contact(**properties: Any) -> dict[str, Any]:
    own = {
        "emails": "security@example.com",
        "phone": "",
        "isEnabled": True,
        "notificationsByRole": {"state": "On", "roles": ["Owner", "Contributor"]},
        "notificationsSources": [ALERT, PATHS],
        **properties,
    }
    return {"name": "default", "properties": own}


def by_role(state: str, *roles: str) -> dict[str, Any]:
    return contact(notificationsByRole={"state": state, "roles": list(roles)})


NO_CONTACT = {"name": "default", "properties": {}}
TURNED_OFF = contact(isEnabled=False)

EXAMPLES: dict[str, Any] = {
    "azure_security_contact_addresses_set": (
        [contact(), contact(emails="a@example.com;b@example.org")],
        [NO_CONTACT, contact(emails=""), TURNED_OFF],
        "properties",
    ),
    "azure_security_contact_owners_told": (
        [contact(), by_role("On", "Owner")],
        [NO_CONTACT, by_role("Off", "Owner"), by_role("On", "Contributor"), TURNED_OFF],
        "properties",
    ),
    "azure_security_contact_alerts_sent": (
        [contact()],
        [contact(notificationsSources=[PATHS]), NO_CONTACT, TURNED_OFF],
        "properties",
    ),
    "azure_security_contact_attack_paths_sent": (
        [contact()],
        [
            NO_CONTACT,
            contact(notificationsSources=[ALERT]),
            contact(notificationsSources=[ALERT, {**PATHS, "minimalRiskLevel": "Critical"}]),
            TURNED_OFF,
        ],
        "properties",
    ),
    **{f"azure_security_pricing_{short}_on": examples(name) for short, name in PLANS.items()},
}
KINDS: dict[str, Any] = {
    "azure.security.pricing": {
        "id": "/subscriptions/s/providers/microsoft.security/pricings/virtualmachines",
        "region": "global",
        "alone": True,
        "apply": apply,
        "plant": plant,
    },
    "azure.security.contact": {
        "id": "/subscriptions/s/providers/microsoft.security/securitycontacts/default",
        "region": "global",
        "alone": True,
        "values": {"emails": "soc@example.com; second@example.org"},
        "apply": apply_contact,
        "snapshot": snapshot_contact,
        "plant": plant_contact,
    },
}
