"""Virtual networks and their flow logs: guided, for each change is one of a network's design."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Resource, Rule, Severity
from tasks.rules.azure.setting import PROPERTIES, Home, is_set, value_at
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, number, sequence, text

NETWORK = "Microsoft.Network/virtualNetworks"
WATCHER = "Microsoft.Network/networkWatchers"
API_VERSION = "2024-05-01"

# Azure refuses a security group on these, which filter by themselves.
_WITHOUT_GROUP = {
    "azurefirewallmanagementsubnet",
    "azurefirewallsubnet",
    "gatewaysubnet",
    "routeserversubnet",
}
_DATABRICKS = "microsoft.databricks/workspaces"
_DAYS = 90


def subnets_are_guarded(resource: Resource) -> bool:
    return all(_is_guarded(one) for one in _subnets(resource))


def subnets_of_databricks_are_guarded(resource: Resource) -> bool:
    """A network without a subnet that was handed to Databricks has none to guard, and passes."""
    return all(_is_guarded(one) for one in _subnets(resource) if _is_for_databricks(one))


def _subnets(resource: Resource) -> list[Mapping[str, Any]]:
    where = "properties.subnets"
    return [
        mapping(one, where) for one in sequence(value_at(resource, PROPERTIES, "subnets"), where)
    ]


def _is_for_databricks(subnet: Mapping[str, Any]) -> bool:
    where = "properties.subnets.delegations"
    given = mapping(subnet.get("properties"), "properties.subnets.properties")
    services = [
        text(mapping(mapping(one, where).get("properties"), where).get("serviceName"), where)
        for one in sequence(given.get("delegations", ()), where)
    ]
    return _DATABRICKS in {service.lower() for service in services}


def _is_guarded(subnet: Mapping[str, Any]) -> bool:
    where = "properties.subnets"
    name = text(subnet.get("name"), f"{where}.name").lower()
    group = mapping(subnet.get("properties"), f"{where}.properties").get("networkSecurityGroup")
    if group is None:
        return name in _WITHOUT_GROUP
    return bool(text(mapping(group, f"{where}.networkSecurityGroup").get("id"), f"{where}.id"))


is_shielded = is_set(
    Home(method="PUT", api_version=API_VERSION, action=f"{NETWORK}/write"),
    "enableDdosProtection",
    (True,),
    (False,),
    absent=False,
)


def flow_logs_are_kept(resource: Resource) -> bool:
    """For 90 days or for ever, which no retention and one of 0 days both mean.

    A watcher without flow logs has none to keep, and passes; one that is off keeps nothing new.
    """
    logs = [mapping(one, "flowLogs") for one in sequence(resource.config["flowLogs"], "flowLogs")]
    return all(is_kept(mapping(one.get("properties"), "flowLogs.properties")) for one in logs)


def is_kept(log: Mapping[str, Any]) -> bool:
    """One flow log's properties."""
    enabled = flag(log.get("enabled"), "flowLogs.enabled")
    given = log.get("retentionPolicy")
    if given is None:
        return enabled
    policy = mapping(given, "flowLogs.retentionPolicy")
    days = number(policy.get("days"), "flowLogs.retentionPolicy.days")
    for_ever = not flag(policy.get("enabled"), "flowLogs.retentionPolicy.enabled") or days == 0
    return enabled and (for_ever or days >= _DAYS)


RULES = (
    Rule(
        id="azure_network_virtual_network_subnets_guarded",
        kind="azure.network.virtual_network",
        severity=Severity.HIGH,
        title="Every subnet of the virtual network has a network security group",
        passes=subnets_are_guarded,
        fix=None,
        reads=(f"{NETWORK}/read",),
        writes=(),
        events=(f"{NETWORK}/write", f"{NETWORK}/subnets/write"),
        aka=("prowler:network_subnet_nsg_associated", "cis-azure-5.0:7.11"),
        guide=written(
            means="""A subnet has no network security group: what reaches one of its machines is
                decided by that machine alone. Subnets of gateways, firewalls and route servers
                cannot have one and do not count.""",
            matters="""A machine that gets a public address, or a neighbour that was taken over,
                then reaches every port of the subnet.""",
            portal="Virtual networks > the network > Subnets > the subnet > Security group.",
            cli="""
                az network vnet subnet update -g GROUP --vnet-name NETWORK -n SUBNET \\
                    --network-security-group NSG""",
            terraform="""
                resource "azurerm_subnet_network_security_group_association" "this" {
                  subnet_id                 = azurerm_subnet.this.id
                  network_security_group_id = azurerm_network_security_group.this.id
                }""",
            by_hand="""A new group denies everything from the internet that it does not allow, so
                the first one on a subnet with public machines cuts them off. Which rules it needs
                is known to those who run what stands there. Put flow logs on first and see.""",
            breaks="Connections from the internet, until a rule of the group allows them.",
            back="Take the group off the subnet in the same place; the group itself stays.",
        ),
    ),
    Rule(
        id="azure_network_virtual_network_databricks_subnets_guarded",
        kind="azure.network.virtual_network",
        severity=Severity.MEDIUM,
        title="Every subnet of Databricks in the virtual network has a network security group",
        passes=subnets_of_databricks_are_guarded,
        fix=None,
        reads=(f"{NETWORK}/read",),
        writes=(),
        events=(f"{NETWORK}/write", f"{NETWORK}/subnets/write"),
        aka=("cis-azure-5.0:2.1.2",),
        guide=written(
            means="""A subnet that was handed to Databricks has no network security group: the
                workspace's clusters stand in it unguarded. Workspaces in a network that Databricks
                made have one already.""",
            matters="""Clusters run code that people bring. Without a group, a neighbour in the
                network, or the internet where machines have public addresses, reaches their every
                port, and a cluster reaches everything in turn.""",
            portal="Virtual networks > the network > Subnets > the subnet > Security group.",
            cli="""
                az network vnet subnet update -g GROUP --vnet-name NETWORK -n SUBNET \\
                    --network-security-group NSG""",
            terraform="""
                resource "azurerm_subnet_network_security_group_association" "databricks" {
                  subnet_id                 = azurerm_subnet.databricks.id
                  network_security_group_id = azurerm_network_security_group.databricks.id
                }""",
            by_hand="""Databricks writes rules of its own into the group of a delegated subnet and
                needs some of them to reach its clusters. Which others the workspace needs, to
                storage and to your data, is known to those who run it.""",
            breaks="Clusters that cannot reach their control plane do not start.",
            back="Take the group off the subnet in the same place; the group itself stays.",
        ),
    ),
    Rule(
        id="azure_network_virtual_network_ddos_protected",
        kind="azure.network.virtual_network",
        severity=Severity.LOW,
        title="Virtual network has DDoS network protection",
        passes=is_shielded,
        fix=None,
        reads=(f"{NETWORK}/read",),
        writes=(),
        events=(f"{NETWORK}/write",),
        aka=("prowler:network_vnet_ddos_protection_enabled", "cis-azure-5.0:8.5"),
        guide=written(
            means="""The network is on no DDoS protection plan: it has only what Azure does for
                everybody, without limits that fit its own traffic, and without telling anybody.""",
            matters="""A flood that Azure can bear may still be too much for one public address of
                yours. With a plan, the limits follow what is normal for each.""",
            portal="Virtual networks > the network > DDoS protection > Enable.",
            cli="""
                az network vnet update -g GROUP -n NETWORK --ddos-protection true \\
                    --ddos-protection-plan PLAN_ID""",
            terraform="""
                resource "azurerm_virtual_network" "this" {
                  ddos_protection_plan {
                    id     = azurerm_network_ddos_protection_plan.this.id
                    enable = true
                  }
                }""",
            by_hand="""A plan costs several thousand dollars a month and serves a hundred public
                addresses of all subscriptions together: a company has one, and who makes it is not
                for a finding to decide. Single addresses can be protected for less.""",
            breaks="Nothing. Watch the bill.",
            back="Take the network off the plan in the same place.",
        ),
    ),
    Rule(
        id="azure_network_flow_log_kept_90_days",
        kind="azure.network.flow_log",
        severity=Severity.MEDIUM,
        title="Network watcher keeps its flow logs for 90 days or longer",
        passes=flow_logs_are_kept,
        fix=None,
        reads=(f"{WATCHER}/read", f"{WATCHER}/flowLogs/read"),
        writes=(),
        events=(f"{WATCHER}/flowLogs/write", f"{WATCHER}/flowLogs/delete"),
        aka=("prowler:network_flow_log_more_than_90_days", "cis-azure-5.0:7.8"),
        guide=written(
            means="""A flow log of the watcher is off, or deletes what is younger than 90 days. One
                without a retention, or with one of 0 days, keeps everything.""",
            matters="""Break-ins are found after weeks, often after months. Who talked to whom on
                that day is then in these logs or nowhere.""",
            portal="Network Watcher > Logs > Flow logs > the log > Retention (days).",
            cli="""
                az network watcher flow-log update -l REGION -n LOG --enabled true \\
                    --retention 90""",
            terraform="""
                resource "azurerm_network_watcher_flow_log" "this" {
                  enabled = true
                  retention_policy {
                    enabled = true
                    days    = 90
                  }
                }""",
            by_hand="""Writing a flow log takes the keys of the storage account that it goes to, and
                rights on the network that it watches: far more than a gate for one resource opens.
                And Azure keeps the retention as a rule in the storage account's lifecycle, where it
                can take the place of rules that others have made.""",
            breaks="Nothing. Storage costs money by volume; look at the account's lifecycle rules.",
            back="Set the old number of days in the same place. What was deleted stays deleted.",
        ),
    ),
)
