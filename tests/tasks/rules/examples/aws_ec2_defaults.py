"""EC2's regional settings: examples, what EC2 makes of their calls, and how to plant them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call

STATES = {
    "EnableSnapshotBlockPublicAccess": ("SnapshotBlockPublicAccess", "State"),
    "EnableImageBlockPublicAccess": ("ImageBlockPublicAccess", "ImageBlockPublicAccessState"),
}
TOKENS = "InstanceMetadataDefaults"


def apply(config: dict[str, Any], call: Call) -> None:
    if call.operation in STATES:
        part, parameter = STATES[call.operation]
        assert call.params.keys() == {parameter}
        assert call.params[parameter] in {"block-all-sharing", "block-new-sharing"}
        config[part] = call.params[parameter]
    elif call.operation == "ModifyInstanceMetadataDefaults":
        assert call.params.keys() == {"HttpTokens"}
        config[TOKENS] = {**config[TOKENS], **call.params}
        if call.params["HttpTokens"] == "no-preference":
            del config[TOKENS]["HttpTokens"]
    else:
        assert call.params == {}
        config[STATES[call.operation.replace("Disable", "Enable")][0]] = "unblocked"


def plant_snapshots(cloud: Any, config: Mapping[str, Any]) -> str:
    ec2, state = cloud.client("ec2"), config["SnapshotBlockPublicAccess"]
    if state == "unblocked":
        ec2.disable_snapshot_block_public_access()
    else:
        ec2.enable_snapshot_block_public_access(State=state)
    return f"arn:aws:ec2:{cloud.region}:{cloud.account}:snapshot-block-public-access"


def plant_images(cloud: Any, _config: Mapping[str, Any]) -> str:
    cloud.client("ec2").disable_image_block_public_access()
    return f"arn:aws:ec2:{cloud.region}:{cloud.account}:image-block-public-access"


def plant_instances(cloud: Any, config: Mapping[str, Any]) -> str:
    cloud.client("ec2").modify_instance_metadata_defaults(
        **{"HttpTokens": "no-preference", "HttpPutResponseHopLimit": -1, **config[TOKENS]}
    )
    return f"arn:aws:ec2:{cloud.region}:{cloud.account}:instance-metadata-defaults"


EXAMPLES: dict[str, Any] = {
    "aws_ec2_snapshot_defaults_public_access_blocked": (
        [{"SnapshotBlockPublicAccess": "block-all-sharing"}],
        [
            {"SnapshotBlockPublicAccess": "unblocked"},
            {"SnapshotBlockPublicAccess": "block-new-sharing"},
        ],
        "SnapshotBlockPublicAccess",
    ),
    "aws_ec2_image_defaults_public_access_blocked": (
        [{"ImageBlockPublicAccess": "block-new-sharing"}],
        [{"ImageBlockPublicAccess": "unblocked"}],
        "ImageBlockPublicAccess",
    ),
    "aws_ec2_instance_defaults_imdsv2_required": (
        [{TOKENS: {"HttpTokens": "required", "HttpPutResponseHopLimit": 2}}],
        [
            {TOKENS: {"HttpPutResponseHopLimit": 2}},
            {TOKENS: {}},
            {TOKENS: {"HttpTokens": "optional", "HttpEndpoint": "enabled"}},
        ],
        TOKENS,
    ),
}
KINDS: dict[str, Any] = {
    f"aws.ec2.{name}_defaults": {
        "id": f"arn:aws:ec2:eu-central-1:111122223333:{rest}",
        "apply": apply,
        "plant": plant,
    }
    for name, rest, plant in (
        ("snapshot", "snapshot-block-public-access", plant_snapshots),
        ("image", "image-block-public-access", plant_images),
        ("instance", "instance-metadata-defaults", plant_instances),
    )
}
