"""Control-plane events, what each was about, and who listens for them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"

CLOUD = "aws or azure"
ACCOUNT = "AWS account number or Azure subscription id (lower case)"
REGION = "Region or location; global for what has none"
KIND = "Kind of resource: cloud.service.resource"


def upgrade() -> None:
    events()
    event_targets()
    op.create_table(
        "listeners",
        sa.Column("id", sa.Uuid(), nullable=False, comment="The listener"),
        _text("host", "The machine and the process"),
        _text("flow_run_id", "Prefect flow run that it is", server_default=""),
        _time("started_at", "When it began"),
        _time("seen_at", "When it last said so; after half a minute of silence it is gone"),
        _json(
            "counts", "What it has taken in and done since it began, and how deep its queues are"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("listeners_pkey")),
        comment="Who listens for events right now",
        prefixes=["UNLOGGED"],
    )


def events() -> None:
    op.create_table(
        "events",
        _text("cloud", CLOUD),
        _text("id", "The event's id in the cloud's own log: told twice, it is one event"),
        _text("account", ACCOUNT),
        _text("region", "AWS region of the call; empty on Azure", server_default=""),
        _text("operation", "What was called, as the rules' events are written"),
        _time("at", "When it was called, by the cloud's clock"),
        _text("actor", "Who called it: an ARN, a user or an application", server_default=""),
        _text("source_ip", "From where", server_default=""),
        _text("user_agent", "With what", server_default=""),
        _text("source", "Inventory entry by whose queue or webhook it came", server_default=""),
        _time("queued_at", "When the queue took it in, where it says so", nullable=True),
        _time("received_at", "When a listener took it up"),
        _json("original", "The event as it came"),
        sa.PrimaryKeyConstraint("cloud", "id", name=op.f("events_pkey")),
        comment="Control-plane events that may have changed a verdict: reads, failed calls and "
        "Suture's own writes are not kept",
    )
    op.create_index(op.f("events_received_at_idx"), "events", ["received_at"])


def event_targets() -> None:
    op.create_table(
        "event_targets",
        _text("cloud", CLOUD),
        _text("event_id", "The event"),
        _text("account", ACCOUNT),
        _text("region", REGION),
        _text("kind", KIND),
        _text("resource", "The resource it was about; empty: all of the kind there"),
        _text("source", "Inventory entry by whose queue or webhook it came", server_default=""),
        _time("at", "When the event was called, by the cloud's clock"),
        _time("received_at", "When a listener took the event up"),
        _text("state", "pending, done or failed", server_default="pending"),
        _text("message", "Why it failed, or is tried again", server_default=""),
        sa.Column(
            "tries",
            sa.Integer(),
            nullable=False,
            comment="How often its resource could not be read, or what was found not be acted on",
            server_default=sa.text("0"),
        ),
        _time("not_before", "When it is next tried"),
        _time("done_at", "When all that follows from it was done", nullable=True),
        sa.Column(
            "scan_id",
            sa.Uuid(),
            nullable=True,
            comment="The scan that read its resource after it",
        ),
        sa.PrimaryKeyConstraint(
            *("cloud", "event_id", "kind", "region", "resource"), name=op.f("event_targets_pkey")
        ),
        sa.ForeignKeyConstraint(
            ["cloud", "event_id"],
            ["events.cloud", "events.id"],
            name=op.f("event_targets_cloud_fkey"),
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(
            "state IN ('pending', 'done', 'failed')", name=op.f("event_targets_state_check")
        ),
        comment="What each event was about: the resources to be read again, and what became of "
        "that",
    )
    op.create_index(
        "event_targets_pending",
        "event_targets",
        ["not_before", "received_at"],
        postgresql_where=sa.text("state = 'pending'"),
    )
    op.create_index(
        op.f("event_targets_cloud_account_kind_resource_at_idx"),
        "event_targets",
        ["cloud", "account", "kind", "resource", "at"],
    )
    op.create_index(op.f("event_targets_done_at_idx"), "event_targets", ["done_at"])


def _text(name: str, comment: str, server_default: str | None = None) -> sa.Column[str]:
    return sa.Column(
        name, sa.Text(), nullable=False, comment=comment, server_default=server_default
    )


def _time(name: str, comment: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, comment=comment)


def _json(name: str, comment: str) -> sa.Column[object]:
    return sa.Column(
        name,
        postgresql.JSONB(),
        nullable=False,
        comment=comment,
        server_default=sa.text("'{}'"),
    )
