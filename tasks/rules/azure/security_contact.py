"""Whom Defender for Cloud tells, and of what: the one security contact of a subscription.

Until somebody sets it, a subscription has none: it is read as a contact without properties, and an
undo deletes what a fix has made of that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tasks.errors import BadAnswer
from tasks.model import Call, Change, Cloud, Fix, Input, Predicate, Resource, Rule, Severity, Step
from tasks.rules.azure.setting import PROPERTIES, word
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, odd, sequence, text

API_VERSION = "2023-12-01-preview"
READ = "Microsoft.Security/securityContacts/read"
WRITE = "Microsoft.Security/securityContacts/write"
DELETE = "Microsoft.Security/securityContacts/delete"

EMAILS = Input(
    name="emails",
    kind="text",
    label="Addresses that Defender writes to (several with a semicolon between)",
    required=True,
)
_ADDRESS = re.compile(r"[^@\s;,]+@[^@\s;,]+\.[^@\s;,]+")
_UNTOLD = {  # what Azure does for a subscription without a contact
    "emails": "",
    "isEnabled": True,
    "notificationsByRole": {"state": "On", "roles": ["Owner"]},
    "notificationsSources": [{"sourceType": "Alert", "minimalSeverity": "High"}],
}

# What a fix changes of a contact's properties: one of them, as it becomes.
Becomes = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]


def _own(resource: Resource) -> Mapping[str, Any]:
    return mapping(resource.config[PROPERTIES], PROPERTIES)


def _is_used(own: Mapping[str, Any]) -> bool:
    """Whether anything is sent: there is a contact, and it is not turned off."""
    enabled = own.get("isEnabled")
    return bool(own) and (enabled is None or flag(enabled, "properties.isEnabled"))


def has_addresses(resource: Resource) -> bool:
    own = _own(resource)
    return bool(_emails(own)) and _is_used(own)


def _emails(own: Mapping[str, Any]) -> list[str]:
    listed = own.get("emails") or ""
    if not isinstance(listed, str):
        raise odd("properties.emails")
    return [one.strip() for one in re.split("[;,]", listed) if one.strip()]


def tells_owners(resource: Resource) -> bool:
    own = _own(resource)
    state, roles = _roles(own)
    return state and "Owner" in roles and _is_used(own)


def _roles(own: Mapping[str, Any]) -> tuple[bool, list[str]]:
    given = own.get("notificationsByRole")
    if given is None:
        return False, []
    by_role = mapping(given, "properties.notificationsByRole")
    state = text(by_role.get("state"), "properties.notificationsByRole.state")
    if state not in {"On", "Off"}:
        raise odd("properties.notificationsByRole.state")
    roles = sequence(by_role.get("roles") or (), "properties.notificationsByRole.roles")
    return state == "On", [text(one, "properties.notificationsByRole.roles") for one in roles]


def told_of(source: str, field: str, good: tuple[str, ...], known: tuple[str, ...]) -> Predicate:
    """Of this source something is sent, from one of the levels ``good`` on."""

    def passes(resource: Resource) -> bool:
        own = _own(resource)
        levels = [one.get(field) for one in _sources(own) if one["sourceType"] == source]
        for level in levels:
            if text(level, f"properties.notificationsSources.{field}") not in known:
                raise odd(f"properties.notificationsSources.{field}")
        return any(level in good for level in levels) and _is_used(own)

    return passes


def _sources(own: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    where = "properties.notificationsSources"
    found = [mapping(one, where) for one in sequence(own.get("notificationsSources") or (), where)]
    for one in found:
        text(one.get("sourceType"), f"{where}.sourceType")
    return found


# --- what a fix makes of it ---------------------------------------------------------------------


def with_addresses(own: Mapping[str, Any], values: Mapping[str, Any]) -> str:
    """Those that are there stay. Raises BadAnswer for what is no address."""
    asked = values.get(EMAILS.name)
    added = _emails({"emails": asked}) if isinstance(asked, str) else []
    if not added or not all(_ADDRESS.fullmatch(one) for one in added):
        raise BadAnswer(
            EMAILS.name, "is not a list of addresses.", "Write them like security@example.com."
        )
    return ";".join(dict.fromkeys([*_emails(own), *added]))


def with_owners(own: Mapping[str, Any], _values: Mapping[str, Any]) -> dict[str, Any]:
    return {"state": "On", "roles": [*dict.fromkeys([*_roles(own)[1], "Owner"])]}


def with_source(source: str, field: str, level: str) -> Becomes:
    def becomes(own: Mapping[str, Any], _values: Mapping[str, Any]) -> list[dict[str, Any]]:
        others = [dict(one) for one in _sources(own) if one["sourceType"] != source]
        return [*others, {"sourceType": source, field: level}]

    return becomes


def change(passes: Predicate, name: str, becomes: Becomes) -> Fix:
    """A planner: one property of the contact becomes another, and the contact is turned on."""

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        if passes(resource):
            return ()
        old = _own(resource)
        base = old or _UNTOLD
        wanted = {**base, "isEnabled": True, name: becomes(base, values)}
        before = _said(old.get(name)) if old else "no contact: only what Azure sends by itself"
        if old and not _is_used(old):
            before += ", and the contact is turned off"
        back = _call(resource, "PUT", old) if old else _call(resource, "DELETE", {})
        field = Change(f"{PROPERTIES}.{name}", before, _said(wanted[name]))
        return (Step(WRITE, _call(resource, "PUT", wanted), (back,), (field,)),)

    return fix


def _call(resource: Resource, method: str, properties: Mapping[str, Any]) -> Call:
    body = {"properties": dict(properties)} if method == "PUT" else {}
    return Call(Cloud.AZURE, API_VERSION, method, body, resource.id)


def _said(value: Any) -> str:
    """A property as people read it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_said(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(_said, value)) or "none"
    return word(value) or "none"


# --- the table --------------------------------------------------------------------------------

_URL = "/subscriptions/ID/providers/Microsoft.Security/securityContacts/default"
_CLI = f"""
    az rest --method put --body @contact.json \\
        --url "{_URL}?api-version={API_VERSION}"
    # contact.json is the whole contact, for what it leaves out is taken away:
    # {{"properties": {{"emails": "security@example.com", "isEnabled": true,
    #   "notificationsByRole": {{"state": "On", "roles": ["Owner"]}},
    #   "notificationsSources": [
    #     {{"sourceType": "Alert", "minimalSeverity": "High"}},
    #     {{"sourceType": "AttackPath", "minimalRiskLevel": "High"}}]}}}}"""


def _row(
    name: str,
    severity: Severity,
    title: str,
    passes: Predicate,
    field: str,
    becomes: Becomes,
    aka: tuple[str, ...],
    *,
    means: str,
    matters: str,
    fix: str,
    terraform: str,
    inputs: tuple[Input, ...] = (),
) -> Rule:
    return Rule(
        id=f"azure_security_contact_{name}",
        kind="azure.security.contact",
        severity=severity,
        title=title,
        passes=passes,
        fix=change(passes, field, becomes),
        inputs=inputs,
        reads=(READ,),
        writes=(WRITE, DELETE),
        events=(WRITE, DELETE),
        aka=aka,
        guide=written(
            means=means,
            matters=matters,
            portal="""Microsoft Defender for Cloud > Environment settings > the subscription > Email
                notifications.""",
            cli=_CLI,
            terraform=f"""
                resource "azurerm_security_center_contact" "this" {{
                  {terraform}
                }}""",
            fix=f"""{fix} What else the contact says stays; one that is turned off is turned on.
                Where the subscription has none, Suture makes one that goes on with what Azure does
                without: owners hear of alerts of high severity.""",
            breaks="Nothing. More mail arrives, for each kind of event a few a day at most.",
            back="""Suture's undo puts back what the contact said before, or deletes the contact
                where there was none.""",
        ),
    )


_HEARS_OF_ALERTS = told_of(
    "Alert", "minimalSeverity", ("High", "Medium", "Low"), ("High", "Medium", "Low")
)
_HEARS_OF_PATHS = told_of(
    "AttackPath",
    "minimalRiskLevel",
    ("High", "Medium", "Low"),
    ("Critical", "High", "Medium", "Low"),
)

RULES = (
    _row(
        "addresses_set",
        Severity.MEDIUM,
        "Defender for Cloud has an address to write to",
        has_addresses,
        "emails",
        with_addresses,
        (
            "prowler:defender_additional_email_configured_with_a_security_contact",
            "cis-azure-5.0:8.1.13",
        ),
        means="""The subscription's security contact has no address, or there is no contact:
            Defender writes to the owners alone, if to anybody.""",
        matters="""Owners are often people who set up the subscription and look after something
            else now. A team's address is read on weekends, too.""",
        fix="It adds the addresses that the approver names.",
        terraform='email = "security@example.com"',
        inputs=(EMAILS,),
    ),
    _row(
        "owners_told",
        Severity.MEDIUM,
        "Defender for Cloud tells the subscription's owners",
        tells_owners,
        "notificationsByRole",
        with_owners,
        ("prowler:defender_ensure_notify_emails_to_owners", "cis-azure-5.0:8.1.12"),
        means="The security contact does not write to whoever has the role Owner.",
        matters="""The owners are those who can act at once: stop a machine, take away a role,
            delete a key. A mailbox that nobody reads cannot.""",
        fix="It adds Owner to the roles that are told.",
        terraform="alerts_to_admins = true",
    ),
    _row(
        "alerts_sent",
        Severity.HIGH,
        "Defender for Cloud sends alerts of high severity",
        _HEARS_OF_ALERTS,
        "notificationsSources",
        with_source("Alert", "minimalSeverity", "High"),
        ("prowler:defender_ensure_notify_alerts_severity_is_high", "cis-azure-5.0:8.1.14"),
        means="""The security contact is not told of alerts: they stand in the portal until
            somebody looks.""",
        matters="""An alert of high severity says that something is being attacked just now. Hours
            decide how far it goes.""",
        fix="It sends alerts from the severity High on.",
        terraform="alert_notifications = true",
    ),
    _row(
        "attack_paths_sent",
        Severity.MEDIUM,
        "Defender for Cloud sends attack paths of high risk",
        _HEARS_OF_PATHS,
        "notificationsSources",
        with_source("AttackPath", "minimalRiskLevel", "High"),
        (
            "prowler:defender_attack_path_notifications_properly_configured",
            "cis-azure-5.0:8.1.15",
        ),
        means="""The security contact is not told of new attack paths, or of those of critical risk
            only. Paths are found by the plan CloudPosture.""",
        matters="""An attack path is a way in that stands open: from the internet to data, by steps
            that each look harmless. It is closed before it is used, or not.""",
        fix="It sends attack paths from the risk High on.",
        terraform="# not offered; use azapi_resource with the body of the CLI above",
    ),
)
