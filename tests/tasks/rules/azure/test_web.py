"""App Service's access restrictions: who still gets in after a fix, and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import BadAnswer
from tasks.model import Cloud, Config, Resource, Verdict
from tasks.rules import rule

ACCESS = rule("azure_web_site_access_restricted")
ID = "/subscriptions/s/resourcegroups/rg/providers/microsoft.web/sites/acme"
LAST = 2147483647


def entry(priority: int, address: str, action: str = "Allow", **more: Any) -> dict[str, Any]:
    return {"ipAddress": address, "action": action, "priority": priority, **more}


def site(*entries: dict[str, Any], **web: Any) -> Resource:
    config = {"properties": {}, "config/web": {"ipSecurityRestrictions": list(entries), **web}}
    return Resource(Cloud.AZURE, "s", "westeurope", ACCESS.kind, ID, "acme", Config(config))


def fixed(resource: Resource, *allowed: str) -> list[tuple[int, str, str]]:
    assert ACCESS.fix is not None
    (step,) = ACCESS.fix(resource, {"allowed_cidrs": allowed})
    written = step.call.params["properties"]["ipSecurityRestrictions"]
    return [(one["priority"], one["action"], one["ipAddress"]) for one in written]


DENY_REST = (LAST, "Deny", "Any")
FRONT_DOOR = entry(50, "AzureFrontDoor.Backend", tag="ServiceTag")


def test_who_is_named_takes_the_place_of_the_internet() -> None:
    before = site(
        FRONT_DOOR,
        entry(100, "203.0.114.0/24", "Deny"),
        entry(200, "Any"),
        entry(300, "10.0.0.0/8"),
        entry(LAST, "Any", "Deny"),
    )
    assert fixed(before, "203.0.0.0/16", "2001:db8::/32") == [
        (50, "Allow", "AzureFrontDoor.Backend"),
        (100, "Deny", "203.0.114.0/24"),
        (300, "Allow", "10.0.0.0/8"),
        (200, "Allow", "203.0.0.0/16"),
        (200, "Allow", "2001:db8::/32"),
        DENY_REST,
    ]


def test_a_site_without_a_word_on_it_gets_named_networks_only() -> None:
    assert fixed(site(entry(LAST, "Any")), "203.0.113.0/24") == [
        (100, "Allow", "203.0.113.0/24"),
        DENY_REST,
    ]


def test_what_is_asked_and_what_stays_may_not_add_up_to_the_internet() -> None:
    low, high = entry(100, "0.0.0.0/1"), entry(200, "Any")
    with pytest.raises(BadAnswer, match="whole internet"):
        fixed(site(low, high), "128.0.0.0/1")


def test_the_default_is_denied_only_where_it_was_said() -> None:
    assert ACCESS.fix is not None
    for said in ({}, {"ipSecurityRestrictionsDefaultAction": "Allow"}):
        (step,) = ACCESS.fix(site(entry(LAST, "Any"), **said), {"allowed_cidrs": ()})
        wanted, old = step.call.params["properties"], step.undo[0].params["properties"]
        assert {name: wanted.get(name) for name in said} == dict.fromkeys(said, "Deny")
        assert {name: old.get(name) for name in said} == said


@pytest.mark.parametrize(
    ("entries", "verdict"),
    [
        ([entry(100, "Any", headers={"x-azure-fdid": ["id"]})], Verdict.PASS),
        ([entry(100, "Any", headers={"x-azure-fdid": []})], Verdict.FAIL),
        ([entry(100, "Any", "Deny", headers={"x-azure-fdid": ["id"]}), entry(200, "Any")], "fail"),
        ([entry(100, "Any", "Deny"), entry(100, "Any")], Verdict.FAIL),
        ([entry(100, "not an address")], Verdict.UNKNOWN),
        ([entry(100, "Any", "Maybe")], Verdict.UNKNOWN),
    ],
)
def test_conditions_and_doubts(entries: list[dict[str, Any]], verdict: str) -> None:
    assert ACCESS.judge(site(*entries))[0] == verdict
