"""Microsoft.Databricks: workspaces, which are made and changed whole."""

from __future__ import annotations

from typing import Any

from deployments.local.azure.plain import LIST, OBJECT, TEXT, Shape, one_of, shape


def _parameters(value: Any) -> bool:
    """Each is an object with its value, as in a template."""
    return isinstance(value, dict) and all(
        isinstance(one, dict) and "value" in one for one in value.values()
    )


DATABRICKS = (
    Shape(
        type="Microsoft.Databricks/workspaces",
        api_versions=("2024-05-01", "2023-02-01"),
        top={"sku": OBJECT},
        properties={
            "managedResourceGroupId": TEXT,
            "parameters": _parameters,
            "publicNetworkAccess": one_of("Enabled", "Disabled"),
            "requiredNsgRules": one_of("AllRules", "NoAzureDatabricksRules", "NoAzureServiceRules"),
            "authorizations": LIST,
            "encryption": OBJECT,
            "accessConnector": OBJECT,
            "defaultCatalog": OBJECT,
            "defaultStorageFirewall": one_of("Enabled", "Disabled"),
            "enhancedSecurityCompliance": shape(
                automaticClusterUpdate=OBJECT,
                complianceSecurityProfile=OBJECT,
                enhancedSecurityMonitoring=OBJECT,
            ),
        },
        read_only=frozenset(
            {
                "createdBy",
                "createdDateTime",
                "privateEndpointConnections",
                "provisioningState",
                "updatedBy",
                "workspaceId",
                "workspaceUrl",
            }
        ),
    ),
)
