"""The AWS side: from a request's bytes to an answer's bytes.

The service comes from the credential scope, the account from the access key, whatever host was
asked. What Suture asks is answered from templates (the hot path: a look-up and a bytes.replace);
everything else is an empty success, or what AWS says of a setting that was never made.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

import empty_aws
import fleet_aws
import orjson
from botocore.model import OperationModel
from fleet_aws import ACCOUNT, BUCKET, EXTERNAL_ID, MANAGEMENT, ROLE, AwsFleet
from messages import (
    JSON_1_1,
    REQUEST_ID,
    S3_XML,
    XML,
    aws_error,
    aws_refusal,
    family,
    message,
    xml,
)
from unset_aws import unset_answer

SESSION_SECONDS = 3600
PAGE = 20  # ListAccounts
_ACCOUNT, _BUCKET = ACCOUNT.encode(), BUCKET.encode()
_STS = "https://sts.amazonaws.com/doc/2011-06-15/"
_IAM = "https://iam.amazonaws.com/doc/2010-05-08/"
_EC2 = "http://ec2.amazonaws.com/doc/2016-11-15/"
_S3 = "http://s3.amazonaws.com/doc/2006-03-01/"
_S3_CONTROL = b"/v20180820/"

# --- Keys: they say by themselves whose they are -------------------------------------------------

HUB_KEY = f"AKIA{MANAGEMENT}HUBS"


def session_key(account: str) -> str:
    return f"ASIA{account}ROLE"


@lru_cache(maxsize=100_000)
def secret_of(access_key: str) -> str:
    digest = hmac.digest(b"fleet simulator", access_key.encode(), "sha256")
    return base64.b64encode(digest).decode()[:40].replace("/", "a").replace("+", "b")


@lru_cache(maxsize=100_000)
def token_of(access_key: str) -> str:
    """A session token, about as long as a real one."""
    digest = hashlib.sha512(access_key.encode()).digest()
    return "FwoG" + base64.b64encode(digest * 5).decode().rstrip("=")


# --- What a request is ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Owner:
    """What the answers need to know of an account, worked out once."""

    account: bytes
    kind: int
    buckets: bytes  # what the path of each of its buckets begins with
    bucket_kind: int  # of its first bucket


class Request:
    """One request, as far as it had to be read. All parts are bytes as they came.

    Whose it is stands in the last five only after ``read_scope`` and AwsAnswers.owner.
    """

    __slots__ = (
        "access_key",
        "account",
        "body",
        "head",
        "lowered",
        "method",
        "owner",
        "region",
        "service",
        "target",
    )
    owner: Owner  # of a request that is signed with a known key

    def __init__(self, method: bytes, target: bytes, head: bytes, lowered: bytes, body: bytes):
        self.method = method
        self.target = target
        self.head = head  # with the request line
        self.lowered = lowered
        self.body = body

    def header(self, name: bytes) -> bytes:
        """``name`` in lower case; b"" where the request has no such header."""
        start = self.lowered.find(b"\r\n" + name + b":")
        if start < 0:
            return b""
        start += len(name) + 3
        end = self.head.find(b"\r\n", start)
        return self.head[start : end if end >= 0 else len(self.head)].strip()

    def read_scope(self) -> bool:
        """Fill in whose request it is, from the header or the query; False for an unsigned one."""
        start = self.head.find(b"Credential=")
        if start < 0:
            return False
        scope = self.head[start + 11 : start + 160]
        parts = scope.split(b"/", 4)
        if len(parts) < 5:  # in a query its slashes are escaped
            parts = scope.replace(b"%2F", b"/").replace(b"%2f", b"/").split(b"/", 4)
            if len(parts) < 5:
                return False
        self.access_key, _, self.region, self.service, _ = parts
        self.account = self.access_key[4:16]
        return True


# --- Answers -------------------------------------------------------------------------------------

Answer = tuple[str, bytes]  # the operation's name in the statistics, and the whole answer
OTHER = "other"


class AwsAnswers:
    """Answers for a fleet: ``owner`` says whether a key is known, ``answer`` what it is told."""

    def __init__(self, fleet: AwsFleet) -> None:
        self._fleet = fleet
        self._owners: dict[bytes, Owner] = {}
        self._groups: dict[tuple[int, bytes], bytes] = {}
        self._buckets: dict[tuple[str, int], bytes] = {}
        self._places = {b"%03d" % index: index for index in range(fleet.buckets)}
        self._by_action: dict[tuple[bytes, bytes], Callable[[Request], Answer]] = {
            (b"sts", b"AssumeRole"): self._assume_role,
            (b"sts", b"GetCallerIdentity"): self._caller,
            (b"ec2", b"DescribeSecurityGroups"): self._security_groups,
            (b"ec2", b"GetEbsEncryptionByDefault"): self._ebs,
            (b"ec2", b"DescribeRegions"): self._regions,
            (b"iam", b"GetAccountPasswordPolicy"): self._password_policy,
        }
        self._by_query = {
            b"publicAccessBlock": "GetPublicAccessBlock",
            b"versioning": "GetBucketVersioning",
            b"policy": "GetBucketPolicy",
            b"tagging": "GetBucketTagging",
            b"location": "GetBucketLocation",
        }

    def owner(self, access_key: bytes) -> Owner | None:
        """Whose key it is; None for a key that was never issued."""
        known = self._owners.get(access_key)
        if known is None:
            known = self._find_owner(access_key)
            if known is not None:
                self._owners[access_key] = known
        return known

    def _find_owner(self, access_key: bytes) -> Owner | None:
        account = access_key[4:16].decode("latin-1")
        if access_key == HUB_KEY.encode():
            issued = HUB_KEY
        elif self._fleet.holds(account) or account == MANAGEMENT:
            issued = session_key(account)
        else:
            return None
        if access_key != issued.encode():
            return None
        return Owner(
            account.encode(),
            fleet_aws.kind_of(account),
            b"/" + fleet_aws.bucket_name(account, 0)[:-3].encode(),
            fleet_aws.bucket_kind(account, 0),
        )

    def answer(self, request: Request) -> Answer:
        """The answer to a request whose ``owner`` is known."""
        service = request.service
        if service == b"s3":
            return self._s3(request)
        action = _field(b"Action", request.body) or _field(b"Action", request.target)
        if action:
            known = self._by_action.get((service, action))
            if known is not None:
                return known(request)
            version = _field(b"Version", request.body) or _field(b"Version", request.target)
            wire = "ec2" if service == b"ec2" else "query"
            return self._named(request, action.decode(), wire, version.decode())
        target = request.header(b"x-amz-target")
        if target:
            name = target.rpartition(b".")[2].decode()
            if service == b"organizations" and name == "ListAccounts":
                return self._list_accounts(request)
            if service == b"organizations" and name == "DescribeOrganization":
                return self._describe_organization()
            return self._named(request, name, "json")
        if request.lowered.find(b"\r\nsmithy-protocol: rpc-v2-cbor") >= 0:
            name = request.target.rpartition(b"/")[2].decode()
            return self._named(request, name, "smithy-rpc-v2-cbor")
        return self._rest(request)

    # Other people's operations

    def _named(self, request: Request, name: str, wire: str, version: str = "") -> Answer:
        service = request.service.decode()
        operation = empty_aws.operation_named(service, name, version)
        if operation is None:
            return OTHER, aws_refusal("unknown operation", family(service, wire))
        return OTHER, _of_nothing(request, operation, wire)

    def _rest(self, request: Request) -> Answer:
        service = request.service.decode()
        operation = empty_aws.operation_at(
            service, request.method.decode(), request.target.decode("latin-1")
        )
        if operation is None:
            wire = empty_aws.protocol(service)
            return OTHER, aws_refusal("unknown operation", family(service, wire))
        wire = str(operation.service_model.resolved_protocol)
        return OTHER, _of_nothing(request, operation, wire)

    # sts

    def _assume_role(self, request: Request) -> Answer:
        form = dict(parse_qsl(request.body.decode() or request.target.partition(b"?")[2].decode()))
        arn = form.get("RoleArn", "")
        parts = arn.split(":")
        account = parts[4] if len(parts) == 6 else ""
        role = arn.rpartition("/")[2]
        trusted = form.get("ExternalId", "") == EXTERNAL_ID or (
            role != ROLE and "ExternalId" not in form
        )
        if not trusted or not (self._fleet.holds(account) or account == MANAGEMENT):
            return "AssumeRole", refused_role(request.account.decode(), arn)
        return "AssumeRole", self._session(account, role, form.get("RoleSessionName", "session"))

    def _session(self, account: str, role: str, name: str) -> bytes:
        key = session_key(account)
        ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + SESSION_SECONDS))
        body = xml(
            f'<AssumeRoleResponse xmlns="{_STS}"><AssumeRoleResult><Credentials>'
            f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret_of(key)}</SecretAccessKey>"
            f"<SessionToken>{token_of(key)}</SessionToken><Expiration>{ends}</Expiration>"
            f"</Credentials><AssumedRoleUser><AssumedRoleId>AROA{account}ROLE:{escape(name)}"
            f"</AssumedRoleId><Arn>arn:aws:sts::{account}:assumed-role/{escape(role)}/"
            f"{escape(name)}</Arn></AssumedRoleUser></AssumeRoleResult><ResponseMetadata>"
            f"<RequestId>{REQUEST_ID}</RequestId></ResponseMetadata></AssumeRoleResponse>"
        )
        return message(200, XML, body, x_amzn_RequestId=REQUEST_ID)

    def _caller(self, request: Request) -> Answer:
        account = request.account.decode()
        if request.access_key.startswith(b"ASIA"):
            arn = f"arn:aws:sts::{account}:assumed-role/{ROLE}/session"
            unique = f"AROA{account}ROLE:session"
        else:
            arn, unique = f"arn:aws:iam::{account}:user/suture", f"AIDA{account}HUBS"
        body = xml(
            f'<GetCallerIdentityResponse xmlns="{_STS}"><GetCallerIdentityResult><Arn>{arn}</Arn>'
            f"<UserId>{unique}</UserId><Account>{account}</Account></GetCallerIdentityResult>"
            f"<ResponseMetadata><RequestId>{REQUEST_ID}</RequestId></ResponseMetadata>"
            "</GetCallerIdentityResponse>"
        )
        return "GetCallerIdentity", message(200, XML, body)

    # ec2

    def _security_groups(self, request: Request) -> Answer:
        if _asks_for_some(request.body, self._fleet.groups):
            return "DescribeSecurityGroups", self._some_groups(request)
        key = request.owner.kind, request.region
        template = self._groups.get(key)
        if template is None:
            groups = fleet_aws.security_groups(
                self._fleet, ACCOUNT, request.region.decode(), kind=key[0]
            )
            template = self._groups[key] = _groups_message(groups, "")
        return "DescribeSecurityGroups", template.replace(_ACCOUNT, request.account)

    def _some_groups(self, request: Request) -> bytes:
        """By GroupId or Filter, or page by page."""
        form = dict(parse_qsl(request.body.decode()))
        groups = fleet_aws.security_groups(
            self._fleet, request.account.decode(), request.region.decode()
        )
        wanted = [value for name, value in form.items() if name.startswith("GroupId.")]
        if wanted:
            by_id = {group["GroupId"]: group for group in groups}
            for one in wanted:
                if one not in by_id:
                    words = f"The security group '{one}' does not exist"
                    return aws_error("ec2", 400, "InvalidGroup.NotFound", words)
            groups = [by_id[one] for one in wanted]
        for name, values in _filters(form):
            key = {"group-id": "GroupId", "group-name": "GroupName", "vpc-id": "VpcId"}.get(name)
            if key is None:
                words = f"The filter '{name}' is invalid"
                return aws_error("ec2", 400, "InvalidParameterValue", words)
            groups = [group for group in groups if group[key] in values]
        start = int(form.get("NextToken") or 0)
        end = start + int(form.get("MaxResults") or len(groups))
        return _groups_message(groups[start:end], str(end) if end < len(groups) else "")

    def _ebs(self, request: Request) -> Answer:
        encrypted = fleet_aws.ebs_encrypted("", request.owner.kind)
        return "GetEbsEncryptionByDefault", _ebs_message(encrypted)

    def _regions(self, _request: Request) -> Answer:
        return "DescribeRegions", _regions_message(self._fleet.regions)

    # iam

    def _password_policy(self, request: Request) -> Answer:
        return "GetAccountPasswordPolicy", _password_message(request.owner.kind).replace(
            _ACCOUNT, request.account
        )

    # organizations

    def _list_accounts(self, request: Request) -> Answer:
        asked = orjson.loads(request.body or b"{}")
        if not isinstance(asked, dict):
            raise ValueError("no JSON object")
        size = min(int(asked.get("MaxResults") or PAGE), PAGE)
        start = int(asked.get("NextToken") or 0)
        end = min(start + size, self._fleet.accounts)
        accounts = [
            fleet_aws.organization_account(fleet_aws.account_id(index))
            for index in range(start, end)
        ]
        for account in accounts:
            account["JoinedTimestamp"] = account["JoinedTimestamp"].timestamp()
        page: dict[str, Any] = {"Accounts": accounts}
        if end < self._fleet.accounts:
            page["NextToken"] = str(end)
        body = orjson.dumps(page)
        return "ListAccounts", message(200, JSON_1_1, body, x_amzn_RequestId=REQUEST_ID)

    def _describe_organization(self) -> Answer:
        organization = {
            "Id": fleet_aws.ORGANIZATION,
            "Arn": f"arn:aws:organizations::{MANAGEMENT}:organization/{fleet_aws.ORGANIZATION}",
            "FeatureSet": "ALL",
            "MasterAccountArn": f"arn:aws:organizations::{MANAGEMENT}:account"
            f"/{fleet_aws.ORGANIZATION}/{MANAGEMENT}",
            "MasterAccountId": MANAGEMENT,
            "MasterAccountEmail": "management@example.com",
            "AvailablePolicyTypes": [],
        }
        return OTHER, message(200, JSON_1_1, orjson.dumps({"Organization": organization}))

    # s3

    def _s3(self, request: Request) -> Answer:
        target = request.target
        # The hot path: "/fleet-100000000007-003?tagging", 44 of the 50 requests of an account.
        operation = self._by_query.get(target[24:])
        if operation is not None and target.startswith(request.owner.buckets):
            index = self._places.get(target[20:23])
            if index is not None and target[23:24] == b"?" and request.method == b"GET":
                return operation, self._of_bucket(operation, target[1:23], index, request.owner)
        return self._any_s3(request)

    def _any_s3(self, request: Request) -> Answer:
        if request.target.startswith(_S3_CONTROL):
            return OTHER, self._s3_control(request)
        path, _, query = request.target.partition(b"?")
        bucket, _, key = path[1:].partition(b"/")
        host = request.header(b"host").lower()
        if host.startswith(b"fleet-"):
            bucket, key = host.partition(b".")[0], path[1:]
        if not bucket:
            if request.method == b"GET":
                return "ListBuckets", self._list_buckets(request, query)
            return OTHER, aws_refusal("unknown operation", "s3")
        operation = None
        if request.method == b"GET" and not key:
            for part in query.split(b"&"):  # "policy=&x-id=GetBucketPolicy" from the JavaScript SDK
                operation = self._by_query.get(part.partition(b"=")[0], operation)
        index = self._places.get(bucket[19:]) if bucket.startswith(b"fleet-") else None
        if index is None:
            words = "The specified bucket does not exist"
            name = bucket.decode("latin-1")
            return operation or OTHER, aws_error("s3", 404, "NoSuchBucket", words, BucketName=name)
        if not (b"/" + bucket).startswith(request.owner.buckets):
            return operation or OTHER, aws_refusal("refused", "s3")
        if operation is not None:
            return operation, self._of_bucket(operation, bucket, index, request.owner)
        return OTHER, self._rest_of_s3(request, bucket, key, query, index)

    def _of_bucket(self, operation: str, bucket: bytes, index: int, owner: Owner) -> bytes:
        if operation == "GetBucketLocation":
            return _location_message(fleet_aws.bucket_region(self._fleet, index))
        kind = (owner.bucket_kind + fleet_aws.BUCKET_STEP * index) % fleet_aws.BUCKET_KINDS
        template = self._buckets.get((operation, kind))
        if template is None:
            template = self._buckets[operation, kind] = _bucket_message(operation, kind)
        return template.replace(_BUCKET, bucket).replace(_ACCOUNT, owner.account)

    def _list_buckets(self, request: Request, query: bytes) -> bytes:
        asked = dict(parse_qsl(query.decode()))
        size = int(asked.get("max-buckets") or 10_000)
        start = int(asked.get("continuation-token") or 0)
        size = min(size, self._fleet.buckets - start)
        return _buckets_message(self._fleet, start, start + size).replace(_ACCOUNT, request.account)

    def _s3_control(self, request: Request) -> bytes:
        """The account's own settings, which sign as S3's and have paths that no bucket has."""
        operation = empty_aws.operation_at(
            "s3", request.method.decode(), request.target.decode("latin-1")
        )
        if operation is None or operation.service_model.service_name != "s3control":
            return aws_refusal("unknown operation", "s3")
        if request.header(b"x-amz-account-id") != request.account:
            return aws_refusal("refused", "s3")
        return _of_nothing(request, operation, "rest-xml")

    def _rest_of_s3(
        self, request: Request, bucket: bytes, key: bytes, query: bytes, index: int
    ) -> bytes:
        # botocore's own paths always begin with the bucket.
        target = b"/" + bucket + (b"/" + key if key else b"") + (b"?" + query if query else b"")
        operation = empty_aws.operation_at("s3", request.method.decode(), target.decode("latin-1"))
        match operation.name if operation is not None else "":
            case "":
                return aws_refusal("unknown operation", "s3")
            case "HeadBucket":
                region = fleet_aws.bucket_region(self._fleet, index)
                return message(200, S3_XML, b"", x_amz_bucket_region=region)
            case "GetBucketEncryption":
                return _ENCRYPTED
            case "GetBucketAcl":
                return _PRIVATE.replace(_ACCOUNT, request.account)
            case _:
                return empty_aws.empty_answer(operation, "rest-xml")


def _of_nothing(request: Request, operation: OperationModel, wire: str) -> bytes:
    """The answer of an account that has nothing of what an operation is about."""
    unset = unset_answer(operation, request.account)
    return unset if unset is not None else empty_aws.empty_answer(operation, wire)


# What S3 always has an answer to, whatever was set.
_ENCRYPTED = message(
    200,
    S3_XML,
    xml(
        f'<ServerSideEncryptionConfiguration xmlns="{_S3}"><Rule>'
        "<ApplyServerSideEncryptionByDefault><SSEAlgorithm>AES256</SSEAlgorithm></ApplyServerSideEncryptionByDefault>"
        "<BucketKeyEnabled>false</BucketKeyEnabled></Rule></ServerSideEncryptionConfiguration>"
    ),
)
_PRIVATE = message(
    200,
    S3_XML,
    xml(
        f'<AccessControlPolicy xmlns="{_S3}"><Owner><ID>{"0" * 52}{ACCOUNT}</ID></Owner>'
        "<AccessControlList><Grant>"
        '<Grantee xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
        f' xsi:type="CanonicalUser"><ID>{"0" * 52}{ACCOUNT}</ID></Grantee>'
        "<Permission>FULL_CONTROL</Permission></Grant></AccessControlList></AccessControlPolicy>"
    ),
)


def refused_role(caller: str, role_arn: str) -> bytes:
    words = (
        f"User: arn:aws:iam::{caller}:user/suture is not authorized to perform: sts:AssumeRole "
        f"on resource: {role_arn}"
    )
    return aws_error("query", 403, "AccessDenied", words)


def role_account(body: bytes) -> bytes:
    """The account whose role an AssumeRole is about; b"" where there is none."""
    start = body.find(b"RoleArn=arn%3Aaws%3Aiam%3A%3A")
    if start >= 0:
        return body[start + 29 : start + 41]
    start = body.find(b"RoleArn=arn:aws:iam::")
    return body[start + 21 : start + 33] if start >= 0 else b""


def _field(name: bytes, form: bytes) -> bytes:
    """One field of a form, or of a target's query, where it needs no unquoting; b"" for none."""
    start = 0
    if not form.startswith(name + b"="):
        start = max(form.find(b"&" + name + b"="), form.find(b"?" + name + b"=")) + 1
        if start == 0:
            return b""
    start += len(name) + 1
    end = form.find(b"&", start)
    return form[start : end if end >= 0 else len(form)]


def _asks_for_some(body: bytes, groups: int) -> bool:
    if b"&GroupId" in body or b"&Filter" in body or b"&NextToken" in body or b"GroupName" in body:
        return True
    start = body.find(b"MaxResults=")
    if start < 0:
        return False
    return int(body[start + 11 :].partition(b"&")[0]) < groups


def _filters(form: dict[str, str]) -> list[tuple[str, set[str]]]:
    return [
        (
            value,
            {
                form[other]
                for other in form
                if other.startswith(name.removesuffix(".Name") + ".Value.")
            },
        )
        for name, value in form.items()
        if name.startswith("Filter.") and name.endswith(".Name")
    ]


# --- Bodies: rendered once, from what fleet_aws says ---------------------------------------------


def _groups_message(groups: list[dict[str, Any]], next_token: str) -> bytes:
    token = f"<nextToken>{next_token}</nextToken>" if next_token else ""
    items = "".join(f"<item>{_group(group)}</item>" for group in groups)
    body = xml(
        f'<DescribeSecurityGroupsResponse xmlns="{_EC2}">\n    <requestId>{REQUEST_ID}</requestId>'
        f"\n    <securityGroupInfo>{items}</securityGroupInfo>{token}"
        "</DescribeSecurityGroupsResponse>"
    )
    return message(200, XML, body, x_amzn_requestid=REQUEST_ID)


def _group(group: dict[str, Any]) -> str:
    tags = "".join(
        f"<item><key>{tag['Key']}</key><value>{tag['Value']}</value></item>"
        for tag in group.get("Tags", ())
    )
    return (
        f"<ownerId>{group['OwnerId']}</ownerId><groupId>{group['GroupId']}</groupId>"
        f"<groupName>{escape(group['GroupName'])}</groupName>"
        f"<groupDescription>{escape(group['Description'])}</groupDescription>"
        f"<vpcId>{group['VpcId']}</vpcId>"
        f"<securityGroupArn>{group['SecurityGroupArn']}</securityGroupArn>"
        f"<ipPermissions>{_permissions(group['IpPermissions'])}</ipPermissions>"
        f"<ipPermissionsEgress>{_permissions(group['IpPermissionsEgress'])}</ipPermissionsEgress>"
        + (f"<tagSet>{tags}</tagSet>" if tags else "")
    )


def _permissions(permissions: list[dict[str, Any]]) -> str:
    return "".join(f"<item>{_permission(one)}</item>" for one in permissions)


def _permission(permission: dict[str, Any]) -> str:
    ports = "".join(
        f"<{tag}>{permission[key]}</{tag}>"
        for key, tag in (("FromPort", "fromPort"), ("ToPort", "toPort"))
        if key in permission
    )
    lists = "".join(
        _list(tag, permission[key])
        for key, tag in (
            ("UserIdGroupPairs", "groups"),
            ("IpRanges", "ipRanges"),
            ("Ipv6Ranges", "ipv6Ranges"),
            ("PrefixListIds", "prefixListIds"),
        )
    )
    return f"<ipProtocol>{permission['IpProtocol']}</ipProtocol>{ports}{lists}"


def _list(tag: str, items: list[dict[str, str]]) -> str:
    inner = "".join(
        "<item>"
        + "".join(
            f"<{key[0].lower()}{key[1:]}>{escape(value)}</{key[0].lower()}{key[1:]}>"
            for key, value in item.items()
        )
        + "</item>"
        for item in items
    )
    return f"<{tag}>{inner}</{tag}>" if inner else f"<{tag}/>"


@cache
def _ebs_message(encrypted: bool) -> bytes:
    body = xml(
        f'<GetEbsEncryptionByDefaultResponse xmlns="{_EC2}"><requestId>{REQUEST_ID}</requestId>'
        f"<ebsEncryptionByDefault>{str(encrypted).lower()}</ebsEncryptionByDefault>"
        "<sseType>sse-ebs</sseType></GetEbsEncryptionByDefaultResponse>"
    )
    return message(200, XML, body, x_amzn_requestid=REQUEST_ID)


@cache
def _regions_message(regions: tuple[str, ...]) -> bytes:
    items = "".join(
        f"<item><regionName>{region}</regionName>"
        f"<regionEndpoint>ec2.{region}.amazonaws.com</regionEndpoint>"
        "<optInStatus>opt-in-not-required</optInStatus></item>"
        for region in regions
    )
    body = xml(
        f'<DescribeRegionsResponse xmlns="{_EC2}"><requestId>{REQUEST_ID}</requestId>'
        f"<regionInfo>{items}</regionInfo></DescribeRegionsResponse>"
    )
    return message(200, XML, body, x_amzn_requestid=REQUEST_ID)


@cache
def _password_message(kind: int) -> bytes:
    policy = fleet_aws.password_policy("", kind)
    if policy is None:
        words = f"The Password Policy with domain name {ACCOUNT} cannot be found."
        return aws_error("query", 404, "NoSuchEntity", words)
    inner = "".join(f"<{key}>{_text(value)}</{key}>" for key, value in policy.items())
    body = xml(
        f'<GetAccountPasswordPolicyResponse xmlns="{_IAM}"><GetAccountPasswordPolicyResult>'
        f"<PasswordPolicy>{inner}</PasswordPolicy></GetAccountPasswordPolicyResult>"
        f"<ResponseMetadata><RequestId>{REQUEST_ID}</RequestId></ResponseMetadata>"
        "</GetAccountPasswordPolicyResponse>"
    )
    return message(200, XML, body, x_amzn_RequestId=REQUEST_ID)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else escape(str(value))


@lru_cache(maxsize=256)
def _buckets_message(fleet: AwsFleet, start: int, end: int) -> bytes:
    items = "".join(
        f"<Bucket><Name>{bucket['Name']}</Name>"
        f"<CreationDate>{bucket['CreationDate']:%Y-%m-%dT%H:%M:%S.000Z}</CreationDate>"
        + (
            f"<BucketRegion>{bucket['BucketRegion']}</BucketRegion>"
            if "BucketRegion" in bucket
            else ""
        )
        + "</Bucket>"
        for bucket in fleet_aws.buckets(fleet, ACCOUNT)[start:end]
    )
    token = f"<ContinuationToken>{end}</ContinuationToken>" if end < fleet.buckets else ""
    body = xml(
        f'<ListAllMyBucketsResult xmlns="{_S3}"><Owner><ID>{"0" * 52}{ACCOUNT}</ID></Owner>'
        f"<Buckets>{items}</Buckets>{token}</ListAllMyBucketsResult>"
    )
    return message(200, S3_XML, body, x_amz_request_id="SIMULATED0000000")


@cache
def _location_message(region: str) -> bytes:
    inner = "" if region == "us-east-1" else region
    body = xml(f'<LocationConstraint xmlns="{_S3}">{inner}</LocationConstraint>')
    return message(200, S3_XML, body, x_amz_request_id="SIMULATED0000000")


def _bucket_message(operation: str, kind: int) -> bytes:
    """A template with BUCKET and ACCOUNT in it."""
    configuration = fleet_aws.bucket_configuration(ACCOUNT, BUCKET, kind)
    request_id = "SIMULATED0000000"
    match operation:
        case "GetPublicAccessBlock":
            flags = configuration.public_access_block
            if flags is None:
                return _never_set(
                    "NoSuchPublicAccessBlockConfiguration",
                    "The public access block configuration was not found",
                )
            inner = "".join(f"<{name}>{_text(value)}</{name}>" for name, value in flags.items())
            root = "PublicAccessBlockConfiguration"
            body = f'<{root} xmlns="{_S3}">{inner}</{root}>'
        case "GetBucketVersioning":
            inner = "".join(
                f"<{name}>{value}</{name}>" for name, value in configuration.versioning.items()
            )
            body = f'<VersioningConfiguration xmlns="{_S3}">{inner}</VersioningConfiguration>'
        case "GetBucketPolicy":
            text = fleet_aws.policy_text(kind)
            if not text:
                return _never_set("NoSuchBucketPolicy", "The bucket policy does not exist")
            return message(200, "application/json", text.encode(), x_amz_request_id=request_id)
        case "GetBucketTagging":
            if configuration.tags is None:
                return _never_set("NoSuchTagSet", "The TagSet does not exist")
            inner = "".join(
                f"<Tag><Key>{tag['Key']}</Key><Value>{tag['Value']}</Value></Tag>"
                for tag in configuration.tags
            )
            body = f'<Tagging xmlns="{_S3}"><TagSet>{inner}</TagSet></Tagging>'
        case _:
            raise ValueError(f"no call about a bucket: {operation}")
    return message(200, S3_XML, xml(body), x_amz_request_id=request_id)


def _never_set(code: str, words: str) -> bytes:
    return aws_error("s3", 404, code, words, BucketName=BUCKET)
