"""MySQL's and PostgreSQL's resource types in the emulated ARM."""

from __future__ import annotations

from deployments.local.azure.plain import (
    OBJECT,
    TEXT,
    Plain,
    Shape,
    one_of,
    shape,
)
from deployments.local.azure.protocol import ArmError, ArmRequest

MYSQL, POSTGRESQL = "Microsoft.DBforMySQL", "Microsoft.DBforPostgreSQL"
FLEXIBLE_API = {MYSQL: ("2023-12-30",), POSTGRESQL: ("2024-08-01", "2022-12-01")}
SINGLE_API = ("2017-12-01",)
CONFIGURATIONS = {
    MYSQL: {"require_secure_transport": "ON"},
    POSTGRESQL: {
        "require_secure_transport": "on",
        "log_checkpoints": "on",
        "log_connections": "off",
        "log_disconnections": "off",
        "connection_throttle.enable": "off",
    },
}
_SWITCH = one_of("Enabled", "Disabled")


def _forgets_password(server: Plain, _request: ArmRequest) -> None:
    server.properties.pop("administratorLoginPassword", None)


def _tls_goes_with_ssl(server: Plain, request: ArmRequest) -> None:
    """A least version of TLS means nothing, and is refused, where TLS is not enforced."""
    _forgets_password(server, request)
    least = server.properties.get("minimalTlsVersion", "TLSEnforcementDisabled")
    if server.properties["sslEnforcement"] == "Disabled" and least != "TLSEnforcementDisabled":
        raise ArmError(
            400, "InvalidTlsEnforcement", "A minimal TLS version needs SSL to be enforced."
        )


def _says_its_value(configuration: Plain, request: ArmRequest) -> None:
    if not configuration.properties.get("value"):
        raise ArmError(400, "InvalidParameterValue", "The value is required.")
    if request.method in {"PUT", "PATCH"}:
        configuration.properties.setdefault("source", "user-override")


def _single(namespace: str) -> Shape:
    return Shape(
        type=f"{namespace}/servers",
        api_versions=SINGLE_API,
        properties={
            "administratorLogin": TEXT,
            "administratorLoginPassword": TEXT,
            "createMode": one_of("Default"),
            "version": TEXT,
            "sslEnforcement": _SWITCH,
            "minimalTlsVersion": one_of("TLS1_0", "TLS1_1", "TLS1_2", "TLSEnforcementDisabled"),
            "publicNetworkAccess": _SWITCH,
            "storageProfile": OBJECT,
        },
        top={"sku": OBJECT, "identity": OBJECT},
        read_only=frozenset({"userVisibleState", "earliestRestoreDate"}),
        defaults={
            "sslEnforcement": "Enabled",
            "minimalTlsVersion": "TLSEnforcementDisabled",
            "publicNetworkAccess": "Enabled",
            "userVisibleState": "Ready",
            "earliestRestoreDate": "2026-01-01T00:00:00Z",
        },
        after=_tls_goes_with_ssl,
    )


def _flexible(namespace: str) -> Shape:
    return Shape(
        type=f"{namespace}/flexibleServers",
        api_versions=FLEXIBLE_API[namespace],
        properties={
            "administratorLogin": TEXT,
            "administratorLoginPassword": TEXT,
            "version": TEXT,
            "network": shape(
                publicNetworkAccess=_SWITCH,
                delegatedSubnetResourceId=TEXT,
                privateDnsZoneArmResourceId=TEXT,
            ),
            "backup": OBJECT,
            "highAvailability": OBJECT,
            "storage": OBJECT,
        },
        top={"sku": OBJECT, "identity": OBJECT},
        read_only=frozenset({"state"}),
        defaults={"state": "Ready", "network": {"publicNetworkAccess": "Enabled"}},
        after=_forgets_password,
    )


def _configurations(namespace: str) -> Shape:
    known = CONFIGURATIONS[namespace]
    return Shape(
        type=f"{namespace}/flexibleServers/configurations",
        api_versions=FLEXIBLE_API[namespace],
        methods="",
        located=False,
        properties={},
        always=tuple(known),
        variants={name: _configuration(namespace, name, value) for name, value in known.items()},
    )


def _configuration(namespace: str, name: str, value: str) -> Shape:
    on, off = ("ON", "OFF") if namespace == MYSQL else ("on", "off")
    return Shape(
        type=f"{namespace}/flexibleServers/configurations",
        api_versions=FLEXIBLE_API[namespace],
        methods="PUT PATCH",
        located=False,
        created=200,
        always=(name,),
        properties={
            "value": one_of(on, off),
            "source": one_of("system-default", "user-override"),
        },
        read_only=frozenset({"defaultValue", "dataType", "allowedValues", "isReadOnly"}),
        defaults={
            "value": value,
            "source": "system-default",
            "defaultValue": value,
            "dataType": "Boolean",
            "allowedValues": f"{on},{off}",
        },
        after=_says_its_value,
    )


DATABASES = tuple(
    make(namespace)
    for namespace in (MYSQL, POSTGRESQL)
    for make in (_single, _flexible, _configurations)
)
