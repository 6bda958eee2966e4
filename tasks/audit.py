"""The audit log's hash chain, pure: how an entry is hashed, and where a chain is broken.

An entry's hash is made of the hash before it, its number, and the hash of its body (all else that
it says, and a random salt). So who holds only a body's hash can follow the chain past an entry
without learning anything of it: that is how evidence of one fix leaves all others out. A body's
hash is made of two: of whose entry it is, and of what it says. So evidence can show, too, that it
left out none of its own. Whose it is is salted, unless it is a UUID: nobody guesses one, and who
knows one may learn how many entries there are on it. Entries of version 2 were hashed without
telling whose they are, those of version 1 in one piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from tasks.model import canonical_json, sha256

GENESIS = "0" * 64  # what the first entry follows

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the audit log.

    ``number`` counts from 1 without gaps. ``details`` is canonical JSON as text: what was hashed
    is what is stored, so that no database's idea of a number can break a chain. ``version`` says
    how it was hashed; ``salt`` is 32 random hexadecimal digits, empty in version 1.
    """

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: str
    prev_hash: str
    hash: str
    version: int = 1
    salt: str = ""


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
    version: int = 3,
    salt: str = "",
) -> Entry:
    """The entry that follows ``last`` (number and hash), or the first one.

    The database's ``audit_append`` makes the same; this is what it is checked against.
    """
    number, prev_hash = (last[0] + 1, last[1]) if last else (1, GENESIS)
    text = canonical_json(dict(details))
    said = Entry(number, at, actor, action, subject, text, prev_hash, "", version, salt)
    return replace(said, hash=entry_hash(said))


def entry_hash(entry: Entry) -> str:
    """sha256, in hex, over everything an entry says and the hash of the entry before it.

    Empty, which is no entry's hash, for one of a version that we do not know.
    """
    if entry.version == 1:
        # A JSON array frames the parts: no two different entries give the same text.
        parts = [entry.prev_hash, entry.number, _moment(entry.at)]
        said = [entry.actor, entry.action, entry.subject, entry.details]
        return sha256(canonical_json(parts + said))
    if entry.version in (2, 3):
        return chained_hash(entry.prev_hash, entry.number, body_hash(entry))
    return ""


def body_hash(entry: Entry) -> str:
    """sha256 over what an entry says, and its salt. Hashes of equal length frame the parts."""
    if entry.version == 3:
        return joined_hash(whose_hash(entry.subject, entry.salt), said_hash(entry))
    return _hashed(
        *(entry.salt, _moment(entry.at), entry.actor, entry.action, entry.subject, entry.details)
    )


def whose_hash(subject: str, salt: str = "") -> str:
    """What an entry tells of its subject to who is to know nothing else of it. Without its salt
    this is that of a UUID only.
    """
    return sha256(subject if _UUID.fullmatch(subject) else salt + subject)


def said_hash(entry: Entry) -> str:
    """sha256 over all that an entry says but for its subject, and its salt."""
    return _hashed(entry.salt, _moment(entry.at), entry.actor, entry.action, entry.details)


def joined_hash(whose: str, said: str) -> str:
    """The hash of a body of version 3 of which no more than its two hashes is known."""
    return sha256(f"{whose}\n{said}")


def _hashed(*parts: str) -> str:
    return sha256("\n".join(map(sha256, parts)))


def chained_hash(prev_hash: str, number: int, body: str) -> str:
    """The hash of an entry of which no more than the hash of its body is known."""
    return sha256(f"{prev_hash}\n{number}\n{body}")


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")


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
        if entry.hash != entry_hash(entry):
            return Broken(number, "it was altered after it was written")
        last_hash = entry.hash
    if head is not None and head != (number, last_hash):
        if head[0] > number:
            return Broken(number + 1, f"entry {number + 1} is missing")
        return Broken(number, "the chain does not end where its head says")
    return None
