"""An ASGI app served beside the listener, in its event loop, for as long as a block runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp


class _Beside(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: the listener ends on signals, and this with it."""
        yield


@contextlib.asynccontextmanager
async def served(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    certificate: Path | None = None,
    key: Path | None = None,
) -> AsyncIterator[str]:
    """Serve ``app`` and give its address, "http://127.0.0.1:8090"; port 0 is any free one.

    With ``certificate`` (a PEM file with its chain) and its ``key`` by TLS. Raises OSError if the
    port is taken or a file cannot be read, ssl.SSLError if it holds no certificate.
    """
    config = uvicorn.Config(
        app,
        # Access lines would hold addresses, and so the key of whoever sends it in one.
        access_log=False,
        log_level="warning",
        lifespan="off",
        ws="none",
        server_header=False,
        # Whoever is served here speaks briefly.
        timeout_graceful_shutdown=5,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )
    # Before the socket is open: what is wrong with the files is said here, not by a dying task.
    config.load()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as listening:
        bound = listening.getsockname()[1]
        server = _Beside(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        try:
            # uvicorn has no more than this flag.
            while not server.started and not serving.done():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            if serving.done():
                serving.result()
            scheme = "https" if certificate else "http"
            yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{bound}"
        finally:
            server.should_exit = True
            await serving
