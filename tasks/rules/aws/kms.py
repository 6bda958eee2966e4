"""KMS's rules: the customer's own keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Resource, Rule, Severity
from tasks.rules.aws.switch import becomes, nothing, switch
from tasks.rules.guide import written
from tasks.rules.shape import flag, text


def _key(resource: Resource) -> Mapping[str, Any]:
    return {"KeyId": text(resource.config["KeyId"], "KeyId")}


def rotates(resource: Resource) -> bool:
    """Symmetric keys whose material is AWS's rotate every year; others cannot, and pass."""
    rotation = resource.config["Rotation"]
    return rotation is None or flag(rotation, "Rotation")


RULES = (
    Rule(
        id="aws_kms_key_rotation_enabled",
        kind="aws.kms.key",
        severity=Severity.MEDIUM,
        title="KMS key is rotated every year",
        passes=rotates,
        fix=switch(
            "kms:EnableKeyRotation",
            "kms",
            "EnableKeyRotation",
            passes=rotates,
            names=_key,
            good={},
            old=nothing,
            back="DisableKeyRotation",
            changes=becomes("rotation", "off", "on: new material every year, the old one kept"),
        ),
        reads=("kms:ListKeys", "kms:DescribeKey", "kms:GetKeyRotationStatus"),
        writes=("kms:EnableKeyRotation", "kms:DisableKeyRotation"),
        events=("kms:CreateKey", "kms:EnableKeyRotation", "kms:DisableKeyRotation"),
        aka=("prowler:kms_cmk_rotation_enabled", "securityhub:KMS.4", "cis-aws-6.0:4.6"),
        guide=written(
            means="""The key is symmetric, KMS made its material, it is enabled, and automatic
                rotation is off. Keys of other kinds cannot be rotated and pass.""",
            matters="""The longer one piece of key material encrypts, the more a single leak of it
                is worth. Rotation bounds that without anybody having to re-encrypt.""",
            console="KMS > Customer managed keys > the key > Key rotation > Edit > Enable.",
            cli="aws kms enable-key-rotation --key-id KEY",
            terraform="""
                resource "aws_kms_key" "this" {
                  enable_key_rotation = true
                }""",
            fix="It turns rotation on, with KMS's own period of 365 days.",
            breaks="""Nothing: the key's id and policy stay, and old material still decrypts what it
                encrypted. KMS charges for the first two rotations.""",
            back="""Suture's undo turns rotation off again. Material that was made meanwhile
                stays.""",
        ),
    ),
)
