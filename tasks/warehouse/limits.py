"""Caps by the hour, counted where every process begins to write: in one transaction, in turn."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import psycopg

from tasks.errors import Capped

CAP_LOCK = 5_782_007  # two that begin must not both count what was before them
HOUR = timedelta(hours=1)


def begin(
    conn: psycopg.Connection, remediation_id: str, policy: str, caps: Mapping[str, int]
) -> None:
    """Count a fix as begun now, or raise Capped where that would be one too many.

    ``caps`` are the changes that may begin within any hour: by policy name, and under the empty
    name by all policies together. To be called in the transaction that moves the remediation to
    "applying"; it waits for others that begin, and they for its end. What puts something back is
    neither counted nor to be brought here.
    """
    conn.execute("SELECT pg_advisory_xact_lock(%s)", (CAP_LOCK,))
    check_room(conn, policy, caps, remediation_id)
    conn.execute(
        "UPDATE remediations SET began_at = clock_timestamp() WHERE id = %s", (remediation_id,)
    )


def check_room(
    conn: psycopg.Connection, policy: str, caps: Mapping[str, int], other_than: str | None = None
) -> None:
    """Raise Capped where nothing more may begin now. Only ``begin`` makes sure of it."""
    for name in ("", policy):
        most = caps.get(name)
        if most is not None and (begun := _begun(conn, name, other_than)) >= most:
            under = f"Under the policy {name}" if name else "Under all policies"
            raise Capped(
                f"{under} {begun} changes have begun within the hour, of {most} that may. "
                "The next triage takes it up again."
            )


def _begun(conn: psycopg.Connection, policy: str, other_than: str | None) -> int:
    row = conn.execute(
        """
        SELECT count(*) FROM remediations
        WHERE began_at > clock_timestamp() - %(hour)s AND id IS DISTINCT FROM %(id)s::uuid
          AND (%(policy)s = '' OR policy = %(policy)s)
        """,
        {"hour": HOUR, "id": other_than, "policy": policy},
    ).fetchone()
    assert row is not None
    return int(row[0])
