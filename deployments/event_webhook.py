"""The webhook for events of Azure Event Grid, in its own schema or CloudEvents 1.0: an ASGI app.

``POST /events`` brings events; what is answered decides what Event Grid does with them:

===  ===============================================================================================
200  all are stored, or buried with a reason; also the answer to both handshakes and a farewell
400  cannot be read, and there was nowhere to bury it. Not tried again: dead-lettered, or dropped
401  no credentials, or wrong ones; 403 those of another application, or a sender not allowed
404  another path; 405 another method
413  too large, 415 not JSON
503  not stored, for now: tried again, after 30 s and more
===  ===============================================================================================

The handshake of Event Grid's schema is a POST and is authenticated like every other: Event Grid
sends it with the same address, delivery properties and token. That of CloudEvents is an OPTIONS
request, see ``WebhookAuth.check_handshake``. The addresses that both offer for an answer later on
(validationUrl, WebHook-Request-Callback) are never called: whoever can send could choose them.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Awaitable, Callable, Collection
from typing import Any
from urllib.parse import unquote

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from deployments.webhook_auth import Refused, WebhookAuth
from tasks.errors import BadEvent

logger = logging.getLogger("suture.event_webhook")

PATH = "/events"
# An event may have 1 MiB, and a batch of that size comes in brackets.
MOST_BYTES = 1024 * 1024 + 64 * 1024
MOST_CODE = 1024  # characters of a validation code
ORIGINS = ("eventgrid.azure.net",)
VALIDATION = "Microsoft.EventGrid.SubscriptionValidationEvent"
KINDS = frozenset(
    {"application/json", "application/cloudevents+json", "application/cloudevents-batch+json"}
)
SAFE_HEADERS = {"cache-control": "no-store", "x-content-type-options": "nosniff"}

Accept = Callable[[str], Awaitable[None]]
Bury = Callable[[str, str], Awaitable[None]]

_SPACE = re.compile(r"[ \t\r\n]*")


class Unreadable(Exception):
    """A body that holds no events. Its words repeat nothing of the body."""


def event_webhook(
    accept: Accept,
    auth: WebhookAuth,
    *,
    bury: Bury | None = None,
    origins: Collection[str] = ORIGINS,
    most_bytes: int = MOST_BYTES,
) -> ASGIApp:
    """The app. ``accept`` stores the JSON text of one event for good, as it was sent.

    It raises BadEvent for what can never be read, and anything else for what may be stored later;
    it is given an event again if another of its batch could not be stored. ``bury`` keeps what
    cannot be read, with the reason; without it such a request is answered 400. ``origins`` are the
    senders that CloudEvents' handshake permits.
    """
    webhook = _Webhook(accept, auth, bury, frozenset(one.lower() for one in origins), most_bytes)
    app = Starlette(routes=[Route(PATH, webhook.answer, methods=["POST", "OPTIONS"])])
    # A redirect would repeat the address with the key in it.
    app.router.redirect_slashes = False
    return app


class _Webhook:
    def __init__(
        self,
        accept: Accept,
        auth: WebhookAuth,
        bury: Bury | None,
        origins: frozenset[str],
        most_bytes: int,
    ) -> None:
        self._accept = accept
        self._auth = auth
        self._bury = bury
        self._origins = origins
        self._most_bytes = most_bytes

    async def answer(self, request: Request) -> Response:
        """One request of either method."""
        try:
            answer = self._permission if request.method == "OPTIONS" else self._delivery
            response = await answer(request)
        except Refused as refused:
            logger.warning("A request was answered %s: %s", refused.status, refused.words)
            response = JSONResponse({"detail": refused.words}, refused.status)
            if refused.status == 401 and self._auth.takes_tokens:
                response.headers["www-authenticate"] = "Bearer"
        response.headers.update(SAFE_HEADERS)
        return response

    async def _permission(self, request: Request) -> Response:
        """CloudEvents' handshake: may this sender deliver?"""
        await self._auth.check_handshake(request.headers, request.scope["query_string"])
        origin = request.headers.get("webhook-request-origin", "").strip()
        if not origin:
            raise Refused(400, "WebHook-Request-Origin is missing: this is no handshake.")
        if origin.lower() not in self._origins:
            raise Refused(403, "This sender is not allowed to deliver events here.")
        logger.info("A subscription's handshake was answered")
        headers = {
            "webhook-allowed-origin": origin,
            "webhook-allowed-rate": "*",
            "allow": "POST, OPTIONS",
        }
        return Response(status_code=200, headers=headers)

    async def _delivery(self, request: Request) -> Response:
        headers = request.headers
        await self._auth.check(headers, request.scope["query_string"])
        reason = headers.get("aeg-event-type", "").strip().lower()
        if reason == "unsubscribe":
            logger.warning("A subscription was deleted: it delivers no more events")
            return JSONResponse({"stored": 0, "buried": 0})
        kind = _kind(headers)
        body = await self._body(request)
        try:
            texts = _texts(headers, kind, body)
        except Unreadable as problem:
            return await self._unreadable(body, str(problem))
        if (code := _validation_code(texts, expected=reason == "subscriptionvalidation")) is None:
            return await self._store(texts)
        logger.info("A subscription's handshake was answered")
        return JSONResponse({"validationResponse": code})

    async def _body(self, request: Request) -> bytes:
        too_large = Refused(413, f"The request is larger than {self._most_bytes:,} bytes.")
        announced = request.headers.get("content-length", "")
        if announced.isascii() and announced.isdigit() and int(announced) > self._most_bytes:
            raise too_large
        body = bytearray()
        try:
            async for part in request.stream():
                body += part
                if len(body) > self._most_bytes:
                    raise too_large
        except ClientDisconnect:
            raise Refused(400, "The request ended early.") from None
        return bytes(body)

    async def _unreadable(self, body: bytes, problem: str) -> Response:
        if self._bury is None or not body.strip():
            raise Refused(400, problem)
        await self._put_away(self._bury, body.decode(errors="replace"), problem)
        return JSONResponse({"stored": 0, "buried": 1})

    async def _store(self, texts: list[str]) -> Response:
        """Store each; in the order in which they came."""
        problems = []
        for text in texts:
            try:
                await self._accept(text)
            except BadEvent as bad:
                problems.append((text, str(bad)))
            except Exception as error:  # noqa: BLE001 - whatever it is, Event Grid sends it again
                # By name only: a database's error quotes what could not be stored.
                logger.warning("An event could not be stored: %s", type(error).__name__)
                raise Refused(503, "The events could not be stored just now. Try again.") from None
        if problems and self._bury is None:
            raise Refused(400, "An event cannot be read, and there is nowhere to put it.")
        for text, problem in problems:
            assert self._bury is not None
            await self._put_away(self._bury, text, problem)
        return JSONResponse({"stored": len(texts) - len(problems), "buried": len(problems)})

    async def _put_away(self, bury: Bury, text: str, problem: str) -> None:
        try:
            # No database takes a NUL in a text, and the rest is worth reading.
            await bury(text.replace("\x00", "\N{REPLACEMENT CHARACTER}"), problem)
        except Exception as error:  # noqa: BLE001 - whatever it is, Event Grid sends it again
            logger.warning("An event could not be buried: %s", type(error).__name__)
            raise Refused(503, "The events could not be stored just now. Try again.") from None


def _kind(headers: Headers) -> str:
    """The media type, one of ours."""
    kind, *parameters = (
        part.strip().lower() for part in headers.get("content-type", "").split(";")
    )
    charsets = [part[8:].strip('"') for part in parameters if part.startswith("charset=")]
    if kind not in KINDS or any(charset not in ("utf-8", "utf8") for charset in charsets):
        raise Refused(415, "Send JSON in UTF-8: application/json or application/cloudevents+json.")
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refused(415, "Send the request uncompressed.")
    return kind


def _texts(headers: Headers, kind: str, body: bytes) -> list[str]:
    """The JSON texts of the events in a request, character for character. Raises Unreadable."""
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("The request is not UTF-8.") from None
    if kind == "application/json" and "ce-specversion" in headers:
        return [_from_headers(headers, text)]
    try:
        return _elements(text)
    except (ValueError, RecursionError):
        # The parser's own words could quote the body.
        raise Unreadable("The request is not a JSON object or a list of them.") from None


def _from_headers(headers: Headers, data: str) -> str:
    """An event of CloudEvents' binary mode in its JSON format: attributes as headers, data as body.

    https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md
    """
    attributes = {
        name.lower().removeprefix("ce-"): unquote(value, errors="replace")
        for name, value in headers.items()
        if name.lower().startswith("ce-")
    }
    attributes.pop("data", None)
    attributes["datacontenttype"] = "application/json"
    text = json.dumps(attributes)
    if not data.strip():
        return text
    try:
        _check_json(data)
    except (ValueError, RecursionError):
        raise Unreadable("The event's data is not valid JSON.") from None
    return f'{text[:-1]}, "data": {data.strip()}}}'


def _no_number(name: str) -> Any:
    raise ValueError(name)


# NaN and Infinity are no JSON, and no database would take them.
_DECODER = json.JSONDecoder(parse_constant=_no_number)


def _check_json(text: str) -> None:
    _DECODER.decode(text)


def _elements(text: str) -> list[str]:
    """The text of an object, or those of a list's elements. Raises ValueError for another text."""
    at = _past_space(text, 0)
    if not text.startswith("[", at):
        return [_object_at(text, at, last=True)]
    at = _past_space(text, at + 1)
    elements: list[str] = []
    while not text.startswith("]", at):
        element = _object_at(text, at)
        elements.append(element)
        at = _past_space(text, at + len(element))
        if text.startswith(",", at):
            at = _past_space(text, at + 1)
            if text.startswith("]", at):
                raise ValueError
        elif not text.startswith("]", at):
            raise ValueError
    if _past_space(text, at + 1) != len(text):
        raise ValueError
    return elements


def _object_at(text: str, at: int, *, last: bool = False) -> str:
    value, end = _DECODER.raw_decode(text, at)
    if not isinstance(value, dict) or (last and _past_space(text, end) != len(text)):
        raise ValueError
    return text[at:end]


def _past_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _validation_code(texts: list[str], *, expected: bool) -> str | None:
    """The code of a request that is a handshake of Event Grid's schema; None for other requests.

    ``expected`` says that the request's header calls it one. Raises Refused for one without a code.
    """
    event = json.loads(texts[0]) if len(texts) == 1 else {}
    if not expected and event.get("eventType") != VALIDATION:
        return None
    data = event.get("data")
    if isinstance(data, str):
        # In a CloudEvent Event Grid writes the data as a text.
        try:
            data = json.loads(data)
        except (ValueError, RecursionError):
            data = None
    code = data.get("validationCode") if isinstance(data, dict) else None
    if not isinstance(code, str) or not 0 < len(code) <= MOST_CODE:
        raise Refused(400, "The subscription's validation holds no validationCode.")
    return code
