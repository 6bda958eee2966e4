"""What Suture reads of GuardDuty: a region's detector, of which there is one or none."""

from __future__ import annotations

from dataclasses import replace

from tasks.clouds.aws_view import AwsView, Collector, Found, part_of
from tasks.model import Config, Resource

DETECTOR = "aws.guardduty.detector"


async def _read(view: AwsView, _id: str, region: str) -> Resource:
    """A detector that is made anew has another id: it is another one, in the same state."""
    found = await view.list("guardduty", "ListDetectors", region, "DetectorIds")
    status = None
    if found:
        answer = await view.get("guardduty", "GetDetector", region, DetectorId=found[0])
        status = part_of(answer, "Status", "GetDetector")
    regional = view.resource(
        DETECTOR,
        region,
        view.arn("guardduty", region, "detector"),
        f"GuardDuty in {region}",
        Config({"Status": status}),
    )
    return replace(regional, etag=str(found[0])) if found else regional


async def _collect(view: AwsView, region: str) -> Found:
    return Found([await _read(view, "", region)])


COLLECTORS = (
    Collector(
        kind=DETECTOR,
        reads=("guardduty:ListDetectors", "guardduty:GetDetector"),
        collect=_collect,
        read=_read,
        once=("guardduty:ListDetectors",),
        deeper=("guardduty:GetDetector",),
    ),
)
