"""Who is calling: access keys, role sessions, and the policies that bound them.

Users, roles and their policies live in moto's IAM, so that an ordinary IAM call changes them;
sessions live here, because moto's own are good for anything.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from moto.iam.models import iam_backends
from moto.organizations.models import organizations_backends

from deployments.local.aws.policy import MalformedPolicy, Policy, parse_policy
from deployments.local.issued import note


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated principal: a user, or a session of a role."""

    account: str
    kind: str  # "User" or "AssumedRole"
    name: str  # of the user or the role
    arn: str  # of the user or the session
    unique_id: str  # AIDA… or AROA…:session
    role_arn: str = ""
    session_policies: Sequence[Policy] | None = None
    issued: datetime | None = None

    @property
    def principal_arn(self) -> str:
        """What aws:PrincipalArn says: the role's ARN for its sessions."""
        return self.role_arn or self.arn

    @property
    def names(self) -> frozenset[str]:
        """The names under which a trust or bucket policy may know this caller."""
        return frozenset({self.arn, self.principal_arn, f"arn:aws:iam::{self.account}:root"} - {""})


@dataclass(frozen=True, slots=True)
class Credentials:
    access_key: str
    secret: str = field(repr=False)
    token: str = field(repr=False)
    expires: datetime | None
    caller: Caller


class Identities:
    """Finds the credentials behind an access key id and issues those of role sessions."""

    def __init__(self, accounts: frozenset[str]) -> None:
        self._accounts = accounts
        self._sessions: dict[str, Credentials] = {}
        self._home: dict[str, str] = {}  # access key id -> account

    def find(self, access_key: str) -> Credentials | None:
        return self._sessions.get(access_key) or self._user_key(access_key)

    def _user_key(self, access_key: str) -> Credentials | None:
        account = self._home.get(access_key) or next(
            (one for one in self._accounts if access_key in iam_backends[one]["aws"].access_keys),
            None,
        )
        if account is None:
            return None
        iam = iam_backends[account]["aws"]
        key = iam.access_keys.get(access_key)
        if key is None or key.status != "Active" or key.user_name not in iam.users:
            return None
        self._home[access_key] = account
        user = iam.users[key.user_name]
        caller = Caller(account, "User", user.name, user.arn, user.id)
        return Credentials(access_key, key.secret_access_key, "", None, caller)

    def issue(
        self,
        role: Any,
        session_name: str,
        policies: Sequence[Policy] | None,
        now: datetime,
        expires: datetime,
    ) -> Credentials:
        """Fresh credentials for a session of ``role``, from the system's randomness."""
        caller = Caller(
            account=role.account_id,
            kind="AssumedRole",
            name=role.name,
            arn=f"arn:aws:sts::{role.account_id}:assumed-role/{role.name}/{session_name}",
            unique_id=f"{role.id}:{session_name}",
            role_arn=role.arn,
            session_policies=policies,
            issued=now,
        )
        credentials = Credentials(
            access_key="ASIA" + base64.b32encode(secrets.token_bytes(10)).decode(),
            secret=base64.b64encode(secrets.token_bytes(30)).decode(),
            token=base64.b64encode(secrets.token_bytes(240)).decode(),
            expires=expires,
            caller=caller,
        )
        self._sessions[credentials.access_key] = credentials
        note("secret access key", credentials.secret)
        note("session token", credentials.token)
        return credentials


def find_role(arn: str) -> Any | None:
    """moto's role of that ARN, or None. Never makes an account that is not there."""
    parts = arn.split(":", 5)
    if len(parts) != 6 or not parts[5].startswith("role/") or parts[4] not in iam_backends:
        return None
    roles = list(iam_backends[parts[4]]["aws"].get_roles())
    return next((role for role in roles if role.arn == arn), None)


def _entity(caller: Caller) -> Any | None:
    iam = iam_backends[caller.account]["aws"]
    if caller.kind == "User":
        return iam.users.get(caller.name)
    role = find_role(caller.role_arn)
    # A role made anew under the old name is another role: old sessions have no part in it.
    return role if role and caller.unique_id.startswith(f"{role.id}:") else None


def _text(managed: Any) -> str:
    """The default version of a managed policy."""
    return next(version.document for version in managed.versions if version.is_default)


def _documents(caller: Caller, entity: Any) -> Iterator[str]:
    yield from entity.policies.values()
    for managed in entity.managed_policies.values():
        yield _text(managed)
    if caller.kind == "User":
        for group in iam_backends[caller.account]["aws"].groups.values():
            if entity in group.users:
                yield from group.policies.values()
                for managed in group.managed_policies.values():
                    yield _text(managed)


def identity_policies(caller: Caller) -> list[Policy]:
    """Inline and attached policies as they stand now; a deleted principal has none."""
    entity = _entity(caller)
    return [parse_policy(text) for text in _documents(caller, entity)] if entity else []


def boundary(caller: Caller) -> Policy | None:
    """The permissions boundary, if one is set. One that cannot be read allows nothing."""
    arn = getattr(_entity(caller), "permissions_boundary_arn", None)
    if not arn:
        return None
    managed = iam_backends[caller.account]["aws"].managed_policies.get(arn)
    try:
        return parse_policy(_text(managed)) if managed else ()
    except MalformedPolicy:
        return ()


def organization_member(account: str) -> tuple[str, str] | None:
    """(organization id, status) of an account, or None outside any organization."""
    management = organizations_backends.master_accounts.get(account, (account, "aws"))[0]
    if management not in organizations_backends:
        return None
    organization = organizations_backends[management]["aws"]
    for member in organization.accounts:
        if member.id == account:
            return organization.org.id, member.status
    return None
