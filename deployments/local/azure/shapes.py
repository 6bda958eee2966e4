"""The plain resource types of the emulated ARM: what the rule table reads and writes, as a table.

After the ARM REST reference of each type; one list for each namespace.
"""

from __future__ import annotations

from deployments.local.azure.plain import BOOLEAN, LIST, OBJECT, Shape, shape, whole

STORAGE_API = ("2025-06-01", "2024-01-01", "2023-05-01", "2023-01-01")
_RETENTION = shape(enabled=BOOLEAN, days=whole(1, 365), allowPermanentDelete=BOOLEAN)

STORAGE = (
    Shape(
        type="Microsoft.Storage/storageAccounts/blobServices",
        api_versions=STORAGE_API,
        methods="PUT",
        always=("default",),
        located=False,
        created=200,
        properties={
            "deleteRetentionPolicy": _RETENTION,
            "containerDeleteRetentionPolicy": _RETENTION,
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
)

SHAPES = (*STORAGE,)
