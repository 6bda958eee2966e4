"""The AWS read path: it answers what boto3 answers, and says in words what goes wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any
from unittest import mock
from unittest.mock import ANY
from urllib.parse import quote, urlsplit

import boto3
import pytest
from aiohttp import web
from botocore import xform_name
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError
from botocore.utils import lowercase_dict
from hypothesis import given
from hypothesis import strategies as st

from deployments.local.aws.server import EmulatedAws
from tasks.clouds.aws_api import AwsApi
from tasks.clouds.aws_credentials import AwsKeyring
from tasks.clouds.aws_request import AwsCredentials, draft, sign
from tasks.clouds.budgets import Budgets
from tasks.clouds.retrying import Patience
from tasks.clouds.scanner import Scanner
from tasks.clouds.transport import Limits, open_http
from tasks.errors import (
    AccessRefused,
    BadInput,
    CloudError,
    CloudTimeout,
    ResourceGone,
    Throttled,
)
from tasks.inventory import AwsSource, HubCredentials, Inventory
from tasks.model import Account, Cloud
from tasks.rate import UNLIMITED, Rate

KEYS = AwsCredentials(
    "AKIAEXAMPLEEXAMPLE", "very/secret/access/key", "session-token-of-great-length"
)
REGION = "eu-central-1"

# Every operation that reading uses, with parameters; test_aws_collect holds the list to that.
OPERATIONS: list[tuple[str, str, dict[str, Any]]] = [
    ("ec2", "DescribeSecurityGroups", {}),
    ("ec2", "DescribeSecurityGroups", {"MaxResults": 5}),
    ("ec2", "DescribeSecurityGroups", {"GroupIds": ["sg-00000000000000000"]}),
    ("ec2", "GetEbsEncryptionByDefault", {}),
    ("iam", "GetAccountPasswordPolicy", {}),
    ("organizations", "ListAccounts", {}),
    ("s3", "GetBucketLocation", {"Bucket": "BUCKET"}),
    ("s3", "GetBucketPolicy", {"Bucket": "BUCKET"}),
    ("s3", "GetBucketTagging", {"Bucket": "BUCKET"}),
    ("s3", "GetBucketVersioning", {"Bucket": "BUCKET"}),
    ("s3", "GetBucketVersioning", {"Bucket": "no-such-bucket-of-ours"}),
    ("s3", "GetPublicAccessBlock", {"Bucket": "BUCKET"}),
    ("s3", "ListBuckets", {}),
    ("s3", "ListBuckets", {"MaxBuckets": 1}),
    ("sts", "AssumeRole", {"RoleArn": "arn:aws:iam::111122223333:role/x", "RoleSessionName": "xx"}),
]
IDS = [f"{operation}-{index}" for index, (_, operation, _) in enumerate(OPERATIONS)]


def boto3_client(service: str, region: str, keys: AwsCredentials, endpoint: str | None) -> Any:
    return boto3.client(  # type: ignore[call-overload]
        service,
        region_name=region,
        endpoint_url=endpoint,
        aws_access_key_id=keys.access_key,
        aws_secret_access_key=keys.secret_key,
        aws_session_token=keys.token,
        config=Config(
            retries={"total_max_attempts": 1},
            s3={"us_east_1_regional_endpoint": "regional", "addressing_style": "path"},
        ),
    )


@pytest.fixture
async def api(aws_source: AwsSource, quick: Limits) -> AsyncIterator[AwsApi]:
    async with AwsApi(endpoint=aws_source.endpoint, limits=quick) as api:
        yield api


@pytest.fixture
async def keys(api: AwsApi, aws_source: AwsSource, aws_account: str) -> AwsCredentials:
    return await AwsKeyring(aws_source, api).assume(aws_account, aws_source.scanner_role)


# --- The same as boto3 ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("service", "operation", "params"), OPERATIONS, ids=IDS)
async def test_answer_is_what_boto3_answers(
    api: AwsApi,
    keys: AwsCredentials,
    aws_source: AwsSource,
    service: str,
    operation: str,
    params: dict[str, Any],
) -> None:
    client = boto3_client("s3", REGION, keys, aws_source.endpoint)
    bucket = client.list_buckets()["Buckets"][0]["Name"]
    home = client.get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1"
    params = {name: bucket if value == "BUCKET" else value for name, value in params.items()}
    client = boto3_client(service, home, keys, aws_source.endpoint)
    expected, code = ask_boto3(client, operation, params)
    if code:
        with pytest.raises(CloudError) as caught:
            await api.call(service, operation, params, region=home, credentials=keys)
        assert (caught.value.code, caught.value.operation) == (code, operation)
    else:
        answer = await api.call(service, operation, params, region=home, credentials=keys)
        assert answer == expected


def ask_boto3(client: Any, operation: str, params: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What boto3 answers, without its metadata; or the error code it raises."""
    try:
        answer = getattr(client, xform_name(operation))(**params)
    except ClientError as refused:
        return {}, refused.response["Error"]["Code"]
    answer.pop("ResponseMetadata")
    return answer, ""


@pytest.mark.slow
async def test_every_operation_that_reading_uses_is_held_to_boto3(
    aws_source: AwsSource, aws_account: str, quick: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = set()
    call = AwsApi.call

    async def noted(self: AwsApi, service: str, operation: str, *rest: Any, **more: Any) -> Any:
        used.add((service, operation))
        return await call(self, service, operation, *rest, **more)

    monkeypatch.setattr(AwsApi, "call", noted)
    async with Scanner(Inventory(aws=(aws_source,)), quick) as scanner:
        await scanner.discover()
        scan = await scanner.scan(Account(Cloud.AWS, aws_account, source=aws_source.name))
    assert not scan.failed
    used.add(("s3", "GetBucketLocation"))  # only where ListBuckets does not tell the region
    assert used == {(service, operation) for service, operation, _ in OPERATIONS}


class Caught(Exception):
    """Carries the request that boto3 would have sent."""

    def __init__(self, request: AWSPreparedRequest) -> None:
        self.request = request


def request_of_boto3(
    service: str, operation: str, params: dict[str, Any], region: str
) -> AWSPreparedRequest:
    client = boto3_client(service, region, KEYS, None)

    def catch(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        raise Caught(request)

    client.meta.events.register("before-send", catch)
    with (
        botocore_clock_at(NOON),
        pytest.raises(Caught) as caught,
    ):
        getattr(client, xform_name(operation))(**params)
    return caught.value.request


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1"])
@pytest.mark.parametrize(("service", "operation", "params"), OPERATIONS, ids=IDS)
def test_request_is_the_one_boto3_would_send_to_aws(
    service: str, operation: str, params: dict[str, Any], region: str
) -> None:
    """Address, body and what the signature counts for; nothing is sent."""
    params = {name: "my-bucket" if value == "BUCKET" else value for name, value in params.items()}
    theirs = request_of_boto3(service, operation, params, region)
    drawn = draft(service, operation, params, region=region, endpoint="", with_token=True)
    ours = Sent(sign(drawn, KEYS, NOON))
    assert ours.method == theirs.method
    assert f"https://{ours.headers['host']}{ours.target}" == with_path(theirs.url)
    assert ours.body == as_bytes(theirs.body)
    assert ours.headers.get("content-length") == (text(theirs, "content-length") or None)
    for name in ("authorization", "content-type", *(n for n in ours.headers if n[:5] == "x-amz")):
        assert ours.headers.get(name, "") == text(theirs, name)


NOON = 1_795_600_800.0


def botocore_clock_at(now: float) -> Any:
    moment = datetime.fromtimestamp(now, UTC)
    return mock.patch("botocore.auth.get_current_datetime", return_value=moment)


class Sent:
    """A request taken apart again."""

    def __init__(self, request: bytes) -> None:
        head, _, self.body = request.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.method, self.target, _ = first.split(" ")
        self.headers = {name.lower(): value for name, value in (x.split(": ", 1) for x in lines)}


def with_path(url: str) -> str:
    """An empty path is sent as a slash."""
    parts = urlsplit(url)
    return parts._replace(path=parts.path or "/").geturl()


def as_bytes(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else body or b""


def text(request: AWSPreparedRequest, header: str) -> str:
    value = lowercase_dict(request.headers).get(header, "")
    return value.decode() if isinstance(value, bytes) else str(value)


@given(
    bucket=st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(str.strip)
    | st.from_regex(r"[a-z0-9][a-z0-9.-]{2,40}", fullmatch=True),
    secret=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
    token=st.none() | st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
    now=st.integers(1_700_000_000, 2_000_000_000),
)
def test_signature_is_botocores_whatever_the_names(
    bucket: str, secret: str, token: str | None, now: int
) -> None:
    """A filled-in draft is what botocore would have written and signed from scratch."""
    keys = AwsCredentials("AKIAEXAMPLEEXAMPLE", secret, token)
    with_token = token is not None
    drawn = draft(
        *("s3", "GetBucketPolicy", {"Bucket": bucket}),
        region=REGION,
        endpoint="",
        with_token=with_token,
    )
    ours = Sent(sign(drawn, keys, now))
    request = AWSRequest("GET", f"https://{ours.headers['host']}{ours.target}")
    with botocore_clock_at(now):
        S3SigV4Auth(ReadOnlyCredentials(keys.access_key, secret, token), "s3", REGION).add_auth(
            request
        )
    assert ours.headers["authorization"] == request.headers["Authorization"]
    assert ours.target == f"/{quote(bucket, safe='')}?policy"


# --- Paging --------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_pages_hold_what_one_answer_holds(api: AwsApi, aws_source: AwsSource) -> None:
    keyring = AwsKeyring(aws_source, api)
    keys = await keyring.assume(aws_source.management_account, aws_source.discovery_role)
    asked: dict[str, Any] = {"region": REGION, "credentials": keys}
    pages = [
        page["Accounts"]
        async for page in api.pages("organizations", "ListAccounts", {}, **asked, page_size=4)
    ]
    assert [len(page) for page in pages] == [4, 4, 4, 1]
    whole = await api.call("organizations", "ListAccounts", {}, **asked)
    assert [one for page in pages for one in page] == whole["Accounts"]


async def test_page_that_comes_twice_ends_the_paging(serve: Any, quick: Limits) -> None:
    async def same(_request: web.Request) -> web.Response:
        return web.json_response({"Accounts": [], "NextToken": "again"})

    async with serve(same) as url, AwsApi(endpoint=url, limits=quick) as api:
        with pytest.raises(CloudError, match="the same page came twice"):
            async for _ in api.pages(
                "organizations", "ListAccounts", {}, region=REGION, credentials=KEYS
            ):
                pass
        assert api.calls == 2


# --- What goes wrong -----------------------------------------------------------------------------


def ec2_error(code: str, message: str = "words", status: int = 400) -> web.Response:
    xml = (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        "</Errors><RequestID>1</RequestID></Response>"
    )
    return web.Response(text=xml, status=status, content_type="text/xml")


async def describe(url: str, limits: Limits, credentials: AwsCredentials = KEYS) -> dict[str, Any]:
    async with AwsApi(endpoint=url, limits=limits) as api:
        return await api.call(
            "ec2", "DescribeSecurityGroups", {}, region=REGION, credentials=credentials
        )


@pytest.mark.parametrize(
    ("code", "status", "error", "calls"),
    [
        ("UnauthorizedOperation", 403, AccessRefused, 1),
        ("AuthFailure", 401, AccessRefused, 1),
        ("InvalidClientTokenId", 403, AccessRefused, 1),
        ("ExpiredToken", 400, AccessRefused, 1),
        ("OptInRequired", 401, AccessRefused, 1),
        ("RequestLimitExceeded", 503, Throttled, None),
        ("Throttling", 400, Throttled, None),
        ("TooManyRequestsException", 429, Throttled, None),
        ("SlowDown", 503, Throttled, None),
        ("InvalidGroup.NotFound", 400, ResourceGone, 1),
        ("NoSuchEntity", 404, ResourceGone, 1),
        ("InvalidParameterValue", 400, CloudError, 1),
        ("InternalError", 500, CloudError, 3),
        ("RequestTimeTooSkewed", 403, CloudError, 1),
    ],
)
async def test_error_code_becomes_an_error(
    serve: Any, quick: Limits, code: str, status: int, error: type[CloudError], calls: int | None
) -> None:
    asked = 0
    quick = replace(quick, patience=replace(quick.patience, seconds=0.5))

    async def fail(_request: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return ec2_error(code, status=status)

    async with serve(fail) as url:
        with pytest.raises(CloudError) as caught:
            await describe(url, quick)
    assert type(caught.value) is error
    assert (caught.value.code, caught.value.operation) == (code, "DescribeSecurityGroups")
    assert asked == calls if calls is not None else asked > 1  # throttles are tried by time


async def test_wrong_clock_is_said(serve: Any, quick: Limits) -> None:
    async def skewed(_request: web.Request) -> web.Response:
        return ec2_error("RequestTimeTooSkewed", "the difference is too large", 403)

    async with serve(skewed) as url:
        with pytest.raises(CloudError, match="the clock of this machine is wrong"):
            await describe(url, quick)


async def test_throttling_that_passes_is_waited_out(serve: Any, quick: Limits) -> None:
    answers = iter([ec2_error("Throttling"), ec2_error("RequestLimitExceeded", status=503)])
    empty = "<DescribeSecurityGroupsResponse><securityGroupInfo/></DescribeSecurityGroupsResponse>"

    async def recover(_request: web.Request) -> web.Response:
        return next(answers, web.Response(text=empty, content_type="text/xml"))

    async with serve(recover) as url:
        assert await describe(url, quick) == {"SecurityGroups": []}


async def test_retry_after_is_honoured_within_the_budget(serve: Any) -> None:
    times: list[float] = []

    async def later(_request: web.Request) -> web.Response:
        times.append(time.monotonic())
        answer = ec2_error("Throttling", status=429)
        answer.headers["Retry-After"] = "1" if len(times) == 1 else "60"
        return answer

    patience = Patience(attempts=5, seconds=10, first_wait=0.01, longest_wait=0.05)
    async with serve(later) as url:
        with pytest.raises(Throttled):
            await describe(url, Limits(patience=patience))
    first, second = times  # a minute is more than the budget: there is no third
    assert 1.0 <= second - first < 2.0
    assert time.monotonic() - second < 2.0


@pytest.mark.parametrize(
    "body",
    ["<html><body>Sign in to the proxy</body></html>", "<!DOCTYPE html>\n<p>", "<a><b>", "{", ""],
)
async def test_garbled_answer_is_no_empty_account(serve: Any, quick: Limits, body: str) -> None:
    async def garbled(_request: web.Request) -> web.Response:
        return web.Response(text=body, content_type="text/xml")

    async with serve(garbled) as url:
        with pytest.raises(CloudError, match="a body that is not ec2"):
            await describe(url, quick)


async def test_silence_becomes_a_timeout(serve: Any) -> None:
    async def hang(_request: web.Request) -> web.Response:
        await asyncio.sleep(60)
        raise AssertionError

    async with serve(hang) as url:
        with pytest.raises(CloudTimeout, match="did not answer in time"):
            await describe(url, Limits(request_seconds=0.2))


async def test_connection_cut_in_mid_body_is_tried_again(serve: Any, quick: Limits) -> None:
    asked = 0

    async def cut(request: web.Request) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"<DescribeSecurityGroupsResponse>")
        assert request.transport is not None
        request.transport.abort()
        return response

    async with serve(cut) as url:
        with pytest.raises(CloudError, match=r"the connection to .* failed"):
            await describe(url, quick)
    assert asked == quick.patience.attempts


async def test_nobody_there(quick: Limits, unused_tcp_port: int) -> None:
    with pytest.raises(CloudError, match=r"the connection to .* failed"):
        await describe(f"http://127.0.0.1:{unused_tcp_port}", quick)


async def test_no_tls_there(serve: Any, quick: Limits) -> None:
    async def never(_request: web.Request) -> web.Response:
        raise AssertionError

    async with serve(never) as url:
        with pytest.raises(CloudError, match=r"no trusted connection|failed"):
            await describe(url.replace("http:", "https:"), quick)


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "UnauthorizedOperation", "Throttling"])
async def test_error_never_repeats_a_secret(serve: Any, quick: Limits, code: str) -> None:
    async def leak(request: web.Request) -> web.Response:
        body = await request.text()
        said = (
            f"{request.headers['X-Amz-Security-Token']} {KEYS.secret_key} {KEYS.access_key} {body}"
        )
        return ec2_error(code, said.replace("&", "&amp;"))

    quick = replace(quick, patience=replace(quick.patience, seconds=0.5))
    async with serve(leak) as url:
        with pytest.raises(CloudError) as caught:
            await describe(url, quick)
    for secret in (KEYS.token, KEYS.secret_key, KEYS.access_key):
        assert secret is not None
        assert secret not in str(caught.value)
        assert secret not in repr(caught.value)


def test_credentials_keep_their_secrets_out_of_their_repr() -> None:
    assert KEYS.secret_key not in repr(KEYS)
    assert str(KEYS.token) not in repr(KEYS)


def test_ca_file_that_holds_no_certificate(tmp_path: Any) -> None:
    empty = tmp_path / "ca.pem"
    empty.write_text("nothing")
    for path in (empty, tmp_path / "missing.pem"):
        with pytest.raises(BadInput, match="holds no certificate"):
            open_http(Limits(), str(path))


# --- Credentials ---------------------------------------------------------------------------------


@pytest.mark.slow
async def test_role_session_is_asked_for_once_and_again_before_it_ends(
    api: AwsApi, aws_source: AwsSource, aws_account: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = AwsKeyring(aws_source, api)
    role = aws_source.scanner_role
    both = await asyncio.gather(*(keyring.assume(aws_account, role) for _ in range(2)))
    assert both[0] is both[1]
    assert api.calls == 1
    late = both[0].expires - 299
    clock = SimpleNamespace(time=lambda: late)  # the keyring's alone: requests are signed now
    monkeypatch.setattr("tasks.clouds.aws_credentials.time", clock)
    renewed = await keyring.assume(aws_account, role)
    assert renewed is not both[0]
    assert api.calls == 2


@pytest.mark.slow
async def test_role_that_does_not_trust_us(
    api: AwsApi, aws: EmulatedAws, aws_source: AwsSource
) -> None:
    closed = next(account for account, how in aws.failing.items() if how == "refused")
    with pytest.raises(AccessRefused) as caught:
        await AwsKeyring(aws_source, api).assume(closed, aws_source.scanner_role)
    assert caught.value.code == "AccessDenied"
    assert closed in str(caught.value)


def plain_source(credentials: HubCredentials | None) -> AwsSource:
    return AwsSource(
        name="x", regions=(REGION,), external_id=ANY, accounts=(), credentials=credentials
    )


async def test_hub_credentials_from_named_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "AKIA1")
    monkeypatch.delenv("A_SECRET", raising=False)
    named = HubCredentials(access_key_id_env="A_KEY", secret_access_key_env="A_SECRET")
    keyring = AwsKeyring(plain_source(named), AwsApi())
    with pytest.raises(BadInput, match="A_SECRET: this environment variable is not set"):
        await keyring.hub()
    monkeypatch.setenv("A_SECRET", "s")
    assert await keyring.hub() == AwsCredentials("AKIA1", "s")


async def test_hub_credentials_from_the_chain(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    (tmp_path / "credentials").write_text(
        "[audit]\naws_access_key_id = AKIA2\naws_secret_access_key = s2\n"
    )
    with pytest.raises(AccessRefused, match="no AWS credentials"):
        await AwsKeyring(plain_source(None), AwsApi()).hub()
    with pytest.raises(AccessRefused, match=r"no AWS credentials.*nobody"):
        await AwsKeyring(plain_source(HubCredentials(profile="nobody")), AwsApi()).hub()
    audit = AwsKeyring(plain_source(HubCredentials(profile="audit")), AwsApi())
    assert await audit.hub() == AwsCredentials("AKIA2", "s2")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA3")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "t3")
    from_env = await AwsKeyring(plain_source(None), AwsApi()).hub()
    assert from_env == AwsCredentials("AKIA3", "s3", "t3")


# --- Politeness ----------------------------------------------------------------------------------


async def test_calls_draw_on_the_budget_of_account_region_and_service(
    serve: Any, quick: Limits
) -> None:
    empty = "<DescribeSecurityGroupsResponse><securityGroupInfo/></DescribeSecurityGroupsResponse>"

    async def answer(_request: web.Request) -> web.Response:
        return web.Response(text=empty, content_type="text/xml")

    limited = Rate(per_second=0.001, burst=2)
    budgets = Budgets(lambda key: limited if key.account == "111122223333" else UNLIMITED)
    patience = replace(quick.patience, seconds=0.2)
    asked: dict[str, Any] = {"region": REGION}
    async with (
        serve(answer) as url,
        AwsApi(endpoint=url, limits=replace(quick, patience=patience), budgets=budgets) as api,
    ):
        one, other = (replace(KEYS, account=id) for id in ("111122223333", "444455556666"))
        for _ in range(2):
            await api.call("ec2", "DescribeSecurityGroups", {}, **asked, credentials=one)
        with pytest.raises(Throttled, match="ec2:DescribeSecurityGroups of 111122223333"):
            await api.call("ec2", "DescribeSecurityGroups", {}, **asked, credentials=one)
        for _ in range(4):
            await api.call("ec2", "DescribeSecurityGroups", {}, **asked, credentials=other)
        assert api.calls == 6
    assert len(budgets) == 2


@pytest.mark.slow
async def test_keyring_names_whose_budget_is_used(
    api: AwsApi, keys: AwsCredentials, aws_source: AwsSource, aws_account: str
) -> None:
    hub = await AwsKeyring(aws_source, api).hub()
    assert (keys.account, hub.account) == (aws_account, f"hub of {aws_source.name}")
