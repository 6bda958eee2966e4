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

PREFIX = "/subscriptions/s/resourcegroups/rg/providers"
IDS = {
    "aws.ec2.security_group": "arn:aws:ec2:eu-central-1:111122223333:security-group/sg-1",
    "aws.ec2.ebs_defaults": "arn:aws:ec2:eu-central-1:111122223333:ebs-encryption-by-default",
    "aws.s3.bucket": "arn:aws:s3:::acme-logs",
    "aws.iam.password_policy": "arn:aws:iam::111122223333:account-password-policy",
    "azure.network.security_group": f"{PREFIX}/microsoft.network/networksecuritygroups/nsg",
    "azure.storage.account": f"{PREFIX}/microsoft.storage/storageaccounts/acme",
}
FIXING = [one for one in RULES if one.fix is not None]
ALLOWED = st.lists(st.sampled_from(["10.9.0.0/16", "198.51.100.0/24", "2001:db8:1::/48"]))


def resource(row: Rule, config: dict[str, Any]) -> Resource:
    for rule in config.get("properties", {}).get("securityRules", ()):
        rule["id"] = f"{IDS[row.kind]}/securityRules/{rule['name']}"
    return canonical(
        Resource(
            cloud=row.cloud,
            account="111122223333",
            region="eu-central-1",
            kind=row.kind,
            id=IDS[row.kind],
            name="example",
            config=Config(config),
        )
    )


def canonical(seen: Resource) -> Resource:
    """As the scanner reads it: what is a set for the cloud is in order."""
    return replace(seen, config=Config(in_order(seen.config.as_dict())))


def text(seen: Resource) -> str:
    return canonical_json(seen.config.as_dict())


@pytest.mark.parametrize("row", FIXING, ids=lambda one: one.id)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_fix_then_restore_is_the_identity(
    row: Rule, data: st.DataObject, failing_configs: Any, apply: Any
) -> None:
    """And the restore of the restore is the fix again, as often as anybody likes."""
    before = resource(row, data.draw(failing_configs(row)))
    assert row.judge(before) == (Verdict.FAIL, "")
    values = {"allowed_cidrs": tuple(data.draw(ALLOWED))} if row.inputs else {}
    values = values if row.service != "iam" else {"minimum_length": data.draw(st.integers(14, 128))}
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
def test_only_what_a_cloud_has_no_way_back_from_is_left_different(
    row: Rule, failing_configs: Any
) -> None:
    """What ``undone`` may change is named here, so that no rule gives itself more."""
    may_differ = {
        "aws_s3_bucket_versioning_enabled": {"Versioning"},
        "azure_storage_account_public_blob_access_off": {"allowBlobPublicAccess"},
        "azure_storage_account_minimum_tls": {"minimumTlsVersion"},
    }

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(failing_configs(row))
    def holds(config: dict[str, Any]) -> None:
        before = resource(row, config).config.as_dict()
        after = row.undone(resource(row, config)).config.as_dict()
        flat = [{**one, **one.get("properties", {})} for one in (before, after)]
        for one in flat:
            one.pop("properties", None)
        differs = {name for name in flat[1] if flat[0].get(name) != flat[1][name]}
        assert flat[0].keys() <= flat[1].keys()
        assert differs <= may_differ.get(row.id, set())

    holds()
