"""Azure Monitor's rules: a subscription that notices what is changed in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.model import Predicate, Resource, Rule, Severity
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, sequence, text

ALERTS = "Microsoft.Insights/activityLogAlerts"
LOGS = "Microsoft.Insights/diagnosticSettings"
INSIGHTS = "Microsoft.Insights/components"
_READS = ("Microsoft.Resources/subscriptions/read", f"{ALERTS}/read", f"{LOGS}/read")
_BY_HAND = """An alert is made in a resource group, and told to an action group, that only you can
    choose; write access to a whole resource group is more than Suture asks for."""


# --- alerts on the activity log ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Watched:
    """One kind of change that somebody must be told of: its operation, and the rule's words."""

    name: str
    what: str
    operation: str
    matters: str
    aka: tuple[str, ...]


def _conditions(alert: Mapping[str, Any]) -> dict[str, str]:
    """What an alert waits for: {field: value} in lower case, for conditions that stand alone."""
    condition = mapping(alert.get("condition"), "alerts.condition")
    found = {}
    for one in sequence(condition.get("allOf"), "alerts.condition.allOf"):
        leaf = mapping(one, "alerts.condition.allOf")
        if leaf.get("field") and leaf.get("equals") is not None:
            field = text(leaf["field"], "alerts.condition.field").lower()
            found[field] = text(leaf["equals"], "alerts.condition.equals").lower()
    return found


def _alerts(resource: Resource) -> Iterator[Mapping[str, Any]]:
    """The alerts that are on and watch the whole subscription, whatever group they lie in."""
    for entry in sequence(resource.config["alerts"], "alerts"):
        properties = mapping(mapping(entry, "alerts").get("properties"), "alerts.properties")
        scopes = sequence(properties.get("scopes"), "alerts.scopes")
        whole = any(
            text(scope, "alerts.scopes").lower().rstrip("/") == resource.id for scope in scopes
        )
        # Absent means on: that is how the API makes one that does not say.
        if whole and flag(properties.get("enabled", True), "alerts.enabled"):
            yield properties


# An alert may narrow what it waits for by these, and still hears of every change that was made.
_HARMLESS = {"category": {"administrative", "security", "policy"}, "operationname": None}


def _is_told_of(operation: str) -> Predicate:
    def passes(resource: Resource) -> bool:
        """Some alert waits for the operation, and for nothing that would leave a change out."""
        for alert in _alerts(resource):
            waits_for = _conditions(alert)
            all_of = sequence(mapping(alert["condition"], "alerts.condition")["allOf"], "allOf")
            narrow = [
                field
                for field, value in waits_for.items()
                if field not in _HARMLESS or value not in (_HARMLESS[field] or {value})
            ]
            if (
                waits_for.get("operationname") == operation.lower()
                and not narrow
                and len(all_of) == len(waits_for)
            ):
                return True
        return False

    return passes


def _alert(one: Watched) -> Rule:
    return Rule(
        id=f"azure_monitor_activity_log_{one.name}_alert",
        kind="azure.monitor.activity_log",
        severity=Severity.MEDIUM,
        title=f"Somebody is told when {one.what}",
        passes=_is_told_of(one.operation),
        fix=None,
        reads=_READS,
        writes=(),
        events=(f"{ALERTS}/write", f"{ALERTS}/delete"),
        aka=one.aka,
        guide=written(
            means=f"""No activity log alert that is on waits, over the whole subscription, for
                {one.operation}. Alerts that wait for more conditions at once (a status, a caller,
                a level) may leave a change out, and do not count.""",
            matters=one.matters,
            portal="""Monitor > Alerts > Create > Alert rule. Scope: the subscription. Condition:
                the signal of this operation, all levels and statuses. Actions: the action group of
                those who watch.""",
            cli=f"""
                az monitor activity-log alert create --resource-group GROUP \\
                  --name {one.name}-alert --scope /subscriptions/SUBSCRIPTION \\
                  --action-group ACTION_GROUP_ID \\
                  --condition category=Administrative and operationName={one.operation}""",
            terraform=f"""
                resource "azurerm_monitor_activity_log_alert" "{one.name}" {{
                  name                = "{one.name}-alert"
                  resource_group_name = azurerm_resource_group.this.name
                  location            = "global"
                  scopes              = [data.azurerm_subscription.this.id]
                  criteria {{
                    category       = "Administrative"
                    operation_name = "{one.operation}"
                  }}
                  action {{
                    action_group_id = azurerm_monitor_action_group.this.id
                  }}
                }}""",
            by_hand=_BY_HAND,
            breaks="Nothing; whoever is in the action group gets messages.",
            back="Delete the alert rule.",
        ),
    )


def _p(name: str) -> str:
    return f"prowler:monitor_alert_{name}"


_POLICY = "Policies are what keeps a whole subscription in order; who removes one opens many doors."
_NSG = "Whoever changes a network security group may open a machine to the internet."
_SOLUTION = "Who changes what watches for attacks may be about to make one."
_SQL = "A firewall rule of a database server is one line from letting the internet in."
_ADDRESS = "A public address puts something on the internet that may never have been meant for it."
# fmt: off
ALERTED = tuple(_alert(one) for one in (
    Watched("policy_assignment_write", "a policy is assigned",
            "Microsoft.Authorization/policyAssignments/write", _POLICY,
            (_p("create_policy_assignment"), "cis-azure-5.0:6.1.2.1")),
    Watched("policy_assignment_delete", "a policy assignment is deleted",
            "Microsoft.Authorization/policyAssignments/delete", _POLICY,
            (_p("delete_policy_assignment"), "cis-azure-5.0:6.1.2.2")),
    Watched("security_group_write", "a network security group is changed",
            "Microsoft.Network/networkSecurityGroups/write", _NSG,
            (_p("create_update_nsg"), "cis-azure-5.0:6.1.2.3", "cloudsploit:nsgLoggingEnabled")),
    Watched("security_group_delete", "a network security group is deleted",
            "Microsoft.Network/networkSecurityGroups/delete", _NSG,
            (_p("delete_nsg"), "cis-azure-5.0:6.1.2.4")),
    Watched("security_solution_write", "a security solution is changed",
            "Microsoft.Security/securitySolutions/write", _SOLUTION,
            (_p("create_update_security_solution"), "cis-azure-5.0:6.1.2.5")),
    Watched("security_solution_delete", "a security solution is deleted",
            "Microsoft.Security/securitySolutions/delete", _SOLUTION,
            (_p("delete_security_solution"), "cis-azure-5.0:6.1.2.6")),
    Watched("sql_firewall_write", "a SQL server's firewall is changed",
            "Microsoft.Sql/servers/firewallRules/write", _SQL,
            (_p("create_update_sqlserver_fr"), "cis-azure-5.0:6.1.2.7")),
    Watched("sql_firewall_delete", "a SQL server's firewall rule is deleted",
            "Microsoft.Sql/servers/firewallRules/delete", _SQL,
            (_p("delete_sqlserver_fr"), "cis-azure-5.0:6.1.2.8")),
    Watched("public_address_write", "a public IP address is made or changed",
            "Microsoft.Network/publicIPAddresses/write", _ADDRESS,
            (_p("create_update_public_ip_address_rule"), "cis-azure-5.0:6.1.2.9")),
    Watched("public_address_delete", "a public IP address is deleted",
            "Microsoft.Network/publicIPAddresses/delete", _ADDRESS,
            (_p("delete_public_ip_address_rule"), "cis-azure-5.0:6.1.2.10")),
))
# fmt: on


def hears_of_incidents(resource: Resource) -> bool:
    """An alert that is on waits for Service Health, whatever kinds of incident it narrows to."""
    return any(_conditions(alert).get("category") == "servicehealth" for alert in _alerts(resource))


# --- the activity log's own export -------------------------------------------------------------

CATEGORIES = ("Administrative", "Alert", "Policy", "Security")
_SINKS = ("workspaceId", "storageAccountId", "eventHubAuthorizationRuleId", "marketplacePartnerId")


def _exported(resource: Resource) -> list[set[str]]:
    """For each diagnostic setting that leads somewhere, the categories that it sends."""
    found = []
    for entry in sequence(resource.config["exports"], "exports"):
        properties = mapping(mapping(entry, "exports").get("properties"), "exports.properties")
        if any(properties.get(sink) for sink in _SINKS):
            found.append(set(_sent(sequence(properties.get("logs", ()), "exports.logs"))))
    return found


def _sent(logs: Sequence[Any]) -> Iterator[str]:
    for one in logs:
        log = mapping(one, "exports.logs")
        if flag(log.get("enabled"), "exports.logs.enabled"):
            if log.get("categoryGroup"):
                yield from CATEGORIES if log["categoryGroup"] == "allLogs" else ()
            else:
                yield text(log.get("category"), "exports.logs.category")


def is_exported(resource: Resource) -> bool:
    """The activity log is sent somewhere: Azure itself forgets it after 90 days."""
    return any(_exported(resource))


def exports_what_matters(resource: Resource) -> bool:
    """All four categories that tell of changes are sent, by one setting or by several."""
    sent = {category for one in _exported(resource) for category in one}
    return set(CATEGORIES) <= sent


def _guide(means: str, matters: str, cli: str, terraform: str, by_hand: str, portal: str) -> str:
    return written(
        means=means,
        matters=matters,
        portal=portal,
        cli=cli,
        terraform=terraform,
        by_hand=by_hand,
        breaks="Nothing; what receives the log may cost money.",
        back="Delete what was made.",
    )


_EXPORT_CLI = """
    az monitor diagnostic-settings subscription create --name activity-log --location global \\
      --workspace WORKSPACE_ID --logs '[{"category": "Administrative", "enabled": true},
        {"category": "Alert", "enabled": true}, {"category": "Policy", "enabled": true},
        {"category": "Security", "enabled": true}]'"""
_EXPORT_TERRAFORM = """
    resource "azurerm_monitor_diagnostic_setting" "activity_log" {
      name                       = "activity-log"
      target_resource_id         = data.azurerm_subscription.this.id
      log_analytics_workspace_id = azurerm_log_analytics_workspace.this.id
      enabled_log { category = "Administrative" }
      enabled_log { category = "Alert" }
      enabled_log { category = "Policy" }
      enabled_log { category = "Security" }
    }"""
_EXPORT_PORTAL = """Monitor > Activity log > Export activity logs > Add diagnostic setting: the four
    categories Administrative, Alert, Policy and Security, to a workspace or a storage account."""
_EXPORT_BY_HAND = """Where the log is to be kept, and for whom to read, only you can say."""


def _export(
    name: str, title: str, passes: Predicate, means: str, matters: str, aka: tuple[str, ...]
) -> Rule:
    return Rule(
        id=f"azure_monitor_activity_log_{name}",
        kind="azure.monitor.activity_log",
        severity=Severity.MEDIUM,
        title=title,
        passes=passes,
        fix=None,
        reads=_READS,
        writes=(),
        events=(f"{LOGS}/write", f"{LOGS}/delete"),
        aka=aka,
        guide=_guide(
            means, matters, _EXPORT_CLI, _EXPORT_TERRAFORM, _EXPORT_BY_HAND, _EXPORT_PORTAL
        ),
    )


RULES = (
    *ALERTED,
    Rule(
        id="azure_monitor_activity_log_service_health_alert",
        kind="azure.monitor.activity_log",
        severity=Severity.LOW,
        title="Somebody is told when Azure itself has trouble",
        passes=hears_of_incidents,
        fix=None,
        reads=_READS,
        writes=(),
        events=(f"{ALERTS}/write", f"{ALERTS}/delete"),
        aka=("prowler:monitor_alert_service_health_exists", "cis-azure-5.0:6.1.2.11"),
        guide=_guide(
            means="""No alert that is on waits for events of Service Health over the whole
                subscription.""",
            matters="""Outages and security advisories of Azure look like trouble of your own until
                somebody reads them, and some ask you to act by a date.""",
            portal="Service Health > Health alerts > Add service health alert.",
            cli="""
                az monitor activity-log alert create --resource-group GROUP --name health \\
                  --scope /subscriptions/SUBSCRIPTION --action-group ACTION_GROUP_ID \\
                  --condition category=ServiceHealth""",
            terraform="""
                resource "azurerm_monitor_activity_log_alert" "health" {
                  name                = "health"
                  resource_group_name = azurerm_resource_group.this.name
                  location            = "global"
                  scopes              = [data.azurerm_subscription.this.id]
                  criteria {
                    category = "ServiceHealth"
                  }
                  action {
                    action_group_id = azurerm_monitor_action_group.this.id
                  }
                }""",
            by_hand=_BY_HAND,
        ),
    ),
    _export(
        "exported",
        "The activity log is kept outside of Azure's ninety days",
        is_exported,
        "No diagnostic setting of the subscription sends the activity log anywhere.",
        """Azure forgets the activity log after 90 days. Who looks into a break-in later than that
            finds nothing.""",
        ("prowler:monitor_diagnostic_settings_exists", "cis-azure-5.0:6.1.1.1"),
    ),
    _export(
        "categories_exported",
        "The activity log that is kept tells of every change",
        exports_what_matters,
        """The diagnostic settings together do not send all of the categories Administrative, Alert,
            Policy and Security.""",
        "A log that leaves out a category is silent about just what somebody will ask for.",
        (
            "prowler:monitor_diagnostic_setting_with_appropriate_categories",
            "cis-azure-5.0:6.1.1.2",
        ),
    ),
    Rule(
        id="azure_monitor_subscription_application_insights",
        kind="azure.monitor.subscription",
        severity=Severity.LOW,
        title="Some application reports to Application Insights",
        passes=lambda resource: flag(resource.config["components"], "components"),
        fix=None,
        reads=("Microsoft.Resources/subscriptions/read", f"{INSIGHTS}/read"),
        writes=(),
        events=(f"{INSIGHTS}/write", f"{INSIGHTS}/delete"),
        aka=("prowler:appinsights_ensure_is_configured", "cis-azure-5.0:6.1.3.1"),
        guide=_guide(
            means="""The subscription has no Application Insights at all: what its applications do
                is told by their own logs, if anywhere. A subscription without applications needs
                none, and is an exception to write down.""",
            matters="""Errors, slow answers and odd calls of an application are the first that is
                seen of an attack on it, by those who look.""",
            portal="""Application Insights > Create > a resource group, a region and a workspace;
                then turn it on in the application: App Services > the app > Monitoring >
                Application Insights.""",
            cli="""
                az monitor app-insights component create --resource-group GROUP --app NAME \
                  --location REGION --workspace WORKSPACE_ID""",
            terraform="""
                resource "azurerm_application_insights" "this" {
                  name                = "web"
                  resource_group_name = azurerm_resource_group.this.name
                  location            = azurerm_resource_group.this.location
                  workspace_id        = azurerm_log_analytics_workspace.this.id
                  application_type    = "web"
                }""",
            by_hand="""It is of no use until applications report to it, and where what they say is
                kept, and may be read, is for you to choose.""",
        ),
    ),
)
