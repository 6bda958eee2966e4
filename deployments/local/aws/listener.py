"""A small threaded HTTP/1.1 listener for one WSGI application, with keep-alive and a clean stop.

Werkzeug's own server closes the connection after every answer, which real endpoints do not.
"""

from __future__ import annotations

import io
import re
import socket
import sys
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from threading import Condition, Thread
from typing import Any, BinaryIO
from urllib.parse import unquote_to_bytes

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# In the environment of a call: tells, whenever it is asked, whether the client has hung up.
HUNG_UP = "suture.hung_up"
_OURS = {"content-length", "connection", "transfer-encoding", "server", "date"}


MOST_HEADERS, LONGEST_LINE = 100, 65_536
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class Hangup(Exception):
    """Raised by an application that gives no answer: the connection is closed."""


class _Headers:
    """The headers of a request; names may come more than once."""

    def __init__(self, given: list[tuple[str, str]]) -> None:
        self._given = given
        self._first = {name.lower(): value for name, value in reversed(given)}

    def get(self, name: str, otherwise: str = "") -> str:
        return self._first.get(name.lower(), otherwise)

    def items(self) -> list[tuple[str, str]]:
        return self._given

    @classmethod
    def read(cls, file: BinaryIO) -> _Headers:
        """Raises ValueError for what is no header."""
        given: list[tuple[str, str]] = []
        while (line := file.readline(LONGEST_LINE + 1)) not in (b"\r\n", b"\n", b""):
            name, colon, value = line.partition(b":")
            if len(line) > LONGEST_LINE or not colon or not _TOKEN.fullmatch(name):
                raise ValueError(line)
            given.append((name.decode("latin-1"), value.strip().decode("latin-1")))
            if len(given) > MOST_HEADERS:
                raise ValueError("too many headers")
        return cls(given)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # one write per answer: headers and body in one segment
    disable_nagle_algorithm = True
    server: Listener

    def parse_request(self) -> bool:
        """The standard library reads headers as those of an e-mail, which takes longer than all
        else that is done with a request before it is looked at.
        """
        self.close_connection = True
        self.requestline = str(self.raw_requestline, "latin-1").rstrip("\r\n")
        words = self.requestline.split()
        self.request_version = "HTTP/1.1"
        if not words:
            return False
        if len(words) != 3 or words[2] not in {"HTTP/1.1", "HTTP/1.0"}:
            self.send_error(400, "Bad request syntax")
            return False
        self.command, self.path, self.request_version = words
        if self.path.startswith("//"):
            self.path = "/" + self.path.lstrip("/")
        try:
            self.headers = _Headers.read(self.rfile)
        except ValueError:
            self.send_error(400, "Bad header")
            return False
        stays = "close" if self.request_version == "HTTP/1.0" else "keep-alive"
        self.close_connection = self.headers.get("Connection", stays).lower() == "close"
        if self.headers.get("Expect").lower() == "100-continue":
            return self.handle_expect_100()
        return True

    def handle_expect_100(self) -> bool:
        going_on = super().handle_expect_100()
        self.wfile.flush()
        return going_on

    def _serve(self) -> None:
        answer: dict[str, Any] = {}

        def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> None:
            answer.update(status=status, headers=headers)

        body = self._body()
        try:
            chunks = self.server.application(self._environ(body), start_response)
            content = b"".join(chunks)
        except Hangup:
            self.close_connection = True
            return
        if hasattr(chunks, "close"):
            chunks.close()
        self._send(answer["status"], answer["headers"], content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = do_OPTIONS = _serve

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding").lower():
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterable[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass

    def _environ(self, body: bytes) -> dict[str, Any]:
        path, _, query = self.path.partition("?")
        environ = {
            "REQUEST_METHOD": self.command,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "RAW_URI": self.path,
            "REQUEST_URI": self.path,
            "QUERY_STRING": query,
            "SERVER_NAME": self.server.server_address[0],
            "SERVER_PORT": str(self.server.server_address[1]),
            "SERVER_PROTOCOL": self.request_version,
            "REMOTE_ADDR": self.client_address[0],
            "CONTENT_TYPE": self.headers.get("Content-Type"),
            "CONTENT_LENGTH": str(len(body)),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
            HUNG_UP: self._hung_up,
        }
        for name, value in self.headers.items():
            # WSGI cannot tell X_Foo from X-Foo: one must not stand in for the other.
            if "_" not in name and name.lower() not in {"content-type", "content-length"}:
                key = f"HTTP_{name.upper().replace('-', '_')}"
                environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ

    def _hung_up(self) -> bool:
        try:
            return not self.connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:  # it is there, and says nothing
            return False
        except OSError:
            return True

    def _send(self, status: str, headers: list[tuple[str, str]], content: bytes) -> None:
        code, _, reason = status.partition(" ")
        self.send_response_only(int(code), reason)
        for name, value in headers:
            if name.lower() not in _OURS:
                self.send_header(name, value)
        self.send_header("Date", self.date_time_string())
        self.send_header("Server", "amazon.com")
        length = str(len(content))
        if self.command == "HEAD":
            length = next((v for name, v in headers if name.lower() == "content-length"), length)
        if code != "204":
            self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD" and code not in {"204", "304"}:
            self.wfile.write(content)
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet: request lines and headers may hold what belongs in no log."""


class Listener(ThreadingMixIn, TCPServer):
    """``start()`` serves on a free port of 127.0.0.1; ``stop()`` ends every connection."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 512

    def __init__(self, application: Application) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.application = application
        self._open: set[socket.socket] = set()
        self._lock = Condition()
        self._thread: Thread | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def start(self) -> None:
        self._thread = Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        with self._lock:
            for connection in self._open:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the other side was faster
            self._lock.wait_for(lambda: not self._open, timeout=5)
        self.server_close()
        if self._thread:
            self._thread.join()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._lock:
            self._open.discard(request)
            self._lock.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
