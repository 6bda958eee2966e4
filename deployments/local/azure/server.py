"""The emulated Azure as one object: three HTTPS ports on the loopback, served from a thread."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson
import trustme
import uvloop
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from deployments.local.azure.arm import ResourceManager
from deployments.local.azure.entra import Entra, TokenService, jwk
from deployments.local.azure.event_grid import EventGrid, Webhook
from deployments.local.azure.graph import GraphOptions, ResourceGraph
from deployments.local.azure.queues import QueueService
from deployments.local.azure.seed import Seeded, seed_tenant
from deployments.local.azure.tenant import Faults, Tenant

ISSUER_PATH = "/suture-issuer"


class EmulatedAzure:
    """An emulated tenant with ``subscriptions`` live subscriptions and one disabled one.

    ``data_dir`` receives ca.pem, the only file written. ``issuer_public_key_pem`` (RSA) is
    published as OpenID configuration and JWKS at ``issuer_url``, as a customer's static website
    would; ``issuer_key_id`` is its kid, the RFC 7638 thumbprint when left out. With ``failing``
    and five or more subscriptions, one refuses the scanner (403) and one throttles for ever (429).
    ``ca`` lets other servers share the authority. ``graph`` is how Resource Graph behaves: quota,
    lag, size of answers. Delays are in seconds. Writes are told of by events, in the storage queue
    at ``event_queue``: ``event_delay`` later, the share ``event_duplicates`` twice, and the share
    ``event_reordering`` up to a second later still; these three may be changed while it runs.
    ``plain_http`` is how many storage accounts more in each subscription take plain HTTP.

    Start and stop once each, or use it as a context manager; make a new one to start again.
    """

    def __init__(
        self,
        subscriptions: int,
        seed: int,
        data_dir: Path,
        failing: bool = True,
        issuer_public_key_pem: bytes | None = None,
        *,
        issuer_key_id: str | None = None,
        ca: trustme.CA | None = None,
        page_size: int = 10,
        operation_polls: int = 1,
        retry_after: int | None = 1,
        rbac_delay: float = 0.0,
        federation_delay: float = 0.0,
        token_lifetime: int = 3599,
        graph: GraphOptions | None = None,
        latency: float = 0.0,
        event_delay: float = 0.0,
        event_duplicates: float = 0.0,
        event_reordering: float = 0.0,
        plain_http: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ca = ca or trustme.CA(organization_name="Emulated Azure")
        data_dir.mkdir(parents=True, exist_ok=True)
        self.ca_file = data_dir / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        self._latency = latency
        self._issuer_jwk = _issuer_jwk(issuer_public_key_pem, issuer_key_id)
        self._sockets = [_listen(), _listen(), _listen()]
        ports = [listening.getsockname()[1] for listening in self._sockets]
        self.authority, self.resource_manager = (f"https://localhost:{port}" for port in ports[:2])
        # By its address, for the SDK then looks for the account in the path.
        self.queue_endpoint = f"https://127.0.0.1:{ports[2]}"
        self.issuer_url = f"{self.resource_manager}{ISSUER_PATH}"
        self._seeded: Seeded = seed_tenant(subscriptions, seed, failing, plain_http)
        self.tenant: Tenant = self._seeded.tenant
        self.tenant.clock = clock
        self.tenant.page_size = page_size
        self.tenant.rbac_delay = rbac_delay
        self.tenant.federation_delay = federation_delay
        self.tenant.operations.polls = operation_polls
        self.tenant.operations.retry_after = retry_after
        self.tokens = TokenService(self.tenant, self.authority, token_lifetime)
        self.queues = QueueService(self.tenant, self.tokens)
        self._event_grid = EventGrid(
            self.tenant,
            self.queues,
            seed=seed,
            delay=event_delay,
            duplicates=event_duplicates,
            reordering=event_reordering,
        )
        self._manager = ResourceManager(
            self.tenant, self.tokens, self.resource_manager, graph, self._event_grid.publish
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stopping: asyncio.Event | None = None
        self._serving = False

    @property
    def description(self) -> dict[str, Any]:
        """The "azure" object of the fleet description. Holds credentials: not for logs."""
        return {
            "authority": self.authority,
            "resource_manager": self.resource_manager,
            "audience": self.tenant.audience,
            "tenant": self.tenant.id,
            **self._seeded.description,
            "event_queue": self.event_queue,
            "event_dead_letter_queue": self.event_dead_letter_queue,
        }

    @property
    def event_queue(self) -> str:
        """The URL of the storage queue that events come by."""
        return f"{self.queue_endpoint}{self._seeded.description['event_queue']}"

    @property
    def event_dead_letter_queue(self) -> str:
        return f"{self.queue_endpoint}{self._seeded.description['event_dead_letter_queue']}"

    @property
    def events(self) -> deque[dict[str, Any]]:
        """The events of all writes so far, the last 10,000 of them: those of failures, and those
        that no subscription wants, too.
        """
        return self._event_grid.events.copy()

    def event_webhook(
        self,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        cloud_events: bool = False,
        ca_file: Path | None = None,
        wait: float = 0.5,
    ) -> None:
        """Shake hands with a webhook, and send it from now on what goes to the queue.

        ``ca_file`` is trusted beside the fleet's own authority; what failed is sent again after
        ``wait`` seconds. Raises HandshakeFailed.
        """
        assert self._loop is not None, "it does not run yet"
        trust = ssl.create_default_context(cafile=str(self.ca_file))
        if ca_file is not None:
            trust.load_verify_locations(str(ca_file))

        async def subscribe() -> None:
            webhook = Webhook(url, headers or {}, trust, cloud_events, wait)
            await self._event_grid.subscribe(webhook)

        asyncio.run_coroutine_threadsafe(subscribe(), self._loop).result(timeout=60)

    @property
    def truth(self) -> list[dict[str, str]]:
        """Exactly what a full scan must report as FAIL: cloud, account, region, rule, resource."""
        return self._seeded.truth

    @property
    def failing(self) -> dict[str, str]:
        """Subscription id to "refused" or "throttled"."""
        return self._seeded.failing

    @property
    def graph(self) -> ResourceGraph:
        """The tenant's Resource Graph, with its options."""
        return self._manager.graph

    @property
    def event_delay(self) -> float:
        return self._event_grid.delay

    @event_delay.setter
    def event_delay(self, seconds: float) -> None:
        self._event_grid.delay = seconds

    @property
    def event_duplicates(self) -> float:
        return self._event_grid.duplicates

    @event_duplicates.setter
    def event_duplicates(self, share: float) -> None:
        self._event_grid.duplicates = share

    @property
    def event_reordering(self) -> float:
        return self._event_grid.reordering

    @event_reordering.setter
    def event_reordering(self, share: float) -> None:
        self._event_grid.reordering = share

    @property
    def faults(self) -> Faults:
        return self.tenant.faults

    def __enter__(self) -> EmulatedAzure:
        self.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.stop()

    def start(self) -> None:
        """Serve; returns once all ports answer."""
        ready = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="emulated-azure", daemon=True
        )
        self._thread.start()
        if not ready.wait(timeout=30) or not self._serving:
            raise RuntimeError("the emulated Azure did not start")

    def stop(self) -> None:
        """Stop serving and close all ports. Safe to call more than once."""
        if self._loop and self._stopping and self._thread and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(timeout=30)
        for listening in self._sockets:
            listening.close()

    def _run(self, ready: threading.Event) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._serve(ready))

    async def _serve(self, ready: threading.Event) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        outgoing = ssl.create_default_context(cafile=str(self.ca_file))
        entra = Entra(self.tenant, self.tokens, self.authority, outgoing)
        website = (
            web.get(f"{ISSUER_PATH}/.well-known/openid-configuration", self._issuer),
            web.get(f"{ISSUER_PATH}/jwks.json", self._issuer_keys),
        )
        applications = (
            entra.application(),
            self._manager.application(website),
            self.queues.application(),
        )
        for application in applications if self._latency else ():
            application.middlewares.append(self._wait)
        runners = [
            web.AppRunner(application, access_log=None, shutdown_timeout=1)
            for application in applications
        ]
        context = self._server_context()
        settling = asyncio.create_task(self._settle())
        try:
            for runner, listening in zip(runners, self._sockets, strict=True):
                await runner.setup()
                await web.SockSite(runner, listening, ssl_context=context, backlog=512).start()
            self._serving = True
            ready.set()
            await self._stopping.wait()
        finally:
            self._serving = False
            ready.set()
            settling.cancel()
            for runner in runners:
                _hang_up(runner)
                await runner.cleanup()
            await asyncio.sleep(0.01)  # lets the aborted connections be told that they are lost

    @web.middleware
    async def _wait(self, request: web.Request, handler: Any) -> web.StreamResponse:
        await asyncio.sleep(self._latency)
        return await handler(request)

    async def _settle(self) -> None:
        """End what nobody polls even while nobody asks anything: its event is waited for."""
        while True:
            await asyncio.sleep(1)
            self.tenant.operations.settle_overdue()

    def _server_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
        return context

    async def _issuer(self, request: web.Request) -> web.Response:
        document = {
            "issuer": self.issuer_url,
            "jwks_uri": f"{self.issuer_url}/jwks.json",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }
        return _static(document if self._issuer_jwk else None)

    async def _issuer_keys(self, request: web.Request) -> web.Response:
        return _static({"keys": [self._issuer_jwk]} if self._issuer_jwk else None)


def _hang_up(runner: web.AppRunner) -> None:
    """Drop idle connections at once: a polite TLS goodbye would wait for clients that stay."""
    for connection in list(runner.server.connections) if runner.server else ():
        if connection.transport is not None:
            connection.transport.abort()


def _static(document: dict[str, Any] | None) -> web.Response:
    if document is None:
        return web.Response(status=404)
    return web.Response(body=orjson.dumps(document), content_type="application/json")


def _issuer_jwk(pem: bytes | None, key_id: str | None) -> dict[str, str] | None:
    if pem is None:
        return None
    key = load_pem_public_key(pem)
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError("the issuer's public key must be an RSA key: Entra accepts RS256 only")
    return jwk(key, key_id)


def _listen() -> socket.socket:
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", 0))
    return listening
