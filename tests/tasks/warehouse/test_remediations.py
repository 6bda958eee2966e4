"""Remediations: plans saved once, states that move only where they may, snapshots given back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tasks.errors import BadInput
from tasks.lifecycle import REMEDIATION_STATES, IllegalTransition
from tasks.model import (
    Account,
    AccountScan,
    Cloud,
    Config,
    Observation,
    Resource,
    Severity,
    Verdict,
    finding_id,
)
from tasks.warehouse import database, remediations, scans
from tasks.warehouse.remediations import NewRemediation

ACCOUNT = Account(Cloud.AZURE, "sub-1", "one")
NOW = datetime(2026, 2, 1, 12, tzinfo=UTC)


def group(name: str) -> Resource:
    config = {"zeta": 1, "alpha": {"b": [1.0, 10**20], "a": None}, "name": name}
    return Resource(
        *(Cloud.AZURE, ACCOUNT.id, "westeurope", "azure.network.security_group", f"/nsg/{name}"),
        *(name, Config(config, {"flowLogs": "AuthorizationFailed"}), {"env": "prod"}, 'W/"1"'),
    )


def open_finding(conn: psycopg.Connection, resource: Resource) -> str:
    key = finding_id(resource.cloud, resource.account, resource.region, "rule", resource.id)
    observation = Observation(
        *(key, resource.account, resource.cloud, resource.region, "rule", Severity.HIGH),
        *(resource.kind, resource.id, Verdict.FAIL),
    )
    scans.merge_one(conn, AccountScan(ACCOUNT, [resource], [observation]), "test")
    return key


@pytest.fixture
def pair(conn: psycopg.Connection) -> list[str]:
    return [open_finding(conn, group("a")), open_finding(conn, group("b"))]


def new(finding: str, number: int = 1, **more: object) -> NewRemediation:
    return NewRemediation(finding_id=finding, number=number, mode="assisted", **more)  # type: ignore[arg-type]


def test_a_plan_is_saved_once_and_read_back_as_it_was(
    conn: psycopg.Connection, pair: list[str]
) -> None:
    plan = {"steps": [{"z": 1, "a": 2.50}], "title": "Close «22»"}
    rows = [
        new(pair[0], 1, plan=plan, plan_hash="h", values={"allowed_cidrs": ["10.0.0.0/8"]}),
        new(pair[1], 2, plan=plan, state="waiting", expires_at=NOW, requested_by="policy p"),
    ]
    saved = remediations.save_plan(conn, "run-1", rows)
    assert [(row.number, row.state) for row in saved] == [(1, "planned"), (2, "waiting")]
    assert saved[0].plan == plan
    assert saved[0].values == {"allowed_cidrs": ["10.0.0.0/8"]}
    assert (saved[1].cloud, saved[1].account, saved[1].expires_at) == ("azure", "sub-1", NOW)
    assert remediations.save_plan(conn, "run-1", rows) == saved
    assert remediations.load_run(conn, "run-1") == saved
    assert remediations.waiting(conn) == [saved[1]]
    assert remediations.load_remediation(conn, saved[0].id) == saved[0]


def test_a_finding_is_worked_on_by_one_run_at_a_time(
    conn: psycopg.Connection, pair: list[str]
) -> None:
    (first,) = remediations.save_plan(conn, "run-1", [new(pair[0])])
    assert remediations.finding_has_active_remediation(conn, pair[0])
    assert remediations.active_findings(conn, pair) == {pair[0]}
    both = remediations.save_plan(conn, "run-2", [new(pair[0], 1), new(pair[1], 2)])
    assert [row.finding_id for row in both] == [pair[1]]
    remediations.set_state(conn, first.id, "denied", "not now")
    assert not remediations.finding_has_active_remediation(conn, pair[0])
    (again,) = remediations.save_plan(conn, "run-3", [new(pair[0])])
    assert [row.id for row in remediations.remediations_of(conn, pair[0])] == [again.id, first.id]


def test_states_move_only_where_they_may(conn: psycopg.Connection, pair: list[str]) -> None:
    (row,) = remediations.save_plan(conn, "run-1", [new(pair[0])])
    remediations.set_state(conn, row.id, "waiting", expires_at=NOW)
    applying = remediations.set_state(
        *(conn, row.id, "applying", "go"),
        approver="ann",
        approver_verified=True,
        values={"allowed_cidrs": []},
        at=NOW,
    )
    assert (applying.approver, applying.approver_verified) == ("ann", True)
    assert (applying.decided_at, applying.finished_at) == (NOW, None)
    with pytest.raises(IllegalTransition):
        remediations.set_state(conn, row.id, "applying")
    with pytest.raises(IllegalTransition):
        remediations.set_state(conn, row.id, "denied")
    done = remediations.set_state(conn, row.id, "remediated", at=NOW + timedelta(minutes=1))
    assert (done.state, done.approver, done.values) == ("remediated", "ann", {"allowed_cidrs": []})
    assert done.finished_at == NOW + timedelta(minutes=1)
    with pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("UPDATE remediations SET state = 'nonsense'")


def test_of_many_who_apply_one_does(
    conn: psycopg.Connection, pair: list[str], warehouse_url: str
) -> None:
    (row,) = remediations.save_plan(conn, "run-1", [new(pair[0])])

    def apply(_: int) -> bool:
        with database.connect(warehouse_url) as own:
            try:
                remediations.set_state(own, row.id, "applying")
            except IllegalTransition:
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(apply, range(8))) == 1


def test_overdue_approvals_expire_and_others_stay(
    conn: psycopg.Connection, pair: list[str]
) -> None:
    rows = remediations.save_plan(
        conn,
        "run-1",
        [
            new(pair[0], 1, state="waiting", expires_at=NOW),
            new(pair[1], 2, state="waiting", expires_at=NOW + timedelta(seconds=1)),
        ],
    )
    (expired,) = remediations.expire_overdue(conn, NOW)
    assert (expired.id, expired.state, expired.finished_at) == (rows[0].id, "expired", NOW)
    assert remediations.expire_overdue(conn, NOW) == []
    assert [row.id for row in remediations.waiting(conn)] == [rows[1].id]


def test_a_snapshot_gives_back_the_resource_character_by_character(
    conn: psycopg.Connection, pair: list[str]
) -> None:
    (row,) = remediations.save_plan(conn, "run-1", [new(pair[0])])
    before = group("a")
    remediations.add_snapshot(conn, row.id, "before", before)
    remediations.add_snapshot(conn, row.id, "after", group("changed"))
    first, second = remediations.snapshots(conn, row.id)
    assert (first.stage, second.stage) == ("before", "after")
    assert first.resource == before
    assert first.resource.fingerprint == before.fingerprint
    assert list(first.resource.config) == ["zeta", "alpha", "name"]
    assert conn.execute("SELECT fingerprint FROM snapshots LIMIT 1").fetchone() == (
        before.fingerprint,
    )


def test_what_is_not_there_is_said(conn: psycopg.Connection) -> None:
    with pytest.raises(BadInput, match="no finding"):
        remediations.save_plan(conn, "run-1", [new("nobody")])
    with pytest.raises(BadInput, match="is not a remediation's id"):
        remediations.set_state(conn, "nonsense", "waiting")
    with pytest.raises(BadInput, match="there is no remediation"):
        remediations.set_state(conn, "00000000-0000-0000-0000-000000000000", "waiting")
    assert remediations.load_run(conn, "nobody") == []


def test_a_plan_with_one_unknown_finding_saves_nothing(
    conn: psycopg.Connection, pair: list[str]
) -> None:
    with pytest.raises(BadInput):
        remediations.save_plan(conn, "run-1", [new(pair[0], 1), new("nobody", 2)])
    assert remediations.load_run(conn, "run-1") == []


def test_the_database_knows_every_state(conn: psycopg.Connection, pair: list[str]) -> None:
    """A state added to the lifecycle needs a migration too: comparing tables does not see it."""
    remediations.save_plan(conn, "run-1", [new(pair[0])])
    for state in REMEDIATION_STATES:
        conn.execute("UPDATE remediations SET state = %s", (state,))
