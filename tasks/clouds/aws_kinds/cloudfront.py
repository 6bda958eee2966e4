"""What Suture reads of CloudFront: distributions, whole, because they are only written whole."""

from __future__ import annotations

import asyncio
import copy
from dataclasses import replace
from typing import Any

from tasks.clouds.aws_view import GLOBAL, AwsView, Collector, Found, part_of
from tasks.model import Config, Resource

DISTRIBUTION = "aws.cloudfront.distribution"
NOT_KEPT = "(not kept)"


async def _distributions(view: AwsView, region: str) -> Found:
    whole = [_distribution(view, region, arn) for arn in await _arns(view, region)]
    return Found(list(await asyncio.gather(*whole)))


async def _arns(view: AwsView, region: str) -> list[str]:
    """A page without any distribution has no list of them."""
    arns: list[str] = []
    following: dict[str, str] = {}
    while True:
        answer = await view.get("cloudfront", "ListDistributions", region, **following)
        page = part_of(answer, "DistributionList", "ListDistributions")
        arns += [part_of(one, "ARN", "ListDistributions") for one in page.get("Items") or ()]
        if not part_of(page, "IsTruncated", "ListDistributions"):
            return arns
        following = {"Marker": part_of(page, "NextMarker", "ListDistributions")}


async def _read(view: AwsView, resource_id: str, _region: str) -> Resource:
    return await _distribution(view, view.source.regions[0], resource_id)


async def _distribution(view: AwsView, region: str, arn: str) -> Resource:
    """The order of what it holds means something: the first cache behaviour that fits counts."""
    own = arn.rpartition("/")[2]
    answer = await view.get("cloudfront", "GetDistributionConfig", region, Id=own)
    whole = part_of(answer, "DistributionConfig", "GetDistributionConfig")
    config = Config({"Id": own, "DistributionConfig": _without_secrets(whole)})
    names = (whole.get("Aliases") or {}).get("Items") or [own]
    made = view.resource(DISTRIBUTION, GLOBAL, arn, str(names[0]), config)
    return replace(made, etag=part_of(answer, "ETag", "GetDistributionConfig"))


def _without_secrets(config: dict[str, Any]) -> dict[str, Any]:
    """Headers for an origin are mostly how it knows CloudFront: passwords, by another name."""
    kept = copy.deepcopy(config)
    for origin in (kept.get("Origins") or {}).get("Items") or ():
        for header in (origin.get("CustomHeaders") or {}).get("Items") or ():
            header["HeaderValue"] = NOT_KEPT
    return kept


COLLECTORS = (
    Collector(
        kind=DISTRIBUTION,
        reads=("cloudfront:ListDistributions", "cloudfront:GetDistributionConfig"),
        collect=_distributions,
        read=_read,
        regional=False,
        once=("cloudfront:ListDistributions",),
        each=("cloudfront:GetDistributionConfig",),
    ),
)
