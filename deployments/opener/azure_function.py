"""The opener as an Azure Function: an HTTP trigger that answers, and a timer trigger that ticks.

In the folder layout of the Python worker's v1 model: azure/open/function.json and
azure/tick/function.json name ``answer`` and ``tick`` here. The worker hands in its own request
object and wants its own response; the package ``azure-functions`` has both, comes with the worker,
and is not a dependency of Suture: what is used of the request is ``method``, ``route_params`` and
``get_body()``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Protocol

from deployments.opener.config import configured_opener
from deployments.opener.core import HEADERS


class Request(Protocol):
    """What is used of azure.functions.HttpRequest."""

    @property
    def method(self) -> str: ...

    @property
    def route_params(self) -> Mapping[str, str]: ...

    def get_body(self) -> bytes: ...


def answer(request: Request) -> Any:
    """Answer one request, as an azure.functions.HttpResponse."""
    if request.method != "POST":
        status, told = HTTPStatus.METHOD_NOT_ALLOWED, {"error": "send a POST."}
    else:
        path = request.route_params.get("path", "")
        status, told = configured_opener().answer(path, request.get_body())
    response = importlib.import_module("azure.functions").HttpResponse
    return response(json.dumps(told), status_code=int(status), headers=HEADERS)


def tick(timer: object) -> None:
    """Do what is due."""
    configured_opener().tick()
