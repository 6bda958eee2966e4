"""What Suture reads of OpenSearch Service: domains, Elasticsearch's included.

As they are to be: a change that is accepted shows at once, and takes hours to be made.
"""

from __future__ import annotations

from tasks.clouds.aws_reading import Call, Item, listed

_ENCRYPTION = ("NodeToNodeEncryptionOptions", "EncryptionAtRestOptions")
_OPTIONS = ("EngineVersion", "DomainEndpointOptions", *_ENCRYPTION)


def _domain(item: Item) -> Item:
    """Of encryption only whether it is on: which key, the service says only once it is."""
    options = {name: item[name]["Options"] for name in _OPTIONS if name in item}
    switches = {
        name: {"Enabled": options[name].get("Enabled")} for name in _ENCRYPTION if name in options
    }
    return {"DomainName": item["DomainName"], **options, **switches}


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
        keep=("DomainName", *_OPTIONS),
        shape=_domain,
    ),
)
