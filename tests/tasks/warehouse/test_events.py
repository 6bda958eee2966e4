"""Events in the warehouse: once each, one listener to a resource, nothing lost when one ends."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tasks.formats.event import ControlPlaneEvent, Target
from tasks.model import Cloud
from tasks.warehouse import database, events
from tasks.warehouse.events import Taken, Work

ACCOUNT = "111122223333"
GROUP = f"arn:aws:ec2:eu-central-1:{ACCOUNT}:security-group/sg-1"
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def target(resource: str = GROUP) -> Target:
    return Target(Cloud.AWS, ACCOUNT, "eu-central-1", "aws.ec2.security_group", resource)


def event(name: str, at: datetime = NOW, **more: Any) -> ControlPlaneEvent:
    known = {"actor": "arn:aws:iam::111122223333:user/ada", "source_ip": "203.0.113.9"}
    return ControlPlaneEvent(
        cloud=Cloud.AWS,
        id=name,
        account=ACCOUNT,
        operation="ec2:AuthorizeSecurityGroupIngress",
        at=at,
        original={"eventID": name},
        **{**known, **more},
    )


def taken(name: str, *targets: Target, at: datetime = NOW, **more: Any) -> Taken:
    return Taken(event(name, at, **more), targets or (target(),), "acme", at)


@pytest.fixture
def other(warehouse_url: str) -> Iterator[psycopg.Connection]:
    """Another listener's connection."""
    with database.connect(warehouse_url) as connection:
        yield connection


def test_an_event_is_taken_in_once_whoever_brings_it(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    assert events.take_in(conn, [taken("a"), taken("b")]) == {(Cloud.AWS, "a"), (Cloud.AWS, "b")}
    assert events.take_in(other, [taken("b"), taken("c"), taken("c")]) == {(Cloud.AWS, "c")}
    assert events.take_in(conn, []) == set()
    assert conn.execute("SELECT count(*) FROM event_targets").fetchone() == (3,)
    row = conn.execute("SELECT actor, source_ip, original FROM events WHERE id = 'a'").fetchone()
    assert row == ("arn:aws:iam::111122223333:user/ada", "203.0.113.9", {"eventID": "a"})


def test_an_event_notes_that_its_account_was_touched(conn: psycopg.Connection) -> None:
    conn.execute(
        "INSERT INTO accounts (cloud, id, first_seen_at) VALUES ('aws', %s, now())", (ACCOUNT,)
    )
    events.take_in(conn, [taken("a")], NOW)
    assert conn.execute("SELECT touched_at FROM accounts").fetchone() == (NOW,)


def test_a_burst_is_one_piece_of_work_in_the_order_of_the_changes(
    conn: psycopg.Connection,
) -> None:
    changes = [taken(f"{n:02}", at=NOW - timedelta(seconds=n)) for n in range(50)]
    events.take_in(conn, changes)
    (work,) = events.claim(conn, 10)
    assert work.target == target()
    assert work.events == tuple(f"{n:02}" for n in reversed(range(50)))
    assert work.source == "acme"
    cause = events.cause_of(conn, work)
    assert cause is not None
    assert (cause.event, cause.at) == ("00", NOW)


def test_a_resource_is_one_listeners_until_it_is_done(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    events.take_in(conn, [taken("a"), taken("b", target("other"))])
    mine = events.claim(conn, 1)
    theirs = events.claim(other, 5)
    assert [one.target for one in (*mine, *theirs)] == [target(), target("other")]
    events.take_in(other, [taken("c")])
    assert events.claim(other, 5, [one.target for one in theirs]) == []
    assert events.claim(conn, 5, [one.target for one in mine]) == []
    events.done(conn, mine)
    (again,) = events.claim(other, 5, [one.target for one in theirs])
    assert again.events == ("c",)


def test_what_a_dead_listener_held_is_another_s(
    conn: psycopg.Connection, warehouse_url: str
) -> None:
    events.take_in(conn, [taken("a")])
    with database.connect(warehouse_url) as dying:
        assert len(events.claim(dying, 5)) == 1
        assert events.claim(conn, 5) == []
    deadline = datetime.now(UTC) + timedelta(seconds=10)
    while not (claimed := events.claim(conn, 5)):
        assert datetime.now(UTC) < deadline
    assert claimed[0].events == ("a",)


def test_what_cannot_be_done_is_tried_later_and_given_up_at_last(
    conn: psycopg.Connection,
) -> None:
    events.take_in(conn, [taken("a")])
    waits = []
    for _ in range(events.MOST_TRIES):
        (work,) = events.claim(conn, 5)
        still = events.later(conn, work, "Throttled.")
        row = conn.execute("SELECT not_before - clock_timestamp() FROM event_targets").fetchone()
        assert row is not None
        waits.append(row[0])
        assert events.claim(conn, 5) == [], "it is not due yet"
        conn.execute("UPDATE event_targets SET not_before = now()")
    assert not still
    assert waits == sorted(waits)
    assert waits[-1] > timedelta(minutes=5)
    assert events.claim(conn, 5) == []
    row = conn.execute("SELECT state, message, tries FROM event_targets").fetchone()
    assert row == ("failed", "Throttled.", events.MOST_TRIES)
    assert events.backlog(conn)[Cloud.AWS].failed_last_day == 1


def test_waiting_for_a_run_is_no_failed_try(conn: psycopg.Connection) -> None:
    events.take_in(conn, [taken("a")])
    for _ in range(events.MOST_TRIES + 1):
        (work,) = events.claim(conn, 5)
        assert events.later(conn, work, "busy", wait=timedelta(0), counts=False)
    assert work.tries == 0


def test_the_backlog_tells_what_waits_and_what_is_in_flight(
    conn: psycopg.Connection, other: psycopg.Connection
) -> None:
    assert events.backlog(conn)[Cloud.AZURE] == events.Backlog(0, 0.0, 0, 0, 0)
    before = datetime.now(UTC) - timedelta(seconds=30)
    events.take_in(conn, [taken("a"), taken("b"), taken("c", target("other"))], before)
    events.claim(other, 1)
    told = events.backlog(conn)[Cloud.AWS]
    assert (told.waiting, told.in_flight, told.done_last_minute) == (3, 1, 0)
    assert 30 <= told.lag_seconds < 90
    works: list[Work] = events.claim(conn, 5)
    events.done(conn, works)
    assert events.backlog(conn)[Cloud.AWS].done_last_minute == 1


def test_listeners_are_known_while_they_say_so(conn: psycopg.Connection) -> None:
    one, two = "7b0c2a0e-1111-4222-8333-44445555666a", "7b0c2a0e-1111-4222-8333-44445555666b"
    events.listener_seen(conn, one, "a:1", "", {"events": 3})
    events.listener_seen(conn, two, "b:2", "run", {})
    events.listener_seen(conn, one, "a:1", "", {"events": 4})
    assert [(row.host, row.counts) for row in events.listeners(conn)] == [
        ("a:1", {"events": 4}),
        ("b:2", {}),
    ]
    conn.execute("UPDATE listeners SET seen_at = now() - interval '1 minute' WHERE host = 'b:2'")
    assert [row.host for row in events.listeners(conn)] == ["a:1"]
    events.listener_gone(conn, one)
    assert events.listeners(conn) == []


def test_odd_characters_stop_nothing(conn: psycopg.Connection) -> None:
    odd = taken("a\x00b", actor="x\ud800\x00")
    assert len(events.take_in(conn, [odd])) == 1
