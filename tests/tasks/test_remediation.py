"""A remediation run from round to round, on emulated clouds and a real warehouse, without Prefect.

The flows' tests drive the same tasks through Prefect's API; here is what would take too long there.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
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
from tasks import remediation, remediation_records
from tasks.approval import HANDLE_PREFIX
from tasks.clouds import azure_write
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.azure_write import identity_options
from tasks.clouds.gate import CustomerCredentials, OpenGate, close_gate, open_gate
from tasks.clouds.remediator import Propagation, Session, open_session
from tasks.clouds.scanner import Scanner
from tasks.codes import Redeemed
from tasks.errors import BadInput, CloudTimeout, Conflict, GateRefused
from tasks.inventory import load_inventory
from tasks.model import Call, Cloud, Finding, Resource, Step, Verdict
from tasks.planning import by_account, find_findings, plan_finding, read_resources
from tasks.remediation_run import MOST_ROUNDS, NOTHING_CHOSEN, Run, paragraph
from tasks.rules import rule
from tasks.warehouse import remediations, scans
from tasks.warehouse.audit import verify_chain
from tasks.warehouse.database import connect
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

    def take(self, rule_id: str, count: int = 1) -> list[Finding]:
        """Open findings of one account that no other test has."""
        with connect() as warehouse:
            found = [
                one
                for one in open_findings(warehouse, rule=rule_id)
                if one.resource not in self.taken
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
        """The resource as it is in the cloud, or the error that reading it gave."""
        (seen,) = read_resources(self.inventory, self.account(found), [found])
        return seen

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
    postgres.create_database("remediation_tests", template="template_warehouse")
    folder = tmp_path_factory.mktemp("fleet")
    policies = folder / "policies.yaml"
    policies.write_text(POLICIES)
    with (
        Fleet(aws=24, azure=8, seed=31, data_dir=folder, failing=False) as fleet,
        pytest.MonkeyPatch.context() as patch,
    ):
        fleet._azure.tenant.operations.retry_after = None  # else every write takes a second
        patch.setattr(azure_write, "POLL_SECONDS", 0.05)
        for name, value in fleet_env(fleet.description).items():
            patch.setenv(name, value)
        patch.setenv("SUTURE_WAREHOUSE_URL", postgres.url("remediation_tests"))
        patch.setenv("SUTURE_POLICIES", str(policies))
        # What is refused is refused at once: a gate opened here is known here.
        at_once = functools.partial(open_session, propagation=Propagation(code=0, access=0))
        patch.setattr(remediation, "open_session", at_once)
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
    assert f"suture gate open {finding.account} --run {run.id}" in page
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
    assert bench.stages(run) == ["before", "before", "after"]
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
    run = bench.begin([finding])
    bench.answer(run, bench.open(finding).code.get_secret_value())
    assert bench.states(run) == ["remediated"]
    bench.close_gate(finding)

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


def test_restore_is_refused_once_the_resource_was_changed(bench: Bench) -> None:
    (finding,) = bench.take(AWS_SSH)
    run = bench.begin([finding])
    bench.answer(run, bench.open(finding).code.get_secret_value())
    bench.drift(finding)
    with pytest.raises(BadInput, match="has been changed since"):
        remediation.begin_restore.fn(str(uuid4()), run.items[0].id, "a test")


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


# --- a process that ends, and time that runs out -------------------------------------------------


def test_a_process_that_ended_while_it_was_writing_has_failed(bench: Bench) -> None:
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


def patched_open(bench: Bench, wrap: Callable[[Session, Resource], Any]) -> None:
    """Sessions as they are opened, each as ``wrap`` would have it."""
    real = remediation.open_session

    @contextmanager
    def opening(inventory: Any, account: Any, now: Resource, steps: Any, code: Any) -> Any:
        with real(inventory, account, now, steps, code) as session:
            yield wrap(session, now)

    bench.patch.setattr(remediation, "open_session", opening)
