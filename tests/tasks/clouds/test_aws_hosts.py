"""Which host is asked: an account's number stands before it once, and never before an address."""

from __future__ import annotations

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.httpsession import URLLib3Session

from tasks.clouds.aws_request import AwsCredentials, draft, plain_address, sign
from tasks.clouds.aws_write import aws_client
from tasks.inventory import AwsSource

KEYS = AwsCredentials("AKIAEXAMPLEEXAMPLE", "very/secret/access/key", "session-token")
ACCOUNT = "1" * 12


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        (f"https://{ACCOUNT}.127.0.0.1:4566/v1/x?y", "https://127.0.0.1:4566/v1/x?y"),
        (f"http://{ACCOUNT}.10.1.2.3", "http://10.1.2.3"),
        (f"http://a.b.{ACCOUNT}.10.1.2.3/", "http://10.1.2.3/"),
        (f"http://{ACCOUNT}.[::1]:80/x", "http://[::1]:80/x"),
        ("http://127.0.0.1:80/a.127.0.0.1", "http://127.0.0.1:80/a.127.0.0.1"),
        ("http://[::1]/", "http://[::1]/"),
        (f"https://{ACCOUNT}.aws.example.com/", f"https://{ACCOUNT}.aws.example.com/"),
        ("https://1.2.3.4.example.com/", "https://1.2.3.4.example.com/"),
    ],
)
def test_no_name_stands_before_an_address(url: str, plain: str) -> None:
    assert plain_address(url) == plain


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [
        ("", f"{ACCOUNT}.s3-control.eu-central-1.amazonaws.com"),
        ("http://127.0.0.1:4566", "127.0.0.1:4566"),
        ("http://aws.example.com:4566", f"{ACCOUNT}.aws.example.com:4566"),
    ],
)
def test_both_ways_of_asking_ask_the_same_host(
    endpoint: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = draft(
        *("s3control", "GetPublicAccessBlock", {"AccountId": ACCOUNT}),
        region="eu-central-1",
        endpoint=endpoint,
        with_token=True,
    )
    lines = sign(drawn, KEYS, 1_795_600_800.0).decode().split("\r\n")
    assert f"Host: {host}" in lines
    assert f"x-amz-account-id: {ACCOUNT}" in [line.replace("X-Amz-A", "x-amz-a") for line in lines]
    asked: list[str] = []

    def answer(_: URLLib3Session, request: AWSPreparedRequest) -> AWSResponse:
        asked.append(str(request.url))
        raise KeyboardInterrupt  # nothing more of the call is wanted

    monkeypatch.setattr(URLLib3Session, "send", answer)
    source = AwsSource(
        name="acme",
        regions=("eu-central-1",),
        external_id="x",
        accounts=(ACCOUNT,),
        endpoint=endpoint,
    )
    client = aws_client(source, "s3control", "eu-central-1", KEYS)
    for _ in range(2):  # botocore mends its model on the first call
        with pytest.raises(KeyboardInterrupt):
            client.get_public_access_block(AccountId=ACCOUNT)
    assert [url.split("/")[2] for url in asked] == [host, host]
