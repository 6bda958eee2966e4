"""App Service's rules: how a site may be reached, who may reach it, and what it signs in as."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.model import Call, Change, Cloud, Config, Resource, Rule, Severity, Step
from tasks.rules.azure.setting import PROPERTIES, Home, is_set, setting, value_at
from tasks.rules.guide import written
from tasks.rules.network import (
    ALLOWED_CIDRS,
    ANYWHERE,
    Network,
    allowed_networks,
    exposing,
    is_internet,
    network,
    public,
    refuse_internet,
    subtract,
)
from tasks.rules.shape import flag, mapping, number, odd, sequence, text

API_VERSION = "2023-12-01"
SITE = "Microsoft.Web/sites"
WRITE = f"{SITE}/write"
CONFIG_WRITE = f"{SITE}/config/write"
READ = f"{SITE}/read"
CONFIG_READ = f"{SITE}/config/read"
LOGS_READ = "Microsoft.Insights/diagnosticSettings/read"
LOGS_WRITE = "Microsoft.Insights/diagnosticSettings/write"
LOGS_DELETE = "Microsoft.Insights/diagnosticSettings/delete"
KIND = "azure.web.site"
WEB, AUTH, LOGS = "config/web", "config/authsettingsV2", "diagnosticSettings"

_OWN = Home(method="PATCH", api_version=API_VERSION, action=WRITE)
_WEB = Home(
    method="PATCH", api_version=API_VERSION, action=CONFIG_WRITE, part=WEB, path="/config/web"
)


# --- who is let in ----------------------------------------------------------------------------

_LAST = 2147483647  # the priority of the entry that Azure shows for everybody else
_DENY_REST = {
    "ipAddress": "Any",
    "action": "Deny",
    "priority": _LAST,
    "name": "Deny all",
    "description": "Deny all access",
}
_RESTRICTIONS = "ipSecurityRestrictions"
_DEFAULT = "ipSecurityRestrictionsDefaultAction"
_WHO = replace(ALLOWED_CIDRS, label="Networks that may still reach the site", required=True)


@dataclass(frozen=True, slots=True)
class Restriction:
    """One access restriction: what it does, and to which networks that anybody could count on.

    A subnet, a service tag other than Internet, or a header that must be there, names none.
    """

    allows: bool
    priority: int
    networks: tuple[Network, ...]
    body: Mapping[str, Any]


def restrictions(resource: Resource) -> tuple[Restriction, ...]:
    """The site's restrictions in the order App Service tries them."""
    where = f"{WEB}.{_RESTRICTIONS}"
    listed = value_at(resource, WEB, _RESTRICTIONS)
    entries = [_restriction(mapping(one, where)) for one in sequence(listed or (), where)]
    # Of two with one priority either may be the first: the one that lets in is taken to be.
    return tuple(sorted(entries, key=lambda one: (one.priority, not one.allows)))


def _restriction(body: Mapping[str, Any]) -> Restriction:
    action = text(body.get("action"), f"{WEB}.{_RESTRICTIONS}.action").lower()
    if action not in {"allow", "deny"}:
        raise odd(f"{WEB}.{_RESTRICTIONS}.action")
    priority = number(body.get("priority"), f"{WEB}.{_RESTRICTIONS}.priority")
    return Restriction(action == "allow", priority, _networks(body), body)


def _networks(body: Mapping[str, Any]) -> tuple[Network, ...]:
    where = f"{WEB}.{_RESTRICTIONS}"
    headers = mapping(body.get("headers") or {}, f"{where}.headers")
    written_as = body.get("ipAddress")
    if any(headers.values()) or written_as is None:
        return ()
    address = text(written_as, f"{where}.ipAddress")
    if str(body.get("tag") or "Default").lower() == "servicetag":
        return ANYWHERE if address.lower() == "internet" else ()
    if address.lower() == "any":
        return ANYWHERE
    try:
        return tuple(network(one.strip()) for one in address.split(","))
    except ValueError:
        raise odd(f"{where}.ipAddress") from None


def _lets_the_rest_in(resource: Resource, entries: Sequence[Restriction]) -> bool:
    """Without a word on it, a site lets everybody in until it has its first restriction."""
    action = value_at(resource, WEB, _DEFAULT)
    if action is None:
        return not entries
    word = text(action, f"{WEB}.{_DEFAULT}").lower()
    if word not in {"allow", "deny"}:
        raise odd(f"{WEB}.{_DEFAULT}")
    return word == "allow"


def restricts_access(resource: Resource) -> bool:
    """Denying some networks restricts nobody else: what is left of the internet still counts."""
    entries = restrictions(resource)
    rest = Restriction(_lets_the_rest_in(resource, entries), _LAST, ANYWHERE, {})
    denied: list[Network] = []
    reached: list[Network] = []
    for one in (*entries, rest):
        if not one.allows:
            denied += one.networks
        elif past := subtract(public(one.networks), denied):
            if is_internet(one.networks):
                return _is_private(resource)
            reached += past
    return not is_internet(reached) or _is_private(resource)


def _is_private(resource: Resource) -> bool:
    """Whether nobody comes in but through a private endpoint."""
    access = value_at(resource, PROPERTIES, "publicNetworkAccess")
    if access in (None, ""):  # never chosen
        return False
    if text(access, "properties.publicNetworkAccess") not in {"Enabled", "Disabled"}:
        raise odd("properties.publicNetworkAccess")
    return bool(access == "Disabled")


def restrict_access(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Only ``allowed_cidrs`` get in, and whoever a restriction of the site's own names.

    The entries for the whole internet go, the networks take the place of the first of them, and
    the rest is denied. Raises BadAnswer where what is left would add up to the internet again.
    """
    if restricts_access(resource):
        return ()
    allowed = allowed_networks(values)
    entries = restrictions(resource)
    kept = [one for one in _named(entries) if one.priority < _LAST]
    new = [*(one.body for one in kept), *_entries(allowed, _place(entries, kept)), _DENY_REST]
    old = {_RESTRICTIONS: value_at(resource, WEB, _RESTRICTIONS) or []}
    wanted: dict[str, Any] = {_RESTRICTIONS: [dict(one) for one in new]}
    if value_at(resource, WEB, _DEFAULT) is not None:
        old[_DEFAULT], wanted[_DEFAULT] = value_at(resource, WEB, _DEFAULT), "Deny"
    if not restricts_access(_with(resource, wanted)):
        refuse_internet([*allowed, *(net for one in kept if one.allows for net in one.networks)])
    who = ", ".join(map(str, allowed)) or "nobody new"
    named = ", ".join(_word(one) for one in kept) or "none"
    change = Change(
        f"{WEB}.{_RESTRICTIONS}",
        "everybody on the internet may reach the site",
        f"{who}, and by the site's own restrictions: {named}; everybody else is denied",
    )
    undo = (_WEB.call(resource, old),)
    return (Step(CONFIG_WRITE, _WEB.call(resource, wanted), undo, (change,)),)


def _named(entries: Sequence[Restriction]) -> list[Restriction]:
    """Without what lets the internet in, one by one or several together."""
    left = [one for one in entries if not (one.allows and is_internet(one.networks))]
    while worlds := exposing(net for one in left if one.allows for net in one.networks):
        left = [one for one in left if not (one.allows and worlds & set(one.networks))]
    return left


def _place(entries: Sequence[Restriction], kept: Sequence[Restriction]) -> int:
    """The priority at which the internet was let in, or one after all that stays."""
    gone = [one.priority for one in entries if one not in kept and one.priority < _LAST]
    after = max((one.priority for one in kept), default=99) + 1
    return min(gone) if gone else min(after, _LAST - 1)


def _entries(allowed: Iterable[Network], priority: int) -> list[dict[str, Any]]:
    return [
        {"ipAddress": str(one), "action": "Allow", "priority": priority, "name": f"suture-{number}"}
        for number, one in enumerate(allowed, 1)
    ]


def _word(one: Restriction) -> str:
    who = one.body.get("ipAddress") or one.body.get("vnetSubnetResourceId") or "a condition"
    return f"{'allow' if one.allows else 'deny'} {who} at {one.priority}"


def _with(resource: Resource, changes: Mapping[str, Any]) -> Resource:
    parts = resource.config.as_dict()
    web = {**mapping(parts[WEB], WEB), **changes}
    return replace(resource, config=Config({**parts, WEB: web}, resource.config.gaps))


# --- what it signs in as ----------------------------------------------------------------------


def _identity(resource: Resource) -> tuple[set[str], Mapping[str, Any]]:
    """The kinds of identity that the site has, in ARM's words, and those given to it by hand."""
    identity = mapping(resource.config["identity"], "identity")
    kinds = {one.strip() for one in text(identity.get("type"), "identity.type").split(",")}
    if not kinds <= {"None", "SystemAssigned", "UserAssigned"}:
        raise odd("identity.type")
    given = identity.get("userAssignedIdentities")
    return kinds - {"None"}, mapping(given or {}, "identity.userAssignedIdentities")


def has_identity(resource: Resource) -> bool:
    """One of its own or one given to it: with either, no secret needs to lie in its settings."""
    return bool(_identity(resource)[0])


def give_identity(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """It gets one of its own; a site that passes keeps what it has, so nothing else can be lost."""
    if has_identity(resource):
        return ()
    change = Change("identity.type", "None", "SystemAssigned: an identity without any role yet")
    wanted, old = ({"identity": {"type": one}} for one in ("SystemAssigned", "None"))
    call = Call(Cloud.AZURE, API_VERSION, "PATCH", wanted, resource.id)
    back = Call(Cloud.AZURE, API_VERSION, "PATCH", old, resource.id)
    return (Step(WRITE, call, (back,), (change,)),)


# --- who its visitors are, and what is written down of them -------------------------------------

signs_visitors_in = is_set(
    Home(method="PUT", api_version=API_VERSION, action=CONFIG_WRITE, part=AUTH),
    "platform.enabled",
    (True,),
    (False,),
    absent=False,
)


def _is_function(resource: Resource) -> bool:
    kind = resource.config.get("kind")
    return kind is not None and "functionapp" in text(kind, "kind").lower()


def logs_requests(resource: Resource) -> bool:
    """Some diagnostic setting sends the category of requests, or the group with all of them.

    A function app has no such category and passes.
    """
    sent = [
        mapping(entry, f"{LOGS}.logs")
        for one in sequence(resource.config[LOGS], LOGS)
        for entry in sequence(_logs(mapping(one, LOGS)), f"{LOGS}.logs")
    ]
    chosen = [one for one in sent if flag(one.get("enabled"), f"{LOGS}.logs.enabled")]
    named = [one.get("category") or one.get("categoryGroup") for one in chosen]
    return "AppServiceHTTPLogs" in named or "allLogs" in named or _is_function(resource)


def _logs(one: Mapping[str, Any]) -> Any:
    return mapping(one.get("properties"), f"{LOGS}.properties").get("logs") or ()


# --- the table --------------------------------------------------------------------------------


def _terraform(line: str) -> str:
    return f'resource "azurerm_linux_web_app" "this" {{\n  site_config {{\n    {line}\n  }}\n}}'


def _web(
    name: str,
    severity: Severity,
    title: str,
    path: str,
    good: tuple[Any, ...],
    bad: tuple[Any, ...],
    meaning: str,
    guide: str,
    aka: tuple[str, ...] = (),
) -> Rule:
    """The row of one setting of config/web."""
    return setting(
        f"azure_web_site_{name}",
        KIND,
        severity,
        title,
        _WEB,
        path,
        good=good,
        bad=bad,
        meaning=meaning,
        reads=(READ, CONFIG_READ),
        events=(WRITE, CONFIG_WRITE),
        aka=aka,
        guide=guide,
    )


RULES = (
    setting(
        "azure_web_site_https_only",
        KIND,
        Severity.HIGH,
        "App Service site sends plain HTTP on to HTTPS",
        _OWN,
        "httpsOnly",
        good=(True,),
        bad=(False,),
        meaning="a request over plain HTTP is sent on to HTTPS",
        reads=(READ,),
        aka=("cloudsploit:httpsOnlyEnabled", "prowler:app_ensure_http_is_redirected_to_https"),
        guide=written(
            means="""The site answers requests over plain HTTP, where everybody on the way can read
                and change them. This is so for every site on which HTTPS only was not chosen.""",
            matters="""Cookies and forms that go over plain HTTP can be taken and used by others,
                and a page that comes over it can be replaced by another.""",
            portal="App Services > the app > Settings > Configuration > General > HTTPS Only.",
            cli="az webapp update -g GROUP -n APP --https-only true",
            terraform="""
                resource "azurerm_linux_web_app" "this" {
                  https_only = true
                }""",
            fix="It sets httpsOnly; App Service then answers plain HTTP with a redirect.",
            breaks="""Clients that do not follow redirects, and custom domains that have no
                certificate yet: bind one to each domain first. Health probes of a load balancer in
                front that ask over HTTP get a redirect.""",
        ),
    ),
    _web(
        "minimum_tls",
        Severity.MEDIUM,
        "App Service site asks for TLS 1.2 or newer",
        "minTlsVersion",
        ("1.2", "1.3"),
        ("1.0", "1.1"),
        "clients that speak only TLS 1.0 or 1.1 are refused",
        aka=("cloudsploit:tlsVersionCheck", "prowler:app_minimum_tls_version_12"),
        guide=written(
            means="The site still agrees to TLS 1.0 or 1.1 when a client offers nothing newer.",
            matters="""Both versions have known weaknesses and were withdrawn in 2021. While they
                are offered, somebody on the way can push a connection down to them.""",
            portal="App Services > the app > Configuration > General > Minimum TLS version.",
            cli="az webapp config set -g GROUP -n APP --min-tls-version 1.2",
            terraform=_terraform('minimum_tls_version = "1.2"'),
            fix="It sets the site's minTlsVersion to 1.2. The deployment site (scm) has its own.",
            breaks="Clients that speak nothing newer than TLS 1.1: old phones and old libraries.",
        ),
    ),
    _web(
        "http2_enabled",
        Severity.LOW,
        "App Service site speaks HTTP/2",
        "http20Enabled",
        (True,),
        (False,),
        "clients may use HTTP/2, others stay with HTTP/1.1",
        aka=("cloudsploit:http20Enabled", "prowler:app_ensure_using_http20"),
        guide=written(
            means="The site speaks HTTP/1.1 only, which is how App Service makes a site.",
            matters="""HTTP/2 carries many requests over one connection, and browsers speak it only
                over TLS. It makes a site quicker and keeps it on a protocol that is cared for.""",
            portal="App Services > the app > Configuration > General > HTTP version > 2.0.",
            cli="az webapp config set -g GROUP -n APP --http20-enabled true",
            terraform=_terraform("http2_enabled = true"),
            fix="It turns HTTP/2 on. Clients that do not speak it are answered as before.",
            breaks="""Nothing as a rule: the platform speaks HTTP/2 outward and HTTP/1.1 to the app.
                Client certificates that are asked for during a request do not work with it.""",
        ),
    ),
    _web(
        "plain_ftp_off",
        Severity.HIGH,
        "App Service site takes no deployments over plain FTP",
        "ftpsState",
        ("FtpsOnly", "Disabled"),
        ("AllAllowed",),
        "uploads over FTP need TLS",
        aka=("prowler:app_ftp_deployment_disabled",),
        guide=written(
            means="""Files can be uploaded to the site over FTP without encryption: its state is
                AllAllowed instead of FtpsOnly or Disabled.""",
            matters="""Plain FTP shows the deployment's user name and password to everybody on the
                way, and with these anybody can replace the site.""",
            portal="App Services > the app > Configuration > General > FTP state.",
            cli="az webapp config set -g GROUP -n APP --ftps-state FtpsOnly",
            terraform=_terraform('ftps_state = "FtpsOnly"'),
            fix="""It sets FtpsOnly, not Disabled: whoever deploys by FTP today can go on with a
                client that speaks TLS. Where nobody does, choose Disabled yourself.""",
            breaks="Deployments by a client or a script that speaks plain FTP only.",
        ),
    ),
    _web(
        "remote_debugging_off",
        Severity.HIGH,
        "App Service site has remote debugging turned off",
        "remoteDebuggingEnabled",
        (False,),
        (True,),
        "no debugger can attach to the running app",
        guide=written(
            means="""A debugger can be attached to the running app from outside. Azure turns that
                off by itself after 48 hours, but not where something turns it on again.""",
            matters="""A debugger reads the app's memory with all its secrets and can run any code
                in it. The ports it needs are open for as long.""",
            portal="App Services > the app > Configuration > General settings > Remote debugging.",
            cli="az webapp config set -g GROUP -n APP --remote-debugging-enabled false",
            terraform=_terraform("remote_debugging_enabled = false"),
            fix="It turns remote debugging off; App Service restarts the app for that.",
            breaks="A debugging session that is going on just now.",
        ),
    ),
    Rule(
        id="azure_web_site_access_restricted",
        kind=KIND,
        severity=Severity.MEDIUM,
        title="App Service site is not open to the whole internet",
        passes=restricts_access,
        fix=restrict_access,
        inputs=(_WHO,),
        reads=(READ, CONFIG_READ),
        writes=(CONFIG_WRITE,),
        events=(WRITE, CONFIG_WRITE),
        aka=("cloudsploit:appServiceAccessRestriction",),
        guide=written(
            means="""Every address of the internet can reach the site: it has no access
                restrictions, or some of them let in everybody, alone or added up. A site whose
                public network access is disabled passes, as does one that only takes a service
                tag, a subnet, or requests with a header of Front Door's.""",
            matters="""Many sites are meant for an office, a partner or the gateway in front of
                them. What everybody can reach, everybody can try to break.""",
            portal="App Services > the app > Networking > Public network access > Restrictions.",
            cli="""
                az webapp config access-restriction add -g GROUP -n APP --priority 100 \\
                    --action Allow --ip-address 203.0.113.0/24""",
            terraform=_terraform('ip_restriction_default_action = "Deny"'),
            fix="""It lets in the networks that the approver names, keeps the site's own
                restrictions for smaller networks, subnets and service tags, takes out those for
                the whole internet, and denies the rest. A site that is meant for everybody should
                get an exception instead.""",
            breaks="""Everybody who comes from elsewhere gets 403: visitors, health probes, webhooks
                and monitoring too. Where the deployment site (scm) follows the main one, deploying
                is held to the same networks.""",
        ),
    ),
    Rule(
        id="azure_web_site_identity_given",
        kind=KIND,
        severity=Severity.LOW,
        title="App Service site has a managed identity",
        passes=has_identity,
        fix=give_identity,
        reads=(READ,),
        writes=(WRITE,),
        events=(WRITE,),
        aka=("cloudsploit:identityEnabled", "prowler:app_register_with_identity"),
        guide=written(
            means="""The site has no managed identity, neither one of its own nor one that was
                given to it. To reach a database or a vault it needs a secret in its settings.""",
            matters="""A secret in a setting is read by everybody who may read settings, and is
                seldom changed. An identity has nothing that could be copied.""",
            portal="App Services > the app > Settings > Identity > System assigned > On.",
            cli="az webapp identity assign -g GROUP -n APP",
            terraform="""
                resource "azurerm_linux_web_app" "this" {
                  identity {
                    type = "SystemAssigned"
                  }
                }""",
            fix="""It gives the site an identity of its own, which may do nothing until somebody
                gives it a role. A site with an identity given to it passes and keeps it.""",
            breaks="Nothing: the app goes on with the secrets it has until its code is changed.",
            back="""Suture's undo takes the identity away again, and with it every role that was
                given to it meanwhile. One that is made later is another one.""",
        ),
    ),
    Rule(
        id="azure_web_site_authentication_on",
        kind=KIND,
        severity=Severity.MEDIUM,
        title="App Service signs the site's visitors in",
        passes=signs_visitors_in,
        fix=None,
        reads=(READ, CONFIG_READ),
        writes=(),
        events=(CONFIG_WRITE,),
        aka=("cloudsploit:authEnabled", "prowler:app_ensure_auth_is_set_up"),
        guide=written(
            means="""App Service's own authentication stands not in front of the site: every
                request goes straight to the app, which must tell by itself who asks.""",
            matters="""The platform's sign-in is kept up to date by Azure and cannot be forgotten on
                one page of an app. An app that has its own sign-in may get an exception.""",
            portal="App Services > the app > Settings > Authentication > Add identity provider.",
            cli="""
                az webapp auth microsoft update -g GROUP -n APP --client-id ID --issuer URL
                az webapp auth update -g GROUP -n APP --enabled true \\
                    --action RedirectToLoginPage""",
            terraform="""
                resource "azurerm_linux_web_app" "this" {
                  auth_settings_v2 {
                    auth_enabled           = true
                    require_authentication = true
                  }
                }""",
            by_hand="""Turning it on needs an identity provider: an app registration, who may sign
                in, and what becomes of callers that are no people. Without one, every visitor is
                refused or sent to a page that does not exist. Only the site's owner knows.""",
            breaks="""Callers that cannot sign in: webhooks, probes, other services. Leave their
                paths out (excluded paths), or give them tokens.""",
            back="Turn authentication off in the same place; the provider's settings stay.",
        ),
    ),
    Rule(
        id="azure_web_site_http_logs_kept",
        kind=KIND,
        severity=Severity.LOW,
        title="App Service site sends its HTTP logs somewhere",
        passes=logs_requests,
        fix=None,
        reads=(READ, LOGS_READ),
        writes=(),
        events=(LOGS_WRITE, LOGS_DELETE),
        aka=("prowler:app_http_logs_enabled", "cis-azure-5.0:6.1.1.6"),
        guide=written(
            means="""No diagnostic setting of the site sends the category AppServiceHTTPLogs, so
                nothing is kept of who asked for what. Function apps, which have no such category,
                pass.""",
            matters="""After an attack these logs are what tells which requests it was made of, and
                what else the same visitor looked at.""",
            portal="App Services > the app > Monitoring > Diagnostic settings > Add.",
            cli="""
                az monitor diagnostic-settings create --name http --resource SITE_ID \\
                    --workspace WORKSPACE_ID \\
                    --logs '[{"category": "AppServiceHTTPLogs", "enabled": true}]'""",
            terraform="""
                resource "azurerm_monitor_diagnostic_setting" "http" {
                  name                       = "http"
                  target_resource_id         = azurerm_linux_web_app.this.id
                  log_analytics_workspace_id = azurerm_log_analytics_workspace.this.id
                  enabled_log {
                    category = "AppServiceHTTPLogs"
                  }
                }""",
            by_hand="""Logs need a place: which workspace or storage account, in which region, who
                may read the visitors' addresses in it, and who pays for each gigabyte. That is for
                the team to choose; one setting for all sites is best made by Azure Policy.""",
            breaks="Nothing. Storing and searching the logs costs money by volume.",
            back="Delete the diagnostic setting; what was collected stays where it is.",
        ),
    ),
)
