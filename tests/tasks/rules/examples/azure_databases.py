"""MySQL's and PostgreSQL's rules: examples, what ARM makes of their calls, how to plant them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Any

from deployments.local.azure.plain import merged
from tasks.model import Call

SINGLE = "2017-12-01"
CONFIGURATIONS = {
    "Microsoft.DBforMySQL": {"require_secure_transport": "ON"},
    "Microsoft.DBforPostgreSQL": {
        "require_secure_transport": "on",
        "log_checkpoints": "on",
        "log_connections": "on",
        "log_disconnections": "on",
        "connection_throttle.enable": "on",
    },
}


def applying(version: str) -> Callable[[dict[str, Any], Call], None]:
    def apply(config: dict[str, Any], call: Call) -> None:
        assert call.service == version
        given = dict(call.params["properties"])
        _, _, name = call.target.partition("/configurations/")
        if name:
            assert call.operation == "PUT"
            assert given.pop("source") == "user-override"
            config[name] = given
            return
        assert call.operation == "PATCH"
        config["properties"] = merged(config["properties"], given)

    return apply


def planting(type: str, version: str) -> Callable[[Any, Mapping[str, Any]], str]:
    def plant(cloud: Any, config: Mapping[str, Any]) -> str:
        login = {"administratorLogin": "dba", "administratorLoginPassword": uuid.uuid4().hex}
        body = {"location": "westeurope", "properties": {**login, **config["properties"]}}
        server = str(cloud.put(f"{type}/db{uuid.uuid4().hex[:12]}", version, body))
        for name in config.keys() & set(CONFIGURATIONS[type.partition("/")[0]]):
            path = f"{server}/configurations/{name}"
            cloud.write("PUT", path, version, {"properties": config[name]})
        return server

    return plant


def single(**properties: Any) -> dict[str, Any]:
    own = {"sslEnforcement": "Enabled", "publicNetworkAccess": "Disabled", **properties}
    return {"name": "acme", "location": "westeurope", "properties": own}


def flexible(
    namespace: str, network: Mapping[str, Any] | None = None, **values: str
) -> dict[str, Any]:
    settings = {**CONFIGURATIONS[namespace], **values}
    own = {"network": dict(network or {"publicNetworkAccess": "Disabled"})}
    parts = {name: {"value": value} for name, value in settings.items()}
    return {"name": "acme", "location": "westeurope", "properties": own, **parts}


OPEN = {"publicNetworkAccess": "Enabled"}
INJECTED = {
    "publicNetworkAccess": "Disabled",
    "delegatedSubnetResourceId": "/subscriptions/s/resourceGroups/rg/providers/x/y/z/subnets/db",
}


def of_single(service: str) -> dict[str, Any]:
    server = f"azure_{service}_server"
    return {
        f"{server}_ssl_enforced": (
            [single(), single(minimalTlsVersion="TLS1_2")],
            [single(sslEnforcement="Disabled", minimalTlsVersion="TLSEnforcementDisabled")],
            "properties",
        ),
        f"{server}_public_network_off": (
            [single()],
            [single(publicNetworkAccess="Enabled")],
            "properties",
        ),
    }


def of_flexible(namespace: str) -> dict[str, Any]:
    service = namespace.partition(".")[2].lower()
    named = {
        "require_secure_transport": "secure_transport_required",
        "connection_throttle.enable": "connection_throttling_on",
    }
    found: dict[str, Any] = {
        f"azure_{service}_flexible_server_public_network_off": (
            [flexible(namespace), flexible(namespace, INJECTED)],
            [flexible(namespace, OPEN)],
            "properties",
        )
    }
    for name, on in CONFIGURATIONS[namespace].items():
        off = "OFF" if on == "ON" else "off"
        found[f"azure_{service}_flexible_server_{named.get(name, f'{name}_on')}"] = (
            [flexible(namespace), flexible(namespace, **{name: on.swapcase()})],
            [flexible(namespace, **{name: off}), flexible(namespace, OPEN, **{name: off})],
            name,
        )
    return found


EXAMPLES: dict[str, Any] = {
    **of_single("dbformysql"),
    **of_single("dbforpostgresql"),
    **of_flexible("Microsoft.DBforMySQL"),
    **of_flexible("Microsoft.DBforPostgreSQL"),
}


def kind(type: str, version: str) -> dict[str, Any]:
    return {
        "id": f"/subscriptions/s/resourcegroups/rg/providers/{type.lower()}/acme",
        "apply": applying(version),
        "plant": planting(type, version),
    }


KINDS: dict[str, Any] = {
    "azure.dbformysql.server": kind("Microsoft.DBforMySQL/servers", SINGLE),
    "azure.dbforpostgresql.server": kind("Microsoft.DBforPostgreSQL/servers", SINGLE),
    "azure.dbformysql.flexible_server": kind("Microsoft.DBforMySQL/flexibleServers", "2023-12-30"),
    "azure.dbforpostgresql.flexible_server": kind(
        "Microsoft.DBforPostgreSQL/flexibleServers", "2024-08-01"
    ),
}
