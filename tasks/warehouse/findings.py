"""Findings, their resources and accounts, read back as the model's values; exceptions to them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache, lru_cache
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.rows import dict_row
from sqlalchemy import Integer, Select, and_, any_, bindparam, func, literal, or_
from sqlalchemy import select as sql_select
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.sql.expression import ColumnElement
from sqlalchemy.types import Text

from tasks.errors import BadInput
from tasks.model import Account, Cloud, Finding, Resource, Severity
from tasks.warehouse.database import Query, query, select
from tasks.warehouse.rows import clean, to_account, to_resource
from tasks.warehouse.tables import accounts, exceptions, findings, resources

SHORTEST_BEGINNING = 8  # of an id: what people must write at least


def open_findings(
    conn: psycopg.Connection,
    *,
    ids: Sequence[str] | None = None,
    resource_ids: Sequence[str] | None = None,
    cloud: str | None = None,
    account: str | None = None,
    severity: str | None = None,
    rule: str | None = None,
    limit: int | None = None,
    excepted: bool = False,
) -> list[Finding]:
    """Open findings with the tags of resource and account, the worst and oldest first.

    ``excepted`` also gives those that an exception accepts. A finding whose last verdict is
    unknown is open still.
    """
    plain = {"cloud": cloud, "account": account, "severity": severity, "rule": rule}
    given: dict[str, Any] = {
        "ids": None if ids is None else list(ids),
        "resources": None if resource_ids is None else list(resource_ids),
        **{name: None if value is None else str(value) for name, value in plain.items()},
        "limit": limit,
    }
    wanted = {name: value for name, value in given.items() if value is not None}
    rows = select(conn, _open(frozenset(wanted), excepted), **wanted)
    return [_finding(row) for row in rows]


def findings_by_ids(conn: psycopg.Connection, ids: Sequence[str]) -> list[Finding]:
    """Findings of these ids, open or resolved, excepted or not. Ids nobody knows are left out."""
    return [_finding(row) for row in select(conn, _named(0), ids=list(ids))]


def findings_named(conn: psycopg.Connection, texts: Sequence[str]) -> dict[str, list[Finding]]:
    """For each text the findings it names: it is an id, or at least 8 characters of its beginning.

    None where nobody knows it; several where it is too short to tell them apart.
    """
    begun = [text for text in texts if _is_beginning(text)]
    values = {f"begun_{number}": text for number, text in enumerate(begun)}
    rows = select(conn, _named(len(begun)), ids=list(texts), **values)
    found = [_finding(row) for row in rows]
    named: dict[str, list[Finding]] = {}
    for text in texts:
        exact = [finding for finding in found if finding.id == text]
        begin_so = [one for one in found if _is_beginning(text) and one.id.startswith(text)]
        named[text] = exact or begin_so
    return named


def _is_beginning(text: str) -> bool:
    return SHORTEST_BEGINNING <= len(text) < 64


def finding_by_id(conn: psycopg.Connection, finding_id: str) -> Finding:
    """One finding, open or resolved, by its id or the beginning of it.

    Raises BadInput where there is none, or where several begin so.
    """
    found = findings_named(conn, [finding_id])[finding_id]
    if not found:
        raise BadInput("finding", f"there is no finding {finding_id}.")
    if len(found) > 1:
        raise BadInput("finding", f"{len(found)} findings begin with {finding_id}.", "Write more.")
    return found[0]


def resource_of(conn: psycopg.Connection, finding_id: str) -> Resource | None:
    """The finding's resource as it was last seen; None where it was never seen or is gone."""
    return _resource(
        conn,
        """
        SELECT r.* FROM resources r
        JOIN findings f ON f.cloud = r.cloud AND f.account = r.account AND f.resource = r.id
        WHERE f.id = %s AND r.gone_at IS NULL
        """,
        (finding_id,),
    )


def resource_by_id(
    conn: psycopg.Connection, cloud: str, account_id: str, resource_id: str
) -> Resource | None:
    """A resource as it was last seen; None where it was never seen or is gone."""
    return _resource(
        conn,
        "SELECT * FROM resources WHERE cloud = %s AND account = %s AND id = %s AND gone_at IS NULL",
        (cloud, account_id, resource_id),
    )


def account_of(conn: psycopg.Connection, cloud: str, account_id: str) -> Account:
    """An account as discovery last saw it. Raises BadInput where no scan knows it."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute("SELECT * FROM accounts WHERE cloud = %s AND id = %s", (cloud, account_id))
        row = cursor.fetchone()
    if row is None:
        raise BadInput("account", f"{cloud} {account_id} is in no scan yet.", "Scan it first.")
    return to_account(row)


def all_accounts(conn: psycopg.Connection, cloud: str | None = None) -> list[Account]:
    """Every account that the warehouse knows, in order."""
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(
            "SELECT * FROM accounts WHERE %(cloud)s::text IS NULL OR cloud = %(cloud)s "
            "ORDER BY cloud, id",
            {"cloud": cloud},
        )
        return [to_account(row) for row in cursor]


def add_exception(
    conn: psycopg.Connection,
    *,
    reason: str,
    created_by: str,
    finding_id: str | None = None,
    rule: str | None = None,
    cloud: str | None = None,
    account: str | None = None,
    expires_at: datetime | None = None,
) -> str:
    """Accept a risk: findings that match every given part are not handed to triage until it ends.

    Returns the exception's id. Raises BadInput without any part, which would accept everything.
    """
    if not any((finding_id, rule, cloud, account)):
        raise BadInput("exception", "it would match every finding.", "Name a finding or a rule.")
    exception = uuid4()
    conn.execute(
        """
        INSERT INTO exceptions (id, finding_id, rule, cloud, account, reason, created_by,
                                created_at, expires_at)
        VALUES (%s, %s, %s, %s, %s, %s, %s, now(), %s)
        """,
        (
            *(exception, finding_id, rule, cloud, account, clean(reason), clean(created_by)),
            expires_at,
        ),
    )
    return str(exception)


def _query() -> Select[Any]:
    ranks = array([literal(severity.value) for severity in Severity])
    return (
        sql_select(
            *(findings.c.id, findings.c.cloud, findings.c.account, findings.c.region),
            *(findings.c.rule, findings.c.severity, findings.c.kind, findings.c.resource),
            *(findings.c.status, resources.c.tags, accounts.c.tags),
        )
        .outerjoin(
            resources,
            and_(
                resources.c.cloud == findings.c.cloud,
                resources.c.account == findings.c.account,
                resources.c.id == findings.c.resource,
            ),
        )
        .outerjoin(
            accounts,
            and_(accounts.c.cloud == findings.c.cloud, accounts.c.id == findings.c.account),
        )
        .order_by(
            func.array_position(ranks, findings.c.severity), findings.c.opened_at, findings.c.id
        )
    )


@cache
def _open(wanted: frozenset[str], excepted: bool) -> Query:
    """Open findings, by what of this is to be given: ids, resources, cloud, ..., limit."""
    filters = {
        "ids": findings.c.id == any_(_texts("ids")),
        "resources": findings.c.resource == any_(_texts("resources")),
        **{name: findings.c[name] == bindparam(name) for name in _COLUMNS},
    }
    statement = _query().where(findings.c.status == "open")
    statement = statement.where(*(one for name, one in filters.items() if name in wanted))
    if not excepted:
        statement = statement.where(~_excepted())
    if "limit" in wanted:
        statement = statement.limit(bindparam("limit", type_=Integer))
    return query(statement)


_COLUMNS = ("cloud", "account", "severity", "rule")


@lru_cache(maxsize=64)
def _named(begun: int) -> Query:
    """Findings of some ids, or whose ids begin as ``begun_0`` and so on say."""
    beginnings = (
        func.starts_with(findings.c.id, bindparam(f"begun_{number}", type_=Text))
        for number in range(begun)
    )
    return query(_query().where(or_(findings.c.id == any_(_texts("ids")), *beginnings)))


def _excepted() -> ColumnElement[bool]:
    scopes = (
        (exceptions.c.finding_id, findings.c.id),
        (exceptions.c.rule, findings.c.rule),
        (exceptions.c.cloud, findings.c.cloud),
        (exceptions.c.account, findings.c.account),
    )
    return (
        sql_select(literal(1))
        .where(
            or_(exceptions.c.expires_at.is_(None), exceptions.c.expires_at > func.now()),
            *(or_(scope.is_(None), scope == column) for scope, column in scopes),
        )
        .correlate(findings)
        .exists()
    )


def _texts(name: str) -> ColumnElement[Any]:
    return bindparam(name, type_=ARRAY(Text))


def _finding(row: tuple[Any, ...]) -> Finding:
    return Finding(
        id=row[0],
        cloud=Cloud(row[1]),
        account=row[2],
        region=row[3],
        rule=row[4],
        severity=Severity(row[5]),
        kind=row[6],
        resource=row[7],
        status=row[8],
        tags=row[9] or {},
        account_tags=row[10] or {},
    )


def _resource(conn: psycopg.Connection, statement: str, values: tuple[str, ...]) -> Resource | None:
    with conn.cursor(row_factory=dict_row) as cursor:
        cursor.execute(statement.encode(), values)
        row = cursor.fetchone()
    return to_resource(row) if row else None
