"""Scans loaded and merged: what opens, what resolves, and what must stay as it is."""

from __future__ import annotations

import random
import string
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from tasks.errors import BadInput, SutureError
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
from tasks.warehouse import findings, merge, scans
from tasks.warehouse.scans import Reread

T0 = datetime(2026, 1, 10, tzinfo=UTC)
ACME = Account(Cloud.AWS, "111122223333", "acme", "org", tags={"team": "core"})
KIND = "aws.s3.bucket"
RULE = "aws_s3_bucket_versioning_enabled"


def bucket(name: str, region: str = "eu-central-1", **config: Any) -> Resource:
    return Resource(
        Cloud.AWS,
        ACME.id,
        region,
        KIND,
        f"arn:aws:s3:::{name}",
        name,
        Config({"Name": name, **config}),
    )


def said(resource: Resource, verdict: Verdict, rule: str = RULE) -> Observation:
    return Observation(
        finding_id=finding_id(resource.cloud, resource.account, resource.region, rule, resource.id),
        account=resource.account,
        cloud=resource.cloud,
        region=resource.region,
        rule=rule,
        severity=Severity.HIGH,
        kind=resource.kind,
        resource=resource.id,
        verdict=verdict,
        reason="no data" if verdict is Verdict.UNKNOWN else "",
    )


def account_scan(
    *pairs: tuple[Resource, Verdict], ok: bool = True, regions: tuple[str, ...] = ("eu-central-1",)
) -> AccountScan:
    return AccountScan(
        ACME,
        [resource for resource, _ in pairs],
        [said(resource, verdict) for resource, verdict in pairs],
        [Covered(region, KIND, ok=ok, reason="" if ok else "AccessDenied") for region in regions],
    )


def scan(
    conn: psycopg.Connection, given: AccountScan | list[AccountScan], day: int
) -> scans.MergeCounts:
    scan_id = scans.begin_scan(conn, "test", at=T0 + timedelta(days=day))
    scans.load_batch(conn, scan_id, given if isinstance(given, list) else [given])
    counts = scans.merge_scan(conn, scan_id)
    scans.finish_scan(conn, scan_id)
    return counts


def row(conn: psycopg.Connection, resource: Resource) -> dict[str, Any]:
    cursor = conn.execute("SELECT * FROM findings WHERE resource = %s", (resource.id,))
    (found,) = cursor.fetchall()
    return dict(zip([column.name for column in cursor.description or ()], found, strict=True))


def test_a_findings_life(conn: psycopg.Connection) -> None:
    a, b = bucket("a"), bucket("b")
    assert scan(conn, account_scan((a, Verdict.FAIL), (b, Verdict.PASS)), 1).opened == 1
    assert scan(conn, account_scan((a, Verdict.FAIL), (b, Verdict.PASS)), 2).seen_again == 1
    counts = scan(conn, account_scan((a, Verdict.UNKNOWN), (b, Verdict.PASS)), 3)
    assert (counts.unknown, counts.resolved) == (1, 0)
    kept = row(conn, a)
    assert (kept["status"], kept["verdict"], kept["reason"]) == ("open", "unknown", "no data")
    assert kept["last_seen_at"] == T0 + timedelta(days=2)
    assert scan(conn, account_scan((a, Verdict.PASS), (b, Verdict.PASS)), 4).resolved == 1
    assert row(conn, a)["resolution"] == "pass"
    assert scan(conn, account_scan((a, Verdict.FAIL), (b, Verdict.PASS)), 5).reopened == 1
    again = row(conn, a)
    assert (again["status"], again["reopened"], again["resolved_at"]) == ("open", 1, None)
    counts = scan(conn, account_scan((b, Verdict.PASS)), 6)
    assert (counts.resolved, counts.gone) == (1, 1)
    assert row(conn, a)["resolution"] == "resource_gone"
    assert findings.resource_of(conn, row(conn, a)["id"]) is None
    episodes = conn.execute(
        "SELECT opened_at, closed_at, resolution FROM finding_episodes ORDER BY opened_at"
    ).fetchall()
    assert episodes == [
        (T0 + timedelta(days=1), T0 + timedelta(days=4), "pass"),
        (T0 + timedelta(days=5), T0 + timedelta(days=6), "resource_gone"),
    ]


def test_a_scan_is_merged_once(conn: psycopg.Connection) -> None:
    scan_id = scans.begin_scan(conn, "test", at=T0)
    scans.load_batch(conn, scan_id, [account_scan((bucket("a"), Verdict.FAIL))])
    first = scans.merge_scan(conn, scan_id)
    assert first.opened == 1
    assert scans.merge_scan(conn, scan_id) == first
    assert conn.execute("SELECT count(*) FROM observations").fetchone() == (1,)
    with pytest.raises(SutureError, match="merged already"):
        scans.load_batch(conn, scan_id, [account_scan((bucket("b"), Verdict.FAIL))])


def test_an_account_loaded_twice_counts_once_and_the_last_load_wins(
    conn: psycopg.Connection,
) -> None:
    scan_id = scans.begin_scan(conn, "test", at=T0)
    scans.load_batch(conn, scan_id, [account_scan((bucket("a"), Verdict.FAIL))])
    scans.load_batch(
        conn, scan_id, [account_scan((bucket("a"), Verdict.FAIL), (bucket("b"), Verdict.FAIL))]
    )
    assert scans.merge_scan(conn, scan_id).opened == 2
    assert conn.execute("SELECT count(*) FROM observations").fetchone() == (2,)


def test_what_was_not_covered_stays(conn: psycopg.Connection) -> None:
    here, there = bucket("a"), bucket("b", region="us-east-1")
    both = ("eu-central-1", "us-east-1")
    scan(conn, account_scan((here, Verdict.FAIL), (there, Verdict.FAIL), regions=both), 1)
    scan(conn, AccountScan(ACME, failed="AccessDenied"), 2)
    scan(conn, account_scan(ok=False, regions=both), 3)
    assert row(conn, here)["status"] == row(conn, there)["status"] == "open"
    assert row(conn, here)["last_observed_at"] == T0 + timedelta(days=1)
    scan(conn, account_scan(regions=("us-east-1",)), 4)
    assert row(conn, here)["status"] == "open"
    assert row(conn, there)["resolution"] == "resource_gone"


def test_global_coverage_speaks_for_every_region(conn: psycopg.Connection) -> None:
    there = bucket("b", region="us-east-1")
    scan(conn, account_scan((there, Verdict.FAIL)), 1)
    assert scan(conn, account_scan(regions=("global",)), 2).resolved == 1


def test_a_late_scan_does_not_overwrite_newer_knowledge(conn: psycopg.Connection) -> None:
    a, b, gone = bucket("a"), bucket("b"), bucket("gone")
    scan(conn, account_scan((a, Verdict.PASS), (b, Verdict.FAIL)), 5)
    late = account_scan((a, Verdict.FAIL), (b, Verdict.PASS), (gone, Verdict.FAIL))
    assert scan(conn, late, 2).opened == 0
    assert row(conn, b)["status"] == "open"
    opened = findings.open_findings(conn)
    assert [finding.resource for finding in opened] == [b.id]
    assert findings.resource_by_id(conn, "aws", ACME.id, gone.id) is None
    assert conn.execute("SELECT count(*) FROM observations").fetchone() == (5,)


def test_a_re_read_of_one_resource_leaves_its_siblings(conn: psycopg.Connection) -> None:
    a, b = bucket("a"), bucket("b")
    scan(conn, account_scan((a, Verdict.FAIL), (b, Verdict.FAIL)), 1)
    fixed = bucket("a", Versioning={"Status": "Enabled"})
    counts = scans.merge_one(conn, account_scan((fixed, Verdict.PASS)), "verify", "run-1")
    assert (counts.resolved, counts.gone) == (1, 0)
    assert row(conn, a)["status"] == "resolved"
    assert row(conn, b)["status"] == "open"
    assert findings.resource_of(conn, row(conn, a)["id"]) == fixed
    counts = scans.merge_one(conn, AccountScan(ACME), "verify", gone=[(b.region, b.kind, b.id)])
    assert counts.resolved == 1
    assert row(conn, b)["resolution"] == "resource_gone"


def test_re_reads_share_tables_and_see_nothing_of_each_other(conn: psycopg.Connection) -> None:
    """On one connection, even in one transaction; one that is rolled back leaves nothing."""
    a, b, c = bucket("a"), bucket("b"), bucket("c")

    def again(day: int, one: Resource, verdict: Verdict) -> scans.MergeCounts:
        at = T0 + timedelta(days=day)
        return scans.merge_one(conn, account_scan((one, verdict)), observed_at=at)

    scan(conn, account_scan((a, Verdict.FAIL), (b, Verdict.FAIL), (c, Verdict.FAIL)), 1)
    with conn.transaction(force_rollback=True):
        assert again(2, c, Verdict.PASS).resolved == 1
    assert again(3, c, Verdict.FAIL).seen_again == 1
    own = tables_of_its_own(conn)
    with conn.transaction():
        assert again(4, a, Verdict.PASS).resolved == 1
        assert again(4, b, Verdict.FAIL).seen_again == 1
    assert [row(conn, one)["status"] for one in (a, b, c)] == ["resolved", "open", "open"]
    assert tables_of_its_own(conn) == own
    assert scan(conn, account_scan((a, Verdict.FAIL), (b, Verdict.FAIL)), 5).reopened == 1
    assert row(conn, c)["resolution"] == "resource_gone"
    assert again(6, b, Verdict.PASS).resolved == 1


def tables_of_its_own(conn: psycopg.Connection) -> set[int]:
    rows = conn.execute("SELECT oid FROM pg_class WHERE relnamespace = pg_my_temp_schema()")
    return {oid for (oid,) in rows}


def test_what_re_reads_leave_in_their_tables_is_cleared_away(
    conn: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No vacuum comes by there: rows that are only deleted would lie about for ever."""
    most = 16 * 8192
    monkeypatch.setattr(merge, "MOST_LEFT", most)
    sizes = []
    for number in range(60):
        one = bucket("a", Note="".join(random.Random(number).choices(string.printable, k=4000)))
        at = T0 + timedelta(days=1, minutes=number)
        counts = scans.merge_one(conn, account_scan((one, Verdict.FAIL)), observed_at=at)
        assert counts.opened + counts.seen_again == 1
        sizes.append(size_of_its_own(conn))
    assert max(sizes) < 4 * most
    assert sizes != sorted(sizes), "they were emptied on the way"


def size_of_its_own(conn: psycopg.Connection) -> int:
    rows = conn.execute(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class "
        "WHERE relnamespace = pg_my_temp_schema() AND relkind = 'r'"
    )
    return int(next(iter(rows))[0])


def test_a_re_read_of_several_accounts_is_one_small_scan(conn: psycopg.Connection) -> None:
    """Of one account a resource that is gone and one that is there, of the other all of a kind."""
    other = replace(ACME, id="444455556666", name="other")
    a, b = bucket("a"), bucket("b")
    c, d = (replace(bucket(name), account=other.id) for name in "cd")
    scan(conn, account_scan((a, Verdict.FAIL), (b, Verdict.FAIL)), 1)
    scan(conn, replace(account_scan((c, Verdict.FAIL), (d, Verdict.FAIL)), account=other), 1)
    place = Covered("eu-central-1", KIND, ok=True)
    rereads = [
        Reread(AccountScan(ACME, [b], [said(b, Verdict.PASS)]), [(place, a.id), (place, b.id)]),
        Reread(AccountScan(other, [c], [said(c, Verdict.FAIL)]), [(place, "")]),
    ]
    day = T0 + timedelta(days=2)
    scan_id, counts = scans.merge_reread(conn, rereads, "event", "run-1", observed_at=day)
    assert (counts.resolved, counts.gone, counts.seen_again) == (3, 2, 1)
    ends = {one.name: row(conn, one)["resolution"] for one in (a, b, c, d)}
    assert ends == {"a": "resource_gone", "b": "pass", "c": None, "d": "resource_gone"}
    told = conn.execute(
        "SELECT trigger, targeted, state, flow_run_id, started_at FROM scans WHERE id = %s",
        (scan_id,),
    ).fetchone()
    assert told == ("event", True, "finished", "run-1", day)
    scanned = conn.execute("SELECT last_scanned_at FROM accounts").fetchall()
    assert scanned == [(T0 + timedelta(days=1),)] * 2, "no account counts as scanned by it"


def test_a_fix_verified_during_a_scan_is_not_reopened_by_it(conn: psycopg.Connection) -> None:
    a = bucket("a")
    scan(conn, account_scan((a, Verdict.FAIL)), 1)
    running = scans.begin_scan(conn, "test", at=T0 + timedelta(days=2))
    scans.load_batch(conn, running, [account_scan((a, Verdict.FAIL))])
    scans.merge_one(conn, account_scan((a, Verdict.PASS)))
    scans.merge_scan(conn, running)
    assert row(conn, a)["status"] == "resolved"


def test_a_fix_verified_before_the_cloud_lists_it_is_not_reopened(
    conn: psycopg.Connection,
) -> None:
    """An inventory that lags behind still shows the resource as it was before the fix."""
    a = bucket("a")
    scan(conn, account_scan((a, Verdict.FAIL)), 1)
    scans.merge_one(conn, account_scan((a, Verdict.PASS)), observed_at=T0 + timedelta(days=2))
    stale = account_scan((a, Verdict.FAIL))
    later = T0 + timedelta(days=2, seconds=100)
    for lag, status in ((300.0, "resolved"), (0.0, "open")):
        scan_id = scans.begin_scan(conn, "test", at=later)
        scans.load_batch(conn, scan_id, [replace(stale, lag=lag)])
        scans.merge_scan(conn, scan_id)
        assert row(conn, a)["status"] == status


def test_posture_names_who_was_not_scanned(conn: psycopg.Connection) -> None:
    lost = Account(Cloud.AWS, "222222222222", "lost", "org")
    closed = Account(Cloud.AZURE, "sub-1", "closed", "contoso", "disabled")
    scan_id = scans.begin_scan(conn, "schedule", "flow-1", at=T0)
    scans.record_accounts(
        conn, scan_id, [ACME, lost], [(closed, "disabled")], [("beta", "AccessDenied")]
    )
    scans.load_batch(
        conn,
        scan_id,
        [account_scan((bucket("a"), Verdict.FAIL), (bucket("b"), Verdict.UNKNOWN))],
    )
    scans.merge_scan(conn, scan_id)
    scans.finish_scan(conn, scan_id)
    posture = scans.posture(conn, scan_id)
    assert posture.accounts == {"aws": {"covered": 1, "failed": 1}, "azure": {"skipped": 1}}
    assert [(row.account, row.reason) for row in posture.not_scanned] == [
        (lost.id, "its batch never reported"),
        (closed.id, "disabled"),
    ]
    assert posture.findings == {"aws": {"high": 1}}
    assert posture.unknown == {"aws": 1, "azure": 0}
    assert posture.failed_sources == (("beta", "AccessDenied"),)
    assert posture.resources == 2
    assert findings.account_of(conn, "aws", ACME.id) == ACME


def test_posture_names_who_was_read_in_part(conn: psycopg.Connection) -> None:
    scan_id = scans.begin_scan(conn, "schedule", at=T0)
    scans.record_accounts(conn, scan_id, [ACME], [], [])
    seen = account_scan((bucket("a"), Verdict.PASS))
    blind = Covered("us-east-1", "aws.ec2.security_group", ok=False, reason="timed out")
    scans.load_batch(conn, scan_id, [replace(seen, coverage=[*seen.coverage, blind])])
    scans.merge_scan(conn, scan_id)
    posture = scans.posture(conn, scan_id)
    assert posture.accounts == {"aws": {"covered": 1}}
    assert posture.not_scanned == ()
    (one,) = posture.read_in_part
    assert (one.account, one.status) == (ACME.id, "in part")
    assert one.reason.startswith("1 of ")
    assert one.reason.endswith("such as aws.ec2.security_group in us-east-1: timed out")


def test_odd_characters_do_not_stop_a_load(conn: psycopg.Connection) -> None:
    odd = bucket("a", Description="nul \x00, half \ud800, tab \t, back\\slash \\u0000", Note="é")
    scan(conn, account_scan((odd, Verdict.FAIL)), 1)
    kept = findings.resource_of(conn, row(conn, odd)["id"])
    assert kept is not None
    assert kept.config["Description"] == "nul �, half ?, tab \t, back\\slash \\u0000"
    assert kept.config["Note"] == "é"


def test_nonsense_for_a_scans_id_is_said(conn: psycopg.Connection) -> None:
    with pytest.raises(BadInput, match="scan_id"):
        scans.merge_scan(conn, "nonsense")
    with pytest.raises(BadInput, match="there is no scan"):
        scans.posture(conn, "00000000-0000-0000-0000-000000000000")
