"""What a session may do is exactly what the fix and its undo need, on exactly that resource."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.clouds.authorization import GRAINS
from tasks.clouds.session_policy import (
    MOST_CHARACTERS,
    permission_of,
    permissions,
    policy_text,
    session_policy,
    sessions_needed,
)
from tasks.errors import BadInput
from tasks.model import Call, Cloud, Config, Resource, Step
from tasks.rules import RULES

GROUP = "arn:aws:ec2:eu-central-1:111122223333:security-group/sg-0a"
BUCKET = "arn:aws:s3:::acme-logs"
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


IN_REGION = {"StringEquals": {"aws:RequestedRegion": "eu-central-1"}}


def test_a_security_group_is_pinned_by_its_arn_and_region() -> None:
    steps = [aws("ec2", "RevokeSecurityGroupIngress", "AuthorizeSecurityGroupIngress")]
    policy = session_policy(resource("aws.ec2.security_group", GROUP), permissions(steps))
    assert policy == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["ec2:AuthorizeSecurityGroupIngress", "ec2:RevokeSecurityGroupIngress"],
                "Resource": GROUP,
                "Condition": IN_REGION,
            }
        ],
    }


def test_without_undo_only_the_fix_is_allowed() -> None:
    steps = [aws("ec2", "RevokeSecurityGroupIngress", "AuthorizeSecurityGroupIngress")]
    assert permissions(steps, undo=False) == ("ec2:RevokeSecurityGroupIngress",)


def test_a_bucket_is_pinned_by_its_name_region_and_owner() -> None:
    policy = session_policy(resource("aws.s3.bucket", BUCKET), ["s3:PutBucketPolicy"])
    (statement,) = policy["Statement"]
    assert statement["Resource"] == BUCKET
    assert statement["Condition"] == {
        "StringEquals": {
            "aws:RequestedRegion": "eu-central-1",
            "s3:ResourceAccount": "111122223333",
        }
    }


def test_a_setting_of_a_region_is_pinned_by_the_region() -> None:
    policy = session_policy(
        resource("aws.ec2.ebs_defaults", "arn:…"),
        ["ec2:EnableEbsEncryptionByDefault", "ec2:DisableEbsEncryptionByDefault"],
    )
    (statement,) = policy["Statement"]
    assert statement["Resource"] == "*"
    assert statement["Condition"] == IN_REGION


@pytest.mark.parametrize(
    ("partition", "region"),
    [("aws", "us-east-1"), ("aws-cn", "cn-north-1"), ("aws-us-gov", "us-gov-west-1")],
)
def test_a_setting_of_the_account_is_pinned_where_iam_is_asked(partition: str, region: str) -> None:
    arn = f"arn:{partition}:iam::111122223333:account-password-policy"
    policy = session_policy(
        resource("aws.iam.password_policy", arn, "global"), ["iam:UpdateAccountPasswordPolicy"]
    )
    (statement,) = policy["Statement"]
    assert statement["Condition"] == {"StringEquals": {"aws:RequestedRegion": region}}


def test_each_action_has_its_own_reach() -> None:
    actions = ["ec2:RevokeSecurityGroupIngress", "ec2:EnableEbsEncryptionByDefault"]
    policy = session_policy(resource("aws.ec2.security_group", GROUP), actions)
    assert {one["Action"][0]: one["Resource"] for one in policy["Statement"]} == {
        "ec2:EnableEbsEncryptionByDefault": "*",
        "ec2:RevokeSecurityGroupIngress": GROUP,
    }


@pytest.mark.attack
@pytest.mark.parametrize(
    ("kind", "name", "action"),
    [
        ("aws.s3.bucket", "arn:aws:s3:::*", "s3:PutBucketPolicy"),
        ("aws.s3.bucket", "arn:aws:s3:::logs*", "s3:PutBucketPolicy"),
        ("aws.s3.bucket", "arn:aws:s3:::${aws:username}", "s3:PutBucketPolicy"),
        ("aws.s3.bucket", GROUP, "s3:PutBucketPolicy"),
        ("aws.s3.bucket", "*", "s3:PutBucketPolicy"),
        ("aws.ec2.security_group", f"{GROUP[:-5]}sg-?a", "ec2:RevokeSecurityGroupIngress"),
        ("aws.ec2.security_group", GROUP.replace("-1:1", "-*:1"), "ec2:RevokeSecurityGroupIngress"),
        ("aws.ec2.security_group", GROUP.replace("1111", "9999"), "ec2:RevokeSecurityGroupIngress"),
        ("aws.ec2.security_group", GROUP.replace("central", "w"), "ec2:RevokeSecurityGroupIngress"),
        ("aws.ec2.security_group", f"{GROUP}\n", "ec2:RevokeSecurityGroupIngress"),
    ],
)
def test_an_id_that_names_more_than_its_resource_gets_no_session(
    kind: str, name: str, action: str
) -> None:
    with pytest.raises(BadInput, match="not done to"):
        session_policy(resource(kind, name), [action])


def test_an_action_that_nobody_has_looked_up_gets_no_session() -> None:
    with pytest.raises(BadInput, match="Service Authorization Reference"):
        session_policy(resource("aws.s3.bucket", BUCKET), ["s3:PutBucketTagging"])


def test_the_table_knows_every_write_of_the_rules_and_nothing_else() -> None:
    written = {write for one in RULES if one.cloud is Cloud.AWS for write in one.writes}
    assert set(GRAINS) == written


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
        session_policy(resource("aws.s3.bucket", BUCKET), [])


@given(st.data(), st.integers(200, 700))
def test_actions_are_divided_into_policies_that_fit(data: st.DataObject, most: int) -> None:
    kind, name = data.draw(
        st.sampled_from([("aws.s3.bucket", BUCKET), ("aws.ec2.security_group", GROUP)])
    )
    like = "s3:PutBucketPolicy" if kind == "aws.s3.bucket" else "ec2:RevokeSecurityGroupIngress"
    known = sorted(action for action, grain in GRAINS.items() if grain == GRAINS[like])
    actions = data.draw(st.lists(st.sampled_from(known), unique=True, min_size=1))
    wanted = resource(kind, name)
    shortest = max(len(policy_text(session_policy(wanted, [action]))) for action in actions)
    if shortest > most:
        with pytest.raises(BadInput, match="alone is longer"):
            sessions_needed(wanted, actions, most)
        return
    parts = sessions_needed(wanted, actions, most)
    assert [action for part in parts for action in part] == actions
    for part in parts:
        assert len(policy_text(session_policy(wanted, part))) <= most
    for one, following in itertools.pairwise(parts):
        assert len(policy_text(session_policy(wanted, [*one, following[0]]))) > most


def test_every_fix_of_today_needs_one_session(table: Any) -> None:
    longest = "a" * 63
    for one in RULES:
        if one.cloud is Cloud.AWS and one.writes:
            known = table.kinds[one.kind]
            names = {"aws.s3.bucket": f"arn:aws:s3:::{longest}"}
            region = known.get("region", "eu-central-1")
            wanted = resource(one.kind, names.get(one.kind, known["id"]), region)
            (part,) = sessions_needed(wanted, one.writes)
            assert len(policy_text(session_policy(wanted, part))) < MOST_CHARACTERS / 4
