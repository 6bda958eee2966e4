"""Requests that Suture's issuer signed: who signed, for whom, until when, and that only once."""

from __future__ import annotations

import ssl
import threading
import time
from http import HTTPStatus
from typing import Any

import httpx
import jwt

from deployments.opener.refused import Refused
from deployments.opener.store import Document, Store

MOST_AGE = 300  # seconds from a request's signing to its end
REQUIRED = ["iss", "aud", "exp", "iat", "jti", "cloud", "source", "account", "remediation"]


class SignedRequests:
    """Checks requests against the keys that ``issuer`` (its address) publishes."""

    def __init__(self, issuer: str, store: Store, trust: ssl.SSLContext | None = None) -> None:
        self._issuer = issuer
        self._store = store
        self._trust = trust or ssl.create_default_context()
        self._keys: jwt.PyJWKClient | None = None
        self._lock = threading.Lock()

    def verified(self, token: object, audience: str) -> dict[str, Any]:
        """The claims of a request for ``audience``, seen for the first time. Raises Refused."""
        if not isinstance(token, str):
            raise Refused(HTTPStatus.BAD_REQUEST, "the request holds no signed JWT.")
        try:
            key = self._published_keys().get_signing_key_from_jwt(token)
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=audience,
                issuer=self._issuer,
                options={"require": REQUIRED},
            )
            lives, until = int(claims["exp"]) - int(claims["iat"]), float(claims["exp"])
        except (jwt.PyJWTError, httpx.HTTPError, ValueError, TypeError) as error:
            problem = f"the request cannot be trusted: {type(error).__name__}."
            raise Refused(HTTPStatus.UNAUTHORIZED, problem) from None
        if lives > MOST_AGE:
            raise Refused(HTTPStatus.UNAUTHORIZED, "the request lives for too long.")
        if not self._store.update(f"request {claims['jti']}", lambda known: _once(known, until)):
            raise Refused(HTTPStatus.UNAUTHORIZED, "the request has been used.")
        return claims

    def _published_keys(self) -> jwt.PyJWKClient:
        with self._lock:
            if self._keys is None:
                address = f"{self._issuer}/.well-known/openid-configuration"
                answer = httpx.get(address, verify=self._trust, timeout=10)
                document = answer.raise_for_status().json()
                if document.get("issuer") != self._issuer:
                    raise jwt.InvalidIssuerError("the published issuer is another")
                self._keys = jwt.PyJWKClient(document["jwks_uri"], ssl_context=self._trust)
            return self._keys


def _once(known: Document, until: float) -> tuple[Document | None, bool]:
    """Past ``until`` nobody can use it anyway: then it may be forgotten."""
    if known:
        return None, False
    return {"expires": max(until, time.time()) + MOST_AGE}, True
