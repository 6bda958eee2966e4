"""The resumed run's side of the guard: a handle for the code and the name of who answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import SecretStr

from tasks.errors import GateRefused, SutureError

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


def redeem(handle: str, flow_run_id: str, server_url: str | None = None) -> Redeemed:
    """Read the code behind ``handle``: once, within two minutes, for this run.

    The server is ``server_url`` (Prefect's API address, with its /api) or the one this run talks
    to; authentication, proxies and TLS are Prefect's own settings. Raises GateRefused when the
    server no longer has the code or gives it to another run, SutureError when it cannot be asked.
    """
    # Imported here: this brings in Prefect, and the pure callers of Redeemed have no need of it.
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.settings import get_current_settings

    settings = get_current_settings()
    url = server_url or settings.api.url
    if not url:
        raise SutureError("PREFECT_API_URL is not set. Set it to the address of suture server.")
    key, auth = settings.api.key, settings.api.auth_string
    try:
        with SyncPrefectClient(
            url,
            api_key=key.get_secret_value() if key else None,
            auth_string=auth.get_secret_value() if auth else None,
        ) as client:
            # Prefect's client for its retries and headers; its table of paths does not know ours.
            path: Any = REDEEM_PATH
            response = client.request(
                "POST", path, json={"handle": handle, "flow_run_id": str(flow_run_id)}
            )
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
        return SutureError("This Prefect server has no approval guard. Start `suture server`.")
    try:
        words = str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):
        words = f"suture server answered HTTP {response.status_code}."
    if response.status_code in {httpx.codes.FORBIDDEN, httpx.codes.GONE}:
        return GateRefused(words)
    return SutureError(words)
