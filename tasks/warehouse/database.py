"""How to reach the warehouse: its address, a connection, the migrations."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from tasks.errors import BadInput

if TYPE_CHECKING:  # 25 MB that a process which only loads does without
    from sqlalchemy import Dialect, Engine, Executable

VARIABLE = "SUTURE_WAREHOUSE_URL"
CONNECT_SECONDS = 10
HINT = "Write postgresql://user:password@host:port/warehouse, or start the local one."


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
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError
    from sqlalchemy.pool import NullPool

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
    from alembic import command
    from alembic.config import Config

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


def select(conn: psycopg.Connection, statement: Executable) -> list[tuple[Any, ...]]:
    """Run a SELECT that SQLAlchemy Core built, on a psycopg connection."""
    from sqlalchemy.sql import ClauseElement

    assert isinstance(statement, ClauseElement)
    compiled = statement.compile(dialect=_dialect())
    return conn.execute(str(compiled).encode(), compiled.params).fetchall()


@cache
def _dialect() -> Dialect:
    from sqlalchemy import make_url

    return make_url("postgresql+psycopg://").get_dialect()()


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
