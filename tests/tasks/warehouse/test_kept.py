"""Kept connections: used again, without their locks, and dropped when they are broken."""

from __future__ import annotations

import threading
from contextvars import copy_context
from typing import Any

import psycopg
import pytest

from tasks.warehouse import carriers, kept
from tasks.warehouse.database import connect
from tasks.warehouse.kept import MOST_KEPT, keeping


def pid(connection: psycopg.Connection) -> int:
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def test_without_keeping_a_connection_is_closed(warehouse_url: str) -> None:
    with connect(warehouse_url) as connection:
        first = pid(connection)
    assert connection.closed
    with connect(warehouse_url) as connection:
        assert pid(connection) != first


def test_what_is_let_go_of_is_used_again_in_other_threads_too(warehouse_url: str) -> None:
    seen: list[int] = []

    def use() -> None:
        with connect(warehouse_url) as connection:
            seen.append(pid(connection))

    with keeping():
        use()
        thread = threading.Thread(target=copy_context().run, args=(use,))
        thread.start()
        thread.join()
        with connect(warehouse_url) as one, connect(warehouse_url) as two:
            assert pid(one) != pid(two)
    assert seen[0] == seen[1]


def test_locks_are_let_go_of_with_the_connection(
    warehouse_url: str, conn: psycopg.Connection
) -> None:
    with keeping():
        with connect(warehouse_url) as connection:
            assert carriers.carry(connection, "a run")
            assert not carriers.carry(conn, "a run")
        assert carriers.carry(conn, "a run")


def test_a_connection_that_broke_is_not_handed_out(
    warehouse_url: str, conn: psycopg.Connection
) -> None:
    with keeping():
        with connect(warehouse_url) as connection:
            first = pid(connection)
        conn.execute("SELECT pg_terminate_backend(%s, 5000)", (first,))
        with connect(warehouse_url) as connection:
            assert pid(connection) != first


def test_only_what_has_lain_for_long_is_asked_whether_it_works(
    warehouse_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = kept.KeptConnection.execute

    def execute(self: kept.KeptConnection, query: Any, *given: Any, **more: Any) -> Any:
        asked.append(query)
        return real(self, query, *given, **more)

    monkeypatch.setattr(kept.KeptConnection, "execute", execute)

    def connected() -> None:
        with connect(warehouse_url) as connection:
            assert isinstance(connection, kept.KeptConnection)

    with keeping():
        connected()
        connected()
        assert "SELECT 1" not in asked
        monkeypatch.setattr(kept, "SURE_SECONDS", 0.0)
        connected()
        assert "SELECT 1" in asked


def test_one_in_the_middle_of_a_transaction_is_not_kept(warehouse_url: str) -> None:
    with keeping():
        connection = connect(warehouse_url)
        first = pid(connection)
        connection.execute("BEGIN")
        connection.close()
        assert connection.closed
        with connect(warehouse_url) as connection:
            assert pid(connection) != first


def test_all_are_closed_in_the_end(warehouse_url: str) -> None:
    with keeping():
        many = [connect(warehouse_url) for _ in range(MOST_KEPT + 2)]
        for one in many:
            one.close()
        assert sum(one.closed for one in many) == 2
        late = connect(warehouse_url)
    late.close()
    assert all(one.closed for one in (*many, late))
