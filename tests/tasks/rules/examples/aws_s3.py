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


OWNER = "75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a"
ALL = "http://acs.amazonaws.com/groups/global/AllUsers"
ANY_ACCOUNT = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
LOGS = "http://acs.amazonaws.com/groups/s3/LogDelivery"


def group(uri: str, permission: str) -> dict[str, Any]:
    return {"Grantee": {"Type": "Group", "URI": uri}, "Permission": permission}


def acl(*grants: dict[str, Any]) -> dict[str, Any]:
    own = {"Grantee": {"Type": "CanonicalUser", "ID": OWNER}, "Permission": "FULL_CONTROL"}
    return {"Owner": {"ID": OWNER}, "Grants": [own, *grants]}


def encryption(algorithm: str, bucket_key: bool = False, **more: str) -> list[dict[str, Any]]:
    default = {"SSEAlgorithm": algorithm, **more}
    return [{"ApplyServerSideEncryptionByDefault": default, "BucketKeyEnabled": bucket_key}]


SSE_S3 = encryption("AES256")
PUBLIC = {
    "Sid": "public",
    "Effect": "Allow",
    "Principal": "*",
    "Action": "s3:GetObject",
    "Resource": f"{BUCKET}/*",
}
OWN = {**PUBLIC, "Sid": "own", "Principal": {"AWS": "arn:aws:iam::111122223333:root"}}
OFFICE = {**PUBLIC, "Condition": {"IpAddress": {"aws:SourceIp": ["203.0.113.0/24"]}}}
WORLD = {**PUBLIC, "Condition": {"IpAddress": {"aws:SourceIp": ["0.0.0.0/1", "128.0.0.0/1"]}}}


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


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
        case "PutBucketAcl":
            config["Acl"] = dict(call.params["AccessControlPolicy"])
        case "PutBucketEncryption":
            config["Encryption"] = call.params["ServerSideEncryptionConfiguration"]["Rules"]
        case "DeleteBucketEncryption":
            config["Encryption"] = SSE_S3
        case other:
            raise Refused(other)


def apply_to_account(config: dict[str, Any], call: Call) -> None:
    assert call.service == "s3control"
    assert call.params["AccountId"] == "111122223333"
    config["PublicAccessBlock"] = (
        dict(call.params["PublicAccessBlockConfiguration"])
        if call.operation == "PutPublicAccessBlock"
        else None
    )


def plant_account(cloud: Any, config: Mapping[str, Any]) -> str:
    s3control, whose = cloud.client("s3control"), {"AccountId": cloud.account}
    s3control.delete_public_access_block(**whose)
    if block := config["PublicAccessBlock"]:
        s3control.put_public_access_block(**whose, PublicAccessBlockConfiguration=block)
    return f"arn:aws:s3::{cloud.account}:account"


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    s3, name = cloud.client("s3"), f"planted-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": cloud.region})
    s3.delete_public_access_block(Bucket=name)
    s3.put_bucket_encryption(
        Bucket=name, ServerSideEncryptionConfiguration={"Rules": config["Encryption"]}
    )
    s3.put_bucket_acl(Bucket=name, AccessControlPolicy=config["Acl"])
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
    made = {
        "Name": "acme-logs",
        "PublicAccessBlock": block,
        "Versioning": {"Status": versioning} if versioning else {},
        "Policy": draw(st.none() | policies("acme-logs")),
        "Acl": acl(*draw(st.lists(grants(ALL, ANY_ACCOUNT), max_size=2))),
        "Encryption": SSE_S3,
        "AccountPublicAccessBlock": None,
    }
    if "acl" in rule.id:
        made["Acl"]["Grants"] += [draw(grants(ALL, ANY_ACCOUNT)), *draw(st.lists(grants(LOGS)))]
    if "closed" in rule.id:
        made["Policy"] = draw(st.sampled_from([{}, {"Id": "p"}])) | policy(
            *draw(st.lists(st.sampled_from([OWN, OFFICE, PUBLIC, *TLS_ONLY["Statement"]]))),
            draw(st.sampled_from([PUBLIC, WORLD])),
        )
    if block is not None and ("acl" in rule.id or "closed" in rule.id):
        # S3 would not take back what these forbid.
        made["PublicAccessBlock"] = dict.fromkeys(BLOCKS, False)
        made["PublicAccessBlock"] |= (
            {"BlockPublicPolicy": draw(st.booleans())}
            if "acl" in rule.id
            else {"IgnorePublicAcls": draw(st.booleans())}
        )
    return made


def grants(*groups: str) -> st.SearchStrategy[dict[str, Any]]:
    permissions = st.sampled_from(["READ", "WRITE", "READ_ACP", "WRITE_ACP", "FULL_CONTROL"])
    return st.builds(group, st.sampled_from(groups), permissions)


# --- examples ----------------------------------------------------------------------------------


def bucket(**parts: Any) -> dict[str, Any]:
    return {
        "Name": "acme-logs",
        "PublicAccessBlock": ON,
        "Versioning": {},
        "Policy": None,
        "Acl": acl(),
        "Encryption": SSE_S3,
        "AccountPublicAccessBlock": None,
        **parts,
    }


def open_to_all(**parts: Any) -> dict[str, Any]:
    return bucket(**{"PublicAccessBlock": None, **parts})


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
    "aws_s3_bucket_acl_private": (
        [
            bucket(),
            bucket(Acl=acl(group(ALL, "READ"))),
            open_to_all(Acl=acl(group(ALL, "READ")), AccountPublicAccessBlock=ON),
            open_to_all(Acl=acl(group(LOGS, "WRITE"), group(LOGS, "READ_ACP"))),
        ],
        [
            open_to_all(Acl=acl(group(ALL, "READ"), group(LOGS, "WRITE"))),
            open_to_all(
                Acl=acl(group(ANY_ACCOUNT, "WRITE")), PublicAccessBlock=dict.fromkeys(ON, False)
            ),
        ],
        "Acl",
    ),
    "aws_s3_bucket_policy_closed_to_strangers": (
        [
            bucket(),
            bucket(Policy=policy(PUBLIC)),
            open_to_all(Policy=policy(OWN, OFFICE)),
            open_to_all(Policy=TLS_ONLY),
            open_to_all(Policy=policy(PUBLIC), AccountPublicAccessBlock=ON),
        ],
        [
            open_to_all(Policy=policy(OWN, PUBLIC, *TLS_ONLY["Statement"])),
            open_to_all(Policy=policy(PUBLIC)),
            open_to_all(Policy=policy(WORLD, OFFICE)),
        ],
        "Policy",
    ),
    "aws_s3_bucket_encrypted_with_kms": (
        [
            bucket(Encryption=encryption("aws:kms", True, KMSMasterKeyID="alias/logs")),
            bucket(Encryption=encryption("aws:kms:dsse")),
        ],
        [bucket(), bucket(Policy=policy(OWN))],
        "Encryption",
    ),
    "aws_s3_account_public_access_blocked": (
        [{"PublicAccessBlock": ON}],
        [{"PublicAccessBlock": None}, {"PublicAccessBlock": ON | {"BlockPublicAcls": False}}],
        "PublicAccessBlock",
    ),
}
KINDS: dict[str, Any] = {
    "aws.s3.bucket": {
        "id": BUCKET,
        "apply": apply,
        "failing": buckets,
        "plant": plant,
        "values": {"kms_key": ""},
    },
    "aws.s3.account": {
        "id": "arn:aws:s3::111122223333:account",
        "region": "global",
        "apply": apply_to_account,
        "plant": plant_account,
        "alone": True,
    },
}
