"""Fix and restore through the gate, on generated configurations planted in the emulated clouds.

Few examples for each rule: tests/tasks/rules/test_restore.py has many, on a model of the clouds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tasks.clouds.remediator import apply_all
from tasks.clouds.session_policy import permission_of
from tasks.errors import BadInput
from tasks.model import Rule, Verdict
from tasks.plan import make_plan, restore_plan
from tasks.rules import rule
from tasks.snapshot import content_of

if TYPE_CHECKING:
    from tests.tasks.clouds.conftest import Gated

pytestmark = pytest.mark.slow

NETWORK, STORAGE = "2024-05-01", "2023-05-01"
# One for each planner; test_contract.py has every row, on one configuration of each.
FIXING = [
    rule(one)
    for one in (
        "aws_ec2_security_group_ssh_not_open",
        "aws_ec2_security_group_dns_not_open",
        "aws_ec2_security_group_all_ports_not_open",
        "aws_s3_bucket_public_access_blocked",
        "aws_s3_bucket_versioning_enabled",
        "aws_s3_bucket_tls_only",
        "aws_iam_password_policy_length",
        "azure_network_security_group_ssh_not_open",
        "azure_network_security_group_udp_amplifiers_not_open",
        "azure_network_security_group_any_port_not_open",
        "azure_storage_account_public_blob_access_off",
        "azure_storage_account_minimum_tls",
    )
]


@pytest.mark.parametrize("row", FIXING, ids=lambda one: one.id)
def test_fix_then_restore_is_the_identity_in_the_cloud(
    row: Rule, table: Any, gated: Gated, customer: Any
) -> None:
    @settings(max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(table.failing(row), st.lists(st.sampled_from(["10.9.0.0/16", "2001:db8:1::/48"])))
    def holds(config: dict[str, Any], allowed: list[str]) -> None:
        finding = customer.plant(table, row, config)
        before = gated.read(finding)
        assert row.judge(before) == (Verdict.FAIL, "")
        values = table.values(row)
        if "allowed_cidrs" in values:
            values["allowed_cidrs"] = tuple(allowed)
        try:
            plan = make_plan(row, before, values, finding_id="f")
        except BadInput as stuck:
            assume("priority" not in stuck.problem)
            raise
        opened = gated.open(finding)
        seen = [before]
        for _ in range(3):  # the fix, its restore, and the restore of that
            with gated.session(finding, seen[-1], plan.steps, opened.code) as session:
                apply_all(session, plan.steps)
            now = gated.read(finding)
            assert plan.achieved(row, now)
            plan = restore_plan(plan, seen[-1], now, permission=permission_of)
            seen.append(now)
        gated.close(finding)
        assert content_of(seen[2]) == content_of(row.undone(before))  # what a snapshot keeps
        assert content_of(seen[3]) == content_of(seen[1])
        assert row.judge(seen[1])[0] is Verdict.PASS

    holds()
