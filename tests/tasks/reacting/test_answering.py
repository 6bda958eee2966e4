"""What is done about what events bring to light: closed, asked about, waited for, or let be."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.policy import Mode
from tasks.reacting import answering
from tasks.warehouse import audit, remediations
from tasks.warehouse.remediations import NewRemediation

POLICY = """
suture: 1
policies:
  - name: close
    match: {{rule: aws_s3_bucket_versioning_enabled}}
    mode: {mode}
    {more}
"""
Say = Callable[..., None]


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Say:
    """``policy(mode, more)`` writes the policy file anew."""
    path = tmp_path / "policies.yaml"
    monkeypatch.setenv("SUTURE_POLICIES", str(path))

    def write(mode: str = "automatic", more: str = "") -> None:
        path.write_text(POLICY.format(mode=mode, more=more))

    write()
    return write


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The events of Prefect's that would have been sent."""
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(
        answering, "emit_event", lambda event, **about: sent.append({"event": event, **about})
    )
    return sent


class Reader:
    """Reads buckets again as the listener does, and says what follows."""

    def __init__(self, buckets: Any) -> None:
        self.buckets = buckets
        self.conn = buckets.conn
        self.count = 0

    def __call__(self, *names: str, bad: bool = True) -> answering.Answers:
        reads = []
        for name in names:
            self.count += 1
            work = self.buckets.changed(name, f"event-{self.count}")
            reads.append(self.buckets.read(work, self.buckets.bucket(name, bad=bad)))
        scan_id = self.buckets.merge(*reads)
        return answering.answers(self.conn, reads, scan_id)

    def remediation(self, name: str, mode: str = "automatic", state: str = "planned") -> Any:
        """A remediation of a bucket's finding."""
        self.count += 1
        finding = self.buckets.finding(name)["id"]
        planned = NewRemediation(
            finding_id=finding, number=1, mode=mode, plan={"undoes": ""}, state=state
        )
        (row,) = remediations.save_plan(self.conn, f"run-{self.count}", [planned])
        return row

    def ended(self, name: str, state: str, mode: str = "automatic", *, begun: bool = False) -> Any:
        row = self.remediation(name, mode)
        if begun or state == "remediated":
            remediations.set_state(self.conn, row.id, "applying")
            self.conn.execute("UPDATE remediations SET began_at = now() WHERE id = %s", (row.id,))
        return remediations.set_state(self.conn, row.id, state, at=datetime.now(UTC))

    def died(self, name: str, state: str) -> Any:
        """A process died while it was changing the bucket, and that was settled so."""
        row = self.ended(name, state, begun=True)
        audit.append(self.conn, "reconciliation", "settled", row.id, {"state": state})
        return row

    def closed(self, name: str) -> None:
        """Suture closes the bucket's finding, and verifies it."""
        self.ended(name, "remediated")
        self(name, bad=False)


@pytest.fixture
def again(buckets: Any, policy: Say, told: Any) -> Reader:
    return Reader(buckets)


def left_alone(answers: answering.Answers) -> bool:
    """Whether nothing follows, and the work is done."""
    return not answers.answers and not answers.busy and len(answers.done) == 1


@pytest.mark.parametrize("mode", ["automatic", "assisted"])
def test_a_bad_change_is_handed_on_by_its_policy(again: Reader, policy: Say, mode: str) -> None:
    policy(mode)
    answers = again("a", "b", "c")
    (answer,) = answers.answers
    assert (answer.group.policy.name, answer.group.policy.mode) == ("close", Mode(mode))
    assert {one.resource for one in answer.group.findings} == {f"arn:aws:s3:::{x}" for x in "abc"}
    assert {work.target.resource for work in answer.works} == {f"arn:aws:s3:::{x}" for x in "abc"}
    causes = {one.event for one in answer.causes.values()}
    assert causes == {"event-1", "event-2", "event-3"}
    assert answers.busy == answers.done == ()


def test_what_no_policy_is_about_and_what_is_fine_is_done(again: Reader, policy: Say) -> None:
    assert left_alone(again("a", bad=False))
    policy("guided")
    answers = again("b")
    assert left_alone(answers)
    assert again.buckets.finding("b")["status"] == "open"


def test_what_a_run_is_at_work_on_is_waited_for(again: Reader) -> None:
    again("a")
    row = again.remediation("a")
    answers = again("a")
    assert answers.answers == ()
    assert [work.target.resource for work in answers.busy] == ["arn:aws:s3:::a"]
    assert answers.busy_runs == (row.run_id,)
    assert answers.done == ()


def test_where_a_run_is_at_work_nothing_else_is_begun(again: Reader) -> None:
    """All of a kind was read, and a run is changing one of it."""
    again("a", "b")
    row = again.remediation("a")
    work = again.buckets.changed("", "all")
    read = again.buckets.read(work, again.buckets.bucket("a"), again.buckets.bucket("b"))
    answers = answering.answers(again.conn, [read], again.buckets.merge(read))
    assert [one.resource for one in answers.answers[0].group.findings] == ["arn:aws:s3:::b"]
    assert answers.answers[0].works == ()
    assert (answers.busy, answers.busy_runs, answers.done) == ((work,), (row.run_id,), ())


def test_a_change_that_stands_in_part_is_waited_for_until_it_is_put_back(again: Reader) -> None:
    again("a")
    row = again.died("a", "failed")
    remediations.mark_half_applied(again.conn, row.id, True)
    answers = again("a")
    assert (answers.answers, answers.busy_runs) == ((), (row.run_id,))
    remediations.mark_half_applied(again.conn, row.id, False)
    again.conn.execute("UPDATE remediations SET state = 'undone' WHERE id = %s", (row.id,))
    assert len(again("a").answers) == 1


def test_what_was_put_back_unproved_is_tried_again_after_a_change_that_came_since(
    again: Reader, policy: Say
) -> None:
    """Somebody may have opened it again while Suture looked whether it was closed."""
    policy(more="escalate: {after: 2, within: 1h}")
    again("a")
    again.ended("a", "undone", begun=True)
    again.conn.execute("UPDATE remediations SET began_at = now() + interval '1 minute'")
    assert left_alone(again("a")), "its event came before the try"
    again.conn.execute("UPDATE remediations SET began_at = now()")
    (answer,) = again("a").answers
    assert answer.group.policy.mode is Mode.AUTOMATIC
    again.ended("a", "undone", begun=True)
    (answer,) = again("a").answers
    assert answer.group.policy.mode is Mode.ASSISTED, "there is no endless fight"


def test_more_than_one_run_may_change_is_read_again_for_the_next(
    again: Reader, policy: Say
) -> None:
    policy(more="most_changes: 2")
    answers = again("a", "b", "c")
    (answer,) = answers.answers
    assert len(answer.group.findings) == len(answer.works) == 2
    assert len(answers.busy) == 1
    assert answers.busy_runs == answers.done == ()


def test_what_processes_die_of_is_tried_a_few_times_only(again: Reader) -> None:
    again("a")
    for _ in range(remediations.MOST_DEATHS):
        assert len(again("a").answers) == 1
        again.died("a", "failed")
    assert left_alone(again("a"))


def test_what_waits_for_an_approver_is_not_asked_again(again: Reader) -> None:
    again("a")
    row = again.remediation("a", "assisted", "waiting")
    assert left_alone(again("a"))
    remediations.set_state(again.conn, row.id, "applying")
    assert again("a").busy_runs == (row.run_id,)


@pytest.mark.parametrize("state", ["denied", "left_out", "refused"])
def test_what_somebody_decided_holds_until_it_is_closed_and_comes_back(
    again: Reader, state: str
) -> None:
    again("a")
    again.ended("a", state, "assisted")
    assert left_alone(again("a"))
    again("a", bad=False)
    assert len(again("a").answers) == 1


@pytest.mark.parametrize(
    ("state", "mode", "begun", "taken_up"),
    [
        ("failed", "automatic", False, True),
        ("failed", "automatic", True, False),
        ("expired", "automatic", False, True),
        ("halted", "automatic", False, True),
        ("capped", "automatic", False, True),
        ("expired", "assisted", False, False),
        ("drifted", "automatic", False, True),
        ("drifted", "assisted", False, False),
    ],
)
def test_what_ended_without_a_decision_is_taken_up_again(
    again: Reader, state: str, mode: str, begun: bool, taken_up: bool
) -> None:
    again("a")
    row = again.ended("a", state, mode, begun=begun)
    assert remediations.ended_without_decision(row) is taken_up
    answers = again("a")
    assert bool(answers.answers) is taken_up
    assert left_alone(answers) is not taken_up


def test_what_comes_back_is_said_once_with_who_made_it(
    again: Reader, told: list[dict[str, Any]]
) -> None:
    again("a")
    assert told == []
    again.closed("a")
    assert told == []

    answers = again("a")

    (answer,) = answers.answers
    (finding,) = answer.group.findings
    ((event, about),) = [(one["event"], one["payload"]) for one in told]
    assert event == answering.CAME_BACK
    assert about["changed_by"] == "arn:aws:iam::111122223333:user/ada"
    assert about["changed_from"] == "203.0.113.9"
    assert (about["finding"], about["closed_before"]) == (finding.id, 1)
    said = audit.entries_about(again.conn, [finding.id])
    assert [one.action for one in said] == ["came back"]
    again("a")  # read again while it is open still: nothing has come back since
    assert len(told) == 1


def test_what_comes_back_too_often_is_asked_about(again: Reader, policy: Say) -> None:
    policy(more="escalate: {after: 2, within: 1h}")
    modes = []
    for _ in range(3):
        (answer,) = again("a").answers
        modes.append(answer.group.policy.mode)
        again.closed("a")
    assert modes == [Mode.AUTOMATIC, Mode.AUTOMATIC, Mode.ASSISTED]


def test_closings_long_ago_count_no_more(again: Reader, policy: Say) -> None:
    policy(more="escalate: {after: 1, within: 1h}")
    again("a")
    again.closed("a")
    long_ago = datetime.now(UTC) - timedelta(hours=2)
    again.conn.execute("UPDATE remediations SET finished_at = %s", (long_ago,))
    (answer,) = again("a").answers
    assert answer.group.policy.mode is Mode.AUTOMATIC


def test_the_record_says_whose_change_a_fix_answers(again: Reader) -> None:
    (answer,) = again("a").answers
    answering.note_causes(again.conn, answer.group, answer.causes)
    (finding,) = answer.group.findings
    (entry,) = audit.entries_about(again.conn, [finding.id])
    assert (entry.actor, entry.action) == ("react", "event")
    for part in ("event-1", "user/ada", "203.0.113.9", "s3:PutBucketVersioning", "close"):
        assert part in entry.details
    asked_by = answering.requested_by(answer.group, answer.causes)
    assert "user/ada" in asked_by
    assert "event-1" in asked_by
    assert answering.requested_by(answer.group, {}) == "react"


@pytest.mark.parametrize(
    ("state", "begun", "over"),
    [("remediated", True, True), ("refused", False, True), ("failed", True, True)]
    + [(state, False, False) for state in ("failed", "expired", "drifted", "halted", "capped")],
)
def test_what_is_to_be_tried_again_has_not_ended(
    again: Reader, state: str, begun: bool, over: bool
) -> None:
    (answer,) = again("a").answers
    assert answering.how_it_ended(again.conn, answer.group) == {}
    again.ended("a", state, begun=begun)
    (finding,) = answer.group.findings
    expected = {finding.id: state} if over else {}
    assert answering.how_it_ended(again.conn, answer.group) == expected


def test_answers_are_joined_with_all_that_is_in_them(again: Reader) -> None:
    first, second = again("a"), again("b", bad=False)
    joined = answering.joined([first, second])
    assert joined.answers == first.answers
    assert joined.done == second.done
    assert answering.joined([]) == answering.Answers()
