"""Waiting for a cloud to know of a gate that has just been opened, and saying so."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_exponential

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
    told, in words, when there is a wait and how it ended.
    """

    code: float = CODE_SECONDS
    access: float = ACCESS_SECONDS
    say: Callable[[str], None] = log.info

    @classmethod
    def until(cls, end: datetime, say: Callable[[str], None] = log.info) -> Propagation:
        """To the end of the opening, and never less than by default."""
        left = (end - datetime.now(UTC)).total_seconds()
        return cls(max(CODE_SECONDS, left), max(ACCESS_SECONDS, left), say)


def patiently(
    work: Callable[[], T],
    *,
    again_for: Callable[[BaseException], bool],
    seconds: float,
    what: str,
    say: Callable[[str], None],
) -> T:
    """``work``'s answer; it is tried again, for so many seconds, after the errors named.

    ``what`` says what has not happened yet. Raises what the last try raised.
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

    trying = Retrying(
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
