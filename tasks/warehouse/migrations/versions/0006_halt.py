"""Halts, caps by the hour, gates that were asked for, and changes that stand in part."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0004"

STATES = (
    *("planned", "waiting", "applying", "remediated", "failed", "denied", "left_out", "expired"),
    *("refused", "drifted", "undone", "restored", "superseded", "already_resolved"),
    *("halted", "capped"),
)
CLOUD = "aws or azure"
ACCOUNT = "AWS account number or Azure subscription id (lower case)"


def upgrade() -> None:
    remediations()
    op.create_table(
        "halts",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="The halt"
        ),
        _text("policy", "Only this policy; empty: every one", server_default=""),
        _flag("everything", "Approved runs too, not only automatic ones"),
        _text("reason", "Why remediation was halted"),
        _text("halted_by", "Who halted it"),
        _time("halted_at", "Since when"),
        _text("lift_reason", "Why it was lifted", server_default=""),
        _text("lifted_by", "Who lifted it", server_default=""),
        _time("lifted_at", "Since when it does not hold any more; empty: it stands", nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("halts_pkey")),
        comment="When remediation was stopped, by whom and why: it stands until it is lifted",
    )
    op.create_table(
        "gate_requests",
        _text("run_id", "Prefect flow run that asked"),
        _text("cloud", CLOUD),
        _text("account", ACCOUNT),
        _time("asked_at", "When the customer's token endpoint was last asked to open"),
        _time("released_at", "When it last confirmed that it has closed", nullable=True),
        _time("given_up_at", "When asking it to close was given up", nullable=True),
        sa.PrimaryKeyConstraint("run_id", name=op.f("gate_requests_pkey")),
        comment="Gates that token endpoints were asked to open: each is to be closed again",
    )


def remediations() -> None:
    op.add_column(
        "remediations",
        _time("began_at", "When its resource was last begun to be changed", nullable=True),
    )
    op.add_column(
        "remediations",
        _flag("half_applied", "Its change stands in part: a run that puts it back is due"),
    )
    op.create_index(
        op.f("remediations_began_at_idx"),
        "remediations",
        ["began_at"],
        postgresql_where=sa.text("began_at IS NOT NULL"),
    )
    op.drop_constraint(op.f("remediations_state_check"), "remediations")
    listed = ", ".join(f"'{state}'" for state in STATES)
    op.create_check_constraint(
        op.f("remediations_state_check"), "remediations", f"state IN ({listed})"
    )


def _text(name: str, comment: str, server_default: str | None = None) -> sa.Column[str]:
    return sa.Column(
        name, sa.Text(), nullable=False, comment=comment, server_default=server_default
    )


def _flag(name: str, comment: str) -> sa.Column[bool]:
    return sa.Column(
        name, sa.Boolean(), nullable=False, comment=comment, server_default=sa.text("false")
    )


def _time(name: str, comment: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, comment=comment)
