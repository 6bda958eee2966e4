"""prefect.yaml as a team uses it: `prefect deploy --all`, and a process worker elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.local.children import Child
from deployments.local.prefect_api import PrefectApi
from deployments.local.stack import Stack
from deployments.serve import PREFECT_YAML
from tasks.warehouse.database import connect
from tasks.warehouse.scans import latest_scan, posture

pytestmark = pytest.mark.slow

POOL = "a-pool-of-its-own"
PREFECT = str(Path(sys.executable).with_name("prefect"))
NAMES = {
    "scan-fleet/own-nightly",
    "triage/own-triage",
    "reconcile/own-reconcile",
    "remediate/own-remediate",
    "restore/own-restore",
    "housekeeping/own-housekeeping",
}


@pytest.fixture
def env(stack: Stack, warehouse_url: str) -> dict[str, str]:
    """Suture's environment, with a warehouse that only this test uses."""
    return {**stack.env, "SUTURE_WAREHOUSE_URL": warehouse_url, "PREFECT_WORKER_QUERY_SECONDS": "1"}


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.api_url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture
def deployed(
    tmp_path: Path, env: dict[str, str], http: httpx.Client
) -> Iterator[dict[str, dict[str, Any]]]:
    """What prefect.yaml deploys, under other names and to another pool than the shared stack's."""
    text = PREFECT_YAML.read_text()
    text = text.replace("    name: suture\n", f"    name: {POOL}\n").replace(
        "  - name: ", "  - name: own-"
    )
    (tmp_path / "prefect.yaml").write_text(text)
    http.post("/work_pools/", json={"name": POOL, "type": "process"}).raise_for_status()
    done = subprocess.run(
        [PREFECT, "--no-prompt", "deploy", "--all"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {name: http.get(f"/deployments/name/{name}").json() for name in NAMES}
    yield found
    for deployment in found.values():
        http.delete(f"/deployments/{deployment['id']}").raise_for_status()
    http.delete(f"/work_pools/{POOL}").raise_for_status()


def test_a_worker_runs_what_was_deployed_from_any_directory(
    stack: Stack, env: dict[str, str], deployed: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    nightly = deployed["scan-fleet/own-nightly"]
    assert nightly["entrypoint"] == "flows.scan.scan_fleet"
    assert not nightly["pull_steps"]
    assert nightly["global_concurrency_limit"]["limit"] == 1
    assert [
        (one["schedule"]["cron"], one["schedule"]["timezone"], one["active"])
        for one in nightly["schedules"]
    ] == [("0 2 * * *", "UTC", True)]
    assert [one["active"] for one in deployed["triage/own-triage"]["schedules"]] == [False]
    limits = {name: one["global_concurrency_limit"]["limit"] for name, one in deployed.items()}
    assert limits == {
        "scan-fleet/own-nightly": 1,
        "triage/own-triage": 1,
        "reconcile/own-reconcile": 1,
        "remediate/own-remediate": 20,
        "restore/own-restore": 5,
        "housekeeping/own-housekeeping": 1,
    }
    assert all("suture" in one["tags"] for one in deployed.values())

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    account = _readable_account(stack)
    api = PrefectApi(stack.api_url)
    here = os.getcwd()
    os.chdir(elsewhere)  # what a child starts in
    try:
        worker = Child(
            "worker",
            [PREFECT, "worker", "start", "--type", "process", "--pool", POOL],
            env,
            tmp_path / "worker.log",
        )
    finally:
        os.chdir(here)
    try:
        run = api.start("scan-fleet/own-nightly", {"accounts": [account], "hand_to_triage": False})
        state = api.wait([run], seconds=90)[run]
        assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), worker.tail(40)
    finally:
        worker.stop()
        api.close()
    with connect(env["SUTURE_WAREHOUSE_URL"]) as warehouse:
        seen = posture(warehouse, latest_scan(warehouse))
    assert seen.accounts["aws"]["covered"] == 1
    assert "failed" not in seen.accounts["aws"]
    assert seen.resources > 0


def _readable_account(stack: Stack) -> str:
    failing = json.loads(Path(stack.fleet["truth"]).read_text())["failing"]
    return next(
        str(one["id"])
        for one in stack.fleet["aws"]["accounts"]
        if one["status"] == "ACTIVE" and one["id"] not in failing
    )
