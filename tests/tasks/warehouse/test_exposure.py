"""The view of exposures: who opened it, whether an event or a scan found it first, for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tasks.formats.event import ControlPlaneEvent, Target
from tasks.model import Account, AccountScan, Cloud, Config, Covered, Resource, observe
from tasks.rules import rule
from tasks.warehouse import events, scans
from tasks.warehouse.events import Taken, Work
from tasks.warehouse.scans import Reread

NOW = datetime.now(UTC) - timedelta(hours=1)
ACCOUNT = Account(Cloud.AWS, "111122223333", "acme", "org")
RULE = rule("aws_s3_bucket_versioning_enabled")
REGION = "eu-central-1"
PLACE = Covered(REGION, RULE.kind, ok=True)


def at(minutes: float) -> datetime:
    return NOW + timedelta(minutes=minutes)


def bucket(bad: bool = True) -> Resource:
    return Resource(
        *(Cloud.AWS, ACCOUNT.id, REGION, RULE.kind, "arn:aws:s3:::a", "a"),
        Config({"Name": "a", "Versioning": {} if bad else {"Status": "Enabled"}}),
    )


def event(
    conn: psycopg.Connection, name: str, minutes: float, actor: str, all: bool = False
) -> Work:
    """Somebody has changed the bucket, or one of them."""
    told = ControlPlaneEvent(
        cloud=Cloud.AWS,
        id=name,
        account=ACCOUNT.id,
        operation="s3:PutBucketVersioning",
        at=at(minutes),
        actor=actor,
        source_ip=f"203.0.113.{len(actor)}",
    )
    target = Target(Cloud.AWS, ACCOUNT.id, REGION, RULE.kind, "" if all else bucket().id)
    events.take_in(conn, [Taken(told, [target], "org")], at(minutes))
    return Work(target, "org", (name,), at(minutes))


def read(conn: psycopg.Connection, minutes: float, *works: Work, bad: bool = True) -> None:
    """The bucket is read again for some events."""
    seen = AccountScan(ACCOUNT, [bucket(bad)], [observe(RULE, bucket(bad))])
    rereads = [Reread(seen, [(PLACE, bucket().id)])]
    scan_id, _ = scans.merge_reread(conn, rereads, "event", observed_at=at(minutes))
    events.note_scan(conn, works, scan_id)
    events.done(conn, works)


def scan(conn: psycopg.Connection, minutes: float, *, bad: bool = True) -> None:
    """A scan of the whole account."""
    scan_id = scans.begin_scan(conn, "schedule", at=at(minutes))
    seen = AccountScan(ACCOUNT, [bucket(bad)], [observe(RULE, bucket(bad))], [PLACE])
    scans.load_batch(conn, scan_id, [seen])
    scans.merge_scan(conn, scan_id)
    scans.finish_scan(conn, scan_id)


def exposures(conn: psycopg.Connection) -> list[dict[str, Any]]:
    cursor = conn.execute("SELECT * FROM exposure ORDER BY found_at")
    names = [column.name for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def test_an_event_that_found_it_tells_who_and_when_it_began(conn: psycopg.Connection) -> None:
    scan(conn, 0, bad=False)
    read(conn, 11, event(conn, "one", 10, "ada"))
    (one,) = exposures(conn)
    assert one["found_first_by"] == "event"
    assert (one["changed_by"], one["changed_from"]) == ("ada", "203.0.113.3")
    assert (one["event_id"], one["operation"]) == ("one", "s3:PutBucketVersioning")
    assert one["minutes_unseen"] == pytest.approx(1)
    assert (one["closed_at"], one["resolution"]) == (None, None)
    assert 49 <= one["minutes_exposed"] < 110  # to now, however long the tests take
    read(conn, 15, event(conn, "two", 14, "grace"), bad=False)
    (one,) = exposures(conn)
    assert (one["changed_by"], one["resolution"]) == ("ada", "pass")
    assert one["minutes_exposed"] == pytest.approx(5)


def test_what_a_scan_found_first_goes_back_to_the_last_change_before(
    conn: psycopg.Connection,
) -> None:
    scan(conn, 0, bad=False)
    event(conn, "early", 5, "ada")
    late = event(conn, "late", 8, "grace")
    scan(conn, 20)
    read(conn, 21, late)  # its event comes only then
    (one,) = exposures(conn)
    assert (one["found_first_by"], one["changed_by"], one["event_id"]) == ("scan", "grace", "late")
    assert one["minutes_unseen"] == pytest.approx(12)


def test_without_an_event_nobody_is_named_and_it_began_when_it_was_found(
    conn: psycopg.Connection,
) -> None:
    scan(conn, 0)
    event(conn, "later", 5, "ada")
    scan(conn, 30, bad=False)
    (one,) = exposures(conn)
    assert one["found_first_by"] == "scan"
    assert (one["changed_by"], one["event_id"], one["minutes_unseen"]) == (None, None, None)
    assert one["minutes_exposed"] == pytest.approx(30)


def test_each_time_it_is_open_is_told_by_itself(conn: psycopg.Connection) -> None:
    scan(conn, 0, bad=False)
    read(conn, 2, event(conn, "one", 1, "ada"))
    read(conn, 4, event(conn, "fixed", 3, "suture"), bad=False)
    read(conn, 11, event(conn, "two", 10, "mallory"))
    first, second = exposures(conn)
    assert (first["changed_by"], first["minutes_exposed"]) == ("ada", pytest.approx(3))
    assert (second["changed_by"], second["closed_at"]) == ("mallory", None)
    assert first["finding_id"] == second["finding_id"]


def test_a_change_before_it_was_last_closed_is_not_blamed(conn: psycopg.Connection) -> None:
    scan(conn, 0)
    event(conn, "one", 1, "ada")
    scan(conn, 5, bad=False)
    scan(conn, 20)
    assert [one["changed_by"] for one in exposures(conn)] == [None, None]


def test_an_event_about_all_of_a_kind_counts_where_none_names_the_resource(
    conn: psycopg.Connection,
) -> None:
    scan(conn, 0, bad=False)
    whole = event(conn, "whole", 9, "ada", all=True)
    read(conn, 12, whole)
    assert [one["event_id"] for one in exposures(conn)] == ["whole"]
    read(conn, 13, event(conn, "fixed", 12.5, "ada"), bad=False)
    named, whole = event(conn, "named", 20, "grace"), event(conn, "again", 21, "ada", all=True)
    read(conn, 22, named, whole)
    assert [one["event_id"] for one in exposures(conn)] == ["whole", "named"]
