"""Months of observations made ahead and dropped when old, and old scans retired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from tasks.errors import BadInput
from tasks.model import (
    Account,
    AccountScan,
    Cloud,
    Config,
    Covered,
    Resource,
    Rule,
    Severity,
    observe,
)
from tasks.warehouse import incremental, partitions, scans
from tasks.warehouse.audit import append, verify_chain

NOW = datetime.now(UTC)
ACME, GLOBEX = Account(Cloud.AWS, "1" * 12), Account(Cloud.AWS, "2" * 12)
KIND, REGION = "aws.s3.bucket", "eu-central-1"
BLOCKED = Rule(
    id="aws_s3_bucket_blocked",
    kind=KIND,
    severity=Severity.HIGH,
    title="",
    passes=lambda bucket: bool(bucket.config["Blocked"]),
    fix=None,
    reads=(),
    writes=(),
    events=(),
    guide="",
)


def scan(conn: psycopg.Connection, days_ago: int, blocked: bool, account: Account = ACME) -> str:
    bucket = Resource(
        *(account.cloud, account.id, REGION, KIND, f"bucket-{account.id}", "b"),
        Config({"Blocked": blocked}),
    )
    scan_id = scans.begin_scan(conn, "test", at=NOW - timedelta(days=days_ago))
    known = incremental.known_digests(conn, [account])
    given = AccountScan(
        account, [bucket], [observe(BLOCKED, bucket)], [Covered(REGION, KIND, ok=True)]
    )
    scans.load_batch(conn, scan_id, [given], known=known, edition="1")
    scans.merge_scan(conn, scan_id)
    scans.finish_scan(conn, scan_id)
    return scan_id


def names(conn: psycopg.Connection) -> list[str]:
    return [
        name
        for (name,) in conn.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits "
            "WHERE inhparent = 'observations'::regclass AND "
            "inhrelid::regclass::text <> 'observations_other' ORDER BY 1"
        )
    ]


def count(conn: psycopg.Connection, table: str) -> int:
    row = conn.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_months_are_made_ahead_once(conn: psycopg.Connection) -> None:
    made = partitions.make_partitions(conn, 13)
    assert made == names(conn)
    assert len(made) == 14
    assert made[0] == f"observations_{NOW:%Y_%m}"
    assert partitions.make_partitions(conn, 13) == []
    scan(conn, 0, blocked=False)
    assert count(conn, made[0]) == 1


@pytest.mark.parametrize(
    ("field", "given"),
    [("observations_months", {"observations_months": 0}), ("scans_days", {"scans_days": -1})],
)
def test_keeping_nothing_is_refused(
    conn: psycopg.Connection, field: str, given: dict[str, int]
) -> None:
    with pytest.raises(BadInput, match=field):
        partitions.retire(conn, **given)
    with pytest.raises(BadInput, match="ahead"):
        partitions.make_partitions(conn, -1)


def test_old_months_and_old_scans_go_and_findings_stay(conn: psycopg.Connection) -> None:
    append(conn, "somebody", "looked", "at it")
    opened = scan(conn, 900, blocked=False)
    closed = scan(conn, 800, blocked=True)
    reopened = scan(conn, 700, blocked=False)
    again = scan(conn, 500, blocked=False)  # unchanged: nothing but coverage says it
    only = scan(conn, 600, blocked=True, account=GLOBEX)  # all that is known of that account
    recent = scan(conn, 10, blocked=False)
    kept = {table: count(conn, table) for table in ("findings", "finding_episodes", "audit_log")}
    retired = partitions.retire(conn)
    assert {str(row[0]) for row in conn.execute("SELECT id FROM scans")} == {
        reopened,  # opened the episode that is open still
        only,
        recent,
    }
    assert retired.scans == 3
    assert retired.scan_accounts == retired.scan_coverage == 3
    assert len(retired.partitions) == 5
    assert names(conn) == [f"observations_{NOW - timedelta(days=10):%Y_%m}"]
    assert {table: count(conn, table) for table in kept} == kept
    assert verify_chain(conn) is None
    assert {opened, closed, again}.isdisjoint(
        str(row[0]) for row in conn.execute("SELECT scan_id FROM scan_coverage")
    )
    assert partitions.retire(conn) == partitions.Retired((), 0, 0, 0)


def test_what_was_dropped_with_its_month_is_written_anew(conn: psycopg.Connection) -> None:
    scan(conn, 900, blocked=False)
    assert incremental.known_digests(conn, [ACME])
    partitions.retire(conn)
    assert not incremental.known_digests(conn, [ACME])
    scan(conn, 0, blocked=False)
    assert count(conn, "observations") == 1
    assert conn.execute("SELECT verdict FROM verdicts_now").fetchall() == [("fail",)]


def test_what_is_young_stays(conn: psycopg.Connection) -> None:
    scan(conn, 30, blocked=False)
    scan(conn, 1, blocked=True)
    assert partitions.retire(conn) == partitions.Retired((), 0, 0, 0)
    assert count(conn, "observations") == 2


def test_a_reread_makes_the_month_that_it_needs(conn: psycopg.Connection) -> None:
    at = NOW - timedelta(days=100)
    name = f"observations_{at:%Y_%m}"
    bucket = Resource(*(ACME.cloud, ACME.id, REGION, KIND, "b", "b"), Config({"Blocked": False}))
    given = AccountScan(ACME, [bucket], [observe(BLOCKED, bucket)])
    assert name not in names(conn)
    for _ in range(2):
        scans.merge_one(conn, given, observed_at=at)
        assert name in names(conn)
    assert count(conn, name) == 2
