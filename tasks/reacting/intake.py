"""From a queue's messages to events in the warehouse: kept first, then the messages go."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import psycopg

from tasks.clouds.queues import Message
from tasks.errors import BadEvent
from tasks.formats.event import ControlPlaneEvent
from tasks.inventory import AwsSource, AzureSource
from tasks.model import Cloud
from tasks.reacting.decision import Why, decide, read_message
from tasks.reacting.metrics import Metrics
from tasks.warehouse import events
from tasks.warehouse.events import Taken


@dataclass(slots=True)
class Sorted:
    """What came with some messages: events to be kept, and messages that nobody can read, why."""

    taken: list[Taken] = field(default_factory=list)
    poison: list[tuple[Message, str]] = field(default_factory=list)


def sort_messages(
    source: AwsSource | AzureSource,
    messages: Sequence[Message],
    kinds: Collection[str],
    metrics: Metrics,
) -> Sorted:
    """Read messages and decide on their events. One that cannot be read harms no other."""
    found = Sorted()
    cloud = source.cloud
    for message in messages:
        metrics.messages_came(cloud)
        try:
            read = read_message(source, message.body)
        except BadEvent as problem:
            found.poison.append((message, str(problem)))
            metrics.decided(cloud, "poison")
            continue
        for event in read:
            found.taken += decided(event, source, kinds, message.sent_at, metrics)
    return found


def decided(
    event: ControlPlaneEvent,
    source: AwsSource | AzureSource,
    kinds: Collection[str],
    queued_at: datetime | None,
    metrics: Metrics,
) -> list[Taken]:
    """The event as it is to be kept; nothing where it changes nothing."""
    decision = decide(event, source, kinds)
    if decision.why is Why.TAKEN:
        return [Taken(event, decision.targets, source.name, queued_at)]
    metrics.decided(event.cloud, decision.why)
    return []


def keep(warehouse: psycopg.Connection, taken: Sequence[Taken], metrics: Metrics) -> int:
    """Write events down, each once; returns how many were new. Raises psycopg.Error."""
    if not taken:
        return 0
    new = events.take_in(warehouse, taken)
    seen: set[tuple[Cloud, str]] = set()
    for one in taken:
        key = events.key_of(one.event)
        fresh = key in new and key not in seen
        seen.add(key)
        metrics.decided(one.event.cloud, "taken" if fresh else "duplicate")
    return len(new)


def measure(taken: Sequence[Taken], now: datetime, metrics: Metrics) -> None:
    """Tell how long the cloud took to tell of events, and how long they lay in their queue."""
    for one in taken:
        if one.queued_at is not None:
            cloud = one.event.cloud
            metrics.reported(cloud, (one.queued_at - one.event.at).total_seconds())
            metrics.taken(cloud, (now - one.queued_at).total_seconds())
