"""What Suture reads of EC2: security groups, and a region's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.clouds.aws_reading import Call, Part, settings
from tasks.clouds.aws_view import AwsView, Collector, Found, part_of
from tasks.errors import ResourceGone
from tasks.model import Config, Resource, in_order

SECURITY_GROUP = "aws.ec2.security_group"


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


def _metadata_defaults(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults themselves, without a word on who set them; none where there are none."""
    about = ("ManagedBy", "ManagedExceptionMessage")
    return {name: one for name, one in answer.get("AccountLevel", {}).items() if name not in about}


COLLECTORS = (
    Collector(
        kind=SECURITY_GROUP,
        reads=("ec2:DescribeSecurityGroups",),
        collect=_security_groups,
        read=_read_security_group,
        around=_around_security_group,
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
                call=Call(call="ec2:GetInstanceMetadataDefaults"),
                shape=_metadata_defaults,
            ),
        ),
        id="arn:{partition}:ec2:{region}:{account}:instance-metadata-defaults",
        name="instance defaults in {region}",
    ),
)
