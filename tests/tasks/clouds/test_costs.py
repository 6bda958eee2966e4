"""What a kind says that its scan costs is what it costs, by the calls that are made."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tasks.calls import CallMade, recording
from tasks.clouds.costs import costs
from tasks.clouds.scanner import Scanner
from tasks.model import AccountScan, Cloud, Rule
from tasks.rules import RULES, rule

if TYPE_CHECKING:
    from tests.tasks.clouds.conftest import Customer, Gated

KINDS = list(dict.fromkeys(one.kind for one in RULES))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_scan_makes_the_calls_that_its_kind_names(
    kind: str, table: Any, gated: Gated, customer: Customer
) -> None:
    rules = [one for one in RULES if one.kind == kind]
    finding = customer.plant(table, rules[0], table.examples[rules[0].id][1][0])
    account = gated.account(finding)
    first, made = _scanned(gated, account, rules)
    (cost,) = costs(rules)
    assert all(covered.ok for covered in first.coverage)
    found = len({one.resource for one in first.observations})
    places = len(gated.inventory.aws[0].regions) if cost.place == "region" else 1
    if account.cloud is Cloud.AWS:
        counts = Counter(one.operation for one in made)
        counts.pop("sts:AssumeRole", None)
        allowed = Counter({name: places * cost.once.count(name) for name in cost.once})
        allowed.update({name: found * cost.each.count(name) for name in set(cost.each)})
        for name in cost.once:
            assert counts[name] >= places
        assert counts.keys() >= set(cost.each), set(cost.each) - counts.keys()
        for name, count in counts.items():
            assert name in cost.deeper or count <= allowed[name], name
    else:
        # Without a list's other pages, and what the identity may do, which is asked once.
        asked = {one.target for one in made if not one.target.endswith("/permissions")}
        assert len(cost.once) <= len(asked)
        assert cost.deeper or len(asked) <= len(cost.once) + found * len(cost.each)


def _scanned(gated: Gated, account: Any, rules: list[Rule]) -> tuple[AccountScan, list[CallMade]]:
    async def scan() -> tuple[AccountScan, list[CallMade]]:
        async with Scanner(gated.inventory) as scanner:
            with recording() as made:
                return await scanner.scan(account, rules), made

    return asyncio.run(scan())


def test_what_no_rule_needs_costs_nothing() -> None:
    versioning = costs([rule("aws_s3_bucket_versioning_enabled")])[0]
    assert (versioning.place, versioning.once) == ("account", ("s3:ListBuckets",))
    assert versioning.each == ("s3:GetBucketVersioning", "s3:GetBucketTagging")
    whole = {cost.kind: cost for cost in costs(RULES)}
    assert set(whole) == set(KINDS)
    assert len(whole["aws.s3.bucket"].each) > 3
    assert sum(cost.rules for cost in whole.values()) == len(RULES)
    assert all(cost.once for cost in whole.values())
