"""`suture gate sweep`: close what stands past its time, with the customer's own credentials."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tasks import settings
from tasks.clouds.gate_sweep import sweep_gates
from tasks.inventory import load_inventory


def sweep(source: str) -> list[dict[str, Any]]:
    """Close what is overdue; a row for each subscription that was looked at."""
    return [
        asdict(one) for one in sweep_gates(load_inventory(settings.inventory_path()), source=source)
    ]
