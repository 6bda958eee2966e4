"""A process's hold on the run that it carries, and its look at the brake before every write."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

import psycopg

from tasks import settings
from tasks.clouds.remediator import Session
from tasks.errors import BadInput, Halted, SutureError
from tasks.model import Step
from tasks.policy import load_caps
from tasks.warehouse import carriers, halts, limits
from tasks.warehouse.database import connect

if TYPE_CHECKING:
    from tasks.remediation_run import Run

AWAY = (
    "The warehouse is away: whether remediation is halted cannot be asked, so nothing is written."
)
LOST = "The hold on this run was lost, and it may have been settled since: nothing more is written."
TAKEN = "Another process carries this run already."


class Carrier:
    """The connection whose lock tells others that this run's process lives.

    Opened when it is first needed. All threads of a run share it.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._conn: psycopg.Connection | None = None
        self._taken = 0  # how often: what was begun under an earlier hold may have been settled
        self._turn = threading.RLock()

    def __enter__(self) -> Carrier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._turn:
            self._let_go()

    def take(self) -> None:
        """Carry the run. Raises SutureError when another process does, BadInput without warehouse.

        A hold that was lost is taken again: to be called where nothing is half-written.
        """
        with self._turn:
            if self._conn is not None and self._holds(self._conn):
                return
            self._let_go()
            conn = connect()
            if not carriers.carry(conn, self._run.id):
                conn.close()
                raise SutureError(TAKEN)
            self._conn = conn
            self._taken += 1

    def check(self, begun: int = 0) -> int:
        """Raise Halted where the run may not write now. Returns the number of its hold.

        ``begun`` is the hold under which this change has begun to be made. It is not gone on with
        after that was lost: reconciliation may have settled it. A put-back finishes an undo: only a
        halt of everything stops it.
        """
        run = self._run
        try:
            with self._turn:
                if not begun:
                    self.take()
                elif self._conn is None or begun != self._taken or not self._holds(self._conn):
                    raise Halted(LOST)
                assert self._conn is not None
                automatic = run.automatic and not run.undoes
                halts.check(self._conn, run.policy.name, automatic=automatic)
                return self._taken
        except (psycopg.Error, BadInput):
            raise Halted(AWAY) from None

    def check_room(self) -> None:
        """Raise Halted, or Capped where the run's policy may begin nothing more this hour."""
        self.check()
        assert self._conn is not None
        if not self._run.undoes:
            limits.check_room(self._conn, self._run.policy.name, caps())

    def guard(self, session: Session, begun: Callable[[], int]) -> Session:
        """The session, which looks at the brake before each step. Undoing is never stopped.

        ``begun`` gives the hold under which the change has begun to be made.
        """
        return Session(_Guarded(session, self, begun))

    def _holds(self, conn: psycopg.Connection) -> bool:
        try:
            return carriers.still_carries(conn, self._run.id)
        except psycopg.Error:
            return False

    def _let_go(self) -> None:
        if self._conn is not None:
            carriers.let_go(self._conn, self._run.id)
            self._conn.close()
            self._conn = None


class _Guarded:
    def __init__(self, session: Session, carrier: Carrier, begun: Callable[[], int]) -> None:
        self._session = session
        self._carrier = carrier
        self._begun = begun

    def apply(self, step: Step) -> None:
        self._carrier.check(self._begun())
        self._session.apply(step)

    def undo(self, step: Step) -> None:
        self._session.undo(step)

    def close(self) -> None:
        self._session.close()


@contextmanager
def carried(run: Run) -> Iterator[Carrier]:
    """This process's hold on the run; inside of another ``carried``, that one."""
    if run.carrier is not None:
        yield run.carrier
        return
    with Carrier(run) as carrier:
        run.carrier = carrier
        try:
            yield carrier
        finally:
            run.carrier = None


def caps() -> Mapping[str, int]:
    """The caps by the hour, as the policy file has them now. Raises BadPolicy."""
    return load_caps(settings.policies_path())
