"""What a listener has read a moment ago is planned from, once, and only while it is fresh."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.calls import CallMade
from tasks.clouds import shared_scanner
from tasks.clouds.shared_scanner import FRESH, Reading, Readings, shared
from tasks.inventory import Inventory, Issuer
from tasks.model import Account, Cloud, Config, Finding, Resource, Rule, Severity
from tasks.planning import plan_findings
from tasks.policy import Mode, Policy
from tasks.rules import rule

RULE = rule("aws_s3_bucket_versioning_enabled")
ACCOUNT = Account(Cloud.AWS, "111122223333", source="acme")
INVENTORY = Inventory()


def bucket(name: str) -> Resource:
    return Resource(
        *(Cloud.AWS, ACCOUNT.id, "eu-central-1", RULE.kind, f"arn:aws:s3:::{name}", name),
        Config({"Name": name, "Versioning": {}}),
    )


def reading(name: str, seconds_ago: float = 0.0) -> Reading:
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    return Reading(bucket(name), at, (CallMade(operation=f"read {name}"),))


def take(readings: Readings, name: str, account: str = ACCOUNT.id) -> Reading | None:
    return readings.take("aws", account, f"arn:aws:s3:::{name}")


def test_a_reading_is_taken_once() -> None:
    readings = Readings()
    readings.keep(kept := reading("a"))
    assert take(readings, "b") is None
    assert take(readings, "a", "444455556666") is None
    assert take(readings, "a") == kept
    assert take(readings, "a") is None


def test_the_later_reading_counts() -> None:
    readings = Readings()
    readings.keep(reading("a"))
    readings.keep(later := reading("a"))
    assert take(readings, "a") == later


@pytest.mark.parametrize("seconds_ago", [FRESH.total_seconds() + 1, -60.0])
def test_what_is_old_or_from_a_clock_that_was_set_back_is_not_used(seconds_ago: float) -> None:
    readings = Readings()
    readings.keep(reading("a", seconds_ago))
    assert take(readings, "a") is None


def test_what_nobody_takes_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = Readings()
    for number in range(50):
        readings.keep(reading(str(number)))
    monkeypatch.setattr(shared_scanner, "FRESH", timedelta(0))
    readings.keep(reading("last"))
    assert len(readings._latest) <= 1


async def test_what_was_read_for_other_rules_is_read_again() -> None:
    scanner: Any = Counts()
    known = replace(bucket("a"), reads=frozenset({"s3:GetBucketAcl"}))
    policy = Policy("close", Mode.AUTOMATIC)
    with shared(scanner, INVENTORY) as readings:
        readings.keep(replace(reading("a"), resource=known))
        (one,) = await asyncio.to_thread(plan_findings, INVENTORY, ACCOUNT, [finding("a")], policy)
    assert scanner.read_ == ["a"]
    assert one.state == "waiting"


class Counts:
    """A scanner that counts how often each bucket is read."""

    def __init__(self) -> None:
        self.read_: list[str] = []

    async def read(self, *asked: str, rule: Rule) -> Resource:
        assert rule is RULE
        name = asked[4].rpartition(":")[2]
        self.read_.append(name)
        return bucket(name)


def finding(name: str) -> Finding:
    where = (Cloud.AWS, ACCOUNT.id, "eu-central-1", RULE.id, Severity.MEDIUM, RULE.kind)
    return Finding(name * 8, *where, f"arn:aws:s3:::{name}")


async def test_a_plan_is_made_of_what_was_just_read_and_of_nothing_else() -> None:
    scanner: Any = Counts()
    policy = Policy("close", Mode.AUTOMATIC)
    found = [finding("a"), finding("b"), replace(finding("a"), id="again")]

    def plan(inventory: Inventory = INVENTORY) -> Any:
        return asyncio.to_thread(plan_findings, inventory, ACCOUNT, found, policy, first=4)

    with shared(scanner, INVENTORY) as readings:
        readings.keep(known := reading("a"))
        planned = await plan()
        assert scanner.read_ == ["b"]
        assert [one.state for one in planned] == ["waiting"] * 3
        assert [one.plan.number for one in planned] == [4, 5, 6]
        assert [one.finding.id for one in planned] == [one.id for one in found]
        for one in (planned[0], planned[2]):
            assert (one.read_at, one.calls) == (known.read_at, known.calls)
        assert planned[1].read_at > known.read_at
        await plan()
        assert scanner.read_ == ["b", "a", "b", "a"]

        readings.keep(reading("a"))
        other = Inventory(issuer=Issuer(url="https://issuer.example", key_file="", key_id=""))
        assert shared_scanner.just_read(other, "aws", ACCOUNT.id, found[0].resource) is None
    assert shared_scanner.just_read(INVENTORY, "aws", ACCOUNT.id, found[0].resource) is None
