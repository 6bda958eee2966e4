"""Kinesis's rules: examples, what Kinesis makes of their calls, and how to plant them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.params["StreamName"] == config["StreamName"]
    assert call.params["EncryptionType"] == "KMS"
    on = {"EncryptionType": "KMS", "KeyId": call.params["KeyId"]}
    config["Encryption"] = {
        "StartStreamEncryption": on,
        "StopStreamEncryption": {"EncryptionType": "NONE"},
    }[call.operation]


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    kinesis, name = cloud.client("kinesis"), f"planted-{uuid.uuid4().hex}"
    kinesis.create_stream(StreamName=name, ShardCount=1)
    if config["Encryption"]["EncryptionType"] == "KMS":
        kinesis.start_stream_encryption(StreamName=name, **config["Encryption"])
    return f"arn:aws:kinesis:{cloud.region}:{cloud.account}:stream/{name}"


def stream(**encryption: Any) -> dict[str, Any]:
    return {"StreamName": "clicks", "Encryption": encryption}


EXAMPLES: dict[str, Any] = {
    "aws_kinesis_stream_encrypted": (
        [
            stream(EncryptionType="KMS", KeyId="alias/aws/kinesis"),
            stream(EncryptionType="KMS", KeyId="1234abcd-12ab-34cd-56ef-1234567890ab"),
        ],
        [stream(EncryptionType="NONE")],
        "Encryption",
    ),
}
KINDS: dict[str, Any] = {
    "aws.kinesis.stream": {
        "id": "arn:aws:kinesis:eu-central-1:111122223333:stream/clicks",
        "apply": apply,
        "plant": plant,
    },
}
