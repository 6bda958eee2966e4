"""Caps by the hour: however processes race and time passes, no more begins than may."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from itertools import count
from threading import Barrier

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import Capped
from tasks.model import (
    Account,
    AccountScan,
    Cloud,
    Config,
    Observation,
    Resource,
    Severity,
    Verdict,
    finding_id,
)
from tasks.warehouse import database, limits, remediations, scans
from tasks.warehouse.remediations import NewRemediation

ACCOUNT = Account(Cloud.AWS, "111122223333", source="acme")
POLICIES = ("one", "two")
NUMBERS = count()


def planned(conn: psycopg.Connection, policies: Sequence[str]) -> list[str]:
    """A remediation under each of these policies, each of a finding of its own; their ids."""
    run = next(NUMBERS)
    seen, said = [], []
    for number in range(len(policies)):
        resource = Resource(
            *(Cloud.AWS, ACCOUNT.id, "eu-central-1", "aws.ec2.security_group"),
            *(f"arn:{run}-{number}", "web", Config({})),
        )
        key = finding_id(resource.cloud, resource.account, resource.region, "rule", resource.id)
        seen.append(resource)
        said.append(
            Observation(
                *(key, resource.account, resource.cloud, resource.region, "rule", Severity.HIGH),
                *(resource.kind, resource.id, Verdict.FAIL),
            )
        )
    scans.merge_one(conn, AccountScan(ACCOUNT, seen, said), "test")
    rows = [
        NewRemediation(finding_id=one.finding_id, number=number, mode="automatic", policy=policy)
        for number, (one, policy) in enumerate(zip(said, policies, strict=True), start=1)
    ]
    return [one.id for one in remediations.save_plan(conn, f"run-{run}", rows)]


def begin(conn: psycopg.Connection, remediation: str, policy: str, caps: Mapping[str, int]) -> bool:
    """As a run begins to write; whether it may."""
    try:
        with conn.transaction():
            remediations.set_state(conn, remediation, "applying")
            limits.begin(conn, remediation, policy, caps)
    except Capped:
        return False
    return True


@pytest.mark.attack
@pytest.mark.parametrize("caps", [{"one": 5}, {"": 5}])
def test_sixteen_that_race_cannot_pass_the_cap_together(
    conn: psycopg.Connection, warehouse_url: str, caps: dict[str, int]
) -> None:
    ids = planned(conn, ["one"] * 16)
    ready = Barrier(16)

    def race(remediation: str) -> bool:
        with database.connect(warehouse_url) as own:
            ready.wait(20)
            return begin(own, remediation, "one", caps)

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(race, ids)) == 5
    states = [one.state for one in remediations.load_run(conn, f"run-{next(NUMBERS) - 1}")]
    assert sorted(states) == ["applying"] * 5 + ["planned"] * 11


def test_the_sentence_says_which_cap_and_what_happens(conn: psycopg.Connection) -> None:
    first, second = planned(conn, ["one", "two"])
    assert begin(conn, first, "one", {"": 1})
    with pytest.raises(Capped, match=r"Under all policies 1 changes have begun .* next triage"):
        limits.check_room(conn, "two", {"": 1})
    with pytest.raises(Capped, match="Under the policy one 1 changes"):
        limits.check_room(conn, "one", {"one": 1})
    assert begin(conn, second, "two", {"one": 1})


def test_what_begins_again_counts_once(conn: psycopg.Connection) -> None:
    (only,) = planned(conn, ["one"])
    assert begin(conn, only, "one", {"one": 1})
    remediations.set_state(conn, only, "waiting")  # the first write met a drift
    assert begin(conn, only, "one", {"one": 1})


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    caps=st.dictionaries(st.sampled_from(("", *POLICIES)), st.integers(1, 4)),
    moves=st.lists(
        st.tuples(st.sampled_from(POLICIES), st.integers(0, 45)), min_size=1, max_size=14
    ),
)
def test_within_any_hour_no_more_begins_than_may(
    conn: psycopg.Connection, caps: dict[str, int], moves: list[tuple[str, int]]
) -> None:
    conn.execute("UPDATE remediations SET began_at = NULL")
    ids = planned(conn, [policy for policy, _ in moves])
    begun: list[str] = []
    for remediation, (policy, minutes) in zip(ids, moves, strict=True):
        # Time passes: all that was before lies that much further back.
        conn.execute(
            "UPDATE remediations SET began_at = began_at - %s", (timedelta(minutes=minutes),)
        )
        room = all(
            len(_within(conn, begun, name, limits.HOUR)) < most
            for name, most in caps.items()
            if name in ("", policy)
        )
        assert begin(conn, remediation, policy, caps) is room
        if room:
            begun.append(remediation)
    for name, most in caps.items():
        times = sorted(_within(conn, begun, name, timedelta(days=1)))
        for start in times:
            assert sum(start <= one < start + limits.HOUR for one in times) <= most


def _within(
    conn: psycopg.Connection, ids: Sequence[str], policy: str, span: timedelta
) -> list[datetime]:
    rows = conn.execute(
        "SELECT began_at FROM remediations WHERE id = ANY(%s::uuid[]) AND %s IN ('', policy) "
        "AND began_at > clock_timestamp() - %s",
        (list(ids), policy, span),
    )
    return [one for (one,) in rows]
