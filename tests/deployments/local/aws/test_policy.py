"""The policy evaluator: what AWS documents, and what must hold whatever the policy."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.local.aws.policy import (
    Decision,
    Effect,
    MalformedPolicy,
    Request,
    arn_like,
    decide,
    evaluate,
    evaluate_resource_policy,
    like,
    parse_policy,
    parse_resource_policy,
    parse_trust_policy,
)

GROUP = "arn:aws:ec2:eu-central-1:111122223333:security-group/sg-1"
HUB = "arn:aws:iam::999988887777:user/suture"


def document(*statements, **only):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements) or [only]})


def allow(action="*", resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action="*", resource="*", **more):
    return {**allow(action, resource, **more), "Effect": "Deny"}


def effect(policy, action="ec2:RevokeSecurityGroupIngress", resource=GROUP, **context):
    values = {
        name.replace("__", ":").lower(): (value,) if isinstance(value, str) else value
        for name, value in context.items()
    }
    return evaluate([parse_policy(policy)], Request(action, resource, values))


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        ("*", True),
        ("ec2:*", True),
        ("EC2:revokesecuritygroupingress", True),
        ("ec2:Revoke*Ingress", True),
        ("ec2:RevokeSecurityGroupIngres?", True),
        ("ec2:Revoke", False),
        ("s3:*", False),
    ],
)
def test_actions_match_by_wildcard_in_any_case(pattern, covered):
    assert (effect(document(allow(pattern))) is Effect.ALLOWED) == covered


@pytest.mark.parametrize(
    ("pattern", "covered"),
    [
        (GROUP, True),
        ("arn:aws:ec2:*:111122223333:security-group/*", True),
        ("arn:aws:ec2:*:*:security-group/sg-?", True),
        (GROUP + "2", False),
        ("arn:aws:ec2:us-east-1:111122223333:security-group/sg-1", False),
        ("arn:aws:*:security-group/sg-1", None),  # not an ARN at all
    ],
)
def test_resources_match_part_by_part(pattern, covered):
    policy = document(allow(resource=pattern))
    if covered is None:
        with pytest.raises(MalformedPolicy):
            parse_policy(policy)
    else:
        assert (effect(policy) is Effect.ALLOWED) == covered


def test_an_action_without_resources_needs_a_star():
    assert effect(document(allow(resource=GROUP)), resource="*") is Effect.NOT_ALLOWED
    assert effect(document(allow(resource="*")), resource="*") is Effect.ALLOWED


def test_not_action_and_not_resource_turn_the_match_round():
    everything_but = {"Effect": "Allow", "NotAction": "iam:*", "NotResource": GROUP}
    assert effect(document(everything_but)) is Effect.NOT_ALLOWED
    assert effect(document(everything_but), resource=GROUP + "2") is Effect.ALLOWED
    assert effect(document(everything_but), "iam:GetUser", "*") is Effect.NOT_ALLOWED


def test_an_explicit_deny_wins_wherever_it_stands():
    assert effect(document(deny("ec2:*"), allow())) is Effect.DENIED
    assert effect(document(allow(), deny("ec2:*"))) is Effect.DENIED


@pytest.mark.parametrize(
    ("operator", "key", "wanted", "found", "holds"),
    [
        ("StringEquals", "sts:ExternalId", "a:1", "a:1", True),
        ("StringEquals", "sts:ExternalId", "a:1", "A:1", False),
        ("StringEqualsIgnoreCase", "sts:ExternalId", "a:1", "A:1", True),
        ("StringEquals", "sts:ExternalId", ["a", "b"], "b", True),
        ("StringEquals", "sts:ExternalId", "a", None, False),
        ("StringEqualsIfExists", "sts:ExternalId", "a", None, True),
        ("StringNotEquals", "sts:ExternalId", ["a", "b"], "b", False),
        ("StringNotEquals", "sts:ExternalId", "a", None, True),
        ("StringLike", "aws:UserAgent", "boto*", "boto3/1", True),
        ("StringNotLike", "aws:UserAgent", "boto*", "boto3/1", False),
        (
            "DateLessThan",
            "aws:CurrentTime",
            "2026-01-01T00:00:00Z",
            "2025-12-31T23:59:59+00:00",
            True,
        ),
        (
            "DateLessThan",
            "aws:CurrentTime",
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:00+00:00",
            False,
        ),
        ("DateGreaterThan", "aws:CurrentTime", "1700000000", "2026-01-01T00:00:00+00:00", True),
        ("Bool", "aws:SecureTransport", "false", "true", False),
        ("Bool", "aws:SecureTransport", True, "true", True),
        ("IpAddress", "aws:SourceIp", "10.0.0.0/8", "10.1.2.3", True),
        ("NotIpAddress", "aws:SourceIp", "10.0.0.0/8", "10.1.2.3", False),
        ("IpAddress", "aws:SourceIp", "::/0", "10.1.2.3", False),
        ("Null", "sts:ExternalId", "true", None, True),
        ("Null", "sts:ExternalId", "true", "x", False),
        ("Null", "sts:ExternalId", "false", "x", True),
        ("NumericLessThan", "s3:max-keys", "10", "9", True),
        ("ArnLike", "aws:PrincipalArn", "arn:aws:iam::*:user/suture", HUB, True),
        ("ForAllValues:StringEquals", "aws:TagKeys", ["a", "b"], ("a", "c"), False),
        ("ForAnyValue:StringEquals", "aws:TagKeys", ["a", "b"], ("a", "c"), True),
        ("ForAllValues:StringEquals", "aws:TagKeys", ["a"], None, True),
        ("ForAnyValue:StringEquals", "aws:TagKeys", ["a"], None, False),
    ],
)
def test_conditions(operator, key, wanted, found, holds):
    policy = document(allow(Condition={operator: {key: wanted}}))
    context = {} if found is None else {key.replace(":", "__"): found}
    assert (effect(policy, **context) is Effect.ALLOWED) == holds


def test_policy_variables_are_filled_from_the_request():
    policy = document(allow(resource="arn:aws:iam::111122223333:user/${aws:username}"))
    own, other = (f"arn:aws:iam::111122223333:user/{name}" for name in ("ann", "bob"))
    assert effect(policy, resource=own, aws__username="ann") is Effect.ALLOWED
    assert effect(policy, resource=other, aws__username="ann") is Effect.NOT_ALLOWED
    assert effect(policy, resource=own) is Effect.NOT_ALLOWED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"Version": "2020-01-01", "Statement": []}',
        document({"Effect": "Allow", "Action": "ec2:*"}),
        document({"Effect": "allow", "Action": "ec2:*", "Resource": "*"}),
        document(allow("DescribeRegions")),
        document(allow(resource="sg-1")),
        document(allow(Principal="*")),
        document(allow(Condition={"StringSortOf": {"aws:userid": "x"}})),
        document(allow(Condition={"DateLessThan": {"aws:CurrentTime": "tomorrow"}})),
        document(allow(Condition={"NotIpAddress": {"aws:SourceIp": "10.0.0.300"}})),
        document(allow(Condition={"NumericEquals": {"s3:max-keys": "few"}})),
    ],
)
def test_what_aws_would_not_take_is_refused(text):
    with pytest.raises(MalformedPolicy):
        parse_policy(text)


def trust(principal, **condition):
    return parse_trust_policy(
        document(
            {
                "Effect": "Allow",
                "Principal": principal,
                "Action": "sts:AssumeRole",
                **({"Condition": condition} if condition else {}),
            }
        )
    )


@pytest.mark.parametrize(
    ("principal", "named"),
    [
        ({"AWS": HUB}, True),
        ({"AWS": "arn:aws:iam::999988887777:root"}, True),
        ({"AWS": "999988887777"}, True),
        ("*", True),
        ({"AWS": ["arn:aws:iam::1:user/x", HUB]}, True),
        ({"AWS": HUB + "2"}, False),
        ({"Service": "ec2.amazonaws.com"}, False),
    ],
)
def test_trust_names_the_caller_or_its_account(principal, named):
    names = frozenset({HUB, "arn:aws:iam::999988887777:root"})
    request = Request("sts:AssumeRole", "arn:aws:iam::1:role/r", {}, names)
    assert (evaluate_resource_policy(trust(principal), request) is Effect.ALLOWED) == named


ROLE = "arn:aws:iam::111122223333:role/SutureRemediator"
MINE = parse_policy(document(allow("sts:AssumeRole", "arn:aws:iam::*:role/Suture*")))


def assume(policy, *, mine=(MINE,), same_account=False, principals=None):
    names = principals or frozenset({HUB, "arn:aws:iam::999988887777:root"})
    return decide(
        Request("sts:AssumeRole", ROLE, {}, names),
        list(mine),
        resource_policy=policy,
        must_be_let_in=True,
        same_account=same_account,
    ).allowed


def test_across_accounts_both_sides_must_allow():
    assert assume(trust({"AWS": HUB}))
    assert not assume(trust({"AWS": HUB}), mine=())
    assert not assume(trust({"AWS": HUB + "2"}))


def test_within_an_account_a_trust_in_the_root_leaves_it_to_iam():
    root = trust({"AWS": "arn:aws:iam::999988887777:root"})
    assert assume(root, same_account=True)
    assert not assume(root, mine=(), same_account=True)
    assert assume(trust({"AWS": HUB}), mine=(), same_account=True)
    assert not assume(trust({"AWS": HUB + "2"}), same_account=True)


def test_session_policy_and_boundary_only_take_away():
    everything, nothing = parse_policy(document(allow())), parse_policy(document(deny("iam:*")))
    request = Request("ec2:RevokeSecurityGroupIngress", GROUP, {})
    assert decide(request, [everything]) == Decision(True)
    assert not decide(request, [everything], session=[nothing]).allowed
    assert not decide(request, [everything], session=[]).allowed
    assert not decide(request, [everything], boundary=nothing).allowed
    assert not decide(request, [], session=[everything], boundary=everything).allowed


# ---------------------------------------------------------------- invariants

actions = st.sampled_from(["*", "ec2:*", "ec2:Revoke*", "s3:PutBucketPolicy", "s3:*", "iam:Get*"])
resources = st.sampled_from(["*", GROUP, "arn:aws:s3:::*", "arn:aws:ec2:*:*:security-group/*"])
statements = st.builds(
    lambda effect, action, resource: {"Effect": effect, "Action": action, "Resource": resource},
    st.sampled_from(["Allow", "Deny"]),
    actions,
    resources,
)
policies = st.lists(statements, min_size=1, max_size=4).map(lambda s: parse_policy(document(*s)))
requests = st.builds(
    lambda action, resource: Request(action, resource, {}),
    st.sampled_from(["ec2:RevokeSecurityGroupIngress", "s3:PutBucketPolicy", "iam:GetUser"]),
    st.sampled_from([GROUP, "arn:aws:s3:::b", "*"]),
)


@given(policies, policies, requests)
def test_a_session_policy_never_gives(identity, session, request):
    cut = decide(request, [identity], session=[session]).allowed
    assert cut == (
        decide(request, [identity]).allowed and evaluate([session], request) is Effect.ALLOWED
    )


@given(st.lists(policies, max_size=3), policies, requests)
def test_the_order_of_policies_does_not_matter(some, other, request):
    assert evaluate([*some, other], request) is evaluate([other, *some], request)


@given(st.lists(policies, max_size=3), requests)
def test_a_blanket_deny_denies(some, request):
    blanket = parse_policy(document(deny()))
    assert evaluate([*some, blanket], request) is Effect.DENIED


@given(st.text(), st.text())
def test_a_pattern_without_wildcards_is_itself_only(value, pattern):
    if not set(pattern) & {"*", "?"}:
        assert like(value, pattern) == (value == pattern)
    assert like(value, "*")
    assert like(value + pattern, value.replace("*", "?") + "*")


@given(st.lists(st.text(alphabet="ab*?", min_size=1), min_size=6, max_size=6))
def test_an_arn_matches_itself(parts):
    arn = ":".join(parts)
    assert arn_like(arn, arn)


def test_a_bucket_policy_reads_json_booleans():
    policy = parse_resource_policy(
        document(
            deny(
                "s3:*",
                "arn:aws:s3:::b",
                Principal="*",
                Condition={"Bool": {"aws:SecureTransport": False}},
            )
        )
    )
    plain = Request(
        "s3:GetObject", "arn:aws:s3:::b", {"aws:securetransport": ("false",)}, frozenset({HUB})
    )
    assert evaluate_resource_policy(policy, plain) is Effect.DENIED
