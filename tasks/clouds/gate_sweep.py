"""Close every gate that stands past its time, in all subscriptions. Customer's side, to schedule.

AWS needs none of this: there a gate closes by its own date.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from azure.core.credentials import TokenCredential
from azure.identity import DefaultAzureCredential

from tasks.clouds.azure_gate import AzureGate
from tasks.clouds.azure_write import Arm, identity_options
from tasks.errors import CloudError
from tasks.inventory import AzureSource, Inventory, Issuer

_SUBSCRIPTIONS_API = "2022-12-01"


@dataclass(frozen=True, slots=True)
class Swept:
    """One subscription: how many role assignments were past their time, or federated credentials
    without one, and are gone now; or why not.
    """

    source: str
    subscription: str
    closed: int
    problem: str = ""


def sweep_gates(
    inventory: Inventory, *, source: str = "", credential: TokenCredential | None = None
) -> Iterator[Swept]:
    """Close what is past its time in the Azure entries of the inventory, or in the one named.

    What an opening left behind halfway counts, too: its role assignments and its federated
    credential are each found by themselves. A subscription that fails is said, and the others go
    on. Raises BadInput for an entry that is not there, CloudError when subscriptions cannot be
    listed.
    """
    entries = [inventory.source(source)] if source else list(inventory.azure)
    for entry in entries:
        if isinstance(entry, AzureSource) and entry.remediates and inventory.issuer is not None:
            own = credential or DefaultAzureCredential(**identity_options(entry))
            for subscription in _subscriptions(entry, own):
                yield _sweep(entry, inventory.issuer, subscription, own)


def _subscriptions(entry: AzureSource, credential: TokenCredential) -> list[str]:
    """Those of the entry, or all that the customer's identity sees."""
    if entry.subscriptions:
        return sorted(entry.subscriptions)
    home = entry.remediator_identity.split("/")[2]
    with closing(Arm(entry, home, credential)) as arm:
        found = arm.members("/subscriptions", _SUBSCRIPTIONS_API)
        return sorted(str(one["subscriptionId"]).lower() for one in found)


def _sweep(
    entry: AzureSource, issuer: Issuer, subscription: str, credential: TokenCredential
) -> Swept:
    try:
        closed = AzureGate(entry, issuer, subscription, credential).close_overdue()
    except CloudError as error:
        return Swept(entry.name, subscription, 0, str(error))
    return Swept(entry.name, subscription, closed)
