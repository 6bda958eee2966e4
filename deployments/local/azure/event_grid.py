"""Event Grid: takes events to the queues and webhooks that subscribe to them, in the background.

Late, twice and out of order when it is told to: that is what it promises, and no more.
"""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import orjson

from deployments.local.azure.queues import QueueService
from deployments.local.azure.tenant import EventSubscription, Tenant

KEPT = 10_000  # events that are remembered
MOST_PREFIXES = 25  # values of all filters of one event subscription
LONGEST_BATCH = 100  # events of one request to a webhook
ORIGIN = "eventgrid.azure.net"
# A webhook that answers so will never take it: Event Grid gives up at once.
_NEVER = {400, 413}
_TAKEN = {200, 201, 202, 203, 204}


class HandshakeFailed(Exception):
    """A webhook did not prove that it wants events; nothing is sent to it."""


def prefixes(operations: Iterable[str]) -> tuple[str, ...]:
    """What the names of operations begin with: their resource types, or when those are more than
    one filter takes, their providers.
    """
    named = [operation.split("/") for operation in operations]
    types = {f"{parts[0]}/{parts[1]}/" for parts in named}
    if len(types) > MOST_PREFIXES:
        types = {f"{parts[0]}/" for parts in named}
    return tuple(sorted(types))


class EventGrid:
    """Delivers what is published to every subscription that wants it, on the running loop.

    ``delay`` is in seconds; ``duplicates`` is the share that is delivered twice, ``reordering``
    the share that is up to a second later than the rest. ``events`` are those published last,
    delivered or not. Everything but the options is for the loop's own thread.
    """

    def __init__(
        self,
        tenant: Tenant,
        queues: QueueService,
        *,
        seed: int,
        delay: float,
        duplicates: float,
        reordering: float,
    ) -> None:
        self.tenant = tenant
        self.queues = queues
        self.delay = delay
        self.duplicates = duplicates
        self.reordering = reordering
        self.events: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self._random = random.Random(f"events-{seed}")  # noqa: S311 - repeatable on purpose
        self._webhooks: list[Webhook] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def publish(self, event: dict[str, Any]) -> None:
        """Take an event in; it is delivered later."""
        self.events.append(event)
        wanted = [one for one in self.tenant.event_subscriptions if one.wants(event)]
        for subscription in wanted:
            for _ in range(2 if self._random.random() < self.duplicates else 1):
                late = self._random.random() if self._random.random() < self.reordering else 0.0
                loop = asyncio.get_running_loop()
                loop.call_later(self.delay + late, self._deliver, subscription, event)

    def _deliver(self, subscription: EventSubscription, event: dict[str, Any]) -> None:
        webhook = next((x for x in self._webhooks if x.name == subscription.destination), None)
        if webhook is not None:
            webhook.take(event)
        elif queue := self.queues.find(subscription.destination):
            queue.put(base64.b64encode(orjson.dumps(event)).decode())

    async def subscribe(self, webhook: Webhook) -> None:
        """Shake hands with a webhook; from then on it gets what the queue gets.

        Raises HandshakeFailed.
        """
        await webhook.shake_hands()
        wanted = {one.operations: one.types for one in self.tenant.event_subscriptions}
        self._webhooks.append(webhook)
        self.tenant.event_subscriptions += [
            EventSubscription(webhook.name, "/", webhook.name, types, operations)
            for operations, types in wanted.items()
        ]
        task = asyncio.create_task(webhook.deliver())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass
class Webhook:
    """An endpoint that events are posted to, in arrays, with ``headers``.

    ``cloud_events``: by the CloudEvents 1.0 schema and its handshake, else by Event Grid's own.
    ``wait`` is how many seconds pass before what failed is sent again (Event Grid: from 10 on);
    ``trust`` is what the endpoint's certificate is checked with.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    trust: ssl.SSLContext
    cloud_events: bool = False
    wait: float = 0.5
    name: str = field(default_factory=lambda: f"webhook-{uuid.uuid4()}")
    _due: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue, repr=False)

    def take(self, event: dict[str, Any]) -> None:
        self._due.put_nowait(event)

    async def shake_hands(self) -> None:
        async with self._session() as session:
            try:
                if self.cloud_events:
                    await self._ask_permission(session)
                else:
                    await self._validate(session)
            except (aiohttp.ClientError, TimeoutError) as error:
                raise HandshakeFailed(
                    f"{self.url} gave no answer: {type(error).__name__}"
                ) from None

    async def _validate(self, session: aiohttp.ClientSession) -> None:
        """Event Grid's own: the endpoint repeats a code."""
        code = str(uuid.uuid4()).upper()
        event = {
            "id": str(uuid.uuid4()),
            "topic": "",
            "subject": "",
            "data": {"validationCode": code},
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f0Z"),
            "metadataVersion": "1",
            "dataVersion": "2",
        }
        about = self._about("SubscriptionValidation")
        async with session.post(self.url, data=orjson.dumps([event]), headers=about) as answer:
            text = await answer.read()
        try:
            told = orjson.loads(text)
        except orjson.JSONDecodeError:
            told = None
        repeated = told.get("validationResponse") if isinstance(told, dict) else None
        if answer.status != 200 or repeated != code:
            raise HandshakeFailed(f"{self.url} answered {answer.status} without the code")

    async def _ask_permission(self, session: aiohttp.ClientSession) -> None:
        """CloudEvents' web hook protocol: the endpoint allows an origin."""
        asked = {**self.headers, "WebHook-Request-Origin": ORIGIN, "WebHook-Request-Rate": "120"}
        async with session.options(self.url, headers=asked) as answer:
            allowed = answer.headers.get("WebHook-Allowed-Origin", "")
        if answer.status != 200 or allowed.strip() not in {ORIGIN, "*"}:
            raise HandshakeFailed(f"{self.url} answered {answer.status} and did not allow {ORIGIN}")

    async def deliver(self) -> None:
        """Post what is due until it is cancelled, one array after another."""
        async with self._session() as session:
            while True:
                batch = [await self._due.get()]
                while len(batch) < LONGEST_BATCH and not self._due.empty():
                    batch.append(self._due.get_nowait())
                failures = 0
                while not await self._post(session, batch, failures):
                    failures += 1
                    await asyncio.sleep(self.wait)

    async def _post(
        self, session: aiohttp.ClientSession, batch: list[dict[str, Any]], failures: int
    ) -> bool:
        """Whether it is over: taken, or refused for ever."""
        kind = "application/cloudevents-batch+json" if self.cloud_events else "application/json"
        about = {
            **self._about("Notification"),
            "Content-Type": f"{kind}; charset=utf-8",
            "aeg-delivery-count": str(failures),
        }
        body = [as_cloud_event(one) for one in batch] if self.cloud_events else batch
        try:
            async with session.post(self.url, data=orjson.dumps(body), headers=about) as answer:
                return answer.status in _TAKEN | _NEVER
        except (aiohttp.ClientError, TimeoutError):
            return False

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=self.trust)
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30), connector=connector)

    def _about(self, what: str) -> dict[str, str]:
        return {
            "Content-Type": "application/json; charset=utf-8",
            "aeg-event-type": what,
            "aeg-subscription-name": self.name.upper(),
            "aeg-data-version": "2",
            "aeg-metadata-version": "1",
            **self.headers,
        }


def as_cloud_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event of Event Grid's schema in the schema of CloudEvents 1.0."""
    return {
        "specversion": "1.0",
        "id": event["id"],
        "source": event["topic"],
        "subject": event["subject"],
        "type": event["eventType"],
        "time": event["eventTime"],
        "data": event["data"],
    }
