"""The listener: what of HTTP it takes, and what it tells its application."""

from __future__ import annotations

import socket

import pytest

from deployments.local.aws.listener import HUNG_UP, Listener


@pytest.fixture
def heard():
    """Requests as the application got them."""
    return []


@pytest.fixture
def listener(heard):
    def application(environ, start_response):
        body = environ["wsgi.input"].read()
        heard.append({**environ, "body": body, "gone": environ[HUNG_UP]()})
        start_response("200 OK", [("X-Told", "yes")])
        return [b"answer"]

    started = Listener(application)
    started.start()
    yield started
    started.stop()


def say(listener, text):
    """All that is answered until the connection is closed, or nothing more comes."""
    with socket.create_connection(listener.server_address, timeout=0.5) as connection:
        connection.sendall(text)
        answered = b""
        try:
            while more := connection.recv(65_536):
                answered += more
        except TimeoutError:
            return answered, "open"
        return answered, "closed"


def test_headers_reach_the_application_by_their_wsgi_names(listener, heard):
    answered, state = say(
        listener,
        b"POST /a%20b?c=d HTTP/1.1\r\nHost: here\r\nX-Twice: 1\r\nx-twice:  2 \r\nX_Other: no\r\n"
        b"Content-Type: text/plain\r\nContent-Length: 4\r\n\r\nbody",
    )
    assert answered.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answered.endswith(b"\r\n\r\nanswer")
    assert state == "open"
    (request,) = heard
    assert (request["REQUEST_METHOD"], request["PATH_INFO"]) == ("POST", "/a b")
    assert (request["RAW_URI"], request["QUERY_STRING"]) == ("/a%20b?c=d", "c=d")
    assert (request["HTTP_HOST"], request["HTTP_X_TWICE"]) == ("here", "1,2")
    assert (request["CONTENT_TYPE"], request["CONTENT_LENGTH"]) == ("text/plain", "4")
    assert (request["body"], request["gone"]) == (b"body", False)
    assert "HTTP_X_OTHER" not in request


def test_bodies_come_in_chunks_and_after_being_asked_for(listener, heard):
    chunked = (
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
    )
    asked = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nef"
    answered, _ = say(listener, chunked + asked)
    assert [one["body"] for one in heard] == [b"abcd", b"ef"]
    assert b"HTTP/1.1 100 Continue\r\n" in answered


@pytest.mark.parametrize(
    ("first", "header", "state"),
    [
        ("GET / HTTP/1.1", "Host: here", "open"),
        ("GET / HTTP/1.1", "Connection: close", "closed"),
        ("GET / HTTP/1.0", "Host: here", "closed"),
        ("GET / HTTP/1.0", "Connection: Keep-Alive", "open"),
    ],
)
def test_a_connection_stays_as_both_sides_want(listener, first, header, state):
    answered, found = say(listener, f"{first}\r\n{header}\r\n\r\n".encode())
    assert answered.endswith(b"answer")
    assert found == state


@pytest.mark.parametrize(
    "text",
    [
        b"GET /\r\n\r\n",
        b"GET / FTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno header\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\n folded: on\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length : 5\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_request_is_refused_and_the_connection_closed(listener, heard, text):
    try:
        answered, state = say(listener, text)
    except ConnectionResetError:  # closed with something of it unread
        return
    assert answered.startswith(b"HTTP/1.1 400 ")
    assert (state, heard) == ("closed", [])
