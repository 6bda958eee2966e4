"""What one fix may do: permissions of its calls, and the AWS session policy made of them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Cloud, Resource, Step

MOST_CHARACTERS = 2_048  # what sts:AssumeRole takes as a session policy

# IAM actions are named after the API operation, except for these. From the Service Authorization
# Reference of Amazon S3.
_S3_ACTIONS = {
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "PutBucketReplication": "PutReplicationConfiguration",
    "DeleteBucketReplication": "PutReplicationConfiguration",
    "PutBucketCors": "PutBucketCORS",
    "DeleteBucketCors": "PutBucketCORS",
    "DeleteBucketTagging": "PutBucketTagging",
    "DeleteBucketOwnershipControls": "PutBucketOwnershipControls",
    "PutBucketNotificationConfiguration": "PutBucketNotification",
}

# Kinds whose writes IAM can pin to the resource itself. All other writes are about the account:
# IAM knows no resource for them, and what can be pinned is the region.
_PINNED_KINDS = {"aws.ec2.security_group", "aws.s3.bucket"}


def permission_of(call: Call) -> str:
    """The permission that a call needs: "s3:PutBucketPolicy", or an Azure operation.

    >>> permission_of(Call(Cloud.AWS, "s3", "DeletePublicAccessBlock", {}))
    's3:PutBucketPublicAccessBlock'
    """
    if call.cloud is Cloud.AZURE:
        verb = "delete" if call.operation == "DELETE" else "write"
        return f"{_arm_type(call.target)}/{verb}"
    operation = call.operation
    if call.service == "s3":
        operation = _S3_ACTIONS.get(operation, operation)
    return f"{call.service}:{operation}"


def permissions(steps: Iterable[Step], *, undo: bool = True) -> tuple[str, ...]:
    """Every permission the steps need, and unless told otherwise their undo; each once, in order.

    Azure compares operations without regard to case, and so does this.
    """
    found: dict[str, str] = {}
    for step in steps:
        reverse = [permission_of(call) for call in step.undo] if undo else []
        for name in (step.action, *reverse):
            found.setdefault(name.lower(), name)
    return tuple(found.values())


def session_policy(
    resource: Resource, steps: Sequence[Step], *, undo: bool = True
) -> dict[str, Any]:
    """The AWS session policy under which the steps, and nothing else, can be done to the resource.

    Raises BadInput when there is nothing to allow, or when AWS would not take the policy for its
    length.
    """
    actions = permissions(steps, undo=undo)
    if resource.cloud is not Cloud.AWS or not actions:
        raise BadInput("steps", "a session policy needs the steps of a fix on AWS.")
    statement: dict[str, Any] = {"Effect": "Allow", "Action": sorted(actions), "Resource": "*"}
    if resource.kind in _PINNED_KINDS:
        statement["Resource"] = resource.id
    elif resource.region != "global":
        statement["Condition"] = {"StringEquals": {"aws:RequestedRegion": resource.region}}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    if len(policy_text(policy)) > MOST_CHARACTERS:
        raise BadInput(
            "steps",
            f"their session policy is longer than the {MOST_CHARACTERS} characters AWS takes.",
            "Fix the resource in parts.",
        )
    return policy


def policy_text(policy: dict[str, Any]) -> str:
    """The policy in its shortest form: its length is limited."""
    return json.dumps(policy, separators=(",", ":"))


def _arm_type(resource_id: str) -> str:
    """Microsoft.Network/networkSecurityGroups/securityRules of an ARM id below a provider."""
    _, marker, rest = resource_id.lower().rpartition("/providers/")
    parts = resource_id[-len(rest) :].strip("/").split("/") if marker and rest else []
    if len(parts) < 3 or len(parts) % 2 == 0:
        raise BadInput("target", "this is not the ARM id of a resource.")
    return "/".join([parts[0], *parts[1::2]])
