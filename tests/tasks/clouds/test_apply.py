"""All steps or none: what apply_all leaves behind, whichever way a cloud fails."""

from __future__ import annotations

import signal
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prefect.exceptions import TerminationSignal

from tasks.clouds.remediator import Session, apply_all
from tasks.clouds.sdk_errors import PartlyWritten, UnsettledWrite
from tasks.errors import (
    AccessRefused,
    ApplyFailed,
    BadInput,
    CloudError,
    CloudTimeout,
    Conflict,
    Drifted,
    GateRefused,
    ResourceGone,
    Throttled,
)
from tasks.model import Call, Cloud, Step


def step(number: int) -> Step:
    call = Call(Cloud.AWS, "ec2", f"Do{number}", {})
    return Step(f"ec2:Do{number}", call, (Call(Cloud.AWS, "ec2", f"Undo{number}", {}),), ())


STEPS = [step(number) for number in range(4)]


@dataclass
class Remembering:
    """A cloud whose state is the list of steps in force. ``failing`` fails with ``error``.

    ``lands`` says whether the failing step takes effect all the same.
    """

    failing: Step | None = None
    error: BaseException | None = None
    lands: bool = False
    undo_fails: bool = False
    state: list[str] = field(default_factory=list)

    def apply(self, one: Step) -> None:
        if one is self.failing and self.error is not None:
            if self.lands:
                self.state.append(one.action)
            raise self.error
        self.state.append(one.action)

    def undo(self, one: Step) -> None:
        if self.undo_fails:
            raise AccessRefused("closed")
        if one.action in self.state:
            assert self.state.pop() == one.action, "undone out of order"

    def close(self) -> None:
        pass


SETTLED = [
    AccessRefused("no"),
    Throttled("later"),
    ResourceGone("gone"),
    Conflict("changed"),
    BadInput("operation", "is no write"),
    GateRefused("closed"),
]
# After these nobody knows whether the step took effect.
UNSETTLED = [
    CloudTimeout("slow"),
    UnsettledWrite("half"),
    CloudError("bad"),
    ValueError("surprise"),
    KeyboardInterrupt(),
    TerminationSignal(signal.SIGTERM),
]


@given(
    position=st.integers(0, len(STEPS) - 1),
    case=st.one_of(
        st.tuples(st.sampled_from(SETTLED), st.just(False)),
        st.tuples(st.sampled_from(UNSETTLED), st.booleans()),
    ),
)
def test_a_failure_leaves_nothing_behind(position: int, case: tuple[BaseException, bool]) -> None:
    error, lands = case
    cloud = Remembering(STEPS[position], error, lands)
    with pytest.raises((ApplyFailed, Drifted, KeyboardInterrupt, TerminationSignal)) as caught:
        apply_all(Session(cloud), STEPS)
    assert cloud.state == []
    if not isinstance(error, Exception):
        assert caught.value is error
        return
    assert caught.value.__cause__ is error
    if isinstance(caught.value, ApplyFailed):
        assert caught.value.undone
        assert STEPS[position].action in str(caught.value)
        assert ("Nothing of the fix is left" in str(caught.value)) is (error in SETTLED)
    else:
        assert position == 0
        assert isinstance(error, Conflict)


def test_everything_is_applied_in_order_and_told() -> None:
    cloud, told = Remembering(), []
    apply_all(Session(cloud), STEPS, told.append)
    assert cloud.state == [one.action for one in STEPS]
    assert told == STEPS


def test_a_failed_undo_is_not_called_undone() -> None:
    cloud = Remembering(STEPS[2], AccessRefused("no"), undo_fails=True)
    with pytest.raises(ApplyFailed, match="could not be undone") as caught:
        apply_all(Session(cloud), STEPS)
    assert not caught.value.undone


def test_a_surprise_in_an_undo_keeps_no_other_step_from_its_own() -> None:
    class Surprising(Remembering):
        def undo(self, one: Step) -> None:
            if one is STEPS[1]:
                raise KeyError("secret?")
            super().undo(one)

    cloud = Surprising(STEPS[2], AccessRefused("no"), state=[])
    with pytest.raises(ApplyFailed, match="could not be undone: KeyError") as caught:
        apply_all(Session(cloud), [STEPS[1], STEPS[0], STEPS[2]])
    assert cloud.state == [STEPS[1].action]
    assert not caught.value.undone
    assert "secret" not in str(caught.value)


def test_what_may_be_written_and_has_no_undo_is_not_called_undone() -> None:
    blind = replace(STEPS[0], undo=())
    with pytest.raises(ApplyFailed, match="has no undo") as caught:
        apply_all(Session(Remembering(blind, CloudTimeout("slow"))), [blind])
    assert not caught.value.undone


def test_part_of_a_write_is_not_called_undone() -> None:
    cloud = Remembering(STEPS[1], PartlyWritten("half of it"))
    with pytest.raises(ApplyFailed) as caught:
        apply_all(Session(cloud), STEPS)
    assert not caught.value.undone
    assert cloud.state == []


@pytest.mark.parametrize("trouble", [ValueError("secret?"), OSError("disk")])
def test_a_step_that_cannot_be_recorded_is_undone(trouble: Exception) -> None:
    cloud = Remembering()

    def record(one: Step) -> None:
        if one is STEPS[1]:
            raise trouble

    with pytest.raises(ApplyFailed) as caught:
        apply_all(Session(cloud), STEPS, record)
    assert cloud.state == []
    assert caught.value.undone
    assert str(trouble) not in str(caught.value)


def test_an_interrupt_undoes_and_goes_on_its_way() -> None:
    cloud = Remembering(STEPS[3], KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        apply_all(Session(cloud), STEPS)
    assert cloud.state == []
