"""Azure's activity log, as Event Grid delivers it in either of its schemas, into events."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from typing import Any

from tasks.errors import BadEvent
from tasks.formats.event import ControlPlaneEvent
from tasks.formats.sent import json_of, kept, moment_of, object_of, short, words_of
from tasks.model import Cloud

_TYPE = re.compile(r"Microsoft\.Resources\.Resource(Write|Delete|Action)(Success|Failure|Cancel)")
_OWN_FIELDS = ("eventType", "eventTime")
_OUTCOMES = {"Failure": "Failed", "Cancel": "Canceled"}
_CLAIMS = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims"
_FIX = "Send here nothing but a subscription's Microsoft.Resources events (deployments/azure)."


def read_event_grid(body: str) -> list[ControlPlaneEvent]:
    """The events in one message or one request: a single one, or an array of them.

    Azure tells of one operation in several events, each with an id of its own. Raises BadEvent for
    what no later try could read either, be it one event of many: ``entries_in`` and ``read_entry``
    are for taking the rest.
    """
    return [read_entry(one) for one in entries_in(body)]


def entries_in(body: str) -> list[Any]:
    """What may each be an event. Raises BadEvent."""
    sent = json_of(_plain(body), "body")
    entries = sent if isinstance(sent, list) else [sent]
    if not entries:
        raise BadEvent("body", "is an empty array: there is no event in it.", _FIX)
    return entries


def read_entry(entry: Any) -> ControlPlaneEvent:
    """One event, in Event Grid's schema or in CloudEvents 1.0. Raises BadEvent."""
    if not isinstance(entry, dict):
        raise BadEvent("body", "is no JSON object.", _FIX)
    sent = kept(entry, "body")
    type_field, time_field = ("type", "time") if "specversion" in sent else _OWN_FIELDS
    kind = words_of(sent.get(type_field))
    fits = _TYPE.fullmatch(kind)
    if not fits:
        problem = f"{short(kind) or 'nothing'} is no change of a resource."
        raise BadEvent(type_field, problem, _FIX)
    data = object_of(sent.get("data"))
    if not data:
        raise BadEvent("data", "is no JSON object, or an empty one.", _FIX)
    claims = object_of(data.get("claims"))
    resource = _path(data.get("resourceUri")) or _path(sent.get("subject"))
    status = words_of(data.get("status"))
    outcome = _OUTCOMES.get(fits[2], "")
    about = {"correlationId": words_of(data.get("correlationId")), "status": status}
    return ControlPlaneEvent(
        cloud=Cloud.AZURE,
        id=_needed(sent.get("id"), "id"),
        account=_subscription(sent, data, resource),
        operation=_operation(data),
        at=moment_of(sent.get(time_field), time_field),
        actor=_actor(claims),
        identity=_application(claims).lower(),
        source_ip=_address(claims, object_of(data.get("httpRequest"))),
        failure=(status or outcome) if outcome else "",
        resource=resource,
        details={name: said for name, said in about.items() if said},
        original=sent,
    )


def _plain(body: str) -> str | bytes:
    """Storage queues carry base64, which is undone where they are read; and now and then is not."""
    text = body.strip()
    if text.startswith(("{", "[")):
        return text
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return text


def _needed(value: Any, field: str) -> str:
    found = words_of(value)
    if not found:
        raise BadEvent(field, "is not there, or is no text.", _FIX)
    return found


def _path(value: Any) -> str:
    """A resource's id in lower case, without the host that some put before it."""
    path = re.sub(r"^https?://[^/]*", "", words_of(value).lower()).rstrip("/")
    return path if path.startswith("/") else ""


def _subscription(sent: Mapping[str, Any], data: Mapping[str, Any], resource: str) -> str:
    """Whose log it stands in; a subscription's own events come from its topic."""
    said = words_of(data.get("subscriptionId")).lower()
    for path in (resource, _path(sent.get("topic")), _path(sent.get("source"))):
        parts = path.split("/")
        if not said and parts[1:2] == ["subscriptions"] and len(parts) > 2:
            said = parts[2]
    if not said or "/" in said:
        raise BadEvent("data.subscriptionId", "is not there, and no path names it either.", _FIX)
    return said


def _operation(data: Mapping[str, Any]) -> str:
    """The activity log's exports write it as an object: {"value", "localizedValue"}."""
    said = data.get("operationName")
    asked = object_of(data.get("authorization")).get("action")
    found = words_of(said) or words_of(object_of(said).get("value")) or words_of(asked)
    return _needed(found, "data.operationName")


def _actor(claims: Mapping[str, Any]) -> str:
    fields = (f"{_CLAIMS}/upn", "upn", f"{_CLAIMS}/name", "name")
    named = next((said for one in fields if (said := words_of(claims.get(one)))), "")
    return named or _application(claims)


def _application(claims: Mapping[str, Any]) -> str:
    """Tokens of version 2 name it azp."""
    return words_of(claims.get("appid")) or words_of(claims.get("azp"))


def _address(claims: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    return words_of(claims.get("ipaddr")) or words_of(request.get("clientIpAddress"))
