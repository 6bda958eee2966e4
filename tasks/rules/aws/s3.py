"""S3's rules: public access block, versioning, policies that refuse plain HTTP."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Config, Resource, Rule, Severity, Step, Unknown
from tasks.rules.guide import guide
from tasks.rules.shape import flag, mapping, odd, sequence, text

_READS = ("s3:ListAllMyBuckets", "s3:GetBucketLocation", "s3:GetBucketTagging")


def _name(resource: Resource) -> str:
    return text(resource.config["Name"], "Name")


def _call(operation: str, resource: Resource, **params: Any) -> Call:
    return Call(Cloud.AWS, "s3", operation, {"Bucket": _name(resource), **params})


# --- public access block ----------------------------------------------------------------------

_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def _blocks(resource: Resource) -> dict[str, bool] | None:
    """The bucket's four flags; one that S3 leaves out is off. None where there is no block."""
    block = resource.config["PublicAccessBlock"]
    if block is None:
        return None
    known = mapping(block, "PublicAccessBlock")
    return {name: flag(known.get(name, False), f"PublicAccessBlock.{name}") for name in _BLOCKS}


def blocks_public_access(resource: Resource) -> bool:
    """All four flags are on, on the bucket itself: the account's own block is another rule."""
    blocks = _blocks(resource)
    return blocks is not None and all(blocks.values())


def block_public_access(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Turns all four flags on; the undo puts the old four back, or takes the block away."""
    blocks = _blocks(resource)
    if blocks is not None and all(blocks.values()):
        return ()
    wanted = dict.fromkeys(_BLOCKS, True)
    put = _call("PutPublicAccessBlock", resource, PublicAccessBlockConfiguration=wanted)
    undo = (
        _call("DeletePublicAccessBlock", resource)
        if blocks is None
        else _call("PutPublicAccessBlock", resource, PublicAccessBlockConfiguration=blocks)
    )
    changes = tuple(
        Change(name, "not set" if blocks is None else "false", "true")
        for name in _BLOCKS
        if blocks is None or not blocks[name]
    )
    return (Step("s3:PutBucketPublicAccessBlock", put, (undo,), changes),)


# --- versioning -------------------------------------------------------------------------------


def never_enabled_becomes_suspended(before: Resource) -> Resource:
    """S3 has no way back to a bucket that never had versioning; suspended is as near as it gets."""
    versioning = mapping(before.config["Versioning"], "Versioning")
    if versioning.get("Status"):
        return before
    parts = {**before.config.as_dict(), "Versioning": {**versioning, "Status": "Suspended"}}
    return replace(before, config=Config(parts, before.config.gaps))


def _status(resource: Resource) -> str:
    """ "Enabled", "Suspended", or empty for a bucket that never had versions."""
    versioning = mapping(resource.config["Versioning"], "Versioning")
    status = versioning.get("Status", "")
    if status not in ("", "Enabled", "Suspended"):
        raise odd("Versioning.Status")
    return str(status)


def keeps_versions(resource: Resource) -> bool:
    """Overwritten and deleted objects are kept as older versions."""
    return _status(resource) == "Enabled"


def keep_versions(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Turns versioning on and leaves MFA delete as it is.

    The undo suspends: S3 knows no way back to "never enabled", so that is as near as it gets.
    Raises BadInput where MFA delete is on, because then S3 takes this change only from the root
    user with its MFA device.
    """
    status = _status(resource)
    if status == "Enabled":
        return ()
    if mapping(resource.config["Versioning"], "Versioning").get("MFADelete") == "Enabled":
        raise BadInput(
            "Versioning",
            "MFA delete is on, so only the root user with its MFA device may change versioning.",
            "Follow the guide of this rule by hand.",
        )

    def put(wanted: str) -> Call:
        return _call("PutBucketVersioning", resource, VersioningConfiguration={"Status": wanted})

    before = status or "never enabled (an undo can only suspend: S3 has no way back to this)"
    change = Change("Versioning", before, "Enabled: every overwrite and delete keeps the old one")
    return (Step("s3:PutBucketVersioning", put("Enabled"), (put("Suspended"),), (change,)),)


# --- TLS only ---------------------------------------------------------------------------------

_SECURE_TRANSPORT = "aws:securetransport"
_POLICY_LIMIT = 20 * 1024


def refuses_plain_http(resource: Resource) -> bool | Unknown:
    """The bucket policy denies everybody everything over plain HTTP, judged by what it means.

    Counted are Deny statements for every principal and every S3 action whose only condition is
    aws:SecureTransport being false; together they must cover the bucket and all its objects.
    """
    policy = resource.config["Policy"]
    if policy is None:
        return False
    denied: list[str] = []
    for statement in _statements(mapping(policy, "Policy")):
        if _denies_plain_http(statement):
            denied += _texts(statement.get("Resource"))
    return any(_matches(one, resource.id) for one in denied) and any(
        _matches_every_object(one, resource.id) for one in denied
    )


def _statements(policy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    statements = policy.get("Statement")
    if isinstance(statements, Mapping):
        statements = [statements]
    return [mapping(one, "Policy.Statement") for one in sequence(statements, "Policy.Statement")]


def _denies_plain_http(statement: Mapping[str, Any]) -> bool:
    return (
        statement.get("Effect") == "Deny"
        and _is_everyone(statement.get("Principal"))
        and any(action.lower() in {"*", "s3:*"} for action in _texts(statement.get("Action")))
        and _only_over_http(statement.get("Condition"))
    )


def _is_everyone(principal: Any) -> bool:
    if isinstance(principal, Mapping):
        principal = principal.get("AWS")
    return "*" in _texts(principal)


def _only_over_http(condition: Any) -> bool:
    """Exactly one condition, and it holds for every request over plain HTTP.

    BoolIfExists denies at least what Bool denies. Keys and operators know no case.
    """
    if not isinstance(condition, Mapping) or len(condition) != 1:
        return False
    ((operator, tests),) = condition.items()
    if str(operator).lower() not in {"bool", "boolifexists"}:
        return False
    if not isinstance(tests, Mapping) or len(tests) != 1:
        return False
    ((key, wanted),) = tests.items()
    wanted = wanted if isinstance(wanted, list) else [wanted]
    return str(key).lower() == _SECURE_TRANSPORT and any(
        one is False or (isinstance(one, str) and one.lower() == "false") for one in wanted
    )


def _texts(value: Any) -> list[str]:
    """A policy element that may be one text or a list of texts; anything else names nothing."""
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _matches(pattern: str, arn: str) -> bool:
    """IAM's wildcards: * is any run of characters, ? any single one."""
    if "?" in pattern:
        wild = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
        return re.fullmatch(wild, arn, re.DOTALL) is not None
    # Nearly every pattern names one bucket: no regular expression is worth making for it.
    first, *others = pattern.split("*")
    if not others:
        return pattern == arn
    *middle, last = others
    if not arn.startswith(first):
        return False
    at = len(first)
    for piece in middle:
        found = arn.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(arn) - at >= len(last) and arn.endswith(last)


def _matches_every_object(pattern: str, bucket: str) -> bool:
    """Sound because a pattern that ends in * and matches "bucket/" matches whatever follows it."""
    return pattern.endswith("*") and _matches(pattern, f"{bucket}/")


def refuse_plain_http(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Adds one Deny statement to the policy, or makes a policy of it; the undo restores the old."""
    if refuses_plain_http(resource):
        return ()
    policy = resource.config["Policy"]
    old = {} if policy is None else dict(mapping(policy, "Policy"))
    statements = [] if policy is None else _statements(old)
    added = {
        "Sid": _free_sid(statements),
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [resource.id, f"{resource.id}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    new = {"Version": "2012-10-17", **old, "Statement": [*statements, added]}
    document = json.dumps(new, separators=(",", ":"))
    if len(document.encode()) > _POLICY_LIMIT:
        raise BadInput(
            "Policy",
            "has no room for one more statement: S3 takes 20 KB.",
            "Shorten the bucket policy first.",
        )
    undo = (
        _call("DeleteBucketPolicy", resource)
        if policy is None
        else _call("PutBucketPolicy", resource, Policy=json.dumps(policy, separators=(",", ":")))
    )
    change = Change(
        f"Policy, statement {added['Sid']}",
        "no policy" if policy is None else f"not there, beside {len(statements)} that stay",
        f"denies everybody s3:* on {resource.id} and its objects over plain HTTP",
    )
    put = _call("PutBucketPolicy", resource, Policy=document)
    return (Step("s3:PutBucketPolicy", put, (undo,), (change,)),)


def _free_sid(statements: Sequence[Mapping[str, Any]]) -> str:
    taken = [statement.get("Sid") for statement in statements]
    base, number = "SutureTlsOnly", 2
    sid = base
    while sid in taken:
        sid, number = f"{base}{number}", number + 1
    return sid


# --- the rows ---------------------------------------------------------------------------------

RULES = (
    Rule(
        id="aws_s3_bucket_public_access_blocked",
        kind="aws.s3.bucket",
        severity=Severity.HIGH,
        title="S3 bucket blocks public access",
        passes=blocks_public_access,
        fix=block_public_access,
        reads=(*_READS, "s3:GetBucketPublicAccessBlock"),
        # DeletePublicAccessBlock, the undo for a bucket without one, needs the same permission.
        writes=("s3:PutBucketPublicAccessBlock",),
        events=(
            "s3:CreateBucket",
            "s3:PutBucketPublicAccessBlock",
            "s3:DeleteBucketPublicAccessBlock",
        ),
        aka=(
            "prowler:s3_bucket_level_public_access_block",
            "securityhub:S3.8",
            "cis-aws-6.0:3.1.4",
        ),
        guide=guide("aws_s3_bucket_public_access_blocked"),
    ),
    Rule(
        id="aws_s3_bucket_versioning_enabled",
        kind="aws.s3.bucket",
        severity=Severity.MEDIUM,
        title="S3 bucket keeps old versions of its objects",
        passes=keeps_versions,
        fix=keep_versions,
        reads=(*_READS, "s3:GetBucketVersioning"),
        writes=("s3:PutBucketVersioning",),
        events=("s3:CreateBucket", "s3:PutBucketVersioning"),
        aka=("prowler:s3_bucket_object_versioning", "cloudsploit:bucketVersioning"),
        undone=never_enabled_becomes_suspended,
        guide=guide("aws_s3_bucket_versioning_enabled"),
    ),
    Rule(
        id="aws_s3_bucket_tls_only",
        kind="aws.s3.bucket",
        severity=Severity.MEDIUM,
        title="S3 bucket refuses plain HTTP",
        passes=refuses_plain_http,
        fix=refuse_plain_http,
        reads=(*_READS, "s3:GetBucketPolicy"),
        writes=("s3:PutBucketPolicy", "s3:DeleteBucketPolicy"),
        events=("s3:CreateBucket", "s3:PutBucketPolicy", "s3:DeleteBucketPolicy"),
        aka=(
            "prowler:s3_bucket_secure_transport_policy",
            "securityhub:S3.5",
            "cis-aws-6.0:3.1.1",
            "cloudsploit:bucketEncryptionInTransit",
        ),
        guide=guide("aws_s3_bucket_tls_only"),
    ),
)
