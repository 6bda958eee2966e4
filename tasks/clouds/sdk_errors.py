"""What the clouds' SDKs raise, in Suture's own words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from tasks.errors import (
    AccessRefused,
    CloudError,
    CloudTimeout,
    Conflict,
    ResourceGone,
    Throttled,
)


class UnsettledWrite(CloudError):
    """A write was taken and then failed, or its end was not seen: it may or may not have worked."""


class PartlyWritten(CloudError):
    """Part of a write was done and the rest cannot be: its undo would restore too much."""


_AWS_REFUSED = {
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedOperation",
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "InvalidClientTokenId",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
    "AllAccessDisabled",
}
_AWS_THROTTLED = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "TooManyRequestsException",
    "SlowDown",
    "BandwidthLimitExceeded",
}
_AWS_GONE = {"NoSuchBucket", "NoSuchEntity", "InvalidGroup.NotFound"}
# What we were to take away is not there, or what we were to add is: somebody was faster.
_AWS_CONFLICT = {
    "InvalidPermission.NotFound",
    "InvalidPermission.Duplicate",
    "OperationAborted",
    "ConditionalRequestConflict",
    "PreconditionFailed",
    "EntityTemporarilyUnmodifiable",
    "ConcurrentModification",
}


def from_aws(
    error: ClientError | BotoCoreError | ResponseParserError, operation: str
) -> CloudError:
    """The error of an AWS call. ``operation`` is the API's name for it."""
    if isinstance(error, ClientError):
        answer = error.response.get("Error", {})
        code, message = answer.get("Code", ""), answer.get("Message", "")
        if code.startswith("SignatureDoesNotMatch"):  # its message repeats the signed request
            message = "the signature was not accepted"
        about = error.response.get("ResponseMetadata", {})
        kind = _aws_kind(code, about.get("HTTPStatusCode", 0))
        if kind is Conflict and about.get("RetryAttempts"):
            kind = UnsettledWrite  # our own first attempt may be what stands in the way
        return kind(message or "refused", code=code, operation=operation)
    name = type(error).__name__
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return AccessRefused("there are no AWS credentials to use", code=name, operation=operation)
    if isinstance(error, ReadTimeoutError | ConnectionClosedError):
        return CloudTimeout("AWS did not answer in time", code=name, operation=operation)
    if isinstance(error, ConnectTimeoutError | EndpointConnectionError):
        return CloudError("AWS cannot be reached", code=name, operation=operation)
    if isinstance(error, HTTPClientError | ResponseParserError):
        # It was sent. Both quote the answer, or a part of the request.
        return UnsettledWrite("AWS gave no answer to be read", code=name, operation=operation)
    # botocore quotes parameters when it finds them invalid, and one of them may be a secret.
    return CloudError("the AWS SDK could not make this call", code=name, operation=operation)


def is_throttling(code: str) -> bool:
    """Whether an AWS call was refused for coming too soon, and so was not made."""
    return code in _AWS_THROTTLED


def _aws_kind(code: str, status: int) -> type[CloudError]:
    if code in _AWS_REFUSED:
        return AccessRefused
    if is_throttling(code) or status == HTTPStatus.TOO_MANY_REQUESTS:
        return Throttled
    if code in _AWS_GONE:
        return ResourceGone
    if code in _AWS_CONFLICT:
        return Conflict
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return UnsettledWrite
    return CloudError


def from_azure(error: AzureError, operation: str) -> CloudError:
    """The error of an Azure call. ``operation`` says in words what was asked."""
    if isinstance(error, HttpResponseError):
        status = error.status_code or 0
        details = getattr(error, "error", None)
        code = getattr(details, "code", None) or ""
        message = getattr(details, "message", None) or error.message or error.reason or ""
        kind = AccessRefused if isinstance(error, ClientAuthenticationError) else _arm_kind(status)
        if kind is ResourceGone and not _says_gone(str(code)):
            kind = CloudError
        return kind(str(message).strip() or "refused", code=str(code), operation=operation)
    name = type(error).__name__
    if isinstance(error, ServiceResponseError):
        return CloudTimeout("Azure did not answer in time", code=name, operation=operation)
    if isinstance(error, ServiceRequestError):
        return CloudError("Azure cannot be reached", code=name, operation=operation)
    return CloudError("the Azure SDK could not make this call", code=name, operation=operation)


def _says_gone(code: str) -> bool:
    """Whether a 404 is about the resource. Others are about its type, its provider or the whole
    subscription, or come from a proxy that knows of none of this.
    """
    return code.endswith("NotFound") and code != "SubscriptionNotFound"


def _arm_kind(status: int) -> type[CloudError]:
    if status < HTTPStatus.BAD_REQUEST:
        return UnsettledWrite  # the request was taken; the operation it began went wrong
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return AccessRefused
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return ResourceGone
    if status in (HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED):
        return Conflict
    if status == HTTPStatus.TOO_MANY_REQUESTS:
        return Throttled
    if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.GATEWAY_TIMEOUT):
        return CloudTimeout
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return UnsettledWrite
    return CloudError


@contextmanager
def aws_errors(operation: str) -> Iterator[None]:
    """Raise what boto3 raises inside as a CloudError. The original is dropped: it can quote us."""
    try:
        yield
    except (ClientError, BotoCoreError, ResponseParserError) as error:
        raise from_aws(error, operation) from None


@contextmanager
def hiding(*secrets: str) -> Iterator[None]:
    """Keep secrets, the longest first, out of the CloudErrors raised inside: clouds quote us."""
    try:
        yield
    except CloudError as error:
        message = error.message
        for secret in secrets:
            message = message.replace(secret, "…")
        raise type(error)(message, code=error.code, operation=error.operation) from None


@contextmanager
def azure_errors(operation: str) -> Iterator[None]:
    """Raise what the Azure SDK raises inside as a CloudError, without the original."""
    try:
        yield
    except AzureError as error:
        raise from_azure(error, operation) from None
