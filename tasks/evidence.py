"""The evidence of one remediation: what proves it, in one file that needs no database. Pure.

{"format": "suture-evidence/2", "remediation": id, "subjects": [ids that its entries are on],
 "entries": [the audit log's entries on it, whole],
 "chain": {"start": {"number", "prev_hash"}, "between": {number: [whose hash, said hash]},
           "head": {"number", "hash"}},
 "plan": the plan as it was kept, or null, "contents": {hash: canonical JSON}}

The chain runs from the remediation's first entry to the head. Other entries in it are there by the
hashes of whose they are and of what they say (tasks/audit.py): they link the chain, and tell no
more than that they are not the remediation's. So none of its own can be left out, but where the
log was written by an earlier version: such entries are there by the hash of their body. The head
proves the rest to whoever has an exported head of that number, or can ask for one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from tasks.audit import (
    Entry,
    body_hash,
    chained_hash,
    entry_hash,
    joined_hash,
    said_hash,
    whose_hash,
)
from tasks.errors import BadInput
from tasks.model import sha256
from tasks.plan import plan_from_json
from tasks.snapshot import content_diff

FORMAT = "suture-evidence/2"
EARLIER = "suture-evidence/1"  # had the hash of a body for every entry in between

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
    between: dict[str, Any] = {}
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
        elif entry.version == 2:
            between[str(entry.number)] = body_hash(entry)
        else:
            whose = whose_hash(entry.subject, entry.salt)
            between[str(entry.number)] = [whose, said_hash(entry)]
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
        if evidence["format"] not in (FORMAT, EARLIER):
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
    own = [entry for entry in entries if entry.subject == evidence["remediation"]]
    if not own:
        return ["No entry is on the remediation that this is said to be the evidence of."]
    first = min(own, key=lambda entry: entry.number)
    if first.action != "planned":
        return ["The remediation's first entry, of its plan, is missing."]
    run = json.loads(first.details).get("run")
    if run and run not in evidence["subjects"]:
        return ["The entries on the remediation's run are left out."]
    return []


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
    met, told_apart = head is None, False
    mine = {whose_hash(subject) for subject in evidence["subjects"]}
    for at in range(number, end + 1):
        entry = own.get(at)
        if entry is not None:
            if entry.prev_hash != last:
                return [*found, f"Entry {at} does not follow the one before it."]
            if entry.hash != entry_hash(entry):
                return [*found, f"Entry {at} was altered after it was written."]
            if entry.subject not in evidence["subjects"]:
                found.append(f"Entry {at} is on something else.")
            last, told_apart = entry.hash, told_apart or entry.version > 2
        elif (body := chain["between"].get(str(at))) is not None:
            found += _not_anothers(at, body, mine, told_apart=told_apart)
            told_apart = told_apart or not isinstance(body, str)
            last = chained_hash(last, at, body if isinstance(body, str) else joined_hash(*body))
        else:
            return [*found, f"Entry {at} is missing in the chain."]
        if head is not None and at == head[0]:
            met = last == head[1]
    if last != chain["head"]["hash"]:
        found.append("The chain does not end where its head says.")
    if not met:
        found.append("The chain does not meet the exported head: this log, or that one, is not it.")
    return found


def _not_anothers(at: int, body: Any, mine: set[str], *, told_apart: bool) -> list[str]:
    """What is wrong with an entry that is said to be another's. Those before the log has
    ``told_apart`` whose they are cannot be asked.
    """
    if isinstance(body, str):
        return [f"Entry {at} does not tell whose it is."] if told_apart else []
    return [f"Entry {at} is the remediation's, and was left out."] if body[0] in mine else []


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
