"""CloudFront's rules: examples, what CloudFront makes of their calls, and how to plant them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

from tasks.model import Call, made

_numbers = itertools.count(1)


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.operation == "UpdateDistribution"
    assert call.params["Id"] == config["Id"]
    assert call.params["IfMatch"] == made("ETag")
    config["DistributionConfig"] = copy.deepcopy(dict(call.params["DistributionConfig"]))


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    whole = {**config["DistributionConfig"], "CallerReference": f"example-{next(_numbers)}"}
    answer = cloud.client("cloudfront").create_distribution(DistributionConfig=whole)
    return str(answer["Distribution"]["ARN"])


def behaviour(policy: str, **more: Any) -> dict[str, Any]:
    return {
        **more,
        "TargetOriginId": "shop",
        "ViewerProtocolPolicy": policy,
        "CachePolicyId": "658327ea-f89d-4fab-a63d-7e88639e58f6",
        "Compress": True,
    }


def distribution(default: str, *others: str, **more: Any) -> dict[str, Any]:
    items = [behaviour(one, PathPattern=f"/z{9 - at}/*") for at, one in enumerate(others)]
    return {
        "Id": "EDFDVBD632BHDS5",
        "DistributionConfig": {
            "CallerReference": "once",
            "Aliases": {"Quantity": 1, "Items": ["shop.example.com"]},
            "Origins": {
                "Quantity": 1,
                "Items": [
                    {
                        "Id": "shop",
                        "DomainName": "shop.s3.eu-central-1.amazonaws.com",
                        "OriginPath": "",
                        "CustomHeaders": {"Quantity": 0},
                        "S3OriginConfig": {"OriginAccessIdentity": ""},
                    }
                ],
            },
            "DefaultCacheBehavior": behaviour(default),
            "CacheBehaviors": {"Quantity": len(items), **({"Items": items} if items else {})},
            "Comment": "",
            "Enabled": True,
            **more,
        },
    }


EXAMPLES: dict[str, Any] = {
    "aws_cloudfront_distribution_https_only": (
        [distribution("redirect-to-https"), distribution("https-only", "redirect-to-https")],
        [
            distribution("allow-all", "https-only", "allow-all"),
            distribution("https-only", "allow-all"),
            distribution("allow-all"),
        ],
        "DistributionConfig",
    ),
}
KINDS: dict[str, Any] = {
    "aws.cloudfront.distribution": {
        "id": "arn:aws:cloudfront::111122223333:distribution/EDFDVBD632BHDS5",
        "region": "global",
        "apply": apply,
        "plant": plant,
    },
}
