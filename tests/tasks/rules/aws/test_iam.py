"""The password policy: every other setting is sent again, and nothing IAM would refuse."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import BadAnswer, BadInput
from tasks.model import Cloud, Config, Resource
from tasks.rules import rule

LENGTH = rule("aws_iam_password_policy_length")
OLD = {
    "MinimumPasswordLength": 8,
    "RequireSymbols": False,
    "RequireNumbers": True,
    "RequireUppercaseCharacters": True,
    "RequireLowercaseCharacters": True,
    "AllowUsersToChangePassword": True,
    "ExpirePasswords": True,
    "MaxPasswordAge": 90,
    "PasswordReusePrevention": 24,
    "HardExpiry": False,
}


def account(policy: Any) -> Resource:
    return Resource(
        Cloud.AWS,
        "111122223333",
        "global",
        "aws.iam.password_policy",
        "arn:aws:iam::111122223333:account-password-policy",
        "account-password-policy",
        Config({"PasswordPolicy": policy}),
    )


def test_every_other_setting_is_sent_again(apply: Any, undo: Any) -> None:
    (step,) = LENGTH.fix(account(OLD), {"minimum_length": 20})  # type: ignore[misc]
    sent = {name: value for name, value in OLD.items() if name != "ExpirePasswords"}
    assert step.call.params == sent | {"MinimumPasswordLength": 20}
    after = apply(account(OLD), [step])
    assert after.config["PasswordPolicy"] == OLD | {"MinimumPasswordLength": 20}
    assert undo(after, [step]).config["PasswordPolicy"] == OLD


def test_settings_that_are_off_are_not_sent() -> None:
    off = OLD | {"MaxPasswordAge": 0, "PasswordReusePrevention": None, "ExpirePasswords": False}
    (step,) = LENGTH.fix(account(off), {})  # type: ignore[misc]
    assert not step.call.params.keys() & {"MaxPasswordAge", "PasswordReusePrevention"}
    assert step.call.params["RequireSymbols"] is False


def test_a_first_policy_asks_for_no_less_than_the_default() -> None:
    (step,) = LENGTH.fix(account(None), {})  # type: ignore[misc]
    assert step.call.params["MinimumPasswordLength"] == 14
    assert sum(value is True for value in step.call.params.values()) == 3
    assert [call.operation for call in step.undo] == ["DeleteAccountPasswordPolicy"]


@pytest.mark.parametrize("answer", [13, 129, 0, -1, True, "20", 14.5])
def test_a_bad_length_is_refused(answer: Any) -> None:
    with pytest.raises(BadAnswer) as caught:
        LENGTH.fix(account(OLD), {"minimum_length": answer})  # type: ignore[misc]
    assert caught.value.field == "minimum_length"


@pytest.mark.parametrize(
    "policy", [{}, {"MinimumPasswordLength": "14"}, {"MinimumPasswordLength": True}, [], "x"]
)
def test_unreadable_policies_are_unknown(policy: Any) -> None:
    assert LENGTH.judge(account(policy))[0] == "unknown"


def test_an_age_is_refused_where_it_would_lock_users_out() -> None:
    age = rule("aws_iam_password_policy_maximum_age")
    hard = account({**OLD, "MaxPasswordAge": 365, "HardExpiry": True})
    assert age.judge(hard)[0] == "fail"
    with pytest.raises(BadInput, match="locked out"):
        age.fix(hard, {})  # type: ignore[misc]


def test_a_first_policy_is_never_shorter_than_the_default() -> None:
    """UpdateAccountPasswordPolicy would make it six where it is not told."""
    symbols = rule("aws_iam_password_policy_requires_symbols")
    (step,) = symbols.fix(account(None), {})  # type: ignore[misc]
    assert step.call.params["MinimumPasswordLength"] == 8
    assert step.call.params["RequireSymbols"] is True
