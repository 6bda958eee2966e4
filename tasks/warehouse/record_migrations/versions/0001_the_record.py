"""The audit log, appended to by one function only, and the snapshots with their contents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None

CLOUD = "aws or azure"
ACCOUNT = "AWS account number or Azure subscription id (lower case)"


def upgrade() -> None:
    audit_log()
    snapshots()
    op.execute("COMMENT ON TABLE public.record_version IS 'Revision of the record''s own tables'")
    op.execute("COMMENT ON COLUMN public.record_version.version_num IS 'The revision'")


def audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column(
            "number",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="Counts from 1 without gaps",
        ),
        sa.Column(
            "at", sa.DateTime(timezone=True), nullable=False, comment="When it was written down"
        ),
        _text("actor", "Who did it: a person, a flow run, Suture"),
        _text("action", "What was done"),
        _text("subject", "To what: a finding, a remediation, an account"),
        _json("details", "More, as the canonical JSON that was hashed"),
        _text("prev_hash", "The hash of the row before"),
        _text("hash", "sha256 over prev_hash, number and all that the row says: tasks/audit.py"),
        sa.Column(
            "version", sa.SmallInteger(), nullable=False, comment="How its hash is made: 1 or 2"
        ),
        _text(
            "salt", "Random, so that a row's hash does not tell what it says; empty in version 1"
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("audit_log_pkey")),
        comment="What Suture did and who decided it: an append-only hash chain",
        schema="public",
    )
    op.create_index(op.f("audit_log_subject_idx"), "audit_log", ["subject"], schema="public")
    op.create_table(
        "audit_head",
        sa.Column(
            "single",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="One row only",
        ),
        sa.Column(
            "number", sa.BigInteger(), nullable=False, comment="The last row's number; 0: none"
        ),
        _text("hash", "The last row's hash: keep a copy elsewhere to prove that none was cut off"),
        sa.CheckConstraint("single", name=op.f("audit_head_single_check")),
        sa.PrimaryKeyConstraint("single", name=op.f("audit_head_pkey")),
        comment="The end of the audit log's hash chain",
        schema="public",
    )
    op.execute("INSERT INTO public.audit_head (number, hash) VALUES (0, repeat('0', 64))")
    op.execute(
        """
        CREATE FUNCTION public.record_is_append_only() RETURNS trigger
        LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
        END
        $$
        """
    )
    _append_only("audit_log")
    op.execute(AUDIT_APPEND)
    op.execute("REVOKE ALL ON FUNCTION public.audit_append(text, text, text, text) FROM PUBLIC")


# Whoever may call it says who did what to what. When, after what, and under which hash is not
# theirs to say. The head's row is locked until the caller's transaction ends: one chain.
AUDIT_APPEND = """
CREATE FUNCTION public.audit_append(
    its_actor text, its_action text, its_subject text, its_details text
) RETURNS public.audit_log
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    head public.audit_head;
    entry public.audit_log;
    body text;
BEGIN
    SELECT * INTO STRICT head FROM public.audit_head FOR UPDATE;
    entry.number := head.number + 1;
    entry.at := clock_timestamp();
    entry.actor := its_actor;
    entry.action := its_action;
    entry.subject := its_subject;
    entry.details := its_details::json;
    entry.prev_hash := head.hash;
    entry.version := 2;
    entry.salt := replace(gen_random_uuid()::text, '-', '');
    SELECT string_agg(encode(sha256(convert_to(part, 'UTF8')), 'hex'), E'\\n' ORDER BY place)
    INTO body
    FROM unnest(ARRAY[
        entry.salt,
        to_char(entry.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"+00:00"'),
        its_actor, its_action, its_subject, its_details
    ]) WITH ORDINALITY AS parts (part, place);
    entry.hash := encode(sha256(convert_to(
        head.hash || E'\\n' || entry.number || E'\\n'
        || encode(sha256(convert_to(body, 'UTF8')), 'hex'), 'UTF8')), 'hex');
    INSERT INTO public.audit_log (number, at, actor, action, subject, details, prev_hash, hash,
                                  version, salt)
    VALUES (entry.number, entry.at, entry.actor, entry.action, entry.subject, entry.details,
            entry.prev_hash, entry.hash, entry.version, entry.salt);
    UPDATE public.audit_head SET number = entry.number, hash = entry.hash;
    RETURN entry;
END
$$
"""


def snapshots() -> None:
    op.create_table(
        "snapshot_contents",
        _text("hash", "sha256 of content"),
        _text("content", "The resource and what hangs on it, as canonical JSON"),
        _json("config", "The resource's configuration in the cloud's own order of keys"),
        sa.CheckConstraint(
            "hash = encode(sha256(convert_to(content, 'UTF8')), 'hex')",
            name=op.f("snapshot_contents_hash_check"),
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("snapshot_contents_pkey")),
        comment="What snapshots hold, each content once, under its hash",
        schema="public",
    )
    op.create_table(
        "snapshots",
        sa.Column(
            "id",
            sa.BigInteger(),
            sa.Identity(always=True),
            nullable=False,
            comment="The snapshot",
        ),
        sa.Column(
            "remediation_id", sa.Uuid(), nullable=False, comment="The remediation it was taken for"
        ),
        _text("stage", "before, during, after or undone"),
        sa.Column(
            "taken_at", sa.DateTime(timezone=True), nullable=False, comment="When it was taken"
        ),
        _text("cloud", CLOUD),
        _text("account", ACCOUNT),
        _text("region", "Region or location; global for what has none"),
        _text("kind", "Kind of resource: cloud.service.resource"),
        _text("resource", "The resource's id"),
        _text("name", "Its name or short id", server_default=""),
        _text("content", "The hash of what was read: see snapshot_contents"),
        _json(
            "config",
            "Configuration in the cloud's own order of keys, where that is not its content's",
            nullable=True,
        ),
        _json("calls", "The calls that gave it: operation, target, request id, status, time"),
        _text("etag", "ARM's ETag; empty on AWS", server_default=""),
        _text("fingerprint", "sha256 of id, configuration and gaps"),
        sa.CheckConstraint(
            "stage IN ('before', 'during', 'after', 'undone')", name=op.f("snapshots_stage_check")
        ),
        sa.ForeignKeyConstraint(
            ["content"], ["public.snapshot_contents.hash"], name=op.f("snapshots_content_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("snapshots_pkey")),
        comment="A resource as it was read around a fix: what restore puts back",
        schema="public",
    )
    op.create_index(
        op.f("snapshots_remediation_id_idx"), "snapshots", ["remediation_id"], schema="public"
    )
    _append_only("snapshot_contents")
    _append_only("snapshots")


def _text(name: str, comment: str, server_default: str | None = None) -> sa.Column[str]:
    return sa.Column(
        name, sa.Text(), nullable=False, comment=comment, server_default=server_default
    )


def _json(name: str, comment: str, *, nullable: bool = False) -> sa.Column[object]:
    kind = postgresql.JSON(astext_type=sa.Text())
    return sa.Column(name, kind, nullable=nullable, comment=comment)


def _append_only(table: str) -> None:
    """The owner, too, has to take the trigger away before it can rewrite anything."""
    op.execute(
        f"""
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON public.{table}
        FOR EACH STATEMENT EXECUTE FUNCTION public.record_is_append_only()
        """
    )
