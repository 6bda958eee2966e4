"""AssumeRole and GetCallerIdentity, decided across accounts. moto's own would let anyone in."""

from __future__ import annotations

import re
import uuid
import zlib
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from xml.sax.saxutils import escape

from deployments.local.aws import identities
from deployments.local.aws.errors import Refusal, Response
from deployments.local.aws.identities import Caller, Credentials, Identities
from deployments.local.aws.policy import (
    MalformedPolicy,
    Policy,
    Request,
    decide,
    parse_policy,
    parse_trust_policy,
)
from deployments.local.aws.propagation import Trusts

NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
SHORTEST, LONGEST, CHAINED = 900, 43_200, 3_600  # seconds
POLICY_CHARACTERS = 2_048
PACKED_BYTES = 1_024


def get_caller_identity(caller: Caller) -> Response:
    """Always allowed, even with an explicit deny."""
    return _answer(
        "GetCallerIdentity",
        f"<Arn>{escape(caller.arn)}</Arn><UserId>{escape(caller.unique_id)}</UserId>"
        f"<Account>{caller.account}</Account>",
    )


def assume_role(
    caller: Caller,
    form: Mapping[str, str],
    context: Mapping[str, tuple[str, ...]],
    known: Identities,
    trusts: Trusts,
    now: datetime,
    packed_bytes: int = PACKED_BYTES,
) -> Response:
    """Credentials of a role session, or AccessDenied without saying what was wrong.

    ``context`` holds the condition keys of the request; what the parameters add is added here.
    ``packed_bytes`` is how much room there is for session policies once they are packed.
    """
    role_arn, session_name = form.get("RoleArn", ""), form.get("RoleSessionName", "")
    seconds = _checked_duration(form.get("DurationSeconds", "3600"))
    _check("roleSessionName", session_name, r"[\w+=,.@-]{2,64}")
    _check("roleArn", role_arn, r".{20,2048}")
    if "ExternalId" in form:
        _check("externalId", form["ExternalId"], r"[\w+=,.@:/-]{2,1224}", secret=True)
    session_policies, packed = _session_policies(form, packed_bytes)

    role = identities.find_role(role_arn)
    if role is None or not _may_assume(caller, role, trusts.known(role, now), form, context):
        raise _denied(caller, role_arn)
    longest = int(role.max_session_duration or 3600)
    if seconds > longest:
        raise Refusal(
            "ValidationError",
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        )
    if caller.kind == "AssumedRole" and seconds > CHAINED:
        raise Refusal(
            "ValidationError",
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by "
            "role chaining",
        )
    credentials = known.issue(
        role, session_name, session_policies, now, now + timedelta(seconds=seconds)
    )
    return _issued(credentials, packed)


def _denied(caller: Caller, role_arn: str) -> Refusal:
    return Refusal(
        "denied",
        f"User: {caller.arn} is not authorized to perform: sts:AssumeRole on resource: {role_arn}",
    )


def _may_assume(
    caller: Caller,
    role: Any,
    trust_policy: str,
    form: Mapping[str, str],
    context: Mapping[str, tuple[str, ...]],
) -> bool:
    member = identities.organization_member(role.account_id)
    if member and member[1] != "ACTIVE":
        return False
    asked = dict(context)
    asked["sts:rolesessionname"] = (form["RoleSessionName"],)
    if "ExternalId" in form:
        asked["sts:externalid"] = (form["ExternalId"],)
    actions = ["sts:AssumeRole"]
    if any(name.startswith("Tags.") for name in form):
        actions.append("sts:TagSession")
    try:
        trust = parse_trust_policy(trust_policy)
        mine, boundary = identities.identity_policies(caller), identities.boundary(caller)
    except MalformedPolicy:
        return False
    request = Request("", role.arn, asked, caller.names)
    return all(
        decide(
            replace(request, action=action),
            mine,
            session=caller.session_policies,
            boundary=boundary,
            resource_policy=trust,
            must_be_let_in=True,
            same_account=caller.account == role.account_id,
        ).allowed
        for action in actions
    )


# ---------------------------------------------------------------- parameters


def _check(name: str, value: str, pattern: str, *, secret: bool = False) -> None:
    if not re.fullmatch(pattern, value, re.ASCII):
        shown = "" if secret else f" '{value}'"
        raise Refusal(
            "ValidationError",
            f"1 validation error detected: Value{shown} at '{name}' failed to satisfy constraint: "
            f"Member must satisfy regular expression pattern: {pattern}",
        )


def _checked_duration(text: str) -> int:
    if not text.isdecimal() or not SHORTEST <= int(text) <= LONGEST:
        raise Refusal(
            "ValidationError",
            f"1 validation error detected: Value '{text}' at 'durationSeconds' failed to satisfy "
            f"constraint: Member must have value between {SHORTEST} and {LONGEST}",
        )
    return int(text)


def _session_policies(
    form: Mapping[str, str], packed_bytes: int
) -> tuple[list[Policy] | None, int]:
    """The session policies, None where none is given, and their size as a percentage.

    AWS packs policies in a way it does not tell; deflate stands in for it.
    """
    if any(name.startswith("PolicyArns.") for name in form):
        raise Refusal("ValidationError", "Managed session policies are not emulated.")
    text = form.get("Policy")
    if text is None:
        return None, 0
    if not 1 <= len(text) <= POLICY_CHARACTERS:
        raise Refusal(
            "ValidationError",
            "1 validation error detected: Value at 'policy' failed to satisfy constraint: Member "
            f"must have length less than or equal to {POLICY_CHARACTERS}",
        )
    try:
        policies = [parse_policy(text)]
    except MalformedPolicy as problem:
        raise Refusal("MalformedPolicyDocument", str(problem)) from None
    packed = -(-100 * len(zlib.compress(text.encode())) // packed_bytes)
    if packed > 100:
        raise Refusal(
            "PackedPolicyTooLarge",
            f"Packed policy consumes {packed}% of allotted space, please use smaller policy.",
        )
    return policies, packed


# ---------------------------------------------------------------- answers


def _issued(credentials: Credentials, packed: int) -> Response:
    caller = credentials.caller
    size = f"<PackedPolicySize>{packed}</PackedPolicySize>" if packed else ""
    return _answer(
        "AssumeRole",
        f"<Credentials><AccessKeyId>{credentials.access_key}</AccessKeyId>"
        f"<SecretAccessKey>{credentials.secret}</SecretAccessKey>"
        f"<SessionToken>{credentials.token}</SessionToken>"
        f"<Expiration>{credentials.expires:%Y-%m-%dT%H:%M:%SZ}</Expiration></Credentials>"
        f"<AssumedRoleUser><AssumedRoleId>{escape(caller.unique_id)}</AssumedRoleId>"
        f"<Arn>{escape(caller.arn)}</Arn></AssumedRoleUser>{size}",
    )


def _answer(operation: str, result: str) -> Response:
    request_id = str(uuid.uuid4())
    body = (
        f'<{operation}Response xmlns="{NAMESPACE}"><{operation}Result>{result}</{operation}Result>'
        f"<ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata>"
        f"</{operation}Response>"
    )
    headers = [("Content-Type", "text/xml"), ("x-amzn-RequestId", request_id)]
    return 200, headers, body.encode()
