"""A simulator in a process of its own, for tests, and clients that trust it."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import fleet_aws
import httpx
from answers_aws import secret_of, session_key, token_of
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

HERE = Path(__file__).parent


class Simulator:
    """One running simulator. ``told`` is what it printed when it was ready."""

    def __init__(self, process: subprocess.Popen[str], told: dict[str, Any]) -> None:
        self.process = process
        self.told = told
        self.endpoint: str = told["endpoint"]
        self.port = int(self.endpoint.rpartition(":")[2])

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.told["ca_file"] or None)

    def http(self) -> httpx.Client:
        return httpx.Client(base_url=self.endpoint, verify=self.trust, timeout=20)

    def stats(self) -> dict[str, Any]:
        with self.http() as http:
            found: dict[str, Any] = http.get("/-/stats").raise_for_status().json()
        return found

    def client(self, service: str, account: str = "", **changes: Any) -> Any:
        """boto3's client with the keys of an account, or of the hub."""
        keys = {
            "region_name": "eu-central-1",
            "endpoint_url": self.endpoint,
            "verify": self.told["ca_file"] or None,
            "config": Config(retries={"total_max_attempts": 1}, read_timeout=10),
            "aws_access_key_id": self.told["aws"]["hub"]["access_key_id"],
            "aws_secret_access_key": self.told["aws"]["hub"]["secret_access_key"],
        }
        if account:
            key = session_key(account)
            keys |= {
                "aws_access_key_id": key,
                "aws_secret_access_key": secret_of(key),
                "aws_session_token": token_of(key),
            }
        return boto3.client(service, **keys | changes)

    def signed(
        self,
        service: str,
        method: str,
        target: str,
        body: bytes = b"",
        account: str = fleet_aws.account_id(0),
        host: str = "",
    ) -> dict[str, str]:
        """The headers of a signed request."""
        key = session_key(account)
        keys = Credentials(key, secret_of(key), token_of(key))
        request = AWSRequest(method, f"{self.endpoint}{target}", data=body)
        request.headers["Host"] = host or self.endpoint.partition("://")[2]
        (S3SigV4Auth if service == "s3" else SigV4Auth)(keys, service, "eu-central-1").add_auth(
            request
        )
        return dict(request.headers.items())

    def ask(
        self, service: str, method: str, target: str, body: bytes = b"", **signing: str
    ) -> httpx.Response:
        with self.http() as http:
            headers = self.signed(service, method, target, body, **signing)
            return http.request(method, target, headers=headers, content=body)


@contextmanager
def simulator(*options: str) -> Iterator[Simulator]:
    command = [sys.executable, str(HERE / "serve.py"), *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Simulator(process, json.loads(process.stdout.readline()))
        finally:
            process.stdin.close()
            process.wait(timeout=20)
