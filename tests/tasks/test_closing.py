"""Closing one finding: whatever goes wrong on the way, nothing is left half-done unsaid."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest

from tasks.closing import close_finding
from tasks.errors import (
    AccessRefused,
    ApplyFailed,
    CloudError,
    CloudTimeout,
    Conflict,
    Drifted,
    GateRefused,
    ResourceGone,
    SutureError,
    VerifyFailed,
)
from tasks.model import Cloud, Config, Resource, Step
from tasks.plan import Plan, make_plan, restore_plan
from tasks.rules import rule

SSH = rule("aws_ec2_security_group_ssh_not_open")
RDP = rule("aws_ec2_security_group_rdp_not_open")
OPEN, OFFICE = "0.0.0.0/0", "10.0.0.0/8"


def group(*sources: str, port: int = 22, more: Sequence[dict[str, Any]] = ()) -> Resource:
    permission = {
        "IpProtocol": "tcp",
        "FromPort": port,
        "ToPort": port,
        "IpRanges": [{"CidrIp": source} for source in sources],
        "Ipv6Ranges": [],
        "PrefixListIds": [],
        "UserIdGroupPairs": [],
    }
    return Resource(
        cloud=Cloud.AWS,
        account="111122223333",
        region="eu-central-1",
        kind="aws.ec2.security_group",
        id="arn:aws:ec2:eu-central-1:111122223333:security-group/sg-1",
        name="web",
        config=Config(
            {
                "GroupId": "sg-1",
                "GroupName": "web",
                "IpPermissions": [*([permission] if sources else []), *more],
            }
        ),
    )


# The fix with a network allowed takes two steps: add it, then remove the internet.
BEFORE, BETWEEN, AFTER = group(OPEN), group(OPEN, OFFICE), group(OFFICE)
PLAN = make_plan(SSH, BEFORE, {"allowed_cidrs": (OFFICE,)}, finding_id="f" * 64)


@dataclass
class Pretend:
    """A cloud of one resource that goes through ``states`` as steps are applied and undone.

    It is its own session. ``on_apply``, ``on_undo`` and ``on_read`` raise at the call of that
    number, from 1.
    """

    states: Sequence[Resource | None] = (BEFORE, BETWEEN, AFTER)
    on_apply: dict[int, Exception] = field(default_factory=dict)
    on_undo: dict[int, Exception] = field(default_factory=dict)
    on_read: dict[int, Exception] = field(default_factory=dict)
    refuses: str = ""
    stops: Exception | None = None
    undo_leaves: Resource | None = None
    at: int = 0
    calls: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    closed: bool = False

    def _count(self, what: str, raises: dict[int, Exception]) -> None:
        self.calls.append(what)
        if error := raises.get(self.calls.count(what)):
            raise error

    def read(self) -> Resource:
        self._count("read", self.on_read)
        state = self.states[self.at]
        if state is None:
            raise ResourceGone("no such group")
        if self.undo_leaves is not None and "undo" in self.calls:
            return self.undo_leaves
        return state

    @contextmanager
    def open_session(self, now: Resource, steps: Sequence[Step]) -> Any:
        if self.refuses:
            raise GateRefused(self.refuses)
        yield self
        self.closed = True

    def begin_writing(self, before: Resource) -> None:
        if self.stops:
            raise self.stops
        self.kept.append("before")

    def keep(self, stage: str, resource: Resource) -> None:
        self.kept.append(stage)

    def apply(self, step: Step) -> None:
        self._count("apply", self.on_apply)
        self.at += 1

    def undo(self, step: Step) -> None:
        self._count("undo", self.on_undo)
        self.at -= 1


def close(place: Pretend, plan: Plan = PLAN, *, own_change: bool = False) -> Any:
    return close_finding(plan, cast(Any, place), own_change=own_change, verify_seconds=0.05)


def test_a_fix_is_applied_step_by_step_and_verified() -> None:
    place = Pretend()
    closed = close(place)
    assert (closed.state, closed.resource, closed.stage) == ("remediated", AFTER, "after")
    assert place.calls.count("apply") == 2
    assert place.kept == ["before", "during", "during"]
    assert place.closed


def test_a_resource_that_is_right_already_is_not_written_to() -> None:
    place = Pretend(states=(AFTER,))
    assert close(place).state == "already_resolved"
    assert "apply" not in place.calls
    assert place.kept == []


def test_a_resource_that_is_gone_needs_no_fix() -> None:
    closed = close(Pretend(states=(None,)))
    assert (closed.state, closed.resource) == ("already_resolved", None)


def test_a_resource_deleted_while_it_is_fixed_is_no_failure() -> None:
    closed = close(Pretend(states=(BEFORE, BETWEEN, None)))
    assert (closed.state, closed.resource) == ("already_resolved", None)


def test_a_gate_that_refuses_leaves_no_trace() -> None:
    place = Pretend(refuses="wrong code")
    with pytest.raises(GateRefused):
        close(place)
    assert (place.at, place.kept) == (0, [])


def test_a_run_that_is_over_writes_nothing() -> None:
    place = Pretend(stops=SutureError("expired"))
    with pytest.raises(SutureError, match="expired"):
        close(place)
    assert "apply" not in place.calls


def test_a_changed_resource_is_not_touched() -> None:
    place = Pretend(states=(group(OPEN, "192.0.2.0/24"),))
    with pytest.raises(Drifted):
        close(place)
    assert "apply" not in place.calls


def test_a_conflict_on_the_first_write_is_drift() -> None:
    with pytest.raises(Drifted):
        close(Pretend(on_apply={1: Conflict("412")}))


def test_a_step_that_fails_takes_back_the_ones_before_it() -> None:
    place = Pretend(on_apply={2: AccessRefused("the gate closed")})
    with pytest.raises(ApplyFailed, match="the gate closed") as failed:
        close(place)
    assert failed.value.undone
    assert (place.at, place.kept) == (0, ["before", "during", "undone"])


def test_an_undo_that_fails_is_said() -> None:
    place = Pretend(on_apply={2: CloudError("boom")}, on_undo={1: CloudTimeout("no answer")})
    with pytest.raises(ApplyFailed, match="could not be undone") as failed:
        close(place)
    assert not failed.value.undone


def test_an_undo_that_does_not_restore_is_not_believed() -> None:
    place = Pretend(on_apply={2: CloudError("boom")}, undo_leaves=group("192.0.2.0/24"))
    with pytest.raises(ApplyFailed, match="compare the snapshots") as failed:
        close(place)
    assert not failed.value.undone


def test_a_snapshot_that_cannot_be_kept_stops_the_fix_and_takes_it_back() -> None:
    place = Pretend(on_read={2: CloudTimeout("no answer")})  # the read between the two steps
    with pytest.raises(ApplyFailed) as failed:
        close(place)
    assert failed.value.undone
    assert place.at == 0


def test_a_fix_that_does_not_work_is_taken_back() -> None:
    place = Pretend(states=(BEFORE, BETWEEN, group(OPEN, OFFICE)))
    with pytest.raises(VerifyFailed, match="as before"):
        close(place)
    assert (place.at, place.kept[-1]) == (0, "undone")
    assert place.calls.count("undo") == 2


def bucket(**versioning: str) -> Resource:
    return Resource(
        cloud=Cloud.AWS,
        account="111122223333",
        region="eu-central-1",
        kind="aws.s3.bucket",
        id="arn:aws:s3:::papers",
        name="papers",
        config=Config({"Name": "papers", "Versioning": versioning}),
    )


VERSIONS = rule("aws_s3_bucket_versioning_enabled")
NEVER, SUSPENDED = bucket(), bucket(Status="Suspended")
VERSIONING = make_plan(VERSIONS, NEVER, {}, finding_id="e" * 64)


def test_an_undo_as_near_as_the_cloud_gets_is_an_undo() -> None:
    place = Pretend(states=(NEVER, NEVER), undo_leaves=SUSPENDED)
    with pytest.raises(VerifyFailed, match="taken back"):
        close(place, VERSIONING)
    assert place.kept[-1] == "undone"
    with pytest.raises(ApplyFailed, match="compare the snapshots"):
        close(Pretend(states=(NEVER, NEVER), undo_leaves=bucket(Status="Enabled")), VERSIONING)


def test_a_failed_apply_is_undone_as_near_as_the_cloud_gets() -> None:
    again = replace(VERSIONING, steps=VERSIONING.steps * 2)
    place = Pretend(states=(NEVER, NEVER), on_apply={2: CloudError("boom")}, undo_leaves=SUSPENDED)
    with pytest.raises(ApplyFailed, match="boom") as failed:
        close(place, again)
    assert failed.value.undone
    assert place.kept[-1] == "undone"


def test_a_fix_that_cannot_be_verified_is_taken_back() -> None:
    place = Pretend(on_read={3: CloudTimeout("no answer")})
    with pytest.raises(VerifyFailed, match="no answer"):
        close(place)
    assert place.at == 0


def test_a_fix_whose_verification_breaks_is_taken_back() -> None:
    place = Pretend(on_read={3: KeyError("IpPermissions")})
    with pytest.raises(VerifyFailed, match="KeyError It was taken back"):
        close(place)
    assert place.at == 0


def test_an_interrupt_takes_the_fix_back_and_goes_on_its_way() -> None:
    place = Pretend(on_read={3: cast(Any, KeyboardInterrupt())})
    with pytest.raises(KeyboardInterrupt):
        close(place)
    assert place.at == 0


def test_every_step_of_an_unproved_fix_is_undone_even_if_one_undo_fails() -> None:
    place = Pretend(states=(BEFORE, BETWEEN, BETWEEN), on_undo={1: CloudError("boom")})
    with pytest.raises(ApplyFailed, match="could not be undone: boom") as failed:
        close(place)
    assert not failed.value.undone
    assert place.calls.count("undo") == 2


def test_an_unproved_fix_whose_undo_cannot_be_checked_is_not_called_undone() -> None:
    place = Pretend(on_read={3: CloudTimeout("first"), 4: CloudTimeout("again")})
    with pytest.raises(ApplyFailed, match="could not be checked") as failed:
        close(place)
    assert not failed.value.undone


def test_a_cloud_that_is_slow_to_show_a_change_is_waited_for() -> None:
    class Slow(Pretend):
        def read(self) -> Resource:
            shown = super().read()
            return shown if self.calls.count("read") > 3 else BEFORE

    assert close_finding(PLAN, cast(Any, Slow()), verify_seconds=5).state == "remediated"


RDP_TOO = {
    "IpProtocol": "tcp",
    "FromPort": 3389,
    "ToPort": 3389,
    "IpRanges": [{"CidrIp": OPEN}],
    "Ipv6Ranges": [],
    "PrefixListIds": [],
    "UserIdGroupPairs": [],
}


def test_an_own_change_to_the_resource_is_no_drift_while_the_steps_stay_the_same() -> None:
    both = group(OPEN, more=[RDP_TOO])
    plan = make_plan(RDP, both, {"allowed_cidrs": ()}, finding_id="e" * 64)
    ssh_closed = group(more=[RDP_TOO])
    place = Pretend(states=(ssh_closed, group()))
    assert close(place, plan, own_change=True).state == "remediated"
    with pytest.raises(Drifted):
        close(Pretend(states=(ssh_closed, group())), plan)


def test_an_own_change_that_alters_what_is_left_to_do_asks_again() -> None:
    wide = {**RDP_TOO, "FromPort": 0, "ToPort": 65535}
    plan = make_plan(RDP, group(more=[wide]), {"allowed_cidrs": ()}, finding_id="e" * 64)
    split = group(more=[{**wide, "ToPort": 21}, {**wide, "FromPort": 23}])
    with pytest.raises(Drifted, match="Another change of this run"):
        close(Pretend(states=(split,)), plan, own_change=True)


def test_a_restore_is_done_when_the_resource_is_as_before() -> None:
    back = restore_plan(PLAN, BEFORE, AFTER, permission=lambda call: "ec2:" + call.operation)
    place = Pretend(states=(AFTER, BETWEEN, BEFORE))
    assert close(place, back).state == "restored"


def test_a_restore_that_does_not_restore_is_taken_back() -> None:
    back = restore_plan(PLAN, BEFORE, AFTER, permission=lambda call: "ec2:" + call.operation)
    with pytest.raises(VerifyFailed):
        close(Pretend(states=(AFTER, BETWEEN, BETWEEN)), back)
