"""What is read again after an event: how it is merged, and what it leaves alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tasks.errors import AccessRefused, ResourceGone
from tasks.formats.event import Target
from tasks.model import Account, AccountScan, Cloud, Config, Covered, Resource, observe
from tasks.reacting import rereading
from tasks.reacting.rereading import ReadAgain, account_for, read_again
from tasks.rules import rule
from tasks.warehouse import scans
from tasks.warehouse.events import Work

NOW = datetime.now(UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


class Answers:
    """A scanner of which it is known what each resource's reading gives."""

    def __init__(self, **known: Any) -> None:
        self.known = known

    async def read(self, *asked: str) -> Resource:
        found = self.known[asked[4].rpartition(":")[2]]
        if isinstance(found, Exception):
            raise found
        assert isinstance(found, Resource)
        return found


async def test_a_resource_is_there_gone_or_cannot_be_read(buckets: Any) -> None:
    there = buckets.bucket("there")
    scanner: Any = Answers(
        there=there,
        gone=ResourceGone("NoSuchBucket"),
        shut=AccessRefused("no access", code="AccessDenied", operation="s3:GetBucket"),
        broken=ConnectionResetError(),
    )
    read = {
        name: await read_again(scanner, buckets.changed(name, name), buckets.account, [])
        for name in scanner.known
    }
    assert (read["there"].resources, read["there"].gone) == ([there], False)
    assert (read["gone"].resources, read["gone"].gone, read["gone"].failed) == ([], True, "")
    assert "no access" in read["shut"].failed
    assert read["broken"].failed == "ConnectionResetError"
    assert not read["shut"].gone
    assert read["shut"].covered == read["broken"].covered == []


def test_what_is_read_again_is_a_targeted_scan_that_touches_nothing_else(
    buckets: Any, conn: psycopg.Connection
) -> None:
    a, b = buckets.bucket("a"), buckets.bucket("b")
    buckets.scan(a, b)
    work = buckets.changed("a", "event-1")
    scan_id = buckets.merge(buckets.read(work, buckets.bucket("a", bad=False)))
    assert buckets.finding("a")["resolution"] == "pass"
    assert buckets.finding("b")["status"] == "open"
    assert conn.execute(
        "SELECT trigger, targeted, flow_run_id, state FROM scans WHERE id = %s", (scan_id,)
    ).fetchone() == ("event", True, "run", "finished")
    (noted,) = conn.execute("SELECT scan_id FROM event_targets").fetchall()
    assert str(noted[0]) == scan_id


def test_a_resource_that_is_gone_takes_its_findings_along(buckets: Any) -> None:
    buckets.scan(buckets.bucket("a"), buckets.bucket("b"))
    buckets.merge(buckets.read(buckets.changed("a", "deleted")))
    assert buckets.finding("a")["resolution"] == "resource_gone"
    assert buckets.finding("b")["status"] == "open"


def test_where_a_resource_of_azures_lay_is_known_when_it_is_gone(
    conn: psycopg.Connection,
) -> None:
    row = rule("azure_network_security_group_ssh_not_open")
    account = Account(Cloud.AZURE, "sub-1", "one", "contoso")
    opened = {
        "name": "open",
        "properties": {
            "protocol": "Tcp",
            "sourcePortRange": "*",
            "destinationPortRange": "22",
            "sourceAddressPrefix": "*",
            "destinationAddressPrefix": "*",
            "access": "Allow",
            "priority": 200,
            "direction": "Inbound",
        },
    }
    group = Resource(
        *(Cloud.AZURE, account.id, "westeurope", row.kind, "/nsg/a", "a"),
        Config({"name": "a", "properties": {"securityRules": [opened]}}),
    )
    scans.merge_one(conn, AccountScan(account, [group], [observe(row, group)]), "test")
    assert conn.execute("SELECT status FROM findings").fetchone() == ("open",)
    target = Target(Cloud.AZURE, account.id, "global", row.kind, group.id)
    read = ReadAgain(
        Work(target, "contoso", ("one",), NOW),
        account,
        datetime.now(UTC),
        covered=[(Covered("global", row.kind, ok=True), group.id)],
    )
    rereading.merge(conn, [read], {row.kind: [row]}, None)
    ends = conn.execute("SELECT status, resolution, region FROM findings").fetchone()
    assert ends == ("resolved", "resource_gone", "westeurope")


def test_of_two_readings_of_one_resource_the_later_counts(buckets: Any) -> None:
    buckets.scan(buckets.bucket("a"))
    first, second = buckets.changed("a", "one"), buckets.changed("a", "two")
    fine = buckets.read(second, buckets.bucket("a", bad=False), at=ago(1))
    bad = buckets.read(first, buckets.bucket("a"), at=ago(2))
    buckets.merge(fine, bad)
    assert buckets.finding("a")["status"] == "resolved"


def test_a_late_reading_beside_an_early_one_is_not_taken_for_old(buckets: Any) -> None:
    """Fixed and verified while another resource was still being read, and opened again."""
    buckets.scan(buckets.bucket("a"), buckets.bucket("slow"))
    buckets.merge(
        buckets.read(buckets.changed("a", "one"), buckets.bucket("a", bad=False), at=ago(20))
    )
    assert buckets.finding("a")["status"] == "resolved"
    slow = buckets.read(buckets.changed("slow", "two"), buckets.bucket("slow"), at=ago(30))
    again = buckets.read(buckets.changed("a", "three"), buckets.bucket("a"), at=ago(10))
    buckets.merge(slow, again)
    assert buckets.finding("a")["status"] == "open"
    assert buckets.finding("a")["last_observed_at"] == ago(10)
    assert buckets.finding("slow")["last_observed_at"] == ago(30)


def test_what_belongs_together_is_one_scan(buckets: Any, conn: psycopg.Connection) -> None:
    names = [f"b{number}" for number in range(20)]
    buckets.scan(*(buckets.bucket(name) for name in names))
    reads = [buckets.read(buckets.changed(one, one), buckets.bucket(one)) for one in names]
    buckets.merge(*reads)
    counted = conn.execute("SELECT count(*) FROM scans WHERE trigger = 'event'").fetchone()
    assert counted == (1,)


def test_all_of_a_kind_resolves_what_is_not_among_it(buckets: Any) -> None:
    buckets.scan(buckets.bucket("a"), buckets.bucket("b"), buckets.bucket("c"))
    every = buckets.changed("", "all")
    one = buckets.changed("c", "one")
    buckets.merge(
        buckets.read(every, buckets.bucket("a"), at=ago(1)),
        buckets.read(one, buckets.bucket("c"), at=ago(2)),
    )
    assert buckets.finding("a")["status"] == "open"
    assert buckets.finding("b")["resolution"] == "resource_gone"


def test_an_old_event_about_what_was_seen_since_changes_nothing(buckets: Any) -> None:
    buckets.scan(buckets.bucket("a", bad=False), at=ago(60))
    week_old = buckets.changed("a", "old", at=NOW - timedelta(days=7))
    buckets.merge(buckets.read(week_old, buckets.bucket("a", bad=False)))
    assert buckets.conn.execute("SELECT count(*) FROM findings").fetchone() == (0,)


@pytest.mark.parametrize("scanned", [True, False])
def test_an_account_that_no_scan_has_seen_is_its_queues(buckets: Any, scanned: bool) -> None:
    if scanned:
        buckets.scan(buckets.bucket("a"))
    work = buckets.changed("a", "one")
    account = account_for(buckets.conn, work)
    assert (account.id, account.source) == (buckets.account.id, "org")
    assert account.name == ("acme" if scanned else "")
