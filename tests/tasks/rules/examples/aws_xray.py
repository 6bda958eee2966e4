"""X-Ray's rules: examples, what X-Ray makes of their calls, and how to plant them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.operation == "PutEncryptionConfig"
    assert (call.params["Type"] == "KMS") == ("KeyId" in call.params)
    config["EncryptionConfig"] = dict(call.params)


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    cloud.client("xray").put_encryption_config(**config["EncryptionConfig"])
    return f"arn:aws:xray:{cloud.region}:{cloud.account}:encryption-config"


EXAMPLES: dict[str, Any] = {
    "aws_xray_traces_encrypted_with_kms": (
        [{"EncryptionConfig": {"Type": "KMS", "KeyId": "alias/aws/xray"}}],
        [{"EncryptionConfig": {"Type": "NONE"}}],
        "EncryptionConfig",
    ),
}
KINDS: dict[str, Any] = {
    "aws.xray.settings": {
        "id": "arn:aws:xray:eu-central-1:111122223333:encryption-config",
        "apply": apply,
        "plant": plant,
        "alone": True,
    },
}
