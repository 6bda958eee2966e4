"""What goes out to AWS: one operation as the bytes of a signed HTTP request.

botocore says how: its models and serializers write the call, its rulesets give the address, its
signers the text to sign. All that is the same for every account, so it is drawn up once per
operation, region and parameters, with blanks for whose call it is and when; ``sign`` fills them.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import create_request_object, prepare_request_dict
from botocore.credentials import ReadOnlyCredentials
from botocore.endpoint_provider import EndpointProvider
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.parsers import ResponseParser, create_parser
from botocore.serialize import create_serializer

from tasks.clouds.http_client import Origin
from tasks.clouds.transport import USER_AGENT


@dataclass(frozen=True, slots=True)
class AwsCredentials:
    """What signs a request. ``expires`` is in seconds since 1970, infinite for lasting keys.

    ``account`` is whose rate budgets its calls draw on: an account, or another name that all
    processes with these credentials use.
    """

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False, default=None)
    expires: float = float("inf")
    account: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Service:
    """All that botocore's data says of one service."""

    model: ServiceModel
    serializer: Any
    parser: ResponseParser
    endpoints: EndpointProvider
    paginators: Mapping[str, Any]


# Lists that come in pages without botocore having a paginator for them.
_MORE_PAGINATORS: Mapping[str, Mapping[str, Any]] = {
    "athena": {
        "ListWorkGroups": {
            "input_token": "NextToken",
            "output_token": "NextToken",
            "limit_key": "MaxResults",
            "result_key": "WorkGroups",
        }
    },
}


@cache
def service_of(name: str) -> Service:
    """Loaded once a process: the EC2 model alone takes 60 ms to read."""
    loader = Loader()
    description = loader.load_service_model(name, "service-2")
    if name == "s3":
        # The endpoint ruleset puts the bucket into the address already.
        for operation in description["operations"].values():
            http = operation["http"]
            http["requestUri"] = http["requestUri"].removeprefix("/{Bucket}")
    model = ServiceModel(description, name)
    protocol = model.resolved_protocol
    return Service(
        model=model,
        serializer=create_serializer(protocol, include_validation=False),
        parser=create_parser(protocol),
        endpoints=EndpointProvider(
            loader.load_service_model(name, "endpoint-rule-set-1"),
            loader.load_data("partitions"),
        ),
        paginators={
            **loader.load_service_model(name, "paginators-1")["pagination"],
            **_MORE_PAGINATORS.get(name, {}),
        },
    )


# The blanks of a draft: texts that stand nowhere else in one.
_KEY, _TOKEN, _MOMENT, _BUCKET = "BLANK-KEY", "BLANK-TOKEN", "20000101T000000Z", "blank-bucket"
# Names that stand in a path as they are, so that they can be filled in.
_PLAIN_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*", re.ASCII)


class Draft(NamedTuple):
    """One call in one region, complete but for the bucket, the keys, the moment and the signature.

    ``head`` is the request's head up to the blanks; ``canonical`` is the text whose hash is
    signed, cut at the blanks for the moment and, where there is one, the session token.
    """

    origin: Origin
    head: str
    body: bytes
    canonical: tuple[str, ...]
    signed_headers: str
    region: str
    service: str

    def of_bucket(self, bucket: str) -> Draft:
        """The same call about another bucket than the blank one."""
        first, *rest = self.canonical
        return Draft(
            self.origin,
            self.head.replace(_BUCKET, bucket, 1),
            self.body,
            (first.replace(_BUCKET, bucket, 1), *rest),
            self.signed_headers,
            self.region,
            self.service,
        )


def draft(
    service: str,
    operation: str,
    params: Mapping[str, Any],
    *,
    region: str,
    endpoint: str,
    with_token: bool,
) -> Draft:
    """The draft of one call. ``endpoint`` stands in AWS's place, if any.

    S3 is asked path-style, at the region's own host: a host per bucket would cost a TLS handshake
    for each.
    """
    bucket = params.get("Bucket", "")
    blank = dict(params)
    if fill := bool(bucket and _PLAIN_NAME.fullmatch(bucket)):
        blank["Bucket"] = _BUCKET
    if all(isinstance(value, int) or value is _BUCKET for value in blank.values()):
        drawn = _kept(service, operation, tuple(blank.items()), region, endpoint, with_token)
    else:  # names, tokens of pages: nobody asks just this again
        drawn = _draw(service, operation, blank, region, endpoint, with_token)
    return drawn.of_bucket(bucket) if fill else drawn


@lru_cache(maxsize=4096)
def _kept(
    service: str,
    operation: str,
    params: tuple[tuple[str, Any], ...],
    region: str,
    endpoint: str,
    with_token: bool,
) -> Draft:
    return _draw(service, operation, dict(params), region, endpoint, with_token)


def _draw(
    service: str,
    operation: str,
    params: Mapping[str, Any],
    region: str,
    endpoint: str,
    with_token: bool,
) -> Draft:
    described = service_of(service)
    model = described.model.operation_model(operation)
    url, signing_name, signing_region = _address(service, operation, params, region, endpoint)
    unsigned = described.serializer.serialize_to_request(dict(params), model)
    if service == "glacier":  # the one service that wants its version in a header
        unsigned["headers"]["x-amz-glacier-version"] = described.model.metadata["apiVersion"]
    if urlsplit(url).netloc.startswith(unsigned.get("host_prefix") or "/"):
        del unsigned["host_prefix"]  # the model says it, and the ruleset has done it
    prepare_request_dict(unsigned, endpoint_url=url)
    unsigned["url"] = plain_address(unsigned["url"])
    request = create_request_object(unsigned)
    keys = ReadOnlyCredentials(_KEY, "", _TOKEN if with_token else None)
    signer_class = S3SigV4Auth if service in ("s3", "s3control") else SigV4Auth
    signer = signer_class(keys, signing_name, signing_region)
    request.context["timestamp"] = _MOMENT
    signer._modify_request_before_signing(request)  # type: ignore[attr-defined]
    canonical = signer.canonical_request(request)
    signed_headers = signer.signed_headers(signer.headers_to_sign(request))
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    origin = Origin(
        parts.scheme == "https",
        parts.hostname or "",
        parts.port or (443 if parts.scheme == "https" else 80),
    )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [f"{prepared.method} {target} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [
        f"{name}: {_text(value)}"
        for name, value in prepared.headers.items()
        if name.lower() not in ("x-amz-date", "x-amz-security-token", "user-agent")
    ]
    lines += [f"User-Agent: {USER_AGENT}", ""]
    body = prepared.body or b""
    return Draft(
        origin,
        "\r\n".join(lines),
        body.encode() if isinstance(body, str) else body,
        _cut(canonical, _MOMENT, *((_TOKEN,) if with_token else ())),
        signed_headers,
        signing_region,
        signing_name,
    )


# What stands before an IP address in a URL's host.
_BEFORE_ADDRESS = re.compile(r"(?<=//)[^/:@]*\.(?=(\d{1,3}\.){3}\d{1,3}([:/?]|$)|\[)", re.ASCII)


def plain_address(url: str) -> str:
    """The URL without a name before an IP address: such a host does not exist.

    What the name says, an account's number for one, a header says, too.
    """
    return _BEFORE_ADDRESS.sub("", url, count=1)


def _address(
    service: str, operation: str, params: Mapping[str, Any], region: str, endpoint: str
) -> tuple[str, str, str]:
    """Where a call goes, and the service and region it is signed for."""
    model = service_of(service).model.operation_model(operation)
    given: list[tuple[str, str | bool]] = [("Region", region)]
    if endpoint:
        given.append(("Endpoint", endpoint))
    given += [(fixed.name, fixed.value) for fixed in model.static_context_parameters]
    given += [
        (taken.name, params[taken.member_name])
        for taken in model.context_parameters
        if taken.member_name in params
    ]
    url, scheme = _resolved(service, tuple(given))
    return (
        url,
        scheme.get("signingName", service_of(service).model.signing_name),
        scheme.get("signingRegion", region),
    )


@lru_cache(maxsize=4096)
def _resolved(
    service: str, given: tuple[tuple[str, str | bool], ...]
) -> tuple[str, Mapping[str, str]]:
    """A URL by the service's ruleset, and how calls to it are signed."""
    endpoints = service_of(service).endpoints
    settled = {"UseFIPS": False, "UseDualStack": False, "ForcePathStyle": True, **dict(given)}
    known = endpoints.ruleset.parameters
    resolved = endpoints.resolve_endpoint(
        **{name: value for name, value in settled.items() if name in known}
    )
    return resolved.url, next(iter(resolved.properties.get("authSchemes", ())), {})


def _cut(text: str, *blanks: str) -> tuple[str, ...]:
    pieces = []
    for blank in blanks:
        piece, found, text = text.partition(blank)
        assert found, "botocore signs the moment, and the session token where there is one"
        pieces.append(piece)
    return (*pieces, text)


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def sign(drawn: Draft, credentials: AwsCredentials, now: float) -> bytes:
    """The request's bytes, signed by ``credentials`` at ``now`` (seconds since 1970).

    Signature Version 4: "Create a signed AWS API request" in the IAM User Guide.
    ``credentials`` must have a token if and only if the draft was made ``with_token``.
    """
    moment = _moment(int(now))
    day, token = moment[:8], credentials.token
    scope = f"{day}/{drawn.region}/{drawn.service}/aws4_request"
    if token:
        before, between, after = drawn.canonical
        canonical = f"{before}{moment}{between}{token}{after}"
        token_line = f"X-Amz-Security-Token: {token}\r\n"
    else:
        before, after = drawn.canonical
        canonical, token_line = f"{before}{moment}{after}", ""
    hashed = sha256(canonical.encode()).hexdigest()
    key = _signing_key(credentials.secret_key, day, drawn.region, drawn.service)
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{hashed}"
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    head = (
        f"{drawn.head}X-Amz-Date: {moment}\r\n{token_line}"
        f"Authorization: AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
        f"SignedHeaders={drawn.signed_headers}, Signature={signature}\r\n\r\n"
    )
    return head.encode("latin-1") + drawn.body


@lru_cache(maxsize=2)
def _moment(second: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))


@lru_cache(maxsize=1024)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    """Good for a day; an account's dozens of calls to one service share it."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
