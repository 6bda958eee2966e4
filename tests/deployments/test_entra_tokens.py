"""Tokens at the webhook: which open it, and how often Entra is asked for its keys."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from deployments.entra_tokens import EVENT_GRID, LASTING_SECONDS, PAUSE_SECONDS, EntraTokens
from deployments.event_webhook import event_webhook
from deployments.webhook_auth import WebhookAuth, auth_from_settings
from tasks.errors import BadInput

TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
AUDIENCE = "7b4c0a51-0f0e-4f4b-9d5c-0b1a5b6f2e11"
AUTHORITY = "https://login.microsoftonline.com"
V1 = f"https://sts.windows.net/{TENANT}/"
V2 = f"{AUTHORITY}/{TENANT}/v2.0"
KEY = "0123456789abcdef0123456789abcdef"

_RSA = [rsa.generate_private_key(65537, 2048) for _ in range(2)]


@dataclass
class Entra:
    """A tenant's discovery documents, and the tokens it signs."""

    published: dict[str, rsa.RSAPrivateKey] = field(default_factory=lambda: {"one": _RSA[0]})
    asked: list[str] = field(default_factory=list)
    down: bool = False
    jwks_uri: str = f"{AUTHORITY}/{TENANT}/discovery/v2.0/keys"
    now: float = 1000.0

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        if self.down:
            raise httpx.ConnectError("no route", request=request)
        if request.url == f"{V2}/.well-known/openid-configuration":
            return httpx.Response(200, json={"issuer": V2, "jwks_uri": self.jwks_uri})
        if request.url == self.jwks_uri:
            return httpx.Response(200, json={"keys": [*map(self._jwk, self.published)]})
        return httpx.Response(404)

    def _jwk(self, kid: str) -> dict[str, Any]:
        public = self.published[kid].public_key()
        # As Entra writes them: without "alg".
        written = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(public))
        return {"kty": "RSA", "use": "sig", "kid": kid, "n": written["n"], "e": written["e"]}

    def tokens(self) -> EntraTokens:
        return EntraTokens(
            TENANT,
            AUDIENCE,
            http=lambda: httpx.AsyncClient(transport=httpx.MockTransport(self.answer)),
            clock=lambda: self.now,
        )

    def token(self, kid: str = "one", key: rsa.RSAPrivateKey | None = None, **changes: Any) -> str:
        now = int(time.time())
        claims = {
            "iss": V1,
            "aud": AUDIENCE,
            "appid": EVENT_GRID,
            "iat": now,
            "nbf": now,
            "exp": now + 3600,
            **changes,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, key or self.published[kid], "RS256", headers={"kid": kid})


@pytest.fixture
def entra() -> Entra:
    return Entra()


@pytest.fixture
async def http(entra: Entra) -> AsyncIterator[httpx.AsyncClient]:
    async def accept(text: str) -> None:
        json.loads(text)

    app = event_webhook(accept, WebhookAuth(entra=entra.tokens()))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://webhook") as http:
        yield http


async def deliver(http: httpx.AsyncClient, token: str) -> httpx.Response:
    return await http.post(
        "/events", json=[{"id": "1"}], headers={"authorization": f"Bearer {token}"}
    )


@pytest.mark.parametrize(
    "claims", [{}, {"iss": V2, "azp": EVENT_GRID, "appid": None, "ver": "2.0"}]
)
async def test_a_token_of_either_version_opens(
    http: httpx.AsyncClient, entra: Entra, claims: Mapping[str, Any]
) -> None:
    answers = [await deliver(http, entra.token(**claims)) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3
    assert len(entra.asked) == 2


@pytest.mark.parametrize(
    ("claims", "status"),
    [
        ({"aud": "https://management.azure.com"}, 401),
        ({"aud": None}, 401),
        ({"iss": "https://sts.windows.net/00000000-0000-0000-0000-000000000000/"}, 401),
        ({"iss": V1.rstrip("/")}, 401),
        ({"iss": None}, 401),
        ({"exp": timedelta(seconds=-300)}, 401),
        ({"exp": None}, 401),
        ({"nbf": timedelta(seconds=300)}, 401),
        ({"nbf": None}, 401),
        ({"appid": "00000000-0000-0000-0000-000000000000"}, 403),
        ({"appid": None}, 403),
        ({"azp": "00000000-0000-0000-0000-000000000000"}, 403),
        ({"appid": [EVENT_GRID]}, 403),
    ],
)
async def test_a_token_that_says_something_else_does_not(
    http: httpx.AsyncClient, entra: Entra, claims: Mapping[str, Any], status: int, from_now: Any
) -> None:
    answer = await deliver(http, entra.token(**from_now(claims)))

    assert answer.status_code == status
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_tokens_that_entra_did_not_sign_do_not_open(
    http: httpx.AsyncClient, entra: Entra, caplog: pytest.LogCaptureFixture
) -> None:
    good = entra.token()
    claims = jwt.decode(good, options={"verify_signature": False})
    head, body, signature = good.split(".")
    forged = [
        entra.token(key=_RSA[1]),
        f"{head}.{body}.",
        f"{head}.{body}.{signature[::-1]}",
        jwt.encode(claims, None, "none", headers={"kid": "one"}),
        jwt.encode(claims, "a shared secret of thirty-two bytes", "HS256", headers={"kid": "one"}),
        jwt.encode(claims, _RSA[0], "RS512", headers={"kid": "one"}),
        jwt.encode(claims, _RSA[0], "RS256"),
        "a.b.c",
        "",
        "x" * 20_000,
        good + " " + good,
    ]
    with caplog.at_level(logging.DEBUG, "suture"):
        answers = [await deliver(http, token) for token in forged]

    assert [answer.status_code for answer in answers] == [401] * len(forged)
    assert body not in caplog.text + "".join(answer.text for answer in answers)
    basic = await http.post("/events", json={}, headers={"authorization": "Basic YTpi"})
    assert basic.status_code == 401


async def test_a_key_that_is_new_is_asked_for_and_made_up_ones_cost_no_more(
    http: httpx.AsyncClient, entra: Entra
) -> None:
    await deliver(http, entra.token())
    made_up = [await deliver(http, entra.token(f"kid {n}", _RSA[1])) for n in range(20)]
    assert {answer.status_code for answer in made_up} == {401}
    assert len(entra.asked) == 2

    entra.published = {"two": _RSA[1]}
    entra.now += PAUSE_SECONDS + 1
    assert (await deliver(http, entra.token("two"))).status_code == 200
    # The old one was withdrawn.
    assert (await deliver(http, entra.token("one", _RSA[0]))).status_code == 401


async def test_while_entra_is_down_known_keys_last_a_day_and_unknown_ones_are_tried_again(
    http: httpx.AsyncClient, entra: Entra
) -> None:
    entra.down = True
    answer = await deliver(http, entra.token())
    assert answer.status_code == 503
    entra.down = False
    entra.now += PAUSE_SECONDS + 1
    assert (await deliver(http, entra.token())).status_code == 200

    entra.down = True
    entra.now += LASTING_SECONDS - 1
    assert (await deliver(http, entra.token())).status_code == 200
    assert (await deliver(http, entra.token("two", _RSA[1]))).status_code == 503
    entra.now += PAUSE_SECONDS + 1
    assert (await deliver(http, entra.token())).status_code == 503


async def test_keys_are_not_read_from_an_unprotected_address(
    http: httpx.AsyncClient, entra: Entra
) -> None:
    entra.jwks_uri = entra.jwks_uri.replace("https:", "http:")

    assert (await deliver(http, entra.token())).status_code == 503
    assert len(entra.asked) == 1


async def test_the_handshake_of_cloud_events_takes_a_token_or_none_but_no_wrong_one(
    http: httpx.AsyncClient, entra: Entra
) -> None:
    asked = {"webhook-request-origin": "eventgrid.azure.net"}
    right, wrong = entra.token(), entra.token(aud="other")

    for headers, status in (
        ({}, 200),
        ({"authorization": f"Bearer {right}"}, 200),
        ({"authorization": f"Bearer {wrong}"}, 401),
        ({"authorization": "nothing"}, 401),
    ):
        answer = await http.options("/events", headers=asked | headers)
        assert answer.status_code == status


async def test_where_both_are_set_both_must_be_shown(entra: Entra) -> None:
    async def accept(text: str) -> None:
        json.loads(text)

    auth = WebhookAuth(keys=[SecretStr(KEY)], entra=entra.tokens())
    transport = httpx.ASGITransport(event_webhook(accept, auth))
    bearer, key = {"authorization": f"Bearer {entra.token()}"}, {"x-suture-key": KEY}
    async with httpx.AsyncClient(transport=transport, base_url="http://webhook") as http:
        statuses = [
            (await http.post("/events", json={"id": "1"}, headers=headers)).status_code
            for headers in (bearer | key, bearer, key, {})
        ]

    assert statuses == [200, 401, 401, 401]


# --- settings ---


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in ("KEY", "TENANT", "AUDIENCE"):
        monkeypatch.delenv(f"SUTURE_EVENT_WEBHOOK_{name}", raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("values", "tokens"),
    [
        ({"KEY": KEY}, False),
        ({"KEY": f" {KEY}  {KEY[::-1]} "}, False),
        ({"TENANT": TENANT.upper(), "AUDIENCE": AUDIENCE}, True),
        ({"KEY": KEY, "TENANT": TENANT, "AUDIENCE": "api://webhook"}, True),
    ],
)
def test_what_must_be_shown_is_set_by_the_environment(
    environment: pytest.MonkeyPatch, values: Mapping[str, str], tokens: bool
) -> None:
    for name, value in values.items():
        environment.setenv(f"SUTURE_EVENT_WEBHOOK_{name}", value)

    assert auth_from_settings().takes_tokens == tokens


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "SUTURE_EVENT_WEBHOOK_KEY: is not set"),
        ({"KEY": "short-and-secret"}, "SUTURE_EVENT_WEBHOOK_KEY: is shorter than 32"),
        ({"KEY": f"{KEY} short-and-secret"}, "SUTURE_EVENT_WEBHOOK_KEY: is shorter than 32"),
        ({"TENANT": TENANT}, "SUTURE_EVENT_WEBHOOK_AUDIENCE: is not set"),
        ({"AUDIENCE": AUDIENCE}, "SUTURE_EVENT_WEBHOOK_TENANT: is not set"),
        ({"TENANT": "contoso.com", "AUDIENCE": "a"}, "SUTURE_EVENT_WEBHOOK_TENANT: is no tenant"),
    ],
)
def test_what_is_set_wrong_is_said_without_the_key(
    environment: pytest.MonkeyPatch, values: Mapping[str, str], problem: str
) -> None:
    for name, value in values.items():
        environment.setenv(f"SUTURE_EVENT_WEBHOOK_{name}", value)

    with pytest.raises(BadInput, match=problem) as refused:
        auth_from_settings()
    assert "short-and-secret" not in str(refused.value)
