"""Bearer tokens of Event Grid's, checked against the keys that Entra publishes for a tenant."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx
import jwt

from tasks.inventory import AUTHORITY

logger = logging.getLogger("suture.event_webhook")

# Event Grid's application: the same in every tenant of the public cloud.
EVENT_GRID = "4962773b-9cdb-44cf-a8bf-237846a00ab7"
# Who signs tokens of version 1, where it is not the authority of the public cloud.
V1_ISSUERS = {"https://login.partner.microsoftonline.cn": "https://sts.chinacloudapi.cn"}
PUBLIC_V1_ISSUER = "https://sts.windows.net"

FRESH_SECONDS = 3600.0  # keys this old are asked for again
LASTING_SECONDS = 86400.0  # while Entra does not answer, keys this old still count
PAUSE_SECONDS = 10.0  # the least between two questions: made-up key ids cost no more
LEEWAY_SECONDS = 60
MOST_TOKEN = 16 * 1024  # characters


class WrongToken(Exception):
    """The token is none of this tenant's for this audience, or its time is up."""


class ForeignToken(WrongToken):
    """A token of this tenant's for this audience that another application was given."""


class KeysUnavailable(Exception):
    """Entra did not say by which keys it signs."""


class EntraTokens:
    """Checks tokens that ``tenant`` (its id) issued for ``audience`` to ``application``.

    ``audience`` is the application id or the id URI of the webhook's own app registration, as the
    event subscription names it. No role is asked for: AzureEventGridSecureWebhookSubscriber is what
    Event Grid wants of whoever points a subscription at that registration, before it asks for a
    token. ``http`` makes a client for each question to Entra.
    """

    def __init__(
        self,
        tenant: str,
        audience: str,
        *,
        application: str = EVENT_GRID,
        authority: str = AUTHORITY,
        http: Callable[[], httpx.AsyncClient] = httpx.AsyncClient,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        authority = authority.rstrip("/")
        self._audience = audience
        self._application = application
        self._configuration = f"{authority}/{tenant}/v2.0/.well-known/openid-configuration"
        self._scheme = authority.partition(":")[0]
        self._issuers = (
            f"{V1_ISSUERS.get(authority, PUBLIC_V1_ISSUER)}/{tenant}/",
            f"{authority}/{tenant}/v2.0",
        )
        self._http = http
        self._clock = clock
        self._lock = asyncio.Lock()
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = self._asked_at = float("-inf")

    async def check(self, token: str) -> None:
        """Raises WrongToken or, for another application's, ForeignToken; and KeysUnavailable."""
        if len(token) > MOST_TOKEN:
            raise WrongToken
        try:
            kid = jwt.get_unverified_header(token).get("kid")
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise WrongToken from None
        if not isinstance(kid, str):
            raise WrongToken
        key = await self._key(kid)
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=self._audience,
                issuer=self._issuers,
                leeway=LEEWAY_SECONDS,
                options={"require": ["iss", "aud", "exp", "nbf"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            # The library's own words could quote the token.
            raise WrongToken from None
        # Tokens of version 1 name the application in appid, of version 2 in azp.
        if [claims[name] for name in ("appid", "azp") if name in claims] != [self._application]:
            raise ForeignToken

    async def _key(self, kid: str) -> jwt.PyJWK:
        async with self._lock:
            now = self._clock()
            wanted = kid not in self._keys or now - self._read_at > FRESH_SECONDS
            if wanted and now - self._asked_at > PAUSE_SECONDS:
                self._asked_at = now
                await self._read_keys()
            lasting = self._clock() - self._read_at <= LASTING_SECONDS
            if lasting and kid in self._keys:
                return self._keys[kid]
            if self._read_at < self._asked_at:
                raise KeysUnavailable
            raise WrongToken

    async def _read_keys(self) -> None:
        """Ask Entra; if it does not answer, the keys stay as they were."""
        try:
            async with self._http() as http:
                configuration = await _document(http, self._configuration)
                address = httpx.URL(configuration["jwks_uri"])
                if address.scheme != self._scheme:
                    raise ValueError
                keys = jwt.PyJWKSet.from_dict(await _document(http, str(address)))
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            jwt.PyJWTError,
            ValueError,
            TypeError,
            KeyError,
        ) as error:
            logger.warning("Entra's signing keys could not be read: %s", type(error).__name__)
            return
        self._keys = {key.key_id: key for key in keys.keys if key.key_id}
        self._read_at = self._asked_at


async def _document(http: httpx.AsyncClient, address: str) -> dict[str, Any]:
    answer = await http.get(address, timeout=10)
    document = answer.raise_for_status().json()
    if not isinstance(document, dict):
        raise TypeError
    return document
