"""A small HTTP/1.1 client for reading clouds: kept connections, one request at a time on each.

Everything general is left out (redirects, cookies, proxies, pipelining), which makes an exchange
over TLS cost a third of what aiohttp's does. Parsing is httptools', TLS is the event loop's.
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, cast

import httptools

MOST_BODY = 64 * 2**20  # bytes; more is no answer that a scan asked for
_BODILESS = frozenset({204, 304})


class Origin(NamedTuple):
    """Where connections go: https or not, and host and port as in a URL."""

    tls: bool
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As a Host header has it: without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Answer:
    """One response. The names of ``headers`` are in lower case; the last of equal ones counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HttpFault(Exception):
    """An exchange that gave no answer. The words name the host and nothing that was sent."""


class Unreachable(HttpFault):
    """No connection, or one that broke: it may work another time."""


class Silent(HttpFault):
    """Nothing came in time."""


class Untrusted(HttpFault):
    """TLS failed: no certificate that we trust, or no TLS there."""


class NotHttp(HttpFault):
    """What came is not HTTP, or too much of it."""


class HttpClient:
    """Connections to any number of origins, at most ``connections`` at once. Close it after use.

    ``connect_seconds`` bounds connecting with the TLS handshake, ``silent_seconds`` each silence
    of the server after that. One client belongs to one event loop.
    """

    def __init__(
        self,
        trust: ssl.SSLContext,
        *,
        connections: int,
        connect_seconds: float,
        silent_seconds: float,
    ) -> None:
        self._trust = trust
        self._most = connections
        self._connect_seconds = connect_seconds
        self._silent_seconds = silent_seconds
        self._open = 0
        self._idle: OrderedDict[_Connection, None] = OrderedDict()  # the longest idle first
        self._idle_at: dict[Origin, list[_Connection]] = {}
        self._busy: set[_Connection] = set()
        self._waiting: deque[tuple[Origin, asyncio.Future[_Connection | None]]] = deque()
        self._watch: asyncio.TimerHandle | None = None

    async def ask(self, origin: Origin, request: bytes) -> Answer:
        """Send a whole request, head and body, and await the whole answer.

        Raises HttpFault. A request may be sent a second time when the server had closed the kept
        connection it went out on: only ask for what may be asked twice.
        """
        while True:
            connection = self._take_idle(origin) or await self._connection(origin)
            kept = connection.kept
            try:
                return await connection.exchange(request)
            except _Stale:
                if not kept:
                    raise Unreachable(f"the connection to {origin.authority} failed: cut") from None
            finally:
                self._give_back(connection)

    async def close(self) -> None:
        """Drop all connections, and let the event loop finish with them."""
        for connection in (*self._busy, *self._idle):
            connection.drop()
        self._idle.clear()
        self._idle_at.clear()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        await asyncio.sleep(0)

    def _take_idle(self, origin: Origin) -> _Connection | None:
        kept = self._idle_at.get(origin)
        while kept:
            connection = kept.pop()  # the one used last: the others may be let go of
            del self._idle[connection]
            if connection.usable:
                self._busy.add(connection)
                return connection
            self._open -= 1
        return None

    async def _connection(self, origin: Origin) -> _Connection:
        """A connection for which there is room now; where there is none, the next to come free."""
        if self._open >= self._most and self._idle:
            self._drop_idle(next(iter(self._idle)))  # of another origin
        if self._open < self._most:
            self._open += 1
        elif (given := await self._turn(origin)) is not None:
            return given
        try:
            connection = await self._opened(origin)
        except BaseException:
            self._free_place()
            raise
        self._busy.add(connection)
        if self._watch is None:
            self._look_again()
        return connection

    async def _turn(self, origin: Origin) -> _Connection | None:
        """Wait in line: for a connection to ``origin``, or for the place of one (None)."""
        turn: asyncio.Future[_Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((origin, turn))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                if (given := turn.result()) is not None:
                    self._give_back(given)
                else:
                    self._free_place()
            raise

    async def _opened(self, origin: Origin) -> _Connection:
        loop = asyncio.get_running_loop()
        where = origin.authority
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop, origin),
                    origin.host,
                    origin.port,
                    ssl=self._trust if origin.tls else None,
                )
        except TimeoutError:
            within = f"within {self._connect_seconds:g} s"
            raise Unreachable(f"the connection to {where} failed: not there {within}") from None
        except ssl.SSLError as error:
            raise Untrusted(f"no trusted connection to {where}: {_words(error)}") from None
        except OSError as error:
            raise Unreachable(f"the connection to {where} failed: {_words(error)}") from None
        return connection

    def _give_back(self, connection: _Connection) -> None:
        self._busy.discard(connection)
        if not connection.usable:
            connection.drop()
            self._free_place()
            return
        while self._waiting:
            origin, turn = self._waiting.popleft()
            if turn.done():
                continue
            if origin == connection.origin:
                self._busy.add(connection)
                turn.set_result(connection)
            else:
                connection.drop()
                turn.set_result(None)
            return
        self._idle[connection] = None
        self._idle_at.setdefault(connection.origin, []).append(connection)

    def _free_place(self) -> None:
        """The place of a connection that is no more goes to the first in line."""
        while self._waiting:
            _, turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._open -= 1

    def _drop_idle(self, connection: _Connection) -> None:
        del self._idle[connection]
        self._idle_at[connection.origin].remove(connection)
        connection.drop()
        self._open -= 1

    def _look_again(self) -> None:
        """End exchanges that have been silent for too long: one timer for all of them."""
        loop = asyncio.get_running_loop()
        heard_before = loop.time() - self._silent_seconds
        for connection in self._busy:
            if connection.heard < heard_before:
                connection.fail(Silent(f"{connection.origin.authority} did not answer in time"))
        self._watch = None
        if self._open:
            self._watch = loop.call_later(self._silent_seconds / 8, self._look_again)


class _Stale(Exception):
    """A kept connection was closed by the server before it answered anything."""


class _Connection(asyncio.Protocol):
    """One connection, one exchange at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, origin: Origin) -> None:
        self.origin = origin
        self.heard = loop.time()
        self.kept = False  # it has answered before
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Answer] | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._size = 0
        self._begun = False  # something of the present answer has come

    @property
    def usable(self) -> bool:
        """Open, and not in the middle of an exchange."""
        return self._transport is not None and self._answer is None

    @property
    def _awaited(self) -> asyncio.Future[Answer] | None:
        """The answer that is not whole yet, while an exchange is under way."""
        return None if self._answer is None or self._answer.done() else self._answer

    async def exchange(self, request: bytes) -> Answer:
        if self._transport is None:
            raise _Stale
        self._answer = self._loop.create_future()
        self.heard = self._loop.time()
        self._transport.write(request)
        try:
            return await self._answer
        except asyncio.CancelledError:
            self.drop()  # an answer is under way that nobody wants: never read by the next one
            raise
        finally:
            self._answer = None

    def drop(self) -> None:
        """Close it at once."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        if (awaited := self._awaited) is not None:
            awaited.set_exception(self._broken("dropped"))

    def fail(self, fault: HttpFault) -> None:
        """End the exchange under way, and with it the connection."""
        if (awaited := self._awaited) is not None:
            awaited.set_exception(fault)
        self.drop()

    def _broken(self, how: str) -> HttpFault:
        return Unreachable(f"the connection to {self.origin.authority} failed: {how}")

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        self.heard = self._loop.time()
        if self._awaited is None:
            self.drop()
            return
        self._begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.fail(NotHttp(f"{self.origin.authority} does not speak HTTP"))

    def eof_received(self) -> None:
        self._close()  # now: whoever waits for a connection comes before its loss is told
        self._ended("cut")

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._ended(_words(error) if error is not None else "cut")

    def _ended(self, how: str) -> None:
        if (awaited := self._awaited) is None:
            return
        if not self._begun:
            awaited.set_exception(_Stale())
        elif self._until_the_end:
            self._complete()
        else:
            awaited.set_exception(self._broken(f"{how} in mid-answer"))

    # --- what the parser calls ---

    _until_the_end = False  # the answer has no length: it ends with the connection

    def on_message_begin(self) -> None:
        if self._awaited is None:  # behind an answer that is whole: never read as the next one's
            self.drop()
        self._headers, self._body, self._size = [], [], 0
        self._until_the_end = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        names = {name.lower() for name, _ in self._headers}
        self._until_the_end = self._parser.get_status_code() not in _BODILESS and not (
            names & {b"content-length", b"transfer-encoding"}
        )

    def on_body(self, part: bytes) -> None:
        self._body.append(part)
        self._size += len(part)
        if self._size > MOST_BODY:
            most = MOST_BODY // 2**20
            self.fail(NotHttp(f"{self.origin.authority} answered more than {most} MiB"))

    def on_message_complete(self) -> None:
        if self._parser.get_status_code() >= 200:  # else an interim one: the answer follows
            self._complete()

    def _complete(self) -> None:
        if (awaited := self._awaited) is None:
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self._headers
        }
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._begun = False
        if not self._parser.should_keep_alive() or self._until_the_end:
            self._close()
        if headers.get("content-encoding", "").lower() == "gzip":
            try:
                body = _unzipped(body)
            except zlib.error:
                self.fail(NotHttp(f"{self.origin.authority} answered with a broken gzip body"))
                return
        self.kept = True
        awaited.set_result(Answer(self._parser.get_status_code(), headers, body))

    def _close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()


def _unzipped(body: bytes) -> bytes:
    """The content of a gzip body. Raises zlib.error for a broken or an endless one."""
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    plain = unpacking.decompress(body, MOST_BODY)
    if not unpacking.eof:
        raise zlib.error("cut or too large")
    return plain


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
