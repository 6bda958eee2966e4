"""What watches a subscription's networks, what leads into them, and how long it is remembered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.model import Predicate, Resource, Rule, Severity
from tasks.rules.azure.virtual_network import is_kept
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, sequence, text

WATCHERS = "Microsoft.Network/networkWatchers"
NETWORKS = "Microsoft.Network/virtualNetworks"
BASTIONS = "Microsoft.Network/bastionHosts"
MACHINES = "Microsoft.Compute/virtualMachines"
_ITSELF = "Microsoft.Resources/subscriptions/read"


def _regions(resource: Resource, part: str) -> set[str]:
    """Where the resources of a part lie, however ARM spells it."""
    places = set()
    for one in sequence(resource.config[part], part):
        place = text(mapping(one, part).get("location"), f"{part}.location")
        places.add(place.lower().replace(" ", ""))
    return places


def is_watched_everywhere(resource: Resource) -> bool:
    """A region is in use where there is a virtual network."""
    return _regions(resource, "networks") <= _regions(resource, "watchers")


def has_bastion(resource: Resource) -> bool:
    """Without machines there is nothing to get into."""
    bastions = flag(resource.config["bastions"], "bastions")
    return bastions or not flag(resource.config["machines"], "machines")


def groups_logs_are_kept(resource: Resource) -> bool:
    """Every flow log of a security group is on, and kept for 90 days or for ever.

    Where no group has one there is none to keep.
    """
    return all(is_kept(log) for log in _of_groups(resource))


def _of_groups(resource: Resource) -> Iterator[Mapping[str, Any]]:
    part = "flowLogs"
    for one in sequence(resource.config[part], part):
        log = mapping(mapping(one, part).get("properties"), f"{part}.properties")
        target = text(log.get("targetResourceId"), f"{part}.targetResourceId")
        if "/networksecuritygroups/" in target.lower():
            yield log


def _row(
    name: str,
    severity: Severity,
    title: str,
    passes: Predicate,
    types: tuple[str, ...],
    aka: tuple[str, ...],
    guide: str,
) -> Rule:
    return Rule(
        id=f"azure_network_subscription_{name}",
        kind="azure.network.subscription",
        severity=severity,
        title=title,
        passes=passes,
        fix=None,
        reads=(_ITSELF, *(f"{one}/read" for one in types)),
        writes=(),
        events=(f"{types[0]}/write", f"{types[0]}/delete", f"{types[1]}/write"),
        aka=aka,
        guide=guide,
    )


RULES = (
    _row(
        "watchers_in_every_region",
        Severity.LOW,
        "Network Watcher is on in every region with a virtual network",
        is_watched_everywhere,
        (WATCHERS, NETWORKS),
        ("prowler:network_watcher_enabled", "cis-azure-5.0:7.6"),
        written(
            means="""The subscription has a virtual network in a region where it has no network
                watcher. Regions without virtual networks need none.""",
            matters="""Without a watcher there are no flow logs, no packet captures and no answer to
                the question which rule let a connection through, on the day when it is asked.""",
            portal="""Network Watcher > Overview > Create > the subscription and the region. Azure
                makes one by itself with the first virtual network of a region, unless the
                subscription has opted out.""",
            cli="""
                az network vnet list --query "[].location" --output tsv | sort -u
                az network watcher configure --resource-group NetworkWatcherRG \\
                  --locations REGION --enabled true""",
            terraform="""
                resource "azurerm_network_watcher" "this" {
                  name                = "NetworkWatcher_westeurope"
                  location            = "westeurope"
                  resource_group_name = azurerm_resource_group.watchers.name
                }""",
            by_hand="""A watcher is made in a resource group that is not there yet, or is shared by
                all regions. To write there Suture would need more than a gate for one resource.""",
            breaks="Nothing. A watcher alone costs nothing and collects nothing.",
            back="""az network watcher configure with --enabled false; the flow logs of the
                region go with it.""",
        ),
    ),
    _row(
        "bastion_host",
        Severity.LOW,
        "Subscription with machines has a bastion host",
        has_bastion,
        (BASTIONS, MACHINES),
        ("prowler:network_bastion_host_exists", "cis-azure-5.0:8.4.1"),
        written(
            means="""There are virtual machines in the subscription, and no Azure Bastion host. One
                in the hub of another subscription may serve them: then this is an exception to
                write down.""",
            matters="""Without one, people come to machines by public addresses and open ports, or
                by jump hosts that somebody has to patch. A bastion asks for an Azure sign-in first
                and keeps the ports closed.""",
            portal="""Bastions > Create > the virtual network (it makes the subnet
                AzureBastionSubnet) and a public address.""",
            cli="""
                az network vnet subnet create --resource-group GROUP --vnet-name VNET \\
                  --name AzureBastionSubnet --address-prefixes 10.0.255.0/26
                az network bastion create --resource-group GROUP --name bastion \\
                  --vnet-name VNET --public-ip-address ADDRESS --sku Basic""",
            terraform="""
                resource "azurerm_bastion_host" "this" {
                  # ...
                  ip_configuration {
                    name                 = "configuration"
                    subnet_id            = azurerm_subnet.bastion.id
                    public_ip_address_id = azurerm_public_ip.bastion.id
                  }
                }""",
            by_hand="""A bastion costs money by the hour, and needs a subnet in a network and an
                address that only you can choose. One for many networks, by peering, is
                cheaper.""",
            breaks="""Nothing. Close the machines' own ports once everybody comes by the bastion,
                not before.""",
            back="Delete the bastion host, its address and its subnet.",
        ),
    ),
    Rule(
        id="azure_network_flow_log_of_groups_kept_90_days",
        kind="azure.network.flow_log",
        severity=Severity.MEDIUM,
        title="Flow logs of security groups are kept for 90 days or longer",
        passes=groups_logs_are_kept,
        fix=None,
        reads=(f"{WATCHERS}/read", f"{WATCHERS}/flowLogs/read"),
        writes=(),
        events=(f"{WATCHERS}/flowLogs/write", f"{WATCHERS}/flowLogs/delete"),
        aka=("cis-azure-5.0:7.5",),
        guide=written(
            means="""A flow log of a network security group is off, or forgets after fewer than 90
                days. 0 days, or no retention at all, means that it is kept for ever.""",
            matters="""Most break-ins are noticed after weeks. Which machine spoke with which can
                then be told by these logs, or by nothing.""",
            portal="""Network Watcher > Logs > Flow logs > the log > Retention (days): 90 or more,
                or 0 > Save. Azure takes no new logs of security groups any more, and ends them in
                2027: move to flow logs of virtual networks.""",
            cli="""
                az network watcher flow-log list --location REGION --output table
                az network watcher flow-log update --location REGION --name LOG \\
                  --enabled true --retention 90""",
            terraform="""
                resource "azurerm_network_watcher_flow_log" "this" {
                  # ... better of a virtual network: target_resource_id
                  enabled = true
                  retention_policy {
                    enabled = true
                    days    = 90
                  }
                }""",
            by_hand="""To write a flow log, one must be allowed to read the keys of the account that
                it goes to and to join the group that it is of: far more than a gate for one
                resource gives.""",
            breaks="Nothing. Storage costs money by volume.",
            back="Set the days that it had; what was deleted by then does not come back.",
        ),
    ),
)
