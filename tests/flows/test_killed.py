"""kill -9 at every step of a remediation, on both clouds: nothing stays half, unsaid or open."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from azure.identity import ClientSecretCredential
from prefect.logging import disable_run_logger
from prefect.states import Crashed

from deployments.local.fleet import Fleet
from deployments.local.postgres import EmbeddedPostgres
from deployments.local.stack import fleet_env
from tasks import reconciling, remediation, triage
from tasks.approval import parse_values
from tasks.clouds import azure_write
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.azure_write import identity_options
from tasks.clouds.gate import CustomerCredentials, gate_status
from tasks.clouds.scanner import Scanner
from tasks.inventory import load_inventory
from tasks.model import Finding, Resource, Verdict
from tasks.plan import make_plan
from tasks.planning import read_resources
from tasks.rules import rule
from tasks.warehouse import gate_requests, remediations, scans
from tasks.warehouse.audit import verify_chain
from tasks.warehouse.database import connect
from tasks.warehouse.findings import account_of, finding_by_id, open_findings

pytestmark = [pytest.mark.slow, pytest.mark.attack]

AWS_SSH = "aws_ec2_security_group_ssh_not_open"
AZURE_SSH = "azure_network_security_group_ssh_not_open"
OFFICE = {"allowed_cidrs": "10.1.0.0/16"}
POLICY = f"""
suture: 1
policies:
  - {{name: two-steps, match: {{rule: "*"}}, mode: automatic, values: {json.dumps(OFFICE)}}}
"""
SECONDS = 120  # until all is settled: locks prove nothing in the database's first minute

# What becomes of a finding whose process died then.
UNTOUCHED = ("planned", "about to ask", "asking", "gate open", "session open", "about to begin")
NOT_CHANGED = ("begun", "before step 1")
PUT_BACK = ("after step 1", "between", "before step 2")
FOUND_DONE = ("after step 2", "proved")
SAID_SO_ITSELF = ("recorded", "releasing", "released", "at its end")
MOMENTS = (*UNTOUCHED, *NOT_CHANGED, *PUT_BACK, *FOUND_DONE, *SAID_SO_ITSELF)
ENDS = {
    **dict.fromkeys(UNTOUCHED, "expired"),
    **dict.fromkeys(NOT_CHANGED, "failed"),
    **dict.fromkeys(PUT_BACK, "undone"),
    **dict.fromkeys(FOUND_DONE + SAID_SO_ITSELF, "remediated"),
}


def takes_two_steps(finding: Finding, now: Resource) -> bool:
    its_rule = rule(finding.rule)
    values = parse_values(its_rule.inputs, OFFICE)
    return len(make_plan(its_rule, now, values, finding_id=finding.id).steps) == 2


def kill(jobs: list[dict[str, Any]], env: Mapping[str, str]) -> None:
    """Run these, each killed at its moment."""
    child = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("dying.py"))],
        input="".join(json.dumps(job) + "\n" for job in jobs),
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    ended = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]
    assert len(ended) == len(jobs)
    survived = [one for one in ended if one["ended"] != signal.SIGKILL]
    assert survived == [], child.stderr[-6000:]


@dataclass
class Prefect:
    """A Prefect that has noticed every process's end, and starts the runs it is asked for."""

    started: dict[str, str] = field(default_factory=dict)

    def read_flow_run(self, run_id: Any) -> Any:
        return SimpleNamespace(id=run_id, state=Crashed())

    def run_deployment(self, *_: Any, parameters: Any, idempotency_key: str, **__: Any) -> Any:
        if idempotency_key not in self.started:
            self.started[idempotency_key] = str(uuid4())
            put_back(self.started[idempotency_key], parameters["remediation_id"])
        return SimpleNamespace(id=self.started[idempotency_key])


def put_back(run_id: str, remediation_id: str) -> None:
    """The run that reconciliation starts, as the flow does it."""
    back = remediation.begin_restore.fn(run_id, remediation_id, "reconciliation")
    assert back.automatic
    with remediation.none_left_waiting(back):
        answer = remediation.ask_customer.fn(back)
        for number in answer.chosen:
            remediation.close_one.fn(back, number, answer)
        remediation.conclude_round.fn(back)


class Site:
    """A scanned fleet without Prefect, and what its people see of it."""

    def __init__(self, description: dict[str, Any]) -> None:
        self.told = description
        self.inventory = load_inventory(Path(description["inventory"]))

    async def scan(self) -> None:
        async with Scanner(self.inventory) as scanner:
            found = await scanner.discover()
            results = await asyncio.gather(*(scanner.scan(one) for one in found.accounts))
        with connect() as warehouse:
            scan_id = scans.begin_scan(warehouse, trigger="fleet")
            scans.record_accounts(warehouse, scan_id, found.accounts, found.skipped)
            scans.load_batch(warehouse, scan_id, results)
            scans.merge_scan(warehouse, scan_id)
            scans.finish_scan(warehouse, scan_id)

    def take(self, rule_id: str, count: int) -> list[tuple[Finding, Resource]]:
        """Findings with their resources as they are, whose fix takes two steps."""
        with connect() as warehouse:
            found = open_findings(warehouse, rule=rule_id)
        chosen = []
        for one in found:
            now = self.now(one)
            if takes_two_steps(one, now):
                chosen.append((one, now))
            if len(chosen) == count:
                return chosen
        raise AssertionError(f"only {len(chosen)} findings of {rule_id}: plant more")

    def account(self, finding: Finding) -> Any:
        with connect() as warehouse:
            return account_of(warehouse, finding.cloud, finding.account)

    def now(self, finding: Finding) -> Resource:
        (seen,) = read_resources(self.inventory, self.account(finding), [finding])
        assert isinstance(seen, Resource), seen
        return seen

    def openings(self, finding: Finding) -> Any:
        """How the gate of the finding's account stands, seen with the customer's credentials."""
        source = self.inventory.azure[0]
        keys, login = self.told["aws"]["customer"], self.told["azure"]["customer"]
        with ClientSecretCredential(
            source.tenant, login["client_id"], login["client_secret"], **identity_options(source)
        ) as credential:
            customer = CustomerCredentials(
                aws=AwsCredentials(keys["access_key_id"], keys["secret_access_key"]),
                azure=credential,
            )
            return gate_status(self.inventory, self.account(finding), customer=customer).openings


@pytest.fixture
def site(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warehouse_url: str
) -> Iterator[Site]:
    policies = tmp_path / "policies.yaml"
    policies.write_text(POLICY)
    with Fleet(aws=26, azure=48, seed=31, data_dir=tmp_path, failing=False) as fleet:
        fleet._azure.tenant.operations.retry_after = None  # else every write takes a second
        monkeypatch.setattr(azure_write, "POLL_SECONDS", 0.05)
        for name, value in fleet_env(fleet.description).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("SUTURE_WAREHOUSE_URL", warehouse_url)
        monkeypatch.setenv("SUTURE_POLICIES", str(policies))
        monkeypatch.setattr("tasks.warehouse.carriers.SETTLING", timedelta(0))
        made = Site(fleet.description)
        asyncio.run(made.scan())
        with disable_run_logger():
            yield made


def test_whenever_it_is_killed_nothing_stays_half_unsaid_or_open(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {
        (moment, rule_id): chosen
        for rule_id in (AWS_SSH, AZURE_SSH)
        for moment, chosen in zip(MOMENTS, site.take(rule_id, len(MOMENTS)), strict=True)
    }
    kill(
        [
            {"at": moment, "finding": finding.id, "policy": "two-steps"}
            for (moment, _), (finding, _) in found.items()
        ],
        os.environ,
    )
    prefect: Any = Prefect()
    monkeypatch.setattr(reconciling, "run_deployment", prefect.run_deployment)
    with connect() as warehouse:
        for settle in (
            reconciling.settle_dead_writers,
            functools.partial(triage._free_what_was_left, prefect=prefect),
            reconciling.close_left_gates,
            reconciling.start_put_backs,
        ):
            assert settle(warehouse) > 0
            assert settle(warehouse) == 0, "all of it at once, and only once"
        assert remediations.active(warehouse) == []
        assert gate_requests.unreleased(warehouse) == []
        assert verify_chain(warehouse) is None
    wrong = [
        f"{rule_id} {moment}: {problem}"
        for (moment, rule_id), (finding, before) in found.items()
        for problem in problems(site, moment, finding, before)
    ]
    assert wrong == []


def problems(site: Site, moment: str, finding: Finding, before: Resource) -> list[str]:
    """What is wrong with how a finding is left, in words."""
    with connect() as warehouse:
        *_, first = rows = remediations.remediations_of(warehouse, finding.id)
        stages = [one.stage for one in remediations.snapshots(warehouse, first.id)]
        status = finding_by_id(warehouse, finding.id).status
        log = "SELECT action FROM audit_log WHERE subject = %s ORDER BY number"
        said = [action for (action,) in warehouse.execute(log, (first.id,))]
    now = site.now(finding)
    fixed = rule(finding.rule).judge(now)[0] is Verdict.PASS
    settled = moment in (*NOT_CHANGED, *PUT_BACK, *FOUND_DONE)
    checks = {
        f"it is {first.state}: {first.message}": first.state == ENDS[moment],
        "it ended without a word": bool(first.message),
        "it is neither as before nor fixed": fixed or now.fingerprint == before.fingerprint,
        "it is not what is said of it": fixed is (first.state == "remediated"),
        f"the finding is {status}": status == ("resolved" if fixed else "open"),
        f"{len(rows)} remediations": len(rows) == 1 + (moment in PUT_BACK),
        "nobody put it back": rows[0].state == "restored" or moment not in PUT_BACK,
        f"the log says {said}": ("settled" in said) is settled,
        f"there are snapshots {stages}": ("after" in stages) is (first.state == "remediated"),
        "the gate is open": site.openings(finding) == (),
    }
    return [problem for problem, good in checks.items() if not good]


@pytest.fixture
def policy(fleet: Any) -> Iterator[None]:
    """The stack's policy file, for a while of this test's own."""
    path = Path(fleet.stack.env["SUTURE_POLICIES"])
    kept = path.read_text()
    path.write_text(POLICY)
    yield
    path.write_text(kept)


def test_the_flows_themselves_are_settled_and_put_back_through_prefect(
    fleet: Any, policy: None
) -> None:
    jobs = [
        (moment, fleet.take(rule_id, where=lambda one: takes_two_steps(one, fleet.now(one)))[0])
        for moment, rule_id in (
            *(("gate open", AWS_SSH), ("after step 1", AWS_SSH), ("between", AZURE_SSH)),
        )
    ]
    before = {finding.id: fleet.now(finding).fingerprint for _, finding in jobs}
    kill(
        [
            {"at": moment, "finding": one.id, "policy": "two-steps", "flow": True}
            for moment, one in jobs
        ],
        fleet.stack.env,
    )
    (first, *_), *_ = dead = [rows_of(fleet, finding) for _, finding in jobs]
    assert fleet.api.state(first.run_id)["type"] == "RUNNING", "Prefect does not know"
    deadline = time.monotonic() + SECONDS
    # A run is not taken for dead while it is young: what it left may be settled before that.
    while left := standing(fleet) or running(fleet, [first.run_id for first, *_ in dead]):
        assert time.monotonic() < deadline, left
        state = fleet.end(fleet.api.start("reconcile/reconcile", {}))
        assert state["name"] == "Completed", state
        time.sleep(1)
    for (moment, finding), (first, *_) in zip(jobs, dead, strict=True):
        assert fleet.api.state(first.run_id)["type"] == "CRASHED", moment
        *_, row = rows_of(fleet, finding)
        assert (moment, row.state) == (moment, ENDS[moment])
        assert fleet.now(finding).fingerprint == before[finding.id]


def rows_of(fleet: Any, finding: Finding) -> Any:
    with fleet.warehouse() as warehouse:
        return remediations.remediations_of(warehouse, finding.id)


def standing(fleet: Any) -> list[Any]:
    """What is not settled yet, but for what waits for a person."""
    with fleet.warehouse() as warehouse:
        return [
            *(one for one in remediations.active(warehouse) if one.mode == "automatic"),
            *remediations.half_applied(warehouse),
            *gate_requests.unreleased(warehouse),
        ]


def running(fleet: Any, run_ids: list[str]) -> list[str]:
    """Those of these runs that Prefect takes for running."""
    return [one for one in run_ids if fleet.api.state(one)["type"] == "RUNNING"]
