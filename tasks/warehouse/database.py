"""How to reach the warehouse: its address, a connection, the migrations."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus

from tasks.errors import BadInput
from tasks.warehouse.kept import KEEPER, KeptConnection

if TYPE_CHECKING:  # 25 MB that a process which only loads does without
    from alembic.config import Config
    from sqlalchemy import Dialect, Engine, Executable

VARIABLE = "SUTURE_WAREHOUSE_URL"
OWNER_VARIABLE = "SUTURE_WAREHOUSE_OWNER_URL"
CONNECT_SECONDS = 10
HINT = "Write postgresql://user:password@host:port/warehouse, or start the local one."


def warehouse_url() -> str:
    """The warehouse's address from SUTURE_WAREHOUSE_URL. Raises BadInput where it is not set."""
    url = os.environ.get(VARIABLE, "").strip()
    if not url:
        raise BadInput(VARIABLE, "is not set.", HINT)
    return url


def connect(url: str | None = None, *, field: str = VARIABLE) -> psycopg.Connection:
    """A connection in autocommit mode: each of our functions is a transaction of its own.

    Use it as a context manager, which closes it, or within ``kept.keeping`` gives it back. Raises
    BadInput, without the password, where the address is malformed or nobody answers there;
    ``field`` is where the address was written.
    """
    url = _checked(url or warehouse_url(), field)
    keeper = KEEPER.get()
    if keeper is not None and (known := keeper.hand_out(url)):
        return known
    try:
        made = KeptConnection.connect(
            url, autocommit=True, connect_timeout=CONNECT_SECONDS, application_name="suture"
        )
        made.keeper, made.url = keeper, url
        return made
    except psycopg.OperationalError as refused:
        raise BadInput(field, f"no connection: {_first_line(refused)}.", HINT) from None


@contextmanager
def whole(conn: psycopg.Connection) -> Iterator[None]:
    """A transaction; within the caller's that one, which then fails with whatever fails in here."""
    if conn.info.transaction_status is TransactionStatus.INTRANS:
        yield
        return
    with conn.transaction():
        yield


def engine(url: str | None = None, *, search_path: str = "") -> Engine:
    """A SQLAlchemy engine for what needs one (Alembic, pandas). Dispose of it after use."""
    from sqlalchemy import create_engine
    from sqlalchemy.exc import ArgumentError
    from sqlalchemy.pool import NullPool

    plain = _checked(url or warehouse_url())
    address = "postgresql+psycopg://" + plain.partition("://")[2]
    try:
        options = {"options": f"-c search_path={search_path}"} if search_path else {}
        return create_engine(
            address,
            poolclass=NullPool,
            connect_args={"connect_timeout": CONNECT_SECONDS, **options},
        )
    except (ArgumentError, ValueError):
        raise BadInput(VARIABLE, "is not a database address.", HINT) from None


def upgrade(url: str | None = None, owner_url: str | None = None) -> None:
    """Bring the warehouse's tables and views to the newest revision. Safe to run twice or at once.

    ``owner_url`` is the address of the role that owns the record, from SUTURE_WAREHOUSE_OWNER_URL
    unless given; it is needed where the record's tables are missing or old. Raises BadInput where
    it is missing then, where the warehouse cannot be reached, or where the application's role could
    rewrite the record.
    """
    from tasks.warehouse import record

    url = url or warehouse_url()
    owner_url = owner_url or os.environ.get(OWNER_VARIABLE, "").strip()
    with connect(url) as app:
        if not owner_url:
            if not record.is_laid(app, _newest(RECORD)):
                raise BadInput(OWNER_VARIABLE, "is not set.", OWNER_HINT)
            _migrate(TABLES, url)
            return
        with connect(owner_url, field=OWNER_VARIABLE) as owner:
            owner.execute("SET search_path = pg_catalog")
            role = record.admit(app, owner, VARIABLE, OWNER_VARIABLE)
            _migrate(TABLES, url)
            _migrate(RECORD, owner_url, search_path="pg_catalog")
            record.grant(owner, role)
            record.carry_over(app, owner, role)


TABLES, RECORD = "migrations", "record_migrations"
OWNER_HINT = (
    "The audit log and the snapshots belong to a role that the application is not: write that "
    "role's address, postgresql://suture_owner:password@host:port/warehouse, for this command only."
)


def _migrate(scripts: str, url: str, *, search_path: str = "", revision: str = "head") -> None:
    from alembic import command

    config = _alembic(scripts)
    database = engine(url, search_path=search_path)
    try:
        with database.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    finally:
        database.dispose()


def _newest(scripts: str) -> str:
    from alembic.script import ScriptDirectory

    return str(ScriptDirectory.from_config(_alembic(scripts)).get_current_head())


def _alembic(scripts: str) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name(scripts)))
    config.set_main_option("path_separator", "os")
    return config


@dataclass(frozen=True, slots=True)
class Query:
    """A SELECT's text, and the values that are the same each time."""

    text: bytes
    fixed: Mapping[str, Any]


def query(statement: Executable) -> Query:
    """What SQLAlchemy Core built, to be run many times: building it takes a millisecond or two."""
    from sqlalchemy.sql import ClauseElement

    assert isinstance(statement, ClauseElement)
    compiled = statement.compile(dialect=_dialect())
    return Query(str(compiled).encode(), compiled.params)


def select(conn: psycopg.Connection, wanted: Query, **values: Any) -> list[tuple[Any, ...]]:
    """Run a SELECT on a psycopg connection, with values for its parameters."""
    return conn.execute(wanted.text, {**wanted.fixed, **values}).fetchall()


@cache
def _dialect() -> Dialect:
    from sqlalchemy import make_url

    return make_url("postgresql+psycopg://").get_dialect()()


def _checked(url: str, field: str = VARIABLE) -> str:
    if not url.startswith(("postgresql://", "postgres://")):
        raise BadInput(field, "is not a postgresql:// address.", HINT)
    try:
        psycopg.conninfo.conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # Its message would repeat the address, and with it the password.
        raise BadInput(field, "is not a database address.", HINT) from None
    return url


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else "no answer"
