"""Plans: what an approver reads, what is kept over a suspension, and how drift is seen."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Config, Resource, Rule, Severity, Step
from tasks.plan import (
    Plan,
    approval_page,
    as_code,
    drifted,
    make_plan,
    plan_from_json,
    plan_json,
    resource_from_json,
    resource_json,
    restore_plan,
)
from tasks.rules import rule

GROUP = {
    "GroupId": "sg-1",
    "GroupName": "web",
    "IpPermissions": [
        {
            "IpProtocol": "tcp",
            "FromPort": 20,
            "ToPort": 30,
            "IpRanges": [{"CidrIp": "0.0.0.0/0"}, {"CidrIp": "10.0.0.0/8"}],
            "Ipv6Ranges": [],
            "PrefixListIds": [],
            "UserIdGroupPairs": [],
        }
    ],
}


def group(**changes: object) -> Resource:
    return Resource(
        cloud=Cloud.AWS,
        account="111122223333",
        region="eu-central-1",
        kind="aws.ec2.security_group",
        id="arn:aws:ec2:eu-central-1:111122223333:security-group/sg-1",
        name="web",
        config=Config({**GROUP, **changes}),
    )


def ssh_plan(resource: Resource | None = None, number: int = 1) -> Plan:
    found = rule("aws_ec2_security_group_ssh_not_open")
    values = {"allowed_cidrs": ()}
    return make_plan(found, resource or group(), values, finding_id="f" * 64, number=number)


def test_a_plan_survives_the_warehouse() -> None:
    plan = ssh_plan()
    back = plan_from_json(json.loads(json.dumps(plan_json(plan))))
    assert back.hash == plan.hash
    assert back.steps == plan.steps
    assert back.resource.fingerprint == plan.resource.fingerprint
    assert back.resource.reads is None


def test_what_was_read_of_a_resource_is_said_where_it_was_not_all() -> None:
    part = replace(group(), reads=frozenset({"ec2:DescribeSecurityGroups"}))
    back = resource_from_json(json.loads(json.dumps(resource_json(part))))
    assert back.reads == part.reads
    assert back.fingerprint == part.fingerprint == group().fingerprint
    assert back.shows(rule("aws_ec2_security_group_ssh_not_open"))
    assert not back.shows(rule("aws_s3_bucket_tls_only"))
    assert group().shows(rule("aws_s3_bucket_tls_only"))
    assert "reads" not in resource_json(group())


def test_the_page_says_what_where_why_and_what_it_needs() -> None:
    page = approval_page([ssh_plan(number=1), ssh_plan(number=2)], heading="2 changes")
    assert "| 1 | " in page
    assert "| 2 | " in page
    assert "security-group/sg-1" in page
    assert "ec2:RevokeSecurityGroupIngress" in page
    assert "20-21" in page
    assert "23-30" in page, "the approver sees what becomes of the rest of the range"


def test_the_page_ends_with_the_first_guides_and_names_the_others() -> None:
    guides = {f"rule_{number}": f"**What it means.** {number}" for number in range(5)}
    page = approval_page([ssh_plan()], heading="one", guides=guides)
    assert [f"**What it means.** {number}" in page for number in range(5)] == [True] * 3 + [
        False
    ] * 2
    assert page.index("### Guide: `rule_0`") < page.index("### Guide: `rule_1`")
    assert page.endswith("- `suture guide rule_3`\n- `suture guide rule_4`")
    assert "uide" not in approval_page([ssh_plan()], heading="one")


def test_what_comes_from_a_cloud_cannot_become_markdown() -> None:
    hostile = "](http://evil.example) `x` | **bold**\n# heading"
    page = approval_page([ssh_plan(group(Description=hostile))], heading="one")
    assert "http://evil.example" not in page
    assert as_code(hostile) == "`](http://evil.example) 'x' ¦ **bold** # heading`"


@given(st.text())
def test_outside_text_is_always_one_code_span(text: str) -> None:
    shown = as_code(text)
    assert shown == "–" or (shown[0] == shown[-1] == "`" and "`" not in shown[1:-1])
    assert "\n" not in shown
    assert "|" not in shown


def test_drift_is_any_change_of_the_resource_but_our_own() -> None:
    plan = ssh_plan()
    assert not drifted(plan, group())
    assert drifted(plan, group(Description="renamed"))
    assert not drifted(plan, group(Description="renamed"), own_change=True)


def test_the_hash_is_of_what_would_be_done() -> None:
    assert ssh_plan().hash == ssh_plan(number=7).hash
    other = ssh_plan(group(IpPermissions=[{**GROUP["IpPermissions"][0], "ToPort": 31}]))
    assert other.hash != ssh_plan().hash


def test_a_restore_goes_backwards_and_knows_its_goal() -> None:
    before, done = group(), ssh_plan()
    after = group(IpPermissions=[])
    plan = restore_plan(done, before, after, permission=lambda call: f"ec2:{call.operation}")
    operations = [step.call.operation for step in plan.steps]
    assert operations == [call.operation for step in reversed(done.steps) for call in step.undo]
    assert plan.achieved(rule(plan.rule), before)
    assert not plan.achieved(rule(plan.rule), after)
    assert plan.changes[0].before == done.steps[-1].changes[0].after


def test_a_rule_without_a_fix_points_to_its_guide() -> None:
    by_hand = Rule(
        id="aws_x_y_z",
        kind="aws.x.y",
        severity=Severity.LOW,
        title="t",
        passes=lambda resource: False,
        fix=None,
        reads=(),
        writes=(),
        events=(),
        guide="g",
    )
    with pytest.raises(BadInput, match="suture guide aws_x_y_z"):
        make_plan(by_hand, group(), {}, finding_id="f")


def test_permissions_are_named_once() -> None:
    call = Call(Cloud.AWS, "ec2", "X", {})
    step = Step("ec2:X", call, (), (Change("f", "a", "b"),))
    plan = Plan(1, "f", "r", "t", "low", group(), {}, (step, step))
    assert plan.permissions == ("ec2:X",)
