"""Events in the warehouse: taken in once each, their resources handed out to one listener each.

A resource that a listener works at is held by an advisory lock of its connection, which PostgreSQL
frees when that ends, however its process ended: as in ``claims``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import psycopg

from tasks.formats.event import ControlPlaneEvent, Target
from tasks.model import Cloud, canonical_json
from tasks.warehouse.incremental import touch_accounts
from tasks.warehouse.rows import clean, clean_json

HELD = 5_782_007  # the first half of a target's advisory lock
SILENT = timedelta(seconds=30)  # a listener that has said nothing for so long is gone
BACKOFF = timedelta(seconds=2)  # doubled with each try
MOST_TRIES = 9  # the last one nine minutes after the first
OVERFETCH = 4  # targets looked at for each that is wanted: others may hold some

TEXT: LiteralString = "concat_ws('|', t.cloud, t.account, t.region, t.kind, t.resource)"


@dataclass(frozen=True, slots=True)
class Taken:
    """An event that is to be written down: what it is about, by whose queue it came, and when."""

    event: ControlPlaneEvent
    targets: Sequence[Target]
    source: str = ""
    queued_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """A resource to be read again, held by this listener, and the events that it is for.

    ``events`` are their ids, the oldest first. ``tries`` is how often it has failed already.
    ``since`` is when the first of them was in its queue, or where that is not known was received.
    """

    target: Target
    source: str
    events: tuple[str, ...]
    since: datetime
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits: targets, and how many seconds the oldest has waited; done in the last minute."""

    waiting: int
    lag_seconds: float
    in_flight: int
    done_last_minute: int
    failed_last_day: int


def take_in(
    conn: psycopg.Connection, taken: Sequence[Taken], received_at: datetime | None = None
) -> set[tuple[Cloud, str]]:
    """Write events down, with what they are about; returns which were new, as (cloud, id).

    One that is there already, from another delivery or another listener, is passed over. The
    accounts that the new ones are of are noted as touched. In one transaction: when it returns,
    the messages may go.
    """
    at = received_at or datetime.now(UTC)
    by_key = {key_of(one.event): one for one in taken}
    rows = [by_key[key] for key in sorted(by_key)]  # in order: two listeners do not deadlock
    with conn.transaction():
        new = {
            (Cloud(cloud), event_id)
            for cloud, event_id in conn.execute(
                TAKE_IN,
                {
                    "clouds": [one.event.cloud.value for one in rows],
                    "ids": [clean(one.event.id) for one in rows],
                    "accounts": [clean(one.event.account) for one in rows],
                    "regions": [clean(one.event.region) for one in rows],
                    "operations": [clean(one.event.operation) for one in rows],
                    "ats": [one.event.at for one in rows],
                    "actors": [clean(one.event.actor) for one in rows],
                    "ips": [clean(one.event.source_ip) for one in rows],
                    "agents": [clean(one.event.user_agent) for one in rows],
                    "sources": [one.source for one in rows],
                    "queued": [one.queued_at for one in rows],
                    "received": at,
                    "originals": [
                        clean_json(canonical_json(dict(one.event.original))) for one in rows
                    ],
                },
            )
        }
        targets = [(by_key[key], target) for key in sorted(new) for target in by_key[key].targets]
        conn.execute(
            TAKE_IN_TARGETS,
            {
                "clouds": [target.cloud.value for _, target in targets],
                "ids": [clean(one.event.id) for one, _ in targets],
                "accounts": [clean(target.account) for _, target in targets],
                "regions": [clean(target.region) for _, target in targets],
                "kinds": [target.kind for _, target in targets],
                "resources": [clean(target.resource) for _, target in targets],
                "sources": [one.source for one, _ in targets],
                "ats": [one.event.at for one, _ in targets],
                "received": at,
            },
        )
        touched = [(cloud, clean(by_key[cloud, name].event.account)) for cloud, name in new]
        touch_accounts(conn, touched, at)
    return new


def key_of(event: ControlPlaneEvent) -> tuple[Cloud, str]:
    """What an event is known by in the warehouse."""
    return event.cloud, clean(event.id)


TAKE_IN = """
INSERT INTO events (cloud, id, account, region, operation, at, actor, source_ip, user_agent, source,
                    queued_at, original, received_at)
SELECT g.cloud, g.id, g.account, g.region, g.operation, g.at, g.actor, g.source_ip, g.user_agent,
       g.source, g.queued_at, g.original::jsonb, %(received)s
FROM unnest(
    %(clouds)s::text[], %(ids)s::text[], %(accounts)s::text[], %(regions)s::text[],
    %(operations)s::text[], %(ats)s::timestamptz[], %(actors)s::text[], %(ips)s::text[],
    %(agents)s::text[], %(sources)s::text[], %(queued)s::timestamptz[], %(originals)s::text[]
) AS g (cloud, id, account, region, operation, at, actor, source_ip, user_agent, source, queued_at,
        original)
ON CONFLICT DO NOTHING
RETURNING cloud, id
"""

TAKE_IN_TARGETS = """
INSERT INTO event_targets (cloud, event_id, account, region, kind, resource, source, at,
                           received_at, not_before)
SELECT g.*, %(received)s, %(received)s
FROM unnest(
    %(clouds)s::text[], %(ids)s::text[], %(accounts)s::text[], %(regions)s::text[],
    %(kinds)s::text[], %(resources)s::text[], %(sources)s::text[], %(ats)s::timestamptz[]
) AS g (cloud, event_id, account, region, kind, resource, source, at)
ON CONFLICT DO NOTHING
"""


def claim(conn: psycopg.Connection, limit: int, busy: Collection[Target] = ()) -> list[Work]:
    """Up to ``limit`` resources that are due and that nobody holds, those waiting longest first.

    They are this connection's until it says ``done``, ``later`` or ``let_go`` of them, or ends.
    ``busy`` are those it holds already: what has come for them since waits. All events that wait
    for one resource are one piece of work.
    """
    rows = conn.execute(
        DUE,
        {
            "limit": limit * OVERFETCH,
            "busy": [_text_of(target) for target in busy],
        },
    ).fetchall()
    held: list[Work] = []
    for cloud, account, region, kind, resource in rows:
        if len(held) >= limit:
            break
        target = Target(Cloud(cloud), account, region, kind, resource)
        if not _hold(conn, target):
            continue
        waiting = conn.execute(WAITING, asdict(target)).fetchall()
        if not waiting:  # another listener has just done it
            let_go(conn, target)
            continue
        events = tuple(event for event, *_ in waiting)
        held.append(
            Work(
                target,
                source=waiting[-1][1],
                events=events,
                since=min(queued for _, _, queued, _ in waiting),
                tries=max(tries for *_, tries in waiting),
            )
        )
    return held


DUE = f"""
SELECT cloud, account, region, kind, resource
FROM event_targets t
WHERE state = 'pending' AND not_before <= clock_timestamp() AND {TEXT} <> ALL (%(busy)s::text[])
GROUP BY cloud, account, region, kind, resource
ORDER BY min(received_at)
LIMIT %(limit)s
""".encode()  # noqa: S608 - ours

PLACE: LiteralString = (
    "t.cloud = %(cloud)s AND t.account = %(account)s AND t.region = %(region)s "
    "AND t.kind = %(kind)s AND t.resource = %(resource)s"
)
WAITING = f"""
SELECT t.event_id, t.source, coalesce(e.queued_at, t.received_at), t.tries
FROM event_targets t
JOIN events e ON e.cloud = t.cloud AND e.id = t.event_id
WHERE {PLACE} AND t.state = 'pending'
ORDER BY t.at, t.event_id
""".encode()  # noqa: S608 - ours


def _text_of(target: Target) -> str:
    """A target as ``TEXT`` writes it."""
    return "|".join(
        (target.cloud.value, target.account, target.region, target.kind, target.resource)
    )


def _hold(conn: psycopg.Connection, target: Target) -> bool:
    row = conn.execute(
        "SELECT pg_try_advisory_lock(%s, hashtext(%s))", (HELD, _text_of(target))
    ).fetchone()
    return row == (True,)


def let_go(conn: psycopg.Connection, target: Target) -> None:
    """Free a resource for others, whatever still waits for it."""
    conn.execute("SELECT pg_advisory_unlock(%s, hashtext(%s))", (HELD, _text_of(target)))


def note_scan(conn: psycopg.Connection, works: Sequence[Work], scan_id: str) -> None:
    """Write down which scan read the resources again after their events."""
    conn.execute(
        f"UPDATE event_targets t SET scan_id = %(scan)s WHERE {EACH}".encode(),  # noqa: S608
        {**_each(works), "scan": UUID(scan_id)},
    )


def done(conn: psycopg.Connection, works: Sequence[Work]) -> None:
    """All that follows from these events was done. Their resources are free for others."""
    conn.execute(
        "UPDATE event_targets t SET state = 'done', message = '', "  # noqa: S608 - ours
        f"done_at = clock_timestamp() WHERE {EACH}".encode(),
        _each(works),
    )
    for work in works:
        let_go(conn, work.target)


def later(
    conn: psycopg.Connection,
    work: Work,
    why: str,
    *,
    wait: timedelta | None = None,
    counts: bool = True,
) -> bool:
    """Try again after a while, each time a longer one; False where it has been tried enough.

    Then it is failed, and the next scan of the account is what is left. ``counts`` false does not
    count as a try: nothing is wrong with it. The resource is free for others.
    """
    tries = work.tries + counts
    given_up = tries >= MOST_TRIES
    conn.execute(
        f"""
        UPDATE event_targets t
        SET state = %(state)s, message = %(why)s, tries = %(tries)s,
            not_before = clock_timestamp() + %(wait)s,
            done_at = CASE WHEN %(state)s = 'failed' THEN clock_timestamp() END
        WHERE {EACH}
        """.encode(),  # noqa: S608 - ours
        {
            **_each([work]),
            "state": "failed" if given_up else "pending",
            "why": clean(why),
            "tries": tries,
            "wait": BACKOFF * 2**work.tries if wait is None else wait,
        },
    )
    let_go(conn, work.target)
    return not given_up


EACH: LiteralString = (
    "(t.cloud, t.event_id, t.kind, t.region, t.resource) IN "
    "(SELECT * FROM unnest(%(clouds)s::text[], %(ids)s::text[], %(kinds)s::text[], "
    "%(regions)s::text[], %(resources)s::text[]))"
)


def _each(works: Sequence[Work]) -> dict[str, Any]:
    pairs = [(work.target, event) for work in works for event in work.events]
    return {
        "clouds": [target.cloud.value for target, _ in pairs],
        "ids": [event for _, event in pairs],
        "kinds": [target.kind for target, _ in pairs],
        "regions": [target.region for target, _ in pairs],
        "resources": [target.resource for target, _ in pairs],
    }


@dataclass(frozen=True, slots=True)
class Cause:
    """Who made a change, from where, by which event: the last one that a piece of work is for."""

    event: str
    actor: str
    source_ip: str
    operation: str
    at: datetime
    received_at: datetime

    def json(self) -> dict[str, Any]:
        return {
            "event": self.event,
            "changed_by": self.actor,
            "changed_from": self.source_ip,
            "operation": self.operation,
            "changed_at": self.at.isoformat(),
        }


def cause_of(conn: psycopg.Connection, work: Work) -> Cause | None:
    """The last of the events that a piece of work is for; None where retention took them."""
    row = conn.execute(
        """
        SELECT id, actor, source_ip, operation, at, received_at FROM events
        WHERE cloud = %s AND id = ANY(%s) ORDER BY at DESC, id DESC LIMIT 1
        """,
        (work.target.cloud.value, list(work.events)),
    ).fetchone()
    return Cause(*row) if row else None


def backlog(conn: psycopg.Connection) -> dict[Cloud, Backlog]:
    """What waits and is in flight of each cloud, for all listeners together."""
    found = {cloud: Backlog(0, 0.0, 0, 0, 0) for cloud in Cloud}
    for cloud, *counts in conn.execute(BACKLOG, (HELD,)):
        found[Cloud(cloud)] = Backlog(*counts)
    return found


BACKLOG = f"""
WITH held AS (
    SELECT l.objid::bigint AS key
    FROM pg_locks l
    JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
    WHERE l.locktype = 'advisory' AND l.classid = %s AND l.objsubid = 2 AND l.granted
)
SELECT t.cloud,
       count(*) FILTER (WHERE state = 'pending'),
       coalesce(extract(epoch FROM clock_timestamp() - min(received_at)
           FILTER (WHERE state = 'pending')), 0)::float8,
       count(DISTINCT {TEXT})
           FILTER (WHERE state = 'pending'
               AND hashtext({TEXT})::bigint & 4294967295 IN (SELECT key FROM held)),
       count(*) FILTER (WHERE state = 'done' AND done_at > clock_timestamp() - interval '1 minute'),
       count(*) FILTER (WHERE state = 'failed')
FROM event_targets t
WHERE state = 'pending' OR done_at > clock_timestamp() - interval '1 day'
GROUP BY t.cloud
""".encode()  # noqa: S608 - ours


@dataclass(frozen=True, slots=True)
class ListenerRow:
    """A listener that lives: where it runs, since when, when it last said so, its counts."""

    id: str
    host: str
    flow_run_id: str
    started_at: datetime
    seen_at: datetime
    counts: Mapping[str, Any]


def listener_seen(
    conn: psycopg.Connection, listener: str, host: str, flow_run_id: str, counts: Mapping[str, Any]
) -> None:
    """Say that a listener lives, and what it has done. Those that are silent are forgotten."""
    conn.execute(
        """
        INSERT INTO listeners (id, host, flow_run_id, started_at, seen_at, counts)
        VALUES (%s, %s, %s, clock_timestamp(), clock_timestamp(), %s)
        ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at, counts = excluded.counts
        """,
        (UUID(listener), clean(host), flow_run_id, json.dumps(dict(counts))),
    )
    conn.execute("DELETE FROM listeners WHERE seen_at < clock_timestamp() - %s", (SILENT * 120,))


def listener_gone(conn: psycopg.Connection, listener: str) -> None:
    """Say that a listener has ended in order."""
    conn.execute("DELETE FROM listeners WHERE id = %s", (UUID(listener),))


def listeners(conn: psycopg.Connection) -> list[ListenerRow]:
    """The listeners that have lately said that they live, the oldest first."""
    rows = conn.execute(
        """
        SELECT id, host, flow_run_id, started_at, seen_at, counts FROM listeners
        WHERE seen_at > clock_timestamp() - %s ORDER BY started_at, id
        """,
        (SILENT,),
    )
    return [ListenerRow(str(row[0]), *row[1:]) for row in rows]
