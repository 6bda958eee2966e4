"""Claims, resume, unchanged resources, and fewer and cheaper indexes for the merge."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

UNCHANGED = "Resources as they were before: nothing was written for them"


def upgrade() -> None:
    resume()
    unchanged_resources()
    loading_dock()
    indexes()


def resume() -> None:
    op.add_column(
        "accounts",
        sa.Column(
            "touched_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When an event last told of a change in it",
        ),
    )
    op.add_column("scans", _text("selection", "What was asked for, as one text; empty: everything"))
    op.add_column("scan_accounts", _text("source", "Inventory entry that it came from"))
    op.add_column(
        "scan_accounts",
        sa.Column(
            "claim",
            sa.Integer(),
            nullable=True,
            comment="Advisory lock of the process that took it to scan it; empty: nobody has",
        ),
    )
    op.create_index(
        "scan_accounts_unclaimed",
        "scan_accounts",
        ["scan_id", "cloud", "source", "account"],
        postgresql_where=sa.text("status = 'pending' AND claim IS NULL"),
    )
    op.drop_constraint("scans_state_check", "scans")
    op.create_check_constraint(
        op.f("scans_state_check"),
        "scans",
        "state IN ('running', 'interrupted', 'merged', 'finished', 'failed')",
    )
    # Numbers of claims' advisory locks: one for each connection that takes accounts.
    op.execute("CREATE SEQUENCE claim_ids AS integer CYCLE")
    _comment("scans", "state", "running, interrupted, merged, finished or failed")
    _comment("scans", "message", "Why it failed or was interrupted, in words")


def unchanged_resources() -> None:
    op.add_column("scans", _count("unchanged", UNCHANGED))
    op.add_column("scan_accounts", _count("unchanged", UNCHANGED))
    op.add_column("scan_coverage", _count("resources", "Resources seen there"))
    op.add_column(
        "scan_coverage",
        _count("unchanged", "Those of them that were as before: their last verdicts hold still"),
    )
    op.add_column(
        "resources",
        _text(
            "digest",
            "sha256 of all that is kept of it and of the rules that judged it; empty: not to be "
            "relied on",
        ),
    )
    _comment("scans", "observations", "Verdicts given, those on unchanged resources too")
    _comment(
        "resources",
        "last_seen_at",
        "Last written: while it is unchanged, scan_coverage says when it was seen",
    )
    _comment("resources", "last_scan_id", "The scan that wrote it last")
    op.create_table_comment(
        "scan_coverage",
        "What each scan really read: only this can resolve a finding as gone, or confirm a verdict "
        "without a new observation",
    )
    op.create_table_comment(
        "observations",
        "Verdicts, append-only, partitioned by month: one holds until the next on its finding, as "
        "long as scan_coverage says that its place was read",
    )


def loading_dock() -> None:
    """A scan under way starts its loading anew: what it loaded has another form."""
    op.execute("TRUNCATE stage_accounts, stage_coverage, stage_resources, stage_observations")
    for table in ("stage_coverage", "stage_resources", "stage_observations"):
        op.drop_column(table, "scan_id")
    for name in (
        *("resources", "unchanged", "passed", "failed_verdicts", "unknown"),
        *("failed_critical", "failed_high", "failed_medium", "failed_low"),
    ):
        op.add_column("stage_accounts", _count(name, "As in scan_accounts"))
    op.add_column(
        "stage_accounts",
        sa.Column(
            "unchanged_ids",
            postgresql.ARRAY(sa.Text()),
            nullable=True,
            comment="Resources that are as they were",
        ),
    )
    op.add_column(
        "stage_accounts",
        sa.Column(
            "unchanged_digests",
            postgresql.ARRAY(sa.BigInteger()),
            nullable=True,
            comment="The beginnings of their digests, in the same order",
        ),
    )
    op.add_column("stage_coverage", _count("resources", "Resources seen there"))
    op.add_column("stage_coverage", _count("unchanged", "Those of them that are as they were"))
    op.add_column(
        "stage_resources",
        sa.Column(
            "digest",
            sa.Text(),
            nullable=False,
            comment="sha256 of all that is kept of it and of the rules; empty: none was taken",
        ),
    )


def indexes() -> None:
    op.drop_constraint("finding_episodes_finding_id_fkey", "finding_episodes")
    op.drop_constraint("scan_coverage_scan_id_fkey", "scan_coverage")
    op.drop_index("finding_episodes_one_open", "finding_episodes")
    op.drop_index("finding_episodes_finding_id_idx", "finding_episodes")
    op.create_index(
        "finding_episodes_one_open",
        "finding_episodes",
        ["finding_id", "closed_at"],
        unique=True,
        postgresql_nulls_not_distinct=True,
    )
    op.drop_index("findings_resource_idx", "findings")
    op.drop_index("findings_cloud_account_kind_idx", "findings")
    op.create_index(
        op.f("findings_cloud_account_kind_idx"), "findings", ["cloud", "account", "kind"]
    )
    op.execute("ALTER TABLE findings SET (fillfactor = 45)")
    op.drop_index("observations_finding_id_observed_at_idx", "observations")
    op.create_index(
        op.f("observations_account_rule_observed_at_idx"),
        "observations",
        ["account", "rule", "observed_at"],
    )
    op.create_index(
        op.f("scan_coverage_observed_at_idx"),
        "scan_coverage",
        ["observed_at"],
        postgresql_using="brin",
        postgresql_with={"autosummarize": "on"},
    )


def _text(name: str, comment: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), server_default="", nullable=False, comment=comment)


def _count(name: str, comment: str) -> sa.Column[int]:
    return sa.Column(
        name, sa.Integer(), server_default=sa.text("0"), nullable=False, comment=comment
    )


def _comment(table: str, column: str, comment: str) -> None:
    op.alter_column(table, column, comment=comment)
