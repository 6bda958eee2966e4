"""Lets a peer find 123456789012.localhost, as a name server would: loopback.

Some AWS services put the account's number before the host name. On PYTHONPATH of a peer, Python
loads this file by its name.
"""

import socket

_resolve = socket.getaddrinfo


def _with_localhost(host, *rest, **named):  # type: ignore[no-untyped-def]
    if isinstance(host, str) and host.endswith(".localhost"):
        host = "127.0.0.1"
    return _resolve(host, *rest, **named)


socket.getaddrinfo = _with_localhost
