"""prefect.yaml as a team uses it: `prefect deploy --all`, and a process worker elsewhere."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from deployments.local.children import Child
from deployments.local.prefect_api import PrefectApi
from deployments.local.stack import Stack
from tasks.warehouse.database import connect
from tasks.warehouse.scans import latest_scan, posture

pytestmark = pytest.mark.slow

POOL = "a-pool-of-its-own"  # what the fixture ``deployed`` deploys to
PREFECT = str(Path(sys.executable).with_name("prefect"))


def test_a_worker_runs_what_was_deployed_from_any_directory(
    stack: Stack, env: dict[str, str], deployed: dict[str, Any], tmp_path: Path
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
        "scan-share/own-scan-share": 31,
        "triage/own-triage": 1,
        "reconcile/own-reconcile": 1,
        "remediate/own-remediate": 20,
        "restore/own-restore": 5,
        "react/own-react": 8,
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
