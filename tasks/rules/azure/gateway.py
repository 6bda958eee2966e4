"""Application gateways and their web application firewalls: what they speak, and what they look at.

A gateway is only written whole, with joins to its subnet and its addresses, and with certificates
whose keys nobody can read back: its rules are guided. A policy is whole in what ARM says of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.model import Predicate, Resource, Rule, Severity
from tasks.rules.azure.setting import PROPERTIES, Home, is_set, setting, value_at
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, odd, sequence, text

GATEWAY = "Microsoft.Network/applicationGateways"
POLICY_TYPE = "Microsoft.Network/ApplicationGatewayWebApplicationFirewallPolicies"
POLICY = Home(
    method="PUT",
    api_version="2024-05-01",
    action=f"{POLICY_TYPE}/write",
    top=("location", "tags"),
)
_GATEWAY = Home(method="PUT", api_version="2024-05-01", action=f"{GATEWAY}/write")


# --- TLS ----------------------------------------------------------------------------------------

# The oldest version that each predefined policy takes, by the overview of them.
PREDEFINED = {
    "AppGwSslPolicy20150501": "TLSv1_0",
    "AppGwSslPolicy20170401": "TLSv1_1",
    "AppGwSslPolicy20170401S": "TLSv1_2",
    "AppGwSslPolicy20220101": "TLSv1_2",
    "AppGwSslPolicy20220101S": "TLSv1_2",
}
_OLD, _GOOD = ("TLSv1_0", "TLSv1_1"), ("TLSv1_2", "TLSv1_3")


def speaks_tls_1_2(resource: Resource) -> bool:
    """The gateway's own policy, and that of every profile which a listener may have instead."""
    default = value_at(resource, PROPERTIES, "defaultPredefinedSslPolicy")
    return all(_is_recent(policy, default) for policy in _policies(resource))


def _policies(resource: Resource) -> Iterator[Mapping[str, Any]]:
    where = "properties.sslProfiles"
    yield _said(value_at(resource, PROPERTIES, "sslPolicy"), "properties.sslPolicy")
    profiles = value_at(resource, PROPERTIES, "sslProfiles")
    for one in sequence(profiles if profiles is not None else (), where):
        own = mapping(mapping(one, where).get("properties"), where).get("sslPolicy")
        if own is not None:
            yield _said(own, where)


def _said(policy: Any, where: str) -> Mapping[str, Any]:
    return mapping(policy if policy is not None else {}, where)


def _is_recent(policy: Mapping[str, Any], default: Any) -> bool:
    where = "properties.sslPolicy"
    oldest = policy.get("minProtocolVersion")
    if policy.get("policyType") not in ("Custom", "CustomV2"):
        if policy.get("disabledSslProtocols"):  # the form that there was before policies
            off = sequence(policy["disabledSslProtocols"], f"{where}.disabledSslProtocols")
            return set(_OLD) <= set(off)
        # Without a policy it has the one that was the default when it was made; it says which.
        name = text(policy.get("policyName") or default, f"{where}.policyName")
        oldest = PREDEFINED.get(name)
    if oldest not in (*_OLD, *_GOOD):
        raise odd(f"{where}.minProtocolVersion")
    return oldest in _GOOD


# --- the firewall -------------------------------------------------------------------------------


def has_firewall(resource: Resource) -> bool:
    """A tier that has one, and a policy or an own configuration that is on."""
    tier = text(value_at(resource, PROPERTIES, "sku.tier"), "properties.sku.tier")
    if tier not in ("WAF", "WAF_v2"):
        return False
    if value_at(resource, PROPERTIES, "firewallPolicy.id") is not None:
        where = "properties.firewallPolicy.id"
        return bool(text(value_at(resource, PROPERTIES, "firewallPolicy.id"), where))
    own = value_at(resource, PROPERTIES, "webApplicationFirewallConfiguration")
    where = "properties.webApplicationFirewallConfiguration"
    return own is not None and flag(mapping(own, where).get("enabled"), f"{where}.enabled")


def keeps_bots_out(resource: Resource) -> bool:
    where = "properties.managedRules.managedRuleSets"
    sets = sequence(value_at(resource, PROPERTIES, "managedRules.managedRuleSets"), where)
    types = [text(mapping(one, where).get("ruleSetType"), f"{where}.ruleSetType") for one in sets]
    return "microsoft_botmanagerruleset" in [one.lower() for one in types]


# --- the rows -----------------------------------------------------------------------------------

_WHOLE = """A gateway can only be written whole. That takes the right to join its subnet and its
    public address, which lie outside of it, and it would send back certificates whose keys nobody
    can read."""
_BACK = "Set the old value in the same place. Each change of a gateway takes some minutes."


def _guided(
    name: str,
    severity: Severity,
    title: str,
    passes: Predicate,
    aka: tuple[str, ...],
    guide: str,
) -> Rule:
    return Rule(
        id=f"azure_network_application_gateway_{name}",
        kind="azure.network.application_gateway",
        severity=severity,
        title=title,
        passes=passes,
        fix=None,
        reads=(f"{GATEWAY}/read",),
        writes=(),
        events=(f"{GATEWAY}/write",),
        aka=aka,
        guide=guide,
    )


RULES = (
    _guided(
        "tls_1_2",
        Severity.HIGH,
        "Application gateway speaks TLS 1.2 or newer only",
        speaks_tls_1_2,
        ("cis-azure-5.0:7.12",),
        written(
            means="""The gateway's TLS policy, or that of one of its SSL profiles, takes TLS 1.0 or
                1.1. The predefined policies of 2015 and 2017 do, but for AppGwSslPolicy20170401S. A
                gateway without a policy has the default of the time when it was made.""",
            matters="""The old versions have ciphers and hashes that are broken. Who sits between a
                client and the gateway can talk both down to them, and read along.""",
            portal="""Application gateways > the gateway > Settings > Listeners > SSL policy >
                Change > Predefined, AppGwSslPolicy20220101S > Save; and SSL profiles > each
                profile > SSL policy.""",
            cli="""
                az network application-gateway ssl-policy set --resource-group GROUP \\
                  --gateway-name GATEWAY --policy-type Predefined \\
                  --name AppGwSslPolicy20220101S""",
            terraform="""
                resource "azurerm_application_gateway" "this" {
                  # ...
                  ssl_policy {
                    policy_type = "Predefined"
                    policy_name = "AppGwSslPolicy20220101S"
                  }
                }""",
            by_hand=_WHOLE,
            breaks="""Clients that know nothing newer: old devices, old Java, old payment terminals.
                The access log has the version of each request (sslProtocol): look there first.
                The policies of 2022 need a gateway of the second generation; one of the first can
                have AppGwSslPolicy20170401S.""",
            back=_BACK,
        ),
    ),
    _guided(
        "http2_on",
        Severity.LOW,
        "Application gateway speaks HTTP/2",
        is_set(_GATEWAY, "enableHttp2", (True,), (False,), absent=False),
        ("cis-azure-5.0:7.13",),
        written(
            means="The gateway offers its clients HTTP/1.1 only: enableHttp2 is off, or never set.",
            matters="""HTTP/2 has no upgrades and no chunks to be misunderstood between two servers,
                which request smuggling lives by, and needs one connection where HTTP/1.1 needs
                many. It is a small gain in safety and a larger one in speed.""",
            portal="Application gateways > the gateway > Settings > Configuration > HTTP2 > Save.",
            cli="""
                az network application-gateway update --resource-group GROUP --name GATEWAY \\
                  --http2 Enabled""",
            terraform="""
                resource "azurerm_application_gateway" "this" {
                  # ...
                  enable_http2 = true
                }""",
            by_hand=_WHOLE,
            breaks="""Rarely anything: clients that do not ask for HTTP/2 go on as they were, and
                what stands behind the gateway always hears HTTP/1.1. Websockets stay on
                HTTP/1.1.""",
            back=_BACK,
        ),
    ),
    _guided(
        "waf_on",
        Severity.HIGH,
        "Application gateway has a web application firewall",
        has_firewall,
        ("cis-azure-5.0:7.10",),
        written(
            means="""The gateway is of a tier without a web application firewall, or has neither a
                firewall policy nor a firewall configuration that is on. Whether the policy itself
                is on and prevents, or only detects, is to be seen in the policy.""",
            matters="""What is injected into a form or an address then reaches the application as it
                was sent. A firewall takes out what everybody tries, and keeps a log of it.""",
            portal="""Application gateways > the gateway > Settings > Web application firewall >
                tier WAF V2 > Save > Create a policy, or choose one.""",
            cli="""
                az network application-gateway waf-policy create --resource-group GROUP \\
                  --name POLICY --type OWASP --version 3.2
                az network application-gateway update --resource-group GROUP --name GATEWAY \\
                  --set sku.tier=WAF_v2 sku.name=WAF_v2 firewallPolicy.id=POLICY_ID""",
            terraform="""
                resource "azurerm_application_gateway" "this" {
                  # ...
                  sku {
                    name = "WAF_v2"
                    tier = "WAF_v2"
                  }
                  firewall_policy_id = azurerm_web_application_firewall_policy.this.id
                }""",
            by_hand=f"""The tier costs more, and a firewall that nobody has tuned turns away good
                requests. {_WHOLE}""",
            breaks="""In prevention mode, requests that only look like attacks: uploads, editors,
                long cookies. Let the policy detect for some weeks, and make exclusions for what it
                gets wrong, before it prevents.""",
            back="""Take the policy off, then set the old tier. A gateway of the first generation
                cannot be changed into one of the second; it has to be made anew.""",
        ),
    ),
    setting(
        "azure_network_waf_policy_inspects_bodies",
        "azure.network.waf_policy",
        Severity.MEDIUM,
        "Web application firewall policy looks into request bodies",
        POLICY,
        "policySettings.requestBodyCheck",
        good=(True,),
        bad=(False,),
        meaning="what is sent in forms and uploads is looked at, too",
        reads=(f"{POLICY_TYPE}/read",),
        aka=("cis-azure-5.0:7.14",),
        guide=written(
            means="""requestBodyCheck is off: the policy's rules see a request's address and
                headers, but not what is sent with it.""",
            matters="""Most of what attacks an application comes in bodies: forms, JSON, uploads.
                With the check off the firewall lets all of it through, and with it off there is no
                limit to how large a body may be.""",
            portal="""Web Application Firewall policies (WAF) > the policy > Settings > Policy
                settings > Enforce request body inspection > Save.""",
            cli="""
                az network application-gateway waf-policy policy-setting update \\
                  --resource-group GROUP --policy-name POLICY --request-body-check true""",
            terraform="""
                resource "azurerm_web_application_firewall_policy" "this" {
                  # ...
                  policy_settings {
                    request_body_check = true
                  }
                }""",
            fix="""It sets requestBodyCheck to true, and writes all else of the policy (rules,
                exclusions, limits, tags) as it stands. Azure takes that only if nobody has changed
                the policy meanwhile (If-Match).""",
            breaks="""In prevention mode, bodies that look like attacks, and those above the
                policy's limits (maxRequestBodySizeInKb, fileUploadLimitInMb): uploads above all.
                Look at the limits first, and let the policy detect for a while where you are not
                sure. All gateways, listeners and paths with this policy are affected.""",
        ),
    ),
    Rule(
        id="azure_network_waf_policy_stops_bots",
        kind="azure.network.waf_policy",
        severity=Severity.MEDIUM,
        title="Web application firewall policy has rules about bots",
        passes=keeps_bots_out,
        fix=None,
        reads=(f"{POLICY_TYPE}/read",),
        writes=(),
        events=(POLICY.action,),
        aka=("cis-azure-5.0:7.15",),
        guide=written(
            means="""The policy's managed rules have no bot protection: none of its rule sets is
                Microsoft_BotManagerRuleSet.""",
            matters="""Addresses that Microsoft knows to scan, scrape and try stolen passwords are
                then served like anybody else.""",
            portal="""Web Application Firewall policies (WAF) > the policy > Settings > Managed
                rules > Assign > Bot protection, Microsoft_BotManagerRuleSet > Save.""",
            cli="""
                az network application-gateway waf-policy managed-rule rule-set add \\
                  --resource-group GROUP --policy-name POLICY \\
                  --type Microsoft_BotManagerRuleSet --version 1.1""",
            terraform="""
                resource "azurerm_web_application_firewall_policy" "this" {
                  # ...
                  managed_rules {
                    managed_rule_set {
                      type    = "Microsoft_BotManagerRuleSet"
                      version = "1.1"
                    }
                  }
                }""",
            by_hand="""Which version there is depends on the region and the gateway, and which bots
                are welcome (a search engine, a monitor, a partner's program) only you can say.""",
            breaks="""In prevention mode, programs that call you and look like bots. Give the set
                some weeks in detection mode, and set the actions of its rules one by one.""",
            back="Take the rule set out of the policy in the same place.",
        ),
    ),
)
