"""The Azure read path: tokens, pages and errors, against a server that answers as a test wants."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    ClientAuthenticationError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
)
from cryptography.x509 import load_pem_x509_certificate

from deployments.local.azure.server import EmulatedAzure
from tasks.clouds.azure_api import AzureApi
from tasks.clouds.retrying import Patience
from tasks.clouds.transport import Limits
from tasks.errors import (
    AccessRefused,
    BadInput,
    CloudError,
    CloudTimeout,
    Conflict,
    ResourceGone,
    SutureError,
    Throttled,
)
from tasks.inventory import AzureSource

API = "2024-05-01"
SECRET = "a-client-secret-nobody-may-see"


class Tokens:
    """Stands for azure-identity: counts what it is asked, and gives tokens of ``life`` seconds."""

    def __init__(self, now: Callable[[], float], life: float = 3600) -> None:
        self.scopes: list[str] = []
        self._now = now
        self._life = life

    async def get_token(self, scope: str) -> AccessToken:
        self.scopes.append(scope)
        return AccessToken(f"token-{len(self.scopes)}", int(self._now() + self._life))


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("tasks.clouds.azure_api.time.time", clock)
    return clock


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> AzureSource:
    monkeypatch.setenv("TEST_AZURE_SECRET", SECRET)
    return AzureSource(
        name="contoso",
        tenant="9a0c2a0e-1111-4222-8333-444455556601",
        client_id="9a0c2a0e-1111-4222-8333-444455556603",
        client_secret_env="TEST_AZURE_SECRET",
    )


@pytest.fixture
def arm(serve: Any, source: AzureSource, quick: Limits, clock: Clock) -> Callable[..., Any]:
    """``async with arm(answer) as api``: an AzureApi whose ARM is ``answer``, with tokens."""

    @asynccontextmanager
    async def opened(answer: Any, limits: Limits = quick) -> AsyncIterator[AzureApi]:
        async with (
            serve(answer) as url,
            AzureApi(replace(source, resource_manager=url), limits) as api,
        ):
            api._credential = Tokens(clock)  # type: ignore[assignment]
            yield api

    return opened


def error(status: int, code: str, **headers: str) -> web.Response:
    body = {"error": {"code": code, "message": "words"}}
    return web.json_response(body, status=status, headers=headers)


async def items(api: AzureApi, path: str = "/things") -> list[Any]:
    return [item async for item in api.items(path, API)]


# --- Asking --------------------------------------------------------------------------------------


async def test_request_as_arm_wants_it(arm: Any) -> None:
    seen: list[web.BaseRequest] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append(request)
        return web.json_response({"name": "x"})

    async with arm(answer) as api:
        assert await api.get("/sub/a b/ö", API, filter="x eq 'y&z'") == {"name": "x"}
    (request,) = seen
    assert request.path == "/sub/a b/ö"
    assert dict(request.query) == {"api-version": API, "filter": "x eq 'y&z'"}
    assert request.headers["Authorization"] == "Bearer token-1"


async def test_token_is_reused_and_renewed_before_it_ends(arm: Any, clock: Clock) -> None:
    used: list[str] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        used.append(request.headers["Authorization"])
        return web.json_response({})

    async with arm(answer) as api:
        await asyncio.gather(*(api.get("/x", API) for _ in range(5)))
        clock.now += 3600 - 301
        await api.get("/x", API)
        clock.now += 2
        await api.get("/x", API)
    assert used == ["Bearer token-1"] * 6 + ["Bearer token-2"]
    assert api._credential.scopes == ["https://management.azure.com/.default"] * 2


class SlowTokens(Tokens):
    """Takes a while; what is in ``errors`` comes first."""

    def __init__(self, now: Callable[[], float], *errors: Exception) -> None:
        super().__init__(now)
        self.errors = list(errors)

    async def get_token(self, scope: str) -> AccessToken:
        await asyncio.sleep(0.01)
        if self.errors:
            self.scopes.append(scope)
            raise self.errors.pop(0)
        return await super().get_token(scope)


async def whom(request: web.BaseRequest) -> web.Response:
    return web.json_response({"token": request.headers["Authorization"][-1]})


async def test_token_is_renewed_once_for_all_who_wait(arm: Any, clock: Clock) -> None:
    async with arm(whom) as api:
        api._credential = SlowTokens(clock)
        for number in "123":
            answers = await asyncio.gather(*(api.get(f"/{n}", API) for n in range(50)))
            assert answers == [{"token": number}] * 50
            clock.now += 3600 - 299
    assert len(api._credential.scopes) == 3


async def test_token_that_is_not_given_is_asked_for_once_and_again_later(
    arm: Any, clock: Clock
) -> None:
    async with arm(whom) as api:
        api._credential = SlowTokens(clock, ServiceRequestError("no route"))
        asking = (api.get(f"/{n}", API) for n in range(20))
        answers = await asyncio.gather(*asking, return_exceptions=True)
        assert {type(answer) for answer in answers} == {CloudError}
        assert len(api._credential.scopes) == 1
        assert await api.get("/x", API) == {"token": "2"}


async def test_old_token_serves_while_there_is_no_new_one(arm: Any, clock: Clock) -> None:
    async with arm(whom) as api:
        api._credential = tokens = SlowTokens(clock)
        assert await api.get("/x", API) == {"token": "1"}
        clock.now += 3600 - 200
        tokens.errors = [ServiceRequestError("no route")] * 3
        for _ in range(3):
            assert await api.get("/x", API) == {"token": "1"}
        assert len(tokens.scopes) == 2  # not asked again for each
        clock.now += 31
        assert await api.get("/x", API) == {"token": "1"}
        assert len(tokens.scopes) == 3
        clock.now += 200  # it has ended
        with pytest.raises(CloudError, match="no route"):
            await api.get("/x", API)
        assert await api.get("/x", API) == {"token": "5"}


async def test_one_who_gives_up_takes_the_token_from_nobody(arm: Any, clock: Clock) -> None:
    async with arm(whom) as api:
        api._credential = SlowTokens(clock)
        first = asyncio.create_task(api.get("/1", API))
        second = asyncio.create_task(api.get("/2", API))
        await asyncio.sleep(0)
        first.cancel()
        assert await second == {"token": "1"}
        assert first.cancelled()


# --- Resource Graph ------------------------------------------------------------------------------


async def test_query_as_the_graph_wants_it(arm: Any) -> None:
    seen: list[Any] = []

    async def answer(request: web.BaseRequest) -> web.Response:
        seen.append((request.method, request.path, dict(request.query), await request.json()))
        return web.json_response({"data": []})

    async with arm(answer) as api:
        await api.query("resources", ("a", "b"), top=7)
    path, version = "/providers/Microsoft.ResourceGraph/resources", {"api-version": "2024-04-01"}
    options = {"resultFormat": "objectArray", "$top": 7}
    body = {"query": "resources", "subscriptions": ["a", "b"], "options": options}
    assert seen == [("POST", path, version, body)]


async def test_query_waits_for_the_quota_that_it_used_up(arm: Any) -> None:
    came: list[float] = []

    async def answer(_request: web.BaseRequest) -> web.Response:
        came.append(asyncio.get_running_loop().time())
        headers = {
            "x-ms-user-quota-remaining": str(2 - len(came)),
            "x-ms-user-quota-resets-after": "00:00:01",
        }
        return web.json_response({"data": []}, headers=headers)

    async with arm(answer) as api:
        for _ in range(3):
            await api.query("resources", ("a",), top=1)
    assert came[1] - came[0] < 0.5
    assert came[2] - came[1] > 0.9


@pytest.mark.parametrize("said", ["", "soon", "00:00:00", "1:2:3:4"])
async def test_query_does_not_wait_for_a_quota_that_makes_no_sense(arm: Any, said: str) -> None:
    async def answer(_request: web.BaseRequest) -> web.Response:
        headers = {"x-ms-user-quota-remaining": "0", "x-ms-user-quota-resets-after": said}
        return web.json_response({"data": []}, headers=headers)

    async with arm(answer) as api, asyncio.timeout(1):
        for _ in range(3):
            await api.query("resources", ("a",), top=1)


@pytest.mark.parametrize(
    ("details", "code", "message"),
    [
        ([{"code": "ResponsePayloadTooLarge", "message": "large"}], "ResponsePayloadTooLarge", "l"),
        ([{"code": "InvalidQuery"}, {"code": "ParserFailure"}], "InvalidQuery", "HTTP 400"),
        ([], "BadRequest", "words"),
        (None, "BadRequest", "words"),
        ("text", "BadRequest", "words"),
        (["text"], "BadRequest", "words"),
    ],
)
async def test_reason_of_a_bad_request_stands_in_its_details(
    arm: Any, details: Any, code: str, message: str
) -> None:
    async def answer(_request: web.BaseRequest) -> web.Response:
        said = {"code": "BadRequest", "message": "words", "details": details}
        return web.json_response({"error": said}, status=400)

    async with arm(answer) as api:
        with pytest.raises(CloudError, match=message) as caught:
            await api.query("resources", ("a",), top=1)
    assert caught.value.code == code
    assert caught.value.operation == "POST /providers/Microsoft.ResourceGraph/resources"


# --- Pages ---------------------------------------------------------------------------------------


async def test_pages_are_followed(arm: Any) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        number = int(request.query.get("$skiptoken", 0))
        page: dict[str, Any] = {"value": [number]}
        if number < 3:
            link = request.url.with_query({"api-version": API, "$skiptoken": str(number + 1)})
            page["nextLink"] = str(link)
        return web.json_response(page)

    async with arm(answer) as api:
        assert await items(api) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example.com/things?page=2",
        "http://127.0.0.1:1/things?page=2",
        "//evil.example.com/things",
        "/things?page=2",
        "file:///etc/passwd",
        "not an address",
        7,
    ],
)
async def test_token_is_not_taken_to_another_host(arm: Any, link: Any) -> None:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.json_response({"value": [1], "nextLink": link})

    async with arm(answer) as api:
        with pytest.raises(CloudError, match="on another host"):
            await items(api)
        assert api.calls == 1


async def test_page_that_comes_twice_ends_the_paging(arm: Any) -> None:
    async def answer(request: web.BaseRequest) -> web.Response:
        return web.json_response({"value": [1], "nextLink": str(request.url)})

    async with arm(answer) as api:
        with pytest.raises(CloudError, match="the same page came twice"):
            await items(api)


@pytest.mark.parametrize("answer", [{}, {"value": None}, {"value": {}}])
async def test_answer_without_a_list_is_no_empty_subscription(arm: Any, answer: Any) -> None:
    async def reply(_request: web.BaseRequest) -> web.Response:
        return web.json_response(answer)

    async with arm(reply) as api:
        with pytest.raises(CloudError, match="no list of values"):
            await items(api)


# --- What goes wrong -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "kind", "calls"),
    [
        (401, "ExpiredAuthenticationToken", AccessRefused, 1),
        (403, "AuthorizationFailed", AccessRefused, 1),
        (404, "ResourceNotFound", ResourceGone, 1),
        (404, "ResourceGroupNotFound", ResourceGone, 1),
        (404, "NotFound", ResourceGone, 1),
        (404, "ParentResourceNotFound", ResourceGone, 1),
        (404, "SubscriptionNotFound", CloudError, 1),
        (412, "PreconditionFailed", Conflict, 1),
        (400, "InvalidApiVersionParameter", CloudError, 1),
        (429, "TooManyRequests", Throttled, None),
        (503, "ServerBusy", Throttled, None),
        (500, "InternalServerError", CloudError, 3),
    ],
)
async def test_arm_code_becomes_an_error(
    arm: Any, quick: Limits, status: int, code: str, kind: type[CloudError], calls: int | None
) -> None:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return error(status, code)

    limits = replace(quick, patience=replace(quick.patience, seconds=0.5))
    async with arm(answer, limits) as api:
        with pytest.raises(CloudError) as caught:
            await api.get("/x", API)
        assert type(caught.value) is kind
        assert (caught.value.code, caught.value.operation) == (code, "GET /x")
        assert api.calls == calls if calls is not None else api.calls > 1


@pytest.mark.parametrize("body", ["<html>proxy</html>", "[]", "", '{"value": [', "null"])
@pytest.mark.parametrize("status", [200, 403, 404, 502])
async def test_garbled_answer_has_its_words(arm: Any, body: str, status: int) -> None:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(text=body, status=status)

    async with arm(answer) as api:
        with pytest.raises(CloudError) as caught:
            await api.get("/x", API)
    assert type(caught.value) is (AccessRefused if status == 403 else CloudError)
    assert ("not a JSON object" if status == 200 else str(status)) in str(caught.value)


async def test_redirect_is_not_followed(arm: Any) -> None:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return web.Response(status=307, headers={"Location": "http://127.0.0.1:1/"})

    async with arm(answer) as api:
        with pytest.raises(CloudError, match="307"):
            await api.get("/x", API)


async def test_throttling_that_passes_is_waited_out(arm: Any) -> None:
    answers = iter([error(429, "TooManyRequests"), error(503, "ServerBusy")])

    async def answer(_request: web.BaseRequest) -> web.Response:
        return next(answers, web.json_response({"ok": True}))

    async with arm(answer) as api:
        assert await api.get("/x", API) == {"ok": True}


async def test_retry_after_beyond_the_budget_is_not_waited_for(arm: Any) -> None:
    async def answer(_request: web.BaseRequest) -> web.Response:
        return error(429, "TooManyRequests", **{"Retry-After": "3600"})

    async with arm(answer) as api:
        with pytest.raises(Throttled):
            await api.get("/x", API)
        assert api.calls == 1


async def test_silence_becomes_a_timeout(arm: Any) -> None:
    async def answer(_request: web.BaseRequest) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with arm(answer, Limits(request_seconds=0.2)) as api:
        with pytest.raises(CloudTimeout, match="did not answer in time"):
            await api.get("/x", API)


# --- Tokens --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "kind", "code"),
    [
        (
            ClientAuthenticationError(
                message="Authentication failed: AADSTS7000215: Invalid client secret provided.\n"
                "Trace ID: 1"
            ),
            AccessRefused,
            "AADSTS7000215",
        ),
        (ServiceRequestTimeoutError("slow"), CloudTimeout, ""),
        (ServiceRequestError("no route"), CloudError, ""),
    ],
)
async def test_why_there_is_no_token(
    arm: Any, raised: Exception, kind: type[SutureError], code: str
) -> None:
    async def never(_request: web.BaseRequest) -> web.Response:
        raise AssertionError

    async with arm(never) as api:

        async def fail(_scope: str) -> AccessToken:
            raise raised

        api._credential.get_token = fail
        with pytest.raises(CloudError) as caught:
            await api.get("/x", API)
    assert type(caught.value) is kind
    assert caught.value.code == code
    assert "Trace ID" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["client_id", "secret", "tenant"])
async def test_entra_refusing_us(
    azure_source: AzureSource, quick: Limits, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    if wrong == "secret":
        monkeypatch.setenv("TEST_AZURE_SECRET", SECRET)
        source = azure_source
    else:
        changed = {wrong: "9a0c2a0e-1111-4222-8333-4444555566ff"}
        source = replace(azure_source, **changed)  # type: ignore[arg-type]
    async with AzureApi(source, quick) as api:
        with pytest.raises(AccessRefused, match="AADSTS") as caught:
            await api.get("/subscriptions", "2022-12-01")
    assert SECRET not in str(caught.value)


@pytest.mark.slow
async def test_certificate_instead_of_a_secret(
    azure: EmulatedAzure, azure_source: AzureSource, quick: Limits, tmp_path: Path
) -> None:
    issued = trustme.CA().issue_cert("suture.example.com", key_type=trustme.KeyType.RSA)
    pem = tmp_path / "client.pem"
    issued.private_key_and_cert_chain_pem.write_to_path(str(pem))
    certificate = load_pem_x509_certificate(issued.cert_chain_pems[0].bytes())
    source = replace(azure_source, client_secret_env="", client_certificate=str(pem))
    async with AzureApi(source, quick) as api:
        with pytest.raises(AccessRefused, match="AADSTS"):
            await api.get("/subscriptions", "2022-12-01")
        principal = azure.tenant.principals[source.client_id]
        principal.certificates.append(certificate)
        try:
            assert (await api.get("/subscriptions", "2022-12-01"))["value"]
        finally:
            principal.certificates.remove(certificate)


@pytest.mark.slow
async def test_authority_we_do_not_trust(azure_source: AzureSource, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    limits = Limits(patience=Patience(attempts=2, seconds=2, first_wait=0.01, longest_wait=0.01))
    async with AzureApi(replace(azure_source, ca_file=str(other)), limits) as api:
        with pytest.raises(CloudError, match="get token"):
            await api.get("/subscriptions", "2022-12-01")


async def test_credentials_that_are_not_there(
    source: AzureSource, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("TEST_AZURE_SECRET")
    with pytest.raises(BadInput, match="TEST_AZURE_SECRET: this environment variable is not set"):
        await AzureApi(source).__aenter__()
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing")
    for path in (nothing, tmp_path / "missing.pem"):
        by_certificate = replace(source, client_secret_env="", client_certificate=str(path))
        with pytest.raises(BadInput, match="client_certificate"):
            await AzureApi(by_certificate).__aenter__()


# --- What stays out ------------------------------------------------------------------------------


HEAVY = ("azure", "msal", "boto3", "pandas", "numpy", "pyarrow", "matplotlib", "dask", "moto")


@pytest.mark.parametrize("module", ["tasks.clouds.scanner", "tasks.scanning"])
def test_what_a_scanning_process_does_not_import(module: str) -> None:
    """azure-mgmt-network alone takes 330 MB; azure-identity comes with the first Azure source."""
    script = (
        f"import json, sys, {module}\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert not set(json.loads(ran.stdout)) & set(HEAVY)


@pytest.mark.slow
def test_opening_a_source_imports_no_management_sdk() -> None:
    script = (
        "import asyncio, json, os, sys\n"
        "from tasks.clouds.azure_api import AzureApi\n"
        "from tasks.inventory import AzureSource\n"
        "os.environ['S'] = 'x'\n"
        "tenant = '9a0c2a0e-1111-4222-8333-444455556601'\n"
        "one = AzureSource(name='x', tenant=tenant, client_id=tenant, client_secret_env='S')\n"
        "async def main():\n"
        "    async with AzureApi(one):\n"
        "        print(json.dumps([m for m in sys.modules if m.startswith('azure.')]))\n"
        "asyncio.run(main())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    imported = json.loads(ran.stdout)
    assert "azure.identity" in imported
    assert not [name for name in imported if name.startswith("azure.mgmt")]
