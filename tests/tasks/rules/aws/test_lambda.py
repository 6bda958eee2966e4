"""A function's policy: statements that could not be added again are not taken out."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import BadInput
from tasks.model import Cloud, Config, Resource
from tasks.rules import rule

FUNCTION = "arn:aws:lambda:eu-central-1:111122223333:function:resize"
ROW = rule("aws_lambda_function_policy_closed_to_strangers")


def function(**more: Any) -> Resource:
    statement = {
        "Sid": "everyone",
        "Effect": "Allow",
        "Principal": "*",
        "Action": "lambda:InvokeFunction",
        "Resource": FUNCTION,
        **more,
    }
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    return Resource(
        cloud=Cloud.AWS,
        account="111122223333",
        region="eu-central-1",
        kind="aws.lambda.function",
        id=FUNCTION,
        name="resize",
        config=Config({"FunctionName": "resize", "Policy": policy}),
    )


@pytest.mark.parametrize(
    "more",
    [
        {"Sid": None},
        {"Action": ["lambda:InvokeFunction", "lambda:GetFunction"]},
        {"Principal": {"AWS": ["*", "arn:aws:iam::111122223333:root"]}},
        {"Resource": f"{FUNCTION}:live"},
        {"Condition": {"StringLike": {"AWS:SourceArn": "*"}}},
        {"Condition": {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}}},
        {"Condition": {"ArnLike": {"AWS:SourceArn": ["arn:aws:s3:::acme-*"]}}},
        {"Condition": {"Bool": {"lambda:InvokedViaFunctionUrl": "maybe"}}},
    ],
)
def test_what_could_not_be_added_again_stays(more: dict[str, Any]) -> None:
    assert ROW.judge(function(**more))[0] == "fail"
    assert ROW.fix is not None
    with pytest.raises(BadInput, match="could not be added again"):
        ROW.fix(function(**more), {})


def test_the_undo_adds_the_statement_with_its_conditions() -> None:
    condition = {
        "StringEquals": {"lambda:FunctionUrlAuthType": "NONE", "lambda:EventSourceToken": "t"},
        "Bool": {"lambda:InvokedViaFunctionUrl": "true"},
    }
    assert ROW.fix is not None
    (step,) = ROW.fix(function(Condition=condition), {})
    assert step.call.params == {"FunctionName": "resize", "StatementId": "everyone"}
    assert step.undo[0].params == {
        "FunctionName": "resize",
        "StatementId": "everyone",
        "Action": "lambda:InvokeFunction",
        "Principal": "*",
        "FunctionUrlAuthType": "NONE",
        "EventSourceToken": "t",
        "InvokedViaFunctionUrl": True,
    }
