"""What Suture reads of AWS Config: a region's recorders, and whether they record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tasks.clouds.aws_reading import Call, Part, settings


def _only(*names: str) -> Callable[[list[Any]], list[Any]]:
    """Of each, these fields: the others are moments, and the last delivery's luck."""
    return lambda found: [{name: one[name] for name in names if name in one} for one in found]


COLLECTORS = (
    settings(
        "aws.config.recorder",
        (
            Part(
                name="Recorders",
                call=Call(
                    call="config:DescribeConfigurationRecorders", take="ConfigurationRecorders"
                ),
                shape=_only(
                    "name", "roleARN", "recordingGroup", "recordingMode", "servicePrincipal"
                ),
            ),
            Part(
                name="Status",
                call=Call(
                    call="config:DescribeConfigurationRecorderStatus",
                    take="ConfigurationRecordersStatus",
                ),
                shape=_only("name", "recording"),
            ),
        ),
        id="arn:{partition}:config:{region}:{account}:configuration-recorder",
        name="recorder in {region}",
    ),
)
