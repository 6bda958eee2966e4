"""Application gateways' and firewall policies' rules: examples, and how to plant them."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

API = "2024-05-01"
POLICIES = "Microsoft.Network/ApplicationGatewayWebApplicationFirewallPolicies"
READ_ONLY = {"defaultPredefinedSslPolicy"}


def apply(config: dict[str, Any], call: Call) -> None:
    """A PUT leaves what its body says, and nothing of what it does not say."""
    assert (call.service, call.operation) == (API, "PUT")
    assert call.target.endswith("/acme")
    body = copy.deepcopy(dict(call.params))
    assert body.keys() <= {"location", "tags", "properties"}
    assert body["location"] == config["location"]
    assert body["properties"]["managedRules"]["managedRuleSets"]
    config.pop("tags", None)
    config |= body


def nothing(_config: dict[str, Any], call: Call) -> None:
    raise AssertionError(f"nothing is fixed here: {call}")


def plant_gateway(cloud: Any, config: Mapping[str, Any]) -> str:
    known = {name: one for name, one in config["properties"].items() if name not in READ_ONLY}
    path = f"Microsoft.Network/applicationGateways/gw{uuid.uuid4().hex[:8]}"
    return str(cloud.put(path, API, {"location": "westeurope", "properties": known}))


def plant_policy(cloud: Any, config: Mapping[str, Any]) -> str:
    body = {name: one for name, one in config.items() if name != "name"}
    return str(cloud.put(f"{POLICIES}/waf{uuid.uuid4().hex[:8]}", API, body))


def gateway(**properties: Any) -> dict[str, Any]:
    return {
        "name": "acme",
        "location": "westeurope",
        "properties": {
            "sku": {"name": "Standard_v2", "tier": "Standard_v2", "capacity": 2},
            "httpListeners": [{"name": "web", "properties": {"protocol": "Https"}}],
            **properties,
        },
    }


def predefined(year: str) -> dict[str, Any]:
    return {"policyType": "Predefined", "policyName": f"AppGwSslPolicy{year}"}


def custom(oldest: str, kind: str = "Custom") -> dict[str, Any]:
    return {"policyType": kind, "minProtocolVersion": oldest, "cipherSuites": ["TLS_RSA"]}


def profile(policy: Any) -> list[dict[str, Any]]:
    plain = {"name": "mutual", "properties": {"clientAuthConfiguration": {}}}
    return [plain, {"name": "old", "properties": {"sslPolicy": policy}}]


def firewalled(tier: str = "WAF_v2", **properties: Any) -> dict[str, Any]:
    return gateway(sku={"name": tier, "tier": tier}, **properties)


CORE = {"ruleSetType": "OWASP", "ruleSetVersion": "3.2", "ruleGroupOverrides": []}
BOTS = {"ruleSetType": "Microsoft_BotManagerRuleSet", "ruleSetVersion": "1.1"}
MICROSOFT = {"ruleSetType": "Microsoft_DefaultRuleSet", "ruleSetVersion": "2.1"}


def policy(*sets: dict[str, Any], tags: Any = None, **settings: Any) -> dict[str, Any]:
    rule = {
        "name": "office",
        "priority": 10,
        "ruleType": "MatchRule",
        "action": "Allow",
        "matchConditions": [{"operator": "IPMatch", "matchValues": ["203.0.113.0/24"]}],
    }
    made = {
        "name": "acme",
        "location": "westeurope",
        "properties": {
            "policySettings": {
                "state": "Enabled",
                "mode": "Prevention",
                "requestBodyCheck": True,
                "maxRequestBodySizeInKb": 128,
                "fileUploadLimitInMb": 100,
                **settings,
            },
            "customRules": [rule],
            "managedRules": {"managedRuleSets": list(sets or (CORE,)), "exclusions": []},
        },
    }
    return {**made, "tags": tags} if tags else made


OWN = "properties"
GATEWAY, POLICY = "azure_network_application_gateway_", "azure_network_waf_policy_"
EXAMPLES: dict[str, Any] = {
    f"{GATEWAY}tls_1_2": (
        [
            gateway(sslPolicy=predefined("20220101S")),
            gateway(sslPolicy=predefined("20170401S"), sslProfiles=[]),
            gateway(sslPolicy=custom("TLSv1_3", "CustomV2")),
            gateway(sslPolicy={"disabledSslProtocols": ["TLSv1_0", "TLSv1_1"]}),
            gateway(defaultPredefinedSslPolicy="AppGwSslPolicy20220101"),
            gateway(sslPolicy=predefined("20220101"), sslProfiles=profile(predefined("20220101S"))),
        ],
        [
            gateway(sslPolicy=predefined("20150501")),
            gateway(sslPolicy=predefined("20170401")),
            gateway(sslPolicy=custom("TLSv1_1")),
            gateway(sslPolicy={"disabledSslProtocols": ["TLSv1_0"]}),
            gateway(defaultPredefinedSslPolicy="AppGwSslPolicy20150501"),
            gateway(sslPolicy=predefined("20170401S"), sslProfiles=profile(custom("TLSv1_0"))),
        ],
        OWN,
    ),
    f"{GATEWAY}http2_on": (
        [gateway(enableHttp2=True)],
        [gateway(enableHttp2=False), gateway()],
        OWN,
    ),
    f"{GATEWAY}waf_on": (
        [
            firewalled(firewallPolicy={"id": "/x/policy"}),
            firewalled("WAF", webApplicationFirewallConfiguration={"enabled": True}),
        ],
        [
            gateway(),
            firewalled(),
            firewalled("WAF", webApplicationFirewallConfiguration={"enabled": False}),
            gateway(webApplicationFirewallConfiguration={"enabled": True}),
        ],
        OWN,
    ),
    f"{POLICY}inspects_bodies": (
        [policy(), policy(BOTS, tags={"team": "web"})],
        [
            policy(tags={"team": "web"}, requestBodyCheck=False),
            policy(requestBodyCheck=False, mode="Detection"),
        ],
        OWN,
    ),
    f"{POLICY}stops_bots": (
        [policy(CORE, BOTS), policy(BOTS, requestBodyCheck=False)],
        [policy(), policy(MICROSOFT)],
        OWN,
    ),
}
PREFIX = "/subscriptions/s/resourcegroups/rg/providers/microsoft.network"
KINDS: dict[str, Any] = {
    "azure.network.application_gateway": {
        "id": f"{PREFIX}/applicationgateways/acme",
        "apply": nothing,
        "plant": plant_gateway,
    },
    "azure.network.waf_policy": {
        "id": f"{PREFIX}/applicationgatewaywebapplicationfirewallpolicies/acme",
        "apply": apply,
        "plant": plant_policy,
    },
}
