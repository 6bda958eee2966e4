"""A running simulator: what goes wrong on purpose, what it counts, how it begins and ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import faults
import fleet_aws
import fleet_azure
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionClosedError,
    HTTPClientError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError
from harness import simulator

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
ACCOUNT = fleet_aws.account_id(0)
CALLS = (
    ("ec2", "describe_security_groups"),
    ("s3", "list_buckets"),
    ("iam", "get_account_password_policy"),
    ("sts", "get_caller_identity"),
    ("organizations", "list_accounts"),
    ("lambda", "list_functions"),
)


def _codes(one: Any) -> dict[str, tuple[str, int]]:
    found = {}
    for service, call in CALLS:
        with pytest.raises(ClientError) as caught:
            getattr(one.client(service, ACCOUNT), call)()
        answer = caught.value.response
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        found[service] = answer["Error"]["Code"], status
    return found


# --- Rates ---------------------------------------------------------------------------------------


def test_throttling_answers_in_each_service_s_words(start: Any) -> None:
    assert _codes(start("--throttled", "1")) == {
        "ec2": ("RequestLimitExceeded", 503),
        "s3": ("SlowDown", 503),
        "iam": ("Throttling", 400),
        "sts": ("Throttling", 400),
        "organizations": ("ThrottlingException", 400),
        "lambda": ("ThrottlingException", 400),
    }


def test_errors_answer_500_in_each_service_s_words(start: Any) -> None:
    one = start("--errors", "1")
    assert _codes(one) == {
        "ec2": ("InternalError", 500),
        "s3": ("InternalError", 500),
        "iam": ("InternalFailure", 500),
        "sts": ("InternalFailure", 500),
        "organizations": ("InternalFailure", 500),
        "lambda": ("InternalFailure", 500),
    }
    assert one.stats()["errors"] == len(CALLS)


def test_arm_throttles_with_a_time_to_wait(start: Any) -> None:
    one = start("--azure", "1", "--throttled", "1")
    with one.http() as http:
        answer = http.get("/subscriptions?api-version=2022-12-01")
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "1"
    assert answer.json()["error"]["code"] == "SubscriptionRequestsThrottled"


def test_rates_are_as_asked(start: Any) -> None:
    one = start("--throttled", "0.2", "--errors", "0.1")
    headers = one.signed("iam", "POST", "/", b"Action=ListUsers&Version=2010-05-08")
    with one.http() as http:
        statuses = [
            http.post("/", headers=headers, content=b"Action=ListUsers&Version=2010-05-08")
            for _ in range(1500)
        ]
    found = [answer.status_code for answer in statuses]
    stats = one.stats()
    assert found.count(400) == stats["throttled"]
    assert found.count(500) == stats["errors"]
    assert 0.15 < found.count(400) / 1500 < 0.25
    assert 0.06 < found.count(500) / 1500 < 0.14
    assert stats["requests"] == 1500


# --- Faults --------------------------------------------------------------------------------------

FAULTS = faults.NAMES
FAULTY = {name: fleet_aws.account_id(1 + place) for place, name in enumerate(FAULTS)}
SUBSCRIPTION = fleet_azure.subscription_id(0)


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    file = tmp_path_factory.mktemp("faults") / "faults.json"
    told: dict[str, Any] = {account: name for name, account in FAULTY.items()}
    told[FAULTY["expired"]] = {"fault": "expired", "after": 3}
    told[fleet_aws.account_id(20)] = {"fault": "truncated", "service": "s3"}
    told[fleet_aws.account_id(21)] = {"fault": "500", "service": "sts"}
    told[SUBSCRIPTION] = "truncated"
    file.write_text(json.dumps(told))
    with simulator("--aws", "30", "--azure", "2", "--faults", str(file)) as one:
        yield one


def _groups(one: Any, account: str) -> list[Any]:
    groups: list[Any] = one.client("ec2", account).describe_security_groups()["SecurityGroups"]
    return groups


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        ("cut", ResponseParserError),
        ("truncated", ResponseParserError),
        ("garbage", HTTPClientError),
        ("reset", (ConnectionClosedError, HTTPClientError)),
    ],
)
def test_a_broken_answer(faulty: Any, fault: str, raised: Any) -> None:
    with pytest.raises(raised):
        _groups(faulty, FAULTY[fault])
    assert len(_groups(faulty, ACCOUNT)) == 12  # nobody else is touched


def test_a_connection_that_hangs(faulty: Any) -> None:
    config = Config(retries={"total_max_attempts": 1}, read_timeout=0.5)
    client = faulty.client("ec2", FAULTY["hang"], config=config)
    with pytest.raises(ReadTimeoutError):
        client.describe_security_groups()


def test_a_cut_is_in_the_middle_of_the_body(faulty: Any) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
        faulty.ask("s3", "GET", "/", account=FAULTY["cut"])


def test_a_reset_is_a_reset(start: Any, tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text(json.dumps({ACCOUNT: "reset"}))
    # Without TLS: Python's own tells a reset from an end no more.
    one = start("--plain", "--faults", str(file))
    with pytest.raises(httpx.ReadError, match="reset"):
        one.ask("s3", "GET", "/")


def test_a_proxy_s_page(faulty: Any) -> None:
    answer = faulty.ask("s3", "GET", "/", account=FAULTY["html"])
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/html"
    assert answer.text.startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [("500", "InternalError", 500), ("skewed", "RequestTimeTooSkewed", 403)],
)
def test_a_refusal(faulty: Any, fault: str, code: str, status: int) -> None:
    with pytest.raises(ClientError) as caught:
        _groups(faulty, FAULTY[fault])
    answer = caught.value.response
    assert answer["Error"]["Code"] == code
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == status


def _assume(one: Any, account: str) -> Any:
    return one.client("sts").assume_role(
        RoleArn=f"arn:aws:iam::{account}:role/{fleet_aws.ROLE}",
        RoleSessionName="suture",
        ExternalId=fleet_aws.EXTERNAL_ID,
    )


def test_a_session_expires_after_its_calls_until_the_role_is_assumed_again(faulty: Any) -> None:
    account = FAULTY["expired"]
    ec2 = faulty.client("ec2", account)
    for _ in range(2):
        for _ in range(3):
            ec2.describe_security_groups()
        for _ in range(2):
            with pytest.raises(ClientError, match="ExpiredToken"):
                ec2.describe_security_groups()
        _assume(faulty, account)


def test_a_role_that_is_refused(faulty: Any) -> None:
    with pytest.raises(ClientError, match="AccessDenied") as caught:
        _assume(faulty, FAULTY["refused"])
    assert FAULTY["refused"] in str(caught.value)
    assert _assume(faulty, ACCOUNT)["Credentials"]


def test_a_fault_of_one_service_leaves_the_others(faulty: Any) -> None:
    account = fleet_aws.account_id(20)
    assert len(_groups(faulty, account)) == 12
    with pytest.raises(ClientError, match="500"):  # what botocore makes of S3's broken answers
        faulty.client("s3", account).list_buckets()
    with pytest.raises(ClientError, match="InternalFailure"):
        _assume(faulty, fleet_aws.account_id(21))


def test_a_faulty_subscription(faulty: Any) -> None:
    told = faulty.told["azure"]
    form = {
        "grant_type": "client_credentials",
        "client_id": told["client_id"],
        "client_secret": told["client_secret"],
        "scope": "https://management.azure.com/.default",
    }
    with faulty.http() as http:
        token = http.post(f"/{told['tenant']}/oauth2/v2.0/token", data=form).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        groups = "providers/Microsoft.Network/networkSecurityGroups?api-version=2024-05-01"
        broken = http.get(f"/subscriptions/{SUBSCRIPTION}/{groups}")
        whole = http.get(f"/subscriptions/{fleet_azure.subscription_id(1)}/{groups}")
    with pytest.raises(json.JSONDecodeError):
        broken.json()
    assert len(whole.json()["value"]) == 20


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ('{"1": "explode"}', "the fault must be one of"),
        ('{"1": {"fault": "cut", "when": 1}}', "give a fault's name"),
        ("[]", "an object of accounts"),
        ("{", "--faults"),
    ],
)
def test_a_file_of_faults_that_cannot_be_used(tmp_path: Path, written: str, complaint: str) -> None:
    file = tmp_path / "faults.json"
    file.write_text(written)
    ended = subprocess.run(
        [sys.executable, str(HERE / "serve.py"), "--faults", str(file)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert complaint in ended.stderr
    assert ended.stdout == ""


# --- Latency, connections, counts ----------------------------------------------------------------


@pytest.mark.parametrize("plain", [[], ["--plain"]])
def test_answers_wait_for_the_latency_beside_each_other(start: Any, plain: list[str]) -> None:
    one = start("--latency-ms", "80", "--jitter-ms", "20", *plain)
    headers = one.signed("s3", "GET", "/")

    def ask(_: int) -> float:
        with one.http() as http:
            http.get("/-/stats")  # connects
            begun = time.monotonic()
            http.get("/", headers=headers).raise_for_status()
            return time.monotonic() - begun

    with ThreadPoolExecutor(16) as pool:
        took = list(pool.map(ask, range(64)))
    assert min(took) >= 0.08
    stats = one.stats()
    assert stats["operations"] == {"ListBuckets": 64}
    assert 1 < stats["max_concurrent_requests"] <= 16


def test_requests_may_be_pipelined_over_tls(start: Any) -> None:
    one = start("--latency-ms", "5")
    bucket = fleet_aws.bucket_name(ACCOUNT, 0)
    requests = b""
    for part in ("versioning", "policy", "tagging", "publicAccessBlock") * 5:
        target = f"/{bucket}?{part}"
        lines = [f"{name}: {value}" for name, value in one.signed("s3", "GET", target).items()]
        requests += "\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode()
    with (
        socket.create_connection(("127.0.0.1", one.port)) as raw,
        one.trust.wrap_socket(raw, server_hostname="localhost") as secured,
    ):
        secured.sendall(requests)
        received = b""
        while received.count(b"HTTP/1.1 ") < 20 or not received.endswith(b">"):
            received += secured.recv(65536)
    assert one.stats()["operations"] == dict.fromkeys(
        ("GetBucketVersioning", "GetBucketPolicy", "GetBucketTagging", "GetPublicAccessBlock"), 5
    )


def test_several_processes_count_together_and_from_zero_again(start: Any) -> None:
    one = start("--processes", "2")
    headers = one.signed("s3", "GET", "/")
    for _ in range(40):  # connections of their own, so that both get some
        with one.http() as http:
            http.get("/", headers=headers).raise_for_status()
    stats = one.stats()
    assert stats["processes"] == 2
    assert stats["operations"] == {"ListBuckets": 40}
    assert stats["connections_opened"] >= 41
    assert stats["bytes_sent"] > 40 * 1000
    assert stats["busy_cpu_seconds"] > 0
    with one.http() as http:
        assert http.post("/-/reset").status_code == 200
    stats = one.stats()
    assert stats["requests"] == 0
    assert stats["busy_cpu_seconds"] < 1


@pytest.mark.parametrize("how", ["input", "SIGTERM", "SIGINT"])
def test_it_ends_and_leaves_nothing(start: Any, how: str) -> None:
    one = start("--processes", "2")
    ca_file = Path(one.told["ca_file"])
    assert ca_file.exists()
    if how == "input":
        one.process.stdin.close()
    else:
        one.process.send_signal(getattr(signal, how))
    assert one.process.wait(timeout=10) == 0
    assert not ca_file.parent.exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", one.port), timeout=2)


def test_its_children_end_when_it_is_killed(start: Any) -> None:
    one = start()
    one.process.kill()
    one.process.wait(timeout=10)
    ends = time.monotonic() + 10
    while time.monotonic() < ends:
        try:
            socket.create_connection(("127.0.0.1", one.port), timeout=2).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    pytest.fail("a child still serves")


@pytest.mark.parametrize(
    "options", [["--throttled", "1.5"], ["--buckets", "0"], ["--latency-ms", "-1"], ["--aws", "x"]]
)
def test_options_that_mean_nothing(options: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, str(HERE / "serve.py"), *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 2
    assert options[0] in ended.stderr


@pytest.mark.parametrize("options", [["--own"], ["--own", "--plain", "--processes", "2"]])
def test_the_ceiling_is_measured(options: list[str]) -> None:
    ended = subprocess.run(
        [sys.executable, str(HERE / "ceiling.py"), "--seconds", "1", *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = json.loads(ended.stdout)
    assert found["tls"] is ("--plain" not in options)
    assert found["requests_per_s"] > 0
    assert found["capacity_per_s"] == pytest.approx(
        found["cores"] * 1e6 / found["cpu_us_per_request"], rel=0.01
    )
