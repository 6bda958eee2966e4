"""Each form of the opener takes its host's request, asks the core, and gives its host's answer."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest

from deployments.opener import aws_lambda, azure_function, http
from deployments.opener.core import MOST_REQUEST

FILES = Path(__file__).parents[3] / "deployments" / "opener"


@dataclass
class Core:
    """An opener that says what it was asked."""

    asked: list[tuple[str, bytes]] = field(default_factory=list)
    ticks: int = 0
    third: threading.Event = field(default_factory=threading.Event)

    def answer(self, path: str, body: bytes) -> tuple[HTTPStatus, dict[str, Any]]:
        self.asked.append((path, body))
        return HTTPStatus.FORBIDDEN, {"error": "not here"}

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == 3:
            self.third.set()


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    made = Core()
    for form in (aws_lambda, azure_function):
        monkeypatch.setattr(form, "configured_opener", lambda: made)
    return made


# --- Lambda -------------------------------------------------------------------------------------


def url_event(**changes: Any) -> dict[str, Any]:
    return {
        "version": "2.0",
        "rawPath": "/open",
        "requestContext": {"http": {"method": "POST", "path": "/open"}},
        "body": '{"request": "a.b.c"}',
        "isBase64Encoded": False,
        **changes,
    }


@pytest.mark.parametrize(
    "event",
    [
        url_event(),
        url_event(body=base64.b64encode(b'{"request": "a.b.c"}').decode(), isBase64Encoded=True),
        {  # payload format 1.0, of a REST API
            "path": "/open",
            "httpMethod": "POST",
            "requestContext": {"stage": "prod"},
            "body": '{"request": "a.b.c"}',
        },
    ],
)
def test_a_lambda_answers_what_a_function_url_and_an_api_send(
    core: Core, event: Mapping[str, Any]
) -> None:
    answer = aws_lambda.handler(event, SimpleNamespace(aws_request_id="1"))
    assert core.asked == [("/open", b'{"request": "a.b.c"}')]
    assert (answer["statusCode"], json.loads(answer["body"])) == (403, {"error": "not here"})
    assert answer["headers"]["Cache-Control"] == "no-store"
    json.dumps(answer)


@pytest.mark.parametrize(
    "event",
    [
        {},
        url_event(requestContext={"http": {"method": "GET"}}),
        url_event(body="not base64!", isBase64Encoded=True),
    ],
)
def test_a_lambda_refuses_what_is_no_request(core: Core, event: Mapping[str, Any]) -> None:
    assert aws_lambda.handler(event)["statusCode"] == 400
    assert not core.asked


def test_a_schedule_is_a_tick_and_a_request_is_never_one(core: Core) -> None:
    assert aws_lambda.handler({"source": "aws.events", "detail-type": "Scheduled Event"}) == {}
    assert core.ticks == 1
    aws_lambda.handler(url_event(source="aws.events"))  # a body cannot say so either
    assert core.ticks == 1


def test_a_lambda_does_not_load_what_the_opener_has_no_use_for() -> None:
    """Its package can leave out Prefect, pandas and the warehouse."""
    code = "import sys, deployments.opener.aws_lambda; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()
    heavy = {"prefect", "pandas", "psycopg", "sqlalchemy", "pyarrow", "aiohttp", "moto", "fastapi"}
    assert not heavy & set(loaded)


# --- container ----------------------------------------------------------------------------------


async def test_the_application_answers_posts(core: Core) -> None:
    transport = httpx.ASGITransport(http.Application(core))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://opener") as client:
        answer = await client.post("/open", content=b"{}")
        assert (answer.status_code, answer.json()) == (403, {"error": "not here"})
        assert answer.headers["cache-control"] == "no-store"
        assert (await client.get("/open")).status_code == 405
        await client.post("/open", content=b"x" * (3 * MOST_REQUEST))
    assert core.asked[0] == ("/open", b"{}")
    assert len(core.asked[1][1]) > MOST_REQUEST  # enough for the core to see that it is too large


async def test_the_application_ticks_while_it_lives(core: Core) -> None:
    application = http.Application(core, tick_seconds=0.01)  # type: ignore[arg-type]
    coming: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    sent: list[str] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    living = asyncio.create_task(application({"type": "lifespan"}, coming.get, send))
    await coming.put({"type": "lifespan.startup"})
    await asyncio.to_thread(core.third.wait, 10)
    await coming.put({"type": "lifespan.shutdown"})
    await living
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    told = core.ticks
    await asyncio.sleep(0.05)
    assert core.ticks == told


@pytest.fixture
def container(tmp_path: Path) -> Iterator[str]:
    """The command of the Dockerfile, run here, with a configuration of its own; its address."""
    (tmp_path / "inventory.yaml").write_text(
        "suture: 1\n"
        "aws:\n"
        "  - name: acme\n"
        '    accounts: ["111122223333"]\n'
        "    regions: [eu-central-1]\n"
        "    external_id: 7c1f9a52-33f2-4a6c-9c0c-8d1f0a4f2b11\n"
        "    token_endpoint: https://gate.acme.example/open\n"
        "issuer: {url: 'https://id.acme.example', key_file: none.pem, key_id: k}\n"
    )
    (tmp_path / "opener.yaml").write_text(
        "suture_opener: 1\n"
        "inventory: inventory.yaml\n"
        "url: https://gate.acme.example\n"
        f"store: {(tmp_path / 'store').as_uri()}\n"
        'journal: "log:"\n'
    )
    last = (FILES / "Dockerfile").read_text().strip().splitlines()[-1]
    command = json.loads(last.removeprefix("CMD "))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", *command]
    command[command.index("--port") + 1] = port
    command[command.index("--host") + 1] = "127.0.0.1"
    running = subprocess.Popen(
        command,
        env={**os.environ, "SUTURE_OPENER_CONFIG": str(tmp_path / "opener.yaml")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        printed, _ = running.communicate(timeout=30)
        assert running.returncode in (0, -signal.SIGTERM), printed
        assert '"what": "refused"' in printed  # its journal


@pytest.mark.slow
def test_the_containers_command_serves(container: str) -> None:
    for _ in range(100):
        try:
            answer = httpx.post(f"{container}/open", json={"request": 1}, trust_env=False)
            break
        except httpx.TransportError:
            time.sleep(0.3)
    assert (answer.status_code, answer.json()["error"]) == (400, "the request holds no signed JWT.")


# --- Azure Function -----------------------------------------------------------------------------


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the Azure Functions worker brings, as far as it is used: its response class.

    A stand-in: the package itself is not installed here.
    """
    functions = ModuleType("azure.functions")
    functions.HttpResponse = lambda body, **about: SimpleNamespace(body=body, **about)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "azure.functions", functions)


@pytest.mark.usefixtures("worker")
def test_an_azure_function_answers(core: Core) -> None:
    request = SimpleNamespace(
        method="POST", route_params={"path": "open"}, get_body=lambda: b'{"request": "a.b.c"}'
    )
    answer = azure_function.answer(request)
    assert core.asked == [("open", b'{"request": "a.b.c"}')]
    assert (answer.status_code, json.loads(answer.body)) == (403, {"error": "not here"})
    assert azure_function.answer(SimpleNamespace(method="GET")).status_code == 405
    azure_function.tick(object())
    assert core.ticks == 1


@pytest.mark.parametrize(("folder", "name"), [("open", "answer"), ("tick", "tick")])
def test_the_functions_that_azure_is_told_of_are_there(folder: str, name: str) -> None:
    told = json.loads((FILES / "azure" / folder / "function.json").read_text())
    assert told["entryPoint"] == name
    assert callable(getattr(azure_function, name))
    parameters = {one["name"] for one in told["bindings"] if one["direction"] == "in"}
    code = getattr(azure_function, name).__code__
    assert parameters == set(code.co_varnames[: code.co_argcount])
    script = told["scriptFile"].removeprefix("../")
    assert (FILES.parents[1] / script).is_file()
    json.loads((FILES / "azure" / "host.json").read_text())
