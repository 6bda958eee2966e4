"""What is said of Azure's errors, and how long a Retry-After may make anyone wait."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline import Pipeline
from azure.core.pipeline.transport import HttpTransport
from azure.core.rest import HttpRequest
from pydantic import SecretStr

from tasks.clouds import azure_write
from tasks.clouds.azure_write import (
    LONGEST_WAIT,
    AzureSession,
    _BoundedRetry,
    _only_if,
    open_azure,
)
from tasks.clouds.propagation import Propagation
from tasks.clouds.sdk_errors import UnsettledWrite, from_azure
from tasks.errors import (
    AccessRefused,
    CloudError,
    CloudTimeout,
    Conflict,
    Halted,
    ResourceGone,
    Throttled,
)
from tasks.inventory import AzureSource, Issuer
from tasks.model import Call, Cloud, Config, Resource, Step


def answered(status: int, code: str = "") -> HttpResponseError:
    error = HttpResponseError(message="(Code) words")
    error.status_code = status
    error.error = SimpleNamespace(code=code, message="words")  # type: ignore[assignment]
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answered(200), UnsettledWrite),
        (answered(400), CloudError),
        (answered(401), AccessRefused),
        (answered(403), AccessRefused),
        (answered(404, "ResourceNotFound"), ResourceGone),
        (answered(404, "ResourceGroupNotFound"), ResourceGone),
        (answered(404, "NotFound"), ResourceGone),
        # What was not found is not the resource.
        (answered(404, "InvalidResourceType"), CloudError),
        (answered(404, "SubscriptionNotFound"), CloudError),
        (answered(404), CloudError),
        (answered(408), CloudTimeout),
        (answered(409), Conflict),
        (answered(412), Conflict),
        (answered(429), Throttled),
        (answered(500), UnsettledWrite),
        (ClientAuthenticationError(message="AADSTS700213"), AccessRefused),
        (ServiceRequestError("no route"), CloudError),
        (ServiceResponseError("cut off"), CloudTimeout),
    ],
)
def test_errors_are_named(error: Any, kind: type[CloudError]) -> None:
    assert type(from_azure(error, "PUT x")) is kind


def response(retry_after: str) -> Any:
    http = SimpleNamespace(headers={"Retry-After": retry_after}, status_code=429)
    return SimpleNamespace(http_response=http)


def test_a_wait_is_honoured_up_to_a_minute() -> None:
    assert _BoundedRetry().get_retry_after(response("3")) == 3
    with pytest.raises(Throttled):
        _BoundedRetry().get_retry_after(response(str(int(LONGEST_WAIT) + 1)))


class Throttling(HttpTransport[HttpRequest, Any]):
    """A transport whose first answer asks to come back, and whose others are good."""

    def __init__(self, status: int) -> None:
        self.statuses = iter([status, 200, 200])
        self.sent = 0

    def send(self, request: HttpRequest, **_: Any) -> Any:
        self.sent += 1
        headers = {"Retry-After": "0.05"}
        return SimpleNamespace(status_code=next(self.statuses), headers=headers)

    def open(self) -> None: ...

    def close(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.attack
@pytest.mark.parametrize(
    ("method", "status", "sent"),
    [("PUT", 429, 1), ("DELETE", 429, 1), ("GET", 429, 2), ("PUT", 503, 2)],
)
def test_a_halt_ends_the_wait_of_a_throttled_write(method: str, status: int, sent: int) -> None:
    """What may have been made, and what only looks, is gone on with: it would be judged wrongly."""

    def halted() -> None:
        raise Halted("Remediation has been halted.")

    transport = Throttling(status)
    pipeline = Pipeline[HttpRequest, Any](transport, [_BoundedRetry(halted)])
    with pytest.raises(Halted) if sent == 1 else nullcontext():
        pipeline.run(HttpRequest(method, "https://arm.example/x"))
    assert transport.sent == sent


@pytest.mark.attack
def test_no_halt_ends_an_undo() -> None:
    def halted() -> None:
        raise Halted("Remediation has been halted.")

    resource = Resource(Cloud.AZURE, "s", "eu", "azure.storage.account", "/x", "x", Config({}))
    arm = Mock()
    session = AzureSession(arm, resource, (), Propagation(go_on=halted))
    with pytest.raises(Halted):
        arm.go_on()
    session.undo(Step("", Call(Cloud.AZURE, "v", "PUT", {}, "/x"), (), ()))
    arm.go_on()


@pytest.mark.parametrize(
    ("operation", "etag", "headers"),
    [
        ("PUT", 'W/"1"', {"If-Match": 'W/"1"'}),
        ("DELETE", 'W/"1"', {"If-Match": 'W/"1"'}),
        ("PUT", None, {"If-None-Match": "*"}),
        ("DELETE", None, {}),
        ("PATCH", "", {}),
    ],
)
def test_a_write_says_what_must_still_be_there(
    operation: str, etag: str | None, headers: dict[str, str]
) -> None:
    assert _only_if(Call(Cloud.AZURE, "v", operation, {}, "/x"), etag) == headers


def test_a_cloud_that_repeats_the_code_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise HttpResponseError(message="no subject gate-7:739211, no 739211")

    monkeypatch.setattr(azure_write._GateCredential, "get_token", refuse)
    source = AzureSource(name="contoso", tenant="t", client_id="c", gate_id="gate-7")
    issuer = Issuer(url="https://x", key_file="none", key_id="k")
    with pytest.raises(CloudError) as caught:
        open_azure(
            source, issuer, SimpleNamespace(account="s"), (), SecretStr("739211"), Propagation()
        )
    assert caught.value.message == "no subject …, no …"
    assert caught.value.__cause__ is None
