"""Two real servers, started once: one as it comes, one behind a sign-in proxy, with a password."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from deployments.local.postgres import EmbeddedPostgres
from deployments.local.stack import Stack
from deployments.serve import PREFECT_YAML
from flows.forms import approval_form
from tasks.model import Input

ROOT = Path(__file__).parents[2]
START = "import sys; from deployments.server import run_server; run_server(port=int(sys.argv[1]))"
AUTH = "suture:a long password"
KEY = "what the server and the runs share, for tests"
PROXY_HEADER = "X-Forwarded-User"
KEYSET = {kind: f"suspended-approval-1-{kind}" for kind in ("description", "response", "schema")}
POOL = "a-pool-of-its-own"
PREFECT = str(Path(sys.executable).with_name("prefect"))
NAMES = {
    "scan-fleet/own-nightly",
    "scan-share/own-scan-share",
    "triage/own-triage",
    "reconcile/own-reconcile",
    "remediate/own-remediate",
    "restore/own-restore",
    "react/own-react",
    "housekeeping/own-housekeeping",
}
Deployed = dict[str, dict[str, Any]]  # by "flow/deployment"
CIDRS = Input("allowed_cidrs", "cidrs", "Networks that may still connect")


@dataclass
class Server:
    """A running `suture server`, its API, its database and everything it wrote."""

    url: str
    api: str
    home: Path
    log: Path
    postgres: EmbeddedPostgres
    http: httpx.Client
    key: str  # its guard key; empty: none

    def suspended_run(self) -> str:
        """A run that waits for an approval."""
        run = self.running_run()
        self.suspend(run)
        return run

    def running_run(self) -> str:
        flow = self._post("/flows/", {"name": "fixes"})["id"]
        deployment = self._post("/deployments/", {"name": "d", "flow_id": flow})["id"]
        run: str = self._post(
            f"/deployments/{deployment}/create_flow_run", {"state": {"type": "PENDING"}}
        )["id"]
        self.set_state(run, {"type": "RUNNING"})
        return run

    def suspend(self, run: str) -> None:
        """Let it wait for an approval, by the same calls as suspend_flow_run makes."""
        self.pause(run)
        form = approval_form([CIDRS], "What will change", numbers=3)
        for key, value in (("schema", form.model_json_schema()), ("description", "page")):
            body = {"key": KEYSET[key], "value": httpx.Response(200, json=value).text}
            self.http.post(f"/flow_runs/{run}/input", json=body).raise_for_status()

    def pause(self, run: str) -> None:
        """Only the first of these calls: its form is not there yet."""
        details = {"pause_key": "approval-1", "pause_reschedule": True, "run_input_keyset": KEYSET}
        waiting = {"type": "PAUSED", "name": "Suspended", "state_details": details}
        self.set_state(run, waiting).raise_for_status()

    def resume(self, run: str, **fields: object) -> httpx.Response:
        good = {"decision": "approve", "approver": "Ada", "code": "000000"}
        return self.http.post(f"/flow_runs/{run}/resume", json={"run_input": {**good, **fields}})

    def set_state(self, run: str, state: Mapping[str, Any], **more: Any) -> httpx.Response:
        return self.http.post(f"/flow_runs/{run}/set_state", json={"state": state, **more})

    def state(self, run: str) -> str:
        return str(self.http.get(f"/flow_runs/{run}").json()["state"]["type"])

    def stored(self, run: str) -> dict[str, Any] | None:
        """The answer as Prefect stored it, or None."""
        response = self.http.get(f"/flow_runs/{run}/input/{KEYSET['response']}")
        return response.json() if response.status_code == 200 else None

    def files(self) -> Iterator[Path]:
        """Every file of the database cluster, of Prefect's home, and the server's output."""
        for folder in (self.postgres.data_dir, self.home):
            yield from (path for path in folder.rglob("*") if path.is_file())

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        response = self.http.post(path, json=body)
        response.raise_for_status()
        return response.json()


@pytest.fixture(scope="session")
def _servers() -> Iterator[dict[str, Server]]:
    # PostgreSQL runs as a user of its own under root, which cannot walk into pytest's folders.
    folder = Path(tempfile.mkdtemp(prefix="suture-server-"))
    folder.chmod(0o755)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        with EmbeddedPostgres(folder / "pg", databases=("plain", "proxied")) as postgres:
            servers = {}
            for name, extra in (
                ("plain", {}),
                (
                    "proxied",
                    {
                        "PREFECT_SERVER_API_AUTH_STRING": AUTH,
                        "PREFECT_SERVER_API_BASE_PATH": "/base/api",
                        "SUTURE_APPROVER_HEADER": PROXY_HEADER,
                        "SUTURE_GUARD_KEY": KEY,
                    },
                ),
            ):
                process, servers[name] = _start(folder / name, postgres, name, extra)
                processes.append(process)
            for process, server in zip(processes, servers.values(), strict=True):
                _wait(process, server)
            yield servers
            for server in servers.values():
                server.http.close()
            _stop(processes)
    finally:
        _stop(processes)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server(_servers: dict[str, Server]) -> Server:
    return _servers["plain"]


@pytest.fixture(scope="session")
def proxied(_servers: dict[str, Server]) -> Server:
    """With a password, a sign-in proxy's header, a guard key, and a base path."""
    return _servers["proxied"]


def _start(
    home: Path, postgres: EmbeddedPostgres, database: str, extra: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], Server]:
    home.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "SUTURE_"))
    }
    log = home / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", START, str(port)],
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={
                **inherited,
                "PREFECT_HOME": str(home),
                # Block types are a third of the start, and nothing here uses one.
                "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
                "PREFECT_API_DATABASE_CONNECTION_URL": postgres.url(database, driver="asyncpg"),
                **extra,
            },
        )
    url = f"http://127.0.0.1:{port}"
    api = url + extra.get("PREFECT_SERVER_API_BASE_PATH", "/api")
    auth = extra.get("PREFECT_SERVER_API_AUTH_STRING")
    http = httpx.Client(
        base_url=api, auth=tuple(auth.split(":")) if auth else None, timeout=30, trust_env=False
    )
    key = extra.get("SUTURE_GUARD_KEY", "")
    return process, Server(url, api, home, log, postgres, http, key)


def _wait(process: subprocess.Popen[bytes], server: Server) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if server.http.get(f"{server.url}/suture/health").status_code == 200:
                return
        except httpx.ConnectError:
            time.sleep(0.05)
    pytest.fail(f"suture server did not start:\n{server.log.read_text()[-4000:]}")


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def from_now() -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Claims whose times are counted from the test, which may run long after it was collected."""

    def counted(claims: Mapping[str, Any]) -> dict[str, Any]:
        now = int(time.time())
        return {
            name: now + int(value.total_seconds()) if isinstance(value, timedelta) else value
            for name, value in claims.items()
        }

    return counted


@pytest.fixture
def env(stack: Stack, warehouse_url: str) -> dict[str, str]:
    """Suture's environment, with a warehouse that only this test uses."""
    return {**stack.env, "SUTURE_WAREHOUSE_URL": warehouse_url, "PREFECT_WORKER_QUERY_SECONDS": "1"}


@pytest.fixture
def http(stack: Stack) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.api_url, timeout=30, trust_env=False) as client:
        yield client


@pytest.fixture(scope="module")
def deployments(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    """What prefect.yaml deploys, under other names and to another pool than the shared stack's."""
    folder = tmp_path_factory.mktemp("deployed")
    text = PREFECT_YAML.read_text()
    text = text.replace("    name: suture\n", f"    name: {POOL}\n").replace(
        "  - name: ", "  - name: own-"
    )
    (folder / "prefect.yaml").write_text(text)
    with httpx.Client(base_url=stack.api_url, timeout=30, trust_env=False) as http:
        http.post("/work_pools/", json={"name": POOL, "type": "process"}).raise_for_status()
        done = subprocess.run(
            [PREFECT, "--no-prompt", "deploy", "--all"],
            cwd=folder,
            env=stack.env,
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


@pytest.fixture
def deployed(deployments: Deployed, http: httpx.Client) -> Iterator[Deployed]:
    """The deployments, of which no run is left afterwards."""
    yield deployments
    ids = [one["id"] for one in deployments.values()]
    runs = http.post("/flow_runs/filter", json={"deployments": {"id": {"any_": ids}}})
    for run in runs.raise_for_status().json():
        http.delete(f"/flow_runs/{run['id']}").raise_for_status()
