"""The warehouse's schema: migrated from nothing, documented everywhere, read-only for analysts."""

from __future__ import annotations

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import sql
from pydantic import SecretStr

from deployments.local.postgres import EmbeddedPostgres
from tasks.errors import BadInput
from tasks.warehouse import database, roles
from tasks.warehouse.tables import metadata
from tasks.warehouse.views import view_files

UNDOCUMENTED = """
SELECT c.relname AS relation, NULL AS column
FROM pg_class c
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
  AND c.relname <> 'alembic_version' AND obj_description(c.oid, 'pg_class') IS NULL
UNION ALL
SELECT c.relname, a.attname
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
  AND c.relname <> 'alembic_version' AND NOT c.relispartition
  AND col_description(c.oid, a.attnum) IS NULL
"""


def test_every_table_view_and_column_is_documented(conn: psycopg.Connection) -> None:
    assert conn.execute(UNDOCUMENTED).fetchall() == []
    assert conn.execute("SELECT count(*) FROM pg_views WHERE schemaname = 'public'").fetchone() == (
        len(view_files()),
    )


def test_the_documentation_check_can_fail(conn: psycopg.Connection) -> None:
    conn.execute("CREATE TABLE bare (a int); CREATE VIEW naked AS SELECT 1 AS b")
    found = set(conn.execute(UNDOCUMENTED).fetchall())
    assert found == {("bare", None), ("bare", "a"), ("naked", None), ("naked", "b")}


def test_migrations_lead_to_the_tables_as_written(warehouse_url: str) -> None:
    engine = database.engine(warehouse_url)

    def ours(item: object, name: str | None, kind: str, *_: object) -> bool:
        return not (
            kind == "table" and (name or "").startswith(("observations_", "record_version"))
        )

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_upgrading_twice_changes_nothing_and_keeps_the_views(warehouse_url: str) -> None:
    database.upgrade(warehouse_url)
    with database.connect(warehouse_url) as conn:
        for view in view_files():
            conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(view)))


@pytest.fixture
def analyst_url(warehouse_url: str, postgres: EmbeddedPostgres) -> str:
    with database.connect(warehouse_url) as conn:
        password = roles.create_analyst(conn)
    name = warehouse_url.rpartition("/")[2]
    return postgres.url(name, "analyst", password=password.get_secret_value())


def test_the_analyst_reads_everything_but_the_loading_docks(analyst_url: str) -> None:
    with database.connect(analyst_url) as conn:
        for name in [table.name for table in metadata.sorted_tables if not table.info.get("stage")]:
            conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name)))
        for name in view_files():
            conn.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(name)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("SELECT * FROM stage_accounts")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO exceptions (id) VALUES (gen_random_uuid())",
        "UPDATE findings SET status = 'resolved'",
        "DELETE FROM audit_log",
        "TRUNCATE observations",
        "CREATE TABLE mine (a int)",
        "DROP VIEW open_findings",
        "SELECT nextval('load_ids')",
    ],
)
def test_the_analyst_writes_nothing(analyst_url: str, statement: str) -> None:
    with database.connect(analyst_url) as conn:
        conn.execute("SET default_transaction_read_only = off")  # anybody may set that
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute(statement.encode())


def test_the_analyst_still_reads_after_an_upgrade(analyst_url: str, warehouse_url: str) -> None:
    database.upgrade(warehouse_url)
    with database.connect(analyst_url) as conn:
        assert conn.execute("SELECT count(*) FROM open_findings").fetchone() == (0,)


def test_a_new_password_replaces_the_old_one(
    analyst_url: str, warehouse_url: str, postgres: EmbeddedPostgres
) -> None:
    with database.connect(warehouse_url) as conn:
        roles.create_analyst(conn, SecretStr("another-password"))
    with pytest.raises(BadInput, match="password authentication failed"):
        database.connect(analyst_url)
    name = warehouse_url.rpartition("/")[2]
    database.connect(postgres.url(name, "analyst", password="another-password")).close()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://root:hunter2@localhost/x", "not a postgresql"),
        ("postgresql://suture:hunter2@127.0.0.1:1/warehouse", "no connection"),
        ("postgresql://suture:hunter2@127.0.0.1:port/warehouse", "no connection"),
        ("postgresql://suture:hunter2@[::1/warehouse", "not a database address"),
    ],
)
def test_a_bad_address_is_said_without_its_password(url: str, problem: str) -> None:
    for use in (database.connect, database.upgrade):
        with pytest.raises(BadInput, match=problem) as caught:
            use(url)
        assert caught.value.field == "SUTURE_WAREHOUSE_URL"
        assert "hunter2" not in str(caught.value)


def test_no_address_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUTURE_WAREHOUSE_URL", raising=False)
    with pytest.raises(BadInput, match="SUTURE_WAREHOUSE_URL: is not set"):
        database.connect()
