"""The scanner: finds the accounts of an inventory, reads them and judges what it read.

It only reads, with the scanner's identities. What one account does wrong stays with that account.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeVar

from tasks import settings
from tasks.clouds import aws_collect, azure_collect
from tasks.clouds.aws_api import AwsApi
from tasks.clouds.aws_credentials import AwsKeyring, hub_account
from tasks.clouds.aws_kinds import COLLECTORS as AWS_KINDS
from tasks.clouds.aws_view import GLOBAL, AwsView
from tasks.clouds.azure_api import GRAPH, AzureApi
from tasks.clouds.azure_graph import MOST_SUBSCRIPTIONS, SharedGraph
from tasks.clouds.budgets import BudgetKey, Budgets, arm_key, aws_key
from tasks.clouds.transport import Limits, reason
from tasks.errors import BadInput, CloudTimeout, SutureError
from tasks.inventory import AwsSource, AzureSource, Inventory
from tasks.model import Account, AccountScan, Cloud, Covered, Resource, Rule, observe
from tasks.snapshot import Seen

# What the graph says counts as of so much earlier: a resource that was seen in the meantime, by the
# check of its fix perhaps, is not judged by what the graph has not heard yet.
GRAPH_LAG_SECONDS = 300.0

_Source = TypeVar("_Source", AwsSource, AzureSource)
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class Discovery:
    """The accounts of an inventory: to scan, left out (with the reason), and the sources that
    could not be asked (name and reason)."""

    accounts: tuple[Account, ...]
    skipped: tuple[tuple[Account, str], ...]
    failed: tuple[tuple[str, str], ...]


class Scanner:
    """Reads every source of ``inventory`` within ``limits``. Use as an async context manager.

    One scanner belongs to one event loop; its connections, role sessions and tokens are shared by
    all accounts. ``rules`` is the table that ``scan`` judges by unless told otherwise; ``budgets``
    are its own unless it is to share them.
    """

    def __init__(
        self,
        inventory: Inventory,
        limits: Limits | None = None,
        rules: Sequence[Rule] | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self._inventory = inventory
        self._limits = limits or Limits()
        self._budgets = budgets if budgets is not None else Budgets()
        self._rules = rules
        self._free_slots = asyncio.Semaphore(self._limits.accounts)
        self._opening = asyncio.Lock()
        self._aws: dict[str, tuple[AwsApi, AwsKeyring]] = {}
        self._azure: dict[str, AzureApi] = {}
        self._in_force: dict[Cloud, frozenset[str]] = {}  # what its rules read

    async def __aenter__(self) -> Scanner:
        self._opened = AsyncExitStack()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._opened.aclose()

    def shared_budgets(self) -> list[BudgetKey]:
        """What every process that scans this inventory draws on with the same identity."""
        return [
            *(
                aws_key(hub_account(one), one.regions[0], "sts", "AssumeRole")
                for one in self._inventory.aws
            ),
            *(arm_key(one.tenant, GRAPH) for one in self._inventory.azure),
        ]

    @property
    def calls(self) -> int:
        """Requests sent to all clouds so far, retries included."""
        aws = sum(api.calls for api, _ in self._aws.values())
        return aws + sum(api.calls for api in self._azure.values())

    async def discover(self) -> Discovery:
        """Ask every source for its accounts, at once. A source that fails harms no other."""
        sources = self._inventory.sources
        answers = await asyncio.gather(*(self._discover_one(source) for source in sources))
        accounts: list[Account] = []
        skipped: list[tuple[Account, str]] = []
        failed: list[tuple[str, str]] = []
        for source, answer in zip(sources, answers, strict=True):
            if isinstance(answer, str):
                failed.append((source.name, answer))
                continue
            accounts += [account for account in answer if account.scannable]
            skipped += [(one, _why_skipped(one)) for one in answer if not one.scannable]
        return Discovery(tuple(accounts), tuple(skipped), tuple(failed))

    async def _discover_one(self, source: AwsSource | AzureSource) -> list[Account] | str:
        """The accounts of a source, or why it could not be asked."""
        try:
            async with asyncio.timeout(self._limits.account_seconds):
                if isinstance(source, AwsSource):
                    api, keyring = await self._open_aws(source)
                    return await aws_collect.discover(source, api, keyring)
                return await azure_collect.discover(source, await self._open_azure(source))
        except TimeoutError:
            return self._out_of_time()
        except (SutureError, OSError) as error:
            return reason(error)

    async def scan(self, account: Account, rules: Sequence[Rule] | None = None) -> AccountScan:
        """Read what ``rules`` need of one account, and judge it.

        Never raises for what a cloud does: an account that could not be read at all has its
        reason in ``failed``; one that was read in part says so in ``coverage``.
        """
        return await self._scan(account, self._rules_by_kind(account.cloud, rules))

    async def scan_kind(
        self, account: Account, kind: str, region: str, rules: Sequence[Rule]
    ) -> AccountScan:
        """Read all of one kind in one region ("global": where it has none), and judge it.

        Never raises for what a cloud does, as ``scan``.
        """
        by_kind = {kind: [rule for rule in rules if rule.kind == kind]}
        return await self._scan(account, by_kind, region=region)

    async def scan_all(
        self, accounts: Sequence[Account], rules: Sequence[Rule] | None = None
    ) -> AsyncGenerator[AccountScan, None]:
        """Scan the accounts, each as ``scan`` does, and give each when it has finished.

        Subscriptions of one source share queries of Resource Graph. No more than
        ``limits.accounts`` scans are held at once: who is slow to take them slows the reading.
        Close it (contextlib.aclosing) when leaving early.
        """
        turns = self._turns(accounts, rules)
        running: set[asyncio.Task[AccountScan]] = set()
        try:
            while True:
                for account, by_kind, graph in islice(turns, self._limits.accounts - len(running)):
                    running.add(asyncio.create_task(self._scan(account, by_kind, graph)))
                if not running:
                    return
                done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    running.discard(task)
                    yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def _turns(
        self, accounts: Sequence[Account], rules: Sequence[Rule] | None
    ) -> Iterator[tuple[Account, Mapping[str, list[Rule]], SharedGraph[Resource] | None]]:
        """The accounts in the order of their scans, with their rules and the graph they share."""
        by_kind = {cloud: self._rules_by_kind(cloud, rules) for cloud in Cloud}
        sharing: dict[str, list[Account]] = defaultdict(list)
        graphs = {source.name for source in self._inventory.azure if source.graph}
        for account in accounts:
            if account.cloud is Cloud.AZURE and account.source in graphs:
                sharing[account.source].append(account)
            else:
                yield account, by_kind[account.cloud], None
        for of_source in sharing.values():
            of_source.sort(key=lambda account: account.id)
            for start in range(0, len(of_source), MOST_SUBSCRIPTIONS):
                chunk = of_source[start : start + MOST_SUBSCRIPTIONS]
                kinds = by_kind[Cloud.AZURE]
                graph = azure_collect.share_graph([account.id for account in chunk], kinds)
                for account in chunk:
                    yield account, kinds, graph

    async def _scan(
        self,
        account: Account,
        by_kind: Mapping[str, list[Rule]],
        graph: SharedGraph[Resource] | None = None,
        region: str = "",
    ) -> AccountScan:
        try:
            async with self._free_slots, asyncio.timeout(self._limits.account_seconds):
                resources, coverage = await self._collect(account, by_kind, graph, region)
        except TimeoutError:
            return AccountScan(account, failed=self._out_of_time())
        except (SutureError, OSError) as error:
            return AccountScan(account, failed=reason(error))
        if coverage and not any(covered.ok for covered in coverage):
            return AccountScan(account, failed=_why_nothing(coverage))
        observations = [
            observe(rule, resource) for resource in resources for rule in by_kind[resource.kind]
        ]
        lag = GRAPH_LAG_SECONDS if graph is not None else 0.0
        return AccountScan(account, resources, observations, coverage, lag=lag)

    async def read(
        self,
        cloud: Cloud,
        account_id: str,
        source: str,
        kind: str,
        resource_id: str,
        region: str,
        *,
        rule: Rule | None = None,
    ) -> Resource:
        """One resource as it is now: to judge it, for a plan.

        Asked for are, as in a scan, the parts that the rules in force need, and those that ``rule``
        needs, where it is read for one. Raises ResourceGone, or another CloudError.
        """
        reads = self._needed(cloud, kind, rule)
        found = await self._read(
            Account(cloud=cloud, id=account_id, source=source),
            lambda view: aws_collect.read_one(
                replace(view, needed=reads), kind, resource_id, region
            ),
            lambda api: azure_collect.read_one(api, account_id, kind, resource_id, reads),
        )
        return replace(found, reads=reads)

    async def look(self, source: str, known: Resource) -> Seen:
        """A resource as it is now and what hangs on it: for a snapshot, for drift, to verify a fix.

        It is read in the parts in which ``known`` was, whichever rules are in force meanwhile, so
        that the two can be compared. Raises what ``read`` raises.
        """
        reads, kind = known.reads, known.kind
        seen = await self._read(
            Account(cloud=known.cloud, id=known.account, source=source),
            lambda view: aws_collect.look(
                replace(view, needed=reads), kind, known.id, known.region
            ),
            lambda api: azure_collect.look(api, known.account, kind, known.id, reads),
        )
        return replace(seen, resource=replace(seen.resource, reads=reads))

    def _needed(self, cloud: Cloud, kind: str, rule: Rule | None) -> frozenset[str] | None:
        """What of one kind the rules in force read, and ``rule``; None where that is all of it."""
        if cloud not in self._in_force:
            self._in_force[cloud] = _reads(self._rules_by_kind(cloud, None))
        aws = cloud is Cloud.AWS
        there = frozenset(AWS_KINDS[kind].reads if aws else azure_collect.COLLECTORS[kind].reads)
        needed = there & self._in_force[cloud].union(rule.reads if rule is not None else ())
        return None if needed == there else needed

    async def _read(
        self,
        account: Account,
        of_aws: Callable[[AwsView], Awaitable[_Read]],
        of_azure: Callable[[AzureApi], Awaitable[_Read]],
    ) -> _Read:
        try:
            async with asyncio.timeout(self._limits.account_seconds):
                if account.cloud is Cloud.AWS:
                    return await of_aws(await self._view(account))
                return await of_azure(await self._open_azure(self._source(account, AzureSource)))
        except TimeoutError:
            raise CloudTimeout(self._out_of_time()) from None

    async def _collect(
        self,
        account: Account,
        by_kind: Mapping[str, list[Rule]],
        graph: SharedGraph[Resource] | None,
        region: str,
    ) -> tuple[list[Resource], list[Covered]]:
        needed = _reads(by_kind)
        if account.cloud is Cloud.AWS:
            view = replace(await self._view(account), needed=needed)
            if region and region != GLOBAL:
                view = replace(view, source=replace(view.source, regions=(region,)))
            return await aws_collect.collect(view, by_kind)
        api = await self._open_azure(self._source(account, AzureSource))
        return await azure_collect.collect(api, account.id, by_kind, graph, needed)

    async def _view(self, account: Account) -> AwsView:
        source = self._source(account, AwsSource)
        api, keyring = await self._open_aws(source)
        return AwsView(
            api=api,
            source=source,
            account=account.id,
            credentials=await keyring.assume(account.id, source.scanner_role),
            slots_free=asyncio.Semaphore(self._limits.calls),
        )

    def _source(self, account: Account, kind: type[_Source]) -> _Source:
        source = self._inventory.source(account.source)
        if not isinstance(source, kind):
            raise BadInput("source", f"{account.source} is not a source of {account.cloud}.")
        return source

    async def _open_aws(self, source: AwsSource) -> tuple[AwsApi, AwsKeyring]:
        async with self._opening:
            if source.name not in self._aws:
                api = AwsApi(
                    endpoint=source.endpoint,
                    ca_file=source.ca_file,
                    limits=self._limits,
                    budgets=self._budgets,
                )
                await self._opened.enter_async_context(api)
                self._aws[source.name] = api, AwsKeyring(source, api)
        return self._aws[source.name]

    async def _open_azure(self, source: AzureSource) -> AzureApi:
        async with self._opening:
            if source.name not in self._azure:
                api = AzureApi(source, self._limits, self._budgets)
                self._azure[source.name] = await self._opened.enter_async_context(api)
        return self._azure[source.name]

    def _rules_by_kind(self, cloud: Cloud, rules: Sequence[Rule] | None) -> dict[str, list[Rule]]:
        chosen = rules if rules is not None else self._rules
        if chosen is None:
            from tasks.rules import rules_of

            chosen = rules_of(settings.rules())
        by_kind: dict[str, list[Rule]] = defaultdict(list)
        for rule in chosen:
            if rule.cloud is cloud:
                by_kind[rule.kind].append(rule)
        return by_kind

    def _out_of_time(self) -> str:
        return f"timed out after {self._limits.account_seconds:g} s"


def _reads(by_kind: Mapping[str, list[Rule]]) -> frozenset[str]:
    """All that the rules read."""
    return frozenset(read for rules in by_kind.values() for one in rules for read in one.reads)


def _why_skipped(account: Account) -> str:
    what = "account" if account.cloud is Cloud.AWS else "subscription"
    return f"the {what} is {account.status.replace('_', ' ')}"


def _why_nothing(coverage: Sequence[Covered]) -> str:
    """Why nothing could be read: the first reason of each sort (refused, throttled, …)."""
    sorts: dict[str, str] = {}
    for covered in coverage:
        sorts.setdefault(covered.reason.partition(":")[0], covered.reason)
    return "; ".join(sorts.values())
