"""What is asked, by whom, and whether it goes well: routing, throttling, errors, faults, counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random

import fleet_aws
import orjson
from answers_aws import AwsAnswers, Request, refused_role, role_account
from answers_azure import AzureAnswers
from counters import INDEX, Counters, note_busy
from empty_aws import protocol
from faults import Broken, Fault, cut, halved
from messages import JSON, arm_error, aws_error, aws_refusal, family, message
from signatures import is_right

_HTML = message(
    200,
    "text/html",
    b"<!DOCTYPE html>\n<html><head><title>Proxy</title></head>"
    b"<body><h1>Please sign in to the network</h1></body></html>\n",
)
_GARBAGE = b"\x00\x16\x7f SSH-2.0-not-http\r\n\x01\x02\x03\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Rates:
    """Which fractions (0 to 1) of the requests are throttled, fail, and are verified."""

    throttled: float = 0.0
    errors: float = 0.0
    verify: float = 0.01


class Site:
    """Everything that one process answers."""

    def __init__(
        self,
        aws: AwsAnswers,
        azure: AzureAnswers,
        rates: Rates,
        faults: Mapping[bytes, Fault],
        counters: Counters,
        process: int,
    ) -> None:
        self._aws = aws
        self._azure = azure
        self._rates = rates
        self._faults = faults
        self._counters = counters
        self._row = counters.own(process)
        self._random = Random(f"process {process}").random
        self._verify = rates.verify
        self._unlucky = rates.throttled + rates.errors

    def respond(self, request: Request) -> bytes | Broken:
        target = request.target
        # Signed, such a path is Glacier's, where "-" stands for the caller's own account.
        if target.startswith(b"/-/") and b"Credential=" not in request.head:
            return self._control(request)
        if target.startswith(b"http://"):  # as asked of a proxy
            request.target = b"/" + target[7:].partition(b"/")[2]
        try:
            if request.read_scope():
                return self._to_aws(request)
            return self._to_azure(request)
        except ValueError as error:  # numbers, forms and JSON that are none
            self._count("other")
            words = f"The request cannot be read: {type(error).__name__}"
            return aws_error("query", 400, "ValidationError", words)

    def _control(self, request: Request) -> bytes:
        note_busy(self._row)
        if request.target == b"/-/reset" and request.method == b"POST":
            self._counters.reset()
            return message(200, JSON, b"{}")
        if request.target == b"/-/stats":
            return message(200, JSON, orjson.dumps(self._counters.report()))
        return message(404, JSON, b'{"error": "there are /-/stats and POST /-/reset"}')

    def _count(self, name: str) -> None:
        self._row[INDEX[name]] += 1

    # --- AWS

    def _to_aws(self, request: Request) -> bytes | Broken:
        owner = self._aws.owner(request.access_key)
        if owner is None:
            self._count("other")
            return aws_refusal("unknown key", _column(request))
        request.owner = owner
        if self._verify and self._random() < self._verify:
            self._count("verified")
            if not is_right(request):
                self._count("wrong_signatures")
                self._count("other")
                return aws_refusal("bad signature", _column(request))
        if self._faults:
            broken = self._aws_fault(request)
            if broken is not None:
                return broken
        if self._unlucky:
            chance = self._random()
            if chance < self._unlucky:
                return self._unlucky_aws(request, throttled=chance < self._rates.throttled)
        operation, answer = self._aws.answer(request)
        self._row[INDEX[operation]] += 1
        return answer

    def _unlucky_aws(self, request: Request, *, throttled: bool) -> bytes:
        # Counted by what it would have been, so that the counts are of requests.
        operation, _ = self._aws.answer(request)
        self._count(operation)
        self._count("throttled" if throttled else "errors")
        return aws_refusal("throttled" if throttled else "error", _column(request))

    def _aws_fault(self, request: Request) -> bytes | Broken | None:
        assuming = request.service == b"sts" and b"Action=AssumeRole&" in request.body + b"&"
        account = role_account(request.body) if assuming else request.account
        fault = self._faults.get(account)
        if fault is None:
            return None
        if assuming:
            fault.calls = 0
            if fault.service != "sts" and not (fault.name == "refused" and not fault.service):
                return None
        elif (fault.name == "refused" and not fault.service) or (
            fault.service and fault.service.encode() != request.service
        ):
            return None
        if fault.name == "expired":
            fault.calls += 1
            if fault.calls <= fault.after:
                return None
        operation, answer = self._aws.answer(request)
        self._count(operation)
        self._count("faults")
        match fault.name:
            case "refused" if assuming:
                return refused_role(
                    request.account.decode(),
                    f"arn:aws:iam::{account.decode()}:role/{fleet_aws.ROLE}",
                )
            case "refused" | "skewed" | "expired":
                return aws_refusal(fault.name, _column(request))
            case "500":
                return aws_refusal("error", _column(request))
            case name:
                return _broken(name, answer)

    # --- Azure

    def _to_azure(self, request: Request) -> bytes | Broken:
        if self._faults:
            fault = self._faults.get(self._azure.subscription_of(request))
            if fault is not None:
                self._count("faults")
                self._count("other")
                _, answer = self._azure.answer(request)
                match fault.name:
                    case "refused":
                        return arm_error(
                            403, "AuthorizationFailed", "The client does not have authorization."
                        )
                    case "skewed" | "expired":
                        return arm_error(
                            401, "ExpiredAuthenticationToken", "The access token expired."
                        )
                    case "500":
                        return arm_error(500, "InternalServerError", "An error has occurred.")
                    case name:
                        return _broken(name, answer)
        if self._unlucky:
            chance = self._random()
            if chance < self._unlucky:
                operation, _ = self._azure.answer(request)
                self._count(operation)
                if chance < self._rates.throttled:
                    self._count("throttled")
                    return arm_error(
                        429,
                        "SubscriptionRequestsThrottled",
                        "Number of requests for the subscription exceeded the limit.",
                        Retry_After="1",
                    )
                self._count("errors")
                return arm_error(500, "InternalServerError", "An error has occurred.")
        operation, answer = self._azure.answer(request)
        self._row[INDEX[operation]] += 1
        return answer


def _column(request: Request) -> str:
    service = request.service.decode("latin-1")
    if service in ("s3", "ec2"):
        return service
    if service in ("iam", "sts"):
        return "query"
    if b"\r\nx-amz-target:" in request.lowered:
        return "json"
    return family(service, "query" if request.body.startswith(b"Action=") else protocol(service))


def _broken(name: str, answer: bytes) -> bytes | Broken:
    match name:
        case "hang":
            return Broken(b"", "hang")
        case "cut":
            return cut(answer)
        case "html":
            return _HTML
        case "truncated":
            return halved(answer)
        case "garbage":
            return Broken(_GARBAGE, "close")
        case "reset":
            return Broken(b"", "reset")
        case _:
            raise ValueError(f"no fault: {name}")
