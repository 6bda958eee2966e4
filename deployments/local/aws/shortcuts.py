"""What moto works out anew for each call, though it never changes, is worked out once here.

Only time is saved: answers stay as they are. ``install()`` replaces methods of moto's classes.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import xmltodict
from botocore.exceptions import ClientError
from flask import Flask
from flask import Response as FlaskResponse
from moto.core import responses, serialize
from moto.core.request import Request
from moto.core.utils import MISSING, get_value
from moto.ec2.models.core import TaggedEC2Resource
from moto.ec2.utils import EC2_PREFIX_TO_RESOURCE, get_prefix
from werkzeug.exceptions import HTTPException

from deployments.local.aws.errors import Response


@functools.cache
def install() -> None:
    # moto lists a class's methods anew on every call, a sixth of its time.
    responses.method_names_from_class = functools.cache(responses.method_names_from_class)
    responses.gen_amzn_requestid_long = _named
    serialize.ResponseSerializer.get_value = _picked(serialize.ResponseSerializer.get_value)
    serialize.xmltodict = SimpleNamespace(unparse=_unparsed)
    TaggedEC2Resource.get_tags = _tags


def _named(headers: dict[str, Any]) -> str:
    """moto draws each of 52 letters by itself."""
    headers["x-amzn-requestid"] = named = secrets.token_hex(26)
    return named


# ---------------------------------------------------------------- a call


class _Request(Request):
    from_wsgi_server = True


def answer_of(application: Flask, environ: dict[str, Any]) -> Response:
    """What moto's view of an application says, without Flask's contexts and hooks round it."""
    request = _Request(environ)
    try:
        endpoint, _ = application.url_map.bind_to_environ(environ).match()
        view = application.view_functions[endpoint]
        said = view.callback(request, request.raw_url, dict(request.headers))
    except HTTPException as error:
        response = error.get_response(environ)
    except ClientError as error:
        response = FlaskResponse(error.response["Error"]["Message"], 400)
    else:
        status, headers, content = said if len(said) == 3 else (200, {}, said)
        response = FlaskResponse(content, status, headers)
        if request.method == "HEAD" and "content-length" in headers:
            response.headers["Content-Length"] = headers["content-length"]
    chunks, status_line, found = response.get_wsgi_response(environ)
    body = b"".join(chunks)
    response.close()
    return int(status_line.split()[0]), list(found), body


# ---------------------------------------------------------------- an answer's parts


def _picked(original: Callable[..., Any]) -> Callable[..., Any]:
    """moto asks six classes, for each value of an answer, by which names an object may have it."""
    known: dict[tuple[type, Any, str], tuple[str, ...]] = {}

    def pick(self: serialize.ResponseSerializer, value: Any, key: str, shape: Any) -> Any:
        picker = self._value_picker
        if (
            type(picker) is not serialize.XFormedAttributePicker
            or picker.alias_providers is not serialize.DEFAULT_ALIAS_PROVIDERS
        ):
            return original(self, value, key, shape)
        names = known.get((type(value), shape, key))
        if names is None:
            context = serialize.AttributePickerContext(obj=value, key=key, shape=shape)
            names = tuple(dict.fromkeys(picker.get_possible_keys(context)))
            known[type(value), shape, key] = names
        for name in names:
            found = get_value(value, name, MISSING)
            if found is not MISSING:
                break
        else:
            found = None
        if picker.response_transformers:
            path = f"{'.'.join(self.path)}.{key}"
            for ending, transform in picker.response_transformers.items():
                if path.endswith(ending):
                    return transform(found)
        return found

    return pick


def _tags(self: TaggedEC2Resource) -> list[dict[str, str]]:
    """moto looks through the tags of all resources, for a pattern made of this one's id."""
    tags = self.ec2_backend.tags.get(self.id)
    if not tags:
        return []
    kind = EC2_PREFIX_TO_RESOURCE.get(get_prefix(self.id), "")
    return [
        {"resource_id": self.id, "key": key, "value": value, "resource_type": kind}
        for key, value in tags.items()
    ]


# ---------------------------------------------------------------- XML


class _Strange(Exception):
    """Something that only xmltodict knows how to write."""


def _unparsed(document: Mapping[str, Any], **options: Any) -> str:
    """xmltodict's text of a document, by a shorter way."""
    full, short = options["full_document"], options["short_empty_elements"]
    parts = ['<?xml version="1.0" encoding="utf-8"?>\n'] if full else []
    try:
        if options["pretty"] or (full and len(document) != 1):
            raise _Strange
        for name, value in document.items():
            if full and isinstance(value, list):
                raise _Strange
            _write(parts, name, value, short)
    except _Strange:
        return xmltodict.unparse(document, **options)
    return "".join(parts)


@functools.lru_cache(maxsize=8192)
def _tag(name: Any) -> str:
    if not isinstance(name, str) or not name.replace(":", "").replace("-", "").isidentifier():
        raise _Strange
    return name


def _write(parts: list[str], name: str, value: Any, short: bool) -> None:
    tag = _tag(name)
    for one in value if isinstance(value, list) else (value,):
        inside: list[str] = []
        attributes = text = ""
        if isinstance(one, dict):
            for key, part in one.items():
                if key == "#text":
                    text = _text(part)
                elif key[:1] == "@":
                    if not isinstance(part, str):
                        raise _Strange
                    attributes += f" {_tag(key[1:])}={quoteattr(part)}"
                else:
                    _write(inside, key, part, short)
        else:
            text = _text(one)
        if text or inside or not short:
            parts.append(f"<{tag}{attributes}>")
            parts += inside
            parts.append(f"{text}</{tag}>")
        else:
            parts.append(f"<{tag}{attributes}/>")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise _Strange
