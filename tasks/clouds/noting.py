"""Noting the calls that go through the clouds' SDKs, with the request ids of their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jwt
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline import PipelineResponse
from botocore.exceptions import BotoCoreError, ClientError

from tasks.calls import CallMade, note


def ask_aws(operation: Callable[..., Any], made: CallMade, **params: Any) -> Any:
    """Make a call of a boto3 client and note it, whatever came of it. Raises what boto3 raises."""
    try:
        answer = operation(**params)
    except ClientError as error:
        code = error.response.get("Error", {}).get("Code", "")
        note(_with_metadata(made, error.response, code))
        raise
    except BotoCoreError as error:
        note(replace(made, code=type(error).__name__))
        raise
    note(_with_metadata(made, answer, ""))
    return answer


def _with_metadata(made: CallMade, answer: Mapping[str, Any], code: str) -> CallMade:
    about = answer.get("ResponseMetadata", {})
    return replace(
        made,
        request_id=about.get("RequestId", ""),
        status=about.get("HTTPStatusCode", 0),
        code=code,
    )


Hook = Callable[["PipelineResponse[Any, Any]"], None]


@contextmanager
def noting_arm(made: CallMade) -> Iterator[Hook]:
    """Gives the ``raw_response_hook`` of one call to ARM; the polling after it is not noted.

    An answer that never came is noted by its error.
    """

    def hook(response: PipelineResponse[Any, Any]) -> None:
        if response.http_request.method != made.operation:
            return
        headers = response.http_response.headers
        number = headers.get("x-ms-correlation-request-id") or headers.get("x-ms-request-id")
        status = response.http_response.status_code
        note(replace(made, request_id=number or "", status=status))

    try:
        yield hook
    except HttpResponseError:
        raise
    except AzureError as error:
        note(replace(made, code=type(error).__name__))
        raise


def identity_in(token: str, client_id: str) -> str:
    """Who an Azure access token is for: the client id and, if it says so, the object id.

    Not verified: it came from Entra over TLS, and is for the record only.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.DecodeError:
        claims = {}
    oid = claims.get("oid")
    return f"client {client_id}, object {oid}" if oid else f"client {client_id}"
