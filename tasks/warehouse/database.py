"""How to reach the warehouse: its address, a connection, the migrations, the analysts' role."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from pydantic import SecretStr
from sqlalchemy import Engine, Executable, create_engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool
from sqlalchemy.sql import ClauseElement

from tasks.errors import BadInput
from tasks.warehouse.tables import ANALYST_TABLES
from tasks.warehouse.views import view_files

VARIABLE = "SUTURE_WAREHOUSE_URL"
CONNECT_SECONDS = 10
HINT = "Write postgresql://user:password@host:port/warehouse, or start the local one."

ANALYST = "analyst"
DIALECT = make_url("postgresql+psycopg://").get_dialect()()


def warehouse_url() -> str:
    """The warehouse's address from SUTURE_WAREHOUSE_URL. Raises BadInput where it is not set."""
    url = os.environ.get(VARIABLE, "").strip()
    if not url:
        raise BadInput(VARIABLE, "is not set.", HINT)
    return url


def connect(url: str | None = None) -> psycopg.Connection:
    """A connection in autocommit mode: each of our functions is a transaction of its own.

    Use it as a context manager, which closes it. Raises BadInput, without the password, where the
    address is malformed or nobody answers there.
    """
    url = _checked(url or warehouse_url())
    try:
        return psycopg.connect(
            url, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="suture"
        )
    except psycopg.OperationalError as refused:
        raise BadInput(VARIABLE, f"no connection: {_first_line(refused)}.", HINT) from None


def engine(url: str | None = None) -> Engine:
    """A SQLAlchemy engine for what needs one (Alembic, pandas). Dispose of it after use."""
    plain = _checked(url or warehouse_url())
    address = "postgresql+psycopg://" + plain.partition("://")[2]
    try:
        return create_engine(
            address, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS}
        )
    except (ArgumentError, ValueError):
        raise BadInput(VARIABLE, "is not a database address.", HINT) from None


def upgrade(url: str | None = None) -> None:
    """Bring the warehouse's tables and views to the newest revision. Safe to run twice or at once.

    Raises BadInput where the warehouse cannot be reached.
    """
    url = url or warehouse_url()
    connect(url).close()  # says in our words what is wrong with the address
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    database = engine(url)
    try:
        with database.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        database.dispose()


def create_analyst(conn: psycopg.Connection, password: SecretStr | None = None) -> SecretStr:
    """Make (or give a new password to) the role ``analyst``, and return its password.

    It reads every table and view but the loading docks, now and later, and writes nothing. ``conn``
    must own the tables and may create roles.
    """
    password = password or SecretStr(secrets.token_urlsafe(24))
    # The server gets what it stores and not the password, which its log might repeat.
    verifier = conn.pgconn.encrypt_password(
        password.get_secret_value().encode(), ANALYST.encode(), b"scram-sha-256"
    ).decode()
    role = sql.Identifier(ANALYST)
    readable = [table.name for table in ANALYST_TABLES] + list(view_files())
    with conn.transaction():
        known = conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (ANALYST,)).fetchone()
        verb = sql.SQL("ALTER ROLE" if known else "CREATE ROLE")
        conn.execute(sql.SQL("{} {} LOGIN PASSWORD {}").format(verb, role, sql.Literal(verifier)))
        for setting in (
            "default_transaction_read_only = on",
            "statement_timeout = '10min'",
            "idle_in_transaction_session_timeout = '10min'",
        ):
            conn.execute(sql.SQL("ALTER ROLE {} SET ").format(role) + sql.SQL(setting))
        conn.execute(sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(role))
        conn.execute(
            sql.SQL("GRANT SELECT ON {} TO {}").format(
                sql.SQL(", ").join(map(sql.Identifier, readable)), role
            )
        )
        # Migrations lay the views anew, and new months bring new partitions.
        conn.execute(
            sql.SQL(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {}"
            ).format(role)
        )
    return password


def select(conn: psycopg.Connection, statement: Executable) -> list[tuple[Any, ...]]:
    """Run a SELECT that SQLAlchemy Core built, on a psycopg connection."""
    assert isinstance(statement, ClauseElement)
    compiled = statement.compile(dialect=DIALECT)
    return conn.execute(str(compiled).encode(), compiled.params).fetchall()


def _checked(url: str) -> str:
    if not url.startswith(("postgresql://", "postgres://")):
        raise BadInput(VARIABLE, "is not a postgresql:// address.", HINT)
    try:
        psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Its message would repeat the address, and with it the password.
        raise BadInput(VARIABLE, "is not a database address.", HINT) from None
    return url


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "no answer"
