"""Application gateways where the table of examples does not reach: policies that nobody knows."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import MissingData
from tasks.model import Cloud, Config, Resource
from tasks.rules import rule
from tasks.rules.azure.gateway import speaks_tls_1_2

PREFIX = "/subscriptions/s/resourcegroups/rg/providers/microsoft.network"


def resource(kind: str, **config: Any) -> Resource:
    return Resource(
        cloud=Cloud.AZURE,
        account="s",
        region="westeurope",
        kind=kind,
        id=f"{PREFIX}/one",
        name="one",
        config=Config({"location": "westeurope", **config}),
    )


def gateway(**properties: Any) -> Resource:
    return resource("azure.network.application_gateway", properties=properties)


@pytest.mark.parametrize(
    "policy",
    [
        None,
        {"policyType": "Predefined", "policyName": "AppGwSslPolicy20300101"},
        {"policyType": "Custom"},
        {"policyType": "CustomV2", "minProtocolVersion": "TLSv2"},
        {"policyType": "Predefined", "policyName": 7},
    ],
)
def test_a_policy_that_nobody_knows_is_unknown(policy: Any) -> None:
    with pytest.raises(MissingData):
        speaks_tls_1_2(gateway(sslPolicy=policy))


def test_a_policy_is_written_with_its_tags_and_its_place_and_without_its_name() -> None:
    row = rule("azure_network_waf_policy_inspects_bodies")
    rules = {"managedRuleSets": [{"ruleSetType": "OWASP"}]}
    inside = {"policySettings": {"requestBodyCheck": False, "mode": "Detection"}}
    properties = {**inside, "managedRules": rules}
    one = resource(row.kind, name="one", tags={"team": "web"}, properties=properties)
    assert row.fix is not None
    (step,) = row.fix(one, {})
    settings = {"requestBodyCheck": True, "mode": "Detection"}
    assert step.call.params == {
        "location": "westeurope",
        "tags": {"team": "web"},
        "properties": {"policySettings": settings, "managedRules": rules},
    }
    assert step.undo[0].params["properties"] == properties
