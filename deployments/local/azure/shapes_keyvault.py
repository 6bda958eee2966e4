"""Microsoft.KeyVault as the management plane has it: vaults, and the names of what is in them."""

from __future__ import annotations

from deployments.local.azure.plain import (
    BOOLEAN,
    LIST,
    OBJECT,
    TEXT,
    Plain,
    Shape,
    one_of,
    shape,
    whole,
)
from deployments.local.azure.protocol import ArmError, ArmRequest

API = ("2023-07-01", "2024-11-01")
_MOMENT = whole(0, 2**40)
_ATTRIBUTES = shape(enabled=BOOLEAN, nbf=_MOMENT, exp=_MOMENT, exportable=BOOLEAN)
_CREATED = 1_700_000_000


def _irreversible(vault: Plain, request: ArmRequest) -> None:
    """What a vault protects itself with can be turned on, never off."""
    given = request.body.get("properties", {})
    if given.get("enablePurgeProtection") is False:
        raise _bad(
            'The property "enablePurgeProtection" cannot be set to false. Enabling the purge '
            "protection for a vault is an irreversible action."
        )
    if given.get("enableSoftDelete") is False and request.method == "PATCH":
        raise _bad(
            'The property "enableSoftDelete" can be set to false only for creating new vault. '
            "Enabling the 'soft delete' functionality is an irreversible action."
        )
    if vault.properties.get("enablePurgeProtection") and not vault.properties["enableSoftDelete"]:
        raise _bad("Purge protection needs soft delete.")
    if not vault.properties.get("tenantId") or not vault.properties.get("sku"):
        raise _bad("A vault needs a tenantId and a sku.")


def _hidden(one: Plain, request: ArmRequest) -> None:
    """Values go in and never come out; attributes are completed."""
    one.properties.pop("value", None)
    one.properties["attributes"] = {
        "enabled": True,
        "created": _CREATED,
        "updated": _CREATED,
        **one.properties.get("attributes", {}),
    }


def _bad(message: str) -> ArmError:
    return ArmError(400, "BadRequest", message)


KEYVAULT = (
    Shape(
        type="Microsoft.KeyVault/vaults",
        api_versions=API,
        properties={
            "tenantId": TEXT,
            "sku": shape(family=one_of("A"), name=one_of("standard", "premium")),
            "accessPolicies": LIST,
            "enabledForDeployment": BOOLEAN,
            "enabledForDiskEncryption": BOOLEAN,
            "enabledForTemplateDeployment": BOOLEAN,
            "enableSoftDelete": BOOLEAN,
            "softDeleteRetentionInDays": whole(7, 90),
            "enableRbacAuthorization": BOOLEAN,
            "enablePurgeProtection": BOOLEAN,
            "createMode": one_of("default", "recover"),
            "publicNetworkAccess": one_of("enabled", "disabled", "Enabled", "Disabled"),
            "networkAcls": shape(
                bypass=one_of("AzureServices", "None"),
                defaultAction=one_of("Allow", "Deny"),
                ipRules=LIST,
                virtualNetworkRules=LIST,
            ),
        },
        read_only=frozenset(
            {"vaultUri", "hsmPoolResourceId", "provisioningState", "privateEndpointConnections"}
        ),
        defaults={"enableSoftDelete": True, "accessPolicies": []},
        after=_irreversible,
    ),
    Shape(
        type="Microsoft.KeyVault/vaults/keys",
        api_versions=API,
        listed=frozenset({"attributes", "keyUri"}),
        methods="PUT",
        located=False,
        created=200,
        properties={
            "attributes": _ATTRIBUTES,
            "kty": one_of("EC", "EC-HSM", "RSA", "RSA-HSM"),
            "keyOps": LIST,
            "keySize": whole(2048, 4096),
            "curveName": TEXT,
            "rotationPolicy": shape(attributes=shape(expiryTime=TEXT), lifetimeActions=LIST),
            "release_policy": OBJECT,
        },
        after=_hidden,
    ),
    Shape(
        type="Microsoft.KeyVault/vaults/secrets",
        api_versions=API,
        methods="PUT PATCH",
        located=False,
        created=200,
        properties={"attributes": _ATTRIBUTES, "value": TEXT, "contentType": TEXT},
        after=_hidden,
    ),
)
