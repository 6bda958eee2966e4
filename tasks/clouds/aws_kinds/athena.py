"""What Suture reads of Athena: workgroups and their configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.clouds.aws_reading import Call, Part, listed


def _configuration(answered: Mapping[str, Any]) -> dict[str, Any]:
    """Without the engine's version, which Athena raises by itself."""
    kept = {key: one for key, one in answered.items() if key != "EngineVersion"}
    return {**kept, "ResultConfiguration": kept.get("ResultConfiguration") or {}}


COLLECTORS = (
    listed(
        "aws.athena.workgroup",
        Call(call="athena:ListWorkGroups", take="WorkGroups"),
        id="arn:{partition}:athena:{region}:{account}:workgroup/{Name}",
        name="{Name}",
        again={"Name": "{last}"},
        keep=("Name",),
        parts=(
            Part(
                name="Configuration",
                call=Call(
                    call="athena:GetWorkGroup",
                    params={"WorkGroup": "{Name}"},
                    take="WorkGroup.Configuration",
                ),
                shape=_configuration,
            ),
        ),
    ),
)
