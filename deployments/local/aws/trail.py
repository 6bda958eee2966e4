"""CloudTrail: every write that the emulated AWS answered, told as EventBridge tells it.

The record's format is that of the "CloudTrail record contents" of its user guide, event version
1.11; the envelope's that of "AWS API Call via CloudTrail".
"""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from botocore.model import ListShape, MapShape, Shape, StructureShape
from botocore.parsers import create_parser
from moto.core.parse import PROTOCOL_PARSERS
from moto.core.utils import get_service_model

from deployments.local.aws.calls import Call
from deployments.local.aws.errors import Response
from deployments.local.aws.identities import Caller
from tasks.clouds.events import watched_operations
from tasks.model import Cloud

LEADING_REGION = "us-east-1"  # where services without a region tell of themselves
GLOBAL_SERVICES = {"iam", "cloudfront", "organizations", "sts"}
HIDDEN = "HIDDEN_DUE_TO_SECURITY_REASONS"

_READS = re.compile(
    r"^(BatchGet|Check|Count|Describe|Download|Estimate|Evaluate|Get|Head|List|Lookup|Preview|Query"
    r"|Receive|Scan|Search|Select|Simulate|Test|Validate|View)"
)
# What works on what is in a resource: data events, which nobody has turned on here.
_DATA = {
    "dynamodb": re.compile(r"Item|Transact|ExecuteStatement"),
    "kinesis": re.compile(r"Record|Subscribe"),
    "kms": re.compile(r"^(Encrypt|Decrypt|ReEncrypt|Generate|Sign|Verify)"),
    "lambda": re.compile(r"^Invoke"),
    "s3": re.compile(r"Object|Upload|Copy"),
    "sns": re.compile(r"^Publish"),
    "sqs": re.compile(r"Message"),
}
_SECRET = re.compile(r"password|secret(?!ARN|Id)|privatekey", re.IGNORECASE)
# Of EC2's, those whose parameters stand whole under the name of their request.
_WHOLE = {
    *("AssociateIamInstanceProfile", "CreateFlowLogs", "DeleteFlowLogs"),
    *("DisassociateIamInstanceProfile", "ModifyInstanceMetadataOptions"),
    *("ModifySecurityGroupRules", "ReplaceIamInstanceProfileAssociation"),
}


@functools.cache
def is_write(service: str, model: str, name: str) -> bool:
    """Whether CloudTrail tells of a call as a management event that changes something."""
    if service == "sts" or _READS.match(name):
        return False
    data = _DATA.get(service)
    return not (data and model != "s3control" and data.search(name))


@functools.cache
def _names() -> Mapping[str, frozenset[str]]:
    """CloudTrail's names of what the rule table waits for, by service."""
    names: dict[str, set[str]] = {}
    for operation in watched_operations(Cloud.AWS):
        service, _, name = operation.partition(":")
        names.setdefault(service, set()).add(name)
    return {service: frozenset(some) for service, some in names.items()}


@functools.cache
def event_name(service: str, model: str, name: str) -> str:
    """What CloudTrail calls an operation: some of Lambda's carry the date of their API."""
    if name.endswith("PublicAccessBlock"):
        verb = name.removesuffix("PublicAccessBlock")
        return f"{verb}{'Account' if model == 's3control' else 'Bucket'}PublicAccessBlock"
    dated = re.compile(rf"{re.escape(name)}\d{{8}}(v\d+)?")
    return next((one for one in _names().get(service, ()) if dated.fullmatch(one)), name)


class Trail:
    """Makes the events of writes and hands them to ``publish``."""

    def __init__(self, publish: Callable[[dict[str, Any]], None]) -> None:
        self._publish = publish

    def note(
        self,
        call: Call,
        caller: Caller,
        name: str,
        uri: Mapping[str, str],
        answer: Response,
        now: datetime,
        *,
        code: str = "",
        message: str = "",
    ) -> None:
        """One write has been answered; ``code`` says why it failed, where it did."""
        region = LEADING_REGION if call.service in GLOBAL_SERVICES else call.region
        headers = {header.lower(): value for header, value in answer[1]}
        record: dict[str, Any] = {
            "eventVersion": "1.11",
            "userIdentity": _identity(caller, call),
            "eventTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "eventSource": f"{call.service}.amazonaws.com",
            "eventName": event_name(call.service, call.model, name),
            "awsRegion": region,
            "sourceIPAddress": call.environ["REMOTE_ADDR"],
            "userAgent": call.headers.get("user-agent", ""),
            "requestParameters": _asked(call, name, uri),
            "responseElements": None if code else _answered(call, name, answer),
            "requestID": headers.get("x-amzn-requestid") or str(uuid.uuid4()),
            "eventID": str(uuid.uuid4()),
            "readOnly": False,
            "eventType": "AwsApiCall",
            "managementEvent": True,
            "recipientAccountId": caller.account,
            "eventCategory": "Management",
        }
        if code:
            record |= {"errorCode": code, "errorMessage": message}
        self._publish(
            {
                "version": "0",
                "id": str(uuid.uuid4()),
                "detail-type": "AWS API Call via CloudTrail",
                "source": f"aws.{call.service}",
                "account": caller.account,
                "time": record["eventTime"],
                "region": region,
                "resources": [],
                "detail": record,
            }
        )


def _identity(caller: Caller, call: Call) -> dict[str, Any]:
    assert call.authorization is not None
    known: dict[str, Any] = {
        "type": "IAMUser" if caller.kind == "User" else "AssumedRole",
        "principalId": caller.unique_id,
        "arn": caller.arn,
        "accountId": caller.account,
        "accessKeyId": call.authorization.access_key,
    }
    if caller.kind == "User":
        return {**known, "userName": caller.name}
    issued = f"{caller.issued:%Y-%m-%dT%H:%M:%SZ}" if caller.issued else ""
    return {
        **known,
        "sessionContext": {
            "sessionIssuer": {
                "type": "Role",
                "principalId": caller.unique_id.partition(":")[0],
                "arn": caller.role_arn,
                "accountId": caller.account,
                "userName": caller.name,
            },
            "attributes": {"creationDate": issued, "mfaAuthenticated": "false"},
        },
    }


def _asked(call: Call, name: str, uri: Mapping[str, str]) -> dict[str, Any] | None:
    """The call's parameters as CloudTrail spells them; None where it has none."""
    operation = get_service_model(call.model).operation_model(name)
    shape = operation.input_shape
    if shape is None:
        return None
    request = call.request
    parser = PROTOCOL_PARSERS[call.protocol](operation)
    said = parser.parse(
        {
            "method": request.method,
            "values": request.values,
            "headers": request.headers,
            "body": request.data,
            "url_path": request.path,
            "url_params": dict(uri),
        }
    )
    if call.model == "s3":
        return _of_s3(said, call)
    if call.service == "ec2" and name in _WHOLE:
        return {f"{name}Request": _plain(said)}
    told = _spelled(shape, said, ec2=call.service == "ec2")
    if call.service == "ec2" and "InstanceIds" in said:
        told["instancesSet"] = {"items": [{"instanceId": one} for one in said["InstanceIds"]]}
    return told or None


def _of_s3(said: Mapping[str, Any], call: Call) -> dict[str, Any]:
    """The bucket by its name, what was written whole, and the host."""
    rest = {key: _plain(value) for key, value in said.items() if key != "Bucket"}
    bucket = {"bucketName": said["Bucket"]} if "Bucket" in said else {}
    return {**bucket, **rest, "Host": call.headers.get("host", "")}


def _answered(call: Call, name: str, answer: Response) -> dict[str, Any] | None:
    shape = get_service_model(call.model).operation_model(name).output_shape
    status, headers, body = answer
    if shape is None or call.model == "s3" or not body:
        return None
    whole = {"status_code": status, "headers": dict(headers), "body": body}
    parsed = create_parser(call.protocol).parse(whole, shape)
    parsed.pop("ResponseMetadata", None)
    return _spelled(shape, parsed, ec2=call.service == "ec2") or None


def _spelled(shape: Shape, value: Any, *, ec2: bool) -> Any:
    """A value in CloudTrail's spelling: names begin in lower case. EC2's go by their XML, in which
    lists have items.
    """
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        told = {}
        for name, part in value.items():
            member = shape.members.get(name)
            if member is None or part is None:
                continue
            own = member.serialization.get("name", name) if ec2 else name
            spelled = own[:1].lower() + own[1:]
            hidden = _SECRET.search(name) and isinstance(part, str)
            told[spelled] = HIDDEN if hidden else _spelled(member, part, ec2=ec2)
        return told
    if isinstance(shape, ListShape) and isinstance(value, list):
        items = [_spelled(shape.member, one, ec2=ec2) for one in value]
        return {"items": items} if ec2 else items
    if isinstance(shape, MapShape) and isinstance(value, Mapping):
        return {
            str(key): HIDDEN if _SECRET.search(str(key)) else _spelled(shape.value, one, ec2=ec2)
            for key, one in value.items()
        }
    return _plain(value)


def _plain(value: Any) -> Any:
    """A value in JSON's types; what is secret is not told."""
    if isinstance(value, Mapping):
        return {
            str(key): HIDDEN if _SECRET.search(str(key)) and isinstance(one, str) else _plain(one)
            for key, one in value.items()
        }
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, datetime):
        return f"{value:%b %d, %Y %I:%M:%S %p}"
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if value is None or isinstance(value, str | int | float | bool):
        return value
    read = getattr(value, "read", None)
    return _plain(read()) if read else str(value)
