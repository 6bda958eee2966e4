"""A hundred approvals, and then every byte: no code, key, token, seed or secret is anywhere.

The answers go through the real guard to real remediation runs: right, wrong (asked again), not well
formed, sixteen at once, too late, denied, approved where the change then fails, and approved where
the run is killed while it writes. What runs under a policy has machine codes besides.

Six digits do stand somewhere by chance. So two thousand codes that nobody typed are looked for in
the same way: what they show is what chance does, and it must be next to nothing for the search to
prove anything. And the search itself is proved: what is planted, it finds.

The numbers: eight real runs, one of them by policy. Of the hundred answers eleven are accepted and
read by their runs; the guard turns away 40 that are not well formed, 30 that lose a race, and 19
that come too late.
"""

from __future__ import annotations

import base64
import json
import os
import random
import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pyotp
import pytest
from pydantic import SecretStr

from deployments.local.at_rest import Secrets, codes_in, files_below, rows_of
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.gate import CustomerCredentials, close_gate, open_gate
from tasks.inventory import load_inventory
from tasks.model import Cloud
from tasks.warehouse.database import connect
from tasks.warehouse.findings import account_of

# The first to use the stack waits for it to start and to be scanned as well.
pytestmark = [pytest.mark.slow, pytest.mark.attack, pytest.mark.timeout(600)]

AWS_SSH = "aws_ec2_security_group_ssh_not_open"
AZURE_SSH = "azure_network_security_group_ssh_not_open"
VERSIONING = "aws_s3_bucket_versioning_enabled"
TLS_ONLY = "aws_s3_bucket_tls_only"
EBS = "aws_ec2_ebs_encrypted_by_default"
APPROVALS = 100
NEVER_TYPED = 2_000
DATABASES = ("prefect", "warehouse")


class Approver:
    """Answers waiting runs, and remembers every code that it typed."""

    def __init__(self, fleet: Any) -> None:
        self.fleet = fleet
        self.typed: dict[str, str] = {}  # code -> how it was typed
        self.outcomes: Counter[str] = Counter()
        self.control, self._fresh = unseen_codes(fleet)

    def wrong(self, how: str) -> str:
        """A code that opens no gate, typed in no other place, and that stands nowhere yet."""
        code = self.unused()
        self.typed[code] = how
        return code

    def unused(self) -> str:
        """A code that stands nowhere, and that nobody types."""
        return self._fresh.pop()

    def answer(self, run_id: str, how: str, *, code: str = "", **fields: str) -> str:
        """Answer a run; ACCEPT, or the words of the refusal."""
        said = str(self.fleet.answer(run_id, code=code or self.wrong(how), **fields))
        self.outcomes[f"{how}: {'accepted' if said == 'ACCEPT' else 'refused'}"] += 1
        return said

    def approve(self, run_id: str, how: str, code: str) -> None:
        """Approve with the code of a gate that is open."""
        self.typed[code] = how
        assert self.answer(run_id, how, code=code) == "ACCEPT"


def unseen_codes(fleet: Any) -> tuple[set[str], list[str]]:
    """Codes to be typed never and codes to be typed, none of which stands anywhere yet.

    They begin with a zero, as no number of bytes or milliseconds in some log does.
    """
    drawn = random.SystemRandom().sample(range(10**5), NEVER_TYPED + 4 * APPROVALS)
    codes = {f"{number:06d}" for number in drawn}
    for _, content in everything(fleet):
        codes -= {hit.secret for hit in codes_in(content, codes)}
    unseen = list(codes)
    random.SystemRandom().shuffle(unseen)
    return set(unseen[:NEVER_TYPED]), unseen[NEVER_TYPED:]


@contextmanager
def gate_of(fleet: Any, run_id: str) -> Iterator[str]:
    """An AWS account's gate, opened by a customer who has a seed for it alone; gives its code."""
    inventory = load_inventory(Path(fleet.stack.env["SUTURE_INVENTORY"]))
    keys = fleet.stack.fleet["aws"]["customer"]
    customer = CustomerCredentials(
        aws=AwsCredentials(keys["access_key_id"], keys["secret_access_key"])
    )
    with fleet.warehouse() as warehouse:
        account = account_of(warehouse, Cloud.AWS, fleet.rows(run_id)[0].account)
    name, seed = run_id.replace("-", ""), pyotp.random_base32()
    while not pyotp.TOTP(seed).now().startswith("0"):  # see unseen_codes
        seed = pyotp.random_base32()
    opened = open_gate(inventory, account, seed=SecretStr(seed), opening=name, customer=customer)
    try:
        yield opened.code.get_secret_value()
    finally:
        close_gate(inventory, account, opening=name, customer=customer)


def everything(fleet: Any) -> Iterator[tuple[str, bytes]]:
    """Every file of the stack and every row of both its databases, as they are now."""
    fleet.stack.write_everything_out()
    for path, content in files_below(fleet.stack.dir):
        yield str(path.relative_to(fleet.stack.dir)), content
    for name in DATABASES:
        with connect(fleet.stack.postgres.url(name, role="postgres")) as database:
            for table, row in rows_of(database):
                yield f"{name}: {table}", row


# --- a hundred approvals -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def approver(fleet: Any) -> Approver:
    """The approver after a hundred answers, and all runs at their ends."""
    approver = Approver(fleet)
    right = [fleet.start(fleet.take(AWS_SSH)), fleet.start(fleet.take(AZURE_SSH))]
    asked = fleet.start(fleet.take(VERSIONING))
    raced = fleet.start(fleet.take(TLS_ONLY))
    denied = fleet.start(fleet.take(VERSIONING))
    failing = fleet.start(fleet.take(AWS_SSH))
    killed = fleet.start(fleet.take(AWS_SSH))
    by_policy = fleet.start(fleet.take(EBS), policy="encrypt-new-volumes")
    for run_id in (*right, asked, raced, denied, failing, killed):
        fleet.wait_until_suspended(run_id)

    break_the_write(fleet, failing, "RAISE EXCEPTION 'no room'")
    break_the_write(fleet, killed, "PERFORM pg_sleep(60)")
    with ExitStack() as gates:
        by_hand = (failing, killed, raced, asked)
        codes = {run_id: gates.enter_context(gate_of(fleet, run_id)) for run_id in by_hand}
        approver.approve(failing, "failing", codes[failing])
        approver.approve(killed, "killed", codes[killed])
        at_once(approver, raced)
        assert approver.answer(asked, "wrong") == "ACCEPT"
        for run_id in right:
            gate = fleet.open_gate(run_id)  # `suture gate open`, in a process of its own
            gates.callback(gate.close)
            approver.approve(run_id, "right", gate.code)
        not_well_formed(approver, denied)
        assert approver.answer(denied, "denied", decision="deny") == "ACCEPT"
        kill_while_it_writes(fleet, killed)
        for run_id in (raced, asked):
            wait_for_round(fleet, run_id, 2)
        at_once(approver, raced)
        assert approver.answer(asked, "wrong") == "ACCEPT"
        for run_id, how in ((raced, "after a race"), (asked, "after wrong ones")):
            wait_for_round(fleet, run_id, 3)
            approver.approve(run_id, how, codes[run_id])
        while approver.outcomes.total() < APPROVALS:
            assert "not paused" in approver.answer(denied, "too late")
        for run_id, name in (
            *((run_id, "Remediated") for run_id in (*right, raced, asked, by_policy)),
            (failing, "Failed"),
            (denied, "Denied"),
        ):
            state = fleet.end(run_id)
            assert state["name"] == name, state
    return approver


def break_the_write(fleet: Any, run_id: str, how: str) -> None:
    """Have the database do ``how`` when this run writes down that it begins to change something."""
    name = "broken_" + run_id.replace("-", "")
    with fleet.warehouse() as warehouse:
        warehouse.execute(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN IF NEW.run_id = '{run_id}' AND NEW.state = 'applying' THEN {how}; END IF; "
            "RETURN NEW; END $$"
        )
        warehouse.execute(
            f"CREATE TRIGGER {name} BEFORE UPDATE ON remediations "
            f"FOR EACH ROW EXECUTE FUNCTION {name}()"
        )


def not_well_formed(approver: Approver, run_id: str) -> None:
    """Answers that the guard refuses, each with a code of its own somewhere in it."""
    url = f"{approver.fleet.stack.api_url}/flow_runs/{run_id}"
    how = "not well formed"
    for _ in range(5):
        assert "exactly 6 digits" in approver.answer(run_id, how, code=approver.wrong(how) + "7")
        assert approver.answer(run_id, how, leave_out="12") != "ACCEPT"
        assert approver.answer(run_id, how, decision="aprove") != "ACCEPT"
        assert approver.answer(run_id, how, code="none", approver=approver.wrong(how)) != "ACCEPT"
        code = approver.wrong(how)
        for path, body in (
            ("resume", {"run_input": {"decision": "approve", "code": int(code)}}),
            ("resume", {"run_input": code}),
            ("input", {"key": "suspended-approval-1-response", "value": code}),
            ("set_state", {"state": {"type": "RUNNING", "message": code}}),
        ):
            assert httpx.post(f"{url}/{path}", json=body, trust_env=False).is_client_error
            approver.outcomes[f"{how}: refused"] += 1
        text = f"code={code}".encode()
        assert httpx.post(f"{url}/resume", content=text, trust_env=False).is_client_error


def at_once(approver: Approver, run_id: str) -> None:
    with ThreadPoolExecutor(16) as pool:
        said = list(pool.map(lambda _: approver.answer(run_id, "at once"), range(16)))
    assert said.count("ACCEPT") == 1, said


def wait_for_round(fleet: Any, run_id: str, number: int) -> None:
    deadline = time.monotonic() + 90
    key = f"suspended-approval-{number}-schema"
    while True:
        fleet.wait_until_suspended(run_id)
        keys = fleet.api.state(run_id)["state_details"].get("run_input_keyset") or {}
        if keys.get("schema") == key:
            return
        assert time.monotonic() < deadline
        time.sleep(0.25)


def kill_while_it_writes(fleet: Any, run_id: str) -> None:
    """SIGKILL to the run's process, which has its code in memory and waits for the database."""
    deadline = time.monotonic() + 90
    with fleet.warehouse() as warehouse:
        while not (
            found := warehouse.execute(
                "SELECT client_port FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
            ).fetchone()
        ):
            assert time.monotonic() < deadline, "it never came to write"
            time.sleep(0.05)
    process = process_at(found[0], fleet.stack.postgres.port)
    assert soft_limit(process, "Max core file size") == 0
    assert writes_elsewhere(process, fleet.stack.dir) == []
    os.kill(process, signal.SIGKILL)
    with fleet.warehouse() as warehouse:
        warehouse.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        )
    state = fleet.end(run_id)
    assert state["type"] == "CRASHED", state


def process_at(port: int, server: int) -> int:
    """The process whose TCP connection goes from this local port to this port of a server.

    Connections to other servers may go out from the same local port.
    """
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        parts = line.split()
        if [int(end.rpartition(":")[2], 16) for end in parts[1:3]] == [port, server]:
            wanted = f"socket:[{parts[9]}]"
            for link in Path("/proc").glob("[0-9]*/fd/*"):
                try:
                    if os.readlink(link) == wanted:
                        return int(link.parts[2])
                except OSError:
                    continue
    raise AssertionError(f"no process has a connection from port {port} to {server}")


def soft_limit(process: int, name: str) -> int:
    for line in Path(f"/proc/{process}/limits").read_text().splitlines():
        if line.startswith(name):
            value = line.removeprefix(name).split()[0]
            return resource.RLIM_INFINITY if value == "unlimited" else int(value)
    raise AssertionError(name)


def writes_elsewhere(process: int, folder: Path) -> list[str]:
    """Files outside of ``folder`` that a process has open for writing."""
    found = []
    for link in Path(f"/proc/{process}/fd").iterdir():
        described = Path(f"/proc/{process}/fdinfo/{link.name}").read_text()
        flags = described.partition("flags:")[2].split()[0]
        target = os.readlink(link)
        regular = target.startswith("/") and not target.startswith(("/dev/", "/proc/", "/memfd:"))
        if regular and int(flags, 8) & os.O_ACCMODE and not target.startswith(str(folder)):
            found.append(target)
    return found


# --- every byte --------------------------------------------------------------------------------


def test_no_code_that_was_typed_is_anywhere(fleet: Any, approver: Approver) -> None:
    assert approver.outcomes.total() >= APPROVALS
    assert len(approver.typed) >= APPROVALS - 20, "too many shared a code"
    assert {row.state for row in approver_rows(fleet, approver)} >= {"remediated", "failed"}
    codes = approver.typed.keys() | approver.control
    found: dict[str, list[str]] = {}
    searched = 0
    for place, content in everything(fleet):
        searched += len(content)
        for hit in codes_in(content, codes):
            found.setdefault(hit.secret, []).append(f"{place} ({hit.encoding})")
    by_chance = found.keys() & approver.control
    assert len(by_chance) <= NEVER_TYPED / 200, f"{len(by_chance)} by chance proves nothing"
    leaked = {approver.typed[code]: found[code] for code in found.keys() & approver.typed.keys()}
    assert searched > 10_000_000
    assert leaked == {}


def approver_rows(fleet: Any, approver: Approver) -> list[Any]:
    assert approver.typed
    with fleet.warehouse() as warehouse:
        runs = warehouse.execute("SELECT DISTINCT run_id FROM remediations").fetchall()
    return [row for (run_id,) in runs for row in fleet.rows(run_id)]


def test_no_secret_is_anywhere_but_with_the_clouds_and_the_customer(
    fleet: Any, approver: Approver
) -> None:
    wanted = Secrets(named_secrets(fleet))
    theirs = ("clouds/", "policies.yaml")
    wallets = (*WITH_PASSWORDS, "customer")  # the script that runs as the customer, with their keys
    hits = []
    for place, content in everything(fleet):
        if not place.startswith(theirs) and place not in wallets:
            hits += [(place, hit.secret, hit.encoding) for hit in wanted.found_in(content)]
    assert hits == []
    assert not any(path.name.startswith("core") for path in Path.cwd().iterdir())


WITH_PASSWORDS = ("postgres/passwords.json",)  # the database's own, readable by its owner


def named_secrets(fleet: Any) -> dict[str, str]:
    """Every secret of the stack, with what it is: its own, the customer's, and all handed out."""
    aws, azure = fleet.stack.fleet["aws"], fleet.stack.fleet["azure"]
    named = {
        aws["hub"]["secret_access_key"]: "the hub's secret access key",
        aws["customer"]["secret_access_key"]: "the customer's secret access key",
        azure["scanner"]["client_secret"]: "the scanner's client secret",
        azure["customer"]["client_secret"]: "the customer's client secret",
        Path(fleet.stack.fleet["customer_seed_file"]).read_text(): "the customer's seed",
        fleet.stack.env["SUTURE_GUARD_KEY"]: "the guard key",
        pem_body(Path(fleet.stack.fleet["issuer"]["key_file"]).read_text()): "the issuer's key",
    }
    written = Path(os.environ["SUTURE_LOCAL_ISSUED"]).read_text()
    issued = [json.loads(line) for line in written.splitlines()]
    kinds = Counter(kind for kind, _ in issued)
    assert {"secret access key", "session token", "access token", "machine code"} <= kinds.keys()
    for kind, secret in issued:
        # The signature is what makes a token one; what it says begins as every other does.
        named[secret.rpartition(".")[2]] = f"an issued {kind}"
    return named


def pem_body(pem: str) -> str:
    return "".join(pem.splitlines()[3:5])


# --- the search finds what is planted ----------------------------------------------------------


def in_a_log(fleet: Any, code: str) -> None:
    (fleet.stack.logs / "planted.log").write_text(f"12:00:00.123 | INFO | approved with {code}\n")


def in_a_temporary_file(fleet: Any, code: str) -> None:
    planted = base64.b64encode(json.dumps({"decision": "approve", "code": code}).encode())
    (fleet.stack.dir / "tmp" / "planted").write_bytes(planted)


def in_prefects_log(fleet: Any, code: str) -> None:
    record = {
        "name": "planted",
        "level": 20,
        "message": f"answer: {{'code': '{code}'}}",
        "timestamp": "2026-01-01T00:00:00Z",
    }
    httpx.post(f"{fleet.stack.api_url}/logs/", json=[record], trust_env=False).raise_for_status()


def in_an_artifact(fleet: Any, code: str) -> None:
    artifact = {"key": "planted", "data": f"external id {code.encode().hex()}"}
    httpx.post(
        f"{fleet.stack.api_url}/artifacts/", json=artifact, trust_env=False
    ).raise_for_status()


def in_a_deleted_row(fleet: Any, code: str) -> None:
    with psycopg.connect(
        fleet.stack.postgres.url("prefect", role="postgres"), autocommit=True
    ) as database:
        database.execute("CREATE TABLE planted (answer text)")
        database.execute("INSERT INTO planted VALUES (%s)", (json.dumps({"code": code}),))
        database.execute("DELETE FROM planted")
        database.execute("DROP TABLE planted")


def in_an_address(fleet: Any, code: str) -> None:
    quoted = "".join(f"%3{digit}" for digit in code)
    (fleet.stack.logs / "planted-address.log").write_text(f"GET /?ExternalId={quoted}&x=1\n")


PLANTS = (
    in_a_log,
    in_a_temporary_file,
    in_prefects_log,
    in_an_artifact,
    in_a_deleted_row,
    in_an_address,
)


def test_planted_codes_are_found(fleet: Any, approver: Approver) -> None:
    """Any one of these leaks would fail the test above."""
    planted = {plant: approver.unused() for plant in PLANTS}
    for plant, code in planted.items():
        plant(fleet, code)
    deadline = time.monotonic() + 30  # Prefect writes its logs a moment later
    while missing := set(planted.values()) - found_codes(fleet, set(planted.values())):
        assert time.monotonic() < deadline, [
            plant.__name__ for plant, code in planted.items() if code in missing
        ]


def found_codes(fleet: Any, codes: set[str]) -> set[str]:
    return {hit.secret for _, content in everything(fleet) for hit in codes_in(content, codes)}


@pytest.mark.parametrize("write", [str.encode, lambda key: base64.b64encode(b"a:" + key.encode())])
def test_a_planted_secret_is_found(
    fleet: Any, approver: Approver, write: Callable[[str], bytes]
) -> None:
    assert approver.typed  # all that it was about has been handed out
    named = named_secrets(fleet)
    wanted = Secrets(named)
    for secret in named:
        content = os.urandom(50) + write(secret) + os.urandom(50)
        assert list(wanted.found_in(content)), "a secret that cannot be found"
