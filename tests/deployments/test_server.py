"""`suture server` as it runs: Prefect and PostgreSQL behind the guard, asked over HTTP."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import websockets
from prefect import flow, get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import Pause
from prefect.flow_engine import run_flow
from prefect.flow_runs import suspend_flow_run
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings
from pydantic import SecretStr

from flows.forms import approval_form
from tasks.approval import is_handle
from tasks.codes import proof, redeem
from tasks.errors import GateRefused
from tasks.model import Input

if TYPE_CHECKING:
    from conftest import Server

pytestmark = pytest.mark.slow

NAME = "Ada"


def a_code() -> str:
    return f"{secrets.randbelow(10**6):06d}"


def test_a_good_code_is_stored_as_a_handle_and_read_once(server: Server) -> None:
    run, code = server.suspended_run(), a_code()
    accepted = server.resume(run, approver=NAME, code=code, allowed_cidrs="10.0.0.0/8")
    assert accepted.json()["status"] == "ACCEPT"
    assert server.state(run) == "SCHEDULED"
    stored = server.stored(run)
    assert stored is not None
    assert is_handle(stored["code"])
    assert stored["allowed_cidrs"] == "10.0.0.0/8"

    kept = redeem(stored["code"], run, server.api)
    assert kept.code.get_secret_value() == code
    assert (kept.approver, kept.verified) == (NAME, False)
    with pytest.raises(GateRefused, match="This code is gone"):
        redeem(stored["code"], run, server.api)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"code": "12345"}, "6-digit code: must be exactly 6 digits"),
        (
            {"code": "198276", "allowed_cidrs": "10.9.8.7/8"},
            "Networks that may still connect: network 1 has bits",
        ),
        ({"code": "198276", "leave_out": "4"}, "Leave out: part 1 is not in the table"),
    ],
)
def test_a_bad_answer_gets_words_and_the_run_stays_suspended(
    server: Server, bad: dict[str, str], words: str
) -> None:
    run = server.suspended_run()
    refused = server.resume(run, **bad)
    assert refused.status_code == 422
    assert words in refused.json()["detail"]
    assert not any(value in refused.text for value in bad.values() if len(value) > 3)
    assert server.state(run) == "PAUSED"
    assert server.stored(run) is None
    assert server.resume(run, code=a_code()).status_code == 201


def test_a_denial_says_who_and_keeps_no_code(server: Server) -> None:
    run, code = server.suspended_run(), a_code()
    assert server.resume(run, decision="deny", approver="Grace", code=code).is_success
    stored = server.stored(run)
    assert stored is not None
    kept = redeem(stored["code"], run, server.api)
    assert kept.code.get_secret_value() == ""
    assert kept.approver == "Grace"


def test_of_sixteen_answers_at_once_one_wins(server: Server) -> None:
    run = server.suspended_run()
    codes = [a_code() for _ in range(16)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda code: server.resume(run, code=code), codes))
    won = [
        code
        for code, answer in zip(codes, answers, strict=True)
        if answer.is_success and answer.json()["status"] == "ACCEPT"
    ]
    assert len(won) == 1
    stored = server.stored(run)
    assert stored is not None
    assert redeem(stored["code"], run, server.api).code.get_secret_value() == won[0]


def test_the_ways_round_the_form_are_closed(server: Server) -> None:
    run = server.suspended_run()
    answer = json.dumps({"decision": "approve", "approver": NAME, "code": a_code()})
    key = "suspended-approval-1-response"
    planted = server.http.post(f"/flow_runs/{run}/input", json={"key": key, "value": answer})
    assert planted.status_code == 403
    assert "resuming its run" in planted.json()["detail"]
    for force in (False, True):
        moved = server.set_state(run, {"type": "SCHEDULED", "name": "Resuming"}, force=force)
        assert moved.status_code == 403
        assert "waits for an approval" in moved.json()["detail"]
    bulk: dict[str, Any] = {
        "flow_runs": {"id": {"any_": [run]}},
        "state": {"type": "COMPLETED"},
        "force": True,
    }
    assert server.http.post("/flow_runs/bulk_set_state", json=bulk).status_code == 403
    form = f"/flow_runs/{run}/input/suspended-approval-1-schema"
    assert server.http.delete(form).status_code == 403
    patch = {"parameters": {"findings": ["another"]}}
    assert server.http.patch(f"/flow_runs/{run}", json=patch).status_code == 403
    assert server.state(run) == "PAUSED"
    assert server.stored(run) is None
    assert server.set_state(run, {"type": "CANCELLED"}).is_success
    assert server.state(run) == "CANCELLED"


def test_prefects_own_automations_meet_the_guard_too(server: Server) -> None:
    """They call Prefect's app in the server's own process, past anything in front of it."""
    run = server.suspended_run()
    automation = {
        "name": f"move {run}",
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "expect": ["suture.test.push"],
            "threshold": 1,
            "within": 0,
        },
        "actions": [{"type": "change-flow-run-state", "state": "COMPLETED", "force": True}],
    }
    server.http.post("/automations/", json=automation).raise_for_status()
    wanted = {"filter": {"event": {"name": ["prefect.automation.action.failed"]}}}
    deadline = time.monotonic() + 30
    while not (failed := server.http.post("/events/filter", json=wanted).json()["events"]):
        assert time.monotonic() < deadline
        # Again and again: the triggers service takes a moment to learn of a new automation.
        push = {
            "occurred": datetime.now(UTC).isoformat(),
            "event": "suture.test.push",
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
            "id": str(uuid4()),
        }
        server.http.post("/events", json=[push]).raise_for_status()
        time.sleep(0.5)
    assert "403" in json.dumps(failed)
    assert server.state(run) == "PAUSED"


def test_a_real_flow_suspends_and_goes_on(server: Server) -> None:
    """With Prefect's own suspend_flow_run, form and client, as remediations use them."""
    form = approval_form([Input("allowed_cidrs", "cidrs", "Networks")], "page", numbers=2)
    code = a_code()

    @flow(name="waits", persist_result=False)
    def waits() -> tuple[str, str]:
        answered: Any = suspend_flow_run(wait_for_input=form, key="approval-1", timeout=600)
        return answered.code, answered.allowed_cidrs

    settings = {PREFECT_API_URL: server.api, PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        run = _run_of(client, waits)
        with pytest.raises(Pause):
            run_flow(waits, flow_run=run)
        assert client.read_flow_run(run.id).state.is_paused()
        words = {"decision": "approve", "approver": NAME, "code": "12 34"}
        with pytest.raises(httpx.HTTPStatusError, match="must be exactly 6 digits"):
            client.resume_flow_run(run.id, run_input=words)
        client.resume_flow_run(run.id, run_input={**words, "code": code})
        handle, cidrs = run_flow(waits, flow_run=client.read_flow_run(run.id))
    assert (is_handle(handle), cidrs) == (True, "")
    # The run is over: too late to read a code for it.
    with pytest.raises(GateRefused, match="only to a run that has been resumed"):
        redeem(handle, str(run.id), server.api)


def _run_of(client: SyncPrefectClient, served: Any) -> Any:
    deployment = client.create_deployment(client.create_flow(served), "served")
    return client.create_flow_run_from_deployment(deployment)


def test_no_typed_code_is_at_rest(server: Server) -> None:
    """Codes with letters round them in no file: database, WAL, Prefect's home, server's output."""
    codes = [f"{number:06d}" for number in secrets.SystemRandom().sample(range(10**6), 3)]
    for code in codes:
        run = server.suspended_run()
        assert server.resume(run, code=code).is_success
    # Losers, late ones and bad ones must leave nothing either.
    for code in codes:
        server.resume(run, code=code)
        server.resume(server.suspended_run(), code=code, allowed_cidrs="0.0.0.0/0")
    with psycopg.connect(
        server.postgres.url("postgres", "postgres"), autocommit=True
    ) as connection:
        connection.execute("CHECKPOINT")
    # Six digits may stand in a timestamp or an id; as a JSON or SQL text they stand in quotes.
    quoted = [f"{quote}{code}{quote}".encode() for code in codes for quote in "\"'"]
    searched = 0
    for path in server.files():
        content = path.read_bytes()
        searched += len(content)
        assert not [needle for needle in quoted if needle in content], path
    assert searched > 10_000_000


def test_a_password_guards_the_codes_too(proxied: Server) -> None:
    run = proxied.suspended_run()
    body = {"run_input": {"decision": "approve", "approver": "Mallory", "code": a_code()}}
    for auth in (None, ("suture", "wrong")):
        with httpx.Client(base_url=proxied.api, auth=auth) as stranger:
            assert stranger.post(f"/flow_runs/{run}/resume", json=body).status_code == 401
            redeeming = {"handle": "suture-code:" + "A" * 43, "flow_run_id": run}
            assert stranger.post("/suture/codes/redeem", json=redeeming).status_code == 401
    assert proxied.state(run) == "PAUSED"

    path = f"/flow_runs/{run}/resume"
    assert proxied.http.post(path, json=body).status_code == 403  # round the sign-in proxy
    signed_in = {"X-Forwarded-User": "ada@example.org"}
    assert proxied.http.post(path, json=body, headers=signed_in).is_success
    stored = proxied.stored(run)
    assert stored is not None
    assert stored["approver"] == "ada@example.org"
    redeeming = {"handle": stored["code"], "flow_run_id": run}
    assert proxied.http.post("/suture/codes/redeem", json=redeeming).status_code == 403
    redeeming["proof"] = proof(SecretStr(proxied.key), stored["code"], run)
    read = proxied.http.post("/suture/codes/redeem", json=redeeming)
    assert read.json() == {
        "code": body["run_input"]["code"],
        "approver": "ada@example.org",
        "approver_verified": True,
    }


def test_the_ui_comes_with_a_policy_that_keeps_it_home(server: Server) -> None:
    page = httpx.get(f"{server.url}/runs", headers={"accept": "text/html"}, follow_redirects=True)
    assert page.headers["content-type"].startswith("text/html")
    policy = dict(
        directive.split(" ", 1) for directive in page.headers["content-security-policy"].split("; ")
    )
    own = server.url.removeprefix("http://")
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == "'self' 'unsafe-eval'"
    assert "http" not in policy["img-src"]
    assert set(policy["connect-src"].split()) == {
        "'self'",
        *(f"{scheme}://{own}" for scheme in ("http", "https", "ws", "wss")),
    }
    assert page.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" not in server.http.get("/health").headers


def test_other_websites_may_not_read_the_api(server: Server) -> None:
    for origin, allowed in (("https://evil.test", None), (server.url, server.url)):
        answer = server.http.get("/health", headers={"origin": origin})
        assert answer.headers.get("access-control-allow-origin") == allowed


def test_websockets_pass_through(server: Server) -> None:
    async def send_event() -> None:
        url = server.api.replace("http://", "ws://") + "/events/in"
        async with websockets.connect(url) as socket:
            await (await socket.ping())

    asyncio.run(send_event())


def test_it_says_what_it_does_and_nothing_of_the_answers(server: Server) -> None:
    run, code = server.suspended_run(), a_code()
    server.resume(run, code=code)
    log = server.log.read_text()
    assert "Prefect's analytics off" in log
    assert f"Run {run} was answered: approve by Ada (name as typed)" in log
    assert "suture-code:" not in log


def test_no_way_to_write_a_flow_run_is_new(server: Server) -> None:
    """A newer Prefect may add one: look at it, and guard it where it can answer an approval."""
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    writing = {
        f"{method.upper()} {path.removeprefix('/api')}"
        for path, methods in paths.items()
        for method in methods
        if "/flow_runs" in path and method in {"post", "put", "patch", "delete"}
    }
    assert writing == {
        # guarded
        "POST /flow_runs/{id}/resume",
        "POST /flow_runs/{id}/set_state",
        "POST /flow_runs/{id}/input",
        "DELETE /flow_runs/{id}/input/{key}",
        "PATCH /flow_runs/{id}",
        "POST /flow_runs/bulk_set_state",
        # cannot answer: they read, make other runs, label, or delete the run and its form
        "POST /flow_runs/",
        "POST /flow_runs/{id}/input/filter",
        "PATCH /flow_runs/{id}/labels",
        "DELETE /flow_runs/{id}",
        "POST /flow_runs/bulk_delete",
        "POST /flow_runs/count",
        "POST /flow_runs/filter",
        "POST /flow_runs/history",
        "POST /flow_runs/lateness",
        "POST /flow_runs/paginate",
        "POST /ui/flow_runs/count-task-runs",
        "POST /ui/flow_runs/history",
    }
