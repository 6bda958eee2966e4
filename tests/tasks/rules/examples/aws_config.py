"""AWS Config's rules: examples, what it makes of their calls, and how to plant them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call

ARN = "arn:aws:config:{}:{}:configuration-recorder"


def apply(config: dict[str, Any], call: Call) -> None:
    name = call.params["ConfigurationRecorderName"]
    recording = {"StartConfigurationRecorder": True, "StopConfigurationRecorder": False}
    assert name in [one["name"] for one in config["Recorders"]]
    others = [one for one in config["Status"] if one["name"] != name]
    config["Status"] = [*others, {"name": name, "recording": recording[call.operation]}]


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    client, bucket = cloud.client("config"), f"config-{cloud.account}"
    cloud.client("s3").create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": cloud.region}
    )
    for one in config["Recorders"]:
        role = f"arn:aws:iam::{cloud.account}:role/config"
        client.put_configuration_recorder(ConfigurationRecorder={**one, "roleARN": role})
    client.put_delivery_channel(DeliveryChannel={"name": "default", "s3BucketName": bucket})
    return ARN.format(cloud.region, cloud.account)


ALL = {"allSupported": True, "includeGlobalResourceTypes": True, "resourceTypes": []}


def recorder(recording: bool, name: str = "default", **parts: Any) -> dict[str, Any]:
    role = "arn:aws:iam::111122223333:role/config"
    return {
        "Recorders": [{"name": name, "roleARN": role, "recordingGroup": ALL, **parts}],
        "Status": [{"name": name, "recording": recording}],
    }


EXAMPLES: dict[str, Any] = {
    "aws_config_recorder_everything_recorded": (
        [recorder(True)],
        [recorder(False)],
        "Recorders",
    ),
}
KINDS: dict[str, Any] = {
    "aws.config.recorder": {
        "id": ARN.format("eu-central-1", "111122223333"),
        "apply": apply,
        "plant": plant,
        "alone": True,
    },
}
