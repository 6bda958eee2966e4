"""S3's rules: nobody unknown comes in, versions are kept, data is encrypted on disk and line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Config, Resource, Rule, Severity, Step, Unknown
from tasks.rules.aws.keys import key_input, wanted_key
from tasks.rules.aws.policies import (
    document,
    lets_no_stranger_in,
    like,
    shut,
    statements_of,
    texts,
)
from tasks.rules.guide import guide, written
from tasks.rules.shape import flag, mapping, odd, sequence, text

_READS = ("s3:ListAllMyBuckets", "s3:GetBucketLocation", "s3:GetBucketTagging")
_READS_BLOCKS = ("s3:GetBucketPublicAccessBlock", "s3:GetAccountPublicAccessBlock")


def _name(resource: Resource) -> str:
    return text(resource.config["Name"], "Name")


def _call(operation: str, resource: Resource, **params: Any) -> Call:
    return Call(Cloud.AWS, "s3", operation, {"Bucket": _name(resource), **params})


# --- public access block ----------------------------------------------------------------------

_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def _blocks(resource: Resource, part: str = "PublicAccessBlock") -> dict[str, bool] | None:
    """The four flags; one that S3 leaves out is off. None where there is no block."""
    block = resource.config[part]
    if block is None:
        return None
    known = mapping(block, part)
    return {name: flag(known.get(name, False), f"{part}.{name}") for name in _BLOCKS}


def blocks_public_access(resource: Resource) -> bool:
    """All four flags are on, on the bucket itself: the account's own block is another rule."""
    blocks = _blocks(resource)
    return blocks is not None and all(blocks.values())


def block_public_access(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Turns all four flags of a bucket on."""
    return _block(resource, "s3", {"Bucket": _name(resource)}, "s3:PutBucketPublicAccessBlock")


def block_account(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Turns all four flags of an account on: they count for its buckets of every region."""
    whose = {"AccountId": resource.account}
    return _block(resource, "s3control", whose, "s3:PutAccountPublicAccessBlock")


def _block(
    resource: Resource, service: str, whose: Mapping[str, str], action: str
) -> tuple[Step, ...]:
    """The undo puts the old four flags back, or takes the block away."""
    blocks = _blocks(resource)
    if blocks is not None and all(blocks.values()):
        return ()

    def put(wanted: Mapping[str, bool]) -> Call:
        params = {**whose, "PublicAccessBlockConfiguration": dict(wanted)}
        return Call(Cloud.AWS, service, "PutPublicAccessBlock", params)

    undo = (
        Call(Cloud.AWS, service, "DeletePublicAccessBlock", dict(whose))
        if blocks is None
        else put(blocks)
    )
    changes = tuple(
        Change(name, "not set" if blocks is None else "false", "true")
        for name in _BLOCKS
        if blocks is None or not blocks[name]
    )
    return (Step(action, put(dict.fromkeys(_BLOCKS, True)), (undo,), changes),)


def _blocked(resource: Resource, name: str) -> bool:
    """By the bucket's block, or by the account's."""
    return any(
        (_blocks(resource, part) or {}).get(name, False)
        for part in ("PublicAccessBlock", "AccountPublicAccessBlock")
    )


def _must_not_block(resource: Resource, name: str) -> None:
    """What S3 would not take back cannot be undone. Raises BadInput."""
    if _blocked(resource, name):
        raise BadInput(
            "PublicAccessBlock",
            f"{name} is on, so S3 would not take the old one back: there would be no undo.",
            "Turn on all four flags of the block, which makes it harmless, too.",
        )


# --- who is let in ----------------------------------------------------------------------------

_EVERYONE = {
    "http://acs.amazonaws.com/groups/global/AllUsers": "everyone",
    "http://acs.amazonaws.com/groups/global/AuthenticatedUsers": "everyone with an AWS account",
}
_LOG_DELIVERY = "http://acs.amazonaws.com/groups/s3/LogDelivery"


def _grants(resource: Resource) -> list[tuple[str, Mapping[str, Any]]]:
    """The ACL's grants, each with the group that it names, if it does."""
    acl = mapping(resource.config["Acl"], "Acl")
    grants = [mapping(one, "Acl.Grants") for one in sequence(acl.get("Grants"), "Acl.Grants")]
    named = [mapping(one.get("Grantee"), "Acl.Grants.Grantee") for one in grants]
    for one in named:
        text(one.get("Type"), "Acl.Grants.Grantee.Type")
    return [(str(one.get("URI", "")), grant) for one, grant in zip(named, grants, strict=True)]


def acl_is_private(resource: Resource) -> bool:
    """No grant to everyone, or a block that makes S3 ignore those."""
    public = [grant for group, grant in _grants(resource) if group in _EVERYONE]
    return not public or _blocked(resource, "IgnorePublicAcls")


def make_acl_private(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Takes the grants to everyone out, and leaves all others; the undo puts the old ACL back."""
    if acl_is_private(resource):
        return ()
    _must_not_block(resource, "BlockPublicAcls")
    acl = dict(mapping(resource.config["Acl"], "Acl"))
    grants = _grants(resource)
    left = {**acl, "Grants": [grant for group, grant in grants if group not in _EVERYONE]}
    changes = tuple(
        Change("Acl", f"{_EVERYONE[group]} has {grant.get('Permission')}", "no longer")
        for group, grant in grants
        if group in _EVERYONE
    )
    put = _call("PutBucketAcl", resource, AccessControlPolicy=left)
    undo = _call("PutBucketAcl", resource, AccessControlPolicy=acl)
    return (Step("s3:PutBucketAcl", put, (undo,), changes),)


def policy_is_closed(resource: Resource) -> bool:
    """No statement for strangers, or a block that holds those to the account."""
    policy = resource.config["Policy"]
    return lets_no_stranger_in(policy) or _blocked(resource, "RestrictPublicBuckets")


_SHUT = shut(
    put=lambda bucket, policy: _call("PutBucketPolicy", bucket, Policy=policy),
    put_action="s3:PutBucketPolicy",
    drop=lambda bucket: _call("DeleteBucketPolicy", bucket),
    drop_action="s3:DeleteBucketPolicy",
)


def close_policy(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Takes the statements for strangers out, and leaves all others."""
    if policy_is_closed(resource):
        return ()
    _must_not_block(resource, "BlockPublicPolicy")
    return _SHUT(resource, values)


# --- encryption -------------------------------------------------------------------------------

_KEY = key_input(empty="AWS's own key for S3")


def _encryption(resource: Resource) -> Mapping[str, Any] | None:
    """What new objects are encrypted with: S3 has one such rule for each bucket."""
    rules = resource.config["Encryption"]
    if rules is None:
        return None
    for one in sequence(rules, "Encryption"):
        rule = mapping(one, "Encryption")
        default = mapping(rule.get("ApplyServerSideEncryptionByDefault"), "Encryption")
        text(default.get("SSEAlgorithm"), "Encryption.SSEAlgorithm")
        return rule
    raise odd("Encryption")


def encrypts_with_kms(resource: Resource) -> bool:
    rule = _encryption(resource)
    return rule is not None and rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] in (
        "aws:kms",
        "aws:kms:dsse",
    )


def encrypt_with_kms(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Makes KMS the default, with a bucket key, which saves most of KMS's calls and costs.

    Raises BadInput where S3 delivers access logs, which it cannot encrypt with KMS.
    """
    key = wanted_key(values, _KEY)
    if encrypts_with_kms(resource):
        return ()
    if _takes_access_logs(resource):
        raise BadInput(
            "Encryption",
            "S3 delivers its access logs here, and stops where the default is KMS.",
            "Leave this bucket's encryption as it is, and make an exception for it.",
        )
    rule = _encryption(resource)
    default = {"SSEAlgorithm": "aws:kms", **({"KMSMasterKeyID": key} if key else {})}
    wanted = {
        **(rule or {}),
        "ApplyServerSideEncryptionByDefault": default,
        "BucketKeyEnabled": True,
    }

    def put(one: Mapping[str, Any]) -> Call:
        rules = {"Rules": [one]}
        return _call("PutBucketEncryption", resource, ServerSideEncryptionConfiguration=rules)

    undo = _call("DeleteBucketEncryption", resource) if rule is None else put(rule)
    change = Change(
        "default encryption",
        "S3's own keys (SSE-S3)" if rule is not None else "not set",
        f"KMS, with {key or 'alias/aws/s3'}, and a bucket key",
    )
    return (Step("s3:PutEncryptionConfiguration", put(wanted), (undo,), (change,)),)


def _takes_access_logs(resource: Resource) -> bool:
    if any(group == _LOG_DELIVERY for group, _ in _grants(resource)):
        return True
    policy = resource.config["Policy"]
    principals = (
        []
        if policy is None
        else [one.get("Principal") for one in statements_of(mapping(policy, "Policy"))]
    )
    return any(
        "logging.s3.amazonaws.com" in texts(one.get("Service"))
        for one in principals
        if isinstance(one, Mapping)
    )


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
    for statement in statements_of(mapping(policy, "Policy")):
        if _denies_plain_http(statement):
            denied += texts(statement.get("Resource"))
    return any(like(one, resource.id) for one in denied) and any(
        _matches_every_object(one, resource.id) for one in denied
    )


def _denies_plain_http(statement: Mapping[str, Any]) -> bool:
    return (
        statement.get("Effect") == "Deny"
        and _is_everyone(statement.get("Principal"))
        and any(action.lower() in {"*", "s3:*"} for action in texts(statement.get("Action")))
        and _only_over_http(statement.get("Condition"))
    )


def _is_everyone(principal: Any) -> bool:
    if isinstance(principal, Mapping):
        principal = principal.get("AWS")
    return "*" in texts(principal)


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


def _matches_every_object(pattern: str, bucket: str) -> bool:
    """Sound because a pattern that ends in * and matches "bucket/" matches whatever follows it."""
    return pattern.endswith("*") and like(pattern, f"{bucket}/")


def refuse_plain_http(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Adds one Deny statement to the policy, or makes a policy of it; the undo restores the old."""
    if refuses_plain_http(resource):
        return ()
    policy = resource.config["Policy"]
    old = {} if policy is None else dict(mapping(policy, "Policy"))
    statements = [] if policy is None else statements_of(old)
    added = {
        "Sid": _free_sid(statements),
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:*",
        "Resource": [resource.id, f"{resource.id}/*"],
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    new = {"Version": "2012-10-17", **old, "Statement": [*statements, added]}
    text_of_new = document(new)
    if len(text_of_new.encode()) > _POLICY_LIMIT:
        raise BadInput(
            "Policy",
            "has no room for one more statement: S3 takes 20 KB.",
            "Shorten the bucket policy first.",
        )
    undo = (
        _call("DeleteBucketPolicy", resource)
        if policy is None
        else _call("PutBucketPolicy", resource, Policy=document(policy))
    )
    change = Change(
        f"Policy, statement {added['Sid']}",
        "no policy" if policy is None else f"not there, beside {len(statements)} that stay",
        f"denies everybody s3:* on {resource.id} and its objects over plain HTTP",
    )
    put = _call("PutBucketPolicy", resource, Policy=text_of_new)
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
    Rule(
        id="aws_s3_bucket_acl_private",
        kind="aws.s3.bucket",
        severity=Severity.HIGH,
        title="S3 bucket's ACL gives nothing to everyone",
        passes=acl_is_private,
        fix=make_acl_private,
        reads=(*_READS, "s3:GetBucketAcl", *_READS_BLOCKS),
        writes=("s3:PutBucketAcl",),
        events=("s3:CreateBucket", "s3:PutBucketAcl", "s3:PutBucketPublicAccessBlock"),
        aka=(
            "cloudsploit:bucketAllUsersAcl",
            "prowler:s3_bucket_public_list_acl",
            "prowler:s3_bucket_public_write_acl",
            "prowler:cloudtrail_logs_s3_bucket_is_not_publicly_accessible",
        ),
        guide=written(
            means="""The bucket's access control list grants something to all users, or to all who
                have an AWS account, and no public access block, of the bucket or of the account,
                makes S3 ignore that.""",
            matters="""READ lists the names of all objects to anybody, WRITE lets anybody put
                objects there, and the two ACP permissions let anybody look at the list or change
                it. Bots find such buckets within hours.""",
            console="S3 > the bucket > Permissions > Access control list > Edit.",
            cli="""
                aws s3api get-bucket-acl --bucket NAME
                aws s3api put-bucket-acl --bucket NAME --acl private""",
            terraform="""
                resource "aws_s3_bucket_ownership_controls" "this" {
                  bucket = aws_s3_bucket.this.id
                  rule { object_ownership = "BucketOwnerEnforced" }
                }""",
            fix="""It takes the grants to everyone out of the list. Grants to accounts and to log
                delivery stay. Where S3 would refuse the old list, because BlockPublicAcls is on,
                it changes nothing: the whole block is the better answer there.""",
            breaks="""Whoever lists or writes without credentials. Objects have ACLs of their own,
                which stay: a public website's pages may still be read.""",
            back="""Suture's undo puts the old list back. S3 refuses that once the account's own
                block, or object ownership, has been changed meanwhile.""",
        ),
    ),
    Rule(
        id="aws_s3_bucket_policy_closed_to_strangers",
        kind="aws.s3.bucket",
        severity=Severity.CRITICAL,
        title="S3 bucket policy lets no stranger in",
        passes=policy_is_closed,
        fix=close_policy,
        reads=(*_READS, "s3:GetBucketPolicy", *_READS_BLOCKS),
        writes=("s3:PutBucketPolicy", "s3:DeleteBucketPolicy"),
        events=(
            "s3:CreateBucket",
            "s3:PutBucketPolicy",
            "s3:DeleteBucketPolicy",
            "s3:PutBucketPublicAccessBlock",
            "s3:DeleteBucketPublicAccessBlock",
        ),
        aka=(
            "cloudsploit:bucketAllUsersPolicy",
            "prowler:s3_bucket_policy_public_write_access",
            "prowler:s3_bucket_public_access",
        ),
        guide=written(
            means="""A statement of the bucket policy allows everyone ("*", or all but some), no
                condition ties it to an account, an organization, a network or a VPC endpoint, no
                Deny takes it back, and RestrictPublicBuckets is off for bucket and account.""",
            matters="""Anybody on the internet may read, list, write or delete there, whatever the
                statement says. This is how most stored data has leaked from clouds.""",
            console="S3 > the bucket > Permissions > Bucket policy > Edit.",
            cli="""
                aws s3api get-bucket-policy --bucket NAME --query Policy --output text > policy.json
                aws s3api put-bucket-policy --bucket NAME --policy file://policy.json""",
            terraform="""
                data "aws_iam_policy_document" "bucket" {
                  statement {
                    actions   = ["s3:GetObject"]
                    resources = ["arn:aws:s3:::NAME/*"]
                    principals {
                      type        = "Service"
                      identifiers = ["cloudfront.amazonaws.com"]
                    }
                  }
                }""",
            fix="""It takes out the statements that let strangers in, and leaves every other
                statement as it is. Where none would be left, it deletes the policy. With
                BlockPublicPolicy on it changes nothing, because S3 would refuse the undo: the
                whole block is the better answer there.""",
            breaks="""A website served straight from the bucket, and every download link without
                a signature. Put CloudFront with origin access control in front of it first.""",
            back="""Suture's undo writes the old policy again. S3 refuses that once the account's
                own block forbids public policies.""",
        ),
    ),
    Rule(
        id="aws_s3_bucket_encrypted_with_kms",
        kind="aws.s3.bucket",
        severity=Severity.LOW,
        title="S3 bucket encrypts new objects with KMS",
        passes=encrypts_with_kms,
        fix=encrypt_with_kms,
        inputs=(_KEY,),
        reads=(
            *_READS,
            "s3:GetEncryptionConfiguration",
            "s3:GetBucketAcl",
            "s3:GetBucketPolicy",
        ),
        writes=("s3:PutEncryptionConfiguration",),
        events=("s3:CreateBucket", "s3:PutBucketEncryption", "s3:DeleteBucketEncryption"),
        aka=("cloudsploit:bucketEncryption",),
        guide=written(
            means="""New objects are encrypted with S3's own keys (SSE-S3), which is S3's default,
                and not with a KMS key.""",
            matters="""SSE-S3 protects disks only: whoever may read the object gets it in plain.
                With KMS, reading also takes a permission on the key, and every use of it is in
                CloudTrail.""",
            console="S3 > the bucket > Properties > Default encryption > Edit > SSE-KMS.",
            cli="""
                aws s3api put-bucket-encryption --bucket NAME \
                  --server-side-encryption-configuration file://encryption.json""",
            terraform="""
                resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
                  bucket = aws_s3_bucket.this.id
                  rule {
                    bucket_key_enabled = true
                    apply_server_side_encryption_by_default { sse_algorithm = "aws:kms" }
                  }
                }""",
            fix="""It makes KMS the default for new objects, with the key that the approver names or
                with AWS's own for S3, and turns the bucket key on. Buckets that S3's access logs
                are delivered to are left alone: S3 cannot encrypt those with KMS.""",
            breaks="""Readers and writers of other accounts, and services that write there, need the
                key: AWS's own cannot be shared with them, so name one of yours. KMS charges for its
                calls. Objects that are there stay as they are.""",
            back="""Suture's undo makes the old encryption the default again. Objects that were
                written meanwhile stay encrypted with the key.""",
        ),
    ),
    Rule(
        id="aws_s3_account_public_access_blocked",
        kind="aws.s3.account",
        severity=Severity.HIGH,
        title="S3 blocks public access in the whole account",
        passes=blocks_public_access,
        fix=block_account,
        reads=("s3:GetAccountPublicAccessBlock",),
        writes=("s3:PutAccountPublicAccessBlock",),
        events=("s3:PutAccountPublicAccessBlock", "s3:DeleteAccountPublicAccessBlock"),
        aka=(
            "prowler:s3_account_level_public_access_blocks",
            "securityhub:S3.1",
            "cis-aws-6.0:3.1.4",
        ),
        guide=written(
            means="""The account's own public access block is missing, or one of its four flags is
                off. It counts for every bucket and access point of the account, in every region,
                beside their own blocks.""",
            matters="""One place instead of hundreds: with all four flags on, no policy and no ACL
                that anybody writes later makes a bucket public.""",
            console="S3 > Block Public Access settings for this account > Edit > Block all.",
            cli="""
                aws s3control put-public-access-block --account-id ACCOUNT \
                  --public-access-block-configuration file://all-four-true.json""",
            terraform="""
                resource "aws_s3_account_public_access_block" "this" {
                  block_public_acls       = true
                  ignore_public_acls      = true
                  block_public_policy     = true
                  restrict_public_buckets = true
                }""",
            fix="It turns all four flags of the account's block on. No bucket is changed.",
            breaks="""Whatever is public on purpose, at once and in all regions: websites and
                downloads served straight from buckets. Look through the buckets that fail the
                rules on ACLs and policies first. An organization's policy may hold the account to
                other settings.""",
        ),
    ),
)
