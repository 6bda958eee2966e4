"""Between the model's values and the database's: JSON that it takes, and resources put together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tasks.model import Account, Cloud, Config, Resource, canonical_json

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def clean(text: str) -> str:
    """Text that PostgreSQL can hold: NUL and lone surrogates, which it can't, are replaced.

    A tag or a description is the customer's to write: one odd character must not stop a load.
    """
    if "\x00" in text:
        text = text.replace("\x00", REPLACEMENT)
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def as_json(value: Mapping[str, Any]) -> str:
    """Canonical JSON that jsonb takes."""
    return clean_json(canonical_json(dict(value)))


def clean_json(text: str) -> str:
    """JSON that jsonb takes, of canonical JSON: see ``clean``."""
    if "\\u0000" in text or "\\ud" in text:
        text = json.dumps(_cleaned(json.loads(text)), sort_keys=True, separators=(",", ":"))
    return text


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): _cleaned(item) for key, item in value.items()}
    return value


def to_resource(row: Mapping[str, Any]) -> Resource:
    """The model's resource from the columns of ``resources`` or ``snapshots``.

    ``row["id"]`` is the cloud's id.
    """
    return Resource(
        cloud=Cloud(row["cloud"]),
        account=row["account"],
        region=row["region"],
        kind=row["kind"],
        id=row["id"],
        name=row["name"],
        config=Config(row["config"], row["gaps"]),
        tags=row["tags"],
        etag=row["etag"],
    )


def to_account(row: Mapping[str, Any]) -> Account:
    """The model's account from the columns of ``accounts``."""
    return Account(
        cloud=Cloud(row["cloud"]),
        id=row["id"],
        name=row["name"],
        source=row["source"],
        status=row["status"],
        tags=row["tags"],
    )
