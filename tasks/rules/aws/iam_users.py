"""IAM's rules about users: access keys, console access, second factors, policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.model import Call, Change, Cloud, Fix, Predicate, Resource, Rule, Severity, Step
from tasks.rules.guide import written
from tasks.rules.shape import mapping, number, odd, sequence, text

_OLD, _IDLE = 90, 45  # days; the collector tells a key's age in just these steps
_STATES = ("Active", "Inactive", "Expired")


# --- access keys ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Key:
    """One access key. ``age`` and ``idle`` are the days it is older, or unused for longer, than."""

    id: str
    active: bool
    age: int
    idle: int

    @property
    def use(self) -> str:
        if self.idle >= _IDLE:
            return f"not used for more than {self.idle} days"
        return f"used within the last {_IDLE} days, by something that stops working"


def keys(resource: Resource) -> tuple[Key, ...]:
    """The user's access keys. MissingData where they cannot be read."""
    return tuple(_key(one) for one in sequence(resource.config["AccessKeys"], "AccessKeys"))


def _key(entry: Any) -> Key:
    key = mapping(entry, "AccessKeys")
    if key.get("Status") not in _STATES:
        raise odd("AccessKeys.Status")
    return Key(
        text(key.get("AccessKeyId"), "AccessKeys.AccessKeyId"),
        key["Status"] == "Active",
        number(key.get("OlderThanDays"), "AccessKeys.OlderThanDays"),
        number(key.get("UnusedForDays"), "AccessKeys.UnusedForDays"),
    )


def _is_old(key: Key) -> bool:
    return key.active and key.age >= _OLD


def _is_idle(key: Key) -> bool:
    return key.active and key.idle >= _IDLE


def no_key(bad: Callable[[Key], bool]) -> Predicate:
    return lambda resource: not any(bad(key) for key in keys(resource))


def deactivate(bad: Callable[[Key], bool]) -> Fix:
    """A planner: makes the ``bad`` keys inactive. Nothing is deleted, and the undo is one call."""

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        return tuple(
            Step(
                "iam:UpdateAccessKey",
                _set(resource, key, "Inactive"),
                (_set(resource, key, "Active"),),
                (Change(f"access key {key.id}", f"Active, {key.use}", "Inactive"),),
            )
            for key in keys(resource)
            if bad(key)
        )

    return fix


def _set(resource: Resource, key: Key, status: str) -> Call:
    user = text(resource.config["UserName"], "UserName")
    params = {"UserName": user, "AccessKeyId": key.id, "Status": status}
    return Call(Cloud.AWS, "iam", "UpdateAccessKey", params)


def has_one_active_key(resource: Resource) -> bool:
    return sum(key.active for key in keys(resource)) <= 1


# --- the console ------------------------------------------------------------------------------


def uses_the_console(resource: Resource) -> bool:
    """There is no password, or it was used within 45 days; made, where it was never used."""
    password, idle = resource.config["Password"], resource.config["PasswordUnusedForDays"]
    if password is None:
        return True
    age = number(mapping(password, "Password").get("OlderThanDays"), "Password.OlderThanDays")
    return (age if idle is None else number(idle, "PasswordUnusedForDays")) < _IDLE


def has_a_second_factor(resource: Resource) -> bool:
    """Whoever has a password has an MFA device too."""
    password, devices = resource.config["Password"], resource.config["MFADevices"]
    present = [text(one, "MFADevices") for one in sequence(devices, "MFADevices")]
    return password is None or (bool(mapping(password, "Password")) and bool(present))


def has_no_policies(resource: Resource) -> bool:
    """What the user may do comes from groups alone."""
    attached = sequence(resource.config["AttachedPolicies"], "AttachedPolicies")
    inline = sequence(resource.config["InlinePolicies"], "InlinePolicies")
    return not attached and not inline


# --- the rows ---------------------------------------------------------------------------------

_KEY_READS = ("iam:ListUsers", "iam:GetUser", "iam:ListAccessKeys", "iam:GetAccessKeyLastUsed")
_KEY_EVENTS = ("iam:CreateAccessKey", "iam:UpdateAccessKey", "iam:DeleteAccessKey")
_LOGIN_EVENTS = ("iam:CreateLoginProfile", "iam:DeleteLoginProfile")
_STOPS = """Whatever uses the key is refused from then on: the plan says whether it was used within
    the last 45 days. Make it a new key, or a role, first."""
_KEY_BACK = "Suture's undo makes the key active again; it works at once with the secret it had."


RULES = (
    Rule(
        id="aws_iam_user_keys_rotated",
        kind="aws.iam.user",
        severity=Severity.MEDIUM,
        title=f"Active access keys of the IAM user are at most {_OLD} days old",
        passes=no_key(_is_old),
        fix=deactivate(_is_old),
        reads=_KEY_READS,
        writes=("iam:UpdateAccessKey",),
        events=_KEY_EVENTS,
        aka=("prowler:iam_rotate_access_key_90_days", "securityhub:IAM.3", "cis-aws-6.0:2.13"),
        guide=written(
            means=f"An active access key of this user was made more than {_OLD} days ago.",
            matters="""Access keys do not expire. The older one is, the more laptops, pipelines and
                backups it has been in, and one that leaked stays good until somebody acts.""",
            console="""IAM > Users > the user > Security credentials > Create access key; put it
                where the old one is; when Last used of the old one stands still: Actions >
                Deactivate, and later Delete.""",
            cli="""
                aws iam create-access-key --user-name USER
                aws iam get-access-key-last-used --access-key-id KEY
                aws iam update-access-key --user-name USER --access-key-id KEY --status Inactive""",
            terraform="""
                # Have the key made anew, or better use a role and no key at all:
                # terraform apply -replace=aws_iam_access_key.this""",
            fix="""It makes every such key inactive and deletes none. It cannot hand a new key to
                whatever uses the old one: do that before, as the console's steps say.""",
            breaks=_STOPS,
            back=_KEY_BACK,
        ),
    ),
    Rule(
        id="aws_iam_user_keys_used",
        kind="aws.iam.user",
        severity=Severity.MEDIUM,
        title=f"Active access keys of the IAM user were used within {_IDLE} days",
        passes=no_key(_is_idle),
        fix=deactivate(_is_idle),
        reads=_KEY_READS,
        writes=("iam:UpdateAccessKey",),
        events=_KEY_EVENTS,
        aka=("prowler:iam_user_accesskey_unused", "securityhub:IAM.22", "cis-aws-6.0:2.11"),
        guide=written(
            means=f"""An active access key of this user has not been used for more than {_IDLE}
                days, or was made that long ago and never used.""",
            matters="""Nobody misses a key that nobody uses, and nobody notices who else has it.
                Taking it away costs nothing and leaves one thing less to steal.""",
            console="""IAM > Users > the user > Security credentials > Access keys > the key >
                Actions > Deactivate.""",
            cli="""
                aws iam get-access-key-last-used --access-key-id KEY
                aws iam update-access-key --user-name USER --access-key-id KEY --status Inactive""",
            terraform="""
                resource "aws_iam_access_key" "this" {
                  user   = aws_iam_user.this.name
                  status = "Inactive"
                }""",
            fix="It makes every such key inactive and deletes none.",
            breaks="""Work that runs less often than every 45 days, such as a yearly report or a
                restore in an emergency, is refused when its day comes. IAM's dates of use are some
                hours late.""",
            back=_KEY_BACK,
        ),
    ),
    Rule(
        id="aws_iam_user_one_active_key",
        kind="aws.iam.user",
        severity=Severity.LOW,
        title="IAM user has at most one active access key",
        passes=has_one_active_key,
        fix=None,
        reads=_KEY_READS,
        writes=(),
        events=_KEY_EVENTS,
        aka=("prowler:iam_user_two_active_access_key", "cis-aws-6.0:2.12"),
        guide=written(
            means="Two access keys of this user are active.",
            matters="""Two keys are meant for the minutes in which one replaces the other. Where
                both stay, twice as much can leak, and hardly anybody knows which is used where.""",
            console="""IAM > Users > the user > Security credentials: compare Last used of both,
                then Actions > Deactivate on the one to go.""",
            cli="""
                aws iam list-access-keys --user-name USER
                aws iam get-access-key-last-used --access-key-id KEY
                aws iam update-access-key --user-name USER --access-key-id KEY --status Inactive""",
            terraform="""
                resource "aws_iam_access_key" "second" {
                  user   = aws_iam_user.this.name
                  status = "Inactive"
                }""",
            by_hand="""Which of the two is in use, and by what, cannot be told from outside when
                both are. A key that is old or unused is found, and made inactive, by rules of its
                own.""",
            breaks="Whatever used the key that is made inactive is refused from then on.",
            back="The same command with --status Active.",
        ),
    ),
    Rule(
        id="aws_iam_user_console_access_used",
        kind="aws.iam.user",
        severity=Severity.MEDIUM,
        title=f"IAM user with a password signed in within {_IDLE} days",
        passes=uses_the_console,
        fix=None,
        reads=("iam:ListUsers", "iam:GetUser", "iam:GetLoginProfile"),
        writes=(),
        events=(*_LOGIN_EVENTS, "iam:CreateUser", "iam:DeleteUser"),
        aka=("prowler:iam_user_console_access_unused", "cis-aws-6.0:2.11"),
        guide=written(
            means=f"""This user has a console password that was not used for more than {_IDLE} days,
                or that was made that long ago and never used.""",
            matters="""Forgotten passwords belong to people who have left, or were chosen years ago.
                Nobody would notice if somebody else signed in with one.""",
            console="""IAM > Users > the user > Security credentials > Console sign-in > Manage
                console access > Disable.""",
            cli="""
                aws iam get-user --user-name USER
                aws iam delete-login-profile --user-name USER""",
            terraform="""
                # Remove the user's aws_iam_user_login_profile.""",
            by_hand="""A password that is taken away cannot be put back: nobody knows it but its
                owner, who may be on leave. Ask first; then the command above is all there is.""",
            breaks="""The user can no longer sign in to the console. Access keys and running
                sessions stay as they are.""",
            back="""aws iam create-login-profile sets a new password, which the user has to be
                told.""",
        ),
    ),
    Rule(
        id="aws_iam_user_console_mfa",
        kind="aws.iam.user",
        severity=Severity.HIGH,
        title="IAM user with a password has a second factor",
        passes=has_a_second_factor,
        fix=None,
        reads=("iam:ListUsers", "iam:GetUser", "iam:GetLoginProfile", "iam:ListMFADevices"),
        writes=(),
        events=(*_LOGIN_EVENTS, "iam:EnableMFADevice", "iam:DeactivateMFADevice"),
        aka=(
            "prowler:iam_user_mfa_enabled_console_access",
            "securityhub:IAM.5",
            "cis-aws-6.0:2.9",
        ),
        guide=written(
            means="This user can sign in to the console with a password and nothing else.",
            matters="""Passwords are phished, guessed and used twice. A second factor makes a stolen
                one worthless, and a security key or passkey cannot be phished at all.""",
            console="""The user signs in, then: the account's menu > Security credentials >
                Multi-factor authentication > Assign MFA device.""",
            cli="""
                aws iam create-virtual-mfa-device --virtual-mfa-device-name USER \\
                  --outfile qr.png --bootstrap-method QRCodePNG
                aws iam enable-mfa-device --user-name USER --serial-number SERIAL \\
                  --authentication-code1 CODE --authentication-code2 NEXT""",
            terraform="""
                # A device is enrolled by the person who holds it. What can be written down
                # is a policy that denies nearly everything without a second factor.""",
            by_hand="""Only the person who holds the device can enroll it. What Suture could do is
                to take the password away, which is no way to teach anybody.""",
            breaks="Scripts that sign in with the password alone.",
            back="aws iam deactivate-mfa-device takes the device off again.",
        ),
    ),
    Rule(
        id="aws_iam_user_no_policies",
        kind="aws.iam.user",
        severity=Severity.LOW,
        title="IAM user gets permissions through groups only",
        passes=has_no_policies,
        fix=None,
        reads=(
            "iam:ListUsers",
            "iam:GetUser",
            "iam:ListAttachedUserPolicies",
            "iam:ListUserPolicies",
        ),
        writes=(),
        events=(
            "iam:AttachUserPolicy",
            "iam:DetachUserPolicy",
            "iam:PutUserPolicy",
            "iam:DeleteUserPolicy",
        ),
        aka=(
            "prowler:iam_policy_attached_only_to_group_or_roles",
            "securityhub:IAM.2",
            "cis-aws-6.0:2.14",
        ),
        guide=written(
            means="A policy is attached to this user, or written into the user itself.",
            matters="""Permissions given to people one by one are forgotten one by one: they stay
                when the task is done. In groups they are seen, compared and taken away
                together.""",
            console="""IAM > User groups > Create group, with the user's policies; add the user;
                then Users > the user > Permissions > remove what was attached directly.""",
            cli="""
                aws iam list-attached-user-policies --user-name USER
                aws iam list-user-policies --user-name USER
                aws iam attach-group-policy --group-name GROUP --policy-arn POLICY
                aws iam add-user-to-group --group-name GROUP --user-name USER
                aws iam detach-user-policy --user-name USER --policy-arn POLICY""",
            terraform="""
                resource "aws_iam_user_group_membership" "this" {
                  user   = aws_iam_user.this.name
                  groups = [aws_iam_group.auditors.name]
                }""",
            by_hand="""Which group a user belongs in is a question of what people do. Taking the
                policy away without an answer stops somebody's work; a group for every user would
                only hide the finding.""",
            breaks="""Nothing, if the group gives the same before the user's own policy goes. A
                group takes ten managed policies by default.""",
            back="aws iam attach-user-policy attaches the policy to the user again.",
        ),
    ),
)
