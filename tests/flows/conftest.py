"""A scanned fleet on the shared stack, and the hands of the people who remediate it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import psycopg
import pytest

from deployments.local.children import Child
from deployments.local.prefect_api import TERMINAL, PrefectApi
from deployments.local.stack import Stack
from tasks.clouds.scanner import Scanner
from tasks.inventory import load_inventory
from tasks.model import Finding, Resource
from tasks.rules import RULES
from tasks.warehouse import remediations
from tasks.warehouse.audit import verify_chain
from tasks.warehouse.database import connect
from tasks.warehouse.findings import account_of, finding_by_id, open_findings
from tasks.warehouse.remediations import RemediationRecord, Snapshot

SECONDS = 90  # what any one step of a run may take on a busy machine


@dataclass(slots=True)
class Gate:
    """A gate that the customer has opened: the code, and the process that keeps it open."""

    code: str
    child: Child

    def close(self) -> None:
        self.child.stop()


class ScannedFleet:
    """What a person does with a scanned fleet: start a fix, open a gate, answer, look.

    ``take`` gives each finding to one test only, so that tests do not depend on each other.
    ``codes`` are all codes that a gate was opened with here, to look for them at rest.
    """

    def __init__(self, stack: Stack, api: PrefectApi) -> None:
        self.stack = stack
        self.api = api
        self.codes: set[str] = set()
        self._taken: set[str] = set()
        self._gates: list[Gate] = []

    # --- the warehouse -------------------------------------------------------------------------

    @contextmanager
    def warehouse(self) -> Iterator[psycopg.Connection]:
        with connect(self.stack.env["SUTURE_WAREHOUSE_URL"]) as connection:
            yield connection

    def open_findings(self, rule: str | None = None, account: str | None = None) -> list[Finding]:
        """The open findings as the warehouse has them now, of one rule or account if named."""
        with self.warehouse() as warehouse:
            return open_findings(warehouse, rule=rule, account=account)

    def take(
        self,
        rule: str,
        count: int = 1,
        *,
        account: str | None = None,
        where: Callable[[Finding], bool] = lambda _: True,
    ) -> list[Finding]:
        """``count`` open findings of one rule, in one account, that no other test has or gets.

        No two tests get findings of one resource, either: each may change its own as it likes.
        """
        free: dict[str, list[Finding]] = {}
        for finding in self.open_findings(rule, account):
            if finding.resource not in self._taken and where(finding):
                free.setdefault(finding.account, []).append(finding)
        for found in free.values():
            if len(found) >= count:
                self._taken.update(one.resource for one in found[:count])
                return found[:count]
        raise AssertionError(f"no account has {count} free findings of {rule}: plant more")

    def take_resource(self, *rules: str) -> list[Finding]:
        """One finding of each of ``rules``, all of one resource that no other test has."""
        by_resource: dict[str, list[Finding]] = {}
        for rule in rules:
            for finding in self.open_findings(rule):
                by_resource.setdefault(finding.resource, []).append(finding)
        for resource, found in by_resource.items():
            if len(found) == len(rules) and resource not in self._taken:
                self._taken.add(resource)
                return found
        raise AssertionError(f"no free resource breaks all of {rules}: plant more")

    def finding(self, finding_id: str) -> Finding:
        """One finding as the warehouse has it now."""
        with self.warehouse() as warehouse:
            return finding_by_id(warehouse, finding_id)

    def rows(self, run_id: str) -> list[RemediationRecord]:
        """The remediations that a run carries, by their number in its table."""
        with self.warehouse() as warehouse:
            return remediations.load_run(warehouse, run_id)

    def snapshots(self, remediation_id: str) -> dict[str, Snapshot]:
        """A remediation's snapshots by stage; of several at one stage, the last."""
        with self.warehouse() as warehouse:
            taken = remediations.snapshots(warehouse, remediation_id)
        return {one.stage: one for one in taken}

    def audit(self, *subjects: str) -> list[tuple[str, str]]:
        """(action, actor) of the audit log's entries on ``subjects``, in order; all without any.

        Checks the chain on the way.
        """
        with self.warehouse() as warehouse:
            assert verify_chain(warehouse) is None
            return [
                (action, actor)
                for action, actor, subject in warehouse.execute(
                    "SELECT action, actor, subject FROM audit_log ORDER BY number"
                )
                if not subjects or subject in subjects
            ]

    # --- runs, through the same REST API as the UI ---------------------------------------------

    def start(
        self, findings: Sequence[Finding | str], *, policy: str = "", by: str = "a test"
    ) -> str:
        """Start a run of the remediation deployment; returns its id."""
        ids = [one if isinstance(one, str) else one.id for one in findings]
        parameters = {"finding_ids": ids, "policy": policy, "requested_by": by}
        return self.api.start("remediate/remediate", parameters)

    def start_restore(self, remediation_id: str) -> str:
        parameters = {"remediation_id": remediation_id, "requested_by": "a test"}
        return self.api.start("restore/restore", parameters)

    def wait_until_suspended(self, run_id: str, *, seconds: float = SECONDS) -> str:
        """Wait until the run's form can be filled in; returns the page above its fields."""
        deadline = time.monotonic() + seconds
        while not self.api.waits_in(run_id, state := self.api.state(run_id)):
            said = f"{state.get('name')}: {state.get('message')}"
            assert state.get("type") not in TERMINAL, said
            assert time.monotonic() < deadline, f"still {said} after {seconds:.0f} s"
            time.sleep(0.25)  # asking is work for the server that the run waits for
        return self.page(run_id)

    def page(self, run_id: str) -> str:
        """The markdown above the fields of the form that a suspended run waits with."""
        keys = self.api.state(run_id)["state_details"]["run_input_keyset"]
        address = f"{self.stack.api_url}/flow_runs/{run_id}/input/{keys['description']}"
        deadline = time.monotonic() + SECONDS
        while (answer := httpx.get(address, trust_env=False)).status_code == httpx.codes.NOT_FOUND:
            assert time.monotonic() < deadline  # it is stored right after the form
            time.sleep(0.1)
        return str(answer.raise_for_status().json())

    def start_and_wait(self, findings: Sequence[Finding | str], *, policy: str = "") -> str:
        """Start a run and wait until it is suspended; returns its id."""
        run_id = self.start(findings, policy=policy)
        self.wait_until_suspended(run_id)
        return run_id

    def answer(self, run_id: str, *, decision: str = "approve", **fields: str) -> str:
        """Press Resume with these fields; ACCEPT, or the words of the refusal."""
        answer = {"decision": decision, "approver": "Ada Lovelace", **fields}
        return self.api.resume(run_id, answer)

    def approve(self, run_id: str, **fields: str) -> dict[str, Any]:
        """Open the gate as the customer, approve with its code; returns the run's final state."""
        gate = self.open_gate(run_id)
        try:
            assert self.answer(run_id, code=gate.code, **fields) == "ACCEPT"
            return self.end(run_id)
        finally:
            gate.close()

    def end(self, run_id: str, *, seconds: float = SECONDS) -> dict[str, Any]:
        """Wait for a run's end; returns its state: type, name, message."""
        return self.api.wait([run_id], seconds=seconds)[run_id]

    # --- the customer --------------------------------------------------------------------------

    def open_gate(self, run_id: str, *, minutes: int = 10) -> Gate:
        """`suture gate open`, run with the customer's own credentials, for what a run waits for."""
        account = self.rows(run_id)[0].account
        child = self.stack.customer_child(
            f"gate-{account}-{len(self._gates)}",
            *("gate", "open", account, "--minutes", str(minutes)),
            *("--run", run_id, "--format", "json"),
        )
        gate = Gate(str(json.loads(child.first_line(seconds=SECONDS))["code"]), child)
        self.codes.add(gate.code)
        self._gates.append(gate)
        return gate

    def customer(self, *arguments: str) -> str:
        """Run a `suture` verb to its end as the customer; returns the first line it prints."""
        child = self.stack.customer_child("customer", *arguments)
        return child.first_line(seconds=SECONDS)

    # --- the clouds ----------------------------------------------------------------------------

    def now(self, finding: Finding) -> Resource:
        """All of the finding's resource as it is in the cloud now, read as the scanner."""
        with self.warehouse() as warehouse:
            account = account_of(warehouse, finding.cloud, finding.account)

        async def read() -> Resource:
            inventory = load_inventory(Path(self.stack.env["SUTURE_INVENTORY"]))
            async with Scanner(inventory, rules=RULES) as scanner:
                return await scanner.read(
                    account.cloud,
                    account.id,
                    account.source,
                    finding.kind,
                    finding.resource,
                    finding.region,
                )

        with mock.patch.dict(os.environ, self.stack.env):
            return asyncio.run(read())


@pytest.fixture(scope="session")
def fleet_api(stack: Stack) -> Iterator[PrefectApi]:
    api = PrefectApi(stack.api_url)
    yield api
    api.close()


@pytest.fixture(scope="session")
def scanned(stack: Stack, fleet_api: PrefectApi) -> str:
    """The id of a fleet scan that has been run through Prefect's API, without triage after it."""
    run_id = fleet_api.start("scan-fleet/nightly", {"hand_to_triage": False, "request_seconds": 3})
    state = fleet_api.wait([run_id], seconds=120)[run_id]
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state
    return run_id


@pytest.fixture(scope="session")
def fleet(stack: Stack, fleet_api: PrefectApi, scanned: str) -> ScannedFleet:
    """The fleet after its first scan."""
    return ScannedFleet(stack, fleet_api)
