"""Azure SQL's resource types in the emulated ARM."""

from __future__ import annotations

from ipaddress import AddressValueError, IPv4Address
from typing import Any

from deployments.local.azure.plain import (
    BOOLEAN,
    LIST,
    OBJECT,
    TEXT,
    Plain,
    Shape,
    one_of,
    whole,
)
from deployments.local.azure.protocol import ArmError, ArmRequest

SQL_API = ("2023-08-01", "2021-11-01")


def _address(value: Any) -> bool:
    try:
        return isinstance(value, str) and str(IPv4Address(value)) == value
    except AddressValueError:
        return False


def _keeps_tls_new(server: Plain, request: ArmRequest) -> None:
    """Servers of old may stand as they were made, but none is changed to less than TLS 1.2."""
    asked = (request.body or {}).get("properties", {}).get("minimalTlsVersion")
    if request.method == "PATCH" and asked in {"None", "1.0", "1.1"}:
        raise ArmError(
            400, "InvalidMinimalTlsVersion", f"'{asked}' is no longer taken as a minimum."
        )
    server.properties.pop("administratorLoginPassword", None)


def _is_a_range(rule: Plain, _request: ArmRequest) -> None:
    ends = [rule.properties.get(end) for end in ("startIpAddress", "endIpAddress")]
    if None in ends or IPv4Address(ends[0]) > IPv4Address(ends[1]):
        raise ArmError(400, "InvalidIpAddressRange", "The addresses are no range.")


def _has_a_target(audit: Plain, _request: ArmRequest) -> None:
    given = audit.properties
    key = given.pop("storageAccountAccessKey", None)
    if given.get("storageEndpoint") and not (key or given.get("isManagedIdentityInUse")):
        raise ArmError(400, "BlobAuditingInvalidStorageAccountCredentials", "A key is required.")
    if given.get("state") != "Enabled":
        return
    if not (given.get("storageEndpoint") or given.get("isAzureMonitorTargetEnabled")):
        raise ArmError(400, "BlobAuditingPredicateExpressionEmpty", "No target is enabled.")
    if not given.get("auditActionsAndGroups"):
        given["auditActionsAndGroups"] = [
            "SUCCESSFUL_DATABASE_AUTHENTICATION_GROUP",
            "FAILED_DATABASE_AUTHENTICATION_GROUP",
            "BATCH_COMPLETED_GROUP",
        ]


SQL = (
    Shape(
        type="Microsoft.Sql/servers",
        api_versions=SQL_API,
        properties={
            "administratorLogin": TEXT,
            "administratorLoginPassword": TEXT,
            "administrators": OBJECT,
            "version": one_of("12.0"),
            "minimalTlsVersion": one_of("None", "1.0", "1.1", "1.2", "1.3"),
            "publicNetworkAccess": one_of("Enabled", "Disabled", "SecuredByPerimeter"),
            "restrictOutboundNetworkAccess": one_of("Enabled", "Disabled"),
        },
        top={"identity": OBJECT, "kind": TEXT},
        read_only=frozenset({"state", "fullyQualifiedDomainName", "privateEndpointConnections"}),
        defaults={
            "version": "12.0",
            "state": "Ready",
            "minimalTlsVersion": "1.2",
            "publicNetworkAccess": "Enabled",
        },
        after=_keeps_tls_new,
    ),
    Shape(
        type="Microsoft.Sql/servers/firewallRules",
        api_versions=SQL_API,
        methods="PUT DELETE",
        located=False,
        properties={"startIpAddress": _address, "endIpAddress": _address},
        after=_is_a_range,
    ),
    Shape(
        type="Microsoft.Sql/servers/auditingSettings",
        api_versions=SQL_API,
        methods="PUT",
        located=False,
        created=200,
        always=("default",),
        properties={
            "state": one_of("Enabled", "Disabled"),
            "isAzureMonitorTargetEnabled": BOOLEAN,
            "retentionDays": whole(0, 3650),
            "auditActionsAndGroups": LIST,
            "storageEndpoint": TEXT,
            "storageAccountAccessKey": TEXT,
            "storageAccountSubscriptionId": TEXT,
            "isStorageSecondaryKeyInUse": BOOLEAN,
            "isManagedIdentityInUse": BOOLEAN,
            "isDevopsAuditEnabled": BOOLEAN,
            "queueDelayMs": whole(0, 2147483647),
        },
        defaults={
            "state": "Disabled",
            "retentionDays": 0,
            "auditActionsAndGroups": [],
            "storageAccountSubscriptionId": "00000000-0000-0000-0000-000000000000",
            "isStorageSecondaryKeyInUse": False,
            "isAzureMonitorTargetEnabled": False,
            "isManagedIdentityInUse": False,
        },
        after=_has_a_target,
    ),
    Shape(
        type="Microsoft.Sql/servers/azureADOnlyAuthentications",
        api_versions=SQL_API,
        methods="PUT",
        located=False,
        created=200,
        always=("Default",),
        properties={"azureADOnlyAuthentication": BOOLEAN},
        defaults={"azureADOnlyAuthentication": False},
    ),
)
