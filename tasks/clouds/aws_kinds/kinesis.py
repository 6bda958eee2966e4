"""What Suture reads of Kinesis: data streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.clouds.aws_reading import Call, Part, listed


def _encryption(summary: Mapping[str, Any]) -> dict[str, Any]:
    """A stream that never had any may be described without a word of it."""
    found = {"EncryptionType": summary.get("EncryptionType") or "NONE"}
    return {**found, "KeyId": summary["KeyId"]} if summary.get("KeyId") else found


COLLECTORS = (
    listed(
        "aws.kinesis.stream",
        Call(call="kinesis:ListStreams", take="StreamNames", plain="StreamName"),
        id="arn:{partition}:kinesis:{region}:{account}:stream/{StreamName}",
        name="{StreamName}",
        again={"StreamName": "{last}"},
        keep=("StreamName",),
        parts=(
            Part(
                name="Encryption",
                call=Call(
                    call="kinesis:DescribeStreamSummary",
                    params={"StreamName": "{StreamName}"},
                    take="StreamDescriptionSummary",
                ),
                shape=_encryption,
            ),
        ),
    ),
)
