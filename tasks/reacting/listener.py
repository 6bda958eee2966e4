"""The listener: takes events in, reads again what they are about, and has it closed or asked about.

One process runs one; several share the queues and the work. Whatever ends a listener, what it had
taken in is in the warehouse, and what it held is free for the others.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Protocol
from uuid import uuid4

import psycopg

from tasks import settings
from tasks.clouds.queues import EventQueue
from tasks.clouds.scanner import Scanner
from tasks.clouds.shared_scanner import Reading, shared
from tasks.errors import BadEvent, SutureError, words_of
from tasks.formats.event import ControlPlaneEvent, Target
from tasks.formats.event_grid import read_event_grid
from tasks.inventory import AzureSource, Inventory
from tasks.model import Cloud, Rule
from tasks.policy import Group, Mode
from tasks.reacting import answering, intake, rereading
from tasks.reacting.answering import Answer, Answers
from tasks.reacting.desk import Desk
from tasks.reacting.metrics import Metrics
from tasks.reacting.rereading import ReadAgain
from tasks.remediation_run import More
from tasks.rules import rules_of
from tasks.triage import why_held_back
from tasks.warehouse import events
from tasks.warehouse.database import connect
from tasks.warehouse.events import Work

log = logging.getLogger(__name__)

MOST_READING = 64  # resources read at once
MOST_HELD = 1_000  # resources in hand, those that wait for their fix as well
MOST_FIXING = 16  # runs at once in one process
LONGEST_RUN = 60.0  # seconds for which a run takes on what comes
LINGER_SECONDS = 2.0  # for which one that is done with what it has waits for more: it costs less
LOOK_SECONDS = 1.0  # until what other listeners have left is looked for
QUIET_QUEUE_SECONDS = 1.0  # until an empty queue that does not wait by itself is asked again
FEW, GATHER_SECONDS = 8, 0.05  # after so few messages the next take waits: it costs as much as many
BEAT_SECONDS = 5.0
RECONCILE_SECONDS = 60.0
LONGEST_PAUSE = 30.0  # between two tries to reach what is away
BUSY_AGAIN = timedelta(seconds=2)
NOT_BEGUN = "Its run ended before it was begun to be changed."
AWAY = (psycopg.Error, SutureError, OSError)

_Key = tuple[str, str, str, Mode]  # cloud, account, policy and its mode


@dataclass(slots=True)
class _Run:
    """A run for what waits under ``key``. What comes meanwhile is given to it, until it is full.

    ``given`` is what it has and has not brought to its end, ``had`` the ids of all its findings.
    """

    key: _Key
    loop: asyncio.AbstractEventLoop
    ends: float = field(default_factory=lambda: time.monotonic() + LONGEST_RUN)
    given: Answer | None = None
    had: set[str] = field(default_factory=set)
    full: asyncio.Event = field(default_factory=asyncio.Event)
    called: asyncio.Event = field(default_factory=asyncio.Event)  # away from its waiting for more


class Remediator(Protocol):
    """What the listener has done through Prefect, in threads of this process.

    Each raises SutureError or OSError for what it cannot do for now: it is tried again.
    """

    def close(self, group: Group, requested_by: str, more: Callable[[], More | None]) -> None:
        """Run the remediation of a group to its end; the warehouse says how that was.

        When all that it has is at its end it asks for ``more``, and takes that on too, until there
        is none.
        """
        ...

    def ask(self, group: Group, requested_by: str) -> None:
        """Start the run that asks an approver."""
        ...

    def settle(self, run_id: str) -> None:
        """Settle a run whose process has ended."""
        ...

    def reconcile(self) -> None:
        """Settle what all runs that are dead have left behind."""
        ...


@dataclass(slots=True)
class _Ends:
    """How many groups a piece of work waits for, and why it is to be tried again in the end."""

    left: int = 0
    again: str = ""


class Listener:
    """Reacts to the events of an inventory's ``queues`` until it is told to stop.

    ``rules`` are those in force. ``flow_run_id`` is the flow run that it is, for the record.
    """

    def __init__(
        self,
        inventory: Inventory,
        queues: Iterable[EventQueue],
        remediator: Remediator,
        metrics: Metrics,
        *,
        rules: Sequence[Rule] | None = None,
        flow_run_id: str = "",
    ) -> None:
        self.id = str(uuid4())
        self.metrics = metrics
        self.inventory = inventory
        self._queues = list(queues)
        self._remediator = remediator
        self._flow_run_id = flow_run_id
        self._rules: dict[str, list[Rule]] = defaultdict(list)
        for rule in rules if rules is not None else rules_of(settings.rules()):
            self._rules[rule.kind].append(rule)
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._read: asyncio.Queue[ReadAgain] = asyncio.Queue()
        self._held: dict[Target, Work] = {}
        self._reading = 0
        self._waiting: dict[_Key, list[Answer]] = defaultdict(list)
        self._fixing: set[_Key] = set()
        self._open_ends: dict[Target, _Ends] = defaultdict(_Ends)
        self._fixers = asyncio.Semaphore(MOST_FIXING)
        # Of their own: on a small machine asyncio's are few, and would all be with runs.
        self._threads = ThreadPoolExecutor(MOST_FIXING, thread_name_prefix="run")
        self._queued = 0  # accounts whose run waits for a fixer
        self._lingering: dict[_Key, _Run] = {}  # runs that wait for more
        self._tasks: set[asyncio.Task[None]] = set()
        self._counts: dict[str, int] = defaultdict(int)
        self._depths: dict[str, dict[str, int | None]] = {}
        self._broken: BaseException | None = None
        self.trouble = ""  # what is away, in words

    @property
    def story(self) -> str:
        """What it has done since it began, in words."""
        said = [f"{count} {what}" for what, count in sorted(self._counts.items()) if count]
        return ", ".join(said) or "Nothing came."

    def stop(self) -> None:
        """End soon: what is being closed is closed, what has not begun is left to others."""
        self._stopping.set()
        self._news.set()
        self._call_all()

    async def run(self) -> None:
        """React until ``stop``. Raises what nobody expects; what is away is waited for."""
        async with AsyncExitStack() as opened:
            self._intake = await opened.enter_async_context(Desk("intake"))
            self._claims = await opened.enter_async_context(Desk("claims"))
            self._merges = await opened.enter_async_context(Desk("merges"))
            self._scanner = await opened.enter_async_context(Scanner(self.inventory))
            self._readings = opened.enter_context(shared(self._scanner, self.inventory))
            for queue in self._queues:
                await opened.enter_async_context(queue)
            stopped = asyncio.create_task(self._stopping.wait())
            try:
                async with asyncio.TaskGroup() as group:
                    loops = [
                        *(group.create_task(self._listen(queue)) for queue in self._queues),
                        group.create_task(self._work()),
                        group.create_task(self._merge()),
                        group.create_task(self._beat()),
                        group.create_task(self._reconcile()),
                    ]
                    await stopped
                    for loop in loops:
                        loop.cancel()
            finally:
                stopped.cancel()
                await self._finish()
        if self._broken is not None:
            raise self._broken

    async def _finish(self) -> None:
        """What is being closed is waited for: cutting it off would leave it to be put back."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        self._threads.shutdown()
        try:
            await self._claims.ask(lambda warehouse: events.listener_gone(warehouse, self.id))
        except AWAY as error:
            log.warning("The warehouse could not be told of the end: %s", words_of(error))

    # --- in ------------------------------------------------------------------------------------

    async def _listen(self, queue: EventQueue) -> None:
        pause = 0.0
        while not self._stopping.is_set():
            try:
                # Nothing is taken out of a queue while there is nowhere to put it.
                await self._intake.ask(lambda warehouse: warehouse.execute("SELECT 1"))
                began = time.monotonic()
                received = await self._take(queue)
            except AWAY as error:
                pause = min(LONGEST_PAUSE, pause * 2 or 0.5)
                self._in_trouble(f"{queue.source}: {words_of(error)}")
                await asyncio.sleep(pause)
                continue
            pause = 0.0
            self._well()
            if not received and time.monotonic() - began < QUIET_QUEUE_SECONDS:
                await asyncio.sleep(QUIET_QUEUE_SECONDS / 4)
            elif 0 < received < FEW:
                await asyncio.sleep(GATHER_SECONDS)

    async def _take(self, queue: EventQueue) -> int:
        """Take in one batch of messages; returns how many there were."""
        messages = await queue.receive()
        if not messages:
            return 0
        source = self.inventory.source(queue.source)
        found = intake.sort_messages(source, messages, self._rules, self.metrics)
        for message, why in found.poison:
            log.warning("A message of %s cannot be read, and is put aside: %s", queue.source, why)
            await queue.bury(message, why)
            self._counts["poison"] += 1
        now = datetime.now(UTC)
        new = await self.keep(found.taken)
        intake.measure(found.taken, now, self.metrics)
        unread = {message.id for message, _ in found.poison}
        await queue.delete([one for one in messages if one.id not in unread])
        self._counts["messages"] += len(messages)
        self._counts["events"] += new
        return len(messages)

    async def accept(self, text: str) -> None:
        """Take in an event of Azure's that came by a webhook.

        Raises BadEvent for one that nobody can read, and what says that the warehouse is away.
        """
        now = datetime.now(UTC)
        self.metrics.messages_came(Cloud.AZURE)
        self._counts["messages"] += 1
        found = [
            one
            for event in read_event_grid(text)
            for one in intake.decided(event, self._source_of(event), self._rules, now, self.metrics)
        ]
        self._counts["events"] += await self.keep(found)

    def _source_of(self, event: ControlPlaneEvent) -> AzureSource:
        """The tenant of the inventory that an event is of."""
        data = event.original.get("data")
        tenant = str(data.get("tenantId") or "").lower() if isinstance(data, Mapping) else ""
        sources = [one for one in self.inventory.azure if one.tenant == tenant or not tenant]
        if not sources:
            raise BadEvent("tenantId", "is of no tenant of the inventory.", "Add the tenant.")
        return sources[0]

    async def keep(self, taken: Sequence[events.Taken]) -> int:
        """Keep events that came, by a queue or otherwise; returns how many were new."""
        new = await self._intake.ask(lambda warehouse: intake.keep(warehouse, taken, self.metrics))
        if new:
            self._news.set()
        return new

    # --- read again ----------------------------------------------------------------------------

    async def _work(self) -> None:
        while not self._stopping.is_set():
            room = min(MOST_READING - self._reading, MOST_HELD - len(self._held))
            self._news.clear()
            works: list[Work] = []
            if room > 0:
                try:
                    works = await self._claims.ask(
                        partial(events.claim, limit=room, busy=list(self._held))
                    )
                except AWAY as error:
                    self._in_trouble(f"warehouse: {words_of(error)}")
            for work in works:
                self._held[work.target] = work
                self._start(self._read_one(work))
            if len(works) < room or room <= 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), LOOK_SECONDS)

    async def _read_one(self, work: Work) -> None:
        self._reading += 1
        try:
            account = await self._claims.ask(
                lambda warehouse: rereading.account_for(warehouse, work)
            )
            rules = self._rules.get(work.target.kind, [])
            began = time.monotonic()
            read = await rereading.read_again(self._scanner, work, account, rules)
        except AWAY as error:  # the warehouse is away
            await self._later(work, words_of(error))
            return
        finally:
            self._reading -= 1
            self._news.set()
        outcome = "failed" if read.failed else "gone" if read.gone else "read"
        self.metrics.rescanned(work.target.cloud, outcome, time.monotonic() - began)
        if read.failed:
            await self._later(work, read.failed)
            return
        self._counts["rereads"] += 1
        if work.target.resource:  # of all of a kind nobody knows which calls were about which
            for found in read.resources:
                self._readings.keep(Reading(found, read.at, read.calls))
        await self._read.put(read)

    async def _merge(self) -> None:
        while not self._stopping.is_set():
            reads = [await self._read.get()]
            while not self._read.empty():
                reads.append(self._read.get_nowait())
            try:
                answers = await self._merges.ask(partial(self._merged, reads=reads))
            except AWAY as error:
                self._in_trouble(f"warehouse: {words_of(error)}")
                for read in reads:
                    await self._later(read.work, words_of(error))
                continue
            await self._answer(answers)

    def _merged(self, warehouse: psycopg.Connection, reads: Sequence[ReadAgain]) -> Answers:
        found: list[Answers] = []
        for some in rereading.apart(warehouse, reads):
            scan_id = rereading.merge(warehouse, some, self._rules, self._flow_run_id or None)
            found.append(answering.answers(warehouse, some, scan_id))
        return answering.joined(found)

    # --- answer --------------------------------------------------------------------------------

    async def _answer(self, answers: Answers) -> None:
        """Hand findings on; work that nothing follows from is done."""
        if answers.done:
            await self._done(answers.done)
        for answer in answers.answers:
            for work in answer.works:
                self._open_ends[work.target].left += 1
        for answer in answers.answers:
            group = answer.group
            key = (group.cloud, group.account, group.policy.name, group.policy.mode)
            self._waiting[key].append(answer)
            if key not in self._fixing:
                self._fixing.add(key)
                self._start(self._fix(key))
            elif key in self._lingering:
                self._lingering[key].called.set()
        if answers.busy:
            await self._settle_dead(answers.busy_runs)
        for work in answers.busy:
            await self._later(work, "A run is at work on it.", wait=BUSY_AGAIN, counts=False)

    async def _settle_dead(self, runs: Sequence[str]) -> None:
        """Runs whose process has ended are settled now: what they hold could not be closed."""
        try:
            dead = await self._merges.ask(lambda warehouse: answering.dead(warehouse, runs))
            for run in dead:
                await asyncio.to_thread(self._remediator.settle, run)
            if dead:  # what they had only planned is freed by this, and not by settling
                await asyncio.to_thread(self._remediator.reconcile)
        except AWAY as error:
            self._in_trouble(f"warehouse: {words_of(error)}")

    async def _fix(self, key: _Key) -> None:
        """Close, or ask about, what waits under one policy in one account.

        What comes meanwhile is taken on by the same run, as much as its policy lets it change, so
        that a burst costs few runs. The next begins when the one before is given no more.
        """
        try:
            while self._waiting[key] and not self._stopping.is_set():
                self._queued += 1
                if self._fixers.locked():
                    self._call_all()
                try:
                    await self._fixers.acquire()
                finally:
                    self._queued -= 1
                if self._stopping.is_set():
                    self._fixers.release()
                    return
                run = _Run(key, asyncio.get_running_loop())
                await self._give(run)
                self._start(self._see_through(run))
                await run.full.wait()
        finally:
            self._fixing.discard(key)

    async def _give(self, run: _Run) -> Answer | None:
        """Give a run what waits for it; None, and no more from then on, where it is to end.

        It ends for others that wait to begin, and where something comes back that it had: a run
        has each finding once. Else it waits for a moment for more: one run costs less than two.
        """
        if run.had and not self._waiting[run.key]:
            await self._linger(run)
        waiting = self._waiting[run.key]
        ends = self._runs_must_end or time.monotonic() > run.ends
        if waiting and not (run.had and ends):
            answers, self._waiting[run.key] = _one_run(waiting, run.had)
            if answers:
                run.given = _together(answers)
                run.had |= {one.id for one in run.given.group.findings}
                return run.given
        run.full.set()
        return None

    @property
    def _runs_must_end(self) -> bool:
        """For others that wait to begin, or with the listener."""
        return bool(self._queued) or self._stopping.is_set()

    async def _linger(self, run: _Run) -> None:
        """Wait until something comes for a run, others wait to begin, or a moment is over."""
        if self._runs_must_end:
            return
        self._lingering[run.key] = run
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(run.called.wait(), LINGER_SECONDS)
        finally:
            run.called.clear()
            del self._lingering[run.key]

    def _call_all(self) -> None:
        for run in self._lingering.values():
            run.called.set()

    async def _see_through(self, run: _Run) -> None:
        """Have a run made of what it is given."""
        try:
            carry = partial(copy_context().run, self._carry, run)
            await run.loop.run_in_executor(self._threads, carry)
        finally:
            run.full.set()
            self._fixers.release()

    def _carry(self, run: _Run) -> None:
        """Have findings closed or asked about, in a thread; with those that come meanwhile."""

        def more() -> More | None:
            if run.given is not None:
                self._let_end(run, self._how_it_went(run.given.group))
            given = asyncio.run_coroutine_threadsafe(self._give(run), run.loop).result()
            if given is None:
                return None
            try:
                with connect() as warehouse:
                    answering.note_causes(warehouse, given.group, given.causes)
            except AWAY as error:  # what the run has fixed stands; the rest is tried again
                self._let_end(run, words_of(error))
                return None
            return More(tuple(one.id for one in given.group.findings), given.asked_by)

        again = ""
        try:
            if run.given is not None and self._begin(run.given, more):
                again = self._how_it_went(run.given.group) if run.given is not None else ""
        except AWAY as error:
            again = words_of(error)
        self._let_end(run, again)

    def _begin(self, answer: Answer, more: Callable[[], More | None]) -> bool:
        """Start the run of a group; whether it has closed anything, so that it is told how."""
        group = answer.group
        with connect() as warehouse:
            if why := why_held_back(warehouse, group.policy):
                log.warning("Findings of %s wait for triage. %s", group.policy.name, why)
                return False
            answering.note_causes(warehouse, group, answer.causes)
        if group.policy.mode is not Mode.AUTOMATIC:
            self._remediator.ask(group, answer.asked_by)
            self._counts["asked"] += 1
            return False
        self._remediator.close(group, answer.asked_by, more)
        return True

    def _how_it_went(self, group: Group) -> str:
        """Count how findings of a group ended; why they are to be tried again, empty where not."""
        try:
            with connect() as warehouse:
                states = answering.how_it_ended(warehouse, group)
        except AWAY as error:
            return words_of(error)
        for finding in group.findings:
            state = states.get(finding.id, "not begun")
            self.metrics.remediation_ended(finding.cloud, state)
            self._counts[state] += 1
        return "" if all(finding.id in states for finding in group.findings) else NOT_BEGUN

    def _let_end(self, run: _Run, again: str) -> None:
        """What a run has is at its end, or is to be tried ``again`` for a reason."""
        if run.given is not None:
            run.loop.call_soon_threadsafe(self._start, self._ended(run.given.works, again))
            run.given = None

    async def _ended(self, works: Iterable[Work], again: str) -> None:
        """One of the groups that pieces of work are for has ended; a piece has with its last."""
        over: list[Work] = []
        for work in works:
            ends = self._open_ends[work.target]
            ends.left -= 1
            ends.again = again or ends.again
            if ends.left:
                continue
            del self._open_ends[work.target]
            if ends.again:
                await self._later(work, ends.again)
                continue
            self.metrics.fixed(work.target.cloud, (datetime.now(UTC) - work.since).total_seconds())
            over.append(work)
        if over:
            await self._done(over)

    # --- over ----------------------------------------------------------------------------------

    async def _done(self, works: Sequence[Work]) -> None:
        try:
            await self._claims.ask(lambda warehouse: events.done(warehouse, works))
        except AWAY as error:  # they are taken up again, and found to be as they should
            self._in_trouble(f"warehouse: {words_of(error)}")
        self._counts["done"] += sum(len(work.events) for work in works)
        self._let_go(works)

    async def _later(
        self, work: Work, why: str, *, wait: timedelta | None = None, counts: bool = True
    ) -> None:
        try:
            tried_on = await self._claims.ask(
                lambda warehouse: events.later(warehouse, work, why, wait=wait, counts=counts)
            )
            if not tried_on:
                self._counts["failed"] += len(work.events)
                log.error("%s is left to the next scan: %s", _name(work), why)
        except AWAY as error:
            self._in_trouble(f"warehouse: {words_of(error)}")
        self._let_go([work])

    def _let_go(self, works: Iterable[Work]) -> None:
        for work in works:
            self._held.pop(work.target, None)
        self._news.set()

    # --- alive ---------------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Say that this listener lives and how it goes, in the warehouse and the metrics."""
        host = f"{socket.gethostname()}:{os.getpid()}"
        while not self._stopping.is_set():
            await self._look_at_queues()
            counts = {**self._counts, "in_hand": len(self._held), "queues": self._depths}
            if self.trouble:
                counts["trouble"] = self.trouble

            def seen(
                warehouse: psycopg.Connection, counts: Mapping[str, Any] = counts
            ) -> dict[Cloud, events.Backlog]:
                events.listener_seen(warehouse, self.id, host, self._flow_run_id, counts)
                return events.backlog(warehouse)

            try:
                waits = await self._merges.ask(seen)
            except AWAY as error:
                self._in_trouble(f"warehouse: {words_of(error)}")
            else:
                for cloud, one in waits.items():
                    mine = sum(target.cloud is cloud for target in self._held)
                    self.metrics.lags(cloud, one.lag_seconds)
                    self.metrics.busy_with(cloud, in_flight=mine, waiting=one.waiting)
            await asyncio.sleep(BEAT_SECONDS)

    async def _look_at_queues(self) -> None:
        for queue in self._queues:
            try:
                depth = await queue.depth()
            except AWAY as error:
                self._in_trouble(f"{queue.source}: {words_of(error)}")
                continue
            self._depths[queue.source] = {"waiting": depth.waiting, "in_hand": depth.in_hand}
            self.metrics.queue_holds(queue.source, waiting=depth.waiting, in_hand=depth.in_hand)

    async def _reconcile(self) -> None:
        """What listeners and runs that died have left behind is settled, now and then."""
        while not self._stopping.is_set():
            try:
                await asyncio.to_thread(self._remediator.reconcile)
            except AWAY as error:
                self._in_trouble(f"reconciling: {words_of(error)}")
            await asyncio.sleep(RECONCILE_SECONDS)

    def _in_trouble(self, what: str) -> None:
        if what != self.trouble:
            log.warning("%s", what)
        self.trouble = what

    def _well(self) -> None:
        if self.trouble:
            log.info("It is well again.")
        self.trouble = ""

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()
            self.stop()


def _one_run(
    answers: Sequence[Answer], had: Set[str] = frozenset()
) -> tuple[list[Answer], list[Answer]]:
    """The answers that one run may carry that ``had`` some findings, and those that are left.

    One that has had none carries at least one answer; each finding once.
    """
    most = answers[0].group.policy.most_changes
    taken = set(had)
    for number, answer in enumerate(answers):
        own = {one.id for one in answer.group.findings}
        taken |= own
        if own & had or (len(taken) > most and (number or had)):
            return list(answers[:number]), list(answers[number:])
    return list(answers), []


def _together(answers: Sequence[Answer]) -> Answer:
    """Answers of one policy in one account as one, each finding once."""
    group = answers[0].group
    findings = {one.id: one for answer in answers for one in answer.group.findings}
    causes = {key: cause for answer in answers for key, cause in answer.causes.items()}
    works = tuple(work for answer in answers for work in answer.works)
    return Answer(replace(group, findings=tuple(findings.values())), causes, works)


def _name(work: Work) -> str:
    target = work.target
    return target.resource or f"all of {target.kind} in {target.account} {target.region}"
