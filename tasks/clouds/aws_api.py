"""The AWS read path: one signed, awaited HTTP exchange per call, and nothing kept per account.

botocore stays the source of truth: its service models say how a call is written and its answer
read, its rulesets which address it goes to, its signers how it is signed. Its sessions, clients
and hooks, which cost tens of milliseconds an account, are left out. A call goes

    params -> serializer -> endpoint -> signature -> aiohttp -> parser -> dict, or an error
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import jmespath  # type: ignore[import-untyped]
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, create_request_object, prepare_request_dict
from botocore.credentials import ReadOnlyCredentials
from botocore.endpoint_provider import EndpointProvider
from botocore.handlers import parse_get_bucket_location
from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel
from botocore.parsers import ResponseParser, ResponseParserError, create_parser
from botocore.serialize import create_serializer
from yarl import URL

from tasks.clouds.budgets import Budgets, aws_key
from tasks.clouds.retrying import TryAgain, patiently, retry_after_seconds
from tasks.clouds.transport import Limits, faults, open_http
from tasks.errors import AccessRefused, CloudError, ResourceGone, Throttled


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
class _Service:
    """All that botocore's data says of one service."""

    model: ServiceModel
    serializer: Any
    parser: ResponseParser
    endpoints: EndpointProvider
    paginators: Mapping[str, Any]


@cache
def _service(name: str) -> _Service:
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
    return _Service(
        model=model,
        serializer=create_serializer(protocol, include_validation=False),
        parser=create_parser(protocol),
        endpoints=EndpointProvider(
            loader.load_service_model(name, "endpoint-rule-set-1"),
            loader.load_data("partitions"),
        ),
        paginators=loader.load_service_model(name, "paginators-1")["pagination"],
    )


class AwsApi:
    """Calls AWS, or what stands at ``endpoint`` in its place. Use as an async context manager."""

    def __init__(
        self,
        *,
        endpoint: str = "",
        ca_file: str = "",
        limits: Limits | None = None,
        budgets: Budgets | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._ca_file = ca_file
        self._limits = limits or Limits()
        self._budgets = budgets if budgets is not None else Budgets()
        self.calls = 0  # requests sent so far, retries included

    async def __aenter__(self) -> AwsApi:
        self._http = open_http(self._limits, self._ca_file)
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._http.close()

    async def call(
        self,
        service: str,
        operation: str,
        params: Mapping[str, Any],
        *,
        region: str,
        credentials: AwsCredentials,
    ) -> dict[str, Any]:
        """The answer of one operation, as boto3 gives it but without ResponseMetadata.

        ``service`` and ``operation`` are AWS's own names ("ec2", "DescribeSecurityGroups").
        Raises AccessRefused, Throttled, CloudTimeout, ResourceGone or another CloudError; ``code``
        on it is AWS's.
        """
        described = _service(service)
        model = described.model.operation_model(operation)

        async def attempt() -> dict[str, Any]:
            # Signed anew for each attempt: a signature holds the time.
            request = self._signed(described, model, params, region, credentials)
            return await self._exchange(described, model, request, credentials)

        paged = "MaxResults" in params or "Filters" in params
        key = aws_key(credentials.account, region, service, operation, paged=paged)
        return await patiently(attempt, self._limits.patience, self._budgets.of(key))

    async def pages(
        self,
        service: str,
        operation: str,
        params: Mapping[str, Any],
        *,
        region: str,
        credentials: AwsCredentials,
        page_size: int | None = None,
    ) -> AsyncIterator[dict[str, Any]]:
        """The answers of a paged operation, one after another, by botocore's paginator models."""
        paging = _service(service).paginators[operation]
        ask = dict(params)
        if page_size is not None:
            ask[paging["limit_key"]] = page_size
        while True:
            page = await self.call(service, operation, ask, region=region, credentials=credentials)
            yield page
            following = _next_page(paging, page)
            if not following:
                return
            if following.items() <= ask.items():
                raise CloudError("the same page came twice", operation=operation)
            ask |= following

    def _signed(
        self,
        described: _Service,
        model: OperationModel,
        params: Mapping[str, Any],
        region: str,
        credentials: AwsCredentials,
    ) -> AWSPreparedRequest:
        url, service_name, signing_region = self._address(described, model, params, region)
        draft = described.serializer.serialize_to_request(dict(params), model)
        prepare_request_dict(draft, endpoint_url=url)
        request = create_request_object(draft)
        signer = S3SigV4Auth if model.service_model.service_name == "s3" else SigV4Auth
        keys = ReadOnlyCredentials(
            credentials.access_key, credentials.secret_key, credentials.token
        )
        signer(keys, service_name, signing_region).add_auth(request)
        prepared: AWSPreparedRequest = request.prepare()
        return prepared

    def _address(
        self, described: _Service, model: OperationModel, params: Mapping[str, Any], region: str
    ) -> tuple[str, str, str]:
        """Where a call goes, and the service and region it is signed for."""
        given: dict[str, Any] = {"Region": region, "UseFIPS": False, "UseDualStack": False}
        if self._endpoint:
            given["Endpoint"] = self._endpoint
            given["ForcePathStyle"] = True  # a bucket has no host name of its own there
        if model.name == "GetBucketLocation":
            given["ForcePathStyle"] = True  # the one way S3 answers about another region's bucket
        for fixed in model.static_context_parameters:
            given[fixed.name] = fixed.value
        for taken in model.context_parameters:
            if taken.member_name in params:
                given[taken.name] = params[taken.member_name]
        known = described.endpoints.ruleset.parameters
        resolved = described.endpoints.resolve_endpoint(
            **{name: value for name, value in given.items() if name in known}
        )
        scheme: Mapping[str, str] = next(iter(resolved.properties.get("authSchemes", ())), {})
        return (
            resolved.url,
            scheme.get("signingName", described.model.signing_name),
            scheme.get("signingRegion", region),
        )

    async def _exchange(
        self,
        described: _Service,
        model: OperationModel,
        request: AWSPreparedRequest,
        credentials: AwsCredentials,
    ) -> dict[str, Any]:
        self.calls += 1
        host = urlsplit(request.url).netloc
        with faults(model.name, host):
            async with self._http.request(
                request.method,
                URL(request.url, encoded=True),  # as signed, to the letter
                headers={name: _text(value) for name, value in request.headers.items()},
                data=request.body,
                allow_redirects=False,
                skip_auto_headers=("Accept-Encoding", "Content-Type"),
            ) as response:
                status, headers, body = response.status, response.headers, await response.read()
        wire = {
            "status_code": status,
            "headers": headers,
            "body": body,
            "context": {"operation_name": model.name},
        }
        try:
            if body[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
                raise ResponseParserError  # a proxy's page; as XML it might pass for an empty list
            answer: dict[str, Any] = described.parser.parse(wire, model.output_shape)  # type: ignore[arg-type]
        except ResponseParserError:
            garbled = CloudError(
                f"{host} answered {status} with a body that is not {model.service_model.protocol}",
                code=str(status) if status >= 300 else "",
                operation=model.name,
            )
            raise TryAgain(garbled) from None
        answer.pop("ResponseMetadata", None)
        if status < 300:
            if model.name == "GetBucketLocation":  # the one answer here that no model describes
                parse_get_bucket_location(answer, SimpleNamespace(raw=body, content=body))
            return answer
        wait = retry_after_seconds(headers.get("Retry-After"))
        raise _failure(model.name, status, answer.get("Error", {}), credentials, wait)


def _next_page(paging: Mapping[str, Any], page: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that ask for the page after this one; empty after the last."""
    more = paging.get("more_results")
    if more and not jmespath.search(more, page):
        return {}
    inputs, outputs = _as_list(paging["input_token"]), _as_list(paging["output_token"])
    tokens = {name: jmespath.search(path, page) for name, path in zip(inputs, outputs, strict=True)}
    return {name: token for name, token in tokens.items() if token}


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


# --- What AWS's error codes mean -----------------------------------------------------------------

_REFUSED = frozenset(
    {
        "403",
        "AccessDenied",
        "AccessDeniedException",
        "AccountProblem",
        "AllAccessDisabled",
        "AuthFailure",
        "AuthorizationError",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "NotAuthorized",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnauthorizedAccess",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
_THROTTLED = frozenset(
    {
        "429",
        "503",
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "PriorRequestNotComplete",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "ServiceUnavailable",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "TooManyRequestsException",
        "Unavailable",
    }
)
_SKEWED = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})


def _failure(
    operation: str,
    status: int,
    error: Mapping[str, Any],
    credentials: AwsCredentials,
    retry_after: float,
) -> CloudError | TryAgain:
    """The exception for one answer of AWS's that is not a success."""
    code = str(error.get("Code") or status)
    message = _without_secrets(code, str(error.get("Message") or ""), credentials)
    if code in _THROTTLED or status in (429, 503):
        message = message or "too many requests"
        return TryAgain(Throttled(message, code=code, operation=operation), retry_after)
    if code in _SKEWED:
        message = f"the clock of this machine is wrong: {message}"
        return CloudError(message, code=code, operation=operation)
    if code in _REFUSED or status in (401, 403):
        return AccessRefused(message or "refused", code=code, operation=operation)
    if code.startswith("NoSuch") or code.endswith((".NotFound", "NotFoundException")):
        return ResourceGone(message or "not there", code=code, operation=operation)
    failure = CloudError(message or f"HTTP {status}", code=code, operation=operation)
    return TryAgain(failure, retry_after) if status >= 500 else failure


def _without_secrets(code: str, message: str, credentials: AwsCredentials) -> str:
    """AWS's words, short. Some of them repeat the signed request, session token and all."""
    if code.startswith(("SignatureDoesNotMatch", "InvalidSignature", "IncompleteSignature")):
        return "the signature was not accepted: the secret key is not the one of this access key"
    for secret in (credentials.token, credentials.secret_key, credentials.access_key):
        if secret and len(secret) >= 8:
            message = message.replace(secret, "…")
    return message if len(message) <= 300 else message[:299] + "…"
