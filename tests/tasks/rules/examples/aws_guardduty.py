"""GuardDuty's rules: examples, what GuardDuty makes of their calls, and how to plant them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call, made

ARN = "arn:aws:guardduty:{}:{}:detector"


def apply(config: dict[str, Any], call: Call) -> None:
    params = dict(call.params)
    if call.operation == "CreateDetector":
        assert params == {"Enable": True}
        assert config["Status"] is None
        config["Status"] = "ENABLED"
        return
    assert config["Status"] is not None
    assert params.pop("DetectorId") == made("DetectorId")
    if call.operation == "DeleteDetector":
        assert not params
        config["Status"] = None
    else:
        assert call.operation == "UpdateDetector"
        config["Status"] = "ENABLED" if params["Enable"] else "DISABLED"


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    guardduty = cloud.client("guardduty")
    for one in guardduty.list_detectors()["DetectorIds"]:
        guardduty.delete_detector(DetectorId=one)
    if config["Status"]:
        guardduty.create_detector(Enable=config["Status"] == "ENABLED")
    return ARN.format(cloud.region, cloud.account)


EXAMPLES: dict[str, Any] = {
    "aws_guardduty_detector_enabled": (
        [{"Status": "ENABLED"}],
        [{"Status": None}, {"Status": "DISABLED"}],
        "Status",
    ),
}
KINDS: dict[str, Any] = {
    "aws.guardduty.detector": {
        "id": ARN.format("eu-central-1", "111122223333"),
        "apply": apply,
        "plant": plant,
        "alone": True,
    },
}
