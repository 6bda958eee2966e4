"""Warm gates: opened ahead in the hours that the customer names, so that a fix need not wait.

A gate is renewed every seven minutes, for at most fifteen, under a new code each time; the older
opening stands until it ends, so that there is always one that the clouds know of. The code is made
of a key in the customer's secret store and 128 random bits drawn for each renewal: it is kept
nowhere, and what the store holds is worth nothing without the key.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time

from pydantic import SecretStr

from deployments.opener.allow import Allowed, Wanted, objection
from deployments.opener.store import Document
from tasks.clouds.gate import MOST_MINUTES
from tasks.errors import BadInput
from tasks.model import Account, Cloud

RENEW_SECONDS = 420.0  # half an opening, rounded down
SETTLE_SECONDS = 120.0  # until the clouds are taken to know of a renewal
LEAST_SECONDS = 60.0  # that a code must still be good for to be handed out
MOST_HOURS = 12
RANDOM_BYTES = 16
KEY_CHARACTERS = 32  # at least


@dataclass(frozen=True, slots=True)
class WarmGate:
    """One account's gate that is kept open from ``starts`` to ``ends``, every day, in UTC.

    Its code is handed out for ``actions`` on ``resources``: patterns on AWS; on Azure the ids of
    the resources that are opened.
    """

    account: Account
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    starts: time
    ends: time

    @property
    def name(self) -> str:
        """What its document is called in the store."""
        return f"warm {self.account.source} {self.account.id}"

    @property
    def scopes(self) -> tuple[str, ...]:
        """The resources to be opened; AWS opens the account, where each fix narrows itself."""
        return self.resources if self.account.cloud is Cloud.AZURE else ()

    def minutes(self, now: datetime) -> int:
        """For how long it may be opened now: whole minutes, 0 outside its hours."""
        today = now.astimezone(UTC)
        begin, end = (
            datetime.combine(today.date(), one, tzinfo=UTC) for one in (self.starts, self.ends)
        )
        if today < begin:
            return 0
        return max(0, min(MOST_MINUTES, int((end - today).total_seconds() // 60)))

    def permits(self, wanted: Wanted) -> bool:
        """Whether its code may be handed out for what a request wants."""
        same = (wanted.cloud, wanted.account) == (self.account.cloud, self.account.id)
        entry = Allowed((self.account.id,), self.actions, self.resources)
        return same and not objection(wanted, [entry])


@dataclass(frozen=True, slots=True)
class Generation:
    """One renewal. Times are epoch seconds; ``nonce`` is no secret."""

    number: int
    nonce: str
    since: float
    until: float


def generations(known: Document) -> tuple[Generation, ...]:
    """The renewals that the store knows of, the oldest first."""
    return tuple(Generation(**one) for one in known.get("generations", ()))


def next_generation(standing: Sequence[Generation], minutes: int, now: float) -> Generation | None:
    """The renewal that is due now; None when none is."""
    newest = standing[-1] if standing else None
    if not minutes or (newest and now < min(newest.since + RENEW_SECONDS, newest.until)):
        return None
    number = newest.number + 1 if newest else 1
    return Generation(number, secrets.token_hex(RANDOM_BYTES), now, now + minutes * 60)


def to_hand_out(standing: Sequence[Generation], now: float) -> Generation | None:
    """The newest renewal that the clouds know of by now, or else the newest; None: none is good."""
    good = [one for one in standing if one.until - now >= LEAST_SECONDS]
    settled = [one for one in good if now - one.since >= SETTLE_SECONDS]
    return next(reversed(settled or good), None)


def code_of(key: SecretStr, account: Account, generation: Generation) -> SecretStr:
    """The code of a renewal: 192 bits of HMAC-SHA256. Raises BadInput for a key that is short."""
    if len(key.get_secret_value()) < KEY_CHARACTERS:
        raise BadInput("warm.key", f"has fewer than {KEY_CHARACTERS} characters.", "Draw it anew.")
    about = f"{account.source}|{account.id}|{generation.number}|{generation.nonce}"
    drawn = hmac.digest(key.get_secret_value().encode(), about.encode(), hashlib.sha256)
    return SecretStr(base64.urlsafe_b64encode(drawn[:24]).decode())
