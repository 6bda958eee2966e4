"""What Suture reads of S3: buckets, each part by a call of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.clouds.aws_view import AwsView, Collector, Found
from tasks.clouds.transport import reason
from tasks.errors import CloudError, ResourceGone
from tasks.model import Config, Resource

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


COLLECTORS = (
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
)
