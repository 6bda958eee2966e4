"""Saying no in AWS's words: the error body and code of each service's protocol.

Codes after "Common errors" of each API reference; the same fault has other names in EC2, in the
query services, in S3 and in the JSON services.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

from botocore.parsers import create_parser

Response = tuple[int, list[tuple[str, str]], bytes]


@dataclass
class Refusal(Exception):
    """A call answered no. ``kind`` is a key of the table below, or AWS's own code."""

    kind: str
    message: str = ""
    status: int = 400
    details: dict[str, str] = field(default_factory=dict)  # extra XML elements, S3 only
    headers: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.kind


_EC2_CREDENTIALS = "AWS was not able to validate the provided access credentials"
_BAD_TOKEN = "The security token included in the request is invalid."
_BAD_SIGNATURE = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your AWS Secret Access Key and signing method."
)

# kind -> protocol -> (HTTP status, code, message); "*" stands for the protocols not named.
_TABLE: dict[str, dict[str, tuple[int, str, str]]] = {
    "unsigned": {
        "ec2": (401, "AuthFailure", _EC2_CREDENTIALS),
        "rest-xml": (403, "AccessDenied", "Access Denied"),
        "json": (400, "MissingAuthenticationTokenException", "Missing Authentication Token"),
        "*": (403, "MissingAuthenticationToken", "Request is missing Authentication Token"),
    },
    "unknown key": {
        "ec2": (401, "AuthFailure", _EC2_CREDENTIALS),
        "rest-xml": (
            403,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
        "json": (400, "UnrecognizedClientException", _BAD_TOKEN),
        "*": (403, "InvalidClientTokenId", _BAD_TOKEN),
    },
    "bad token": {
        "ec2": (401, "AuthFailure", _EC2_CREDENTIALS),
        "rest-xml": (
            400,
            "InvalidToken",
            "The provided token is malformed or otherwise invalid.",
        ),
        "json": (400, "UnrecognizedClientException", _BAD_TOKEN),
        "*": (403, "InvalidClientTokenId", _BAD_TOKEN),
    },
    "bad signature": {
        "ec2": (401, "AuthFailure", _EC2_CREDENTIALS),
        "json": (400, "InvalidSignatureException", _BAD_SIGNATURE),
        "*": (403, "SignatureDoesNotMatch", _BAD_SIGNATURE),
    },
    "skewed": {
        "ec2": (401, "AuthFailure", _EC2_CREDENTIALS),
        "rest-xml": (
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
        ),
        "json": (400, "InvalidSignatureException", "Signature expired"),
        "*": (403, "SignatureDoesNotMatch", "Signature expired"),
    },
    "expired": {
        "ec2": (400, "RequestExpired", "Request has expired."),
        "rest-xml": (400, "ExpiredToken", "The provided token has expired."),
        "json": (
            400,
            "ExpiredTokenException",
            "The security token included in the request is expired",
        ),
        "*": (403, "ExpiredToken", "The security token included in the request is expired"),
    },
    "denied": {
        "ec2": (403, "UnauthorizedOperation", "You are not authorized to perform this operation."),
        "json": (400, "AccessDeniedException", ""),
        "*": (403, "AccessDenied", "Access Denied"),
    },
    "throttled": {
        "ec2": (503, "RequestLimitExceeded", "Request limit exceeded."),
        "rest-xml": (503, "SlowDown", "Please reduce your request rate."),
        "json": (400, "ThrottlingException", "Rate exceeded"),
        "*": (400, "Throttling", "Rate exceeded"),
    },
    "unknown action": {
        "rest-xml": (
            405,
            "MethodNotAllowed",
            "The specified method is not allowed against this resource.",
        ),
        "json": (400, "UnknownOperationException", ""),
        "*": (400, "InvalidAction", "The action is not valid for this web service."),
    },
    "failure": {
        "rest-xml": (500, "InternalError", "We encountered an internal error. Please try again."),
        "json": (500, "InternalFailure", "The request processing has failed."),
        "*": (500, "InternalFailure", "The request processing has failed."),
    },
}


def _named(refusal: Refusal, protocol: str) -> tuple[int, str, str]:
    by_protocol = _TABLE.get(refusal.kind)
    if by_protocol is None:
        return refusal.status, refusal.kind, refusal.message
    family = "json" if protocol == "rest-json" else protocol
    status, code, standard = by_protocol.get(family, by_protocol["*"])
    if code == "UnauthorizedOperation" and refusal.message:
        return status, code, f"{standard} {refusal.message}"
    return status, code, refusal.message or standard


def render(refusal: Refusal, protocol: str, namespace: str = "") -> Response:
    """HTTP status, headers and body. ``protocol`` is botocore's name for it."""
    status, code, message = _named(refusal, protocol)
    request_id = str(uuid.uuid4())
    headers = [("x-amzn-RequestId", request_id), *refusal.headers.items()]
    if protocol in {"json", "rest-json"}:
        headers += [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-ErrorType", code)]
        # Organizations writes Message, most others message: botocore reads both.
        return status, headers, json.dumps({"__type": code, "Message": message}).encode()
    if protocol == "rest-xml":
        headers += [("Content-Type", "application/xml"), ("x-amz-request-id", request_id)]
        body = _s3(code, message, refusal.details, request_id)
    elif protocol == "ec2":
        headers.append(("Content-Type", "text/xml;charset=UTF-8"))
        body = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{escape(message)}</Message>"
            f"</Error></Errors><RequestID>{request_id}</RequestID></Response>"
        )
    else:
        headers.append(("Content-Type", "text/xml"))
        fault = "Receiver" if status >= 500 else "Sender"
        body = (
            f'<ErrorResponse xmlns="{namespace}"><Error><Type>{fault}</Type><Code>{code}</Code>'
            f"<Message>{escape(message)}</Message></Error><RequestId>{request_id}</RequestId>"
            "</ErrorResponse>"
        )
    return status, headers, f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode()


def _s3(code: str, message: str, details: dict[str, str], request_id: str) -> str:
    extra = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in details.items())
    return (
        f"<Error><Code>{code}</Code><Message>{escape(message)}</Message>{extra}"
        f"<RequestId>{request_id}</RequestId><HostId>emulated</HostId></Error>"
    )


def error_in(answer: Response, protocol: str) -> tuple[str, str]:
    """The code and the message of an answer that is an error."""
    status, headers, body = answer
    whole = {"status_code": status, "headers": dict(headers), "body": body}
    error = create_parser(protocol).parse(whole, None).get("Error", {})
    return str(error.get("Code") or status), str(error.get("Message") or "")
