"""The evidence of one remediation: what proves it, in one file that needs no database. Pure.

{"format": "suture-evidence/1", "remediation": id, "subjects": [ids that its entries are on],
 "entries": [the audit log's entries on it, whole],
 "chain": {"start": {"number", "prev_hash"}, "between": {number: body hash}, "head": {"number",
           "hash"}},
 "plan": the plan as it was kept, or null, "contents": {hash: canonical JSON}}

The chain runs from the remediation's first entry to the head. Other entries in it are there by the
hash of their body only, which is salted: they link the chain and tell nothing. The head proves the
rest to whoever has an exported head of that number, or can ask for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from tasks.audit import Entry, body_hash, chained_hash, entry_hash
from tasks.errors import BadInput
from tasks.model import sha256
from tasks.plan import plan_from_json
from tasks.snapshot import content_diff

FORMAT = "suture-evidence/1"

Head = tuple[int, str]


def bundle(
    remediation: str,
    subjects: Sequence[str],
    segment: Iterable[Entry],
    plan: Mapping[str, Any] | None,
    contents: Mapping[str, str],
) -> dict[str, Any]:
    """Put the evidence together. ``segment`` is the log from the first entry on one of
    ``subjects`` to its end; ``contents`` the snapshots' by hash.

    Raises BadInput where another entry in between is of version 1, which has no body hash: it could
    be left out only by breaking the chain.
    """
    own: list[dict[str, Any]] = []
    between: dict[str, str] = {}
    start: dict[str, Any] = {}
    head: dict[str, Any] = {}
    for entry in segment:
        start = start or {"number": entry.number, "prev_hash": entry.prev_hash}
        head = {"number": entry.number, "hash": entry.hash}
        if entry.subject in subjects:
            own.append({**asdict(entry), "at": entry.at.isoformat(timespec="microseconds")})
        elif entry.version == 1:
            raise BadInput(
                "remediation",
                f"other entries beside its own (such as {entry.number}) were written before the "
                "log could leave them out.",
                "Show it with `suture audit show`, and verify the whole log.",
            )
        else:
            between[str(entry.number)] = body_hash(entry)
    return {
        "format": FORMAT,
        "remediation": remediation,
        "subjects": list(subjects),
        "entries": own,
        "chain": {"start": start, "between": between, "head": head},
        "plan": plan,
        "contents": dict(contents),
    }


def entries_in(evidence: Mapping[str, Any]) -> list[Entry]:
    """The remediation's own entries. Raises BadInput where this is no evidence."""
    try:
        if evidence["format"] != FORMAT:
            raise BadInput("evidence", f"is not of the format {FORMAT}.", "Make it anew.")
        return [
            Entry(**{**one, "at": datetime.fromisoformat(one["at"])}) for one in evidence["entries"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadInput("evidence", "is damaged: its entries cannot be read.") from None


def snapshots_in(entries: Iterable[Entry]) -> list[dict[str, Any]]:
    """What the entries say of snapshots: {"stage", "content", "calls"}, in order."""
    said = (json.loads(entry.details).get("snapshot") for entry in entries)
    return [one for one in said if one]


def problems(evidence: Mapping[str, Any], head: Head | None = None) -> list[str]:
    """What does not hold, each in a sentence; nothing where all of it does.

    ``head`` is one that was exported: the chain must meet it. Raises BadInput where this is no
    evidence at all.
    """
    entries = entries_in(evidence)
    try:
        return [
            *_named(evidence, entries),
            *_chain(evidence, entries, head),
            *_plan(evidence, entries),
            *_contents(evidence, entries),
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput("evidence", f"is damaged: {type(error).__name__}.") from None


def _named(evidence: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    """Whose evidence it says it is, no hash covers: the entries on it must say the same."""
    if any(entry.subject == evidence["remediation"] for entry in entries):
        return []
    return ["No entry is on the remediation that this is said to be the evidence of."]


def _chain(evidence: Mapping[str, Any], entries: Sequence[Entry], head: Head | None) -> list[str]:
    chain = evidence["chain"]
    own = {entry.number: entry for entry in entries}
    number, last = int(chain["start"]["number"]), str(chain["start"]["prev_hash"])
    end = int(chain["head"]["number"])
    if not own or number != min(own) or end < max(own) or len(own) != len(entries):
        return ["The chain does not span the remediation's entries, each once."]
    if head is not None and not max(own) <= head[0] <= end:
        return [
            f"The exported head {head[0]} is not between the last entry ({max(own)}) and the "
            f"chain's end ({end}): make the evidence after the head was exported, and that after "
            "the fix."
        ]
    found: list[str] = []
    met = head is None
    for at in range(number, end + 1):
        entry = own.get(at)
        if entry is not None:
            if entry.prev_hash != last:
                return [*found, f"Entry {at} does not follow the one before it."]
            if entry.hash != entry_hash(entry):
                return [*found, f"Entry {at} was altered after it was written."]
            if entry.subject not in evidence["subjects"]:
                found.append(f"Entry {at} is on something else.")
            last = entry.hash
        elif (body := chain["between"].get(str(at))) is not None:
            last = chained_hash(last, at, body)
        else:
            return [*found, f"Entry {at} is missing in the chain."]
        if head is not None and at == head[0]:
            met = last == head[1]
    if last != chain["head"]["hash"]:
        found.append("The chain does not end where its head says.")
    if not met:
        found.append("The chain does not meet the exported head: this log, or that one, is not it.")
    return found


def _plan(evidence: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    named = [json.loads(entry.details).get("plan") for entry in entries]
    last = next((one for one in reversed(named) if one), "")
    if not last:
        return []
    if not evidence["plan"]:
        return ["The plan that the entries name is missing."]
    if plan_from_json(evidence["plan"]).hash != last:
        return ["The plan is not the one that the entries name."]
    return []


def _contents(evidence: Mapping[str, Any], entries: Sequence[Entry]) -> list[str]:
    contents = evidence["contents"]
    found = [
        f"The snapshot content {address} is not what its hash says."
        for address, content in contents.items()
        if sha256(content) != address
    ]
    named = {one["content"]: one["stage"] for one in snapshots_in(entries)}
    found += [
        f"The snapshot {stage} ({address}) is missing."
        for address, stage in named.items()
        if address not in contents
    ]
    found += [
        f"The snapshot content {address} belongs to no entry."
        for address in contents
        if address not in named
    ]
    return found


def changed(evidence: Mapping[str, Any]) -> list[dict[str, str]]:
    """What differs between the last snapshot before the fix and the last one taken."""
    taken = snapshots_in(entries_in(evidence))
    before = [one for one in taken if one["stage"] == "before"]
    if not before or taken[-1] is before[-1]:
        return []
    contents = evidence["contents"]
    differ = content_diff(contents[before[-1]["content"]], contents[taken[-1]["content"]])
    return [asdict(change) for change in differ]


def parse_head(field: str, text: str) -> Head:
    """NUMBER:HASH as ``suture audit head`` writes it. Raises BadInput."""
    number, colon, kept = text.strip().partition(":")
    if not (colon and number.isdecimal() and len(kept) == 64):
        raise BadInput(field, "is not NUMBER:HASH.", "Use what `suture audit head` printed.")
    return int(number), kept
