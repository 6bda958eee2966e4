"""The record's own role: the tables that the application may add to, and can never rewrite.

Audit log and snapshots belong to a role that the application's is not, is no member of, and cannot
become; the database is that role's too, else its owner could drop what is in it. The owner's
connection touches nothing that belongs to the application: a trigger or a function planted there
would run with the owner's rights.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from tasks.errors import BadInput
from tasks.warehouse.remediations import add_snapshot
from tasks.warehouse.rows import to_resource

READABLE = ("audit_log", "audit_head", "snapshots", "snapshot_contents", "record_version")
ADDABLE = ("snapshots", "snapshot_contents")

RECORD_LOCK = 5_782_004  # any number that nobody else takes as an advisory lock here

Connection = psycopg.Connection


def is_laid(app: Connection, revision: str) -> bool:
    """Whether the record's tables are there, at this revision of theirs."""
    if app.execute("SELECT to_regclass('public.record_version')").fetchone() == (None,):
        return False
    found = app.execute("SELECT version_num FROM public.record_version").fetchone()
    return found == (revision,)


def admit(app: Connection, owner: Connection, app_field: str, owner_field: str) -> str:
    """Check that the two roles are apart, and let the application's make its own tables.

    Returns the name of the application's role. Raises BadInput, with what an administrator does
    about it. Others who upgrade wait until this connection of the owner's ends.
    """
    owner.execute("SELECT pg_advisory_lock(%s)", (RECORD_LOCK,))
    ask = "SELECT current_database(), pg_postmaster_start_time(), current_user::text"
    its, owners = app.execute(ask).fetchone(), owner.execute(ask).fetchone()
    assert its is not None and owners is not None  # noqa: PT018
    if its[:2] != owners[:2]:
        raise BadInput(owner_field, f"is not the database of {app_field}.", "Write the same one.")
    role, owner_role = its[2], owners[2]
    row = owner.execute(
        """
        SELECT r.rolsuper, pg_has_role(r.oid, o.oid, 'MEMBER'), pg_has_role(r.oid, d.datdba,
               'MEMBER'), r.rolcreaterole AND current_setting('server_version_num')::int < 160000
        FROM pg_roles r, pg_roles o, pg_database d
        WHERE r.rolname = %s AND o.rolname = %s AND d.datname = current_database()
        """,
        (role, owner_role),
    ).fetchone()
    assert row is not None
    problems = (
        (f"{role} is a superuser, who can rewrite the record.", f"ALTER ROLE {role} NOSUPERUSER"),
        (f"{role} is, or can become, {owner_role}.", f"REVOKE {owner_role} FROM {role}"),
        (
            f"{role} owns the database, and could drop the record.",
            f"ALTER DATABASE {its[0]} OWNER TO {owner_role}",
        ),
        (f"{role} can take any role before PostgreSQL 16.", f"ALTER ROLE {role} NOCREATEROLE"),
    )
    for wrong, (problem, remedy) in zip(row, problems, strict=True):
        if wrong:
            raise BadInput(app_field, problem, f"Let an administrator run: {remedy};")
    try:
        # Usage with the right to pass it on: to analysts.
        for right in (
            "CREATE ON SCHEMA public TO {}",
            "USAGE ON SCHEMA public TO {} WITH GRANT OPTION",
        ):
            owner.execute(sql.SQL("GRANT " + right).format(sql.Identifier(role)))
    except psycopg.errors.InsufficientPrivilege:
        raise BadInput(
            owner_field,
            f"{owner_role} does not own the database.",
            f"Let an administrator run: ALTER DATABASE {its[0]} OWNER TO {owner_role};",
        ) from None
    return str(role)


def grant(owner: Connection, role: str) -> None:
    """What the application may do with the record: read it, pass that on to analysts, and add."""
    named = {name: _tables(tables) for name, tables in (("read", READABLE), ("add", ADDABLE))}
    who = sql.Identifier(role)
    with owner.transaction():
        owner.execute(
            sql.SQL("GRANT SELECT ON {} TO {} WITH GRANT OPTION").format(named["read"], who)
        )
        owner.execute(sql.SQL("GRANT INSERT ON {} TO {}").format(named["add"], who))
        owner.execute(
            sql.SQL(
                "GRANT EXECUTE ON FUNCTION public.audit_append(text, text, text, text) TO {}"
            ).format(who)
        )


def carry_over(app: Connection, owner: Connection, role: str) -> None:
    """Bring what was recorded before the record had an owner of its own into the new tables.

    Only into an empty log. The application does it itself, and may insert for that long.
    """
    if app.execute("SELECT to_regclass('public.kept_audit_log')").fetchone() == (None,):
        return
    if owner.execute("SELECT number FROM public.audit_head").fetchone() != (0,):
        return
    with _insertable(owner, role), app.transaction():
        app.execute(
            """
            INSERT INTO audit_log (number, at, actor, action, subject, details, prev_hash, hash,
                                   version, salt)
            SELECT number, at, actor, action, subject, details, prev_hash, hash, 1, ''
            FROM kept_audit_log
            """
        )
        app.execute("UPDATE audit_head SET number = k.number, hash = k.hash FROM kept_audit_head k")
        with app.cursor(row_factory=dict_row) as cursor:
            cursor.execute(
                "SELECT *, resource AS id FROM kept_snapshots ORDER BY kept_snapshots.id"
            )
            for row in cursor.fetchall():
                known = to_resource(row)
                add_snapshot(app, row["remediation_id"], row["stage"], known, at=row["taken_at"])
        app.execute("DROP TABLE kept_audit_log, kept_audit_head, kept_snapshots")


@contextmanager
def _insertable(owner: Connection, role: str) -> Iterator[None]:
    who = sql.Identifier(role)
    owner.execute(sql.SQL("GRANT INSERT ON public.audit_log TO {}").format(who))
    owner.execute(sql.SQL("GRANT UPDATE ON public.audit_head TO {}").format(who))
    try:
        yield
    finally:
        owner.execute(sql.SQL("REVOKE INSERT ON public.audit_log FROM {}").format(who))
        owner.execute(sql.SQL("REVOKE UPDATE ON public.audit_head FROM {}").format(who))


def _tables(names: tuple[str, ...]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier("public", name) for name in names)
