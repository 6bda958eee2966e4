"""The emulated customer: holds the seed, and answers Suture's requests to open the gate, over TLS.

What a real customer would run as a small function in an account of their own. It trusts a request
only when Suture's issuer signed it just now, for this address, once, and for actions it allows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import ssl
import threading
import time
from collections.abc import Collection, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import jwt
import pyotp
import trustme
from azure.identity import ClientSecretCredential

from deployments.local.issued import note
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.azure_write import identity_options
from tasks.clouds.gate import MOST_MINUTES, CustomerCredentials, OpenGate, close_gate, open_gate
from tasks.clouds.openings import timestamp
from tasks.errors import BadInput, SutureError
from tasks.inventory import AwsSource, Inventory, Issuer
from tasks.model import Account, Cloud
from tasks.rules import RULES

log = logging.getLogger(__name__)

MOST_REQUEST = 65_536  # bytes
MOST_AGE = 300  # seconds from a request's signing to its end
REQUIRED = ["iss", "aud", "exp", "iat", "jti", "cloud", "source", "account", "remediation"]


class Refused(Exception):
    """A request is not granted. The message goes to who asked."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        self.status = status
        super().__init__(message)


class EmulatedCustomer:
    """A customer's token endpoint on a free port of the loopback, with its seed in ``data_dir``.

    ``inventory`` names the clouds and Suture's issuer. ``aws_credentials`` has access_key_id and
    secret_access_key, ``azure_credentials`` client_id and client_secret: the customer's own.
    ``allowed_actions`` are the permissions it opens for, by default those of the rule table.
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
    ) -> None:
        self._inventory = inventory
        self._aws, self._azure = aws_credentials, azure_credentials
        actions = _table_actions() if allowed_actions is None else allowed_actions
        self._allowed = {action.lower() for action in actions}
        self._most_minutes = most_minutes
        self._locks: dict[str, threading.Lock] = {}
        self._to_close: dict[tuple[str, str], threading.Timer] = {}  # by account id and opening
        self._server = _Server(port, self, ca)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        base = f"https://localhost:{self._server.server_port}"
        self.url, self.close_url = f"{base}/open", f"{base}/close"
        self._requests = _Requests(inventory.issuer, ca)
        self.seed_file = data_dir / "customer-seed"
        _keep_seed(self.seed_file)

    def start(self) -> EmulatedCustomer:
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the server, and close what it would have closed later."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        for timer in list(self._to_close.values()):
            timer.cancel()
            timer.function(*timer.args)

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

    def answer(self, path: str, request: object) -> dict[str, str]:
        """The answer to one request. Raises Refused."""
        if path == "/open":
            claims = self._requests.verified(request, self.url)
            opened = self._open(claims)
            note("machine code", opened.code.get_secret_value())
            return {
                "code": opened.code.get_secret_value(),
                "expires_at": timestamp(opened.expires_at),
            }
        if path == "/close":
            claims = self._requests.verified(request, self.close_url)
            self._close(_account(claims), _opening(claims))
            return {}
        raise Refused(HTTPStatus.NOT_FOUND, "there is /open and /close.")

    def _open(self, claims: Mapping[str, Any]) -> OpenGate:
        account, opening = _account(claims), _opening(claims)
        minutes = claims.get("minutes")
        if not isinstance(minutes, int) or not 1 <= minutes <= self._most_minutes:
            raise Refused(
                HTTPStatus.FORBIDDEN, f"minutes: 1 to {self._most_minutes} are granted here."
            )
        self._check_actions(_texts(claims, "actions"))
        resources = _texts(claims, "resources")
        with self._turn(account):
            opened = open_gate(
                self._inventory,
                account,
                machine=True,
                minutes=minutes,
                resources=resources,
                opening=opening,
                customer=self.credentials(account),
            )
        self._forget(account, opening)
        if not opened.closes_itself:
            timer = threading.Timer(minutes * 60, self._close_late, (account, opening))
            timer.daemon = True
            self._to_close[account.id, opening] = timer
            timer.start()
        return opened

    def _check_actions(self, actions: list[str]) -> None:
        for action in actions:
            if action.lower() not in self._allowed:
                raise Refused(HTTPStatus.FORBIDDEN, f"{action} is not allowed here.")

    def _close(self, account: Account, opening: str) -> None:
        self._forget(account, opening)
        with self._turn(account):
            close_gate(
                self._inventory, account, opening=opening, customer=self.credentials(account)
            )

    def _close_late(self, account: Account, opening: str) -> None:
        """Close what does not close itself. Nobody waits for the outcome but the log."""
        try:
            self._close(account, opening)
        except SutureError as error:
            log.warning("The gate of %s could not be closed: %s", account.id, error)

    def _forget(self, account: Account, opening: str) -> None:
        timer = self._to_close.pop((account.id, opening), None)
        if timer is not None:
            timer.cancel()

    def _turn(self, account: Account) -> threading.Lock:
        """A trust policy is read, changed and written back: one at a time."""
        return self._locks.setdefault(account.id, threading.Lock())


class _Requests:
    """Checks what Suture's issuer signed. Each request is good once."""

    def __init__(self, issuer: Issuer | None, ca: trustme.CA) -> None:
        self._issuer = issuer
        self._trust = ssl.create_default_context()
        ca.configure_trust(self._trust)
        self._keys: jwt.PyJWKClient | None = None
        self._seen: dict[str, float] = {}
        self._lock = threading.Lock()

    def verified(self, request: object, audience: str) -> dict[str, Any]:
        """The claims of a request for ``audience``. Raises Refused when it cannot be trusted."""
        token = request.get("request") if isinstance(request, dict) else None
        if self._issuer is None or not isinstance(token, str):
            raise Refused(HTTPStatus.BAD_REQUEST, "the request holds no signed JWT.")
        try:
            key = self._published_keys(self._issuer).get_signing_key_from_jwt(token)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=audience,
                issuer=self._issuer.url,
                options={"require": REQUIRED},
            )
        except (jwt.PyJWTError, httpx.HTTPError) as error:
            problem = f"the request cannot be trusted: {type(error).__name__}."
            raise Refused(HTTPStatus.UNAUTHORIZED, problem) from None
        if claims["exp"] - claims["iat"] > MOST_AGE:
            raise Refused(HTTPStatus.UNAUTHORIZED, "the request lives for too long.")
        self._use_once(str(claims["jti"]), claims["exp"])
        return claims

    def _published_keys(self, issuer: Issuer) -> jwt.PyJWKClient:
        if self._keys is None:
            address = f"{issuer.url}/.well-known/openid-configuration"
            document = httpx.get(address, verify=self._trust).raise_for_status().json()
            if document.get("issuer") != issuer.url:
                raise jwt.InvalidIssuerError("the published issuer is another")
            self._keys = jwt.PyJWKClient(document["jwks_uri"], ssl_context=self._trust)
        return self._keys

    def _use_once(self, name: str, until: float) -> None:
        with self._lock:
            now = time.time()
            self._seen = {one: end for one, end in self._seen.items() if end > now}
            if name in self._seen:
                raise Refused(HTTPStatus.UNAUTHORIZED, "the request has been used.")
            self._seen[name] = until


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
        try:
            answer, status = self.server.customer.answer(self.path, self._body()), HTTPStatus.OK
        except Refused as refusal:
            answer, status = {"error": str(refusal)}, refusal.status
        except BadInput as problem:
            answer, status = {"error": str(problem)}, HTTPStatus.BAD_REQUEST
        except SutureError as error:
            answer, status = {"error": str(error)}, HTTPStatus.BAD_GATEWAY
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _body(self) -> object:
        self.close_connection = True
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_REQUEST:
            raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the request is too large.")
        try:
            body: object = json.loads(self.rfile.read(int(length)))
        except ValueError:
            raise Refused(HTTPStatus.BAD_REQUEST, "the request is not JSON.") from None
        return body

    def log_message(self, format: str, *args: object) -> None:
        log.info("token endpoint: " + format, *args)


def _account(claims: Mapping[str, Any]) -> Account:
    try:
        cloud = Cloud(claims["cloud"])
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "cloud: aws or azure.") from None
    return Account(cloud, str(claims["account"]), source=str(claims["source"]))


def _opening(claims: Mapping[str, Any]) -> str:
    """The name of a remediation's opening: closing finds it without having kept it."""
    return hashlib.sha256(str(claims["remediation"]).encode()).hexdigest()[:32]


def _texts(claims: Mapping[str, Any], name: str) -> list[str]:
    value = claims.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(x, str) for x in value):
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name}: a list of texts, not empty.")
    return value


def _table_actions() -> set[str]:
    return {action for rule in RULES for action in rule.writes}


def _keep_seed(path: Path) -> None:
    """The seed of the customer's authenticator, as on their phone: made once, theirs alone."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(pyotp.random_base32())
