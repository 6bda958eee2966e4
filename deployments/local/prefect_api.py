"""The few calls of Prefect's public REST API that a person's clicks would make."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import httpx

from tasks.errors import SutureError

TERMINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
PAGE = 200  # what Prefect gives in one answer


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

    def states(self, run_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The states of many runs in one call for each two hundred: asking is work for a server."""
        states: dict[str, dict[str, Any]] = {}
        for first in range(0, len(run_ids), PAGE):
            chosen = {"id": {"any_": list(run_ids[first : first + PAGE])}}
            for run in self._post("/flow_runs/filter", {"flow_runs": chosen, "limit": PAGE}):
                states[str(run["id"])] = run["state"] or {}
        return states

    def ended(self, run_id: str) -> bool:
        """Whether a run has come to its end."""
        return self.state(run_id).get("type") in TERMINAL

    def waits(self, run_id: str) -> bool:
        """Whether a run waits for an answer and its form can be filled in."""
        return self.waits_in(run_id, self.state(run_id))

    def waits_in(self, run_id: str, state: Mapping[str, Any]) -> bool:
        """The same, of a state that it was just found in."""
        if state.get("type") != "PAUSED":
            return False
        inputs = self._post(f"/flow_runs/{run_id}/input/filter", {"prefix": "", "limit": 50})
        return any(str(one["key"]).endswith("-schema") for one in inputs)

    def runs_of(self, deployment: str) -> list[str]:
        """The ids of all runs of ``flow/deployment``."""
        found = self._get(f"/deployments/name/{deployment}")
        ids: list[str] = []
        while True:
            chosen = {"id": {"any_": [found["id"]]}}
            body = {"deployments": chosen, "limit": PAGE, "offset": len(ids), "sort": "ID_DESC"}
            page = self._post("/flow_runs/filter", body)
            ids += [str(run["id"]) for run in page]
            if len(page) < PAGE:
                return ids

    def resume(self, run_id: str, answer: Mapping[str, str]) -> str:
        """Answer a waiting run's form; returns ACCEPT, or the words of the refusal."""
        body = {"run_input": dict(answer)}
        try:
            response = self._http.post(f"/flow_runs/{run_id}/resume", json=body)
            said: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError) as error:
            # Only the kind of error: its words could hold what was typed.
            raise SutureError(f"The answer was not taken: {type(error).__name__}") from None
        if response.is_success and said.get("status") == "ACCEPT":
            return "ACCEPT"
        details = said.get("details") or {}
        return str(details.get("reason") or said.get("detail") or said)

    def wait(self, run_ids: Iterable[str], *, seconds: float) -> dict[str, dict[str, Any]]:
        """Wait until every run has ended; returns their states. Raises SutureError when late."""
        deadline = time.monotonic() + seconds
        states: dict[str, dict[str, Any]] = {}
        pending = sorted(set(run_ids))
        while pending:
            found = self.states(pending)
            states |= {run: state for run, state in found.items() if state.get("type") in TERMINAL}
            pending = [run for run in pending if run not in states]
            if pending and time.monotonic() > deadline:
                raise SutureError(f"{len(pending)} runs did not end in {seconds:.0f} s.")
            if pending:
                time.sleep(0.25)
        return states

    def _get(self, path: str) -> Any:
        return self._answer("GET", path)

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._answer("POST", path, json=dict(body))

    def _answer(self, method: str, path: str, **body: Any) -> Any:
        try:
            return self._http.request(method, path, **body).raise_for_status().json()
        except httpx.HTTPError as error:
            raise SutureError(f"Prefect's server did not answer {method} {path}: {error}") from None
