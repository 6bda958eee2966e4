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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pyotp
import pytest
from pydantic import SecretStr

from deployments import gate as gate_module
from deployments.gate import (
    WHOLE_ACCOUNT,
    _account,
    _reach,
    _seed,
    _waiting_resources,
    enroll,
    open_by_hand,
)
from deployments.local.children import Child
from deployments.local.stack import Stack
from tasks.clouds.gate import OpenGate
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


def test_aws_is_not_said_to_open_for_less_than_the_account() -> None:
    for runs, resources in (([], []), (["run"], []), ([], ["arn:aws:s3:::one"])):
        scopes, told = _reach(Account(Cloud.AWS, ONE), runs, resources)  # without a warehouse
        assert scopes == []
        assert told == {"scope": WHOLE_ACCOUNT}
    assert _reach(Account(Cloud.AZURE, SUBSCRIPTION), [], ["/x"]) == (["/x"], {"resources": ["/x"]})


# --- opening, without a cloud ------------------------------------------------------------------


@dataclass
class Gate:
    """An account's gate. ``meanwhile`` is what happens while it opens."""

    closes_itself: bool = False
    meanwhile: Callable[[], None] = lambda: None
    openings: list[str] = field(default_factory=list)

    def open(self, *_: object, **__: object) -> OpenGate:
        self.openings.append("Person")
        self.meanwhile()
        until = datetime.now(UTC) + timedelta(minutes=5)
        return OpenGate(SecretStr("123456"), until, self.closes_itself, "Person")

    def close(self, *_: object, opening: str) -> None:
        self.openings.remove(opening)


@pytest.fixture
def opening(
    inventory: Inventory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Gate, Callable[[Mapping[str, Any]], None]], None]:
    """Runs the command's work on a gate, with what is to be done with its answer."""
    seed_file = tmp_path / "seed"
    seed_file.write_text("JBSWY3DPEHPK3PXP")

    def run(gate: Gate, say: Callable[[Mapping[str, Any]], None]) -> None:
        monkeypatch.setattr(gate_module.settings, "inventory_path", lambda: tmp_path)
        monkeypatch.setattr(gate_module, "load_inventory", lambda _: inventory)
        monkeypatch.setattr(gate_module, "open_gate", gate.open)
        monkeypatch.setattr(gate_module, "close_gate", gate.close)
        open_by_hand(
            SUBSCRIPTION,
            minutes=5,
            runs=[],
            resources=["/x"],
            source="",
            seed_file=seed_file,
            say=say,
        )

    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("closes_itself", [False, True])
def test_a_signal_while_it_opens_closes_it_and_tells_no_code(
    opening: Any, number: signal.Signals, closes_itself: bool
) -> None:
    before = signal.getsignal(number)
    gate = Gate(closes_itself, lambda: os.kill(os.getpid(), number))
    told: list[Mapping[str, Any]] = []
    # As a process without our handlers would survive none of these, it has one of the test's.
    signal.signal(number, lambda *_: pytest.fail("nothing noted the signal"))
    try:
        opening(gate, told.append)
    finally:
        signal.signal(number, before)
    assert gate.openings == []
    assert told == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_it_stands_closes_it(opening: Any, number: signal.Signals) -> None:
    gate = Gate()
    begun = time.monotonic()
    opening(gate, lambda _: os.kill(os.getpid(), number))
    assert gate.openings == []
    assert time.monotonic() - begun < 10


def test_a_code_that_cannot_be_told_closes_it(opening: Any) -> None:
    def broken(_: Mapping[str, Any]) -> None:
        raise BrokenPipeError

    gate = Gate()
    with pytest.raises(BrokenPipeError):
        opening(gate, broken)
    assert gate.openings == []


def test_what_closes_itself_is_left_open(opening: Any) -> None:
    gate, told = Gate(closes_itself=True), []
    opening(gate, told.append)
    assert gate.openings == ["Person"]
    assert told[0]["code"] == "123456"


def test_a_process_with_codes_leaves_no_core_dump() -> None:
    script = (
        "import resource, sys; from deployments import gate, warm_runs\n"
        "def done(*_): print(resource.getrlimit(resource.RLIMIT_CORE)); sys.exit()\n"
        "gate.load_inventory = warm_runs.configure_from_env = done\n"
        "gate.settings.inventory_path = lambda: None\n"
    )
    opened = "gate.open_by_hand('', minutes=1, runs=[], resources=[], source='', seed_file=None,"
    for start in (f"{opened} say=print)", "warm_runs.run('', {})"):
        done = subprocess.run(
            [sys.executable, "-c", script + start], capture_output=True, text=True, check=True
        )
        assert done.stdout == "(0, 0)\n"


@pytest.mark.slow
def test_azure_needs_to_know_the_resources(
    conn: psycopg.Connection, warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert opened["scope"] == WHOLE_ACCOUNT
    assert "resources" not in opened
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
