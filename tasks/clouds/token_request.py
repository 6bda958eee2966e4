"""Asking a customer's token endpoint to open the gate, for fixes that a policy approved.

The request is one signed JWT, {"request": "<jwt>"}; the answer {"code": "…", "expires_at": "…"}.
Any other answer than 200 is a refusal, with {"error": "<in words>"}.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
from pydantic import SecretStr
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from tasks.clouds.issuer import assertion
from tasks.clouds.openings import moment
from tasks.errors import BadInput, CloudError, CloudTimeout, GateRefused
from tasks.inventory import AwsSource, AzureSource, Inventory
from tasks.model import Account

TIMEOUT = httpx.Timeout(60.0, connect=10.0)  # opening takes the customer several calls to a cloud
KEPT_SECONDS = 2.0  # a connection that is not used: fewer than servers keep it
MOST_ANSWER = 16_384  # characters
RELEASE_ATTEMPTS = 3
OPEN, CLOSE = "open", "close"

_CODE = re.compile(r"[A-Za-z0-9_-]{20,128}", re.ASCII)
_ENDPOINT = "token endpoint"


@dataclass(frozen=True, slots=True)
class OpenedByMachine:
    """The code that a customer's machine has opened the gate for, and until when.

    ``warm``: it had been opened ahead.
    """

    code: SecretStr
    expires_at: datetime
    warm: bool = False


def request_code(
    inventory: Inventory,
    account: Account,
    *,
    remediation: str,
    plan: str,
    resources: Sequence[str],
    actions: Sequence[str],
    minutes: int = 10,
    warm: bool = False,
) -> OpenedByMachine:
    """Ask the customer to open the gate of one account, for these actions on these resources.

    ``remediation`` names the run, ``plan`` is the digest of what it would do. ``warm``: a gate that
    the customer keeps open ahead will do, where there is one. Raises GateRefused
    with the customer's reason, CloudError when the endpoint cannot be asked, BadInput when the
    inventory names none.
    """
    claims = {
        "plan": plan,
        "resources": list(resources),
        "actions": list(actions),
        "minutes": minutes,
        **({"warm": True} if warm else {}),
    }
    answer = _ask(inventory, account, OPEN, {**claims, "remediation": remediation})
    code, until = answer.get("code"), answer.get("expires_at")
    expires_at = moment(until) if isinstance(until, str) else None
    if not isinstance(code, str) or not _CODE.fullmatch(code) or expires_at is None:
        raise CloudError("the answer holds no code and time that can be used", operation=_ENDPOINT)
    return OpenedByMachine(SecretStr(code), expires_at, answer.get("warm") is True)


def present_code(
    inventory: Inventory,
    account: Account,
    code: SecretStr,
    *,
    minutes: int = 10,
    resources: Sequence[str] = (),
    remediation: str = "",
) -> datetime:
    """Present a person's code to the customer's opener, for it to open the gate; until when.

    ``remediation`` names the run that it is for, which may then ``release`` the gate. Raises
    GateRefused with the customer's reason, unless that repeats the code, and otherwise as
    ``request_code`` does.
    """
    source = inventory.source(account.source)
    body = {
        **_about(account),
        "code": code.get_secret_value(),
        "minutes": minutes,
        **({"resources": list(resources)} if resources else {}),
        **({"remediation": remediation} if remediation else {}),
    }
    until = _post(source, _address(source, OPEN), body, secret=code).get("expires_at")
    expires_at = moment(until) if isinstance(until, str) else None
    if expires_at is None:
        raise CloudError("the answer holds no time that can be used", operation=_ENDPOINT)
    return expires_at


def release(
    inventory: Inventory, account: Account, *, remediation: str, person: bool = False
) -> None:
    """Tell the customer that the gate is not needed any more; closing twice is as closing once.

    ``person``: it was opened by a person's code (``present_code``). Again where the endpoint failed
    or was not reached. Raises as ``request_code`` does.
    """
    trying = Retrying(
        retry=retry_if_exception_type(CloudError),
        stop=stop_after_attempt(RELEASE_ATTEMPTS),
        wait=wait_exponential(multiplier=0.5, max=5),
        reraise=True,
    )
    claims = {"remediation": remediation, **({"person": True} if person else {})}
    trying(_ask, inventory, account, CLOSE, claims)


def _ask(
    inventory: Inventory, account: Account, what: str, claims: Mapping[str, Any]
) -> dict[str, Any]:
    source = inventory.source(account.source)
    address = _address(source, what)
    if inventory.issuer is None:
        raise BadInput("issuer", "is missing: requests for a code are signed.", "Add an issuer.")
    about = _about(account)
    request = assertion(inventory.issuer, account.id, address, claims={**about, **claims})
    return _post(source, address, {"request": request.get_secret_value()})


def _about(account: Account) -> dict[str, str]:
    return {"cloud": account.cloud.value, "source": account.source, "account": account.id}


def _post(
    source: AwsSource | AzureSource,
    address: str,
    body: Mapping[str, Any],
    *,
    secret: SecretStr | None = None,
) -> dict[str, Any]:
    try:
        response = _client(source).post(address, json=dict(body))
    except httpx.TimeoutException:
        raise CloudTimeout("did not answer in time", operation=_ENDPOINT) from None
    except httpx.HTTPError as error:
        problem = f"cannot be asked: {type(error).__name__}"
        raise CloudError(problem, operation=_ENDPOINT) from None
    return _read(response, secret)


def _address(source: AwsSource | AzureSource, what: str) -> str:
    """The endpoint as the inventory names it; its neighbour "close" for closing."""
    if urlsplit(source.token_endpoint).scheme != "https":
        raise BadInput(
            f"{source.name}.token_endpoint",
            "is missing: nobody can be asked to open the gate.",
            "Write the https address of the customer's token endpoint.",
        )
    return source.token_endpoint if what == OPEN else urljoin(source.token_endpoint, CLOSE)


def _client(source: AwsSource | AzureSource) -> httpx.Client:
    file = source.token_endpoint_ca_file
    try:
        return _trusting(file, os.stat(file).st_mtime_ns if file else 0)
    except OSError as error:
        raise BadInput(
            f"{source.name}.token_endpoint_ca_file", f"cannot be used: {error.strerror}."
        ) from None


@lru_cache(maxsize=64)
def _trusting(ca_file: str, _changed: int) -> httpx.Client:
    """A client that trusts the system's authorities, or a file's as it is now.

    To parse them takes up to 15 ms, and to connect as long. No redirects: a request is for its
    address only.
    """
    trust = ssl.create_default_context(cafile=ca_file or None)
    kept = httpx.Limits(keepalive_expiry=KEPT_SECONDS)
    return httpx.Client(verify=trust, timeout=TIMEOUT, limits=kept, follow_redirects=False)


def _read(response: httpx.Response, secret: SecretStr | None) -> dict[str, Any]:
    """The answer of 200. Why it is another is kept for ever, and a gateway may quote what it was
    sent: a reason that holds the ``secret`` is left out.
    """
    try:
        answer = response.json() if len(response.content) <= MOST_ANSWER else None
    except ValueError:
        answer = None
    found = answer if isinstance(answer, dict) else {}
    if response.status_code == HTTPStatus.OK:
        return found
    reason = "".join(c for c in str(found.get("error", "")) if c.isprintable())[:300]
    if secret is not None and secret.get_secret_value() in str(found.get("error", "")):
        reason = ""
    if response.is_client_error:
        raise GateRefused(
            "The customer's token endpoint refused: "
            f"{reason or f'HTTP {response.status_code}, without a reason'}"
        )
    raise CloudError(reason or "failed", code=str(response.status_code), operation=_ENDPOINT)
