"""The HTTP client under the read paths: what it sends and reads, keeps, and gives up on."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.clouds import http_client
from tasks.clouds.http_client import (
    Answer,
    HttpClient,
    HttpFault,
    NotHttp,
    Origin,
    Silent,
    Unreachable,
    Untrusted,
)
from tasks.clouds.transport import trust

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def server(talk: Talk) -> AsyncIterator[Origin]:
    """A server that talks to each connection as a test wants."""
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield Origin(False, "127.0.0.1", listening.sockets[0].getsockname()[1])
    finally:
        listening.close()
        for writer in writers:
            writer.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def client(
    connections: int = 8, connect_seconds: float = 2.0, silent_seconds: float = 2.0
) -> AsyncIterator[HttpClient]:
    opened = HttpClient(
        trust(""),
        connections=connections,
        connect_seconds=connect_seconds,
        silent_seconds=silent_seconds,
    )
    try:
        yield opened
    finally:
        await opened.close()


def saying(*answers: bytes) -> Talk:
    """Answer each request on a connection with the next of ``answers``, then close it."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

    return talk


async def ask(talk: Talk, *, silent_seconds: float = 2.0) -> Answer:
    async with server(talk) as origin, client(silent_seconds=silent_seconds) as http:
        return await http.ask(origin, REQUEST)


# --- What it reads -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (OK, b"ok"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
            b"ok",
        ),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok", b"ok"),
        (b"HTTP/1.0 200 OK\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
async def test_bodies_of_every_sort(answer: bytes, body: bytes) -> None:
    assert (await ask(saying(answer))).body == body


async def test_status_and_headers() -> None:
    answer = await ask(
        saying(
            b"HTTP/1.1 404 Not Found\r\nRetry-After: 3\r\nX-A: \xe9\r\nContent-Length: 0\r\n\r\n"
        )
    )
    assert answer.status == 404
    assert answer.headers == {"retry-after": "3", "x-a": "é", "content-length": "0"}


async def test_gzip_is_unpacked() -> None:
    packed = gzip.compress(b"many words")
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(packed)}\r\n\r\n"
    assert (await ask(saying(head.encode() + packed))).body == b"many words"
    cut = head.replace(str(len(packed)), "9").encode() + packed[:9]
    with pytest.raises(NotHttp, match="broken gzip"):
        await ask(saying(cut))


@given(body=st.binary(max_size=300), cuts=st.lists(st.integers(0, 400), max_size=6))
def test_answer_in_pieces_is_the_same_answer(body: bytes, cuts: list[int]) -> None:
    whole = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    edges = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})

    async def run() -> bytes:
        loop = asyncio.get_running_loop()
        connection = http_client._Connection(loop, Origin(False, "x", 80))
        connection._transport = _Nowhere()
        waiting = asyncio.ensure_future(connection.exchange(REQUEST))
        await asyncio.sleep(0)
        for first, last in pairwise(edges):
            connection.data_received(whole[first:last])
        return (await waiting).body

    assert asyncio.run(run()) == body


class _Nowhere(asyncio.Transport):
    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert data == REQUEST


# --- What it keeps -------------------------------------------------------------------------------


async def test_connection_is_kept_and_used_again() -> None:
    opened = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal opened
        opened += 1
        await saying(*[OK] * 10)(reader, writer)

    async with server(talk) as origin, client() as http:
        for _ in range(5):
            assert (await http.ask(origin, REQUEST)).body == b"ok"
    assert opened == 1


async def test_kept_connection_that_the_server_closed_is_no_fault() -> None:
    async with server(saying(OK)) as origin, client() as http:
        for _ in range(3):
            assert (await http.ask(origin, REQUEST)).body == b"ok"


async def test_never_more_connections_than_allowed_and_first_come_first_served() -> None:
    now = most = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(0.01)
                writer.write(OK)
        finally:
            now -= 1

    done: list[int] = []
    async with server(talk) as one, server(talk) as other, client(connections=4) as http:

        async def asking(number: int) -> None:
            await http.ask(one if number % 3 else other, REQUEST)
            done.append(number)

        await asyncio.gather(*(asking(number) for number in range(40)))
        assert most <= 4
        assert http._open <= 4
    assert sorted(done) == list(range(40))
    assert all(abs(place - number) <= 8 for place, number in enumerate(done))


async def test_cancelled_question_does_not_leave_its_answer_to_the_next() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        if b"slow" in asked:
            await asyncio.sleep(0.2)
        writer.write(OK.replace(b"ok", b"no" if b"slow" in asked else b"ok"))

    async with server(talk) as origin, client(connections=1) as http:
        slow = asyncio.ensure_future(http.ask(origin, REQUEST.replace(b"/ ", b"/slow ")))
        waiting = asyncio.ensure_future(http.ask(origin, REQUEST))
        in_line = asyncio.ensure_future(http.ask(origin, REQUEST))
        await asyncio.sleep(0.05)
        in_line.cancel()
        slow.cancel()
        assert (await waiting).body == b"ok"
        assert (await http.ask(origin, REQUEST)).body == b"ok"
        assert http._open <= 1


# --- What it gives up on -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "fault", "words"),
    [
        ([b"SSH-2.0-OpenSSH_9.2\r\n"], NotHttp, "does not speak HTTP"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"], Unreachable, "in mid-answer"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Enc"], Unreachable, "in mid-answer"),
        ([], Unreachable, "cut"),
    ],
)
async def test_what_is_no_answer(answers: list[bytes], fault: type[HttpFault], words: str) -> None:
    with pytest.raises(fault, match=words) as caught:
        await ask(saying(*answers))
    assert "127.0.0.1" in str(caught.value)


async def test_a_cut_is_told_to_the_one_it_hit() -> None:
    answers = iter((b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf", OK))

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(next(answers))

    async with server(talk) as origin, client(connections=1) as http:
        hit, next_in_line = await asyncio.gather(
            http.ask(origin, REQUEST), http.ask(origin, REQUEST), return_exceptions=True
        )
    assert isinstance(hit, Unreachable)
    assert isinstance(next_in_line, Answer)


async def test_a_connection_handed_on_and_closed_meanwhile_is_replaced() -> None:
    async with server(saying(OK)) as origin, client(connections=1) as http:
        answers = await asyncio.gather(*(http.ask(origin, REQUEST) for _ in range(4)))
    assert [answer.body for answer in answers] == [b"ok"] * 4


@pytest.mark.parametrize("surplus", [b"HTTP/1.1 404 Not", OK.replace(b"ok", b"no"), b"\r\n?"])
@pytest.mark.parametrize("apart", [False, True])
async def test_what_nobody_asked_for_answers_nobody(surplus: bytes, apart: bool) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK if apart else OK + surplus)
        if apart:
            await asyncio.sleep(0.02)
            writer.write(surplus)
        await reader.read()

    async with server(talk) as origin, client() as http:
        for _ in range(3):
            assert (await http.ask(origin, REQUEST)).body == b"ok"
            await asyncio.sleep(0.05 if apart else 0)


async def test_silence_and_drops_that_come_too_slowly() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(5)

    with pytest.raises(Silent, match="did not answer in time"):
        await ask(hang, silent_seconds=0.2)

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for byte in OK:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    assert (await ask(drip, silent_seconds=0.3)).body == b"ok"  # slow is not silent


async def test_nobody_there(unused_tcp_port: int) -> None:
    async with client() as http:
        with pytest.raises(Unreachable, match="failed"):
            await http.ask(Origin(False, "127.0.0.1", unused_tcp_port), REQUEST)
        with pytest.raises(Unreachable, match="failed"):
            await http.ask(Origin(False, "no-such-host.invalid", 80), REQUEST)
        assert http._open == 0


async def test_no_tls_there() -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(16)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with server(plain) as origin, client() as http:
        with pytest.raises(Untrusted, match="no trusted connection"):
            await http.ask(origin._replace(tls=True), REQUEST)
        assert http._open == 0


async def test_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "MOST_BODY", 2**20)

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    with pytest.raises(NotHttp, match="more than 1 MiB"):
        await ask(flood)


def test_origin_as_a_host_header() -> None:
    assert Origin(True, "ec2.amazonaws.com", 443).authority == "ec2.amazonaws.com"
    assert Origin(False, "127.0.0.1", 8080).authority == "127.0.0.1:8080"
    assert Origin(True, "::1", 8443).authority == "[::1]:8443"
