"""The full way on other servers than the demo's: behind a password and a sign-in, and unguarded.

Each has a Prefect database of its own; the fleet, its customer and the warehouse are the shared
stack's.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import psycopg
import pytest
from prefect import get_client
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

from deployments.local.at_rest import bytes_in_files
from deployments.local.children import Child, free_port
from deployments.local.postgres import EmbeddedPostgres
from flows.remediate import remediate

# The first to use the stack waits for it to start and to be scanned as well.
pytestmark = [pytest.mark.slow, pytest.mark.attack, pytest.mark.timeout(600)]

AWS_SSH = "aws_ec2_security_group_ssh_not_open"
VERSIONING = "aws_s3_bucket_versioning_enabled"
PASSWORD = "suture:a long password"
POLICIES = """
suture: 1
policies:
  - name: buckets
    match: {rule: aws_s3_bucket_versioning_enabled}
    mode: assisted
    approvals: {two_from: low, not_requester: true, approvers: ["*@example.org"]}
"""
SECONDS = 90


@dataclass
class Other:
    """A Prefect server of its own: its address, its database, and the environment to use it."""

    api: str
    env: dict[str, str]
    postgres: EmbeddedPostgres
    folder: Path
    http: httpx.Client

    def child(self, name: str, *command: str) -> Child:
        return Child(name, [sys.executable, "-m", *command], self.env, self.folder / f"{name}.log")

    def server(self, *command: str) -> Child:
        """Start a server and wait until it answers."""
        started = self.child(f"server-{time.monotonic()}", *command)
        try:
            started.wait_until(self.answers, seconds=SECONDS)
        except BaseException:
            started.stop()
            raise
        return started

    def answers(self) -> bool:
        try:
            return self.http.get("/health").is_success
        except httpx.TransportError:
            return False

    def run(self, run_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"/flow_runs/{run_id}").json()
        return found

    def waits(self, run_id: str, key: str) -> str:
        """Wait until the run waits with its form ``key`` stored; returns the page above it."""
        deadline = time.monotonic() + SECONDS
        while True:
            state = self.run(run_id)["state"]
            if state["type"] == "PAUSED":
                page = self.http.get(f"/flow_runs/{run_id}/input/suspended-{key}-description")
                if page.is_success:
                    return str(page.json())
            assert state["type"] not in {"FAILED", "CRASHED", "COMPLETED"}, state
            assert time.monotonic() < deadline, state
            time.sleep(0.25)

    def ends(self, run_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + SECONDS
        while (state := self.run(run_id)["state"])["type"] not in {
            "FAILED",
            "CRASHED",
            "COMPLETED",
        }:
            assert time.monotonic() < deadline, state
            time.sleep(0.25)
        return dict(state)

    def resume(self, run_id: str, who: str = "", **fields: str) -> httpx.Response:
        answer = {"decision": "approve", "approver": "Somebody", **fields}
        headers = {"X-Forwarded-User": who} if who else {}
        path = f"/flow_runs/{run_id}/resume"
        return self.http.post(path, json={"run_input": answer}, headers=headers)


@contextmanager
def other_server(fleet: Any, extra: Mapping[str, str], *, base: str = "/api") -> Iterator[Other]:
    folder = Path(tempfile.mkdtemp(prefix="suture-other-"))
    folder.chmod(0o755)
    port = free_port()
    api = f"http://127.0.0.1:{port}{base}"
    password = extra.get("PREFECT_SERVER_API_AUTH_STRING", "")
    auth = tuple(password.split(":", 1)) if password else None
    try:
        with (
            EmbeddedPostgres(folder / "postgres", databases=("prefect",)) as postgres,
            httpx.Client(base_url=api, auth=auth, timeout=30, trust_env=False) as http,  # type: ignore[arg-type]
        ):
            env = {
                **fleet.stack.env,
                "PREFECT_HOME": str(folder / "home"),
                "PREFECT_API_URL": api,
                "PREFECT_UI_API_URL": api,
                "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
                "PREFECT_API_DATABASE_CONNECTION_URL": postgres.url("prefect", driver="asyncpg"),
                **extra,
            }
            yield Other(api, env, postgres, folder, http)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def port_of(other: Other) -> str:
    return str(httpx.URL(other.api).port)


def test_the_full_way_behind_a_password_and_a_sign_in(fleet: Any, tmp_path: Path) -> None:
    """Server, served runs, form, two people, code, gate, fix: with everything that can be set."""
    policies = tmp_path / "policies.yaml"
    policies.write_text(POLICIES)
    extra = {
        "PREFECT_SERVER_API_AUTH_STRING": PASSWORD,
        "PREFECT_API_AUTH_STRING": PASSWORD,
        "PREFECT_SERVER_API_BASE_PATH": "/base/api",
        "SUTURE_APPROVER_HEADER": "X-Forwarded-User",
        "SUTURE_GUARD_KEY": "another key than the other server has",
        "SUTURE_POLICIES": str(policies),
    }
    (finding,) = fleet.take(VERSIONING)
    with other_server(fleet, extra, base="/base/api") as other:
        server = other.server("deployments.cli", "server", "--port", port_of(other))
        serving = other.child("serve", "deployments.cli", "serve")
        try:
            serving.wait_until(
                lambda: other.http.get("/deployments/name/remediate/remediate").is_success,
                seconds=SECONDS,
            )
            approve_in_two_steps(fleet, other, finding)
        finally:
            serving.stop()
            server.stop()
        assert PASSWORD not in server.log.read_text() + serving.log.read_text()
        assert bytes_in_files(other.folder, fleet.codes) == 0


def approve_in_two_steps(fleet: Any, other: Other, finding: Any) -> None:
    deployment = other.http.get("/deployments/name/remediate/remediate").json()["id"]
    created = other.http.post(
        f"/deployments/{deployment}/create_flow_run",
        json={"parameters": {"finding_ids": [finding.id], "requested_by": "nobody"}},
        headers={"X-Forwarded-User": "ada@example.org"},
    )
    run_id = created.json()["id"]
    page = other.waits(run_id, "approval-1")
    assert "Asked for by `ada@example.org`" in page
    assert "Two people must approve" in page
    for who, words in (
        ("", "only through the sign-in proxy"),
        ("Ada@example.org", "Who asked for these changes cannot approve them"),
        ("eve@elsewhere.org", "You are not among those who may approve"),
    ):
        refused = other.resume(run_id, who)
        assert refused.status_code == 403
        assert words in refused.json()["detail"]
    assert other.resume(run_id, "grace@example.org").json()["status"] == "ACCEPT"
    assert "Approved already by `grace@example.org` (verified)" in other.waits(run_id, "approval-2")
    gate = fleet.open_gate(run_id)
    try:
        again = other.resume(run_id, "grace@example.org", code=gate.code)
        assert "You have approved this already" in again.json()["detail"]
        second = other.resume(run_id, "hopper@example.org", code=gate.code)
        assert second.json()["status"] == "ACCEPT"
        state = other.ends(run_id)
    finally:
        gate.close()
    assert (state["type"], state["name"]) == ("COMPLETED", "Remediated"), state
    (row,) = fleet.rows(run_id)
    assert (row.approver, row.approver_verified) == ("grace@example.org, hopper@example.org", True)
    assert row.requested_by == "ada@example.org"
    approved = [who for action, who in fleet.audit(row.id) if action == "approved"]
    assert approved == ["grace@example.org", "hopper@example.org"]


def test_a_stopped_guard_lets_nothing_through_and_off_says_what_it_leaves(fleet: Any) -> None:
    """`prefect server` on the database of a run that waits: first refused, then as configured."""
    (finding,) = fleet.take(AWS_SSH)
    before = fleet.now(finding).fingerprint
    with other_server(fleet, {}) as other:
        guarded = other.server("deployments.cli", "server", "--port", port_of(other))
        try:
            run_id = first_part(other, finding)
            assert other.resume(run_id, code="12345").status_code == 422
        finally:
            guarded.stop()
        plain = other.server("prefect", "server", "start", "--port", port_of(other))
        try:
            gate = fleet.open_gate(run_id)
            assert other.resume(run_id, code=gate.code).is_success  # nobody is in the way
            assert next_part(other, run_id, {}) is None
            page = other.waits(run_id, "approval-2")
            assert "did not come through suture server" in page
            assert fleet.now(finding).fingerprint == before
            assert fleet.finding(finding.id).status == "open"
            assert answers_in_prefect(other, run_id) == []

            assert other.resume(run_id, code=gate.code).is_success
            state = next_part(other, run_id, {"SUTURE_GUARD": "off"})
            assert state is not None
            assert (state.type, state.name) == ("COMPLETED", "Remediated"), state
            gate.close()
            assert answers_in_prefect(other, run_id) == []
            left_at_rest(other, gate.code)
        finally:
            plain.stop()
        assert gate.code not in plain.log.read_text()


def first_part(other: Other, finding: Any) -> str:
    """Run a remediation in this process, until it waits."""
    settings = {PREFECT_API_URL: other.api, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        deployment = client.create_deployment(client.create_flow(remediate), "remediate")
        parameters = {"finding_ids": [finding.id]}
        run = client.create_flow_run_from_deployment(deployment, parameters=parameters)
    assert next_part(other, str(run.id), {}) is None
    other.waits(str(run.id), "approval-1")
    return str(run.id)


def next_part(other: Other, run_id: str, env: Mapping[str, str]) -> Any:
    """What a worker would do with a run that was resumed: its final state, None if it waits."""
    settings = {PREFECT_API_URL: other.api, PREFECT_LOGGING_TO_API_ENABLED: False}
    with (
        temporary_settings(settings),
        mock.patch.dict(os.environ, {**other.env, **env}),
        get_client(sync_client=True) as client,
    ):
        try:
            return run_flow(remediate, flow_run=client.read_flow_run(run_id), return_type="state")
        except Pause:
            return None


def answers_in_prefect(other: Other, run_id: str) -> list[str]:
    kept = other.http.post(f"/flow_runs/{run_id}/input/filter", json={"prefix": ""}).json()
    return [one["key"] for one in kept if one["key"].endswith("-response")]


def left_at_rest(other: Other, code: str) -> None:
    """What README says of a server without the guard: gone from the rows, not from the files."""
    data = other.postgres.data_dir / "cluster"
    with psycopg.connect(
        other.postgres.url("prefect", role="postgres"), autocommit=True
    ) as database:

        def left(folder: str) -> int:
            database.execute("CHECKPOINT")
            return bytes_in_files(data / folder, {code})

        assert left("base") > 0, "a deleted row leaves nothing: README can promise more"
        assert left("pg_wal") > 0
        database.execute("VACUUM FULL flow_run_input")
        assert left("base") == 0
        database.execute("SELECT pg_switch_wal()")
        assert left("pg_wal") > 0, "until it is written over or removed, as README says"
