"""Buckets: policies judged by meaning, fixes that keep what is there."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import BadInput
from tasks.model import Cloud, Config, Resource
from tasks.rules import rule
from tasks.rules.aws.policies import like

ARN = "arn:aws:s3:::acme"
TLS = rule("aws_s3_bucket_tls_only")
VERSIONS = rule("aws_s3_bucket_versioning_enabled")
BLOCK = rule("aws_s3_bucket_public_access_blocked")


def bucket(**parts: Any) -> Resource:
    return Resource(
        Cloud.AWS,
        "111122223333",
        "eu-central-1",
        "aws.s3.bucket",
        ARN,
        "acme",
        Config(
            {
                "Name": "acme",
                "PublicAccessBlock": None,
                "AccountPublicAccessBlock": None,
                "Versioning": {},
                "Policy": None,
                **parts,
            }
        ),
    )


def deny(**changed: Any) -> dict[str, Any]:
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [ARN, f"{ARN}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        **changed,
    }
    return {name: value for name, value in statement.items() if value is not None}


def policy(*statements: Any) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


READ = {
    "Effect": "Allow",
    "Principal": {"AWS": "111122223333"},
    "Action": "s3:GetObject",
    "Resource": f"{ARN}/*",
}


@pytest.mark.parametrize(
    "document",
    [
        policy(deny()),
        policy(READ, deny()),
        {"Statement": deny()},
        policy(deny(Principal={"AWS": "*"})),
        policy(deny(Principal={"AWS": ["*"]})),
        policy(deny(Action="*")),
        policy(deny(Action=["S3:*"])),
        policy(deny(Resource="*")),
        policy(deny(Resource=f"{ARN}*")),
        policy(deny(Resource=["arn:aws:s3:::ac?e", "arn:*:acme/*"])),
        policy(deny(Resource=ARN), deny(Resource=f"{ARN}/*")),
        policy(deny(Condition={"bool": {"AWS:securetransport": ["false"]}})),
        policy(deny(Condition={"Bool": {"aws:SecureTransport": False}})),
        policy(deny(Condition={"BoolIfExists": {"aws:SecureTransport": "False"}})),
    ],
)
def test_policies_that_refuse_plain_http(document: Any) -> None:
    assert TLS.judge(bucket(Policy=document))[0] == "pass"


@pytest.mark.parametrize(
    "document",
    [
        policy(READ),
        policy(deny(Effect="Allow")),
        policy(deny(Principal={"AWS": "111122223333"})),
        policy(deny(Principal={"Service": "*"})),
        policy(deny(Principal=None, NotPrincipal="*")),
        policy(deny(Action="s3:GetObject")),
        policy(deny(Action=None, NotAction="s3:GetObject")),
        policy(deny(Resource=ARN)),
        policy(deny(Resource=f"{ARN}/*")),
        policy(deny(Resource=[ARN, f"{ARN}/logs/*"])),
        policy(deny(Resource=["arn:aws:s3:::acme-other", "arn:aws:s3:::acme-other/*"])),
        policy(deny(Resource=["arn:aws:s3:::acm.", f"{ARN}/*"])),
        policy(deny(Resource=None, NotResource="arn:aws:s3:::x")),
        policy(deny(Condition=None)),
        policy(deny(Condition={"Bool": {"aws:SecureTransport": "true"}})),
        policy(deny(Condition={"StringEquals": {"aws:SecureTransport": "false"}})),
        policy(
            deny(Condition={"Bool": {"aws:SecureTransport": "false", "aws:ViaAWSService": "false"}})
        ),
        policy(
            deny(
                Condition={
                    "Bool": {"aws:SecureTransport": "false"},
                    "IpAddress": {"aws:SourceIp": "10.0.0.0/8"},
                }
            )
        ),
    ],
)
def test_policies_that_let_plain_http_through(document: Any, apply: Any, undo: Any) -> None:
    before = bucket(Policy=document)
    assert TLS.judge(before)[0] == "fail"
    steps = TLS.fix(before, {})  # type: ignore[misc]
    after = apply(before, steps)
    assert TLS.judge(after)[0] == "pass"
    assert after.config["Policy"]["Statement"][:-1] == document["Statement"], "old ones stay"
    assert undo(after, steps).config["Policy"] == document


@pytest.mark.parametrize("document", [[], "x", {}, {"Statement": 7}, {"Statement": ["x"]}, False])
def test_unreadable_policies_are_unknown(document: Any) -> None:
    assert TLS.judge(bucket(Policy=document))[0] == "unknown"


def test_the_new_statement_has_a_sid_of_its_own() -> None:
    taken = policy({**READ, "Sid": "SutureTlsOnly"}, {**READ, "Sid": "SutureTlsOnly2"})
    (step,) = TLS.fix(bucket(Policy=taken), {})  # type: ignore[misc]
    added = json.loads(step.call.params["Policy"])["Statement"]
    assert [one["Sid"] for one in added] == ["SutureTlsOnly", "SutureTlsOnly2", "SutureTlsOnly3"]


def test_a_policy_without_room_is_refused() -> None:
    long = policy(*[{**READ, "Sid": f"s{number}"} for number in range(180)])
    with pytest.raises(BadInput, match="20 KB"):
        TLS.fix(bucket(Policy=copy.deepcopy(long)), {})  # type: ignore[misc]


def test_a_bucket_without_policy_gets_one_and_loses_it_again() -> None:
    (step,) = TLS.fix(bucket(), {})  # type: ignore[misc]
    assert json.loads(step.call.params["Policy"])["Version"] == "2012-10-17"
    assert [call.operation for call in step.undo] == ["DeleteBucketPolicy"]


def test_versioning_leaves_mfa_delete_alone() -> None:
    suspended = {"Status": "Suspended", "MFADelete": "Disabled"}
    (step,) = VERSIONS.fix(bucket(Versioning=suspended), {})  # type: ignore[misc]
    assert step.call.params["VersioningConfiguration"] == {"Status": "Enabled"}
    with pytest.raises(BadInput, match="root user"):
        VERSIONS.fix(bucket(Versioning=suspended | {"MFADelete": "Enabled"}), {})  # type: ignore[misc]


def test_block_shows_only_what_changes() -> None:
    old = {"BlockPublicAcls": True, "IgnorePublicAcls": True, "BlockPublicPolicy": False}
    (step,) = BLOCK.fix(bucket(PublicAccessBlock=old), {})  # type: ignore[misc]
    assert [one.field for one in step.changes] == ["BlockPublicPolicy", "RestrictPublicBuckets"]
    assert step.undo[0].params["PublicAccessBlockConfiguration"] == {
        **old,
        "RestrictPublicBuckets": False,
    }


def test_a_bucket_that_never_had_versioning_can_only_be_suspended() -> None:
    versioning = rule("aws_s3_bucket_versioning_enabled")
    never, suspended = (bucket(Versioning=one) for one in ({}, {"Status": "Suspended"}))
    assert versioning.undone(never).fingerprint == suspended.fingerprint
    assert versioning.undone(suspended) is suspended


@given(
    pattern=st.text("ab/*?[.", max_size=8),
    arn=st.text("ab/[.\n", max_size=8),
)
def test_wildcards_are_iams(pattern: str, arn: str) -> None:
    wild = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    assert like(pattern, arn) is bool(re.fullmatch(wild, arn, re.DOTALL))


# --- who is let in, and encryption -------------------------------------------------------------

ACL = rule("aws_s3_bucket_acl_private")
STRANGERS = rule("aws_s3_bucket_policy_closed_to_strangers")
KMS = rule("aws_s3_bucket_encrypted_with_kms")
PUBLIC = {**READ, "Sid": "public", "Principal": "*"}
GROUPS = "http://acs.amazonaws.com/groups"
SSE_S3 = [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}, "Kept": 1}]


def acl(*groups: str) -> dict[str, Any]:
    grants = [
        {"Grantee": {"Type": "Group", "URI": f"{GROUPS}/{one}"}, "Permission": "READ"}
        for one in groups
    ]
    return {"Owner": {"ID": "o"}, "Grants": grants}


@pytest.mark.parametrize(
    ("row", "parts", "harmless", "irrevocable"),
    [
        (ACL, {"Acl": acl("global/AllUsers")}, "IgnorePublicAcls", "BlockPublicAcls"),
        (STRANGERS, {"Policy": policy(PUBLIC)}, "RestrictPublicBuckets", "BlockPublicPolicy"),
    ],
)
def test_a_block_makes_harmless_or_forbids_the_way_back(
    row: Any, parts: dict[str, Any], harmless: str, irrevocable: str
) -> None:
    assert row.judge(bucket(**parts))[0] == "fail"
    assert row.judge(bucket(**parts, PublicAccessBlock={harmless: True}))[0] == "pass"
    blocked = bucket(**parts, PublicAccessBlock={irrevocable: True})
    assert row.judge(blocked)[0] == "fail"
    with pytest.raises(BadInput, match=irrevocable):
        row.fix(blocked, {})
    for part in ("PublicAccessBlock", "AccountPublicAccessBlock"):
        assert row.judge(bucket(**parts, **{part: {harmless: True}}))[0] == "pass"
        unread = Config(bucket(**parts).config.as_dict(), {part: "refused"})
        assert row.judge(replace(bucket(), config=unread))[0] == "unknown"
    with pytest.raises(BadInput, match=irrevocable):
        row.fix(bucket(**parts, AccountPublicAccessBlock={irrevocable: True}), {})


def test_only_grants_to_everyone_go() -> None:
    mixed = acl("global/AllUsers", "s3/LogDelivery", "global/AuthenticatedUsers")
    (step,) = ACL.fix(bucket(Acl=mixed), {})  # type: ignore[misc]
    assert step.call.params["AccessControlPolicy"] == acl("s3/LogDelivery")
    assert step.undo[0].params["AccessControlPolicy"] == mixed
    assert len(step.changes) == 2


def test_kms_keeps_the_rest_of_the_rule_and_spares_access_logs() -> None:
    plain = {"Acl": acl(), "Encryption": SSE_S3}
    (step,) = KMS.fix(bucket(**plain), {})  # type: ignore[misc]
    (wanted,) = step.call.params["ServerSideEncryptionConfiguration"]["Rules"]
    assert wanted == {
        "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"},
        "BucketKeyEnabled": True,
        "Kept": 1,
    }
    logged = {**READ, "Principal": {"Service": "logging.s3.amazonaws.com"}}
    for more in ({"Acl": acl("s3/LogDelivery")}, {"Policy": policy(logged)}):
        with pytest.raises(BadInput, match="access logs"):
            KMS.fix(bucket(**{**plain, **more}), {})  # type: ignore[misc]
