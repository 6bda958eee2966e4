"""What one fix may do: permissions of its calls, and AWS session policies made of them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.clouds.authorization import Reach, reach
from tasks.clouds.iam_actions import iam_action
from tasks.errors import BadInput
from tasks.model import Call, Cloud, Resource, Step

MOST_CHARACTERS = 2_048  # what sts:AssumeRole takes as a session policy


def permission_of(call: Call) -> str:
    """The permission that a call needs: "s3:PutBucketPolicy", or an Azure operation.

    >>> permission_of(Call(Cloud.AWS, "s3", "DeletePublicAccessBlock", {}))
    's3:PutBucketPublicAccessBlock'
    """
    if call.cloud is Cloud.AZURE:
        verb = "delete" if call.operation == "DELETE" else "write"
        return f"{_arm_type(call.target)}/{verb}"
    return iam_action(call.service, call.operation)


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


def session_policy(resource: Resource, actions: Iterable[str]) -> dict[str, Any]:
    """The AWS session policy for these actions on this resource, and for nothing else.

    Each action is held to the resource as finely as IAM can. Raises BadInput when there is nothing
    to allow, or something that IAM cannot hold to this resource.
    """
    by_reach: dict[Reach, list[str]] = {}
    for action in sorted(actions):
        by_reach.setdefault(reach(action, resource), []).append(action)
    if resource.cloud is not Cloud.AWS or not by_reach:
        raise BadInput("steps", "a session policy needs the steps of a fix on AWS.")
    statements = [
        {"Effect": "Allow", "Action": some, **one.statement} for one, some in by_reach.items()
    ]
    return {"Version": "2012-10-17", "Statement": statements}


def sessions_needed(
    resource: Resource, actions: Sequence[str], most: int = MOST_CHARACTERS
) -> list[tuple[str, ...]]:
    """The actions in as few parts as have session policies that AWS takes for their length.

    Each part is a session of its own. A call needs one action, so that a step and its undo work
    however the actions are divided: each is made with the session that has it.
    """
    parts: list[tuple[str, ...]] = []
    for action in actions:
        last = (*parts[-1], action) if parts else (action,)
        if len(policy_text(session_policy(resource, last))) <= most:
            parts[-1:] = [last]
        elif len(policy_text(session_policy(resource, [action]))) <= most:
            parts.append((action,))
        else:
            raise BadInput(
                "steps", f"the policy for {action} alone is longer than AWS takes ({most})."
            )
    return parts


def policy_text(policy: Mapping[str, Any]) -> str:
    """The policy in its shortest form: its length is limited."""
    return json.dumps(policy, separators=(",", ":"))


def _arm_type(resource_id: str) -> str:
    """Microsoft.Network/networkSecurityGroups/securityRules of an ARM id below a provider."""
    _, marker, rest = resource_id.lower().rpartition("/providers/")
    parts = resource_id[-len(rest) :].strip("/").split("/") if marker and rest else []
    if len(parts) < 3 or len(parts) % 2 == 0:
        raise BadInput("target", "this is not the ARM id of a resource.")
    return "/".join([parts[0], *parts[1::2]])
