"""The approval guard: an ASGI layer in Prefect's API that keeps typed codes out of its database.

It stands innermost of the API's middleware, behind Prefect's own authentication, and sees the path
exactly as Prefect's router does, whatever the base path. Prefect's in-process clients (automations)
come through it too. What it guards are runs paused on a Suture approval: a form with a ``code``.

- ``POST flow_runs/{id}/resume``: every field is checked; the code stays at the desk and Prefect
  stores a handle. A bad answer gets words (HTTP 422) and the run stays suspended.
- ``input``, ``set_state``, ``bulk_set_state`` and ``PATCH``: ways round the form, refused.
- ``POST flow_runs`` and ``create_flow_run``: who signed in and starts a run is written on it, where
  nobody else can write: not on a flow or deployment either, whose labels scheduled runs take over.
- ``POST suture/codes/redeem``: the resumed run reads its code, once, with a proof that it holds the
  key that server and runs share.

A body is read to its end before the run is looked at: whoever sends slowly would else be judged by
the state in which the run was when they began.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import SecretStr
from starlette._utils import get_route_path
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.code_desk import CodeDesk, HandleGone, WrongRun
from tasks.approval import Answer, FormShape, check, form_shape, is_handle, problems
from tasks.approvers import REQUESTED_BY
from tasks.codes import proof

logger = logging.getLogger("suture.guard")

MAX_ANSWER_BYTES = 64 * 1024
# A form's description holds the whole table of changes.
MAX_INPUT_BYTES = 8 * 1024 * 1024

_RUN_ID = re.compile(r"[0-9a-fA-F]{8}-?(?:[0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}")
_PAUSE_KEY = re.compile(
    r"(?:suspended|paused)-.*-(response|schema|description)", re.IGNORECASE | re.DOTALL
)
# What `tasks.remediation_run` calls its pauses: whatever form one of them has, it is an approval.
_APPROVAL_KEY = re.compile(
    r"(?:suspended|paused)-approval-[0-9]+-(?:response|schema|description)", re.IGNORECASE
)
_STOPPED = frozenset({"CANCELLED", "CANCELLING", "FAILED", "CRASHED"})
_RESUMED = frozenset({"SCHEDULED", "PENDING", "RUNNING"})
_PLANNED = frozenset({"parameters", "empirical_policy", "job_variables"})


class Refused(Exception):
    """The guard's own answer: an HTTP status and words that repeat nothing of the request."""

    def __init__(self, status: int, words: str) -> None:
        self.status = status
        self.words = words
        super().__init__(words)


@dataclass(frozen=True, slots=True)
class Pause:
    """What a paused run waits for: its keyset, and the shape of its form if it is an approval.

    ``form`` is None for someone else's form. ``ready`` is False until the form has been stored.
    """

    keyset: Mapping[str, str]
    form: FormShape | None
    ready: bool

    @property
    def guarded(self) -> bool:
        """Unknown counts as guarded: a form that is not there yet may be an approval."""
        return not self.ready or self.form is not None


class Guard:
    """ASGI middleware for Prefect's API app. One per process, as the desk is in its memory.

    ``approver_header`` names the header in which an authenticating proxy says who the person is;
    None trusts no header, and approvers are as they typed themselves. ``key`` is what a run must
    hold to read its code; None gives it to whoever may call the API and names the run.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        desk: CodeDesk,
        approver_header: str | None = None,
        key: SecretStr | None = None,
    ) -> None:
        self.app = app
        self.desk = desk
        self.key = key
        self.approver_header = approver_header.lower().encode() if approver_header else None
        self._answering: set[str] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            response = await self._guarded(scope, receive)
        except Refused as refused:
            response = JSONResponse({"detail": refused.words}, refused.status)
        if response is None:
            await self.app(scope, receive, send)
        elif isinstance(response, Response):
            await response(scope, receive, send)
        else:
            await self.app(_with_json_body(scope, response), _replay(response, receive), send)

    async def _guarded(self, scope: Scope, receive: Receive) -> Response | bytes | None:
        """The guard's own answer, a body to hand on in place of the original, or None: hand on."""
        # Looser than Prefect's router on purpose (case, slashes, a stray newline): what only one
        # of the two would match must be what the guard matches.
        parts = get_route_path(scope).strip().strip("/").split("/")
        match scope["method"], [part.strip().lower() for part in parts]:
            case "POST", ["suture", "codes", "redeem"]:
                return await self._redeem(scope, receive)
            case "POST", ["flow_runs", "bulk_set_state"]:
                return await self._bulk_set_state(scope, receive)
            case "POST", ["flow_runs", run, "resume"] if run_id := _run_id(run):
                return await self._resume(scope, receive, run_id)
            case "POST", ["flow_runs", run, "set_state"] if run_id := _run_id(run):
                return await self._set_state(scope, receive, run_id)
            case "POST", ["flow_runs", run, "input"] if run_id := _run_id(run):
                return await self._create_input(scope, receive, run_id)
            case "DELETE", ["flow_runs", run, "input", *_] if run_id := _run_id(run):
                await self._delete_input(scope, run_id, "/".join(parts[3:]))
            case "POST", ["flow_runs"] | ["deployments", _, "create_flow_run"]:
                return await self._create_run(scope, receive)
            case "POST", ["deployments", _, "create_flow_run", "bulk"]:
                return await self._create_runs(scope, receive)
            case "PATCH", ["flow_runs", run, "labels"] if _run_id(run):
                return await self._label(scope, receive)
            case "POST", ["flows"] | ["deployments"]:
                return await self._create_labelled(scope, receive)
            case "PATCH", ["flow_runs", run] if run_id := _run_id(run):
                return await self._update(scope, receive, run_id)
        return None

    # --- answering an approval ---

    async def _resume(self, scope: Scope, receive: Receive, run_id: str) -> Response | bytes:
        _check_page(scope)
        body = await _body(scope, receive, MAX_INPUT_BYTES)
        run = await self._run(scope, run_id)
        if isinstance(run, Response):
            return run
        pause = await self._pause(scope, run)
        if pause is None and _state_type(run) != "PAUSED":
            # Prefect would say the same, but may find the run paused a moment later: it must not
            # have the body then.
            return _not_resumed("ABORT", "Cannot resume a flow run that is not paused.")
        if pause is None or not pause.guarded:
            return body
        if pause.form is None:
            raise Refused(409, "The approval form is not ready yet. Try again in a moment.")
        fields = _answered_fields(_object(_parsed_json(scope, body, MAX_ANSWER_BYTES)))
        verified = self._verified_approver(scope)
        answer = _checked(fields, pause.form, verified)
        if answer.approved and (
            words := pause.form.terms.refusal(answer.approver, verified=verified is not None)
        ):
            raise Refused(403, words)
        return await self._hand_on(scope, receive, run_id, fields, answer, verified is not None)

    async def _hand_on(
        self,
        scope: Scope,
        receive: Receive,
        run_id: str,
        fields: Mapping[str, Any],
        answer: Answer,
        verified: bool,
    ) -> Response:
        """Give Prefect the answer with a handle in the code's place; keep the code if it agrees."""
        # Kept before Prefect answers: the run may be up and asking before we hear back.
        if run_id in self._answering:
            # Prefect would let one win and print the others' answers into its log.
            raise Refused(409, "Somebody else is answering this run just now.")
        self._answering.add(run_id)
        handle = self.desk.keep(run_id, answer.code, answer.approver, verified=verified)
        body = json.dumps({"run_input": _stored_fields(fields, answer, handle)}).encode()
        accepted = False
        try:
            status, headers, text = await _call(
                self.app, _with_json_body(scope, body), _replay(body, receive)
            )
            accepted = status < 300 and (_parsed(text) or {}).get("status") == "ACCEPT"
        finally:
            self._answering.discard(run_id)
            if not accepted:
                self.desk.drop(handle)
        if accepted:
            logger.info(
                "Run %s was answered: %s by %s%s",
                run_id,
                answer.decision,
                answer.approver,
                "" if verified else " (name as typed)",
            )
        response = Response(text, status)
        response.raw_headers = headers
        return response

    def _verified_approver(self, scope: Scope) -> str | None:
        """Who the sign-in proxy says this is; None when no proxy was configured."""
        if self.approver_header is None:
            return None
        names = _header_values(scope, self.approver_header)
        if len(names) != 1 or not names[0].strip():
            raise Refused(403, "Approvals are taken only through the sign-in proxy.")
        return names[0].strip()

    # --- starting a run ---

    async def _create_run(self, scope: Scope, receive: Receive) -> bytes:
        return json.dumps(self._signed(scope, await _json_object(scope, receive))).encode()

    async def _create_runs(self, scope: Scope, receive: Receive) -> bytes:
        bodies = await _json(scope, receive, MAX_INPUT_BYTES)
        if not isinstance(bodies, list) or not all(isinstance(body, dict) for body in bodies):
            raise Refused(422, "The request must be a list of JSON objects.")
        return json.dumps([self._signed(scope, body) for body in bodies]).encode()

    def _signed(self, scope: Scope, body: Mapping[str, Any]) -> dict[str, Any]:
        """The body of a new run with the name of who signed in; empty for nobody, which counts too:
        a run would take over what its deployment is labelled with.
        """
        _check_page(scope)
        names = _header_values(scope, self.approver_header) if self.approver_header else []
        if len(names) > 1:
            # Whoever adds a second would be nobody, and could then approve what they asked for.
            raise Refused(403, "Runs are started under one name: the sign-in proxy's.")
        name = names[0].strip() if names else ""
        labels = body.get("labels") or {}
        if not isinstance(labels, dict):
            raise Refused(422, "labels must be a JSON object.")
        return {**body, "labels": {**labels, REQUESTED_BY: name}}

    async def _label(self, scope: Scope, receive: Receive) -> bytes:
        body = await _json_object(scope, receive)
        _check_labels(body)
        return json.dumps(body).encode()

    async def _create_labelled(self, scope: Scope, receive: Receive) -> bytes:
        """A new flow or deployment: what the scheduler starts of it comes by no request."""
        body = await _json_object(scope, receive)
        _check_labels(body.get("labels") or {})
        return json.dumps(body).encode()

    # --- ways round the form ---

    async def _set_state(self, scope: Scope, receive: Receive, run_id: str) -> bytes:
        body = await _json_object(scope, receive)
        if await self._waits_for_approval(scope, run_id) and not _only_stops(body):
            raise Refused(
                403,
                "This run waits for an approval. Resume it with its form, or cancel it: "
                "its state cannot be set by hand.",
            )
        return json.dumps(body).encode()

    async def _bulk_set_state(self, scope: Scope, receive: Receive) -> bytes:
        body = await _json_object(scope, receive, MAX_INPUT_BYTES)
        if not _only_stops(body):
            # The same question as Prefect asks itself: same filter, order and limit.
            query: dict[str, Any] = {
                key: body[key] for key in ("flow_runs", "limit") if key in body
            }
            status, text = await self._ask(scope, "POST", "/flow_runs/filter", query)
            runs = json.loads(text) if status == 200 else []
            for run in runs:
                pause = await self._pause(scope, run)
                if pause is not None and pause.guarded:
                    raise Refused(
                        403,
                        "One of these runs waits for an approval, and its state cannot be set by "
                        "hand. Leave it out, or cancel.",
                    )
        return json.dumps(body).encode()

    async def _create_input(self, scope: Scope, receive: Receive, run_id: str) -> bytes:
        body = await _json_object(scope, receive, MAX_INPUT_BYTES)
        key = body.get("key")
        pause = await self._pause_of(scope, run_id)
        keyset = pause.keyset if pause is not None else {}
        kept = _PAUSE_KEY.fullmatch(key) if isinstance(key, str) else None
        kind = kept[1].lower() if kept else ""
        # Prefect keeps these keys for pauses. An answer it writes itself, so that one planted
        # before the pause would be no less a way round the form.
        answers = pause is not None and pause.guarded and key == keyset.get("response")
        if kind == "response" or answers:
            raise Refused(
                403, "An approval is answered by resuming its run, not by storing an input."
            )
        # A form is stored by its own run right after the pause: one that is there before would ask
        # what somebody else made up, and a form without a code would not be guarded at all.
        if kind and key not in keyset.values():
            raise Refused(403, "A form is stored by its own run, once the run waits for it.")
        # Whoever is faster than the run could else ask for the code in a field that is stored.
        asked = _parsed(str(body.get("value")).encode()) or {}
        if kind == "schema" and _is_approval(key) and form_shape(asked) is None:
            raise Refused(403, "The form of an approval has a field for the code.")
        return json.dumps(body).encode()

    async def _delete_input(self, scope: Scope, run_id: str, key: str) -> None:
        pause = await self._pause_of(scope, run_id)
        if pause is not None and pause.guarded and key.strip() in pause.keyset.values():
            raise Refused(403, "This form belongs to an approval that waits: it cannot be deleted.")

    async def _update(self, scope: Scope, receive: Receive, run_id: str) -> bytes:
        body = await _json_object(scope, receive)
        if _PLANNED & body.keys() and await self._waits_for_approval(scope, run_id):
            raise Refused(403, "This run waits for an approval: what it will do cannot be changed.")
        return json.dumps(body).encode()

    # --- reading the code back ---

    async def _redeem(self, scope: Scope, receive: Receive) -> Response:
        if _header_values(scope, b"origin"):
            # Only a page in somebody's browser sends this; only runs have business here.
            raise Refused(403, "Codes are not given to browsers.")
        body = await _json_object(scope, receive, MAX_ANSWER_BYTES)
        handle, run_id = body.get("handle"), _run_id(str(body.get("flow_run_id")))
        if not isinstance(handle, str) or not is_handle(handle) or run_id is None:
            raise Refused(422, "Send a handle and a flow_run_id.")
        if self.key is not None and not _proven(self.key, handle, run_id, body.get("proof")):
            raise Refused(
                403,
                "Who asks for this code does not hold the server's SUTURE_GUARD_KEY. "
                "Give the workers the same key.",
            )
        try:
            self.desk.look(handle, run_id)
            run = await self._run(scope, run_id)
            if isinstance(run, Response) or _state_type(run) not in _RESUMED:
                raise Refused(403, "A code is given only to a run that has been resumed.")
            kept = self.desk.take(handle, run_id)
        except WrongRun:
            raise Refused(403, "This code was given to another run.") from None
        except HandleGone:
            raise Refused(
                410,
                "This code is gone: codes are kept for one read within two minutes, and are "
                "forgotten when the server restarts. Ask for a new one.",
            ) from None
        return JSONResponse(
            {
                "code": kept.code.get_secret_value() or None,
                "approver": kept.approver,
                "approver_verified": kept.verified,
            },
            headers={"cache-control": "no-store"},
        )

    # --- asking Prefect ---

    async def _waits_for_approval(self, scope: Scope, run_id: str) -> bool:
        pause = await self._pause_of(scope, run_id)
        return pause is not None and pause.guarded

    async def _pause_of(self, scope: Scope, run_id: str) -> Pause | None:
        run = await self._run(scope, run_id)
        return None if isinstance(run, Response) else await self._pause(scope, run)

    async def _pause(self, scope: Scope, run: Mapping[str, Any]) -> Pause | None:
        """What the run waits for, or None when it is not paused for input."""
        state = run.get("state") or {}
        keyset = (state.get("state_details") or {}).get("run_input_keyset")
        if state.get("type") != "PAUSED" or not keyset:
            return None
        path = f"/flow_runs/{run['id']}/input/{keyset['schema']}"
        status, text = await self._ask(scope, "GET", path)
        schema = _parsed(text) if status == 200 else None
        form = form_shape(schema) if schema is not None else None
        # A pause made by hand could have its answer stored where an approval's is looked for.
        foreign = schema is not None and not any(_is_approval(key) for key in keyset.values())
        return Pause(keyset, form, ready=form is not None or foreign)

    async def _run(self, scope: Scope, run_id: str) -> dict[str, Any] | Response:
        """The run as Prefect tells it, or Prefect's answer when it does not."""
        status, text = await self._ask(scope, "GET", f"/flow_runs/{run_id}")
        if status != 200:
            return Response(text, status, media_type="application/json")
        run: dict[str, Any] = json.loads(text)
        return run

    async def _ask(
        self, scope: Scope, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> tuple[int, bytes]:
        """One request to the app below, inside this request: already authenticated."""
        root = scope.get("root_path", "")
        inner = {
            **scope,
            "method": method,
            "path": root + path,
            "raw_path": (root + path).encode(),
            "query_string": b"",
            "headers": [(b"host", b"suture")],
        }
        text = json.dumps(body).encode() if body is not None else b""
        if text:
            inner = _with_json_body(inner, text)
        status, _, answer = await _call(self.app, inner, _replay(text))
        return status, answer


def _checked(fields: Mapping[str, Any], form: FormShape, approver: str | None) -> Answer:
    asked: dict[str, Any] = {
        "numbers": form.numbers,
        "inputs": form.inputs,
        "code_needed": form.terms.last,
    }
    found = problems(fields, **asked, typed=True, approver=approver)
    if found:
        raise Refused(422, " ".join(form.said(problem) for problem in found))
    return check(fields, **asked, typed=True, approver=approver)


def _answered_fields(body: Mapping[str, Any]) -> dict[str, Any]:
    fields = body.get("run_input") or {}
    if not isinstance(fields, dict):
        raise Refused(422, "The answer must be an object of fields.")
    return dict(fields)


def _stored_fields(fields: Mapping[str, Any], answer: Answer, handle: str) -> dict[str, str]:
    """What Prefect may store: the fields as checked, with the handle where the code stood."""
    kept = {name: value.strip() for name, value in fields.items() if isinstance(value, str)}
    return {**kept, "approver": answer.approver, "code": handle}


def _proven(key: SecretStr, handle: str, run_id: str, given: object) -> bool:
    expected = proof(key, handle, run_id).encode()
    return isinstance(given, str) and hmac.compare_digest(given.encode(errors="replace"), expected)


def _only_stops(body: Mapping[str, Any]) -> bool:
    """Whether a set_state body ends the run, or asks for a pause that Prefect itself will judge.

    The second is a client repeating itself after a lost response; forced, it could swap the form.
    """
    state = body.get("state")
    kind = state.get("type") if isinstance(state, dict) else None
    return kind in _STOPPED or (kind == "PAUSED" and body.get("force", False) is False)


def _check_page(scope: Scope) -> None:
    """Refuse what another site's page sends: the browser adds the person's sign-in to it.

    A first approval of two and a denial need no code, and so would need no more than that.
    """
    if "cross-site" in _header_values(scope, b"sec-fetch-site"):
        raise Refused(403, "Another site's page cannot do this in your name.")


def _check_labels(labels: object) -> None:
    if not isinstance(labels, dict):
        raise Refused(422, "labels must be a JSON object.")
    if REQUESTED_BY in labels:
        raise Refused(403, "Who started a run is written once, by the server.")


def _not_resumed(status: str, reason: str) -> Response:
    """Prefect's own shape for a resume that did not happen, which its UI shows as an error."""
    return JSONResponse(
        {"state": None, "status": status, "details": {"type": "abort_details", "reason": reason}}
    )


def _parsed(text: bytes) -> dict[str, Any] | None:
    """The JSON object in ``text``, or None for anything else."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _state_type(run: Mapping[str, Any]) -> str | None:
    kind = (run.get("state") or {}).get("type")
    return kind if isinstance(kind, str) else None


def _is_approval(key: object) -> bool:
    return isinstance(key, str) and _APPROVAL_KEY.fullmatch(key) is not None


def _run_id(text: str) -> str | None:
    """A run's id in its usual spelling, or None for what Prefect's router takes for none."""
    return str(UUID(text)) if _RUN_ID.fullmatch(text) else None


async def _json_object(
    scope: Scope, receive: Receive, limit: int = MAX_INPUT_BYTES
) -> dict[str, Any]:
    """The request's body as one JSON object. Raises Refused in words that repeat nothing of it."""
    return _object(await _json(scope, receive, limit))


def _object(value: Any) -> dict[str, Any]:
    """A body that was read, as one JSON object; an empty one has no fields."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(422, "The request must be a JSON object.")
    return value


async def _json(scope: Scope, receive: Receive, limit: int) -> Any:
    """The request's body as JSON; None for an empty one."""
    _check_kind(scope)
    return _parsed_json(scope, await _body(scope, receive, limit), limit)


def _check_kind(scope: Scope) -> None:
    kinds = _header_values(scope, b"content-type")
    kind = kinds[0].partition(";")[0].strip().lower() if kinds else "application/json"
    if not re.fullmatch(r"application/(?:[\w.-]+\+)?json", kind):
        raise Refused(415, "Send JSON (Content-Type: application/json).")


def _parsed_json(scope: Scope, body: bytes, limit: int) -> Any:
    """A body that was read, as JSON; None for an empty one."""
    _check_kind(scope)
    if len(body) > limit:
        raise Refused(413, f"The request is larger than {limit:,} bytes.")
    if not body.strip():
        return None
    try:
        return json.loads(body, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError):
        # The parser's own words could quote the body.
        raise Refused(422, "The request is not valid JSON, or has a key twice.") from None


def _no_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    pairs = list(pairs)
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError
    return value


async def _body(scope: Scope, receive: Receive, limit: int) -> bytes:
    announced = _header_values(scope, b"content-length")
    if announced and announced[0].isdigit() and int(announced[0]) > limit:
        raise Refused(413, f"The request is larger than {limit:,} bytes.")
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "The request ended early.")
        body += message.get("body", b"")
        if len(body) > limit:
            raise Refused(413, f"The request is larger than {limit:,} bytes.")
        if not message.get("more_body", False):
            return bytes(body)


def _header_values(scope: Scope, name: bytes) -> list[str]:
    return [
        value.decode(errors="replace") for key, value in scope["headers"] if key.lower() == name
    ]


def _with_json_body(scope: Scope, body: bytes) -> dict[str, Any]:
    replaced = {b"content-length", b"content-type", b"transfer-encoding", b"content-encoding"}
    headers = [(key, value) for key, value in scope["headers"] if key.lower() not in replaced]
    headers += [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
    ]
    return {**scope, "headers": headers}


def _replay(body: bytes, receive: Receive | None = None) -> Receive:
    """A receive that gives ``body`` once, then whatever ``receive`` says (a disconnect)."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive() if receive else {"type": "http.disconnect"}

    return replay


async def _call(
    app: ASGIApp, scope: Scope, receive: Receive
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Run one HTTP request through an ASGI app: its status, headers and body."""
    status = 500
    headers: list[tuple[bytes, bytes]] = []
    body = bytearray()

    async def send(message: Message) -> None:
        nonlocal status, headers
        if message["type"] == "http.response.start":
            status, headers = message["status"], list(message.get("headers", []))
        elif message["type"] == "http.response.body":
            body.extend(message.get("body", b""))

    await app(scope, receive, send)
    return status, headers, bytes(body)
