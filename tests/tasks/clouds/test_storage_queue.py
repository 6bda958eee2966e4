"""The Storage queue's client, against the emulated queue service and Entra, with the SDK."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest

from deployments.local.azure.queues import Queue
from deployments.local.azure.server import EmulatedAzure
from tasks.clouds.queues import EventQueue, Message
from tasks.clouds.storage_queue import (
    DEAD_LETTER_ACTIONS,
    DEPTH_ACTION,
    LARGEST,
    QUEUE_ACTIONS,
    StorageQueue,
)
from tasks.clouds.transport import Limits
from tasks.errors import AccessRefused, CloudError, CloudTimeout, Throttled
from tasks.inventory import AzureSource


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAzure]:
    with EmulatedAzure(1, 102, tmp_path_factory.mktemp("azure")) as emulated:
        yield emulated


@pytest.fixture
def source(azure_source: AzureSource, azure: EmulatedAzure) -> AzureSource:
    return replace(
        azure_source,
        event_queue=azure.event_queue,
        event_dead_letter_queue=azure.event_dead_letter_queue,
    )


def queue_of(azure: EmulatedAzure, url: str) -> Queue:
    name = url.rpartition("/")[2]
    found = azure.queues.find(next(x for x in azure.tenant.queues if x.endswith(f"/{name}")))
    assert found is not None
    return found


@pytest.fixture
def queue(azure: EmulatedAzure) -> Queue:
    """The queue of events itself, empty."""
    found = queue_of(azure, azure.event_queue)
    found.messages.clear()
    return found


@pytest.fixture
def dead_letters(azure: EmulatedAzure) -> Queue:
    found = queue_of(azure, azure.event_dead_letter_queue)
    found.messages.clear()
    return found


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@asynccontextmanager
async def proxy(asked: list[str]) -> AsyncIterator[str]:
    """An address that tunnels to wherever CONNECT says, which it notes."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while some := await reader.read(65_536):
            writer.write(some)
        writer.close()

    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        asked.append(to)
        host, _, port = to.rpartition(":")
        there, out = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await asyncio.gather(relay(reader, out), relay(there, writer))

    async with await asyncio.start_server(tunnel, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("passed_by", [False, True])
async def test_the_queue_is_reached_by_the_environments_proxy(
    source: AzureSource,
    queue: Queue,
    quick: Limits,
    monkeypatch: pytest.MonkeyPatch,
    passed_by: bool,
) -> None:
    queue.put(encoded("one"))
    there = urlsplit(source.event_queue).netloc
    asked: list[str] = []
    for name in ("NO_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    async with proxy(asked) as address:
        monkeypatch.setenv("https_proxy", address)
        if passed_by:
            monkeypatch.setenv("no_proxy", there)
        async with StorageQueue(source, quick) as listening:
            [message] = await listening.receive()
            await listening.delete([message])
    assert asked.count(there) == (0 if passed_by else 1)  # one connection, kept


async def test_a_message_is_received_decoded_once_and_deleted(
    source: AzureSource, queue: Queue, quick: Limits
) -> None:
    queue.put(encoded('{"id": "größe"}'))
    async with StorageQueue(source, quick) as listening:
        checked: EventQueue = listening
        assert checked.source == "contoso"
        [message] = await listening.receive()
        assert message.body == '{"id": "größe"}'
        assert message.deliveries == 1
        assert message.sent_at is not None
        assert abs(datetime.now(UTC) - message.sent_at) < timedelta(seconds=10)
        assert await listening.receive() == []
        assert (await listening.depth()).waiting == 1
        await listening.delete([message])
        assert (await listening.depth()).waiting == 0
    assert queue.messages == {}


@pytest.mark.parametrize("text", ["{}", '{"not": "base64"}', "", "test", "AAA", "ünïcode"])
async def test_what_is_not_base64_of_text_comes_as_it_is(
    source: AzureSource, queue: Queue, quick: Limits, text: str
) -> None:
    queue.put(text)
    async with StorageQueue(source, quick) as listening:
        [message] = await listening.receive()
    assert message.body == text


async def test_a_full_batch_is_followed_by_more_at_once(
    source: AzureSource, queue: Queue, quick: Limits
) -> None:
    for number in range(140):
        queue.put(encoded(str(number)))
    async with StorageQueue(source, quick) as listening:
        first, second = await listening.receive(), await listening.receive()
        assert len(first) == 128
        assert len(second) == 12
        assert {one.body for one in (*first, *second)} == {str(n) for n in range(140)}
        await listening.delete(first)
        assert (await listening.depth()).waiting == 12


async def test_what_is_not_deleted_in_time_comes_again_and_its_old_receipt_is_no_error(
    source: AzureSource, queue: Queue, quick: Limits
) -> None:
    queue.put(encoded("{}"))
    async with StorageQueue(source, quick, visibility_timeout=1) as listening:
        [first] = await listening.receive()
        await asyncio.sleep(1.1)
        [again] = await listening.receive()
        assert (again.id, again.deliveries) == (first.id, 2)
        await listening.delete([first])  # PopReceiptMismatch: it is another's now
        assert len(queue.messages) == 1
        await listening.delete([again])
        await listening.delete([again])  # MessageNotFound
    assert queue.messages == {}


async def test_a_buried_message_stands_in_the_dead_letter_queue_with_the_reason(
    source: AzureSource, queue: Queue, dead_letters: Queue, quick: Limits
) -> None:
    queue.put("no JSON")
    async with StorageQueue(source, quick) as listening:
        [message] = await listening.receive()
        await listening.bury(message, "body: is no JSON")
    assert queue.messages == {}
    [letter] = dead_letters.messages.values()
    assert letter.expires == float("inf")
    assert json.loads(base64.b64decode(letter.text)) == {
        "reason": "body: is no JSON",
        "queue": source.event_queue,
        "message_id": message.id,
        "deliveries": 1,
        "body": "no JSON",
    }


@pytest.mark.parametrize("filling", ["x", "ü", '"', "\x01"])
async def test_a_body_too_long_for_a_letter_is_cut_and_the_letter_says_so(
    source: AzureSource, queue: Queue, dead_letters: Queue, quick: Limits, filling: str
) -> None:
    body = filling * (60_000 // len(filling.encode()))
    long = Message(queue.put(encoded("{}")).id, "stale", body)
    async with StorageQueue(source, quick) as listening:
        await listening.bury(long, "too long")
    [letter] = dead_letters.messages.values()
    raw = base64.b64decode(letter.text)
    told = json.loads(raw)
    assert LARGEST - 6 <= len(raw) <= LARGEST
    assert told["body_length"] == len(body)
    assert body.startswith(told["body"])


async def test_nothing_is_deleted_that_could_not_be_buried(
    azure: EmulatedAzure, source: AzureSource, queue: Queue, quick: Limits
) -> None:
    nowhere = replace(source, event_dead_letter_queue=f"{source.event_queue}-gone")
    queue.put("no JSON")
    async with StorageQueue(nowhere, quick) as listening:
        [message] = await listening.receive()
        with pytest.raises(AccessRefused) as caught:
            await listening.bury(message, "is no JSON")
    assert caught.value.code == "AuthorizationPermissionMismatch"
    assert len(queue.messages) == 1


async def test_without_a_dead_letter_queue_burying_deletes(
    source: AzureSource, queue: Queue, quick: Limits
) -> None:
    queue.put("no JSON")
    async with StorageQueue(replace(source, event_dead_letter_queue=""), quick) as listening:
        [message] = await listening.receive()
        await listening.bury(message, "is no JSON")
    assert queue.messages == {}


async def test_a_busy_service_throttles_and_works_again(
    azure: EmulatedAzure, source: AzureSource, queue: Queue, quick: Limits
) -> None:
    queue.put("{}")
    async with StorageQueue(source, quick) as listening:
        azure.queues.busy = True
        try:
            with pytest.raises(Throttled) as caught:
                await listening.receive()
        finally:
            azure.queues.busy = False
        assert (caught.value.code, caught.value.operation) == ("ServerBusy", "Get Messages")
        assert len(await listening.receive()) == 1


async def test_a_queue_that_is_not_there_or_not_ours_is_said_to_be_so(
    azure: EmulatedAzure, source: AzureSource, queue: Queue, quick: Limits
) -> None:
    async with StorageQueue(
        replace(source, event_queue=source.event_dead_letter_queue, event_dead_letter_queue=""),
        quick,
    ) as listening:
        with pytest.raises(AccessRefused) as refused:
            await listening.receive()
    assert refused.value.code == "AuthorizationPermissionMismatch"
    azure.queues._queues.pop(queue.id.lower())
    try:
        async with StorageQueue(source, quick) as listening:
            with pytest.raises(CloudError) as gone:
                await listening.receive()
    finally:
        azure.queues.add(queue.id)
    assert gone.value.code == "QueueNotFound"


async def test_a_wrong_secret_is_refused_and_not_repeated(
    source: AzureSource, quick: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_AZURE_SECRET", "not-the-secret-0123456789")
    async with StorageQueue(source, quick) as listening:
        with pytest.raises(AccessRefused) as caught:
            await listening.receive()
    assert caught.value.code == "AADSTS7000215"
    assert "not-the-secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A port on which nobody says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


async def test_a_service_that_is_silent_times_out_and_one_that_is_away_cannot_be_reached(
    source: AzureSource, quick: Limits, silent: socket.socket
) -> None:
    url = f"https://127.0.0.1:{silent.getsockname()[1]}/account/queue"
    hasty = replace(quick, connect_seconds=0.2, request_seconds=0.2)
    async with StorageQueue(replace(source, event_queue=url), hasty) as listening:
        with pytest.raises(CloudTimeout, match="did not answer in time"):
            await listening.depth()
        silent.close()
        with pytest.raises(CloudError, match="cannot be reached"):
            await listening.depth()


async def test_the_permissions_are_those_that_the_service_asks_for(
    azure: EmulatedAzure, source: AzureSource, queue: Queue, quick: Limits
) -> None:
    """The scanner's roles allow what is named, and nothing more of queues is needed."""
    client = azure.description["scanner"]["client_id"]
    principal = azure.tenant.principals[client].object_id
    access, now = azure.tenant.access, azure.tenant.clock()
    letters = queue.id + "-poison"
    for action in QUEUE_ACTIONS:
        assert access.allowed(principal, action, queue.id, now, data=True)
        assert not access.allowed(principal, action, letters, now, data=True)
    for action in DEAD_LETTER_ACTIONS:
        assert access.allowed(principal, action, letters, now, data=True)
        assert not access.allowed(principal, action, queue.id, now, data=True)
    assert access.allowed(principal, DEPTH_ACTION, queue.id, now)


def test_importing_the_module_imports_no_queue_sdk() -> None:
    code = (
        "import sys, tasks.clouds.storage_queue; "
        "print([m for m in sys.modules if m in ('azure.storage.queue', 'azure.identity')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
