"""`suture halt`: pull the brake on remediation, lift it, say how it stands."""

from __future__ import annotations

import getpass
from typing import Any

from tasks import settings
from tasks.errors import BadInput
from tasks.policy import load_policies, named
from tasks.warehouse import halts
from tasks.warehouse.database import connect


def standing_halts() -> list[dict[str, Any]]:
    """The halts that hold now, as rows."""
    with connect() as warehouse:
        return [halts.halt_row(one) for one in halts.standing(warehouse)]


def change(
    reason: str, by: str, *, lift: bool, policy: str, everything: bool
) -> list[dict[str, Any]]:
    """Halt, or lift a halt; returns what was halted or lifted, as rows.

    Raises BadInput for a reason that is missing, for a policy that is not in the file (its halt
    would stop nothing), and where there is nothing to lift.
    """
    by = by or getpass.getuser()
    if lift and everything:
        raise BadInput("--all", "means nothing with --lift.", "Leave it out.")
    if policy and not lift:
        named(load_policies(settings.policies_path()), policy)
    with connect() as warehouse:
        if lift:
            done = halts.lift(warehouse, reason, by, policy=policy)
        else:
            done = [halts.halt(warehouse, reason, by, policy=policy, everything=everything)]
    return [halts.halt_row(one) for one in done]
