"""Triage on the whole stack: by policy without a person, by approval within caps, never twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tasks.model import Verdict
from tasks.rules import rule
from tasks.warehouse import halts, remediations

pytestmark = pytest.mark.slow

PUBLIC_BLOBS = "azure_storage_account_public_blob_access_off"
EBS = "aws_ec2_ebs_encrypted_by_default"
PASSWORDS = "aws_iam_password_policy_length"
RDP = "azure_network_security_group_rdp_not_open"
ALL_PORTS = "aws_ec2_security_group_all_ports_not_open"

POLICIES = f"""
suture: 1
policies:
  - {{name: at-once, match: {{rule: [{EBS}, {PUBLIC_BLOBS}]}}, mode: automatic}}
  - name: ask-few
    match: {{rule: {PASSWORDS}}}
    mode: assisted
    most_runs: 2
    most_changes: 1
"""


@pytest.fixture
def policies(fleet: Any) -> Iterator[None]:
    """The stack's policy file, for a while of this test's own."""
    path = Path(fleet.stack.env["SUTURE_POLICIES"])
    kept = path.read_text()
    path.write_text(POLICIES)
    yield
    path.write_text(kept)


def run_triage(fleet: Any) -> str:
    run_id = fleet.api.start("triage/triage", {})
    state = fleet.end(run_id)
    assert state["name"] == "Completed", state
    return str(state["message"])


def records(fleet: Any, findings: Any) -> list[Any]:
    with fleet.warehouse() as warehouse:
        return [
            record
            for finding in findings
            for record in remediations.remediations_of(warehouse, finding.id)
        ]


def test_policies_close_ask_and_leave_alone(fleet: Any, policies: None) -> None:
    at_once = [*fleet.open_findings(EBS), *fleet.open_findings(PUBLIC_BLOBS)]
    asked = fleet.open_findings(PASSWORDS)
    assert len({one.cloud for one in at_once}) == 2
    assert len({one.account for one in asked}) > 2, "the cap has nothing to hold back"

    first = run_triage(fleet)
    assert f"{len(asked) - 2} over a cap" in first
    closed = records(fleet, at_once)
    assert {record.state for record in closed} == {"remediated"}
    assert Counter(record.finding_id for record in closed).most_common(1)[0][1] == 1
    assert all(record.approver.endswith("token endpoint") for record in closed)
    for finding in at_once:
        assert rule(finding.rule).judge(fleet.now(finding))[0] is Verdict.PASS
        assert fleet.finding(finding.id).status == "resolved"

    wait_until_asked(fleet, asked, 2)
    run_triage(fleet)
    waiting = records(fleet, asked)
    assert [record.state for record in waiting] == ["waiting", "waiting"]
    assert len({record.run_id for record in waiting}) == 2
    assert records(fleet, at_once) == closed

    # Denied is denied, and expired is expired: nobody is asked again by the next triage.
    denied, expired = waiting
    assert fleet.answer(denied.run_id, decision="deny") == "ACCEPT"
    fleet.end(denied.run_id)
    with fleet.warehouse() as warehouse:
        warehouse.execute(
            "UPDATE remediations SET expires_at = now() WHERE run_id = %s", (expired.run_id,)
        )
    run_triage(fleet)
    state = fleet.api.state(expired.run_id)
    assert (state["type"], state["name"]) == ("CANCELLED", "Expired")
    assert fleet.rows(expired.run_id)[0].state == "expired"
    assert len(records(fleet, [fleet.finding(denied.finding_id)])) == 1
    # The two places of the policy are free again, for two others.
    wait_until_asked(fleet, asked, 4)
    again = [record for record in records(fleet, asked) if record.state == "waiting"]
    assert len(again) == 2
    assert not {denied.finding_id, expired.finding_id} & {record.finding_id for record in again}
    for record in again:
        fleet.answer(record.run_id, decision="deny")
        fleet.end(record.run_id)


def wait_until_asked(fleet: Any, findings: Any, count: int) -> None:
    """Until so many remediations of these findings were planned, and all that wait can be seen."""
    import time

    deadline = time.monotonic() + 90
    while len(found := records(fleet, findings)) < count:
        assert time.monotonic() < deadline, "approvals were not asked for"
        time.sleep(0.2)
    for record in found:
        if record.state == "waiting":
            fleet.wait_until_suspended(record.run_id)


def test_a_run_cancelled_by_hand_frees_its_findings(fleet: Any) -> None:
    (finding,) = fleet.take(RDP)
    run_id = fleet.start_and_wait([finding])
    answer = httpx.post(
        f"{fleet.stack.api_url}/flow_runs/{run_id}/set_state",
        json={"state": {"type": "CANCELLED"}, "force": True},
        trust_env=False,
    )
    assert answer.is_success, answer.text
    assert fleet.rows(run_id)[0].state == "waiting"
    kept = Path(fleet.stack.env["SUTURE_POLICIES"])
    text = kept.read_text()
    kept.write_text("suture: 1\npolicies: []\n")
    try:
        run_triage(fleet)
    finally:
        kept.write_text(text)
    (row,) = fleet.rows(run_id)
    assert row.state == "expired"
    assert "nothing was changed" in row.message
    assert fleet.finding(finding.id).status == "open"


def test_a_halt_makes_findings_wait_and_its_lift_takes_them_up(fleet: Any) -> None:
    finding = fleet.open_findings(ALL_PORTS)[0]
    path = Path(fleet.stack.env["SUTURE_POLICIES"])
    kept = path.read_text()
    match = f"{{rule: {ALL_PORTS}, account: '{finding.account}'}}"
    path.write_text(
        f"suture: 1\npolicies:\n  - {{name: at-once, match: {match}, mode: automatic}}\n"
    )
    try:
        with fleet.warehouse() as warehouse:
            halts.halt(warehouse, "wrong values", "Grace")
        message = run_triage(fleet)
        assert "0 remediations by policy" in message
        assert "findings wait: Automatic remediation has been halted by Grace" in message
        assert "wrong values" in message
        assert records(fleet, [finding]) == []
        state = fleet.end(fleet.start([finding], policy="at-once"))  # a person starts it by hand
        assert (state["type"], state["name"]) == ("COMPLETED", "Halted"), state
        assert "wrong values" in state["message"]
        assert [one.state for one in records(fleet, [finding])] == ["halted"]
        with fleet.warehouse() as warehouse:
            halts.lift(warehouse, "values corrected", "Ada")
        assert "1 remediations by policy" in run_triage(fleet)
        assert {one.state for one in records(fleet, [finding])} == {"halted", "remediated"}
    finally:
        path.write_text(kept)
