"""The Azure read path: tokens from azure-identity, requests by our own client, orjson, all pages.

The management SDKs stay out: azure-mgmt-network costs 330 MB to import and 25 to 40 times the CPU
to read a list. azure-identity comes in when a source is opened. Nothing is kept per subscription.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import orjson
from yarl import URL

from tasks.calls import CallMade, being_recorded, note
from tasks.clouds.budgets import Budgets, arm_key
from tasks.clouds.http_client import HttpFault, Origin
from tasks.clouds.retrying import TryAgain, patiently, retry_after_seconds
from tasks.clouds.transport import USER_AGENT, Limits, open_http, what_failed
from tasks.errors import (
    AccessRefused,
    CloudError,
    Conflict,
    ResourceGone,
    SutureError,
    Throttled,
)
from tasks.inventory import AzureSource

REFRESH_SECONDS = 300  # a token is replaced this long before it ends
AGAIN_SECONDS = 30  # … and when that fails, tried again after this long while the old one is good
GRAPH = "/providers/Microsoft.ResourceGraph/resources"
GRAPH_API = "2024-04-01"
# Only these say that the resource itself is gone. A 404 from a proxy, or for a subscription that
# this identity does not see, proves nothing.
_GONE = {"ResourceNotFound", "ResourceGroupNotFound", "NotFound", "ParentResourceNotFound"}


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON object that came with status 200, and its headers."""

    body: dict[str, Any]
    headers: Mapping[str, str]


class AzureApi:
    """Reads ARM as one application of one tenant. Use as an async context manager."""

    def __init__(
        self, source: AzureSource, limits: Limits | None = None, budgets: Budgets | None = None
    ) -> None:
        self._source = source
        self._limits = limits or Limits()
        self._budgets = budgets if budgets is not None else Budgets()
        self._origin = URL(source.resource_manager).origin()
        self._where = Origin(
            self._origin.scheme == "https", self._origin.host or "", self._origin.port or 443
        )
        self._token = ""
        self._token_ends = 0.0
        self._refresh_at = 0.0
        self._renewal: asyncio.Task[None] | None = None
        self._graph_resumes = 0.0  # time.monotonic() from which the graph may be asked again
        self.calls = 0  # ARM requests sent so far, retries included

    async def __aenter__(self) -> AzureApi:
        # 15 MB and 0.2 s that a process without an Azure source does not pay.
        from tasks.clouds import azure_credentials

        self._credential = azure_credentials.credential(self._source, self._limits)
        self._ask_for_token = azure_credentials.token
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._credential)
            self._http = open_http(self._limits, self._source.ca_file)
            stack.push_async_callback(self._http.close)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.wait([self._renewal])
        await self._closing.aclose()

    async def get(self, path: str, api_version: str, **query: str) -> dict[str, Any]:
        """The JSON object at ``path``, which begins with a slash and is not yet quoted.

        Raises AccessRefused, Throttled, CloudTimeout, ResourceGone or another CloudError;
        ``code`` on it is ARM's.
        """
        asked = urlencode({"api-version": api_version, **query})
        address = f"{self._source.resource_manager}{quote(path)}?{asked}"
        return await self._get(URL(address, encoded=True))

    async def items(self, path: str, api_version: str, **query: str) -> AsyncIterator[Any]:
        """The items of a list, from all its pages."""
        page = await self.get(path, api_version, **query)
        seen: set[str] = set()
        while True:
            if not isinstance(page.get("value"), list):
                # A strange answer must not pass for an empty subscription.
                raise CloudError("the answer has no list of values", operation=f"GET {path}")
            for item in page["value"]:
                yield item
            link = page.get("nextLink")
            if not link:
                return
            if link in seen:
                raise CloudError("the same page came twice", operation=f"GET {path}")
            seen.add(link)
            page = await self._get(self._next(link, path))

    async def query(self, query: str, subscriptions: Sequence[str], *, top: int) -> dict[str, Any]:
        """What Resource Graph answers to ``query`` (Kusto) over at most 1,000 ``subscriptions``:
        {"totalRecords", "count", "data": [row], "resultTruncated"}, with ``top`` (at most 1,000)
        rows of it. "$skipToken" is there when there are more.

        It waits while the identity's quota (15 queries in 5 s, unless raised) is known to be used
        up. Raises what ``get`` raises. Source: learn.microsoft.com/rest/api/azure-resourcegraph.
        """
        options = {"resultFormat": "objectArray", "$top": top}
        asked = {"subscriptions": [*subscriptions], "query": query, "options": options}
        body = orjson.dumps(asked)
        address = f"{self._source.resource_manager}{GRAPH}?api-version={GRAPH_API}"
        url = URL(address, encoded=True)

        async def ask() -> Answer:
            await asyncio.sleep(self._graph_resumes - time.monotonic())
            return await self._exchange("POST", url, body)

        budget = self._budgets.of(arm_key(self._source.tenant, GRAPH))
        answer = await patiently(ask, self._limits.patience, budget)
        if answer.headers.get("x-ms-user-quota-remaining") == "0":
            rest = _seconds(answer.headers.get("x-ms-user-quota-resets-after", ""))
            self._graph_resumes = time.monotonic() + rest
        return answer.body

    def _next(self, link: str, path: str) -> URL:
        """The address of a following page: on the same host, for the token goes with it."""
        try:
            url = URL(link, encoded=True)
            same_host = url.origin() == self._origin
        except (ValueError, TypeError):
            same_host = False
        if not same_host:
            raise CloudError("the next page is on another host: not asked", operation=f"GET {path}")
        return url

    async def _get(self, url: URL) -> dict[str, Any]:
        budget = self._budgets.of(arm_key(self._source.tenant, url.path))
        answer = await patiently(lambda: self._exchange("GET", url), self._limits.patience, budget)
        return answer.body

    async def _exchange(self, method: str, url: URL, body: bytes = b"") -> Answer:
        operation = f"{method} {url.path}"
        about_body = (
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        )
        head = (
            f"{method} {url.raw_path_qs} HTTP/1.1\r\n"
            f"Host: {self._where.authority}\r\n"
            f"User-Agent: {USER_AGENT}\r\n"
            "Accept: application/json\r\n"
            "Accept-Encoding: gzip\r\n"
            f"{about_body}"
            f"Authorization: Bearer {await self._fresh_token()}\r\n\r\n"
        )
        self.calls += 1
        try:
            said = await self._http.ask(self._where, head.encode("latin-1") + body)
        except HttpFault as fault:
            note(CallMade(operation=method, target=url.path))
            raise what_failed(fault, operation) from None
        if being_recorded():
            note(_made(method, url.path, said.status, said.headers))
        answer = _json_object(said.body)
        if said.status == 200 and answer is not None:
            return Answer(answer, said.headers)
        raise _failure(operation, said.status, said.headers, answer)

    async def _fresh_token(self) -> str:
        """The token that all subscriptions share. It is renewed once, however many wait for it."""
        if time.time() >= self._refresh_at:
            if self._renewal is None or self._renewal.done():
                self._renewal = asyncio.create_task(self._renew_token())
                self._renewal.add_done_callback(_noticed)
            # Shielded: whoever gives up waiting takes the token from nobody else.
            await asyncio.shield(self._renewal)
        return self._token

    async def _renew_token(self) -> None:
        try:
            token, ends = await self._ask_for_token(self._credential, self._source.audience)
        except SutureError:
            if time.time() >= self._token_ends:
                raise
            self._refresh_at = min(time.time() + AGAIN_SECONDS, self._token_ends)
            return
        self._token, self._token_ends = token, ends
        # Half its life at the latest, for a cloud whose tokens are shorter than the margin.
        self._refresh_at = ends - min(REFRESH_SECONDS, (ends - time.time()) / 2)


def _made(method: str, path: str, status: int, headers: Mapping[str, str]) -> CallMade:
    """The correlation id is the one that the activity log shows."""
    number = headers.get("x-ms-correlation-request-id") or headers.get("x-ms-request-id") or ""
    return CallMade(operation=method, target=path, request_id=number, status=status)


def _noticed(task: asyncio.Task[None]) -> None:
    """Its error is known, even when everybody who waited for it has gone."""
    if not task.cancelled():
        task.exception()


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None


def _failure(
    operation: str, status: int, headers: Mapping[str, str], answer: dict[str, Any] | None
) -> CloudError | TryAgain:
    """The exception for one answer of ARM's that is not a JSON object with status 200."""
    error = _reason((answer or {}).get("error"))
    code = str(error.get("code") or status)
    message = _short(str(error.get("message") or f"HTTP {status}"))
    retry_after = retry_after_seconds(headers.get("retry-after"))
    if status in (429, 503):
        return TryAgain(Throttled(message, code=code, operation=operation), retry_after)
    if status in (401, 403):
        return AccessRefused(message, code=code, operation=operation)
    if status == 404 and code in _GONE:
        return ResourceGone(message, code=code, operation=operation)
    if status in (409, 412):
        return Conflict(message, code=code, operation=operation)
    if status < 300:
        message = f"answered {status} with a body that is not a JSON object"
        return TryAgain(CloudError(message, operation=operation))
    failure = CloudError(message, code=code, operation=operation)
    return TryAgain(failure, retry_after) if status >= 500 else failure


def _reason(error: object) -> dict[str, Any]:
    """ARM's error, or the first detail of one that says nothing but BadRequest, as the graph's."""
    if not isinstance(error, dict):
        return {}
    details = error.get("details")
    if error.get("code") == "BadRequest" and isinstance(details, list) and details:
        return details[0] if isinstance(details[0], dict) else error
    return error


def _seconds(text: str) -> float:
    """hh:mm:ss in seconds; 0 for anything else."""
    try:
        hours, minutes, seconds = (int(part) for part in text.split(":"))
    except ValueError:
        return 0.0
    return hours * 3600.0 + minutes * 60 + seconds


def _short(message: str) -> str:
    return message if len(message) <= 300 else message[:299] + "…"
