"""CloudFormation's rules: examples, what it makes of their calls, and how to plant them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

ARN = "arn:aws:cloudformation:eu-central-1:111122223333:stack/network/1a2b3c4d-0000-11ee-be56"
_numbers = itertools.count(1)
_ALLOWED = {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}
_TEMPLATE = {
    "AWSTemplateFormatVersion": "2010-09-09",
    "Resources": {
        "Policy": {
            "Type": "AWS::IAM::ManagedPolicy",
            "Properties": {
                "PolicyDocument": {"Version": "2012-10-17", "Statement": [_ALLOWED]},
            },
        }
    },
}


def apply(config: dict[str, Any], call: Call) -> None:
    params = dict(call.params)
    assert call.operation == "UpdateTerminationProtection"
    assert params.pop("StackName") == config["StackId"]
    assert params.keys() == {"EnableTerminationProtection"}
    config |= params


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    made = cloud.client("cloudformation").create_stack(
        StackName=f"example-{next(_numbers)}",
        TemplateBody=json.dumps(_TEMPLATE),
        Capabilities=["CAPABILITY_IAM"],
        EnableTerminationProtection=config["EnableTerminationProtection"],
    )
    return str(made["StackId"])


def stack(protected: bool) -> dict[str, Any]:
    return {"StackId": ARN, "StackName": "network", "EnableTerminationProtection": protected}


EXAMPLES: dict[str, Any] = {
    "aws_cloudformation_stack_termination_protected": (
        [stack(True)],
        [stack(False)],
        "EnableTerminationProtection",
    ),
}
KINDS: dict[str, Any] = {
    "aws.cloudformation.stack": {"id": ARN, "apply": apply, "plant": plant},
}
