"""Operations that moto lacks, with AWS's documented behaviour: one function each, and its state.

A function takes ``Asked`` and returns the answer's members, or raises Refusal. The answer is
written by the service's own model, so that clients read it as they would AWS's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from moto.core.serialize import get_serializer_class
from moto.core.utils import get_service_model

from deployments.local.aws import gaps_data
from deployments.local.aws.calls import Call
from deployments.local.aws.errors import Refusal, Response
from deployments.local.aws.resources import parameters


@dataclass(frozen=True, slots=True)
class Asked:
    """One call to fill a gap: whose, where, with which parameters; ``state`` is that account's and
    region's own, and stays."""

    account: str
    region: str
    params: Mapping[str, Any]
    state: dict[str, Any]

    def arn(self, service: str, rest: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{rest}"


Gap = Callable[[Asked], Mapping[str, Any]]


# --- the gaps, by botocore's name of the API and the operation ---------------------------------

GAPS: dict[tuple[str, str], Gap] = {**gaps_data.GAPS}


@dataclass(slots=True)
class Gaps:
    """The gaps of one emulated organization, with what has been set through them."""

    _state: dict[tuple[str, str, str], dict[str, Any]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def fills(self, call: Call, operation: str) -> bool:
        return (call.model, operation) in GAPS

    def answer(self, call: Call, operation: str, uri: Mapping[str, str], account: str) -> Response:
        """The answer as the service writes it. Raises Refusal."""
        asked = Asked(
            account,
            call.region,
            parameters(call.protocol, uri, call.form(), call.body),
            self._state[call.model, account, call.region],
        )
        said = GAPS[call.model, operation](asked)
        model = get_service_model(call.model)
        serializer = get_serializer_class(call.model, model.resolved_protocol)
        written = serializer(model.operation_model(operation)).serialize(dict(said))
        body = written["body"]
        headers = [(name, str(value)) for name, value in written["headers"].items()]
        return written["status_code"], headers, body.encode() if isinstance(body, str) else body


def not_there(code: str, message: str) -> Refusal:
    """A refusal in the service's own words; most services answer 400, REST ones 404."""
    return Refusal(code, message, status=404)


# Where the gaps stand: each file adds its own to GAPS.
from deployments.local.aws import gaps_ec2  # noqa: E402, F401
