"""The evidence of one remediation, out of the warehouse."""

from __future__ import annotations

from typing import Any

import psycopg

from tasks.errors import BadInput
from tasks.evidence import bundle, snapshots_in
from tasks.warehouse import audit
from tasks.warehouse.remediations import load_remediation


def evidence_of(conn: psycopg.Connection, remediation_id: str) -> dict[str, Any]:
    """What proves one remediation, up to the log's end. Raises BadInput where there is nothing."""
    record = load_remediation(conn, remediation_id)
    subjects = [record.id, record.run_id]
    own = audit.entries_about(conn, subjects)
    if not own:
        raise BadInput("remediation", f"the audit log says nothing of {record.id}.")
    segment = audit.entries_from(conn, own[0].number)
    own = [entry for entry in segment if entry.subject in subjects]
    wanted = list({one["content"] for one in snapshots_in(own)})
    found = conn.execute(
        "SELECT hash, content FROM snapshot_contents WHERE hash = ANY(%s) ORDER BY hash", (wanted,)
    ).fetchall()
    return bundle(record.id, subjects, segment, record.plan or None, dict(found))
