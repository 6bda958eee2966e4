"""Where moto strays from AWS on data services: the documented behaviour instead."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

from moto.awslambda.policy import Policy
from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.dynamodb.responses import DynamoHandler
from moto.kinesis.responses import KinesisResponse
from moto.s3.exceptions import S3ClientError
from moto.s3.models import ALL_USERS_GRANTEE, AUTHENTICATED_USERS_GRANTEE, FakeAcl, S3Backend
from moto.s3control.models import s3control_backends
from moto.sqs.exceptions import SQSException
from moto.sqs.models import Queue

from deployments.local.aws.policy import MalformedPolicy, parse_resource_policy


@functools.cache
def install() -> None:
    Queue._set_attributes = _set_attributes(Queue._set_attributes)
    Policy.add_statement = _once(Policy.add_statement)
    Policy.principal_formatter = _principal
    Policy.remove_if_set = _keep_conditions
    Policy.condition_merge = _conditions
    KinesisResponse.list_streams = _list_streams
    DynamoHandler.update_table = _update_table(DynamoHandler.update_table)
    S3Backend.get_bucket_encryption = _always_encrypted(S3Backend.get_bucket_encryption)
    S3Backend.put_bucket_acl = _checked_acl(S3Backend.put_bucket_acl)


def _set_attributes(original: Callable[..., None]) -> Callable[..., None]:
    """moto takes the policy away when anything else is set, and lets a queue have two keys."""

    def set_attributes(self: Queue, attributes: dict[str, Any], now: float | None = None) -> None:
        wanted = dict(attributes)
        if "Policy" not in wanted:
            wanted["Policy"] = self.policy
        elif wanted["Policy"]:
            _check_policy(wanted["Policy"])
        if wanted.get("KmsMasterKeyId"):
            wanted["SqsManagedSseEnabled"] = "false"
        elif str(attributes.get("SqsManagedSseEnabled")).lower() == "true":
            wanted["KmsMasterKeyId"] = None
        original(self, wanted, now)

    return set_attributes


def _check_policy(text: str) -> None:
    try:
        parse_resource_policy(text)
    except MalformedPolicy:
        raise SQSException(
            "InvalidAttributeValue", "Invalid value for the parameter Policy."
        ) from None


def _always_encrypted(original: Callable[..., Any]) -> Callable[..., Any]:
    """Since 2023 every bucket encrypts with S3's own keys where nobody says otherwise."""

    def get(self: S3Backend, bucket_name: str) -> dict[str, Any]:
        default = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}
        found: dict[str, Any] = original(self, bucket_name) or {"Rule": default}
        return found

    return get


def public_access_blocks(bucket: Any) -> list[Any]:
    """The bucket's own block and its account's: what either says counts."""
    account = s3control_backends[bucket.account_id]["aws"].public_access_block
    return [one for one in (bucket.public_access_block, account) if one]


def blocks_public_policies(bucket: Any) -> bool:
    return any(one.block_public_policy for one in public_access_blocks(bucket))


class Forbidden(S3ClientError):
    code = 403


def _checked_acl(original: Callable[..., None]) -> Callable[..., None]:
    """moto takes ACLs that the bucket's own settings forbid."""

    def put(self: S3Backend, bucket_name: str, acl: FakeAcl | None) -> None:
        bucket = self.get_bucket(bucket_name)
        if bucket.ownership_rule == "BucketOwnerEnforced":
            raise S3ClientError("AccessControlListNotSupported", "The bucket does not allow ACLs")
        grants = acl.grants if acl else []
        public = any(
            grantee in (ALL_USERS_GRANTEE, AUTHENTICATED_USERS_GRANTEE)
            for grant in grants
            for grantee in grant.grantees
        )
        if public and any(one.block_public_acls for one in public_access_blocks(bucket)):
            raise Forbidden(
                "AccessDenied",
                "public access control lists are blocked by the BlockPublicAcls setting.",
            )
        original(self, bucket_name, acl)

    return put


def _update_table(original: Callable[..., Any]) -> Callable[..., Any]:
    """moto leaves a table's encryption as it was made."""

    def update(self: DynamoHandler) -> Any:
        wanted = self.body.get("SSESpecification")
        if wanted is not None:
            table = self.dynamodb_backend.get_table(self.body["TableName"])
            if wanted.get("Enabled"):
                default = table._get_default_encryption_key(self.current_account, self.region)
                table.sse_specification = {"KMSMasterKeyId": default, **wanted}
            else:
                table.sse_specification = None
        return original(self)

    return update


# --- a function's policy: AddPermission's parameters become a statement -------------------------

_CONDITIONS = {
    "SourceArn": ("ArnLike", "AWS:SourceArn"),
    "SourceAccount": ("StringEquals", "AWS:SourceAccount"),
    "EventSourceToken": ("StringEquals", "lambda:EventSourceToken"),
    "PrincipalOrgID": ("StringEquals", "aws:PrincipalOrgID"),
    "FunctionUrlAuthType": ("StringEquals", "lambda:FunctionUrlAuthType"),
    "InvokedViaFunctionUrl": ("Bool", "lambda:InvokedViaFunctionUrl"),
}


def _once(original: Callable[..., Any]) -> Callable[..., Any]:
    """moto takes a statement's id twice."""

    def add(self: Policy, raw: str, qualifier: str | None = None) -> Any:
        wanted = json.loads(raw).get("StatementId")
        if any(one.get("Sid") == wanted for one in self.statements):
            raise Taken(
                "ResourceConflictException",
                f"The statement id ({wanted}) provided already exists.",
            )
        return original(self, raw, qualifier)

    return add


class Taken(JsonRESTError):
    code = 409


def _principal(_: Policy, named: str) -> Any:
    if re.fullmatch(r"\d{12}", named):
        return {"AWS": f"arn:aws:iam::{named}:root"}
    if named.startswith("arn:"):
        return {"AWS": named}
    return named if named == "*" else {"Service": named}


def _keep_conditions(_: Policy, statement: dict[str, Any], keys: list[str]) -> None:
    """moto forgets a token of the event source."""
    for key in keys:
        if key not in _CONDITIONS:
            statement.pop(key, None)


def _conditions(_: Policy, statement: dict[str, Any]) -> None:
    """moto lets one condition take another's place, and knows some not at all."""
    found: dict[str, dict[str, Any]] = {}
    for operator, keys in statement.pop("Condition", {}).items():
        found.setdefault(operator, {}).update(keys)
    for parameter, (operator, key) in _CONDITIONS.items():
        given = statement.pop(parameter, None)
        if isinstance(given, dict):  # moto has made a condition of it by now
            given = next(iter(next(iter(given.values())).values()))
        if given is not None:
            given = str(given).lower() if isinstance(given, bool) else given
            found.setdefault(operator, {})[key] = given
    if found:
        statement["Condition"] = found


def _list_streams(self: KinesisResponse) -> ActionResult:
    """moto pages the names but gives no token to go on with, and summaries of all at once."""
    streams = sorted(self.kinesis_backend.list_streams(), key=lambda one: str(one.stream_name))
    after = self._get_param("NextToken") or self._get_param("ExclusiveStartStreamName") or ""
    left = [one for one in streams if one.stream_name > after]
    page = left[: int(self._get_param("Limit") or 100)]
    answer: dict[str, Any] = {
        "StreamNames": [one.stream_name for one in page],
        "StreamSummaries": [one.to_json_summary()["StreamDescriptionSummary"] for one in page],
        "HasMoreStreams": len(left) > len(page),
    }
    if answer["HasMoreStreams"]:
        answer["NextToken"] = page[-1].stream_name
    return ActionResult(answer)
