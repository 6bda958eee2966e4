"""One-time codes that people present: RFC 6238 with one step of drift, each good once.

Five wrong codes in a row, whoever sent them, and none is taken for ten minutes: a guesser has
5 of 1,000,000 every ten minutes, times the three steps that are good at any moment.
"""

from __future__ import annotations

import hmac
import re
import time
from enum import StrEnum

import pyotp
from pydantic import SecretStr

from deployments.opener.store import Document, Store
from tasks.clouds.gate import authenticator

MOST_WRONG = 5
LOCK_SECONDS = 600
DRIFT = 1  # steps of 30 s that the person's clock may be off, either way

_CODE = re.compile(r"[0-9]{6}", re.ASCII)
_NAME = "one-time codes"


class Verdict(StrEnum):
    """What a presented code is."""

    RIGHT = "right"
    WRONG = "wrong"
    USED = "used"
    LOCKED = "locked"  # nothing is said about the code itself
    NO_CODE = "no code"  # not 6 digits; no guess, so it is not counted


def check(store: Store, seed: SecretStr, code: object, *, now: float | None = None) -> Verdict:
    """Judge a presented code and remember that it was presented, in one step of the store.

    A code that is RIGHT here once is USED ever after. Raises BadInput for a seed that is none,
    CloudError when the store is away: then nothing is judged.
    """
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return Verdict.NO_CODE
    totp, moment = authenticator(seed), time.time() if now is None else now
    return store.update(_NAME, lambda known: _judged(known, totp, code, moment))


def locked_for(store: Store, *, now: float | None = None) -> int:
    """For how many seconds more no code is taken; 0 when codes are taken."""
    moment = time.time() if now is None else now
    until = store.update(_NAME, lambda known: (None, float(known.get("locked_until", 0))))
    return max(0, int(until - moment + 0.999))


def _judged(
    known: Document, totp: pyotp.TOTP, code: str, now: float
) -> tuple[Document | None, Verdict]:
    if known.get("locked_until", 0) > now:
        return None, Verdict.LOCKED
    step = int(now) // totp.interval
    # All three are always compared, each in constant time: how long it takes says nothing.
    shown = [
        one
        for one in range(step - DRIFT, step + DRIFT + 1)
        if hmac.compare_digest(totp.generate_otp(one), code)
    ]
    used = [one for one in known.get("used", ()) if one >= step - 10]
    if not shown:
        wrong = known.get("wrong", 0) + 1
        if wrong >= MOST_WRONG:
            return {"used": used, "wrong": 0, "locked_until": now + LOCK_SECONDS}, Verdict.WRONG
        return {"used": used, "wrong": wrong}, Verdict.WRONG
    if all(one in used for one in shown):
        return None, Verdict.USED
    return {"used": sorted({*used, *shown}), "wrong": 0}, Verdict.RIGHT
