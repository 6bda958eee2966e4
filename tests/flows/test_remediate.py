"""Remediation through the same public API as the UI: what an approver's answers do to a cloud."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.model import Verdict
from tasks.rules import rule

pytestmark = pytest.mark.slow

SSH = "aws_ec2_security_group_ssh_not_open"


def test_an_approved_fix_closes_the_finding(fleet: Any) -> None:
    (finding,) = fleet.take(SSH)
    run_id = fleet.start_and_wait([finding])

    state = fleet.approve(run_id)

    assert (state["type"], state["name"]) == ("COMPLETED", "Remediated"), state
    assert rule(SSH).judge(fleet.now(finding))[0] is Verdict.PASS
    assert fleet.finding(finding.id).status == "resolved"
