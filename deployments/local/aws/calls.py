"""What a request asks for: service, operation, and the IAM actions and resources it needs."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from threading import Lock
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlencode

from botocore.exceptions import UnknownServiceError
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from moto.core.request import Request as MotoRequest
from moto.core.routing import get_service_router
from moto.core.utils import get_service_model
from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.s3.models import s3_backends
from moto.secretsmanager.models import secretsmanager_backends
from werkzeug.exceptions import HTTPException

from deployments.local.aws.errors import Refusal, Response
from deployments.local.aws.resources import parameters, resource_of
from deployments.local.aws.sigv4 import Authorization, parse_authorization
from tasks.clouds.iam_actions import iam_action

Environ = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One request, parsed as far as the gate needs it. Headers are keyed in lower case."""

    environ: Environ
    authorization: Authorization | None
    headers: Mapping[str, str]
    body: bytes
    service: str  # signing name, which is IAM's prefix; "s3" where nobody signed
    model: str  # botocore's name of the API: some share a signing name
    protocol: str  # botocore's name
    namespace: str  # of XML answers

    @property
    def method(self) -> str:
        return self.environ["REQUEST_METHOD"]

    @property
    def raw_path(self) -> str:
        return self.environ["RAW_URI"].partition("?")[0]

    @property
    def region(self) -> str:
        return self.authorization.region if self.authorization else "us-east-1"

    @functools.cached_property
    def payload_hash(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    def form(self) -> Mapping[str, str]:
        """The parameters of the EC2 and query protocols."""
        return self._form

    @functools.cached_property
    def _form(self) -> Mapping[str, str]:
        text = self.body.decode("utf-8", "replace") or self.environ["QUERY_STRING"]
        return MappingProxyType(dict(parse_qsl(text, keep_blank_values=True)))

    @functools.cached_property
    def request(self) -> MotoRequest:
        """The request as moto reads it, of no account: to see what it asks for."""
        return MotoRequest(self.moto_environ("000000000000"))

    def moto_environ(self, account: str) -> Environ:
        """What moto sees: the account is ours to say, the body fresh, the token stays here."""
        hidden = {"HTTP_X_AMZ_SECURITY_TOKEN", "HTTP_X_MOTO_ACCOUNT_ID", "HTTP_USER_AGENT"}
        environ = {name: value for name, value in self.environ.items() if name not in hidden}
        environ["HTTP_X_MOTO_ACCOUNT_ID"] = account
        environ["wsgi.input"] = io.BytesIO(self.body)
        return environ


def read_call(environ: Environ) -> Call:
    headers = {
        name[5:].replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    headers["content-type"] = environ.get("CONTENT_TYPE", "")
    headers["content-length"] = environ.get("CONTENT_LENGTH", "")
    authorization = parse_authorization(headers.get("authorization", ""))
    service = authorization.service if authorization else _guessed_service(headers)
    body = environ["wsgi.input"].read()
    model = _model(service, environ.get("PATH_INFO", ""), body)
    _read_model(model)
    protocol, namespace = _protocol(model)
    if service == "sqs" and "x-www-form-urlencoded" in headers["content-type"]:
        protocol, namespace = "query", _SQS_NAMESPACE  # what it spoke before JSON
    return Call(environ, authorization, headers, body, service, model, protocol, namespace)


_SQS_NAMESPACE = "http://queue.amazonaws.com/doc/2012-11-05/"
_MODELS = {"access-analyzer": "accessanalyzer", "elasticfilesystem": "efs"}


def _model(service: str, path: str, body: bytes) -> str:
    """Which API of those that share a signing name is asked."""
    if service == "s3" and path.startswith("/v20180820/"):
        return "s3control"
    if service == "es" and path.startswith("/2021-01-01/"):
        return "opensearch"
    if service == "elasticloadbalancing":
        return "elb" if b"Version=2012-06-01" in body else "elbv2"
    return _MODELS.get(service, service)


def _guessed_service(headers: Mapping[str, str]) -> str:
    return "sts" if "x-www-form-urlencoded" in headers["content-type"] else "s3"


@functools.cache
def _protocol(service: str) -> tuple[str, str]:
    try:
        metadata = get_service_model(service).metadata
    except UnknownServiceError:  # a signing name of its own, mostly of newer REST services
        return "rest-json", ""
    return metadata["protocol"], metadata.get("xmlNamespace", "")


@functools.cache
def known_regions() -> frozenset[str]:
    import boto3  # here: reading the endpoints takes a while

    return frozenset(boto3.Session().get_available_regions("ec2"))


def read_models(services: Iterable[str]) -> None:
    """Read what the first call to each service would have to.

    A cache does not keep a hundred connections, all at once and all first, from reading the same
    model a hundred times: at 0.2 s each under one interpreter lock, every client runs out of time.
    """
    for service in services:
        _read_model(service)
    known_regions()


_read: set[str] = set()
_reading = Lock()


def _read_model(service: str) -> None:
    """Once, however many ask for it at once: the others wait instead of reading it, too."""
    if service in _read:
        return
    with _reading, suppress(UnknownServiceError, LookupError, ValueError):
        if service not in _read:
            _protocol(service)
            get_service_router(service)
    _read.add(service)


def timestamp(call: Call) -> datetime | None:
    said = call.headers.get("x-amz-date", "")
    if not re.fullmatch(r"\d{8}T\d{6}Z", said, re.ASCII):
        return None
    try:
        return datetime.fromisoformat(said)
    except ValueError:
        return None


def operation(call: Call) -> tuple[str, Mapping[str, str]]:
    """The API's own operation name and the parameters in the path. Refuses unknown ones."""
    try:
        router = get_service_router(call.model)
        model, uri = router.match(call.request)
    except (HTTPException, UnknownServiceError, LookupError, ValueError):
        raise Refusal("unknown action") from None
    return model.name, uri


# ---------------------------------------------------------------- IAM calls on a caller's behalf


def iam_call(call: Call, name: str, params: Mapping[str, Any]) -> Call:
    """An IAM call as the caller of ``call`` could have sent it."""
    assert call.authorization is not None
    model = get_service_model("iam")
    serializer = create_serializer("query", include_validation=False)
    made = serializer.serialize_to_request(dict(params), model.operation_model(name))
    body = urlencode(made["body"]).encode()
    authorization = replace(call.authorization, service="iam")
    signed = call.environ["HTTP_AUTHORIZATION"]
    environ = {
        **call.environ,
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "RAW_URI": "/",
        "QUERY_STRING": "",
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        # moto goes by the scope to find the service.
        "HTTP_AUTHORIZATION": signed.replace(call.authorization.scope, authorization.scope),
    }
    protocol, namespace = _protocol("iam")
    return Call(environ, authorization, call.headers, body, "iam", "iam", protocol, namespace)


def iam_answer(name: str, answer: Response) -> Mapping[str, Any]:
    """What IAM answered. Raises Refusal where it is an error."""
    status, headers, body = answer
    shape = get_service_model("iam").operation_model(name).output_shape
    whole = {"status_code": status, "headers": dict(headers), "body": body}
    parsed = create_parser("query").parse(whole, shape)
    if status >= 400:
        raise Refusal(parsed["Error"]["Code"], parsed["Error"]["Message"], status=status)
    return parsed


# ---------------------------------------------------------------- IAM actions and resources


@dataclass(frozen=True, slots=True)
class Need:
    """One permission a call needs. ``context`` holds condition keys of the resource."""

    action: str
    resource: str
    context: Mapping[str, tuple[str, ...]]


def needs(call: Call, name: str, uri: Mapping[str, str], account: str) -> list[Need]:
    """What must be allowed for the call, after the Service Authorization Reference."""
    if call.service == "ec2":
        return list(_ec2(call, name, account))
    if call.model == "s3":
        return [_s3(name, uri)]
    if call.model == "s3control":
        return [Need(iam_action("s3control", name), "*", {})]
    resource = "*"
    if call.service == "iam":
        resource = _iam_resource(call.form(), account)
    elif call.service == "cloudformation":
        resource = _stack_resource(call, account)
    elif call.service == "secretsmanager":
        resource = _secret(call, account)
    else:
        params = parameters(call.protocol, uri, call.form(), call.body)
        resource = resource_of(call.service, params, call.region, account)
    # A batch needs what each of its entries would.
    action = name.removesuffix("Batch") if call.service == "sqs" else name
    return [Need(f"{call.service}:{action}", resource, {})]


_ON_SECURITY_GROUP = {
    "AuthorizeSecurityGroupEgress",
    "AuthorizeSecurityGroupIngress",
    "DeleteSecurityGroup",
    "ModifySecurityGroupRules",
    "RevokeSecurityGroupEgress",
    "RevokeSecurityGroupIngress",
    "UpdateSecurityGroupRuleDescriptionsEgress",
    "UpdateSecurityGroupRuleDescriptionsIngress",
}

_TAGGED = {"sg": "security-group", "sgr": "security-group-rule", "vpc": "vpc", "subnet": "subnet"}


def _ec2(call: Call, name: str, account: str) -> Iterator[Need]:
    form = call.form()
    here = f"arn:aws:ec2:{call.region}:{account}:"
    if name in _ON_SECURITY_GROUP:
        yield _on_group(name, form, here, account, call.region)
        if any(parameter.startswith("TagSpecification") for parameter in form):
            yield Need(f"ec2:{name}", f"{here}security-group-rule/*", {})
            yield Need("ec2:CreateTags", f"{here}security-group-rule/*", {})
        if name == "ModifySecurityGroupRules":
            for parameter, value in form.items():
                if parameter.endswith(".SecurityGroupRuleId"):
                    yield Need(f"ec2:{name}", f"{here}security-group-rule/{value}", {})
                elif parameter.endswith(".PrefixListId"):
                    yield Need(f"ec2:{name}", f"{here}prefix-list/{value}", {})
    elif name == "CreateSecurityGroup":
        yield Need("ec2:CreateSecurityGroup", f"{here}security-group/*", {})
        if "VpcId" in form:
            yield Need("ec2:CreateSecurityGroup", f"{here}vpc/{form['VpcId']}", {})
    elif name in {"CreateTags", "DeleteTags"}:
        for parameter, value in form.items():
            if parameter.startswith("ResourceId."):
                kind = _TAGGED.get(value.partition("-")[0], "*")
                yield Need(f"ec2:{name}", f"{here}{kind}/{value}", {})
    else:
        yield Need(f"ec2:{name}", resource_of("ec2", form, call.region, account), {})


def _on_group(name: str, form: Mapping[str, str], here: str, account: str, region: str) -> Need:
    wanted = form.get("GroupId") or form.get("GroupName") or ""
    backend = ec2_backends[account][region]
    group = backend.get_security_group_by_name_or_id(wanted)
    if group is None:
        return Need(f"ec2:{name}", f"{here}security-group/{wanted or '*'}", {})
    context = {"ec2:vpc": (f"{here}vpc/{group.vpc_id}",), "ec2:securitygroupid": (group.id,)}
    for tag in group.get_tags():
        context[f"aws:resourcetag/{tag['key'].lower()}"] = (tag["value"],)
        context[f"ec2:resourcetag/{tag['key'].lower()}"] = (tag["value"],)
    return Need(f"ec2:{name}", f"{here}security-group/{group.id}", context)


# Where S3's action is not named like the operation.
_S3_ACTIONS = {
    "CompleteMultipartUpload": "PutObject",
    "CopyObject": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteBucketEncryption": "PutEncryptionConfiguration",
    "DeleteBucketLifecycle": "PutLifecycleConfiguration",
    "DeleteBucketTagging": "PutBucketTagging",
    "DeleteObjects": "DeleteObject",
    "DeletePublicAccessBlock": "PutBucketPublicAccessBlock",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetBucketNotificationConfiguration": "GetBucketNotification",
    "GetBucketReplication": "GetReplicationConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListBuckets": "ListAllMyBuckets",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjects": "ListBucket",
    "ListObjectsV2": "ListBucket",
    "PutBucketEncryption": "PutEncryptionConfiguration",
    "PutBucketLifecycleConfiguration": "PutLifecycleConfiguration",
    "PutBucketNotificationConfiguration": "PutBucketNotification",
    "PutBucketReplication": "PutReplicationConfiguration",
    "PutPublicAccessBlock": "PutBucketPublicAccessBlock",
    "UploadPart": "PutObject",
}


def _s3(name: str, uri: Mapping[str, str]) -> Need:
    resource = "*"
    if "Bucket" in uri:
        resource = f"arn:aws:s3:::{uri['Bucket']}"
        if "Key" in uri:
            resource += f"/{uri['Key']}"
        elif name == "DeleteObjects":
            resource += "/*"
    bucket = bucket_of(uri)
    context = {"s3:resourceaccount": (bucket.account_id,)} if bucket is not None else {}
    return Need(f"s3:{_S3_ACTIONS.get(name, name)}", resource, context)


def _secret(call: Call, account: str) -> str:
    """The secret that a call names, else "*"."""
    try:
        named = json.loads(call.body)
    except ValueError:
        return "*"
    wanted = named.get("SecretId") or named.get("Name")
    secrets = secretsmanager_backends[account][call.region].secrets
    known = secrets.get(wanted) if wanted else None
    here = f"arn:aws:secretsmanager:{call.region}:{account}"
    return known.arn if known else f"{here}:secret:{wanted or '*'}"


def bucket_of(uri: Mapping[str, str]) -> Any | None:
    """moto's bucket named in the path, whosever it is; None where there is none."""
    name = uri.get("Bucket", "")
    if name not in s3_backends.bucket_accounts:
        return None
    partition, owner = s3_backends.bucket_accounts[name]
    return s3_backends[owner][partition].buckets.get(name)


def _stack_resource(call: Call, account: str) -> str:
    named = call.form().get("StackName", "")
    if not named or named.startswith("arn:"):
        return named or "*"
    return f"arn:aws:cloudformation:{call.region}:{account}:stack/{named}/*"


def _iam_resource(form: Mapping[str, str], account: str) -> str:
    """The entity a call names, else "*" (account-wide calls such as the password policy's)."""
    backend = iam_backends[account]["aws"]
    if "RoleName" in form:
        path = next((r.path for r in backend.get_roles() if r.name == form["RoleName"]), "/")
        return f"arn:aws:iam::{account}:role{path}{form['RoleName']}"
    if "UserName" in form:
        user = backend.users.get(form["UserName"])
        return f"arn:aws:iam::{account}:user{user.path if user else '/'}{form['UserName']}"
    if "GroupName" in form:
        return f"arn:aws:iam::{account}:group/{form['GroupName']}"
    if "PolicyArn" in form:
        return form["PolicyArn"]
    if "PolicyName" in form:
        return f"arn:aws:iam::{account}:policy{form.get('Path', '/')}{form['PolicyName']}"
    return "*"
