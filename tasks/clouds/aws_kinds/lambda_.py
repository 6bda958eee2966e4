"""What Suture reads of Lambda: functions and their policies."""

from __future__ import annotations

import json
from typing import Any

from tasks.clouds.aws_reading import Call, Part, listed


def _policy(answered: str) -> Any:
    """Everyone in one way: AddPermission writes "*" where older policies have it under AWS."""
    policy = json.loads(answered)
    for statement in policy["Statement"]:
        if statement.get("Principal") == {"AWS": "*"}:
            statement["Principal"] = "*"
    return policy


COLLECTORS = (
    listed(
        "aws.lambda.function",
        Call(call="lambda:ListFunctions", take="Functions"),
        id="arn:{partition}:lambda:{region}:{account}:function:{FunctionName}",
        name="{FunctionName}",
        again={"FunctionName": "{last}"},
        keep=("FunctionName",),
        parts=(
            Part(
                name="Policy",
                call=Call(
                    call="lambda:GetPolicy",
                    params={"FunctionName": "{FunctionName}"},
                    take="Policy",
                ),
                absent=("ResourceNotFoundException",),
                shape=_policy,
            ),
        ),
    ),
)
