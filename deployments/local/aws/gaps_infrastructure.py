"""Operations of infrastructure and security services that moto lacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moto.rds.models import rds_backends

from deployments.local.aws.errors import Refusal
from deployments.local.aws.gaps import GAPS, Asked, Gap, not_there

# ---------------------------------------------------------------- IAM Access Analyzer

_TYPES = (
    "ACCOUNT",
    "ACCOUNT_INTERNAL_ACCESS",
    "ACCOUNT_UNUSED_ACCESS",
    "ORGANIZATION",
    "ORGANIZATION_INTERNAL_ACCESS",
    "ORGANIZATION_UNUSED_ACCESS",
)


def _list_analyzers(asked: Asked) -> Mapping[str, Any]:
    wanted = asked.params.get("type")
    found = asked.state.values()
    return {"analyzers": [one for one in found if wanted in (None, one["type"])]}


def _create_analyzer(asked: Asked) -> Mapping[str, Any]:
    name, kind = asked.params.get("analyzerName", ""), asked.params.get("type", "")
    if not name or kind not in _TYPES:
        raise Refusal("ValidationException", "analyzerName or type is not valid.")
    if name in asked.state:
        raise Refusal("ConflictException", f"Analyzer {name} exists.", status=409)
    if kind == "ACCOUNT" and any(one["type"] == kind for one in asked.state.values()):
        raise Refusal(
            "ServiceQuotaExceededException",
            "The account has an analyzer of that type in this region.",
            status=402,
        )
    arn = asked.arn("access-analyzer", f"analyzer/{name}")
    asked.state[name] = {
        "arn": arn,
        "name": name,
        "type": kind,
        "status": "ACTIVE",
        "createdAt": "2026-01-01T00:00:00Z",
    }
    return {"arn": arn}


def _delete_analyzer(asked: Asked) -> Mapping[str, Any]:
    name = asked.params.get("analyzerName", "")
    if asked.state.pop(name, None) is None:
        raise not_there("ResourceNotFoundException", f"There is no analyzer {name}.")
    return {}


# ---------------------------------------------------------------- RDS


def _reset_db_parameter_group(asked: Asked) -> Mapping[str, Any]:
    """What is reset is the engine's own again: moto answers what somebody has set."""
    name = asked.params.get("DBParameterGroupName", "")
    group = rds_backends[asked.account][asked.region].db_parameter_groups.get(name)
    if group is None:
        raise not_there("DBParameterGroupNotFound", f"DBParameterGroup not found: {name}")
    every = asked.params.get("ResetAllParameters") == "true"
    named = {value for key, value in asked.params.items() if key.endswith(".ParameterName")}
    if every == bool(named):
        raise Refusal("InvalidParameterCombination", "Name parameters, or reset all of them.")
    for parameter in list(group.parameters) if every else named:
        group.parameters.pop(parameter, None)
    return {"DBParameterGroupName": name}


_FILLED: dict[tuple[str, str], Gap] = {
    ("accessanalyzer", "ListAnalyzers"): _list_analyzers,
    ("accessanalyzer", "CreateAnalyzer"): _create_analyzer,
    ("accessanalyzer", "DeleteAnalyzer"): _delete_analyzer,
    ("rds", "ResetDBParameterGroup"): _reset_db_parameter_group,
}


def install() -> None:
    GAPS.update(_FILLED)
