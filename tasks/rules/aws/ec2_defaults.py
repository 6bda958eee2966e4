"""EC2's rules about what goes for a whole region: public snapshots and images, IMDSv2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call, Change, Cloud, Fix, Predicate, Resource, Rule, Severity, Step
from tasks.rules.aws.switch import nothing, switch
from tasks.rules.guide import written
from tasks.rules.shape import mapping, odd

_OPEN = "unblocked"
_TOKENS = ("no-preference", "optional", "required")
_DEFAULTS = "InstanceMetadataDefaults"

_IN_WORDS = {
    _OPEN: "unblocked: anything may be made public",
    "block-new-sharing": "block-new-sharing: nothing more can be made public",
    "block-all-sharing": "block-all-sharing: nothing is public, whatever its own permissions say",
}


# --- block public access ----------------------------------------------------------------------


def _state(resource: Resource, part: str) -> str:
    state = resource.config[part]
    if state not in tuple(_IN_WORDS):
        raise odd(part)
    return str(state)


def is_blocked(part: str, good: str) -> Predicate:
    """The region's block of public access stands at ``good``."""
    return lambda resource: _state(resource, part) == good


def block(part: str, good: str, thing: str, parameter: str) -> Fix:
    """A planner: blocks public access to ``thing``. The undo goes back to the old state."""
    enable, disable = f"Enable{thing}BlockPublicAccess", f"Disable{thing}BlockPublicAccess"

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        old = _state(resource, part)
        if old == good:
            return ()
        undo = _call(disable) if old == _OPEN else _call(enable, **{parameter: old})
        change = Change(f"{part} in {resource.region}", _IN_WORDS[old], _IN_WORDS[good])
        call = _call(enable, **{parameter: good})
        return (Step(f"ec2:{enable}", call, (undo,), (change,)),)

    return fix


def _call(operation: str, **params: Any) -> Call:
    return Call(Cloud.AWS, "ec2", operation, params)


_SNAPSHOTS_BLOCKED = is_blocked("SnapshotBlockPublicAccess", "block-all-sharing")
_IMAGES_BLOCKED = is_blocked("ImageBlockPublicAccess", "block-new-sharing")


# --- instance metadata ------------------------------------------------------------------------


def _tokens(resource: Resource) -> str:
    """What new instances get; EC2 leaves it out where the account has no preference."""
    tokens = mapping(resource.config[_DEFAULTS], _DEFAULTS).get("HttpTokens", "no-preference")
    if tokens not in _TOKENS:
        raise odd(f"{_DEFAULTS}.HttpTokens")
    return str(tokens)


def new_instances_require_tokens(resource: Resource) -> bool:
    return _tokens(resource) == "required"


def _tokens_required(resource: Resource) -> tuple[Change, ...]:
    after = "required: a new instance answers IMDSv2 only, unless its launch says otherwise"
    return (Change(f"HttpTokens by default in {resource.region}", _tokens(resource), after),)


# --- the rows ---------------------------------------------------------------------------------


RULES = (
    Rule(
        id="aws_ec2_snapshot_defaults_public_access_blocked",
        kind="aws.ec2.snapshot_defaults",
        severity=Severity.HIGH,
        title="EBS snapshots of the region cannot be public",
        passes=_SNAPSHOTS_BLOCKED,
        fix=block("SnapshotBlockPublicAccess", "block-all-sharing", "Snapshot", "State"),
        reads=("ec2:GetSnapshotBlockPublicAccessState",),
        writes=("ec2:EnableSnapshotBlockPublicAccess", "ec2:DisableSnapshotBlockPublicAccess"),
        events=("ec2:EnableSnapshotBlockPublicAccess", "ec2:DisableSnapshotBlockPublicAccess"),
        aka=("prowler:ec2_ebs_snapshot_account_block_public_access",),
        guide=written(
            means="""In this region the account does not block all public sharing of EBS snapshots:
                one of them may be public now, or become so with a single call.""",
            matters="""A public snapshot is a disk that any AWS customer can copy, with every file,
                password and key on it. Finding such snapshots is automated; hardly ever is one
                meant to be public.""",
            console="""EC2 in this region > Settings > Data protection and security > Block public
                access for EBS snapshots > Manage > Block all public access.""",
            cli="""
                aws ec2 enable-snapshot-block-public-access --state block-all-sharing
                aws ec2 get-snapshot-block-public-access-state""",
            terraform="""
                resource "aws_ebs_snapshot_block_public_access" "this" {
                  state = "block-all-sharing"
                }""",
            fix="""It blocks all public sharing in the region. The permissions of the snapshots
                themselves stay as they are and count for nothing while the block stands; sharing
                with single accounts goes on.""",
            breaks="""Whoever uses a public snapshot of this account can no longer see or copy it.
                Where an organization's declarative policy sets the state, EC2 refuses the change:
                change the policy.""",
            back="""Suture's undo goes back to the state that stood before. Snapshots whose own
                permissions are public are public again then.""",
        ),
    ),
    Rule(
        id="aws_ec2_image_defaults_public_access_blocked",
        kind="aws.ec2.image_defaults",
        severity=Severity.MEDIUM,
        title="Machine images of the region cannot be made public",
        passes=_IMAGES_BLOCKED,
        fix=block(
            "ImageBlockPublicAccess", "block-new-sharing", "Image", "ImageBlockPublicAccessState"
        ),
        reads=("ec2:GetImageBlockPublicAccessState",),
        writes=("ec2:EnableImageBlockPublicAccess", "ec2:DisableImageBlockPublicAccess"),
        events=("ec2:EnableImageBlockPublicAccess", "ec2:DisableImageBlockPublicAccess"),
        aka=("prowler:ec2_ami_account_block_public_access",),
        guide=written(
            means="""In this region any of the account's machine images (AMIs) can be made public
                with a single call.""",
            matters="""An image holds whatever was on the disks it was made of: configuration, code
                and often credentials. Made public by mistake, it is copied before anybody
                notices.""",
            console="""EC2 in this region > Settings > Data protection and security > Block public
                access for AMIs > Manage > Block new public sharing.""",
            cli="""
                aws ec2 enable-image-block-public-access \\
                  --image-block-public-access-state block-new-sharing
                aws ec2 get-image-block-public-access-state""",
            terraform="""
                resource "aws_ec2_image_block_public_access" "this" {
                  state = "block-new-sharing"
                }""",
            fix="""It blocks new public sharing in the region, which takes EC2 up to ten minutes.
                Images that are public already stay so; a rule of their own finds those.""",
            breaks="""Publishing images from this region and account fails, which pipelines of
                vendors may do by purpose. Sharing with single accounts, organizations and units
                goes on. Where a declarative policy sets the state, EC2 refuses the change.""",
            back="Suture's undo takes the block away. No image becomes public by that.",
        ),
    ),
    Rule(
        id="aws_ec2_instance_defaults_imdsv2_required",
        kind="aws.ec2.instance_defaults",
        severity=Severity.MEDIUM,
        title="New EC2 instances of the region require IMDSv2 by default",
        passes=new_instances_require_tokens,
        fix=switch(
            "ec2:ModifyInstanceMetadataDefaults",
            "ec2",
            "ModifyInstanceMetadataDefaults",
            passes=new_instances_require_tokens,
            names=nothing,
            good={"HttpTokens": "required"},
            old=lambda resource: {"HttpTokens": _tokens(resource)},
            changes=_tokens_required,
        ),
        reads=("ec2:GetInstanceMetadataDefaults",),
        writes=("ec2:ModifyInstanceMetadataDefaults",),
        events=("ec2:ModifyInstanceMetadataDefaults",),
        aka=("prowler:ec2_instance_account_imdsv2_enabled",),
        guide=written(
            means="""A new instance in this region answers requests for its metadata without a
                session token (IMDSv1) unless its image or its launch asks for more.""",
            matters="""Through the metadata service an instance hands out the credentials of its
                role. Version 1 gives them to a single plain request, such as a web application can
                be tricked into making; version 2 wants a token first, which such tricks do not
                get.""",
            console="""EC2 in this region > Settings > Data protection and security > IMDS
                defaults > Manage > Metadata version > V2 only.""",
            cli="""
                aws ec2 modify-instance-metadata-defaults --http-tokens required
                aws ec2 get-instance-metadata-defaults""",
            terraform="""
                resource "aws_ec2_instance_metadata_defaults" "this" {
                  http_tokens = "required"
                }""",
            fix="""It sets the region's default to tokens required and leaves the other defaults,
                such as the hop limit, as they are. Instances that exist are not touched.""",
            breaks="""New instances whose software knows version 1 only find no credentials: AWS's
                SDKs know version 2 since 2019 or 2020. Containers in a network of their own need a
                hop limit of 2. A launch that sets its own options is not affected.""",
            back="""Suture's undo sets the default that stood before. Instances launched in between
                keep what they got.""",
        ),
    ),
)
