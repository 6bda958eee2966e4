"""Close one approved finding: re-read, open a session, apply, verify; or put everything back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import SecretStr
from tenacity import RetryError, Retrying, retry_if_result, stop_after_delay, wait_exponential

from tasks.clouds.remediator import Session, apply_all, open_session
from tasks.clouds.scanner import Scanner
from tasks.errors import ApplyFailed, CloudError, Drifted, ResourceGone, VerifyFailed
from tasks.inventory import Inventory
from tasks.model import Account, Resource, Step
from tasks.plan import Plan, drifted, make_plan
from tasks.rules import rule

VERIFY_SECONDS = 20.0  # how long a cloud may take to show a change that it has accepted

_NOT_PROVED = "The fix was applied, but the rule could not be seen to pass."

Snapshot = Callable[[str, Resource], None]


@dataclass(frozen=True, slots=True)
class Closed:
    """How it ended: a state of the remediations table, a sentence, and the resource as it is."""

    state: str
    message: str
    resource: Resource | None


def close_finding(
    inventory: Inventory,
    account: Account,
    plan: Plan,
    code: SecretStr,
    *,
    own_change: bool,
    snapshot: Snapshot,
    before_writing: Callable[[], None],
) -> Closed:
    """Apply an approved plan and prove that it worked; a fix that cannot be proved is undone.

    ``own_change`` says that this run itself has changed the resource since the plan was made.
    ``snapshot`` keeps the resource at a stage ("before", "during", "after", "undone");
    ``before_writing`` is called when the session is open, right before the first write.

    Raises GateRefused or Drifted (nothing was written), ApplyFailed or VerifyFailed (something was;
    both say whether it has been put back), CloudError when the cloud cannot be asked.
    """
    try:
        now = read_resource(inventory, account, plan.resource)
    except ResourceGone:
        return Closed("already_resolved", "The resource does not exist any more.", None)
    if plan.achieved(rule(plan.rule), now):
        return Closed("already_resolved", "It is as it should be already; nothing changed.", now)
    steps = _still_planned(plan, now, own_change=own_change)
    session = open_session(inventory, account, now, steps, code)
    snapshot("before", now)
    before_writing()
    _apply(inventory, account, now, steps, session, snapshot)
    after, achieved = _verify(inventory, account, plan, now)
    if not achieved:
        _put_back(inventory, account, now, steps, session, snapshot)
    snapshot("after", after)
    done = "restored" if plan.restores else "remediated"
    return Closed(done, "Applied, and verified by a scan of the resource.", after)


def read_resource(inventory: Inventory, account: Account, known: Resource) -> Resource:
    """The resource as it is now, read with the scanner's identity."""

    async def read() -> Resource:
        async with Scanner(inventory) as scanner:
            return await scanner.read(
                account.cloud, account.id, account.source, known.kind, known.id, known.region
            )

    return asyncio.run(read())


def _still_planned(plan: Plan, now: Resource, *, own_change: bool) -> tuple[Step, ...]:
    """The approved steps, if they are still what should be done. Raises Drifted otherwise."""
    if drifted(plan, now, own_change=own_change):
        raise Drifted("The resource has changed since the plan was shown.")
    if own_change and not plan.restores:
        again = make_plan(rule(plan.rule), now, plan.values, finding_id=plan.finding_id)
        if again.hash != plan.hash:
            raise Drifted("Another change of this run altered what is left to do here.")
    return plan.steps


def _apply(
    inventory: Inventory,
    account: Account,
    resource: Resource,
    steps: tuple[Step, ...],
    session: Session,
    snapshot: Snapshot,
) -> None:
    """Apply the steps, with a snapshot between each two of them."""
    last = steps[-1]

    def between(step: Step) -> None:
        if step is not last:
            snapshot("during", read_resource(inventory, account, resource))

    apply_all(session, steps, between)


def _verify(
    inventory: Inventory, account: Account, plan: Plan, resource: Resource
) -> tuple[Resource, bool]:
    """Scan the resource again until the plan is achieved, or time is up."""

    def look() -> tuple[Resource, bool]:
        now = read_resource(inventory, account, resource)
        return now, plan.achieved(rule(plan.rule), now)

    looking = Retrying(
        retry=retry_if_result(lambda seen: not seen[1]),
        stop=stop_after_delay(VERIFY_SECONDS),
        wait=wait_exponential(multiplier=0.25, max=4),
    )
    try:
        return looking(look)
    except RetryError as late:
        seen: tuple[Resource, bool] = late.last_attempt.result()
        return seen
    except CloudError:
        return resource, False  # what cannot be verified is not left in place


def _put_back(
    inventory: Inventory,
    account: Account,
    before: Resource,
    steps: tuple[Step, ...],
    session: Session,
    snapshot: Snapshot,
) -> None:
    """Undo every step, the last first, and say that the fix did not do what it should."""
    try:
        for step in reversed(steps):
            session.undo(step)
        now = read_resource(inventory, account, before)
    except CloudError as error:
        raise ApplyFailed(f"{_NOT_PROVED} Taking it back failed: {error}", undone=False) from error
    snapshot("undone", now)
    if now.fingerprint != before.fingerprint:
        raise ApplyFailed(
            f"{_NOT_PROVED} The undo did not restore what was there: compare the snapshots.",
            undone=False,
        )
    raise VerifyFailed(f"{_NOT_PROVED} It was taken back, and the resource is as before.")
