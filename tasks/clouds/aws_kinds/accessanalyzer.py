"""What Suture reads of IAM Access Analyzer: the analyzers of a region."""

from __future__ import annotations

from typing import Any

from tasks.clouds.aws_reading import Call, Part, settings


def _analyzers(found: list[Any]) -> list[Any]:
    """Without the moments at which they were made and last looked."""
    return [{name: one[name] for name in ("name", "type", "status")} for one in found]


COLLECTORS = (
    settings(
        "aws.accessanalyzer.analyzers",
        (
            Part(
                name="Analyzers",
                call=Call(call="accessanalyzer:ListAnalyzers", take="analyzers"),
                shape=_analyzers,
            ),
        ),
        id="arn:{partition}:access-analyzer:{region}:{account}:analyzer",
        name="analyzers in {region}",
    ),
)
