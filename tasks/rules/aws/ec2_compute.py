"""EC2's rules about instances, and about the images, snapshots and volumes of their disks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Resource, Rule, Severity
from tasks.rules.aws.switch import Params, becomes, switch
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, odd, text

_OPTIONS = "MetadataOptions"


def _named(field: str) -> Params:
    return lambda resource: {field: text(resource.config[field], field)}


def requires_tokens(resource: Resource) -> bool:
    """The instance answers IMDSv2 only, or its metadata service is off."""
    options = mapping(resource.config[_OPTIONS], _OPTIONS)
    endpoint, tokens = options.get("HttpEndpoint"), options.get("HttpTokens")
    if endpoint not in ("enabled", "disabled") or tokens not in ("optional", "required"):
        raise odd(_OPTIONS)
    return bool(endpoint == "disabled" or tokens == "required")


def has_a_profile(resource: Resource) -> bool:
    profile = resource.config["IamInstanceProfile"]
    return profile is not None and bool(
        text(mapping(profile, "IamInstanceProfile").get("Arn"), "IamInstanceProfile.Arn")
    )


def is_private(resource: Resource) -> bool:
    return not flag(resource.config["Public"], "Public")


def is_encrypted(resource: Resource) -> bool:
    return flag(resource.config["Encrypted"], "Encrypted")


def _shared(way: str) -> Mapping[str, Any]:
    return {
        "Attribute": "createVolumePermission",
        "OperationType": way,
        "GroupNames": ["all"],
    }


RULES = (
    Rule(
        id="aws_ec2_instance_imdsv2_required",
        kind="aws.ec2.instance",
        severity=Severity.HIGH,
        title="EC2 instance requires IMDSv2",
        passes=requires_tokens,
        fix=switch(
            "ec2:ModifyInstanceMetadataOptions",
            "ec2",
            "ModifyInstanceMetadataOptions",
            passes=requires_tokens,
            names=_named("InstanceId"),
            good={"HttpTokens": "required"},
            old=lambda _resource: {"HttpTokens": "optional"},
            changes=becomes(
                "HttpTokens",
                "optional: requests for metadata need no session token",
                "required: software on the instance that knows IMDSv1 only gets no credentials",
            ),
        ),
        reads=("ec2:DescribeInstances",),
        writes=("ec2:ModifyInstanceMetadataOptions",),
        events=("ec2:RunInstances", "ec2:ModifyInstanceMetadataOptions"),
        aka=("prowler:ec2_instance_imdsv2_enabled", "securityhub:EC2.8", "cis-aws-6.0:6.7"),
        guide=written(
            means="""The instance's metadata service is on and answers requests without a session
                token (IMDSv1).""",
            matters="""The service hands out the credentials of the instance's role. A web
                application that can be made to fetch an address of a stranger's choice gives them
                away with one plain request. Version 2 wants a token first, asked for with another
                method and a header, which such tricks hardly ever manage.""",
            console="""EC2 > Instances > the instance > Actions > Instance settings > Modify
                instance metadata options > IMDSv2 > Required. Its metric MetadataNoToken in
                CloudWatch says first whether anything still asks without a token.""",
            cli="""
                aws ec2 modify-instance-metadata-options --instance-id INSTANCE \\
                  --http-tokens required""",
            terraform="""
                resource "aws_instance" "this" {
                  metadata_options {
                    http_tokens = "required"
                  }
                }""",
            fix="""It requires tokens. The hop limit and every other option stay as they are, and
                the instance runs on: it takes seconds and no restart.""",
            breaks="""Software that knows version 1 only no longer finds metadata or credentials:
                AWS's SDKs, the CLI and agents from before 2020. Containers in a network of their
                own need a hop limit of 2. If MetadataNoToken is zero for some days, nothing
                breaks.""",
            back="Suture's undo makes tokens optional again.",
        ),
    ),
    Rule(
        id="aws_ec2_instance_profile_attached",
        kind="aws.ec2.instance",
        severity=Severity.LOW,
        title="EC2 instance has an instance profile",
        passes=has_a_profile,
        fix=None,
        reads=("ec2:DescribeInstances",),
        writes=(),
        events=(
            "ec2:RunInstances",
            "ec2:AssociateIamInstanceProfile",
            "ec2:DisassociateIamInstanceProfile",
            "ec2:ReplaceIamInstanceProfileAssociation",
        ),
        aka=("prowler:ec2_instance_profile_attached", "cis-aws-6.0:2.17"),
        guide=written(
            means="The instance runs without a role of its own.",
            matters="""Software on it that calls AWS has to bring credentials along, and those are
                mostly a user's access key in a file: valid for years, in every backup and image of
                the disk. A role's credentials change by themselves within hours.""",
            console="""EC2 > Instances > the instance > Actions > Security > Modify IAM role >
                choose a role that may do what the software needs.""",
            cli="""
                aws ec2 associate-iam-instance-profile --instance-id INSTANCE \\
                  --iam-instance-profile Name=PROFILE
                # Then take the keys out of the software's configuration, and deactivate them.""",
            terraform="""
                resource "aws_instance" "this" {
                  iam_instance_profile = aws_iam_instance_profile.app.name
                }""",
            by_hand="""Which role is right depends on what the software does. Any role that Suture
                could choose would give too little to be of use, or too much to be safe. An instance
                that never calls AWS may be left as it is, with an exception.""",
            breaks="""Nothing at first: credentials in files and variables go before the role's.
                Once they are gone, calls that the role does not allow are refused.""",
            back="""aws ec2 disassociate-iam-instance-profile with the association's id takes the
                role off again.""",
        ),
    ),
    Rule(
        id="aws_ec2_image_not_public",
        kind="aws.ec2.image",
        severity=Severity.CRITICAL,
        title="Machine image is not public",
        passes=is_private,
        fix=switch(
            "ec2:ModifyImageAttribute",
            "ec2",
            "ModifyImageAttribute",
            passes=is_private,
            names=_named("ImageId"),
            good={"LaunchPermission": {"Remove": [{"Group": "all"}]}},
            old=lambda _resource: {"LaunchPermission": {"Add": [{"Group": "all"}]}},
            changes=becomes(
                "launch permission of everybody", "granted", "none: only accounts named one by one"
            ),
        ),
        reads=("ec2:DescribeImages",),
        writes=("ec2:ModifyImageAttribute",),
        events=("ec2:CreateImage", "ec2:RegisterImage", "ec2:ModifyImageAttribute"),
        aka=("prowler:ec2_ami_public",),
        guide=written(
            means="Any AWS customer can launch instances from this machine image of the account's.",
            matters="""An image carries whatever was on its disks: code, configuration, keys that
                somebody forgot. Images that appear in the public catalogue are searched for such
                things by machines.""",
            console="EC2 > AMIs > the image > Actions > Edit AMI permissions > Private > Save.",
            cli="""
                aws ec2 modify-image-attribute --image-id IMAGE \\
                  --launch-permission "Remove=[{Group=all}]\"""",
            terraform="""
                # Remove the resource that shares it with everybody:
                # aws_ami_launch_permission with group = "all".""",
            fix="""It takes launch permission from everybody. Accounts, organizations and units that
                are named one by one keep theirs.""",
            breaks="""Strangers, and accounts of your own that are not named, can no longer launch
                from it; auto scaling there fails to start instances. What runs, runs on. Whatever
                was copied meanwhile is out of reach: change the secrets that were on it.""",
            back="""Suture's undo gives the permission to everybody again, unless the region blocks
                public images by then.""",
        ),
    ),
    Rule(
        id="aws_ec2_snapshot_not_public",
        kind="aws.ec2.snapshot",
        severity=Severity.CRITICAL,
        title="EBS snapshot is not public",
        passes=is_private,
        fix=switch(
            "ec2:ModifySnapshotAttribute",
            "ec2",
            "ModifySnapshotAttribute",
            passes=is_private,
            names=_named("SnapshotId"),
            good=_shared("remove"),
            old=lambda _resource: _shared("add"),
            changes=becomes(
                "permission of everybody to make volumes of it",
                "granted",
                "none: only accounts named one by one",
            ),
        ),
        reads=("ec2:DescribeSnapshots",),
        writes=("ec2:ModifySnapshotAttribute",),
        events=("ec2:CreateSnapshot", "ec2:CopySnapshot", "ec2:ModifySnapshotAttribute"),
        aka=("prowler:ec2_ebs_public_snapshot", "securityhub:EC2.1"),
        guide=written(
            means="Any AWS customer can make a volume of this snapshot and read all of it.",
            matters="""A snapshot is a whole disk. Public ones are listed for everybody to see, and
                are copied by people who look for databases and keys.""",
            console="""EC2 > Snapshots > the snapshot > Actions > Modify permissions > Private >
                Save.""",
            cli="""
                aws ec2 modify-snapshot-attribute --snapshot-id SNAPSHOT \\
                  --attribute createVolumePermission --operation-type remove --group-names all""",
            terraform="""
                # aws_snapshot_create_volume_permission shares with single accounts only; keep
                # everything else from becoming public:
                resource "aws_ebs_snapshot_block_public_access" "this" {
                  state = "block-all-sharing"
                }""",
            fix="""It takes the permission from everybody. Accounts that are named one by one keep
                theirs.""",
            breaks="""Strangers, and accounts of your own that are not named, can no longer use it.
                Volumes made of it stay. Whatever was copied meanwhile is out of reach: change the
                secrets that were on it.""",
            back="""Suture's undo gives the permission to everybody again, unless the region blocks
                public snapshots by then.""",
        ),
    ),
    Rule(
        id="aws_ec2_volume_encrypted",
        kind="aws.ec2.volume",
        severity=Severity.MEDIUM,
        title="EBS volume is encrypted",
        passes=is_encrypted,
        fix=None,
        reads=("ec2:DescribeVolumes",),
        writes=(),
        events=("ec2:CreateVolume", "ec2:RunInstances", "ec2:DeleteVolume"),
        aka=("prowler:ec2_ebs_volume_encryption", "securityhub:EC2.3", "cis-aws-6.0:6.1.1"),
        guide=written(
            means="The volume's data, and every snapshot of it, are kept in the clear.",
            matters="""Encryption puts a key's policy between the data and whoever gets hold of a
                snapshot or of a disk. It costs nothing, and instances do not notice it.""",
            console="""EC2 > Volumes > the volume > Actions > Create snapshot; then Snapshots > the
                snapshot > Actions > Create volume from snapshot > Encrypt this volume, in the same
                zone; then, with the instance stopped, detach the old volume and attach the new.""",
            cli="""
                aws ec2 stop-instances --instance-ids INSTANCE
                aws ec2 create-snapshot --volume-id VOLUME
                aws ec2 create-volume --snapshot-id SNAPSHOT --encrypted --availability-zone ZONE
                aws ec2 detach-volume --volume-id VOLUME
                aws ec2 attach-volume --volume-id NEW --instance-id INSTANCE --device DEVICE
                aws ec2 start-instances --instance-ids INSTANCE""",
            terraform="""
                resource "aws_ebs_volume" "this" {
                  encrypted = true
                }""",
            by_hand="""EC2 cannot encrypt a volume in place: it takes a new volume, and an instance
                that stands still meanwhile. When that may be is for its owners to say. A rule of
                its own has new volumes encrypted by default.""",
            breaks="""The instance is down while the disk is copied. The new volume reads slowly
                until all of it has come from the snapshot. Terraform replaces a volume whose
                encryption changes, and its data with it: copy first.""",
            back="""Keep the old volume and its snapshot until the new one has proved itself, and
                attach the old one again if need be.""",
        ),
    ),
)
