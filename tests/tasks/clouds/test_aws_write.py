"""How boto3's answers are read: what was gone already, what may have been written, what leaks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from threading import Barrier
from typing import Any
from urllib.parse import parse_qsl

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError
from pydantic import SecretStr

from tasks.clouds import aws_write
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.aws_write import AwsSession, open_aws
from tasks.clouds.sdk_errors import PartlyWritten, UnsettledWrite, from_aws
from tasks.clouds.session_policy import permission_of
from tasks.errors import (
    AccessRefused,
    CloudError,
    CloudTimeout,
    Conflict,
    Halted,
    ResourceGone,
    Throttled,
)
from tasks.inventory import AwsSource
from tasks.model import Call, Cloud, Config, Resource, Step
from tasks.rules import RULES

SOURCE = AwsSource(name="acme", regions=("eu-central-1",), external_id="x", accounts=("1" * 12,))
REVOKE = Call(Cloud.AWS, "ec2", "RevokeSecurityGroupIngress", {"GroupId": "sg-1"})
AUTHORIZE = Call(Cloud.AWS, "ec2", "AuthorizeSecurityGroupIngress", {"GroupId": "sg-1"})
BUCKET = Resource(
    Cloud.AWS, "1" * 12, "eu-central-1", "aws.s3.bucket", "arn:aws:s3:::logs", "logs", Config({})
)
STEP = Step("ec2:RevokeSecurityGroupIngress", REVOKE, (AUTHORIZE,), ())


def refusal(code: str, status: int = 400, retries: int = 0, message: str = "no") -> ClientError:
    about = {"HTTPStatusCode": status, "RetryAttempts": retries}
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": about},  # type: ignore[typeddict-item]
        "Op",
    )


class Ec2:
    """Answers every call with the same, an exception or not."""

    def __init__(self, answer: dict[str, Any] | Exception) -> None:
        self.answer = answer

    def revoke_security_group_ingress(self, **_: object) -> dict[str, Any]:
        if isinstance(self.answer, Exception):
            raise self.answer
        return {"ResponseMetadata": {"RetryAttempts": 0}, **self.answer}

    authorize_security_group_ingress = revoke_security_group_ingress


def session(answer: dict[str, Any] | Exception) -> AwsSession:
    keys = AwsCredentials("a", "s")
    made = AwsSession(
        SOURCE, "eu-central-1", {permission_of(call): keys for call in (REVOKE, AUTHORIZE)}
    )
    made._client = lambda *_: Ec2(answer)  # type: ignore[assignment]
    return made


UNKNOWN = {"UnknownIpPermissions": [{"IpProtocol": "tcp"}]}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (UNKNOWN, Conflict),
        ({**UNKNOWN, "RevokedSecurityGroupRules": [{"CidrIpv4": "0.0.0.0/0"}]}, PartlyWritten),
        ({**UNKNOWN, "ResponseMetadata": {"RetryAttempts": 1}}, UnsettledWrite),
    ],
)
def test_a_revocation_of_what_is_not_there_is_no_success(
    answer: dict[str, Any], kind: type[CloudError]
) -> None:
    with pytest.raises(kind) as caught:
        session(answer).apply(STEP)
    assert type(caught.value) is kind


@pytest.mark.attack
@pytest.mark.parametrize(
    ("codes", "sent"),
    [
        (["RequestLimitExceeded"], 1),
        (["InternalError", "RequestLimitExceeded"], 3),  # the first may have been made
        (["RequestLimitExceeded", "InternalError"], 1),
    ],
)
@pytest.mark.parametrize("undo", [False, True])
def test_a_halt_ends_the_wait_of_a_throttled_write_and_of_no_undo(
    codes: list[str], sent: int, undo: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def halted() -> None:
        raise Halted("Remediation has been halted.")

    def answer(request: Any, **_: object) -> AWSResponse:
        tried.append(request)
        code = codes[len(tried) - 1] if len(tried) <= len(codes) else ""
        text = f"<R><Errors><Error><Code>{code}</Code></Error></Errors></R>" if code else "<R/>"
        return AWSResponse(request.url, 503 if code else 200, {}, _Raw(text.encode()))

    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)
    tried: list[Any] = []
    keys = AwsCredentials("a", "s")
    actions = (permission_of(REVOKE), permission_of(AUTHORIZE))
    made = AwsSession(SOURCE, "eu-central-1", dict.fromkeys(actions, keys), halted)
    client = aws_write._writing_client.__wrapped__(SOURCE, "ec2", "eu-central-1")
    client.meta.events.register("before-send", answer)
    made._client = lambda *_: client  # type: ignore[assignment]
    if undo:
        made.undo(STEP)
        assert len(tried) == len(codes) + 1
    else:
        with pytest.raises(Halted) if sent <= len(codes) else nullcontext():
            made.apply(STEP)
        assert len(tried) == sent


def test_sessions_share_a_client_and_no_keys() -> None:
    sent: dict[str, set[str]] = {}
    together = Barrier(4)

    def answer(request: Any, **_: object) -> AWSResponse:
        head = request.headers["Authorization"].decode()
        group = dict(parse_qsl(request.body))["GroupId"]
        sent.setdefault(group, set()).add(head.partition("Credential=")[2].partition("/")[0])
        assert request.headers["X-Amz-Security-Token"].decode() == f"token-{group}"
        together.wait(10)
        return AWSResponse(request.url, 200, {}, _Raw(b"<R/>"))

    client = aws_write._writing_client.__wrapped__(SOURCE, "ec2", "eu-central-1")
    client.meta.events.register("before-send", answer)

    def write(number: int) -> None:
        keys = AwsCredentials(f"key-sg-{number}", "s", f"token-sg-{number}")
        opened = AwsSession(SOURCE, "eu-central-1", {permission_of(REVOKE): keys})
        opened._client = lambda *_: client  # type: ignore[assignment]
        for _ in range(5):
            opened.apply(Step("x", replace(REVOKE, params={"GroupId": f"sg-{number}"}), (), ()))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert sent == {f"sg-{number}": {f"key-sg-{number}"} for number in range(4)}


def test_a_closed_session_writes_no_more() -> None:
    opened = session({})
    opened.close()
    with pytest.raises(AccessRefused):
        opened.apply(STEP)


class _Raw:
    """The body of an answer, as urllib3 hands it over."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def stream(self, **_: object) -> list[bytes]:
        return [self.content]


@pytest.mark.parametrize(
    "answer", [refusal("InvalidPermission.Duplicate"), refusal("NoSuchEntity", 404), UNKNOWN]
)
def test_an_undo_leaves_alone_what_is_so_already(answer: dict[str, Any] | Exception) -> None:
    session(answer).undo(STEP)


def test_a_call_that_no_session_is_for_is_not_made() -> None:
    delete = Call(Cloud.AWS, "ec2", "DeleteSecurityGroup", {"GroupId": "sg-1"})
    with pytest.raises(AccessRefused, match="not for that"):
        session({}).apply(Step("ec2:RevokeSecurityGroupIngress", delete, (), ()))


def test_an_answer_that_cannot_be_read_leaves_it_open_what_was_written() -> None:
    with pytest.raises(UnsettledWrite) as caught:
        session(ResponseParserError("invalid XML: <html>")).apply(STEP)
    assert "<html>" not in str(caught.value)


def test_an_undo_that_is_refused_says_so() -> None:
    with pytest.raises(AccessRefused):
        session(refusal("UnauthorizedOperation", 403)).undo(STEP)
    with pytest.raises(Conflict):
        session(refusal("OperationAborted", 409)).undo(STEP)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refusal("AccessDenied", 403), AccessRefused),
        (refusal("ExpiredToken", 403), AccessRefused),
        (refusal("RequestLimitExceeded", 503), Throttled),
        (refusal("NoSuchBucket", 404), ResourceGone),
        (refusal("InvalidPermission.NotFound"), Conflict),
        # After a retry, what stands in the way may be our own first attempt.
        (refusal("InvalidPermission.NotFound", retries=1), UnsettledWrite),
        (refusal("InternalError", 500), UnsettledWrite),
        (refusal("MalformedPolicy"), CloudError),
        (NoCredentialsError(), AccessRefused),
        (ReadTimeoutError(endpoint_url="https://x"), CloudTimeout),
        (EndpointConnectionError(endpoint_url="https://x"), CloudError),
        (HTTPClientError(error="cut off"), UnsettledWrite),
        (ResponseParserError("<html>"), UnsettledWrite),
    ],
)
def test_errors_are_named(error: Any, kind: type[CloudError]) -> None:
    named = from_aws(error, "Op")
    assert type(named) is kind
    assert named.operation == "Op"


@pytest.mark.parametrize(
    "error",
    [
        ParamValidationError(report="Invalid length for parameter ExternalId, value: s3cret"),
        refusal("SignatureDoesNotMatch", 403, message="The Canonical String was s3cret"),
    ],
)
def test_what_quotes_the_request_is_not_repeated(error: Any) -> None:
    assert "s3cret" not in str(from_aws(error, "AssumeRole"))


@pytest.mark.parametrize("code", ["ValidationError", "AccessDeniedException", "InternalFailure"])
def test_a_cloud_that_repeats_the_code_is_not_repeated(
    code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sts:
        def assume_role(self, *, ExternalId: str, **_: object) -> None:
            raise refusal(code, message=f"{ExternalId} is no ExternalId; 739211 neither")

        def close(self) -> None:
            pass

    monkeypatch.setattr(aws_write, "_sts", lambda *_: Sts())
    monkeypatch.setattr(aws_write, "hub_keys", lambda _: None)
    with pytest.raises(CloudError) as caught:
        open_aws(SOURCE, "1" * 12, BUCKET, ["s3:PutBucketPolicy"], SecretStr("739211"))
    assert caught.value.message == "… is no ExternalId; … neither"
    assert caught.value.code == code
    assert caught.value.__cause__ is None


def test_every_fix_and_undo_names_its_resource_in_the_record(table: Any) -> None:
    """But for what an account or a region has once, and what is yet to be made."""
    unnamed = {
        "aws.ec2.ebs_defaults",
        "aws.ec2.image_defaults",
        "aws.ec2.instance_defaults",
        "aws.ec2.snapshot_defaults",
        "aws.glue.data_catalog",
        "aws.guardduty.detector",
        "aws.iam.password_policy",
        "aws.securityhub.hub",
        "aws.xray.settings",
    }
    said = {}
    for row in RULES:
        if row.cloud is Cloud.AWS and row.fix is not None:
            resource = table.resource(row, table.examples[row.id][1][0])
            for step in row.fix(resource, table.values(row)):
                for call in (step.call, *step.undo):
                    said[row.kind, call.operation] = aws_write._target(call.params)
    missing = {kind for (kind, _), target in said.items() if not target}
    assert missing == unnamed
    assert said["aws.ec2.instance", "ModifyInstanceMetadataOptions"].startswith("i-")
    assert said["aws.athena.workgroup", "UpdateWorkGroup"] == "analysts"
    assert "-" not in said.values()
