"""Remediation through the same public API as the UI: what an approver's answers do to a cloud."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tasks.codes import REDEEM_PATH, proof
from tasks.model import Verdict
from tasks.rules import rule

pytestmark = pytest.mark.slow

AWS_SSH = "aws_ec2_security_group_ssh_not_open"
AZURE_SSH = "azure_network_security_group_ssh_not_open"
TLS_ONLY = "aws_s3_bucket_tls_only"
VERSIONING = "aws_s3_bucket_versioning_enabled"
WRONG = "604182"  # a well-formed code that no gate was opened with


def verdict(fleet: Any, finding: Any) -> Verdict:
    return rule(finding.rule).judge(fleet.now(finding))[0]


def test_an_approval_closes_what_it_does_not_leave_out(fleet: Any) -> None:
    found = fleet.take(AWS_SSH, 2)
    run_id = fleet.start_and_wait(found)
    rows = fleet.rows(run_id)
    closed, left = (
        next(one for one in found if one.id == row.finding_id) for row in sorted(rows, key=number)
    )
    untouched = fleet.now(left).fingerprint

    state = fleet.approve(run_id, leave_out="2", allowed_cidrs="198.51.100.0/24")

    assert (state["type"], state["name"]) == ("COMPLETED", "Remediated"), state
    assert state["message"] == "1 left out, 1 remediated"
    assert verdict(fleet, closed) is Verdict.PASS
    assert "198.51.100.0/24" in repr(fleet.now(closed).config)
    assert fleet.now(left).fingerprint == untouched
    assert [fleet.finding(one.id).status for one in (closed, left)] == ["resolved", "open"]
    first, second = sorted(fleet.rows(run_id), key=number)
    assert (first.state, second.state) == ("remediated", "left_out")
    assert (first.approver, first.approver_verified) == ("Ada Lovelace", False)
    taken = fleet.snapshots(first.id)
    assert {"before", "after"} <= taken.keys()
    assert taken["after"].resource.fingerprint == fleet.now(closed).fingerprint
    assert [action for action, _ in fleet.audit(first.id)] == [
        "planned",
        "approved",
        "applying",
        *("wrote" for _ in first.plan["steps"]),
        "remediated",
    ]
    assert ("approved", "Ada Lovelace") in fleet.audit(first.id)
    run = httpx.get(f"{fleet.stack.api_url}/flow_runs/{run_id}", trust_env=False).json()
    assert run["name"] == f"Fix 2 findings in {closed.account}"
    names = task_names(fleet, run_id)
    for step in ("begin_remediation", "take_answer", "close-1", "conclude_round"):
        assert any(name.startswith(step) for name in names), names


def number(row: Any) -> int:
    return int(row.number)


def task_names(fleet: Any, run_id: str) -> list[str]:
    """The names of a run's task runs; the server writes them down a moment later."""
    body = {"flow_runs": {"id": {"any_": [run_id]}}}
    deadline = time.monotonic() + 15
    while True:
        found = httpx.post(
            f"{fleet.stack.api_url}/task_runs/filter", json=body, trust_env=False
        ).json()
        names = [str(one["name"]) for one in found]
        if any(name.startswith("conclude_round") for name in names) or time.monotonic() > deadline:
            return names
        time.sleep(0.2)


def test_a_wrong_code_changes_nothing_and_is_asked_again(fleet: Any) -> None:
    (finding,) = fleet.take(AZURE_SSH)
    before = fleet.now(finding).fingerprint
    run_id = fleet.start_and_wait([finding])
    fleet.codes.add(WRONG)
    key = fleet.api.state(run_id)["state_details"]["run_input_keyset"]["schema"]

    assert fleet.answer(run_id, code=WRONG) == "ACCEPT"

    page = wait_for_next_form(fleet, run_id, key)
    assert "Asked again" in page
    assert WRONG not in page
    assert fleet.now(finding).fingerprint == before
    state = fleet.approve(run_id)
    assert state["name"] == "Remediated", state
    assert fleet.finding(finding.id).status == "resolved"


def wait_for_next_form(fleet: Any, run_id: str, old_key: str) -> str:
    deadline = time.monotonic() + 90
    while True:
        page = str(fleet.wait_until_suspended(run_id))
        keys = fleet.api.state(run_id)["state_details"]["run_input_keyset"]
        if keys["schema"] != old_key:
            return page
        assert time.monotonic() < deadline, "it was not asked again"
        time.sleep(0.25)


def test_a_denial_leaves_the_resource_alone(fleet: Any) -> None:
    (finding,) = fleet.take(VERSIONING)
    before = fleet.now(finding).fingerprint
    run_id = fleet.start_and_wait([finding])
    assert fleet.answer(run_id, decision="deny") == "ACCEPT"
    state = fleet.end(run_id)
    assert (state["type"], state["name"]) == ("COMPLETED", "Denied"), state
    assert fleet.now(finding).fingerprint == before
    assert fleet.finding(finding.id).status == "open"
    (row,) = fleet.rows(run_id)
    assert (row.state, row.approver) == ("denied", "Ada Lovelace")
    assert ("denied", "Ada Lovelace") in fleet.audit(row.id)


def test_a_code_that_is_gone_when_the_run_asks_for_it_is_asked_again(fleet: Any) -> None:
    (finding,) = fleet.take(TLS_ONLY)
    run_id = fleet.start_and_wait([finding])
    keys = fleet.api.state(run_id)["state_details"]["run_input_keyset"]
    fleet.codes.add("771903")
    assert fleet.answer(run_id, code="771903") == "ACCEPT"
    # Faster than the run itself: read its code away from under it.
    address = f"{fleet.stack.api_url}/flow_runs/{run_id}/input/{keys['response']}"
    stored = httpx.get(address, trust_env=False).json()
    handle = stored["code"]
    assert "771903" not in repr(stored)
    taken = httpx.post(
        f"{fleet.stack.api_url}{REDEEM_PATH}",
        json={
            "handle": handle,
            "flow_run_id": run_id,
            "proof": proof(SecretStr(fleet.stack.env["SUTURE_GUARD_KEY"]), handle, run_id),
        },
        trust_env=False,
    )
    assert taken.is_success, taken.text

    page = wait_for_next_form(fleet, run_id, keys["schema"])

    assert "This code is gone" in page
    assert fleet.approve(run_id)["name"] == "Remediated"


def test_findings_of_several_accounts_become_a_run_for_each(fleet: Any) -> None:
    first = fleet.take(TLS_ONLY)[0]
    second = fleet.take(TLS_ONLY, where=lambda one: one.account != first.account)[0]
    run_id = fleet.start([f"{first.id}, {second.id}"])
    state = fleet.end(run_id)
    assert (state["type"], state["name"]) == ("COMPLETED", "Split"), state
    assert fleet.rows(run_id) == []
    for finding in (first, second):
        assert finding.account in state["message"]
        (row,) = wait_for_rows(fleet, finding.id)
        assert row.account == finding.account
        fleet.wait_until_suspended(row.run_id)
        fleet.answer(row.run_id, decision="deny")
        assert fleet.end(row.run_id)["name"] == "Denied"


def wait_for_rows(fleet: Any, finding_id: str) -> Any:
    from tasks.warehouse.remediations import remediations_of

    deadline = time.monotonic() + 60
    while True:
        with fleet.warehouse() as warehouse:
            if rows := remediations_of(warehouse, finding_id):
                return rows
        assert time.monotonic() < deadline, "no run took it"
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("ids", "words"),
    [(["f" * 64], "not known"), ([], "is empty")],
)
def test_ids_that_cannot_be_used_end_the_run_in_words(
    fleet: Any, ids: list[str], words: str
) -> None:
    state = fleet.end(fleet.start(ids))
    assert (state["type"], state["name"]) == ("FAILED", "Cannot start"), state
    assert words in state["message"]
    assert "Copy ids" in state["message"]


def test_a_policy_that_is_not_there_is_said(fleet: Any) -> None:
    finding = fleet.open_findings()[0]
    state = fleet.end(fleet.start([finding], policy="nobody-wrote-this"))
    assert state["name"] == "Cannot start"
    assert "nobody-wrote-this does not exist" in state["message"]


def test_a_remediation_is_put_back_byte_for_byte(fleet: Any) -> None:
    (finding,) = fleet.take(AWS_SSH)
    before = fleet.now(finding)
    run_id = fleet.start_and_wait([finding])
    fleet.approve(run_id)
    (row,) = fleet.rows(run_id)
    assert fleet.now(finding).fingerprint != before.fingerprint

    back_id = fleet.start_restore(row.id)
    page = fleet.wait_until_suspended(back_id)
    assert row.id in page
    state = fleet.approve(back_id)

    assert (state["type"], state["name"]) == ("COMPLETED", "Restored"), state
    assert fleet.now(finding).fingerprint == before.fingerprint
    assert fleet.snapshots(row.id)["before"].resource.fingerprint == before.fingerprint
    assert fleet.rows(run_id)[0].state == "undone"
    assert fleet.finding(finding.id).status == "open"
    refused = fleet.end(fleet.start_restore(row.id))
    assert refused["name"] == "Cannot start"
    assert "nothing of it to put back" in refused["message"]


def test_a_restore_of_what_has_changed_since_is_refused_and_shows_what(fleet: Any) -> None:
    """Two fixes of one bucket: the second is a change since the first."""
    found = fleet.take_resource(TLS_ONLY, VERSIONING)
    run_id = fleet.start_and_wait(found)
    assert fleet.approve(run_id)["name"] == "Remediated"
    first = min(fleet.rows(run_id), key=number)
    changed = {TLS_ONLY: "config.Versioning.Status", VERSIONING: "config.Policy"}
    field = changed[first.plan["rule"]]
    left = fleet.now(found[0]).fingerprint

    back_id = fleet.start_restore(first.id)
    refused = fleet.end(back_id)
    assert (refused["type"], refused["name"]) == ("FAILED", "Drifted"), refused
    assert f"its resource has been changed since: {field} was" in refused["message"]
    (artifact,) = httpx.post(
        f"{fleet.stack.api_url}/artifacts/filter",
        json={"artifacts": {"flow_run_id": {"any_": [back_id]}}},
        trust_env=False,
    ).json()
    assert f"| `{field}` |" in artifact["data"]
    by_hand = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "restore", first.id],
        env={**os.environ, **fleet.stack.env, "COLUMNS": "300"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert by_hand.returncode != 0
    assert field in by_hand.stdout
    assert "its resource has been changed since" in by_hand.stderr
    assert fleet.now(found[0]).fingerprint == left
    assert fleet.rows(run_id)[0].state == "remediated"
