"""OpenSearch's rules: examples, what the service makes of their calls, and how to plant them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

_numbers = itertools.count(1)
AWAY = ("InVpc", "SignsIn")
NODES, REST = "NodeToNodeEncryptionOptions", "EncryptionAtRestOptions"


def apply(config: dict[str, Any], call: Call) -> None:
    params = dict(call.params)
    assert call.operation == "UpdateDomainConfig"
    assert params.pop("DomainName") == config["DomainName"]
    for name in (NODES, REST):
        assert not config[name]["Enabled"] or params.get(name, {}).get("Enabled", True)
    if "AccessPolicies" in params:
        policy = params.pop("AccessPolicies")
        config["Policy"] = json.loads(policy) if policy else None
    config |= params


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    wanted = {name: config[name] for name in config if name not in ("Policy", *AWAY)}
    if config["Policy"]:
        wanted["AccessPolicies"] = json.dumps(config["Policy"])
    made = cloud.client("opensearch").create_domain(
        **{**wanted, "DomainName": f"domain-{next(_numbers)}"}
    )
    return str(made["DomainStatus"]["ARN"])


def domain(https: bool = True, nodes: bool = True, rest: bool = True, **parts: Any) -> Any:
    return {
        "DomainName": "logs",
        "EngineVersion": "OpenSearch_2.19",
        "DomainEndpointOptions": {
            "EnforceHTTPS": https,
            "TLSSecurityPolicy": "Policy-Min-TLS-1-2-2019-07",
            "CustomEndpointEnabled": False,
        },
        NODES: {"Enabled": nodes},
        REST: {"Enabled": rest},
        "Policy": None,
        "InVpc": False,
        "SignsIn": False,
        **parts,
    }


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


ANYBODY = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "es:*", "Resource": "*"}
OFFICE = {**ANYBODY, "Condition": {"IpAddress": {"aws:SourceIp": "198.51.100.0/24"}}}
OURS = {**ANYBODY, "Principal": {"AWS": "arn:aws:iam::111122223333:role/search"}}


EXAMPLES: dict[str, Any] = {
    "aws_opensearch_domain_https_only": (
        [domain(), domain(nodes=False)],
        [domain(https=False), domain(https=False, rest=False)],
        "DomainEndpointOptions",
    ),
    "aws_opensearch_domain_policy_closed_to_strangers": (
        [
            domain(),
            domain(Policy=policy(OFFICE, OURS)),
            domain(Policy=policy(ANYBODY), InVpc=True),
            domain(Policy=policy(ANYBODY), SignsIn=True),
        ],
        [domain(Policy=policy(OURS, ANYBODY)), domain(Policy=policy(ANYBODY))],
        "Policy",
    ),
    "aws_opensearch_domain_node_to_node_encrypted": (
        [domain()],
        [domain(nodes=False), domain(nodes=False, EngineVersion="Elasticsearch_7.10")],
        NODES,
    ),
    "aws_opensearch_domain_encrypted_at_rest": ([domain()], [domain(rest=False)], REST),
}
KINDS: dict[str, Any] = {
    "aws.opensearch.domain": {
        "id": "arn:aws:es:eu-central-1:111122223333:domain/logs",
        "apply": apply,
        "plant": plant,
    },
}
