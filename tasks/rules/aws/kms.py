"""KMS's rules: the customer's own keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Resource, Rule, Severity
from tasks.rules.aws.switch import becomes, nothing, switch
from tasks.rules.guide import written
from tasks.rules.shape import flag, odd, text


def _key(resource: Resource) -> Mapping[str, Any]:
    return {"KeyId": text(resource.config["KeyId"], "KeyId")}


def rotates(resource: Resource) -> bool:
    """Symmetric keys whose material is AWS's rotate every year; others cannot, and pass."""
    rotation = resource.config["Rotation"]
    return rotation is None or flag(rotation, "Rotation")


_GOING = ("PendingDeletion", "PendingReplicaDeletion")
_STAYING = ("Creating", "Disabled", "Enabled", "PendingImport", "Unavailable", "Updating")
_LONGEST_WAIT = 30  # days


def stays(resource: Resource) -> bool:
    """Nobody has scheduled the key's deletion."""
    state = text(resource.config["KeyState"], "KeyState")
    if state not in (*_GOING, *_STAYING):
        raise odd("KeyState")
    return state in _STAYING


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
    Rule(
        id="aws_kms_key_not_pending_deletion",
        kind="aws.kms.key",
        severity=Severity.CRITICAL,
        title="KMS key is not waiting to be deleted",
        passes=stays,
        fix=switch(
            "kms:CancelKeyDeletion",
            "kms",
            "CancelKeyDeletion",
            passes=stays,
            names=_key,
            good={},
            old=lambda _resource: {"PendingWindowInDays": _LONGEST_WAIT},
            back="ScheduleKeyDeletion",
            changes=becomes(
                "KeyState",
                f"waiting to be deleted (an undo schedules that again, {_LONGEST_WAIT} days ahead)",
                "Disabled: KMS does not enable the key by itself",
            ),
        ),
        reads=("kms:ListKeys", "kms:DescribeKey"),
        writes=("kms:CancelKeyDeletion", "kms:ScheduleKeyDeletion"),
        events=("kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion"),
        aka=("prowler:kms_cmk_not_deleted_unintentionally",),
        guide=written(
            means="""Somebody has scheduled the deletion of this key. When the waiting period of 7
                to 30 days is over, KMS destroys its material.""",
            matters="""Whatever the key has encrypted can never be read again once it is gone: not
                by AWS, not from backups. Scheduling it is also what an attacker does who wants to
                be paid.""",
            console="""KMS > Customer managed keys > the key > Key actions > Cancel key deletion.
                Then Key actions > Enable, if it is to be used.""",
            cli="""
                aws kms cancel-key-deletion --key-id KEY
                aws kms enable-key --key-id KEY""",
            terraform="""
                # Terraform schedules the deletion when the resource is destroyed. Cancel it by the
                # command line, and take the key back under management:
                import {
                  to = aws_kms_key.this
                  id = "KEY"
                }""",
            fix="""It cancels the deletion. The key is disabled then, as KMS leaves it: nothing can
                be encrypted or decrypted with it until its owner enables it.""",
            breaks="""Nothing: a key that waits to be deleted does no work either. Where the
                deletion was meant, the owner may want it scheduled again.""",
            back=f"""Suture's undo schedules the deletion again, with a waiting period of
                {_LONGEST_WAIT} days from then, the longest that KMS gives. The day of the first
                schedule does not come back.""",
        ),
    ),
)
