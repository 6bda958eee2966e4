"""Where typed codes wait, in memory only: each for one read, by one run, within two minutes."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr

from tasks.approval import HANDLE_PREFIX
from tasks.errors import SutureError

KEPT_SECONDS = 120.0


class HandleGone(SutureError):
    """The handle was never given, was read already, or is too old: the desk cannot tell which."""


class WrongRun(SutureError):
    """The handle was given to another run."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What one answered form left at the desk.

    ``code`` is empty for a denial. ``approver`` is the sign-in proxy's word when ``verified``, else
    what the person typed. ``until`` is on the desk's clock, in seconds.
    """

    run_id: str
    code: SecretStr
    approver: str
    verified: bool
    until: float


class CodeDesk:
    """Codes by handle. It lives in one process: a restart forgets them, and the flow asks again."""

    def __init__(
        self, *, seconds: float = KEPT_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._kept: dict[str, Kept] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def keep(self, run_id: str, code: SecretStr, approver: str, *, verified: bool) -> str:
        """Take a code in; returns the handle that stands for it."""
        self.sweep()
        handle = HANDLE_PREFIX + secrets.token_urlsafe(32)
        until = self._clock() + self._seconds
        self._kept[handle] = Kept(run_id, code, approver, verified, until)
        self._sweep_later()
        return handle

    def look(self, handle: str, run_id: str) -> Kept:
        """What ``take`` would give, left in place. Raises HandleGone or WrongRun."""
        self.sweep()
        kept = self._kept.get(handle)
        if kept is None:
            raise HandleGone
        if kept.run_id != run_id:
            raise WrongRun
        return kept

    def take(self, handle: str, run_id: str) -> Kept:
        """The one read. Raises HandleGone, or WrongRun (which leaves the code to its run)."""
        kept = self.look(handle, run_id)
        self.drop(handle)
        return kept

    def drop(self, handle: str) -> None:
        self._kept.pop(handle, None)

    def sweep(self) -> None:
        """Forget what is too old."""
        now = self._clock()
        for handle in [handle for handle, kept in self._kept.items() if kept.until <= now]:
            del self._kept[handle]

    def _sweep_later(self) -> None:
        """An idle server must forget as well, so time itself sweeps."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        loop.call_later(self._seconds + 1, self.sweep)
