"""IAM users: examples, what IAM makes of their calls, and how to plant them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from tasks.model import Call

count = itertools.count()
PASSWORD = "Correct-Horse-7"
MANAGED = "arn:aws:iam::111122223333:policy/reader"


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.operation == "UpdateAccessKey"
    assert call.params["UserName"] == config["UserName"]
    (key,) = (
        one for one in config["AccessKeys"] if one["AccessKeyId"] == call.params["AccessKeyId"]
    )
    key["Status"] = call.params["Status"]


def _ago(days: int) -> datetime:
    """A day more than so many days ago, as moto keeps time."""
    return (datetime.now(UTC) - timedelta(days=days + 1)).replace(tzinfo=None, microsecond=0)


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    """Through IAM; only what is long ago has to be told to moto."""
    from moto.iam.models import AccessKeyLastUsed, iam_backends

    iam, name = cloud.client("iam"), f"user-{next(count)}"
    arn = iam.create_user(UserName=name, Path="/people/")["User"]["Arn"]
    known = iam_backends[cloud.account]["aws"].users[name]
    for wanted in config["AccessKeys"]:
        made = iam.create_access_key(UserName=name)["AccessKey"]["AccessKeyId"]
        iam.update_access_key(UserName=name, AccessKeyId=made, Status=wanted["Status"])
        key = next(one for one in known.access_keys if one.access_key_id == made)
        key.create_date = _ago(wanted["OlderThanDays"])
        if wanted["UnusedForDays"] < wanted["OlderThanDays"]:
            key.last_used = AccessKeyLastUsed(
                _ago(wanted["UnusedForDays"]), service="s3", region="eu-central-1"
            )
    if config["Password"]:
        iam.create_login_profile(UserName=name, Password=PASSWORD)
        known.create_date = _ago(config["Password"]["OlderThanDays"])
    for policy in config["InlinePolicies"]:
        document = '{"Version":"2012-10-17","Statement":[]}'
        document = document.replace("[]", '[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]')
        iam.put_user_policy(UserName=name, PolicyName=policy, PolicyDocument=document)
    return str(arn)


def key(status: str = "Active", older: int = 0, unused: int = 0, last: str = "1") -> dict[str, Any]:
    return {
        "AccessKeyId": f"AKIAIOSFODNN7EXAMPL{last}",
        "Status": status,
        "CreateDate": "2025-02-28T08:09:10Z",
        "OlderThanDays": older,
        "UnusedForDays": unused,
    }


def user(*access_keys: dict[str, Any], **parts: Any) -> dict[str, Any]:
    return {
        "UserName": "jo+ops@example.com",
        "AccessKeys": list(access_keys),
        "Password": None,
        "PasswordUnusedForDays": None,
        "MFADevices": [],
        "AttachedPolicies": [],
        "InlinePolicies": [],
        **parts,
    }


def password(older: int, unused: int | None = None, *devices: str) -> dict[str, Any]:
    return {
        "Password": {"CreateDate": "2025-02-28T08:09:10Z", "OlderThanDays": older},
        "PasswordUnusedForDays": unused,
        "MFADevices": list(devices),
    }


DEVICE = "arn:aws:iam::111122223333:mfa/jo"
EXAMPLES: dict[str, Any] = {
    "aws_iam_user_keys_rotated": (
        [
            user(key(older=45, unused=45), key("Inactive", 90, 90, "2")),
            user(),
            user(key()),
        ],
        [
            user(key(older=90), key(older=45, last="2")),
            user(key(older=90, unused=90), key(older=90, unused=45, last="2"), **password(0)),
        ],
        "AccessKeys",
    ),
    "aws_iam_user_keys_used": (
        [user(key(older=90)), user(), user(key("Inactive", 90, 90), key(last="2"))],
        [
            user(key(older=45, unused=45)),
            user(key(older=90, unused=90), key(older=90, unused=45, last="2")),
            user(key(older=90, unused=90), key("Inactive", 90, 90, "2")),
        ],
        "AccessKeys",
    ),
    "aws_iam_user_one_active_key": (
        [user(key(), key("Inactive", last="2")), user()],
        [user(key(), key(older=90, last="2"))],
        "AccessKeys",
    ),
    "aws_iam_user_console_access_used": (
        [user(**password(90, 0)), user(), user(**password(0))],
        [user(**password(45)), user(**password(90, 45)), user(**password(90, 90))],
        "Password",
    ),
    "aws_iam_user_console_mfa": (
        [user(**password(0, 0, DEVICE)), user(key()), user(MFADevices=[DEVICE])],
        [user(**password(0, 0)), user(key(), **password(90, 90))],
        "MFADevices",
    ),
    "aws_iam_user_no_policies": (
        [user()],
        [user(InlinePolicies=["own"]), user(AttachedPolicies=[MANAGED])],
        "InlinePolicies",
    ),
}
KINDS: dict[str, Any] = {
    "aws.iam.user": {
        "id": "arn:aws:iam::111122223333:user/people/jo+ops@example.com",
        "region": "global",
        "apply": apply,
        "plant": plant,
    },
}
