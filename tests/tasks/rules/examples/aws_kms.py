"""KMS's rules: examples, what KMS makes of their calls, and how to plant them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call


def apply(config: dict[str, Any], call: Call) -> None:
    days = {"PendingWindowInDays": 30} if call.operation == "ScheduleKeyDeletion" else {}
    assert call.params == {"KeyId": config["KeyId"], **days}
    if call.operation == "CancelKeyDeletion":
        config["KeyState"] = "Disabled"
    elif call.operation == "ScheduleKeyDeletion":
        config["KeyState"] = "PendingDeletion"
    else:
        config["Rotation"] = {"EnableKeyRotation": True, "DisableKeyRotation": False}[
            call.operation
        ]


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    kms = cloud.client("kms")
    key = kms.create_key(KeySpec=config["KeySpec"])["KeyMetadata"]
    if config["Rotation"]:
        kms.enable_key_rotation(KeyId=key["KeyId"])
    if config["KeyState"] == "PendingDeletion":
        kms.schedule_key_deletion(KeyId=key["KeyId"])
    return str(key["Arn"])


def key(**parts: Any) -> dict[str, Any]:
    return {
        "KeyId": "1234abcd-12ab-34cd-56ef-1234567890ab",
        "KeySpec": "SYMMETRIC_DEFAULT",
        "KeyState": "Enabled",
        "Rotation": True,
        **parts,
    }


EXAMPLES: dict[str, Any] = {
    "aws_kms_key_rotation_enabled": (
        [key(), key(KeySpec="RSA_2048", Rotation=None)],
        [key(Rotation=False)],
        "Rotation",
    ),
    "aws_kms_key_not_pending_deletion": (
        [key(), key(KeyState="Disabled", Rotation=None), key(KeyState="PendingImport")],
        [key(KeyState="PendingDeletion", Rotation=None)],
        "KeyState",
    ),
}
KINDS: dict[str, Any] = {
    "aws.kms.key": {
        "id": "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
        "apply": apply,
        "plant": plant,
    },
}
