"""The views that analysts read: one .sql file each, in the order of their names."""

from __future__ import annotations

from importlib.resources import files

from sqlalchemy import Connection, text


def view_files() -> dict[str, str]:
    """The SQL of each view by the view's name; a file is named NN_view_name.sql."""
    found = sorted(
        (entry for entry in files(__name__).iterdir() if entry.name.endswith(".sql")),
        key=lambda entry: entry.name,
    )
    return {
        entry.name.removesuffix(".sql").partition("_")[2]: entry.read_text(encoding="utf-8")
        for entry in found
    }


def drop_views(connection: Connection) -> None:
    """Remove our views, last first. Analysts' own views on them would stand in the way: say so."""
    for name in reversed(view_files()):
        connection.execute(text(f"DROP VIEW IF EXISTS {name}"))


def create_views(connection: Connection) -> None:
    """Create our views. No parameters: their colons are casts."""
    for statement in view_files().values():
        connection.exec_driver_sql(statement.replace("%", "%%"))
