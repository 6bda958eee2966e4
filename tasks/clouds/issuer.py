"""Suture as an OpenID issuer: short-lived signed statements that clouds and customers can check."""

from __future__ import annotations

import json
import logging
import os
import stat
import time
import uuid
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from jwt.algorithms import RSAAlgorithm
from pydantic import SecretStr

from tasks.errors import BadInput
from tasks.inventory import Issuer

log = logging.getLogger(__name__)

ALGORITHM = "RS256"  # the one that Entra takes from every issuer
KEY_BITS = 2048
MOST_MINUTES = 5


def assertion(
    issuer: Issuer,
    subject: str,
    audience: str,
    minutes: float = MOST_MINUTES,
    claims: Mapping[str, Any] | None = None,
) -> SecretStr:
    """A signed JWT that says ``subject`` to ``audience``, good for ``minutes``, 5 at the most.

    ``claims`` are added to the standard ones. Raises BadInput when the key file cannot be used.
    """
    if not 0 < minutes <= MOST_MINUTES:
        raise BadInput("minutes", f"an assertion lives for {MOST_MINUTES} minutes at the most.")
    now = int(time.time())
    payload = {
        **(claims or {}),
        "iss": issuer.url,
        "sub": subject,
        "aud": audience,
        "iat": now,
        "nbf": now,
        "exp": now + int(minutes * 60),
        "jti": str(uuid.uuid4()),
    }
    signed = jwt.encode(
        payload, _private_key(issuer), algorithm=ALGORITHM, headers={"kid": issuer.key_id}
    )
    return SecretStr(signed)


def documents(issuer: Issuer) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a team publishes: the OpenID configuration and the key set, in this order.

    They belong at {url}/.well-known/openid-configuration and {url}/jwks.json.
    """
    configuration = {
        "issuer": issuer.url,
        "jwks_uri": f"{issuer.url}/jwks.json",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [ALGORITHM],
    }
    public = json.loads(RSAAlgorithm.to_jwk(_private_key(issuer).public_key()))
    public.pop("key_ops", None)
    key = {**public, "kid": issuer.key_id, "use": "sig", "alg": ALGORITHM}
    return configuration, {"keys": [key]}


def generate_key(path: str | Path) -> bytes:
    """Make a private key that only its owner can read; answer with the public half in PEM.

    Raises BadInput when there is a file already: a key in use is never overwritten.
    """
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise BadInput("key_file", f"{path} exists already.", "Choose another name.") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _private_key(issuer: Issuer) -> rsa.RSAPrivateKey:
    path = Path(issuer.key_file)
    try:
        pem = path.read_bytes()
        others = stat.S_IMODE(path.stat().st_mode) & (stat.S_IRGRP | stat.S_IROTH)
    except OSError as error:
        raise BadInput("issuer.key_file", f"{path} cannot be read: {error.strerror}.") from None
    if others:
        log.warning("%s can be read by other users of this machine: chmod 600 it.", path)
    return _parsed(pem, path)


@lru_cache(maxsize=2)
def _parsed(pem: bytes, path: Path) -> rsa.RSAPrivateKey:
    """Once for each key: checking it takes as long as ten signatures."""
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError):
        # The library's own message may quote the file.
        raise BadInput(
            "issuer.key_file", f"{path} is not a private key in PEM without a password."
        ) from None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise BadInput("issuer.key_file", f"{path} is not an RSA key.")
    return key
