"""An opener over an emulated fleet, with its own store and journal, and someone who asks it."""

from __future__ import annotations

import json
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

import boto3
import jwt
import pyotp
import pytest
from azure.identity import ClientSecretCredential
from pydantic import SecretStr

from deployments.local.fleet import Fleet
from deployments.opener.allow import Allowed
from deployments.opener.core import Opener, Settings
from deployments.opener.journal import FileJournal
from deployments.opener.store import FileStore, Store, open_store
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.azure_write import identity_options
from tasks.clouds.gate import CustomerCredentials, GateStatus, close_gate, gate_status
from tasks.clouds.issuer import assertion
from tasks.inventory import AwsSource, Inventory, Issuer, load_inventory
from tasks.model import Account, Cloud

URL = "https://gate.acme.example"
REGION = "eu-central-1"
SEED = SecretStr("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")


@dataclass
class Site:
    """A fleet, its customer's opener, and what it is asked."""

    fleet: Fleet
    inventory: Inventory
    folder: Path
    store: Store
    settings: Settings
    opener: Opener = field(init=False)

    def __post_init__(self) -> None:
        self.journal_file = self.folder / "journal.jsonl"
        self.opener = self.another()

    def another(self, **changes: Any) -> Opener:
        """A second opener on the same store, as another process would be; or one set otherwise."""
        trust = ssl.create_default_context(cafile=self.fleet.description["ca_file"])
        return Opener(
            replace(self.settings, **changes),
            self.inventory,
            self.store,
            FileJournal(self.journal_file),
            trust=trust,
        )

    @property
    def issuer(self) -> Issuer:
        assert self.inventory.issuer is not None
        return self.inventory.issuer

    @property
    def journal(self) -> list[dict[str, Any]]:
        if not self.journal_file.exists():
            return []
        return [json.loads(line) for line in self.journal_file.read_text().splitlines()]

    def finding(self, cloud: str) -> dict[str, str]:
        """One about a bucket of a member account, or about a storage account."""
        found: list[dict[str, str]] = self.fleet.truth["findings"]
        kind = "s3_bucket" if cloud == "aws" else "storage_account"
        management = self.inventory.aws[0].management_account
        return next(
            one
            for one in found
            if one["cloud"] == cloud and kind in one["rule"] and one["account"] != management
        )

    def account(self, cloud: str) -> Account:
        sources = self.inventory.aws if cloud == "aws" else self.inventory.azure
        return Account(Cloud(cloud), self.finding(cloud)["account"], source=sources[0].name)

    def status(self, cloud: str = "aws") -> GateStatus:
        account = self.account(cloud)
        return gate_status(
            self.inventory, account, customer=credentials(self.fleet, self.inventory, account)
        )

    def about(self, cloud: str = "aws") -> dict[str, Any]:
        account = self.account(cloud)
        return {"cloud": cloud, "source": account.source, "account": account.id}

    def claims(self, cloud: str = "aws", **changes: Any) -> dict[str, Any]:
        actions = ["s3:PutBucketPolicy"] if cloud == "aws" else [AZURE_ACTION]
        return {
            **self.about(cloud),
            "remediation": "run-1",
            "plan": "f00d",
            "resources": [self.finding(cloud)["resource"]],
            "actions": actions,
            "minutes": 5,
            **changes,
        }

    def sign(self, cloud: str = "aws", *, to: str = f"{URL}/open", **changes: Any) -> str:
        claims = self.claims(cloud, **changes)
        return assertion(self.issuer, "suture", to, claims=claims).get_secret_value()

    def forge(self, key: Any = None, *, algorithm: str = "RS256", **changes: Any) -> str:
        """A request as an adversary would make it; a claim that is None is left out."""
        now = int(time.time())
        claims = {
            **self.claims(),
            "iss": self.issuer.url,
            "aud": f"{URL}/open",
            "iat": now,
            "exp": now + 60,
            "jti": str(uuid.uuid4()),
            **changes,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        key = key or Path(self.issuer.key_file).read_text()
        return jwt.encode(kept, key, algorithm=algorithm, headers={"kid": self.issuer.key_id})

    def post(self, path: str, **body: Any) -> tuple[HTTPStatus, dict[str, Any]]:
        return self.opener.answer(path, json.dumps(body).encode())

    def ask(self, cloud: str = "aws", **changes: Any) -> tuple[HTTPStatus, dict[str, Any]]:
        return self.post("/open", request=self.sign(cloud, **changes))

    def present(self, code: object, where: str = "aws", **changes: Any) -> Any:
        extra = {} if where == "aws" else {"resources": [self.finding(where)["resource"]]}
        return self.post("/open", code=code, **{**self.about(where), **extra, **changes})

    def close_everything(self) -> None:
        for cloud in ("aws", "azure"):
            account = self.account(cloud)
            own = credentials(self.fleet, self.inventory, account)
            close_gate(self.inventory, account, customer=own)


AZURE_ACTION = "Microsoft.Storage/storageAccounts/write"
ALLOW = (
    Allowed(("*",), ("s3:PutBucket*", "s3:DeleteBucketPolicy"), ("arn:aws:s3:::*",), minutes=10),
    Allowed(("*",), ("microsoft.storage/storageaccounts/*",), minutes=10),
    Allowed(("*",), ("microsoft.network/networksecuritygroups/*",), minutes=10),
)


def credentials(fleet: Fleet, inventory: Inventory, account: Account) -> CustomerCredentials:
    told, source = fleet.description, inventory.source(account.source)
    if isinstance(source, AwsSource):
        keys = told["aws"]["customer"]
        return CustomerCredentials(
            aws=AwsCredentials(keys["access_key_id"], keys["secret_access_key"])
        )
    login = told["azure"]["customer"]
    return CustomerCredentials(
        azure=ClientSecretCredential(
            source.tenant, login["client_id"], login["client_secret"], **identity_options(source)
        )
    )


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(
        aws=2, azure=2, seed=53, data_dir=tmp_path_factory.mktemp("fleet"), failing=False
    ) as running:
        yield running


@pytest.fixture
def customer_env(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The customer's own AWS keys and endpoint, as SDKs look for them."""
    aws = fleet.description["aws"]
    found = {
        "AWS_ENDPOINT_URL": aws["endpoint"],
        "AWS_ACCESS_KEY_ID": aws["customer"]["access_key_id"],
        "AWS_SECRET_ACCESS_KEY": aws["customer"]["secret_access_key"],
    }
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def table(customer_env: Mapping[str, str]) -> Iterator[str]:
    """A new DynamoDB table, by its address."""
    database = boto3.client("dynamodb", region_name=REGION)
    name = f"opener-{uuid.uuid4().hex[:8]}"
    database.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    yield f"dynamodb://{REGION}/{name}"
    database.delete_table(TableName=name)
    database.close()


@pytest.fixture(params=["file", "dynamodb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store of each kind, empty."""
    if request.param == "file":
        return FileStore(tmp_path / "store")
    return open_store(request.getfixturevalue("table"))


@pytest.fixture
def site(fleet: Fleet, tmp_path: Path) -> Iterator[Site]:
    inventory = load_inventory(fleet.description["inventory"])
    settings = Settings(
        url=URL,
        allow=ALLOW,
        seed=lambda: SEED,
        credentials=lambda account: credentials(fleet, inventory, account),
    )
    made = Site(fleet, inventory, tmp_path, FileStore(tmp_path / "store"), settings)
    yield made
    if any(entry["what"] == "opening" for entry in made.journal):
        made.close_everything()


@pytest.fixture
def authenticator() -> Callable[..., str]:
    """``authenticator(steps=0)``: what it shows now, or so many steps of 30 s later."""
    totp = pyotp.TOTP(SEED.get_secret_value())
    return lambda steps=0: totp.at(int(time.time()) + 30 * steps)


@pytest.fixture
def wrong_code(authenticator: Callable[..., str]) -> str:
    """Six digits that no step near shows."""
    near = {authenticator(steps) for steps in range(-4, 5)}
    return next(code for code in ("000000", "111111", "222222") if code not in near)


@pytest.fixture
def at_once() -> Callable[..., list[Any]]:
    """``at_once(work, times=16)``: work in so many threads that start together; their answers."""

    def run_all(work: Callable[[], Any], times: int = 16) -> list[Any]:
        barrier, found = threading.Barrier(times), []

        def run() -> None:
            barrier.wait()
            found.append(work())

        threads = [threading.Thread(target=run) for _ in range(times)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found

    return run_all
