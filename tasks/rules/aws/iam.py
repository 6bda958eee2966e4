"""IAM's rules about an account's password policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tasks.errors import BadAnswer, BadInput
from tasks.model import (
    Call,
    Change,
    Cloud,
    Fix,
    Input,
    Predicate,
    Resource,
    Rule,
    Severity,
    Step,
)
from tasks.rules.guide import guide, written
from tasks.rules.shape import flag, mapping, number

_PART = "PasswordPolicy"
_LENGTH = "MinimumPasswordLength"
_LEAST = 14
_MOST = 128
_OLDEST = 90
_REMEMBERED = 24  # and the most that IAM remembers

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

# Without a policy IAM asks for eight characters of three of four kinds. A policy of our own must
# not ask for less, and IAM cannot say "three of four" any more once there is one.
_DEFAULT_LENGTH = 8
_NEW_POLICY = {
    "RequireNumbers": True,
    "RequireUppercaseCharacters": True,
    "RequireLowercaseCharacters": True,
}
_NO_POLICY = {
    _LENGTH: f"no policy: IAM's default asks for {_DEFAULT_LENGTH}",
    **dict.fromkeys(
        ("RequireSymbols", *_NEW_POLICY), "IAM's default: three of four kinds of character"
    ),
}

MINIMUM_LENGTH = Input(
    name="minimum_length",
    kind="number",
    label=f"Shortest password allowed ({_LEAST} to {_MOST} characters)",
    default=str(_LEAST),
)
MAXIMUM_AGE = Input(
    name="maximum_age",
    kind="number",
    label=f"Days after which a password expires (1 to {_OLDEST})",
    default=str(_OLDEST),
)

# What an approver's values become: settings of the policy. Raises BadAnswer.
Wanted = Callable[[Mapping[str, Any]], Mapping[str, Any]]


# --- what a policy asks for -------------------------------------------------------------------


def _policy(resource: Resource) -> Mapping[str, Any] | None:
    """The account's own policy; None where it has IAM's default."""
    policy = resource.config[_PART]
    return None if policy is None else mapping(policy, _PART)


def _length(policy: Mapping[str, Any]) -> int:
    return number(policy.get(_LENGTH), f"{_PART}.{_LENGTH}")


def asks_for_long_passwords(resource: Resource) -> bool:
    """The account's policy asks for 14 characters or more; an account without one for eight."""
    policy = _policy(resource)
    return policy is not None and _length(policy) >= _LEAST


def has_on(name: str) -> Predicate:
    """The account's policy has this flag on. IAM's default has none of them on for certain."""

    def passes(resource: Resource) -> bool:
        policy = _policy(resource)
        return policy is not None and flag(policy.get(name), f"{_PART}.{name}")

    return passes


def _setting(policy: Mapping[str, Any], name: str) -> int:
    """A number that IAM leaves out where it is off; 0 then."""
    value = policy.get(name)
    return 0 if value is None else number(value, f"{_PART}.{name}")


def passwords_expire(resource: Resource) -> bool:
    """After however many days."""
    policy = _policy(resource)
    return policy is not None and _setting(policy, "MaxPasswordAge") > 0


def passwords_expire_soon(resource: Resource) -> bool:
    policy = _policy(resource)
    return policy is not None and 0 < _setting(policy, "MaxPasswordAge") <= _OLDEST


def remembers_passwords(resource: Resource) -> bool:
    policy = _policy(resource)
    return policy is not None and _setting(policy, "PasswordReusePrevention") >= _REMEMBERED


# --- the one planner --------------------------------------------------------------------------


def demand(passes: Predicate, wanted: Wanted) -> Fix:
    """A planner: asks for what is ``wanted`` and sends every other setting again as it was.

    The undo sends the old policy, or deletes the policy where there was none.
    """

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        chosen = wanted(values)
        if passes(resource):
            return ()
        policy = _policy(resource)
        if policy is None:
            kept: dict[str, Any] = {_LENGTH: _DEFAULT_LENGTH, **_NEW_POLICY}
            undo = _call("DeleteAccountPasswordPolicy", {})
            named = {**({_LENGTH: chosen[_LENGTH]} if _LENGTH in chosen else {}), **_NEW_POLICY}
            before, shown = _NO_POLICY, {**named, **chosen}
        else:
            kept = _sendable(policy)
            _refuse_lockout(kept, chosen)
            undo = _call("UpdateAccountPasswordPolicy", kept)
            before, shown = {name: _text(kept.get(name)) for name in chosen}, dict(chosen)
        changes = tuple(
            Change(name, before.get(name, "off"), _text(value)) for name, value in shown.items()
        )
        call = _call("UpdateAccountPasswordPolicy", {**kept, **chosen})
        return (Step("iam:UpdateAccountPasswordPolicy", call, (undo,), changes),)

    return fix


def _text(value: bool | int | None) -> str:
    if value is None:
        return "off"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse_lockout(kept: Mapping[str, Any], chosen: Mapping[str, Any]) -> None:
    """With a hard expiry, whoever's password is too old already could not even change it."""
    if "MaxPasswordAge" in chosen and kept.get("HardExpiry"):
        raise BadInput(
            "HardExpiry",
            "is on: users with older passwords would be locked out until an administrator helps.",
            "Turn it off first, or have old passwords changed and set the age by hand.",
        )


def _sendable(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a policy that UpdateAccountPasswordPolicy takes; zero and null mean off."""
    kept: dict[str, Any] = {_LENGTH: _length(policy)}
    for name in _FLAGS:
        if policy.get(name) is not None:
            kept[name] = flag(policy[name], f"{_PART}.{name}")
    for name in _NUMBERS:
        if policy.get(name) not in (None, 0):
            kept[name] = number(policy[name], f"{_PART}.{name}")
    return kept


def _call(operation: str, params: Mapping[str, Any]) -> Call:
    return Call(Cloud.AWS, "iam", operation, dict(params))


def _asked(setting: str, asked: Input, what: str, least: int, most: int) -> Wanted:
    """A setting that an approver may choose from ``least`` to ``most``."""

    def wanted(values: Mapping[str, Any]) -> Mapping[str, Any]:
        given = values.get(asked.name)
        if given is None or given == "":
            return {setting: int(asked.default)}
        if not isinstance(given, int) or isinstance(given, bool) or not least <= given <= most:
            raise BadAnswer(
                asked.name,
                f"is not {what} this rule accepts.",
                f"Give a whole number from {least} to {most}.",
            )
        return {setting: given}

    return wanted


def _always(**settings: Any) -> Wanted:
    return lambda _values: settings


_LONG = _asked(_LENGTH, MINIMUM_LENGTH, "a length", _LEAST, _MOST)
_AGE = _asked("MaxPasswordAge", MAXIMUM_AGE, "an age", 1, _OLDEST)


# --- the rows ---------------------------------------------------------------------------------


def _row(
    name: str,
    title: str,
    passes: Predicate,
    wanted: Wanted,
    aka: tuple[str, ...],
    guide_text: str,
    inputs: tuple[Input, ...] = (),
) -> Rule:
    return Rule(
        id=f"aws_iam_password_policy_{name}",
        kind="aws.iam.password_policy",
        severity=Severity.MEDIUM,
        title=f"IAM password policy {title}",
        passes=passes,
        fix=demand(passes, wanted),
        inputs=inputs,
        reads=("iam:GetAccountPasswordPolicy",),
        writes=("iam:UpdateAccountPasswordPolicy", "iam:DeleteAccountPasswordPolicy"),
        events=("iam:UpdateAccountPasswordPolicy", "iam:DeleteAccountPasswordPolicy"),
        aka=aka,
        guide=guide_text,
    )


def _written(means: str, matters: str, console: str, option: str, setting: str, breaks: str) -> str:
    """The guide of a row: what all of them have in common stands here."""
    return written(
        means=means,
        matters=matters,
        console=f"IAM > Account settings > Password policy > Edit > Custom > {console}.",
        cli=f"""
            # Name every setting you want to keep: those left out fall back to their defaults.
            aws iam get-account-password-policy
            aws iam update-account-password-policy --minimum-password-length 14 {option} ...""",
        terraform=f"""
            resource "aws_iam_account_password_policy" "this" {{
              minimum_password_length = 14
              {setting}
            }}""",
        fix="""It sends the account's settings again as they were, with this one changed. Where
            there was no policy it makes one that asks for no less than IAM's default did: eight
            characters with lower case, upper case and numbers in them.""",
        breaks=breaks,
        back="""Suture's undo sends the old settings, or deletes the policy where there was none.
            Passwords that were changed meanwhile stay as they are.""",
    )


def _characters(kind: str, words: str, setting: str, option: str, aka: tuple[str, ...]) -> Rule:
    """The row of one kind of character."""
    return _row(
        f"requires_{kind}",
        f"asks for {words}",
        has_on(setting),
        _always(**{setting: True}),
        aka,
        _written(
            f"""Passwords of this account's IAM users need not contain {words}. IAM's default, for
            accounts without a policy of their own, asks for three kinds of character of four, any
            three.""",
            """Every kind of character that must be in a password makes more of them to guess. It
            helps against guessing only: length does more, and no IAM users at all does most. Give
            people access through IAM Identity Center.""",
            f"Require {words}",
            f"--{option}",
            f"{option.replace('-', '_')} = true",
            """Nobody is locked out: IAM applies the policy when a password is next changed.
            Scripts that set passwords without such characters fail.""",
        ),
    )


def _expiry(
    name: str, title: str, passes: Predicate, aka: tuple[str, ...], means: str, matters: str
) -> Rule:
    return _row(
        name,
        title,
        passes,
        _AGE,
        aka,
        _written(
            means,
            matters,
            f"Turn on password expiration, {_OLDEST} days",
            f"--max-password-age {_OLDEST}",
            f"max_password_age = {_OLDEST}",
            """Users whose password is older must choose a new one at their next sign-in; access
            keys are not touched. Where the policy has a hard expiry they could not even do that,
            so that Suture refuses and says so. Tools that sign in with a user's password stop.""",
        ),
        (MAXIMUM_AGE,),
    )


RULES = (
    _row(
        "length",
        f"asks for at least {_LEAST} characters",
        asks_for_long_passwords,
        _LONG,
        (
            "prowler:iam_password_policy_minimum_length_14",
            "securityhub:IAM.15",
            "cis-aws-6.0:2.7",
            "cloudsploit:minPasswordLength",
        ),
        guide("aws_iam_password_policy_length"),
        (MINIMUM_LENGTH,),
    ),
    _characters(
        "lowercase",
        "lower-case letters",
        "RequireLowercaseCharacters",
        "require-lowercase-characters",
        (
            "prowler:iam_password_policy_lowercase",
            "securityhub:IAM.12",
            "cloudsploit:passwordRequiresLowercase",
        ),
    ),
    _characters(
        "uppercase",
        "upper-case letters",
        "RequireUppercaseCharacters",
        "require-uppercase-characters",
        (
            "prowler:iam_password_policy_uppercase",
            "securityhub:IAM.11",
            "cloudsploit:passwordRequiresUppercase",
        ),
    ),
    _characters(
        "numbers",
        "numbers",
        "RequireNumbers",
        "require-numbers",
        (
            "prowler:iam_password_policy_number",
            "securityhub:IAM.14",
            "cloudsploit:passwordRequiresNumbers",
        ),
    ),
    _characters(
        "symbols",
        "symbols",
        "RequireSymbols",
        "require-symbols",
        (
            "prowler:iam_password_policy_symbol",
            "securityhub:IAM.13",
            "cloudsploit:passwordRequiresSymbols",
        ),
    ),
    _expiry(
        "expires",
        "lets passwords expire",
        passwords_expire,
        ("cloudsploit:passwordExpiration",),
        """Passwords of this account's IAM users are good for ever: the policy names no age, or
        there is no policy.""",
        """A password that leaked years ago, or that somebody took along who left, still opens the
        console. Expiry ends that some day, where no second factor and no identity provider does it
        at once.""",
    ),
    _expiry(
        "maximum_age",
        f"lets passwords expire within {_OLDEST} days",
        passwords_expire_soon,
        (
            "prowler:iam_password_policy_expires_passwords_within_90_days_or_less",
            "securityhub:IAM.17",
            "cloudsploit:maxPasswordAge",
        ),
        f"""Passwords of this account's IAM users never expire, or after more than {_OLDEST}
        days.""",
        """How long a stolen password is of use to its thief is bounded by its age. Frameworks that
        ask for expiry mostly ask for 90 days; newer ones prefer a second factor and none at all, so
        an exception may be right where every user has one.""",
    ),
    _row(
        "reuse_prevented",
        f"remembers {_REMEMBERED} passwords",
        remembers_passwords,
        _always(PasswordReusePrevention=_REMEMBERED),
        (
            "prowler:iam_password_policy_reuse_24",
            "securityhub:IAM.16",
            "cis-aws-6.0:2.8",
            "cloudsploit:passwordReusePrevention",
        ),
        _written(
            f"""A user of this account may choose a password again before {_REMEMBERED} others were
            used. {_REMEMBERED} is also the most that IAM remembers, so there is no value to
            choose.""",
            """Whoever has to change a password may go back to one that has leaked since. The more
            IAM remembers, the less that is worth the trouble.""",
            f"Prevent password reuse, remember {_REMEMBERED} passwords",
            f"--password-reuse-prevention {_REMEMBERED}",
            f"password_reuse_prevention = {_REMEMBERED}",
            """Nobody is locked out: the next change of a password must be to a new one. Scripts
            that go back and forth between two passwords fail.""",
        ),
    ),
    _row(
        "change_allowed",
        "lets users change their own passwords",
        has_on("AllowUsersToChangePassword"),
        _always(AllowUsersToChangePassword=True),
        ("cloudsploit:policyAllowsToChangePassword",),
        _written(
            """IAM users of this account may change their own password only where a policy of their
            own says so: the account's setting is off, or there is no password policy.""",
            """Who cannot change a password that was seen by somebody else has to wait for an
            administrator, and an administrator who sets passwords for others knows them.""",
            "Allow users to change their own password",
            "--allow-users-to-change-password",
            "allow_users_to_change_password = true",
            """Every IAM user may call iam:ChangePassword for themselves and read the password
            policy. Service users that have a console password, and should not, may too.""",
        ),
    ),
)
