"""Rules about a subscription as a whole: examples of what hangs on it, and how to plant that."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from deployments.local.azure.rbac import RoleAssignment
from tasks.model import Call
from tasks.rules.azure.owners import ACCESS_ADMINISTRATOR, OWNER

NETWORK = "2024-05-01"
SUBSCRIPTION = "/subscriptions/00000000-0000-4000-8000-000000000001"
ROLES = f"{SUBSCRIPTION}/providers/Microsoft.Authorization/roleDefinitions"


def apply(_config: dict[str, Any], call: Call) -> None:
    raise AssertionError(f"nothing is fixed here: {call}")


# --- roles --------------------------------------------------------------------------------------


def plant_roles(cloud: Any, config: Mapping[str, Any]) -> str:
    """The customer's administrator is an owner already. What lies at the root nobody plants here
    by the API: it takes a switch that only people have."""
    tenant = cloud.gated.azure.tenant
    for one in config["roleAssignments"]:
        given = one["properties"]
        if given["scope"] == "/":
            role = tenant.roles[given["roleDefinitionId"].rpartition("/")[2].lower()]
            made = RoleAssignment(str(uuid.uuid4()), "/", str(uuid.uuid4()), role)
            tenant.access.assign(made)
    return f"/subscriptions/{cloud.subscription}/providers/microsoft.authorization"


def assigned(role: str, who: str, scope: str = SUBSCRIPTION, kind: str = "User") -> dict[str, Any]:
    given = {
        "roleDefinitionId": f"{ROLES}/{role}",
        "scope": scope,
        "principalId": who,
        "principalType": kind,
    }
    return {"name": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{role}{who}{scope}")), "properties": given}


def roles(*assignments: dict[str, Any]) -> dict[str, Any]:
    return {"roleAssignments": list(assignments)}


def owners(*who: str, **said: Any) -> dict[str, Any]:
    return roles(*(assigned(OWNER, one, **said) for one in who))


# --- networks -----------------------------------------------------------------------------------


def plant_networks(cloud: Any, config: Mapping[str, Any]) -> str:
    """Where a network lies in another region than any watcher; and machines without a bastion."""
    here = f"/subscriptions/{cloud.subscription}/providers"
    for kind in ("networkWatchers", "bastionHosts"):
        for one in list(cloud.arm.members(f"{here}/Microsoft.Network/{kind}", NETWORK)):
            cloud.write("DELETE", one["id"], NETWORK, {})
    for kind, part in (("networkWatchers", "watchers"), ("virtualNetworks", "networks")):
        for one in config[part]:
            name = f"{one['name']}-{uuid.uuid4().hex[:6]}"
            body = {"location": one["location"], "properties": {}}
            cloud.put(f"Microsoft.Network/{kind}/{name}", NETWORK, body)
    if config["machines"]:
        plant_machine(cloud)
    return f"/subscriptions/{cloud.subscription}/providers/microsoft.network"


def plant_machine(cloud: Any) -> str:
    body = {"location": "westeurope", "properties": {"storageProfile": {"osDisk": {}}}}
    path = f"Microsoft.Compute/virtualMachines/vm{uuid.uuid4().hex[:8]}"
    return str(cloud.put(path, "2024-07-01", body))


def located(*places: str) -> list[dict[str, Any]]:
    return [
        {"name": f"one-{number}", "properties": {}, "location": place}
        for number, place in enumerate(places)
    ]


def networks(
    *places: str, watched: tuple[str, ...] = (), machines: bool = False, bastions: bool = False
) -> dict[str, Any]:
    return {
        "networks": located(*places),
        "watchers": located(*watched),
        "machines": machines,
        "bastions": bastions,
    }


# --- flow logs ----------------------------------------------------------------------------------


def watcher(*logs: dict[str, Any]) -> dict[str, Any]:
    named = [{"name": f"log{number}", "properties": one} for number, one in enumerate(logs)]
    return {"name": "watcher", "location": "westeurope", "properties": {}, "flowLogs": named}


def log(
    days: int | None,
    *,
    ends: bool = True,
    enabled: bool = True,
    of: str = "networkSecurityGroups",
) -> dict[str, Any]:
    group = f"{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Network/{of}/one"
    said = {"targetResourceId": group, "storageId": "/y", "enabled": enabled}
    return said if days is None else {**said, "retentionPolicy": {"days": days, "enabled": ends}}


# --- what Defender finds, and Application Insights ----------------------------------------------

ASSESSMENTS = "2020-01-01"
EDR, PROTECTION = "06e3a6db-6c0c-4ad9-943f-31d9d73ecf6c", "4fb67663-9ab9-475d-b026-8c544cced439"
UPDATES, MANAGED = "4ab6e3c5-74dd-8b35-9ab9-f61b30875b27", "e1145ab1-eb4f-43d8-911b-36ddf771d13f"


def plant_assessments(cloud: Any, config: Mapping[str, Any]) -> str:
    """As Defender says it: each on a machine, and with what no rule reads."""
    for one in config["assessments"]:
        status = {**one["properties"]["status"], "cause": "OffByPolicy", "description": "found"}
        body = {"properties": {"status": status, "resourceDetails": {"source": "Azure"}}}
        path = f"{plant_machine(cloud)}/providers/Microsoft.Security/assessments/{one['name']}"
        cloud.put(path, ASSESSMENTS, body)
    return f"/subscriptions/{cloud.subscription}/providers/microsoft.security"


def found(*said: tuple[str, str], machines: bool = True) -> dict[str, Any]:
    made = [{"name": key, "properties": {"status": {"code": code}}} for key, code in said]
    return {"assessments": made, "machines": machines}


def plant_components(cloud: Any, _config: Mapping[str, Any]) -> str:
    return f"/subscriptions/{cloud.subscription}/providers/microsoft.insights"


EXAMPLES: dict[str, Any] = {
    "azure_authorization_subscription_two_or_three_owners": (
        [
            owners("a", "b"),
            owners("a", "b", "c", kind="ServicePrincipal"),
            roles(
                assigned(OWNER, "a"),
                assigned(OWNER, "a", "/providers/Microsoft.Management/managementGroups/all"),
                assigned(OWNER.upper(), "b", "/"),
                assigned(ACCESS_ADMINISTRATOR, "c", "/", "Group"),
            ),
        ],
        [
            roles(),
            owners("a"),
            owners("a", "b", "c", "d"),
            roles(*(assigned(OWNER, one) for one in "abcd"), assigned(OWNER, "e", kind="Group")),
        ],
        "roleAssignments",
    ),
    "azure_authorization_subscription_root_access_admin_unused": (
        [owners("a"), roles(assigned(ACCESS_ADMINISTRATOR, "a")), roles(assigned(OWNER, "a", "/"))],
        [roles(assigned(ACCESS_ADMINISTRATOR, "a", "/"), assigned(OWNER, "b"))],
        "roleAssignments",
    ),
    "azure_network_subscription_watchers_in_every_region": (
        [
            networks("westeurope", "West Europe", watched=("westeurope", "northeurope")),
            networks(),
        ],
        [
            networks("uksouth", "westeurope", watched=("westeurope",)),
            networks("westeurope"),
        ],
        "watchers",
    ),
    "azure_network_subscription_bastion_host": (
        [networks(machines=True, bastions=True), networks(), networks(bastions=True)],
        [networks(machines=True)],
        "bastions",
    ),
    "azure_network_flow_log_of_groups_kept_90_days": (
        [
            watcher(log(90), log(365)),
            watcher(),
            watcher(log(0), log(None), log(7, ends=False)),
            watcher(log(7, of="virtualNetworks")),
        ],
        [
            watcher(log(30), log(90)),
            watcher(log(89)),
            watcher(log(None, enabled=False)),
        ],
        "flowLogs",
    ),
    "azure_security_subscription_endpoint_protection_installed": (
        [
            found((EDR, "Healthy"), (PROTECTION, "NotApplicable"), (UPDATES, "Unhealthy")),
            found(machines=False),
        ],
        [found((EDR, "Unhealthy"), (EDR, "Healthy")), found((PROTECTION.upper(), "Unhealthy"))],
        "assessments",
    ),
    "azure_security_subscription_system_updates_applied": (
        [found((MANAGED, "Healthy"), (EDR, "Unhealthy")), found(machines=False)],
        [found((MANAGED, "Unhealthy")), found((UPDATES, "Unhealthy"), (MANAGED, "Healthy"))],
        "assessments",
    ),
    "azure_monitor_subscription_application_insights": (
        [{"components": True}],
        [{"components": False}],
        "components",
    ),
}


def _kind(id: str, plant: Any) -> dict[str, Any]:
    of = {"id": f"{SUBSCRIPTION}/providers/{id}", "region": "global", "alone": True}
    return {**of, "apply": apply, "plant": plant}


KINDS: dict[str, Any] = {
    "azure.authorization.subscription": _kind("microsoft.authorization", plant_roles),
    "azure.network.subscription": _kind("microsoft.network", plant_networks),
    "azure.security.subscription": _kind("microsoft.security", plant_assessments),
    "azure.monitor.subscription": _kind("microsoft.insights", plant_components),
}
