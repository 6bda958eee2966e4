"""The audit log in the database: appended from many sides, and any tampering found."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from deployments.local.postgres import EmbeddedPostgres
from tasks.warehouse import audit, database


def fill(conn: psycopg.Connection, count: int = 5) -> None:
    for index in range(count):
        audit.append(
            conn, "ann", "approve", f"finding-{index}", {"n": 1.50, "big": 10**25, "é": "�"}
        )


def test_a_log_holds_as_written(conn: psycopg.Connection) -> None:
    assert audit.verify_chain(conn) is None
    fill(conn)
    assert audit.verify_chain(conn) is None
    assert [entry.number for entry in audit.entries(conn)] == [1, 2, 3, 4, 5]


def test_many_writers_make_one_chain(conn: psycopg.Connection, warehouse_url: str) -> None:
    def write(index: int) -> None:
        with database.connect(warehouse_url) as own:
            fill(own, 5)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert audit.verify_chain(conn) is None
    assert audit.head(conn) is not None
    assert audit.head(conn)[0] == 30


def test_an_entry_of_a_transaction_that_fails_is_not_written(conn: psycopg.Connection) -> None:
    fill(conn, 1)
    with conn.transaction(force_rollback=True):
        audit.append(conn, "ann", "approve", "lost")
    audit.append(conn, "ann", "approve", "kept")
    assert [entry.subject for entry in audit.entries(conn)] == ["finding-0", "kept"]
    assert audit.verify_chain(conn) is None


@pytest.fixture
def admin(warehouse_url: str, postgres: EmbeddedPostgres) -> Iterator[psycopg.Connection]:
    """A superuser in the same warehouse: only one can still tamper with the log."""
    name = warehouse_url.rpartition("/")[2]
    with database.connect(postgres.url(name, "postgres")) as connection:
        connection.execute("ALTER TABLE audit_log DISABLE TRIGGER append_only")
        yield connection


@pytest.mark.parametrize(
    ("tampering", "number"),
    [
        ("UPDATE audit_log SET actor = 'eve' WHERE number = 3", 3),
        ("UPDATE audit_log SET details = '{\"n\": 2}' WHERE number = 2", 2),
        ("UPDATE audit_log SET salt = '' WHERE number = 2", 2),
        ("UPDATE audit_log SET version = 1 WHERE number = 2", 2),
        ("UPDATE audit_log SET version = 2 WHERE number = 2", 2),
        ("UPDATE audit_log SET at = at - interval '1 microsecond' WHERE number = 4", 4),
        ("DELETE FROM audit_log WHERE number = 1", 1),
        ("DELETE FROM audit_log WHERE number = 3", 3),
        ("DELETE FROM audit_log WHERE number = 5", 5),
        ("DELETE FROM audit_log", 1),
        ("UPDATE audit_head SET number = 4", 5),
    ],
)
def test_tampering_is_found(
    conn: psycopg.Connection, admin: psycopg.Connection, tampering: str, number: int
) -> None:
    fill(conn)
    admin.execute(tampering.encode())
    broken = audit.verify_chain(conn)
    assert broken is not None
    assert broken.number == number


def test_a_head_kept_elsewhere_finds_a_log_cut_off_with_its_head(
    conn: psycopg.Connection, admin: psycopg.Connection
) -> None:
    fill(conn)
    kept = audit.head(conn)
    admin.execute("DELETE FROM audit_log WHERE number = 5")
    admin.execute(
        "UPDATE audit_head SET number = 4, hash = (SELECT hash FROM audit_log WHERE number = 4)"
    )
    assert audit.verify_chain(conn) is None
    broken = audit.verify_chain(conn, kept)
    assert broken is not None
    assert broken.number == 5
