"""The brake: it holds at once for everybody, outlives processes, and is written down."""

from __future__ import annotations

import threading
import time

import psycopg
import pytest

from tasks.errors import BadInput, Halted
from tasks.warehouse import database, halts
from tasks.warehouse.audit import verify_chain


def test_a_halt_holds_for_automatic_runs_until_it_is_lifted(conn: psycopg.Connection) -> None:
    halts.check(conn, "any", automatic=True)
    made = halts.halt(conn, " too many changes ", "Grace")
    assert (made.reason, made.halted_by, made.what) == (
        *("too many changes", "Grace", "Automatic remediation"),
    )
    with pytest.raises(Halted, match=r"halted by Grace since .* too many changes"):
        halts.check(conn, "any", automatic=True)
    halts.check(conn, "any", automatic=False)
    (lifted,) = halts.lift(conn, "all is well", "Ada")
    assert (lifted.lifted_by, lifted.lift_reason) == ("Ada", "all is well")
    halts.check(conn, "any", automatic=True)
    assert halts.standing(conn) == []
    written = conn.execute("SELECT actor, action, subject FROM audit_log ORDER BY number")
    assert written.fetchall() == [
        ("Grace", "halted", "all policies"),
        ("Ada", "lifted", "all policies"),
    ]
    assert verify_chain(conn) is None


def test_a_halt_of_everything_holds_approved_runs_too(conn: psycopg.Connection) -> None:
    halts.halt(conn, "stop", "Grace", everything=True)
    with pytest.raises(Halted, match=r"^Remediation has been halted"):
        halts.check(conn, "on request", automatic=False)


def test_a_policy_is_halted_and_lifted_alone(conn: psycopg.Connection) -> None:
    halts.halt(conn, "stop", "Grace", policy="one")
    halts.check(conn, "two", automatic=True)
    with pytest.raises(Halted, match="Automatic remediation under one"):
        halts.check(conn, "one", automatic=True)
    with pytest.raises(
        BadInput, match=r"all policies is not what is halted\. Lift it with --policy"
    ):
        halts.lift(conn, "well", "Ada")
    halts.halt(conn, "stop all", "Grace")
    halts.lift(conn, "well", "Ada")
    assert [one.policy for one in halts.standing(conn)] == ["one"]
    with pytest.raises(BadInput, match="Lift it with --policy one"):
        halts.lift(conn, "well", "Ada", policy="two")
    halts.lift(conn, "well", "Ada", policy="one")
    with pytest.raises(BadInput, match="nothing is halted"):
        halts.lift(conn, "well", "Ada", policy="one")


@pytest.mark.parametrize(("reason", "by", "field"), [(" ", "Ada", "reason"), ("x", "", "by")])
def test_who_and_why_are_needed(conn: psycopg.Connection, reason: str, by: str, field: str) -> None:
    for change in (halts.halt, halts.lift):
        with pytest.raises(BadInput, match=f"--{field}: is empty"):
            change(conn, reason, by)


def test_two_halts_of_one_scope_are_lifted_together(conn: psycopg.Connection) -> None:
    for reason in ("first", "second"):
        halts.halt(conn, reason, "Grace")
    assert [one.reason for one in halts.lift(conn, "well", "Ada")] == ["first", "second"]


@pytest.mark.attack
def test_a_process_that_is_stuck_at_the_audit_log_cannot_keep_the_brake(
    conn: psycopg.Connection, warehouse_url: str
) -> None:
    from tasks.warehouse import audit

    with database.connect(warehouse_url) as stuck, database.connect(warehouse_url) as other:
        with stuck.transaction():
            audit.append(stuck, "a process", "stopped in the middle of", "its transaction")
            pulling = threading.Thread(target=halts.halt, args=(other, "stop", "Grace"))
            pulling.start()
            began = time.monotonic()
            while not halts.standing(conn):
                assert time.monotonic() - began < 1, "the halt waits for the log"
                time.sleep(0.01)
        pulling.join(10)
    assert verify_chain(conn) is None
