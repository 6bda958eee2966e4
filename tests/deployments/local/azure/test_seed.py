"""What the seed plants: repeatable, varied, and telling the truth."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from deployments.local.azure.network import SecurityGroup, check_conflicts, checked_rule
from deployments.local.azure.seed import ACCOUNTS, GROUPS, HTTPS_ONLY, Seeded, seed_tenant
from deployments.local.azure.storage import StorageAccount


def rendered(seeded: Seeded) -> list[object]:
    return [resource.render() for resource in seeded.tenant.every_resource()]


def without_secrets(seeded: Seeded) -> dict[str, object]:
    about = seeded.description
    return {
        **about,
        "scanner": about["scanner"]["client_id"],
        "customer": about["customer"]["client_id"],
    }


def test_the_same_seed_plants_the_same_fleet() -> None:
    first, second, other = seed_tenant(6, 7), seed_tenant(6, 7), seed_tenant(6, 8)
    assert rendered(first) == rendered(second)
    assert (first.truth, first.failing) == (second.truth, second.failing)
    assert without_secrets(first) == without_secrets(second)
    assert first.description["scanner"] != second.description["scanner"]
    assert first.truth != other.truth


def test_two_subscriptions_fail_and_one_is_disabled() -> None:
    seeded = seed_tenant(5, 1)
    states = Counter(s["state"] for s in seeded.description["subscriptions"])
    assert states == {"Enabled": 5, "Disabled": 1}
    assert sorted(seeded.failing.values()) == ["refused", "throttled"]
    assert seeded.description["subscriptions"][0]["id"] not in seeded.failing
    disabled = seeded.description["subscriptions"][-1]["id"]
    reported = {finding["account"] for finding in seeded.truth}
    assert not reported & {disabled, *seeded.failing}


@pytest.mark.parametrize(("count", "failing"), [(4, True), (9, False)])
def test_no_failures_when_unwanted_or_too_few(count: int, failing: bool) -> None:
    assert seed_tenant(count, 1, failing).failing == {}


def test_every_variant_is_planted_and_the_truth_names_what_it_breaks() -> None:
    seeded = seed_tenant(20, 3, failing=False)
    live = {s["id"] for s in seeded.description["subscriptions"] if s["state"] == "Enabled"}
    planted = [
        resource for resource in seeded.tenant.every_resource() if resource.id.split("/")[2] in live
    ]
    names = {
        resource.name.removeprefix("NSG-")[:-5]
        for resource in planted
        if isinstance(resource, SecurityGroup)
    }
    assert names == {variant.name for variant in GROUPS}
    assert sum(isinstance(r, StorageAccount) for r in planted) >= len(ACCOUNTS)
    breaks = {variant.name: variant.breaks for variant in GROUPS}
    said: dict[str, set[str]] = {}
    for finding in seeded.truth:
        said.setdefault(finding["resource"], set()).add(finding["rule"])
    for resource in planted:
        if isinstance(resource, SecurityGroup):
            variant = resource.name.removeprefix("NSG-")[:-5]
            assert said.get(resource.id.lower(), set()) == breaks[variant]


def test_more_storage_accounts_take_plain_http_and_nothing_else_changes() -> None:
    few, more = seed_tenant(4, 7), seed_tenant(4, 7, plain_http=3)
    known = {resource.id for resource in few.tenant.every_resource()}
    added = [one for one in more.tenant.every_resource() if one.id not in known]
    assert all(isinstance(one, StorageAccount) for one in added)
    assert Counter(one.id.split("/")[2] for one in added) == {
        one["id"]: 3 for one in more.description["subscriptions"] if one["state"] == "Enabled"
    }
    found = [finding for finding in more.truth if finding not in few.truth]
    assert {(one["resource"], one["rule"]) for one in found} == {
        (one.id.lower(), HTTPS_ONLY) for one in added
    }


def test_the_truth_uses_lower_case_ids_of_resources_that_exist() -> None:
    seeded = seed_tenant(6, 7)
    by_id = {r.id.lower(): r for r in seeded.tenant.every_resource()}
    assert any(r.id != key for key, r in by_id.items())
    for finding in seeded.truth:
        resource = by_id[finding["resource"]]
        assert finding["account"] in finding["resource"]
        assert finding["region"] == resource.location
    assert len({(f["rule"], f["resource"]) for f in seeded.truth}) == len(seeded.truth)


def test_every_planted_rule_would_be_accepted_from_a_client() -> None:
    for variant in GROUPS:
        check_conflicts({n: (n, checked_rule(n, given)) for n, given in variant.rules})


def test_a_subscription_is_planted_with_no_more_work_among_many() -> None:
    def calls(subscriptions: int) -> int:
        made = 0

        def noted(_frame: object, event: str, _argument: object) -> None:
            nonlocal made
            made += event in ("call", "c_call")

        sys.setprofile(noted)
        try:
            seed_tenant(subscriptions, 7)
        finally:
            sys.setprofile(None)
        return made

    calls(5)  # what is made once
    assert 1_000 < calls(50) < 8 * calls(10)


def test_secrets_do_not_show_in_reprs() -> None:
    seeded = seed_tenant(2, 7)
    shown = repr(seeded) + repr(seeded.tenant.principals)
    assert seeded.description["scanner"]["client_secret"] not in shown
