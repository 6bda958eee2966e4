"""Scans that write only what changed: the same findings as scans that write everything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.local.postgres import EmbeddedPostgres
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
from tasks.warehouse import database, incremental, scans

T0 = datetime(2026, 1, 30, tzinfo=UTC)
ACCOUNTS = [Account(Cloud.AWS, "1" * 12, "one"), Account(Cloud.AZURE, "sub-2", "two")]
REGIONS, KINDS, NAMES = ["eu", "us"], ["svc.thing"], ["a", "b"]
RULES = ["first", "second"]
Place = tuple[str, str, str, str]  # account, region, kind, name
PLACES = [(a.id, r, k, n) for a in ACCOUNTS for r in REGIONS for k in KINDS for n in NAMES]
TABLES = (
    *("observations", "finding_episodes", "remediations", "findings", "resources"),
    *("scan_coverage", "scan_accounts", "accounts", "scans"),
)


@dataclass(frozen=True)
class Told:
    """One scan. What is ``found`` at a place says all verdicts on it: rules are pure."""

    day: int
    failed: frozenset[str]
    coverage: dict[tuple[str, str, str], bool]
    found: dict[Place, tuple[Verdict, ...]]
    edition: str

    @property
    def at(self) -> datetime:
        return T0 + timedelta(days=self.day)

    def account_scans(self) -> list[AccountScan]:
        return [self._of(account) for account in ACCOUNTS]

    def _of(self, account: Account) -> AccountScan:
        if account.id in self.failed:
            return AccountScan(account, failed="AccessDenied")
        here = {place: v for place, v in self.found.items() if place[0] == account.id}
        return AccountScan(
            account,
            [resource(account, place, verdicts) for place, verdicts in here.items()],
            [
                observation(account, place, rule, verdict, self.edition)
                for place, verdicts in here.items()
                for rule, verdict in zip(self.rules(), verdicts, strict=False)
            ],
            [
                Covered(region, kind, ok)
                for (owner, region, kind), ok in self.coverage.items()
                if owner == account.id
            ],
        )

    def rules(self) -> list[str]:
        return RULES if self.edition == "both" else RULES[:1]


def resource(account: Account, place: Place, verdicts: tuple[Verdict, ...]) -> Resource:
    _, region, kind, name = place
    return Resource(
        *(account.cloud, account.id, region, kind, "/".join(place), name),
        Config({"verdicts": list(verdicts)}),
    )


def observation(
    account: Account, place: Place, rule: str, verdict: Verdict, edition: str
) -> Observation:
    _, region, kind, _ = place
    return Observation(
        finding_id(account.cloud, account.id, region, rule, "/".join(place)),
        *(account.id, account.cloud, region, rule),
        Severity.HIGH if edition == "both" else Severity.LOW,
        *(kind, "/".join(place), verdict),
        reason="no data" if verdict is Verdict.UNKNOWN else "",
    )


@st.composite
def told(draw: st.DrawFn) -> Told:
    coverage = {}
    for account in ACCOUNTS:
        for region in (*REGIONS, "global"):
            for kind in KINDS:
                weights = (
                    [True, None, None, False] if region == "global" else [True, True, False, None]
                )
                ok = draw(st.sampled_from(weights))
                if ok is not None:
                    coverage[account.id, region, kind] = ok
    # Few contents, so that much is unchanged from scan to scan.
    often = (Verdict.FAIL, Verdict.FAIL)
    contents = st.sampled_from(
        [often, often, often, (Verdict.FAIL, Verdict.PASS), (Verdict.UNKNOWN, Verdict.FAIL), None]
    )
    drawn = {place: draw(contents) for place in PLACES}
    return Told(
        day=draw(st.integers(0, 6)),
        failed=draw(st.sampled_from([frozenset(), frozenset(), frozenset({ACCOUNTS[0].id})])),
        coverage=coverage,
        found={place: verdicts for place, verdicts in drawn.items() if verdicts},
        edition=draw(st.sampled_from(["both", "one"])),
    )


@pytest.fixture(scope="module")
def two_warehouses(postgres: EmbeddedPostgres) -> Iterator[list[psycopg.Connection]]:
    """One for scans in full, one for incremental ones, for all examples of this module."""
    names = ["warehouse_full", "warehouse_incremental"]
    for name in names:
        postgres.create_warehouse(name, template="template_warehouse")
    opened = [database.connect(postgres.url(name)) for name in names]
    yield opened
    for conn, name in zip(opened, names, strict=True):
        conn.close()
        postgres.drop_database(name)


def merge(conn: psycopg.Connection, scan: Told, *, known: bool) -> scans.MergeCounts:
    scan_id = scans.begin_scan(conn, "test", at=scan.at)
    digests = incremental.known_digests(conn, ACCOUNTS) if known else None
    scans.load_batch(conn, scan_id, scan.account_scans(), known=digests, edition=scan.edition)
    counts = scans.merge_scan(conn, scan_id)
    scans.finish_scan(conn, scan_id)
    return counts


def rows(conn: psycopg.Connection, query: str) -> list[tuple[Any, ...]]:
    return conn.execute(query.encode()).fetchall()


# All but ids of scans; when a resolved finding was last observed and a resource last written are
# what an incremental scan does not say.
SAME = (
    """
    SELECT id, severity, status, verdict, reason, first_seen_at, opened_at, last_seen_at,
           CASE status WHEN 'open' THEN last_observed_at END, resolved_at, resolution, reopened
    FROM findings ORDER BY id
    """,
    """
    SELECT finding_id, severity, opened_at, closed_at, resolution FROM finding_episodes
    ORDER BY finding_id, opened_at
    """,
    """
    SELECT cloud, account, id, config, first_seen_at, changed_at, gone_at FROM resources
    ORDER BY cloud, account, id
    """,
    """
    SELECT s.started_at, s.resources, s.observations, s.unknown, s.gone, a.cloud, a.account,
           a.status, a.resources, a.passed, a.failed, a.unknown, a.failed_high, a.failed_low
    FROM scans s JOIN scan_accounts a ON a.scan_id = s.id
    ORDER BY s.merged_at, a.cloud, a.account
    """,
    """
    SELECT c.cloud, c.account, c.region, c.kind, c.ok, c.observed_at, c.resources
    FROM scan_coverage c JOIN scans s ON s.id = c.scan_id ORDER BY s.merged_at, 1, 2, 3, 4
    """,
)
OBSERVED = "SELECT finding_id, observed_at, severity, verdict, reason FROM observations"
LAST = """
SELECT DISTINCT ON (o.finding_id) o.finding_id, o.severity, o.verdict, o.reason
FROM observations o JOIN resources r ON r.account = o.account AND r.id = o.resource
ORDER BY o.finding_id, o.observed_at DESC
"""


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(told(), min_size=2, max_size=6), st.booleans())
def test_incremental_scans_lead_to_the_same_as_full_ones(
    two_warehouses: list[psycopg.Connection], history: list[Told], in_order: bool
) -> None:
    full, some = two_warehouses
    if in_order:
        history = [
            Told(day, scan.failed, scan.coverage, scan.found, scan.edition)
            for day, scan in enumerate(history)
        ]
    for conn in two_warehouses:
        conn.execute("TRUNCATE " + ", ".join(TABLES) + " CASCADE")
    for scan in history:
        assert merge(some, scan, known=True) == merge(full, scan, known=False)
        for query in SAME:
            assert rows(some, query) == rows(full, query)
        assert set(rows(some, OBSERVED)) <= set(rows(full, OBSERVED))
        if in_order:
            assert rows(some, LAST) == rows(full, LAST)
        check_verdicts_now(full, some)


def check_verdicts_now(full: psycopg.Connection, some: psycopg.Connection) -> None:
    """The view says the same of both, and no earlier where scans wrote everything."""
    query = "SELECT finding_id, verdict, reason, severity FROM verdicts_now ORDER BY 1"
    assert rows(some, query) == rows(full, query)
    confirmed = "SELECT finding_id, confirmed_at FROM verdicts_now ORDER BY 1"
    assert rows(some, confirmed) == rows(full, confirmed)


ONE = ACCOUNTS[0]
HERE: Place = (ONE.id, "eu", "svc.thing", "a")
THERE: Place = (ONE.id, "eu", "svc.thing", "b")
COVERAGE = {(account.id, "eu", "svc.thing"): True for account in ACCOUNTS}
FAILS, PASSES = (Verdict.FAIL, Verdict.PASS), (Verdict.PASS, Verdict.PASS)


def day(number: int, found: dict[Place, tuple[Verdict, ...]], edition: str = "both") -> Told:
    return Told(number, frozenset(), COVERAGE, found, edition)


def count(conn: psycopg.Connection, table: str) -> int:
    ((number,),) = rows(conn, f"SELECT count(*) FROM {table}")
    return int(number)


def test_what_is_unchanged_costs_no_row_and_is_confirmed(conn: psycopg.Connection) -> None:
    first = merge(conn, day(1, {HERE: FAILS, THERE: PASSES}), known=True)
    assert (first.opened, count(conn, "observations")) == (1, 4)
    again = merge(conn, day(2, {HERE: FAILS, THERE: PASSES}), known=True)
    assert again.seen_again == 1
    assert count(conn, "observations") == 4
    assert rows(conn, "SELECT DISTINCT last_seen_at FROM resources") == [(T0 + timedelta(1),)]
    assert rows(conn, "SELECT last_seen_at, last_observed_at FROM findings") == [
        (T0 + timedelta(2), T0 + timedelta(2))
    ]
    assert rows(conn, "SELECT DISTINCT observed_at, confirmed_at FROM verdicts_now") == [
        (T0 + timedelta(1), T0 + timedelta(2))
    ]
    assert rows(
        conn, "SELECT resources, unchanged FROM scan_coverage WHERE resources > 0 ORDER BY 2"
    ) == [(2, 0), (2, 2)]
    assert rows(conn, "SELECT resources, unchanged, observations FROM scans ORDER BY 2") == [
        (2, 0, 4),
        (2, 2, 4),
    ]


def test_other_rules_judge_everything_anew(conn: psycopg.Connection) -> None:
    merge(conn, day(1, {HERE: FAILS}), known=True)
    merge(conn, day(2, {HERE: FAILS}, "one"), known=True)
    assert count(conn, "observations") == 3


def test_what_could_not_be_read_in_full_is_written(conn: psycopg.Connection) -> None:
    merge(conn, day(1, {HERE: FAILS}), known=True)
    blind = Told(2, frozenset(), dict.fromkeys(COVERAGE, False), {HERE: FAILS}, "both")
    merge(conn, blind, known=True)
    assert count(conn, "observations") == 4


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"tags": {"team": "core"}},
        {"region": "us"},
        {"kind": "svc.other"},
        {"config": Config({"verdicts": ["fail", "pass"]}, {"Policy": "AccessDenied"})},
        {"config": Config({"verdicts": []})},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_is_of_all_that_is_kept_but_the_etag(change: dict[str, Any]) -> None:
    def built(**other: Any) -> Resource:
        parts: dict[str, Any] = {
            "cloud": Cloud.AWS,
            "account": ONE.id,
            "region": "eu",
            "kind": "svc.thing",
            "id": "a",
            "name": "a",
            "config": Config({"verdicts": ["fail", "pass"]}),
        }
        return Resource(**{**parts, **other})

    assert built(**change).digest("1") != built().digest("1")
    assert built(etag="W/2").digest("1") == built().digest("1")
    assert built().digest("2") != built().digest("1")


def test_a_re_read_between_two_scans_is_not_taken_for_unchanged(conn: psycopg.Connection) -> None:
    merge(conn, day(1, {HERE: FAILS}), known=True)
    fixed = day(3, {HERE: PASSES}).account_scans()[0]
    assert scans.merge_one(conn, fixed, observed_at=T0 + timedelta(2)).resolved == 1
    assert incremental.known_digests(conn, ACCOUNTS) == {}  # no edition was given
    assert merge(conn, day(3, {HERE: FAILS}), known=True).reopened == 1
    scans.merge_one(conn, fixed, observed_at=T0 + timedelta(4), edition="both")
    assert merge(conn, day(5, {HERE: PASSES}), known=True).reopened == 0
    assert count(conn, "observations") == 2 + 2 + 2 + 2


def test_a_merge_between_the_look_and_the_merge_is_noticed(conn: psycopg.Connection) -> None:
    merge(conn, day(1, {HERE: FAILS}), known=True)
    slow = day(5, {HERE: FAILS})
    scan_id = scans.begin_scan(conn, "test", at=slow.at)
    known = incremental.known_digests(conn, ACCOUNTS)
    scans.load_batch(conn, scan_id, slow.account_scans(), known=known, edition="both")
    assert merge(conn, day(4, {HERE: PASSES}), known=True).resolved == 1
    scans.merge_scan(conn, scan_id)
    assert rows(conn, "SELECT gone_at, digest FROM resources") == [(None, "")]
    assert merge(conn, day(6, {HERE: FAILS}), known=True).reopened == 1


def test_known_digests_without_an_edition_are_said(conn: psycopg.Connection) -> None:
    scan_id = scans.begin_scan(conn, "test")
    with pytest.raises(BadInput, match="edition"):
        scans.load_batch(conn, scan_id, [], known={("aws", ONE.id): {"a": "b"}})


def test_accounts_that_were_touched_or_not_looked_at(conn: psycopg.Connection) -> None:
    one, two = ACCOUNTS
    new = Account(Cloud.AWS, "3" * 12, "new")
    everyone = [two, new, one]
    scan_id = scans.begin_scan(conn, "test", at=T0)
    scans.record_accounts(conn, scan_id, everyone)
    scans.load_batch(conn, scan_id, day(0, {HERE: FAILS}).account_scans())
    scans.merge_scan(conn, scan_id)
    since = incremental.accounts_since
    assert since(conn, everyone) == everyone
    assert since(conn, everyone, T0) == [new]
    assert since(conn, everyone, T0 + timedelta(1)) == everyone
    assert since(conn, everyone, touched=True) == [new]
    hour = timedelta(hours=1)
    assert incremental.touch_accounts(conn, [("aws", one.id), ("aws", "?")], T0 + hour) == 1
    incremental.touch_accounts(conn, [("aws", one.id)], T0 - hour)
    assert since(conn, everyone, touched=True) == [new, one]
    assert since(conn, everyone, T0 + timedelta(1), touched=True) == everyone
    merge(conn, day(1, {HERE: FAILS}), known=True)
    assert since(conn, everyone, touched=True) == [new]
