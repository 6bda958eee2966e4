"""Every operation of a service, asked or not, has an empty answer that botocore reads."""

from __future__ import annotations

from typing import Any

import empty_aws
import pytest
from botocore.model import ListShape
from botocore.parsers import create_parser

# One or two services of each protocol, and those that scanners lean on.
SERVICES = (
    "iam",
    "sts",
    "ec2",
    "s3",
    "rds",
    "sqs",
    "lambda",
    "dynamodb",
    "cloudfront",
    "kms",
    "eks",
    "cloudwatch",
)


def _parsed(answer: bytes, protocol: str, operation: Any) -> Any:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert int(headers["Content-Length"]) == len(body)
    wire = {
        "status_code": int(status.split(" ")[1]),
        "headers": headers,
        "body": body,
        "context": {"operation_name": operation.name},
    }
    return create_parser(protocol).parse(wire, operation.output_shape)


@pytest.mark.parametrize("service", SERVICES)
def test_every_operation_has_an_answer_with_empty_lists(service: str) -> None:
    model = empty_aws.models(_signing_name(service))[0]
    assert model.service_name == service
    protocol = model.resolved_protocol
    for name in model.operation_names:
        operation = model.operation_model(name)
        if operation.has_event_stream_output:
            continue
        answer = _parsed(empty_aws.empty_answer(operation, protocol), protocol, operation)
        if operation.output_shape is None or operation.output_shape.serialization.get("payload"):
            continue
        for member, shape in operation.output_shape.members.items():
            flat = shape.serialization.get("flattened") or "location" in shape.serialization
            if isinstance(shape, ListShape) and not (flat and protocol != "json"):
                assert answer[member] == [], (name, member)


def _signing_name(service: str) -> str:
    return {"cloudwatch": "monitoring"}.get(service, service)


@pytest.mark.parametrize("protocol", ["json", "query", "smithy-rpc-v2-cbor"])
def test_one_service_answers_in_the_protocol_it_is_asked_in(protocol: str) -> None:
    operation = empty_aws.operation_named("monitoring", "DescribeAlarms")
    assert operation is not None
    answer = _parsed(empty_aws.empty_answer(operation, protocol), protocol, operation)
    assert answer["MetricAlarms"] == []


@pytest.mark.parametrize(
    ("service", "method", "target", "operation"),
    [
        ("s3", "GET", "/", "ListBuckets"),
        ("s3", "GET", "/bucket?encryption", "GetBucketEncryption"),
        ("s3", "GET", "/bucket?list-type=2&prefix=a", "ListObjectsV2"),
        ("s3", "HEAD", "/bucket", "HeadBucket"),
        ("s3", "GET", "/bucket/a/key", "GetObject"),
        ("lambda", "GET", "/2015-03-31/functions/?MaxItems=5", "ListFunctions"),
        ("lambda", "GET", "/2015-03-31/functions/name/policy", "GetPolicy"),
        ("route53", "GET", "/2013-04-01/hostedzone", "ListHostedZones"),
        ("eks", "GET", "/clusters/name", "DescribeCluster"),
    ],
)
def test_a_path_names_its_operation(service: str, method: str, target: str, operation: str) -> None:
    found = empty_aws.operation_at(service, method, target)
    assert found is not None
    assert found.name == operation


def test_a_name_that_no_service_has_is_no_operation() -> None:
    assert empty_aws.models("no-such-service") == ()
    assert empty_aws.protocol("no-such-service") == ""
    assert empty_aws.operation_named("iam", "NoSuchOperation") is None
    assert empty_aws.operation_at("lambda", "GET", "/nowhere") is None
