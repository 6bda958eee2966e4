"""Access keys: only what is bad goes, and the approver is told whether anybody will miss it."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.model import Cloud, Config, Resource
from tasks.rules import rule

ROTATED = rule("aws_iam_user_keys_rotated")
ADMINISTRATIVE = rule("aws_iam_policy_not_administrative")


def user(*keys: tuple[str, str, int, int]) -> Resource:
    names = ("AccessKeyId", "Status", "OlderThanDays", "UnusedForDays")
    config = {"UserName": "jo", "AccessKeys": [dict(zip(names, key, strict=True)) for key in keys]}
    return resource("user/jo", config)


def resource(rest: str, config: dict[str, Any]) -> Resource:
    arn = f"arn:aws:iam::111122223333:{rest}"
    kind = f"aws.iam.{rest.partition('/')[0]}"
    return Resource(Cloud.AWS, "111122223333", "global", kind, arn, "one", Config(config))


def test_the_approver_is_told_whether_the_key_is_in_use() -> None:
    before = user(("AKIA1", "Active", 90, 90), ("AKIA2", "Active", 90, 0))
    idle, used = ROTATED.fix(before, {})  # type: ignore[misc]
    assert "not used for more than 90 days" in idle.changes[0].before
    assert "stops working" in used.changes[0].before


def test_young_and_inactive_keys_are_left_alone() -> None:
    before = user(("AKIA1", "Active", 45, 45), ("AKIA2", "Active", 90, 0))
    (step,) = ROTATED.fix(before, {})  # type: ignore[misc]
    assert step.call.params["AccessKeyId"] == "AKIA2"
    assert ROTATED.fix(user(("AKIA1", "Inactive", 90, 90)), {}) == ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("statement", "verdict"),
    [
        ({"Effect": "Allow", "Action": "**", "Resource": "*"}, "fail"),
        ({"Effect": "Allow", "Action": ["s3:Get*", "*"], "Resource": ["a", "*"]}, "fail"),
        ({"Effect": "Allow", "Action": "iam:*", "Resource": "*"}, "pass"),
        ({"Effect": "allow", "Action": "*", "Resource": "*"}, "unknown"),
        ({"Effect": "Allow", "Action": "*"}, "unknown"),
        ({"Effect": "Allow", "Resource": "*"}, "unknown"),
        ([], "unknown"),
    ],
)
def test_policies_that_allow_everything(statement: Any, verdict: str) -> None:
    config = {"Document": {"Version": "2012-10-17", "Statement": statement}}
    assert ADMINISTRATIVE.judge(resource("policy/ours", config))[0] == verdict
