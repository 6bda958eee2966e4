"""Asynchronous operations: started by a write, polled by address, ended by polls or by age."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from deployments.local.azure.protocol import Reply


@dataclass(slots=True)
class OperationFailure:
    """How an operation is to fail. ``keeps_change`` leaves the write in place, state Failed."""

    code: str = "InternalServerError"
    message: str = "An error occurred."
    keeps_change: bool = False
    details: list[dict[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class Operation:
    """One running write. ``finish`` is called once with None (it worked) or with the failure,
    and after it ``ended``.
    """

    id: str
    target: str
    starter: str
    started: float
    polls_left: int
    finish: Callable[[OperationFailure | None], None]
    result: Callable[[], Reply]
    failure: OperationFailure | None = None
    status: str = "InProgress"
    ended: Callable[[OperationFailure | None], None] = lambda _failure: None

    def end(self) -> None:
        if self.status == "InProgress":
            self.status = "Failed" if self.failure else "Succeeded"
            self.finish(self.failure)
            self.ended(self.failure)


@dataclass
class Operations:
    """Every operation of the tenant.

    ``polls`` is how many polls find it in progress; ``longest`` ends it, in seconds, when nobody
    polls. ``retry_after`` is the header in seconds, None to leave it out; never 0: azure-core
    reads "0" as no delay given and waits its own 30 s. ``latest`` is the one that began last.
    """

    clock: Callable[[], float]
    polls: int = 1
    retry_after: int | None = 1
    longest: float = 5.0
    latest: Operation | None = None
    _known: dict[str, Operation] = field(default_factory=dict)
    _running: dict[str, Operation] = field(default_factory=dict)

    def begin(
        self,
        target: str,
        starter: str,
        finish: Callable[[OperationFailure | None], None],
        result: Callable[[], Reply],
        failure: OperationFailure | None = None,
    ) -> Operation:
        """Start one. A write on a target that is still busy ends the older operation first."""
        if older := self._running.pop(target, None):
            older.end()
        operation = Operation(
            str(uuid.uuid4()), target, starter, self.clock(), self.polls, finish, result, failure
        )
        self._known[operation.id] = self._running[target] = self.latest = operation
        return operation

    def finish(self, operation: Operation) -> None:
        """End it now, polled or not."""
        if self._running.get(operation.target) is operation:
            del self._running[operation.target]
        operation.end()

    def find(self, operation_id: str) -> Operation | None:
        return self._known.get(operation_id.lower())

    def poll(self, operation: Operation) -> str:
        """Count one poll and say how it stands: InProgress, Succeeded or Failed."""
        if operation.status == "InProgress":
            if operation.polls_left > 0:
                operation.polls_left -= 1
            else:
                self._running.pop(operation.target, None)
                operation.end()
        return operation.status

    def settle_overdue(self) -> None:
        """End what nobody polled for too long. Operations stand in the order they started."""
        while self._running:
            target, oldest = next(iter(self._running.items()))
            if self.clock() - oldest.started < self.longest:
                return
            del self._running[target]
            oldest.end()

    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
