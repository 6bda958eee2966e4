"""What a session may do is exactly what the fix and its undo need, on exactly that resource."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.clouds.session_policy import (
    MOST_CHARACTERS,
    permission_of,
    permissions,
    policy_text,
    session_policy,
)
from tasks.errors import BadInput
from tasks.model import Call, Cloud, Config, Resource, Step

GROUP = "arn:aws:ec2:eu-central-1:111122223333:security-group/sg-0a"
NSG = "/subscriptions/0b1f/resourcegroups/rg/providers/microsoft.network/networksecuritygroups/web"


def resource(kind: str, resource_id: str, region: str = "eu-central-1") -> Resource:
    cloud = Cloud(kind.partition(".")[0])
    return Resource(cloud, "111122223333", region, kind, resource_id, "x", Config({}))


def aws(service: str, operation: str, *undo: str) -> Step:
    reverse = tuple(Call(Cloud.AWS, service, name, {}) for name in undo)
    call = Call(Cloud.AWS, service, operation, {})
    return Step(permission_of(call), call, reverse, ())


def azure(operation: str, target: str) -> Call:
    return Call(Cloud.AZURE, "2024-05-01", operation, {}, target)


def test_a_security_group_is_pinned_by_its_arn() -> None:
    steps = [aws("ec2", "RevokeSecurityGroupIngress", "AuthorizeSecurityGroupIngress")]
    assert session_policy(resource("aws.ec2.security_group", GROUP), steps) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"],
                "Resource": GROUP,
            }
        ],
    }


def test_without_undo_only_the_fix_is_allowed() -> None:
    steps = [aws("ec2", "RevokeSecurityGroupIngress", "AuthorizeSecurityGroupIngress")]
    policy = session_policy(resource("aws.ec2.security_group", GROUP), steps, undo=False)
    assert policy["Statement"][0]["Action"] == ["ec2:RevokeSecurityGroupIngress"]


def test_a_setting_of_a_region_is_pinned_by_the_region() -> None:
    steps = [aws("ec2", "EnableEbsEncryptionByDefault", "DisableEbsEncryptionByDefault")]
    (statement,) = session_policy(resource("aws.ec2.ebs_defaults", "arn:…"), steps)["Statement"]
    assert statement["Resource"] == "*"
    assert statement["Condition"] == {"StringEquals": {"aws:RequestedRegion": "eu-central-1"}}


def test_a_setting_of_the_account_has_no_region() -> None:
    steps = [aws("iam", "UpdateAccountPasswordPolicy", "DeleteAccountPasswordPolicy")]
    policy = session_policy(resource("aws.iam.password_policy", "arn:…", "global"), steps)
    assert set(policy["Statement"][0]) == {"Effect", "Action", "Resource"}


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (("s3", "PutPublicAccessBlock"), "s3:PutBucketPublicAccessBlock"),
        (("s3", "DeletePublicAccessBlock"), "s3:PutBucketPublicAccessBlock"),
        (("s3", "DeleteBucketPolicy"), "s3:DeleteBucketPolicy"),
        (("s3", "PutBucketVersioning"), "s3:PutBucketVersioning"),
        (("iam", "DeleteAccountPasswordPolicy"), "iam:DeleteAccountPasswordPolicy"),
    ],
)
def test_iam_actions_are_named_as_iam_names_them(call: tuple[str, str], expected: str) -> None:
    assert permission_of(Call(Cloud.AWS, *call, {})) == expected


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (azure("PATCH", NSG), "microsoft.network/networksecuritygroups/write"),
        (
            azure("PUT", f"{NSG}/securityRules/ssh"),
            "microsoft.network/networksecuritygroups/securityRules/write",
        ),
        (
            azure("DELETE", f"{NSG}/securityRules/ssh/"),
            "microsoft.network/networksecuritygroups/securityRules/delete",
        ),
        (
            azure("PUT", f"{NSG}/providers/Microsoft.Insights/diagnosticSettings/x"),
            "Microsoft.Insights/diagnosticSettings/write",
        ),
    ],
)
def test_azure_operations_follow_from_the_target(call: Call, expected: str) -> None:
    assert permission_of(call) == expected


@pytest.mark.parametrize("target", ["", "/", "/subscriptions/0b1f", f"{NSG}/securityRules"])
def test_what_is_no_resource_has_no_operation(target: str) -> None:
    with pytest.raises(BadInput):
        permission_of(azure("PUT", target))


def test_azure_permissions_differ_by_more_than_case() -> None:
    put = azure("PUT", f"{NSG}/securityRules/ssh")
    step = Step("Microsoft.Network/networkSecurityGroups/securityRules/write", put, (put,), ())
    assert permissions([step]) == ("Microsoft.Network/networkSecurityGroups/securityRules/write",)


def test_no_policy_is_made_of_nothing() -> None:
    with pytest.raises(BadInput):
        session_policy(resource("aws.s3.bucket", "arn:aws:s3:::b"), [])


@given(st.integers(1, 120))
def test_a_policy_is_never_longer_than_aws_takes(count: int) -> None:
    steps = [aws("ec2", f"RevokeSecurityGroupIngress{number}") for number in range(count)]
    wanted = resource("aws.ec2.security_group", GROUP)
    try:
        policy = session_policy(wanted, steps)
    except BadInput:
        assert count * len("ec2:RevokeSecurityGroupIngress") > MOST_CHARACTERS // 2
    else:
        assert len(policy_text(policy)) <= MOST_CHARACTERS
        assert json.loads(policy_text(policy)) == policy
