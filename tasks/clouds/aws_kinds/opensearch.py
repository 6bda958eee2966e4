"""What Suture reads of OpenSearch Service: domains, Elasticsearch's included.

As they are to be: a change that is accepted shows at once, and takes hours to be made.
"""

from __future__ import annotations

import json
from typing import Any

from tasks.clouds.aws_reading import Call, Item, listed

_ENCRYPTION = ("NodeToNodeEncryptionOptions", "EncryptionAtRestOptions")
_OPTIONS = ("EngineVersion", "DomainEndpointOptions", *_ENCRYPTION)
_ACCESS = ("AccessPolicies", "VPCOptions", "AdvancedSecurityOptions")


def _domain(item: Item) -> Item:
    """Of encryption only whether it is on: which key, the service says only once it is."""
    options = {name: item[name]["Options"] for name in _OPTIONS if name in item}
    switches = {
        name: {"Enabled": options[name].get("Enabled")} for name in _ENCRYPTION if name in options
    }
    return {"DomainName": item["DomainName"], **options, **switches, **_access(item)}


def _access(item: Item) -> dict[str, Any]:
    """Who may ask the domain: its policy, whether it is in a VPC, and whether it asks who asks."""
    policy = item["AccessPolicies"]["Options"]
    own = item.get("AdvancedSecurityOptions", {}).get("Options", {})
    return {
        "Policy": json.loads(policy) if policy else None,
        "InVpc": bool(item.get("VPCOptions", {}).get("Options", {}).get("VPCId")),
        "SignsIn": bool(own.get("Enabled")) and not own.get("AnonymousAuthEnabled"),
    }


COLLECTORS = (
    listed(
        "aws.opensearch.domain",
        Call(call="opensearch:ListDomainNames", take="DomainNames"),
        id="arn:{partition}:es:{region}:{account}:domain/{name}",
        name="{DomainName}",
        detail=Call(
            call="opensearch:DescribeDomainConfig",
            params={"DomainName": "{DomainName}"},
            take="DomainConfig",
        ),
        again={"DomainName": "{last}"},
        keep=("DomainName", *_OPTIONS, *_ACCESS),
        shape=_domain,
    ),
)
