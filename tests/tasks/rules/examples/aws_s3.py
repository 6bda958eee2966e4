"""S3's rules: examples, what S3 makes of their calls, and how to plant them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from tasks.model import Call, Rule

BUCKET = "arn:aws:s3:::acme-logs"
ON = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
)
TLS_ONLY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "tls",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [BUCKET, f"{BUCKET}/*"],
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }
    ],
}


class Refused(Exception):
    """The simulated API's error."""


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.params["Bucket"] == config["Name"]
    match call.operation:
        case "PutPublicAccessBlock":
            config["PublicAccessBlock"] = dict(call.params["PublicAccessBlockConfiguration"])
        case "DeletePublicAccessBlock":
            config["PublicAccessBlock"] = None
        case "PutBucketVersioning":
            config["Versioning"] = {
                **config["Versioning"],
                **call.params["VersioningConfiguration"],
            }
        case "PutBucketPolicy":
            config["Policy"] = json.loads(call.params["Policy"])
        case "DeleteBucketPolicy":
            config["Policy"] = None
        case other:
            raise Refused(other)


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    s3, name = cloud.client("s3"), f"planted-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": cloud.region})
    s3.delete_public_access_block(Bucket=name)
    if config["Policy"]:
        text = json.dumps(config["Policy"]).replace("acme-logs", name)
        s3.put_bucket_policy(Bucket=name, Policy=text)
    if config["PublicAccessBlock"]:
        block = config["PublicAccessBlock"]
        s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block)
    if config["Versioning"]:
        versioning = config["Versioning"]
        s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=versioning)
    return f"arn:aws:s3:::{name}"


# --- generated ---------------------------------------------------------------------------------

BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


@st.composite
def policies(draw: st.DrawFn, bucket: str) -> dict[str, Any]:
    """Bucket policies that do not refuse plain HTTP."""
    arns = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement = st.fixed_dictionaries(
        {
            "Effect": st.sampled_from(["Allow", "Deny"]),
            "Principal": st.just({"AWS": "arn:aws:iam::111122223333:root"}),
            "Action": st.sampled_from(["s3:GetObject", ["s3:ListBucket", "s3:GetObject"]]),
            "Resource": st.sampled_from([arns, arns[0], arns[1]]),
        },
        optional={
            "Sid": st.text("abcXYZ019", min_size=1, max_size=12),
            "Condition": st.just({"IpAddress": {"aws:SourceIp": ["10.0.0.0/8"]}}),
        },
    )
    statements = draw(st.lists(statement, min_size=1, max_size=3))
    return {"Version": "2012-10-17", **draw(st.sampled_from([{}, {"Id": "p"}]))} | {
        "Statement": statements
    }


@st.composite
def buckets(draw: st.DrawFn, rule: Rule) -> dict[str, Any]:
    flags = st.fixed_dictionaries({name: st.booleans() for name in BLOCKS})
    block, versioning = draw(st.none() | flags), draw(st.sampled_from(["", "Suspended", "Enabled"]))
    if "public_access" in rule.id and block is not None and all(block.values()):
        block[draw(st.sampled_from(BLOCKS))] = False
    if "versioning" in rule.id and versioning == "Enabled":
        versioning = "Suspended"
    return {
        "Name": "acme-logs",
        "PublicAccessBlock": block,
        "Versioning": {"Status": versioning} if versioning else {},
        "Policy": draw(st.none() | policies("acme-logs")),
    }


# --- examples ----------------------------------------------------------------------------------


def bucket(**parts: Any) -> dict[str, Any]:
    return {"Name": "acme-logs", "PublicAccessBlock": ON, "Versioning": {}, "Policy": None, **parts}


EXAMPLES: dict[str, Any] = {
    "aws_s3_bucket_public_access_blocked": (
        [bucket()],
        [
            bucket(PublicAccessBlock=None),
            bucket(PublicAccessBlock=ON | {"BlockPublicPolicy": False}),
        ],
        "PublicAccessBlock",
    ),
    "aws_s3_bucket_versioning_enabled": (
        [bucket(Versioning={"Status": "Enabled"})],
        [bucket(), bucket(Versioning={"Status": "Suspended", "MFADelete": "Disabled"})],
        "Versioning",
    ),
    "aws_s3_bucket_tls_only": (
        [bucket(Policy=TLS_ONLY)],
        [bucket(), bucket(Policy={"Version": "2012-10-17", "Statement": []})],
        "Policy",
    ),
}
KINDS: dict[str, Any] = {
    "aws.s3.bucket": {"id": BUCKET, "apply": apply, "failing": buckets, "plant": plant},
}
