"""What comes back from AWS: botocore's output shapes, made into readers of XML once a process.

botocore walks its model anew for each answer, and reads dates with a general parser; here every
shape becomes a function over the parsed tree. What it gives is what botocore's own parser gives,
which still reads errors, JSON, and the few outputs that have more than a body of XML.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any
from xml.etree.ElementTree import Element, ParseError, XMLParser

from botocore.awsrequest import HeadersDict
from botocore.model import ListShape, OperationModel, Shape, StructureShape
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp

from tasks.clouds.aws_request import service_of
from tasks.clouds.http_client import Answer

_Read = Callable[[Element], Any]
_XML = frozenset({"ec2", "query", "rest-xml"})


class _NeedsBotocore(Exception):
    """A shape that is left to botocore's parser: maps, unions, attributes, parts in headers."""


def read_answer(service: str, operation: str, said: Answer) -> dict[str, Any]:
    """An answer as botocore's parser gives it; of an error, the code and message under "Error".

    Raises botocore's ResponseParserError for a body that is not in the service's protocol.
    """
    if said.body[:200].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        raise ResponseParserError  # a proxy's page; as XML it might pass for an empty list
    described = service_of(service)
    model = described.model.operation_model(operation)
    if said.status < 300 and (read := _reader(service, operation)) is not None:
        return read(said.body)
    wire = {
        "status_code": said.status,
        "headers": HeadersDict(said.headers),  # models know them with capitals: ETag
        "body": said.body,
        "context": {"operation_name": operation},
    }
    answer: dict[str, Any] = described.parser.parse(wire, model.output_shape)  # type: ignore[arg-type]
    answer.pop("ResponseMetadata", None)
    return answer


@cache
def _reader(service: str, operation: str) -> Callable[[bytes], dict[str, Any]] | None:
    """What reads a successful answer's body; None where botocore's parser does."""
    model: OperationModel = service_of(service).model.operation_model(operation)
    shape = model.output_shape
    if service_of(service).model.resolved_protocol not in _XML or shape is None:
        return None
    payload = shape.serialization.get("payload", "")
    wrapper = shape.serialization.get("resultWrapper", "")
    if payload and len(shape.members) > 1:
        return None  # the others are in headers
    try:
        read = _structure(shape.members[payload] if payload else shape)
    except _NeedsBotocore:
        return None

    def read_body(body: bytes) -> dict[str, Any]:
        root = _tree(body)
        wrapped = [child for child in root if _plain(child.tag) == wrapper] if wrapper else [root]
        if not wrapped:
            raise ResponseParserError(f"there is no {wrapper} in it")
        try:
            answer: dict[str, Any] = read(wrapped[0])
        except ValueError:
            raise ResponseParserError("a value in it is not of its type") from None
        return {payload: answer} if payload else answer

    return read_body


def _tree(body: bytes) -> Element:
    parser = XMLParser(encoding="utf-8")  # noqa: S314 - expat bounds the growth of entities
    try:
        parser.feed(body)
        return parser.close()
    except ParseError as error:
        raise ResponseParserError(str(error)) from None


def _plain(tag: str) -> str:
    """A tag without its namespace."""
    return tag.rpartition("}")[2]


def _of(shape: Shape) -> _Read:
    if isinstance(shape, StructureShape):
        return _structure(shape)
    if isinstance(shape, ListShape):
        return _list(shape)
    read = _SCALARS.get(shape.type_name)
    if read is None:
        raise _NeedsBotocore
    return read


def _structure(shape: Shape) -> _Read:
    if not isinstance(shape, StructureShape) or shape.is_tagged_union or shape.is_document_type:
        raise _NeedsBotocore
    by_tag: dict[str, tuple[str, _Read, bool]] = {}
    for name, member in shape.members.items():
        said = member.serialization
        if said.get("location") or said.get("xmlAttribute") or said.get("eventheader"):
            raise _NeedsBotocore
        if isinstance(member, ListShape) and said.get("flattened"):
            tag = member.member.serialization.get("name") or said.get("name") or name
            by_tag[tag] = name, _of(member.member), True
        else:
            by_tag[said.get("name") or name] = name, _of(member), False
    known: dict[str, tuple[str, _Read, bool] | None] = {}  # by tags with their namespace

    def read(node: Element) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for child in node:
            tag = child.tag
            try:
                member = known[tag]
            except KeyError:
                member = by_tag.get(_plain(tag))
                if len(known) < 1000:
                    known[tag] = member
            if member is None:
                continue
            name, read_member, repeated = member
            if repeated:
                found.setdefault(name, []).append(read_member(child))
            elif name not in found:
                found[name] = read_member(child)
        return found

    return read


def _list(shape: ListShape) -> _Read:
    read = _of(shape.member)
    return lambda node: [read(item) for item in node]


def _text(node: Element) -> str:
    return node.text or ""


def _time(node: Element) -> datetime:
    text = _text(node)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        return parse_timestamp(text)  # the other forms that dates have had
    return moment


_SCALARS: Mapping[str, _Read] = {
    "string": _text,
    "character": _text,
    "boolean": lambda node: node.text == "true",
    "integer": lambda node: int(_text(node)),
    "long": lambda node: int(_text(node)),
    "float": lambda node: float(_text(node)),
    "double": lambda node: float(_text(node)),
    "timestamp": _time,
    "blob": lambda node: b64decode(_text(node)),
}
