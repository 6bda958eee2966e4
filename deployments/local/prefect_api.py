"""The few calls of Prefect's public REST API that a person's clicks would make."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any

import httpx

from tasks.errors import SutureError

TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class PrefectApi:
    """A client of Prefect's REST API at ``url`` (it ends in /api)."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def start(self, deployment: str, parameters: Mapping[str, Any]) -> str:
        """Start a run of ``flow/deployment``; returns its id."""
        found = self._get(f"/deployments/name/{deployment}")
        body = {"parameters": dict(parameters), "state": {"type": "SCHEDULED"}}
        return str(self._post(f"/deployments/{found['id']}/create_flow_run", body)["id"])

    def state(self, run_id: str) -> dict[str, Any]:
        """The state of a run: its type, name and message."""
        state: dict[str, Any] = self._get(f"/flow_runs/{run_id}")["state"] or {}
        return state

    def ended(self, run_id: str) -> bool:
        """Whether a run has come to its end."""
        return self.state(run_id).get("type") in TERMINAL

    def waits(self, run_id: str) -> bool:
        """Whether a run waits for an answer and its form can be filled in."""
        if self.state(run_id).get("type") != "PAUSED":
            return False
        inputs = self._post(f"/flow_runs/{run_id}/input/filter", {"prefix": "", "limit": 50})
        return any(str(one["key"]).endswith("-schema") for one in inputs)

    def runs_of(self, deployment: str) -> list[str]:
        """The ids of all runs of ``flow/deployment``."""
        found = self._get(f"/deployments/name/{deployment}")
        body = {"deployments": {"id": {"any_": [found["id"]]}}, "limit": 200}
        return [str(run["id"]) for run in self._post("/flow_runs/filter", body)]

    def resume(self, run_id: str, answer: Mapping[str, str]) -> str:
        """Answer a waiting run's form; returns ACCEPT, or the words of the refusal."""
        response = self._http.post(f"/flow_runs/{run_id}/resume", json={"run_input": dict(answer)})
        said: dict[str, Any] = response.json()
        if response.is_success and said.get("status") == "ACCEPT":
            return "ACCEPT"
        details = said.get("details") or {}
        return str(details.get("reason") or said.get("detail") or said)

    def wait(self, run_ids: Iterable[str], *, seconds: float) -> dict[str, dict[str, Any]]:
        """Wait until every run has ended; returns their states. Raises SutureError when late."""
        deadline = time.monotonic() + seconds
        states: dict[str, dict[str, Any]] = {}
        pending = set(run_ids)
        while pending:
            for run_id in list(pending):
                state = self.state(run_id)
                if state.get("type") in TERMINAL:
                    states[run_id] = state
                    pending.discard(run_id)
            if pending and time.monotonic() > deadline:
                raise SutureError(f"{len(pending)} runs did not end in {seconds:.0f} s.")
            if pending:
                time.sleep(0.25)
        return states

    def _get(self, path: str) -> Any:
        response = self._http.get(path)
        response.raise_for_status()
        return response.json()

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        response = self._http.post(path, json=dict(body))
        response.raise_for_status()
        return response.json()
