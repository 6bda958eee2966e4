"""Findings read back: filters, exceptions, DataFrames, Parquet and the analysts' views."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas
import psycopg
import pyarrow.parquet
import pytest

from tasks.errors import BadInput
from tasks.model import (
    Account,
    AccountScan,
    Cloud,
    Config,
    Covered,
    Observation,
    Resource,
    Severity,
    Verdict,
    finding_id,
)
from tasks.warehouse import accessor, database, findings, scans

NOW = datetime.now(UTC)
ACCOUNTS = [
    Account(Cloud.AWS, "1" * 12, "one", "org", tags={"team": "core"}),
    Account(Cloud.AZURE, "sub-2", "two", "contoso"),
]
SEVERITIES = {"low_rule": Severity.LOW, "critical_rule": Severity.CRITICAL}


def account_scan(account: Account, names: list[str], verdict: Verdict) -> AccountScan:
    kind = f"{account.cloud}.svc.thing"
    found = [
        Resource(
            account.cloud,
            account.id,
            "eu",
            kind,
            f"{account.id}/{name}",
            name,
            Config({"n": name}),
            {"env": "prod"},
        )
        for name in names
    ]
    observations = [
        Observation(
            *(finding_id(r.cloud, r.account, r.region, rule, r.id), r.account, r.cloud, r.region),
            *(rule, severity, r.kind, r.id, verdict),
        )
        for r in found
        for rule, severity in SEVERITIES.items()
    ]
    return AccountScan(account, found, observations, [Covered("eu", kind, ok=True)])


def scan(conn: psycopg.Connection, verdict: Verdict, days_ago: float, names: str = "ab") -> None:
    scan_id = scans.begin_scan(conn, "test", at=NOW - timedelta(days=days_ago))
    for account in ACCOUNTS:
        scans.load_batch(conn, scan_id, [account_scan(account, list(names), verdict)])
    scans.merge_scan(conn, scan_id)
    scans.finish_scan(conn, scan_id)


@pytest.fixture
def filled(conn: psycopg.Connection) -> psycopg.Connection:
    scan(conn, Verdict.FAIL, 3)
    return conn


def test_open_findings_come_worst_first_with_their_tags(filled: psycopg.Connection) -> None:
    found = findings.open_findings(filled)
    assert len(found) == 8
    assert [finding.severity for finding in found] == [Severity.CRITICAL] * 4 + [Severity.LOW] * 4
    aws = next(finding for finding in found if finding.cloud is Cloud.AWS)
    assert aws.tags == {"env": "prod"}
    assert aws.account_tags == {"team": "core"}
    assert findings.finding_by_id(filled, aws.id) == aws


def test_the_beginning_of_an_id_names_a_finding(filled: psycopg.Connection) -> None:
    one = findings.open_findings(filled)[0]
    begun, like = one.id[:12], "%" + one.id[1:12]
    assert findings.findings_named(filled, [begun, one.id, one.id[:7], like]) == {
        begun: [one],
        one.id: [one],
        one.id[:7]: [],  # too short to be meant
        like: [],
    }
    assert findings.finding_by_id(filled, begun) == one

    twin = one.id[:12] + "0" * 52
    filled.execute(
        "INSERT INTO findings SELECT (jsonb_populate_record(f, jsonb_build_object('id', %s::text,"
        " 'rule', 'twin'))).* FROM findings f WHERE id = %s",
        [twin, one.id],
    )
    assert len(findings.findings_named(filled, [begun])[begun]) == 2
    assert findings.findings_named(filled, [twin])[twin][0].id == twin
    with pytest.raises(BadInput, match="2 findings begin with"):
        findings.finding_by_id(filled, begun)


@pytest.mark.parametrize(
    ("filters", "count"),
    [
        ({"cloud": "aws"}, 4),
        ({"account": "sub-2"}, 4),
        ({"severity": Severity.CRITICAL}, 4),
        ({"rule": "low_rule", "cloud": "azure"}, 2),
        ({"limit": 3}, 3),
        ({"ids": []}, 0),
        ({"ids": ["nobody"]}, 0),
        ({"rule": "x' OR true --"}, 0),
    ],
)
def test_filters(filled: psycopg.Connection, filters: dict[str, object], count: int) -> None:
    assert len(findings.open_findings(filled, **filters)) == count  # type: ignore[arg-type]


def test_ids_narrow_and_resolved_ones_are_not_open(filled: psycopg.Connection) -> None:
    ids = [finding.id for finding in findings.open_findings(filled, limit=2)]
    assert [finding.id for finding in findings.open_findings(filled, ids=ids)] == ids
    scan(filled, Verdict.PASS, 2)
    assert findings.open_findings(filled, ids=ids) == []
    assert {f.status for f in findings.findings_by_ids(filled, ids)} == {"resolved"}


@pytest.mark.parametrize(
    ("scope", "left"),
    [
        ({"rule": "low_rule"}, 4),
        ({"account": "sub-2", "cloud": "azure"}, 4),
        ({"rule": "low_rule", "account": "sub-2"}, 6),
        ({"rule": "low_rule", "expires_at": NOW + timedelta(days=1)}, 4),
        ({"rule": "low_rule", "expires_at": NOW - timedelta(days=1)}, 8),
        ({"rule": "other"}, 8),
    ],
)
def test_exceptions_hold_what_they_match_back(
    filled: psycopg.Connection, scope: dict[str, object], left: int
) -> None:
    findings.add_exception(filled, reason="accepted", created_by="ann", **scope)  # type: ignore[arg-type]
    assert len(findings.open_findings(filled)) == left
    assert len(findings.open_findings(filled, excepted=True)) == 8
    assert filled.execute("SELECT count(*) FROM open_findings WHERE NOT excepted").fetchone() == (
        left,
    )


def test_one_finding_can_be_excepted_but_not_everything(filled: psycopg.Connection) -> None:
    first = findings.open_findings(filled)[0]
    findings.add_exception(filled, reason="accepted", created_by="ann", finding_id=first.id)
    assert len(findings.open_findings(filled)) == 7
    with pytest.raises(BadInput, match="every finding"):
        findings.add_exception(filled, reason="no", created_by="ann")


def test_nobody_knows_a_stranger(conn: psycopg.Connection) -> None:
    with pytest.raises(BadInput, match="no finding"):
        findings.finding_by_id(conn, "nobody")
    with pytest.raises(BadInput, match="in no scan"):
        findings.account_of(conn, "aws", "nobody")
    with pytest.raises(BadInput, match="none in the warehouse"):
        scans.latest_scan(conn)
    assert findings.resource_of(conn, "nobody") is None


def test_the_views_tell_age_posture_and_time(filled: psycopg.Connection) -> None:
    scan(filled, Verdict.PASS, 1, names="a")  # a is fixed, b is gone
    rows = filled.execute(
        "SELECT resolution, sum(closed), min(median), max(median) FROM time_to_remediate "
        "GROUP BY resolution ORDER BY resolution"
    ).fetchall()
    assert rows == [
        ("pass", 4, timedelta(days=2), timedelta(days=2)),
        ("resource_gone", 4, timedelta(days=2), timedelta(days=2)),
    ]
    scan(filled, Verdict.FAIL, 0.5, names="c")
    assert filled.execute(
        "SELECT cloud, severity, age, findings FROM open_by_severity_and_age "
        "ORDER BY cloud, severity_order"
    ).fetchall() == [
        ("aws", "critical", "under 1 day", 2 // 2),
        ("aws", "low", "under 1 day", 1),
        ("azure", "critical", "under 1 day", 1),
        ("azure", "low", "under 1 day", 1),
    ]
    posture = filled.execute(
        "SELECT status, resources, passed, failed, failed_critical, percent_passed "
        "FROM posture_by_account_and_day WHERE account = 'sub-2' ORDER BY day LIMIT 1"
    ).fetchone()
    assert posture == ("covered", 2, 0, 4, 2, 0)


def test_coverage_gaps_say_what_the_newest_scan_did_not_see(conn: psycopg.Connection) -> None:
    scan_id = scans.begin_scan(conn, "test")
    scans.record_accounts(conn, scan_id, ACCOUNTS)
    partly = AccountScan(
        ACCOUNTS[0], coverage=[Covered("eu", "aws.svc.thing", ok=False, reason="AccessDenied")]
    )
    scans.load_batch(conn, scan_id, [partly, AccountScan(ACCOUNTS[1], failed="throttled")])
    scans.merge_scan(conn, scan_id)
    gaps = conn.execute(
        "SELECT account, kind, gap, reason FROM coverage_gaps ORDER BY 1"
    ).fetchall()
    assert gaps == [
        ("1" * 12, "aws.svc.thing", "unread", "AccessDenied"),
        ("sub-2", None, "failed", "throttled"),
    ]


def test_loads_run_side_by_side(conn: psycopg.Connection, warehouse_url: str) -> None:
    scan_id = scans.begin_scan(conn, "test")
    many = [Account(Cloud.AWS, f"{number:012}", "") for number in range(40)]

    def load(account: Account) -> None:
        with database.connect(warehouse_url) as own:
            scans.load_batch(own, scan_id, [account_scan(account, ["a", "b"], Verdict.FAIL)])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(load, many + many))  # each one twice, some at the same time
    assert scans.merge_scan(conn, scan_id).opened == 40 * 2 * 2


@pytest.mark.parametrize("loading", [False, True])
def test_a_large_merge_leaves_what_another_scan_has_loaded(
    conn: psycopg.Connection, warehouse_url: str, loading: bool
) -> None:
    """A large scan empties the whole loading dock, but not under another scan's feet."""
    fleet, other = (scans.begin_scan(conn, "test") for _ in range(2))
    many = [Account(Cloud.AWS, f"{number:012}", "") for number in range(25)]
    scans.load_batch(conn, fleet, [account_scan(one, ["a"], Verdict.FAIL) for one in many])
    with database.connect(warehouse_url) as own, own.transaction():
        scans.load_batch(own, other, [account_scan(ACCOUNTS[1], ["a"], Verdict.FAIL)])
        if loading:  # its transaction is not over yet
            assert scans.merge_scan(conn, fleet).opened == 50
    if not loading:
        assert scans.merge_scan(conn, fleet).opened == 50
    assert scans.merge_scan(conn, other).opened == 2
    last = scans.begin_scan(conn, "test")
    scans.load_batch(conn, last, [account_scan(one, ["a"], Verdict.PASS) for one in many])
    assert scans.merge_scan(conn, last).resolved == 50
    assert conn.execute("SELECT count(*) FROM stage_observations").fetchone() == (0,)


def test_a_dataframe_for_analysts(
    filled: psycopg.Connection, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = accessor.findings(severity="critical", url=warehouse_url)
    assert len(frame) == 4
    assert set(frame["severity"]) == {"critical"}
    assert frame["tags"][0] == {"env": "prod"}
    assert isinstance(frame["opened_at"].dtype, pandas.DatetimeTZDtype)
    monkeypatch.setitem(os.environ, "SUTURE_WAREHOUSE_URL", warehouse_url)
    scan(filled, Verdict.PASS, 1, names="a")
    assert len(accessor.findings()) == 0
    assert len(accessor.findings(open=False, cloud="aws", rule="low_rule")) == 2
    assert len(accessor.findings(open=None, account="sub-2")) == 4
    empty = accessor.findings(cloud="gcp")
    assert list(empty.columns) == list(frame.columns)


@pytest.mark.parametrize(
    ("table", "count"),
    [
        ("findings", 8),
        ("observations", 8),
        ("resources", 4),
        ("open_findings", 8),
        ("time_to_remediate", 0),
        ("posture_by_account_and_day", 2),
        ("scans", 1),
    ],
)
def test_parquet_holds_every_row(
    filled: psycopg.Connection,
    warehouse_url: str,
    tmp_path: Path,
    table: str,
    count: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accessor, "CHUNK", 3)
    path = tmp_path / f"{table}.parquet"
    assert accessor.export_parquet(path, table, warehouse_url) == count
    file = pyarrow.parquet.ParquetFile(path)
    assert file.metadata.num_rows == count
    assert file.metadata.num_row_groups == -(-count // 3)
    columns = filled.execute(f"SELECT * FROM {table} LIMIT 0".encode()).description or []
    assert file.schema_arrow.names == [column.name for column in columns]
    assert list(tmp_path.iterdir()) == [path]


def test_parquet_of_a_strange_table_is_refused(warehouse_url: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no table"):
        accessor.export_parquet(tmp_path / "x", "pg_authid", warehouse_url)
    assert list(tmp_path.iterdir()) == []
