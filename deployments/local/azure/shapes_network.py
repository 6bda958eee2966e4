"""Virtual networks and network watchers in the emulated ARM."""

from __future__ import annotations

from typing import Any

from deployments.local.azure.plain import BOOLEAN, LIST, OBJECT, TEXT, Shape, shape, whole

NETWORK_API = ("2024-05-01", "2023-11-01")


def _subnets(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, dict) and isinstance(one.get("name"), str) for one in value
    )


NETWORK = (
    Shape(
        type="Microsoft.Network/virtualNetworks",
        api_versions=NETWORK_API,
        methods="PUT DELETE",
        etags=True,
        properties={
            "addressSpace": shape(addressPrefixes=LIST),
            "subnets": _subnets,
            "enableDdosProtection": BOOLEAN,
            "ddosProtectionPlan": OBJECT,
            "virtualNetworkPeerings": LIST,
            "dhcpOptions": OBJECT,
        },
        defaults={"subnets": [], "enableDdosProtection": False, "virtualNetworkPeerings": []},
    ),
    Shape(
        type="Microsoft.Network/networkWatchers",
        api_versions=NETWORK_API,
        methods="PUT DELETE",
        etags=True,
        properties={},
        defaults={"provisioningState": "Succeeded", "runningOperationIds": []},
    ),
    Shape(
        type="Microsoft.Network/networkWatchers/flowLogs",
        api_versions=NETWORK_API,
        methods="PUT DELETE",
        etags=True,
        properties={
            "targetResourceId": TEXT,
            "storageId": TEXT,
            "enabled": BOOLEAN,
            "retentionPolicy": shape(days=whole(0, 365), enabled=BOOLEAN),
            "format": OBJECT,
            "flowAnalyticsConfiguration": OBJECT,
        },
        read_only=frozenset({"targetResourceGuid"}),
    ),
)
