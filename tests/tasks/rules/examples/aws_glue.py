"""Glue's rules: examples, what Glue makes of their calls, and how to plant them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call

KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.operation == "PutDataCatalogEncryptionSettings"
    config["EncryptionSettings"] = dict(call.params["DataCatalogEncryptionSettings"])


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    cloud.client("glue").put_data_catalog_encryption_settings(
        DataCatalogEncryptionSettings=config["EncryptionSettings"]
    )
    return f"arn:aws:glue:{cloud.region}:{cloud.account}:catalog"


def catalog(mode: str, *, passwords: str = "", **at_rest: str) -> dict[str, Any]:
    kept = {"ReturnConnectionPasswordEncrypted": bool(passwords)}
    return {
        "EncryptionSettings": {
            "EncryptionAtRest": {"CatalogEncryptionMode": mode, **at_rest},
            "ConnectionPasswordEncryption": kept
            | ({"AwsKmsKeyId": passwords} if passwords else {}),
        }
    }


EXAMPLES: dict[str, Any] = {
    "aws_glue_data_catalog_encrypted": (
        [
            catalog("SSE-KMS", SseAwsKmsKeyId=KEY),
            catalog(
                "SSE-KMS-WITH-SERVICE-ROLE",
                SseAwsKmsKeyId=KEY,
                CatalogEncryptionServiceRole="arn:aws:iam::111122223333:role/catalog",
            ),
        ],
        [catalog("DISABLED", passwords=KEY), catalog("DISABLED")],
        "EncryptionSettings",
    ),
}
KINDS: dict[str, Any] = {
    "aws.glue.data_catalog": {
        "id": "arn:aws:glue:eu-central-1:111122223333:catalog",
        "apply": apply,
        "plant": plant,
        "alone": True,
    },
}
