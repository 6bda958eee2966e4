"""Security Hub's rules: examples, what it makes of their calls, and how to plant them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call

ARN = "arn:aws:securityhub:{}:{}:hub/default"
HUB = ARN.format("eu-central-1", "111122223333")


def apply(config: dict[str, Any], call: Call) -> None:
    if call.operation == "EnableSecurityHub":
        assert config["Hub"] is None
        assert call.params == {"EnableDefaultStandards": True}
        config["Hub"] = {"HubArn": HUB}
    else:
        assert call.operation == "DisableSecurityHub"
        assert config["Hub"] is not None
        assert not call.params
        config["Hub"] = None


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    if config["Hub"]:
        cloud.client("securityhub").enable_security_hub()
    return ARN.format(cloud.region, cloud.account)


EXAMPLES: dict[str, Any] = {
    "aws_securityhub_hub_enabled": ([{"Hub": {"HubArn": HUB}}], [{"Hub": None}], "Hub"),
}
KINDS: dict[str, Any] = {
    "aws.securityhub.hub": {"id": HUB, "apply": apply, "plant": plant, "alone": True},
}
