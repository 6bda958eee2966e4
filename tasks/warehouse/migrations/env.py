"""Alembic's environment: runs the revisions, then lays the views anew, all in one transaction."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection, text

from tasks.warehouse.tables import metadata
from tasks.warehouse.views import create_views, drop_views

MIGRATION_LOCK = 5_782_001  # any number that nobody else takes as an advisory lock here


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        # Two servers starting at once: the second waits, then finds nothing to do.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        # Views hold on to the columns they read: out of the way first, back at the end.
        drop_views(connection)
        context.run_migrations()
        create_views(connection)


migrate(context.config.attributes["connection"])
