"""One batch of a fleet scan: claim accounts, read and judge them, load what was seen as it comes.

No Prefect in here: this runs in processes that only scan, and stay small.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import psycopg

from tasks import settings
from tasks.clouds.budgets import Budgets
from tasks.clouds.retrying import Patience
from tasks.clouds.scanner import Scanner
from tasks.clouds.transport import Limits
from tasks.inventory import load_inventory
from tasks.model import Account, AccountScan
from tasks.rules import rules_of
from tasks.rules.edition import edition_of
from tasks.warehouse import claims, incremental, scans
from tasks.warehouse.budgets import SharedBudgets
from tasks.warehouse.database import connect

# Accounts, and seconds: what is not loaded yet is what a killed process loses.
LOADED_AT_ONCE, LOADED_EVERY = 25, 2.0


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """What one batch is to do. ``full`` judges and records unchanged resources too.

    ``limit`` is the most accounts it takes, ``request_seconds`` how long an answer may take.
    """

    scan_id: str
    limit: int
    request_seconds: float
    full: bool = False

    @property
    def alone(self) -> bool:
        """A batch of one is scanned beside no other: what breaks its process breaks no other."""
        return self.limit == 1


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
    """Scans batches. Connections, role sessions and tokens live as long as it does.

    Use it as an asynchronous context manager, in one event loop. Raises BadInput where the
    inventory, SUTURE_RULES or SUTURE_SCAN_PATIENCE cannot be read.
    """

    def __init__(self, inventory: Path, request_seconds: float) -> None:
        self._inventory = inventory
        self._rules = rules_of(settings.rules())
        self._edition = edition_of(self._rules)
        seconds = settings.scan_patience()
        patience = Patience() if seconds is None else Patience(seconds=seconds)
        self._limits = Limits(request_seconds=request_seconds, patience=patience)
        self._turn = asyncio.Lock()
        self._open = AsyncExitStack()

    async def __aenter__(self) -> BatchScanner:
        budgets = Budgets()
        self._scanner = Scanner(load_inventory(self._inventory), self._limits, budgets=budgets)
        for key in self._scanner.shared_budgets():
            budgets.of(key)
        self._open.enter_context(budgets.shared(SharedBudgets()))
        await self._open.enter_async_context(self._scanner)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._open.aclose()

    async def scan(self, order: BatchOrder) -> BatchResult:
        """Claim a batch of the scan's accounts, and scan and load them.

        Several may be scanned at once: the next claims its accounts when all of this one's have
        begun, so that the slow ones among them (a cloud that never answers) hold up nobody else.
        An account that fails is loaded with its reason. The claim lives as long as the connection
        made here: what a killed process had claimed and not loaded is free again.
        """
        with ExitStack() as turn:
            await self._turn.acquire()
            turn.callback(self._turn.release)
            with await asyncio.to_thread(connect) as warehouse:
                accounts = await asyncio.to_thread(
                    claims.claim_accounts, warehouse, order.scan_id, order.limit
                )
                if not accounts:
                    return BatchResult(0)
                return await self._scan(warehouse, order, accounts, turn)

    def _all_begun(self, waiting: int) -> bool:
        """Whether the accounts that a batch still waits for are all being read."""
        return waiting <= self._limits.accounts

    async def _scan(
        self,
        warehouse: psycopg.Connection,
        order: BatchOrder,
        accounts: Sequence[Account],
        turn: ExitStack,
    ) -> BatchResult:
        begun = datetime.now(UTC)
        known = None
        if not order.full:
            known = await asyncio.to_thread(incremental.known_digests, warehouse, accounts)
        failed: list[tuple[str, str, str]] = []
        seen: list[AccountScan] = []
        loading = asyncio.Lock()

        async def load() -> None:
            async with loading:
                loaded = tuple(seen)
                seen.clear()
                if loaded:
                    await asyncio.to_thread(
                        scans.load_batch,
                        *(warehouse, order.scan_id, loaded),
                        observed_at=begun,
                        known=known,
                        edition=self._edition,
                    )

        all_read = asyncio.Event()

        async def load_now_and_then() -> None:
            """What has been read does not wait long for an account whose cloud does not answer."""
            while not all_read.is_set():
                with suppress(TimeoutError):
                    await asyncio.wait_for(all_read.wait(), LOADED_EVERY)
                await load()
            await load()  # what came while the last was loaded

        loader = asyncio.create_task(load_now_and_then())
        try:
            waiting = len(accounts)
            if self._all_begun(waiting):
                turn.close()
            async with aclosing(self._scanner.scan_all(accounts, self._rules)) as results:
                async for result in results:
                    waiting -= 1
                    if self._all_begun(waiting):
                        turn.close()
                    seen.append(result)
                    if result.failed:
                        account = result.account
                        failed.append((account.cloud.value, account.id, result.failed))
                    if len(seen) >= LOADED_AT_ONCE:
                        await load()
        finally:
            all_read.set()
            await loader
        return BatchResult(len(accounts), tuple(failed))
