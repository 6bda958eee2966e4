"""What Suture reads of CloudTrail: trails, each in its home region only, and not their shadows."""

from __future__ import annotations

from typing import Any

from tasks.clouds.aws_reading import Call, Item, Part, listed

_HERE = {"includeShadowTrails": False}
_SELECTORS = ("EventSelectors", "AdvancedEventSelectors")


def _every_setting(trail: Item) -> Item:
    """A trail without a key of its own has no field for it."""
    return {**trail, "KmsKeyId": trail.get("KmsKeyId") or None}


def _selectors(answer: Item) -> dict[str, Any]:
    return {name: answer.get(name) or [] for name in _SELECTORS}


COLLECTORS = (
    listed(
        "aws.cloudtrail.trail",
        Call(call="cloudtrail:DescribeTrails", params=_HERE, take="trailList"),
        id="{TrailARN}",
        name="{Name}",
        again=Call(
            call="cloudtrail:DescribeTrails",
            params={**_HERE, "trailNameList": ["{id}"]},
            take="trailList",
        ),
        keep=(
            "Name",
            "TrailARN",
            "S3BucketName",
            "IncludeGlobalServiceEvents",
            "IsMultiRegionTrail",
            "IsOrganizationTrail",
            "KmsKeyId",
            "LogFileValidationEnabled",
        ),
        shape=_every_setting,
        parts=(
            Part(
                name="Selectors",
                call=Call(call="cloudtrail:GetEventSelectors", params={"TrailName": "{TrailARN}"}),
                shape=_selectors,
            ),
        ),
    ),
)
