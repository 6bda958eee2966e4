"""EventBridge: takes events to the hub's queue by the patterns that members deploy, in the back.

Late, twice and out of order when it is told to: that is what it promises, and no more.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import time
from collections import deque
from collections.abc import Mapping
from random import Random
from threading import Condition, Thread
from typing import Any

from moto.events.models import EventPattern
from moto.sqs.models import sqs_backends

from deployments.event_rules import event_template
from deployments.local.aws import queues
from tasks.model import Cloud

KEPT = 10_000  # events that are remembered
QUEUE, DEAD_LETTERS = "suture-events", "suture-events-dead"
MOST_DELIVERIES = 5


def plant_queues(account: str, region: str) -> None:
    """The queues of the hub, as deployments/aws/events-hub.json makes them."""
    sqs = sqs_backends[account][region]
    kept = str(14 * 24 * 3600)
    dead = sqs.create_queue(DEAD_LETTERS, MessageRetentionPeriod=kept)
    redrive = {"deadLetterTargetArn": dead.queue_arn, "maxReceiveCount": MOST_DELIVERIES}
    sqs.create_queue(
        QUEUE,
        VisibilityTimeout="60",
        ReceiveMessageWaitTimeSeconds="20",
        MessageRetentionPeriod=kept,
        RedrivePolicy=json.dumps(redrive),
    )


@functools.cache
def _patterns() -> Mapping[str, list[EventPattern]]:
    """What the member template of deployments/aws wants, by the source of events."""
    found: dict[str, list[EventPattern]] = {}
    for one in event_template(Cloud.AWS)["Resources"].values():
        if one["Type"] == "AWS::Events::Rule":
            pattern = one["Properties"]["EventPattern"]
            for source in pattern["source"]:
                found.setdefault(source, []).append(EventPattern(json.dumps(pattern), pattern))
    return found


def wanted(event: Mapping[str, Any]) -> bool:
    """Whether a rule of the member template sends an event to the hub."""
    return any(one.matches_event(event) for one in _patterns().get(event["source"], ()))


class EventBridge:
    """Delivers what is published and wanted to the queue in ``account``, ``region``.

    ``delay`` is in seconds; ``duplicates`` is the share that is delivered twice, ``reordering``
    the share that is up to a second later than the rest: all may be changed at any time.
    ``events`` are those published last, delivered or not.
    """

    def __init__(
        self,
        account: str,
        region: str,
        *,
        seed: int,
        delay: float,
        duplicates: float,
        reordering: float,
    ) -> None:
        self.delay, self.duplicates, self.reordering = delay, duplicates, reordering
        self.events: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._where = account, region
        self._random = Random(f"events-{seed}")  # noqa: S311 - repeatable on purpose
        self._due: list[tuple[float, int, dict[str, Any]]] = []
        self._numbers = itertools.count()
        self._woken = Condition()
        self._stopping = False
        self._thread = Thread(target=self._deliver, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._woken:
            self._stopping = True
            self._woken.notify()
        self._thread.join()

    def publish(self, event: dict[str, Any]) -> None:
        """Take an event in; it is delivered later, by another thread."""
        now = time.monotonic()
        with self._woken:
            self.events.append(event)
            for _ in range(2 if self._random.random() < self.duplicates else 1):
                late = self._random.random() if self._random.random() < self.reordering else 0.0
                due = now + self.delay + late
                heapq.heappush(self._due, (due, next(self._numbers), event))
            self._woken.notify()

    def _deliver(self) -> None:
        while (event := self._next()) is not None:
            if wanted(event):
                queues.put(*self._where, QUEUE, json.dumps(event))

    def _next(self) -> dict[str, Any] | None:
        """The event that is due next, once it is; None in the end."""
        with self._woken:
            while not self._stopping:
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._due)[2]
                self._woken.wait(wait)
        return None
