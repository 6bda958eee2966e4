"""Asking a cloud again: exponential waits with full jitter, Retry-After honoured, and an end."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TypeVar

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
    budget.answered(epoch)
    return answer


async def _again(
    attempt: Callable[[], Awaitable[T]],
    patience: Patience,
    failure: TryAgain,
    began: float,
    budget: Budget | None = None,
    since: float = 0.0,
) -> T:
    """Go on after the first attempt, made at ``began``, ended in ``failure``.

    The call keeps its place in ``budget``, where it came at ``since``. A loop of our own: a library
    takes longer to decide than a whole call takes, and a twentieth of a fleet's calls come here.
    """
    now = asyncio.get_running_loop().time
    end = began + patience.seconds
    if budget is not None and (dry := budget.dry) is not None:
        # Others have been throttled all the while: their patience was spent on this one too.
        end = min(end, now() + patience.seconds - dry)
    faults = 0
    for attempts in itertools.count(1):
        faults += not failure.throttled
        left = end - now()
        if faults >= patience.attempts or left <= 0 or failure.retry_after >= left:
            break
        # Full jitter, on top of what the cloud asked for: not everyone comes back at once.
        longest = min(patience.longest_wait, patience.first_wait * 2.0 ** min(attempts - 1, 30))
        wait = failure.retry_after + random.uniform(0.0, longest)  # noqa: S311 - no secret
        if wait >= left and not failure.throttled:
            break
        await asyncio.sleep(min(wait, left))  # a throttled call has its last try at the end
        epoch = 0
        if budget is not None and not (epoch := budget.take()):
            asked, answered = now(), budget.rate.successes
            try:
                epoch = await budget.turn(max(0.0, end - asked), since)
            except Throttled:
                break  # the last failure says it in the cloud's own words
            if budget.rate.successes != answered:
                end += now() - asked
        try:
            answer = await attempt()
        except TryAgain as again:
            failure = again
            if budget is not None:
                _report(budget, epoch, again)
        except CloudError as error:
            if budget is not None:
                _report(budget, epoch, error)
            raise
        else:
            if budget is not None:
                budget.answered(epoch)
            return answer
    raise failure.error from None


def _report(budget: Budget, epoch: int, error: TryAgain | CloudError) -> None:
    """Tell the budget of an attempt that failed: silence and broken connections say nothing."""
    if isinstance(error, TryAgain):
        if error.throttled:
            budget.throttled(epoch, error.retry_after)
    elif not isinstance(error, CloudTimeout):
        budget.answered(epoch)


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
