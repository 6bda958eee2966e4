"""Checking AWS Signature Version 4 as a service does. Pure.

After "Create a signed AWS API request" in the IAM User Guide.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

ALGORITHM = "AWS4-HMAC-SHA256"
UNSIGNED = "UNSIGNED-PAYLOAD"
_UNRESERVED = "-_.~"


@dataclass(frozen=True, slots=True)
class Authorization:
    """What an Authorization header says: who signed, for when and where, over which headers."""

    access_key: str
    date: str  # YYYYMMDD
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def parse_authorization(header: str) -> Authorization | None:
    """None where the header is missing or is not Signature Version 4."""
    match = re.fullmatch(
        r"AWS4-HMAC-SHA256\s+Credential=([^/,\s]+)/(\d{8})/([a-z0-9-]+)/([a-z0-9-]+)/aws4_request"
        r",\s*SignedHeaders=([a-z0-9;_.-]+),\s*Signature=([0-9a-f]{64})",
        header.strip(),
    )
    if match is None:
        return None
    access_key, date, region, service, signed, signature = match.groups()
    return Authorization(access_key, date, region, service, tuple(signed.split(";")), signature)


def signature_of(
    authorization: Authorization,
    secret: str,
    *,
    method: str,
    raw_path: str,
    raw_query: str,
    headers: Mapping[str, str],
    timestamp: str,
    payload_hash: str,
) -> str:
    """The signature this request should carry. ``headers`` are keyed in lower case."""
    canonical = "\n".join(
        (
            method,
            _canonical_path(raw_path, double=authorization.service != "s3"),
            _canonical_query(raw_query),
            *(
                f"{name}:{_squeezed(headers.get(name, ''))}"
                for name in authorization.signed_headers
            ),
            "",
            ";".join(authorization.signed_headers),
            payload_hash,
        )
    )
    to_sign = "\n".join(
        (ALGORITHM, timestamp, authorization.scope, hashlib.sha256(canonical.encode()).hexdigest())
    )
    key = f"AWS4{secret}".encode()
    for part in (*authorization.scope.split("/"), to_sign):
        key = hmac.digest(key, part.encode(), "sha256")
    return key.hex()


def _canonical_path(raw_path: str, *, double: bool) -> str:
    """S3 encodes a path once; every other service encodes the encoded path again."""
    encoded = quote(unquote(raw_path or "/"), safe="/" + _UNRESERVED)
    return quote(encoded, safe="/" + _UNRESERVED) if double else encoded


def _canonical_query(raw_query: str) -> str:
    pairs = parse_qsl(raw_query.replace("+", "%2B"), keep_blank_values=True)
    encoded = sorted((quote(k, safe=_UNRESERVED), quote(v, safe=_UNRESERVED)) for k, v in pairs)
    return "&".join(f"{name}={value}" for name, value in encoded)


def _squeezed(value: str) -> str:
    return " ".join(value.split())
