"""The SQL merge of whole scans against the pure model of one finding, on random histories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.local.postgres import EmbeddedPostgres
from tasks.lifecycle import Change, FindingState, Word, next_state
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
from tasks.warehouse import database, scans

T0 = datetime(2026, 1, 30, tzinfo=UTC)
ACCOUNTS = {
    "1" * 12: Account(Cloud.AWS, "1" * 12, "one"),
    "sub-2": Account(Cloud.AZURE, "sub-2", "two"),
}
REGIONS = ["eu", "us"]
KINDS = ["svc.thing", "svc.other"]
NAMES = ["a", "b"]
RULES = ["first", "second"]
TABLES = (
    *("observations", "finding_episodes", "remediations", "findings", "resources"),
    *("scan_coverage", "scan_accounts", "accounts", "scans"),
)


@dataclass(frozen=True)
class Place:
    """Where a finding can be: the key of one resource."""

    owner: str
    region: str
    kind: str
    name: str

    @property
    def account(self) -> Account:
        return ACCOUNTS[self.owner]

    @property
    def id(self) -> str:
        return f"{self.owner}/{self.region}/{self.kind}/{self.name}"

    def finding(self, rule: str) -> str:
        return finding_id(self.account.cloud, self.account.id, self.region, rule, self.id)

    def resource(self) -> Resource:
        return Resource(
            self.account.cloud, self.account.id, self.region, self.kind, self.id, "", Config({})
        )


PLACES = [Place(a, r, k, n) for a in ACCOUNTS for r in REGIONS for k in KINDS for n in NAMES]


@dataclass(frozen=True)
class History:
    """One scan: when it read, who failed, what was covered, and what was found."""

    day: int
    failed: frozenset[str]
    coverage: dict[tuple[str, str, str], bool]
    verdicts: dict[tuple[Place, str], Verdict]
    loads: int
    severity: Severity

    @property
    def at(self) -> datetime:
        return T0 + timedelta(days=self.day)

    def account_scans(self) -> list[AccountScan]:
        return [self._of(account) for account in ACCOUNTS.values()]

    def _of(self, account: Account) -> AccountScan:
        if account.id in self.failed:
            return AccountScan(account, failed="AccessDenied")
        found = {key: v for key, v in self.verdicts.items() if key[0].owner == account.id}
        return AccountScan(
            account,
            [place.resource() for place in dict.fromkeys(place for place, _ in found)],
            [
                Observation(
                    *(place.finding(rule), account.id, account.cloud, place.region, rule),
                    *(self.severity, place.kind, place.id, verdict),
                )
                for (place, rule), verdict in found.items()
            ],
            [
                Covered(region, kind, ok)
                for (owner, region, kind), ok in self.coverage.items()
                if owner == account.id
            ],
        )

    def covers(self, place: Place) -> bool:
        """What it says of the place is the whole truth: each word on it was read without error."""
        if place.owner in self.failed:
            return False
        words = [
            self.coverage.get((place.owner, region, place.kind))
            for region in (place.region, "global")
        ]
        return True in words and False not in words

    def knows(self, place: Place) -> bool:
        """Some coverage row of it speaks well of the place: older scans have no say there."""
        return place.owner not in self.failed and any(
            self.coverage.get((place.owner, region, place.kind))
            for region in (place.region, "global")
        )

    def word(self, place: Place, rule: str) -> Word | None:
        if place.owner in self.failed:
            return None
        verdict = self.verdicts.get((place, rule))
        if verdict is not None:
            return Word(self.at, verdict, self.severity)
        seen = any((place, other) in self.verdicts for other in RULES)
        return Word(self.at, gone=True) if self.covers(place) and not seen else None


@st.composite
def histories(draw: st.DrawFn) -> History:
    coverage = {}
    for account in ACCOUNTS:
        for region in (*REGIONS, "global"):
            for kind in KINDS:
                weights = (
                    [True, None, None, False] if region == "global" else [True, True, False, None]
                )
                ok = draw(st.sampled_from(weights))
                if ok is not None:
                    coverage[account, region, kind] = ok
    verdicts = draw(
        st.dictionaries(
            st.tuples(st.sampled_from(PLACES), st.sampled_from(RULES)),
            st.sampled_from(Verdict),
            max_size=20,
        )
    )
    return History(
        day=draw(st.integers(0, 6)),
        failed=draw(st.frozensets(st.sampled_from(sorted(ACCOUNTS)), max_size=1)),
        coverage=coverage,
        verdicts=verdicts,
        loads=draw(st.integers(1, 2)),
        severity=draw(st.sampled_from(Severity)),
    )


class Model:
    """The warehouse as the pure lifecycle sees it: one state per finding, words one by one."""

    def __init__(self) -> None:
        self.states: dict[str, FindingState] = {}
        self.known: dict[Place, datetime] = {}

    def merge(self, scan: History) -> list[Change]:
        changes = []
        for place in PLACES:
            for rule in RULES:
                word = scan.word(place, rule)
                if word is None:
                    continue
                key = place.finding(rule)
                state, change = next_state(self.states.get(key), word, self.known.get(place))
                changes.append(change)
                if state is not None:
                    self.states[key] = state
        for place in PLACES:
            if scan.knows(place):
                self.known[place] = max(self.known.get(place, scan.at), scan.at)
        return changes


@pytest.fixture(scope="module")
def one_warehouse(postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """One database for all examples of this module: a database for each would take minutes."""
    postgres.create_warehouse("warehouse_merge", template="template_warehouse")
    with database.connect(postgres.url("warehouse_merge")) as conn:
        yield conn
    postgres.drop_database("warehouse_merge")


def merge(conn: psycopg.Connection, scan: History) -> tuple[str, scans.MergeCounts]:
    scan_id = scans.begin_scan(conn, "test", at=scan.at)
    for _ in range(scan.loads):
        scans.load_batch(conn, scan_id, scan.account_scans())
    return scan_id, scans.merge_scan(conn, scan_id)


def stored(conn: psycopg.Connection) -> dict[str, FindingState]:
    rows = conn.execute(
        """
        SELECT id, status, verdict, severity, first_seen_at, opened_at, last_seen_at,
               last_observed_at, resolved_at, resolution, reopened
        FROM findings
        """
    )
    return {
        row[0]: FindingState(row[1], Verdict(row[2]), Severity(row[3]), *row[4:]) for row in rows
    }


def everything(conn: psycopg.Connection) -> list[list[tuple[object, ...]]]:
    return [
        conn.execute(f"SELECT t::text FROM {table} t ORDER BY 1".encode()).fetchall()
        for table in TABLES
    ]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(histories(), min_size=1, max_size=6))
def test_sql_and_model_agree(one_warehouse: psycopg.Connection, told: list[History]) -> None:
    conn = one_warehouse
    conn.execute("TRUNCATE " + ", ".join(TABLES) + " CASCADE")
    model = Model()
    for scan in told:
        scan_id, counts = merge(conn, scan)
        changes = model.merge(scan)
        assert stored(conn) == model.states
        assert counts.opened == changes.count(Change.OPENED)
        assert counts.seen_again == changes.count(Change.SEEN_AGAIN)
        assert counts.reopened == changes.count(Change.REOPENED)
        assert counts.resolved == changes.count(Change.RESOLVED) + changes.count(Change.GONE)
        before = everything(conn)
        assert scans.merge_scan(conn, scan_id) == counts
        assert everything(conn) == before
    check_episodes(conn)
    assert conn.execute("SELECT count(*) FROM stage_observations").fetchone() == (0,)
    assert conn.execute("SELECT count(*) FROM observations_other").fetchone() == (0,)


def check_episodes(conn: psycopg.Connection) -> None:
    """Each finding has one episode per opening, one of them open exactly while it is."""
    assert (
        conn.execute(
            """
        SELECT f.id, f.status, f.reopened, e.episodes, e.running
        FROM findings f
        LEFT JOIN (
            SELECT finding_id, count(*) AS episodes, max(opened_at) AS opened_at,
                   count(*) FILTER (WHERE closed_at IS NULL) AS running,
                   bool_and(closed_at IS NULL OR closed_at > opened_at) AS ordered
            FROM finding_episodes GROUP BY finding_id
        ) e ON e.finding_id = f.id
        WHERE e.episodes IS DISTINCT FROM f.reopened + 1
           OR e.running IS DISTINCT FROM (f.status = 'open')::integer
           OR e.opened_at IS DISTINCT FROM f.opened_at
           OR NOT e.ordered
        """
        ).fetchall()
        == []
    )


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(histories(), min_size=2, max_size=4))
def test_without_verdicts_unread_the_order_of_merging_does_not_matter(
    one_warehouse: psycopg.Connection, told: list[History]
) -> None:
    """Scans that covered everything give one final picture, however late each is merged."""
    conn = one_warehouse
    whole = {(a, r, k): True for a in ACCOUNTS for r in REGIONS for k in KINDS}
    full = [
        History(day, frozenset(), whole, scan.verdicts, 1, Severity.HIGH)
        for day, scan in enumerate(told)
    ]
    conn.execute("TRUNCATE " + ", ".join(TABLES) + " CASCADE")
    merge(conn, full[-1])
    newest = {key for key, state in stored(conn).items() if state.status == "open"}
    for scan in reversed(full[:-1]):
        merge(conn, scan)
    assert {key for key, state in stored(conn).items() if state.status == "open"} == newest
