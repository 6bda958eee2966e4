"""`suture gate`: which account is meant, where the seed is, and a gate that opens and closes."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pyotp
import pytest

from deployments.gate import _account, _seed, _waiting_resources, enroll
from deployments.local.children import Child
from deployments.local.stack import Stack
from tasks.errors import BadInput
from tasks.inventory import Inventory, parse_inventory
from tasks.model import Account, Cloud

ONE, TWO = "111122223333", "444455556666"
SUBSCRIPTION = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
INVENTORY = f"""\
suture: 1
aws:
  - name: plain
    accounts: ["{ONE}"]
    regions: [eu-central-1]
    external_id: {SUBSCRIPTION}
  - name: whole
    organization: true
    management_account: "{TWO}"
    regions: [eu-central-1]
    external_id: {SUBSCRIPTION}
azure:
  - name: contoso
    tenant: 7f9619ff-8b86-4d01-b42d-00cf4fc964ff
    client_id: 8f9619ff-8b86-4d01-b42d-00cf4fc964ff
    client_secret_env: NAME
    subscriptions: [{SUBSCRIPTION}]
"""


@pytest.fixture(scope="module")
def inventory() -> Inventory:
    return parse_inventory(INVENTORY)


def test_an_account_is_found_in_the_entry_that_may_hold_it(inventory: Inventory) -> None:
    assert _account(inventory, TWO, "") == Account(Cloud.AWS, TWO, source="whole")
    assert _account(inventory, f" {SUBSCRIPTION.upper()} ", "") == Account(
        Cloud.AZURE, SUBSCRIPTION, source="contoso"
    )


def test_an_account_of_several_entries_needs_its_source_named(inventory: Inventory) -> None:
    with pytest.raises(BadInput, match=r"2 entries of the inventory \(plain, whole\).*--source"):
        _account(inventory, ONE, "")
    assert _account(inventory, ONE, "plain").source == "plain"
    with pytest.raises(BadInput, match="0 entries"):
        _account(inventory, ONE, "contoso")
    with pytest.raises(BadInput, match="0 entries"):
        _account(inventory, "not-an-account", "")


def test_a_seed_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file = tmp_path / "seed"
    address = enroll(file, "prod")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    seed = _seed(file).get_secret_value()
    assert pyotp.parse_uri(address).secret == seed
    assert "prod" in address
    with pytest.raises(BadInput, match="exists"):
        enroll(file, "prod")
    assert _seed(file).get_secret_value() == seed


def test_a_seed_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="SUTURE_GATE_SEED_FILE"):
        _seed(None)
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        _seed(tmp_path / "none")


@pytest.mark.slow
def test_azure_needs_to_know_the_resources_and_aws_does_not(
    conn: psycopg.Connection, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SUTURE_WAREHOUSE_URL", raising=False)
    assert _waiting_resources(Account(Cloud.AWS, ONE), []) == []  # without a warehouse
    monkeypatch.setenv("SUTURE_WAREHOUSE_URL", warehouse_url)
    with pytest.raises(BadInput, match="nothing waits for approval"):
        _waiting_resources(Account(Cloud.AZURE, SUBSCRIPTION), [])


# --- the command, as the emulated customer runs it ---------------------------------------------


def customer(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployments.cli", "gate", *arguments],
        env=stack.customer_env,
        capture_output=True,
        text=True,
        check=False,
    )


def status(stack: Stack, account: str) -> dict[str, Any]:
    done = customer(stack, "status", account, "--format", "json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_a_gate_on_aws_opens_says_its_code_once_and_closes(stack: Stack) -> None:
    account = stack.fleet["aws"]["organization"]["management_account"]
    done = customer(stack, "open", account, "--minutes", "2", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = done.stdout.splitlines()
    opened = json.loads(line)
    assert re.fullmatch(r"\d{6}", opened["code"])
    now = status(stack, account)
    assert now["open"] is True
    assert opened["code"] not in json.dumps(now)
    assert customer(stack, "close", account).stdout == f"The gate of {account} is closed.\n"
    assert status(stack, account)["open"] is False


@pytest.mark.slow
def test_a_gate_on_azure_stays_and_closes_when_it_is_interrupted(
    stack: Stack, tmp_path: Path
) -> None:
    truth = json.loads(Path(stack.fleet["truth"]).read_text())["findings"]
    found = next(one for one in truth if one["cloud"] == "azure")
    gate = Child(
        "gate",
        [
            *(sys.executable, "-m", "deployments.cli", "gate", "open", found["account"]),
            *("--resource", found["resource"], "--minutes", "5", "--format", "json"),
        ],
        stack.customer_env,
        tmp_path / "log",
        pipe=True,
    )
    try:
        opened = json.loads(gate.first_line(seconds=90))
        assert opened["resources"] == [found["resource"]]
        assert gate.running
        assert status(stack, found["account"])["open"] is True
        os.kill(gate.process.pid, signal.SIGTERM)
        assert gate.process.wait(30) == 0
    finally:
        gate.stop()
    assert status(stack, found["account"])["open"] is False


@pytest.mark.slow
def test_without_the_customers_credentials_the_gate_is_not_opened(stack: Stack) -> None:
    account = stack.fleet["aws"]["organization"]["management_account"]
    mine: Mapping[str, str] = {
        **stack.customer_env,
        "AWS_ACCESS_KEY_ID": stack.env["SUTURE_HUB_ACCESS_KEY_ID"],
        "AWS_SECRET_ACCESS_KEY": stack.env["SUTURE_HUB_SECRET_ACCESS_KEY"],
    }
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "gate", "open", account],
        env=dict(mine),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "AccessDenied" in line
    assert stack.env["SUTURE_HUB_SECRET_ACCESS_KEY"] not in line
    assert time.monotonic() - begun < 30
