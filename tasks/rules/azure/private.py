"""Private endpoints: the same part and the same words for every kind of resource that has them."""

from __future__ import annotations

from tasks.model import Resource
from tasks.rules.azure.setting import value_at
from tasks.rules.guide import written
from tasks.rules.shape import mapping, sequence, text


def has_private_endpoint(resource: Resource) -> bool:
    """At least one that was approved: one that waits or was rejected carries nothing."""
    return "Approved" in _states(resource)


def _states(resource: Resource) -> list[str]:
    """The states of its connections; a resource that never had any lacks the list as well."""
    name = "properties.privateEndpointConnections"
    listed = value_at(resource, "properties", "privateEndpointConnections")
    states = []
    for one in sequence(listed if listed is not None else (), name):
        inside = mapping(mapping(one, name).get("properties"), name)
        state = mapping(inside.get("privateLinkServiceConnectionState"), name)
        states.append(text(state.get("status"), name))
    return states


def endpoint_guide(what: str, where: str, group: str) -> str:
    """The guide; ``what`` is the kind in one word, ``where`` its place in the portal, ``group`` the
    part of it that an endpoint leads to, in Azure's word."""
    return written(
        means=f"""No private endpoint of the {what} is approved: your networks reach it by its
            public address only.""",
        matters=f"""With a private endpoint the {what} has an address inside your network, and the
            public one can be closed.""",
        portal=f"{where} > Networking > Private endpoint connections > + Private endpoint.",
        cli=f"""
            az network private-endpoint create --resource-group GROUP --name NAME \\
              --vnet-name VNET --subnet SUBNET --connection-name NAME \\
              --private-connection-resource-id ID --group-id {group}""",
        terraform=f"""
            resource "azurerm_private_endpoint" "this" {{
              # ...
              private_service_connection {{
                name                           = "{group}"
                private_connection_resource_id = "ID"
                subresource_names              = ["{group}"]
                is_manual_connection           = false
              }}
            }}""",
        by_hand="""An endpoint belongs into a network, a subnet and a DNS zone that only you can
            choose, and costs money by the hour.""",
        breaks=f"""Names: once the private DNS zone is linked, the {what}'s name resolves to the
            private address in that network. A zone without the record finds nothing.""",
        back="Delete the private endpoint, and its record in the DNS zone.",
    )
