"""App Service's resource types in the emulated ARM."""

from __future__ import annotations

from typing import Any

from deployments.local.azure.plain import (
    BOOLEAN,
    OBJECT,
    TEXT,
    Plain,
    Shape,
    one_of,
    shape,
    whole,
)
from deployments.local.azure.protocol import ArmError, ArmRequest

WEB_API = ("2024-04-01", "2023-12-01", "2022-03-01")
_ALLOW_ALL = {
    "ipAddress": "Any",
    "action": "Allow",
    "priority": 2147483647,
    "name": "Allow all",
    "description": "Allow all access",
}
_RESTRICTION = shape(
    ipAddress=TEXT,
    vnetSubnetResourceId=TEXT,
    action=one_of("Allow", "Deny"),
    tag=one_of("Default", "XffProxy", "ServiceTag"),
    priority=whole(1, 2147483647),
    name=TEXT,
    description=TEXT,
    headers=OBJECT,
)
_IDENTITY = shape(
    type=one_of("None", "SystemAssigned", "UserAssigned", "SystemAssigned, UserAssigned"),
    userAssignedIdentities=OBJECT,
    principalId=TEXT,
    tenantId=TEXT,
)


def _restrictions(value: Any) -> bool:
    return isinstance(value, list) and all(_RESTRICTION(one) and one.get("action") for one in value)


def _gives_identity(site: Plain, _request: ArmRequest) -> None:
    """An identity of its own gets a principal; one of type None is none, and is not shown."""
    identity = site.top.get("identity") or {"type": "None"}
    if "SystemAssigned" in identity["type"]:
        identity.setdefault("principalId", "6f3ee3b4-0c9f-4f3b-9c55-0f1f6f0f3b11")
        identity.setdefault("tenantId", "9f2c4f5e-53d3-4b8b-9a3d-2f9d4e3a7c01")
    else:
        identity.pop("principalId", None)
        identity.pop("tenantId", None)
    if identity["type"] == "None":
        site.top.pop("identity", None)


def _adds_the_rest(config: Plain, _request: ArmRequest) -> None:
    """App Service refuses two words on everybody else, and shows what becomes of them."""
    entries = config.properties.get("ipSecurityRestrictions") or []
    last = [one for one in entries if one.get("priority") == 2147483647]
    if len(last) > 1:
        raise ArmError(400, "BadRequest", "There is more than one rule with the last priority.")
    if not entries:
        config.properties["ipSecurityRestrictions"] = [dict(_ALLOW_ALL)]


_CONFIG_WEB = Shape(
    type="Microsoft.Web/sites/config",
    api_versions=WEB_API,
    methods="PUT PATCH",
    always=("web",),
    located=False,
    created=200,
    properties={
        "minTlsVersion": one_of("1.0", "1.1", "1.2", "1.3"),
        "scmMinTlsVersion": one_of("1.0", "1.1", "1.2", "1.3"),
        "http20Enabled": BOOLEAN,
        "ftpsState": one_of("AllAllowed", "FtpsOnly", "Disabled"),
        "remoteDebuggingEnabled": BOOLEAN,
        "httpLoggingEnabled": BOOLEAN,
        "alwaysOn": BOOLEAN,
        "ipSecurityRestrictions": _restrictions,
        "ipSecurityRestrictionsDefaultAction": one_of("Allow", "Deny"),
        "scmIpSecurityRestrictions": _restrictions,
        "scmIpSecurityRestrictionsUseMain": BOOLEAN,
    },
    defaults={
        "minTlsVersion": "1.2",
        "scmMinTlsVersion": "1.2",
        "http20Enabled": False,
        "ftpsState": "FtpsOnly",
        "remoteDebuggingEnabled": False,
        "httpLoggingEnabled": False,
        "alwaysOn": False,
        "ipSecurityRestrictions": [_ALLOW_ALL],
        "scmIpSecurityRestrictions": [_ALLOW_ALL],
        "scmIpSecurityRestrictionsUseMain": False,
    },
    after=_adds_the_rest,
)
_CONFIG_AUTH = Shape(
    type="Microsoft.Web/sites/config",
    api_versions=WEB_API,
    methods="PUT",
    always=("authsettingsV2",),
    located=False,
    created=200,
    properties={
        "platform": shape(enabled=BOOLEAN, runtimeVersion=TEXT, configFilePath=TEXT),
        "globalValidation": OBJECT,
        "identityProviders": OBJECT,
        "login": OBJECT,
        "httpSettings": OBJECT,
    },
    defaults={"platform": {"enabled": False, "runtimeVersion": "~1"}},
)

WEB = (
    Shape(
        type="Microsoft.Web/sites",
        api_versions=WEB_API,
        properties={
            "httpsOnly": BOOLEAN,
            "enabled": BOOLEAN,
            "serverFarmId": TEXT,
            "publicNetworkAccess": one_of("Enabled", "Disabled"),
            "clientCertEnabled": BOOLEAN,
            "siteConfig": OBJECT,
        },
        top={"kind": TEXT, "identity": _IDENTITY},
        defaults={
            "httpsOnly": False,
            "enabled": True,
            "state": "Running",
            "lastModifiedTimeUtc": "2026-01-01T00:00:00.0000000",
        },
        read_only=frozenset({"state", "lastModifiedTimeUtc"}),
        after=_gives_identity,
    ),
    Shape(
        type="Microsoft.Web/sites/config",
        api_versions=WEB_API,
        methods="",
        located=False,
        properties={},
        always=("web", "authsettingsV2"),
        variants={"web": _CONFIG_WEB, "authsettingsV2": _CONFIG_AUTH},
    ),
)
