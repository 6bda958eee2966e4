"""The opener: opens the gate for a right code, or for a signed request that the customer allows.

The same in every form it is deployed in: `Opener.answer` takes a path and a body, and returns a
status and a JSON object; `Opener.tick`, called every minute or so, closes what is past its time.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from pydantic import SecretStr

from deployments.opener import codes
from deployments.opener.allow import Allowed, Wanted, objection
from deployments.opener.codes import Verdict
from deployments.opener.journal import Journal
from deployments.opener.refused import Refused
from deployments.opener.signed import SignedRequests
from deployments.opener.store import Document, Store, turn
from deployments.opener.warm import (
    LEAST_SECONDS,
    Generation,
    WarmGate,
    code_of,
    generations,
    next_generation,
    to_hand_out,
)
from tasks.clouds.gate import (
    MOST_MINUTES,
    CustomerCredentials,
    OpenGate,
    close_gate,
    close_overdue,
    open_gate,
)
from tasks.clouds.openings import PERSON, WARM, timestamp
from tasks.errors import BadInput, SutureError, words_of
from tasks.inventory import Inventory
from tasks.model import Account, Cloud

log = logging.getLogger(__name__)

MOST_REQUEST = 65_536  # bytes
MOST_NAMED = 500  # resources, or actions, of one request
MOST_NAME = 100  # characters of a remediation's name
AGAIN_SECONDS = 30.0  # until what could not be closed is tried again
OPEN, CLOSE = "open", "close"

HEADERS = {"Content-Type": "application/json", "Cache-Control": "no-store"}

Answer = tuple[HTTPStatus, dict[str, Any]]

_STANDING = "azure openings"  # the document that says which openings somebody has to close
_ACCOUNTS = {
    Cloud.AWS: re.compile(r"[0-9]{12}", re.ASCII),
    Cloud.AZURE: re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the customer has decided.

    ``url`` is the opener's own address as Suture knows it, without the last part: requests must be
    signed for {url}/open or {url}/close. ``seed`` reads the authenticator's seed; None: no codes
    are taken. ``credentials`` gives the opener's own keys for an account. ``warm`` are the gates to
    be kept open ahead, under codes made with the key that ``warm_key`` reads.
    """

    url: str
    allow: tuple[Allowed, ...]
    seed: Callable[[], SecretStr] | None
    credentials: Callable[[Account], CustomerCredentials]
    warm: tuple[WarmGate, ...] = ()
    warm_key: Callable[[], SecretStr] | None = None


class Opener:
    """One opener. Safe for threads; several may run at once on one store."""

    def __init__(
        self,
        settings: Settings,
        inventory: Inventory,
        store: Store,
        journal: Journal,
        *,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        if inventory.issuer is None:
            raise BadInput("issuer", "is missing: nobody could sign requests.", "Add its url.")
        self._settings = settings
        self._inventory = inventory
        self._store = store
        self._journal = journal
        self._signed = SignedRequests(inventory.issuer.url, store, trust)

    def answer(self, path: str, body: bytes) -> Answer:
        """Answer one POST. Never raises; what is refused is said in {"error": "<in words>"}."""
        what = path.rstrip("/").rpartition("/")[2]
        try:
            return HTTPStatus.OK, self._answer(what, _parsed(body))
        except Refused as refusal:
            self._note("refused", asked=what, why=str(refusal))
            return refusal.status, {"error": str(refusal)}
        except BadInput as problem:
            self._note("refused", asked=what, why=str(problem))
            return HTTPStatus.BAD_REQUEST, {"error": str(problem)}
        except (SutureError, OSError) as error:
            words = words_of(error)
            self._note("failed", asked=what, why=words)
            return HTTPStatus.BAD_GATEWAY, {"error": words}

    def _answer(self, what: str, request: Mapping[str, Any]) -> dict[str, Any]:
        if what == OPEN and "code" in request:
            return self._open_for_person(request)
        if what == OPEN:
            return self._open_for_machine(self._claims(request, OPEN))
        if what == CLOSE:
            claims = self._claims(request, CLOSE)
            self.close(
                _account(claims),
                opening_of(claims["remediation"], person=claims.get("person") is True),
            )
            return {}
        raise Refused(HTTPStatus.NOT_FOUND, f"there is /{OPEN} and /{CLOSE}.")

    def _claims(self, request: Mapping[str, Any], what: str) -> dict[str, Any]:
        return self._signed.verified(request.get("request"), f"{self._settings.url}/{what}")

    # --- opening -------------------------------------------------------------------------------

    def _open_for_person(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Open for the code that was presented. The answer does not repeat it."""
        if "request" in request:
            raise Refused(HTTPStatus.BAD_REQUEST, "send a code or a signed request, not both.")
        account, minutes = _account(request), request.get("minutes", MOST_MINUTES)
        self._inventory.source(account.source)
        if not _is_count(minutes) or not 1 <= minutes <= MOST_MINUTES:
            raise Refused(HTTPStatus.BAD_REQUEST, f"minutes: 1 to {MOST_MINUTES}.")
        resources = [] if account.cloud is Cloud.AWS else _texts(request, "resources")
        opening, told = PERSON, {"by": "code"}
        if remediation := _remediation(request):
            opening = opening_of(remediation, person=True)
            told = {**told, "remediation": remediation}
        self._check_code(account, request["code"])
        opened = self._open(
            account,
            minutes,
            resources,
            opening=opening,
            told=told,
            code=SecretStr(request["code"]),
        )
        return {"expires_at": timestamp(opened.expires_at)}

    def _check_code(self, account: Account, code: object) -> None:
        if self._settings.seed is None:
            raise Refused(HTTPStatus.FORBIDDEN, "no codes are taken here.")
        verdict = codes.check(self._store, self._settings.seed(), code)
        self._note("code", verdict=verdict.value, account=account.id)
        if verdict is Verdict.NO_CODE:
            raise Refused(HTTPStatus.BAD_REQUEST, "code: 6 digits.")
        if verdict is Verdict.LOCKED:
            left = codes.locked_for(self._store)
            problem = f"too many wrong codes: none is taken for {left} seconds."
            raise Refused(HTTPStatus.TOO_MANY_REQUESTS, problem)
        if verdict is not Verdict.RIGHT:
            reason = "has been used: wait for the next" if verdict is Verdict.USED else "is wrong"
            raise Refused(HTTPStatus.UNAUTHORIZED, f"the code {reason}.")

    def _open_for_machine(self, claims: Mapping[str, Any]) -> dict[str, Any]:
        wanted, source = _wanted(claims), str(claims["source"])
        if claims.get("warm") is True and (answer := self._hand_out(wanted, claims)):
            return answer
        if reason := objection(wanted, self._settings.allow):
            raise Refused(HTTPStatus.FORBIDDEN, reason)
        opened = self._open(
            Account(wanted.cloud, wanted.account, source=source),
            wanted.minutes,
            wanted.resources,
            opening=opening_of(claims["remediation"]),
            told=_told(wanted, claims),
            machine=True,
        )
        return {
            "code": opened.code.get_secret_value(),
            "expires_at": timestamp(opened.expires_at),
        }

    def _open(
        self,
        account: Account,
        minutes: int,
        resources: list[str] | tuple[str, ...],
        *,
        opening: str,
        told: Mapping[str, Any],
        code: SecretStr | None = None,
        machine: bool = False,
    ) -> OpenGate:
        """Open, and write down first that it is going to be, then that it is."""
        about = {**told, "cloud": account.cloud.value, "account": account.id, "opening": opening}
        self._write("opening", **about, resources=resources, minutes=minutes)
        key = _key(account, opening)
        if account.cloud is Cloud.AZURE:  # noted before: whoever opens may die right after
            self._stands(key, time.time() + minutes * 60)
        with turn(self._store, account.id):
            opened = open_gate(
                self._inventory,
                account,
                code=code,
                machine=machine,
                minutes=minutes,
                resources=resources,
                opening=opening,
                customer=self._settings.credentials(account),
            )
        self._note("opened", **about, until=timestamp(opened.expires_at))
        return opened

    # --- warm gates ----------------------------------------------------------------------------

    def _hand_out(self, wanted: Wanted, claims: Mapping[str, Any]) -> dict[str, Any] | None:
        """The code of a gate that is warm for what is wanted; None when none is."""
        now = time.time()
        for gate in self._settings.warm:
            if gate.account.source != claims["source"] or not gate.permits(wanted):
                continue
            chosen = to_hand_out(self._generations(gate), now)
            if chosen is None or self._settings.warm_key is None:
                continue
            code = code_of(self._settings.warm_key(), gate.account, chosen)
            until = timestamp(datetime.fromtimestamp(chosen.until, UTC))
            self._write(
                "handed out",
                **_told(wanted, claims),
                account=wanted.account,
                resources=wanted.resources,
                until=until,
            )
            return {"code": code.get_secret_value(), "expires_at": until, "warm": True}
        return None

    def _keep_warm(self, gate: WarmGate, now: float) -> None:
        """Open a gate anew when that is due, and close it when its hours are over."""
        minutes = gate.minutes(datetime.fromtimestamp(now, UTC))
        with turn(self._store, gate.name):
            standing = self._generations(gate)
            if standing and not minutes and standing[-1].until <= now + LEAST_SECONDS:
                for opening in WARM:
                    self.close(gate.account, opening)
                self._store.update(gate.name, lambda _: ({"generations": []}, None))
            new = next_generation(standing, minutes, now)
            if new is None or self._settings.warm_key is None:
                return
            self._open(
                gate.account,
                minutes,
                gate.scopes,
                opening=WARM[new.number % 2],
                told={"by": "warm", "actions": gate.actions},
                code=code_of(self._settings.warm_key(), gate.account, new),
            )
            kept = [asdict(one) for one in (*standing[-1:], new)]
            self._store.update(gate.name, lambda _: ({"generations": kept}, None))

    def _generations(self, gate: WarmGate) -> tuple[Generation, ...]:
        return self._store.update(gate.name, lambda known: (None, generations(known)))

    # --- closing -------------------------------------------------------------------------------

    def close(self, account: Account, opening: str) -> None:
        """Close one opening. Raises BadInput or CloudError."""
        with turn(self._store, account.id):
            close_gate(
                self._inventory,
                account,
                opening=opening,
                customer=self._settings.credentials(account),
            )
        if account.cloud is Cloud.AZURE:
            self._stands(_key(account, opening), None)
        self._note("closed", cloud=account.cloud.value, account=account.id, opening=opening)

    def tick(self, *, now: float | None = None) -> None:
        """Close what is past its time on Azure, and renew what is kept warm. Never raises.

        Nothing closes by itself there: what this opener noted is closed, and whatever else stands
        too long in its tenants.
        """
        self.close_due(now=now)
        try:
            self._store.forget_expired()
        except (SutureError, OSError) as error:
            self._note("failed", asked="tick", why=str(error))
        for gate in self._settings.warm:
            try:
                self._keep_warm(gate, time.time() if now is None else now)
            except (SutureError, OSError) as error:
                self._note("failed", asked="tick", account=gate.account.id, why=str(error))
        for source in self._inventory.azure:
            try:
                any_account = Account(Cloud.AZURE, "", source=source.name)
                own = self._settings.credentials(any_account)
                close_overdue(self._inventory, source.name, customer=own)
            except SutureError as error:
                self._note("failed", asked="tick", why=str(error))

    def close_due(self, *, now: float | None = None) -> None:
        """Close what this opener noted and is past its time; asks no cloud where nothing is.

        What cannot be closed is tried again half a minute later. Never raises.
        """
        moment = time.time() if now is None else now
        for key, until in self._standing().items():
            if until <= moment:
                self._close_late(key)

    def close_all(self) -> None:
        """Close all that this opener opened and that does not close itself. Never raises."""
        for key in self._standing():
            self._close_late(key)

    def _standing(self) -> Document:
        try:
            return self._store.update(_STANDING, lambda known: (None, dict(known)))
        except (SutureError, OSError) as error:
            self._note("failed", asked=CLOSE, why=str(error))
            return {}

    def _close_late(self, key: str) -> None:
        source, account, opening = key.split("|")
        try:
            self.close(Account(Cloud.AZURE, account, source=source), opening)
        except SutureError as error:
            self._note("failed", asked=CLOSE, account=account, opening=opening, why=str(error))
            self._stands(key, time.time() + AGAIN_SECONDS)

    def _stands(self, key: str, until: float | None) -> None:
        def change(known: Document) -> tuple[Document | None, None]:
            others = {name: end for name, end in known.items() if name != key}
            return (others if until is None else {**others, key: until}), None

        self._store.update(_STANDING, change)

    # --- writing down --------------------------------------------------------------------------

    def _write(self, what: str, **about: Any) -> None:
        """Write down what is going to be done: what cannot be written down is not done."""
        self._journal.write({"what": what, **about})

    def _note(self, what: str, **about: Any) -> None:
        """Write down what has been done or refused already."""
        try:
            self._write(what, **about)
        except (SutureError, OSError) as error:
            log.error("The opener's journal is away: %s", type(error).__name__)  # noqa: TRY400


def _told(wanted: Wanted, claims: Mapping[str, Any]) -> dict[str, Any]:
    """What of a signed request is written down."""
    return {
        "by": "request",
        "remediation": str(claims["remediation"]),
        "plan": wanted.plan,
        "actions": wanted.actions,
        "request": str(claims["jti"]),
    }


def opening_of(remediation: object, *, person: bool = False) -> str:
    """The name of a remediation's opening: closing finds it without having kept it.

    A ``person``'s is another than a machine's, so that neither takes the place of the other.
    """
    named = hashlib.sha256(str(remediation).encode()).hexdigest()[:32]
    return f"{PERSON}{named}" if person else named


def _parsed(body: bytes) -> Mapping[str, Any]:
    if len(body) > MOST_REQUEST:
        raise Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the request is too large.")
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        raise Refused(HTTPStatus.BAD_REQUEST, "the request is not a JSON object.")
    return request


def _wanted(claims: Mapping[str, Any]) -> Wanted:
    account, minutes = _account(claims), claims.get("minutes")
    if not _is_count(minutes):
        raise Refused(HTTPStatus.FORBIDDEN, "minutes: a whole number.")
    plan = claims.get("plan")
    if not isinstance(plan, str) or not plan:
        raise Refused(HTTPStatus.BAD_REQUEST, "plan: the digest of what is to be done.")
    return Wanted(
        account.cloud,
        account.id,
        tuple(_texts(claims, "resources")),
        tuple(_texts(claims, "actions")),
        int(minutes or 0),
        plan,
    )


def _account(told: Mapping[str, Any]) -> Account:
    try:
        cloud = Cloud(str(told.get("cloud")))
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST, "cloud: aws or azure.") from None
    account = str(told.get("account", "")).lower()
    if not _ACCOUNTS[cloud].fullmatch(account):
        raise Refused(HTTPStatus.BAD_REQUEST, "account: a number of AWS or a subscription's id.")
    return Account(cloud, account, source=str(told.get("source", "")))


def _remediation(request: Mapping[str, Any]) -> str:
    """The run that a person's code is for; empty when it is for none."""
    named = request.get("remediation", "")
    if not isinstance(named, str) or len(named) > MOST_NAME or not (named or "x").isprintable():
        raise Refused(HTTPStatus.BAD_REQUEST, f"remediation: a name of {MOST_NAME} characters.")
    return named


def _texts(told: Mapping[str, Any], name: str) -> list[str]:
    value = told.get(name)
    whole = isinstance(value, list) and 0 < len(value) <= MOST_NAMED
    if not whole or not all(isinstance(one, str) for one in value or ()):
        raise Refused(HTTPStatus.BAD_REQUEST, f"{name}: a list of 1 to {MOST_NAMED} texts.")
    return list(value or ())


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _key(account: Account, opening: str) -> str:
    return f"{account.source}|{account.id}|{opening}"
