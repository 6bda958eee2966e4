"""Fix, then restore: the identity, but for what a rule says that its undo cannot bring back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tasks.clouds.session_policy import permission_of
from tasks.errors import BadInput
from tasks.model import Config, Resource, Rule, Verdict, canonical_json, in_order
from tasks.plan import Plan, make_plan, restore_plan
from tasks.rules import RULES

FIXING = [one for one in RULES if one.fix is not None]
ALLOWED = st.lists(st.sampled_from(["10.9.0.0/16", "198.51.100.0/24", "2001:db8:1::/48"]))


def resource(table: Any, row: Rule, config: dict[str, Any]) -> Resource:
    made: Resource = table.resource(row, config)
    for rule in made.config.as_dict().get("properties", {}).get("securityRules", ()):
        rule["id"] = f"{made.id}/securityRules/{rule['name']}"
    return canonical(made)


# What the rows of a kind that share their planner have together, so that a table may grow.
EXAMPLES = 240


def share(row: Rule) -> int:
    return max(6, min(60, EXAMPLES // sum(one.kind == row.kind for one in FIXING)))


def canonical(seen: Resource) -> Resource:
    """As the scanner reads it: what is a set for the cloud is in order."""
    return replace(seen, config=Config(in_order(seen.config.as_dict())))


def text(seen: Resource) -> str:
    return canonical_json(seen.config.as_dict())


@pytest.mark.parametrize("row", FIXING, ids=lambda one: one.id)
def test_fix_then_restore_is_the_identity(row: Rule, table: Any, apply: Any) -> None:
    @settings(max_examples=share(row), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(table.failing(row), ALLOWED)
    def holds(config: dict[str, Any], allowed: list[str]) -> None:
        fix_and_restore(row, table, apply, config, allowed)

    holds()


def fix_and_restore(
    row: Rule, table: Any, apply: Any, config: dict[str, Any], allowed: list[str]
) -> None:
    """And the restore of the restore is the fix again, as often as anybody likes."""
    before = resource(table, row, config)
    assert row.judge(before) == (Verdict.FAIL, "")
    values = table.values(row)
    if "allowed_cidrs" in values:
        values["allowed_cidrs"] = tuple(allowed)
    try:
        plan = make_plan(row, before, values, finding_id="f")
    except BadInput as stuck:
        assume("priority" not in stuck.problem)
        raise
    states, plans = [before], [plan]
    for _ in range(3):
        done, seen = plans[-1], states[-1]
        after = canonical(apply(seen, done.steps))
        assert done.achieved(row, after)
        back = restore_plan(done, seen, after, permission=permission_of)
        assert {step.action.lower() for step in back.steps} <= {one.lower() for one in row.writes}
        assert all(step.undo for step in back.steps)
        assert names(back) == names(done)[::-1]
        states.append(after)
        plans.append(back)
    as_undone = row.undone(before)
    assert text(states[2]) == text(canonical(as_undone))
    assert states[2].fingerprint == canonical(as_undone).fingerprint
    assert row.judge(states[1])[0] is row.judge(states[3])[0] is Verdict.PASS
    assert text(states[3]) == text(states[1])
    assert plans[1].title == f"Put back: {row.title}"
    assert plans[2].title == f"Apply again: {row.title}"
    assert plans[3].title == plans[1].title


def names(plan: Plan) -> list[str]:
    """What the steps change, one step after the other."""
    return [", ".join(change.field for change in step.changes) for step in plan.steps]


@pytest.mark.parametrize("row", FIXING, ids=lambda one: one.id)
def test_only_what_a_cloud_has_no_way_back_from_is_left_different(row: Rule, table: Any) -> None:
    """What ``undone`` may change is named here, so that no rule gives itself more."""
    may_differ = {
        "aws_s3_bucket_versioning_enabled": {"Versioning"},
        "aws_opensearch_domain_node_to_node_encrypted": {"NodeToNodeEncryptionOptions"},
        "aws_opensearch_domain_encrypted_at_rest": {"EncryptionAtRestOptions"},
        "azure_storage_account_public_blob_access_off": {"allowBlobPublicAccess"},
        "azure_storage_account_minimum_tls": {"minimumTlsVersion"},
        "azure_storage_account_network_default_deny": {"networkAcls"},
        "azure_storage_account_public_network_access_off": {"publicNetworkAccess"},
        "azure_storage_account_shared_key_access_off": {"allowSharedKeyAccess"},
        "azure_storage_account_entra_authorization_by_default": {"defaultToOAuthAuthentication"},
        "azure_storage_account_cross_tenant_replication_off": {"allowCrossTenantReplication"},
        "azure_storage_account_key_expiration_reminder": {"keyPolicy"},
        "azure_storage_account_blob_soft_delete": {"blobServices"},
        "azure_storage_account_container_soft_delete": {"blobServices"},
        "azure_storage_account_blob_versioning": {"blobServices"},
        "azure_storage_account_file_share_soft_delete": {"fileServices"},
        "azure_storage_account_smb_version": {"fileServices"},
        "azure_storage_account_smb_channel_encryption": {"fileServices"},
        "azure_keyvault_vault_purge_protection_on": {"enableSoftDelete", "enablePurgeProtection"},
        "azure_keyvault_vault_soft_delete_on": {"enableSoftDelete"},
        "azure_keyvault_vault_public_network_access_off": {"publicNetworkAccess"},
        "azure_keyvault_vault_network_default_deny": {"networkAcls"},
        "azure_compute_disk_not_public": {"networkAccessPolicy", "publicNetworkAccess"},
        "azure_compute_virtual_machine_boot_diagnostics_on": {"diagnosticsProfile"},
        "azure_sql_server_minimum_tls": {"minimalTlsVersion"},
    }

    @settings(max_examples=share(row), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(table.failing(row))
    def holds(config: dict[str, Any]) -> None:
        before = resource(table, row, config).config.as_dict()
        after = row.undone(resource(table, row, config)).config.as_dict()
        flat = [{**one, **one.get("properties", {})} for one in (before, after)]
        for one in flat:
            one.pop("properties", None)
        differs = {name for name in flat[1] if flat[0].get(name) != flat[1][name]}
        assert flat[0].keys() <= flat[1].keys()
        assert differs <= may_differ.get(row.id, set())

    holds()
