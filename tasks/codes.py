"""The resumed run's side of the guard: a handle for the code and the name of who answered.

Whoever may call Prefect's API can read a handle there. So the server gives a code only for a proof
that a run makes with SUTURE_GUARD_KEY, which its environment holds and no API tells.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import SecretStr

from tasks import settings as suture
from tasks.errors import GateRefused, SutureError
from tasks.model import canonical_json

REDEEM_PATH = "/suture/codes/redeem"


@dataclass(frozen=True, slots=True)
class Redeemed:
    """What the guard kept for one answered form.

    ``code`` is empty for a denial. ``verified`` says that ``approver`` is the sign-in proxy's word
    and not the person's own.
    """

    code: SecretStr
    approver: str
    verified: bool


def proof(key: SecretStr, handle: str, flow_run_id: str) -> str:
    """That who asks for a code holds ``key``: HMAC-SHA256 over the handle and the run, in hex.

    No timestamp: a handle is good once and for two minutes, which is all that one would say.
    """
    text = canonical_json(["suture redeem", handle, flow_run_id])
    return hmac.new(key.get_secret_value().encode(), text.encode(), hashlib.sha256).hexdigest()


def redeem(handle: str, flow_run_id: str, server_url: str | None = None) -> Redeemed:
    """Read the code behind ``handle``: once, within two minutes, for this run.

    The server is ``server_url`` (Prefect's API address, with its /api) or the one this run talks
    to; authentication, proxies and TLS are Prefect's own settings. Raises GateRefused when the
    server no longer has the code, gives it to another run, does not take the proof or has no guard,
    SutureError when it cannot be asked.
    """
    # Imported here: this brings in Prefect, and the pure callers of Redeemed have no need of it.
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    url = server_url or settings.api.url
    if not url:
        raise SutureError("PREFECT_API_URL is not set. Set it to the address of suture server.")
    asked = {"handle": handle, "flow_run_id": str(flow_run_id)}
    if shared := suture.guard_key():
        asked["proof"] = proof(shared, handle, str(flow_run_id))
    key, auth = settings.api.key, settings.api.auth_string
    try:
        with SyncPrefectClient(
            url,
            api_key=key.get_secret_value() if key else None,
            auth_string=auth.get_secret_value() if auth else None,
        ) as client:
            # Prefect's client for its retries and headers; its table of paths does not know ours.
            path: Any = REDEEM_PATH
            response = client.request("POST", path, json=asked)
    except httpx.HTTPStatusError as error:
        raise _refused(error.response) from None
    except httpx.HTTPError as error:
        raise SutureError(
            f"suture server did not answer at {url} ({type(error).__name__})."
        ) from None
    kept = response.json()
    return Redeemed(
        code=SecretStr(kept["code"] or ""),
        approver=str(kept["approver"]),
        verified=bool(kept["approver_verified"]),
    )


def _refused(response: httpx.Response) -> SutureError:
    if response.status_code == httpx.codes.NOT_FOUND:
        # Somebody started another server on the same database: the answer can be given again.
        return GateRefused("This Prefect server has no approval guard. Start `suture server`.")
    try:
        words = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        words = f"suture server answered HTTP {response.status_code}."
    if response.status_code in {httpx.codes.FORBIDDEN, httpx.codes.GONE}:
        return GateRefused(words)
    return SutureError(words)
