"""Floor B: the least that speaks HTTP/1.1 over TLS. An asyncio Protocol on uvloop, nothing more.

A connection carries one exchange at a time and is kept. An answer is found by its status line and
Content-Length; one without that header is refused, as this is a floor and no client.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Any
from urllib.parse import urlsplit

import uvloop
from contender import Job, Outcome, contend, worker_processes
from fifty_calls import BareScan


class Connection(asyncio.Protocol):
    """One kept connection. ``exchange`` sends a request and gives (status, body)."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._received = b""
        self._status = 0
        self._end = 0  # of the answer that is being received; 0 while its head is not complete
        self._body = 0
        self.open = True

    def connection_made(self, transport: Any) -> None:
        self._transport = transport  # uvloop's own, which derives from no class of asyncio

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before it answered"))

    def exchange(self, request: bytes) -> asyncio.Future[tuple[int, bytes]]:
        self._answer = answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return answer

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data if self._received else data
        if not self._end:
            head = received.find(b"\r\n\r\n")
            if head < 0:
                return
            self._status = int(received[9:12])
            self._body = head + 4
            self._end = self._body + _content_length(received[:head])
        if len(received) >= self._end:
            body, answer = received[self._body : self._end], self._answer
            self._received, self._end, self._answer = b"", 0, None
            if answer is not None and not answer.done():
                answer.set_result((self._status, body))

    def close(self) -> None:
        self._transport.close()


def _content_length(head: bytes) -> int:
    at = head.find(b"ontent-Length: ")
    if at < 0:
        at = head.lower().find(b"ontent-length: ")
    if at < 0:
        raise ConnectionError("the answer has no Content-Length")
    return int(head[at + 15 :].split(b"\r\n", 1)[0])


class Pool:
    """At most ``limit`` connections to one endpoint, the one used last first."""

    def __init__(self, endpoint: str, ca_file: str, limit: int) -> None:
        parts = urlsplit(endpoint)
        self._host, self._port, self._limit = parts.hostname or "", parts.port or 443, limit
        self._tls = ssl.create_default_context(cafile=ca_file)
        self._head = f" HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        self._idle: list[Connection] = []
        self._free = asyncio.Semaphore(limit)

    async def send(
        self, method: str, target: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes]:
        lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        request = f"{method} {target}{self._head}{lines}{length}\r\n".encode() + body
        async with self._free:
            connection = await self._take()
            answer = await connection.exchange(request)
            self._idle.append(connection)
        return answer

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.open:
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, self._host, self._port, ssl=self._tls
        )
        return connection

    def close(self) -> None:
        for connection in self._idle:
            connection.close()


def scan(job: Job, accounts: list[str]) -> Outcome:
    return uvloop.run(_scan(job, accounts))


async def _scan(job: Job, accounts: list[str]) -> Outcome:
    pool = Pool(job.endpoint, job.ca_file, job.connections)
    try:
        return await BareScan(job, pool.send).run(accounts)
    finally:
        pool.close()


if __name__ == "__main__":
    contend(lambda job: worker_processes(job, scan))
