"""The remediator: opens a session with an approver's code, applies a fix, and takes it back."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol

from pydantic import SecretStr
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

from tasks.clouds.aws_write import open_aws, prepare_aws
from tasks.clouds.azure_write import may_be_propagation, open_azure, prepare_azure
from tasks.clouds.propagation import Propagation, patiently
from tasks.clouds.sdk_errors import PartlyWritten, UnsettledWrite
from tasks.clouds.session_policy import permissions
from tasks.errors import (
    AccessRefused,
    ApplyFailed,
    BadInput,
    CloudTimeout,
    Conflict,
    Drifted,
    GateRefused,
    Halted,
    ResourceGone,
    Throttled,
    words_of,
)
from tasks.inventory import AwsSource, Inventory
from tasks.model import Account, Resource, Step

# Digits from an authenticator, or what a token endpoint draws. All of it can stand in an AWS
# ExternalId and in the subject of an Azure federated credential.
_CODE = re.compile(r"[A-Za-z0-9_-]{6,128}", re.ASCII)

# After these a step is known not to have been written. After anything else it may have been.
_NOT_WRITTEN = (AccessRefused, BadInput, Conflict, GateRefused, Halted, ResourceGone, Throttled)


# After these an undo may be tried again: it may not have been written, and twice is as once.
_PASSING = (Throttled, CloudTimeout, UnsettledWrite)
UNDO_ATTEMPTS = 3


class _CloudSession(Protocol):
    """What both clouds' sessions can do."""

    def apply(self, step: Step) -> None: ...

    def undo(self, step: Step) -> None: ...

    def close(self) -> None: ...


class Session:
    """Write access to one resource, for the steps of one fix and their undo.

    A context manager; closing lets go of connections.
    """

    def __init__(self, inner: _CloudSession) -> None:
        self._inner = inner

    def apply(self, step: Step) -> None:
        """Make the step's call and wait for its end.

        Raises CloudError: Conflict when the resource is not what the step was planned for,
        AccessRefused when the gate closed meanwhile.
        """
        self._inner.apply(step)

    def undo(self, step: Step) -> None:
        """Make the step's undo calls, in order, again where the cloud was busy or did not answer.

        Raises CloudError.
        """
        trying = Retrying(
            retry=retry_if_exception_type(_PASSING),
            stop=stop_after_attempt(UNDO_ATTEMPTS),
            wait=wait_exponential(multiplier=0.5, max=5),
            reraise=True,
        )
        trying(self._inner.undo, step)

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def open_session(
    inventory: Inventory,
    account: Account,
    resource: Resource,
    steps: Sequence[Step],
    code: SecretStr,
    *,
    undo: bool = True,
    propagation: Propagation | None = None,
) -> Session:
    """Open the gate from Suture's side: a session for these steps on this resource.

    ``undo=False`` leaves out the permissions of the steps' undo calls. ``propagation`` says for how
    long a gate that refuses is tried again, and may stop that. Raises GateRefused, which never
    repeats the code;
    BadInput when the inventory does not say how to write there; CloudError
    when the cloud cannot be asked.
    """
    if not _CODE.fullmatch(code.get_secret_value()):
        raise GateRefused("This is not a code: codes are 6 digits, or what a machine drew.")
    patience = propagation or Propagation()
    open_once = _opener(inventory, account, resource, steps, code, undo, patience)
    opened = patiently(
        open_once,
        again_for=lambda error: isinstance(error, GateRefused),
        seconds=patience.code,
        what="The gate does not let us in yet",
        say=patience.say,
        go_on=patience.go_on,
    )
    return Session(opened)


def _opener(
    inventory: Inventory,
    account: Account,
    resource: Resource,
    steps: Sequence[Step],
    code: SecretStr,
    undo: bool,
    patience: Propagation,
) -> Callable[[], _CloudSession]:
    source = inventory.source(account.source)
    allowed = permissions(steps, undo=undo)
    if isinstance(source, AwsSource):
        return lambda: open_aws(source, account.id, resource, allowed, code, patience.go_on)
    issuer = inventory.issuer
    if not source.remediates or issuer is None:
        raise BadInput(
            f"azure.{source.name}",
            "the inventory does not say who remediates here.",
            "Add the remediator_… fields, gate_id, and an issuer.",
        )
    return lambda: open_azure(source, issuer, resource, allowed, code, patience)


def apply_all(
    session: Session, steps: Sequence[Step], on_step: Callable[[Step], None] | None = None
) -> None:
    """Apply the steps in order; ``on_step`` is called after each. All of them, or none.

    Whatever goes wrong, the steps already done are undone, the last first, and so is the failing
    one unless it is known not to have been written. Then raises Drifted when the first step already
    met a changed resource and nothing was written, GateRefused when it was not let through,
    ApplyFailed otherwise; what is not an Exception (an interrupt) goes on its way.
    """
    done: list[Step] = []
    for before, step in enumerate(steps):
        try:
            session.apply(step)
            done.append(step)
            if on_step is not None:
                on_step(step)
        except BaseException as error:
            if isinstance(error, Conflict) and not done:
                raise Drifted(
                    "The resource changed right before it was to be fixed; nothing was written."
                ) from error
            if may_be_propagation(error) and not done:
                raise GateRefused(
                    "The gate let us sign in and not write: its role assignment has not come into "
                    f"force, does not reach this resource, or has been taken away ({error})."
                ) from error
            known = len(done) > before or isinstance(error, (*_NOT_WRITTEN, PartlyWritten))
            failure = _taken_back(session, done, step, error, unsure=not known)
            if not isinstance(error, Exception):
                raise
            raise failure from error


def _taken_back(
    session: Session, done: Sequence[Step], failed: Step, error: BaseException, *, unsure: bool
) -> ApplyFailed:
    """Undo what was done, the last first, and say how that went.

    ``unsure``: the failed step may have been written, so it is undone too.
    """
    message = f"{failed.action} failed: {words_of(error)}."
    left = []
    for step in reversed([*done, failed] if unsure else done):
        try:
            session.undo(step)
        except Exception as problem:  # noqa: BLE001 - told below, and the other steps go on
            left.append(f"{step.action} could not be undone: {words_of(problem)}.")
    if isinstance(error, PartlyWritten):
        left.append("Its own part that was done stays done.")
    if unsure and not failed.undo:
        left.append("Whether it was written is not known, and it has no undo.")
    if left:
        return ApplyFailed(" ".join([message, *left]), undone=False)
    end = "Nothing of the fix is left in place."
    if unsure:
        end = "Whether it was written is not known; it was undone, with all before it."
    return ApplyFailed(f"{message} {end}", undone=True)


def prepare(inventory: Inventory) -> None:
    """Load what the first session of each cloud would have to, a second or two of it.

    Nobody is asked anything.
    """
    for source in inventory.sources:
        if isinstance(source, AwsSource):
            prepare_aws(source)
        else:
            prepare_azure()
