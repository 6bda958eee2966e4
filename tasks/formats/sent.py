"""What senders of events gave, as JSON of a bearable size and without what is secret in it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from tasks.errors import BadEvent

NOT_KEPT = "(not kept)"
# Neither cloud nests anywhere near as deep: what does is no event.
DEEPEST = 64
# Names, in lower case, of what a log may pass on as it was typed: passwords, keys, tokens. Clouds
# blank most of them themselves, but not all.
_SECRET = frozenset(
    {
        "aio",  # what Entra needs to go on with the sign-in that a token came from
        "authtoken",
        "clientsecret",
        "headervalue",  # CloudFront's headers for an origin are how it knows CloudFront
        "masterpassword",
        "masteruserpassword",
        "newpassword",
        "oldpassword",
        "parametervalue",  # CloudFormation's, of which only those marked so are blanked
        "password",
        "secret",
        "secretaccesskey",
        "secretstring",
        "sessiontoken",
    }
)


def json_of(text: str | bytes, field: str) -> Any:
    """The JSON in ``text``. Raises BadEvent, naming ``field``."""
    try:
        return orjson.loads(text)
    except ValueError as error:
        why = str(error).partition(": line ")[0]
        raise BadEvent(field, f"is no JSON ({why}).") from None


def kept(value: Any, field: str, depth: int = 0) -> Any:
    """``value`` with secrets blanked and all else as it came. Raises BadEvent: nested too deep."""
    if depth > DEEPEST:
        raise BadEvent(field, f"is nested deeper than {DEEPEST} levels, as no event is.")
    if isinstance(value, dict):
        return {
            key: NOT_KEPT
            if key.lower() in _SECRET and one not in (None, "")
            else kept(one, field, depth + 1)
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [kept(one, field, depth + 1) for one in value]
    return value


def words_of(value: Any) -> str:
    """A text of an event; empty for what is none."""
    return value.strip() if isinstance(value, str) else ""


def object_of(value: Any) -> Mapping[str, Any]:
    """An object of an event, also one that was sent as a text; empty for what is none."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = orjson.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def moment_of(value: Any, field: str) -> datetime:
    """A moment in ISO 8601, in UTC where it says nothing else. Raises BadEvent."""
    text = words_of(value)
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise BadEvent(field, f"{short(text) or 'nothing'} is no moment in time.") from None


def short(text: str, most: int = 80) -> str:
    """A text that somebody sent, for a sentence: on one line, and not too long."""
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
