"""Microsoft.Storage beside the accounts themselves: their blob and file services, and containers.

A kind of account that lacks a service refuses its settings as Azure does.
"""

from __future__ import annotations

from deployments.local.azure.plain import (
    BOOLEAN,
    LIST,
    OBJECT,
    TEXT,
    Shape,
    one_of,
    shape,
    whole,
)
from deployments.local.azure.protocol import ArmError, ArmRequest
from deployments.local.azure.storage import StorageAccount
from deployments.local.azure.tenant import Resource

STORAGE_API = ("2025-06-01", "2024-01-01", "2023-05-01", "2023-01-01")
_RETENTION = shape(enabled=BOOLEAN, days=whole(1, 365), allowPermanentDelete=BOOLEAN)


def _with_blobs(holder: Resource, request: ArmRequest) -> None:
    _unless(holder, {"FileStorage"}, "Blob")


def _with_files(holder: Resource, request: ArmRequest) -> None:
    _unless(holder, {"BlobStorage", "BlockBlobStorage"}, "File")


def _unless(holder: Resource, kinds: set[str], service: str) -> None:
    if isinstance(holder, StorageAccount) and holder.kind in kinds:
        raise ArmError(
            400, "FeatureNotSupportedForAccount", f"{service} is not supported for the account."
        )


def _with_containers(holder: Resource, request: ArmRequest) -> None:
    """A container cannot be made public where the account forbids it."""
    _with_blobs(holder, request)
    wanted = (request.body or {}).get("properties", {}).get("publicAccess", "None")
    allowed = isinstance(holder, StorageAccount) and holder.properties.get(
        "allowBlobPublicAccess", True
    )
    if wanted != "None" and not allowed:
        raise ArmError(
            409,
            "PublicAccessNotPermitted",
            "Public access is not permitted on this storage account.",
        )


STORAGE = (
    Shape(
        type="Microsoft.Storage/storageAccounts/blobServices",
        api_versions=STORAGE_API,
        methods="PUT",
        always=("default",),
        located=False,
        created=200,
        below=_with_blobs,
        properties={
            "deleteRetentionPolicy": _RETENTION,
            "containerDeleteRetentionPolicy": _RETENTION,
            "defaultServiceVersion": TEXT,
            "isVersioningEnabled": BOOLEAN,
            "changeFeed": OBJECT,
            "cors": shape(corsRules=LIST),
            "restorePolicy": OBJECT,
            "lastAccessTimeTrackingPolicy": OBJECT,
        },
        defaults={
            "cors": {"corsRules": []},
            "deleteRetentionPolicy": {"allowPermanentDelete": False, "enabled": False},
        },
    ),
    Shape(
        type="Microsoft.Storage/storageAccounts/blobServices/containers",
        api_versions=STORAGE_API,
        methods="PUT PATCH DELETE",
        located=False,
        etags=True,
        below=_with_containers,
        properties={
            "publicAccess": one_of("None", "Blob", "Container"),
            "metadata": OBJECT,
            "defaultEncryptionScope": TEXT,
            "denyEncryptionScopeOverride": BOOLEAN,
        },
        defaults={"publicAccess": "None", "leaseState": "Available", "leaseStatus": "Unlocked"},
        read_only=frozenset({"leaseState", "leaseStatus", "lastModifiedTime"}),
    ),
    Shape(
        type="Microsoft.Storage/storageAccounts/fileServices",
        api_versions=STORAGE_API,
        methods="PUT",
        always=("default",),
        located=False,
        created=200,
        below=_with_files,
        properties={
            "shareDeleteRetentionPolicy": _RETENTION,
            "protocolSettings": shape(
                smb=shape(
                    versions=TEXT,
                    authenticationMethods=TEXT,
                    kerberosTicketEncryption=TEXT,
                    channelEncryption=TEXT,
                    multichannel=shape(enabled=BOOLEAN),
                )
            ),
            "cors": shape(corsRules=LIST),
        },
        defaults={
            "cors": {"corsRules": []},
            "protocolSettings": {"smb": {}},
            "shareDeleteRetentionPolicy": {"enabled": True, "days": 7},
        },
    ),
)
