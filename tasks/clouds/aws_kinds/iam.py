"""What Suture reads of IAM: the account itself, users, policies, server certificates.

What counts is often how long ago something was. A number of days would make every user look
changed every day, so the days are told in steps: more than 45, more than 90.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote

from tasks.clouds.aws_reading import Call, Item, Part, listed, settings

STEPS = (90, 45)


def _more_than(moment: datetime) -> int:
    """The most days of the steps that have gone by since; 0 for none of them."""
    gone = datetime.now(UTC) - moment
    return next((days for days in STEPS if gone > timedelta(days=days)), 0)


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# --- users ------------------------------------------------------------------------------------


def _user(user: Item) -> Item:
    used = user.get("PasswordLastUsed")
    return {**user, "PasswordUnusedForDays": None if used is None else _more_than(used)}


def _password(profile: Mapping[str, Any]) -> dict[str, Any]:
    made = profile["CreateDate"]
    return {"CreateDate": _text(made), "OlderThanDays": _more_than(made)}


def _keys(keys: list[Item]) -> list[dict[str, Any]]:
    """A key that was never used is unused since it was made."""
    return [
        {
            "AccessKeyId": key["AccessKeyId"],
            "Status": key["Status"],
            "CreateDate": _text(key["CreateDate"]),
            "OlderThanDays": _more_than(key["CreateDate"]),
            "UnusedForDays": _more_than(key.get("LastUsedDate") or key["CreateDate"]),
        }
        for key in keys
    ]


def _of_user(name: str, call: str, take: str, **more: Any) -> Part:
    asked = Call(call=f"iam:{call}", params={"UserName": "{UserName}"}, take=take)
    return Part(name=name, call=asked, **more)


_USER_PARTS = (
    _of_user(
        "AccessKeys",
        "ListAccessKeys",
        "AccessKeyMetadata",
        each=Call(
            call="iam:GetAccessKeyLastUsed",
            params={"AccessKeyId": "{AccessKeyId}"},
            take="AccessKeyLastUsed",
        ),
        shape=_keys,
    ),
    _of_user(
        "Password", "GetLoginProfile", "LoginProfile", absent=("NoSuchEntity",), shape=_password
    ),
    _of_user(
        "MFADevices",
        "ListMFADevices",
        "MFADevices",
        shape=lambda devices: sorted(one["SerialNumber"] for one in devices),
    ),
    _of_user(
        "AttachedPolicies",
        "ListAttachedUserPolicies",
        "AttachedPolicies",
        shape=lambda policies: sorted(one["PolicyArn"] for one in policies),
    ),
    _of_user("InlinePolicies", "ListUserPolicies", "PolicyNames", shape=sorted),
)


# --- the account, policies, certificates ------------------------------------------------------


_ROOT = ("AccountAccessKeysPresent", "AccountMFAEnabled", "AccountPasswordPresent")


def _root(summary: Mapping[str, int]) -> dict[str, int]:
    """What is said of the root user; all the rest are counters."""
    return {name: summary[name] for name in _ROOT if name in summary}


def _document(version: Mapping[str, Any]) -> Any:
    return json.loads(unquote(version["Document"]))


def _certificate(certificate: Item) -> Item:
    expires = certificate.get("Expiration")
    if expires is None:
        return certificate
    return {
        **certificate,
        "Expiration": _text(expires),
        "Expired": expires <= datetime.now(UTC),
    }


COLLECTORS = (
    settings(
        "aws.iam.password_policy",
        (
            Part(
                name="PasswordPolicy",
                call=Call(call="iam:GetAccountPasswordPolicy", take="PasswordPolicy"),
                absent=("NoSuchEntity",),
            ),
        ),
        id="arn:{partition}:iam::{account}:account-password-policy",
        name="account password policy",
        regional=False,
    ),
    settings(
        "aws.iam.account",
        (
            Part(
                name="Root",
                call=Call(call="iam:GetAccountSummary", take="SummaryMap"),
                shape=_root,
            ),
            Part(
                name="SupportRoles",
                call=Call(
                    call="iam:ListEntitiesForPolicy",
                    params={
                        "PolicyArn": "arn:{partition}:iam::aws:policy/AWSSupportAccess",
                        "EntityFilter": "Role",
                    },
                    take="PolicyRoles",
                ),
                shape=lambda roles: sorted(one["RoleName"] for one in roles),
            ),
        ),
        id="arn:{partition}:iam::{account}:root",
        name="account {account}",
        regional=False,
    ),
    listed(
        "aws.iam.user",
        Call(call="iam:ListUsers", take="Users"),
        id="{Arn}",
        name="{UserName}",
        again=Call(call="iam:GetUser", params={"UserName": "{last}"}, take="User"),
        keep=("UserName", "PasswordUnusedForDays"),
        shape=_user,
        parts=_USER_PARTS,
        tags="Tags",
        regional=False,
    ),
    listed(
        "aws.iam.policy",
        Call(
            call="iam:ListPolicies",
            params={
                "Scope": "Local",
                "OnlyAttached": True,
                "PolicyUsageFilter": "PermissionsPolicy",
            },
            take="Policies",
        ),
        id="{Arn}",
        name="{PolicyName}",
        keep=("PolicyName", "DefaultVersionId"),
        parts=(
            Part(
                name="Document",
                call=Call(
                    call="iam:GetPolicyVersion",
                    params={"PolicyArn": "{Arn}", "VersionId": "{DefaultVersionId}"},
                    take="PolicyVersion",
                ),
                shape=_document,
            ),
        ),
        regional=False,
    ),
    listed(
        "aws.iam.server_certificate",
        Call(call="iam:ListServerCertificates", take="ServerCertificateMetadataList"),
        id="{Arn}",
        name="{ServerCertificateName}",
        keep=("ServerCertificateName", "Expiration", "Expired"),
        shape=_certificate,
        regional=False,
    ),
)
