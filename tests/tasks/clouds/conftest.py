"""Clouds to read from and to write to, and servers that answer whatever a test wants."""

from __future__ import annotations

import asyncio
import copy
import selectors
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from azure.identity import ClientSecretCredential
from pydantic import SecretStr

from deployments.local.aws.server import EmulatedAws
from deployments.local.azure.server import EmulatedAzure
from deployments.local.fleet import Fleet
from tasks.clouds import azure_write
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.aws_write import aws_client, credentials_of
from tasks.clouds.azure_write import Arm, identity_options
from tasks.clouds.gate import (
    CustomerCredentials,
    GateStatus,
    OpenGate,
    close_gate,
    gate_status,
    open_gate,
)
from tasks.clouds.propagation import Propagation
from tasks.clouds.remediator import Session, open_session
from tasks.clouds.retrying import Patience
from tasks.clouds.scanner import Scanner
from tasks.clouds.transport import Limits
from tasks.inventory import AwsSource, AzureSource, HubCredentials, Inventory, load_inventory
from tasks.model import Account, AccountScan, Call, Cloud, Resource, Rule, Step, Verdict
from tasks.rules import RULES, rule

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Answer], AbstractAsyncContextManager[str]]

REGION = "eu-central-1"
# Short waits, so that what is retried or hangs does not make the tests hang.
QUICK = Limits(
    connect_seconds=2,
    request_seconds=5,
    account_seconds=20,
    patience=Patience(attempts=3, seconds=5, first_wait=0.01, longest_wait=0.05),
)


@pytest.fixture
def quick() -> Limits:
    return QUICK


@pytest.fixture
def serve() -> Serve:
    """``async with serve(answer) as url``: a plain HTTP server whose every answer is ``answer``."""

    @asynccontextmanager
    async def serving(answer: Answer) -> AsyncIterator[str]:
        runner = web.ServerRunner(web.Server(answer), shutdown_timeout=0.1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            host, port = runner.addresses[0][:2]
            yield f"http://{host}:{port}"
        finally:
            await runner.cleanup()

    return serving


@pytest.fixture(scope="module")
def aws() -> Iterator[EmulatedAws]:
    with EmulatedAws(accounts=12, seed=101) as emulated:
        yield emulated


@pytest.fixture
def aws_source(aws: EmulatedAws, monkeypatch: pytest.MonkeyPatch) -> AwsSource:
    """The emulated organization as an inventory names it, its secrets in the environment."""
    told = aws.description
    monkeypatch.setenv("TEST_HUB_KEY", told["hub"]["access_key_id"])
    monkeypatch.setenv("TEST_HUB_SECRET", told["hub"]["secret_access_key"])
    return AwsSource(
        name="acme",
        organization=True,
        management_account=told["organization"]["management_account"],
        discovery_role=told["discovery_role"],
        regions=tuple(told["regions"]),
        scanner_role=told["scanner_role"],
        external_id=told["external_id"],
        endpoint=told["endpoint"],
        credentials=HubCredentials(
            access_key_id_env="TEST_HUB_KEY", secret_access_key_env="TEST_HUB_SECRET"
        ),
    )


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmulatedAzure]:
    with EmulatedAzure(12, 101, tmp_path_factory.mktemp("azure")) as emulated:
        yield emulated


@pytest.fixture
def azure_source(azure: EmulatedAzure, monkeypatch: pytest.MonkeyPatch) -> AzureSource:
    """The emulated tenant as an inventory names it, its secret in the environment."""
    told = azure.description
    monkeypatch.setenv("TEST_AZURE_SECRET", told["scanner"]["client_secret"])
    return AzureSource(
        name="contoso",
        tenant=told["tenant"],
        client_id=told["scanner"]["client_id"],
        client_secret_env="TEST_AZURE_SECRET",
        authority=told["authority"],
        resource_manager=told["resource_manager"],
        audience=told["audience"],
        ca_file=str(azure.ca_file),
    )


def healthy(emulated: EmulatedAws | EmulatedAzure, accounts: list[str]) -> str:
    """The first of ``accounts`` that is not made to fail."""
    return next(one for one in accounts if one not in emulated.failing)


@pytest.fixture
def aws_account(aws: EmulatedAws) -> str:
    told = aws.description["accounts"]
    return healthy(aws, [one["id"] for one in told if one["status"] == "ACTIVE"])


@pytest.fixture
def subscription(azure: EmulatedAzure) -> str:
    told = azure.description["subscriptions"]
    return healthy(azure, [one["id"] for one in told if one["state"] == "Enabled"])


AT_ONCE = Propagation(code=0, access=0)


@dataclass
class Gated:
    """An emulated fleet, its customer, and Suture's inventory of it, for tests that write."""

    SEED = SecretStr("JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP")

    fleet: Fleet
    inventory: Inventory
    opened: list[Mapping[str, str]] = field(default_factory=list)

    @property
    def aws(self) -> EmulatedAws:
        return self.fleet._aws

    @property
    def azure(self) -> EmulatedAzure:
        return self.fleet._azure

    def findings(self, rule_id: str) -> list[dict[str, str]]:
        """What was planted for one rule."""
        return [one for one in self.fleet.truth["findings"] if one["rule"] == rule_id]

    def account(self, finding: Mapping[str, str]) -> Account:
        """The finding's account, as the inventory's source holds it."""
        cloud = Cloud(finding["cloud"])
        sources = self.inventory.aws if cloud is Cloud.AWS else self.inventory.azure
        return Account(cloud, finding["account"], source=sources[0].name)

    def read(self, finding: Mapping[str, str]) -> Resource:
        """All of the finding's resource as it is now, read with the scanner's identity."""
        return self._read(finding, RULES)

    def read_for_its_rule(self, finding: Mapping[str, str]) -> Resource:
        """The same, but only what the finding's rule reads of it."""
        return self._read(finding, ())

    def _read(self, finding: Mapping[str, str], in_force: Sequence[Rule]) -> Resource:
        account, row = self.account(finding), rule(finding["rule"])

        async def read() -> Resource:
            async with Scanner(self.inventory, rules=in_force) as scanner:
                return await scanner.read(
                    account.cloud,
                    account.id,
                    account.source,
                    row.kind,
                    finding["resource"],
                    finding["region"],
                    rule=row,
                )

        return asyncio.run(read())

    def scan(self, finding: Mapping[str, str]) -> list[Verdict]:
        """What a scan of the finding's account for its rule alone says of its resource."""
        account, row = self.account(finding), rule(finding["rule"])

        async def scan() -> AccountScan:
            async with Scanner(self.inventory) as scanner:
                return await scanner.scan(account, [row])

        scanned = asyncio.run(scan())
        assert not scanned.failed
        return [one.verdict for one in scanned.observations if one.resource == finding["resource"]]

    def fix(self, finding: Mapping[str, str], resource: Resource) -> tuple[Step, ...]:
        """The steps that close the finding; open ports are closed to everyone."""
        its_rule = rule(finding["rule"])
        assert its_rule.fix is not None
        values = {one.name: () if one.kind == "cidrs" else 14 for one in its_rule.inputs}
        return its_rule.fix(resource, values)

    def customer(self, finding: Mapping[str, str]) -> CustomerCredentials:
        """The customer's own credentials where the finding is."""
        told, source = self.fleet.description, self.inventory.azure[0]
        keys, login = told["aws"]["customer"], told["azure"]["customer"]
        return CustomerCredentials(
            aws=AwsCredentials(keys["access_key_id"], keys["secret_access_key"]),
            azure=ClientSecretCredential(
                source.tenant,
                login["client_id"],
                login["client_secret"],
                **identity_options(source),
            ),
        )

    def admin_keys(self, account: str) -> AwsCredentials:
        """The keys of the customer's administrator in one AWS account."""
        told, source = self.fleet.description["aws"], self.inventory.aws[0]
        own = told["customer"]
        keys = AwsCredentials(own["access_key_id"], own["secret_access_key"])
        if account == told["organization"]["management_account"]:
            return keys
        sts = aws_client(source, "sts", "us-east-1", keys)
        role = source.role_arn(account, told["admin_role"])
        assumed = sts.assume_role(RoleArn=role, RoleSessionName="admin")
        sts.close()
        return credentials_of(assumed)

    def open(self, finding: Mapping[str, str], **options: Any) -> OpenGate:
        """Open the gate where the finding is, by machine unless a seed is given."""
        options = {"machine": "seed" not in options, **options}
        self.opened.append(finding)
        return open_gate(
            self.inventory,
            self.account(finding),
            resources=[finding["resource"]],
            customer=self.customer(finding),
            **options,
        )

    def close(self, finding: Mapping[str, str], opening: str | None = None) -> None:
        close_gate(
            self.inventory,
            self.account(finding),
            opening=opening,
            customer=self.customer(finding),
        )

    def status(self, finding: Mapping[str, str]) -> GateStatus:
        return gate_status(self.inventory, self.account(finding), customer=self.customer(finding))

    def session(
        self,
        finding: Mapping[str, str],
        resource: Resource,
        steps: Sequence[Step],
        code: SecretStr,
        propagation: Propagation = AT_ONCE,
    ) -> Session:
        """A session of the remediator; what is refused is refused at once."""
        account = self.account(finding)
        return open_session(self.inventory, account, resource, steps, code, propagation=propagation)


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    """A fleet in which nothing fails on purpose, with Suture's secrets in the environment."""
    with (
        Fleet(
            aws=4, azure=4, seed=3, data_dir=tmp_path_factory.mktemp("fleet"), failing=False
        ) as fleet,
        pytest.MonkeyPatch.context() as patch,
    ):
        fleet._azure.tenant.operations.retry_after = None  # else every write takes a second
        patch.setattr(azure_write, "POLL_SECONDS", 0.05)
        told = fleet.description
        patch.setenv("SUTURE_HUB_ACCESS_KEY_ID", told["aws"]["hub"]["access_key_id"])
        patch.setenv("SUTURE_HUB_SECRET_ACCESS_KEY", told["aws"]["hub"]["secret_access_key"])
        patch.setenv("SUTURE_AZURE_CLIENT_SECRET", told["azure"]["scanner"]["client_secret"])
        yield Gated(fleet, load_inventory(told["inventory"]))


@dataclass
class Customer:
    """The customer's administrator in one account and one subscription, who makes resources."""

    gated: Gated
    region: str = REGION
    clients: dict[str, Any] = field(default_factory=dict)
    arms: list[Arm] = field(default_factory=list)

    def __post_init__(self) -> None:
        findings = self.gated.fleet.truth["findings"]
        self.aws = next(one for one in findings if one["region"] == REGION)
        self.azure = next(one for one in findings if one["cloud"] == "azure")

    # --- what the examples' plant functions use --------------------------------------------------

    @property
    def account(self) -> str:
        return str(self.aws["account"])

    @property
    def subscription(self) -> str:
        return str(self.azure["account"])

    @property
    def group(self) -> str:
        """The resource group that things are planted in, as an ARM id."""
        return str(self.azure["resource"].partition("/providers/")[0])

    def client(self, service: str) -> Any:
        """A boto3 client with the administrator's keys."""
        if service not in self.clients:
            source, keys = self.gated.inventory.aws[0], self.gated.admin_keys(self.account)
            region = "us-east-1" if service in {"iam", "cloudfront"} else REGION
            self.clients[service] = aws_client(source, service, region, keys)
        return self.clients[service]

    @property
    def arm(self) -> Arm:
        if not self.arms:
            credential = self.gated.customer(self.azure).azure
            assert credential is not None
            self.arms.append(Arm(self.gated.inventory.azure[0], self.subscription, credential))
        return self.arms[0]

    def put(self, path: str, version: str, body: Mapping[str, Any]) -> str:
        """Make a resource in the resource group: "Microsoft.Storage/storageAccounts/name"."""
        target = path if path.startswith("/") else f"{self.group}/providers/{path}"
        self.arm.write(Call(Cloud.AZURE, version, "PUT", dict(body), target), None)
        return target.lower()

    def write(self, method: str, target: str, version: str, body: Mapping[str, Any]) -> None:
        self.arm.write(Call(Cloud.AZURE, version, method, dict(body), target), "")

    # --- what the tests use ----------------------------------------------------------------------

    def plant(self, table: Any, row: Rule, config: Mapping[str, Any]) -> dict[str, str]:
        """A resource with this configuration; returns it as a finding of the rule."""
        known = table.kinds[row.kind]
        made = known["plant"](self, copy.deepcopy(dict(config)))
        where = self.aws if row.cloud is Cloud.AWS else self.azure
        region = {"region": known["region"]} if "region" in known else {}
        return {**where, "rule": row.id, "resource": made, **region}


@pytest.fixture(scope="module")
def customer(gated: Gated) -> Iterator[Customer]:
    made = Customer(gated)
    yield made
    for client in (*made.clients.values(), *made.arms):
        client.close()


class _AtOnce:
    """A selector that does not wait: it moves the loop's clock on instead."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._selector, self._loop = selectors.DefaultSelector(), loop

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = self._selector.select(0)
        if not ready:
            assert timeout is not None, "nothing will ever happen in this loop"
            self._loop.now += max(0.0, timeout)
        return ready

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in which hours of waiting pass at once. Not for sockets or threads."""

    def __init__(self) -> None:
        self.now = 0.0
        super().__init__(_AtOnce(self))  # type: ignore[arg-type]

    def time(self) -> float:
        return self.now


@pytest.fixture(scope="session")
def virtually() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """``virtually(coroutine)``: its result, run in a loop whose time is not ours."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(coroutine)

    return run
