"""The listener's metrics and its health, for whoever watches over it: an ASGI app.

``GET /metrics`` is Prometheus's text format, ``GET /healthz`` is 200 while all is well, else 503
with the reason. Neither asks who calls: serve it where only the watchers can reach it.
"""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp


def metrics_page(registry: CollectorRegistry, ailing: Callable[[], str]) -> ASGIApp:
    """The app. ``ailing`` says in words what is wrong, without secrets; nothing if all is well."""

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def healthz(request: Request) -> Response:
        reason = ailing()
        return PlainTextResponse(reason or "ok", 503 if reason else 200)

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz)])
