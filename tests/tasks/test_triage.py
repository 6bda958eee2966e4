"""What runs leave behind is freed, and says truly whether something was changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import psycopg
import pytest
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Crashed, Pending, Running, Scheduled, Suspended

from tasks.model import Account, AccountScan, Cloud, Config, Covered, Resource, observe
from tasks.policy import Group, Mode, Policy
from tasks.rules import RULES
from tasks.triage import _cancel, _free_what_was_left, start_approval
from tasks.warehouse import remediations, scans
from tasks.warehouse.audit import verify_chain
from tasks.warehouse.findings import open_findings
from tasks.warehouse.remediations import NewRemediation, RemediationRecord

ACCOUNT = Account(Cloud.AWS, "111122223333", source="acme")


@dataclass
class Prefect:
    """A Prefect that knows one state for every run, or has forgotten them all (None)."""

    state: Any
    set: list[Any] = field(default_factory=list)

    def set_flow_run_state(self, run_id: UUID, state: Any, force: bool) -> None:
        self.set.append(state)

    def read_flow_run(self, run_id: UUID) -> Any:
        if self.state is None:
            raise ObjectNotFound(http_exc=Exception("gone"))
        return SimpleNamespace(id=run_id, state=self.state)


@pytest.fixture
def carried(conn: psycopg.Connection) -> Sequence[RemediationRecord]:
    """A run with two findings: one waits, one is being written to."""
    seen = [
        Resource(
            cloud=Cloud.AWS,
            account=ACCOUNT.id,
            region=region,
            kind="aws.ec2.ebs_defaults",
            id=f"arn:aws:ec2:{region}:{ACCOUNT.id}:ebs-encryption-by-default",
            name="EBS",
            config=Config({"EbsEncryptionByDefault": False}),
        )
        for region in ("eu-central-1", "us-east-1")
    ]
    said = [observe(rule, one) for one in seen for rule in RULES if rule.kind == one.kind]
    covered = [Covered(one.region, one.kind, ok=True) for one in seen]
    scan = scans.begin_scan(conn, "fleet")
    scans.record_accounts(conn, scan, [ACCOUNT])
    scans.load_batch(conn, scan, [AccountScan(ACCOUNT, seen, said, covered)])
    scans.merge_scan(conn, scan)
    rows = [
        NewRemediation(finding_id=one.id, number=number, mode="assisted", state="waiting")
        for number, one in enumerate(open_findings(conn), start=1)
    ]
    _, second = remediations.save_plan(conn, str(uuid4()), rows)
    remediations.set_state(conn, second.id, "applying")
    return remediations.load_run(conn, second.run_id)


def free(conn: psycopg.Connection, state: Any) -> int:
    freed = _free_what_was_left(conn, cast(Any, Prefect(state)))
    assert verify_chain(conn) is None
    return freed


@pytest.mark.parametrize("state", [Cancelled(), Crashed(), Completed(), None])
def test_what_a_run_that_is_over_has_left_is_freed(
    conn: psycopg.Connection, carried: Sequence[RemediationRecord], state: Any
) -> None:
    assert free(conn, state) == 1
    waited, written = remediations.load_run(conn, carried[0].run_id)
    assert (waited.state, written.state) == ("expired", "applying")  # see tasks/reconciling.py
    assert "nothing was changed" in waited.message
    assert free(conn, state) == 0


def test_what_a_living_run_carries_is_left_alone(
    conn: psycopg.Connection, carried: Sequence[RemediationRecord]
) -> None:
    assert free(conn, Running()) == 0
    assert [one.state for one in remediations.active(conn)] == ["waiting", "applying"]


def test_a_run_that_is_writing_does_not_expire(
    conn: psycopg.Connection, carried: Sequence[RemediationRecord]
) -> None:
    late = datetime.now(UTC) + timedelta(days=2)
    conn.execute("UPDATE remediations SET expires_at = now()")
    assert remediations.expire_overdue(conn, late) == []
    remediations.set_state(conn, carried[1].id, "remediated")
    assert [one.id for one in remediations.expire_overdue(conn, late)] == [carried[0].id]


@pytest.mark.parametrize(
    ("state", "ended"),
    [
        (Suspended(), True),
        (Scheduled(), True),
        (Pending(), True),
        (Running(), False),
        (Completed(), False),
        (None, False),
    ],
)
def test_only_a_run_that_waits_is_cancelled_when_it_expires(state: Any, ended: bool) -> None:
    prefect = Prefect(state)
    _cancel(cast(Any, prefect), str(uuid4()))
    assert [one.name for one in prefect.set] == ["Expired"] * ended


def test_no_process_writes_for_an_hour(
    conn: psycopg.Connection, carried: Sequence[RemediationRecord]
) -> None:
    earlier = datetime.now(UTC) - timedelta(hours=2)
    conn.execute("UPDATE remediations SET decided_at = %s WHERE state = 'applying'", (earlier,))
    assert free(conn, Running()) == 1
    assert [one.state for one in remediations.active(conn)] == ["waiting"]
    written = remediations.load_remediation(conn, carried[1].id)
    assert (written.state, written.id) == ("failed", carried[1].id)
    assert "compare the resource with its snapshots" in written.message


def test_a_finding_that_was_denied_is_not_taken_up_again_at_once(
    conn: psycopg.Connection, carried: Sequence[RemediationRecord]
) -> None:
    waited, written = carried
    remediations.set_state(conn, waited.id, "denied")
    remediations.set_state(conn, written.id, "remediated")
    ids = [waited.finding_id, written.finding_id]
    just_now = datetime.now(UTC) - timedelta(minutes=1)
    assert remediations.recently_ended(conn, ids, just_now) == {waited.finding_id}
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert remediations.recently_ended(conn, ids, later) == set()


@pytest.mark.parametrize("state", ["expired", "drifted"])
def test_what_expired_or_drifted_is_left_quiet_too(
    conn: psycopg.Connection, carried: Sequence[RemediationRecord], state: str
) -> None:
    remediations.set_state(conn, carried[0].id, state)
    earlier = datetime.now(UTC) - timedelta(minutes=1)
    ids = [carried[0].finding_id]
    assert remediations.recently_ended(conn, ids, earlier) == set(ids)


@dataclass
class Deployments:
    """A Prefect that knows a run again by its key; ``state`` is what its runs are in."""

    state: Any
    runs: dict[str, UUID] = field(default_factory=dict)

    def run(self, *_: Any, idempotency_key: str, **__: Any) -> Any:
        fresh = idempotency_key not in self.runs
        run_id = self.runs.setdefault(idempotency_key, uuid4())
        return SimpleNamespace(id=run_id, state=Scheduled() if fresh else self.state)


def test_a_queued_run_is_not_started_twice(
    conn: psycopg.Connection,
    warehouse_url: str,
    carried: Sequence[RemediationRecord],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conn.commit()
    prefect = Deployments(Scheduled())
    monkeypatch.setenv("SUTURE_WAREHOUSE_URL", warehouse_url)
    monkeypatch.setattr("tasks.triage.run_deployment", prefect.run)
    found = tuple(open_findings(conn))
    group = Group(Policy("office", Mode.ASSISTED), "aws", ACCOUNT.id, found)
    first = start_approval.fn(group)
    assert start_approval.fn(group) == first
    assert start_approval.fn(replace(group, findings=found[::-1])) == first
    others = {
        start_approval.fn(replace(group, findings=found[:1])),
        start_approval.fn(replace(group, policy=Policy("other", Mode.ASSISTED))),
    }
    assert first not in others
    prefect.state = Crashed()  # before it took the findings up
    again = start_approval.fn(group)
    assert again != first
    prefect.state = Scheduled()
    remediations.set_state(conn, carried[0].id, "denied")
    conn.commit()
    assert start_approval.fn(group) not in {first, again}
