"""The customer's side of the gate: open it for a code, close it, say how it stands.

Runs with the customer's own credentials, never with Suture's.
"""

from __future__ import annotations

import binascii
import logging
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pyotp
from azure.core.credentials import TokenCredential
from azure.identity import DefaultAzureCredential
from pydantic import SecretStr

from tasks.clouds.aws_gate import ADMIN_ROLE, AwsGate
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.aws_write import keys_from_chain
from tasks.clouds.azure_gate import AzureGate, CodeInUse, opened_subscriptions
from tasks.clouds.azure_write import identity_options
from tasks.clouds.openings import PERSON, Opening
from tasks.clouds.sdk_errors import hiding
from tasks.errors import BadInput
from tasks.inventory import AwsSource, Inventory
from tasks.model import Account, Cloud

log = logging.getLogger(__name__)

MOST_MINUTES = 15
MACHINE_CODE_BYTES = 24  # 192 random bits


@dataclass(frozen=True, slots=True)
class CustomerCredentials:
    """The customer's own keys. What is None is found by the cloud's SDK in its own way.

    ``admin_role`` is assumed in the target account when the AWS keys are another account's.
    """

    aws: AwsCredentials | None = field(default=None, repr=False)
    azure: TokenCredential | None = field(default=None, repr=False)
    admin_role: str = ADMIN_ROLE


@dataclass(frozen=True, slots=True)
class OpenGate:
    """A gate that has just been opened.

    ``code`` opens it from Suture's side until ``expires_at``. ``closes_itself`` is False on Azure:
    there someone must call ``close_gate``. ``authenticator_seconds`` is how long the customer's
    authenticator still shows this code; None for a machine's.
    """

    code: SecretStr
    expires_at: datetime
    closes_itself: bool
    opening: str
    authenticator_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class GateStatus:
    """Whether Suture could come in, and by which openings. Codes are not told."""

    openings: tuple[Opening, ...]

    @property
    def is_open(self) -> bool:
        return bool(self.openings)


def open_gate(
    inventory: Inventory,
    account: Account,
    *,
    seed: SecretStr | None = None,
    code: SecretStr | None = None,
    machine: bool = False,
    minutes: int = 10,
    resources: Sequence[str] = (),
    opening: str = "",
    customer: CustomerCredentials | None = None,
) -> OpenGate:
    """Open the gate of one account or subscription, for 1 to 15 minutes.

    With a ``seed`` (base32) the code is the one an authenticator shows right now, and stays that
    one; where it has opened another subscription just before, this waits for the next. ``code`` is
    one that the caller has checked. For a ``machine`` it is drawn. ``resources`` are the ARM ids to
    open; AWS needs none. ``opening`` names it, for ``close_gate``; a machine's is drawn when left
    out.

    Raises BadInput or CloudError; neither repeats the code or the seed.
    """
    if not 1 <= minutes <= MOST_MINUTES:
        raise BadInput("minutes", f"the gate opens for 1 to {MOST_MINUTES} minutes.")
    if [seed is not None, code is not None, machine].count(True) != 1:
        raise BadInput("seed", "a person's code needs a seed, a machine's has none.")
    left = None
    if seed is not None:
        code, left = _current(seed)
    code = code or SecretStr(_drawn())
    name = _checked_name(opening or (secrets.token_hex(8) if machine else PERSON))
    gate = _gate(inventory, account, customer)
    try:
        until = _open(gate, name, code, minutes, resources)
    except CodeInUse:
        if seed is None or left is None:
            raise
        log.info("This code has just opened another subscription: waiting for the next one.")
        time.sleep(left + 1)
        code, left = _current(seed)
        until = _open(gate, name, code, minutes, resources)
    return OpenGate(code, until, gate.closes_itself, name, left)


def _open(
    gate: _Gate, name: str, code: SecretStr, minutes: int, resources: Sequence[str]
) -> datetime:
    until = datetime.now(UTC) + timedelta(minutes=minutes)
    with hiding(code.get_secret_value()):
        gate.open(name, code, until, resources)
    return until


def close_gate(
    inventory: Inventory,
    account: Account,
    *,
    opening: str | None = None,
    customer: CustomerCredentials | None = None,
) -> None:
    """Close one opening, or every one of the account's."""
    _gate(inventory, account, customer).close(opening and _checked_name(opening))


def close_overdue(
    inventory: Inventory, source: str, *, customer: CustomerCredentials | None = None
) -> tuple[str, ...]:
    """Close what stands past its time in the tenant of an Azure entry; the subscriptions looked at.

    Nothing closes by itself there, and whoever opened may have died. AWS needs none of this.
    """
    entry, own = inventory.source(source), customer or CustomerCredentials()
    if isinstance(entry, AwsSource) or not entry.remediates:
        return ()
    credential = own.azure or DefaultAzureCredential(**identity_options(entry))
    found = opened_subscriptions(entry, credential)
    for subscription in found:
        account = Account(Cloud.AZURE, subscription, source=source)
        gate = _gate(inventory, account, customer)
        if isinstance(gate, AzureGate):
            gate.close_overdue()
    return found


def gate_status(
    inventory: Inventory, account: Account, *, customer: CustomerCredentials | None = None
) -> GateStatus:
    """How the gate of one account or subscription stands."""
    return GateStatus(_gate(inventory, account, customer).status())


class _Gate(Protocol):
    @property
    def closes_itself(self) -> bool: ...

    def open(
        self, opening: str, code: SecretStr, until: datetime, resources: Sequence[str]
    ) -> None: ...

    def close(self, opening: str | None = None) -> None: ...

    def status(self) -> tuple[Opening, ...]: ...


def _gate(inventory: Inventory, account: Account, customer: CustomerCredentials | None) -> _Gate:
    source, own = inventory.source(account.source), customer or CustomerCredentials()
    if isinstance(source, AwsSource):
        return AwsGate(source, account.id, own.aws or keys_from_chain(), own.admin_role)
    if not source.remediates or inventory.issuer is None:
        raise BadInput(
            f"azure.{source.name}",
            "the inventory does not say who remediates here.",
            "Add the remediator_… fields, gate_id, and an issuer.",
        )
    credential = own.azure or DefaultAzureCredential(**identity_options(source))
    return AzureGate(source, inventory.issuer, account.id, credential)


def authenticator(seed: SecretStr) -> pyotp.TOTP:
    """What an authenticator makes of a seed (base32, RFC 6238). Raises BadInput when it is none."""
    try:
        totp = pyotp.TOTP("".join(seed.get_secret_value().split()))
        totp.generate_otp(0)  # else it would be found out with the first code
    except (binascii.Error, ValueError):
        raise BadInput("seed", "this is not an authenticator's seed.", "It is base32.") from None
    return totp


def _current(seed: SecretStr) -> tuple[SecretStr, int]:
    """The code an authenticator shows now, and for how many seconds more."""
    now, totp = time.time(), authenticator(seed)
    return SecretStr(totp.at(int(now))), int(totp.interval - now % totp.interval)


def _drawn() -> str:
    return secrets.token_urlsafe(MACHINE_CODE_BYTES)


def _checked_name(opening: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]{1,64}", opening):
        raise BadInput("opening", "its name has letters and digits, 64 at the most.")
    return opening
