"""The opener as an ASGI application, for a container: it answers, and ticks while it runs.

    uvicorn --factory deployments.opener.http:create_app --host 0.0.0.0 --port 8443 \\
        --ssl-keyfile … --ssl-certfile …

or without TLS of its own behind a proxy that has it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any

from deployments.opener.config import configured_opener
from deployments.opener.core import HEADERS, MOST_REQUEST, Opener
from tasks.core_dumps import forbid_core_dumps

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

TICK_SECONDS = 30.0


def create_app() -> Application:
    """The application of the opener that ``SUTURE_OPENER_CONFIG`` describes."""
    forbid_core_dumps()
    return Application(configured_opener())


class Application:
    """ASGI 3.0 (asgi.readthedocs.io): HTTP and lifespan. The opener blocks, so threads call it."""

    def __init__(self, opener: Opener, *, tick_seconds: float = TICK_SECONDS) -> None:
        self._opener = opener
        self._tick_seconds = tick_seconds

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        ticking = asyncio.create_task(self._tick())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        ticking.cancel()
        with suppress(asyncio.CancelledError):
            await ticking
        await send({"type": "lifespan.shutdown.complete"})

    async def _tick(self) -> None:
        while True:
            await asyncio.to_thread(self._opener.tick)
            await asyncio.sleep(self._tick_seconds)

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            status, answer = HTTPStatus.METHOD_NOT_ALLOWED, {"error": "send a POST."}
        else:
            body = await _body(receive)
            status, answer = await asyncio.to_thread(self._opener.answer, scope["path"], body)
        headers = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
        await send({"type": "http.response.start", "status": int(status), "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})


async def _body(receive: Receive) -> bytes:
    """The request's body; of one that is too large, enough to see that it is."""
    body = b""
    while len(body) <= MOST_REQUEST:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body
