"""Answers as botocore's parser reads them, whatever stands in them."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import pytest
from botocore.model import ListShape, Shape, StructureShape
from botocore.parsers import ResponseParserError
from hypothesis import given
from hypothesis import strategies as st

from tasks.clouds.aws_answer import _reader, read_answer
from tasks.clouds.aws_request import service_of
from tasks.clouds.http_client import Answer

# Of every protocol that speaks XML; operations that rules read or are likely to.
READ_HERE = [
    ("ec2", "DescribeSecurityGroups"),
    ("ec2", "DescribeInstances"),
    ("ec2", "DescribeVolumes"),
    ("ec2", "GetEbsEncryptionByDefault"),
    ("iam", "GetAccountPasswordPolicy"),
    ("iam", "ListUsers"),
    ("rds", "DescribeDBInstances"),
    ("s3", "GetBucketTagging"),
    ("s3", "GetBucketVersioning"),
    ("s3", "GetPublicAccessBlock"),
    ("s3", "ListBuckets"),
    ("sts", "AssumeRole"),
]
LEFT_TO_BOTOCORE = [
    ("s3", "GetBucketPolicy"),  # a string
    ("s3", "GetBucketAcl"),  # attributes
    ("s3", "GetBucketLifecycleConfiguration"),  # a header
    ("iam", "GetAccountSummary"),  # a map
    ("organizations", "ListAccounts"),  # JSON
]
TEXT = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "Zs"]), max_size=8)


def by_botocore(service: str, operation: str, said: Answer) -> dict[str, Any]:
    described = service_of(service)
    wire = {
        "status_code": said.status,
        "headers": said.headers,
        "body": said.body,
        "context": {"operation_name": operation},
    }
    shape = described.model.operation_model(operation).output_shape
    answer: dict[str, Any] = described.parser.parse(wire, shape)  # type: ignore[arg-type]
    answer.pop("ResponseMetadata", None)
    return answer


def scalar(draw: Any, kind: str) -> str:
    match kind:
        case "boolean":
            return str(draw(st.sampled_from(["true", "false", "True", ""])))
        case "integer" | "long":
            return str(draw(st.integers(-(2**40), 2**40)))
        case "float" | "double":
            return repr(draw(st.floats(allow_nan=False, allow_infinity=False)))
        case "timestamp":
            moment = draw(st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)))
            form = draw(
                st.sampled_from(["%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.000Z", "%a, %d %b %Y"])
            )
            return str(moment.replace(tzinfo=UTC).strftime(form))
        case "blob":
            return b64encode(draw(st.binary(max_size=6))).decode()
        case _:
            return str(draw(TEXT))


def fill(draw: Any, node: Element, shape: Shape, depth: int) -> None:
    """Anything that ``shape`` allows, below ``node``; and things that it does not know."""
    if isinstance(shape, StructureShape):
        for name, member in shape.members.items():
            if depth > 5 or draw(st.integers(0, 3)) == 0:
                continue
            tag = member.serialization.get("name") or name
            if isinstance(member, ListShape) and member.serialization.get("flattened"):
                tag = member.member.serialization.get("name") or tag
                for _ in range(draw(st.integers(0, 2))):
                    fill(draw, SubElement(node, tag), member.member, depth + 1)
            else:
                fill(draw, SubElement(node, tag), member, depth + 1)
        if draw(st.booleans()):
            SubElement(node, "somethingNew").text = "1"
    elif isinstance(shape, ListShape):
        tag = shape.member.serialization.get("name") or "member"
        for _ in range(draw(st.integers(0, 2))):
            fill(draw, SubElement(node, tag), shape.member, depth + 1)
    else:
        node.text = scalar(draw, shape.type_name)


@st.composite
def answers(draw: Any) -> tuple[str, str, bytes]:
    service, operation = draw(st.sampled_from(READ_HERE))
    shape = service_of(service).model.operation_model(operation).output_shape
    namespace = draw(st.sampled_from(["", "http://example.com/doc/2006-03-01/"]))
    root = Element(f"{operation}Response", {"xmlns": namespace} if namespace else {})
    below = root
    if wrapper := shape.serialization.get("resultWrapper"):
        below = SubElement(root, wrapper)
    if payload := shape.serialization.get("payload"):
        shape = shape.members[payload]
    fill(draw, below, shape, 0)
    return service, operation, tostring(root)


@given(answers())
def test_answer_is_what_botocore_reads(answer: tuple[str, str, bytes]) -> None:
    service, operation, body = answer
    said = Answer(200, {}, body)
    assert read_answer(service, operation, said) == by_botocore(service, operation, said)


def test_who_reads_what() -> None:
    assert [pair for pair in READ_HERE if _reader(*pair) is None] == []
    assert [pair for pair in LEFT_TO_BOTOCORE if _reader(*pair) is not None] == []


def test_error_has_its_code() -> None:
    body = b"<Error><Code>NoSuchBucketPolicy</Code><Message>none</Message></Error>"
    answer = read_answer("s3", "GetBucketPolicy", Answer(404, {}, body))
    assert answer["Error"] == {"Code": "NoSuchBucketPolicy", "Message": "none"}


@pytest.mark.parametrize(
    ("service", "operation", "body"),
    [
        ("s3", "GetBucketVersioning", b""),
        ("s3", "GetBucketVersioning", b"<html><Status>Enabled</Status></html>"),
        ("s3", "GetBucketVersioning", b"<VersioningConfiguration><Status>Ena"),
        ("ec2", "DescribeSecurityGroups", b"\xff\xfe\x00"),
        ("iam", "GetAccountPasswordPolicy", b"<GetAccountPasswordPolicyResponse/>"),
        (
            "iam",
            "GetAccountPasswordPolicy",
            b"<R><GetAccountPasswordPolicyResult><PasswordPolicy><MinimumPasswordLength>many"
            b"</MinimumPasswordLength></PasswordPolicy></GetAccountPasswordPolicyResult></R>",
        ),
    ],
)
def test_what_is_no_answer(service: str, operation: str, body: bytes) -> None:
    with pytest.raises(ResponseParserError):
        read_answer(service, operation, Answer(200, {}, body))
