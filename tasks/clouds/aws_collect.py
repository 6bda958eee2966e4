"""What Suture reads of an AWS account: one small collector per kind of resource.

A collector asks (by ``AwsView``) and shapes the answer into Resources. The table ``COLLECTORS``
at the end is all there is to add to for a new kind.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tasks.clouds.aws_api import AwsApi
from tasks.clouds.aws_credentials import AwsKeyring
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.transport import reason
from tasks.errors import CloudError, ResourceGone
from tasks.inventory import AwsSource
from tasks.model import Account, Cloud, Config, Covered, Resource, in_order
from tasks.snapshot import Seen

# The region of what has none; and, for coverage, of a list that answers for every region at once.
GLOBAL = "global"


@dataclass(frozen=True, slots=True)
class AwsView:
    """One account through the eyes of one role: AwsApi with account and credentials filled in.

    ``slots_free`` bounds how many calls of this account are in flight.
    """

    api: AwsApi
    source: AwsSource
    account: str
    credentials: AwsCredentials
    slots_free: asyncio.Semaphore

    async def get(self, service: str, operation: str, region: str, **params: Any) -> dict[str, Any]:
        async with self.slots_free:
            return await self.api.call(
                service, operation, params, region=region, credentials=self.credentials
            )

    async def list(
        self, service: str, operation: str, region: str, key: str, page_size: int, **params: Any
    ) -> list[dict[str, Any]]:
        """The items under ``key`` in every page of a paged operation."""
        async with self.slots_free:
            return await _all_pages(
                self.api.pages(
                    service,
                    operation,
                    params,
                    region=region,
                    credentials=self.credentials,
                    page_size=page_size,
                ),
                operation,
                key,
            )

    def arn(self, service: str, region: str, rest: str) -> str:
        return f"arn:{self.source.partition}:{service}:{region}:{self.account}:{rest}"

    def resource(
        self, kind: str, region: str, id: str, name: str, config: Config, tags: Any = ()
    ) -> Resource:
        """``tags`` as AWS lists them: [{"Key": …, "Value": …}]."""
        return Resource(
            cloud=Cloud.AWS,
            account=self.account,
            region=region,
            kind=kind,
            id=id,
            name=name,
            config=config,
            tags={tag["Key"]: tag.get("Value", "") for tag in tags},
        )


async def _all_pages(
    pages: AsyncIterator[dict[str, Any]], operation: str, key: str
) -> list[dict[str, Any]]:
    return [item async for page in pages for item in _part(page, key, operation)]


def _part(answer: Mapping[str, Any], key: str, operation: str) -> Any:
    """A part that the answer must have: a strange answer must not pass for an empty account."""
    if key not in answer:
        raise CloudError(f"the answer has no {key}", operation=operation)
    return answer[key]


@dataclass(frozen=True, slots=True)
class Found:
    """What one collector found. ``incomplete`` says why something is missing, if it is."""

    resources: list[Resource] = field(default_factory=list)
    incomplete: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """How one kind is read.

    ``collect(view, region)`` finds all of a region; ``read(view, id, region)`` re-reads one and
    raises ResourceGone. ``reads`` are the IAM actions both need. A kind that is not ``regional``
    is asked for once, in the source's first region, and the answer counts for every region.
    ``around(view, resource)`` reads what hangs on one, with those same actions, for its snapshots.
    """

    kind: str
    reads: tuple[str, ...]
    collect: Callable[[AwsView, str], Awaitable[Found]]
    read: Callable[[AwsView, str, str], Awaitable[Resource]]
    regional: bool = True
    around: Callable[[AwsView, Resource], Awaitable[Mapping[str, Any]]] | None = None


# --- ec2 -----------------------------------------------------------------------------------------

SECURITY_GROUP = "aws.ec2.security_group"
EBS_DEFAULTS = "aws.ec2.ebs_defaults"


async def _security_groups(view: AwsView, region: str) -> Found:
    groups = await view.list(
        "ec2", "DescribeSecurityGroups", region, "SecurityGroups", page_size=1000
    )
    return Found([_security_group(view, region, group) for group in groups])


async def _read_security_group(view: AwsView, resource_id: str, region: str) -> Resource:
    group_id = resource_id.rpartition("/")[2]
    answer = await view.get("ec2", "DescribeSecurityGroups", region, GroupIds=[group_id])
    for group in _part(answer, "SecurityGroups", "DescribeSecurityGroups"):
        return _security_group(view, region, group)
    raise ResourceGone(f"there is no {group_id}", operation="DescribeSecurityGroups")


def _security_group(view: AwsView, region: str, group: Mapping[str, Any]) -> Resource:
    config = {key: value for key, value in group.items() if key not in ("Tags", "OwnerId")}
    return view.resource(
        SECURITY_GROUP,
        region,
        view.arn("ec2", region, f"security-group/{group['GroupId']}"),
        group.get("GroupName", ""),
        Config(in_order(config)),
        group.get("Tags", ()),
    )


async def _around_security_group(view: AwsView, group: Resource) -> dict[str, Any]:
    """The groups whose rules let this group's members in: what closing it may reach."""
    wanted = {"Name": "ip-permission.group-id", "Values": [group.config["GroupId"]]}
    found = await view.list(
        "ec2",
        "DescribeSecurityGroups",
        group.region,
        "SecurityGroups",
        page_size=1000,
        Filters=[wanted],
    )
    named = [{"GroupId": one["GroupId"], "GroupName": one.get("GroupName", "")} for one in found]
    return {"NamedInRulesOf": in_order(named)}


async def _ebs_defaults(view: AwsView, region: str) -> Found:
    return Found([await _read_ebs_defaults(view, "", region)])


async def _read_ebs_defaults(view: AwsView, _id: str, region: str) -> Resource:
    answer = await view.get("ec2", "GetEbsEncryptionByDefault", region)
    encrypted = _part(answer, "EbsEncryptionByDefault", "GetEbsEncryptionByDefault")
    return view.resource(
        EBS_DEFAULTS,
        region,
        view.arn("ec2", region, "ebs-encryption-by-default"),
        f"EBS defaults in {region}",
        Config({"EbsEncryptionByDefault": encrypted}),
    )


# --- s3 ------------------------------------------------------------------------------------------

BUCKET = "aws.s3.bucket"


@dataclass(frozen=True, slots=True)
class _BucketPart:
    """One part of a bucket, read by a call of its own. ``absent`` is the code for 'never set'."""

    name: str
    operation: str
    absent: str
    unset: Any
    shape: Callable[[dict[str, Any]], Any]


_BUCKET_PARTS = (
    _BucketPart(
        "PublicAccessBlock",
        "GetPublicAccessBlock",
        "NoSuchPublicAccessBlockConfiguration",
        None,
        lambda answer: answer["PublicAccessBlockConfiguration"],
    ),
    _BucketPart("Versioning", "GetBucketVersioning", "", {}, lambda answer: answer),
    _BucketPart(
        "Policy",
        "GetBucketPolicy",
        "NoSuchBucketPolicy",
        None,
        lambda answer: json.loads(answer["Policy"]),
    ),
    _BucketPart("Tags", "GetBucketTagging", "NoSuchTagSet", [], lambda answer: answer["TagSet"]),
)


async def _buckets(view: AwsView, region: str) -> Found:
    """Every bucket of the account, wherever it lives: S3 lists them all at once."""
    listed = await view.list("s3", "ListBuckets", region, "Buckets", page_size=1000)
    found = await asyncio.gather(*(_bucket_or_why_not(view, one, region) for one in listed))
    return Found(
        [one for one in found if isinstance(one, Resource)],
        next((one for one in found if isinstance(one, str)), ""),
    )


async def _bucket_or_why_not(
    view: AwsView, listed: Mapping[str, Any], region: str
) -> Resource | str | None:
    """The bucket; or why it cannot be placed in a region; or None if it has just gone."""
    name = listed["Name"]
    try:
        home = listed.get("BucketRegion") or await _bucket_region(view, name, region)
        return await _bucket(view, name, home)
    except ResourceGone:
        return None
    except CloudError as error:
        return f"bucket {name} {reason(error)}"


async def _bucket_region(view: AwsView, name: str, region: str) -> str:
    answer = await view.get("s3", "GetBucketLocation", region, Bucket=name)
    location = answer.get("LocationConstraint")
    if not location:
        return "us-east-1"  # the one region that S3 leaves unsaid
    return "eu-west-1" if location == "EU" else str(location)


async def _read_bucket(view: AwsView, resource_id: str, region: str) -> Resource:
    return await _bucket(view, resource_id.rpartition(":")[2], region)


async def _bucket(view: AwsView, name: str, region: str) -> Resource:
    parts: dict[str, Any] = {"Name": name}
    gaps: dict[str, str] = {}
    answers = await asyncio.gather(
        *(_bucket_part(view, name, region, part) for part in _BUCKET_PARTS)
    )
    for part, (value, gap) in zip(_BUCKET_PARTS, answers, strict=True):
        if gap:
            gaps[part.name] = gap
        else:
            parts[part.name] = value
    tags = parts.pop("Tags", [])
    arn = f"arn:{view.source.partition}:s3:::{name}"
    return view.resource(BUCKET, region, arn, name, Config(parts, gaps), tags)


async def _bucket_part(view: AwsView, name: str, region: str, part: _BucketPart) -> tuple[Any, str]:
    """The part's value, or the reason why it could not be read."""
    try:
        answer = await view.get("s3", part.operation, region, Bucket=name)
        return part.shape(answer), ""
    except ResourceGone as gone:
        if gone.code != part.absent:
            raise
        return part.unset, ""
    except CloudError as error:
        return None, reason(error)
    except (KeyError, ValueError):
        return None, f"failed: {part.operation} answered what Suture cannot read"


# --- iam -----------------------------------------------------------------------------------------

PASSWORD_POLICY = "aws.iam.password_policy"


async def _password_policy(view: AwsView, region: str) -> Found:
    return Found([await _read_password_policy(view, "", region)])


async def _read_password_policy(view: AwsView, _id: str, region: str) -> Resource:
    asked = view.source.regions[0] if region == GLOBAL else region
    try:
        answer = await view.get("iam", "GetAccountPasswordPolicy", asked)
        policy = _part(answer, "PasswordPolicy", "GetAccountPasswordPolicy")
    except ResourceGone:
        policy = None
    return view.resource(
        PASSWORD_POLICY,
        GLOBAL,
        view.arn("iam", "", "account-password-policy"),
        "account password policy",
        Config({"PasswordPolicy": policy}),
    )


COLLECTORS: Mapping[str, Collector] = {
    collector.kind: collector
    for collector in (
        Collector(
            kind=SECURITY_GROUP,
            reads=("ec2:DescribeSecurityGroups",),
            collect=_security_groups,
            read=_read_security_group,
            around=_around_security_group,
        ),
        Collector(
            kind=EBS_DEFAULTS,
            reads=("ec2:GetEbsEncryptionByDefault",),
            collect=_ebs_defaults,
            read=_read_ebs_defaults,
        ),
        Collector(
            kind=BUCKET,
            reads=(
                "s3:ListAllMyBuckets",
                "s3:GetBucketLocation",
                "s3:GetBucketPublicAccessBlock",
                "s3:GetBucketVersioning",
                "s3:GetBucketPolicy",
                "s3:GetBucketTagging",
            ),
            collect=_buckets,
            read=_read_bucket,
            regional=False,
        ),
        Collector(
            kind=PASSWORD_POLICY,
            reads=("iam:GetAccountPasswordPolicy",),
            collect=_password_policy,
            read=_read_password_policy,
            regional=False,
        ),
    )
}


async def collect(view: AwsView, kinds: Iterable[str]) -> tuple[list[Resource], list[Covered]]:
    """Everything of ``kinds`` in the account, and what of it was read to the end.

    Never raises CloudError: a kind that a region refuses is a Covered that is not ok.
    """
    asks: list[Awaitable[tuple[list[Resource], Covered]]] = []
    for kind in kinds:
        collector = COLLECTORS[kind]
        regions = view.source.regions if collector.regional else view.source.regions[:1]
        asks += [_collect_one(view, collector, region) for region in regions]
    answers = await asyncio.gather(*asks)
    resources = [resource for found, _ in answers for resource in found]
    return resources, [covered for _, covered in answers]


async def _collect_one(
    view: AwsView, collector: Collector, region: str
) -> tuple[list[Resource], Covered]:
    covers = region if collector.regional else GLOBAL
    try:
        found = await collector.collect(view, region)
    except CloudError as error:
        return [], Covered(covers, collector.kind, ok=False, reason=reason(error))
    ok = not found.incomplete
    return found.resources, Covered(covers, collector.kind, ok=ok, reason=found.incomplete)


async def read_one(view: AwsView, kind: str, resource_id: str, region: str) -> Resource:
    """One resource as it is now. Raises ResourceGone, or another CloudError."""
    return await COLLECTORS[kind].read(view, resource_id, region)


async def look(view: AwsView, kind: str, resource_id: str, region: str) -> Seen:
    """One resource as it is now, with what hangs on it. Raises as ``read_one`` does.

    What of that cannot be read is a reason in words: a snapshot is worth taking without it.
    """
    resource = await read_one(view, kind, resource_id, region)
    read_around = COLLECTORS[kind].around
    if read_around is None:
        return Seen(resource)
    try:
        return Seen(resource, await read_around(view, resource))
    except CloudError as error:
        return Seen(resource, {"unread": reason(error)})


# --- Accounts ------------------------------------------------------------------------------------

DISCOVERY_READS = ("organizations:ListAccounts",)


async def discover(source: AwsSource, api: AwsApi, keyring: AwsKeyring) -> list[Account]:
    """The accounts of a source, suspended ones too. Plain lists need no call."""
    if not source.organization:
        return [Account(cloud=Cloud.AWS, id=id, source=source.name) for id in source.accounts]
    if source.discovery_role:
        credentials = await keyring.assume(source.management_account, source.discovery_role)
    else:
        credentials = await keyring.hub()
    pages = api.pages(
        "organizations", "ListAccounts", {}, region=source.regions[0], credentials=credentials
    )
    listed = await _all_pages(pages, "ListAccounts", "Accounts")
    return [
        Account(
            cloud=Cloud.AWS,
            id=entry["Id"],
            name=entry.get("Name", ""),
            source=source.name,
            status=str(entry.get("State") or entry.get("Status") or "active").lower(),
        )
        for entry in listed
    ]
