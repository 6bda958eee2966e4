"""Close one approved finding: re-read, open a session, apply, verify; or put everything back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_exponential

from tasks.clouds.remediator import Session, apply_all
from tasks.errors import (
    ApplyFailed,
    CloudError,
    Drifted,
    ResourceGone,
    SutureError,
    VerifyFailed,
    words_of,
)
from tasks.model import Resource, Step
from tasks.plan import Plan, drifted, make_plan
from tasks.rules import rule

_NOT_PROVED = "The fix was applied, but the rule could not be seen to pass."


class Place(Protocol):
    """Where a finding is closed: how its resource is read, written to and written down."""

    def read(self) -> Resource:
        """The resource as it is now. Raises ResourceGone or another CloudError."""
        ...

    def open_session(self, now: Resource, steps: Sequence[Step]) -> AbstractContextManager[Session]:
        """Write access for these steps on this resource. Raises GateRefused."""
        ...

    def begin_writing(self, before: Resource) -> None:
        """Called when the session is open, right before the first write; it may raise to stop."""
        ...

    def keep(self, stage: str, resource: Resource) -> None:
        """Keep the resource at a stage on the way: "during" or "undone"."""
        ...


@dataclass(frozen=True, slots=True)
class Closed:
    """How it ended: a state of the remediations table, a sentence, and the resource as it is.

    ``stage`` names the snapshot to be kept of ``resource`` ("after"); empty for none. ``read_at``
    is right before it was read, or was found gone.
    """

    state: str
    message: str
    resource: Resource | None = None
    stage: str = ""
    read_at: datetime | None = None


def close_finding(
    plan: Plan, place: Place, *, own_change: bool = False, verify_seconds: float | None = None
) -> Closed:
    """Apply an approved plan and prove that it worked; a fix that cannot be proved is undone.

    ``own_change`` says that this run itself has changed the resource since the plan was made.
    ``verify_seconds`` is how long to look for the change: else as long as the rule says.

    Raises GateRefused or Drifted (nothing was written), ApplyFailed or VerifyFailed (something was;
    both say whether it has been put back), CloudError when the cloud cannot be asked before that.
    """
    try:
        now = place.read()
    except ResourceGone:
        return Closed("already_resolved", "The resource does not exist any more.")
    if plan.achieved(rule(plan.rule), now):
        return Closed("already_resolved", "It is as it should be already; nothing changed.", now)
    _check_still_planned(plan, now, own_change=own_change)
    if verify_seconds is None:
        verify_seconds = rule(plan.rule).settles
    with place.open_session(now, plan.steps) as session:
        place.begin_writing(now)
        _apply(plan, place, now, session, verify_seconds)
        try:
            after, achieved = _prove(plan, place, verify_seconds)
        except ResourceGone:
            return Closed("already_resolved", "The resource was deleted while it was fixed.")
        except BaseException as error:  # whatever it is, nothing unproved stays
            failure = _put_back(plan, place, now, session, verify_seconds, error)
            if not isinstance(error, Exception):
                raise
            raise failure from error
        if not achieved:
            raise _put_back(plan, place, now, session, verify_seconds)
    done = "restored" if plan.restores else "remediated"
    return Closed(done, "Applied, and verified by a scan of the resource.", after, "after")


def _check_still_planned(plan: Plan, now: Resource, *, own_change: bool) -> None:
    """Whether the approved steps are still what should be done. Raises Drifted otherwise."""
    if drifted(plan, now, own_change=own_change):
        raise Drifted("The resource has changed since the plan was shown.")
    if own_change and not plan.restores:
        again = make_plan(rule(plan.rule), now, plan.values, finding_id=plan.finding_id)
        if again.hash != plan.hash:
            raise Drifted("Another change of this run altered what is left to do here.")


def _prove(plan: Plan, place: Place, seconds: float) -> tuple[Resource, bool]:
    """What the resource is now, and whether that is what was wanted. The first look is kept, too:
    it is what the last step left behind, proven or not.
    """
    first = place.read()
    place.keep("during", first)
    achieved = plan.achieved(rule(plan.rule), first)
    if achieved:
        return first, True
    return _look_until(place, lambda seen: plan.achieved(rule(plan.rule), seen), seconds)


def _apply(plan: Plan, place: Place, before: Resource, session: Session, seconds: float) -> None:
    """Apply the steps, with a snapshot between each two of them; if one fails, all are undone."""
    last = plan.steps[-1]

    def between(step: Step) -> None:
        if step is not last:
            place.keep("during", place.read())

    try:
        apply_all(session, plan.steps, between)
    except ApplyFailed as failure:
        if failure.undone:
            _prove_undone(plan, place, before, str(failure), seconds)
        raise


def _put_back(
    plan: Plan,
    place: Place,
    before: Resource,
    session: Session,
    seconds: float,
    why: BaseException | None = None,
) -> ApplyFailed | VerifyFailed:
    """Undo every step, the last first, and say how that went."""
    reason = words_of(why) if why else ""
    what = " ".join(part for part in (_NOT_PROVED, reason) if part)
    left = []
    for step in reversed(plan.steps):
        try:
            session.undo(step)
        except CloudError as error:
            left.append(f"{step.action} could not be undone: {error}.")
    if left:
        return ApplyFailed(" ".join([what, *left]), undone=False)
    try:
        _prove_undone(plan, place, before, what, seconds)
    except ApplyFailed as failure:
        return failure
    return VerifyFailed(f"{what} It was taken back, and the resource is as before.")


def _prove_undone(plan: Plan, place: Place, before: Resource, what: str, seconds: float) -> None:
    """Look whether the resource is as it was. Raises ApplyFailed when that cannot be said.

    As the undo leaves it will do, where a cloud has no way all the way back.
    """
    try:
        good = {before.fingerprint, rule(plan.rule).undone(before).fingerprint}
        now, same = _look_until(place, lambda seen: seen.fingerprint in good, seconds)
        place.keep("undone", now)
    except SutureError as error:
        raise ApplyFailed(
            f"{what} It was taken back, but that could not be checked: {error}", undone=False
        ) from error
    if not same:
        raise ApplyFailed(
            f"{what} The undo did not restore what was there: compare the snapshots.", undone=False
        )


def _look_until(
    place: Place, seen_enough: Callable[[Resource], bool], seconds: float
) -> tuple[Resource, bool]:
    """Read the resource until it is as it should be, or time is up: what was seen, and whether."""

    def look() -> tuple[Resource, bool]:
        now = place.read()
        return now, seen_enough(now)

    looking = Retrying(
        retry=retry_if_result(lambda seen: not seen[1]),
        stop=stop_after_delay(seconds),
        wait=wait_exponential(multiplier=0.25, max=4),
    )
    try:
        return looking(look)
    except RetryError as late:
        seen: tuple[Resource, bool] = late.last_attempt.result()
        return seen
