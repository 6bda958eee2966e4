"""Event Grid's webhooks: both handshakes, what is posted, and what is posted again."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web

from deployments.local.azure.event_grid import HandshakeFailed
from deployments.local.azure.storage import StorageAccount

Answer = Callable[[web.Request, Any], web.Response]


@dataclass
class Receiver:
    """An endpoint in a thread of its own. ``answer`` says what is answered; ``posted`` is what
    came: (headers, body) of each request that was no handshake.
    """

    answer: Answer
    posted: list[tuple[dict[str, str], Any]] = field(default_factory=list)
    shaken: list[dict[str, str]] = field(default_factory=list)
    url: str = ""

    def run(self, ready: threading.Event, ca: trustme.CA | None) -> None:
        asyncio.run(self._serve(ready, ca))

    async def _serve(self, ready: threading.Event, ca: trustme.CA | None) -> None:
        self.loop, self.stopping = asyncio.get_running_loop(), asyncio.Event()
        runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
        await runner.setup()
        context = None
        if ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            ca.issue_cert("127.0.0.1").configure_cert(context)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        scheme = "http" if ca is None else "https"
        self.url = f"{scheme}://127.0.0.1:{runner.addresses[0][1]}/events"
        ready.set()
        await self.stopping.wait()
        for connection in runner.server.connections if runner.server else ():
            if connection.transport is not None:
                connection.transport.abort()
        await runner.cleanup()
        await asyncio.sleep(0.01)  # lets the aborted connections be told that they are lost

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.json() if request.can_read_body else None
        kind = request.headers.get("aeg-event-type")
        told = {name.lower(): value for name, value in request.headers.items()}
        if kind == "SubscriptionValidation" or request.method == "OPTIONS":
            self.shaken.append(told)
        else:
            self.posted.append((told, body))
        return self.answer(request, body)

    def wait(self, count: int, seconds: float = 5.0) -> list[Any]:
        """The events of all that was posted, once there were so many."""
        ends = time.monotonic() + seconds
        while True:
            found = [one for _, body in list(self.posted) for one in body]
            if len(found) >= count or time.monotonic() > ends:
                assert len(found) == count
                return found
            time.sleep(0.01)


@pytest.fixture
def receive() -> Iterator[Callable[..., Receiver]]:
    running: list[tuple[Receiver, threading.Thread]] = []

    def start(answer: Answer, ca: trustme.CA | None = None) -> Receiver:
        receiver, ready = Receiver(answer), threading.Event()
        thread = threading.Thread(target=receiver.run, args=(ready, ca))
        thread.start()
        assert ready.wait(5)
        running.append((receiver, thread))
        return receiver

    yield start
    for receiver, thread in running:
        receiver.loop.call_soon_threadsafe(receiver.stopping.set)
        thread.join(5)


def write(fleet: Any) -> None:
    account = fleet.resources_of(StorageAccount)[0]
    fleet.call("PATCH", account.id, fleet.STORAGE, json={}).raise_for_status()


def repeats_the_code(request: web.Request, body: Any) -> web.Response:
    if request.headers["aeg-event-type"] == "SubscriptionValidation":
        return web.json_response({"validationResponse": body[0]["data"]["validationCode"]})
    return web.Response()


def allows_the_origin(request: web.Request, body: Any) -> web.Response:
    if request.method == "OPTIONS":
        origin = request.headers["WebHook-Request-Origin"]
        return web.Response(headers={"WebHook-Allowed-Origin": origin})
    return web.Response()


def test_one_that_repeats_the_code_gets_arrays_of_events(
    make_fleet: Any, receive: Callable[..., Receiver]
) -> None:
    fleet, receiver = make_fleet(1), receive(repeats_the_code)
    fleet.azure.event_webhook(receiver.url, {"Authorization": "Bearer opener"})
    assert receiver.shaken[0]["authorization"] == "Bearer opener"
    write(fleet)
    assert receiver.wait(1) == list(fleet.azure.events)
    told, body = receiver.posted[0]
    assert isinstance(body, list)
    assert told["aeg-event-type"] == "Notification"
    assert told["authorization"] == "Bearer opener"
    assert told["content-type"] == "application/json; charset=utf-8"
    # The queue goes on getting them.
    assert len(fleet.azure.queues.find(fleet.azure.tenant.queues[0]).messages) == 1


def test_one_that_allows_the_origin_gets_cloud_events_over_https(
    make_fleet: Any, receive: Callable[..., Receiver], tmp_path: Path
) -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    fleet, receiver = make_fleet(1), receive(allows_the_origin, ca)
    fleet.azure.event_webhook(receiver.url, cloud_events=True, ca_file=tmp_path / "ca.pem")
    assert receiver.shaken[0]["webhook-request-origin"] == "eventgrid.azure.net"
    write(fleet)
    [event] = receiver.wait(1)
    assert event["specversion"] == "1.0"
    assert event["data"] == fleet.azure.events[0]["data"]
    content = receiver.posted[0][0]["content-type"]
    assert content.startswith("application/cloudevents-batch+json")


@pytest.mark.parametrize("cloud_events", [False, True])
@pytest.mark.parametrize("status", [200, 401])
def test_one_that_does_not_shake_hands_gets_nothing(
    make_fleet: Any, receive: Callable[..., Receiver], cloud_events: bool, status: int
) -> None:
    def refuses(request: web.Request, body: Any) -> web.Response:
        return web.json_response({"validationResponse": "a guess"}, status=status)

    fleet, receiver = make_fleet(1), receive(refuses)
    with pytest.raises(HandshakeFailed, match=str(status)):
        fleet.azure.event_webhook(receiver.url, cloud_events=cloud_events)
    write(fleet)
    time.sleep(0.05)
    assert receiver.posted == []


def test_one_that_is_not_there_has_not_shaken_hands(make_fleet: Any) -> None:
    with pytest.raises(HandshakeFailed, match="gave no answer"):
        make_fleet(1).azure.event_webhook("http://127.0.0.1:9/events")


def test_what_fails_is_posted_again_until_it_is_taken(
    make_fleet: Any, receive: Callable[..., Receiver]
) -> None:
    statuses = iter([503, 401, 202])

    def fails_twice(request: web.Request, body: Any) -> web.Response:
        if request.headers["aeg-event-type"] == "SubscriptionValidation":
            return repeats_the_code(request, body)
        return web.Response(status=next(statuses))

    fleet, receiver = make_fleet(1), receive(fails_twice)
    fleet.azure.event_webhook(receiver.url, wait=0.02)
    write(fleet)
    receiver.wait(3)
    assert [told["aeg-delivery-count"] for told, _ in receiver.posted] == ["0", "1", "2"]
    assert len({json.dumps(body) for _, body in receiver.posted}) == 1
    time.sleep(0.1)
    assert len(receiver.posted) == 3


def test_what_is_refused_as_malformed_is_given_up(
    make_fleet: Any, receive: Callable[..., Receiver]
) -> None:
    def refuses(request: web.Request, body: Any) -> web.Response:
        if request.headers["aeg-event-type"] == "SubscriptionValidation":
            return repeats_the_code(request, body)
        return web.Response(status=400)

    fleet, receiver = make_fleet(1), receive(refuses)
    fleet.azure.event_webhook(receiver.url, wait=0.02)
    write(fleet)
    receiver.wait(1)
    time.sleep(0.1)
    assert len(receiver.posted) == 1
