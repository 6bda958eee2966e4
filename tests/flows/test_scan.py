"""The fleet scan on the whole stack: what it finds, what it leaves alone, and what it admits."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from ruamel.yaml import YAML

from flows.scan import scan_fleet
from tasks import scanning
from tasks.batch import BatchOrder, BatchResult
from tasks.errors import SutureError
from tasks.scan_processes import ScanProcesses
from tasks.warehouse import claims, incremental, scans
from tasks.warehouse.scans import Posture, latest_scan, posture

pytestmark = pytest.mark.slow


def truth(fleet: Any) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(Path(fleet.stack.fleet["truth"]).read_text())
    return told


def seen(fleet: Any) -> Posture:
    """The posture of the newest scan of the fleet."""
    with fleet.warehouse() as warehouse:
        return posture(warehouse, latest_scan(warehouse))


def failed_in(seen: Posture) -> list[str]:
    return [one.account for one in seen.not_scanned if one.status == "failed"]


def scan_here(fleet: Any, accounts: list[str], **wanted: Any) -> Any:
    """Run the flow in this process, so that a test can break a part of it, on the shared server.

    ``wanted`` are parameters of the flow, and environment variables in capitals.
    """
    env = {name: wanted.pop(name) for name in list(wanted) if name.isupper()}
    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_URL: fleet.stack.api_url}),
    ):
        for name, value in {**fleet.stack.env, **env}.items():
            if name.startswith("SUTURE_"):
                patch.setenv(name, value)
        return scan_fleet(
            accounts=accounts,
            hand_to_triage=False,
            request_seconds=3,
            return_state=True,
            **{"batch_size": 1, **wanted},
        )


def opened_by(fleet: Any, flow_run_id: str) -> list[tuple[str, ...]]:
    """The findings that a run's scan of the fleet opened: id, cloud, account, region, rule,
    resource. What others have changed on the stack since is not among them.
    """
    with fleet.warehouse() as warehouse:
        found: list[tuple[str, ...]] = warehouse.execute(
            """
            SELECT f.id, f.cloud, f.account, f.region, f.rule, f.resource
            FROM finding_episodes e
            JOIN findings f ON f.id = e.finding_id
            JOIN scans s ON s.id = e.opened_by_scan
            WHERE s.flow_run_id = %s AND NOT s.targeted
            """,
            (flow_run_id,),
        ).fetchall()
    return found


def test_the_first_scan_finds_what_was_planted_and_nothing_else(fleet: Any, scanned: str) -> None:
    planted = {
        (f["cloud"], f["account"], f["region"], f["rule"], f["resource"])
        for f in truth(fleet)["findings"]
    }
    found = {row[1:] for row in opened_by(fleet, scanned)}
    assert found == planted


def test_accounts_that_fail_or_sleep_are_named_with_the_reason(fleet: Any, scanned: str) -> None:
    with fleet.warehouse() as warehouse:
        (scan_id,) = warehouse.execute(
            "SELECT id FROM scans WHERE flow_run_id = %s AND NOT targeted", (scanned,)
        ).fetchone()
        unscanned = posture(warehouse, str(scan_id)).not_scanned
    failed = {one.account: one.reason for one in unscanned if one.status == "failed"}
    skipped = {one.account for one in unscanned if one.status == "skipped"}
    assert failed.keys() == truth(fleet)["failing"].keys()
    assert len(failed) == 5
    assert all(failed.values())
    told = fleet.stack.fleet
    assert skipped == {
        *(one["id"] for one in told["aws"]["accounts"] if one["status"] == "SUSPENDED"),
        *(one["id"] for one in told["azure"]["subscriptions"] if one["state"] == "Disabled"),
    }


def test_the_artifact_leads_from_findings_to_their_fix(fleet: Any, scanned: str) -> None:
    artifact = httpx.post(
        f"{fleet.stack.api_url}/artifacts/filter",
        json={"artifacts": {"key": {"any_": ["posture"]}, "flow_run_id": {"any_": [scanned]}}},
        trust_env=False,
    ).json()[0]
    page = artifact["data"]
    ids = [identity for identity, *_ in opened_by(fleet, scanned)]
    assert ids
    assert [identity for identity in ids if identity[:12] not in page] == []
    assert "## Guides" in page
    assert "Why it matters" in page


def test_a_second_scan_sees_the_same_again(fleet: Any) -> None:
    with fleet.warehouse() as warehouse:
        (before,) = warehouse.execute("SELECT count(*) FROM findings").fetchone()
    healthy = {f["account"] for f in truth(fleet)["findings"]}
    still_open = sum(len(fleet.open_findings(account=account)) for account in healthy)
    state = scan_here(fleet, sorted(healthy))
    assert state.name == "Completed"
    assert f"{len(healthy)} accounts and subscriptions scanned, 0 failed" in state.message
    counts = seen(fleet).counts
    assert (counts.opened, counts.reopened, counts.resolved) == (0, 0, 0)
    assert counts.seen_again == still_open
    with fleet.warehouse() as warehouse:
        assert warehouse.execute("SELECT count(*) FROM findings").fetchone() == (before,)


def test_an_account_that_begins_to_refuse_keeps_its_findings(fleet: Any) -> None:
    account = next(one.account for one in fleet.open_findings() if one.cloud == "aws")
    old = {one.id for one in fleet.open_findings(account=account)}
    with no_trust(fleet, account):
        state = scan_here(fleet, [account])
    assert state.name == "Nothing scanned"
    assert state.is_failed()
    assert {one.id for one in fleet.open_findings(account=account)} == old
    assert failed_in(seen(fleet)) == [account]


@contextmanager
def no_trust(fleet: Any, account: str) -> Iterator[None]:
    """The customer takes back the scanner role's trust for a while."""
    aws = fleet.stack.fleet["aws"]
    own = {
        "endpoint_url": aws["endpoint"],
        "region_name": aws["regions"][0],
    }
    keys = aws["customer"]
    sts = boto3.client(
        "sts",
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=keys["secret_access_key"],
        **own,
    )
    given = keys["access_key_id"], keys["secret_access_key"], None
    if account != aws["organization"]["management_account"]:
        assumed = sts.assume_role(
            RoleArn=f"arn:aws:iam::{account}:role/{aws['admin_role']}", RoleSessionName="test"
        )["Credentials"]
        given = assumed["AccessKeyId"], assumed["SecretAccessKey"], assumed["SessionToken"]
    iam = boto3.client(
        "iam",
        aws_access_key_id=given[0],
        aws_secret_access_key=given[1],
        aws_session_token=given[2],
        **own,
    )
    trust = iam.get_role(RoleName=aws["scanner_role"])["Role"]["AssumeRolePolicyDocument"]
    shut = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}],
    }
    try:
        iam.update_assume_role_policy(RoleName=aws["scanner_role"], PolicyDocument=json.dumps(shut))
        yield
    finally:
        iam.update_assume_role_policy(
            RoleName=aws["scanner_role"], PolicyDocument=json.dumps(trust)
        )
        iam.close()
        sts.close()


def test_a_batch_that_crashes_is_never_taken_for_clean(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost, kept = sorted({one.account for one in fleet.open_findings()})[:2]
    old = {one.id for one in fleet.open_findings(account=lost)}
    real = ScanProcesses.scan

    def die(self: ScanProcesses, order: BatchOrder) -> BatchResult:
        """Stands for a process that dies of one account, whichever batch it is in."""
        with fleet.warehouse() as warehouse:
            taken = claims.claim_accounts(warehouse, order.scan_id, order.limit)
            if any(account.id == lost for account in taken):
                raise SutureError("a scanning process has died (-9)")
            claims.release_claims(warehouse, order.scan_id)
        return real(self, order)

    monkeypatch.setattr(ScanProcesses, "scan", die)
    monkeypatch.setattr(scanning, "ROUND_SECONDS", 0)
    state = scan_here(fleet, [lost, kept], batch_size=2)
    assert (state.is_failed(), state.name) == (True, "Incomplete")
    assert "1 account was never reported" in state.message
    assert failed_in(seen(fleet)) == [lost]
    assert {one.id for one in fleet.open_findings(account=lost)} == old


def test_a_source_that_cannot_be_discovered_makes_the_scan_incomplete(
    fleet: Any, tmp_path: Path
) -> None:
    told = YAML().load(Path(fleet.stack.env["SUTURE_INVENTORY"]).read_text())
    told["aws"][0]["discovery_role"] = "NoSuchRole"
    inventory = tmp_path / "inventory.yaml"
    with inventory.open("w") as file:
        YAML().dump(told, file)
    subscription = next(one.account for one in fleet.open_findings() if one.cloud == "azure")
    before = {one.id for one in fleet.open_findings() if one.cloud == "aws"}
    state = scan_here(fleet, [subscription], SUTURE_INVENTORY=str(inventory))
    assert (state.is_failed(), state.name) == (True, "Incomplete")
    assert "emulated-organization could not be discovered" in state.message
    ((source, reason),) = seen(fleet).failed_sources
    assert source == "emulated-organization"
    assert "AccessDenied" in reason
    assert {one.id for one in fleet.open_findings() if one.cloud == "aws"} == before


def test_an_account_that_is_not_there_ends_the_scan_in_words(fleet: Any) -> None:
    state = scan_here(fleet, ["000000000000"])
    assert (state.is_failed(), state.name) == (True, "Cannot start")
    assert "000000000000" in state.message


def newest_scan(fleet: Any) -> tuple[str, str, str]:
    """Id, state and message of the scan of the fleet that began last."""
    with fleet.warehouse() as warehouse:
        (row,) = warehouse.execute(
            "SELECT id::text, state, message FROM scans "
            "WHERE NOT targeted ORDER BY started_at DESC LIMIT 1"
        )
    return row[0], row[1], row[2]


def test_a_scan_that_breaks_says_so_and_is_gone_on_with(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("disk full")

    account = fleet.open_findings()[0].account
    with monkeypatch.context() as patch:
        patch.setattr(scans, "merge_scan", broken)
        assert scan_here(fleet, [account]).is_failed()
    scan_id, *said = newest_scan(fleet)
    assert said == ["interrupted", "It was cut off: RuntimeError."]
    assert scan_here(fleet, [account]).name == "Completed"
    assert newest_scan(fleet) == (scan_id, "finished", "")


def test_a_scan_that_is_killed_goes_on_where_it_was(fleet: Any) -> None:
    accounts = sorted({finding.account for finding in fleet.open_findings()})
    chosen = [part for account in accounts for part in ("--account", account)]
    command = (*("scan", "--no-triage", "--batch-size", "1", "--format", "json"), *chosen)
    before = newest_scan(fleet)[0]
    loaded = "SELECT account, load_id FROM stage_accounts WHERE scan_id::text = %s"
    child = fleet.stack.child("scan-to-be-killed", *command)
    with fleet.warehouse() as warehouse:

        def some_are_loaded() -> bool:
            scan_id = newest_scan(fleet)[0]
            return scan_id != before and len(warehouse.execute(loaded, (scan_id,)).fetchall()) > 2

        child.wait_until(some_are_loaded, seconds=60)
        os.kill(child.process.pid, signal.SIGKILL)
        scan_id, state, _ = newest_scan(fleet)
        time.sleep(5)  # what its scanning processes had begun, they finish
        done = dict(warehouse.execute(loaded, (scan_id,)).fetchall())
        assert state == "running"
        assert 2 < len(done) < len(accounts)
        again = fleet.stack.child("scan-again", *command, pipe=True).process
        told, _ = again.communicate(timeout=90)
    assert newest_scan(fleet)[:2] == (scan_id, "finished")
    posture = seen(fleet)
    assert sum(one.get("covered", 0) for one in posture.accounts.values()) == len(accounts)
    assert (posture.counts.opened, posture.counts.reopened) == (0, 0)
    assert json.loads(told)["state"] == "Completed"


def test_accounts_that_are_fresh_are_left_alone(fleet: Any) -> None:
    stale, touched, *others = sorted({finding.account for finding in fleet.open_findings()})[:5]
    assert scan_here(fleet, [stale, touched, *others]).name == "Completed"
    now = datetime.now(UTC)
    with fleet.warehouse() as warehouse:
        warehouse.execute(
            "UPDATE accounts SET last_scanned_at = %s WHERE id = %s", (now - timedelta(1), stale)
        )
        (cloud,) = warehouse.execute(
            "SELECT cloud FROM accounts WHERE id = %s", (touched,)
        ).fetchone()
        incremental.touch_accounts(warehouse, [(cloud, touched)])
    for wanted, which in (
        ({"since": now - timedelta(hours=1)}, stale),
        ({"touched": True}, touched),
    ):
        state = scan_here(fleet, [stale, touched, *others], **wanted)
        assert "1 accounts and subscriptions scanned" in state.message
        with fleet.warehouse() as warehouse:
            scanned = warehouse.execute(
                "SELECT account FROM scan_accounts WHERE scan_id::text = %s AND status = 'covered'",
                (newest_scan(fleet)[0],),
            ).fetchall()
        assert scanned == [(which,)]


def test_what_has_not_changed_costs_no_row(fleet: Any) -> None:
    account = fleet.open_findings()[0].account
    count = "SELECT count(*) FROM observations WHERE account = %s"
    assert scan_here(fleet, [account]).name == "Completed"
    with fleet.warehouse() as warehouse:
        before = warehouse.execute(count, (account,)).fetchone()
        assert scan_here(fleet, [account]).name == "Completed"
        assert warehouse.execute(count, (account,)).fetchone() == before
        assert scan_here(fleet, [account], full=True).name == "Completed"
        assert warehouse.execute(count, (account,)).fetchone() > before
