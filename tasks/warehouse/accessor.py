"""For analysts: findings as a pandas DataFrame, and any table or view as a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, LiteralString

import pandas
import psycopg
import pyarrow.parquet
from psycopg import sql

from tasks.errors import BadInput
from tasks.warehouse.database import connect
from tasks.warehouse.tables import ANALYST_TABLES
from tasks.warehouse.views import view_files

arrow: Any = pyarrow  # its type hints don't say what it exports

CHUNK = 20_000  # rows in memory at once, and in one Parquet row group

FINDINGS = """
SELECT f.id, f.cloud, f.account, a.name AS account_name, f.region, f.rule, f.severity, f.kind,
       f.resource, r.name AS resource_name, r.tags, a.tags AS account_tags, f.status, f.verdict,
       f.first_seen_at, f.opened_at, f.last_seen_at, f.resolved_at, f.resolution, f.reopened
FROM findings f
LEFT JOIN accounts a ON a.cloud = f.cloud AND a.id = f.account
LEFT JOIN resources r ON r.cloud = f.cloud AND r.account = f.account AND r.id = f.resource
WHERE (%(open)s::boolean IS NULL OR (f.status = 'open') = %(open)s)
  AND (%(severity)s::text IS NULL OR f.severity = %(severity)s)
  AND (%(cloud)s::text IS NULL OR f.cloud = %(cloud)s)
  AND (%(account)s::text IS NULL OR f.account = %(account)s)
  AND (%(rule)s::text IS NULL OR f.rule = %(rule)s)
ORDER BY array_position(ARRAY['critical', 'high', 'medium', 'low'], f.severity), f.opened_at, f.id
"""

TIMES = ("first_seen_at", "opened_at", "last_seen_at", "resolved_at")


def findings(
    open: bool | None = True,
    severity: str | None = None,
    cloud: str | None = None,
    account: str | None = None,
    rule: str | None = None,
    *,
    url: str | None = None,
) -> pandas.DataFrame:
    """Findings as a DataFrame, one row each, the worst and oldest first.

    ``open=False`` gives the resolved ones, ``open=None`` both. Times are UTC; tags are
    dictionaries. Without ``url`` SUTURE_WAREHOUSE_URL counts; a read-only role is enough.
    """
    wanted = {
        "open": open,
        "severity": severity,
        "cloud": cloud,
        "account": account,
        "rule": rule,
    }
    with connect(url) as conn:
        cursor = conn.execute(FINDINGS, wanted)
        names = [column.name for column in cursor.description or ()]
        frame = pandas.DataFrame(cursor.fetchall(), columns=names)
    for name in TIMES:
        frame[name] = pandas.to_datetime(frame[name], utc=True)
    return frame


def export_parquet(path: Path | str, table: str = "findings", url: str | None = None) -> int:
    """Write a table or view to one Parquet file, chunk by chunk, and return the number of rows.

    JSON columns become text. The file appears under its name only when it is whole. Raises BadInput
    where ``table`` is none of ours.
    """
    known = [known.name for known in ANALYST_TABLES] + list(view_files())
    if table not in known:
        raise BadInput("table", f"there is no table {table!r}.", "Known: " + ", ".join(known) + ".")
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    try:
        with connect(url) as conn, conn.transaction():
            rows = _write(conn, table, partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return rows


def _write(conn: psycopg.Connection, table: str, path: Path) -> int:
    schema, selected = _schema(conn, table)
    written = 0
    with (
        conn.cursor(name="export") as cursor,
        arrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer,
    ):
        cursor.execute(sql.SQL("SELECT {} FROM {}").format(selected, sql.Identifier(table)))
        while rows := cursor.fetchmany(CHUNK):
            columns = list(zip(*rows, strict=True))
            arrays = [
                arrow.array(column, type=field.type)
                for column, field in zip(columns, schema, strict=True)
            ]
            writer.write_table(arrow.Table.from_arrays(arrays, schema=schema))
            written += len(rows)
    return written


# How a column leaves the database, by its type there; every other type leaves as text.
TYPES = {
    "boolean": arrow.bool_(),
    "integer": arrow.int32(),
    "bigint": arrow.int64(),
    "date": arrow.date32(),
    "timestamp with time zone": arrow.timestamp("us", tz="UTC"),
    "numeric": arrow.float64(),
    "double precision": arrow.float64(),
    "interval": arrow.float64(),
}
CASTS: dict[str, LiteralString] = {
    "numeric": "{}::float8",
    "interval": "extract(epoch FROM {})::float8",
}


def _schema(conn: psycopg.Connection, table: str) -> tuple[Any, sql.Composed]:
    """The Parquet schema of a table, and what to select for it. Intervals become seconds."""
    columns = conn.execute(
        """
        SELECT column_name, data_type, is_nullable = 'YES'
        FROM information_schema.columns
        WHERE table_schema = 'public' AND table_name = %s
        ORDER BY ordinal_position
        """,
        (table,),
    ).fetchall()
    fields, selected = [], []
    for name, kind, nullable in columns:
        fields.append(arrow.field(name, TYPES.get(kind, arrow.string()), nullable=nullable))
        cast: LiteralString = CASTS.get(kind, "{}" if kind in TYPES else "{}::text")
        selected.append(sql.SQL(cast).format(sql.Identifier(name)))
    return arrow.schema(fields), sql.SQL(", ").join(selected)
