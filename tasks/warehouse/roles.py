"""The analysts' role: reads every table and view, writes none."""

from __future__ import annotations

import secrets

import psycopg
from psycopg import sql
from pydantic import SecretStr

from tasks.warehouse.tables import ANALYST_TABLES
from tasks.warehouse.views import view_files

ANALYST = "analyst"


def create_analyst(conn: psycopg.Connection, password: SecretStr | str | None = None) -> SecretStr:
    """Make the role ``analyst``, or give it a new password, and return the password.

    It reads every table and view but the loading docks, now and later, and writes nothing. ``conn``
    must own the tables and may create roles.
    """
    if not isinstance(password, SecretStr):
        password = SecretStr(password or secrets.token_urlsafe(24))
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
