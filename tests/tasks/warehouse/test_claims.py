"""Accounts handed out to many processes, and scans that go on after a kill or a crash."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from deployments.local.postgres import OWNER, EmbeddedPostgres
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
from tasks.warehouse import claims, database, scans

KIND, REGION, RULE = "aws.s3.bucket", "eu-central-1", "aws_s3_bucket_public_access_blocked"

# A worker as it is: it takes accounts, loads them, and is killed wherever it stands.
WORKER = """
import sys, time
sys.path.insert(0, {tests!r})
from tasks.warehouse import claims, database, scans
from test_claims import one_bucket
url, scan, pause = sys.argv[1], sys.argv[2], float(sys.argv[3])
with database.connect(url) as conn:
    while batch := claims.claim_accounts(conn, scan, 3):
        print(*(account.id for account in batch), flush=True)
        time.sleep(pause)
        scans.load_batch(conn, scan, [one_bucket(account) for account in batch])
"""


def fleet(aws: int, azure: int = 0) -> list[Account]:
    return [
        *(Account(Cloud.AWS, f"{n:012}", source=f"org-{n % 2}") for n in range(aws)),
        *(Account(Cloud.AZURE, f"sub-{n}", source="tenant") for n in range(azure)),
    ]


def one_bucket(account: Account) -> AccountScan:
    """A scan of the account that finds one bucket, and that it fails."""
    bucket = Resource(
        *(account.cloud, account.id, REGION, KIND, f"bucket-{account.id}", "b"), Config({})
    )
    finding = finding_id(account.cloud, account.id, REGION, RULE, bucket.id)
    said = Observation(
        *(finding, account.id, account.cloud, REGION, RULE, Severity.HIGH, KIND, bucket.id),
        Verdict.FAIL,
    )
    return AccountScan(account, [bucket], [said], [Covered(REGION, KIND, ok=True)])


def begin(conn: psycopg.Connection, accounts: list[Account], *selection: str) -> str:
    scan_id = scans.begin_scan(conn, "fleet", selection=selection)
    scans.record_accounts(conn, scan_id, accounts)
    return scan_id


def work_off(conn: psycopg.Connection, scan_id: str, limit: int = 4) -> list[str]:
    done = []
    while batch := claims.claim_accounts(conn, scan_id, limit):
        scans.load_batch(conn, scan_id, [one_bucket(account) for account in batch])
        done += [account.id for account in batch]
    return done


def started_worker(url: str, scan_id: str, pause: float) -> subprocess.Popen[str]:
    program = WORKER.format(tests=str(Path(__file__).parent))
    return subprocess.Popen(
        [sys.executable, "-c", program, url, scan_id, str(pause)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
    )


def test_a_claim_is_of_one_cloud_and_one_source_with_all_of_the_account(
    conn: psycopg.Connection,
) -> None:
    tagged = Account(Cloud.AWS, "9" * 12, "nine", "org-0", "active", {"team": "core"})
    scan_id = begin(conn, [*fleet(6, 3), tagged])
    taken = []
    while batch := claims.claim_accounts(conn, scan_id, 3):
        assert len({(account.cloud, account.source) for account in batch}) == 1
        assert 1 <= len(batch) <= 3
        taken += batch
    assert sorted(a.id for a in taken) == sorted(a.id for a in [*fleet(6, 3), tagged])
    assert tagged in taken
    assert claims.remaining(conn, scan_id) == 10


def test_ten_subscriptions_count_as_one_account(conn: psycopg.Connection) -> None:
    scan_id = begin(conn, fleet(0, 25))
    assert [len(claims.claim_accounts(conn, scan_id, 2)) for _ in range(3)] == [20, 5, 0]


def test_skipped_accounts_are_not_handed_out(conn: psycopg.Connection) -> None:
    scan_id = scans.begin_scan(conn, "fleet")
    one, two = fleet(2)
    scans.record_accounts(conn, scan_id, [one], [(two, "suspended")])
    assert claims.remaining(conn, scan_id) == 1
    assert work_off(conn, scan_id) == [one.id]
    assert claims.remaining(conn, scan_id) == 0


def test_nonsense_limits_are_said(conn: psycopg.Connection) -> None:
    with pytest.raises(BadInput, match="limit"):
        claims.claim_accounts(conn, begin(conn, []), 0)


def test_many_at_once_never_get_the_same_account(
    conn: psycopg.Connection, warehouse_url: str
) -> None:
    accounts = fleet(120, 40)
    scan_id = begin(conn, accounts)
    taken: list[str] = []
    together = threading.Barrier(4)

    def work() -> None:
        with database.connect(warehouse_url) as own:
            together.wait()
            while batch := claims.claim_accounts(own, scan_id, 3):
                assert len({(account.cloud, account.source) for account in batch}) == 1
                taken.extend(account.id for account in batch)
            together.wait()  # nobody's claims are freed while others still take some

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == sorted(account.id for account in accounts)


def test_what_a_broken_batch_gives_back_is_taken_again(conn: psycopg.Connection) -> None:
    scan_id = begin(conn, fleet(4))
    lost = claims.claim_accounts(conn, scan_id, 2)
    kept = claims.claim_accounts(conn, scan_id, 2)
    scans.load_batch(conn, scan_id, [one_bucket(account) for account in kept])
    assert claims.claim_accounts(conn, scan_id, 2) == []  # this connection lives, and has them
    assert claims.release_claims(conn, scan_id) == 2
    assert claims.claim_accounts(conn, scan_id, 2) == lost


@pytest.mark.slow
def test_a_worker_killed_at_work_loses_no_account(
    conn: psycopg.Connection, warehouse_url: str
) -> None:
    accounts = fleet(20)
    scan_id = begin(conn, accounts)
    workers = [started_worker(warehouse_url, scan_id, 60.0)]
    try:
        assert workers[0].stdout is not None
        held = workers[0].stdout.readline().split()
        workers.append(started_worker(warehouse_url, scan_id, 0.0))
        assert workers[1].stdout is not None
        first = workers[1].stdout.readline().split()
        workers[0].kill()
        done = first + workers[1].stdout.read().split()
        assert workers[1].wait() == 0
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            assert worker.stdout is not None
            worker.stdout.close()
    wait_until_free(conn, scan_id)
    rest = work_off(conn, scan_id)
    assert held
    assert sorted({*done, *rest}) == sorted(account.id for account in accounts)
    assert len(done) + len(rest) == len(accounts)
    assert scans.merge_scan(conn, scan_id).opened == len(accounts)
    scans.finish_scan(conn, scan_id)
    assert scans.posture(conn, scan_id).accounts == {"aws": {"covered": len(accounts)}}


def wait_until_free(conn: psycopg.Connection, scan_id: str) -> None:
    """The server notices at its own pace that a killed client is gone."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        others = conn.execute(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
            " AND classid = %s",
            (claims.CLAIMS,),
        ).fetchone()
        if others == (0,):
            return
        time.sleep(0.1)


def test_a_scan_that_was_interrupted_goes_on_and_merges_once(
    conn: psycopg.Connection, warehouse_url: str
) -> None:
    accounts = fleet(6)
    scan_id = begin(conn, accounts, "b", "a")
    with database.connect(warehouse_url) as first:
        assert claims.hold_scan(first, scan_id)
        assert not claims.hold_scan(conn, scan_id)
        assert claims.unfinished_scan(conn, ["a", "b"], timedelta(hours=1)) is None
        batch = claims.claim_accounts(first, scan_id, 2)
        scans.load_batch(first, scan_id, [one_bucket(account) for account in batch])
        claims.claim_accounts(first, scan_id, 2)  # and never loaded
        claims.interrupt_scan(first, scan_id, "Cancelled.")
    # Another scan's merge in between empties no more than its own part of the loading dock.
    others = fleet(30)
    other = begin(conn, others)
    work_off(conn, other, 10)
    assert scans.merge_scan(conn, other).opened == 30
    scans.finish_scan(conn, other)
    assert claims.unfinished_scan(conn, ["b"], timedelta(hours=1)) is None
    assert claims.unfinished_scan(conn, ["a", "b"], timedelta(0)) is None
    assert claims.unfinished_scan(conn, ["a", "b", "a"], timedelta(hours=1)) == scan_id
    assert claims.hold_scan(conn, scan_id)
    assert scans.posture(conn, scan_id).state == "running"
    assert claims.remaining(conn, scan_id) == 4
    assert len(work_off(conn, scan_id)) == 4
    assert scans.merge_scan(conn, scan_id).seen_again == 0  # older than the other one
    scans.finish_scan(conn, scan_id)
    assert scans.posture(conn, scan_id).accounts == {"aws": {"covered": 6}}
    assert conn.execute("SELECT count(*) FROM observations").fetchone() == (36,)
    assert conn.execute("SELECT count(*) FROM stage_observations").fetchone() == (0,)


def test_abandoned_scans_are_ended_and_those_at_work_are_not(
    conn: psycopg.Connection, warehouse_url: str
) -> None:
    left, held = begin(conn, fleet(2)), begin(conn, fleet(2))
    merged = begin(conn, fleet(2))
    work_off(conn, merged)
    scans.merge_scan(conn, merged)
    work_off(conn, left, 1)
    with database.connect(warehouse_url) as other:
        claims.hold_scan(other, held)
        assert claims.close_abandoned(conn, timedelta(hours=1)) == []
        assert sorted(claims.close_abandoned(conn, timedelta(0))) == sorted([left, merged])
        states = dict(conn.execute("SELECT id::text, state FROM scans").fetchall())
        assert states == {left: "failed", held: "running", merged: "finished"}
    assert conn.execute("SELECT count(*) FROM stage_accounts").fetchone() == (0,)


def test_nobody_holds_a_scan_that_is_not_there(conn: psycopg.Connection) -> None:
    with pytest.raises(BadInput, match="there is no scan"):
        claims.hold_scan(conn, "00000000-0000-0000-0000-000000000000")


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A server that a test may crash."""
    parent = Path(tempfile.mkdtemp(prefix="suture-test-"))
    parent.chmod(0o755)
    server = EmbeddedPostgres(parent / "postgres", warehouses=["warehouse"])
    try:
        with server:
            database.upgrade(server.url("warehouse"), server.url("warehouse", OWNER))
            yield server
    finally:
        shutil.rmtree(parent)


@pytest.mark.slow
def test_after_a_crash_of_the_server_all_that_was_loaded_is_pending_again(
    own_server: EmbeddedPostgres,
) -> None:
    accounts = fleet(6)
    conn = database.connect(own_server.url("warehouse"))
    scan_id = begin(conn, accounts)
    assert claims.hold_scan(conn, scan_id)
    for _ in range(2):
        batch = claims.claim_accounts(conn, scan_id, 2)
        scans.load_batch(conn, scan_id, [one_bucket(account) for account in batch])
    assert claims.remaining(conn, scan_id) == 3
    assert own_server.pid is not None
    process = own_server._process
    assert process is not None
    process.send_signal(signal.SIGQUIT)  # immediate shutdown: no checkpoint, recovery at the start
    process.wait(20)
    conn.close()
    own_server.stop()
    own_server.start()
    with database.connect(own_server.url("warehouse")) as conn:
        assert claims.unfinished_scan(conn, [], timedelta(hours=1)) == scan_id
        assert claims.hold_scan(conn, scan_id)
        assert claims.remaining(conn, scan_id) == 6
        assert sorted(work_off(conn, scan_id)) == sorted(account.id for account in accounts)
        assert scans.merge_scan(conn, scan_id).opened == 6


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
def test_what_is_left_makes_as_many_batches_as_are_taken(
    conn: psycopg.Connection, limit: int
) -> None:
    scan_id = scans.begin_scan(conn, "test")
    scans.record_accounts(conn, scan_id, fleet(9, azure=21))
    expected = []
    taken = True
    while taken:
        expected.append(claims.batches_left(conn, scan_id, limit))
        taken = bool(batch := claims.claim_accounts(conn, scan_id, limit))
        if taken:
            scans.load_batch(conn, scan_id, [one_bucket(account) for account in batch])
    assert expected == list(range(len(expected) - 1, -1, -1))
    assert len(expected) > 3
