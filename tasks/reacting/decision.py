"""What is to be done about one event: nothing, with why, or resources to be read again. Pure.

What it is about comes from the rule table; what it changed is never taken from the event itself:
the resource is read again, as it is then.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from tasks.clouds.events import own_write, targets_of
from tasks.formats.cloudtrail import read_cloudtrail
from tasks.formats.event import ControlPlaneEvent, Target
from tasks.formats.event_grid import read_event_grid
from tasks.inventory import AwsSource, AzureSource


class Why(StrEnum):
    """What became of an event when it came in."""

    TAKEN = "taken"
    READ = "read"
    FAILED_CALL = "failed_call"
    OWN_WRITE = "own_write"
    NOT_WATCHED = "not_watched"


@dataclass(frozen=True, slots=True)
class Decision:
    """One event, and what is to be read again because of it: nothing where it was not taken."""

    event: ControlPlaneEvent
    why: Why
    targets: tuple[Target, ...] = ()


def read_message(source: AwsSource | AzureSource, body: str) -> list[ControlPlaneEvent]:
    """The events in one message of a source's queue. Raises BadEvent where there can be none."""
    if isinstance(source, AwsSource):
        return [read_cloudtrail(body)]
    return read_event_grid(body)


def decide(
    event: ControlPlaneEvent, source: AwsSource | AzureSource, kinds: Collection[str]
) -> Decision:
    """Whether an event may have changed a verdict, and of what.

    ``kinds`` are those that the rules in force are about. Reads, calls that failed, and Suture's
    own writes, which are verified as they are made, are none.
    """
    if event.read_only:
        return Decision(event, Why.READ)
    if event.failure:
        return Decision(event, Why.FAILED_CALL)
    if own_write(event, source):
        return Decision(event, Why.OWN_WRITE)
    if not _covers(source, event.account):
        return Decision(event, Why.NOT_WATCHED)
    partition = source.partition if isinstance(source, AwsSource) else "aws"
    targets = tuple(
        target
        for target in targets_of(event, partition)
        if target.kind in kinds and _scanned(source, target)
    )
    return Decision(event, Why.TAKEN if targets else Why.NOT_WATCHED, targets)


def _covers(source: AwsSource | AzureSource, account: str) -> bool:
    """Whether an account may be the source's: one that lists its accounts has no others."""
    listed = source.accounts if isinstance(source, AwsSource) else source.subscriptions
    return not listed or account in listed


def _scanned(source: AwsSource | AzureSource, target: Target) -> bool:
    """What lies in a region that no scan reads is not read here either."""
    if not isinstance(source, AwsSource) or target.region == "global":
        return True
    return target.region in source.regions
