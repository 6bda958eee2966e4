"""What lets a scan do less: digests of what is known, accounts touched or not looked at lately."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import psycopg

from tasks.model import Account


def known_digests(
    conn: psycopg.Connection, accounts: Sequence[Account]
) -> Mapping[tuple[str, str], Mapping[str, str]]:
    """{(cloud, account): {resource id: digest}} of the resources there are, for ``load_batch``.

    Read it when the batch is read, not before the scan: a batch's worth stays in memory. Resources
    without a digest, or gone, are left out: they are written in full when they are seen.
    """
    known: dict[tuple[str, str], dict[str, str]] = {}
    rows = conn.execute(
        """
        SELECT r.cloud, r.account, r.id, r.digest
        FROM unnest(%s::text[], %s::text[]) AS a (cloud, id)
        JOIN resources r ON r.cloud = a.cloud AND r.account = a.id
        WHERE r.gone_at IS NULL AND r.digest <> ''
        """,
        _keys(accounts),
    )
    for cloud, account, resource, digest in rows:
        known.setdefault((cloud, account), {})[resource] = digest
    return known


def touch_accounts(
    conn: psycopg.Connection, accounts: Sequence[tuple[str, str]], at: datetime | None = None
) -> int:
    """Note that events told of changes in these accounts, as (cloud, id), at ``at``; default: now.

    Accounts that no scan has found yet are passed over: the next scan reads them anyway. Returns
    how many were known.
    """
    return conn.execute(
        """
        UPDATE accounts a
        SET touched_at = greatest(a.touched_at, %s)
        FROM (SELECT DISTINCT * FROM unnest(%s::text[], %s::text[]) AS t (cloud, id)) t
        WHERE a.cloud = t.cloud AND a.id = t.id
        """,
        (
            at or datetime.now(UTC),
            [str(cloud) for cloud, _ in accounts],
            [account for _, account in accounts],
        ),
    ).rowcount


def accounts_since(
    conn: psycopg.Connection,
    accounts: Sequence[Account],
    since: datetime | None = None,
    touched: bool = False,
) -> list[Account]:
    """Those of ``accounts`` that a partial scan is for, in the order given.

    ``since``: the ones that no fleet scan has read with success at or after it. ``touched``: the
    ones that an event told of after they were last read. Both: one reason is enough. Neither: all
    of them. An account that was never read is always among them.
    """
    if since is None and not touched:
        return list(accounts)
    done = {
        (cloud, account)
        for cloud, account in conn.execute(
            """
            SELECT a.cloud, a.id
            FROM unnest(%s::text[], %s::text[]) AS g (cloud, id)
            JOIN accounts a ON a.cloud = g.cloud AND a.id = g.id
            WHERE a.last_scanned_at IS NOT NULL
              AND (%s::timestamptz IS NULL OR a.last_scanned_at >= %s)
              AND (NOT %s OR a.touched_at IS NULL OR a.touched_at < a.last_scanned_at)
            """,
            (*_keys(accounts), since, since, touched),
        )
    }
    return [account for account in accounts if (str(account.cloud), account.id) not in done]


def _keys(accounts: Sequence[Account]) -> tuple[list[str], list[str]]:
    return [str(account.cloud) for account in accounts], [account.id for account in accounts]
