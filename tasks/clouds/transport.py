"""The HTTP side that both clouds share: limits, one session per source, and what faults mean."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import aiohttp

from tasks.clouds.retrying import Patience, TryAgain
from tasks.errors import AccessRefused, BadInput, CloudError, CloudTimeout, Throttled

USER_AGENT = "suture"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How hard one process leans on the clouds. Times are in seconds.

    ``accounts`` are scanned at once, each with ``calls`` requests in flight, over at most
    ``connections`` sockets a source. ``request_seconds`` bounds each silence of a server,
    ``account_seconds`` everything about one account.
    """

    accounts: int = 32
    calls: int = 8
    connections: int = 128
    connect_seconds: float = 5.0
    request_seconds: float = 20.0
    account_seconds: float = 120.0
    patience: Patience = field(default_factory=Patience)


def open_http(limits: Limits, ca_file: str) -> aiohttp.ClientSession:
    """One session with keep-alive pools. ``ca_file``, if any, is trusted instead of the system."""
    connector = aiohttp.TCPConnector(
        limit=limits.connections,
        ssl=trust(ca_file),
        keepalive_timeout=30,
        ttl_dns_cache=300,
    )
    # No total: it would count the time spent waiting for a free connection of our own pool.
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=limits.connect_seconds, sock_read=limits.request_seconds
    )
    return aiohttp.ClientSession(
        connector=connector,
        timeout=timeout,
        headers={"User-Agent": USER_AGENT},
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=True,
    )


def trust(ca_file: str) -> ssl.SSLContext:
    """The TLS context that trusts ``ca_file``, or the system's authorities when it is empty."""
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # covers missing files, and files without a certificate in them
        raise BadInput(
            "ca_file",
            f"{ca_file} holds no certificate that can be read: {error.strerror or error}.",
            "Name a PEM file.",
        ) from None


@contextmanager
def faults(operation: str, host: str) -> Iterator[None]:
    """Say what a failing exchange with ``host`` means in Suture's own errors.

    TryAgain for what may pass (connections that break), CloudTimeout for silence, CloudError for
    the rest.
    """
    try:
        yield
    except TimeoutError:
        raise CloudTimeout(f"{host} did not answer in time", operation=operation) from None
    except aiohttp.ClientSSLError as error:
        message = f"no trusted connection to {host}: {error}"
        raise CloudError(message, operation=operation) from None
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
        message = f"the connection to {host} failed: {error or type(error).__name__}"
        raise TryAgain(CloudError(message, operation=operation)) from None
    except aiohttp.ClientError as error:
        message = f"{host} does not speak HTTP: {type(error).__name__}"
        raise CloudError(message, operation=operation) from None


def reason(error: Exception) -> str:
    """Why an account or a kind could not be read, for the record: one word first, then details."""
    match error:
        case AccessRefused():
            return f"refused: {error}"
        case Throttled():
            return f"throttled: {error}"
        case CloudTimeout():
            return f"timed out: {error}"
        case _:
            return f"failed: {error}"
