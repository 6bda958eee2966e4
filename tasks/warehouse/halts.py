"""The brake: remediation halted and lifted in the warehouse, where every process looks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

import psycopg
from psycopg.rows import dict_row

from tasks.errors import BadInput, Halted
from tasks.warehouse import audit
from tasks.warehouse.rows import clean


@dataclass(frozen=True, kw_only=True, slots=True)
class Halt:
    """One halt. ``policy`` is empty for every policy; ``everything`` holds approved runs, too."""

    id: int
    policy: str
    everything: bool
    reason: str
    halted_by: str
    halted_at: datetime
    lift_reason: str = ""
    lifted_by: str = ""
    lifted_at: datetime | None = None

    @property
    def what(self) -> str:
        kind = "Remediation" if self.everything else "Automatic remediation"
        return f"{kind} under {self.policy}" if self.policy else kind

    @property
    def words(self) -> str:
        """One sentence for whoever meets it."""
        return (
            f"{self.what} has been halted by {self.halted_by} since "
            f"{self.halted_at:%Y-%m-%d %H:%M:%S} UTC: {self.reason}"
        )

    def holds(self, policy: str, *, automatic: bool) -> bool:
        """Whether it stops a run under this policy."""
        return (automatic or self.everything) and self.policy in ("", policy)


def halt(
    conn: psycopg.Connection, reason: str, by: str, *, policy: str = "", everything: bool = False
) -> Halt:
    """Stop remediation from now on, until it is lifted. Raises BadInput without a reason or name.

    Halting what is halted already is another halt, with a reason of its own. It holds before the
    audit log has it: whoever writes to the log, or is stuck at it, cannot keep the brake from
    being pulled. ``conn`` is in autocommit mode.
    """
    _said(reason, by)
    row = conn.execute(
        """
        INSERT INTO halts (policy, everything, reason, halted_by, halted_at)
        VALUES (%s, %s, %s, %s, clock_timestamp())
        RETURNING id
        """,
        (clean(policy), everything, clean(reason.strip()), clean(by.strip())),
    ).fetchone()
    assert row is not None
    (made,) = _halts(conn, "WHERE id = %s", (row[0],))
    details = {"policy": policy, "everything": everything, "reason": made.reason}
    audit.append(conn, made.halted_by, "halted", _subject(made), details)
    return made


def lift(conn: psycopg.Connection, reason: str, by: str, *, policy: str = "") -> list[Halt]:
    """End every halt of this scope; returns them. Raises BadInput where none stands.

    Lifting the halt of all policies leaves a halt of one as it is, and the other way round.
    """
    _said(reason, by)
    with conn.transaction():
        ids = conn.execute(
            """
            UPDATE halts SET lifted_at = clock_timestamp(), lift_reason = %s, lifted_by = %s
            WHERE lifted_at IS NULL AND policy = %s
            RETURNING id
            """,
            (clean(reason.strip()), clean(by.strip()), clean(policy)),
        ).fetchall()
        if not ids:
            raise _nothing_to_lift(conn, policy)
        lifted = _halts(conn, "WHERE id = ANY(%s) ORDER BY id", ([one for (one,) in ids],))
        for one in lifted:
            details = {"halt": one.id, "halted_by": one.halted_by, "reason": one.lift_reason}
            audit.append(conn, one.lifted_by, "lifted", _subject(one), details)
    return lifted


def standing(conn: psycopg.Connection) -> list[Halt]:
    """The halts that hold now, the oldest first."""
    return _halts(conn, "WHERE lifted_at IS NULL ORDER BY id", ())


def check(conn: psycopg.Connection, policy: str, *, automatic: bool) -> None:
    """Raise Halted when a run under this policy may not go on."""
    for one in standing(conn):
        if one.holds(policy, automatic=automatic):
            raise Halted(one.words)


def _subject(one: Halt) -> str:
    return f"policy {one.policy}" if one.policy else "all policies"


def _said(reason: str, by: str) -> None:
    if not reason.strip():
        raise BadInput("--reason", "is empty.", "Say in a few words why.")
    if not by.strip():
        raise BadInput("--by", "is empty.", "Say who you are.")


def _nothing_to_lift(conn: psycopg.Connection, policy: str) -> BadInput:
    others = sorted({one.policy for one in standing(conn)})
    if not others:
        return BadInput("--lift", "nothing is halted.")
    scope = f"the policy {policy}" if policy else "all policies"
    named = ", ".join(f"--policy {other}" if other else "no --policy" for other in others)
    return BadInput("--lift", f"{scope} is not what is halted.", f"Lift it with {named}.")


def _halts(
    conn: psycopg.Connection, condition: str, values: tuple[int | list[int], ...]
) -> list[Halt]:
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(("SELECT * FROM halts " + condition).encode(), values)  # noqa: S608
        return [Halt(**row) for row in cursor]


def halt_row(one: Halt) -> dict[str, object]:
    """A halt as a command prints it."""
    return {**asdict(one), "what": one.what}
