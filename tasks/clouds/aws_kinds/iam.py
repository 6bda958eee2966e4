"""What Suture reads of IAM: the account's password policy."""

from __future__ import annotations

from tasks.clouds.aws_reading import Call, Part, settings

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
)
