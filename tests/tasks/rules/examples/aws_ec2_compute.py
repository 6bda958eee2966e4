"""Instances, images, snapshots, volumes: examples, what EC2 makes of calls, how to plant them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

number = itertools.count()
ALL = {"Group": "all"}


def apply(config: dict[str, Any], call: Call) -> None:
    params = dict(call.params)
    if call.operation == "ModifyInstanceMetadataOptions":
        assert params.pop("InstanceId") == config["InstanceId"]
        config["MetadataOptions"] = {**config["MetadataOptions"], **params}
    elif call.operation == "ModifyImageAttribute":
        assert params.pop("ImageId") == config["ImageId"]
        config["Public"] = {"Add": True, "Remove": False}[next(iter(params["LaunchPermission"]))]
        assert list(params["LaunchPermission"].values()) == [[ALL]]
    else:
        assert call.operation == "ModifySnapshotAttribute"
        assert params.pop("SnapshotId") == config["SnapshotId"]
        assert params.pop("Attribute") == "createVolumePermission"
        config["Public"] = {"add": True, "remove": False}[params.pop("OperationType")]
        assert params == {"GroupNames": ["all"]}


def plant_instance(cloud: Any, config: Mapping[str, Any]) -> str:
    ec2 = cloud.client("ec2")
    image = ec2.register_image(Name=f"base {next(number)}")["ImageId"]
    options = config["MetadataOptions"]
    run = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1, MetadataOptions=options)
    made = run["Instances"][0]["InstanceId"]
    return f"arn:aws:ec2:{cloud.region}:{cloud.account}:instance/{made}"


def plant_image(cloud: Any, config: Mapping[str, Any]) -> str:
    ec2 = cloud.client("ec2")
    image = ec2.register_image(Name=f"image {next(number)}")["ImageId"]
    if config["Public"]:
        ec2.modify_image_attribute(ImageId=image, LaunchPermission={"Add": [ALL]})
    return f"arn:aws:ec2:{cloud.region}::image/{image}"


def plant_volume(cloud: Any, config: Mapping[str, Any]) -> str:
    made = cloud.client("ec2").create_volume(
        AvailabilityZone=f"{cloud.region}a", Size=1, Encrypted=config["Encrypted"]
    )
    return f"arn:aws:ec2:{cloud.region}:{cloud.account}:volume/{made['VolumeId']}"


def plant_snapshot(cloud: Any, config: Mapping[str, Any]) -> str:
    ec2 = cloud.client("ec2")
    volume = plant_volume(cloud, config).rpartition("/")[2]
    snapshot = ec2.create_snapshot(VolumeId=volume)["SnapshotId"]
    if config["Public"]:
        ec2.modify_snapshot_attribute(
            SnapshotId=snapshot,
            Attribute="createVolumePermission",
            OperationType="add",
            GroupNames=["all"],
        )
    return f"arn:aws:ec2:{cloud.region}::snapshot/{snapshot}"


def instance(profile: str | None = None, **options: Any) -> dict[str, Any]:
    return {
        "InstanceId": "i-0123456789abcdef0",
        "MetadataOptions": {
            "HttpTokens": "optional",
            "HttpPutResponseHopLimit": 2,
            "HttpEndpoint": "enabled",
            "HttpProtocolIpv6": "disabled",
            "InstanceMetadataTags": "enabled",
            **options,
        },
        "IamInstanceProfile": profile and {"Arn": profile},
    }


def image(**parts: Any) -> dict[str, Any]:
    return {"ImageId": "ami-0123456789abcdef0", "Name": "golden", "Public": False, **parts}


def snapshot(**parts: Any) -> dict[str, Any]:
    return {
        "SnapshotId": "snap-0123456789abcdef0",
        "VolumeId": "vol-ffffffff",  # what a copy of a snapshot says
        "Encrypted": False,
        "Public": False,
        **parts,
    }


def volume(**parts: Any) -> dict[str, Any]:
    return {"VolumeId": "vol-0123456789abcdef0", "VolumeType": "gp3", "SnapshotId": "", **parts}


PROFILE = "arn:aws:iam::111122223333:instance-profile/app"
EXAMPLES: dict[str, Any] = {
    "aws_ec2_instance_imdsv2_required": (
        [
            instance(HttpTokens="required"),
            instance(HttpTokens="optional", HttpEndpoint="disabled"),
        ],
        [instance(), instance(PROFILE, HttpPutResponseHopLimit=1)],
        "MetadataOptions",
    ),
    "aws_ec2_instance_profile_attached": (
        [instance(PROFILE)],
        [instance(), instance(HttpTokens="required")],
        "IamInstanceProfile",
    ),
    "aws_ec2_image_not_public": ([image()], [image(Public=True)], "Public"),
    "aws_ec2_snapshot_not_public": (
        [snapshot(), snapshot(Encrypted=True)],
        [snapshot(Public=True)],
        "Public",
    ),
    "aws_ec2_volume_encrypted": (
        [volume(Encrypted=True)],
        [volume(Encrypted=False), volume(Encrypted=False, VolumeType="io2")],
        "Encrypted",
    ),
}
HERE = "arn:aws:ec2:eu-central-1"
KINDS: dict[str, Any] = {
    "aws.ec2.instance": {
        "id": f"{HERE}:111122223333:instance/i-0123456789abcdef0",
        "apply": apply,
        "plant": plant_instance,
    },
    "aws.ec2.image": {
        "id": f"{HERE}::image/ami-0123456789abcdef0",
        "apply": apply,
        "plant": plant_image,
    },
    "aws.ec2.snapshot": {
        "id": f"{HERE}::snapshot/snap-0123456789abcdef0",
        "apply": apply,
        "plant": plant_snapshot,
    },
    "aws.ec2.volume": {
        "id": f"{HERE}:111122223333:volume/vol-0123456789abcdef0",
        "plant": plant_volume,
    },
}
