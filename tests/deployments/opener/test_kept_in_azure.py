"""Key Vault and Blob Storage by their REST API, against a stand-in: the emulator has neither.

The stand-in does what Get Secret, Get Blob and Put Blob document, and no more.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError

from deployments.opener.secret import read_secret
from deployments.opener.store import BlobStore, open_store
from tasks.errors import AccessRefused, CloudError

SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
TOKEN = "a-token-of-the-openers-identity"


@dataclass
class Azure:
    """A vault with one secret, and blobs with their ETags."""

    host: str = ""
    blobs: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    etags: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(
        self, method: str, path: str, headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        if headers["Authorization"] != f"Bearer {TOKEN}":
            return 401, {}, b'{"error": {"code": "Unauthorized"}}'
        parts = urlsplit(path)
        if parts.path == "/secrets/gate-seed":
            assert parse_qs(parts.query) == {"api-version": ["7.4"]}
            return 200, {}, json.dumps({"value": f"{SECRET}\n", "id": "x"}).encode()
        if parts.path.startswith("/secrets/"):
            return 404, {}, b'{"error": {"code": "SecretNotFound"}}'
        assert headers["x-ms-version"]
        with self.lock:
            return self.blob(method, parts.path, headers, body)

    def blob(
        self, method: str, path: str, headers: Any, body: bytes
    ) -> tuple[int, dict[str, str], bytes]:
        known = self.blobs.get(path)
        if method == "GET":
            return (200, {"ETag": known[0]}, known[1]) if known else (404, {}, b"")
        assert headers["x-ms-blob-type"] == "BlockBlob"
        if headers["If-None-Match"] == "*" and known:
            return 409, {}, b""
        if headers["If-Match"] and (not known or known[0] != headers["If-Match"]):
            return 412, {}, b""
        self.etags += 1
        self.blobs[path] = (f'"0x{self.etags}"', body)
        return 201, {"ETag": f'"0x{self.etags}"'}, b""


@pytest.fixture
def azure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    made, ca = Azure(), trustme.CA()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, headers, answer = made.answer(self.command, self.path, self.headers, body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(answer))}.items():
                self.send_header(name, value)
            self.send_header("Connection", "close")
            self.close_connection = True
            self.end_headers()
            self.wfile.write(answer)

        do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    made.host = f"localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass
class Credential:
    """The identity that the opener runs as."""

    token: str = TOKEN
    scopes: list[str] = field(default_factory=list)

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        if not self.token:
            raise ClientAuthenticationError("no identity here")
        self.scopes += scopes
        return AccessToken(self.token, 0)


def test_a_seed_in_key_vault(azure: Azure) -> None:
    credential = Credential()
    found = read_secret(
        f"keyvault://{azure.host}/gate-seed?scope=https://x/.default", credential=credential
    )
    assert found.get_secret_value() == SECRET
    assert credential.scopes == ["https://x/.default"]


def test_a_vaults_token_is_for_its_hosts_domain() -> None:
    credential = Credential()
    with pytest.raises(CloudError, match="cannot be asked"):
        read_secret("keyvault://acme.vault.localhost/gate-seed", credential=credential)
    assert credential.scopes == ["https://vault.localhost/.default"]


@pytest.mark.parametrize(
    ("name", "token", "error", "says"),
    [
        ("gate-seed", "another", AccessRefused, "Key Vault refused"),
        ("gate-seed", "", AccessRefused, "sign in"),
        ("unknown", TOKEN, CloudError, "404"),
    ],
)
def test_a_seed_that_cannot_be_read_is_said(
    azure: Azure, name: str, token: str, error: type[CloudError], says: str
) -> None:
    with pytest.raises(error, match=says) as caught:
        read_secret(
            f"keyvault://{azure.host}/{name}?scope=https://x/.default",
            credential=Credential(token),
        )
    assert SECRET not in str(caught.value)


@pytest.mark.attack
def test_sixteen_at_once_write_one_after_the_other(
    azure: Azure, at_once: Callable[..., list[Any]]
) -> None:
    store = open_store(f"blob://{azure.host}/opener", credential=Credential())
    assert isinstance(store, BlobStore)
    found = at_once(
        lambda: store.update("n", lambda known: ({"n": known.get("n", 0) + 1}, known.get("n", 0)))
    )
    assert sorted(found) == list(range(16))
    assert store.update("n", lambda known: (None, known)) == {"n": 16}


def test_a_container_that_refuses_is_said(azure: Azure) -> None:
    store = open_store(f"blob://{azure.host}/opener", credential=Credential("another"))
    with pytest.raises(CloudError, match="401"):
        store.update("n", lambda known: (None, known))
