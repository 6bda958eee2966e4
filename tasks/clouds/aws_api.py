"""The AWS read path: one signed, awaited HTTP exchange per call, and nothing kept per account.

botocore stays the source of truth: its models, serializers, rulesets and signers write the request
(aws_request), its models and parsers read the answer (aws_answer). Its sessions, clients and hooks,
which cost tens of milliseconds an account, are left out. A call goes

    params -> draft (kept) -> signature -> HTTP -> parser -> dict, or an error
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from types import SimpleNamespace
from typing import Any

import jmespath  # type: ignore[import-untyped]
from botocore.handlers import parse_get_bucket_location
from botocore.parsers import ResponseParserError

from tasks.calls import CallMade, being_recorded, note
from tasks.clouds.aws_answer import read_answer
from tasks.clouds.aws_request import AwsCredentials, Draft, draft, service_of, sign
from tasks.clouds.budgets import Budgets, aws_key
from tasks.clouds.http_client import Answer, HttpFault
from tasks.clouds.retrying import TryAgain, patiently, retry_after_seconds
from tasks.clouds.transport import Limits, open_http, what_failed
from tasks.errors import AccessRefused, CloudError, ResourceGone, Throttled
from tasks.model import canonical_json


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
        drawn = draft(
            service,
            operation,
            params,
            region=region,
            endpoint=self._endpoint,
            with_token=bool(credentials.token),
        )

        target = _target(params) if being_recorded() else ""

        async def attempt() -> dict[str, Any]:
            return await self._exchange(service, operation, drawn, credentials, target)

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
        paging = service_of(service).paginators[operation]
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

    async def _exchange(
        self,
        service: str,
        operation: str,
        drawn: Draft,
        credentials: AwsCredentials,
        target: str,
    ) -> dict[str, Any]:
        self.calls += 1
        try:
            # Signed anew for each attempt: a signature holds the time.
            said = await self._http.ask(drawn.origin, sign(drawn, credentials, time.time()))
        except HttpFault as fault:
            note(CallMade(operation=f"{service}:{operation}", target=target))
            raise what_failed(fault, operation) from None
        if being_recorded():
            note(_made(service, operation, target, said))
        try:
            answer = read_answer(service, operation, said)
        except ResponseParserError:
            garbled = CloudError(
                f"{drawn.origin.authority} answered {said.status} with a body that is not "
                f"{service_of(service).model.protocol}",
                code=str(said.status) if said.status >= 300 else "",
                operation=operation,
            )
            raise TryAgain(garbled) from None
        if said.status < 300:
            if operation == "GetBucketLocation":  # the one answer here that no model describes
                parse_get_bucket_location(answer, SimpleNamespace(raw=said.body, content=said.body))
            return answer
        wait = retry_after_seconds(said.headers.get("retry-after"))
        raise _failure(operation, said.status, answer.get("Error", {}), credentials, wait)


# Parameters that say what a call is about. Others may be secrets (ExternalId).
_TARGETS = ("Bucket", "GroupIds", "RoleArn", "Filters")


def _target(params: Mapping[str, Any]) -> str:
    """What a call is about, for its record."""
    for name in _TARGETS:
        if name in params:
            value = params[name]
            return value if isinstance(value, str) else canonical_json(value)
    return ""


def _made(service: str, operation: str, target: str, said: Answer) -> CallMade:
    """Every protocol sends the request id as a header too; S3 has its own name for it."""
    headers = said.headers
    return CallMade(
        operation=f"{service}:{operation}",
        target=target,
        request_id=headers.get("x-amzn-requestid") or headers.get("x-amz-request-id") or "",
        status=said.status,
    )


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
# What is not there, where the code does not say it by NotFound or NoSuch.
_GONE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
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
    if code.startswith("NoSuch") or "NotFound" in code or code in _GONE:
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
