"""Asking a cloud again: exponential waits with full jitter, Retry-After honoured, and an end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    wait_random_exponential,
)

from tasks.clouds.budgets import Budget
from tasks.errors import CloudError, CloudTimeout, Throttled

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long one call is tried: for ``seconds`` in all.

    A throttled call is tried again until then: a cloud that throttles has promised to answer. Any
    other fault that may pass is tried at most ``attempts`` times. The n-th wait is drawn from 0 to
    first_wait * 2**n seconds, never above ``longest_wait``, on top of what the cloud asked for.
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

    @property
    def throttled(self) -> bool:
        return isinstance(self.error, Throttled)


async def patiently(
    attempt: Callable[[], Awaitable[T]], patience: Patience, budget: Budget | None = None
) -> T:
    """Call ``attempt`` until it answers, or raises anything but TryAgain, or patience ends.

    Each attempt waits for its turn in ``budget``, which learns what became of it. While the cloud
    answers the budget's other calls, that wait is not held against ``patience``. Raises the last
    attempt's error, or Throttled where no turn came for the first.
    """
    if budget is None:
        began = asyncio.get_running_loop().time()
        try:
            return await attempt()
        except TryAgain as failure:
            return await _again(attempt, patience, failure, began)
    since = 0.0
    if not (epoch := budget.take()):
        since = budget.now
        epoch = await budget.turn(patience.seconds)
    began = asyncio.get_running_loop().time()
    try:
        answer = await attempt()
    except TryAgain as failure:
        _report(budget, epoch, failure)
        return await _again(attempt, patience, failure, began, budget, since or budget.now)
    except CloudError as error:
        _report(budget, epoch, error)
        raise
    budget.rate.answered(epoch)
    return answer


async def _again(
    attempt: Callable[[], Awaitable[T]],
    patience: Patience,
    first: TryAgain,
    began: float,
    budget: Budget | None = None,
    since: float = 0.0,
) -> T:
    """Go on after the first attempt, made at ``began``, ended in ``first``.

    The call keeps its place in ``budget``, where it came at ``since``.
    """
    loop = asyncio.get_running_loop()
    rules = _Rules(patience, began)
    if budget is not None and (dry := budget.dry) is not None:
        # Others have been throttled all the while: their patience was spent on this one too.
        rules.end = min(rules.end, loop.time() + patience.seconds - dry)
    last, replay = first, True

    async def once() -> T:
        nonlocal last, replay
        if replay:  # so that tenacity sees the first failure too
            replay = False
            raise first
        epoch = 0
        if budget is not None and not (epoch := budget.take()):
            asked, answered = loop.time(), budget.rate.successes
            try:
                epoch = await budget.turn(max(0.0, rules.end - asked), since)
            except Throttled:
                raise last.error from None  # in the cloud's own words
            if budget.rate.successes != answered:
                rules.end += loop.time() - asked
        try:
            answer = await attempt()
        except TryAgain as failure:
            last = failure
            if budget is not None:
                _report(budget, epoch, failure)
            raise
        except CloudError as error:
            if budget is not None:
                _report(budget, epoch, error)
            raise
        if budget is not None:
            budget.rate.answered(epoch)
        return answer

    retrying = AsyncRetrying(
        retry=retry_if_exception_type(TryAgain), stop=rules.stop, wait=rules.wait, reraise=True
    )
    try:
        return await retrying(once)
    except TryAgain as end:
        raise end.error from None


def _report(budget: Budget, epoch: int, error: TryAgain | CloudError) -> None:
    """Tell the budget of an attempt that failed: silence and broken connections say nothing."""
    if isinstance(error, TryAgain):
        if error.throttled:
            budget.throttled(epoch, error.retry_after)
    elif not isinstance(error, CloudTimeout):
        budget.answered(epoch)


class _Rules:
    """When tenacity stops, and how long it waits, for one call that began at ``began``."""

    def __init__(self, patience: Patience, began: float) -> None:
        self.end = began + patience.seconds
        self._attempts = patience.attempts
        self._faults = 0
        self._time = asyncio.get_running_loop().time
        # Full jitter: not everyone comes back at once.
        self._jitter = wait_random_exponential(
            multiplier=patience.first_wait, max=patience.longest_wait
        )

    def wait(self, state: RetryCallState) -> float:
        """Never shorter than the cloud asked for; a throttled call has its last try at the end."""
        failure = _failure(state)
        wait = failure.retry_after + self._jitter(state)
        left = self.end - self._time()
        return min(wait, left) if failure.throttled and failure.retry_after < left else wait

    def stop(self, state: RetryCallState) -> bool:
        """Tenacity asks once after each attempt that failed, with the wait already drawn."""
        if not _failure(state).throttled:
            self._faults += 1
            if self._faults >= self._attempts:
                return True
        left = self.end - self._time()
        return left <= 0 or state.upcoming_sleep > left + 1e-3


def _failure(state: RetryCallState) -> TryAgain:
    failure = state.outcome.exception() if state.outcome else None
    assert isinstance(failure, TryAgain)
    return failure


def retry_after_seconds(header: str | None) -> float:
    """The wait a Retry-After header asks for; 0 when it is absent or makes no sense."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
    except ValueError:
        pass
    else:
        return seconds if 0.0 < seconds < float("inf") else 0.0
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0
