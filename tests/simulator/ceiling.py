"""What the simulator alone can serve: drives it with the cheapest load there is, prints JSON.

    python tests/simulator/ceiling.py --processes 2

The load is what Suture asks about an account, 50 signed requests, account after account, over
kept connections: by wrk where it is installed, else by a client of our own. Both take CPU from
the simulator on the same machine, hence two figures: requests_per_s is what came through,
capacity_per_s is what all cores would serve by the CPU time that one request costs the simulator.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import fleet_aws
import uvloop
from answers_aws import secret_of, session_key, token_of
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from yarl import URL

HERE = Path(__file__).parent
ACCOUNTS = 20  # that the load goes round
REGION = "eu-central-1"


def main() -> int:
    options = _options()
    command = [
        sys.executable, str(HERE / "serve.py"), "--aws", str(ACCOUNTS), "--regions", REGION,
        "--processes", str(options.processes),
        "--latency-ms", str(options.latency_ms), *(["--plain"] if options.plain else []),
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        try:
            print(json.dumps(_measure(json.loads(server.stdout.readline()), options)))
        finally:
            server.stdin.close()
    return 0


def _measure(simulator: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    requests = list(_requests(simulator))
    use_wrk = shutil.which("wrk") is not None and not options.own
    drive = _drive_by_wrk if use_wrk else _drive_by_ourselves
    drive(simulator, requests, options.connections, 1.0)  # warm: templates, sessions of TLS
    _ask(simulator, "/-/reset", b"")
    begun = time.perf_counter()
    drive(simulator, requests, options.connections, options.seconds)
    seconds = time.perf_counter() - begun
    time.sleep(0.3)  # every process notes its CPU time ten times a second
    stats = _ask(simulator, "/-/stats")
    if stats["wrong_signatures"] or stats["operations"].get("other"):
        raise SystemExit(f"the load was not understood: {stats}")
    each = stats["busy_cpu_seconds"] / stats["requests"]
    return {
        "requests_per_s": round(stats["requests"] / seconds),
        "cpu_us_per_request": round(each * 1e6, 2),
        "capacity_per_s": round((os.cpu_count() or 1) / each),
        "processes": options.processes,
        "tls": not options.plain,
        "cores": os.cpu_count(),
        "connections": options.connections,
        "latency_ms": options.latency_ms,
        "bytes_per_answer": round(stats["bytes_sent"] / stats["requests"]),
        "load": "wrk" if use_wrk else "own",
        "seconds": round(seconds, 1),
    }


def _ask(simulator: dict[str, Any], path: str, body: bytes | None = None) -> dict[str, Any]:
    trust = ssl.create_default_context(cafile=simulator["ca_file"] or None)
    address = simulator["endpoint"] + path
    with urllib.request.urlopen(address, data=body, context=trust, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


# --- The load ------------------------------------------------------------------------------------


def _requests(simulator: dict[str, Any]) -> Iterator[bytes]:
    """The 50 requests of each account, signed, as bytes."""
    hub = simulator["aws"]["hub"]
    hub_keys = Credentials(hub["access_key_id"], hub["secret_access_key"])
    for index in range(ACCOUNTS):
        account = fleet_aws.account_id(index)
        key = session_key(account)
        keys = Credentials(key, secret_of(key), token_of(key))
        role = f"arn%3Aaws%3Aiam%3A%3A{account}%3Arole%2F{simulator['aws']['role']}"
        body = (
            f"Action=AssumeRole&Version=2011-06-15&RoleArn={role}&RoleSessionName=suture"
            f"&ExternalId={simulator['aws']['external_id']}&DurationSeconds=3600"
        )
        yield _signed(simulator, hub_keys, "sts", "POST", "/", body)
        for action in ("DescribeSecurityGroups", "GetEbsEncryptionByDefault"):
            body = f"Action={action}&Version=2016-11-15"
            yield _signed(simulator, keys, "ec2", "POST", "/", body)
        body = "Action=GetAccountPasswordPolicy&Version=2010-05-08"
        yield _signed(simulator, keys, "iam", "POST", "/", body)
        yield _signed(simulator, keys, "s3", "GET", "/?max-buckets=1000")
        for place in range(11):
            bucket = fleet_aws.bucket_name(account, place)
            parts = ["publicAccessBlock", "versioning", "policy", "tagging"]
            for part in [*parts, "location"] if place == 1 else parts:
                yield _signed(simulator, keys, "s3", "GET", f"/{bucket}?{part}")


def _signed(
    simulator: dict[str, Any],
    keys: Credentials,
    service: str,
    method: str,
    target: str,
    body: str = "",
) -> bytes:
    url = URL(simulator["endpoint"])
    request = AWSRequest(method, f"{simulator['endpoint']}{target}", data=body.encode())
    request.headers["Host"] = url.authority
    request.headers["User-Agent"] = "suture"
    if body:
        request.headers["Content-Type"] = "application/x-www-form-urlencoded; charset=utf-8"
    (S3SigV4Auth if service == "s3" else SigV4Auth)(keys, service, REGION).add_auth(request)
    if body:
        request.headers["Content-Length"] = str(len(body))
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in request.headers.items())]
    return ("\r\n".join(lines) + f"\r\n\r\n{body}").encode()


def _drive_by_wrk(
    simulator: dict[str, Any], requests: list[bytes], connections: int, seconds: float
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "requests.lua"
        # JSON's escapes are Lua's as well for what a signed request holds.
        lines = ",\n".join(json.dumps(request.decode()) for request in requests)
        script.write_text(
            f"local requests = {{\n{lines}\n}}\nlocal next = 0\n"
            "function request()\n  next = next % #requests + 1\n  return requests[next]\nend\n"
        )
        command = [
            "wrk", "--threads", str(min(os.cpu_count() or 1, connections)),
            "--connections", str(connections),
            "--duration", f"{max(1, round(seconds))}s", "--script", str(script),
            simulator["endpoint"],
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class _Client(asyncio.Protocol):
    """One connection that asks again as soon as it is answered."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        self._left = 0  # bytes of the answer that are still to come
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            data = self._head + data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._head = data
                return
            self._head = b""
            start = data.find(b"\r\nContent-Length: ") + 18
            length = int(data[start : data.find(b"\r\n", start)])
            self._left = end + 4 + length - len(data)
        if self._left == 0:
            self._transport.write(next(self._requests))


def _drive_by_ourselves(
    simulator: dict[str, Any], requests: list[bytes], connections: int, seconds: float
) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        url = URL(simulator["endpoint"])
        trust = ssl.create_default_context(cafile=simulator["ca_file"])
        source = cycle(requests)
        opened = [
            await loop.create_connection(
                lambda: _Client(source),
                url.host,
                url.port,
                ssl=trust if url.scheme == "https" else None,
            )
            for _ in range(connections)
        ]
        await asyncio.sleep(seconds)
        for transport, _ in opened:
            transport.abort()

    uvloop.run(run())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--processes", type=int, default=1)
    add("--connections", type=int, default=64)
    add("--seconds", type=float, default=5.0)
    add("--latency-ms", type=float, default=0.0, help="of each answer; 0 finds the ceiling")
    add("--plain", action="store_true", help="HTTP without TLS")
    add("--own", action="store_true", help="our own client even where wrk is installed")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
