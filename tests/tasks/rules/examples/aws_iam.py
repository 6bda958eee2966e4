"""IAM's rules: examples, what IAM makes of their calls, and how to plant them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError
from hypothesis import strategies as st

from tasks.model import Call, Rule


class Refused(Exception):
    """The simulated API's error."""


_POLICY_DEFAULTS = {
    "MinimumPasswordLength": 6,
    "RequireSymbols": False,
    "RequireNumbers": False,
    "RequireUppercaseCharacters": False,
    "RequireLowercaseCharacters": False,
    "AllowUsersToChangePassword": False,
}
_POLICY_OPTIONAL = {"MaxPasswordAge", "PasswordReusePrevention", "HardExpiry"}


def apply(config: dict[str, Any], call: Call) -> None:
    if call.operation == "DeleteAccountPasswordPolicy":
        config["PasswordPolicy"] = None
        return
    assert call.operation == "UpdateAccountPasswordPolicy"
    if call.params.keys() - _POLICY_DEFAULTS.keys() - _POLICY_OPTIONAL:
        raise Refused("ValidationError")
    age = call.params.get("MaxPasswordAge")
    config["PasswordPolicy"] = {
        **_POLICY_DEFAULTS,
        **call.params,
        "ExpirePasswords": age is not None,
    }


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    iam, policy = cloud.client("iam"), config["PasswordPolicy"]
    if policy is None:
        try:
            iam.delete_account_password_policy()
        except ClientError as error:
            if error.response["Error"]["Code"] != "NoSuchEntity":
                raise
    else:
        taken = {name: one for name, one in policy.items() if name != "ExpirePasswords"}
        iam.update_account_password_policy(**taken)
    return f"arn:aws:iam::{cloud.account}:account-password-policy"


@st.composite
def password_policies(draw: st.DrawFn, _: Rule) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"PasswordPolicy": None}
    flags = (
        *("RequireSymbols", "RequireNumbers", "RequireUppercaseCharacters"),
        *("RequireLowercaseCharacters", "AllowUsersToChangePassword", "HardExpiry"),
    )
    policy: dict[str, Any] = {name: draw(st.booleans()) for name in flags}
    policy["MinimumPasswordLength"] = draw(st.integers(6, 13))
    if draw(st.booleans()):
        policy["MaxPasswordAge"] = draw(st.integers(1, 1095))
    if draw(st.booleans()):
        policy["PasswordReusePrevention"] = draw(st.integers(1, 24))
    return {"PasswordPolicy": policy | {"ExpirePasswords": "MaxPasswordAge" in policy}}


def password_policy(**settings: Any) -> dict[str, Any]:
    return {"PasswordPolicy": {"MinimumPasswordLength": 8, "ExpirePasswords": False, **settings}}


EXAMPLES: dict[str, Any] = {
    "aws_iam_password_policy_length": (
        [password_policy(MinimumPasswordLength=14)],
        [
            {"PasswordPolicy": None},
            password_policy(
                RequireSymbols=True,
                RequireNumbers=False,
                RequireUppercaseCharacters=True,
                RequireLowercaseCharacters=True,
                AllowUsersToChangePassword=True,
                ExpirePasswords=True,
                MaxPasswordAge=90,
                PasswordReusePrevention=24,
            ),
        ],
        "PasswordPolicy",
    ),
}
KINDS: dict[str, Any] = {
    "aws.iam.password_policy": {
        "id": "arn:aws:iam::111122223333:account-password-policy",
        "region": "global",
        "apply": apply,
        "failing": password_policies,
        "plant": plant,
    },
}
