"""A listener at work inside a flow run: where its events come from, and how it remediates."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import httpx
import uvloop
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import hydrated_context, serialize_context
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

from tasks import settings
from tasks.clouds.queues import EventQueue
from tasks.clouds.remediator import prepare
from tasks.errors import BadInput, SutureError
from tasks.garbage import collect_rarely
from tasks.inventory import AwsSource, Inventory, load_inventory
from tasks.policy import Group
from tasks.reacting.listener import Listener
from tasks.reacting.metrics import Metrics
from tasks.reconciling import settle_run
from tasks.remediation_run import MORE, More
from tasks.triage import reconcile_approvals, start_approval
from tasks.warehouse.kept import keeping

PREFECT_AWAY = "Prefect's server cannot be asked"
SURE_SECONDS = 2.0  # after an answer of Prefect's server it is not asked whether it is there
STOPS = (signal.SIGINT, signal.SIGTERM)


def queues_of(inventory: Inventory) -> list[EventQueue]:
    """The queues that an inventory's events come by."""
    from tasks.clouds.sqs_queue import SqsQueue
    from tasks.clouds.storage_queue import StorageQueue

    return [
        SqsQueue(source) if isinstance(source, AwsSource) else StorageQueue(source)
        for source in inventory.sources
        if source.event_queue
    ]


@dataclass(frozen=True, slots=True)
class Beside:
    """What runs beside a listener for as long as it does: a webhook, a page of metrics.

    ``hears``: events come by it, so that no queue is needed.
    """

    serve: Callable[[Listener], AbstractAsyncContextManager[None]]
    hears: bool = False


BESIDE: ContextVar[Beside | None] = ContextVar("beside", default=None)


def make_listener(flow_run_id: str | None, remediator: InThreads) -> Listener:
    """This process's listener, by its settings. Raises BadInput where it could hear nothing."""
    inventory = load_inventory(settings.inventory_path())
    queues = queues_of(inventory)
    beside = BESIDE.get()
    if not queues and not (beside and beside.hears):
        raise BadInput(
            "event_queue",
            "is set for no source of the inventory: nothing would be heard.",
            "Deploy the rules of `suture react template`, and write the queue's URL down.",
        )
    return Listener(inventory, queues, remediator, Metrics(), flow_run_id=flow_run_id or "")


def listen(listener: Listener) -> None:
    """Run a listener until it is told to stop, by a signal too. Raises what nobody expects."""
    # The end of each run below would else wait for up to a second for its heart to stop: whether
    # this process lives is told by its locks in the warehouse.
    with (
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        keeping(),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_listen(listener))


async def _listen(listener: Listener) -> None:
    loop = asyncio.get_running_loop()
    for number in STOPS:
        loop.add_signal_handler(number, listener.stop)
    # Before there is an event that would have to wait for it.
    await asyncio.to_thread(prepare, listener.inventory)
    collect_rarely()
    async with AsyncExitStack() as opened:
        if beside := BESIDE.get():
            await opened.enter_async_context(beside.serve(listener))
        await listener.run()


class InThreads:
    """How a listener remediates: flows called in threads, as runs below the flow run it is.

    ``close`` is the flow for a group. Prefect counts the runs below a flow without a lock, so that
    each thread has a context of its own, in which keys are drawn instead.
    """

    def __init__(self, close: Callable[[Group, str], State]) -> None:
        self._close = close
        # The settings are the thread's already: to parse them anew takes a tenth of a second.
        self._context = {**serialize_context(), "settings_context": {}}
        self._answered_at = -SURE_SECONDS  # when Prefect's server last did, by the monotonic clock

    def close(self, group: Group, requested_by: str, more: Callable[[], More | None]) -> None:
        told = MORE.set(more)
        try:
            with self._prefect():
                if time.monotonic() - self._answered_at > SURE_SECONDS:
                    self._check_prefect()
                state = self._close(group, requested_by)
        finally:
            MORE.reset(told)
        if state.is_crashed() or state.name == "Cannot start":
            self._answered_at = -SURE_SECONDS
            raise SutureError(f"The run of {group.account} ended as {state.name}: {state.message}")
        self._answered_at = time.monotonic()

    def ask(self, group: Group, requested_by: str) -> None:
        with self._prefect():
            start_approval.fn(group, requested_by)

    def settle(self, run_id: str) -> None:
        settle_run(run_id)

    def reconcile(self) -> None:
        with self._prefect():
            reconcile_approvals.fn()

    @contextmanager
    def _prefect(self) -> Iterator[None]:
        """The flow run's context in this thread. Raises SutureError where the server is away."""
        try:
            with hydrated_context(self._context):
                yield
        except (httpx.HTTPError, PrefectHTTPStatusError) as error:
            raise SutureError(f"{PREFECT_AWAY}: {type(error).__name__}.") from error

    def _check_prefect(self) -> None:
        """A run that breaks because the server went away leaves more behind than one not begun."""
        with get_client(sync_client=True) as client:
            problem = client.api_healthcheck()
        if problem is not None:
            raise SutureError(f"{PREFECT_AWAY}: {type(problem).__name__}.")
