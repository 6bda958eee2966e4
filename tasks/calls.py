"""The calls that were made to a cloud: what was asked of what, and the cloud's own number for it.

Pure. Never a body, a header or a parameter: only what names a call in the cloud's own log.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True, slots=True)
class CallMade:
    """One call, answered or not.

    ``operation`` is "s3:PutBucketPolicy" or "PUT", ``target`` what it was about. ``request_id`` is
    AWS's request id or ARM's correlation id, empty where no answer came; ``status`` the HTTP
    status, 0 without an answer; ``code`` the cloud's error code. ``undo`` says that it took
    something back. Of a sign-in, ``identity`` is who the cloud says we are, ``until`` how long.
    """

    operation: str
    target: str = ""
    request_id: str = ""
    status: int = 0
    code: str = ""
    undo: bool = False
    identity: str = ""
    until: datetime | None = None
    at: datetime = field(default_factory=_now)

    @property
    def json(self) -> dict[str, Any]:
        """What is kept of it: only what is not empty, times in ISO 8601."""
        kept = {
            "operation": self.operation,
            "target": self.target,
            "request_id": self.request_id,
            "status": self.status,
            "code": self.code,
            "undo": self.undo,
            "identity": self.identity,
            "until": self.until and self.until.isoformat(timespec="seconds"),
            "at": self.at.isoformat(timespec="milliseconds"),
        }
        return {name: value for name, value in kept.items() if value}


_made: ContextVar[list[CallMade] | None] = ContextVar("calls_made", default=None)


@contextmanager
def recording() -> Iterator[list[CallMade]]:
    """The calls made inside, in order, in this thread and the coroutines that it runs.

    A recording inside another keeps its calls to itself.
    """
    made: list[CallMade] = []
    before = _made.set(made)
    try:
        yield made
    finally:
        _made.reset(before)


def note(call: CallMade) -> None:
    """Add a call to the recording that is on, if one is."""
    made = _made.get()
    if made is not None:
        made.append(call)


def being_recorded() -> bool:
    """Whether anybody wants to know: most calls are a scan's, which nobody records."""
    return _made.get() is not None


def about(calls: Iterable[CallMade], resource_id: str) -> list[CallMade]:
    """Those of ``calls`` that name this resource, or nothing at all, as account-wide ones do."""
    name = re.split("[/:]", resource_id)[-1].lower()
    return [call for call in calls if not call.target or name in call.target.lower()]


def calls_json(calls: Iterable[CallMade]) -> list[dict[str, Any]]:
    return [call.json for call in calls]
