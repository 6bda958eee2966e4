"""Rate budgets that processes share."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "rate_budgets",
        sa.Column(
            "budget",
            sa.Text(),
            nullable=False,
            comment="What is shared: cloud/account/region/service",
        ),
        sa.Column("holder", sa.Uuid(), nullable=False, comment="The process that uses it"),
        sa.Column(
            "seen_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it last said so; after ten seconds of silence it does not count",
        ),
        sa.Column(
            "per_second",
            postgresql.DOUBLE_PRECISION(),
            nullable=True,
            comment="Calls a second that a throttle left it; null: not throttled lately",
        ),
        sa.Column(
            "cut_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was throttled",
        ),
        sa.PrimaryKeyConstraint("budget", "holder", name=op.f("rate_budgets_pkey")),
        comment="Who asks the clouds how fast right now: what processes share of a rate limit",
        prefixes=["UNLOGGED"],
    )
