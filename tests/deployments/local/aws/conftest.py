"""One emulated organization for the directory, and boto3 clients that are closed again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import boto3
import pytest
from botocore.config import Config

from deployments.local.aws.server import EmulatedAws

QUICK = Config(retries={"total_max_attempts": 1}, connect_timeout=5, read_timeout=5)


@dataclass
class Cloud:
    """The organization as its users see it: endpoints and credentials, nothing else."""

    emulator: EmulatedAws
    opened: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.told = self.emulator.description
        self.management = self.told["organization"]["management_account"]
        self.healthy = [
            account["id"]
            for account in self.told["accounts"]
            if account["status"] == "ACTIVE" and account["id"] not in self.emulator.failing
        ]
        self.member = self.healthy[1]  # the first is the management account

    def failing(self, how: str) -> str:
        return next(account for account, found in self.emulator.failing.items() if found == how)

    def client(self, service: str, keys: dict[str, str], region: str = "eu-central-1", **more: Any):
        client = boto3.client(
            service,
            region_name=region,
            endpoint_url=self.told["endpoint"],
            config=more.pop("config", QUICK),
            aws_access_key_id=keys.get("access_key_id") or keys["AccessKeyId"],
            aws_secret_access_key=keys.get("secret_access_key") or keys["SecretAccessKey"],
            aws_session_token=keys.get("SessionToken"),
        )
        self.opened.append(client)
        return client

    def assume(self, role: str, account: str = "", *, by: Any = None, **params: Any) -> dict:
        sts = self.client("sts", by or self.told["hub"])
        return sts.assume_role(
            RoleArn=f"arn:aws:iam::{account or self.member}:role/{role}",
            RoleSessionName="suture-test",
            **params,
        )["Credentials"]

    def scanner(self, account: str = "") -> dict:
        return self.assume("SutureScanner", account, ExternalId=self.told["external_id"])

    def admin(self, account: str = "") -> dict:
        return self.assume(self.told["admin_role"], account, by=self.told["customer"])

    def close(self) -> None:
        while self.opened:
            self.opened.pop().close()


@pytest.fixture(scope="package")
def emulator():
    with EmulatedAws(accounts=24, seed=2407) as running:
        yield running


@pytest.fixture
def cloud(emulator):
    cloud = Cloud(emulator)
    yield cloud
    cloud.close()
