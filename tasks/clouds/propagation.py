"""Waiting for a cloud to know of a gate that has just been opened, and saying so."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_delay,
    wait_exponential,
)

T = TypeVar("T")

log = logging.getLogger(__name__)

NOT_OPENED = (
    "The gate did not open with this code: it may be wrong or old, or the gate is closed, or was "
    "opened so lately that the cloud does not know of it yet."
)
CODE_SECONDS = 5.0
ACCESS_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Propagation:
    """How long, in seconds, a cloud may take to know of a gate that has just been opened.

    ``code``: a refused code is tried again for this long; IAM takes seconds, Entra up to minutes.
    ``access``: so is a refused first write on Azure, where role assignments take minutes. A
    person's code may be mistyped, so that it is not waited for as long as a machine's. ``say`` is
    told, in words, when there is a wait and how it ended. ``go_on`` is asked before each new try,
    and raises to stop it: a wait of minutes must not outlast a halt.
    """

    code: float = CODE_SECONDS
    access: float = ACCESS_SECONDS
    say: Callable[[str], None] = log.info
    go_on: Callable[[], None] = lambda: None

    def until(self, end: datetime) -> Propagation:
        """To the end of the opening, and never less than this."""
        left = (end - datetime.now(UTC)).total_seconds()
        return replace(self, code=max(self.code, left), access=max(self.access, left))


def patiently(
    work: Callable[[], T],
    *,
    again_for: Callable[[BaseException], bool],
    seconds: float,
    what: str,
    say: Callable[[str], None],
    go_on: Callable[[], None] = lambda: None,
) -> T:
    """``work``'s answer; it is tried again, for so many seconds, after the errors named.

    ``what`` says what has not happened yet. Raises what the last try raised, or ``go_on`` before
    another.
    """
    began, waited = time.monotonic(), False

    def tell(_: object) -> None:
        nonlocal waited
        if not waited:
            say(
                f"{what}: clouds take a while to know of an opened gate. "
                f"Trying again for up to {seconds:.0f} s."
            )
        waited = True

    def look(state: RetryCallState) -> None:
        if state.attempt_number > 1:
            go_on()

    trying = Retrying(
        before=look,
        retry=retry_if_exception(again_for),
        stop=stop_after_delay(seconds),
        wait=wait_exponential(multiplier=0.5, max=5),
        before_sleep=tell,
        reraise=True,
    )
    answer = trying(work)
    if waited:
        say(f"The gate let us through after {time.monotonic() - began:.1f} s.")
    return answer
