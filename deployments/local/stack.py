"""The embedded default, whole: database, server, emulated clouds and served deployments."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
from ruamel.yaml import YAML

from deployments.local.children import Child, free_port
from deployments.local.postgres import OWNER, EmbeddedPostgres
from tasks.warehouse.database import OWNER_VARIABLE, connect, upgrade
from tasks.warehouse.roles import create_analyst

# What keeps the embedded server light (measured: a third of the server's CPU per task run).
SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
}


INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# What the customer's own terminal needs: their credentials and seed, and where things are.
CUSTOMER_NAMES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AZURE_TENANT_ID",
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "SUTURE_GATE_SEED_FILE",
    "SUTURE_INVENTORY",
    "SUTURE_WAREHOUSE_URL",
)


class Stack:
    """Everything the demo needs, in one directory that goes when it stops.

    ``env`` is what Suture's own processes run with; ``customer_env`` is the emulated customer's,
    with the credentials that open gates. ``propagation_seconds`` is how long the clouds take to
    know of an opening, ``latency`` the seconds added to every call of theirs; ``warm_gates``: the
    customer keeps all gates open ahead; ``plain_http`` storage accounts more in each subscription
    take plain HTTP. Start it on the main thread (see ``Child``).
    """

    def __init__(
        self,
        *,
        aws: int,
        azure: int,
        seed: int,
        propagation_seconds: float = 0.0,
        latency: float = 0.0,
        warm_gates: bool = False,
        plain_http: int = 0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.aws, self.azure, self.seed, self.say = aws, azure, seed, say
        self.propagation_seconds = propagation_seconds
        self.latency, self.warm_gates, self.plain_http = latency, warm_gates, plain_http
        self.env: dict[str, str] = dict(os.environ)
        self.customer_env: dict[str, str] = {}
        self.fleet: dict[str, Any] = {}
        self.analyst_url = ""
        self.api_url = ""
        self._open = ExitStack()

    def __enter__(self) -> Stack:
        try:
            self.dir = Path(tempfile.mkdtemp(prefix="suture-"))
            self._open.callback(self._remove_directory)
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End all processes, newest first, and remove the directory. Interruptions wait."""
        with _uninterrupted():
            self._open.close()

    def _remove_directory(self) -> None:
        for _ in range(3):  # a process that has just been killed may still write its last file
            shutil.rmtree(self.dir, ignore_errors=True)
            if not self.dir.exists():
                return
            time.sleep(0.2)

    def closing(self, close: Callable[[], None]) -> None:
        """Call ``close`` when the stack stops, before the processes end."""
        self._open.callback(close)

    def write_everything_out(self) -> None:
        """Have PostgreSQL write all it holds in memory to its files, to be looked through."""
        with connect(self.postgres.url("warehouse", role="postgres")) as admin:
            admin.execute("CHECKPOINT")

    def customer_child(self, name: str, *arguments: str) -> Child:
        """Run a `suture` verb as the emulated customer, with the customer's own credentials."""
        return self._child(name, self.customer_env, arguments, pipe=True)

    def customer_script(self) -> Path:
        """A script that runs `suture` as the emulated customer, to be called from any terminal."""
        script = self.dir / "customer"
        lines = [f"export {name}={shlex.quote(self.customer_env[name])}" for name in CUSTOMER_NAMES]
        command = f'exec {shlex.quote(sys.executable)} -m deployments.cli "$@"'
        script.write_text("\n".join(["#!/bin/sh", *lines, command, ""]), encoding="utf-8")
        script.chmod(0o700)
        return script

    def child(self, name: str, *arguments: str, pipe: bool = False) -> Child:
        """Run a `suture` verb as a process of its own, ended with the stack."""
        return self._child(name, self.env, arguments, pipe=pipe)

    def _child(
        self, name: str, env: Mapping[str, str], arguments: Sequence[str], *, pipe: bool
    ) -> Child:
        command = [sys.executable, "-m", "deployments.cli", *arguments]
        with _interrupted_after():  # else a process could run that nothing knows of
            child = Child(name, command, env, self.logs / f"{name}.log", pipe=pipe)
            self._open.callback(child.stop)
        return child

    def _start(self) -> None:
        self.dir.chmod(0o755)  # PostgreSQL may run as a system user of its own
        self.logs = self.dir / "logs"
        self.logs.mkdir()
        self.say("Starting PostgreSQL")
        self.postgres = self._open.enter_context(EmbeddedPostgres(self.dir / "postgres"))
        self.postgres.create_database("prefect")
        self.postgres.create_warehouse("warehouse")
        self._configure()
        self.say("Starting the Prefect server and the emulated clouds")
        server = self.child("server", "server", "--port", str(self.port))
        clouds = self.child(
            "clouds",
            *("local", "--json", "--aws", str(self.aws), "--azure", str(self.azure)),
            *("--seed", str(self.seed), "--data", str(self.dir / "clouds")),
            *("--propagation-seconds", str(self.propagation_seconds)),
            *("--latency", str(self.latency), "--plain-http", str(self.plain_http)),
            *(["--warm-gates"] if self.warm_gates else []),
            pipe=True,
        )
        owner = self.postgres.url("warehouse", role=OWNER)  # known to this process only
        upgrade(self.env["SUTURE_WAREHOUSE_URL"], owner)
        self._make_analyst()
        self.fleet = json.loads(clouds.first_line(seconds=120))
        self._point_at_fleet()
        server.wait_until(self._answers, seconds=90)
        self.say("Serving the deployments")
        served = self.child("serve", "serve")
        served.wait_until(self._served, seconds=60)

    def _configure(self) -> None:
        temporary = self.dir / "tmp"
        temporary.mkdir()
        self.port = free_port()
        self.api_url = f"http://127.0.0.1:{self.port}/api"
        self.env |= {
            **SERVER_SETTINGS,
            "PREFECT_HOME": str(self.dir / "prefect"),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_UI_API_URL": self.api_url,
            "PREFECT_API_DATABASE_CONNECTION_URL": self.postgres.url("prefect", driver="asyncpg"),
            "PREFECT_RUNNER_POLL_FREQUENCY": "1",
            "PREFECT_LOGGING_LEVEL": "INFO",
            "DO_NOT_TRACK": "1",
            "SUTURE_GUARD_KEY": secrets.token_urlsafe(32),
            "SUTURE_WAREHOUSE_URL": self.postgres.url("warehouse"),
            "SUTURE_UI_URL": f"http://127.0.0.1:{self.port}",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(temporary),  # Prefect's runner leaves an empty folder in it
        }
        self.env.pop("PREFECT_API_KEY", None)
        self.env.pop(OWNER_VARIABLE, None)

    def _make_analyst(self) -> None:
        with connect(self.env["SUTURE_WAREHOUSE_URL"]) as warehouse:
            password = create_analyst(warehouse).get_secret_value()
        self.analyst_url = self.postgres.url("warehouse", role="analyst", password=password)

    def _point_at_fleet(self) -> None:
        """Hand Suture its own credentials by environment, as a team would; the customer's apart."""
        policies = self.dir / "policies.yaml"
        policies.write_text(
            (Path(__file__).parent.parent / "policies" / "demo.yaml").read_text(encoding="utf-8"),
            encoding="utf-8",
        )
        self.env |= fleet_env(self.fleet) | {"SUTURE_POLICIES": str(policies)}
        # Each of Prefect's clients reads all it trusts, 15 ms of the system's. Here is no TLS.
        self.env["PREFECT_API_SSL_CERT_FILE"] = self.fleet["ca_file"]
        self.customer_env = {**self.env, **customer_env(self.fleet)}
        del self.customer_env["SUTURE_GUARD_KEY"]  # what Suture's own processes share

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.api_url}/health", timeout=2, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def _served(self) -> bool:
        answer = httpx.post(
            f"{self.api_url}/deployments/filter", json={}, timeout=5, trust_env=False
        )
        return answer.is_success and len(answer.json()) >= _deployments()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C from ending an orderly end. Only the main thread can, and needs to."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _interrupted_after() -> Iterator[None]:
    """Put off what would interrupt until the end. Only the main thread can, and needs to."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: came.append(number))
        for number in INTERRUPTIONS
        if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in came:
            signal.raise_signal(late)


def fleet_env(fleet: Mapping[str, Any]) -> dict[str, str]:
    """Suture's own credentials for an emulated fleet, under the names its inventory uses."""
    hub, scanner = fleet["aws"]["hub"], fleet["azure"]["scanner"]
    return {
        "SUTURE_INVENTORY": fleet["inventory"],
        "SUTURE_HUB_ACCESS_KEY_ID": hub["access_key_id"],
        "SUTURE_HUB_SECRET_ACCESS_KEY": hub["secret_access_key"],
        "SUTURE_AZURE_CLIENT_SECRET": scanner["client_secret"],
    }


def customer_env(fleet: Mapping[str, Any]) -> dict[str, str]:
    """The customer's own credentials, as their SDKs look for them."""
    aws, azure = fleet["aws"]["customer"], fleet["azure"]["customer"]
    return {
        "AWS_ACCESS_KEY_ID": aws["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": aws["secret_access_key"],
        "AZURE_TENANT_ID": fleet["azure"]["tenant"],
        "AZURE_CLIENT_ID": azure["client_id"],
        "AZURE_CLIENT_SECRET": azure["client_secret"],
        "SUTURE_GATE_SEED_FILE": fleet["customer_seed_file"],
    }


def _deployments() -> int:
    """How many deployments prefect.yaml has, and the served ones are when all are there."""
    file = Path(__file__).parents[2] / "prefect.yaml"
    return len(YAML(typ="safe").load(file)["deployments"])
