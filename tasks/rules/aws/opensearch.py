"""OpenSearch Service's rules: domains speak TLS, and encrypt what they send round and keep."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Config, Fix, Predicate, Resource, Rule, Severity, Step
from tasks.rules.aws.policies import lets_no_stranger_in, shut
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, text

_KIND = "aws.opensearch.domain"
_READS = ("es:ListDomainNames", "es:DescribeDomainConfig")
_WRITES = ("es:UpdateDomainConfig",)
_EVENTS = (
    "es:CreateDomain",
    "es:UpdateDomainConfig",
    "es:CreateElasticsearchDomain",
    "es:UpdateElasticsearchDomainConfig",
)
_HTTPS = "DomainEndpointOptions"


def _options(resource: Resource, part: str) -> Mapping[str, Any]:
    return mapping(resource.config[part], part)


def _is_on(part: str, name: str) -> Predicate:
    return lambda resource: flag(_options(resource, part).get(name), f"{part}.{name}")


def _update(resource: Resource, part: str, options: Mapping[str, Any]) -> Call:
    named = {"DomainName": text(resource.config["DomainName"], "DomainName")}
    return Call(Cloud.AWS, "opensearch", "UpdateDomainConfig", {**named, part: options})


# --- HTTPS --------------------------------------------------------------------------------------

speaks_https = _is_on(_HTTPS, "EnforceHTTPS")


def speak_https(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Sends the endpoint's other options again as they were; so does the undo."""
    if speaks_https(resource):
        return ()
    old = {name: value for name, value in _options(resource, _HTTPS).items() if value is not None}
    call = _update(resource, _HTTPS, {**old, "EnforceHTTPS": True})
    undo = _update(resource, _HTTPS, {**old, "EnforceHTTPS": False})
    change = Change("EnforceHTTPS", "false", "true: HTTP is refused")
    return (Step(_WRITES[0], call, (undo,), (change,)),)


# --- who may ask --------------------------------------------------------------------------------


def closed(resource: Resource) -> bool:
    """No stranger gets in: by network, by signing in (fine-grained access), or by the policy."""
    away = [flag(resource.config[name], name) for name in ("InVpc", "SignsIn")]
    return lets_no_stranger_in(resource.config["Policy"]) or any(away)


def _access(resource: Resource, policy: str) -> Call:
    """An empty text takes the policy away."""
    named = {"DomainName": text(resource.config["DomainName"], "DomainName")}
    return Call(Cloud.AWS, "opensearch", "UpdateDomainConfig", {**named, "AccessPolicies": policy})


_shut = shut(
    put=_access,
    put_action=_WRITES[0],
    drop=lambda domain: _access(domain, ""),
    drop_action=_WRITES[0],
)


def close(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Takes the open statements out of the domain's policy; the undo writes the old one again."""
    return () if closed(resource) else _shut(resource, values)


# --- encryption, which cannot be turned off again -----------------------------------------------


def _encrypt(part: str, oldest: tuple[int, int]) -> Fix:
    """A planner that turns it on; ``oldest`` is the first Elasticsearch that can, of a domain that
    is there already."""
    passes = _is_on(part, "Enabled")

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        if passes(resource):
            return ()
        engine = text(resource.config["EngineVersion"], "EngineVersion")
        elastic = re.fullmatch(r"Elasticsearch_(\d+)\.(\d+)", engine)
        if elastic and (int(elastic[1]), int(elastic[2])) < oldest:
            raise BadInput(
                "EngineVersion",
                f"{engine} cannot encrypt in a domain that is there already.",
                "Upgrade the domain first, or move to a new one.",
            )
        call = _update(resource, part, {"Enabled": True})
        change = Change(part, "off (an undo cannot turn it off again: the service does not)", "on")
        return (Step(_WRITES[0], call, (call,), (change,)),)

    return fix


def _stays_on(part: str) -> Callable[[Resource], Resource]:
    """The service has no way back from encryption."""

    def undone(before: Resource) -> Resource:
        parts = {**before.config.as_dict(), part: {"Enabled": True}}
        return replace(before, config=Config(parts, before.config.gaps))

    return undone


def _encryption_rule(
    rule_id: str,
    part: str,
    oldest: tuple[int, int],
    aka: tuple[str, ...],
    *,
    title: str,
    means: str,
    matters: str,
    option: str,
    block: str,
) -> Rule:
    return Rule(
        id=rule_id,
        kind=_KIND,
        severity=Severity.MEDIUM,
        title=title,
        passes=_is_on(part, "Enabled"),
        fix=_encrypt(part, oldest),
        reads=_READS,
        writes=_WRITES,
        events=_EVENTS,
        aka=aka,
        undone=_stays_on(part),
        guide=written(
            means=means,
            matters=matters,
            console="""OpenSearch Service > Domains > the domain > Actions > Edit security
                configuration > Encryption.""",
            cli=f"""
                aws opensearch update-domain-config --domain-name DOMAIN \\
                    --{option} Enabled=true""",
            terraform=f"""
                resource "aws_opensearch_domain" "this" {{
                  {block} {{
                    enabled = true
                  }}
                }}""",
            fix="""It turns the encryption on. The service moves the domain to new nodes (a
                blue/green deployment), which takes up to hours. It refuses for versions of
                Elasticsearch that cannot.""",
            breaks="""The domain goes on answering while it moves, but slower: choose a quiet hour,
                and have room on the nodes. It cannot be turned off again.""",
            back="""There is no way back: the service does not turn this encryption off. Suture's
                undo leaves it on. Whoever must go back restores a snapshot into a new domain.""",
        ),
    )


RULES = (
    Rule(
        id="aws_opensearch_domain_https_only",
        kind=_KIND,
        severity=Severity.HIGH,
        title="OpenSearch domain answers over HTTPS only",
        passes=speaks_https,
        fix=speak_https,
        reads=_READS,
        writes=_WRITES,
        events=_EVENTS,
        aka=(
            "cloudsploit:opensearchHttpsOnly",
            "prowler:opensearch_service_domains_https_communications_enforced",
        ),
        guide=written(
            means="The domain's endpoint answers requests over plain HTTP as well.",
            matters="""Documents, searches and passwords of such requests cross the network in the
                clear.""",
            console="""OpenSearch Service > Domains > the domain > Actions > Edit security
                configuration > Require HTTPS for all traffic to the domain.""",
            cli="""
                aws opensearch update-domain-config --domain-name DOMAIN \\
                    --domain-endpoint-options EnforceHTTPS=true""",
            terraform="""
                resource "aws_opensearch_domain" "this" {
                  domain_endpoint_options {
                    enforce_https = true
                  }
                }""",
            fix="""It has the domain refuse HTTP. The TLS policy and a custom endpoint stay as they
                are.""",
            breaks="""Clients that are set to http:// are refused until somebody changes that.""",
            back="Suture's undo lets the domain answer over HTTP again.",
        ),
    ),
    Rule(
        id="aws_opensearch_domain_policy_closed_to_strangers",
        kind=_KIND,
        severity=Severity.CRITICAL,
        title="OpenSearch domain lets no stranger in",
        passes=closed,
        fix=close,
        reads=_READS,
        writes=_WRITES,
        events=_EVENTS,
        aka=("prowler:opensearch_service_domains_not_publicly_accessible",),
        guide=written(
            means="""The domain answers the internet, a statement of its policy allows everyone, no
                condition ties that to an account or an address, and the domain asks nobody to sign
                in (fine-grained access control is off, or anonymous access on).""",
            matters="""Anybody who finds the address reads, changes and deletes every index. Bots
                look for such domains, copy them and leave a ransom note.""",
            console="""OpenSearch Service > Domains > the domain > Security configuration > Edit >
                Access policy.""",
            cli="""
                aws opensearch describe-domain-config --domain-name DOMAIN
                aws opensearch update-domain-config --domain-name DOMAIN \\
                    --access-policies file://policy.json""",
            terraform="""
                resource "aws_opensearch_domain_policy" "this" {
                  domain_name     = aws_opensearch_domain.this.domain_name
                  access_policies = data.aws_iam_policy_document.our_roles.json
                }""",
            fix="""It takes out the statements that let strangers in, and leaves every other
                statement as it is. Where none would be left, it takes the policy away: the domain
                then answers nobody from outside of its account's own identities.""",
            breaks="""Clients that do not sign their requests: name their role, or their address, in
                a statement of its own first.""",
            back="Suture's undo writes the old policy again, statement by statement.",
        ),
    ),
    _encryption_rule(
        "aws_opensearch_domain_node_to_node_encrypted",
        "NodeToNodeEncryptionOptions",
        (6, 0),
        (
            "cloudsploit:opensearchNodeToNodeEncryption",
            "prowler:opensearch_service_domains_node_to_node_encryption_enabled",
        ),
        title="OpenSearch domain encrypts what its nodes send each other",
        means="The domain's nodes send each other documents and searches in the clear.",
        matters="""Requests are encrypted up to the first node only. What it passes on to the others
            could be read by whoever listens inside the network.""",
        option="node-to-node-encryption-options",
        block="node_to_node_encryption",
    ),
    _encryption_rule(
        "aws_opensearch_domain_encrypted_at_rest",
        "EncryptionAtRestOptions",
        (6, 7),
        (
            "cloudsploit:opensearchEncryptedDomain",
            "prowler:opensearch_service_domains_encryption_at_rest_enabled",
        ),
        title="OpenSearch domain encrypts what it keeps",
        means="""Indexes, logs, swap files and automatic snapshots of the domain are not encrypted
            on their disks.""",
        matters="""With encryption, the data cannot be read without a permission on the key,
            wherever a disk or a snapshot ends up. Without another choice it is the service's own
                key.""",
        option="encryption-at-rest-options",
        block="encrypt_at_rest",
    ),
)
