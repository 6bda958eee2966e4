"""The opener as an AWS Lambda function: behind a function URL or an HTTP API, and on a schedule.

Handler: ``deployments.opener.aws_lambda.handler``. The event is payload format 2.0, which both send
(docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html), or format 1.0 of a REST API. An event
of the schedule (EventBridge, "aws.events" or "aws.scheduler") is a tick.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from deployments.opener.config import configured_opener
from deployments.opener.core import HEADERS

SCHEDULES = ("aws.events", "aws.scheduler")


def handler(event: Mapping[str, Any], context: object = None) -> dict[str, Any]:
    """Answer one request, or do what is due. Only the customer's account can send a schedule's."""
    if event.get("source") in SCHEDULES and "requestContext" not in event:
        configured_opener().tick()
        return {}
    method, path, body = _request(event)
    if method != "POST" or body is None:
        status, answer = HTTPStatus.BAD_REQUEST, {"error": "send a POST with a JSON object."}
    else:
        status, answer = configured_opener().answer(path, body)
    return {"statusCode": int(status), "headers": HEADERS, "body": json.dumps(answer)}


def _request(event: Mapping[str, Any]) -> tuple[str, str, bytes | None]:
    about = event.get("requestContext", {}).get("http", {})
    method = about.get("method") or event.get("httpMethod", "")
    path = event.get("rawPath") or event.get("path", "")
    text = event.get("body") or ""
    if not event.get("isBase64Encoded"):
        return method, path, text.encode()
    try:
        return method, path, base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return method, path, None
