"""HTTP/1.1 as cheaply as Python does it: one Protocol, answers that are whole bytes, one timer.

Requests of a connection are answered in order, one at a time: what comes pipelined waits.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from random import random

from answers_aws import Request
from counters import INDEX
from faults import Broken
from messages import message

MOST_HEAD, MOST_BODY = 64 * 1024, 1024 * 1024
_OPENED, _OPEN, _MOST_OPEN = (
    INDEX["connections_opened"],
    INDEX["connections"],
    INDEX["max_connections"],
)
_WAITING, _MOST_WAITING = INDEX["requests"], INDEX["max_requests"]
_SENT = INDEX["bytes_sent"]
_RECORD = 16 * 1024  # bytes of plain text: as much as TLS puts into one
_RESET = struct.pack("ii", 1, 0)  # linger for no time: closing sends RST

Respond = Callable[[Request], "bytes | Broken"]


class Wheel:
    """Sends answers when they are due, all of a millisecond at once: no timer per request."""

    def __init__(self, loop: asyncio.AbstractEventLoop, latency: float, jitter: float) -> None:
        """``latency`` in seconds; up to ``jitter`` more is added to each answer, evenly spread."""
        self._loop = loop
        self._latency = latency * 1000 + 1  # rounded up: never early
        self._jitter = jitter * 1000
        self._slots: dict[int, list[tuple[Connection, bytes | Broken]]] = {}
        self._turned = 0
        self._turning = False

    @property
    def delays(self) -> bool:
        return self._latency > 1 or self._jitter > 0

    def put(self, connection: Connection, answer: bytes | Broken) -> None:
        now = time.monotonic() * 1000
        due = now + self._latency
        if self._jitter:
            due += random() * self._jitter
        slot = self._slots.get(int(due))
        if slot is None:
            self._slots[int(due)] = [(connection, answer)]
        else:
            slot.append((connection, answer))
        if not self._turning:
            self._turning, self._turned = True, int(now)
            self._loop.call_later(0.001, self._turn)

    def _turn(self) -> None:
        now = int(time.monotonic() * 1000)
        slots = self._slots
        for tick in range(self._turned + 1, now + 1):
            if tick in slots:
                for connection, answer in slots.pop(tick):
                    connection.release(answer)
        self._turned = now
        if slots:
            self._loop.call_later(0.001, self._turn)
        else:
            self._turning = False


class Connection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_busy",
        "_closing",
        "_headless",
        "_open",
        "_respond",
        "_rest",
        "_row",
        "_transport",
        "_wheel",
    )

    def __init__(self, respond: Respond, wheel: Wheel, row: memoryview) -> None:
        self._respond = respond
        self._wheel = wheel if wheel.delays else None
        self._row = row
        self._rest = b""  # read, and not yet understood
        self._busy = False  # an answer is on the wheel
        self._closing = False  # after the answer that is due
        self._headless = False  # the request was a HEAD: its answer has no body
        self._open = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        row = self._row
        row[_OPENED] += 1
        row[_OPEN] += 1
        if row[_OPEN] > row[_MOST_OPEN]:
            row[_MOST_OPEN] = row[_OPEN]

    def connection_lost(self, _error: Exception | None) -> None:
        self._open = False
        self._row[_OPEN] -= 1

    def data_received(self, data: bytes) -> None:
        if self._rest:
            data = self._rest + data
        if self._busy:
            self._rest = data
        else:
            self._work(data)

    def release(self, answer: bytes | Broken) -> None:
        """Send an answer that was on the wheel, and go on with what has come meanwhile."""
        self._row[_WAITING] -= 1
        if not self._open:
            return
        self._busy = False
        self._send(answer)
        if self._rest and not self._busy:
            self._work(self._rest)

    def _work(self, data: bytes) -> None:
        self._rest = b""
        while data:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                if len(data) > MOST_HEAD:
                    self._refuse(431)
                self._rest = data
                return
            head = data[:end]
            lowered = head.lower()
            start = end + 4
            try:
                method, target, version = data[: data.find(b"\r\n")].split(b" ")
                # Nobody sends a GET in chunks: most requests are told by one look.
                if method == b"GET" and b"\r\ncontent-length:" not in lowered:
                    read = b"", start
                else:
                    read = _body(data, lowered, start)
            except ValueError:
                self._refuse(400)
                return
            if read is None:
                if len(data) > start + MOST_BODY:
                    self._refuse(413)
                    return
                if len(data) == start and b"\r\nexpect: 100-continue" in lowered:
                    self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self._rest = data
                return
            body, stop = read
            self._closing = version == b"HTTP/1.0" or b"\r\nconnection: close" in lowered
            self._headless = method == b"HEAD"
            answer = self._respond(Request(method, target, head, lowered, body))
            data = data[stop:]
            if self._wheel is not None:
                row = self._row
                row[_WAITING] += 1
                if row[_WAITING] > row[_MOST_WAITING]:
                    row[_MOST_WAITING] = row[_WAITING]
                self._busy, self._rest = True, data
                self._wheel.put(self, answer)
                return
            self._send(answer)
            if self._busy or self._closing:  # left hanging, or closed
                return

    def _send(self, answer: bytes | Broken) -> None:
        if type(answer) is not bytes:
            self._break(answer)  # type: ignore[arg-type]
            return
        if self._headless:
            answer = answer[: answer.find(b"\r\n\r\n") + 4]
        if self._closing:
            answer = answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        self._row[_SENT] += len(answer)
        self._write(answer)
        if self._closing:
            self._close()

    def _break(self, answer: Broken) -> None:
        self._row[_SENT] += len(answer.data)
        if answer.data:
            self._write(answer.data)
        self._closing = True
        if answer.ending == "hang":
            self._busy = True  # for ever: nothing more is read of what comes
        elif answer.ending == "reset":
            raw = self._transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self._transport.abort()
        else:
            self._close()

    def _write(self, data: bytes) -> None:
        self._transport.write(data)

    def _close(self) -> None:
        self._transport.close()

    def _refuse(self, status: int) -> None:
        self._headless, self._closing = False, True
        self._send(message(status, "text/plain", b"not a request that can be answered\n"))


class TlsConnection(Connection):
    """The same over TLS, by hand: the event loop's own costs a third more for each request.

    It asks OpenSSL once too often, each time, to be told by an exception that there is no more.
    """

    __slots__ = ("_arrived", "_leaving", "_ready", "_tls")

    def __init__(
        self, respond: Respond, wheel: Wheel, row: memoryview, context: ssl.SSLContext
    ) -> None:
        super().__init__(respond, wheel, row)
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arrived, self._leaving, server_side=True)
        self._ready = False  # the handshake is done

    def data_received(self, data: bytes) -> None:
        arrived, tls = self._arrived, self._tls
        arrived.write(data)
        try:
            if not self._ready:
                tls.do_handshake()
                self._ready = True
                self._flush()  # tickets for resumption
            while arrived.pending or tls.pending():
                plain = tls.read(_RECORD)
                if not plain:  # the client has said goodbye
                    self._close()
                    return
                Connection.data_received(self, plain)
        except ssl.SSLWantReadError:
            self._flush()
        except ssl.SSLError:
            self._flush()  # the alert that says why
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._open:
            self._tls.write(data)
            self._transport.write(self._leaving.read())

    def _close(self) -> None:
        with suppress(ssl.SSLError):  # it wants the client's goodbye, which nobody waits for
            self._tls.unwrap()
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._leaving.pending:
            self._transport.write(self._leaving.read())


def _body(data: bytes, lowered: bytes, start: int) -> tuple[bytes, int] | None:
    """The body that begins at ``start`` and where it stops; None while some of it is missing.

    Raises ValueError for a length that is no number.
    """
    at = lowered.find(b"\r\ncontent-length:")
    if at >= 0:
        end = lowered.find(b"\r\n", at + 17)
        stop = start + _length(lowered[at + 17 : end if end >= 0 else len(lowered)], 10)
        return (data[start:stop], stop) if len(data) >= stop else None
    if b"\r\ntransfer-encoding: chunked" in lowered:
        return _chunks(data, start)
    return b"", start


def _length(text: bytes, base: int) -> int:
    length = int(text, base)
    if length < 0:
        raise ValueError("a length is not less than nothing")
    return length


def _chunks(data: bytes, start: int) -> tuple[bytes, int] | None:
    parts = []
    while True:
        end = data.find(b"\r\n", start)
        if end < 0:
            return None
        size = _length(data[start:end].partition(b";")[0], 16)
        start = end + 2
        if size == 0:
            break
        if len(data) < start + size + 2:
            return None
        parts.append(data[start : start + size])
        start += size + 2
    while True:  # trailers, up to an empty line
        end = data.find(b"\r\n", start)
        if end < 0:
            return None
        empty = end == start
        start = end + 2
        if empty:
            return b"".join(parts), start
