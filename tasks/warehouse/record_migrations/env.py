"""Alembic's environment for the record's own tables: run by their owner, apart from the others.

The owner names every schema, because its search path holds none that others may write to.
"""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection, version_table="record_version", version_table_schema="public"
    )
    with context.begin_transaction():
        context.run_migrations()


migrate(context.config.attributes["connection"])
