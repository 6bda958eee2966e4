"""``suture server``: Prefect's API and UI behind the approval guard, in one process.

Run it in place of ``prefect server start``. Codes wait in this process's memory, so there is one
worker; scale the database, not the workers. Settings are Prefect's own environment variables, and

- ``SUTURE_APPROVER_HEADER``: the header in which an authenticating proxy names the person. Set it
  only when nobody can reach the server round that proxy.
- ``SUTURE_GUARD_KEY``: a secret of 32 characters or more that the server and the runs share. With
  it a code is given to a run's process only, and to nobody else who may call the API.
"""

from __future__ import annotations

import logging
import os
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.code_desk import CodeDesk
from deployments.guard import Guard
from tasks import settings
from tasks.core_dumps import forbid_core_dumps
from tasks.garbage import collect_rarely

if TYPE_CHECKING:
    from fastapi import FastAPI

APPROVER_HEADER = "SUTURE_APPROVER_HEADER"
HEALTH_PATH = "/suture/health"

# What `suture server` sets where the environment does not. The batch sizes take a third of the
# server's CPU per task run; Prefect's own defaults write events a few at a time.
DEFAULTS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "500",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "200",
    # Frees what only `prefect server start` with more than one app would need.
    "PREFECT__SERVER_FINAL": "1",
}

_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")

logger = logging.getLogger("suture.server")


class SafeHeaders:
    """ASGI middleware: keeps the UI from calling out, and answers the health check.

    The bundled UI starts a third-party analytics client whatever the settings; its pages render
    markdown with remote images. ``api_url`` is where the UI finds the API, when that is elsewhere.
    """

    def __init__(self, app: ASGIApp, *, api_url: str = "") -> None:
        self.app = app
        address = urlsplit(api_url)
        self._api_host = address.netloc if _HOST.fullmatch(address.netloc) else ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if scope["method"] in {"GET", "HEAD"} and scope["path"] == HEALTH_PATH:
            await JSONResponse({"status": "ok", "guard": True})(scope, receive, send)
            return
        host = Headers(scope=scope).get("host", "")

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-content-type-options"] = "nosniff"
                headers["x-frame-options"] = "DENY"
                headers["referrer-policy"] = "same-origin"
                if headers.get("content-type", "").startswith("text/html"):
                    headers["content-security-policy"] = self._policy(host)
            await send(message)

        await self.app(scope, receive, send_safely)

    def _policy(self, host: str) -> str:
        # Not every browser takes 'self' to cover websockets, hence the hosts by name.
        hosts = {name for name in (host, self._api_host) if name and _HOST.fullmatch(name)}
        connect = " ".join(
            f"{scheme}://{name}"
            for name in sorted(hosts)
            for scheme in ("http", "https", "ws", "wss")
        )
        return "; ".join(
            (
                "default-src 'self'",
                f"connect-src 'self' {connect}".rstrip(),
                # Both UIs draw a run's graph with a library that compiles its shaders' code.
                "script-src 'self' 'unsafe-eval'",
                "worker-src 'self' blob:",
                "style-src 'self' 'unsafe-inline'",
                "img-src 'self' data: blob:",
                "font-src 'self' data:",
                "object-src 'none'",
                "base-uri 'self'",
                "form-action 'self'",
                "frame-ancestors 'none'",
            )
        )


def guarded(app: FastAPI, *, desk: CodeDesk | None = None) -> ASGIApp:
    """Prefect's app with the guard inside its API and safe headers outside.

    ``app`` is what ``create_app`` gave, before its first request.
    """
    api_app: FastAPI = app.api_app  # type: ignore[attr-defined]
    # Last in the list is innermost: behind Prefect's authentication and body handling.
    api_app.user_middleware.append(
        Middleware(
            Guard,
            desk=desk or CodeDesk(),
            approver_header=os.environ.get(APPROVER_HEADER) or None,
            key=settings.guard_key(),
        )
    )
    from prefect.settings import get_current_settings

    return SafeHeaders(app, api_url=get_current_settings().server.ui.api_url or "")


def run_server(host: str = "127.0.0.1", port: int = 4200) -> None:
    """Serve until interrupted. Prefect is imported here, so that the defaults below reach it."""
    forbid_core_dumps()
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    os.environ["PREFECT_SERVER_API_HOST"] = host
    os.environ["PREFECT_SERVER_API_PORT"] = str(port)
    # Prefect lets every website call its API from a visitor's browser; ours is for its own UI.
    own = {f"http://{name}:{port}" for name in (host, "localhost", "127.0.0.1")}
    os.environ.setdefault("PREFECT_SERVER_CORS_ALLOWED_ORIGINS", ",".join(sorted(own)))

    import uvicorn
    from prefect.context import refresh_global_settings_context
    from prefect.server.api.server import create_app
    from prefect.settings import get_current_settings

    refresh_global_settings_context()
    app = guarded(create_app())
    _log_to_stderr()
    if settings.guard_key() is None:
        logger.warning(
            "SUTURE_GUARD_KEY is not set: whoever may call this API can read an approver's code "
            "before the run does. Set the same key here and for the workers."
        )
    api = get_current_settings().server.api
    logger.info(
        "Serving Prefect behind the approval guard on http://%s:%s (Prefect's analytics %s)",
        host,
        port,
        "on" if get_current_settings().server.analytics_enabled else "off",
    )
    collect_rarely()
    uvicorn.run(
        app,
        host=host,
        port=port,
        workers=1,
        # Access lines are noise beside Prefect's own log; bodies are never logged anywhere.
        access_log=False,
        log_level="warning",
        lifespan="on",
        server_header=False,
        timeout_keep_alive=api.keepalive_timeout,
        ws_ping_interval=api.websocket_ping_interval,
        ws_ping_timeout=api.websocket_ping_timeout,
        # Event streams stay open for ever; do not wait for them.
        timeout_graceful_shutdown=3,
    )


def _log_to_stderr() -> None:
    ours = logging.getLogger("suture")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
