"""The emulated customer: holds the seed, and runs the opener on a port of the loopback, over TLS.

The opener is the real one (deployments/opener), with a folder for its store and the customer's own
keys; what is emulated is only where it runs.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import ssl
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyotp
import trustme
from azure.identity import ClientSecretCredential
from pydantic import SecretStr

from deployments.local.issued import note
from deployments.opener.allow import Allowed
from deployments.opener.core import MOST_REQUEST, Opener, Settings
from deployments.opener.journal import FileJournal
from deployments.opener.secret import read_secret
from deployments.opener.store import FileStore
from deployments.opener.warm import WarmGate
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.azure_write import identity_options
from tasks.clouds.gate import MOST_MINUTES, CustomerCredentials
from tasks.inventory import AwsSource, Inventory
from tasks.model import Account
from tasks.rules import RULES

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # between two looks at what is past its time
SWEEP_SECONDS = 60.0  # between two looks at what others left open


class EmulatedCustomer:
    """A customer's token endpoint on a free port of the loopback, with its seed in ``data_dir``.

    ``inventory`` names the clouds and Suture's issuer. ``aws_credentials`` has access_key_id and
    secret_access_key, ``azure_credentials`` client_id and client_secret: the customer's own.
    ``allowed_actions`` are the permissions it opens for, by default those of the rule table.
    ``warm`` are the gates that are kept open ahead, from when it starts.
    ``ca`` signs the endpoint's certificate, and is trusted when the issuer's keys are read.
    """

    def __init__(
        self,
        inventory: Inventory,
        *,
        aws_credentials: Mapping[str, str] | None = None,
        azure_credentials: Mapping[str, str] | None = None,
        ca: trustme.CA,
        data_dir: Path,
        port: int = 0,
        allowed_actions: Collection[str] | None = None,
        most_minutes: int = MOST_MINUTES,
        warm: Sequence[WarmGate] = (),
    ) -> None:
        self._inventory = inventory
        self._aws, self._azure = aws_credentials, azure_credentials
        self._server = _Server(port, self, ca)
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in (self._server.serve_forever, self._close_in_time)
        ]
        self._stopping = threading.Event()
        base = f"https://localhost:{self._server.server_port}"
        self.url, self.close_url = f"{base}/open", f"{base}/close"
        self.seed_file = data_dir / "customer-seed"
        _keep_seed(self.seed_file)
        self.journal_file = data_dir / "opener-journal.jsonl"
        trust = ssl.create_default_context()
        ca.configure_trust(trust)
        warm_key = SecretStr(secrets.token_urlsafe(48))
        self._warm = bool(warm)
        actions = _table_actions() if allowed_actions is None else allowed_actions
        self.opener = Opener(
            Settings(
                url=base,
                allow=(Allowed(("*",), tuple(actions), minutes=most_minutes),),
                seed=lambda: read_secret(self.seed_file.as_uri()),
                credentials=self.credentials,
                warm=tuple(warm),
                warm_key=lambda: warm_key,
            ),
            inventory,
            FileStore(data_dir / "opener"),
            FileJournal(self.journal_file),
            trust=trust,
        )

    def start(self) -> EmulatedCustomer:
        if self._warm:
            self.opener.tick()
        for thread in self._threads:
            thread.start()
        return self

    def stop(self) -> None:
        """End the server, and close what it would have closed later."""
        started = self._threads[0].is_alive()
        self._stopping.set()
        if started:
            self._server.shutdown()
            for thread in self._threads:
                thread.join()
        self._server.server_close()
        if started:
            self.opener.close_all()

    def __enter__(self) -> EmulatedCustomer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def credentials(self, account: Account) -> CustomerCredentials:
        """The customer's own keys for one account, as the gate takes them."""
        source = self._inventory.source(account.source)
        if isinstance(source, AwsSource):
            keys = self._aws or {}
            return CustomerCredentials(
                aws=AwsCredentials(keys["access_key_id"], keys["secret_access_key"])
            )
        keys = self._azure or {}
        return CustomerCredentials(
            azure=ClientSecretCredential(
                source.tenant, keys["client_id"], keys["client_secret"], **identity_options(source)
            )
        )

    def _close_in_time(self) -> None:
        swept = time.monotonic()
        while not self._stopping.wait(LOOK_SECONDS):
            self.opener.close_due()
            if time.monotonic() - swept > SWEEP_SECONDS:
                self.opener.tick()
                swept = time.monotonic()


class _Server(ThreadingHTTPServer):
    """TLS in the thread of each connection, so that a silent client holds up nobody."""

    daemon_threads = True

    def __init__(self, port: int, customer: EmulatedCustomer, ca: trustme.CA) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.customer = customer
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a connection from %s ended badly", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: _Server
    timeout = 30
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.close_connection = True
        length = self.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) <= MOST_REQUEST:
            status, answer = self.server.customer.opener.answer(
                self.path, self.rfile.read(int(length))
            )
        else:
            status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            answer = {"error": "the request is too large."}
        if "code" in answer:
            note("machine code", str(answer["code"]))
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        log.info("token endpoint: " + format, *args)


def _table_actions() -> set[str]:
    return {action for rule in RULES for action in rule.writes}


def _keep_seed(path: Path) -> None:
    """The seed of the customer's authenticator, as on their phone: made once, theirs alone."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(pyotp.random_base32())
