"""Asking a cloud again: exponential waits with full jitter, Retry-After honoured, and an end."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from tasks.errors import CloudError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long one call is tried: at most ``attempts`` times within ``seconds`` in all.

    The n-th wait is drawn from 0 to first_wait * 2**n seconds, never above ``longest_wait``.
    """

    attempts: int = 5
    seconds: float = 20.0
    first_wait: float = 0.2
    longest_wait: float = 5.0


class TryAgain(Exception):
    """One attempt failed in a way that may pass.

    ``error`` is what to raise when no attempt is left; ``retry_after`` the seconds the cloud
    asked for, if it did.
    """

    def __init__(self, error: CloudError, retry_after: float = 0.0) -> None:
        self.error = error
        self.retry_after = retry_after
        super().__init__(str(error))


async def patiently(attempt: Callable[[], Awaitable[T]], patience: Patience) -> T:
    """Call ``attempt`` until it answers, or raises anything but TryAgain, or patience ends."""
    retrying = AsyncRetrying(
        retry=retry_if_exception_type(TryAgain),
        stop=stop_after_attempt(patience.attempts) | stop_before_delay(patience.seconds),
        wait=_Wait(patience),
        reraise=True,
    )

    async def once() -> T:  # tenacity awaits what is a coroutine function, and a lambda is none
        return await attempt()

    try:
        return await retrying(once)
    except TryAgain as last:
        raise last.error from None


class _Wait:
    """Full jitter, on top of what the cloud asked for: not everyone comes back at once."""

    def __init__(self, patience: Patience) -> None:
        self._jitter = wait_random_exponential(
            multiplier=patience.first_wait, max=patience.longest_wait
        )

    def __call__(self, state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.retry_after if isinstance(failure, TryAgain) else 0.0
        return asked + self._jitter(state)


def retry_after_seconds(header: str | None) -> float:
    """The wait a Retry-After header asks for; 0 when it is absent or makes no sense."""
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0
