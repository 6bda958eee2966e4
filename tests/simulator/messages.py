"""HTTP answers as bytes, whole and ready to send, and what AWS and ARM say when they refuse."""

from __future__ import annotations

from xml.sax.saxutils import escape

import orjson

REQUEST_ID = "5d1f6a2e-0000-4000-8000-000000000000"
_REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

XML = "text/xml;charset=UTF-8"
S3_XML = "application/xml"
JSON_1_1 = "application/x-amz-json-1.1"
JSON = "application/json; charset=utf-8"


def message(status: int, content_type: str, body: bytes, **headers: str) -> bytes:
    """A whole answer. Underscores in the names of ``headers`` become dashes."""
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


def xml(inner: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{inner}'.encode()


# --- AWS: (status, code, message) of each refusal, by the protocol family ------------------------

_WORDS: dict[str, dict[str, tuple[int, str, str]]] = {
    "throttled": {
        "ec2": (503, "RequestLimitExceeded", "Request limit exceeded."),
        "s3": (503, "SlowDown", "Please reduce your request rate."),
        "query": (400, "Throttling", "Rate exceeded"),
        "json": (400, "ThrottlingException", "Rate exceeded"),
    },
    "error": {
        "ec2": (500, "InternalError", "An internal error has occurred"),
        "s3": (500, "InternalError", "We encountered an internal error. Please try again."),
        "query": (500, "InternalFailure", "The request processing has failed."),
        "json": (500, "InternalFailure", "The request processing has failed."),
    },
    "skewed": {
        "s3": (
            403,
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
        ),
        "ec2": (403, "RequestTimeTooSkewed", "Signature expired: the clocks differ."),
        "query": (403, "RequestTimeTooSkewed", "Signature expired: the clocks differ."),
        "json": (403, "RequestTimeTooSkewed", "Signature expired: the clocks differ."),
    },
    "expired": {
        "ec2": (400, "ExpiredToken", "The security token included in the request is expired"),
        "s3": (400, "ExpiredToken", "The provided token has expired."),
        "query": (403, "ExpiredToken", "The security token included in the request is expired"),
        "json": (
            400,
            "ExpiredTokenException",
            "The security token included in the request is expired",
        ),
    },
    "refused": {
        "ec2": (
            403,
            "UnauthorizedOperation",
            "You are not authorized to perform this operation.",
        ),
        "s3": (403, "AccessDenied", "Access Denied"),
        "query": (403, "AccessDenied", "User is not authorized to perform this operation"),
        "json": (400, "AccessDeniedException", "You do not have the permission for this."),
    },
    "unsigned": {
        "ec2": (401, "AuthFailure", "AWS was not able to validate the provided credentials"),
        "s3": (403, "AccessDenied", "Access Denied"),
        "query": (403, "MissingAuthenticationToken", "Request is missing Authentication Token"),
        "json": (400, "MissingAuthenticationTokenException", "Missing Authentication Token"),
    },
    "unknown key": {
        "ec2": (401, "AuthFailure", "AWS was not able to validate the provided credentials"),
        "s3": (
            403,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        ),
        "query": (
            403,
            "InvalidClientTokenId",
            "The security token included in the request is invalid.",
        ),
        "json": (
            400,
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        ),
    },
    "bad signature": {
        "ec2": (401, "AuthFailure", "AWS was not able to validate the provided credentials"),
        "s3": (
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
        ),
        "query": (
            403,
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
        ),
        "json": (
            400,
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.",
        ),
    },
    "unknown operation": {
        "ec2": (400, "InvalidAction", "The action is not valid for this web service."),
        "s3": (405, "MethodNotAllowed", "The specified method is not allowed here."),
        "query": (400, "InvalidAction", "The action is not valid for this web service."),
        "json": (400, "UnknownOperationException", "The operation is not known."),
    },
}


def family(service: str, protocol: str) -> str:
    """Which column of the table a service answers by. ``protocol`` is botocore's name."""
    if service == "s3" or protocol == "rest-xml":
        return "s3"
    if protocol in ("ec2", "query"):
        return protocol
    return "json"


def aws_refusal(kind: str, column: str) -> bytes:
    """A whole answer saying no. ``kind`` and ``column`` are keys of the table above."""
    return aws_error(column, *_WORDS[kind][column])


def aws_error(column: str, status: int, code: str, words: str, **details: str) -> bytes:
    """A whole answer with an error of one's own. ``details`` are XML elements, for S3."""
    if column == "json":
        body = orjson.dumps({"__type": code, "message": words})
        return message(status, JSON_1_1, body, x_amzn_RequestId=REQUEST_ID, x_amzn_ErrorType=code)
    text = escape(words)
    if column == "s3":
        extra = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in details.items())
        body = xml(
            f"<Error><Code>{code}</Code><Message>{text}</Message>{extra}"
            f"<RequestId>SIMULATED0000000</RequestId><HostId>simulated</HostId></Error>"
        )
        return message(status, S3_XML, body, x_amz_request_id="SIMULATED0000000")
    if column == "ec2":
        body = xml(
            f"<Response><Errors><Error><Code>{code}</Code><Message>{text}</Message></Error>"
            f"</Errors><RequestID>{REQUEST_ID}</RequestID></Response>"
        )
        return message(status, XML, body, x_amzn_requestid=REQUEST_ID)
    fault = "Receiver" if status >= 500 else "Sender"
    body = xml(
        f"<ErrorResponse><Error><Type>{fault}</Type><Code>{code}</Code><Message>{text}</Message>"
        f"</Error><RequestId>{REQUEST_ID}</RequestId></ErrorResponse>"
    )
    return message(status, XML, body, x_amzn_RequestId=REQUEST_ID)


def arm_error(status: int, code: str, words: str, **headers: str) -> bytes:
    body = orjson.dumps({"error": {"code": code, "message": words}})
    return message(status, JSON, body, x_ms_request_id=REQUEST_ID, **headers)
