"""Clouds to read from: the emulated ones, and servers that answer whatever a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from aiohttp import web

from deployments.local.aws.server import EmulatedAws
from deployments.local.azure.server import EmulatedAzure
from tasks.clouds.retrying import Patience
from tasks.clouds.transport import Limits
from tasks.inventory import AwsSource, AzureSource, HubCredentials

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Serve = Callable[[Answer], AbstractAsyncContextManager[str]]

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
