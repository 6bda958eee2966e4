"""Who may deliver events to the webhook: whoever holds its key, or a token of Entra's, or both."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from urllib.parse import parse_qsl

from pydantic import SecretStr
from starlette.datastructures import Headers

from deployments.entra_tokens import EntraTokens, ForeignToken, KeysUnavailable, WrongToken
from tasks import settings
from tasks.errors import BadInput
from tasks.inventory import AUTHORITY

KEY_HEADER = "x-suture-key"
KEY_PARAMETER = "code"


class Refused(Exception):
    """The webhook's own answer: an HTTP status and words that repeat nothing of the request."""

    def __init__(self, status: int, words: str) -> None:
        self.status = status
        self.words = words
        super().__init__(words)


class WebhookAuth:
    """What a delivery must show. Each of the two that is set must be shown, and one must be set.

    ``keys`` are shared secrets, any of which opens: two while one replaces the other. Event Grid
    sends one as a delivery property in the header X-Suture-Key, or in the address as ``?code=``.
    ``entra`` checks ``Authorization: Bearer``. Raises BadInput if neither is given.
    """

    def __init__(self, *, keys: Sequence[SecretStr] = (), entra: EntraTokens | None = None) -> None:
        if not keys and entra is None:
            raise BadInput(
                "SUTURE_EVENT_WEBHOOK_KEY",
                "is not set, and no tenant is: anybody could report events.",
                "Set it, or SUTURE_EVENT_WEBHOOK_TENANT and SUTURE_EVENT_WEBHOOK_AUDIENCE.",
            )
        self._keys = tuple(key.get_secret_value().encode() for key in keys)
        self._entra = entra

    @property
    def takes_tokens(self) -> bool:
        """Whether a bearer token is asked for."""
        return self._entra is not None

    async def check(self, headers: Headers, query: bytes) -> None:
        """Let a delivery pass. Raises Refused: 401 or 403, 503 if Entra cannot be asked."""
        if self._keys:
            self._check_key(_keys_shown(headers, query))
        if self._entra is not None:
            await self._check_token(headers)

    async def check_handshake(self, headers: Headers, query: bytes) -> None:
        """Let the OPTIONS request of CloudEvents pass; like ``check``, but it may show nothing.

        Event Grid sends it to the whole address, ``?code=`` with it, and to an endpoint that is
        protected by Entra with a token. Nobody promises that it sends delivery properties, and the
        specification says that this handshake is no authentication: without them it could not be
        answered otherwise. It permits deliveries only, and each of those is checked.
        """
        shown = _keys_shown(headers, query)
        if self._keys and shown:
            self._check_key(shown)
        if self._entra is not None and "authorization" in headers:
            await self._check_token(headers)

    def _check_key(self, shown: Sequence[bytes]) -> None:
        if not shown:
            raise Refused(401, "The webhook's key is missing.")
        # All are compared, whatever the first says; a key that is shown twice is none.
        matches = [hmac.compare_digest(shown[0], key) for key in self._keys]
        if len(shown) > 1 or not any(matches):
            raise Refused(401, "The webhook's key is wrong.")

    async def _check_token(self, headers: Headers) -> None:
        assert self._entra is not None
        shown = headers.getlist("authorization")
        scheme, _, token = shown[0].partition(" ") if len(shown) == 1 else ("", "", "")
        if scheme.lower() != "bearer" or not token.strip():
            raise Refused(401, "A bearer token is missing.")
        try:
            await self._entra.check(token.strip())
        except KeysUnavailable:
            raise Refused(503, "Entra's keys cannot be read just now. Try again.") from None
        except ForeignToken:
            raise Refused(403, "The bearer token is another application's.") from None
        except WrongToken:
            raise Refused(401, "The bearer token is not valid here.") from None


def auth_from_settings(authority: str = AUTHORITY) -> WebhookAuth:
    """As the environment says; ``authority`` is Entra's address. Raises BadInput."""
    trusted = settings.event_webhook_entra()
    entra = None if trusted is None else EntraTokens(*trusted, authority=authority)
    return WebhookAuth(keys=settings.event_webhook_keys(), entra=entra)


def _keys_shown(headers: Headers, query: bytes) -> list[bytes]:
    """What a request shows for a key, wherever it stands."""
    in_header = [value for name, value in headers.raw if name.lower() == KEY_HEADER.encode()]
    in_address = [
        value.encode()
        for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True)
        if name == KEY_PARAMETER
    ]
    return in_header + in_address
