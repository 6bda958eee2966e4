"""The customer's own allow-list: what a machine may ask for. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tasks.clouds.gate import MOST_MINUTES
from tasks.model import Cloud


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a signed request asks to be opened. ``plan`` is the digest of what it would do."""

    cloud: Cloud
    account: str
    resources: tuple[str, ...]
    actions: tuple[str, ...]
    minutes: int
    plan: str


@dataclass(frozen=True, slots=True)
class Allowed:
    """One entry: these actions on these resources in these accounts, for so many minutes at most.

    ``*`` stands for anything in all three lists. Actions, and on Azure resources, are compared
    without regard to case.
    """

    accounts: tuple[str, ...]
    actions: tuple[str, ...]
    resources: tuple[str, ...] = ("*",)
    minutes: int = MOST_MINUTES

    def permits(self, wanted: Wanted, action: str, resource: str) -> bool:
        """Whether the entry covers one action on one resource, for as long as it is wanted."""
        return (
            wanted.minutes <= self.minutes
            and _any(self.accounts, wanted.account, folded=True)
            and _any(self.actions, action, folded=True)
            and _any(self.resources, resource, folded=wanted.cloud is Cloud.AZURE)
        )


def objection(wanted: Wanted, entries: Sequence[Allowed]) -> str:
    """Why the list does not permit the request, in words; empty when it does.

    Every action must be permitted on every resource: a request does not say which belong together,
    and a session could do each to each.
    """
    most = max((one.minutes for one in entries), default=MOST_MINUTES)
    if not 1 <= wanted.minutes <= min(most, MOST_MINUTES):
        return f"minutes: 1 to {min(most, MOST_MINUTES)} are granted here."
    for text in (*wanted.actions, *wanted.resources):
        if not text.isprintable() or re.search(r"[*?\[\]\s]|/\.\.?(/|$)", text):
            return f"{text[:80]!r} names no single action or resource."
    for action in wanted.actions:
        for resource in wanted.resources:
            if not any(one.permits(wanted, action, resource) for one in entries):
                return f"{action} is not allowed here on {resource} in {wanted.account}."
    return ""


def _any(patterns: Iterable[str], value: str, *, folded: bool) -> bool:
    value = value.lower() if folded else value
    return any(
        fnmatchcase(value, (pattern.lower() if folded else pattern).replace("[", "[[]"))
        for pattern in patterns
    )
