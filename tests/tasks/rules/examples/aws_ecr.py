"""ECR's rules: examples, what ECR makes of their calls, and how to plant them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.params["repositoryName"] == config["repositoryName"]
    if call.operation == "SetRepositoryPolicy":
        config["Policy"] = json.loads(call.params["policyText"])
    else:
        assert call.operation == "DeleteRepositoryPolicy"
        assert config["Policy"] is not None
        config["Policy"] = None


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    ecr, name = cloud.client("ecr"), f"planted/{uuid.uuid4().hex}"
    made = ecr.create_repository(repositoryName=name)["repository"]
    if config["Policy"]:
        ecr.set_repository_policy(repositoryName=name, policyText=json.dumps(config["Policy"]))
    return str(made["repositoryArn"])


def repository(*statements: dict[str, Any]) -> dict[str, Any]:
    policy = {"Version": "2008-10-17", "Statement": list(statements)} if statements else None
    return {"repositoryName": "team/app", "Policy": policy}


PUBLIC = {
    "Sid": "pull",
    "Effect": "Allow",
    "Principal": "*",
    "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
}
PARTNER = {**PUBLIC, "Sid": "partner", "Principal": {"AWS": "arn:aws:iam::444455556666:root"}}
OURS = {**PUBLIC, "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}}}
ANYONES = {**PUBLIC, "Condition": {"StringLike": {"aws:PrincipalOrgID": "*"}}}

EXAMPLES: dict[str, Any] = {
    "aws_ecr_repository_policy_closed_to_strangers": (
        [repository(), repository(PARTNER), repository(OURS, PARTNER)],
        [repository(PUBLIC, PARTNER), repository(PUBLIC), repository(ANYONES, OURS)],
        "Policy",
    ),
}
KINDS: dict[str, Any] = {
    "aws.ecr.repository": {
        "id": "arn:aws:ecr:eu-central-1:111122223333:repository/team/app",
        "apply": apply,
        "plant": plant,
    },
}
