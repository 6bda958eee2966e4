"""App Service's rules: examples, what ARM makes of their calls, and how to plant them."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Any

from deployments.local.azure.plain import merged
from tasks.model import Call

API = "2023-12-01"
LAST = 2147483647


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.service == API
    assert call.operation == "PATCH"
    if call.target.endswith("/config/web"):
        config["config/web"] = merged(config["config/web"], call.params["properties"])
        return
    assert "/config/" not in call.target
    if "identity" in call.params:
        config["identity"] = copy.deepcopy(call.params["identity"])
    config["properties"] = merged(config["properties"], call.params.get("properties", {}))


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    body = {
        "location": "westeurope",
        "kind": config["kind"],
        "identity": config["identity"],
        "properties": config["properties"],
    }
    site = str(cloud.put(f"Microsoft.Web/sites/site{uuid.uuid4().hex[:12]}", API, body))
    cloud.write("PATCH", f"{site}/config/web", API, {"properties": config["config/web"]})
    auth = config["config/authsettingsV2"]
    cloud.write("PUT", f"{site}/config/authsettingsV2", API, {"properties": auth})
    for one in config["diagnosticSettings"]:
        path = f"{site}/providers/Microsoft.Insights/diagnosticSettings/{one['name']}"
        cloud.write("PUT", path, "2021-05-01-preview", {"properties": one["properties"]})
    return site


def entry(priority: int, address: str | None, action: str = "Allow", **more: Any) -> dict[str, Any]:
    named = {} if address is None else {"ipAddress": address}
    return {"priority": priority, "action": action, "name": f"r{priority}", **named, **more}


ALLOW_ALL = entry(LAST, "Any", name="Allow all", description="Allow all access")
DENY_ALL = entry(LAST, "Any", "Deny", name="Deny all", description="Deny all access")
FRONT_DOOR = entry(
    100,
    "AzureFrontDoor.Backend",
    tag="ServiceTag",
    headers={"x-azure-fdid": ["6f3ee3b4-0c9f-4f3b-9c55-0f1f6f0f3b11"]},
)
SUBNET = entry(
    110,
    None,
    vnetSubnetResourceId="/subscriptions/s/resourceGroups/rg/providers/"
    "Microsoft.Network/virtualNetworks/v/subnets/s",
)


def site(
    properties: Mapping[str, Any] | None = None,
    *,
    kind: str = "app,linux",
    identity: Mapping[str, Any] | None = None,
    auth: Mapping[str, Any] | None = None,
    logs: list[Any] | None = None,
    **web: Any,
) -> dict[str, Any]:
    return {
        "name": "acme",
        "location": "westeurope",
        "kind": kind,
        "identity": dict(identity or {"type": "None"}),
        "properties": {"httpsOnly": True, **(properties or {})},
        "config/web": {
            "minTlsVersion": "1.2",
            "http20Enabled": True,
            "ftpsState": "FtpsOnly",
            "remoteDebuggingEnabled": False,
            "ipSecurityRestrictions": [ALLOW_ALL],
            "scmIpSecurityRestrictionsUseMain": False,
            **web,
        },
        "config/authsettingsV2": dict(auth or {"platform": {"enabled": False}}),
        "diagnosticSettings": logs or [],
    }


def restricted(
    *entries: dict[str, Any], default: str | None = None, **properties: Any
) -> dict[str, Any]:
    said = {} if default is None else {"ipSecurityRestrictionsDefaultAction": default}
    return site(properties, ipSecurityRestrictions=list(entries), **said)


def logging(*logs: dict[str, Any]) -> list[Any]:
    return [{"name": "audit", "properties": {"workspaceId": "/w", "logs": list(logs)}}]


HTTP = {"category": "AppServiceHTTPLogs", "enabled": True}
GIVEN = {
    "type": "UserAssigned",
    "userAssignedIdentities": {"/subscriptions/s/resourcegroups/rg/providers/x/y/z": {}},
}
WEB = "config/web"
EXAMPLES: dict[str, Any] = {
    "azure_web_site_https_only": (
        [site()],
        [site({"httpsOnly": False})],
        "properties",
    ),
    "azure_web_site_minimum_tls": (
        [site(), site(minTlsVersion="1.3")],
        [site(minTlsVersion="1.0"), site(minTlsVersion="1.1")],
        WEB,
    ),
    "azure_web_site_http2_enabled": ([site()], [site(http20Enabled=False)], WEB),
    "azure_web_site_plain_ftp_off": (
        [site(), site(ftpsState="Disabled")],
        [site(ftpsState="AllAllowed")],
        WEB,
    ),
    "azure_web_site_remote_debugging_off": (
        [site()],
        [site(remoteDebuggingEnabled=True)],
        WEB,
    ),
    "azure_web_site_access_restricted": (
        [
            restricted(entry(100, "10.0.0.0/8"), DENY_ALL),
            restricted(entry(100, "198.51.100.7/32,203.0.113.0/24"), default="Deny"),
            restricted(FRONT_DOOR, SUBNET, DENY_ALL),
            restricted(entry(100, "Any", "Deny"), entry(200, "Any"), ALLOW_ALL),
            restricted(ALLOW_ALL, publicNetworkAccess="Disabled"),
            restricted(default="Deny"),
        ],
        [
            restricted(ALLOW_ALL),
            restricted(FRONT_DOOR, entry(200, "Any"), DENY_ALL),
            restricted(entry(100, "0.0.0.0/1"), entry(200, "128.0.0.0/1"), SUBNET, DENY_ALL),
            restricted(entry(100, "203.0.113.0/24", "Deny"), ALLOW_ALL),
            restricted(entry(100, "198.51.100.0/24"), ALLOW_ALL, default="Allow"),
            restricted(entry(100, "Internet", tag="ServiceTag"), default="Deny"),
            restricted(entry(300, "::/0"), DENY_ALL, publicNetworkAccess="Enabled"),
        ],
        WEB,
    ),
    "azure_web_site_identity_given": (
        [
            site(identity={"type": "SystemAssigned"}),
            site(identity=GIVEN),
            site(identity={**GIVEN, "type": "SystemAssigned, UserAssigned"}),
        ],
        [site()],
        "identity",
    ),
    "azure_web_site_authentication_on": (
        [site(auth={"platform": {"enabled": True}})],
        [site(), site(auth={"globalValidation": {"requireAuthentication": True}})],
        "config/authsettingsV2",
    ),
    "azure_web_site_http_logs_kept": (
        [
            site(logs=logging(HTTP)),
            site(logs=logging({"categoryGroup": "allLogs", "enabled": True})),
            site(kind="functionapp,linux"),
        ],
        [
            site(),
            site(logs=logging({**HTTP, "enabled": False})),
            site(logs=logging({"category": "AppServiceConsoleLogs", "enabled": True})),
        ],
        "diagnosticSettings",
    ),
}
KINDS: dict[str, Any] = {
    "azure.web.site": {
        "id": "/subscriptions/s/resourcegroups/rg/providers/microsoft.web/sites/acme",
        "apply": apply,
        "plant": plant,
    },
}
