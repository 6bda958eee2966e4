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


# What makes a policy fail each rule; where a user would be locked out, no fix is made.
AGES = {"HardExpiry": st.just(False)}
FAILING: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "length": {"MinimumPasswordLength": st.integers(6, 13)},
    "lowercase": {"RequireLowercaseCharacters": st.just(False)},
    "uppercase": {"RequireUppercaseCharacters": st.just(False)},
    "numbers": {"RequireNumbers": st.just(False)},
    "symbols": {"RequireSymbols": st.just(False)},
    "expires": {"MaxPasswordAge": st.none(), **AGES},
    "maximum_age": {"MaxPasswordAge": st.none() | st.integers(91, 1095), **AGES},
    "reuse_prevented": {"PasswordReusePrevention": st.none() | st.integers(1, 23)},
    "change_allowed": {"AllowUsersToChangePassword": st.just(False)},
}


@st.composite
def password_policies(draw: st.DrawFn, rule: Rule) -> dict[str, Any]:
    if draw(st.booleans()):
        return {"PasswordPolicy": None}
    flags = (
        *("RequireSymbols", "RequireNumbers", "RequireUppercaseCharacters"),
        *("RequireLowercaseCharacters", "AllowUsersToChangePassword", "HardExpiry"),
    )
    settings: dict[str, st.SearchStrategy[Any]] = {
        **dict.fromkeys(flags, st.booleans()),
        "MinimumPasswordLength": st.integers(6, 128),
        "MaxPasswordAge": st.none() | st.integers(1, 1095),
        "PasswordReusePrevention": st.none() | st.integers(1, 24),
        **next(one for name, one in FAILING.items() if rule.id.endswith(f"_{name}")),
    }
    drawn = {name: draw(one) for name, one in settings.items()}
    policy = {name: value for name, value in drawn.items() if value is not None}
    return {"PasswordPolicy": policy | {"ExpirePasswords": "MaxPasswordAge" in policy}}


STRICT: dict[str, Any] = {
    "PasswordPolicy": {
        "MinimumPasswordLength": 14,
        "RequireSymbols": True,
        "RequireNumbers": True,
        "RequireUppercaseCharacters": True,
        "RequireLowercaseCharacters": True,
        "AllowUsersToChangePassword": True,
        "ExpirePasswords": True,
        "MaxPasswordAge": 90,
        "PasswordReusePrevention": 24,
    }
}
WEAK: dict[str, Any] = {
    "PasswordPolicy": {**_POLICY_DEFAULTS, "ExpirePasswords": False, "HardExpiry": False}
}
NO_POLICY: dict[str, Any] = {"PasswordPolicy": None}


def strict_but(**settings: Any) -> dict[str, Any]:
    """The strict policy with some settings other; None leaves one out, as IAM does."""
    policy = {**STRICT["PasswordPolicy"], **settings}
    policy["ExpirePasswords"] = policy["MaxPasswordAge"] is not None
    return {"PasswordPolicy": {name: one for name, one in policy.items() if one is not None}}


def examples(*failing: dict[str, Any]) -> tuple[list[Any], list[Any], str]:
    return [STRICT], [NO_POLICY, WEAK, *failing], "PasswordPolicy"


EXAMPLES: dict[str, Any] = {
    "aws_iam_password_policy_length": examples(
        strict_but(MinimumPasswordLength=8, RequireNumbers=False, HardExpiry=True),
    ),
}
for _setting, _rule in {
    "RequireLowercaseCharacters": "requires_lowercase",
    "RequireUppercaseCharacters": "requires_uppercase",
    "RequireNumbers": "requires_numbers",
    "RequireSymbols": "requires_symbols",
    "AllowUsersToChangePassword": "change_allowed",
}.items():
    EXAMPLES[f"aws_iam_password_policy_{_rule}"] = examples(
        strict_but(**{_setting: False}),
    )
EXAMPLES |= {
    "aws_iam_password_policy_expires": (
        [STRICT, strict_but(MaxPasswordAge=1095)],
        [NO_POLICY, strict_but(MaxPasswordAge=None), WEAK],
        "PasswordPolicy",
    ),
    "aws_iam_password_policy_maximum_age": examples(
        strict_but(MaxPasswordAge=91), strict_but(MaxPasswordAge=None, HardExpiry=False)
    ),
    "aws_iam_password_policy_reuse_prevented": examples(
        strict_but(PasswordReusePrevention=23), strict_but(PasswordReusePrevention=None)
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
