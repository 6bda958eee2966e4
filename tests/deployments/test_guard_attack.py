"""An adversary at the door of `suture server`: Prefect and PostgreSQL as they run, over HTTP.

Each attack ends the same way: nothing is stored, the answer is one sentence that repeats nothing,
and the run still waits, for the person whose approval it is.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import secrets
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prefect import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from deployments.guard import MAX_ANSWER_BYTES
from tasks.approvers import REQUESTED_BY
from tasks.codes import proof, redeem
from tasks.errors import GateRefused

if TYPE_CHECKING:
    from conftest import Server

pytestmark = [pytest.mark.slow, pytest.mark.attack]

KEYSET = {kind: f"suspended-approval-1-{kind}" for kind in ("description", "response", "schema")}
SIGNED_IN = {"X-Forwarded-User": "ada@example.org"}
RAW: dict[str, Any] = {"decision": "approve", "approver": "Mallory"}


def a_code() -> str:
    return f"{secrets.randbelow(10**6):06d}"


@pytest.fixture(scope="module")
def waiting(server: Server) -> str:
    """One run that every failed attack leaves as it was."""
    return server.suspended_run()


@pytest.fixture
def untouched(server: Server, waiting: str) -> Iterator[str]:
    """The run, which waits before and after, unanswered."""
    yield waiting
    assert server.state(waiting) == "PAUSED"
    assert server.stored(waiting) is None


def one_sentence(answer: httpx.Response) -> str:
    """The refusal's words: short, and of no request."""
    words = str(answer.json()["detail"])
    assert len(words) < 250
    assert words.endswith(".")
    return words


def raw(
    server: Server, method: str, path: str, body: bytes, headers: dict[str, str] | None = None
) -> int:
    """A request whose path goes out just as it is written; the status of the answer."""
    address = httpx.URL(server.api)
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    try:
        connection.putrequest(method, address.path + path, skip_accept_encoding=True)
        sent = {"content-type": "application/json", "content-length": str(len(body))}
        for name, value in {**sent, **(headers or {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        return connection.getresponse().status
    finally:
        connection.close()


@pytest.mark.parametrize(
    "path",
    [
        "/flow_runs/{id}/input",
        "/flow_runs/{id}/input/",
        "/flow_runs/{hex}/input",
        "/flow_runs/{upper}/input",
        "//flow_runs/{id}/input",
        "/flow_runs//{id}/input",
        "/flow_runs/{id}//input",
        "/flow_runs/%7Bid%7D/input",
        "/flow_runs/{id}/%69nput",
        "/%66low_runs/{id}/input",
        "/flow_runs%2F{id}%2Finput",
        "/flow_runs/x/../{id}/input",
        "/./flow_runs/{id}/input",
        "/FLOW_RUNS/{id}/INPUT",
        "/flow_runs/{id}/input%20",
        "/flow_runs/{id}/input%0A",
        "/flow_runs/{id}/input%00",
        "/flow_runs/{id}/input;x=1",
        "/flow_runs/{id}/input?x=/resume",
        "/flow_runs/urn:uuid:{id}/input",
        "/flow_runs/%7B{id}%7D/input",
    ],
)
def test_no_spelling_of_the_address_plants_an_answer(
    server: Server, untouched: str, path: str
) -> None:
    spelled = path.format(id=untouched, hex=untouched.replace("-", ""), upper=untouched.upper())
    body = {"key": KEYSET["response"], "value": json.dumps({**RAW, "code": a_code()})}
    status = raw(server, "POST", spelled, json.dumps(body).encode())
    assert status in {307, 400, 403, 404, 405}, status


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "POST"])
@pytest.mark.parametrize("path", ["/flow_runs/{id}/resume/", "/%66low_runs/{id}/re%73ume"])
def test_no_other_method_or_spelling_resumes(
    server: Server, untouched: str, method: str, path: str
) -> None:
    body = json.dumps({"run_input": {**RAW, "code": "12345"}}).encode()
    override = {"x-http-method-override": "POST"}
    assert raw(server, method, path.format(id=untouched), body, override) in {307, 404, 405, 422}


@pytest.mark.parametrize(
    ("kind", "content", "status"),
    [
        ("application/x-www-form-urlencoded", b"decision=approve&code=482913", 415),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n482913\r\n--x--", 415),
        ("text/json", b'{"run_input": {"code": "482913"}}', 415),
        ("application/json-patch", b"482913", 415),
        ("application/json, text/plain", b"482913", 415),
        ("", b'{"run_input": {"code": "48291"}}', 422),
        ("application/json", b'{"run_input": {"code": "482913"}} {}', 422),
        ("application/json", b'{"run_input": {"code": "1", "code": "482913"}}', 422),
        ("application/json", b'{"run_input": {"code": "482913"}, "run_input": {}}', 422),
        ("application/json", b'{"run_input": ' * 9_000 + b"1" + b"}" * 9_000, 413),
        ("application/json", b"[" * 50_000, 422),
        ("application/json", b'{"run_input": {"code": ' + b"9" * 5_000 + b"}}", 422),
        ("application/json", b'{"run_input": {"code": 1e999}}', 422),
        ("application/json", b'{"run_input": {"code": 482913}}', 422),
        ("application/json", b'{"run_input": {"code": ["482913"]}}', 422),
        ("application/json", b'{"run_input": {"code": NaN}}', 422),
        ("application/json", b'{"run_input": [["code", "482913"]]}', 422),
        ("application/json", b'{"run_input": {"approver": "\\ud800", "code": "482913"}}', 422),
        ("application/json", b'{"run_input": {"approver": "A\\u0000da", "code": "482913"}}', 422),
        ("application/json", b'{"run_input": {"__prefect_kind": "json", "value": "482913"}}', 422),
        ("application/json", gzip.compress(b'{"run_input": {"code": "482913"}}', mtime=0), 422),
        ("application/json", b" " * (MAX_ANSWER_BYTES + 1), 413),
    ],
)
def test_forged_and_oversized_answers(
    server: Server, untouched: str, kind: str, content: bytes, status: int
) -> None:
    headers = {"content-type": kind} if kind else {}
    if content.startswith(b"\x1f\x8b"):
        headers["content-encoding"] = "gzip"
    path = f"/flow_runs/{untouched}/resume"
    answer = server.http.post(path, content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert "482913" not in answer.text
    assert "482913" not in one_sentence(answer)


def test_an_answer_in_another_encoding_is_read_and_guarded(server: Server) -> None:
    """JSON may be UTF-16 as well: what the parser reads is what the guard has read."""
    run, code = server.suspended_run(), a_code()
    body = json.dumps({"run_input": {**RAW, "code": code}}).encode("utf-16")
    headers = {"content-type": "application/json"}
    answer = server.http.post(f"/flow_runs/{run}/resume", content=body, headers=headers)
    assert answer.is_success
    assert code not in json.dumps(server.stored(run))


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["SCHEDULED", "PENDING", "RUNNING", "COMPLETED"])
def test_no_state_moves_a_waiting_run_on(
    server: Server, untouched: str, kind: str, force: bool
) -> None:
    state = {"type": kind, "name": "Resuming"}
    one_sentence(server.set_state(untouched, state, force=force))
    many = {"flow_runs": {"id": {"any_": [untouched]}}, "state": state, "force": force}
    one_sentence(server.http.post("/flow_runs/bulk_set_state", json=many))


def test_a_forced_pause_swaps_no_form(server: Server, untouched: str) -> None:
    keyset = {kind: f"mine-{kind}" for kind in KEYSET}
    plant = {"key": keyset["schema"], "value": '{"properties": {"x": {}}}'}
    server.http.post(f"/flow_runs/{untouched}/input", json=plant).raise_for_status()
    details = {"pause_key": "mine", "pause_reschedule": True, "run_input_keyset": keyset}
    state = {"type": "PAUSED", "name": "Suspended", "state_details": details}
    one_sentence(server.set_state(untouched, state, force=True))
    server.set_state(untouched, state)  # Prefect's own rules turn this one down
    now = server.http.get(f"/flow_runs/{untouched}").json()["state"]["state_details"]
    assert now["run_input_keyset"] == KEYSET


def test_what_a_waiting_run_will_do_cannot_be_patched(server: Server, untouched: str) -> None:
    for change in (
        {"parameters": {"finding_ids": ["another"]}},
        {"empirical_policy": {"pause_keys": []}},
        {"job_variables": {"env": {"SUTURE_GUARD": "off"}}},
    ):
        one_sentence(server.http.patch(f"/flow_runs/{untouched}", json=change))


@pytest.mark.parametrize("kind", ["schema", "description", "response"])
def test_nothing_is_planted_before_the_pause(server: Server, kind: str) -> None:
    """A form without a code that is there first would be answered past the guard."""
    flow = server.http.post("/flows/", json={"name": "fixes"}).json()["id"]
    run = server.http.post("/flow_runs/", json={"flow_id": flow, "state": {"type": "RUNNING"}})
    path = f"/flow_runs/{run.json()['id']}/input"
    one_sentence(server.http.post(path, json={"key": KEYSET[kind], "value": "{}"}))
    assert server.http.post(f"{path}/filter", json={"prefix": ""}).json() == []


@pytest.mark.parametrize("form", [{"properties": {"token": {"type": "string"}}}, {}, "x"])
def test_no_form_without_a_code_is_faster_than_the_runs_own(server: Server, form: Any) -> None:
    """It would be answered past the guard, and what is typed into its fields be stored."""
    run = server.running_run()
    server.pause(run)
    body = {"key": KEYSET["schema"], "value": json.dumps(form)}
    answer = server.http.post(f"/flow_runs/{run}/input", json=body)
    assert answer.status_code == 403
    one_sentence(answer)
    early = server.resume(run, code=a_code())
    assert (early.status_code, server.state(run)) == (409, "PAUSED")


def test_another_pause_stores_no_answer_to_an_approval(server: Server) -> None:
    """Made by hand before the run asks, with a form of its own, and the approval's key of pauses:
    the run would find itself answered.
    """
    run = server.running_run()
    keyset = {"response": KEYSET["response"], "schema": "x", "description": "y"}
    details = {"pause_key": "approval-1", "pause_reschedule": True, "run_input_keyset": keyset}
    by_hand = {"type": "PAUSED", "name": "Suspended", "state_details": details}
    server.set_state(run, by_hand).raise_for_status()
    form = {"key": "x", "value": json.dumps({"type": "object", "properties": {"decision": {}}})}
    server.http.post(f"/flow_runs/{run}/input", json=form).raise_for_status()
    answer = server.http.post(f"/flow_runs/{run}/resume", json={"run_input": {**RAW}})
    assert answer.status_code == 409
    assert (server.state(run), server.stored(run)) == ("PAUSED", None)


def test_a_stored_answer_cannot_be_exchanged(server: Server) -> None:
    """Its handle is good for two minutes: other networks or findings must not be put beside it."""
    run = server.suspended_run()
    assert server.resume(run, code=a_code(), allowed_cidrs="10.0.0.0/8").is_success
    stored = server.stored(run)
    assert stored is not None
    path = f"/flow_runs/{run}/input"
    for _ in range(2):
        forged = {**stored, "allowed_cidrs": "100.0.0.0/8"}
        body = {"key": KEYSET["response"], "value": json.dumps(forged)}
        one_sentence(server.http.post(path, json=body))
        server.http.delete(f"{path}/{KEYSET['response']}")  # and with the old one out of the way
    assert server.stored(run) in (stored, None)


class Slow:
    """A request whose head has gone out, and whose body is still to come."""

    def __init__(self, server: Server, path: str, body: dict[str, Any]) -> None:
        address = httpx.URL(server.api)
        self._body = json.dumps(body).encode()
        self._connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
        self._connection.putrequest("POST", address.path + path)
        self._connection.putheader("content-type", "application/json")
        self._connection.putheader("content-length", str(len(self._body)))
        self._connection.endheaders()
        time.sleep(0.5)  # whatever is asked about the run before its body is there, has been

    def finish(self) -> tuple[int, str]:
        self._connection.send(self._body)
        answer = self._connection.getresponse()
        text = answer.read().decode()
        self._connection.close()
        return answer.status, text


def test_a_state_sent_slowly_is_judged_by_what_the_run_is_by_then(server: Server) -> None:
    run = server.running_run()
    on = Slow(server, f"/flow_runs/{run}/set_state", {"state": {"type": "RUNNING"}, "force": True})
    server.suspend(run)
    status, words = on.finish()
    assert (status, server.state(run)) == (403, "PAUSED"), words


def test_an_answer_sent_slowly_is_judged_by_what_the_run_is_by_then(server: Server) -> None:
    """It begins while the run pauses for nothing, and ends when it waits for an approval."""
    run, code = server.running_run(), a_code()
    details = {"pause_key": "x", "pause_reschedule": True}
    for_nothing = {"type": "PAUSED", "name": "Suspended", "state_details": details}
    server.set_state(run, for_nothing).raise_for_status()
    forged = {"run_input": {**RAW, "code": code, "allowed_cidrs": "0.0.0.0/0"}}
    answer = Slow(server, f"/flow_runs/{run}/resume", forged)
    server.set_state(run, {"type": "RUNNING"}, force=True).raise_for_status()
    server.suspend(run)
    status, words = answer.finish()
    assert (status, server.state(run)) == (422, "PAUSED"), words
    assert code not in words
    assert server.stored(run) is None


@pytest.mark.parametrize("path", ["/flows/", "/deployments/"])
def test_no_label_that_scheduled_runs_take_over_names_who_asked(server: Server, path: str) -> None:
    body: dict[str, Any] = {"name": "fixes", "labels": {REQUESTED_BY: "somebody else"}}
    if path == "/deployments/":
        body["flow_id"] = server.http.post("/flows/", json={"name": "fixes"}).json()["id"]
    answer = server.http.post(path, json=body)
    assert answer.status_code == 403
    one_sentence(answer)


def test_nobody_starts_a_run_under_two_names(proxied: Server) -> None:
    """Who started it may not be lost that way: some policies shut them out from approving."""
    flow = proxied.http.post("/flows/", json={"name": "fixes"}).json()["id"]
    body: dict[str, Any] = {
        "name": "asked for by two",
        "flow_id": flow,
        "state": {"type": "PENDING"},
    }
    names = [("X-Forwarded-User", "ada@example.org"), ("X-Forwarded-User", "bob@example.org")]
    answer = proxied.http.post("/flow_runs/", json=body, headers=names)
    assert answer.status_code == 403
    one_sentence(answer)
    named = {"flow_runs": {"name": {"any_": [body["name"]]}}}
    assert proxied.http.post("/flow_runs/filter", json=named).json() == []


def test_a_replay_finds_the_run_resumed(server: Server) -> None:
    run, code = server.suspended_run(), a_code()
    body = {"run_input": {**RAW, "code": code}}
    first = server.http.post(f"/flow_runs/{run}/resume", json=body)
    stored = server.stored(run)
    for _ in range(3):
        again = server.http.post(f"/flow_runs/{run}/resume", json=body)
        assert again.json()["status"] == "ABORT"
        assert code not in again.text
    assert first.json()["status"] == "ACCEPT"
    assert server.stored(run) == stored
    # The replay of what Prefect stored, into the next run: a handle is no code.
    other = server.suspended_run()
    assert stored is not None
    replayed = server.http.post(f"/flow_runs/{other}/resume", json={"run_input": stored})
    assert replayed.status_code == 422
    assert stored["code"] not in replayed.text
    assert server.state(other) == "PAUSED"


def test_sixteen_denials_and_approvals_at_once_leave_one_answer(server: Server) -> None:
    run = server.suspended_run()
    ready = threading.Barrier(16)

    def answer(number: int) -> tuple[int, httpx.Response]:
        ready.wait(30)
        decision = "deny" if number % 4 == 0 else "approve"
        approver = f"Person {number}"
        return number, server.resume(run, decision=decision, approver=approver, code=a_code())

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(answer, range(16)))
    won = [n for n, one in answers if one.is_success and one.json()["status"] == "ACCEPT"]
    assert len(won) == 1
    for _, lost in answers:
        if lost.status_code == 409:
            assert one_sentence(lost) == "Somebody else is answering this run just now."
    stored = server.stored(run)
    assert stored is not None
    assert stored["approver"] == f"Person {won[0]}"
    assert redeem(stored["code"], run, server.api).approver == f"Person {won[0]}"
    assert server.state(run) == "SCHEDULED"


def test_of_sixteen_reads_at_once_one_gets_the_code(proxied: Server) -> None:
    run, code = proxied.suspended_run(), a_code()
    handle = answered(proxied, run, code)
    asked = {"handle": handle, "flow_run_id": run}
    asked["proof"] = proof(SecretStr(proxied.key), handle, run)
    ready = threading.Barrier(16)

    def read(_: int) -> httpx.Response:
        ready.wait(30)
        return proxied.http.post("/suture/codes/redeem", json=asked)

    with ThreadPoolExecutor(16) as pool:
        reads = list(pool.map(read, range(16)))
    assert [one.json()["code"] for one in reads if one.is_success] == [code]
    assert {one.status_code for one in reads if not one.is_success} == {410}


def answered(proxied: Server, run: str, code: str) -> str:
    """The handle that an approval through the sign-in proxy left in Prefect."""
    body = {"run_input": {**RAW, "code": code}}
    answer = proxied.http.post(f"/flow_runs/{run}/resume", json=body, headers=SIGNED_IN)
    assert answer.json()["status"] == "ACCEPT", answer.text
    stored = proxied.stored(run)
    assert stored is not None
    return str(stored["code"])


def test_a_handle_is_worth_nothing_to_who_may_only_call_the_api(
    proxied: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the password and the handle, but not the key that runs have; then by its own run."""
    run, other, code = proxied.suspended_run(), proxied.suspended_run(), a_code()
    handle = answered(proxied, run, code)
    elsewhere = answered(proxied, other, a_code())
    forged = (
        {},
        {"proof": ""},
        {"proof": "0" * 64},
        {"proof": proof(SecretStr("guessed" * 8), handle, run)},
        {"proof": proof(SecretStr(proxied.key), elsewhere, run)},
        {"proof": proof(SecretStr(proxied.key), handle, other)},
    )
    for more in forged:
        asked = {"handle": handle, "flow_run_id": run, **more}
        refused = proxied.http.post("/suture/codes/redeem", json=asked)
        assert refused.status_code == 403
        assert "SUTURE_GUARD_KEY" in one_sentence(refused)
        assert proxied.key not in refused.text
    settings = {PREFECT_API_URL: proxied.api, PREFECT_API_AUTH_STRING: "suture:a long password"}
    with temporary_settings(settings):
        with pytest.raises(GateRefused, match="does not hold the server's SUTURE_GUARD_KEY"):
            redeem(handle, run)
        monkeypatch.setenv("SUTURE_GUARD_KEY", proxied.key)
        with pytest.raises(GateRefused, match="given to another run"):
            redeem(handle, other)
        kept = redeem(handle, run)
        with pytest.raises(GateRefused, match="This code is gone"):
            redeem(handle, run)
    assert kept.code.get_secret_value() == code
    assert (kept.approver, kept.verified) == ("ada@example.org", True)


def test_prefects_own_client_meets_the_same_guard(
    proxied: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past no proxy, with the password: what scripts and the command line would do."""
    run = proxied.suspended_run()
    settings = {PREFECT_API_URL: proxied.api, PREFECT_API_AUTH_STRING: "suture:a long password"}
    with temporary_settings(settings), get_client(sync_client=True) as client:
        with pytest.raises(httpx.HTTPStatusError, match="only through the sign-in proxy"):
            client.resume_flow_run(run, run_input={**RAW, "code": a_code()})
        with pytest.raises(httpx.HTTPStatusError, match="resuming its run"):
            client.create_flow_run_input(run, KEYSET["response"], "{}")  # type: ignore[arg-type]
    assert proxied.state(run) == "PAUSED"
    assert proxied.stored(run) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-User": ""},
        {"X_Forwarded_User": "ada@example.org"},
        {"X-Forwarded-Username": "ada@example.org"},
        {"Forwarded": "for=ada@example.org"},
    ],
)
def test_no_other_header_signs_in(proxied: Server, headers: dict[str, str]) -> None:
    run = proxied.suspended_run()
    body = {"run_input": {**RAW, "code": a_code()}}
    answer = proxied.http.post(f"/flow_runs/{run}/resume", json=body, headers=headers)
    assert answer.status_code == 403
    assert proxied.state(run) == "PAUSED"


@pytest.mark.parametrize("path", ["/flow_runs/{run}/resume", "/flow_runs/"])
def test_no_other_sites_page_answers_or_asks_in_a_persons_name(proxied: Server, path: str) -> None:
    """A browser sends it signed in, and without asking first: a blob has no content type."""
    run = proxied.suspended_run()
    answer = proxied.http.post(
        path.format(run=run),
        content=json.dumps({"run_input": {"decision": "deny", "approver": "Ada"}}),
        headers={
            **SIGNED_IN,
            "Origin": "https://evil.example",
            "Sec-Fetch-Site": "cross-site",
            "Sec-Fetch-Mode": "no-cors",
        },
    )
    assert answer.status_code == 403
    one_sentence(answer)
    assert (proxied.state(run), proxied.stored(run)) == ("PAUSED", None)


def test_a_base_path_opens_no_second_door(proxied: Server) -> None:
    run = proxied.suspended_run()
    body = json.dumps({"run_input": {**RAW, "code": a_code()}}).encode()
    basic = base64.b64encode(b"suture:a long password").decode()
    headers = {"authorization": f"Basic {basic}"}
    address = httpx.URL(proxied.url)
    for path in ("/api", "/base", "", "/base//api", "//base/api", "/base/api/base/api"):
        connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
        connection.request(
            "POST",
            f"{path}/flow_runs/{run}/resume",
            body,
            {**headers, "content-type": "application/json"},
        )
        answer = connection.getresponse()
        assert answer.status in {200, 307, 403, 404, 405}, (path, answer.status)
        connection.close()
    assert proxied.state(run) == "PAUSED"
    assert proxied.stored(run) is None


def test_the_log_holds_no_code_and_no_key(server: Server, proxied: Server) -> None:
    """After all of the above."""
    for one in (server, proxied):
        log = one.log.read_text()
        assert "482913" not in log
        assert "suture-code:" not in log
    assert proxied.key not in proxied.log.read_text()
