"""What only a cloud makes, ids and ETags, in the undo of a fix: at once, and long afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.aws_write import AwsSession
from tasks.clouds.remediator import apply_all
from tasks.clouds.session_policy import permission_of
from tasks.errors import Conflict
from tasks.inventory import AwsSource
from tasks.model import Call, Cloud, Rule, Step, Verdict, made
from tasks.plan import make_plan, plan_from_json, plan_json, restore_plan
from tasks.rules import rule

if TYPE_CHECKING:
    from tests.tasks.clouds.conftest import Gated

CREATE = Call(Cloud.AWS, "guardduty", "CreateDetector", {"Enable": True})
DELETE = Call(Cloud.AWS, "guardduty", "DeleteDetector", {"DetectorId": made("DetectorId")})
STEP = Step("guardduty:CreateDetector", CREATE, (DELETE,), ())


class GuardDuty:
    """Makes one detector, and notes what is deleted."""

    def __init__(self) -> None:
        self.deleted: list[str] = []

    def create_detector(self, **_: object) -> dict[str, Any]:
        return {"DetectorId": "made-now", "ResponseMetadata": {}}

    def delete_detector(self, DetectorId: str) -> dict[str, Any]:
        self.deleted.append(DetectorId)
        return {"ResponseMetadata": {}}


def session(guardduty: GuardDuty, etag: str = "") -> AwsSession:
    keys = dict.fromkeys(map(permission_of, (CREATE, DELETE)), AwsCredentials("a", "s"))
    source = AwsSource(name="acme", regions=("eu-central-1",), external_id="x")
    opened = AwsSession(source, "eu-central-1", keys, etag=etag)
    opened._client = lambda *_: guardduty  # type: ignore[method-assign, assignment]
    return opened


def test_what_this_session_made_is_what_its_undo_takes() -> None:
    guardduty = GuardDuty()
    opened = session(guardduty, "from-before")
    opened.apply(STEP)
    opened.undo(STEP)
    assert guardduty.deleted == ["made-now"]


def test_a_later_session_takes_it_from_the_resource_as_it_is() -> None:
    guardduty = GuardDuty()
    session(guardduty, "read-today").undo(STEP)
    assert guardduty.deleted == ["read-today"]


def test_nothing_is_deleted_where_nothing_was_made() -> None:
    guardduty = GuardDuty()
    with pytest.raises(Conflict, match="no DetectorId any more"):
        session(guardduty).undo(STEP)
    assert guardduty.deleted == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "row",
    [rule("aws_guardduty_detector_enabled"), rule("aws_cloudfront_distribution_https_only")],
    ids=lambda one: one.id,
)
def test_a_fix_is_put_back_by_another_session_and_applied_again(
    row: Rule, table: Any, gated: Gated, customer: Any
) -> None:
    finding = customer.plant(table, row, table.examples[row.id][1][0])
    code = gated.open(finding).code
    seen = [gated.read(finding)]
    plan = make_plan(row, seen[0], table.values(row), finding_id="f")
    for verdict in (Verdict.PASS, Verdict.FAIL, Verdict.PASS, Verdict.FAIL):
        with gated.session(finding, seen[-1], plan.steps, code) as opened:
            apply_all(opened, plan.steps)
        seen.append(gated.read(finding))
        assert row.judge(seen[-1])[0] is verdict
        assert plan.achieved(row, seen[-1])
        plan = restore_plan(plan, seen[-2], seen[-1], permission=permission_of)
        plan = plan_from_json(plan_json(plan))
    assert seen[4].fingerprint == seen[2].fingerprint == seen[0].fingerprint
