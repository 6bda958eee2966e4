"""A remediation run from round to round, on emulated clouds and a real warehouse, without Prefect.

The flows' tests drive the same tasks through Prefect's API; here is what would take too long there.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import psycopg
import pyotp
import pytest
from azure.identity import ClientSecretCredential
from prefect.logging import disable_run_logger
from pydantic import SecretStr

from deployments.local.fleet import Fleet
from deployments.local.postgres import EmbeddedPostgres
from deployments.local.stack import fleet_env
from tasks import reconciling, remediation, remediation_records
from tasks.approval import HANDLE_PREFIX
from tasks.carrying import Carrier
from tasks.closing import close_finding
from tasks.clouds import azure_write
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.azure_write import identity_options
from tasks.clouds.gate import (
    CustomerCredentials,
    OpenGate,
    close_gate,
    gate_status,
    open_gate,
)
from tasks.clouds.propagation import Propagation
from tasks.clouds.remediator import Session, open_session
from tasks.clouds.scanner import Scanner
from tasks.codes import Redeemed
from tasks.drift import ChangedSince, drift
from tasks.errors import (
    AccessRefused,
    BadInput,
    CloudError,
    CloudTimeout,
    Conflict,
    GateRefused,
    Halted,
    SutureError,
)
from tasks.evidence import changed, problems
from tasks.inventory import load_inventory
from tasks.model import Call, Cloud, Finding, Resource, Step, Verdict, canonical_json
from tasks.plan import Plan
from tasks.planning import (
    by_account,
    find_findings,
    look_at,
    plan_finding,
    plan_restore,
    read_resources,
)
from tasks.remediation_run import MOST_ROUNDS, NOTHING_CHOSEN, Answered, More, Run, paragraph
from tasks.rules import RULES, rule
from tasks.snapshot import ABSENT, content_diff
from tasks.story import tell
from tasks.warehouse import gate_requests, halts, remediations, scans
from tasks.warehouse.audit import entries_about, verify_chain
from tasks.warehouse.database import connect
from tasks.warehouse.evidence import evidence_of
from tasks.warehouse.findings import account_of, finding_by_id, open_findings

pytestmark = pytest.mark.slow

AWS_SSH, AWS_RDP = "aws_ec2_security_group_ssh_not_open", "aws_ec2_security_group_rdp_not_open"
AZURE_SSH = "azure_network_security_group_ssh_not_open"
AZURE_RDP = "azure_network_security_group_rdp_not_open"
HTTPS_ONLY = "azure_storage_account_https_only"
EBS = "aws_ec2_ebs_encrypted_by_default"
BUCKET = "aws_s3_bucket_public_access_blocked"
VERSIONS, TLS = "aws_s3_bucket_versioning_enabled", "aws_s3_bucket_tls_only"
PASSWORDS = "aws_iam_password_policy_length"

POLICIES = """
suture: 1
policies:
  - {name: passwords, match: {rule: aws_iam_password_policy_length}, mode: assisted}
  - {name: at-once, match: {rule: "*"}, mode: automatic, most_changes: 1}
  - {name: azure-at-once, match: {cloud: azure}, mode: automatic}
  - {name: office, match: {rule: "*"}, mode: assisted, values: {allowed_cidrs: 10.1.0.0/16}}
  - name: four-eyes
    match: {rule: "*"}
    mode: assisted
    approvals: {two_from: low, not_requester: true, verified: false}
  - name: signed-in
    match: {rule: "*"}
    mode: assisted
    approvals: {approvers: ["*@example.org"]}
"""


class Bench:
    """A scanned fleet, its customer, and an approver who needs no browser."""

    def __init__(self, fleet: Fleet, policies: Path, patch: pytest.MonkeyPatch) -> None:
        self.fleet = fleet
        self.policies = policies
        self.patch = patch
        self.inventory = load_inventory(fleet.description["inventory"])
        self.handles: dict[str, str] = {}
        self.who = ("Ada Lovelace", False)
        self.taken: set[str] = set()

    def scan(self) -> None:
        async def look() -> tuple[Any, list[Any]]:
            async with Scanner(self.inventory) as scanner:
                found = await scanner.discover()
                return found, await asyncio.gather(*(scanner.scan(a) for a in found.accounts))

        found, results = asyncio.run(look())
        with connect() as warehouse:
            scan_id = scans.begin_scan(warehouse, trigger="fleet")
            scans.record_accounts(warehouse, scan_id, found.accounts, found.skipped)
            scans.load_batch(warehouse, scan_id, results)
            scans.merge_scan(warehouse, scan_id)
            scans.finish_scan(warehouse, scan_id)

    def take(
        self, rule_id: str, count: int = 1, among: Container[str] | None = None
    ) -> list[Finding]:
        """Open findings of one account, of resources that no other test has."""
        with connect() as warehouse:
            found = [
                one
                for one in open_findings(warehouse, rule=rule_id)
                if one.resource not in self.taken and (among is None or one.resource in among)
            ]
        group = next(one for one in by_account(found) if len(one) >= count)[:count]
        self.taken.update(one.resource for one in group)
        return group

    def take_resource(self, first: str, second: str) -> list[Finding]:
        """A finding of each of two rules, of one resource that no other test has."""
        with connect() as warehouse:
            ones = {one.resource: one for one in open_findings(warehouse, rule=first)}
            others = {one.resource: one for one in open_findings(warehouse, rule=second)}
        resource = min((ones.keys() & others.keys()) - self.taken)
        self.taken.add(resource)
        return [ones[resource], others[resource]]

    def begin(self, found: Sequence[Finding], policy: str = "") -> Run:
        run_id = str(uuid4())
        return remediation.begin_remediation.fn(run_id, [one.id for one in found], policy, "a test")

    def again(self, run: Run) -> Run:
        """The run as a new process finds it after a suspension."""
        return remediation.begin_remediation.fn(run.id, [], "whatever", "somebody else")

    def open(self, found: Finding) -> OpenGate:
        return open_gate(
            self.inventory,
            self.account(found),
            machine=True,
            resources=[found.resource],
            customer=self.customer(),
        )

    def close_gate(self, found: Finding) -> None:
        close_gate(self.inventory, self.account(found), customer=self.customer())

    def answer(self, run: Run, code: str = "", **fields: str) -> None:
        """One round: what the approver types, and all that follows, as the flow does it."""
        typed = {"decision": "approve", "approver": "Ada", "code": self.handle(code), **fields}
        answered = remediation.take_answer.fn(run, typed)
        self.go_on(run, answered)

    def remediated(self, found: Finding) -> Run:
        """The run that has closed a finding by an approval, with the gate closed after it."""
        run = self.begin([found])
        self.answer(run, self.open(found).code.get_secret_value())
        assert self.states(run) == ["remediated"]
        self.close_gate(found)
        return run

    def handle(self, code: str) -> str:
        handle = HANDLE_PREFIX + f"{len(self.handles):043d}"
        self.handles[handle] = code
        return handle

    def go_on(self, run: Run, answered: Any) -> None:
        for number in answered.chosen:
            if not run.gate_refusal:
                remediation.close_one.fn(run, number, answered)
        if answered.chosen:
            remediation.conclude_round.fn(run)

    def redeem(self, handle: str, run_id: str) -> Redeemed:
        code = self.handles.get(handle)
        if code is None:
            raise GateRefused("This code is gone.")
        return Redeemed(SecretStr(code), self.who[0], verified=self.who[1])

    def account(self, found: Finding) -> Any:
        with connect() as warehouse:
            return account_of(warehouse, found.cloud, found.account)

    def now(self, found: Finding) -> Any:
        """All of the resource as it is in the cloud, or the error that reading it gave."""
        place = (found.cloud, found.account, self.account(found).source)

        async def read() -> Any:
            async with Scanner(self.inventory, rules=RULES) as scanner:
                try:
                    return await scanner.read(*place, found.kind, found.resource, found.region)
                except CloudError as error:
                    return error

        return asyncio.run(read())

    def verdict(self, found: Finding) -> Verdict:
        return rule(found.rule).judge(self.now(found))[0]

    def status(self, found: Finding) -> str:
        with connect() as warehouse:
            return finding_by_id(warehouse, found.id).status

    def rows(self, run: Run) -> list[Any]:
        with connect() as warehouse:
            assert verify_chain(warehouse) is None
            return remediations.load_run(warehouse, run.id)

    def states(self, run: Run) -> list[str]:
        """The run's states, which the warehouse has just as the process has."""
        states = [row.state for row in self.rows(run)]
        assert states == [item.state for item in run.items]
        return states

    def end(self, run: Run) -> tuple[str, str]:
        state = remediation.finish_remediation(run)
        return str(state.name), str(state.message)

    def stages(self, run: Run) -> list[str]:
        with connect() as warehouse:
            return [one.stage for one in remediations.snapshots(warehouse, run.items[0].id)]

    def as_customer(self, found: Finding, call: Call) -> None:
        """Somebody else makes this call, with a permission for just that."""
        step = Step(f"ec2:{call.operation}", call, (), ())
        opened, now = self.open(found), self.now(found)
        account = self.account(found)
        with open_session(self.inventory, account, now, [step], opened.code) as session:
            session.apply(step)
        self.close_gate(found)

    def drift(self, found: Finding) -> None:
        """Somebody allows one more network on the port of an AWS security group."""
        permission = {
            "IpProtocol": "tcp",
            "FromPort": 8443,
            "ToPort": 8443,
            "IpRanges": [{"CidrIp": "192.0.2.0/24"}],
        }
        params = {"GroupId": found.resource.rpartition("/")[2], "IpPermissions": [permission]}
        self.as_customer(found, Call(Cloud.AWS, "ec2", "AuthorizeSecurityGroupIngress", params))

    def customer(self) -> CustomerCredentials:
        told, source = self.fleet.description, self.inventory.azure[0]
        keys, login = told["aws"]["customer"], told["azure"]["customer"]
        return CustomerCredentials(
            aws=AwsCredentials(keys["access_key_id"], keys["secret_access_key"]),
            azure=ClientSecretCredential(
                source.tenant,
                login["client_id"],
                login["client_secret"],
                **identity_options(source),
            ),
        )


@pytest.fixture(scope="module")
def whole(postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    postgres.create_warehouse("remediation_tests", template="template_warehouse")
    folder = tmp_path_factory.mktemp("fleet")
    policies = folder / "policies.yaml"
    policies.write_text(POLICIES)
    with (
        Fleet(aws=48, azure=22, seed=31, data_dir=folder, failing=False) as fleet,
        pytest.MonkeyPatch.context() as patch,
    ):
        fleet._azure.tenant.operations.retry_after = None  # else every write takes a second
        patch.setattr(azure_write, "POLL_SECONDS", 0.05)
        for name, value in fleet_env(fleet.description).items():
            patch.setenv(name, value)
        patch.setenv("SUTURE_WAREHOUSE_URL", postgres.url("remediation_tests"))
        patch.setenv("SUTURE_POLICIES", str(policies))
        # What is refused is refused at once: a gate opened here is known here.
        at_once = Propagation(code=0, access=0)
        patch.setattr(
            remediation,
            "open_session",
            lambda *args, propagation: open_session(*args, propagation=at_once),
        )
        made = Bench(fleet, policies, patch)
        made.scan()
        yield made
    postgres.drop_database("remediation_tests")


@pytest.fixture
def bench(whole: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.setattr("tasks.codes.redeem", whole.redeem)
    monkeypatch.setattr(whole, "who", whole.who)
    whole.patch = monkeypatch
    with disable_run_logger():
        yield whole


# --- what is asked -----------------------------------------------------------------------------


def test_ids_are_taken_as_people_paste_them(bench: Bench) -> None:
    with connect() as warehouse:
        first, second, *_ = [one.id for one in open_findings(warehouse)]
        pasted = [f" `{first}`, {second}\n", f'"{first}"']
        assert {one.id for one in find_findings(warehouse, pasted)} == {first, second}
        for nothing in ([], [" "], ["``"]):
            with pytest.raises(BadInput, match="is empty"):
                find_findings(warehouse, nothing)
        with pytest.raises(BadInput, match="1 of 2 are not known"):
            find_findings(warehouse, [first, "f" * 64])


def test_a_plan_needs_nothing_but_reading(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    before = bench.now(finding).fingerprint
    plan = plan_finding(finding.id, {"allowed_cidrs": "203.0.113.0/24"})
    assert plan.resource.fingerprint == before == bench.now(finding).fingerprint
    assert "203.0.113.0/24" in repr(plan.changes)


def test_the_page_says_what_where_why_and_how(bench: Bench) -> None:
    (finding,) = bench.take(AZURE_SSH)
    run = bench.begin([finding], "office")
    page = run.page()
    assert f"Azure subscription {finding.account}" in page
    assert "### Why" in page
    assert paragraph(rule(AZURE_SSH).guide, "Why it matters.") in page
    assert rule(AZURE_SSH).guide in page
    by_hand = f"suture gate open {finding.account} --run {run.id} --minutes 10"
    assert f"`{by_hand}`" in page
    assert f"`{by_hand} --opener`" in page
    assert finding.resource in page
    assert "Microsoft.Network/networkSecurityGroups/securityRules/write" in page
    assert [(one.name, one.default) for one in run.inputs] == [("allowed_cidrs", "10.1.0.0/16")]


def test_what_cannot_be_read_fails_alone(bench: Bench) -> None:
    found = bench.take(AWS_SSH, 2)
    real = remediation.plan_findings

    def half(inventory: Any, account: Any, ones: Any, policy: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:

            def read(*args: Any) -> Any:
                seen = read_resources(*args)
                return [CloudTimeout("no answer"), *seen[1:]]

            patch.setattr("tasks.planning.read_resources", read)
            return real(inventory, account, ones, policy)

    bench.patch.setattr(remediation, "plan_findings", half)
    run = bench.begin(found)
    assert bench.states(run) == ["failed", "waiting"]
    assert [item.number for item in run.waiting] == [2]
    bench.answer(run, decision="deny")
    assert bench.end(run)[0] == "Failed"
    assert "no answer" in bench.end(run)[1]


def test_a_finding_that_is_right_already_is_resolved_without_asking(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    for step in plan_finding(finding.id, {}).steps:
        bench.as_customer(finding, step.call)
    run = bench.begin([finding])
    assert bench.states(run) == ["already_resolved"]
    assert bench.status(finding) == "resolved"


# --- answers -----------------------------------------------------------------------------------


def test_some_are_closed_some_left_out_some_fail(bench: Bench) -> None:
    found = bench.take(AWS_SSH, 3)
    run = bench.begin(found)
    broken = run.item(2).planned.resource.id
    patched_open(bench, lambda session, now: Broken(session) if now.id == broken else session)

    bench.answer(run, bench.open(found[0]).code.get_secret_value(), leave_out="1")

    assert bench.states(run) == ["left_out", "undone", "remediated"]
    assert bench.end(run)[0] == "Partly remediated"
    by_resource = {one.resource: one for one in found}
    ordered = [by_resource[item.planned.resource.id] for item in run.items]
    assert [bench.status(one) for one in ordered] == ["open", "open", "resolved"]
    assert [bench.verdict(one) for one in ordered] == [Verdict.FAIL, Verdict.FAIL, Verdict.PASS]
    assert bench.rows(run)[2].approver == "Ada Lovelace"


def test_a_denial_touches_nothing_and_needs_no_code(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding])
    bench.handles.clear()
    answered = remediation.take_answer.fn(
        run, {"decision": "deny", "approver": "Ada", "code": "", "leave_out": ""}
    )
    assert answered.chosen == ()
    assert bench.end(run)[0] == "Denied"
    assert bench.now(finding).fingerprint == before
    assert bench.rows(run)[0].approver == "Ada"


def test_a_wrong_code_is_asked_again_until_nobody_believes_it(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    before = bench.now(finding).fingerprint
    bench.close_gate(finding)
    run = bench.begin([finding])
    for asked in range(2, MOST_ROUNDS + 1):
        bench.answer(run, "123456")
        assert run.round == asked
        assert bench.states(run) == ["waiting"]
        run = bench.again(run)
        assert run.round == asked
        assert "Asked again" in run.page()
        assert "123456" not in run.page()
    bench.answer(run, "123456")
    assert bench.states(run) == ["refused"]
    assert bench.end(run)[0] == "Gate refused"
    assert "123456" not in bench.end(run)[1]
    assert bench.now(finding).fingerprint == before


def test_a_code_after_the_gate_closed_is_asked_again(bench: Bench) -> None:
    for rule_id in (AWS_SSH, AZURE_SSH):
        (finding,) = bench.take(rule_id)
        run = bench.begin([finding])
        opened = bench.open(finding)
        bench.close_gate(finding)
        bench.answer(run, opened.code.get_secret_value())
        assert bench.states(run) == ["waiting"]
        bench.answer(run, bench.open(finding).code.get_secret_value())
        assert bench.states(run) == ["remediated"]
        bench.close_gate(finding)


def test_a_handle_that_is_gone_asks_again(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    handle = HANDLE_PREFIX + "z" * 43
    answered = remediation.take_answer.fn(
        run, {"decision": "approve", "approver": "Ada", "code": handle, "leave_out": ""}
    )
    assert answered.chosen == ()
    assert (run.round, bench.states(run)) == (2, ["waiting"])
    assert "This code is gone" in run.page()


def test_given_networks_keep_their_way_in(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    code = bench.open(finding).code.get_secret_value()
    bench.answer(run, code, allowed_cidrs="198.51.100.0/24")
    assert bench.states(run) == ["remediated"]
    now = bench.now(finding)
    assert "198.51.100.0/24" in repr(now.config)
    assert "0.0.0.0/0" not in {
        source["CidrIp"]
        for permission in now.config["IpPermissions"]
        if permission.get("FromPort") == 22
        for source in permission["IpRanges"]
    }
    assert bench.rows(run)[0].values == {"allowed_cidrs": ["198.51.100.0/24"]}


def test_a_value_that_the_fix_cannot_take_is_asked_again_and_kept_in_no_plan(bench: Bench) -> None:
    (finding,) = bench.take(PASSWORDS)
    run = bench.begin([finding])
    bench.answer(run, "123456", minimum_length="3")
    assert (run.round, bench.states(run)) == (2, ["waiting"])
    assert "minimum_length" in run.notes[0]
    run = bench.again(run)
    assert run.inputs[0].default == "14"
    bench.answer(run, bench.open(finding).code.get_secret_value(), minimum_length="16")
    assert bench.states(run) == ["remediated"]
    assert bench.now(finding).config["PasswordPolicy"]["MinimumPasswordLength"] == 16


def test_values_typed_with_a_wrong_code_stand_in_the_next_form(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    bench.close_gate(finding)
    run = bench.begin([finding])
    bench.answer(run, "123456", allowed_cidrs="198.51.100.0/24")
    run = bench.again(run)
    assert run.inputs[0].default == "198.51.100.0/24"
    assert "198.51.100.0/24" in run.page()


# --- what happens meanwhile --------------------------------------------------------------------


def test_a_resource_that_changed_is_planned_and_asked_again(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    bench.drift(finding)
    code = bench.open(finding).code.get_secret_value()
    bench.answer(run, code)
    assert (run.round, bench.states(run)) == (2, ["waiting"])
    assert "changed since the plan" in run.page()
    assert bench.verdict(finding) is Verdict.FAIL
    run = bench.again(run)
    bench.answer(run, code)
    assert bench.states(run) == ["remediated"]
    assert "8443" in repr(bench.now(finding).config)


def test_a_change_between_the_last_look_and_the_write_is_asked_again(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    code = bench.open(finding).code.get_secret_value()
    patched_open(bench, lambda session, now: Broken(session, Conflict("somebody was faster")))
    bench.answer(run, code)
    assert (run.round, bench.states(run)) == (2, ["waiting"])
    bench.patch.undo()
    bench.patch.setattr("tasks.codes.redeem", bench.redeem)
    bench.answer(run, code)
    assert bench.states(run) == ["remediated"]


def test_a_resource_fixed_by_hand_meanwhile_is_resolved(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    for step in run.items[0].planned.steps:
        bench.as_customer(finding, step.call)
    bench.answer(run, bench.open(finding).code.get_secret_value())
    assert bench.states(run) == ["already_resolved"]
    assert bench.end(run)[0] == "Already resolved"
    assert bench.status(finding) == "resolved"


def test_an_approval_that_expired_writes_nothing(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding])
    with connect() as warehouse:
        remediations.set_state(warehouse, run.items[0].id, "expired", "too late")
    answered = remediation.Answered(bench.open(finding).code, (1,), "Ada")
    bench.go_on(run, answered)
    assert bench.states(run) == ["expired"]
    assert bench.end(run)[0] == "Expired"
    assert bench.now(finding).fingerprint == before


def test_a_finding_that_another_run_carries_is_left_to_it(bench: Bench) -> None:
    found = bench.take(AWS_SSH, 2)
    first = bench.begin(found[:1])
    second = bench.begin(found)
    assert [item.finding_id for item in second.items] == [found[1].id]
    third = bench.begin(found)
    assert bench.end(third)[0] == "Nothing to do"
    assert bench.states(first) == ["waiting"]


def test_a_policy_that_is_gone_meanwhile_does_not_lose_the_run(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding], "office")
    text = bench.policies.read_text()
    bench.policies.write_text("suture: 1\npolicies: []\n")
    try:
        run = bench.again(run)
        assert run.inputs[0].default == "10.1.0.0/16"
        bench.answer(run, bench.open(finding).code.get_secret_value(), allowed_cidrs="")
        assert bench.states(run) == ["remediated"]
        assert bench.rows(run)[0].policy == "office"
    finally:
        bench.policies.write_text(text)


def test_what_was_done_is_written_down_when_the_warehouse_is_back(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    code = bench.open(finding).code.get_secret_value()
    real, failures = remediation_records._observe, [1, 2]

    def away(*args: Any) -> None:
        if failures:
            failures.pop()
            raise psycopg.OperationalError("server closed the connection")
        real(*args)

    bench.patch.setattr(remediation_records, "_observe", away)
    bench.answer(run, code)
    assert bench.states(run) == ["remediated"]
    between = ["during"] * len(run.items[0].planned.steps)
    assert bench.stages(run) == ["before", "before", *between, "after"]
    assert bench.status(finding) == "resolved"


def test_a_warehouse_that_is_away_before_the_write_leaves_the_cloud_alone(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding])

    def away(*_: Any) -> None:
        raise psycopg.OperationalError("password=secret")

    bench.patch.setattr(remediation_records, "begin_writing", away)
    bench.answer(run, bench.open(finding).code.get_secret_value())
    assert bench.states(run) == ["failed"]
    assert "secret" not in bench.end(run)[1]
    assert bench.now(finding).fingerprint == before


def test_a_change_whose_end_cannot_be_written_down_is_said_to_have_broken(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    answered = remediation.Answered(bench.open(finding).code, (1,), "Ada")

    def broken(*_: Any) -> None:
        raise KeyError("a mistake of ours")

    bench.patch.setattr(remediation_records, "record", broken)
    with pytest.raises(KeyError):
        remediation.close_one.fn(run, 1, answered)
    remediation.conclude_round.fn(run)  # Prefect keeps the exception in the task's state
    assert bench.states(run) == ["failed"]
    assert bench.end(run)[0] == "Failed"
    assert "compare the resource with its snapshots" in bench.end(run)[1]


def test_a_run_that_breaks_leaves_no_finding_waiting(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    with pytest.raises(ZeroDivisionError), remediation.none_left_waiting(run):
        raise ZeroDivisionError
    assert bench.states(run) == ["failed"]
    assert "ZeroDivisionError" in bench.rows(run)[0].message


# --- several of one resource, and back ---------------------------------------------------------


@pytest.mark.parametrize(("ssh", "rdp"), [(AWS_SSH, AWS_RDP), (AZURE_SSH, AZURE_RDP)])
def test_two_findings_of_one_resource_are_both_closed(bench: Bench, ssh: str, rdp: str) -> None:
    found = bench.take_resource(ssh, rdp)
    run = bench.begin(found)
    code = bench.open(found[0]).code.get_secret_value()
    bench.answer(run, code)
    if run.waiting:  # one rule that opens both: the second plan is another once the first is done
        assert run.round == 2
        run = bench.again(run)
        bench.answer(run, code)
    first, second = bench.states(run)
    assert first == "remediated"
    assert second in {"remediated", "already_resolved"}  # one step may have closed both ports
    assert [bench.verdict(one) for one in found] == [Verdict.PASS, Verdict.PASS]
    assert [bench.status(one) for one in found] == ["resolved", "resolved"]
    bench.close_gate(found[0])


@pytest.mark.parametrize("rule_id", [AWS_SSH, BUCKET, AZURE_SSH, HTTPS_ONLY])
def test_restore_puts_back_byte_for_byte_and_reopens(bench: Bench, rule_id: str) -> None:
    (finding,) = bench.take(rule_id)
    before = bench.now(finding)
    run = bench.remediated(finding)

    back = remediation.begin_restore.fn(str(uuid4()), run.items[0].id, "a test")
    assert "will be open again" in back.page()
    assert back.inputs == ()
    back = remediation.begin_restore.fn(back.id, run.items[0].id, "a test")
    bench.answer(back, bench.open(finding).code.get_secret_value())

    assert bench.end(back)[0] == "Restored"
    assert bench.now(finding).config == before.config
    assert bench.now(finding).fingerprint == before.fingerprint
    assert bench.rows(run)[0].state == "undone"
    assert bench.status(finding) == "open"
    with pytest.raises(BadInput, match="nothing of it to put back"):
        remediation.begin_restore.fn(str(uuid4()), run.items[0].id, "a test")
    bench.close_gate(finding)


STORAGE, OTHERS = "azure_storage_account_*", "aws_iam_*"


@pytest.mark.parametrize(
    ("rule_id", "first", "later"),
    [
        (HTTPS_ONLY, HTTPS_ONLY, STORAGE),
        (HTTPS_ONLY, STORAGE, OTHERS),
        (BUCKET, BUCKET, "aws_s3_bucket_*"),
        (BUCKET, "aws_s3_bucket_*", OTHERS),
    ],
)
def test_a_restore_does_not_mind_which_rules_are_in_force_meanwhile(
    bench: Bench, rule_id: str, first: str, later: str
) -> None:
    """The resource is read in the parts in which it was when it was changed."""
    bench.patch.setenv("SUTURE_RULES", first)
    (finding,) = bench.take(rule_id)
    before = bench.now(finding)
    run = bench.remediated(finding)
    with connect() as warehouse:
        taken = remediations.snapshots(warehouse, run.items[0].id)
    assert {one.resource.shows(rule(rule_id)) for one in taken} == {True}
    assert {one.resource.reads is None for one in taken} == {first != rule_id}

    bench.patch.setenv("SUTURE_RULES", later)
    back = remediation.begin_restore.fn(str(uuid4()), run.items[0].id, "a test")
    bench.answer(back, bench.open(finding).code.get_secret_value())
    assert bench.end(back)[0] == "Restored"
    assert bench.now(finding).config == before.config
    bench.close_gate(finding)


def test_restore_is_refused_once_the_resource_was_changed(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    bench.answer(run, bench.open(finding).code.get_secret_value())
    left = bench.now(finding)
    bench.drift(finding)
    with pytest.raises(ChangedSince, match="has been changed since") as caught:
        remediation.begin_restore.fn(str(uuid4()), run.items[0].id, "Ada")
    (added,) = caught.value.drift
    assert added.field == "config.IpPermissions[]"
    assert (added.before, "192.0.2.0/24" in added.after) == (ABSENT, True)
    assert "config.IpPermissions[] was – and is {" in str(caught.value)
    with pytest.raises(ChangedSince):
        plan_restore(run.items[0].id)
    with connect() as warehouse:
        *_, last = tell(entries_about(warehouse, [run.items[0].id]))
    assert last.action == "restore refused"
    assert "192.0.2.0/24" in last.sentence
    assert bench.rows(run)[0].state == "remediated"
    assert drift(left, bench.now(finding)) == caught.value.drift


def test_a_restore_is_refused_once_its_resource_changes_while_it_waits(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    bench.answer(run, bench.open(finding).code.get_secret_value())
    back = remediation.begin_restore.fn(str(uuid4()), run.items[0].id, "a test")
    bench.drift(finding)
    changed = bench.now(finding)
    bench.answer(back, bench.open(finding).code.get_secret_value())
    name, message = bench.end(back)
    assert name == "Drifted"
    assert "nothing was put back: config.IpPermissions[] was" in message
    assert bench.now(finding).fingerprint == changed.fingerprint


@pytest.mark.parametrize("rule_id", [BUCKET, HTTPS_ONLY, AZURE_SSH])
def test_a_restore_can_be_undone_and_that_as_well(bench: Bench, rule_id: str) -> None:
    """Each undoing is a remediation with snapshots of its own, and the last one can be undone."""
    (finding,) = bench.take(rule_id)
    failing = bench.now(finding)
    run = bench.remediated(finding)
    passing = bench.now(finding)
    runs, words = [run], {id(failing): "open again", id(passing): "closed again"}
    for goal in (failing, passing, failing):
        last = runs[-1]
        back = remediation.begin_restore.fn(str(uuid4()), last.items[0].id, "a test")
        assert words[id(goal)] in back.page()
        assert back.items[0].planned.title.startswith(
            "Apply again: " if goal is passing else "Put back: "
        )
        bench.answer(back, bench.open(finding).code.get_secret_value())
        bench.close_gate(finding)
        assert bench.end(back)[0] == "Restored"
        now = bench.now(finding)
        assert canonical_json(now.config.as_dict()) == canonical_json(goal.config.as_dict())
        assert bench.status(finding) == ("resolved" if goal is passing else "open")
        assert bench.rows(last)[0].state == "undone"
        assert bench.stages(back)[0] == "before"
        assert bench.stages(back)[-1] == "after"
        with pytest.raises(BadInput, match="nothing of it to put back"):
            remediation.begin_restore.fn(str(uuid4()), last.items[0].id, "a test")
        with connect() as warehouse:
            assert problems(evidence_of(warehouse, back.items[0].id)) == []
        runs.append(back)


# --- an approver's code that opens the gate ------------------------------------------------------


class Authenticator:
    """What the approver's phone shows, at an opener that has seen none of its codes yet."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        seed_file = Path(bench.fleet.description["customer_seed_file"])
        self._totp = pyotp.TOTP(seed_file.read_text())
        self._store = seed_file.parent / "opener"

    def now(self) -> str:
        for kept in self._store.glob("*.json"):
            kept.unlink()
        return self._totp.now()

    def wrong(self) -> str:
        return f"{(int(self.now()) + 1) % 1_000_000:06d}"

    def answer(self, run: Run, code: str) -> None:
        """One round as the flow goes through it."""
        typed = {"decision": "approve", "approver": "Ada", "code": self._bench.handle(code)}
        answered = remediation.take_answer.fn(run, typed)
        self._bench.go_on(run, remediation.present_to_opener.fn(run, answered))


@pytest.fixture
def authenticator(bench: Bench) -> Authenticator:
    """Runs present their approver's code to the customer's opener."""
    presents = replace(
        bench.inventory,
        aws=tuple(replace(one, presents_codes=True) for one in bench.inventory.aws),
        azure=tuple(replace(one, presents_codes=True) for one in bench.inventory.azure),
    )
    bench.patch.setattr("tasks.remediation_run.load_inventory", lambda _: presents)
    return Authenticator(bench)


def gate_of(bench: Bench, finding: Finding) -> list[str]:
    status = gate_status(bench.inventory, bench.account(finding), customer=bench.customer())
    return [one.by for one in status.openings]


@pytest.mark.attack
@pytest.mark.parametrize("rule_id", [BUCKET, HTTPS_ONLY])
def test_an_approvers_code_opens_the_gate_and_the_end_of_the_round_closes_it(
    bench: Bench, authenticator: Authenticator, rule_id: str
) -> None:
    (finding,) = bench.take(rule_id)
    bench.close_gate(finding)
    run = bench.begin([finding])
    assert "nobody needs to open it before" in run.page()
    seen: list[list[str]] = []
    real = remediation.open_session

    def opening(*args: Any, **named: Any) -> Any:
        seen.append(gate_of(bench, finding))
        return real(*args, **named)

    bench.patch.setattr(remediation, "open_session", opening)
    authenticator.answer(run, authenticator.now())
    assert bench.states(run) == ["remediated"]
    assert seen == [["person"]]
    assert gate_of(bench, finding) == []
    with connect() as warehouse:
        said = entries_about(warehouse, [run.items[0].id])
        assert run.id not in {one.run_id for one in gate_requests.unreleased(warehouse)}
    opened = next(one for one in said if one.action == "gate opened")
    assert opened.actor.endswith("opener")


@pytest.mark.attack
def test_a_code_that_the_opener_refuses_changes_nothing_and_is_asked_again(
    bench: Bench, authenticator: Authenticator
) -> None:
    (finding,) = bench.take(AWS_SSH)
    bench.close_gate(finding)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding])
    authenticator.answer(run, authenticator.wrong())
    assert (bench.states(run), run.round) == (["waiting"], 2)
    assert "the code is wrong" in run.notes[0]
    assert "the code is wrong" in run.page()
    code = authenticator.now()
    authenticator.answer(run, code)
    assert bench.states(run) == ["remediated"]
    (other,) = bench.take(AWS_SSH)
    second = bench.begin([other])
    authenticator.answer(second, code)
    assert bench.states(second) == ["waiting"]
    assert "has been used" in second.notes[0]
    assert before != bench.now(finding).fingerprint


def test_an_opener_that_is_away_is_asked_to_close_and_the_approver_again(
    bench: Bench, authenticator: Authenticator
) -> None:
    (finding,) = bench.take(TLS)
    run = bench.begin([finding])
    released: list[Any] = []

    def away(*_: Any, **__: Any) -> None:
        raise CloudTimeout("did not answer in time")

    bench.patch.setattr(remediation, "present_code", away)
    bench.patch.setattr(remediation, "release", lambda *_, **named: released.append(named))
    authenticator.answer(run, "123456")
    assert released == [{"remediation": run.id, "person": True}]
    assert (bench.states(run), run.round) == (["waiting"], 2)
    assert "did not answer in time" in run.notes[0]


@pytest.mark.attack
def test_a_gate_opened_by_a_code_is_closed_when_its_run_died(
    bench: Bench, authenticator: Authenticator, long_up: None
) -> None:
    (finding,) = bench.take("azure_storage_account_public_blob_access_off")
    bench.close_gate(finding)
    run = bench.begin([finding])
    typed = {"decision": "approve", "approver": "Ada", "code": bench.handle(authenticator.now())}
    remediation.present_to_opener.fn(run, remediation.take_answer.fn(run, typed))
    assert gate_of(bench, finding) == ["person"]
    with connect() as warehouse:
        assert reconciling.close_left_gates(warehouse) == 1
    assert gate_of(bench, finding) == []


# --- by policy ---------------------------------------------------------------------------------


@pytest.mark.parametrize("rule_id", [EBS, HTTPS_ONLY])
def test_a_policy_closes_through_the_customers_endpoint(bench: Bench, rule_id: str) -> None:
    (finding,) = bench.take(rule_id)
    run = bench.begin([finding], "at-once")
    assert run.automatic
    bench.go_on(run, remediation.ask_customer.fn(run))
    assert bench.states(run) == ["remediated"]
    assert bench.rows(run)[0].approver.endswith("token endpoint")
    assert bench.status(finding) == "resolved"


def test_an_endpoint_that_refuses_settles_the_run(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding], "at-once")
    real = remediation.request_code
    # An action that the customer does not allow.
    bench.patch.setattr(
        remediation,
        "request_code",
        lambda *args, **named: real(*args, **{**named, "actions": ["iam:CreateUser"]}),
    )
    bench.go_on(run, remediation.ask_customer.fn(run))
    assert bench.states(run) == ["refused"]
    name, message = bench.end(run)
    assert name == "Gate refused"
    assert "iam:CreateUser is not allowed" in message
    assert bench.now(finding).fingerprint == before


def test_a_machines_gate_is_waited_for_and_a_persons_code_is_not(bench: Bench) -> None:
    """A machine's code is never mistyped: what refuses it does not know of it yet."""
    seen: list[Propagation] = []
    real = remediation.open_session

    def opening(*args: Any, propagation: Propagation) -> Any:
        seen.append(propagation)
        return real(*args, propagation=propagation)

    bench.patch.setattr(remediation, "open_session", opening)
    (finding,) = bench.take(BUCKET)
    run = bench.begin([finding], "at-once")
    answer = remediation.ask_customer.fn(run)
    bench.go_on(run, answer)
    assert bench.states(run) == ["remediated"]
    assert answer.until is not None
    assert 300 < seen[0].code <= 600
    assert 300 < seen[0].access <= 600
    place = remediation._Place(run, run.items[0], replace(answer, until=None))
    steps = run.items[0].planned.steps
    with pytest.raises(GateRefused), place.open_session(bench.now(finding), steps):
        pass  # it has been closed
    assert seen[1].code == Propagation().code


def test_a_gate_that_lets_in_and_not_write_ends_the_run_as_refused(bench: Bench) -> None:
    (finding,) = bench.take("azure_storage_account_minimum_tls")
    before = bench.now(finding).fingerprint
    run = bench.begin([finding], "at-once")
    tenant = bench.fleet._azure.tenant
    tenant.rbac_delay = 60.0
    try:
        bench.go_on(run, remediation.ask_customer.fn(run))
    finally:
        tenant.rbac_delay = 0.0
    assert bench.states(run) == ["refused"]
    name, message = bench.end(run)
    assert name == "Gate refused"
    assert "role assignment has not come into force" in message
    assert bench.now(finding).fingerprint == before


@pytest.mark.parametrize("warm", [True, False])
def test_a_policy_says_whether_a_warm_gate_will_do(bench: Bench, warm: bool) -> None:
    (finding,) = bench.take(VERSIONS)
    run = bench.begin([finding], "at-once")
    run.policy = replace(run.policy, warm_gate=warm)
    real, asked = remediation.request_code, []

    def asking(*args: Any, **named: Any) -> Any:
        asked.append(named["warm"])
        return real(*args, **named)

    bench.patch.setattr(remediation, "request_code", asking)
    bench.go_on(run, remediation.ask_customer.fn(run))
    assert asked == [warm]
    assert bench.states(run) == ["remediated"]  # its customer keeps none: it was opened for it


def test_by_policy_a_change_meanwhile_ends_the_run(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding], "at-once")
    bench.drift(finding)
    bench.go_on(run, remediation.ask_customer.fn(run))
    assert bench.states(run) == ["drifted"]
    assert bench.end(run)[0] == "Drifted"


def test_naming_an_automatic_policy_is_no_way_around_an_approval(bench: Bench) -> None:
    found = bench.take(VERSIONS, 2)
    with pytest.raises(BadInput, match="its cloud is aws, not azure"):
        bench.begin(found[:1], "azure-at-once")
    with pytest.raises(BadInput, match="at most 1 in one run"):
        bench.begin(found, "at-once")
    with pytest.raises(BadInput, match="another policy before it does"):
        bench.begin(bench.take(PASSWORDS), "at-once")
    run = bench.begin(found[:1], "at-once")
    assert run.automatic
    text = bench.policies.read_text()
    bench.policies.write_text("suture: 1\npolicies: []\n")
    try:
        assert bench.again(run).automatic  # it has begun: what it was given stands
    finally:
        bench.policies.write_text(text)


# --- the brake, and caps by the hour -----------------------------------------------------------


@pytest.fixture
def brake(bench: Bench) -> Iterator[Callable[..., None]]:
    """Pulls the brake; it is lifted at the end."""

    def pull(**how: Any) -> None:
        with connect() as warehouse:
            halts.halt(warehouse, "something is wrong", "Grace", **how)

    yield pull
    with connect() as warehouse:
        for policy in {one.policy for one in halts.standing(warehouse)}:
            halts.lift(warehouse, "all is well", "Grace", policy=policy)


@pytest.fixture
def two_steps(bench: Bench) -> Iterator[None]:
    """A policy of this test's own, whose fixes take two steps: add a network, then close."""
    text = bench.policies.read_text()
    bench.policies.write_text(
        'suture: 1\npolicies: [{name: two-steps, match: {rule: "*"}, mode: automatic,'
        " values: {allowed_cidrs: 10.1.0.0/16}}]"
    )
    yield
    bench.policies.write_text(text)


def test_a_halted_policy_asks_nobody_and_its_findings_are_free_after_the_lift(
    bench: Bench, brake: Callable[..., None]
) -> None:
    (finding,) = bench.take(EBS)
    run = bench.begin([finding], "at-once")
    brake()
    bench.patch.setattr(remediation, "request_code", None)  # whoever calls it breaks
    assert remediation.ask_customer.fn(run).chosen == ()
    assert bench.states(run) == ["halted"]
    name, message = bench.end(run)
    assert name == "Halted"
    assert "has been halted by Grace since" in message
    assert "something is wrong" in message
    with connect() as warehouse:
        earlier = datetime.now(UTC) - timedelta(hours=1)
        assert remediations.recently_ended(warehouse, [finding.id], earlier) == set()
        assert remediations.active_findings(warehouse, [finding.id]) == set()


@pytest.mark.parametrize("rule_id", [AWS_SSH, AZURE_SSH])
def test_a_halt_in_the_middle_of_a_fix_takes_it_back(
    bench: Bench, brake: Callable[..., None], two_steps: None, rule_id: str
) -> None:
    finding = take_two_steps(bench, rule_id)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding], "two-steps")
    assert len(run.items[0].planned.steps) == 2
    real, written = remediation_records.keep_snapshot, []

    def kept(*args: Any) -> None:
        if not written:
            written.append(bench.now(finding).fingerprint)
            brake()
        real(*args)

    bench.patch.setattr(remediation_records, "keep_snapshot", kept)
    bench.go_on(run, remediation.ask_customer.fn(run))
    assert written != [before], "nothing was half done when the halt came"
    assert bench.states(run) == ["halted"]
    assert "has been halted" in bench.end(run)[1]
    assert "Nothing of the fix is left in place" in bench.end(run)[1]
    assert bench.now(finding).fingerprint == before
    assert bench.stages(run)[-1] == "undone"


@pytest.mark.attack
@pytest.mark.parametrize("slow", ["federation_delay", "rbac_delay"])
def test_a_halt_ends_the_wait_for_a_cloud_that_does_not_know_of_the_gate_yet(
    bench: Bench, brake: Callable[..., None], slow: str
) -> None:
    """It may take minutes: the first write would come when the halt has long been pulled."""
    (finding,) = bench.take("azure_storage_account_public_blob_access_off")
    before = bench.now(finding).fingerprint
    run = bench.begin([finding], "at-once")
    told: list[str] = []

    def say(words: str) -> None:
        told.append(words)
        brake()

    bench.patch.setattr(
        remediation,
        "open_session",
        lambda *args, propagation: open_session(*args, propagation=replace(propagation, say=say)),
    )
    bench.patch.setattr(bench.fleet._azure.tenant, slow, 3.0)
    bench.go_on(run, remediation.ask_customer.fn(run))
    assert len(told) == 1, "the gate let it through after the halt"
    assert bench.states(run) == ["halted"]
    assert "has been halted" in bench.end(run)[1]
    assert bench.now(finding).fingerprint == before


@pytest.mark.attack
def test_no_code_opens_a_gate_while_everything_is_halted(
    bench: Bench, authenticator: Authenticator, brake: Callable[..., None]
) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    brake(everything=True)
    bench.patch.setattr(remediation, "present_code", None)  # whoever calls it breaks
    authenticator.answer(run, authenticator.now())
    assert bench.states(run) == ["halted"]
    assert gate_of(bench, finding) == []


def test_what_a_person_approved_goes_on_unless_everything_is_halted(
    bench: Bench, brake: Callable[..., None]
) -> None:
    first, second = bench.take(AWS_SSH, 2)
    runs = [bench.begin([one]) for one in (first, second)]
    code = bench.open(first).code.get_secret_value()
    brake()
    bench.answer(runs[0], code)
    assert bench.states(runs[0]) == ["remediated"]
    brake(everything=True)
    bench.answer(runs[1], code)
    assert bench.states(runs[1]) == ["halted"]
    assert bench.verdict(second) is Verdict.FAIL


def test_a_halt_of_one_policy_leaves_others_alone(bench: Bench, brake: Callable[..., None]) -> None:
    (finding,) = bench.take(EBS)
    run = bench.begin([finding], "at-once")
    brake(policy="azure-at-once")
    bench.go_on(run, remediation.ask_customer.fn(run))
    assert bench.states(run) == ["remediated"]


def test_a_warehouse_that_is_away_is_a_halt(bench: Bench, two_steps: None) -> None:
    finding = take_two_steps(bench, AWS_SSH)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding], "two-steps")

    def away(*_: Any, **__: Any) -> None:
        raise psycopg.OperationalError("password=secret")

    answered = remediation.ask_customer.fn(run)
    bench.patch.setattr("tasks.warehouse.halts.check", away)
    bench.go_on(run, answered)
    assert bench.states(run) == ["halted"]
    assert "warehouse is away" in bench.end(run)[1]
    assert "secret" not in bench.end(run)[1]
    assert bench.now(finding).fingerprint == before


def test_a_hold_that_is_lost_midway_stops_the_fix(bench: Bench, two_steps: None) -> None:
    finding = take_two_steps(bench, AWS_SSH)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding], "two-steps")
    real = remediation_records.keep_snapshot

    def kept(*args: Any) -> None:
        real(*args)
        with connect() as warehouse:  # as a failover of the database would
            warehouse.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
                "AND objsubid = 1 AND pid <> pg_backend_pid()"
            )

    bench.patch.setattr(remediation_records, "keep_snapshot", kept)
    bench.go_on(run, remediation.ask_customer.fn(run))
    assert bench.states(run) == ["halted"]
    assert "hold on this run was lost" in bench.end(run)[1]
    assert bench.now(finding).fingerprint == before


def test_what_was_begun_under_a_hold_that_was_lost_is_not_gone_on_with_under_the_next(
    bench: Bench,
) -> None:
    """Another thread of the run takes the hold anew, for a finding that it begins."""
    run = bench.begin(bench.take(AWS_SSH))
    with Carrier(run) as carrier:
        first = carrier.check()
        assert carrier.check(first) == first
        with connect() as warehouse:
            warehouse.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' "
                "AND objsubid = 1 AND pid <> pg_backend_pid()"
            )
        with pytest.raises(Halted, match="hold on this run was lost"):
            carrier.check(first)
        second = carrier.check()
        assert carrier.check(second) == second
        with pytest.raises(Halted, match="hold on this run was lost"):
            carrier.check(first)


def test_two_processes_cannot_carry_one_run(bench: Bench) -> None:
    run = bench.begin(bench.take(AWS_SSH))
    again = bench.again(run)
    with (
        remediation.none_left_waiting(run),
        pytest.raises(SutureError, match="carries this run already"),
        remediation.none_left_waiting(again),
    ):
        pytest.fail("it was carried twice")
    assert bench.states(run) == ["waiting"]


def test_a_change_over_the_cap_waits_and_says_so(bench: Bench) -> None:
    found = bench.take(AWS_RDP, 2)
    text = bench.policies.read_text()
    bench.policies.write_text(
        text.replace("{name: office,", "{name: few, most_changes_per_hour: 1,")
    )
    try:
        run = bench.begin(found, "few")
        bench.answer(run, bench.open(found[0]).code.get_secret_value())
        assert bench.states(run) == ["remediated", "capped"]
        assert bench.end(run)[0] == "Partly remediated"
        assert "1 changes have begun within the hour, of 1 that may" in bench.end(run)[1]
        (item,) = [one for one in run.items if one.state == "capped"]
        (left,) = [one for one in found if one.id == item.finding_id]
        assert bench.verdict(left) is Verdict.FAIL
        with connect() as warehouse:
            assert remediations.active_findings(warehouse, [left.id]) == set()
    finally:
        bench.policies.write_text(text)


# --- a process that ends, and time that runs out -------------------------------------------------


@pytest.fixture
def long_up(bench: Bench) -> None:
    """The database was not started a moment ago, and other tests have left nothing."""
    with connect() as warehouse:
        warehouse.execute(
            "UPDATE remediations SET half_applied = false, "
            "state = CASE state WHEN 'applying' THEN 'failed' ELSE state END"
        )
        warehouse.execute("DELETE FROM gate_requests")
    bench.patch.setattr("tasks.warehouse.carriers.SETTLING", timedelta(0))


def take_two_steps(bench: Bench, rule_id: str) -> Finding:
    """A finding whose fix takes two steps where a network is allowed."""
    passed_over = []
    while True:
        (finding,) = bench.take(rule_id)
        if len(plan_finding(finding.id, {"allowed_cidrs": "10.1.0.0/16"}).steps) == 2:
            bench.taken.difference_update(passed_over)
            return finding
        passed_over.append(finding.resource)


def dies_after(bench: Bench, run: Run, finding: Finding, taken: int) -> None:
    """What a process leaves that ends after so many steps of its first fix: no end, no lock."""
    item = run.items[0]
    with connect() as warehouse:
        gate_requests.asked(warehouse, run.id, finding.cloud, finding.account)
    opened, now = bench.open(finding), bench.now(finding)
    with open_session(run.inventory, run.account, now, item.planned.steps, opened.code) as session:
        remediation_records.begin_writing(run, item, now, NOTHING_CHOSEN)
        for step in item.planned.steps[:taken]:
            session.apply(step)
    bench.close_gate(finding)


def reconcile() -> list[int]:
    with connect() as warehouse:
        return [
            settle(warehouse)
            for settle in (
                reconciling.settle_dead_writers,
                reconciling.close_left_gates,
                reconciling.start_put_backs,
            )
        ]


class Deployments:
    """A Prefect that starts runs of deployments, and knows one again by its key."""

    def __init__(self) -> None:
        self.started: dict[str, str] = {}

    def run(self, *_: Any, parameters: Any, idempotency_key: str, **__: Any) -> Any:
        run_id = self.started.setdefault(idempotency_key, str(uuid4()))
        self.remediation = parameters["remediation_id"]
        return SimpleNamespace(id=run_id)


@pytest.mark.attack
@pytest.mark.parametrize("rule_id", [AWS_SSH, AZURE_SSH])
@pytest.mark.parametrize("taken", [0, 1, 2])
def test_what_a_dead_process_was_writing_to_is_looked_at_and_settled(
    bench: Bench, two_steps: None, long_up: None, rule_id: str, taken: int
) -> None:
    finding = take_two_steps(bench, rule_id)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding], "two-steps")
    prefect = Deployments()
    bench.patch.setattr(reconciling, "run_deployment", prefect.run)
    dies_after(bench, run, finding, taken)
    with remediation.none_left_waiting(run):
        assert reconcile() == [0, 0, 0], "its process lives"
    assert reconcile() == [1, 1, int(taken == 1)]
    (row,) = bench.rows(run)
    assert row.state == ("remediated" if taken == 2 else "failed")
    assert "Its process ended while it was writing" in row.message
    if taken == 2:
        assert (bench.status(finding), bench.stages(run)[-1]) == ("resolved", "after")
    elif taken == 0:
        assert "nothing was changed" in row.message
        assert bench.now(finding).fingerprint == before
    else:
        assert row.half_applied
        assert reconcile() == [0, 0, 0], "one run is enough"
        (back_id,) = prefect.started.values()
        back = remediation.begin_restore.fn(back_id, prefect.remediation, "reconciliation")
        assert back.automatic
        bench.go_on(back, remediation.ask_customer.fn(back))
        assert bench.end(back)[0] == "Restored"
        assert bench.now(finding).fingerprint == before
        assert bench.rows(run)[0].state == "undone"
    assert reconcile() == [0, 0, 0]


def test_a_half_change_that_somebody_else_put_back_needs_no_run(
    bench: Bench, two_steps: None, long_up: None
) -> None:
    finding = take_two_steps(bench, AWS_SSH)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding], "two-steps")
    dies_after(bench, run, finding, 1)
    assert reconciling.settle_run(run.id) == 1
    bench.as_customer(finding, run.items[0].planned.steps[0].undo[0])
    assert bench.now(finding).fingerprint == before
    bench.patch.setattr(reconciling, "run_deployment", None)
    with connect() as warehouse:
        assert reconciling.start_put_backs(warehouse) == 0
    assert bench.rows(run)[0].state == "undone"


def test_what_could_not_be_undone_is_put_back_by_another_run(
    bench: Bench, two_steps: None, long_up: None
) -> None:
    """The gate closes in the middle of a fix: neither the rest nor the undo gets through."""
    finding = take_two_steps(bench, AWS_SSH)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding], "two-steps")
    patched_open(bench, lambda session, now: ShutAfterOne(session))
    bench.go_on(run, remediation.ask_customer.fn(run))
    assert bench.states(run) == ["failed"]
    assert "could not be undone" in bench.rows(run)[0].message
    assert bench.now(finding).fingerprint != before
    bench.patch.setattr(remediation, "open_session", open_session)
    prefect = Deployments()
    bench.patch.setattr(reconciling, "run_deployment", prefect.run)
    assert reconcile() == [0, 0, 1]
    (back_id,) = prefect.started.values()
    back = remediation.begin_restore.fn(back_id, prefect.remediation, "reconciliation")
    bench.go_on(back, remediation.ask_customer.fn(back))
    assert bench.end(back)[0] == "Restored"
    assert bench.now(finding).fingerprint == before
    assert bench.rows(run)[0].state == "undone"


def test_half_of_an_approved_change_is_put_back_by_an_approval_that_may_be_denied(
    bench: Bench, long_up: None
) -> None:
    finding = take_two_steps(bench, AWS_SSH)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding], "office")
    dies_after(bench, run, finding, 1)
    prefect = Deployments()
    bench.patch.setattr(reconciling, "run_deployment", prefect.run)
    assert reconcile()[::2] == [1, 1]
    (back_id,) = prefect.started.values()
    back = remediation.begin_restore.fn(back_id, prefect.remediation, "reconciliation")
    assert not back.automatic
    assert "takes back the remediation" in back.page()
    bench.answer(back, decision="deny")
    assert bench.states(back) == ["denied"]
    assert reconcile() == [0, 0, 0], "it was denied a moment ago"
    with connect() as warehouse:
        warehouse.execute("UPDATE remediations SET finished_at = finished_at - interval '2 days'")
    assert reconcile() == [0, 0, 1], "the next day it is asked for again"
    *_, again_id = prefect.started.values()
    assert again_id != back_id
    again = remediation.begin_restore.fn(again_id, prefect.remediation, "reconciliation")
    bench.answer(again, bench.open(finding).code.get_secret_value())
    assert bench.end(again)[0] == "Restored"
    assert bench.now(finding).fingerprint == before
    assert bench.rows(run)[0].state == "undone"
    assert reconcile() == [0, 0, 0]


def test_a_put_back_that_died_half_way_is_gone_on_with(
    bench: Bench, two_steps: None, long_up: None
) -> None:
    """A person's restore of a whole fix: its first step stands, its process is gone."""
    finding = take_two_steps(bench, AWS_SSH)
    before = bench.now(finding).fingerprint
    run = bench.begin([finding], "two-steps")
    bench.go_on(run, remediation.ask_customer.fn(run))
    assert bench.states(run) == ["remediated"]
    prefect = Deployments()
    bench.patch.setattr(reconciling, "run_deployment", prefect.run)
    back = remediation.begin_restore.fn(str(uuid4()), run.items[0].id, "Ada")
    dies_after(bench, back, finding, 1)
    assert reconcile()[::2] == [1, 1]
    (again_id,) = prefect.started.values()
    again = remediation.begin_restore.fn(again_id, prefect.remediation, "reconciliation")
    bench.go_on(again, remediation.ask_customer.fn(again))
    assert bench.end(again)[0] == "Restored"
    assert bench.now(finding).fingerprint == before
    assert bench.rows(run)[0].state == "undone"


def test_a_fix_applied_again_that_died_half_way_is_gone_on_with(
    bench: Bench, two_steps: None, long_up: None
) -> None:
    """A person undoes a restore: the first step of the fix stands again, its process is gone."""
    finding = take_two_steps(bench, AWS_SSH)
    run = bench.begin([finding], "two-steps")
    bench.go_on(run, remediation.ask_customer.fn(run))
    fixed = bench.now(finding).fingerprint
    back = remediation.begin_restore.fn(str(uuid4()), run.items[0].id, "Ada")
    bench.answer(back, bench.open(finding).code.get_secret_value())
    assert bench.end(back)[0] == "Restored"
    prefect = Deployments()
    bench.patch.setattr(reconciling, "run_deployment", prefect.run)
    again = remediation.begin_restore.fn(str(uuid4()), back.items[0].id, "Ada")
    dies_after(bench, again, finding, 1)
    assert reconcile()[::2] == [1, 1]
    (last_id,) = prefect.started.values()
    last = remediation.begin_restore.fn(last_id, prefect.remediation, "reconciliation")
    assert prefect.remediation == back.items[0].id
    assert len(last.items[0].planned.steps) == 1, "the step that stands is not taken again"
    bench.answer(last, bench.open(finding).code.get_secret_value())
    assert bench.end(last)[0] == "Restored"
    assert bench.now(finding).fingerprint == fixed
    assert bench.rows(back)[0].state == "undone"


def test_a_gate_whose_endpoint_does_not_answer_is_asked_again_for_a_day(
    bench: Bench, long_up: None
) -> None:
    (finding,) = bench.take(HTTPS_ONLY)
    with connect() as warehouse:
        gate_requests.asked(warehouse, "a run", finding.cloud, finding.account)

        def away(*_: Any, **__: Any) -> None:
            raise CloudTimeout("did not answer in time")

        bench.patch.setattr(reconciling, "release", away)
        assert reconciling.close_left_gates(warehouse) == 0
        assert len(gate_requests.unreleased(warehouse)) == 1
        warehouse.execute("UPDATE gate_requests SET asked_at = asked_at - interval '25 hours'")
        assert reconciling.close_left_gates(warehouse) == 0
        assert gate_requests.unreleased(warehouse) == []
        entry = "SELECT count(*) FROM audit_log WHERE action = 'gate not confirmed closed'"
        assert warehouse.execute(entry).fetchone() == (1,)


def test_a_lock_that_is_free_proves_nothing_right_after_the_database_started(bench: Bench) -> None:
    run = bench.begin(bench.take(TLS))
    item = run.items[0]
    remediation_records.begin_writing(run, item, item.planned.resource, NOTHING_CHOSEN)
    bench.patch.setattr("tasks.warehouse.carriers.SETTLING", timedelta(days=1))
    assert reconciling.settle_run(run.id) == 0
    bench.patch.setattr("tasks.warehouse.carriers.SETTLING", timedelta(0))
    assert reconciling.settle_run(run.id) == 1


def test_a_process_that_ended_while_it_was_writing_has_failed(bench: Bench, long_up: None) -> None:
    run = bench.begin(bench.take(TLS, 2))
    item = run.items[0]
    remediation_records.begin_writing(run, item, item.planned.resource, NOTHING_CHOSEN)
    assert bench.end(run)[0] == "Failed"  # never said how it ended: not well
    run = bench.again(run)
    assert bench.states(run) == ["failed", "waiting"]
    assert "ended while it was writing" in run.items[0].message


def test_a_run_of_which_all_was_left_out_is_called_so(bench: Bench) -> None:
    run = bench.begin(bench.take(AWS_SSH))
    remediation_records.settle(run, run.waiting, "left_out", "The approver left it out.")
    assert bench.end(run)[0] == "Left out"


@pytest.mark.parametrize("policy", ["", "at-once"])
def test_what_is_approved_in_time_does_not_expire_before_it_is_reached(
    bench: Bench, policy: str
) -> None:
    (finding,) = bench.take(HTTPS_ONLY)
    run = bench.begin([finding], policy)
    run.expires_at = datetime.now(UTC) + timedelta(seconds=1)
    with connect() as warehouse:
        remediations.set_state(warehouse, run.items[0].id, "waiting", expires_at=run.expires_at)
    code = bench.open(finding).code.get_secret_value()
    approval = {"decision": "approve", "approver": "Ada", "code": bench.handle(code)}
    answered = (
        remediation.ask_customer.fn(run) if policy else remediation.take_answer.fn(run, approval)
    )
    with connect() as warehouse:
        late = run.expires_at + timedelta(minutes=5)
        expired = remediations.expire_overdue(warehouse, late)
    assert run.id not in {one.run_id for one in expired}
    bench.go_on(run, answered)
    assert bench.states(run) == ["remediated"]


def test_what_is_asked_again_expires_when_the_run_does(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    bench.close_gate(finding)
    run = bench.begin([finding])
    run.expires_at = datetime.now(UTC) + timedelta(minutes=1)
    bench.answer(run, "123456")
    assert bench.rows(run)[0].expires_at == run.expires_at


def test_an_approval_that_comes_too_late_ends_the_run_as_expired(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    with connect() as warehouse:
        remediations.set_state(warehouse, run.items[0].id, "expired", "too late")
    bench.answer(run, "123456")
    assert bench.states(run) == ["expired"]
    assert bench.end(run)[0] == "Expired"


def test_a_scan_that_looked_later_than_the_run_knows_better(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    code = bench.open(finding).code.get_secret_value()
    real = remediation_records.record

    def slowly(*args: Any) -> None:
        bench.scan()  # between the last look and its being written down
        with connect() as warehouse:
            warehouse.execute(
                "UPDATE findings SET status = 'open', resolved_at = NULL, resolution = NULL "
                "WHERE id = %s",
                (finding.id,),
            )
        real(*args)

    bench.patch.setattr(remediation_records, "record", slowly)
    bench.answer(run, code)
    assert bench.states(run) == ["remediated"]
    assert bench.status(finding) == "open"


# --- the record --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule_id", [EBS, AZURE_SSH, BUCKET])
def test_the_record_says_who_wrote_what_with_the_clouds_own_numbers(
    bench: Bench, rule_id: str
) -> None:
    (finding,) = bench.take(rule_id)
    run = bench.begin([finding])
    code = bench.open(finding).code.get_secret_value()
    bench.answer(run, code)
    bench.close_gate(finding)
    assert bench.states(run) == ["remediated"]
    item = run.items[0]
    with connect() as warehouse:
        told = entries_about(warehouse, [item.id])
    assert [one.action for one in told][:3] == ["planned", "approved", "applying"]
    said = [json.loads(one.details) for one in told]
    assert said[0]["requested_by"] == "a test"
    assert {one["plan"] for one in said[:3]} == {item.planned.hash}
    (session,) = [call for call in said[2]["calls"] if call["operation"] == "session"]
    expected = "assumed-role/" if item.planned.resource.cloud is Cloud.AWS else "client "
    assert expected in session["identity"]
    assert datetime.fromisoformat(session["until"]) > datetime.now(UTC)
    written = [call for one in said[3:] for call in one.get("calls", ())]
    assert len(written) == len(item.planned.steps)
    for call in written:
        assert call["request_id"]
        assert 200 <= call["status"] < 300
    words = "\n".join(line for one in tell(told) for line in one.lines)
    assert all(call["request_id"] in words for call in written)
    with connect() as warehouse:
        taken = remediations.snapshots(warehouse, item.id)
        evidence = evidence_of(warehouse, item.id)
    assert [one.stage for one in taken] == [
        *("before", "before"),
        *("during" for _ in item.planned.steps),
        "after",
    ]
    for one in taken:
        assert one.calls
        assert all(call["request_id"] and call["status"] < 500 for call in one.calls)
    after = taken[-1].resource
    assert after == look_at(bench.inventory, bench.account(finding), after).resource
    assert content_diff(taken[1].content, taken[-1].content)
    assert problems(evidence) == []
    assert set(evidence["contents"]) == {one.address for one in taken}
    assert code not in json.dumps(evidence)


def test_a_gate_that_does_not_open_is_recorded_with_the_clouds_answer(bench: Bench) -> None:
    (finding,) = bench.take(BUCKET)
    run = bench.begin([finding])
    bench.answer(run, "123456")
    item = run.items[0]
    with connect() as warehouse:
        told = entries_about(warehouse, [item.id])
        evidence = evidence_of(warehouse, item.id)
    assert [one.action for one in told] == ["planned", "approved", "gate refused", "asked again"]
    (call,) = json.loads(told[2].details)["calls"]
    assert (call["operation"], call["status"], call["code"]) == (
        *("sts:AssumeRole", 403, "AccessDenied"),
    )
    assert call["request_id"]
    assert "123456" not in json.dumps(evidence)
    assert problems(evidence) == []
    bench.answer(run, decision="deny")


def test_a_fix_taken_back_is_recorded_with_its_undo(bench: Bench) -> None:
    with connect() as warehouse:
        rows = warehouse.execute(
            "SELECT id FROM resources "
            "WHERE kind = 'aws.s3.bucket' AND config #>> '{Versioning,Status}' IS NULL"
        )
        never_versioned = {bucket for (bucket,) in rows}
    (finding,) = bench.take(VERSIONS, among=never_versioned)
    run = bench.begin([finding])
    code = bench.open(finding).code.get_secret_value()
    bench.patch.setattr(remediation, "close_finding", functools.partial(never_proved, bench))
    bench.answer(run, code)
    bench.close_gate(finding)
    assert bench.states(run) == ["undone"]
    with connect() as warehouse:
        told = entries_about(warehouse, [run.items[0].id])
        evidence = evidence_of(warehouse, run.items[0].id)
    assert [one.action for one in told] == [
        *("planned", "approved", "applying", "wrote", "put back", "undone"),
    ]
    assert "undo: s3:PutBucketVersioning" in "\n".join(tell(told)[4].lines)
    back = json.loads(told[4].details)
    assert [call["undo"] for call in back["calls"]] == [True]
    assert back["snapshot"]["stage"] == "undone"
    assert problems(evidence) == []
    # What AWS has no way back from is not hidden: a bucket once versioned is never unversioned.
    field = "resource.config.Versioning.Status"
    assert changed(evidence) == [{"field": field, "before": "–", "after": "Suspended"}]


def never_proved(bench: Bench, plan: Plan, place: Any, **options: Any) -> Any:
    """Close it by a plan that no state of the resource achieves once it has been written to."""
    bench.patch.setattr(Plan, "achieved", lambda *_: False)
    return close_finding(plan, place, verify_seconds=0.1, **options)


# --- parts -------------------------------------------------------------------------------------


# --- who approves ------------------------------------------------------------------------------


def approvals(bench: Bench, run: Run) -> list[tuple[str, dict[str, Any]]]:
    """Who approved this run's first finding, and how, by the audit log."""
    with connect() as warehouse:
        found = warehouse.execute(
            "SELECT actor, details::jsonb FROM audit_log "
            "WHERE action = 'approved' AND subject = %s ORDER BY number",
            (run.items[0].id,),
        )
        return [(actor, dict(details)) for actor, details in found]


@pytest.mark.attack
def test_two_people_approve_and_the_second_gives_the_code(bench: Bench) -> None:
    found = bench.take(VERSIONS, 2)
    run = bench.begin(found, "four-eyes")
    opened = bench.open(found[0])
    assert "This is the first approval and needs no code" in run.page()
    bench.who = ("Ada", True)
    # A code typed too early goes nowhere: the guard gives a handle with nothing behind it.
    bench.answer(run, leave_out="2")
    assert bench.states(run) == ["waiting", "left_out"]
    assert bench.verdict(found[0]) is Verdict.FAIL

    run = bench.again(run)
    assert "Approved already by `Ada` (verified)" in run.page()
    assert "Asked again" not in run.page()
    for name in ("ada", "A test"):  # who approved already; who asked for it
        bench.who = (name, True)
        bench.answer(run, opened.code.get_secret_value())
        assert bench.states(run) == ["waiting", "left_out"]
        run = bench.again(run)
        assert "Another person must" in run.page()
    bench.who = ("Grace", False)
    bench.answer(run, opened.code.get_secret_value())
    assert bench.states(run) == ["remediated", "left_out"]
    row = bench.rows(run)[0]
    assert (row.approver, row.approver_verified) == ("Ada, Grace", False)
    given = approvals(bench, run)
    assert [(who, one["verified"], one["approval"], one["of"]) for who, one in given] == [
        ("Ada", True, 1, 2),
        ("Grace", False, 2, 2),
    ]


@pytest.mark.attack
def test_who_gives_other_values_approves_first(bench: Bench) -> None:
    (finding,) = bench.take(AWS_RDP)
    run = bench.begin([finding], "four-eyes")
    opened = bench.open(finding)
    code = opened.code.get_secret_value()
    bench.who = ("Ada", True)
    bench.answer(run, allowed_cidrs="10.0.0.0/8")
    bench.who = ("Grace", True)
    run = bench.again(run)
    bench.answer(run, code, allowed_cidrs="10.0.0.0/8, 192.0.2.0/24")
    assert bench.states(run) == ["waiting"]
    run = bench.again(run)
    assert "Approved already by `Grace`" in run.page()
    assert "`Ada`" not in run.page()
    bench.who = ("Ada", True)
    bench.answer(run, code, allowed_cidrs="10.0.0.0/8, 192.0.2.0/24")
    assert bench.states(run) == ["remediated"]
    assert [who for who, _ in approvals(bench, run)] == ["Ada", "Grace", "Ada"]


@pytest.mark.attack
def test_a_wrong_second_code_leaves_the_first_approval(bench: Bench) -> None:
    (finding,) = bench.take(TLS)
    run = bench.begin([finding], "four-eyes")
    bench.who = ("Ada", True)
    bench.answer(run)
    bench.who = ("Grace", True)
    run = bench.again(run)
    bench.answer(run, "123456")
    run = bench.again(run)
    assert "Approved already by `Ada`" in run.page()
    opened = bench.open(finding)
    bench.answer(run, opened.code.get_secret_value())
    assert bench.states(run) == ["remediated"]


@pytest.mark.attack
def test_nobody_has_approved_what_is_planned_after_a_drift(bench: Bench) -> None:
    (finding,) = bench.take(AWS_RDP)
    run = bench.begin([finding], "four-eyes")
    bench.who = ("Ada", True)
    bench.answer(run)
    run = bench.again(run)
    bench.drift(finding)
    opened = bench.open(finding)
    bench.who = ("Grace", True)
    bench.answer(run, opened.code.get_secret_value())
    assert bench.states(run) == ["waiting"]
    run = bench.again(run)
    assert "changed since the plan was shown" in run.page()
    assert "This is the first approval" in run.page()
    bench.answer(run, opened.code.get_secret_value())
    assert bench.states(run) == ["waiting"]
    assert bench.verdict(finding) is Verdict.FAIL


@pytest.mark.attack
@pytest.mark.parametrize(
    ("who", "words"),
    [
        (("ada@example.org", False), "sign-in proxy has verified"),
        (("ada@elsewhere.org", True), "not among those who may approve"),
    ],
)
def test_only_some_may_approve_under_a_verified_name(
    bench: Bench, who: tuple[str, bool], words: str
) -> None:
    (finding,) = bench.take(TLS)
    run = bench.begin([finding], "signed-in")
    opened = bench.open(finding)
    bench.who = who
    bench.answer(run, opened.code.get_secret_value())
    assert bench.states(run) == ["waiting"]
    run = bench.again(run)
    assert words in run.page()
    bench.who = ("Ada@Example.org", True)
    bench.answer(run, opened.code.get_secret_value())
    assert bench.states(run) == ["remediated"]


@pytest.mark.attack
def test_who_signed_in_to_ask_cannot_approve_under_that_name(bench: Bench) -> None:
    (finding,) = bench.take(VERSIONS)
    run_id = str(uuid4())
    run = remediation.begin_remediation.fn(
        run_id, [finding.id], "four-eyes", "somebody else", "ada@example.org"
    )
    assert "ada@example.org" in run.page()
    assert bench.rows(run)[0].requested_by == "ada@example.org"
    for name in ("ADA@example.org", "Somebody Else"):
        bench.who = (name, True)
        bench.answer(run)
        run = bench.again(run)
        assert "Who asked for these changes cannot approve them" in run.page()


@pytest.mark.attack
def test_without_the_guard_a_typed_code_opens_the_gate_and_unset_it_does_not(
    bench: Bench,
) -> None:
    (finding,) = bench.take(VERSIONS)
    run = bench.begin([finding])
    opened = open_gate(
        bench.inventory,
        bench.account(finding),
        seed=SecretStr(pyotp.random_base32()),
        customer=bench.customer(),
    )
    typed = {"decision": "approve", "approver": "Ada", "code": opened.code.get_secret_value()}
    bench.patch.setattr("tasks.codes.redeem", None)  # there is nothing to redeem at
    bench.go_on(run, remediation.take_answer.fn(run, typed))
    assert bench.states(run) == ["waiting"]
    assert "did not come through suture server" in bench.again(run).page()
    bench.patch.setenv("SUTURE_GUARD", "of")
    bench.go_on(run, remediation.take_answer.fn(run, typed))
    assert "SUTURE_GUARD: is neither on nor off" in bench.again(run).page()
    bench.patch.setenv("SUTURE_GUARD", "off")
    wrong = {**typed, "code": "12345"}
    bench.go_on(run, remediation.take_answer.fn(run, wrong))
    assert "must be exactly 6 digits" in bench.again(run).page()
    bench.go_on(run, remediation.take_answer.fn(run, typed))
    assert bench.states(run) == ["remediated"]
    row = bench.rows(run)[0]
    assert (row.approver, row.approver_verified) == ("Ada", False)


class Broken:
    """A session whose first write fails; it is undone, or nothing of it was done."""

    def __init__(self, session: Session, error: Exception | None = None) -> None:
        self.session, self.error = session, error or CloudTimeout("no answer")

    def apply(self, step: Step) -> None:
        raise self.error

    def undo(self, step: Step) -> None:
        return None

    def close(self) -> None:
        self.session.close()


class ShutAfterOne(Broken):
    """A session whose gate closes after the first write."""

    def __init__(self, session: Session) -> None:
        super().__init__(session, AccessRefused("the gate is closed"))
        self.written = False

    def apply(self, step: Step) -> None:
        if self.written:
            raise self.error
        self.written = True
        self.session.apply(step)

    def undo(self, step: Step) -> None:
        raise self.error


def patched_open(bench: Bench, wrap: Callable[[Session, Resource], Any]) -> None:
    """Sessions as they are opened, each as ``wrap`` would have it."""
    real = remediation.open_session

    @contextmanager
    def opening(inventory: Any, account: Any, now: Resource, *rest: Any, **options: Any) -> Any:
        with real(inventory, account, now, *rest, **options) as session:
            yield wrap(session, now)

    bench.patch.setattr(remediation, "open_session", opening)


# --- What an automatic run takes on --------------------------------------------------------------


@pytest.fixture
def few_in_a_run(bench: Bench) -> Iterator[Callable[[str], None]]:
    """An automatic policy of two changes a run; writes another policy file in its place."""
    text = bench.policies.read_text()

    def policy(how: str) -> None:
        bench.policies.write_text(
            f'suture: 1\npolicies: [{{name: few, match: {{rule: "*"}}, {how}}}]'
        )

    policy("mode: automatic, most_changes: 2")
    yield policy
    bench.policies.write_text(text)


def closed(bench: Bench, run: Run) -> None:
    bench.go_on(run, remediation.ask_customer.fn(run))


def test_a_run_takes_on_what_another_change_asks_for(
    bench: Bench, few_in_a_run: Callable[[str], None]
) -> None:
    first, second = bench.take(BUCKET, 2)
    run = bench.begin([first], "few")
    closed(bench, run)
    assert run.takes_more
    remediation.take_on(run, More((second.id,), "react: another change"))
    assert [item.number for item in run.items] == [1, 2]
    assert bench.states(run) == ["remediated", "waiting"]
    closed(bench, run)
    assert bench.states(run) == ["remediated", "remediated"]
    assert [row.requested_by for row in bench.rows(run)] == ["a test", "react: another change"]
    assert [bench.status(one) for one in (first, second)] == ["resolved", "resolved"]
    assert bench.end(run) == ("Remediated", "2 remediated")
    assert run.title.startswith("Fix 2 findings")


@pytest.mark.parametrize(
    "how", ["mode: assisted", "mode: automatic, most_changes: 1", "mode: guided"]
)
def test_what_a_policy_does_not_close_in_that_run_is_left_to_another(
    bench: Bench,
    few_in_a_run: Callable[[str], None],
    how: str,
) -> None:
    first, second = bench.take(VERSIONS, 2)
    run = bench.begin([first], "few")
    closed(bench, run)
    few_in_a_run(how)
    remediation.take_on(run, More((second.id,), "react"))
    remediation.take_on(run, More(("f" * 64,), "react"))  # nobody knows this one
    assert bench.states(run) == ["remediated"]
    assert run.takes_more
    assert bench.status(second) == "open"
    with connect() as warehouse:
        assert remediations.remediations_of(warehouse, second.id) == []


def test_a_run_that_the_gate_refuses_takes_on_nothing(
    bench: Bench, few_in_a_run: Callable[[str], None]
) -> None:
    (finding,) = bench.take(AWS_RDP)
    run = bench.begin([finding], "few")
    wrong = Answered(SecretStr("000000"), (1,), "nobody", True)
    bench.go_on(run, wrong)
    assert not run.takes_more
    assert bench.status(finding) == "open"
