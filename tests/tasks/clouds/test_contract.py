"""Every row of the rule table on the emulated clouds: found, fixed through the gate, and put back.

A resource with a failing example is planted as the customer would make it. Then the session that
is made for its fix proves enough for the fix and its undo, and nothing more: a sibling is out of
its reach, and so is every other write of the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from deployments.local.aws.policy import Request, decide
from tasks.clouds.authorization import GRAINS, reach
from tasks.clouds.remediator import apply_all
from tasks.clouds.session_policy import permission_of, permissions
from tasks.errors import AccessRefused, CloudError
from tasks.model import Cloud, Resource, Rule, Step, Verdict
from tasks.rules import RULES

if TYPE_CHECKING:
    from tests.tasks.clouds.conftest import Customer, Gated

pytestmark = [pytest.mark.slow, pytest.mark.attack]

REGION = "eu-central-1"
fixing = pytest.mark.parametrize(
    "row", [one for one in RULES if one.fix is not None], ids=lambda one: one.id
)
guided = pytest.mark.parametrize(
    "row", [one for one in RULES if one.fix is None], ids=lambda one: one.id
)


@pytest.fixture(autouse=True)
def closed_afterwards(gated: Gated) -> Iterator[None]:
    yield
    while gated.opened:
        gated.close(gated.opened.pop())


def steps_of(row: Rule, resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    assert row.fix is not None
    return row.fix(resource, values)


@fixing
def test_a_row_is_found_fixed_and_put_back_and_its_session_does_no_more(
    row: Rule, table: Any, gated: Gated, customer: Customer
) -> None:
    finding = customer.plant(table, row, table.examples[row.id][1][0])
    before = gated.read(finding)
    assert row.judge(before) == (Verdict.FAIL, "")
    assert gated.scan(finding) == [Verdict.FAIL], "what the rule reads is not enough to find it"
    shown = gated.read_for_its_rule(finding)
    assert shown.shows(row)
    steps = steps_of(row, shown, table.values(row))
    assert steps
    assert steps == steps_of(row, before, table.values(row)), "what it reads does not make its plan"
    sibling = None
    if not table.kinds[row.kind].get("alone"):  # an account has some things only once
        other = customer.plant(table, row, table.examples[row.id][1][0])
        sibling = gated.read(other) if other["resource"] != finding["resource"] else None
    with gated.session(finding, before, steps, gated.open(finding).code) as session:
        if sibling is not None:
            leaves_a_sibling_alone(row, session, steps_of(row, sibling, table.values(row)))
        if row.cloud is Cloud.AWS:
            may_do_no_other_write(gated, session, before, steps)
        apply_all(session, steps)
        after = gated.read(finding)
        assert row.judge(after) == (Verdict.PASS, "")
        assert steps_of(row, after, table.values(row)) == ()
        # Twice: whoever settles a run that died does not know how far it had got.
        for step in (*reversed(steps), *reversed(steps)):
            session.undo(step)
    left = gated.read(finding)
    assert left.config.as_dict() == row.undone(before).config.as_dict()
    assert left.fingerprint == row.undone(before).fingerprint
    if sibling is not None:
        assert gated.read(other).fingerprint == sibling.fingerprint


def leaves_a_sibling_alone(row: Rule, session: Any, steps: tuple[Step, ...]) -> None:
    """The very same fix, aimed at another resource, is refused by the cloud itself."""
    for step in steps:
        for call in (step.call, *step.undo):
            if row.cloud is Cloud.AWS:
                if GRAINS[permission_of(call)].pattern is not None:
                    with pytest.raises(AccessRefused):
                        session._inner._write(call)
            else:
                with pytest.raises((AccessRefused, CloudError)) as caught:
                    session._inner._arm.write(call, "")
                assert "AuthorizationFailed" in caught.value.code


def may_do_no_other_write(
    gated: Gated, session: Any, resource: Resource, steps: tuple[Step, ...]
) -> None:
    """By the emulated IAM's own judgement: none of the table's other writes, here or anywhere."""
    own = {name.lower() for name in permissions(steps)}
    gate = gated.aws._gate
    assert gate is not None
    now = datetime.now(UTC)
    for keys in session._inner._keys.values():
        found = gate.identities.find(keys.access_key)
        assert found is not None
        region = dict(reach(next(iter(permissions(steps))), resource).conditions)
        context = {
            "aws:requestedregion": (region["aws:RequestedRegion"],),
            "aws:currenttime": (now.isoformat(),),
            "s3:resourceaccount": (resource.account,),
        }
        for action in GRAINS:
            if action.lower() in own:
                continue
            for target in (resource.id, "*"):
                asked = Request(action, target, context, found.caller.names)
                allowed = decide(
                    asked, _everything(), session=found.caller.session_policies, boundary=None
                )
                assert not allowed.allowed, action


def _everything() -> Any:
    """What the role may do, at its widest: the session must hold it back by itself."""
    from deployments.local.aws.policy import parse_policy

    return [
        parse_policy(
            '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
        )
    ]


@guided
def test_a_guided_row_is_found(row: Rule, table: Any, gated: Gated, customer: Customer) -> None:
    finding = customer.plant(table, row, table.examples[row.id][1][0])
    assert row.judge(gated.read(finding)) == (Verdict.FAIL, "")
    assert gated.scan(finding) == [Verdict.FAIL], "what the rule reads is not enough to find it"
