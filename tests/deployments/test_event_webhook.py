"""The webhook: what it answers Event Grid, and that no event is lost by an answer."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.types import ASGIApp

from deployments.beside import served
from deployments.event_webhook import MOST_BYTES, event_webhook
from deployments.webhook_auth import WebhookAuth
from tasks.errors import BadEvent, BadInput

KEY = "0123456789abcdef0123456789abcdef"
NEXT_KEY = "fedcba9876543210fedcba9876543210"
WITH_KEY = {"x-suture-key": KEY}
CODE = "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"
ANSWERS = {200, 400, 401, 403, 404, 405, 413, 415, 503}

# An activity log event as Event Grid's schema has it, short, with a number no double can hold.
EVENT = (
    '{"id": "a1", "topic": "/subscriptions/s", "eventType": '
    '"Microsoft.Resources.ResourceWriteSuccess", "data": {"n": 12345678901234567890.10}}'
)
CLOUD_EVENT = (
    '{"specversion":"1.0","id":"b2","source":"/subscriptions/s",'
    '"type":"Microsoft.Resources.ResourceWriteSuccess","data":{"status":"Succeeded"}}'
)
VALIDATION = [
    {
        "id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66",
        "topic": "/subscriptions/s",
        "subject": "",
        "data": {"validationCode": CODE, "validationUrl": "https://127.0.0.1:9/validate?id=1"},
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "eventTime": "2018-01-25T22:12:19.4556811Z",
        "metadataVersion": "1",
        "dataVersion": "1",
    }
]


@dataclass
class Store:
    """What the webhook stored and buried; full where it shall fail."""

    stored: list[str] = field(default_factory=list)
    buried: list[tuple[str, str]] = field(default_factory=list)
    down: bool = False

    async def accept(self, text: str) -> None:
        if self.down:
            raise ConnectionError(f"insert of {text} failed")
        event = json.loads(text)
        if "id" not in event:
            raise BadEvent("id", "is missing.")
        self.stored.append(text)

    async def bury(self, text: str, reason: str) -> None:
        if self.down:
            raise ConnectionError(f"insert of {text} failed")
        self.buried.append((text, reason))

    def app(self, *, bury: bool = True) -> ASGIApp:
        auth = WebhookAuth(keys=[SecretStr(KEY), SecretStr(NEXT_KEY)])
        return event_webhook(self.accept, auth, bury=self.bury if bury else None)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def http(store: Store) -> AsyncIterator[httpx.AsyncClient]:
    async with client(store.app()) as http:
        yield http


@asynccontextmanager
async def client(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    headers = {"content-type": "application/json"}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://webhook", headers=headers
    ) as http:
        yield http


async def test_every_event_of_a_batch_is_stored_as_it_was_sent(
    http: httpx.AsyncClient, store: Store
) -> None:
    body = f" [ {EVENT} ,\n{CLOUD_EVENT}]\n"

    answer = await http.post("/events", content=body, headers=WITH_KEY)

    assert answer.status_code == 200
    assert answer.json() == {"stored": 2, "buried": 0}
    assert store.stored == [EVENT, CLOUD_EVENT]


@pytest.mark.parametrize(
    ("kind", "body", "stored"),
    [
        ("application/json; charset=utf-8", f"[{EVENT}]", [EVENT]),
        ("application/json", "\ufeff" + EVENT, [EVENT]),
        ("application/cloudevents+json; charset=UTF-8", CLOUD_EVENT, [CLOUD_EVENT]),
        ("application/cloudevents-batch+json", f"[{CLOUD_EVENT},{CLOUD_EVENT}]", [CLOUD_EVENT] * 2),
        ("application/json", "[]", []),
    ],
)
async def test_events_come_in_every_form_of_both_schemas(
    http: httpx.AsyncClient, store: Store, kind: str, body: str, stored: list[str]
) -> None:
    headers = {**WITH_KEY, "content-type": kind, "aeg-event-type": "Notification"}

    answer = await http.post("/events", content=body.encode(), headers=headers)

    assert answer.status_code == 200
    assert store.stored == stored


async def test_a_cloud_event_in_headers_is_stored_in_its_json_format(
    http: httpx.AsyncClient, store: Store
) -> None:
    headers = {
        **WITH_KEY,
        "ce-specversion": "1.0",
        "ce-id": "b2",
        "ce-source": "/subscriptions/s",
        "ce-type": "Microsoft.Resources.ResourceWriteSuccess",
        "ce-subject": "Euro%20%E2%82%AC",
    }

    answer = await http.post("/events", content='{"status":"Succeeded"}', headers=headers)

    assert answer.status_code == 200
    assert [json.loads(text) for text in store.stored] == [
        {
            "specversion": "1.0",
            "id": "b2",
            "source": "/subscriptions/s",
            "type": "Microsoft.Resources.ResourceWriteSuccess",
            "subject": "Euro €",
            "datacontenttype": "application/json",
            "data": {"status": "Succeeded"},
        }
    ]


async def test_an_event_that_cannot_be_read_is_buried_and_the_others_are_stored(
    http: httpx.AsyncClient, store: Store
) -> None:
    answer = await http.post("/events", content=f'[{{"x": 1}},{EVENT}]', headers=WITH_KEY)

    assert answer.status_code == 200
    assert answer.json() == {"stored": 1, "buried": 1}
    assert store.stored == [EVENT]
    assert store.buried == [('{"x": 1}', "id: is missing.")]


@pytest.mark.parametrize(
    "body",
    [
        *(b"{", b"5", b"[1]", b'[{"id":1},]', b'[{"id":1}', b'{"id":1} {"id":2}', b'[{"id":1}]x'),
        *(b'{"id":NaN}', b"[" * 100_000, b'{"id":' + b"9" * 10_000 + b"}", b"\xff\x00{}"),
    ],
)
async def test_a_body_that_is_no_list_of_objects_is_buried_whole(
    http: httpx.AsyncClient, store: Store, body: bytes
) -> None:
    answer = await http.post("/events", content=body, headers=WITH_KEY)

    assert answer.status_code == 200
    [(text, reason)] = store.buried
    assert text == body.decode(errors="replace").replace("\x00", "\ufffd")
    assert reason.startswith("The request is not")
    assert store.stored == []


@pytest.mark.parametrize("body", ["{", '[{"x": 1}]'])
async def test_without_a_burial_ground_it_is_answered_400(store: Store, body: str) -> None:
    async with client(store.app(bury=False)) as http:
        answer = await http.post("/events", content=body, headers=WITH_KEY)

    assert answer.status_code == 400
    assert "cannot be read" in answer.text or "not a JSON object" in answer.text


async def test_an_empty_request_is_answered_400(http: httpx.AsyncClient, store: Store) -> None:
    answer = await http.post("/events", content=b"", headers=WITH_KEY)

    assert answer.status_code == 400
    assert store.buried == []


@pytest.mark.parametrize("body", [f"[{EVENT}]", "{"])
async def test_what_could_not_be_stored_or_buried_is_asked_for_again(
    http: httpx.AsyncClient, store: Store, caplog: pytest.LogCaptureFixture, body: str
) -> None:
    store.down = True
    with caplog.at_level(logging.DEBUG):
        answer = await http.post("/events", content=body, headers=WITH_KEY)
    assert answer.status_code == 503
    assert "12345678901234567890" not in caplog.text + answer.text
    assert "ConnectionError" in caplog.text

    store.down = False
    again = await http.post("/events", content=body, headers=WITH_KEY)
    assert again.status_code == 200
    assert len(store.stored) + len(store.buried) == 1


async def test_the_answer_waits_for_the_store() -> None:
    stored = asyncio.Event()

    async def slowly(text: str) -> None:
        await stored.wait()

    async with client(event_webhook(slowly, WebhookAuth(keys=[SecretStr(KEY)]))) as http:
        answer = asyncio.create_task(http.post("/events", content=EVENT, headers=WITH_KEY))
        await asyncio.sleep(0.05)
        assert not answer.done()
        stored.set()
        assert (await answer).status_code == 200


# --- credentials ---


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"x-suture-key": KEY}),
        ("", {"X-Suture-Key": NEXT_KEY}),
        (f"?code={KEY}", {}),
        (f"?other=1&code={NEXT_KEY}", {}),
    ],
)
async def test_a_key_opens_by_header_or_address(
    http: httpx.AsyncClient, query: str, headers: dict[str, str]
) -> None:
    answer = await http.post(f"/events{query}", content=EVENT, headers=headers)

    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("", {"x-suture-key": ""}),
        ("", {"x-suture-key": KEY[:-1]}),
        ("", {"x-suture-key": KEY.upper()}),
        ("", {"x-suture-key": "ÿ" * 32}),
        ("", {"authorization": f"Bearer {KEY}"}),
        ("?code=", {}),
        (f"?code={KEY}x", {}),
        (f"?Code={KEY}", {}),
        (f"?code={KEY}&code=wrong", {}),
        (f"?code={KEY}", {"x-suture-key": "wrong"}),
    ],
)
async def test_without_the_key_nothing_is_stored(
    http: httpx.AsyncClient, store: Store, query: str, headers: dict[str, str]
) -> None:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = await http.post(f"/events{query}", content=EVENT, headers=raw)
    validation = await http.post(f"/events{query}", json=VALIDATION, headers=raw)

    assert answer.status_code == 401
    assert validation.status_code == 401
    assert CODE not in validation.text
    assert store.stored == store.buried == []


def test_a_webhook_without_credentials_is_not_made() -> None:
    with pytest.raises(BadInput, match="SUTURE_EVENT_WEBHOOK_KEY"):
        WebhookAuth()


# --- handshakes ---


@pytest.mark.parametrize("named", [True, False])
async def test_the_handshake_of_event_grids_schema(
    http: httpx.AsyncClient, store: Store, named: bool
) -> None:
    headers = WITH_KEY | ({"aeg-event-type": "SubscriptionValidation"} if named else {})

    answer = await http.post("/events", json=VALIDATION, headers=headers)

    assert answer.status_code == 200
    assert answer.json() == {"validationResponse": CODE}
    assert store.stored == store.buried == []


async def test_a_cloud_events_validation_by_post_holds_its_data_as_text(
    http: httpx.AsyncClient,
) -> None:
    event = {"id": "1", "data": json.dumps({"validationCode": CODE})}
    headers = WITH_KEY | {"aeg-event-type": "SubscriptionValidation"}

    answer = await http.post("/events", json=event, headers=headers)

    assert answer.json() == {"validationResponse": CODE}


@pytest.mark.parametrize(
    "body",
    [
        *([], [{}], VALIDATION * 2, [{"data": None}], [{"data": "["}]),
        *([{"data": {"validationCode": code}}] for code in (5, "", "x" * 2000)),
    ],
)
async def test_a_validation_without_a_code_is_answered_400(
    http: httpx.AsyncClient, store: Store, body: Any
) -> None:
    headers = WITH_KEY | {"aeg-event-type": "SubscriptionValidation"}

    answer = await http.post("/events", json=body, headers=headers)

    assert answer.status_code == 400
    assert "validationCode" in answer.json()["detail"]
    assert store.stored == store.buried == []


async def test_a_validation_among_events_is_no_handshake(
    http: httpx.AsyncClient, store: Store
) -> None:
    answer = await http.post("/events", json=[*VALIDATION, {"id": "1"}], headers=WITH_KEY)

    assert answer.json() == {"stored": 2, "buried": 0}


async def test_a_farewell_is_answered(http: httpx.AsyncClient, store: Store) -> None:
    headers = WITH_KEY | {"aeg-event-type": "Unsubscribe"}

    answer = await http.post("/events", json=[{"data": {}}], headers=headers)

    assert answer.status_code == 200
    assert store.stored == store.buried == []


@pytest.mark.parametrize("headers", [{}, WITH_KEY])
async def test_the_handshake_of_cloud_events(
    http: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    asked = {
        "WebHook-Request-Origin": "eventgrid.azure.net",
        "WebHook-Request-Rate": "120",
        "WebHook-Request-Callback": "https://127.0.0.1:9/confirm?token=1",
    }

    answer = await http.options("/events", headers=headers | asked)

    assert answer.status_code == 200
    assert answer.headers["webhook-allowed-origin"] == "eventgrid.azure.net"
    assert answer.headers["webhook-allowed-rate"] == "*"
    assert answer.headers["allow"] == "POST, OPTIONS"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 400),
        ({"webhook-request-origin": " "}, 400),
        ({"webhook-request-origin": "elsewhere.example"}, 403),
        ({"webhook-request-origin": "*"}, 403),
        ({"webhook-request-origin": "eventgrid.azure.net", "x-suture-key": "wrong"}, 401),
    ],
)
async def test_others_are_not_permitted(
    http: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    answer = await http.options("/events", headers=headers)

    assert answer.status_code == status
    assert not any(name.startswith("webhook-allowed") for name in answer.headers)


async def test_the_senders_that_are_permitted_can_be_chosen(store: Store) -> None:
    auth = WebhookAuth(keys=[SecretStr(KEY)])
    async with client(event_webhook(store.accept, auth, origins=["EventGrid.azure.us"])) as http:
        ours = await http.options(
            "/events", headers={"webhook-request-origin": "eventgrid.azure.us"}
        )
        other = await http.options(
            "/events", headers={"webhook-request-origin": "eventgrid.azure.net"}
        )

    assert (ours.status_code, other.status_code) == (200, 403)


# --- what is no delivery ---


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "/events", {"content-type": "text/plain"}, 415),
        ("POST", "/events", {"content-type": "application/xml"}, 415),
        ("POST", "/events", {"content-type": ""}, 415),
        ("POST", "/events", {"content-type": "application/json; charset=utf-16"}, 415),
        ("POST", "/events", {"content-encoding": "gzip"}, 415),
        ("GET", "/events", {}, 405),
        ("PUT", "/events", {}, 405),
        ("HEAD", "/events", {}, 405),
        ("POST", "/", {}, 404),
        ("POST", "/events/", {}, 404),
    ],
)
async def test_other_requests_are_told_what_is_wrong(
    http: httpx.AsyncClient,
    store: Store,
    method: str,
    path: str,
    headers: dict[str, str],
    status: int,
) -> None:
    answer = await http.request(method, path, content=EVENT, headers=WITH_KEY | headers)

    assert answer.status_code == status
    assert store.stored == store.buried == []


@pytest.mark.parametrize("announced", [True, False])
async def test_a_request_that_is_too_large_is_not_read(
    http: httpx.AsyncClient, store: Store, announced: bool
) -> None:
    read = 0

    async def parts() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 65536
            yield b" " * 65536

    length = {"content-length": str(MOST_BYTES + 1)} if announced else {}
    answer = await http.post("/events", content=parts(), headers=WITH_KEY | length)

    assert answer.status_code == 413
    assert read <= (0 if announced else MOST_BYTES + 65536)
    assert store.buried == []


async def test_an_event_of_a_whole_megabyte_is_taken(http: httpx.AsyncClient, store: Store) -> None:
    event = '{"id": "' + "x" * (1024 * 1024 - 10) + '"}'

    answer = await http.post("/events", content=f"[{event}]", headers=WITH_KEY)

    assert answer.status_code == 200
    assert store.stored == [event]


# --- secrets, and anything at all ---


async def test_no_answer_and_no_log_line_holds_the_key(
    store: Store, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = []
    with caplog.at_level(logging.DEBUG, "suture"), caplog.at_level(logging.DEBUG, "uvicorn"):
        async with (
            served(store.app(), "127.0.0.1", 0) as address,
            httpx.AsyncClient(base_url=address) as http,
        ):
            for method in ("POST", "OPTIONS", "GET"):
                for path in ("/events", "/events/", "/nowhere"):
                    for body in (EVENT, "{", json.dumps(VALIDATION)):
                        answer = await http.request(
                            method,
                            f"{path}?code={KEY}",
                            content=body,
                            headers={"content-type": "application/json"},
                        )
                        texts.append(f"{answer.status_code} {answer.headers} {answer.text}")
            wrong = await http.post(f"/events?code={KEY}x", headers={"x-suture-key": KEY})
            texts.append(f"{wrong.status_code} {wrong.headers} {wrong.text}")
    assert texts[-1].startswith("401")
    assert sum(text.startswith("200") for text in texts) == 3
    printed = capfd.readouterr()
    assert KEY not in "".join(texts) + caplog.text + printed.out + printed.err
    assert KEY not in repr(WebhookAuth(keys=[SecretStr(KEY)]))


async def test_over_tls_on_a_real_socket(store: Store, tmp_path: Path) -> None:
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(key)
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    trust = ssl.create_default_context()
    ca.configure_trust(trust)

    async with (
        served(store.app(), "127.0.0.1", 0, certificate=certificate, key=key) as address,
        httpx.AsyncClient(verify=trust) as http,
    ):
        answer = await http.post(f"{address}/events", json=[json.loads(EVENT)], headers=WITH_KEY)

    assert address.startswith("https://127.0.0.1:")
    assert answer.status_code == 200
    assert "server" not in answer.headers
    assert len(store.stored) == 1
    async with httpx.AsyncClient(verify=trust) as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(address)


async def test_a_port_that_is_taken_and_a_file_that_is_none_are_said(
    store: Store, tmp_path: Path
) -> None:
    async with served(store.app(), "127.0.0.1", 0) as address:
        with pytest.raises(OSError, match="in use"):
            async with served(store.app(), "127.0.0.1", int(address.rpartition(":")[2])):
                pass
    (tmp_path / "cert.pem").write_text("nothing")
    with pytest.raises(ssl.SSLError):
        async with served(
            store.app(),
            "127.0.0.1",
            0,
            certificate=tmp_path / "cert.pem",
            key=tmp_path / "cert.pem",
        ):
            pass


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
_BODIES = (
    st.binary(max_size=300)
    | st.text(max_size=300).map(lambda text: text.encode(errors="surrogatepass"))
    | _JSON.map(lambda value: json.dumps(value).encode())
    | st.lists(st.sampled_from([EVENT, CLOUD_EVENT, "{}", "1", ",", "]", " "]), max_size=5).map(
        lambda parts: ("[" + ",".join(parts) + "]").encode()
    )
)
_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "x-suture-key": st.sampled_from([KEY, KEY, KEY, "wrong"]),
        "content-type": st.sampled_from(
            ["application/json", "application/cloudevents+json", "text/plain", ";;", ""]
        ),
        "content-length": st.sampled_from(["5", "x", "9" * 30, "-1", "²"]),
        "aeg-event-type": st.sampled_from(["SubscriptionValidation", "Notification", "?"]),
        "ce-specversion": st.just("1.0"),
        "ce-id": st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=9),
        "webhook-request-origin": st.sampled_from(["eventgrid.azure.net", "x"]),
    },
)


@settings(max_examples=300, deadline=None)
@given(
    method=st.sampled_from(["POST", "POST", "POST", "OPTIONS", "GET"]),
    query=st.binary(max_size=20),
    headers=_HEADERS,
    body=_BODIES,
    down=st.booleans(),
)
def test_whatever_comes_is_answered_as_documented(
    method: str, query: bytes, headers: dict[str, str], body: bytes, down: bool
) -> None:
    store = Store(down=down)

    status = asyncio.run(_status(store.app(), method, query, headers, body))

    assert status in ANSWERS
    if headers.get("x-suture-key") != KEY:
        assert store.stored == store.buried == []
    for text in store.stored:
        assert isinstance(json.loads(text), dict)
    if store.stored or store.buried:
        assert status == 200


async def _status(
    app: ASGIApp, method: str, query: bytes, headers: dict[str, str], body: bytes
) -> int:
    """Past any client, which would not send half of this."""
    statuses = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    scope = {
        "type": "http",
        "method": method,
        "path": "/events",
        "root_path": "",
        "query_string": query,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
    }
    await app(scope, receive, send)
    [status] = statuses
    assert isinstance(status, int)
    return status
