"""The account, policies, certificates: examples, and how to plant them. None of them has a fix."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

count = itertools.count()


def plant_account(cloud: Any, config: Mapping[str, Any]) -> str:
    """IAM has no way to make a key for root: moto is told."""
    from moto.iam.models import iam_backends

    summary = iam_backends[cloud.account]["aws"].account_summary
    summary._account_access_keys_present = config["Root"]["AccountAccessKeysPresent"]
    return f"arn:aws:iam::{cloud.account}:root"


def plant_policy(cloud: Any, config: Mapping[str, Any]) -> str:
    iam, name = cloud.client("iam"), f"policy-{next(count)}"
    document = json.dumps(config["Document"])
    arn = iam.create_policy(PolicyName=name, PolicyDocument=document)["Policy"]["Arn"]
    iam.create_group(GroupName=name)
    iam.attach_group_policy(GroupName=name, PolicyArn=arn)
    return str(arn)


def plant_certificate(cloud: Any, config: Mapping[str, Any]) -> str:
    body, key = certificate(-1 if config["Expired"] else 1)
    name = f"certificate-{next(count)}"
    iam = cloud.client("iam")
    made = iam.upload_server_certificate(
        ServerCertificateName=name, CertificateBody=body, PrivateKey=key
    )
    return str(made["ServerCertificateMetadata"]["Arn"])


def certificate(days: int) -> tuple[str, str]:
    """One that expires in so many days, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "example.com")])
    ends = datetime.now(UTC) + timedelta(days=days)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(ends - timedelta(days=90))
        .not_valid_after(ends)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return made.public_bytes(pem).decode(), secret.decode()


def account(keys: int = 0, mfa: int = 1, *roles: str, **root: int) -> dict[str, Any]:
    return {
        "Root": {"AccountAccessKeysPresent": keys, "AccountMFAEnabled": mfa, **root},
        "SupportRoles": list(roles),
    }


def policy(*statements: Any) -> dict[str, Any]:
    """One statement stands alone, as IAM lets it."""
    some = list(statements) if len(statements) > 1 else statements[0]
    return {
        "PolicyName": "ours",
        "DefaultVersionId": "v2",
        "Document": {"Version": "2012-10-17", "Statement": some},
    }


def allow(action: Any, resource: Any, **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


MFA = {"Condition": {"Bool": {"aws:MultiFactorAuthPresent": "true"}}}
CERTIFICATE = {"ServerCertificateName": "www", "Expiration": "2025-02-28T08:09:10Z"}
EXAMPLES: dict[str, Any] = {
    "aws_iam_account_no_root_key": ([account()], [account(1), account(2, 0)], "Root"),
    "aws_iam_account_root_mfa": (
        [account(), account(1, 1), account(0, 0, AccountPasswordPresent=0)],
        [
            account(0, 0),
            account(0, 0, AccountPasswordPresent=1),
            account(1, 0, AccountPasswordPresent=0),
        ],
        "Root",
    ),
    "aws_iam_account_support_role": (
        [account(0, 1, "support"), account(0, 1, "a", "b")],
        [account()],
        "SupportRoles",
    ),
    "aws_iam_policy_not_administrative": (
        [
            policy(allow("s3:*", "*")),
            policy(allow("*", "arn:aws:s3:::reports/*"), allow(["ec2:*"], ["*"])),
            policy({"Effect": "Deny", "Action": "*", "Resource": "*"}),
            policy({"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}),
            policy({"Effect": "Allow", "Action": "*", "NotResource": "arn:aws:s3:::x"}),
        ],
        [
            policy(allow("*", "*")),
            policy(allow("s3:*", "*"), allow(["ec2:*", "*:*"], ["*"], **MFA)),
        ],
        "Document",
    ),
    "aws_iam_server_certificate_not_expired": (
        [{**CERTIFICATE, "Expired": False}],
        [{**CERTIFICATE, "Expired": True}],
        "Expired",
    ),
}
HERE = "arn:aws:iam::111122223333"
KINDS: dict[str, Any] = {
    "aws.iam.account": {"id": f"{HERE}:root", "region": "global", "plant": plant_account},
    "aws.iam.policy": {"id": f"{HERE}:policy/ours", "region": "global", "plant": plant_policy},
    "aws.iam.server_certificate": {
        "id": f"{HERE}:server-certificate/www",
        "region": "global",
        "plant": plant_certificate,
    },
}
