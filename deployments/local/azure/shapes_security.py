"""Defender for Cloud's settings of a subscription in the emulated ARM."""

from __future__ import annotations

from typing import Any

from deployments.local.azure.plain import BOOLEAN, LIST, TEXT, Plain, Shape, one_of, shape
from deployments.local.azure.protocol import ArmError, ArmRequest

_SUB_PLANS = {
    "VirtualMachines": ("P2", "P1"),
    "StorageAccounts": ("PerTransaction", "PerStorageAccount", "DefenderForStorageV2"),
    "Api": ("P1", "P2", "P3", "P4", "P5"),
}
# Sold in variants of which Azure chooses none by itself.
_CHOSEN = frozenset({"Api"})
_EXTENSIONS = {
    "VirtualMachines": ("MdeDesignatedSubscription", "AgentlessVmScanning"),
    "StorageAccounts": ("OnUploadMalwareScanning", "SensitiveDataDiscovery"),
    "CloudPosture": ("SensitiveDataDiscovery", "AgentlessVmScanning"),
}


def _becomes(plan: Plain, _request: ArmRequest) -> None:
    """A plan that is bought has a variant and its extensions on; a free one has neither."""
    given = plan.properties
    if not given.get("pricingTier"):
        raise ArmError(400, "InvalidInputJson", "The pricing tier is required.")
    if given["pricingTier"] == "Free":
        if given.get("subPlan"):
            raise ArmError(400, "InvalidInputJson", "A free plan has no sub-plan.")
        given.pop("extensions", None)
        return
    known = _SUB_PLANS.get(plan.name)
    if given.get("subPlan") and given["subPlan"] not in (known or ()):
        raise ArmError(400, "InvalidInputJson", f"{plan.name} has no such sub-plan.")
    if plan.name in _CHOSEN and not given.get("subPlan"):
        raise ArmError(400, "InvalidInputJson", f"{plan.name} needs a sub-plan.")
    if known:
        given.setdefault("subPlan", known[0])
    names = _EXTENSIONS.get(plan.name, ())
    if names:
        given.setdefault("extensions", [{"name": one, "isEnabled": "True"} for one in names])
    given["enablementTime"] = "2026-01-01T00:00:00Z"


_SOURCES = {
    "Alert": ("minimalSeverity", {"High", "Medium", "Low"}),
    "AttackPath": ("minimalRiskLevel", {"Critical", "High", "Medium", "Low"}),
}


def _sources(value: Any) -> bool:
    return isinstance(value, list) and all(_source(one) for one in value)


def _source(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("sourceType") not in _SOURCES:
        return False
    field, levels = _SOURCES[value["sourceType"]]
    return value.keys() == {"sourceType", field} and value[field] in levels


def _is_the_contact(contact: Plain, _request: ArmRequest) -> None:
    if contact.name.lower() != "default":
        raise ArmError(400, "InvalidSecurityContactName", "The name must be default.")
    emails = [one for one in contact.properties.get("emails", "").split(";") if one]
    if not all("@" in one for one in emails):
        raise ArmError(400, "InvalidSecurityContact", "An address is invalid.")


SECURITY = (
    Shape(
        type="Microsoft.Security/pricings",
        api_versions=("2024-01-01", "2023-01-01"),
        methods="PUT",
        of_subscription=True,
        located=False,
        created=200,
        always=(
            "VirtualMachines",
            "AppServices",
            "SqlServers",
            "SqlServerVirtualMachines",
            "OpenSourceRelationalDatabases",
            "CosmosDbs",
            "StorageAccounts",
            "Containers",
            "KeyVaults",
            "Arm",
            "Api",
            "CloudPosture",
        ),
        properties={
            "pricingTier": one_of("Free", "Standard"),
            "subPlan": TEXT,
            "enforce": one_of("True", "False"),
            "extensions": LIST,
        },
        read_only=frozenset({"freeTrialRemainingTime"}),
        defaults={"pricingTier": "Free", "freeTrialRemainingTime": "P30D"},
        after=_becomes,
    ),
    Shape(
        type="Microsoft.Security/securityContacts",
        api_versions=("2023-12-01-preview",),
        methods="PUT DELETE",
        of_subscription=True,
        located=False,
        properties={
            "emails": TEXT,
            "phone": TEXT,
            "isEnabled": BOOLEAN,
            "notificationsByRole": shape(state=one_of("On", "Off"), roles=LIST),
            "notificationsSources": _sources,
        },
        after=_is_the_contact,
    ),
)
