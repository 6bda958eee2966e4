"""One batch of a fleet scan: claim accounts, read and judge them, load what was seen as it comes.

No Prefect in here: this runs in processes that only scan, and stay small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack, aclosing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg
import uvloop

from tasks.clouds.budgets import Budgets
from tasks.clouds.scanner import Scanner
from tasks.clouds.transport import Limits
from tasks.inventory import load_inventory
from tasks.model import Account, AccountScan
from tasks.rules import RULES
from tasks.rules.edition import EDITION
from tasks.warehouse import claims, incremental, scans
from tasks.warehouse.budgets import SharedBudgets
from tasks.warehouse.database import connect

LOADED_AT_ONCE = 25  # accounts; what is not loaded yet is what a killed process loses


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """What one batch is to do. ``full`` judges and records unchanged resources too.

    ``limit`` is the most accounts it takes, ``request_seconds`` how long an answer may take.
    """

    scan_id: str
    limit: int
    request_seconds: float
    full: bool = False


@dataclass(frozen=True, slots=True)
class BatchResult:
    """How many accounts a batch took, and which of them failed: (cloud, account, reason)."""

    accounts: int
    failed: tuple[tuple[str, str, str], ...] = ()

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> BatchResult:
        failed = ((cloud, account, reason) for cloud, account, reason in said["failed"])
        return cls(said["accounts"], tuple(failed))


class BatchScanner:
    """Scans one batch after another. Connections, role sessions and tokens live as long as it does.

    Use it as a context manager, in one thread.
    """

    def __init__(self, inventory: Path, request_seconds: float) -> None:
        self._inventory = inventory
        self._limits = Limits(request_seconds=request_seconds)
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._open = ExitStack()

    def __enter__(self) -> BatchScanner:
        budgets = Budgets()
        self._scanner = Scanner(load_inventory(self._inventory), self._limits, budgets=budgets)
        for key in self._scanner.shared_budgets():
            budgets.of(key)
        self._open.callback(self._runner.close)
        self._open.enter_context(budgets.shared(SharedBudgets()))
        self._runner.run(self._scanner.__aenter__())
        self._open.callback(lambda: self._runner.run(self._scanner.__aexit__()))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def scan(self, order: BatchOrder) -> BatchResult:
        """Claim a batch of the scan's accounts, and scan and load them.

        An account that fails is loaded with its reason. The claim lives as long as the connection
        made here: what a killed process had claimed and not loaded is free again.
        """
        with connect() as warehouse:
            accounts = claims.claim_accounts(warehouse, order.scan_id, order.limit)
            if not accounts:
                return BatchResult(0)
            return self._runner.run(self._scan(warehouse, order, accounts))

    async def _scan(
        self, warehouse: psycopg.Connection, order: BatchOrder, accounts: Sequence[Account]
    ) -> BatchResult:
        begun = datetime.now(UTC)
        known = None if order.full else incremental.known_digests(warehouse, accounts)
        failed: list[tuple[str, str, str]] = []
        seen: list[AccountScan] = []

        async def load() -> None:
            await asyncio.to_thread(
                scans.load_batch,
                *(warehouse, order.scan_id, tuple(seen)),
                observed_at=begun,
                known=known,
                edition=EDITION,
            )
            seen.clear()

        async with aclosing(self._scanner.scan_all(accounts, RULES)) as results:
            async for result in results:
                seen.append(result)
                if result.failed:
                    account = result.account
                    failed.append((account.cloud.value, account.id, result.failed))
                if len(seen) >= LOADED_AT_ONCE:
                    await load()
        if seen:
            await load()
        return BatchResult(len(accounts), tuple(failed))
