"""Accounts and subscriptions that misbehave, from a file: {"100000000003": "hang", …}.

A value is a fault's name or {"fault": "cut", "service": "s3"}; "expired" also takes "after", the
calls that a session is good for (counted in each process by itself). Without a service a fault
meets every call signed with the account's own keys. AssumeRole is signed by the hub: "refused"
meets it, and so does any fault whose service is "sts".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

NAMES = (
    "hang",
    "cut",
    "html",
    "500",
    "truncated",
    "skewed",
    "expired",
    "refused",
    "garbage",
    "reset",
)
EXPIRES_AFTER = 10  # calls


@dataclass(slots=True)
class Fault:
    """What goes wrong. ``calls`` counts what was asked since the last AssumeRole."""

    name: str
    service: str = ""
    after: int = EXPIRES_AFTER
    calls: int = 0


@dataclass(frozen=True, slots=True)
class Broken:
    """An answer that ends badly: ``data`` is sent, then the connection is left, closed or reset.

    ``ending`` is "hang", "close" or "reset".
    """

    data: bytes
    ending: str


def read_faults(path: str) -> dict[bytes, Fault]:
    """The faults of a file by account number or subscription id. Raises ValueError."""
    if not path:
        return {}
    given = json.loads(Path(path).read_text())
    if not isinstance(given, dict):
        raise ValueError(f"{path}: an object of accounts and faults is needed.")
    faults = {}
    for account, wanted in given.items():
        fields = {"fault": wanted} if isinstance(wanted, str) else wanted
        if not isinstance(fields, dict) or set(fields) - {"fault", "service", "after"}:
            raise ValueError(f"{path}: {account}: give a fault's name, or fault, service, after.")
        if fields.get("fault") not in NAMES:
            raise ValueError(f"{path}: {account}: the fault must be one of {', '.join(NAMES)}.")
        faults[account.encode()] = Fault(
            fields["fault"],
            str(fields.get("service", "")),
            int(fields.get("after", EXPIRES_AFTER)),
        )
    return faults


def halved(answer: bytes) -> bytes:
    """A complete HTTP answer whose body is the first half of ``answer``'s."""
    head, _, body = answer.partition(b"\r\n\r\n")
    half = body[: len(body) // 2]
    lines = [
        b"Content-Length: %d" % len(half) if line.startswith(b"Content-Length:") else line
        for line in head.split(b"\r\n")
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n" + half


def cut(answer: bytes) -> Broken:
    """The answer up to the middle of its body, and then nothing more."""
    start = answer.find(b"\r\n\r\n") + 4
    return Broken(answer[: start + (len(answer) - start) // 2], "close")
