"""CloudTrail: every write that the emulated AWS answered, told as EventBridge tells it.

The record's format is that of the "CloudTrail record contents" of its user guide, event version
1.11; the envelope's that of "AWS API Call via CloudTrail".
"""

from __future__ import annotations

import functools
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
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
GLOBAL_SERVICES = {"iam", "cloudfront", "organizations", "route53", "sts"}
CLOUDFORMATION = "cloudformation.amazonaws.com"
LONGEST = 100_000  # characters of a record's parameters, and of its answer
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
# Of EC2's, those whose parameters and answers stand whole, under the name of their request.
_WHOLE = {
    *("AssociateIamInstanceProfile", "CreateFlowLogs", "DeleteFlowLogs"),
    *("DisableEbsEncryptionByDefault", "EnableEbsEncryptionByDefault"),
    *("DisableImageBlockPublicAccess", "EnableImageBlockPublicAccess"),
    *("DisableSnapshotBlockPublicAccess", "EnableSnapshotBlockPublicAccess"),
    *("DisassociateIamInstanceProfile", "ModifyInstanceMetadataDefaults"),
    *("ModifyInstanceMetadataOptions", "ModifySecurityGroupRules"),
    "ReplaceIamInstanceProfileAssociation",
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
        by: str = "",
    ) -> None:
        """One write has been answered; ``code`` says why it failed, where it did. ``by`` is the
        service that made it on the caller's behalf, if one did.
        """
        region = LEADING_REGION if call.service in GLOBAL_SERVICES else call.region
        headers = {header.lower(): value for header, value in answer[1]}
        request_id = headers.get("x-amzn-requestid") or str(uuid.uuid4())
        asked = _asked(call, name, uri)
        answered = None if code else _answered(call, name, answer, request_id)
        record: dict[str, Any] = {
            "eventVersion": "1.11",
            "userIdentity": _identity(caller, call, by),
            "eventTime": f"{now:%Y-%m-%dT%H:%M:%SZ}",
            "eventSource": f"{call.service}.amazonaws.com",
            "eventName": event_name(call.service, call.model, name),
            "awsRegion": region,
            "sourceIPAddress": by or call.environ["REMOTE_ADDR"],
            "userAgent": by or _user_agent(call),
            "requestParameters": _short(asked),
            "responseElements": _short(answered),
            "requestID": request_id,
            "eventID": str(uuid.uuid4()),
            "readOnly": False,
            "eventType": "AwsApiCall",
            "managementEvent": True,
            "recipientAccountId": caller.account,
            "eventCategory": "Management",
        }
        if resources := list(_resources(call, asked or {}, answered or {}, caller.account)):
            record["resources"] = resources
        if code:
            side = ("Client." if answer[0] < 500 else "Server.") if call.service == "ec2" else ""
            record |= {"errorCode": f"{side}{code}", "errorMessage": message}
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


def _user_agent(call: Call) -> str:
    agent = call.headers.get("user-agent", "")
    return f"[{agent}]" if call.service == "s3" else agent


def _short(told: dict[str, Any] | None) -> dict[str, Any] | None:
    """What is too long is left out, and that is said."""
    size = len(json.dumps(told))
    if size <= LONGEST:
        return told
    reason = f"Field longer than {LONGEST} characters"
    return {"omitted": True, "originalSize": size, "reasonOmitted": reason}


def _resources(
    call: Call, asked: Mapping[str, Any], answered: Mapping[str, Any], account: str
) -> Iterator[dict[str, str]]:
    """S3 and KMS say beside their parameters which resource it was."""
    if bucket := asked.get("bucketName"):
        yield {"accountId": account, "type": "AWS::S3::Bucket", "ARN": f"arn:aws:s3:::{bucket}"}
    if call.service == "kms":
        key = answered.get("keyMetadata", {}).get("arn") or asked.get("keyId", "")
        if re.fullmatch(r"[\w-]+", key):
            key = f"arn:aws:kms:{call.region}:{account}:key/{key}"
        if ":key/" in key:
            yield {"accountId": account, "type": "AWS::KMS::Key", "ARN": key}


def _identity(caller: Caller, call: Call, by: str) -> dict[str, Any]:
    assert call.authorization is not None
    known: dict[str, Any] = {
        "type": "IAMUser" if caller.kind == "User" else "AssumedRole",
        "principalId": caller.unique_id,
        "arn": caller.arn,
        "accountId": caller.account,
        "accessKeyId": call.authorization.access_key,
    }
    if by:
        known["invokedBy"] = by
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


def _answered(call: Call, name: str, answer: Response, request_id: str) -> dict[str, Any] | None:
    if call.service == "ec2":
        return _of_ec2(_parsed(call, name, answer), name, request_id)
    if call.model == "s3":
        return None
    told = _parsed(call, name, answer)
    if call.service == "rds" and len(told) == 1:  # tells of a database, not of the answer with it
        (only,) = told.values()
        told = only if isinstance(only, dict) else told
    return told or None


def _of_ec2(told: dict[str, Any], name: str, request_id: str) -> dict[str, Any]:
    done = told.pop("return", None if told else True)
    known = {"requestId": request_id, **({} if done is None else {"_return": done}), **told}
    return {f"{name}Response": known} if name in _WHOLE else known


def _parsed(call: Call, name: str, answer: Response) -> dict[str, Any]:
    """What an answer says, as CloudTrail spells it."""
    shape = get_service_model(call.model).operation_model(name).output_shape
    status, headers, body = answer
    if shape is None or not body:
        return {}
    whole = {"status_code": status, "headers": dict(headers), "body": body}
    parsed = create_parser(call.protocol).parse(whole, shape)
    parsed.pop("ResponseMetadata", None)
    return _spelled(shape, parsed, ec2=call.service == "ec2")


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
