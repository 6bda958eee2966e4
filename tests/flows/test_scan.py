"""The fleet scan on the whole stack: what it finds, what it leaves alone, and what it admits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from ruamel.yaml import YAML

from flows.scan import scan_fleet
from tasks import scanning
from tasks.warehouse import scans
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


def scan_here(fleet: Any, accounts: list[str], **env: str) -> Any:
    """Run the flow in this process, so that a test can break a part of it, on the shared server."""
    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_URL: fleet.stack.api_url}),
    ):
        for name, value in {**fleet.stack.env, **env}.items():
            if name.startswith("SUTURE_"):
                patch.setenv(name, value)
        return scan_fleet(
            accounts=accounts,
            batch_size=1,
            hand_to_triage=False,
            request_seconds=3,
            return_state=True,
        )


def test_the_first_scan_finds_what_was_planted_and_nothing_else(fleet: Any) -> None:
    planted = {
        (f["cloud"], f["account"], f["region"], f["rule"], f["resource"])
        for f in truth(fleet)["findings"]
    }
    with fleet.warehouse() as warehouse:
        found = set(
            warehouse.execute("SELECT cloud, account, region, rule, resource FROM findings")
        )
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
    with fleet.warehouse() as warehouse:
        ids = [identity for (identity,) in warehouse.execute("SELECT id FROM findings")]
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
    real = scans.load_batch

    def load(conn: Any, scan_id: str, batch: Any, **more: Any) -> None:
        if batch[0].account.id == lost:
            raise RuntimeError("out of memory")
        real(conn, scan_id, batch, **more)

    monkeypatch.setattr(scans, "load_batch", load)
    monkeypatch.setattr(scanning.scan_batch, "retry_delay_seconds", 0)
    state = scan_here(fleet, [lost, kept])
    assert (state.is_failed(), state.name) == (True, "Incomplete")
    assert "1 batch crashed" in state.message
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


def test_a_scan_that_breaks_is_not_said_to_run_for_ever(
    fleet: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(scans, "merge_scan", broken)
    account = fleet.open_findings()[0].account
    assert scan_here(fleet, [account]).is_failed()
    with fleet.warehouse() as warehouse:
        row = warehouse.execute(
            "SELECT state, message FROM scans WHERE NOT targeted ORDER BY started_at DESC LIMIT 1"
        ).fetchone()
    assert row == ("failed", "It broke: RuntimeError.")
