"""The audit log's entries on one remediation, told in order in plain sentences. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tasks.audit import Entry

SHORT_HASH = 12
BY_HAND = (
    "The customer opened the gate by hand, with a code that is used once and kept nowhere; "
    "by whom and until when is in the customer's own cloud log."
)

Details = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Told:
    """One entry in words. ``lines`` say more: each call, each snapshot."""

    number: int
    at: datetime
    actor: str
    action: str
    sentence: str
    lines: tuple[str, ...] = ()

    @property
    def json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "at": self.at.isoformat(timespec="milliseconds"),
            "actor": self.actor,
            "action": self.action,
            "sentence": self.sentence,
            "lines": list(self.lines),
        }


def tell(entries: Iterable[Entry]) -> list[Told]:
    """The story of one remediation. ``entries`` are those on it and on its run, in order."""
    told: list[Told] = []
    machine = False
    for entry in entries:
        details = json.loads(entry.details)
        machine = machine or entry.action == "gate opened"
        sentence = _SENTENCES.get(entry.action, _otherwise)(entry, details)
        lines = [*_calls(details), *_snapshot(details)]
        if entry.action == "applying" and not machine:
            lines.insert(0, BY_HAND)
        told.append(Told(entry.number, entry.at, entry.actor, entry.action, sentence, tuple(lines)))
    return told


def _planned(entry: Entry, details: Details) -> str:
    who = details.get("requested_by") or entry.actor
    under = f" under the policy {details['policy']}" if details.get("policy") else ""
    where = f" in {details['cloud']} account {details['account']}" if "account" in details else ""
    what = f"to close {details.get('rule', 'a finding')} on {details.get('resource', '?')}{where}"
    if undone := details.get("undoes"):
        what = f"to put {details.get('resource', '?')} back as before remediation {undone}"
    plan = f" The plan is {_short(details['plan'])}." if details.get("plan") else ""
    state = f" It is {str(details.get('state', 'planned')).replace('_', ' ')}."
    return _spaced(f"{who} asked{under} {what}.{plan}{state}", details.get("message"))


def _approved(entry: Entry, details: Details) -> str:
    known = "as the authenticating proxy says" if details.get("verified") else "a name as typed"
    plan = f" plan {_short(details['plan'])}" if details.get("plan") else " it"
    values = "; ".join(f"{name} = {_value(v)}" for name, v in details.get("values", {}).items())
    return f"{entry.actor} ({known}) approved{plan}{f' with {values}' if values else ''}."


def _gate_opened(entry: Entry, details: Details) -> str:
    return f"{entry.actor} opened the gate until {details.get('until', 'an unknown time')}."


def _asked_again(entry: Entry, details: Details) -> str:
    plan = f" The plan is now {_short(details['plan'])}." if details.get("plan") else ""
    return f"Asked again, round {details.get('round', '?')}: {details.get('why')}{plan}"


def _applying(entry: Entry, details: Details) -> str:
    steps = ", ".join(details.get("steps", ())) or "nothing"
    signed_in = [call for call in details.get("calls", ()) if call.get("identity")]
    as_whom = "".join(f" as {one['identity']} until {one.get('until')}" for one in signed_in)
    return f"Signed in{as_whom}, and began plan {_short(details.get('plan', ''))}: {steps}."


def _wrote(entry: Entry, details: Details) -> str:
    return "Wrote to the cloud, and read the resource again."


def _put_back(entry: Entry, details: Details) -> str:
    return "Took the change back, and read the resource again."


def _denied(entry: Entry, details: Details) -> str:
    return _spaced(f"{entry.actor} denied it.", details.get("message"))


def _otherwise(entry: Entry, details: Details) -> str:
    words = details.get("message") or details.get("why") or ""
    return _spaced(f"{entry.action.replace('_', ' ').capitalize()} ({entry.actor}).", words)


_SENTENCES: Mapping[str, Callable[[Entry, Details], str]] = {
    "planned": _planned,
    "approved": _approved,
    "gate opened": _gate_opened,
    "asked again": _asked_again,
    "applying": _applying,
    "wrote": _wrote,
    "put back": _put_back,
    "denied": _denied,
}


def _calls(details: Details) -> list[str]:
    return [_call(one) for one in details.get("calls", ()) if one["operation"] != "session"]


def _call(call: Details) -> str:
    what = " ".join(part for part in (call["operation"], call.get("target", "")) if part)
    said = f"answered {call['status']}" if "status" in call else "got no answer"
    said += f" {call['code']}" if call.get("code") else ""
    number = f", request {call['request_id']}" if call.get("request_id") else ""
    return f"{call['at']} {'undo: ' if call.get('undo') else ''}{what} {said}{number}"


def _snapshot(details: Details) -> list[str]:
    kept = details.get("snapshot")
    if not kept:
        return []
    reads = [_call(one) for one in kept.get("calls", ())]
    of = f", from {len(reads)} read{'s' * (len(reads) != 1)}:" if reads else "."
    return [f"Snapshot {kept['stage']}: {kept['content']}{of}", *reads]


def _short(text: str) -> str:
    return text[:SHORT_HASH]


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _spaced(*parts: str | None) -> str:
    return " ".join(part for part in parts if part)
