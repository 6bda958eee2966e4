"""The HTTP side that both clouds share: limits, one client per source, and what faults mean."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from tasks.clouds.http_client import HttpClient, HttpFault, Silent, Unreachable
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


def open_http(limits: Limits, ca_file: str) -> HttpClient:
    """One client with kept connections. ``ca_file``, if any, is trusted instead of the system."""
    return HttpClient(
        trust(ca_file),
        connections=limits.connections,
        connect_seconds=limits.connect_seconds,
        silent_seconds=limits.request_seconds,
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


def what_failed(fault: HttpFault, operation: str) -> CloudError | TryAgain:
    """An exchange without an answer, in Suture's own errors.

    TryAgain for what may pass (connections that break), CloudTimeout for silence, CloudError for
    the rest.
    """
    match fault:
        case Silent():
            return CloudTimeout(str(fault), operation=operation)
        case Unreachable():
            return TryAgain(CloudError(str(fault), operation=operation))
        case _:
            return CloudError(str(fault), operation=operation)


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
