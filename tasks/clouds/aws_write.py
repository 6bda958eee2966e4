"""Writing to AWS: a session of the remediator for one fix of one resource, through boto3."""

from __future__ import annotations

import functools
import logging
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import boto3
from botocore import xform_name
from botocore.config import Config as ClientConfig
from botocore.credentials import Credentials
from pydantic import SecretStr

from tasks.calls import CallMade, note
from tasks.clouds.authorization import LEADING_REGIONS
from tasks.clouds.aws_credentials import environment, keys_found
from tasks.clouds.aws_request import AwsCredentials, plain_address
from tasks.clouds.noting import ask_aws
from tasks.clouds.propagation import NOT_OPENED
from tasks.clouds.sdk_errors import (
    PartlyWritten,
    UnsettledWrite,
    aws_errors,
    hiding,
    is_throttling,
)
from tasks.clouds.session_policy import (
    permission_of,
    policy_text,
    session_policy,
    sessions_needed,
)
from tasks.errors import AccessRefused, CloudError, Conflict, GateRefused
from tasks.inventory import AwsSource, HubCredentials
from tasks.model import Call, Resource, Step

SESSION_SECONDS = 900  # the shortest that AWS gives
SESSION_NAME = "suture-remediation"

# An undo that finds things as it would make them has nothing to do.
_ALREADY_SO = {
    "InvalidPermission.Duplicate",
    "InvalidPermission.NotFound",
    "UnknownIpPermissions",
    "NoSuchEntity",
}
_ALREADY_SO_OF = {
    "AddPermission": {"ResourceConflictException"},  # Lambda: the statement stands again
    "UpdateClusterConfig": {"InvalidParameterException"},  # EKS: "No changes needed"
    "ScheduleKeyDeletion": {"KMSInvalidStateException"},  # KMS: it is pending deletion
    "DeleteAnalyzer": {"ResourceNotFoundException"},
    "DeleteDetector": {"BadRequestException"},  # GuardDuty: "not owned by the current account"
    "DisableSecurityHub": {"InvalidAccessException", "ResourceNotFoundException"},
}

# AWS compresses a session policy in a way of its own, and tells only then that it is too large.
_TOO_LARGE = "PackedPolicyTooLarge"

_creating = threading.Lock()  # making clients is not thread-safe in boto3; using them is


class AwsSession:
    """Credentials that can do one fix to one resource, for 15 minutes.

    ``keys`` by the permission that they hold: where one policy cannot hold all, there are several.
    ``go_on`` is asked before a throttled call is made again, unless that is an undo, and raises to
    stop it.
    """

    def __init__(
        self,
        source: AwsSource,
        region: str,
        keys: Mapping[str, AwsCredentials],
        go_on: Callable[[], None] = lambda: None,
        etag: str = "",
    ) -> None:
        """``etag`` is the resource's: what ``made`` values are before any call."""
        self._source = source
        self._go_on = go_on
        self._undoing = False
        self._tries, self._throttled = 0, True  # of the call that is being made: all so far
        self._etag = etag
        self._said: dict[str, Any] = {}  # by the answers so far
        self._region = leading_region(source) if region == "global" else region
        self._keys = keys
        self._client = _writing_client

    def apply(self, step: Step) -> None:
        """Make the step's call. Raises CloudError; Conflict when the resource is not as planned."""
        self._write(step.call)

    def undo(self, step: Step) -> None:
        """Make the step's undo calls, in order. What is so already is left alone."""
        self._undoing = True
        for call in step.undo:
            try:
                self._write(call, undo=True)
            except CloudError as error:
                if error.code not in _ALREADY_SO | _ALREADY_SO_OF.get(call.operation, set()):
                    raise

    def close(self) -> None:
        """Forget the keys. The session itself ends by its time."""
        self._keys = {}

    def _write(self, call: Call, *, undo: bool = False) -> None:
        keys = self._keys.get(permission_of(call))
        if keys is None:
            raise AccessRefused("this session is not for that", operation=call.operation)
        client = self._client(self._source, call.service, self._region)
        operation = getattr(client, xform_name(call.operation))
        self._tries, self._throttled = 0, True
        params = _with_what_was_made(call, self._said, self._etag)
        made = CallMade(
            operation=f"{call.service}:{call.operation}", target=_target(params), undo=undo
        )
        calling = _calling.set(
            _Calling(self, Credentials(keys.access_key, keys.secret_key, keys.token))
        )
        try:
            with aws_errors(call.operation):
                answer = ask_aws(operation, made, **params)
        finally:
            _calling.reset(calling)
        self._said |= answer
        _check_all_revoked(call, answer)

    def answered(self, code: str) -> None:
        """After every try of the SDK's. What was only throttled is known not to be made."""
        self._throttled = self._throttled and is_throttling(code)

    def sending(self) -> None:
        """Before every try of the SDK's: it has waited for seconds since the last one."""
        self._tries += 1
        if self._tries > 1 and self._throttled and not self._undoing:
            self._go_on()


@dataclass(frozen=True, slots=True)
class _Calling:
    """Whose call the client is making in this thread."""

    session: AwsSession
    keys: Credentials


_calling: ContextVar[_Calling] = ContextVar("calling")


@functools.lru_cache(maxsize=32)
def _writing_client(source: AwsSource, service: str, region: str) -> Any:
    """The client of all sessions: making one takes up to 16 ms. Each call brings its own keys."""
    client = aws_client(source, service, region, _NOBODY)
    client.meta.events.register("before-parameter-build", _sign_for_caller)
    client.meta.events.register("needs-retry", _answered)
    client.meta.events.register("request-created", _sending)
    return client


_NOBODY = AwsCredentials("nobody", "nothing")  # what the client itself has


def _sign_for_caller(context: dict[str, Any], **_: Any) -> None:
    context["signing"] = {**context.get("signing", {}), "request_credentials": _calling.get().keys}


def _answered(response: tuple[Any, Mapping[str, Any]] | None, **_: Any) -> None:
    code = response[1].get("Error", {}).get("Code", "") if response else ""
    _calling.get().session.answered(code)


def _sending(**_: Any) -> None:
    _calling.get().session.sending()


_MADE = re.compile(r"\{made:(\w+)\}")


def _with_what_was_made(call: Call, answered: Mapping[str, Any], etag: str) -> dict[str, Any]:
    """A call's parameters, with what earlier calls made. Raises Conflict where nothing was."""
    params = dict(call.params)
    for name, value in params.items():
        if isinstance(value, str) and (match := _MADE.fullmatch(value)):
            params[name] = answered.get(match[1]) or etag
            if not params[name]:
                raise Conflict(f"there is no {match[1]} any more", operation=call.operation)
    return params


_NAMES = re.compile(r"(^Bucket|^name|^WorkGroup|Arn|ARN|Id|Name|Identifier|Url)$")
_OWN_ACCOUNT = "-"  # as Glacier calls it


def _target(params: Mapping[str, Any]) -> str:
    """What a call names, for its record; the others are about the whole account or region.

    Planners name the resource first: the first parameter that is a name is the resource's.
    """
    names = (value for name, value in params.items() if _NAMES.search(name))
    return next((one for one in names if isinstance(one, str) and one != _OWN_ACCOUNT), "")


def _check_all_revoked(call: Call, answer: Mapping[str, Any]) -> None:
    """EC2 answers yes to a revocation of what is not there, and lists it."""
    unknown = answer.get("UnknownIpPermissions")
    if not unknown:
        return
    gone = "what was to be taken away is gone already"
    kind: type[CloudError] = Conflict
    if answer.get("RevokedSecurityGroupRules"):
        kind, gone = PartlyWritten, "some of what was to be taken away was gone, the rest is now"
    elif answer["ResponseMetadata"].get("RetryAttempts"):
        kind = UnsettledWrite  # our own first attempt may have taken it away
    raise kind(gone, code="UnknownIpPermissions", operation=call.operation)


def open_aws(
    source: AwsSource,
    account: str,
    resource: Resource,
    actions: Sequence[str],
    code: SecretStr,
    go_on: Callable[[], None] = lambda: None,
) -> AwsSession:
    """Assume the remediator's role with the code, for these actions on this resource.

    ``go_on`` is asked before a write that was throttled is made again. Mostly once; under several
    session policies where one would be too long. Raises GateRefused when the role does not let us
    in, CloudError when STS cannot be asked.
    """
    region = leading_region(source) if resource.region == "global" else resource.region
    parts = sessions_needed(resource, actions)
    sts = _sts(source, region, hub_keys(source.credentials))
    role = source.role_arn(account, source.remediator_role)
    external_id = SecretStr(f"{source.external_id}:{code.get_secret_value()}")
    keys: dict[str, AwsCredentials] = {}
    with hiding(external_id.get_secret_value(), code.get_secret_value()):
        while parts:
            part = parts.pop(0)
            try:
                assumed = _assume(sts, role, external_id, session_policy(resource, part))
            except CloudError as error:
                if error.code != _TOO_LARGE or len(part) == 1:
                    raise
                middle = len(part) // 2
                parts[:0] = [part[:middle], part[middle:]]
            else:
                keys |= dict.fromkeys(part, assumed)
    return AwsSession(source, region, keys, go_on, resource.etag)


def _assume(
    sts: Any, role: str, external_id: SecretStr, policy: Mapping[str, Any]
) -> AwsCredentials:
    try:
        with aws_errors("AssumeRole"):
            answer = ask_aws(
                sts.assume_role,
                CallMade(operation="sts:AssumeRole", target=role),
                RoleArn=role,
                RoleSessionName=SESSION_NAME,
                ExternalId=external_id.get_secret_value(),
                DurationSeconds=SESSION_SECONDS,
                Policy=policy_text(policy),
            )
    except AccessRefused as refusal:
        if refusal.code != "AccessDenied":
            raise  # Suture's own keys are at fault, not the code
        raise GateRefused(NOT_OPENED) from None
    note(
        CallMade(
            operation="session",
            target=role,
            identity=answer["AssumedRoleUser"]["Arn"],
            until=answer["Credentials"]["Expiration"],
        )
    )
    return credentials_of(answer)


def credentials_of(assumed: Mapping[str, Any]) -> AwsCredentials:
    """The credentials in an answer of AssumeRole."""
    keys = assumed["Credentials"]
    return AwsCredentials(
        access_key=keys["AccessKeyId"],
        secret_key=keys["SecretAccessKey"],
        token=keys["SessionToken"],
        expires=keys["Expiration"].timestamp(),
    )


def hub_keys(wanted: HubCredentials | None) -> AwsCredentials:
    """Suture's own keys, from where the inventory says. Raises BadInput or AccessRefused."""
    if wanted is not None and wanted.access_key_id_env:
        return AwsCredentials(
            environment(wanted.access_key_id_env), environment(wanted.secret_access_key_env)
        )
    return keys_from_chain(wanted.profile if wanted is not None else "")


def keys_from_chain(profile: str = "") -> AwsCredentials:
    """Keys from the SDK's own chain: variables, profiles, SSO, container and instance roles."""
    return keys_found(lambda: boto3.Session(profile_name=profile or None).get_credentials())


def leading_region(source: AwsSource) -> str:
    """Where the partition's services without a region, such as IAM, are asked."""
    return LEADING_REGIONS.get(source.partition, "us-east-1")


def aws_client(source: AwsSource, service: str, region: str, keys: AwsCredentials) -> Any:
    """A boto3 client with keys of its own, at the source's endpoint."""
    config = ClientConfig(
        connect_timeout=10,
        read_timeout=30,
        retries={"mode": "standard", "total_max_attempts": 4},
        s3={"addressing_style": "path"} if source.endpoint else None,
    )
    with _creating:
        client: Any = _sdk().client(  # type: ignore[call-overload]
            service,
            region_name=region,
            endpoint_url=source.endpoint or None,
            verify=source.ca_file or None,
            aws_access_key_id=keys.access_key,
            aws_secret_access_key=keys.secret_key,
            aws_session_token=keys.token,
            config=config,
        )
    if source.endpoint:
        client.meta.events.register("before-call", _ask_plainly)
    return client


@functools.lru_cache(maxsize=8)
def _sts(source: AwsSource, region: str, keys: AwsCredentials) -> Any:
    """STS as Suture itself asks it: the same client for every opening, and for all threads."""
    return aws_client(source, "sts", region, keys)


def _ask_plainly(params: dict[str, Any], **_: Any) -> None:
    """Some services' names stand before the host's, which an IP address does not bear."""
    params["url"] = plain_address(params["url"])


@functools.cache
def _sdk() -> boto3.Session:
    """One session for the process: it keeps the service models, which are slow to load.

    Its debug log quotes whole requests, codes and all, so that is off wherever writes happen.
    """
    logging.getLogger("botocore").setLevel(logging.INFO)
    return boto3.Session()


OFTEN = ("sts", "ec2", "s3", "iam")  # the services that most fixes write to


def prepare_aws(source: AwsSource) -> None:
    """Read the models of the services that are written to most: 0.1 to 0.5 s each."""
    for service in OFTEN:
        aws_client(source, service, source.regions[0], AwsCredentials("none", "none")).close()
