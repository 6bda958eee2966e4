"""What has become different in a resource since it was seen last, for people. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.errors import BadInput
from tasks.model import Change, Resource
from tasks.plan import as_code
from tasks.snapshot import content_diff, content_of

MOST_IN_WORDS = 3
LONGEST_VALUE = 80  # characters, in words; the table has all of it


class ChangedSince(BadInput):
    """A resource is not as a remediation left it. ``drift`` is what differs, field by field."""

    def __init__(self, drift: Sequence[Change]) -> None:
        self.drift = tuple(drift)
        super().__init__(
            "remediation_id",
            f"its resource has been changed since: {in_words(drift)}.",
            "Undo that change first, or set the resource right by hand with the rule's guide.",
        )


def drift(then: Resource, now: Resource) -> tuple[Change, ...]:
    """What the fingerprints of two looks at a resource differ by: its configuration, and gaps."""
    seen = content_diff(content_of(then), content_of(now))
    return tuple(
        Change(change.field.removeprefix("resource."), change.before, change.after)
        for change in seen
        if change.field.startswith(("resource.config", "resource.gaps"))
    )


def in_words(changes: Sequence[Change]) -> str:
    """The first few changes in one line, their values cut short."""
    words = [
        f"{change.field} was {_short(change.before)} and is {_short(change.after)}"
        for change in changes[:MOST_IN_WORDS]
    ]
    if len(changes) > MOST_IN_WORDS:
        words.append(f"{len(changes) - MOST_IN_WORDS} more")
    return "; ".join(words)


def table(changes: Sequence[Change]) -> str:
    """All changes as a markdown table; what comes from a cloud is inert in it."""
    rows = ["| Field | As it was left | Now |", "|---|---|---|"]
    rows += [
        f"| {as_code(change.field)} | {as_code(change.before)} | {as_code(change.after)} |"
        for change in changes
    ]
    return "\n".join(rows)


def _short(value: str) -> str:
    return value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 1]}…"
