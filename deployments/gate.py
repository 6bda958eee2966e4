"""`suture gate`: customers open and close an account's gate with their own credentials."""

from __future__ import annotations

import io
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyotp
from pydantic import SecretStr

from tasks import settings
from tasks.clouds.gate import close_gate, gate_status, open_gate
from tasks.clouds.token_request import present_code
from tasks.core_dumps import forbid_core_dumps
from tasks.errors import BadInput
from tasks.inventory import AwsSource, Inventory, load_inventory
from tasks.model import Account, Cloud
from tasks.warehouse import remediations
from tasks.warehouse.database import connect

Say = Callable[[Mapping[str, Any]], None]

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, a closed terminal
LOOK_SECONDS = 0.5  # between two looks at whether one of them has come
WHOLE_ACCOUNT = "the whole account; each fix narrows itself to its resource"


def open_by_hand(
    account_id: str,
    *,
    minutes: int,
    runs: Sequence[str],
    resources: Sequence[str],
    source: str,
    seed_file: Path | None,
    say: Say,
) -> None:
    """Open the gate with the current code of the seed, and say the code once.

    On Azure it opens for the resources named, or of the runs, or of all that waits for approval;
    it stays until ``minutes`` are over, or SIGINT, SIGTERM or SIGHUP, and closes the gate then.
    AWS opens for the whole account, whatever is named.
    Raises BadInput for an account, seed or minutes that cannot be used; GateRefused or CloudError
    when the cloud does not let the caller open it.
    """
    forbid_core_dumps()
    inventory = load_inventory(settings.inventory_path())
    account = _account(inventory, account_id, source)
    scopes, reach = _reach(account, runs, resources)
    seed = _seed(seed_file)
    with _noted_signals() as signals:  # noted, so that none can end the process with the gate open
        opened = open_gate(inventory, account, seed=seed, minutes=minutes, resources=scopes)
        try:
            if not signals:
                say(
                    {
                        "account": account.id,
                        "code": opened.code.get_secret_value(),
                        "open_until": opened.expires_at.astimezone(UTC).isoformat(
                            timespec="seconds"
                        ),
                        **reach,
                    }
                )
            if not opened.closes_itself:
                _wait_until(opened.expires_at, signals)
        finally:
            if signals or not opened.closes_itself:
                close_gate(inventory, account, opening=opened.opening)


def close_by_hand(account_id: str, *, source: str) -> dict[str, Any]:
    """Close the gate of an account. How many openings of each kind that closed."""
    inventory = load_inventory(settings.inventory_path())
    account = _account(inventory, account_id, source)
    closed = Counter(one.by for one in gate_status(inventory, account).openings)
    close_gate(inventory, account)
    return {"account": account_id, "open": False, "closed": dict(closed)}


def status_by_hand(account_id: str, *, source: str) -> dict[str, Any]:
    """Whether the gate is open, for whom, until when, and for which resources; never the code."""
    inventory = load_inventory(settings.inventory_path())
    status = gate_status(inventory, _account(inventory, account_id, source))
    return {
        "account": account_id,
        "open": status.is_open,
        "openings": [
            {
                "id": one.id,
                "by": one.by,
                "open_until": one.expires_at,
                "resources": list(one.resources),
            }
            for one in status.openings
        ],
    }


def enroll(seed_file: Path, name: str) -> str:
    """Make a seed, keep it in ``seed_file`` (readable by its owner only), and return its URI.

    RFC 6238, 160 bits. Raises BadInput when the file is there already: its codes would stop.
    """
    seed = pyotp.random_base32()
    try:
        descriptor = os.open(seed_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BadInput("--seed-file", f"{seed_file} exists.", "Name a new file.") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(seed + "\n")
    return pyotp.TOTP(seed).provisioning_uri(name=name, issuer_name="Suture gate")


def qr_code(address: str) -> str:
    """The QR code of an address as lines of half blocks, for a terminal. It holds the seed."""
    import segno

    drawn = io.StringIO()
    segno.make(address, error="m").terminal(out=drawn, compact=True)
    return drawn.getvalue()


def open_by_opener(
    account_id: str,
    *,
    minutes: int,
    runs: Sequence[str],
    resources: Sequence[str],
    source: str,
    code: SecretStr,
) -> dict[str, Any]:
    """Present a code from an authenticator to the customer's opener; nobody's cloud keys are used.

    Raises BadInput for an account without an opener, GateRefused with the opener's reason.
    """
    forbid_core_dumps()
    inventory = load_inventory(settings.inventory_path())
    account = _account(inventory, account_id, source)
    scopes, reach = _reach(account, runs, resources)
    until = present_code(inventory, account, code, minutes=minutes, resources=scopes)
    return {
        "account": account.id,
        "open_until": until.astimezone(UTC).isoformat(timespec="seconds"),
        **reach,
    }


def _account(inventory: Inventory, account_id: str, source: str) -> Account:
    """The account with the inventory entry it belongs to."""
    account_id = account_id.strip().lower()
    if re.fullmatch(r"\d{12}", account_id):
        cloud, entries = (
            Cloud.AWS,
            [entry for entry in inventory.aws if _may_hold(entry, account_id)],
        )
        names = [entry.name for entry in entries]
    else:
        cloud = Cloud.AZURE
        names = [
            entry.name
            for entry in inventory.azure
            if not entry.subscriptions or account_id in entry.subscriptions
        ]
    if source:
        names = [name for name in names if name == source]
    if len(names) != 1:
        known = ", ".join(names) or "none"
        raise BadInput(
            "account",
            f"{account_id} could belong to {len(names)} entries of the inventory ({known}).",
            "Name one with --source.",
        )
    return Account(cloud=cloud, id=account_id, source=names[0])


def _may_hold(entry: AwsSource, account_id: str) -> bool:
    return entry.organization or account_id in entry.accounts


def _reach(
    account: Account, runs: Sequence[str], resources: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    """The resources to open for, and how to say that. An AWS gate knows no such limit."""
    if account.cloud is Cloud.AWS:
        return [], {"scope": WHOLE_ACCOUNT}
    scopes = list(resources) or _waiting_resources(account, runs)
    return scopes, {"resources": scopes}


def _waiting_resources(account: Account, runs: Sequence[str]) -> list[str]:
    """The resources whose fixes wait for approval in this account, from the warehouse."""
    with connect() as warehouse:
        waiting = remediations.waiting(warehouse)
    found = [
        str(record.plan["resource"]["id"])
        for record in waiting
        if record.account == account.id and (not runs or record.run_id in runs)
    ]
    if not found:
        raise BadInput(
            "--resource",
            f"is needed: nothing waits for approval in {account.id}.",
            "Name the resources that the gate should open for.",
        )
    return sorted(set(found))


def _seed(seed_file: Path | None) -> SecretStr:
    if seed_file is None:
        raise BadInput(
            "--seed-file",
            "is missing.",
            "Set SUTURE_GATE_SEED_FILE, or make a seed with `suture gate enroll`.",
        )
    try:
        return SecretStr(seed_file.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise BadInput("--seed-file", f"cannot be read: {error.strerror}.") from None


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Note what would end the process instead of ending: the numbers, as they come."""
    noted: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: noted.append(number))
        for number in ENDINGS
    }
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait_until(moment: datetime, signals: Sequence[int]) -> None:
    """Wait for the moment, or a signal."""
    while not signals and (left := (moment - datetime.now(UTC)).total_seconds()) > 0:
        time.sleep(min(left, LOOK_SECONDS))
