"""Azure SQL's rules: who reaches a logical server, by which TLS, and what is written down of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from ipaddress import AddressValueError, IPv4Address, summarize_address_range
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Config, Fix, Predicate, Resource, Rule, Severity, Step
from tasks.rules.azure.setting import PROPERTIES, Home, is_set, setting, value_at, word
from tasks.rules.guide import written
from tasks.rules.network import Network, exposing, is_internet
from tasks.rules.shape import mapping, odd, sequence, text

API_VERSION = "2021-11-01"
KIND = "azure.sql.server"
SERVER = "Microsoft.Sql/servers"
READ, WRITE = f"{SERVER}/read", f"{SERVER}/write"
RULES_READ = f"{SERVER}/firewallRules/read"
RULES_WRITE = f"{SERVER}/firewallRules/write"
RULES_DELETE = f"{SERVER}/firewallRules/delete"
AUDIT_READ = f"{SERVER}/auditingSettings/read"
AUDIT_WRITE = f"{SERVER}/auditingSettings/write"
ENTRA_READ = f"{SERVER}/azureADOnlyAuthentications/read"
ENTRA_WRITE = f"{SERVER}/azureADOnlyAuthentications/write"
FIREWALL, AUDIT, ENTRA = "firewallRules", "auditingSettings", "azureADOnlyAuthentications"

_OWN = Home(method="PATCH", api_version=API_VERSION, action=WRITE)


# --- the firewall -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FirewallRule:
    """Addresses that may connect. From 0.0.0.0 to 0.0.0.0 stands for everything in Azure."""

    name: str
    first: IPv4Address
    last: IPv4Address

    @property
    def is_azure(self) -> bool:
        return int(self.first) == int(self.last) == 0

    @property
    def networks(self) -> tuple[Network, ...]:
        return () if self.is_azure else tuple(summarize_address_range(self.first, self.last))

    @property
    def properties(self) -> dict[str, str]:
        return {"startIpAddress": str(self.first), "endIpAddress": str(self.last)}

    def __str__(self) -> str:
        return "all of Azure" if self.is_azure else f"{self.first} to {self.last}"


Guilty = Callable[[Iterable[FirewallRule]], list[FirewallRule]]


def firewall(resource: Resource) -> list[FirewallRule]:
    return [_rule(one) for one in sequence(resource.config[FIREWALL], FIREWALL)]


def _rule(entry: Any) -> FirewallRule:
    given = mapping(entry, FIREWALL)
    body = mapping(given.get("properties"), f"{FIREWALL}.properties")
    ends = [text(body.get(end), f"{FIREWALL}.{end}") for end in ("startIpAddress", "endIpAddress")]
    try:
        first, last = map(IPv4Address, ends)
    except AddressValueError:
        raise odd(f"{FIREWALL}.properties") from None
    if first > last:
        raise odd(f"{FIREWALL}.properties")
    return FirewallRule(text(given.get("name"), f"{FIREWALL}.name"), first, last)


def opening(rules: Iterable[FirewallRule]) -> list[FirewallRule]:
    """The rules that let in the whole internet: each by itself, and then several together."""
    every = list(rules)
    left = [one for one in every if not is_internet(one.networks)]
    while worlds := exposing(net for one in left for net in one.networks):
        left = [one for one in left if not worlds & set(one.networks)]
    return [one for one in every if one not in left]


def _azure(rules: Iterable[FirewallRule]) -> list[FirewallRule]:
    return [one for one in rules if one.is_azure]


def _is_reached(resource: Resource) -> bool:
    """Whether the firewall matters: without public access it lets nobody in, and cannot change."""
    access = text(value_at(resource, PROPERTIES, _ACCESS), f"properties.{_ACCESS}")
    if access not in {"Enabled", "Disabled", "SecuredByPerimeter"}:
        raise odd(f"properties.{_ACCESS}")
    return access == "Enabled"


_ACCESS = "publicNetworkAccess"


def closed_to(guilty: Guilty) -> Predicate:
    def passes(resource: Resource) -> bool:
        return not guilty(firewall(resource)) or not _is_reached(resource)

    return passes


def delete(guilty: Guilty) -> Fix:
    """A planner: deletes the very rules, each of which its undo makes again."""
    passes = closed_to(guilty)

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        if passes(resource):
            return ()
        return tuple(_delete(resource, one) for one in guilty(firewall(resource)))

    return fix


def _delete(resource: Resource, rule: FirewallRule) -> Step:
    target = f"{resource.id}/firewallRules/{rule.name}"
    call = Call(Cloud.AZURE, API_VERSION, "DELETE", {}, target)
    back = Call(Cloud.AZURE, API_VERSION, "PUT", {"properties": rule.properties}, target)
    change = Change(f"firewall rule {rule.name}", f"lets in {rule}", "deleted")
    return Step(RULES_DELETE, call, (back,), (change,))


# --- TLS --------------------------------------------------------------------------------------

_TLS = "minimalTlsVersion"
asks_for_new_tls = is_set(_OWN, _TLS, ("1.2", "1.3"), ("None", "1.0", "1.1"), absent=False)


def ask_for_new_tls(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Azure no longer takes less than 1.2 for a server: the undo can only leave it there."""
    if asks_for_new_tls(resource):
        return ()
    call = _OWN.call(resource, {_TLS: "1.2"})
    before = f"{word(value_at(resource, PROPERTIES, _TLS))} (an undo cannot bring that back)"
    after = "1.2: clients that speak only TLS 1.0 or 1.1, or none, are refused"
    return (Step(WRITE, call, (call,), (Change(f"properties.{_TLS}", before, after),)),)


def _stays_new(before: Resource) -> Resource:
    properties = {**mapping(before.config[PROPERTIES], PROPERTIES), _TLS: "1.2"}
    parts = {**before.config.as_dict(), PROPERTIES: properties}
    return replace(before, config=Config(parts, before.config.gaps))


# --- auditing ---------------------------------------------------------------------------------

_AUDIT = Home(
    method="PUT",
    api_version=API_VERSION,
    action=AUDIT_WRITE,
    part=AUDIT,
    path="/auditingSettings/default",
)
is_audited = is_set(_AUDIT, "state", ("Enabled",), ("Disabled",), absent=None)


def audit(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Events go to Azure Monitor, which needs no key. What else was set stays.

    Raises BadInput where the settings name a storage account by a key: Azure does not show the
    key, and without it neither the fix nor its undo could write the settings.
    """
    if is_audited(resource):
        return ()
    old = {
        name: one
        for name, one in mapping(resource.config[AUDIT], AUDIT).items()
        if one is not None and one != ""
    }
    if "storageEndpoint" in old and old.get("isManagedIdentityInUse") is not True:
        raise BadInput(
            "resource",
            "its auditing settings name a storage account whose key Azure does not show.",
            "Turn auditing on by hand, with the key or a managed identity.",
        )
    wanted = {**old, "state": "Enabled", "isAzureMonitorTargetEnabled": True}
    if not wanted.get("auditActionsAndGroups"):
        wanted.pop("auditActionsAndGroups", None)  # Azure then takes its own choice
    after = "Enabled, to Azure Monitor: sign-ins and statements, once a diagnostic setting is there"
    change = Change(f"{AUDIT}.state", "Disabled", after)
    undo = (_AUDIT.call(resource, old),)
    return (Step(AUDIT_WRITE, _AUDIT.call(resource, wanted), undo, (change,)),)


is_entra_only = is_set(
    replace(_AUDIT, action=ENTRA_WRITE, part=ENTRA),
    "azureADOnlyAuthentication",
    (True,),
    (False,),
    absent=False,
)


# --- the table --------------------------------------------------------------------------------


def _firewall_row(
    name: str, severity: Severity, title: str, guilty: Guilty, guide: str, aka: tuple[str, ...] = ()
) -> Rule:
    return Rule(
        id=f"azure_sql_server_{name}",
        kind=KIND,
        severity=severity,
        title=title,
        passes=closed_to(guilty),
        fix=delete(guilty),
        reads=(READ, RULES_READ),
        writes=(RULES_DELETE, RULES_WRITE),
        events=(WRITE, RULES_WRITE, RULES_DELETE),
        aka=aka,
        guide=guide,
    )


RULES = (
    _firewall_row(
        "internet_not_let_in",
        Severity.CRITICAL,
        "SQL server's firewall does not let in the whole internet",
        opening,
        aka=("prowler:sqlserver_unrestricted_inbound_access",),
        guide=written(
            means="""Firewall rules let every address of the internet connect: one from 0.0.0.0 to
                255.255.255.255, or several that add up to that. A server without public network
                access passes, for its firewall lets nobody in.""",
            matters="""Passwords of databases that can be reached are guessed all day, by everybody,
                and one good guess is all of the data.""",
            portal="SQL servers > the server > Security > Networking > Firewall rules.",
            cli="az sql server firewall-rule delete -g GROUP -s SERVER -n RULE",
            terraform="""
                resource "azurerm_mssql_firewall_rule" "office" {
                  server_id        = azurerm_mssql_server.this.id
                  name             = "office"
                  start_ip_address = "203.0.113.10"
                  end_ip_address   = "203.0.113.20"
                }""",
            fix="""It deletes the very rules that open the server, and no other: smaller ranges
                stay, so that those who are named can still connect.""",
            breaks="""Clients that got in by such a rule and by no other. Give them rules of their
                own first, or a private endpoint.""",
            back="Suture's undo makes the same rules again, with the same names and addresses.",
        ),
    ),
    _firewall_row(
        "azure_not_let_in",
        Severity.MEDIUM,
        "SQL server's firewall does not let in everything that runs in Azure",
        _azure,
        guide=written(
            means="""A rule from 0.0.0.0 to 0.0.0.0 (the portal names it AllowAllWindowsAzureIps)
                lets in every address of Azure: those of all its other customers, too.""",
            matters="""Anybody can rent a machine in Azure for an hour and try passwords from it;
                the firewall then stops nobody.""",
            portal="""SQL servers > the server > Security > Networking > Exceptions > Allow Azure
                services and resources to access this server.""",
            cli="az sql server firewall-rule delete -g GROUP -s SERVER -n AllowAllWindowsAzureIps",
            terraform="""
                resource "azurerm_mssql_virtual_network_rule" "app" {
                  server_id = azurerm_mssql_server.this.id
                  name      = "app"
                  subnet_id = azurerm_subnet.app.id
                }""",
            fix="It deletes that rule, and no other.",
            breaks="""Services in Azure that connect without a rule of their own: App Service, Data
                Factory, the portal's query editor, import and export. Give them a virtual network
                rule or a private endpoint first.""",
            back="Suture's undo makes the rule again, with its name.",
        ),
    ),
    Rule(
        id="azure_sql_server_minimum_tls",
        kind=KIND,
        severity=Severity.MEDIUM,
        title="SQL server asks for TLS 1.2 or newer",
        passes=asks_for_new_tls,
        fix=ask_for_new_tls,
        reads=(READ,),
        writes=(WRITE,),
        events=(WRITE,),
        aka=(
            "cloudsploit:sqlServerTlsVersion",
            "prowler:sqlserver_recommended_minimal_tls_version",
        ),
        undone=_stays_new,
        guide=written(
            means="""The server names no least version of TLS, or 1.0 or 1.1. Without one it even
                takes connections that are not encrypted at all.""",
            matters="""What is asked and answered can then be read on its way, or somebody on the
                way can push the connection down to a version with known weaknesses.""",
            portal="SQL servers > the server > Security > Networking > Connectivity > Encryption.",
            cli="az sql server update -g GROUP -n SERVER --minimal-tls-version 1.2",
            terraform="""
                resource "azurerm_mssql_server" "this" {
                  minimum_tls_version = "1.2"
                }""",
            fix="It sets minimalTlsVersion to 1.2.",
            breaks="""Clients with old drivers that speak nothing newer. See in the server's metrics
                whether anybody connects with less before you approve: there is no way back.""",
            back="""There is none: Azure no longer takes anything older than 1.2 for a server, so
                Suture's undo leaves 1.2 there.""",
        ),
    ),
    setting(
        "azure_sql_server_public_network_off",
        KIND,
        Severity.HIGH,
        "SQL server has no public network access",
        _OWN,
        _ACCESS,
        good=("Disabled", "SecuredByPerimeter"),
        bad=("Enabled",),
        meaning="only private endpoints reach the server; its firewall rules stay, without effect",
        reads=(READ,),
        guide=written(
            means="""The server has a public address that its firewall rules may open. A server that
                is only used from a virtual network needs none.""",
            matters="""With a private endpoint only, nobody outside gets as far as the sign-in, and
                a firewall rule that somebody adds in a hurry opens nothing.""",
            portal="SQL servers > the server > Security > Networking > Public access > Disable.",
            cli="az sql server update -g GROUP -n SERVER --enable-public-network false",
            terraform="""
                resource "azurerm_mssql_server" "this" {
                  public_network_access_enabled = false
                }""",
            fix="""It disables public network access. Look first whether the server has a private
                endpoint, and whether everybody who needs it comes that way.""",
            breaks="""Every client that connects to the public address, those in Azure too. Firewall
                and virtual network rules stay, but let nobody in.""",
        ),
    ),
    Rule(
        id="azure_sql_server_auditing_on",
        kind=KIND,
        severity=Severity.MEDIUM,
        title="SQL server keeps an audit log",
        passes=is_audited,
        fix=audit,
        reads=(READ, AUDIT_READ),
        writes=(AUDIT_WRITE,),
        events=(AUDIT_WRITE,),
        aka=("prowler:sqlserver_auditing_enabled",),
        guide=written(
            means="""Auditing of the server is disabled: who signed in and what was asked is not
                written down for any of its databases.""",
            matters="""After data was taken, the audit log is what tells by whom, when, and how
                much of it.""",
            portal="SQL servers > the server > Security > Auditing > Enable Azure SQL Auditing.",
            cli="""
                az sql server audit-policy update -g GROUP -n SERVER --state Enabled \\
                    --lats Enabled --lawri WORKSPACE_ID""",
            terraform="""
                resource "azurerm_mssql_server_extended_auditing_policy" "this" {
                  server_id              = azurerm_mssql_server.this.id
                  log_monitoring_enabled = true
                }""",
            fix="""It enables auditing with Azure Monitor as the target and Azure's own choice of
                events. They arrive once the master database has a diagnostic setting with the
                category SQLSecurityAuditEvents: that one needs a workspace of your choice. Where
                the settings name a storage account by a key, Suture refuses: it cannot see the key.
                """,
            breaks="Nothing. What a workspace takes in costs money by volume.",
        ),
    ),
    Rule(
        id="azure_sql_server_entra_only",
        kind=KIND,
        severity=Severity.MEDIUM,
        title="SQL server lets only identities of Entra sign in",
        passes=is_entra_only,
        fix=None,
        reads=(READ, ENTRA_READ),
        writes=(),
        events=(WRITE, ENTRA_WRITE),
        guide=written(
            means="""Users with a password that SQL Server itself keeps can sign in, the server's
                administrator among them.""",
            matters="""Such passwords know no second factor and no conditional access, are seldom
                changed, and go on working when their owner has left.""",
            portal="""SQL servers > the server > Settings > Microsoft Entra ID > Support only
                Microsoft Entra authentication.""",
            cli="""
                az sql server ad-admin create -g GROUP -s SERVER -u NAME -i OBJECT_ID
                az sql server ad-only-auth enable -g GROUP -n SERVER""",
            terraform="""
                resource "azurerm_mssql_server" "this" {
                  azuread_administrator {
                    azuread_authentication_only = true
                    login_username              = "dba"
                    object_id                   = var.dba_group
                  }
                }""",
            by_hand="""Every app that signs in with a SQL user stops at that moment, and nothing in
                the server's settings tells whether there is one. Who becomes the administrator is a
                choice, too: without one, it cannot be turned on.""",
            breaks="Apps, jobs and people who sign in with a user name and a password.",
            back="az sql server ad-only-auth disable -g GROUP -n SERVER",
        ),
    ),
)
