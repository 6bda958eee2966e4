"""Databricks: workspaces whose clusters and pages are in networks of one's own.

A workspace is only written whole, without an ETag to hold it to what was read, and with a join to
its network: all of its rules are guided.
"""

from __future__ import annotations

from tasks.model import Predicate, Resource, Rule, Severity
from tasks.rules.azure.private import endpoint_guide, has_private_endpoint
from tasks.rules.azure.setting import PROPERTIES, Home, is_set, value_at
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, sequence, text

TYPE = "Microsoft.Databricks/workspaces"
LOGS = "Microsoft.Insights/diagnosticSettings"
_WORKSPACE = Home(method="PUT", api_version="2024-05-01", action=f"{TYPE}/write")
_SINKS = ("workspaceId", "storageAccountId", "eventHubAuthorizationRuleId", "marketplacePartnerId")


def has_own_network(resource: Resource) -> bool:
    where = "properties.parameters.customVirtualNetworkId"
    network = value_at(resource, PROPERTIES, "parameters.customVirtualNetworkId.value")
    return network is not None and bool(text(network, where))


def is_logged(resource: Resource) -> bool:
    """Some diagnostic setting sends some log somewhere: which of them matter is yours to say."""
    part = "diagnosticSettings"
    sent = False
    for entry in sequence(resource.config[part], part):
        properties = mapping(mapping(entry, part).get("properties"), f"{part}.properties")
        logs = sequence(properties.get("logs", ()), f"{part}.logs")
        on = [flag(mapping(log, part).get("enabled"), f"{part}.logs.enabled") for log in logs]
        sent = sent or (any(on) and any(properties.get(sink) for sink in _SINKS))
    return sent


def _row(
    name: str,
    severity: Severity,
    title: str,
    passes: Predicate,
    aka: tuple[str, ...],
    guide: str,
    *,
    reads: tuple[str, ...] = (),
    events: tuple[str, ...] = (),
) -> Rule:
    return Rule(
        id=f"azure_databricks_workspace_{name}",
        kind="azure.databricks.workspace",
        severity=severity,
        title=title,
        passes=passes,
        fix=None,
        reads=(f"{TYPE}/read", *reads),
        writes=(),
        events=events or (f"{TYPE}/write",),
        aka=aka,
        guide=guide,
    )


_PLAN = """Clusters have to be stopped for it, the network needs two subnets that only Databricks
    uses, and Azure writes a workspace only whole."""

RULES = (
    _row(
        "own_network",
        Severity.MEDIUM,
        "Databricks workspace runs in a virtual network of yours",
        has_own_network,
        ("prowler:databricks_workspace_vnet_injection_enabled", "cis-azure-5.0:2.1.1"),
        written(
            means="""The workspace's clusters run in a network that Databricks made and locks, for
                the workspace names no network of yours.""",
            matters="""In that network you have no say: no security groups or routes of your own, no
                firewall on the way out, no private endpoints. Whoever runs a notebook can send
                data anywhere.""",
            portal="""Only at creation: Azure Databricks > Create > Networking > Deploy in your own
                Virtual Network: Yes. A workspace that stands can be moved by its template in some
                regions; see Azure's documentation.""",
            cli="""
                az databricks workspace create --resource-group GROUP --name WORKSPACE \\
                  --location REGION --sku premium --vnet VNET_ID \\
                  --public-subnet HOST_SUBNET --private-subnet CONTAINER_SUBNET \\
                  --enable-no-public-ip""",
            terraform="""
                resource "azurerm_databricks_workspace" "this" {
                  # ...
                  custom_parameters {
                    virtual_network_id  = azurerm_virtual_network.this.id
                    public_subnet_name  = "host"
                    private_subnet_name = "container"
                    # and the two associations of their security groups
                  }
                }""",
            by_hand=f"{_PLAN} Most workspaces have to be made anew, and moved into.",
            breaks="""What clusters reach today by public addresses may need routes, firewall rules
                or endpoints in the new network.""",
            back="There is none for a workspace that was moved. Keep the old until the new runs.",
        ),
    ),
    _row(
        "clusters_without_public_ip",
        Severity.MEDIUM,
        "Databricks clusters have no public IP addresses",
        is_set(_WORKSPACE, "parameters.enableNoPublicIp.value", (True,), (False,), absent=None),
        ("cis-azure-5.0:2.1.9",),
        written(
            means="""The workspace gives each machine of a cluster a public address: secure cluster
                connectivity (enableNoPublicIp) is off.""",
            matters="""Every such machine can be reached from the internet as far as its security
                group lets anybody, and goes out by an address that nobody can tell in advance.""",
            portal="""Azure Databricks > the workspace > Settings > Networking > Deploy Azure
                Databricks workspace with Secure Cluster Connectivity (No Public IP) > Save.""",
            cli="""
                az databricks workspace update --resource-group GROUP --name WORKSPACE \\
                  --enable-no-public-ip true""",
            terraform="""
                resource "azurerm_databricks_workspace" "this" {
                  # ...
                  custom_parameters {
                    no_public_ip = true
                  }
                }""",
            by_hand=f"{_PLAN} And a way out (a NAT gateway or firewall) has to be there first.",
            breaks="""Everything that clusters fetch from the internet, if their subnets have no way
                out. Partners that let in the old addresses have to let in that of the gateway.""",
            back="Set it to false again, with the clusters stopped.",
        ),
    ),
    _row(
        "public_network_access_off",
        Severity.HIGH,
        "Databricks workspace is closed to public networks",
        is_set(_WORKSPACE, "publicNetworkAccess", ("Disabled",), ("Enabled",), absent=False),
        (
            "prowler:databricks_workspace_public_network_access_disabled",
            "cis-azure-5.0:2.1.10",
        ),
        written(
            means="""The workspace's pages and interfaces answer the internet: publicNetworkAccess
                is Enabled, or was never set, which means that.""",
            matters="""A stolen token then reads notebooks, secrets and data from anywhere. With
                private access only, its thief must be in your network, too.""",
            portal="""Azure Databricks > the workspace > Settings > Networking > Allow Public
                Network Access: Disabled > Save.""",
            cli="""
                az databricks workspace update --resource-group GROUP --name WORKSPACE \\
                  --public-network-access Disabled \\
                  --required-nsg-rules NoAzureDatabricksRules""",
            terraform="""
                resource "azurerm_databricks_workspace" "this" {
                  # ...
                  public_network_access_enabled         = false
                  network_security_group_rules_required = "NoAzureDatabricksRules"
                }""",
            by_hand="""It works only for a workspace in a network of yours, with private endpoints
                for pages and for clusters, and DNS that leads to them. Azure writes a workspace
                only whole, and has no ETag that would keep two writers apart.""",
            breaks="""Everybody who does not come by a private endpoint is shut out: people,
                pipelines, Power BI. Make the endpoints, and try them, first.""",
            back="Set it to Enabled again in the same place.",
        ),
    ),
    _row(
        "private_endpoint",
        Severity.MEDIUM,
        "Databricks workspace has a private endpoint",
        has_private_endpoint,
        ("cis-azure-5.0:2.1.11",),
        endpoint_guide(
            "workspace", "Azure Databricks > the workspace > Settings", "databricks_ui_api"
        ),
    ),
    _row(
        "logged",
        Severity.MEDIUM,
        "Databricks workspace sends its logs somewhere",
        is_logged,
        ("cis-azure-5.0:2.1.7",),
        written(
            means="""No diagnostic setting of the workspace sends any of its logs to a workspace of
                Log Analytics, a storage account or an event hub.""",
            matters="""Who ran which notebook, read which secret or shared which table is told by
                these logs alone, and Azure keeps none of them unasked.""",
            portal="""Azure Databricks > the workspace > Monitoring > Diagnostic settings > Add
                diagnostic setting > allLogs > Send to Log Analytics workspace > Save. It needs the
                premium tier.""",
            cli="""
                az monitor diagnostic-settings create --name logs --resource WORKSPACE_ID \\
                  --workspace LOG_WORKSPACE_ID \\
                  --logs '[{"categoryGroup": "allLogs", "enabled": true}]'""",
            terraform="""
                resource "azurerm_monitor_diagnostic_setting" "databricks" {
                  name                       = "logs"
                  target_resource_id         = azurerm_databricks_workspace.this.id
                  log_analytics_workspace_id = azurerm_log_analytics_workspace.this.id
                  enabled_log {
                    category_group = "allLogs"
                  }
                }""",
            by_hand="""Where logs go, for how long, and who may read them is your choice, and what
                is stored is paid for.""",
            breaks="Nothing. Busy workspaces write much: mind what it costs.",
            back="Delete the diagnostic setting; what was logged stays for its time.",
        ),
        reads=(f"{LOGS}/read",),
        events=(f"{LOGS}/write", f"{LOGS}/delete"),
    ),
)
