"""What becomes of a finding with each word about it, and where a remediation may go from where.

Pure. The warehouse's merge does the same for a whole scan in SQL; a test runs both side by side.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal

from tasks.errors import SutureError
from tasks.model import Severity, Verdict


class Change(StrEnum):
    """What one word about a finding did to it."""

    OPENED = "opened"
    SEEN_AGAIN = "seen_again"
    RESOLVED = "resolved"
    GONE = "gone"
    REOPENED = "reopened"
    UNKNOWN = "unknown"
    STILL_RESOLVED = "still_resolved"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Word:
    """What one scan says of one finding: a verdict, or that its resource is gone.

    ``at`` is the moment as of which the resource was read. ``gone`` needs a scan that read the
    resource's whole place (account, region, kind) without error and did not find it there.
    """

    at: datetime
    verdict: Verdict = Verdict.FAIL
    severity: Severity = Severity.LOW
    gone: bool = False


@dataclass(frozen=True, slots=True)
class FindingState:
    """A finding's life so far."""

    status: Literal["open", "resolved"]
    verdict: Verdict
    severity: Severity
    first_seen_at: datetime
    opened_at: datetime
    last_seen_at: datetime
    last_observed_at: datetime
    resolved_at: datetime | None = None
    resolution: Literal["pass", "resource_gone"] | None = None
    reopened: int = 0


def next_state(
    finding: FindingState | None, word: Word, known_at: datetime | None = None
) -> tuple[FindingState | None, Change]:
    """The finding after one more word about it, and what changed.

    None is a finding that never was. ``known_at`` is the newest moment as of which any scan
    covered the finding's place without error: a word that is not newer is stale, whatever order
    scans are merged in, and changes nothing.
    """
    if known_at is not None and known_at >= word.at:
        return finding, Change.NONE
    if finding is None:
        return _first(word)
    if finding.last_observed_at >= word.at:
        return finding, Change.NONE
    if word.gone:
        return _gone(finding, word)
    if word.verdict is Verdict.FAIL:
        return _fails(finding, word)
    if word.verdict is Verdict.PASS:
        return _passes(finding, word)
    noted = replace(finding, verdict=Verdict.UNKNOWN, last_observed_at=word.at)
    return noted, Change.UNKNOWN


def _first(word: Word) -> tuple[FindingState | None, Change]:
    if word.gone or word.verdict is not Verdict.FAIL:
        return None, Change.NONE
    opened = FindingState(
        status="open",
        verdict=Verdict.FAIL,
        severity=word.severity,
        first_seen_at=word.at,
        opened_at=word.at,
        last_seen_at=word.at,
        last_observed_at=word.at,
    )
    return opened, Change.OPENED


def _fails(finding: FindingState, word: Word) -> tuple[FindingState, Change]:
    seen = replace(
        finding,
        verdict=Verdict.FAIL,
        severity=word.severity,
        last_seen_at=word.at,
        last_observed_at=word.at,
    )
    if finding.status == "open":
        return seen, Change.SEEN_AGAIN
    reopened = replace(
        seen,
        status="open",
        opened_at=word.at,
        resolved_at=None,
        resolution=None,
        reopened=finding.reopened + 1,
    )
    return reopened, Change.REOPENED


def _passes(finding: FindingState, word: Word) -> tuple[FindingState, Change]:
    seen = replace(finding, verdict=Verdict.PASS, severity=word.severity, last_observed_at=word.at)
    if finding.status == "resolved":
        return seen, Change.STILL_RESOLVED
    return (
        replace(seen, status="resolved", resolved_at=word.at, resolution="pass"),
        Change.RESOLVED,
    )


def _gone(finding: FindingState, word: Word) -> tuple[FindingState, Change]:
    if finding.status == "resolved":
        return finding, Change.NONE
    resolved = replace(
        finding,
        status="resolved",
        last_observed_at=word.at,
        resolved_at=word.at,
        resolution="resource_gone",
    )
    return resolved, Change.GONE


# Where a remediation may go from where. States without a way out are ends.
TRANSITIONS: dict[str, frozenset[str]] = {
    "planned": frozenset(
        {
            *("waiting", "applying", "denied", "left_out", "expired", "refused", "drifted"),
            *("failed", "superseded", "already_resolved", "halted", "capped"),
        }
    ),
    "waiting": frozenset(
        {
            *("applying", "denied", "left_out", "expired", "refused", "drifted"),
            *("failed", "superseded", "already_resolved", "halted", "capped"),
        }
    ),
    # A gate that refuses and a drift are found after the approval, before the first write: that
    # ends the remediation, or the run asks again and it waits.
    "applying": frozenset(
        {
            *("remediated", "restored", "failed", "undone", "refused", "drifted"),
            *("already_resolved", "halted"),
            *("waiting", "expired", "superseded"),
        }
    ),
    "remediated": frozenset({"undone"}),  # restore puts the resource back
    "failed": frozenset({"undone"}),
    "denied": frozenset(),
    "left_out": frozenset(),
    "expired": frozenset(),
    "refused": frozenset(),
    "drifted": frozenset(),
    "undone": frozenset(),
    "restored": frozenset({"undone"}),  # it undid another's remediation, and can be undone itself
    "superseded": frozenset(),
    "already_resolved": frozenset(),
    # Held back, not decided: the next triage takes the finding up again.
    "halted": frozenset(),
    "capped": frozenset(),
}
REMEDIATION_STATES = tuple(TRANSITIONS)
ACTIVE_STATES = ("planned", "waiting", "applying")
# Said twice, these change nothing: a resumed run starts from the top and says them again.
# "applying" is not among them, so that two processes cannot both begin to write.
REPEATABLE_STATES = frozenset({"planned", "waiting"})


class IllegalTransition(SutureError):
    """A remediation cannot go from the state it is in to the one asked for."""

    def __init__(self, old: str, new: str) -> None:
        self.old = old
        self.new = new
        super().__init__(f"a remediation that is {old} cannot become {new}")


def check_transition(old: str, new: str) -> None:
    """Raise IllegalTransition unless a remediation may go from ``old`` to ``new``."""
    if old == new and (old in REPEATABLE_STATES or old not in ACTIVE_STATES):
        return
    if new not in TRANSITIONS.get(old, frozenset()):
        raise IllegalTransition(old, new)


def is_end(state: str) -> bool:
    """Whether a remediation in this state is over (it may still be undone)."""
    return state not in ACTIVE_STATES
