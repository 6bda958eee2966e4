"""The HTTP side by itself: however the bytes come, the same answers go out in the same order."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from answers_aws import Request
from counters import INDEX, NAMES, Counters
from faults import Broken, cut, halved
from http_server import Connection, Wheel
from hypothesis import given
from hypothesis import strategies as st
from messages import message


class _Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent += data

    def close(self) -> None:
        self.closed = True


class _Loop:
    """Timers that a test lets ring."""

    def __init__(self) -> None:
        self.due: list[Any] = []

    def call_later(self, _seconds: float, call: Any) -> None:
        self.due.append(call)

    def ring(self) -> None:
        while self.due:
            self.due.pop(0)()


def _echo(request: Request) -> bytes:
    said = b"|".join((request.method, request.target, request.body))
    return message(200, "text/plain", said)


def _connection(respond: Any = _echo, latency: float = 0.0) -> tuple[Connection, _Transport, _Loop]:
    loop, transport = _Loop(), _Transport()
    wheel = Wheel(loop, latency, 0.0)  # type: ignore[arg-type]
    connection = Connection(respond, wheel, Counters(1).own(0))
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, transport, loop


GET = b"GET /one?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: a\r\nCONTENT-LENGTH: 5\r\n\r\nhello"
CHUNKED = (
    b"PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n5;name=value\r\ndefgh\r\n0\r\nTrailer: t\r\n\r\n"
)
ANSWERS = {
    GET: message(200, "text/plain", b"GET|/one?x=1|"),
    POST: message(200, "text/plain", b"POST|/|hello"),
    CHUNKED: message(200, "text/plain", b"PUT|/c|abcdefgh"),
}


@given(
    requests=st.lists(st.sampled_from(sorted(ANSWERS)), min_size=1, max_size=6),
    cuts=st.lists(st.integers(0, 400), max_size=8),
    latency=st.sampled_from([0.0, 0.003]),
)
def test_pipelined_requests_in_any_pieces_are_answered_in_order(
    requests: list[bytes], cuts: list[int], latency: float
) -> None:
    connection, transport, loop = _connection(latency=latency)
    stream = b"".join(requests)
    places = [0, *sorted(place for place in cuts if place < len(stream)), len(stream)]
    for start, end in pairwise(places):
        if end > start:
            connection.data_received(stream[start:end])
    loop.ring()
    assert transport.sent == b"".join(ANSWERS[request] for request in requests)
    assert not transport.closed


def test_a_delayed_answer_waits_for_its_time() -> None:
    connection, transport, loop = _connection(latency=0.02)
    connection.data_received(GET)
    assert transport.sent == b""
    loop.ring()
    assert transport.sent == ANSWERS[GET]


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nCONNECTION: Close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ],
)
def test_a_connection_closes_when_it_is_told_to(request_: bytes) -> None:
    connection, transport, _ = _connection()
    connection.data_received(request_ + GET)
    assert transport.closed
    assert transport.sent.startswith(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
    assert transport.sent.count(b"HTTP/1.1 200") == 1


def test_a_head_is_answered_without_a_body_and_with_its_length() -> None:
    connection, transport, _ = _connection()
    connection.data_received(b"HEAD /x HTTP/1.1\r\n\r\n")
    assert transport.sent.endswith(b"\r\n\r\n")
    assert b"Content-Length: 8\r\n" in transport.sent


def test_a_client_that_waits_for_leave_gets_it() -> None:
    connection, transport, _ = _connection()
    connection.data_received(b"PUT / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    assert transport.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.data_received(b"ok")
    assert transport.sent.endswith(b"PUT|/|ok")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", b"400"),
        (b"GET / HTTP/1.1\r\nLong: " + b"x" * 70_000, b"431"),
        (b"POST / HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n" + b"x" * 1_100_000, b"413"),
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(
    sent: bytes, status: bytes
) -> None:
    connection, transport, _ = _connection()
    connection.data_received(sent)
    assert transport.sent.startswith(b"HTTP/1.1 " + status)
    assert transport.closed


def test_a_connection_that_was_lost_is_not_written_to() -> None:
    connection, transport, loop = _connection(latency=0.005)
    connection.data_received(GET)
    connection.connection_lost(None)
    loop.ring()
    assert transport.sent == b""


def test_one_that_hangs_answers_nothing_more() -> None:
    connection, transport, _ = _connection(lambda _request: Broken(b"", "hang"))
    connection.data_received(GET + GET)
    connection.data_received(GET)
    assert transport.sent == b""
    assert not transport.closed


def test_broken_answers_break_where_they_say() -> None:
    whole = message(200, "text/xml", b"<a>" + b"x" * 94 + b"</a>")
    half = halved(whole)
    head, _, body = half.partition(b"\r\n\r\n")
    assert len(body) == 50
    assert b"Content-Length: 50" in head
    ended = cut(whole)
    assert b"Content-Length: 101" in ended.data
    assert len(ended.data.partition(b"\r\n\r\n")[2]) == 50
    assert ended.ending == "close"


def test_counts_are_summed_over_processes_and_reset() -> None:
    counters = Counters(3)
    for process in range(3):
        row = counters.own(process)
        row[INDEX["GetBucketPolicy"]] += 10 + process
        row[INDEX["connections"]] = 2
        row[INDEX["max_connections"]] = 7
        row[INDEX["busy_nanoseconds"]] = 500_000_000
    report = counters.report()
    assert report["requests"] == 33
    assert report["operations"] == {"GetBucketPolicy": 33}
    assert report["busy_cpu_seconds"] == 1.5
    assert report["max_concurrent_connections"] == 21
    counters.reset()
    counters.own(1)[INDEX["GetBucketPolicy"]] += 1
    report = counters.report()
    assert report["requests"] == 1
    assert report["busy_cpu_seconds"] == 0
    assert report["max_concurrent_connections"] == 6
    assert len(set(NAMES)) == len(NAMES)
