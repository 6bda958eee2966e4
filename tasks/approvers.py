"""Who may approve, and how many must: what policies ask of the people, and whether one fits. Pure.

A rule about who is worth as much as the names are. So a policy that has one takes approvals only
from names that the sign-in proxy has verified, unless it says ``verified: false``: then it holds
for names as they were typed, which keeps honest people from mistakes and nobody else from anything.
A denial changes nothing and is taken from anybody.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from string import ascii_lowercase, ascii_uppercase
from typing import Any

from tasks.model import Severity

_SMALL = str.maketrans(ascii_uppercase, ascii_lowercase)

REQUESTED_BY = "suture.requested-by"  # the label in which the guard writes who started a run


@dataclass(frozen=True, slots=True)
class Approvals:
    """What one policy asks.

    ``two_from`` is the severity from which on two different people must approve. ``approvers`` are
    names, with ``*`` and ``?``; empty lets anybody. ``verified`` counts verified names only.
    """

    two_from: Severity | None = None
    not_requester: bool = False
    approvers: tuple[str, ...] = ()
    verified: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """An approval that stands, of several that are needed."""

    approver: str
    verified: bool


@dataclass(frozen=True, slots=True)
class Terms:
    """What one run asks of its approvers, from all policies that its findings meet.

    A name must fit every list in ``approvers``. ``requesters`` are the names of who asked: signed
    in, and as typed. ``given`` are the approvals of the changes as they are planned now.
    """

    needed: int = 1
    verified: bool = False
    not_requester: bool = False
    approvers: tuple[tuple[str, ...], ...] = ()
    requesters: tuple[str, ...] = ()
    given: tuple[Given, ...] = ()

    @property
    def last(self) -> bool:
        """Whether the next approval is the one that opens the gate, with its code."""
        return len(self.given) + 1 >= self.needed

    def refusal(self, approver: str, *, verified: bool) -> str:
        """Why this person's approval does not count, in words that name nobody; empty if it does.

        Two spellings of a name are never two people, and only the one that a list has, in whatever
        case, is whom it names: a sign-in that takes both "ada" and "ａｄａ" has two people there.
        """
        if self.verified and not verified:
            return (
                "An approval counts here only under a name that the sign-in proxy has verified. "
                "Answer through that proxy."
            )
        if any(_same(approver, one.approver) for one in self.given):
            return "You have approved this already. Another person must approve it now."
        if self.not_requester and any(_same(approver, one) for one in self.requesters):
            return "Who asked for these changes cannot approve them. Another person must."
        if not all(_matches(approver, names) for names in self.approvers):
            return "You are not among those who may approve this. Ask one of them to answer."
        return ""

    def approved_by(self, approver: str, *, verified: bool) -> Terms:
        return replace(self, given=(*self.given, Given(approver, verified)))

    def unapproved(self) -> Terms:
        return replace(self, given=())

    def as_json(self) -> dict[str, Any]:
        """As it is kept with a plan and in a form's schema."""
        return {
            "needed": self.needed,
            "verified": self.verified,
            "not_requester": self.not_requester,
            "approvers": [list(names) for names in self.approvers],
            "requesters": list(self.requesters),
            "given": [[one.approver, one.verified] for one in self.given],
        }


def terms(asked: Iterable[tuple[Approvals, Severity]], requesters: Iterable[str] = ()) -> Terms:
    """The strictest of what policies ask, each for a finding of that severity."""
    asked = list(asked)
    rules = [one for one, _ in asked]
    two = any(one.two_from and severity.rank <= one.two_from.rank for one, severity in asked)
    return Terms(
        needed=2 if two else 1,
        verified=any(one.verified for one in rules),
        not_requester=any(one.not_requester for one in rules),
        approvers=tuple(dict.fromkeys(one.approvers for one in rules if one.approvers)),
        requesters=tuple(dict.fromkeys(name for name in requesters if name)),
    )


def terms_from_json(kept: Mapping[str, Any]) -> Terms:
    """What ``as_json`` gave."""
    return Terms(
        needed=kept["needed"],
        verified=kept["verified"],
        not_requester=kept["not_requester"],
        approvers=tuple(tuple(names) for names in kept["approvers"]),
        requesters=tuple(kept["requesters"]),
        given=tuple(Given(approver, verified) for approver, verified in kept["given"]),
    )


def _matches(approver: str, names: Iterable[str]) -> bool:
    """Whether a list names this very person; ``*`` and ``?`` alone stand for others."""
    who = _written(approver)
    return any(fnmatchcase(who, _written(name).replace("[", "[[]")) for name in names)


def _written(name: str) -> str:
    """The name with the case of its plain letters taken away: the kelvin sign is no k."""
    return " ".join(name.split()).translate(_SMALL)


def _same(one: str, other: str) -> bool:
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", " ".join(name.split())).casefold()
