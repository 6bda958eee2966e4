"""What the command needs of Prefect's server: that it answers, and that a deployment starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from tasks import settings
from tasks.errors import BadInput, SutureError

RESTORE = "restore/restore"


def need_server() -> None:
    """Say in words what is wrong before a flow would: Prefect's own answer is a traceback.

    Raises BadInput when no server is named (Prefect would start one of its own, with no deployment
    and no guard), SutureError when it does not answer or refuses.
    """
    url = get_current_settings().api.url
    if not url:
        raise BadInput(
            "PREFECT_API_URL",
            "is not set.",
            "Set it to the API of `suture server`, such as http://127.0.0.1:4200/api.",
        )
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is None:
        return
    why = "does not answer"
    if isinstance(problem, httpx.HTTPStatusError):
        why = f"answers {problem.response.status_code}"
    raise SutureError(f"Prefect's server at {url} {why}. Is `suture server` running there?")


def start_restore(remediation_id: str, *, requested_by: str) -> dict[str, str]:
    """Start a run of the restore deployment; returns its id and its page in the UI."""
    return start(
        RESTORE,
        {"remediation_id": remediation_id, "requested_by": requested_by},
        name=f"restore {remediation_id[:8]}",
    )


def start(deployment: str, parameters: Mapping[str, Any], *, name: str) -> dict[str, str]:
    """Start a run of ``flow/deployment``. Raises SutureError when the deployment is not there."""
    try:
        run: FlowRun = run_deployment(  # type: ignore[assignment]
            deployment,
            parameters=dict(parameters),
            flow_run_name=name,
            tags=["suture"],
            timeout=0,
            as_subflow=False,
        )
    except ObjectNotFound:
        raise SutureError(
            f"There is no deployment {deployment}. Run `prefect deploy --all` or `suture serve`."
        ) from None
    return {"run": str(run.id), "address": settings.run_address(str(run.id))}


def quiet_console() -> None:
    """Keep the flows' log lines off the terminal; Prefect's server has them. Before Prefect logs.

    What is wrong is said once, in words, by the command itself.
    """
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
