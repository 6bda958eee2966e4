"""An empty success for any operation of any AWS service, in that service's own protocol.

botocore's models say which operation a request is and how its answer is wrapped. Lists and maps
come out empty, required members with an empty value of their type, the rest not at all.
"""

from __future__ import annotations

import gzip
import re
from functools import cache
from pathlib import Path
from typing import Any

import botocore
import orjson
from botocore.loaders import Loader
from botocore.model import ListShape, MapShape, OperationModel, ServiceModel, Shape, StructureShape
from messages import JSON_1_1, REQUEST_ID, S3_XML, XML, message, xml

_LOADER = Loader()
_DATA = Path(botocore.__file__).parent / "data"
_NAMED = re.compile(rb'"(signingName|endpointPrefix)" ?: ?"([^"]+)"')
# Where several services share a signing name, the one that scanners ask first.
_FIRST = {"elasticloadbalancing": "elbv2", "email": "ses", "rds": "rds", "apigateway": "apigateway"}
_HOLDERS = ListShape | MapShape | StructureShape
_DEEPEST = 6  # required members within required members; some shapes hold themselves


@cache
def _folders() -> dict[str, list[str]]:
    """botocore's folders by signing name: a credential scope says "monitoring" for cloudwatch.

    Reads only the head of each model, where the metadata stands: whole ones take seconds.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(_DATA.glob("*/*/service-2.json.gz")):
        with gzip.open(path) as model:
            named = {key: name.decode() for key, name in _NAMED.findall(model.read(4096))}
        name = named.get(b"signingName") or named.get(b"endpointPrefix", "")
        folders = found.setdefault(name, [])
        if path.parts[-3] not in folders:
            folders.append(path.parts[-3])
    return found


@cache
def _model(folder: str) -> ServiceModel:
    return ServiceModel(_LOADER.load_service_model(folder, "service-2"), folder)


@cache
def models(signing_name: str) -> tuple[ServiceModel, ...]:
    """The models that sign as ``signing_name``, the likeliest first; empty for a foreign name."""
    folders = _folders().get(signing_name, [])
    first = _FIRST.get(signing_name, signing_name)
    return tuple(_model(one) for one in sorted(folders, key=lambda one: one != first))


@cache
def protocol(signing_name: str) -> str:
    """The protocol of a service in botocore's word; "" for one that botocore does not know."""
    known = models(signing_name)
    return str(known[0].resolved_protocol) if known else ""


# --- Which operation a request is ----------------------------------------------------------------


def operation_named(signing_name: str, name: str, version: str = "") -> OperationModel | None:
    """The operation that Action= or X-Amz-Target names; ``version`` is what Version= says.

    The two load balancing services share their name, and differ in the version.
    """
    known = models(signing_name)
    for model in sorted(known, key=lambda one: one.api_version != version) if version else known:
        if name in model.operation_names:
            return model.operation_model(name)
    return None


def operation_at(signing_name: str, method: str, target: str) -> OperationModel | None:
    """The REST operation of a method and a request target ("/2015-03-31/functions?MaxItems=9")."""
    path, _, query = target.partition("?")
    asked = {part.partition("=")[0] for part in query.split("&")}
    for pattern, wanted, verb, operation in _routes(signing_name):
        if verb == method and wanted <= asked and pattern.fullmatch(path):
            return operation
    return None


@cache
def _routes(signing_name: str) -> list[tuple[re.Pattern[str], frozenset[str], str, OperationModel]]:
    """The REST operations, the most particular ones first."""
    routes = []
    for model in models(signing_name):
        for name in model.operation_names:
            operation = model.operation_model(name)
            path, _, query = operation.http.get("requestUri", "/").partition("?")
            wanted = frozenset(part.partition("=")[0] for part in query.split("&") if part)
            routes.append((_pattern(path), wanted, operation.http["method"], operation))

    def particular(route: tuple[re.Pattern[str], frozenset[str], str, OperationModel]) -> Any:
        pattern, wanted, _verb, operation = route
        # ListObjects and GetObject are what S3 takes a bare path for.
        plain = operation.name in ("GetObject", "ListObjectsV2", "ListBuckets", "HeadBucket")
        return -len(wanted - {"x-id"}), pattern.pattern.count("["), not plain, operation.name

    return sorted(routes, key=particular)


def _pattern(path: str) -> re.Pattern[str]:
    parts = re.split(r"(\{[^}]+\})", path.rstrip("/") or "/")
    text = "".join(
        ("[^?]+" if part.endswith("+}") else "[^/?]+") if part.startswith("{") else re.escape(part)
        for part in parts
    )
    return re.compile(text + "/?")


# --- What it answers -----------------------------------------------------------------------------


@cache
def _operation(service: str, name: str) -> OperationModel:
    return _model(service).operation_model(name)


def empty_answer(operation: OperationModel, wire: str) -> bytes:
    """A whole answer. ``wire`` is the protocol that the request came in, in botocore's word."""
    return _empty(operation.service_model.service_name, operation.name, wire)


@cache
def _empty(service: str, name: str, wire: str) -> bytes:
    operation = _operation(service, name)
    shape = operation.output_shape
    match wire:
        case "smithy-rpc-v2-cbor":
            return message(
                200, "application/cbor", _cbor(_value(shape)), smithy_protocol="rpc-v2-cbor"
            )
        case "json":
            body = orjson.dumps(_value(shape) or {})
            return message(200, JSON_1_1, body, x_amzn_RequestId=REQUEST_ID)
        case "rest-json":
            return _rest_json(shape)
        case "rest-xml":
            return _rest_xml(shape)
        case "ec2":
            body = xml(
                f'<{name}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
                f"<requestId>{REQUEST_ID}</requestId>{_members(shape, ec2=True)}</{name}Response>"
            )
            return message(200, XML, body, x_amzn_RequestId=REQUEST_ID)
        case _:
            return message(200, XML, _query(operation, name), x_amzn_RequestId=REQUEST_ID)


def _query(operation: OperationModel, name: str) -> bytes:
    namespace = operation.service_model.metadata.get("xmlNamespace", "")
    shape = operation.output_shape
    inner = _members(shape)
    if shape is not None and (wrapper := shape.serialization.get("resultWrapper")):
        inner = f"<{wrapper}>{inner}</{wrapper}>"
    return xml(
        f'<{name}Response xmlns="{namespace}">{inner}<ResponseMetadata><RequestId>{REQUEST_ID}'
        f"</RequestId></ResponseMetadata></{name}Response>"
    )


def _rest_xml(shape: StructureShape | None) -> bytes:
    if shape is None:
        return message(200, S3_XML, b"", x_amz_request_id=REQUEST_ID)
    payload = shape.serialization.get("payload")
    root = shape.members[payload] if payload else shape
    if not isinstance(root, StructureShape):  # a blob, as GetObject's
        return message(200, "application/octet-stream", b"", x_amz_request_id=REQUEST_ID)
    name = root.serialization.get("name") or (shape.members[payload].name if payload else root.name)
    return message(
        200, S3_XML, xml(f"<{name}>{_members(root)}</{name}>"), x_amz_request_id=REQUEST_ID
    )


def _rest_json(shape: StructureShape | None) -> bytes:
    if shape is None:
        return message(200, "application/json", b"{}", x_amzn_RequestId=REQUEST_ID)
    payload = shape.serialization.get("payload")
    root = shape.members[payload] if payload else shape
    if not isinstance(root, StructureShape):
        return message(200, "application/octet-stream", b"", x_amzn_RequestId=REQUEST_ID)
    body = orjson.dumps(_value(root) or {})
    return message(200, "application/json", body, x_amzn_RequestId=REQUEST_ID)


def _answered(shape: StructureShape) -> list[tuple[str, Shape]]:
    """The members of the body that even an empty answer has."""
    return [
        (name, member)
        for name, member in shape.members.items()
        if "location" not in member.serialization
        and (
            name in shape.required_members
            or isinstance(member, ListShape | MapShape | StructureShape)
        )
    ]


def _value(shape: Shape | None, depth: int = 0) -> Any:
    """An empty value of a shape, as JSON takes it."""
    match shape:
        case None:
            return {}
        case StructureShape() if shape.is_tagged_union:
            return {}
        case StructureShape():
            return {
                member.serialization.get("name", name): _value(member, depth + 1)
                for name, member in _answered(shape)
                if depth < _DEEPEST and (depth == 0 or name in shape.required_members)
            }
        case ListShape():
            return []
        case MapShape():
            return {}
    match shape.type_name:
        case "boolean":
            return False
        case "string" | "character":
            return (shape.enum or [""])[0]
        case "blob":
            return ""
        case _:
            return 0


def _members(shape: Shape | None, depth: int = 0, *, ec2: bool = False) -> str:
    """The members of a structure as XML."""
    if not isinstance(shape, StructureShape) or depth >= _DEEPEST:
        return ""
    return "".join(
        _element(name, member, depth, ec2=ec2)
        for name, member in _answered(shape)
        if depth == 0 or name in shape.required_members
    )


def _element(name: str, shape: Shape, depth: int, *, ec2: bool) -> str:
    tag = str(shape.serialization.get("name", name))
    if isinstance(shape, ListShape | MapShape):
        # A flattened list has no element of its own: empty, it is simply not there.
        return "" if shape.serialization.get("flattened") else f"<{tag}/>"
    if isinstance(shape, StructureShape):
        return f"<{tag}>{_members(shape, depth + 1, ec2=ec2)}</{tag}>"
    if shape.type_name == "timestamp":
        return f"<{tag}>2023-05-14T08:30:00Z</{tag}>"
    value = _value(shape)
    return f"<{tag}>{str(value).lower() if value is False else value}</{tag}>"


def _cbor(value: Any) -> bytes:
    """The few values above in CBOR (RFC 8949); every one of them is short."""
    match value:
        case False:
            return b"\xf4"
        case 0:
            return b"\x00"
        case str():
            return _cbor_head(0x60, len(value.encode())) + value.encode()
        case []:
            return b"\x80"
        case dict():
            items = b"".join(_cbor(key) + _cbor(part) for key, part in value.items())
            return _cbor_head(0xA0, len(value)) + items
        case _:
            raise TypeError(f"no CBOR for {type(value).__name__}")


def _cbor_head(kind: int, length: int) -> bytes:
    return bytes([kind + length]) if length < 24 else bytes([kind + 24, length])
