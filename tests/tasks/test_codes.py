"""Redeeming a handle: what is asked, what comes back, and what every refusal becomes."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)
from pydantic import SecretStr

from tasks.codes import proof, redeem
from tasks.errors import BadInput, GateRefused, SutureError

HANDLE = "suture-code:" + "h" * 43
RUN = "26915187-6232-40ee-9189-9802a98265a3"
KEPT = {"code": "918273", "approver": "Ada", "approver_verified": True}


@dataclass
class Desk:
    """A server that gives one answer to everything, and remembers what it was asked."""

    url: str
    status: int = 200
    body: bytes = json.dumps(KEPT).encode()
    asked: list[tuple[str, str | None, Any]] = field(default_factory=list)


@pytest.fixture
def desk() -> Iterator[Desk]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
            desk.asked.append((self.path, self.headers["authorization"], asked))
            self._answer(desk.status, desk.body)

        def do_GET(self) -> None:  # Prefect's client asks for a CSRF token first
            self._answer(422, b'{"detail": "CSRF protection is disabled."}')

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    desk = Desk(f"http://127.0.0.1:{server.server_port}/base/api")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield desk
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_handle_is_redeemed_at_the_api_this_run_talks_to(desk: Desk) -> None:
    settings = {PREFECT_API_URL: desk.url, PREFECT_API_AUTH_STRING: "suture:password"}
    with temporary_settings(settings):
        kept = redeem(HANDLE, RUN)
    assert kept.code.get_secret_value() == "918273"
    assert (kept.approver, kept.verified) == ("Ada", True)
    assert "918273" not in repr(kept)
    basic = base64.b64encode(b"suture:password").decode()
    assert desk.asked == [
        (
            "/base/api/suture/codes/redeem",
            f"Basic {basic}",
            {"handle": HANDLE, "flow_run_id": RUN},
        )
    ]


@pytest.mark.attack
def test_a_run_proves_that_it_holds_the_key(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    key = "k" * 32
    monkeypatch.setenv("SUTURE_GUARD_KEY", key)
    redeem(HANDLE, RUN, desk.url)
    _, _, asked = desk.asked[0]
    assert asked["proof"] == proof(SecretStr(key), HANDLE, RUN)
    assert key not in json.dumps(asked)
    others = {
        proof(SecretStr(key), HANDLE, RUN[:-1] + "4"),
        proof(SecretStr(key), HANDLE[:-1] + "i", RUN),
        proof(SecretStr("l" * 32), HANDLE, RUN),
    }
    assert len(others | {asked["proof"]}) == 4


def test_a_short_key_is_refused_without_a_word_of_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUTURE_GUARD_KEY", "a short key")
    with pytest.raises(BadInput, match=r"SUTURE_GUARD_KEY: is shorter.*openssl rand") as caught:
        redeem(HANDLE, RUN, desk.url)
    assert "a short key" not in str(caught.value)
    assert desk.asked == []


def test_a_denial_has_no_code(desk: Desk) -> None:
    desk.body = json.dumps({**KEPT, "code": None}).encode()
    assert redeem(HANDLE, RUN, desk.url).code.get_secret_value() == ""


@pytest.mark.parametrize(
    ("status", "body", "error", "words"),
    [
        (410, b'{"detail": "This code is gone."}', GateRefused, "This code is gone"),
        (403, b'{"detail": "given to another run"}', GateRefused, "another run"),
        (404, b'{"detail": "Not Found"}', GateRefused, "no approval guard"),
        (401, b'{"exception_message": "Unauthorized"}', SutureError, "HTTP 401"),
        (500, b"<html>", SutureError, "HTTP 500"),
    ],
)
def test_a_refusal_is_said_in_the_servers_words(
    desk: Desk, status: int, body: bytes, error: type[SutureError], words: str
) -> None:
    desk.status, desk.body = status, body
    with pytest.raises(SutureError, match=words) as refusal:
        redeem(HANDLE, RUN, desk.url)
    assert type(refusal.value) is error
    assert HANDLE not in str(refusal.value)
    assert len(desk.asked) == 1


def test_no_server_is_said_too() -> None:
    with pytest.raises(SutureError, match="did not answer"):
        redeem(HANDLE, RUN, "http://127.0.0.1:9/api")
    settings = {PREFECT_CLIENT_MAX_RETRIES: 0}
    with (
        temporary_settings(settings, restore_defaults={PREFECT_API_URL}),
        pytest.raises(SutureError, match="PREFECT_API_URL is not set"),
    ):
        redeem(HANDLE, RUN)
