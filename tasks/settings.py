"""Where Suture finds its files and servers: environment variables, read when they are needed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

from pydantic import SecretStr

from tasks.errors import BadInput

LEAST_KEY = 32  # characters of a guard key, and of the event webhook's
TASK_RUNNERS = ("threads", "dask", "ray")


def inventory_path() -> Path:
    """``SUTURE_INVENTORY``: the YAML file that lists organizations and tenants."""
    return _path("SUTURE_INVENTORY", "the inventory file")


def policies_path() -> Path:
    """``SUTURE_POLICIES``: the YAML file that says how findings are closed."""
    return _path("SUTURE_POLICIES", "the policy file")


def scan_processes() -> int:
    """``SUTURE_SCAN_PROCESSES``: how many processes scan at once; else as many as cores."""
    return _number("SUTURE_SCAN_PROCESSES", 256) or os.cpu_count() or 1


def scan_patience() -> int | None:
    """``SUTURE_SCAN_PATIENCE``: for how many seconds a scan tries a call again that a cloud
    throttles; None: as long as Suture thinks right.
    """
    return _number("SUTURE_SCAN_PATIENCE", 600)


def rules() -> tuple[str, ...]:
    """``SUTURE_RULES``: the rules that scans judge by, "aws_s3_*,azure_*_minimum_tls"; else all.

    Findings of other rules stay as they are: nobody looks.
    """
    value = os.environ.get("SUTURE_RULES", "")
    return tuple(part.strip() for part in value.split(",") if part.strip())


def task_runner() -> str:
    """``SUTURE_TASK_RUNNER``: threads, dask or ray; threads when it is not set."""
    value = os.environ.get("SUTURE_TASK_RUNNER", "") or TASK_RUNNERS[0]
    if value not in TASK_RUNNERS:
        raise BadInput(
            "SUTURE_TASK_RUNNER", f"is {value}.", f"Set it to {' or '.join(TASK_RUNNERS)}."
        )
    return value


def dask_address() -> str:
    """``SUTURE_DASK_ADDRESS``: a Dask scheduler, such as tcp://scheduler:8786; empty: none."""
    return os.environ.get("SUTURE_DASK_ADDRESS", "")


def ray_address() -> str:
    """``SUTURE_RAY_ADDRESS``: a Ray cluster, such as ray://head:10001; empty: none."""
    return os.environ.get("SUTURE_RAY_ADDRESS", "")


def share_deployment() -> str:
    """``SUTURE_SHARE_DEPLOYMENT``: the deployment that other runs share a scan by."""
    return os.environ.get("SUTURE_SHARE_DEPLOYMENT", "") or "scan-share/scan-share"


def guard_key() -> SecretStr | None:
    """``SUTURE_GUARD_KEY``: what the server and the runs share, so that only runs read codes."""
    value = os.environ.get("SUTURE_GUARD_KEY", "")
    if not value:
        return None
    if len(value) < LEAST_KEY:
        fix = "Make one with `openssl rand -base64 32`."
        raise BadInput("SUTURE_GUARD_KEY", f"is shorter than {LEAST_KEY} characters.", fix)
    return SecretStr(value)


def event_webhook_keys() -> tuple[SecretStr, ...]:
    """``SUTURE_EVENT_WEBHOOK_KEY``: what Event Grid shows at the event webhook; empty: no key.

    Two with a space between them while one replaces the other: both are taken.
    """
    keys = os.environ.get("SUTURE_EVENT_WEBHOOK_KEY", "").split()
    if any(len(key) < LEAST_KEY for key in keys):
        # In hex, because a key in base64 would have to be escaped in an address.
        fix = "Make one with `openssl rand -hex 32`."
        raise BadInput("SUTURE_EVENT_WEBHOOK_KEY", f"is shorter than {LEAST_KEY} characters.", fix)
    return tuple(SecretStr(key) for key in keys)


def event_webhook_entra() -> tuple[str, str] | None:
    """The tenant's id and the audience of the tokens that the event webhook takes; None: no tokens.

    ``SUTURE_EVENT_WEBHOOK_TENANT`` and ``SUTURE_EVENT_WEBHOOK_AUDIENCE``: the application id or id
    URI of the app registration that stands for the webhook.
    """
    tenant = os.environ.get("SUTURE_EVENT_WEBHOOK_TENANT", "").strip()
    audience = os.environ.get("SUTURE_EVENT_WEBHOOK_AUDIENCE", "").strip()
    if not tenant and not audience:
        return None
    if not audience:
        fix = "Set it to the application id of the webhook's app registration."
        raise BadInput("SUTURE_EVENT_WEBHOOK_AUDIENCE", "is not set, and the tenant is.", fix)
    try:
        # As tokens name it: by its id, in lower case.
        return str(UUID(tenant)), audience
    except ValueError:
        problem = "is no tenant id." if tenant else "is not set, and the audience is."
        fix = "Set it to the tenant's id, such as 00000000-0000-0000-0000-000000000000."
        raise BadInput("SUTURE_EVENT_WEBHOOK_TENANT", problem, fix) from None


def guarded() -> bool:
    """``SUTURE_GUARD``: on, or off where runs use a Prefect server that is not `suture server`.

    Without the guard the code comes to the run as it was typed, from Prefect's database.
    """
    value = os.environ.get("SUTURE_GUARD", "") or "on"
    if value not in ("on", "off"):
        raise BadInput("SUTURE_GUARD", "is neither on nor off.", "Unset it to keep the guard.")
    return value == "on"


def ui_url() -> str:
    """``SUTURE_UI_URL``, else Prefect's UI beside its API: where people open runs."""
    if url := os.environ.get("SUTURE_UI_URL"):
        return url.rstrip("/")
    return os.environ.get("PREFECT_API_URL", "http://127.0.0.1:4200/api").removesuffix("/api")


def run_address(run_id: str) -> str:
    """The page of one flow run in the Prefect UI.

    In the newer of its two UIs, on purpose: the older one leaves an approver a few lines to read
    the plan in.
    """
    return f"{ui_url()}/v2/runs/flow-run/{run_id}"


def run_form_address(deployment_id: str, parameters: Mapping[str, Any]) -> str:
    """The form that starts a run of a deployment, in the Prefect UI, with parameters filled in."""
    values = quote(json.dumps(parameters, separators=(",", ":")), safe="")
    return f"{ui_url()}/v2/deployments/deployment/{deployment_id}/run?parameters={values}"


def _number(name: str, most: int) -> int | None:
    """A whole number from 1 to ``most``; None where the variable is not set. Raises BadInput."""
    value = os.environ.get(name, "")
    if not value:
        return None
    if not value.isdecimal() or not 1 <= int(value) <= most:
        raise BadInput(name, f"is no number from 1 to {most}.", "Unset it.")
    return int(value)


def _path(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        raise BadInput(variable, "is not set.", f"Set it to the path of {what}.")
    path = Path(value)
    if not path.is_file():
        raise BadInput(variable, f"names {value}, which is not a file.", f"Point it at {what}.")
    return path
