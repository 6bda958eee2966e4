"""X-Ray's rules: traces are encrypted with KMS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Change, Resource, Rule, Severity
from tasks.rules.aws.keys import encrypt, key_input
from tasks.rules.aws.switch import nothing
from tasks.rules.guide import written
from tasks.rules.shape import mapping, odd

_KEY = key_input("alias/aws/xray")
_PART = "EncryptionConfig"


def encrypted(resource: Resource) -> bool:
    kind = mapping(resource.config[_PART], _PART).get("Type")
    if kind not in ("NONE", "KMS"):
        raise odd(f"{_PART}.Type")
    return bool(kind == "KMS")


def _default(_settings: Resource, _key: str) -> Mapping[str, Any]:
    return {"Type": "NONE"}


RULES = (
    Rule(
        id="aws_xray_traces_encrypted_with_kms",
        kind="aws.xray.settings",
        severity=Severity.LOW,
        title="X-Ray encrypts traces with a KMS key of the account",
        passes=encrypted,
        fix=encrypt(
            "xray:PutEncryptionConfig",
            "xray",
            "PutEncryptionConfig",
            key=_KEY,
            passes=encrypted,
            names=nothing,
            good=lambda _settings, key: {"Type": "KMS", "KeyId": key},
            old=_default,
            changes=lambda _settings, key: (
                Change("encryption of traces", "X-Ray's own key", f"KMS, with {key}"),
            ),
        ),
        inputs=(_KEY,),
        reads=("xray:GetEncryptionConfig",),
        writes=("xray:PutEncryptionConfig",),
        events=("xray:PutEncryptionConfig",),
        aka=("cloudsploit:xrayEncryptionEnabled",),
        guide=written(
            means="""In this region, X-Ray keeps traces with its default encryption, and not with a
                KMS key of the account.""",
            matters="""Traces hold addresses, queries and whatever else applications note down. With
                a KMS key the use of it is in CloudTrail, and a key of yours can be revoked.""",
            console="CloudWatch > Settings > X-Ray traces > Encryption > Use a KMS key.",
            cli="aws xray put-encryption-config --type KMS --key-id alias/aws/xray",
            terraform="""
                resource "aws_xray_encryption_config" "this" {
                  type   = "KMS"
                  key_id = aws_kms_key.traces.arn
                }""",
            fix="""It sets the key that the approver names, or AWS's own for X-Ray. That takes some
                minutes; traces that are there already stay as they are.""",
            breaks="""With a key of yours, whoever sends or reads traces needs it, too. While the
                key is disabled, traces can be neither stored nor read.""",
            back="Suture's undo goes back to X-Ray's default encryption.",
        ),
    ),
)
