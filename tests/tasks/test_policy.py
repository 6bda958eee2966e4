"""Policies: the file, the matching, and what one run may carry."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.approvers import Approvals, Terms
from tasks.errors import BadPolicy
from tasks.model import Cloud, Finding, Severity
from tasks.policy import (
    BY_HAND,
    ON_REQUEST,
    Mode,
    Policy,
    assign,
    decide,
    escalated,
    named,
    parse_caps,
    parse_policies,
    terms_for,
)

FILE = """\
suture: 1
policies:
  - name: close-ssh-in-dev
    match:
      rule: ["*_ssh_not_open", "*_rdp_not_open"]
      tags: {env: dev}
    mode: automatic
    values: {allowed_cidrs: [10.0.0.0/8, 192.168.0.0/16]}
  - name: ask-for-the-worst
    match: {severity: [critical, high]}
    mode: assisted
    expires: 4h
    most_changes: 3
    most_runs: 2
"""


def finding(**changes: object) -> Finding:
    known: dict[str, object] = {
        "id": "f" * 64,
        "cloud": Cloud.AWS,
        "account": "111122223333",
        "region": "eu-central-1",
        "rule": "aws_ec2_security_group_ssh_not_open",
        "severity": Severity.HIGH,
        "kind": "aws.ec2.security_group",
        "resource": "arn:aws:ec2:eu-central-1:111122223333:security-group/sg-1",
        "tags": {"env": "dev"},
    }
    return Finding(**{**known, **changes})  # type: ignore[arg-type]


def test_file_becomes_policies() -> None:
    first, second = parse_policies(FILE)
    assert first.mode is Mode.AUTOMATIC
    assert first.values == {"allowed_cidrs": "10.0.0.0/8, 192.168.0.0/16"}
    assert second.expires == timedelta(hours=4)
    assert second.severities == (Severity.CRITICAL, Severity.HIGH)


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("mode: assisted", "mode: asisted", 11, "automatic"),
        ("most_runs: 2", "most_run: 2", 14, "most_runs"),
        ("most_changes: 3", "most_changes: 0", 13, "from 1"),
        ("most_changes: 3", "most_changes_per_hour: 0", 13, "from 1"),
        ("most_changes: 3", "most_changes_per_hour:", 13, "whole number"),
        ("suture: 1", "suture: 1\nlimits: {changes_per_hour: lots}", 2, "whole number"),
        ("suture: 1", "suture: 1\nlimits: {change_per_hour: 5}", 2, "changes_per_hour"),
        ("suture: 1", "suture: 1\nlimits:", 2, "says nothing"),
        ("expires: 4h", "expires: soon", 12, "4h"),
        ("severity: [critical, high]", "severity: [worst]", 10, "critical"),
        ("name: ask-for-the-worst", "name: close-ssh-in-dev", 9, "taken"),
        ("suture: 1", "suture: 2", 1, "suture: 1"),
        ("tags: {env: dev}", "tags: [dev", 7, "YAML"),
        ("match: {severity: [critical, high]}", "match: {}", 10, "everything"),
    ],
)
def test_a_bad_file_names_its_line_and_the_fix(old: str, new: str, line: int, says: str) -> None:
    with pytest.raises(BadPolicy) as caught:
        parse_policies(FILE.replace(old, new), "p.yaml")
    assert caught.value.line == line
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"p.yaml:{line}: ")


def test_caps_by_the_hour_stand_under_their_names() -> None:
    assert parse_caps(FILE) == {}
    text = FILE.replace("most_changes: 3", "most_changes_per_hour: 3")
    text = text.replace("suture: 1", "suture: 1\nlimits: {changes_per_hour: 7}")
    assert parse_caps(text) == {"": 7, "ask-for-the-worst": 3}


APPROVALS = """\
suture: 1
policies:
  - name: four-eyes
    match: {rule: "*"}
    mode: assisted
    approvals:
      two_from: high
      not_requester: true
      approvers: ["*@example.org"]
"""


def test_a_policy_says_who_may_approve() -> None:
    (policy,) = parse_policies(APPROVALS)
    assert policy.approvals == Approvals(Severity.HIGH, True, ("*@example.org",), verified=True)
    (typed,) = parse_policies(APPROVALS + "      verified: false\n")
    assert not typed.approvals.verified
    assert parse_policies(FILE)[1].approvals == Approvals()


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("two_from: high", "two_from: grave", 7, "critical, high"),
        ("two_from: high", "two_from: [high, low]", 7, "mildest"),
        ("two_from: high", "two_form: high", 7, "Did you mean two_from?"),
        ("not_requester: true", "not_requester: yes please", 8, "Write true or false."),
        ('["*@example.org"]', "[]", 9, "Leave it out"),
        ('["*@example.org"]', '[" "]', 9, "empty name"),
        ('["*@example.org"]', "[7]", 9, "Quote each entry"),
        ('["*@example.org"]', "[ada]", 9, "Name another."),
        ('["*@example.org"]', "[ada, ADA]", 9, "Name another."),
        ("mode: assisted", "mode: automatic", 6, "nobody is asked"),
        (
            APPROVALS[APPROVALS.index("    approvals:") :],
            "    approvals: {}\n",
            6,
            "two_from: high",
        ),
        (APPROVALS[APPROVALS.index("    approvals:") :], "    approvals: two\n", 6, "key: value"),
    ],
)
def test_bad_approvals_name_their_line_and_the_fix(
    old: str, new: str, line: int, says: str
) -> None:
    with pytest.raises(BadPolicy) as caught:
        parse_policies(APPROVALS.replace(old, new), "p.yaml")
    assert caught.value.line == line
    assert says in str(caught.value)


def test_asking_by_hand_is_no_way_around_the_second_person() -> None:
    policies = parse_policies(APPROVALS)
    for policy in (policies[0], ON_REQUEST, Policy("another", Mode.ASSISTED)):
        asked = terms_for(policy, policies, [finding()], ["ada", ""])
        assert (asked.needed, asked.verified, asked.not_requester) == (2, True, True)
        assert asked.approvers == (("*@example.org",),)
        assert asked.requesters == ("ada",)
        mild = terms_for(policy, policies, [finding(severity=Severity.LOW)], [])
        assert mild.needed == 1
    both = [finding(severity=Severity.LOW), finding(severity=Severity.CRITICAL)]
    assert terms_for(ON_REQUEST, policies, both, []).needed == 2
    assert terms_for(ON_REQUEST, parse_policies(FILE), both, []) == Terms()


def test_first_match_wins_and_says_why() -> None:
    policies = parse_policies(FILE)
    decision = decide(finding(tags={"env": "prod"}), policies)
    assert decision.policy.name == "ask-for-the-worst"
    assert "its tag env is not dev" in decision.why
    assert decide(finding(), policies).policy.name == "close-ssh-in-dev"


def test_no_match_is_left_to_people() -> None:
    decision = decide(finding(severity=Severity.LOW, tags={}), parse_policies(FILE))
    assert decision.policy is BY_HAND
    assert "No policy matches" in decision.why


def test_account_tags_stand_in_for_resource_tags() -> None:
    policies = parse_policies(FILE)
    assert decide(finding(tags={}, account_tags={"env": "dev"}), policies).policy is policies[0]
    # A resource's own tag says more than its account's.
    other = finding(tags={"env": "prod"}, account_tags={"env": "dev"})
    assert decide(other, policies).policy is policies[1]


def test_caps_leave_the_rest_for_the_next_time() -> None:
    policies = parse_policies(FILE)
    findings = [
        finding(id=f"{account}-{i}", account=account, tags={})
        for account in ("000000000001", "000000000002", "000000000003")
        for i in range(5)
    ]
    assignment = assign(findings, policies, waiting={"ask-for-the-worst": 1})
    assert [len(group.findings) for group in assignment.groups] == [3]
    assert len(assignment.capped) == 12


def test_naming_a_policy_that_is_not_there() -> None:
    with pytest.raises(BadPolicy, match="close-ssh-in-dev"):
        named(parse_policies(FILE), "close-ssh")


severities = st.sampled_from(list(Severity))
made_findings = st.lists(
    st.builds(
        finding,
        id=st.uuids().map(str),
        account=st.sampled_from(["000000000001", "000000000002"]),
        severity=severities,
        tags=st.sampled_from([{}, {"env": "dev"}, {"env": "prod"}]),
    ),
    max_size=30,
)


@given(made_findings)
def test_every_finding_ends_in_exactly_one_place(findings: list[Finding]) -> None:
    assignment = assign(findings, parse_policies(FILE))
    placed = [f.id for group in assignment.groups for f in group.findings]
    placed += [f.id for f in (*assignment.guided, *assignment.capped)]
    assert sorted(placed) == sorted(f.id for f in findings)
    for group in assignment.groups:
        assert {f.account for f in group.findings} == {group.account}
        assert len(group.findings) <= group.policy.most_changes


def test_a_policy_without_conditions_cannot_be_written_by_accident() -> None:
    assert Policy(name="x", mode=Mode.GUIDED).mismatch(finding()) == ""
    with pytest.raises(BadPolicy, match=r"match"):
        parse_policies("suture: 1\npolicies:\n  - name: x\n    mode: automatic\n")


def test_a_warm_gate_is_asked_for_and_for_automatic_policies_only() -> None:
    assert not any(policy.warm_gate for policy in parse_policies(FILE))
    first, second = parse_policies(
        FILE.replace("mode: automatic", "mode: automatic\n    warm_gate: true")
    )
    assert (first.warm_gate, second.warm_gate) == (True, False)
    for wrong, says in (
        (FILE.replace("mode: assisted", "mode: assisted\n    warm_gate: true"), "Only automatic"),
        (FILE.replace("mode: automatic", 'mode: automatic\n    warm_gate: "yes"'), "true or false"),
    ):
        with pytest.raises(BadPolicy, match=says):
            parse_policies(wrong)


ESCALATES = FILE.replace("mode: automatic", "mode: automatic\n    escalate: {after: 2, within: 1h}")
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def ago(**how_long: float) -> datetime:
    return NOW - timedelta(**how_long)


def test_a_policy_says_how_often_it_closes_what_comes_back() -> None:
    (policy, asks) = parse_policies(ESCALATES)
    assert (policy.escalates_after, policy.escalates_within) == (2, timedelta(hours=1))
    plain = parse_policies(FILE)[0]
    assert (plain.escalates_after, plain.escalates_within) == (3, timedelta(days=1))
    assert asks.for_finding([NOW] * 9, NOW) is asks


@pytest.mark.parametrize(
    ("escalate", "says"),
    [
        ("escalate: {after: 0}", "from 1"),
        ("escalate: {after: often}", "whole number"),
        ("escalate: {within: 90s}", "90s"),
        ("escalate: {within: 31d}", "30d"),
        ("escalate: {}", "is empty"),
        ("escalate: {times: 3}", "times"),
        ("escalate: 3", "key: value"),
    ],
)
def test_a_bad_escalation_names_its_line_and_the_fix(escalate: str, says: str) -> None:
    text = FILE.replace("mode: automatic", f"mode: automatic\n    {escalate}")
    with pytest.raises(BadPolicy, match=says) as caught:
        parse_policies(text)
    assert caught.value.line == 8


def test_only_an_automatic_policy_escalates() -> None:
    with pytest.raises(BadPolicy, match="mode: assisted"):
        parse_policies(FILE.replace("expires: 4h", "escalate: {after: 2}"))


@pytest.mark.parametrize(
    ("closings", "mode"),
    [
        ([], Mode.AUTOMATIC),
        ([ago(minutes=5)], Mode.AUTOMATIC),
        ([ago(minutes=50), ago(minutes=5)], Mode.ASSISTED),
        ([ago(minutes=70), ago(minutes=61), ago(minutes=5)], Mode.AUTOMATIC),
        ([ago(hours=1), ago(minutes=5)], Mode.AUTOMATIC),
    ],
)
def test_what_was_closed_too_often_lately_is_asked_about(
    closings: list[datetime], mode: Mode
) -> None:
    (policy, _) = parse_policies(ESCALATES)
    found = policy.for_finding(closings, NOW)
    assert (found.mode, found.name) == (mode, policy.name)
    assert (found.values, found.expires) == (policy.values, policy.expires)


def test_a_finding_that_escalates_does_not_hold_up_the_others() -> None:
    findings = [finding(id="comes back"), finding(id="is new")]
    closings = {"comes back": [ago(minutes=9), ago(minutes=5)]}
    assignment = assign(findings, parse_policies(ESCALATES), closings=closings, now=NOW)
    assert [[one.id for one in group.findings] for group in assignment.automatic] == [["is new"]]
    assert [[one.id for one in group.findings] for group in assignment.assisted] == [["comes back"]]
    assert {group.policy.name for group in assignment.groups} == {"close-ssh-in-dev"}


def test_naming_a_policy_is_no_way_around_its_escalation() -> None:
    (policy, _) = parse_policies(ESCALATES)
    now = datetime.now(UTC)
    assert escalated(policy, {"one": [now], "other": []}).mode is Mode.AUTOMATIC
    assert escalated(policy, {"one": [now, now], "other": []}).mode is Mode.ASSISTED
    warm = parse_policies(ESCALATES.replace("escalate:", "warm_gate: true\n    escalate:"))[0]
    assert warm.warm_gate
    assert not escalated(warm, {"one": [now, now]}).warm_gate
