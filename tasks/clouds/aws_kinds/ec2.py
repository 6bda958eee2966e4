"""What Suture reads of EC2: security groups, instances, their disks, and a region's defaults."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tasks.clouds.aws_reading import Call, Item, Part, listed, settings
from tasks.clouds.aws_view import AwsView, Collector, Found, part_of
from tasks.errors import ResourceGone
from tasks.model import Config, Resource, in_order

SECURITY_GROUP = "aws.ec2.security_group"
SNAPSHOT = "aws.ec2.snapshot"


# --- security groups --------------------------------------------------------------------------


async def _security_groups(view: AwsView, region: str) -> Found:
    groups = await view.list(
        "ec2", "DescribeSecurityGroups", region, "SecurityGroups", page_size=1000
    )
    return Found([_security_group(view, region, group) for group in groups])


async def _read_security_group(view: AwsView, resource_id: str, region: str) -> Resource:
    group_id = resource_id.rpartition("/")[2]
    answer = await view.get("ec2", "DescribeSecurityGroups", region, GroupIds=[group_id])
    for group in part_of(answer, "SecurityGroups", "DescribeSecurityGroups"):
        return _security_group(view, region, group)
    raise ResourceGone(f"there is no {group_id}", operation="DescribeSecurityGroups")


def _security_group(view: AwsView, region: str, group: Mapping[str, Any]) -> Resource:
    config = {key: value for key, value in group.items() if key not in ("Tags", "OwnerId")}
    return view.resource(
        SECURITY_GROUP,
        region,
        view.arn("ec2", region, f"security-group/{group['GroupId']}"),
        group.get("GroupName", ""),
        Config(in_order(config)),
        group.get("Tags", ()),
    )


async def _around_security_group(view: AwsView, group: Resource) -> dict[str, Any]:
    """The groups whose rules let this group's members in: what closing it may reach."""
    wanted = {"Name": "ip-permission.group-id", "Values": [group.config["GroupId"]]}
    found = await view.list(
        "ec2",
        "DescribeSecurityGroups",
        group.region,
        "SecurityGroups",
        page_size=1000,
        Filters=[wanted],
    )
    named = [{"GroupId": one["GroupId"], "GroupName": one.get("GroupName", "")} for one in found]
    return {"NamedInRulesOf": in_order(named)}


# --- instances --------------------------------------------------------------------------------


def _is_there(instance: Item) -> bool:
    """A terminated instance is listed for an hour after its end."""
    return instance.get("State", {}).get("Name") not in ("shutting-down", "terminated")


def _instance(instance: Item) -> Item:
    """With null for no profile, and without how far a change of the options has got."""
    options = {k: v for k, v in instance.get("MetadataOptions", {}).items() if k != "State"}
    profile = instance.get("IamInstanceProfile")
    return {
        **instance,
        **({"MetadataOptions": options} if options else {}),
        "IamInstanceProfile": None if profile is None else {"Arn": profile.get("Arn")},
    }


# --- snapshots: one list of all, one of those that everybody may use --------------------------


async def _own_snapshots(view: AwsView, region: str, **more: Any) -> list[Any]:
    return await view.list(
        "ec2", "DescribeSnapshots", region, "Snapshots", OwnerIds=["self"], **more
    )


async def _snapshots(view: AwsView, region: str, **wanted: Any) -> Found:
    every, public = await asyncio.gather(
        _own_snapshots(view, region, **wanted),
        _own_snapshots(view, region, RestorableByUserIds=["all"], **wanted),
    )
    ids = {one["SnapshotId"] for one in public}
    return Found([_snapshot(view, region, one, one["SnapshotId"] in ids) for one in every])


async def _read_snapshot(view: AwsView, resource_id: str, region: str) -> Resource:
    snapshot = resource_id.rpartition("/")[2]
    wanted = [{"Name": "snapshot-id", "Values": [snapshot]}]
    for found in (await _snapshots(view, region, Filters=wanted)).resources:
        return found
    raise ResourceGone(f"there is no {snapshot}", operation="DescribeSnapshots")


def _snapshot(view: AwsView, region: str, snapshot: Item, public: bool) -> Resource:
    kept = ("SnapshotId", "VolumeId", "Encrypted")
    name = snapshot["SnapshotId"]
    return view.resource(
        SNAPSHOT,
        region,
        f"arn:{view.source.partition}:ec2:{region}::snapshot/{name}",  # EC2 names no account here
        name,
        Config({**{key: snapshot[key] for key in kept if key in snapshot}, "Public": public}),
        snapshot.get("Tags", ()),
    )


# --- networks ---------------------------------------------------------------------------------


# Networks that other accounts share are listed too, and are theirs to judge.
_OWN = [{"Name": "owner-id", "Values": ["{account}"]}]


def _flow_logs(logs: list[Item]) -> list[dict[str, Any]]:
    """Without how their delivery is going."""
    kept = ("FlowLogId", "FlowLogStatus", "TrafficType", "LogDestinationType", "LogDestination")
    return [{key: log[key] for key in kept if key in log} for log in logs]


# --- defaults ---------------------------------------------------------------------------------


def _metadata_defaults(level: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults themselves, without a word on who set them; none where there are none."""
    about = ("ManagedBy", "ManagedExceptionMessage")
    return {name: one for name, one in level.items() if name not in about}


COLLECTORS = (
    Collector(
        kind=SECURITY_GROUP,
        reads=("ec2:DescribeSecurityGroups",),
        collect=_security_groups,
        read=_read_security_group,
        around=_around_security_group,
        once=("ec2:DescribeSecurityGroups",),
    ),
    listed(
        "aws.ec2.instance",
        Call(call="ec2:DescribeInstances", take="Reservations", inner="Instances"),
        id="arn:{partition}:ec2:{region}:{account}:instance/{InstanceId}",
        name="{InstanceId}",
        again=Call(
            call="ec2:DescribeInstances",
            params={"InstanceIds": ["{last}"]},
            take="Reservations",
            inner="Instances",
        ),
        keep=("InstanceId", "MetadataOptions", "IamInstanceProfile"),
        only=_is_there,
        shape=_instance,
        tags="Tags",
    ),
    listed(
        "aws.ec2.image",
        Call(call="ec2:DescribeImages", params={"Owners": ["self"]}, take="Images"),
        id="arn:{partition}:ec2:{region}::image/{ImageId}",
        name="{ImageId}",
        again=Call(
            call="ec2:DescribeImages",
            params={"Owners": ["self"], "ImageIds": ["{last}"]},
            take="Images",
        ),
        keep=("ImageId", "Name", "Public"),
        tags="Tags",
    ),
    Collector(
        kind=SNAPSHOT,
        reads=("ec2:DescribeSnapshots",),
        collect=_snapshots,
        read=_read_snapshot,
        once=("ec2:DescribeSnapshots", "ec2:DescribeSnapshots"),
    ),
    listed(
        "aws.ec2.volume",
        Call(call="ec2:DescribeVolumes", take="Volumes"),
        id="arn:{partition}:ec2:{region}:{account}:volume/{VolumeId}",
        name="{VolumeId}",
        again=Call(call="ec2:DescribeVolumes", params={"VolumeIds": ["{last}"]}, take="Volumes"),
        keep=("VolumeId", "Encrypted", "VolumeType", "SnapshotId"),
        tags="Tags",
    ),
    listed(
        "aws.ec2.network_acl",
        Call(call="ec2:DescribeNetworkAcls", params={"Filters": _OWN}, take="NetworkAcls"),
        id="arn:{partition}:ec2:{region}:{account}:network-acl/{NetworkAclId}",
        name="{NetworkAclId}",
        again=Call(
            call="ec2:DescribeNetworkAcls",
            params={"NetworkAclIds": ["{last}"], "Filters": _OWN},
            take="NetworkAcls",
        ),
        keep=("NetworkAclId", "VpcId", "IsDefault", "Entries"),
        tags="Tags",
    ),
    listed(
        "aws.ec2.vpc",
        Call(call="ec2:DescribeVpcs", params={"Filters": _OWN}, take="Vpcs"),
        id="arn:{partition}:ec2:{region}:{account}:vpc/{VpcId}",
        name="{VpcId}",
        again=Call(
            call="ec2:DescribeVpcs",
            params={"VpcIds": ["{last}"], "Filters": _OWN},
            take="Vpcs",
        ),
        keep=("VpcId", "CidrBlock", "IsDefault"),
        parts=(
            Part(
                name="FlowLogs",
                call=Call(
                    call="ec2:DescribeFlowLogs",
                    params={"Filter": [{"Name": "resource-id", "Values": ["{VpcId}"]}]},
                    take="FlowLogs",
                ),
                shape=_flow_logs,
            ),
        ),
        tags="Tags",
    ),
    settings(
        "aws.ec2.ebs_defaults",
        (
            Part(
                name="EbsEncryptionByDefault",
                call=Call(call="ec2:GetEbsEncryptionByDefault", take="EbsEncryptionByDefault"),
            ),
        ),
        id="arn:{partition}:ec2:{region}:{account}:ebs-encryption-by-default",
        name="EBS defaults in {region}",
    ),
    settings(
        "aws.ec2.snapshot_defaults",
        (
            Part(
                name="SnapshotBlockPublicAccess",
                call=Call(call="ec2:GetSnapshotBlockPublicAccessState", take="State"),
            ),
        ),
        id="arn:{partition}:ec2:{region}:{account}:snapshot-block-public-access",
        name="snapshot defaults in {region}",
    ),
    settings(
        "aws.ec2.image_defaults",
        (
            Part(
                name="ImageBlockPublicAccess",
                call=Call(
                    call="ec2:GetImageBlockPublicAccessState", take="ImageBlockPublicAccessState"
                ),
            ),
        ),
        id="arn:{partition}:ec2:{region}:{account}:image-block-public-access",
        name="image defaults in {region}",
    ),
    settings(
        "aws.ec2.instance_defaults",
        (
            Part(
                name="InstanceMetadataDefaults",
                call=Call(call="ec2:GetInstanceMetadataDefaults", take="AccountLevel"),
                shape=_metadata_defaults,
            ),
        ),
        id="arn:{partition}:ec2:{region}:{account}:instance-metadata-defaults",
        name="instance defaults in {region}",
    ),
)
