"""What Suture reads of S3: buckets, each part by a call of its own, and the account's own block."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.clouds.aws_reading import Call, Part, settings
from tasks.clouds.aws_view import GLOBAL, AwsView, Collector, Found
from tasks.clouds.iam_actions import iam_action
from tasks.clouds.transport import reason
from tasks.errors import CloudError, ResourceGone
from tasks.model import Config, Resource, in_order

BUCKET = "aws.s3.bucket"


@dataclass(frozen=True, slots=True)
class _BucketPart:
    """One part of a bucket, read by a call of its own. ``absent`` is the code for 'never set'."""

    name: str
    operation: str
    absent: str
    unset: Any
    shape: Callable[[dict[str, Any]], Any]

    @property
    def action(self) -> str:
        return iam_action("s3", self.operation)


def _acl(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Without display names, which S3 no longer gives, and takes from nobody."""
    grants = [
        {
            "Grantee": {
                key: one for key, one in grant["Grantee"].items() if key in ("ID", "Type", "URI")
            },
            "Permission": grant["Permission"],
        }
        for grant in answer.get("Grants", ())
    ]
    return {"Owner": {"ID": answer["Owner"]["ID"]}, "Grants": in_order(grants)}


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
    _BucketPart("Acl", "GetBucketAcl", "", None, _acl),
    _BucketPart(
        "Encryption",
        "GetBucketEncryption",
        "ServerSideEncryptionConfigurationNotFoundError",
        None,
        lambda answer: answer["ServerSideEncryptionConfiguration"]["Rules"],
    ),
    _BucketPart("Tags", "GetBucketTagging", "NoSuchTagSet", [], lambda answer: answer["TagSet"]),
)


ACCOUNT = settings(
    "aws.s3.account",
    (
        Part(
            name="PublicAccessBlock",
            call=Call(
                call="s3control:GetPublicAccessBlock",
                params={"AccountId": "{account}"},
                take="PublicAccessBlockConfiguration",
            ),
            absent=("NoSuchPublicAccessBlockConfiguration",),
        ),
    ),
    id="arn:{partition}:s3::{account}:account",
    name="S3 of account {account}",
    regional=False,
)


@dataclass(frozen=True, slots=True)
class _AccountBlock:
    """The account's own block, which counts for each of its buckets; or why it was not read."""

    block: Mapping[str, Any] | None = None
    gap: str = ""


async def _account_block(view: AwsView) -> _AccountBlock | None:
    """None where no rule in force needs it."""
    if not all(map(view.needs, ACCOUNT.reads)):
        return None
    try:
        account = await ACCOUNT.read(view, "", GLOBAL)
    except CloudError as error:
        return _AccountBlock(gap=reason(error))
    return _AccountBlock(account.config["PublicAccessBlock"])


async def _buckets(view: AwsView, region: str) -> Found:
    """Every bucket of the account, wherever it lives: S3 lists them all at once."""
    listed, account = await asyncio.gather(
        view.list("s3", "ListBuckets", region, "Buckets", page_size=1000), _account_block(view)
    )
    found = await asyncio.gather(
        *(_bucket_or_why_not(view, one, region, account) for one in listed)
    )
    return Found(
        [one for one in found if isinstance(one, Resource)],
        next((one for one in found if isinstance(one, str)), ""),
    )


async def _bucket_or_why_not(
    view: AwsView, listed: Mapping[str, Any], region: str, account: _AccountBlock | None
) -> Resource | str | None:
    """The bucket; or why it cannot be placed in a region; or None if it has just gone."""
    name = listed["Name"]
    try:
        home = listed.get("BucketRegion") or await _bucket_region(view, name, region)
        return await _bucket(view, name, home, account)
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
    return await _bucket(view, resource_id.rpartition(":")[2], region, await _account_block(view))


async def _bucket(view: AwsView, name: str, region: str, account: _AccountBlock | None) -> Resource:
    parts: dict[str, Any] = {"Name": name}
    gaps: dict[str, str] = {}
    if account is not None and account.gap:
        gaps["AccountPublicAccessBlock"] = account.gap
    elif account is not None:
        parts["AccountPublicAccessBlock"] = account.block
    asked = [part for part in _BUCKET_PARTS if view.needs(part.action)]
    answers = await asyncio.gather(*(_bucket_part(view, name, region, part) for part in asked))
    for part, (value, gap) in zip(asked, answers, strict=True):
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


COLLECTORS = (
    Collector(
        kind=BUCKET,
        reads=(
            "s3:ListAllMyBuckets",
            "s3:GetBucketLocation",
            "s3:GetBucketPublicAccessBlock",
            "s3:GetBucketVersioning",
            "s3:GetBucketPolicy",
            "s3:GetBucketAcl",
            "s3:GetEncryptionConfiguration",
            "s3:GetBucketTagging",
            "s3:GetAccountPublicAccessBlock",
        ),
        collect=_buckets,
        read=_read_bucket,
        regional=False,
        once=("s3:ListBuckets", *ACCOUNT.once),
        each=tuple(f"s3:{part.operation}" for part in _BUCKET_PARTS),
    ),
    ACCOUNT,
)
