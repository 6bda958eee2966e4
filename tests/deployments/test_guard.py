"""The guard against a Prefect of a few lines that remembers every body it was given."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from deployments.code_desk import CodeDesk, HandleGone, WrongRun
from deployments.guard import MAX_ANSWER_BYTES, Guard
from flows.forms import approval_form
from tasks.approval import is_handle
from tasks.approvers import REQUESTED_BY, Terms
from tasks.codes import proof

CODE = "918273"
KEY = SecretStr("what the server and the runs share")
KEYSET = {kind: f"suspended-approval-1-{kind}" for kind in ("description", "response", "schema")}
THEIRS = {kind: f"suspended-theirs-{kind}" for kind in KEYSET}
FORM = {
    "properties": {
        "decision": {"enum": ["approve", "deny"]},
        "approver": {"type": "string"},
        "code": {"type": "string"},
        "leave_out": {"type": "string", "numbers": 3},
        "allowed_cidrs": {"type": "string", "kind": "cidrs"},
    },
    "required": ["decision", "approver"],
}
GOOD = {"decision": "approve", "approver": "Ada", "code": CODE, "allowed_cidrs": "10.0.0.0/8"}


@dataclass
class FakePrefect:
    """Runs, their inputs, and every body that got past the guard."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    inputs: dict[tuple[str, str], Any] = field(default_factory=dict)
    bodies: list[tuple[str, bytes]] = field(default_factory=list)
    answer: tuple[int, dict[str, Any]] = (201, {"status": "ACCEPT"})

    def add(
        self,
        state: str = "PAUSED",
        *,
        form: Any = FORM,
        keyset: dict[str, str] | None = KEYSET,
    ) -> str:
        run_id = str(uuid4())
        details = {"run_input_keyset": keyset}
        self.runs[run_id] = {"id": run_id, "state": {"type": state, "state_details": details}}
        if form is not None and keyset is not None:
            self.inputs[run_id, keyset["schema"]] = form
        return run_id

    def app(self) -> Starlette:
        async def read_run(request: Request) -> Response:
            run = self.runs.get(str(request.path_params["id"]))
            return JSONResponse(run) if run else JSONResponse({"detail": "not found"}, 404)

        async def read_input(request: Request) -> Response:
            key = (str(request.path_params["id"]), request.path_params["key"])
            if key not in self.inputs:
                return JSONResponse({"detail": "none"}, 404)
            return JSONResponse(self.inputs[key])

        async def filter_runs(request: Request) -> Response:
            wanted = await request.json()
            assert wanted["flow_runs"] == {"tags": {"any_": ["x"]}}
            return JSONResponse(list(self.runs.values()))

        async def write(request: Request) -> Response:
            self.bodies.append((request.url.path, await request.body()))
            await asyncio.sleep(0.01)
            status, body = self.answer
            return JSONResponse(body, status)

        one = "/flow_runs/{id:uuid}"
        return Starlette(
            routes=[
                Route(one, read_run, methods=["GET"]),
                Route(one, write, methods=["PATCH"]),
                Route(f"{one}/input/{{key}}", read_input, methods=["GET"]),
                Route(f"{one}/input/{{key}}", write, methods=["DELETE"]),
                Route(f"{one}/input", write, methods=["POST"]),
                Route(f"{one}/resume", write, methods=["POST"]),
                Route(f"{one}/labels", write, methods=["PATCH"]),
                Route("/flow_runs/", write, methods=["POST"]),
                Route("/deployments/{id:uuid}/create_flow_run", write, methods=["POST"]),
                Route("/deployments/{id:uuid}/create_flow_run/bulk", write, methods=["POST"]),
                Route(f"{one}/set_state", write, methods=["POST"]),
                Route("/flow_runs/filter", filter_runs, methods=["POST"]),
                Route("/flow_runs/bulk_set_state", write, methods=["POST"]),
            ]
        )


@dataclass
class Bench:
    prefect: FakePrefect
    desk: CodeDesk
    http: httpx.AsyncClient

    async def resume(self, run_id: str, **fields: object) -> httpx.Response:
        body = {"run_input": {**GOOD, **fields}}
        return await self.http.post(f"/flow_runs/{run_id}/resume", json=body)

    async def redeem(self, handle: str, run_id: str) -> httpx.Response:
        body = {"handle": handle, "flow_run_id": run_id}
        return await self.http.post("/suture/codes/redeem", json=body)

    def stored(self) -> dict[str, Any]:
        """The fields of the last answer that Prefect was given."""
        fields: dict[str, Any] = json.loads(self.prefect.bodies[-1][1])["run_input"]
        return fields

    def nothing_got_through(self) -> bool:
        return not self.prefect.bodies and not len(self.desk)


def bench_for(
    prefect: FakePrefect, header: str | None = None, key: SecretStr | None = None
) -> Bench:
    desk = CodeDesk()
    guard = Guard(prefect.app(), desk=desk, approver_header=header, key=key)
    app = Starlette(routes=[Mount("/api", app=guard)])
    http = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://suture.test/api"
    )
    return Bench(prefect, desk, http)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = bench_for(FakePrefect())
    async with bench.http:
        yield bench


@pytest.fixture
async def proxied() -> AsyncIterator[Bench]:
    bench = bench_for(FakePrefect(), header="X-Forwarded-User")
    async with bench.http:
        yield bench


async def test_prefect_gets_a_handle_in_the_codes_place(bench: Bench) -> None:
    run = bench.prefect.add()
    response = await bench.resume(run, approver=" Ada ", leave_out=None)
    assert response.status_code == 201
    fields = bench.stored()
    handle = fields.pop("code")
    assert fields == {"decision": "approve", "approver": "Ada", "allowed_cidrs": "10.0.0.0/8"}
    assert is_handle(handle)
    assert CODE.encode() not in bench.prefect.bodies[-1][1]

    bench.prefect.runs[run]["state"]["type"] = "RUNNING"
    read = await bench.redeem(handle, run)
    assert read.json() == {"code": CODE, "approver": "Ada", "approver_verified": False}
    assert read.headers["cache-control"] == "no-store"
    assert (await bench.redeem(handle, run)).status_code == 410


async def test_a_denial_leaves_a_name_and_no_code(bench: Bench) -> None:
    run = bench.prefect.add()
    assert (await bench.resume(run, decision="deny", code=CODE)).status_code == 201
    handle = bench.stored()["code"]
    bench.prefect.runs[run]["state"]["type"] = "SCHEDULED"
    read = (await bench.redeem(handle, run)).json()
    assert read == {"code": None, "approver": "Ada", "approver_verified": False}


@pytest.mark.parametrize(
    "bad",
    [
        {"code": "12345"},
        {"code": ""},
        {"code": "suture-code:" + "A" * 43},
        {"allowed_cidrs": "10.11.12.13/8"},
        {"leave_out": "4"},
        {"approver": CODE},
        {"decision": "approved"},
        {"unknown": "x"},
        {"code": {"__prefect_kind": "jinja", "template": CODE}},
        {"approver": "x" * 2001},
    ],
)
async def test_a_bad_answer_gets_words_and_goes_nowhere(bench: Bench, bad: dict[str, Any]) -> None:
    response = await bench.resume(bench.prefect.add(), **bad)
    assert response.status_code == 422
    words = response.json()["detail"]
    assert ": " in words
    assert not any(len(str(value)) > 3 and str(value) in words for value in bad.values())
    assert bench.nothing_got_through()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (409, {"detail": "conflict"}),
        (500, {"exception_message": "Internal Server Error"}),
        (200, {"status": "REJECT", "details": {"reason": "late"}}),
        (200, {"status": "ABORT"}),
        (200, {}),
    ],
)
async def test_a_code_that_prefect_does_not_take_is_dropped(
    bench: Bench, status: int, body: dict[str, Any]
) -> None:
    bench.prefect.answer = (status, body)
    response = await bench.resume(bench.prefect.add())
    assert (response.status_code, response.json()) == (status, body)
    assert len(bench.desk) == 0


async def test_a_code_is_dropped_when_prefect_fails(bench: Bench) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            raise ConnectionError
        await bench.prefect.app()(scope, receive, send)

    desk = CodeDesk()
    transport = httpx.ASGITransport(app=Guard(broken, desk=desk))
    async with httpx.AsyncClient(transport=transport, base_url="http://suture.test") as http:
        with pytest.raises(ConnectionError):
            await http.post(
                f"/flow_runs/{bench.prefect.add()}/resume", json={"run_input": dict(GOOD)}
            )
    assert len(desk) == 0


@pytest.mark.parametrize(
    "spelling",
    [
        "/flow_runs/{id}/resume",
        "/flow_runs/{hex}/resume",
        "/flow_runs/{upper}/resume",
        "/flow_runs/{id}/resume%0A",
        "/flow_runs/{id}%0A/resume",
        "/flow_runs/{id}/resume/",
        "/flow_runs/{id}/resume?x=1",
        "//flow_runs/{id}/resume",
        "/flow_runs%2F{id}%2Fresume",
        "/Flow_Runs/{id}/RESUME",
    ],
)
async def test_no_spelling_of_the_address_gets_a_code_through(bench: Bench, spelling: str) -> None:
    run = bench.prefect.add()
    path = spelling.format(id=run, hex=run.replace("-", ""), upper=run.upper())
    await bench.http.post(f"http://suture.test/api{path}", json={"run_input": dict(GOOD)})
    for _, body in bench.prefect.bodies:
        assert CODE.encode() not in body


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"content-type": "application/x-www-form-urlencoded"}, b"code=918273", 415),
        ({"content-type": "text/plain"}, b'{"run_input": {"code": "918273"}}', 415),
        ({"content-type": "multipart/form-data"}, b"918273", 415),
        ({}, b'{"run_input": {"code": "918273"', 422),
        ({}, b'{"run_input": {"code": "1", "code": "918273"}}', 422),
        ({}, b'{"run_input": {}, "run_input": {"code": "918273"}}', 422),
        ({}, json.dumps({"run_input": GOOD}).replace("}}", ', "approver": "Bob"}}').encode(), 422),
        ({}, b'["918273"]', 422),
        ({}, b'{"run_input": "918273"}', 422),
        ({}, b"\xff918273", 422),
        ({}, b"[" * 60_000, 422),
        ({}, b"", 422),
        ({"content-type": "application/json"}, b"null", 422),
    ],
)
async def test_other_bodies_are_refused_without_an_echo(
    bench: Bench, headers: dict[str, str], content: bytes, status: int
) -> None:
    run = bench.prefect.add()
    response = await bench.http.post(f"/flow_runs/{run}/resume", content=content, headers=headers)
    assert response.status_code == status
    assert CODE not in response.text
    assert bench.nothing_got_through()


@pytest.mark.parametrize(
    "kind", ["application/json; charset=utf-8", "Application/JSON", "application/vnd.x+json", ""]
)
async def test_the_kinds_of_json_that_prefect_reads_are_read(bench: Bench, kind: str) -> None:
    content = json.dumps({"run_input": GOOD}).encode()
    headers = {"content-type": kind} if kind else {}
    path = f"/flow_runs/{bench.prefect.add()}/resume"
    assert (await bench.http.post(path, content=content, headers=headers)).status_code == 201
    assert is_handle(bench.stored()["code"])


async def test_chunks_are_put_together_and_counted(bench: Bench) -> None:
    async def chunks(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 50):
            yield content[start : start + 50]

    path = f"/flow_runs/{bench.prefect.add()}/resume"
    large = b" " * MAX_ANSWER_BYTES + b"{}"
    for content in (large, chunks(large)):
        assert (await bench.http.post(path, content=content)).status_code == 413
    assert bench.nothing_got_through()
    good = chunks(json.dumps({"run_input": GOOD}).encode())
    assert (await bench.http.post(path, content=good)).status_code == 201


async def test_other_runs_are_left_alone(bench: Bench) -> None:
    theirs = {"properties": {"name": {}}, "required": ["name"]}
    body = b'{"run_input":  {"name": "918273", "x": 1}}'
    others = (bench.prefect.add(form=theirs, keyset=THEIRS), bench.prefect.add(keyset=None))
    for run in others:
        response = await bench.http.post(f"/flow_runs/{run}/resume", content=body)
        assert response.status_code == 201
        assert bench.prefect.bodies[-1][1] == body
        await bench.http.post(f"/flow_runs/{run}/set_state", json={"state": {"type": "RUNNING"}})
        assert len(bench.prefect.bodies) % 2 == 0
    assert len(bench.desk) == 0


async def test_a_run_that_is_not_paused_never_gets_the_body(bench: Bench) -> None:
    running = await bench.resume(bench.prefect.add("RUNNING"))
    assert running.json()["status"] == "ABORT"
    assert (await bench.resume(str(uuid4()))).status_code == 404
    assert bench.nothing_got_through()


@pytest.mark.parametrize("form", [None, "not a form", ["code"], {"properties": {"name": {}}}])
async def test_a_form_that_cannot_be_read_is_guarded(bench: Bench, form: Any) -> None:
    response = await bench.resume(bench.prefect.add(form=form))
    assert response.status_code == 409
    assert bench.nothing_got_through()


@pytest.mark.parametrize(
    ("state", "force", "passes"),
    [
        ("RUNNING", False, False),
        ("RUNNING", True, False),
        ("SCHEDULED", True, False),
        ("COMPLETED", True, False),
        ("PAUSED", True, False),
        (None, True, False),
        ("PAUSED", False, True),
        ("CANCELLED", True, True),
        ("CANCELLING", False, True),
        ("FAILED", False, True),
        ("CRASHED", True, True),
    ],
)
async def test_an_approval_can_be_stopped_but_not_moved_on(
    bench: Bench, state: str | None, force: bool, passes: bool
) -> None:
    run = bench.prefect.add()
    body = {"state": {"type": state}, "force": force}
    response = await bench.http.post(f"/flow_runs/{run}/set_state", json=body)
    assert response.status_code == (201 if passes else 403)
    assert bool(bench.prefect.bodies) is passes
    bench.prefect.bodies.clear()
    bulk = {**body, "flow_runs": {"tags": {"any_": ["x"]}}, "limit": 5}
    response = await bench.http.post("/flow_runs/bulk_set_state", json=bulk)
    # A forced or repeated pause of many runs is nobody's retry, but Prefect's own rules hold.
    assert response.status_code == (201 if passes else 403)
    assert bool(bench.prefect.bodies) is passes


async def test_bulk_set_state_of_other_runs_passes(bench: Bench) -> None:
    bench.prefect.add("RUNNING")
    bulk = {"state": {"type": "COMPLETED"}, "flow_runs": {"tags": {"any_": ["x"]}}}
    assert (await bench.http.post("/flow_runs/bulk_set_state", json=bulk)).status_code == 201


@pytest.mark.parametrize(
    ("key", "passes"),
    [
        (KEYSET["response"], False),
        ("suspended-approval-2-response", False),
        ("Paused-1-response", False),
        ("note-response-1", True),
    ],
)
async def test_an_answer_cannot_be_planted(bench: Bench, key: str, passes: bool) -> None:
    for state in ("PAUSED", "RUNNING"):
        run = bench.prefect.add(state)
        body = {"key": key, "value": json.dumps(GOOD)}
        response = await bench.http.post(f"/flow_runs/{run}/input", json=body)
        assert response.status_code == (201 if passes else 403)
    assert len(bench.prefect.bodies) == (2 if passes else 0)


@pytest.mark.parametrize("kind", ["schema", "description"])
async def test_a_form_is_stored_by_its_own_run_after_the_pause(bench: Bench, kind: str) -> None:
    for state, key, status in (
        ("RUNNING", KEYSET[kind], 403),
        ("PAUSED", f"suspended-approval-2-{kind}", 403),
        ("PAUSED", KEYSET[kind], 201),
    ):
        run = bench.prefect.add(state, form=None)
        body = {"key": key, "value": json.dumps(FORM)}
        response = await bench.http.post(f"/flow_runs/{run}/input", json=body)
        assert response.status_code == status
    theirs = bench.prefect.add(form={"properties": {"name": {}}}, keyset=THEIRS)
    body = {"key": THEIRS["description"], "value": '"page"'}
    assert (await bench.http.post(f"/flow_runs/{theirs}/input", json=body)).status_code == 201


async def test_an_answer_cannot_be_planted_under_a_key_of_its_own(bench: Bench) -> None:
    run = bench.prefect.add()
    details = bench.prefect.runs[run]["state"]["state_details"]
    details["run_input_keyset"] = {**KEYSET, "response": "my-answer"}
    body = {"key": "my-answer", "value": json.dumps(GOOD)}
    assert (await bench.http.post(f"/flow_runs/{run}/input", json=body)).status_code == 403
    assert bench.nothing_got_through()


async def test_of_two_answers_at_once_one_is_asked_to_wait(bench: Bench) -> None:
    run = bench.prefect.add()
    answers = await asyncio.gather(*(bench.resume(run) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    assert len(bench.prefect.bodies) == len(bench.desk) == 1
    # The one that went through no longer stands in anyone's way.
    assert (await bench.resume(run)).status_code == 201


async def test_a_waiting_form_cannot_be_taken_away(bench: Bench) -> None:
    run = bench.prefect.add()
    for key in KEYSET.values():
        assert (await bench.http.delete(f"/flow_runs/{run}/input/{key}")).status_code == 403
    assert (await bench.http.delete(f"/flow_runs/{run}/input/other")).status_code == 201
    done = bench.prefect.add("COMPLETED")
    path = f"/flow_runs/{done}/input/{KEYSET['schema']}"
    assert (await bench.http.delete(path)).status_code == 201


async def test_what_is_approved_cannot_be_changed_while_it_waits(bench: Bench) -> None:
    run = bench.prefect.add()
    patch = {"parameters": {"findings": ["another"]}}
    assert (await bench.http.patch(f"/flow_runs/{run}", json=patch)).status_code == 403
    assert bench.nothing_got_through()
    assert (await bench.http.patch(f"/flow_runs/{run}", json={"tags": ["x"]})).status_code == 201
    running = bench.prefect.add("RUNNING")
    assert (await bench.http.patch(f"/flow_runs/{running}", json=patch)).status_code == 201


async def test_a_code_is_for_its_run_once_resumed(bench: Bench) -> None:
    run, other = bench.prefect.add(), bench.prefect.add("RUNNING")
    await bench.resume(run)
    handle = bench.stored()["code"]
    assert (await bench.redeem(handle, run)).status_code == 403  # still paused
    assert (await bench.redeem(handle, other)).status_code == 403
    assert (await bench.redeem("suture-code:" + "A" * 43, run)).status_code == 410
    assert (await bench.redeem(handle, "no run")).status_code == 422
    assert (await bench.redeem(CODE, run)).status_code == 422
    bench.prefect.runs[run]["state"]["type"] = "COMPLETED"
    assert (await bench.redeem(handle, run)).status_code == 403
    bench.prefect.runs[run]["state"]["type"] = "PENDING"
    browser = {"origin": "http://suture.test"}
    body = {"handle": handle, "flow_run_id": run}
    page = await bench.http.post("/suture/codes/redeem", json=body, headers=browser)
    assert page.status_code == 403
    read = await bench.redeem(handle, run.upper())
    assert read.json()["code"] == CODE


async def test_a_code_is_for_who_holds_the_key() -> None:
    bench = bench_for(FakePrefect(), key=KEY)
    async with bench.http:
        run = bench.prefect.add()
        await bench.resume(run)
        bench.prefect.runs[run]["state"]["type"] = "RUNNING"
        handle = bench.stored()["code"]
        asked: dict[str, Any] = {"handle": handle, "flow_run_id": run}
        right = proof(KEY, handle, run)
        wrong = [None, "", 7, [right], right[:-1], right.upper(), "é" * 64, "\ud800"]
        wrong += [proof(SecretStr("x" * 32), handle, run), proof(KEY, handle, str(uuid4()))]
        for given in wrong:
            body = json.dumps({**asked, "proof": given})
            refused = await bench.http.post("/suture/codes/redeem", content=body)
            assert refused.status_code == 403
            assert "does not hold the server's SUTURE_GUARD_KEY" in refused.json()["detail"]
        assert (await bench.redeem(handle, run)).status_code == 403
        read = await bench.http.post("/suture/codes/redeem", json={**asked, "proof": right})
        assert read.json()["code"] == CODE


async def test_the_sign_in_proxy_says_who_it_is(proxied: Bench) -> None:
    run = proxied.prefect.add()
    path, body = f"/flow_runs/{run}/resume", {"run_input": {**GOOD, "approver": "Mallory"}}
    twice = [("X-Forwarded-User", "ada"), ("x-forwarded-user", "bob")]
    for headers in ([], [("X-Forwarded-User", "  ")], twice):
        assert (await proxied.http.post(path, json=body, headers=headers)).status_code == 403
    assert proxied.nothing_got_through()
    headers = [("X-Forwarded-User", "ada@example.org")]
    assert (await proxied.http.post(path, json=body, headers=headers)).status_code == 201
    assert proxied.stored()["approver"] == "ada@example.org"
    proxied.prefect.runs[run]["state"]["type"] = "RUNNING"
    read = (await proxied.redeem(proxied.stored()["code"], run)).json()
    assert (read["approver"], read["approver_verified"]) == ("ada@example.org", True)


async def test_without_a_proxy_its_header_is_nobody(bench: Bench) -> None:
    run = bench.prefect.add()
    path, body = f"/flow_runs/{run}/resume", {"run_input": dict(GOOD)}
    await bench.http.post(path, json=body, headers={"X-Forwarded-User": "mallory"})
    assert bench.stored()["approver"] == "Ada"


async def test_other_protocols_pass_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    parts: Any = ({"type": "websocket", "path": "/flow_runs/x/resume"}, object(), object())
    await Guard(app, desk=CodeDesk())(*parts)
    assert seen == [parts]


# --- who approves, and who asked ---


def form_with(terms: Terms) -> dict[str, Any]:
    return approval_form([], "page", numbers=3, terms=terms).model_json_schema()


async def test_the_form_says_whose_approval_counts(proxied: Bench) -> None:
    terms = Terms(2, True, True, (("*@example.org",),), ("ada@example.org",))
    run = proxied.prefect.add(form=form_with(terms))
    path = f"/flow_runs/{run}/resume"
    typed = {"decision": "approve", "approver": "Grace", "code": CODE}
    for name, words in (
        ("Ada@example.org", "Who asked for these changes"),
        ("grace@elsewhere.org", "You are not among those"),
    ):
        refused = await proxied.http.post(
            path, json={"run_input": typed}, headers={"X-Forwarded-User": name}
        )
        assert refused.status_code == 403
        assert words in refused.json()["detail"]
    assert proxied.nothing_got_through()
    signed_in = {"X-Forwarded-User": "grace@example.org"}
    first = await proxied.http.post(path, json={"run_input": typed}, headers=signed_in)
    assert first.status_code == 201
    proxied.prefect.runs[run]["state"]["type"] = "RUNNING"
    read = (await proxied.redeem(proxied.stored()["code"], run)).json()
    # The code of a first approval was not even kept in memory.
    assert read == {"code": None, "approver": "grace@example.org", "approver_verified": True}

    second = proxied.prefect.add(
        form=form_with(terms.approved_by("grace@example.org", verified=True))
    )
    again = await proxied.http.post(
        f"/flow_runs/{second}/resume", json={"run_input": typed}, headers=signed_in
    )
    assert "You have approved this already" in again.json()["detail"]


async def test_verified_names_need_a_proxy(bench: Bench) -> None:
    run = bench.prefect.add(form=form_with(Terms(verified=True)))
    good = {"decision": "approve", "approver": "Ada", "code": CODE}
    path = f"/flow_runs/{run}/resume"
    refused = await bench.http.post(path, json={"run_input": good})
    assert refused.status_code == 403
    assert "sign-in proxy has verified" in refused.json()["detail"]
    assert bench.nothing_got_through()
    # To say no, no name is needed.
    denied = await bench.http.post(path, json={"run_input": {**good, "decision": "deny"}})
    assert denied.status_code == 201


@pytest.mark.parametrize("path", ["/flow_runs/", "/deployments/{id}/create_flow_run"])
async def test_who_starts_a_run_is_written_on_it(bench: Bench, proxied: Bench, path: str) -> None:
    address = path.format(id=uuid4())
    forged = {"name": "x", "labels": {"team": "a", REQUESTED_BY: "somebody"}}
    header = {"X-Forwarded-User": "ada@example.org"}
    for one, headers, name in (
        (proxied, header, "ada@example.org"),
        (proxied, {}, ""),
        (bench, header, ""),
    ):
        created = await one.http.post(address, json=forged, headers=headers)
        assert created.status_code == 201
        body = json.loads(one.prefect.bodies[-1][1])
        assert body == {"name": "x", "labels": {"team": "a", REQUESTED_BY: name}}
    many = await proxied.http.post(
        f"/deployments/{uuid4()}/create_flow_run/bulk", json=[forged, {}], headers=header
    )
    assert many.status_code == 201
    bodies = json.loads(proxied.prefect.bodies[-1][1])
    assert [body["labels"][REQUESTED_BY] for body in bodies] == ["ada@example.org"] * 2


async def test_who_started_a_run_is_not_rewritten(bench: Bench) -> None:
    run = bench.prefect.add("RUNNING")
    path = f"/flow_runs/{run}/labels"
    forged = await bench.http.patch(path, json={REQUESTED_BY: "somebody", "team": "a"})
    assert forged.status_code == 403
    assert bench.nothing_got_through()
    assert (await bench.http.patch(path, json={"team": "a"})).status_code == 201
    for bad in ([], {"labels": ["x"]}, {"labels": "x"}):
        assert (await bench.http.post("/flow_runs/", json=bad)).status_code == 422


# --- the desk ---


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


def test_the_desk_forgets_after_two_minutes(clock: list[float]) -> None:
    desk = CodeDesk(clock=lambda: clock[0])
    handle = desk.keep("run", SecretStr(CODE), "Ada", verified=False)
    clock[0] += 119.9
    assert desk.look(handle, "run").approver == "Ada"
    clock[0] += 0.2
    with pytest.raises(HandleGone):
        desk.take(handle, "run")
    assert len(desk) == 0


async def test_an_idle_desk_forgets_too() -> None:
    desk = CodeDesk(seconds=-1.0)
    desk.keep("run", SecretStr(CODE), "Ada", verified=False)
    assert len(desk) == 1
    await asyncio.sleep(0.05)
    assert len(desk) == 0


def test_the_desk_shows_nothing(clock: list[float]) -> None:
    desk = CodeDesk(clock=lambda: clock[0])
    handle = desk.keep("run", SecretStr(CODE), "Ada", verified=True)
    assert CODE not in repr(desk) + repr(desk.look(handle, "run"))


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab")), max_size=12))
@settings(max_examples=50)
def test_a_handle_is_read_at_most_once_and_by_its_run(reads: list[tuple[str, str]]) -> None:
    desk = CodeDesk()
    handles = {run: desk.keep(run, SecretStr(CODE), "Ada", verified=False) for run in "ab"}
    taken: list[str] = []
    for owner, reader in reads:
        try:
            desk.take(handles[owner], reader)
        except WrongRun:
            assert owner != reader
        except HandleGone:
            assert owner in taken
        else:
            assert owner == reader
            taken.append(owner)
    assert len(taken) == len(set(taken))


def test_handles_cannot_be_guessed() -> None:
    desk = CodeDesk()
    handles = {desk.keep("run", SecretStr(""), "Ada", verified=False) for _ in range(100)}
    assert len(handles) == 100
    assert all(re.fullmatch(r"suture-code:[\w-]{43}", handle) for handle in handles)
