"""Access Analyzer's rules: examples, what it makes of their calls, and how to plant them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call

ARN = "arn:aws:access-analyzer:{}:{}:analyzer"


def apply(config: dict[str, Any], call: Call) -> None:
    params = dict(call.params)
    name = params.pop("analyzerName")
    others = [one for one in config["Analyzers"] if one["name"] != name]
    if call.operation == "CreateAnalyzer":
        assert others == config["Analyzers"]
        assert params == {"type": "ACCOUNT"}
        assert all(one["type"] != "ACCOUNT" for one in others)
        config["Analyzers"] = [*others, analyzer("ACCOUNT", name)]
    else:
        assert call.operation == "DeleteAnalyzer"
        assert not params
        assert others != config["Analyzers"]
        config["Analyzers"] = others


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    for one in config["Analyzers"]:
        cloud.client("accessanalyzer").create_analyzer(analyzerName=one["name"], type=one["type"])
    return ARN.format(cloud.region, cloud.account)


def analyzer(kind: str, name: str = "own", status: str = "ACTIVE") -> dict[str, Any]:
    return {"name": name, "type": kind, "status": status}


EXAMPLES: dict[str, Any] = {
    "aws_accessanalyzer_analyzers_external_access_watched": (
        [
            {"Analyzers": [analyzer("ACCOUNT")]},
            {"Analyzers": [analyzer("ORGANIZATION", status="CREATING")]},
        ],
        [
            {"Analyzers": [analyzer("ACCOUNT_UNUSED_ACCESS", "suture-external-access")]},
            {"Analyzers": []},
            {"Analyzers": [analyzer("ORGANIZATION", status="DISABLED")]},
        ],
        "Analyzers",
    ),
}
KINDS: dict[str, Any] = {
    "aws.accessanalyzer.analyzers": {
        "id": ARN.format("eu-central-1", "111122223333"),
        "apply": apply,
        "plant": plant,
        "alone": True,
    },
}
