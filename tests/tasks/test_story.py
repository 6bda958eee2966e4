"""The story of a remediation says who, what, which calls and how it ended."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tasks.audit import Entry, next_entry
from tasks.calls import CallMade, calls_json, note, recording
from tasks.story import BY_HAND, tell

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
WRITE = CallMade(
    operation="ec2:RevokeSecurityGroupIngress", target="sg-1", request_id="r-1", status=200, at=AT
)
SESSION = CallMade(operation="session", identity="arn:aws:sts::1:assumed-role/R/s", until=AT, at=AT)


def log(*said: tuple[str, str, dict[str, Any]]) -> list[Entry]:
    chain: list[Entry] = []
    for actor, action, details in said:
        last = (chain[-1].number, chain[-1].hash) if chain else None
        more = {"actor": actor, "action": action, "subject": "r"}
        chain.append(next_entry(last, at=AT, **more, details=details))
    return chain


def test_a_fix_is_told_from_its_plan_to_its_proof() -> None:
    told = tell(
        log(
            ("flow run 1", "planned", {"requested_by": "ann", "rule": "r", "plan": "a" * 64}),
            ("Ada", "approved", {"verified": False, "values": {"allowed_cidrs": ["10.0.0.0/8"]}}),
            ("flow run 1", "applying", {"plan": "a" * 64, "calls": calls_json([SESSION])}),
            ("flow run 1", "wrote", {"calls": calls_json([WRITE])}),
            ("flow run 1", "remediated", {"message": "Applied, and verified."}),
        )
    )
    words = "\n".join("\n".join([one.sentence, *one.lines]) for one in told)
    assert "ann asked to close r" in words
    assert "Ada (a name as typed) approved it with allowed_cidrs = 10.0.0.0/8." in words
    assert "Signed in as arn:aws:sts::1:assumed-role/R/s until 2026-03-01T12:00:00+00:00" in words
    assert BY_HAND in told[2].lines
    assert "sg-1 answered 200, request r-1" in words
    assert "Remediated (flow run 1). Applied, and verified." in words


def test_a_gate_that_a_machine_opened_is_not_said_to_be_opened_by_hand() -> None:
    told = tell(
        log(
            ("acme token endpoint", "gate opened", {"until": "2026-03-01T12:10:00+00:00"}),
            ("flow run 1", "applying", {"plan": "a" * 64}),
        )
    )
    assert told[0].sentence == (
        "acme token endpoint opened the gate until 2026-03-01T12:10:00+00:00."
    )
    assert BY_HAND not in told[1].lines


def test_an_unanswered_call_and_an_undo_are_told_as_such() -> None:
    lost = CallMade(operation="PUT", target="/x", code="ReadTimeout", undo=True, at=AT)
    (one,) = tell(log(("flow run 1", "failed", {"message": "Oh.", "calls": calls_json([lost])})))
    assert one.lines == ("2026-03-01T12:00:00.000+00:00 undo: PUT /x got no answer ReadTimeout",)


def test_a_recording_inside_another_keeps_its_calls_to_itself() -> None:
    with recording() as outer:
        note(WRITE)
        with recording() as inner:
            note(SESSION)
        note(WRITE)
    note(WRITE)  # nobody records
    assert (outer, inner) == ([WRITE, WRITE], [SESSION])
