"""One scan, several flow runs: real workers on a work pool, a simulated fleet, and faults."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Timer
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from ruamel.yaml import YAML

import flows.scan
from deployments.local.children import Child
from deployments.local.postgres import EmbeddedPostgres
from deployments.local.prefect_api import PrefectApi
from deployments.local.stack import Stack
from flows.scan import scan_fleet
from flows.scan_share import scan_share
from tasks import scanning
from tasks.batch import BatchOrder, BatchResult
from tasks.errors import SutureError
from tasks.model import AccountScan
from tasks.sharing import shared
from tasks.warehouse import claims
from tasks.warehouse.database import connect
from tasks.warehouse.scans import latest_scan, load_batch

sys.path.insert(0, str(Path(__file__).parents[1] / "simulator"))  # scripts, not a package

from harness import Simulator, simulator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ACCOUNTS, BATCH = 80, 10
POOL = "a-pool-of-its-own"  # what the fixture ``deployed`` deploys to
PREFECT = str(Path(sys.executable).with_name("prefect"))
SCAN, SHARE = "scan-fleet/own-nightly", "scan-share/own-scan-share"
PARAMETERS: dict[str, Any] = {"batch_size": BATCH, "hand_to_triage": False}
FINDINGS = "SELECT id, status, severity FROM findings ORDER BY id"


@pytest.fixture(scope="module")
def fleet() -> Iterator[Simulator]:
    with simulator("--aws", str(ACCOUNTS), "--latency-ms", "20") as running:
        yield running


@pytest.fixture(scope="module")
def slow_fleet() -> Iterator[Simulator]:
    """The same, slow enough for a share to begin while there is work, on a busy machine too."""
    with simulator("--aws", str(ACCOUNTS), "--latency-ms", "1000") as running:
        yield running


@pytest.fixture(scope="module")
def own(stack: Stack, fleet: Simulator, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Suture's environment for the simulated fleet, but for its warehouse."""
    return reaching(fleet, stack, tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def own_slow(
    stack: Stack, slow_fleet: Simulator, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    return reaching(slow_fleet, stack, tmp_path_factory.mktemp("slow"))


def reaching(fleet: Simulator, stack: Stack, folder: Path) -> dict[str, str]:
    aws = fleet.told["aws"]
    source = {
        "name": "simulated",
        "regions": aws["regions"],
        "accounts": [str(int(aws["first_account"]) + number) for number in range(ACCOUNTS)],
        "external_id": aws["external_id"],
        "scanner_role": aws["role"],
        "endpoint": fleet.endpoint,
        "ca_file": fleet.told["ca_file"],
        "credentials": {"access_key_id_env": "OWN_KEY", "secret_access_key_env": "OWN_SECRET"},
    }
    inventory = folder / "inventory.yaml"
    with inventory.open("w") as file:
        YAML(typ="safe").dump({"suture": 1, "aws": [source]}, file)
    return {
        **stack.env,
        "SUTURE_INVENTORY": str(inventory),
        "SUTURE_SHARE_DEPLOYMENT": SHARE,
        "SUTURE_SCAN_PROCESSES": "1",
        "OWN_KEY": aws["hub"]["access_key_id"],
        "OWN_SECRET": aws["hub"]["secret_access_key"],
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }


@pytest.fixture
def env(own: dict[str, str], warehouse_url: str) -> dict[str, str]:
    return {**own, "SUTURE_WAREHOUSE_URL": warehouse_url}


@pytest.fixture
def slow_env(own_slow: dict[str, str], warehouse_url: str) -> dict[str, str]:
    return {**own_slow, "SUTURE_WAREHOUSE_URL": warehouse_url}


@pytest.fixture
def api(stack: Stack) -> Iterator[PrefectApi]:
    api = PrefectApi(stack.api_url)
    yield api
    api.close()


@pytest.fixture(scope="module")
def alone(own: dict[str, str], postgres: EmbeddedPostgres) -> list[tuple[Any, ...]]:
    """The findings of a scan that nobody shares."""
    postgres.create_warehouse("warehouse_alone", template="template_warehouse")
    url = postgres.url("warehouse_alone")
    with here({**own, "SUTURE_WAREHOUSE_URL": url, "SUTURE_SCAN_PROCESSES": "2"}):
        state = scan_fleet(hand_to_triage=False, return_state=True)
    assert state.name == "Completed", state.message
    with connect(url) as warehouse:
        found = warehouse.execute(FINDINGS).fetchall()
    assert found
    return found


@contextmanager
def here(env: dict[str, str]) -> Iterator[None]:
    """Run flows in this process, on the shared server, with another environment."""
    with (
        pytest.MonkeyPatch.context() as patch,
        temporary_settings({PREFECT_API_URL: env["PREFECT_API_URL"]}),
    ):
        for name, value in env.items():
            if name.startswith(("SUTURE_", "OWN_")):
                patch.setenv(name, value)
        yield


@contextmanager
def workers(count: int, env: dict[str, str], folder: Path) -> Iterator[None]:
    """Workers of the pool that run one flow run each."""
    command = [PREFECT, "worker", "start", "--type", "process", "--pool", POOL, "--limit", "1"]
    started = [
        Child(f"worker-{number}", command, env, folder / f"worker-{number}.log")
        for number in range(count)
    ]
    try:
        yield
    finally:
        for worker in started:
            worker.stop()


def loads(env: dict[str, str]) -> tuple[str, list[tuple[str, int]]]:
    """The newest scan, and how often each of its accounts was covered."""
    with connect(env["SUTURE_WAREHOUSE_URL"]) as warehouse:
        scan = latest_scan(warehouse)
        rows = warehouse.execute(
            "SELECT account, count(*) FROM scan_accounts "
            "WHERE scan_id = %s AND status = 'covered' GROUP BY account",
            (scan,),
        ).fetchall()
    return scan, rows


def findings(env: dict[str, str]) -> list[tuple[Any, ...]]:
    with connect(env["SUTURE_WAREHOUSE_URL"]) as warehouse:
        return warehouse.execute(FINDINGS).fetchall()


def assumed(fleet: Simulator) -> int:
    """How many role sessions were opened since the last call, one for each account scanned."""
    count = int(fleet.stats()["operations"].get("AssumeRole", 0))
    with fleet.http() as http:
        http.post("/-/reset").raise_for_status()
    return count


def test_two_workers_share_a_scan_and_each_account_is_scanned_once(
    slow_fleet: Simulator,
    slow_env: dict[str, str],
    deployed: dict[str, Any],
    alone: list[tuple[Any, ...]],
    api: PrefectApi,
    http: httpx.Client,
    tmp_path: Path,
) -> None:
    assumed(slow_fleet)
    with workers(2, slow_env, tmp_path):
        run = api.start(SCAN, {**PARAMETERS, "workers": 2})
        state = api.wait([run], seconds=240)[run]
        (share,) = api.runs_of(SHARE)
        shared = api.wait([share], seconds=30)[share]
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state
    assert f"{ACCOUNTS} accounts and subscriptions scanned, 0 failed" in state["message"]
    taken = int(shared["message"].split()[0])
    assert 0 < taken < ACCOUNTS
    assert assumed(slow_fleet) == ACCOUNTS
    scan, rows = loads(slow_env)
    assert len(rows) == ACCOUNTS
    assert findings(slow_env) == alone
    for one in (run, share):
        assert f"scan:{scan}" in http.get(f"/flow_runs/{one}").json()["tags"]


def test_a_share_that_is_killed_loses_nothing(
    slow_env: dict[str, str],
    deployed: dict[str, Any],
    alone: list[tuple[Any, ...]],
    api: PrefectApi,
    tmp_path: Path,
) -> None:
    with workers(2, slow_env, tmp_path):
        run = api.start(SCAN, {**PARAMETERS, "workers": 2})
        share = until(lambda: next(iter(api.runs_of(SHARE)), None))
        process = until(lambda: process_of(share))
        scanning = until(lambda: next(iter(children(process)), None))
        until(lambda: taken_by(slow_env) > 1)  # the share's and the other run's
        os.kill(process, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{scanning}").exists())  # it ends with the run that made it
        assert not api.ended(run)
        state = api.wait([run], seconds=240)[run]
        assert api.wait([share], seconds=30)[share]["type"] == "CRASHED"
    assert (state["type"], state["name"]) == ("COMPLETED", "Completed"), state
    assert f"{ACCOUNTS} accounts and subscriptions scanned, 0 failed" in state["message"]
    assert len(loads(slow_env)[1]) == ACCOUNTS
    assert findings(slow_env) == alone


def test_a_scan_whose_shares_nobody_runs_is_done_alone(
    fleet: Simulator, env: dict[str, str], deployed: dict[str, Any], api: PrefectApi
) -> None:
    assumed(fleet)
    with here(env):
        state = scan_fleet(batch_size=30, hand_to_triage=False, workers=32, return_state=True)
    assert state.name == "Completed", state.message
    assert assumed(fleet) == ACCOUNTS
    shares = api.runs_of(SHARE)
    assert len(shares) == 2  # of three batches one is its own
    for one in shares:
        assert (api.state(one)["type"], api.state(one)["name"]) == ("CANCELLED", "Not needed")


def test_a_scan_without_the_deployment_of_shares_is_done_alone(env: dict[str, str]) -> None:
    with here({**env, "SUTURE_SHARE_DEPLOYMENT": "scan-share/is-not-there"}):
        state = scan_fleet(batch_size=50, hand_to_triage=False, workers=2, return_state=True)
        assert state.name == "Completed", state.message
        scan, rows = loads(env)
        assert len(rows) == ACCOUNTS
        late = scan_share(scan, return_state=True)
        unknown = scan_share("00000000-0000-0000-0000-000000000000", return_state=True)
    assert (late.name, late.message) == ("Completed", "Nothing was left to take.")
    assert (unknown.is_failed(), unknown.name) == (True, "Cannot start")


def test_a_local_dask_cluster_scans_and_leaves_no_process_behind(
    fleet: Simulator, env: dict[str, str], alone: list[tuple[Any, ...]]
) -> None:
    assumed(fleet)
    before = set(children(os.getpid()))
    with here({**env, "SUTURE_TASK_RUNNER": "dask", "SUTURE_SCAN_PROCESSES": "2"}):
        state = scan_fleet(batch_size=20, hand_to_triage=False, return_state=True)
    assert state.name == "Completed", state.message
    assert assumed(fleet) == ACCOUNTS
    assert findings(env) == alone
    until(lambda: not [one for one in set(children(os.getpid())) - before if scans(one)])


def test_a_scan_that_is_cut_off_ends_its_shares(
    env: dict[str, str], deployed: dict[str, Any], api: PrefectApi, http: httpx.Client
) -> None:
    @flow
    def cut_off() -> None:
        with shared(BatchOrder(str(uuid4()), BATCH, 20.0), ACCOUNTS, workers=3):
            running = api.runs_of(SHARE)[0]
            body = {"state": {"type": "RUNNING"}, "force": True}
            http.post(f"/flow_runs/{running}/set_state", json=body).raise_for_status()
            raise RuntimeError("cut off")

    with here(env):
        assert cut_off(return_state=True).is_failed()
    ends = sorted(api.state(one)["type"] for one in api.runs_of(SHARE))
    assert ends == ["CANCELLED", "CANCELLING"]  # the worker that runs it does the rest


class Breaking:
    """Scanning processes that die of one account, and that load any other as read."""

    def __init__(self, of: str) -> None:
        self._of = of
        self.sizes: list[int] = []

    def scan(self, order: BatchOrder) -> BatchResult:
        with connect() as warehouse:
            accounts = claims.claim_accounts(warehouse, order.scan_id, order.limit)
            self.sizes.append(len(accounts))
            if self._of in {account.id for account in accounts}:
                raise SutureError("a scanning process has died (-9)")
            load_batch(warehouse, order.scan_id, [AccountScan(one) for one in accounts])
        return BatchResult(len(accounts))

    def end(self) -> None:
        return


def test_what_breaks_a_batch_is_alone_at_last_and_what_others_hold_is_waited_for(
    env: dict[str, str], own: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = YAML(typ="safe").load(Path(own["SUTURE_INVENTORY"]))["aws"][0]["accounts"]
    processes = Breaking(of=ids[17])
    monkeypatch.setattr(scanning, "scan_processes", lambda: processes)
    monkeypatch.setattr(scanning, "ROUND_SECONDS", 0.0)
    begin = scanning.begin_scan.fn
    with ExitStack() as held:
        other = held.enter_context(connect(env["SUTURE_WAREHOUSE_URL"]))

        def begin_and_lose_some(*given: Any) -> scanning.Scan:
            """Another run takes accounts as soon as there are any, and dies two seconds later."""
            scan = begin(*given)
            assert len(claims.claim_accounts(other, scan.id, 5)) == 5
            Timer(2.0, held.close).start()
            return scan

        monkeypatch.setattr(flows.scan, "begin_scan", begin_and_lose_some)
        with here(env):
            state = scan_fleet(batch_size=BATCH, hand_to_triage=False, return_state=True)
    assert (state.is_failed(), state.name) == (True, "Incomplete")
    assert f"{ACCOUNTS - 1} accounts and subscriptions scanned, 1 failed" in state.message
    assert "1 account was never reported" in state.message
    assert len(loads(env)[1]) == ACCOUNTS - 1
    assert max(processes.sizes) == BATCH


def until(found: Callable[[], Any], *, seconds: float = 120) -> Any:
    """Wait until ``found`` gives something, and return it."""
    deadline = time.monotonic() + seconds
    while not (what := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
    return what


def taken_by(env: dict[str, str]) -> int:
    """How many connections hold accounts of a scan now."""
    with connect(env["SUTURE_WAREHOUSE_URL"]) as warehouse:
        row = warehouse.execute(
            "SELECT count(DISTINCT claim) FROM scan_accounts WHERE status = 'pending'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def process_of(run: str) -> int | None:
    """The process that a flow run runs in."""
    named = f"PREFECT__FLOW_RUN_ID={run}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (
                named in (process / "environ").read_bytes().split(b"\0")
                and b"prefect" in (process / "cmdline").read_bytes()
            ):
                return int(process.name)
        except OSError:  # it has ended
            continue
    return None


def children(process: int) -> list[int]:
    """The scanning processes that a process has started."""
    found = []
    for child in Path("/proc").glob("[0-9]*"):
        try:
            status = (child / "status").read_text()
            if f"\nPPid:\t{process}\n" in status and scans(int(child.name)):
                found.append(int(child.name))
        except OSError:
            continue
    return found


def scans(process: int) -> bool:
    try:
        return b"tasks.scan_processes" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return False
