"""IAM's rules: the account's password policy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.errors import BadAnswer
from tasks.model import Call, Change, Cloud, Input, Resource, Rule, Severity, Step
from tasks.rules.guide import guide
from tasks.rules.shape import flag, mapping, number

_PART = "PasswordPolicy"
_LEAST = 14
_MOST = 128

# UpdateAccountPasswordPolicy resets whatever it is not sent, so all of these are sent again.
# ExpirePasswords is answered but not taken: IAM derives it from MaxPasswordAge.
_FLAGS = (
    "RequireSymbols",
    "RequireNumbers",
    "RequireUppercaseCharacters",
    "RequireLowercaseCharacters",
    "AllowUsersToChangePassword",
    "HardExpiry",
)
_NUMBERS = ("MaxPasswordAge", "PasswordReusePrevention")

# Without a policy IAM asks for three of four kinds of character. A policy of our own must not ask
# for less, and IAM cannot say "three of four" any more once there is one.
_NEW_POLICY = {
    "RequireNumbers": True,
    "RequireUppercaseCharacters": True,
    "RequireLowercaseCharacters": True,
}

MINIMUM_LENGTH = Input(
    name="minimum_length",
    kind="number",
    label=f"Shortest password allowed ({_LEAST} to {_MOST} characters)",
    default=str(_LEAST),
)


def _length(policy: Mapping[str, Any]) -> int:
    return number(policy.get("MinimumPasswordLength"), f"{_PART}.MinimumPasswordLength")


def asks_for_long_passwords(resource: Resource) -> bool:
    """The account's policy asks for 14 characters or more; an account without one for eight."""
    policy = resource.config[_PART]
    return policy is not None and _length(mapping(policy, _PART)) >= _LEAST


def ask_for_long_passwords(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Raises the length and sends every other setting again as it was.

    The undo sends the old policy, or deletes the policy where there was none.
    """
    wanted = _wanted_length(values)
    if asks_for_long_passwords(resource):
        return ()
    policy = resource.config[_PART]
    if policy is None:
        kept: dict[str, Any] = dict(_NEW_POLICY)
        before = "no policy: IAM's default asks for 8"
        undo = _call("DeleteAccountPasswordPolicy")
        changes = [
            Change(name, "IAM's default: three of four kinds of character", "true") for name in kept
        ]
    else:
        kept = _sendable(mapping(policy, _PART))
        before = str(_length(policy))
        undo = _call("UpdateAccountPasswordPolicy", MinimumPasswordLength=_length(policy), **kept)
        changes = []
    return (
        Step(
            "iam:UpdateAccountPasswordPolicy",
            _call("UpdateAccountPasswordPolicy", MinimumPasswordLength=wanted, **kept),
            (undo,),
            (Change("MinimumPasswordLength", before, str(wanted)), *changes),
        ),
    )


def _wanted_length(values: Mapping[str, Any]) -> int:
    wanted = values.get(MINIMUM_LENGTH.name)
    if wanted is None or wanted == "":
        return _LEAST
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not _LEAST <= wanted <= _MOST:
        raise BadAnswer(
            MINIMUM_LENGTH.name,
            "is not a length this rule accepts.",
            f"Give a whole number from {_LEAST} to {_MOST}.",
        )
    return wanted


def _sendable(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a policy that UpdateAccountPasswordPolicy takes; zero and null mean off."""
    kept: dict[str, Any] = {}
    for name in _FLAGS:
        if policy.get(name) is not None:
            kept[name] = flag(policy[name], f"{_PART}.{name}")
    for name in _NUMBERS:
        if policy.get(name) not in (None, 0):
            kept[name] = number(policy[name], f"{_PART}.{name}")
    return kept


def _call(operation: str, **params: Any) -> Call:
    return Call(Cloud.AWS, "iam", operation, params)


RULES = (
    Rule(
        id="aws_iam_password_policy_length",
        kind="aws.iam.password_policy",
        severity=Severity.MEDIUM,
        title=f"IAM password policy asks for at least {_LEAST} characters",
        passes=asks_for_long_passwords,
        fix=ask_for_long_passwords,
        inputs=(MINIMUM_LENGTH,),
        reads=("iam:GetAccountPasswordPolicy",),
        writes=("iam:UpdateAccountPasswordPolicy", "iam:DeleteAccountPasswordPolicy"),
        events=("iam:UpdateAccountPasswordPolicy", "iam:DeleteAccountPasswordPolicy"),
        aka=(
            "prowler:iam_password_policy_minimum_length_14",
            "securityhub:IAM.15",
            "cis-aws-6.0:2.7",
            "cloudsploit:minPasswordLength",
        ),
        guide=guide("aws_iam_password_policy_length"),
    ),
)
