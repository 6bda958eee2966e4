"""The audit log's hash chain, pure: how an entry is hashed, and where a chain is broken."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.model import canonical_json, sha256

GENESIS = "0" * 64  # what the first entry follows


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the audit log.

    ``number`` counts from 1 without gaps. ``details`` is canonical JSON as text: what was hashed
    is what is stored, so that no database's idea of a number can break a chain.
    """

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: str
    prev_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class Broken:
    """The first place where a chain does not hold, and why in words."""

    number: int
    reason: str


def next_entry(
    last: tuple[int, str] | None,
    *,
    at: datetime,
    actor: str,
    action: str,
    subject: str,
    details: Mapping[str, Any],
) -> Entry:
    """The entry that follows ``last`` (number and hash), or the first one."""
    number, prev_hash = (last[0] + 1, last[1]) if last else (1, GENESIS)
    text = canonical_json(dict(details))
    return Entry(
        number=number,
        at=at,
        actor=actor,
        action=action,
        subject=subject,
        details=text,
        prev_hash=prev_hash,
        hash=entry_hash(number, at, actor, action, subject, text, prev_hash),
    )


def entry_hash(
    number: int, at: datetime, actor: str, action: str, subject: str, details: str, prev_hash: str
) -> str:
    """sha256, in hex, over everything an entry says and the hash of the entry before it.

    A JSON array frames the parts: no two different entries give the same text.
    """
    moment = at.astimezone(UTC).isoformat(timespec="microseconds")
    return sha256(canonical_json([prev_hash, number, moment, actor, action, subject, details]))


def first_broken(
    entries: Iterable[Entry], head: tuple[int, str] | None = None, *, start: Entry | None = None
) -> Broken | None:
    """Where the chain is first broken, or None where it holds.

    ``entries`` in order of number, after ``start`` (None: from the first). ``head`` is the number
    and hash that the last entry must have: without it, entries cut off at the end go unseen.
    """
    number, last_hash = (start.number, start.hash) if start else (0, GENESIS)
    for entry in entries:
        number += 1
        if entry.number != number:
            return Broken(number, f"entry {number} is missing")
        if entry.prev_hash != last_hash:
            return Broken(number, "it does not follow the entry before it")
        expected = entry_hash(
            entry.number,
            entry.at,
            entry.actor,
            entry.action,
            entry.subject,
            entry.details,
            entry.prev_hash,
        )
        if entry.hash != expected:
            return Broken(number, "it was altered after it was written")
        last_hash = entry.hash
    if head is not None and head != (number, last_hash):
        if head[0] > number:
            return Broken(number + 1, f"entry {number + 1} is missing")
        return Broken(number, "the chain does not end where its head says")
    return None
