"""The events that the rule table names come from the emulated cloud, under just those names."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from deployments.local.azure.rbac import READER
from tasks.model import Cloud
from tasks.rules import RULES

if TYPE_CHECKING:
    from tests.tasks.clouds.conftest import Customer, Gated

pytestmark = pytest.mark.slow

AZURE = [row for row in RULES if row.cloud is Cloud.AZURE]
NAMED = {operation for row in AZURE for operation in row.events}
# A subnet is written with its network here, never by itself.
NOT_OFFERED = {"Microsoft.Network/virtualNetworks/subnets/write"}
PLACE = {"location": "westeurope"}
SECURITY_RULE = {
    "protocol": "Tcp",
    "sourcePortRange": "*",
    "destinationPortRange": "443",
    "sourceAddressPrefix": "10.0.0.0/8",
    "destinationAddressPrefix": "*",
    "access": "Allow",
    "priority": 4000,
    "direction": "Inbound",
}


def version_of(gated: Gated, kind: str) -> str:
    return gated.azure._manager.kinds[kind.lower()].api_versions[0]


def write_what_no_example_plants(gated: Gated, customer: Customer) -> None:
    """Children that are planted inside their parents, and what is bad because it is missing."""
    scope, group = f"/subscriptions/{customer.subscription}", customer.group
    roles = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
    principal = gated.fleet.description["azure"]["remediator"]["principal_id"]
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "Microsoft.Insights/components": (
            f"{group}/providers/Microsoft.Insights/components/told",
            {**PLACE, "kind": "web", "properties": {"Application_Type": "web"}},
        ),
        "Microsoft.Network/bastionHosts": (
            f"{group}/providers/Microsoft.Network/bastionHosts/told",
            {**PLACE, "properties": {}},
        ),
        "Microsoft.Network/networkSecurityGroups/securityRules": (
            f"{a(gated, customer, 'Microsoft.Network/networkSecurityGroups')}/securityRules/told",
            {"properties": SECURITY_RULE},
        ),
        "Microsoft.Authorization/roleAssignments": (
            f"{roles}/{uuid.uuid4()}",
            {"properties": {"principalId": principal, "roleDefinitionId": READER.id}},
        ),
    }
    for kind, (target, body) in bodies.items():
        assert f"{kind}/write" in NAMED, "no rule is about this any more"
        customer.write("PUT", target, version_of(gated, kind), body)
        if f"{kind}/delete" in NAMED:
            customer.write("DELETE", target, version_of(gated, kind), {})


def a(gated: Gated, customer: Customer, kind: str) -> str:
    """The id of some resource of a kind."""
    return gated.azure.tenant.resources(customer.subscription, "", kind)[0].id


def delete_one_of_each(gated: Gated, customer: Customer) -> None:
    tenant = gated.azure.tenant
    for operation in sorted(NAMED):
        kind, _, verb = operation.rpartition("/")
        found = tenant.resources(customer.subscription, "", kind) if verb == "delete" else []
        if found:
            customer.write("DELETE", found[0].id, version_of(gated, kind), {})
    roles = [one for one in tenant.roles.values() if one.kind == "CustomRole"]
    unused = next(
        one for one in roles if all(given.role.id != one.id for given in tenant.access.all())
    )
    kind = "Microsoft.Authorization/roleDefinitions"
    scope = f"{unused.assignable_scopes[0]}/providers/{kind}/{unused.id}"
    customer.write("DELETE", scope, version_of(gated, kind), {})


def test_every_event_that_a_rule_names_comes_by_that_name(
    table: Any, gated: Gated, customer: Customer
) -> None:
    for row in AZURE:
        customer.plant(table, row, table.examples[row.id][1][0])
    write_what_no_example_plants(gated, customer)
    delete_one_of_each(gated, customer)
    done = [one["data"] for one in gated.azure.events if one["data"]["status"] == "Succeeded"]
    told = {one["operationName"].lower() for one in done}
    assert {one for one in NAMED if one.lower() not in told} == NOT_OFFERED
