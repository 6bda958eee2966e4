"""Asking a customer's machine for a code: what is sent, and what of the answer is believed."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
import trustme
from pydantic import SecretStr

from tasks.clouds import token_request
from tasks.clouds.issuer import documents, generate_key
from tasks.clouds.token_request import present_code, release, request_code
from tasks.errors import BadInput, CloudError, CloudTimeout, GateRefused
from tasks.inventory import AwsSource, Inventory, Issuer
from tasks.model import Account, Cloud

ACCOUNT = Account(Cloud.AWS, "111122223333", source="acme")
CODE = "k3" * 16
GOOD = {"code": CODE, "expires_at": "2026-11-23T10:00:00Z"}


@dataclass
class Endpoint:
    """A customer's endpoint that answers ``status`` and ``body`` and remembers what it was sent."""

    status: int = 200
    body: bytes = json.dumps(GOOD).encode()
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def endpoint(ca: trustme.CA) -> Iterator[Endpoint]:
    told = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.seen.append((self.path, sent))
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    told.url = f"https://localhost:{server.server_port}/gate/open"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield told
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def inventory(endpoint: Endpoint, ca: trustme.CA, tmp_path: Path) -> Inventory:
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    generate_key(tmp_path / "key.pem")
    source = AwsSource(
        name="acme",
        regions=("eu-central-1",),
        accounts=(ACCOUNT.id,),
        external_id="0b1f",
        token_endpoint=endpoint.url,
        token_endpoint_ca_file=str(tmp_path / "ca.pem"),
    )
    issuer = Issuer(url="https://id.example", key_file=str(tmp_path / "key.pem"), key_id="k1")
    return Inventory(aws=(source,), issuer=issuer)


def ask(inventory: Inventory, **options: bool) -> token_request.OpenedByMachine:
    return request_code(
        inventory,
        ACCOUNT,
        remediation="run-1",
        plan="f00d",
        resources=["arn:aws:s3:::b"],
        actions=["s3:PutBucketPolicy"],
        minutes=5,
        **options,
    )


def claims_of(inventory: Inventory, sent: dict[str, Any], audience: str) -> dict[str, Any]:
    assert inventory.issuer is not None
    (key,) = jwt.PyJWKSet.from_dict(documents(inventory.issuer)[1]).keys
    claims: dict[str, Any] = jwt.decode(
        sent["request"], key, algorithms=["RS256"], audience=audience
    )
    return claims


def test_the_request_is_signed_for_this_endpoint_and_says_all(
    inventory: Inventory, endpoint: Endpoint
) -> None:
    opened = ask(inventory)
    assert opened.code.get_secret_value() == CODE
    assert CODE not in repr(opened)
    assert opened.expires_at.isoformat() == "2026-11-23T10:00:00+00:00"
    ((path, sent),) = endpoint.seen
    assert path == "/gate/open"
    assert set(sent) == {"request"}
    claims = claims_of(inventory, sent, endpoint.url)
    assert claims["exp"] - claims["iat"] <= 300
    said = {name: claims[name] for name in claims if name not in ("iat", "nbf", "exp", "jti")}
    assert said == {
        "iss": "https://id.example",
        "aud": endpoint.url,
        "sub": ACCOUNT.id,
        "cloud": "aws",
        "source": "acme",
        "account": ACCOUNT.id,
        "remediation": "run-1",
        "plan": "f00d",
        "resources": ["arn:aws:s3:::b"],
        "actions": ["s3:PutBucketPolicy"],
        "minutes": 5,
    }


@pytest.mark.parametrize("told", [True, False])
def test_a_warm_gate_is_asked_for_and_may_be_none(
    inventory: Inventory, endpoint: Endpoint, told: bool
) -> None:
    endpoint.body = json.dumps({**GOOD, **({"warm": True} if told else {})}).encode()
    opened = ask(inventory, warm=True)
    assert opened.warm is told
    ((_, sent),) = endpoint.seen
    assert claims_of(inventory, sent, endpoint.url)["warm"] is True


def test_a_persons_code_is_presented_as_it_is(inventory: Inventory, endpoint: Endpoint) -> None:
    endpoint.body = json.dumps({"expires_at": GOOD["expires_at"]}).encode()
    until = present_code(inventory, ACCOUNT, SecretStr("123456"), minutes=3)
    assert until.isoformat() == "2026-11-23T10:00:00+00:00"
    about = {"cloud": "aws", "source": "acme", "account": ACCOUNT.id}
    assert endpoint.seen == [("/gate/open", {**about, "code": "123456", "minutes": 3})]


def test_a_code_may_be_for_one_run_that_closes_what_it_opened(
    inventory: Inventory, endpoint: Endpoint
) -> None:
    endpoint.body = json.dumps({"expires_at": GOOD["expires_at"]}).encode()
    present_code(inventory, ACCOUNT, SecretStr("123456"), remediation="run-1")
    release(inventory, ACCOUNT, remediation="run-1", person=True)
    (_, opened), (_, closed) = endpoint.seen
    assert opened["remediation"] == "run-1"
    claims = claims_of(inventory, closed, endpoint.url.replace("/open", "/close"))
    assert (claims["remediation"], claims["person"]) == ("run-1", True)


def test_a_code_that_is_refused_is_not_repeated(inventory: Inventory, endpoint: Endpoint) -> None:
    endpoint.status, endpoint.body = 401, json.dumps({"error": "the code is wrong."}).encode()
    with pytest.raises(GateRefused, match="the code is wrong") as caught:
        present_code(inventory, ACCOUNT, SecretStr("123456"))
    assert "123456" not in str(caught.value)


@pytest.mark.attack
@pytest.mark.parametrize("status", [400, 502])
def test_a_reason_that_quotes_what_was_sent_is_not_repeated(
    inventory: Inventory, endpoint: Endpoint, status: int
) -> None:
    """A gateway before the opener may: the code has not been used, and is good for a minute."""
    quoted = "x" * 290 + ' in {"code": "123456", "minutes": 10}'
    endpoint.status, endpoint.body = status, json.dumps({"error": quoted}).encode()
    with pytest.raises((GateRefused, CloudError), match=rf"{status}|failed") as caught:
        present_code(inventory, ACCOUNT, SecretStr("123456"))
    assert "123" not in str(caught.value)
    assert "xxx" not in str(caught.value)


def test_closing_is_asked_again_where_the_endpoint_failed(
    inventory: Inventory, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    endpoint.status = 502
    with pytest.raises(CloudError, match="502"):
        release(inventory, ACCOUNT, remediation="run-1")
    requests = [sent["request"] for _, sent in endpoint.seen]
    assert len(set(requests)) == 3  # each is signed anew: a request is good once
    endpoint.status = 403
    with pytest.raises(GateRefused):
        release(inventory, ACCOUNT, remediation="run-1")
    assert len(endpoint.seen) == 4


def test_closing_is_asked_next_door(inventory: Inventory, endpoint: Endpoint) -> None:
    endpoint.body = b"{}"
    release(inventory, ACCOUNT, remediation="run-1")
    ((path, sent),) = endpoint.seen
    assert path == "/gate/close"
    claims = claims_of(inventory, sent, endpoint.url.replace("/open", "/close"))
    assert claims["remediation"] == "run-1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"not json",
        b"{}",
        json.dumps({**GOOD, "code": "short"}).encode(),
        json.dumps({**GOOD, "code": "with spaces in the middle of it"}).encode(),
        json.dumps({**GOOD, "code": 123456789012345678901234}).encode(),
        json.dumps({**GOOD, "expires_at": "soon"}).encode(),
        json.dumps({**GOOD, "expires_at": "2026-11-23T10:00:00"}).encode(),
        json.dumps({**GOOD, "more": "x" * token_request.MOST_ANSWER}).encode(),
    ],
)
def test_an_answer_that_cannot_be_used_is_an_error_without_its_text(
    inventory: Inventory, endpoint: Endpoint, body: bytes
) -> None:
    endpoint.body = body
    with pytest.raises(CloudError, match="no code and time") as caught:
        ask(inventory)
    assert CODE not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": "not on a Sunday"}', "not on a Sunday"),
        (b'{"error": "a\\u001b[31m\\nb"}', r"a\[31mb"),
        (b"nothing", "HTTP 403"),
    ],
)
def test_a_refusal_is_told_in_the_customers_words(
    inventory: Inventory, endpoint: Endpoint, body: bytes, said: str
) -> None:
    endpoint.status, endpoint.body = 403, body
    with pytest.raises(GateRefused, match=said):
        ask(inventory)


def test_the_customers_own_trouble_is_no_refusal(inventory: Inventory, endpoint: Endpoint) -> None:
    endpoint.status, endpoint.body = 502, b'{"error": "AWS is away"}'
    with pytest.raises(CloudError, match="AWS is away"):
        ask(inventory)


def test_a_request_is_not_sent_on(inventory: Inventory, endpoint: Endpoint) -> None:
    endpoint.status, endpoint.headers = 307, {"Location": endpoint.url}
    with pytest.raises(CloudError):
        ask(inventory)
    assert len(endpoint.seen) == 1


@pytest.mark.parametrize("address", ["", "http://localhost:1/open"])
def test_only_https_is_asked(inventory: Inventory, address: str) -> None:
    (source,) = inventory.aws
    plain = replace(inventory, aws=(replace(source, token_endpoint=address),))
    with pytest.raises(BadInput, match="https"):
        ask(plain)


def test_an_endpoint_with_another_authority_is_not_trusted(
    inventory: Inventory, endpoint: Endpoint, tmp_path: Path
) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "other.pem"))
    (source,) = inventory.aws
    other = replace(source, token_endpoint_ca_file=str(tmp_path / "other.pem"))
    with pytest.raises(CloudError, match="cannot be asked"):
        ask(replace(inventory, aws=(other,)))
    assert not endpoint.seen


def without_issuer(inventory: Inventory) -> Inventory:
    return replace(inventory, issuer=None)


def without_ca(inventory: Inventory) -> Inventory:
    (source,) = inventory.aws
    return replace(inventory, aws=(replace(source, token_endpoint_ca_file="/nowhere.pem"),))


@pytest.mark.parametrize("broken", [without_issuer, without_ca])
def test_what_the_inventory_lacks_is_said(
    inventory: Inventory, broken: Callable[[Inventory], Inventory]
) -> None:
    with pytest.raises(BadInput):
        ask(broken(inventory))


def test_nobody_waits_for_ever(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_request, "TIMEOUT", 0.2)
    silent = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # takes connections, says nothing
    try:
        (source,) = inventory.aws
        address = f"https://localhost:{silent.server_port}/open"
        with pytest.raises(CloudTimeout):
            ask(replace(inventory, aws=(replace(source, token_endpoint=address),)))
    finally:
        silent.server_close()
