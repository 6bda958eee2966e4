"""What Suture reads of X-Ray: how a region's traces are encrypted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.clouds.aws_reading import Call, Part, settings


def _config(answered: Mapping[str, Any]) -> dict[str, Any]:
    """Without the status, which only says whether a change has come through."""
    return {key: answered[key] for key in ("Type", "KeyId") if answered.get(key)}


COLLECTORS = (
    settings(
        "aws.xray.settings",
        (
            Part(
                name="EncryptionConfig",
                call=Call(call="xray:GetEncryptionConfig", take="EncryptionConfig"),
                shape=_config,
            ),
        ),
        id="arn:{partition}:xray:{region}:{account}:encryption-config",
        name="X-Ray in {region}",
    ),
)
