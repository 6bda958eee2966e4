"""The Azure read path: tokens from azure-identity, GETs by aiohttp and orjson, pages by nextLink.

The management SDKs stay out: azure-mgmt-network costs 330 MB to import and 25 to 40 times the CPU
to read a list. Nothing is kept per subscription.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestTimeoutError,
    ServiceResponseTimeoutError,
)
from azure.identity.aio import CertificateCredential, ClientSecretCredential
from yarl import URL

from tasks.clouds.aws_credentials import environment
from tasks.clouds.budgets import Budgets, arm_key
from tasks.clouds.retrying import TryAgain, patiently, retry_after_seconds
from tasks.clouds.transport import Limits, faults, open_http, trust
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

REFRESH_SECONDS = 300  # a token is replaced this long before it ends
PUBLIC_AUTHORITY = "https://login.microsoftonline.com"
_AADSTS = re.compile(r"AADSTS\d+")
# Only these say that the resource itself is gone. A 404 from a proxy, or for a subscription that
# this identity does not see, proves nothing.
_GONE = {"ResourceNotFound", "ResourceGroupNotFound", "NotFound", "ParentResourceNotFound"}


class AzureApi:
    """Reads ARM as one application of one tenant. Use as an async context manager."""

    def __init__(
        self, source: AzureSource, limits: Limits | None = None, budgets: Budgets | None = None
    ) -> None:
        self._source = source
        self._limits = limits or Limits()
        self._budgets = budgets if budgets is not None else Budgets()
        self._origin = URL(source.resource_manager).origin()
        self._token = ""
        self._refresh_at = 0.0
        self._token_lock = asyncio.Lock()
        self.calls = 0  # ARM requests sent so far, retries included

    async def __aenter__(self) -> AzureApi:
        self._credential = _credential(self._source, self._limits)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._credential)
            self._http = open_http(self._limits, self._source.ca_file)
            await stack.enter_async_context(self._http)
            self._closing = stack.pop_all()
        return self

    async def __aexit__(self, *_exc: object) -> None:
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
        return await patiently(lambda: self._exchange(url), self._limits.patience, budget)

    async def _exchange(self, url: URL) -> dict[str, Any]:
        operation = f"GET {url.path}"
        headers = {"Authorization": f"Bearer {await self._fresh_token()}"}
        host = self._origin.authority
        self.calls += 1
        with faults(operation, host):
            async with self._http.get(url, headers=headers, allow_redirects=False) as response:
                body = await response.read()
        answer = _json_object(body)
        if response.status == 200 and answer is not None:
            return answer
        raise _failure(operation, response, answer)

    async def _fresh_token(self) -> str:
        if time.time() >= self._refresh_at:
            async with self._token_lock:
                if time.time() >= self._refresh_at:
                    await self._renew_token()
        return self._token

    async def _renew_token(self) -> None:
        # As the SDK writes it: one slash between audience and .default.
        scope = f"{self._source.audience.rstrip('/')}/.default"
        try:
            issued = await self._credential.get_token(scope)
        except AzureError as error:
            raise _token_failure(error) from None
        self._token = issued.token
        # Half its life at the latest, for a cloud whose tokens are shorter than the margin.
        margin = min(REFRESH_SECONDS, (issued.expires_on - time.time()) / 2)
        self._refresh_at = issued.expires_on - margin


def _credential(
    source: AzureSource, limits: Limits
) -> ClientSecretCredential | CertificateCredential:
    trust(source.ca_file)  # says in words what the SDK would say in a stack trace
    options: dict[str, Any] = {
        "authority": source.authority,
        "disable_instance_discovery": source.authority != PUBLIC_AUTHORITY,
        "connection_verify": source.ca_file or True,
        "connection_timeout": limits.connect_seconds,
        "read_timeout": limits.request_seconds,
        "retry_total": limits.patience.attempts - 1,
        "retry_backoff_factor": limits.patience.first_wait,
        "retry_backoff_max": limits.patience.longest_wait,
        "timeout": limits.patience.seconds,
    }
    if source.client_secret_env:
        secret = environment(source.client_secret_env)
        return ClientSecretCredential(source.tenant, source.client_id, secret, **options)
    try:
        return CertificateCredential(
            source.tenant, source.client_id, source.client_certificate, **options
        )
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "no key and certificate in it"
        raise BadInput(
            "client_certificate",
            f"{source.client_certificate} cannot be used: {problem}.",
            "Name a PEM file with the private key and the certificate.",
        ) from None


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return answer if isinstance(answer, dict) else None


def _failure(
    operation: str, response: aiohttp.ClientResponse, answer: dict[str, Any] | None
) -> CloudError | TryAgain:
    """The exception for one answer of ARM's that is not a JSON object with status 200."""
    status = response.status
    error = (answer or {}).get("error")
    error = error if isinstance(error, dict) else {}
    code = str(error.get("code") or status)
    message = _short(str(error.get("message") or f"HTTP {status}"))
    retry_after = retry_after_seconds(response.headers.get("Retry-After"))
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


def _token_failure(error: AzureError) -> SutureError:
    """Why Entra gave no token. Its own words carry no secret, but many lines of trace ids."""
    found = _AADSTS.search(str(error))
    code = found.group() if found else ""
    message = _short(str(error.message).strip().splitlines()[0] if error.message else "")
    match error:
        case ServiceRequestTimeoutError() | ServiceResponseTimeoutError():
            return CloudTimeout("the authority did not answer in time", operation="get token")
        case HttpResponseError(status_code=429):
            return Throttled(message, code=code, operation="get token")
        case ClientAuthenticationError():
            return AccessRefused(message, code=code, operation="get token")
        case _:
            return CloudError(message, code=code, operation="get token")


def _short(message: str) -> str:
    return message if len(message) <= 300 else message[:299] + "…"
