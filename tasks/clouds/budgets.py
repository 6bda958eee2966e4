"""How fast each part of a cloud is asked: one rate budget a cloud, account, region and service.

A budget starts at the limit that the cloud documents, or at none; a throttle cuts it and calls
wait, first come, first served (tasks/rate.py has the arithmetic). While there is room a call costs
a look at the clock and a subtraction: nothing is awaited.

    budget = budgets.of(aws_key(account, region, "ec2", "DescribeSecurityGroups"))
    answer = await patiently(attempt, patience, budget)

One Budgets object serves a process, with all its event loops and threads; ``shared`` makes several
processes share what one account, or one tenant, allows them together.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple, Protocol

from tasks.errors import Throttled
from tasks.rate import UNLIMITED, AdaptiveRate, Announcement, Drought, Rate, Standing

SYNC_SECONDS = 1.0
IDLE_SECONDS = 10.0  # a budget that was not used for so long, and is whole, is dropped
KEPT = 4096  # budgets, before any is dropped: ten thousand accounts must not pile up
IN_USE_SECONDS = 10.0  # a shared budget is announced for so long after its last call

log = logging.getLogger(__name__)


class BudgetKey(NamedTuple):
    """What a cloud counts calls by.

    ``cloud`` is aws or azure, ``account`` an account, subscription or tenant, ``region`` empty
    where a service has none. ``service`` names one operation ("ec2:DescribeVolumes") where the
    cloud counts each by itself.
    """

    cloud: str
    account: str
    region: str
    service: str

    def __str__(self) -> str:
        return "/".join(self)

    @classmethod
    def parse(cls, text: str) -> BudgetKey:
        """The key that str made ``text`` of. Only the account may have a slash in it."""
        cloud, _, rest = text.partition("/")
        account, region, service = rest.rsplit("/", 2)
        return cls(cloud, account, region, service)


# --- What the clouds document --------------------------------------------------------------------

EC2_READ = Rate(per_second=20, burst=100)
EC2_WRITE = Rate(per_second=5, burst=50)
EC2_UNPAGED_READ = Rate(per_second=10, burst=50)
# Asked without filter and page size, these draw on the smaller bucket.
EC2_UNPAGED = frozenset(
    {
        "DescribeInstances",
        "DescribeInstanceStatus",
        "DescribeNetworkInterfaces",
        "DescribeSecurityGroups",
        "DescribeSnapshots",
        "DescribeSpotInstanceRequests",
        "DescribeVolumes",
    }
)
STS = Rate(per_second=600, burst=600)
ARM_READ = Rate(per_second=25, burst=250)
RESOURCE_GRAPH = Rate(per_second=2, burst=5)

WITHOUT_REGION = frozenset({"iam", "organizations"})
# Asked with the scanner's own identity for the whole fleet, by every process that scans it.
SHARED = frozenset({"sts", "organizations", "arm:tenant", "resourcegraph"})


def documented(key: BudgetKey) -> Rate:
    """The limit that the cloud documents for ``key``, or UNLIMITED.

    - EC2 counts each operation by itself, per account and region: 100 at once and 20 a second for
      reads, 50 and 10 for seven large lists without filter and page size, 50 and 5 for writes.
      docs.aws.amazon.com/ec2/latest/devguide/ec2-api-throttling.html
    - STS: 600 a second per calling account and region, AssumeRole, GetCallerIdentity and others
      together. docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    - IAM, Organizations and S3's bucket operations are throttled, but no figure is documented.
    - ARM: 250 reads at once and 25 a second per subscription, principal and region; the same for
      what is asked of the tenant.
      learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling
    - Resource Graph: 15 queries within any 5 seconds per principal: 5 at once and 2 a second keep
      that.
      learn.microsoft.com/azure/governance/resource-graph/concepts/guidance-for-throttled-requests
    """
    service, _, operation = key.service.partition(":")
    match service:
        case "ec2":
            return _ec2(operation)
        case "sts":
            return STS
        case "arm":
            return ARM_READ
        case "resourcegraph":
            return RESOURCE_GRAPH
        case _:
            return UNLIMITED


def _ec2(operation: str) -> Rate:
    if operation.removesuffix("+paged") in EC2_UNPAGED and not operation.endswith("+paged"):
        return EC2_UNPAGED_READ
    if operation.startswith(("Describe", "Get", "List", "Search")):
        return EC2_READ
    return EC2_WRITE


def aws_key(
    account: str, region: str, service: str, operation: str, *, paged: bool = False
) -> BudgetKey:
    """The key of a call to AWS. ``account`` is the one that signs.

    ``paged`` says that it has a filter or a page size.
    """
    if service == "ec2":
        service = _ec2_service(operation, paged)
    elif service in WITHOUT_REGION:
        region = ""
    return BudgetKey("aws", account, region, service)


@cache
def _ec2_service(operation: str, paged: bool) -> str:
    return f"ec2:{operation}+paged" if paged and operation in EC2_UNPAGED else f"ec2:{operation}"


def arm_key(tenant: str, path: str) -> BudgetKey:
    """The key of a read from ARM at ``path``: of its subscription, of Resource Graph, or of
    ``tenant``."""
    lower = path.lower()
    if "/providers/microsoft.resourcegraph/" in lower:
        return BudgetKey("azure", tenant, "", "resourcegraph")
    parts = lower.split("/", 3)
    if len(parts) > 2 and parts[1] == "subscriptions" and parts[2]:
        return BudgetKey("azure", parts[2], "", "arm")
    return BudgetKey("azure", tenant, "", "arm:tenant")


# --- One budget ----------------------------------------------------------------------------------


class Budget:
    """The budget of one key. Made by Budgets."""

    __slots__ = ("_clock", "_drought", "_lock", "_queue", "key", "rate")

    def __init__(
        self,
        key: BudgetKey,
        rate: AdaptiveRate,
        clock: Callable[[], float],
        lock: threading.Lock,
        drought: Drought,
    ) -> None:
        self.key = key
        self.rate = rate
        self._drought = drought
        self._clock = clock
        self._lock = lock
        self._queue: list[tuple[float, int, _Waiter]] = []

    def take(self) -> int:
        """The epoch of a call that may be sent at once; 0 where it has to wait for its turn."""
        if self._queue:
            return 0
        rate = self.rate
        if rate.free:
            return rate.take(self._clock())
        with self._lock:
            return rate.take(self._clock())

    async def turn(self, patience: float, since: float | None = None) -> int:
        """Wait until a call may be sent: its epoch.

        Calls go in the order in which they came; one that is sent again keeps its place by
        ``since``, the clock's time of when it first came. They wait as long as the cloud answers
        others: Throttled is raised once none was answered for ``patience`` seconds, or the cloud
        asks for a longer pause than that. Seconds for which the account has throttled all that it
        was asked count as waited by a call that comes for the first time.
        """
        came = self._clock()
        waiter = _Waiter(asyncio.get_running_loop())
        entry = (came if since is None else since, next(_ORDER), waiter)
        spent = self._drought.seconds(came) if since is None else None  # its own else counts twice
        answered, give_up_at = self.rate.successes, came + patience - (spent or 0.0)
        with self._lock:
            heapq.heappush(self._queue, entry)
        try:
            while True:
                with self._lock:
                    now = self._clock()
                    first = self._queue[0] is entry
                    if first and (epoch := self.rate.take(now)):
                        return epoch
                    wait = self.rate.wait(now) if first else None
                    pause = self.rate.paused(now)
                if self.rate.successes != answered:
                    answered, give_up_at = self.rate.successes, now + patience
                left = give_up_at - now
                if left <= 0 or pause > left:
                    raise self._throttled(now - came, pause)
                await waiter.sleep(left if wait is None else min(wait, left))
        finally:
            self._leave(entry)

    def answered(self, epoch: int) -> None:
        """The call of ``epoch`` was answered, with success or not, but not throttled."""
        self.rate.answered(epoch)
        self._drought.answered()

    def throttled(self, epoch: int, retry_after: float = 0.0) -> None:
        """The call of ``epoch`` was throttled; the cloud asked to wait ``retry_after`` seconds."""
        with self._lock:
            now = self._clock()
            cut = self.rate.throttled(epoch, now, retry_after)
            self._drought.throttled(now)
            per_second = self.rate.per_second(now)
        if cut:
            log.debug("%s is throttled: %.1f calls a second from here on", self.key, per_second)

    @property
    def now(self) -> float:
        """The clock that ``since`` is told by."""
        return self._clock()

    @property
    def dry(self) -> float | None:
        """Seconds for which every call has been throttled, or every one of the account; or None."""
        now = self._clock()
        own, account = self.rate.dry(now), self._drought.seconds(now)
        return own if account is None else max(own or 0.0, account)

    @property
    def waiting(self) -> int:
        """Calls that wait for their turn."""
        return len(self._queue)

    def _throttled(self, waited: float, pause: float) -> Throttled:
        what = f"{self.key.service} of {self.key.account} is throttled"
        if pause:
            return Throttled(f"{what}, and is to be left alone for {pause:.0f} s")
        return Throttled(f"{what}: no room for another call within {waited:.0f} s")

    def _leave(self, entry: tuple[float, int, _Waiter]) -> None:
        """Out of the queue, and wake who is first now."""
        with self._lock:
            if self._queue[0] is entry:
                heapq.heappop(self._queue)
            else:
                self._queue.remove(entry)
                heapq.heapify(self._queue)
            while self._queue and not self._queue[0][2].wake():
                heapq.heappop(self._queue)


_ORDER = itertools.count()


class _Waiter:
    """One call that waits, in whichever event loop it runs."""

    __slots__ = ("_future", "_loop", "_woken")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._future: asyncio.Future[None] | None = None
        self._woken = False

    async def sleep(self, seconds: float) -> None:
        """Until woken, or for ``seconds``."""
        if not self._woken:
            self._future = self._loop.create_future()
            timer = self._loop.call_later(seconds, self._wake)
            try:
                await self._future
            finally:
                timer.cancel()
                self._future = None
        self._woken = False

    def wake(self) -> bool:
        """Wake it, from any thread. False where its event loop is closed."""
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            return False
        return True

    def _wake(self) -> None:
        self._woken = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


# --- All budgets of a process --------------------------------------------------------------------


class Exchange(Protocol):
    """Where processes meet: the warehouse."""

    def exchange(self, announced: Sequence[Announcement]) -> Sequence[Standing]:
        """Say what this process uses, learn how the others stand.

        Raises ConnectionError, without a secret in it, where the others cannot be reached.
        """

    def close(self) -> None:
        """This process uses nothing any more."""


class Budgets:
    """The budgets of one process, made when they are first asked for."""

    def __init__(
        self,
        limit: Callable[[BudgetKey], Rate] = documented,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._clock = clock
        # One for all: it is held for a microsecond, and ten thousand would weigh.
        self._lock = threading.Lock()
        self._budgets: dict[BudgetKey, Budget] = {}
        self._droughts: dict[tuple[str, str], Drought] = {}
        self._sweep_at = KEPT
        self._entering = threading.Lock()
        self._sharing = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._exchange: Exchange | None = None
        self._unreachable = False

    def __len__(self) -> int:
        return len(self._budgets)

    def of(self, key: BudgetKey) -> Budget:
        """The budget of ``key``. Don't keep it for longer than a call: idle ones are dropped."""
        budget = self._budgets.get(key)
        return budget if budget is not None else self._make(key)

    def _make(self, key: BudgetKey) -> Budget:
        now = self._clock()
        with self._lock:
            if len(self._budgets) >= self._sweep_at:
                self._budgets = {
                    known: budget
                    for known, budget in self._budgets.items()
                    if budget.waiting or not budget.rate.idle(now, IDLE_SECONDS)
                }
                self._sweep_at = max(KEPT, 2 * len(self._budgets))
                used = {key[:2] for key in self._budgets}
                self._droughts = {one: self._droughts[one] for one in used}
            if key not in self._budgets:
                rate = AdaptiveRate(self._limit(key), now)
                drought = self._droughts.setdefault(key[:2], Drought())
                self._budgets[key] = Budget(key, rate, self._clock, self._lock, drought)
            return self._budgets[key]

    # --- Shared with other processes -------------------------------------------------------------

    @contextmanager
    def shared(self, exchange: Exchange, every: float = SYNC_SECONDS) -> Iterator[None]:
        """Share budgets with other processes through ``exchange``, once a second, meanwhile.

        Many may be inside at once, in any thread: the first one's exchange serves all, and is
        closed by the last. The first round is over when this is entered (it blocks for as long):
        touch what is shared (``of``) before, so that this process takes no more than its share
        from the first call on.
        """
        with self._entering:
            if not self._sharing:
                self._begin_sharing(exchange, every)
            self._sharing += 1
        try:
            yield
        finally:
            with self._entering:
                self._sharing -= 1
                if not self._sharing:
                    self._end_sharing()

    def _begin_sharing(self, exchange: Exchange, every: float) -> None:
        self._exchange, self._stop = exchange, threading.Event()
        self.sync(exchange)
        self._thread = threading.Thread(
            target=self._keep_syncing,
            args=(exchange, every, self._stop),
            name="suture-budgets",
            daemon=True,
        )
        self._thread.start()

    def _end_sharing(self) -> None:
        thread, exchange = self._thread, self._exchange
        self._thread = self._exchange = None
        self._stop.set()
        if thread is not None:
            thread.join()  # a round ends by itself: the exchange has time limits
        if exchange is not None:
            exchange.close()
        self._heed(())  # alone again

    def _keep_syncing(self, exchange: Exchange, every: float, stop: threading.Event) -> None:
        while not stop.wait(every):
            self.sync(exchange)

    def sync(self, exchange: Exchange) -> None:
        """One round: say which shared and which cut budgets are in use, heed what others say.

        Where they cannot be reached, everyone goes on with what was last agreed; logged once.
        """
        try:
            standings = exchange.exchange(self._announced())
        except ConnectionError as error:
            if not self._unreachable:
                log.warning("Rate budgets are not shared with other processes: %s", error)
            self._unreachable = True
            return
        self._unreachable = False
        self._heed(standings)

    def _heed(self, standings: Sequence[Standing]) -> None:
        holders = {BudgetKey.parse(one.key): one.holders for one in standings}
        with self._lock:
            now = self._clock()
            for key, budget in self._budgets.items():
                budget.rate.share(max(1, holders.get(key, 1)), now)
            for one in standings:
                cut = self._budgets.get(BudgetKey.parse(one.key))
                if cut is not None and one.per_second is not None and one.cut_age is not None:
                    cut.rate.adopt(one.per_second, now - one.cut_age, now)

    def _announced(self) -> list[Announcement]:
        with self._lock:
            now = self._clock()
            announced = []
            for key, budget in self._budgets.items():
                age = budget.rate.cut_age(now)
                if age is not None:
                    rate = budget.rate.per_second(now)
                    announced.append(Announcement(str(key), rate, age))
                elif key.service in SHARED and not budget.rate.idle(now, IN_USE_SECONDS):
                    announced.append(Announcement(str(key)))
            return announced


@cache
def process_budgets() -> Budgets:
    """The budgets of this process."""
    return Budgets()
