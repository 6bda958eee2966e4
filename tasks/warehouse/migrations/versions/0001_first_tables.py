# ruff: noqa: E501 - tables as `alembic revision --autogenerate` wrote them, once
"""The warehouse's first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("cloud", sa.Text(), nullable=False, comment="aws or azure"),
        sa.Column(
            "id",
            sa.Text(),
            nullable=False,
            comment="AWS account number or Azure subscription id (lower case)",
        ),
        sa.Column(
            "name",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="Its name in the organization or tenant",
        ),
        sa.Column(
            "source",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="Inventory entry that it came from",
        ),
        sa.Column(
            "status",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="The cloud's own word for its state, lower case",
        ),
        sa.Column(
            "tags",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Tags of the account itself",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When a scan first knew of it",
        ),
        sa.Column(
            "last_scanned_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was last read with success by a fleet scan",
        ),
        sa.Column(
            "last_outcome_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When last_outcome was learned",
        ),
        sa.Column(
            "last_outcome",
            sa.Text(),
            nullable=True,
            comment="covered, failed or skipped: the last fleet scan's",
        ),
        sa.Column(
            "last_reason",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="Why it failed or was skipped",
        ),
        sa.CheckConstraint(
            "last_outcome IN ('covered', 'failed', 'skipped')",
            name=op.f("accounts_last_outcome_check"),
        ),
        sa.PrimaryKeyConstraint("cloud", "id", name=op.f("accounts_pkey")),
        comment="AWS accounts and Azure subscriptions that Suture knows",
    )
    op.create_table(
        "audit_head",
        sa.Column(
            "single",
            sa.Boolean(),
            server_default=sa.text("true"),
            nullable=False,
            comment="One row only",
        ),
        sa.Column("number", sa.BigInteger(), nullable=False, comment="The last row's number"),
        sa.Column(
            "hash",
            sa.Text(),
            nullable=False,
            comment="The last row's hash: keep a copy elsewhere to prove that none was cut off",
        ),
        sa.CheckConstraint("single", name=op.f("audit_head_single_check")),
        sa.PrimaryKeyConstraint("single", name=op.f("audit_head_pkey")),
        comment="The end of the audit log's hash chain",
    )
    op.create_table(
        "audit_log",
        sa.Column(
            "number",
            sa.BigInteger(),
            autoincrement=False,
            nullable=False,
            comment="Counts from 1 without gaps",
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False, comment="When it happened"),
        sa.Column(
            "actor", sa.Text(), nullable=False, comment="Who did it: a person, a flow run, Suture"
        ),
        sa.Column("action", sa.Text(), nullable=False, comment="What was done"),
        sa.Column(
            "subject",
            sa.Text(),
            nullable=False,
            comment="To what: a finding, a remediation, an account",
        ),
        sa.Column(
            "details",
            postgresql.JSON(astext_type=sa.Text()),
            nullable=False,
            comment="More, as the canonical JSON that was hashed",
        ),
        sa.Column("prev_hash", sa.Text(), nullable=False, comment="The hash of the row before"),
        sa.Column(
            "hash",
            sa.Text(),
            nullable=False,
            comment="sha256 over prev_hash and all columns before it",
        ),
        sa.PrimaryKeyConstraint("number", name=op.f("audit_log_pkey")),
        comment="What Suture did and who decided it: an append-only hash chain",
    )
    op.create_table(
        "exceptions",
        sa.Column("id", sa.Uuid(), nullable=False, comment="The exception"),
        sa.Column("finding_id", sa.Text(), nullable=True, comment="Only this finding"),
        sa.Column("rule", sa.Text(), nullable=True, comment="Only this rule"),
        sa.Column("cloud", sa.Text(), nullable=True, comment="Only this cloud"),
        sa.Column("account", sa.Text(), nullable=True, comment="Only this account"),
        sa.Column("reason", sa.Text(), nullable=False, comment="Why the risk is accepted"),
        sa.Column("created_by", sa.Text(), nullable=False, comment="Who accepted it"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, comment="Since when"),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Until when; empty: for good",
        ),
        sa.CheckConstraint(
            "num_nonnulls(finding_id, rule, cloud, account) > 0",
            name=op.f("exceptions_scope_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("exceptions_pkey")),
        comment="Accepted risks: what they match is not handed to triage",
    )
    op.create_table(
        "findings",
        sa.Column(
            "id",
            sa.Text(),
            nullable=False,
            comment="sha256 of cloud|account|region|rule|resource|detail",
        ),
        sa.Column("cloud", sa.Text(), nullable=False, comment="aws or azure"),
        sa.Column(
            "account",
            sa.Text(),
            nullable=False,
            comment="AWS account number or Azure subscription id (lower case)",
        ),
        sa.Column(
            "region",
            sa.Text(),
            nullable=False,
            comment="Region or location; global for what has none",
        ),
        sa.Column("rule", sa.Text(), nullable=False, comment="The rule that fails"),
        sa.Column(
            "severity",
            sa.Text(),
            nullable=False,
            comment="critical, high, medium or low: as last observed",
        ),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="Kind of resource: cloud.service.resource"
        ),
        sa.Column("resource", sa.Text(), nullable=False, comment="The resource's id"),
        sa.Column(
            "detail",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="Which part of the resource, where a rule tells parts apart",
        ),
        sa.Column("status", sa.Text(), nullable=False, comment="open or resolved"),
        sa.Column(
            "verdict",
            sa.Text(),
            nullable=False,
            comment="The last observation's: pass, fail or unknown",
        ),
        sa.Column(
            "reason",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="Why the last verdict was unknown",
        ),
        sa.Column(
            "first_seen_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it failed for the first time",
        ),
        sa.Column(
            "opened_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it was opened, the last time",
        ),
        sa.Column(
            "last_seen_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it was last seen failing",
        ),
        sa.Column(
            "last_observed_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When it was last observed at all",
        ),
        sa.Column(
            "resolved_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was resolved; empty while open",
        ),
        sa.Column(
            "resolution",
            sa.Text(),
            nullable=True,
            comment="pass or resource_gone; empty while open",
        ),
        sa.Column(
            "reopened",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="How often it came back",
        ),
        sa.Column(
            "last_scan_id", sa.Uuid(), nullable=False, comment="The scan that changed it last"
        ),
        sa.CheckConstraint(
            "(status = 'open') = (resolved_at IS NULL)", name=op.f("findings_resolved_at_check")
        ),
        sa.CheckConstraint(
            "resolution IN ('pass', 'resource_gone')", name=op.f("findings_resolution_check")
        ),
        sa.CheckConstraint(
            "severity IN ('critical', 'high', 'medium', 'low')",
            name=op.f("findings_severity_check"),
        ),
        sa.CheckConstraint("status IN ('open', 'resolved')", name=op.f("findings_status_check")),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'unknown')", name=op.f("findings_verdict_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("findings_pkey")),
        comment="One rule failing on one resource, now or once",
        postgresql_with={"fillfactor": 70},
    )
    op.create_index(
        op.f("findings_cloud_account_kind_idx"),
        "findings",
        ["cloud", "account", "kind"],
        unique=False,
        postgresql_where=sa.text("status = 'open'"),
    )
    op.create_index(op.f("findings_resource_idx"), "findings", ["resource"], unique=False)
    op.create_table(
        "observations",
        sa.Column(
            "observed_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="As of when its resource was read",
        ),
        sa.Column("scan_id", sa.Uuid(), nullable=False, comment="The scan"),
        sa.Column(
            "finding_id",
            sa.Text(),
            nullable=False,
            comment="The finding it speaks of, also where there is none",
        ),
        sa.Column("cloud", sa.Text(), nullable=False, comment="aws or azure"),
        sa.Column(
            "account",
            sa.Text(),
            nullable=False,
            comment="AWS account number or Azure subscription id (lower case)",
        ),
        sa.Column(
            "region",
            sa.Text(),
            nullable=False,
            comment="Region or location; global for what has none",
        ),
        sa.Column("rule", sa.Text(), nullable=False, comment="The rule"),
        sa.Column("severity", sa.Text(), nullable=False, comment="critical, high, medium or low"),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="Kind of resource: cloud.service.resource"
        ),
        sa.Column("resource", sa.Text(), nullable=False, comment="The resource's id"),
        sa.Column("verdict", sa.Text(), nullable=False, comment="pass, fail or unknown"),
        sa.Column("reason", sa.Text(), nullable=False, comment="Why it is unknown"),
        sa.Column("detail", sa.Text(), nullable=False, comment="Which part of the resource"),
        sa.CheckConstraint(
            "severity IN ('critical', 'high', 'medium', 'low')",
            name=op.f("observations_severity_check"),
        ),
        sa.CheckConstraint(
            "verdict IN ('pass', 'fail', 'unknown')", name=op.f("observations_verdict_check")
        ),
        comment="Every verdict of every scan, append-only, partitioned by month",
        postgresql_partition_by="RANGE (observed_at)",
    )
    op.create_index(
        op.f("observations_finding_id_observed_at_idx"),
        "observations",
        ["finding_id", "observed_at"],
        unique=False,
    )
    op.create_table(
        "resources",
        sa.Column("cloud", sa.Text(), nullable=False, comment="aws or azure"),
        sa.Column(
            "account",
            sa.Text(),
            nullable=False,
            comment="AWS account number or Azure subscription id (lower case)",
        ),
        sa.Column("id", sa.Text(), nullable=False, comment="ARN, or ARM resource id in lower case"),
        sa.Column(
            "region",
            sa.Text(),
            nullable=False,
            comment="Region or location; global for what has none",
        ),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="Kind of resource: cloud.service.resource"
        ),
        sa.Column(
            "name", sa.Text(), server_default="", nullable=False, comment="Its name or short id"
        ),
        sa.Column(
            "tags",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Tags of the resource",
        ),
        sa.Column(
            "config",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Configuration as the cloud's API gave it",
        ),
        sa.Column(
            "gaps",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Parts of the configuration that could not be read, with the reason",
        ),
        sa.Column(
            "etag", sa.Text(), server_default="", nullable=False, comment="ARM's ETag; empty on AWS"
        ),
        sa.Column(
            "fingerprint", sa.Text(), nullable=False, comment="sha256 of id, configuration and gaps"
        ),
        sa.Column(
            "first_seen_at", sa.DateTime(timezone=True), nullable=False, comment="First seen"
        ),
        sa.Column(
            "changed_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="When its configuration was first seen as it is now",
        ),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False, comment="Last seen"),
        sa.Column(
            "gone_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When a scan that covered its place did not find it",
        ),
        sa.Column("last_scan_id", sa.Uuid(), nullable=False, comment="The scan that saw it last"),
        sa.PrimaryKeyConstraint("cloud", "account", "id", name=op.f("resources_pkey")),
        comment="Resources as they were last seen",
    )
    op.create_index(op.f("resources_kind_idx"), "resources", ["kind"], unique=False)
    op.create_table(
        "scans",
        sa.Column("id", sa.Uuid(), nullable=False, comment="The scan"),
        sa.Column(
            "trigger",
            sa.Text(),
            nullable=False,
            comment="What started it: schedule, manual, event, verify, ...",
        ),
        sa.Column(
            "targeted",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="It read a few resources, not whole accounts: no posture is drawn from it",
        ),
        sa.Column("flow_run_id", sa.Text(), nullable=True, comment="Prefect flow run that did it"),
        sa.Column(
            "state",
            sa.Text(),
            server_default="running",
            nullable=False,
            comment="running, merged, finished or failed",
        ),
        sa.Column(
            "message",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="Why it failed, in words",
        ),
        sa.Column(
            "started_at", sa.DateTime(timezone=True), nullable=False, comment="When it began"
        ),
        sa.Column(
            "merged_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When what it saw was merged into findings and resources",
        ),
        sa.Column(
            "finished_at", sa.DateTime(timezone=True), nullable=True, comment="When it ended"
        ),
        sa.Column(
            "accounts_covered",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Accounts read",
        ),
        sa.Column(
            "accounts_failed",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Accounts that refused, throttled, timed out or never reported",
        ),
        sa.Column(
            "accounts_skipped",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Accounts that answer no reads: suspended, disabled",
        ),
        sa.Column(
            "resources",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Resources seen",
        ),
        sa.Column(
            "observations",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Verdicts given",
        ),
        sa.Column(
            "opened",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Findings new in this scan",
        ),
        sa.Column(
            "seen_again",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Open findings that still fail",
        ),
        sa.Column(
            "resolved",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Open findings that pass now, or whose resource is gone",
        ),
        sa.Column(
            "reopened",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Resolved findings that fail again",
        ),
        sa.Column(
            "unknown",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Verdicts that could not be given",
        ),
        sa.Column(
            "gone",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Resources that are not there any more",
        ),
        sa.Column(
            "failed_sources",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'[]'"),
            nullable=False,
            comment="Inventory entries whose accounts could not be listed: [[source, reason], ...]",
        ),
        sa.CheckConstraint(
            "state IN ('running', 'merged', 'finished', 'failed')", name=op.f("scans_state_check")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("scans_pkey")),
        comment="One row per scan: of the fleet, or of a few resources (targeted)",
    )
    op.create_index(op.f("scans_started_at_idx"), "scans", ["started_at"], unique=False)
    op.create_table(
        "stage_accounts",
        sa.Column("scan_id", sa.Uuid(), nullable=False, comment="The scan"),
        sa.Column("cloud", sa.Text(), nullable=False, comment="aws or azure"),
        sa.Column(
            "account",
            sa.Text(),
            nullable=False,
            comment="AWS account number or Azure subscription id (lower case)",
        ),
        sa.Column(
            "load_id",
            sa.BigInteger(),
            nullable=False,
            comment="The load that counts: a repeated one replaces the first",
        ),
        sa.Column(
            "observed_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="As of when its resources were read",
        ),
        sa.Column("name", sa.Text(), nullable=False, comment="Its name"),
        sa.Column("source", sa.Text(), nullable=False, comment="Inventory entry"),
        sa.Column("status", sa.Text(), nullable=False, comment="The cloud's word for its state"),
        sa.Column(
            "tags",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Tags of the account itself",
        ),
        sa.Column(
            "failed",
            sa.Text(),
            nullable=False,
            comment="Why it could not be scanned; empty where it was",
        ),
        sa.PrimaryKeyConstraint("scan_id", "cloud", "account", name=op.f("stage_accounts_pkey")),
        comment="Loading dock: accounts of a scan not merged yet",
        info={"stage": True},
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "stage_coverage",
        sa.Column("scan_id", sa.Uuid(), nullable=False, comment="The scan"),
        sa.Column("load_id", sa.BigInteger(), nullable=False, comment="The account's load"),
        sa.Column(
            "region",
            sa.Text(),
            nullable=False,
            comment="Region or location; global for what has none",
        ),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="Kind of resource: cloud.service.resource"
        ),
        sa.Column(
            "resource",
            sa.Text(),
            nullable=False,
            comment="The one resource that was read; empty: all of them",
        ),
        sa.Column("ok", sa.Boolean(), nullable=False, comment="Read to the end without error"),
        sa.Column("reason", sa.Text(), nullable=False, comment="Why it could not be read"),
        comment="Loading dock: coverage of a scan not merged yet",
        info={"stage": True},
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "stage_observations",
        sa.Column("scan_id", sa.Uuid(), nullable=False, comment="The scan"),
        sa.Column("load_id", sa.BigInteger(), nullable=False, comment="The account's load"),
        sa.Column("finding_id", sa.Text(), nullable=False, comment="The finding it speaks of"),
        sa.Column(
            "region",
            sa.Text(),
            nullable=False,
            comment="Region or location; global for what has none",
        ),
        sa.Column("rule", sa.Text(), nullable=False, comment="The rule"),
        sa.Column("severity", sa.Text(), nullable=False, comment="Its severity"),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="Kind of resource: cloud.service.resource"
        ),
        sa.Column("resource", sa.Text(), nullable=False, comment="The resource's id"),
        sa.Column("verdict", sa.Text(), nullable=False, comment="pass, fail or unknown"),
        sa.Column("reason", sa.Text(), nullable=False, comment="Why it is unknown"),
        sa.Column("detail", sa.Text(), nullable=False, comment="Which part of the resource"),
        comment="Loading dock: observations of a scan not merged yet",
        info={"stage": True},
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "stage_resources",
        sa.Column("scan_id", sa.Uuid(), nullable=False, comment="The scan"),
        sa.Column("load_id", sa.BigInteger(), nullable=False, comment="The account's load"),
        sa.Column(
            "region",
            sa.Text(),
            nullable=False,
            comment="Region or location; global for what has none",
        ),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="Kind of resource: cloud.service.resource"
        ),
        sa.Column("id", sa.Text(), nullable=False, comment="The resource's id"),
        sa.Column("name", sa.Text(), nullable=False, comment="Its name"),
        sa.Column(
            "tags",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Its tags",
        ),
        sa.Column(
            "config",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Its configuration",
        ),
        sa.Column(
            "gaps",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Parts that could not be read",
        ),
        sa.Column("etag", sa.Text(), nullable=False, comment="ARM's ETag"),
        sa.Column(
            "fingerprint", sa.Text(), nullable=False, comment="sha256 of id, configuration and gaps"
        ),
        comment="Loading dock: resources of a scan not merged yet",
        info={"stage": True},
        prefixes=["UNLOGGED"],
    )
    op.create_table(
        "finding_episodes",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="The episode"
        ),
        sa.Column("finding_id", sa.Text(), nullable=False, comment="The finding"),
        sa.Column(
            "severity",
            sa.Text(),
            nullable=False,
            comment="critical, high, medium or low: when it was opened",
        ),
        sa.Column("opened_at", sa.DateTime(timezone=True), nullable=False, comment="When it began"),
        sa.Column(
            "opened_by_scan", sa.Uuid(), nullable=False, comment="The scan that saw it begin"
        ),
        sa.Column(
            "closed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it ended; empty while open",
        ),
        sa.Column("closed_by_scan", sa.Uuid(), nullable=True, comment="The scan that saw it end"),
        sa.Column(
            "resolution",
            sa.Text(),
            nullable=True,
            comment="pass or resource_gone; empty while open",
        ),
        sa.CheckConstraint(
            "(closed_at IS NULL) = (resolution IS NULL)", name=op.f("finding_episodes_closed_check")
        ),
        sa.ForeignKeyConstraint(
            ["finding_id"], ["findings.id"], name=op.f("finding_episodes_finding_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("finding_episodes_pkey")),
        comment="One row per interval in which a finding was open",
    )
    op.create_index(
        op.f("finding_episodes_finding_id_idx"), "finding_episodes", ["finding_id"], unique=False
    )
    op.create_index(
        "finding_episodes_one_open",
        "finding_episodes",
        ["finding_id"],
        unique=True,
        postgresql_where=sa.text("closed_at IS NULL"),
    )
    op.create_table(
        "remediations",
        sa.Column(
            "id", sa.Uuid(), nullable=False, comment="The remediation of one finding in one run"
        ),
        sa.Column("run_id", sa.Text(), nullable=False, comment="Prefect flow run that carries it"),
        sa.Column("finding_id", sa.Text(), nullable=False, comment="The finding"),
        sa.Column("cloud", sa.Text(), nullable=False, comment="aws or azure"),
        sa.Column(
            "account",
            sa.Text(),
            nullable=False,
            comment="AWS account number or Azure subscription id (lower case)",
        ),
        sa.Column(
            "number", sa.Integer(), nullable=False, comment="Its number in the approver's table"
        ),
        sa.Column(
            "policy",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="The policy that matched",
        ),
        sa.Column("mode", sa.Text(), nullable=False, comment="guided, assisted or automatic"),
        sa.Column("state", sa.Text(), nullable=False, comment="Where it stands"),
        sa.Column(
            "message",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="Why it stands there, in words",
        ),
        sa.Column(
            "values",
            postgresql.JSONB(astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
            comment="Values that an approver or the policy gave; never a code",
        ),
        sa.Column(
            "plan",
            postgresql.JSON(astext_type=sa.Text()),
            nullable=False,
            comment="What would change, exactly as shown and hashed",
        ),
        sa.Column(
            "plan_hash", sa.Text(), server_default="", nullable=False, comment="sha256 of the plan"
        ),
        sa.Column(
            "fingerprint",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="The resource's fingerprint that the plan was made from",
        ),
        sa.Column("approver", sa.Text(), server_default="", nullable=False, comment="Who decided"),
        sa.Column(
            "approver_verified",
            sa.Boolean(),
            server_default=sa.text("false"),
            nullable=False,
            comment="The name came from the authenticating proxy, not from the form",
        ),
        sa.Column(
            "requested_by",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="Who or what asked for it",
        ),
        sa.Column(
            "expires_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="Until when it may be approved",
        ),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), nullable=False, comment="When it was planned"
        ),
        sa.Column(
            "decided_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="When it was approved, denied or left out",
        ),
        sa.Column(
            "finished_at", sa.DateTime(timezone=True), nullable=True, comment="When it ended"
        ),
        sa.CheckConstraint(
            "mode IN ('guided', 'assisted', 'automatic')", name=op.f("remediations_mode_check")
        ),
        sa.CheckConstraint(
            "state IN ('planned', 'waiting', 'applying', 'remediated', 'failed', 'denied', 'left_out', 'expired', 'refused', 'drifted', 'undone', 'restored', 'superseded', 'already_resolved')",
            name=op.f("remediations_state_check"),
        ),
        sa.ForeignKeyConstraint(
            ["finding_id"], ["findings.id"], name=op.f("remediations_finding_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("remediations_pkey")),
        sa.UniqueConstraint(
            "run_id", "finding_id", name=op.f("remediations_run_id_finding_id_key")
        ),
        sa.UniqueConstraint("run_id", "number", name=op.f("remediations_run_id_number_key")),
        comment="Fixes planned, waiting, applied or refused",
    )
    op.create_index(
        op.f("remediations_finding_id_idx"), "remediations", ["finding_id"], unique=False
    )
    op.create_index(
        "remediations_one_active",
        "remediations",
        ["finding_id"],
        unique=True,
        postgresql_where=sa.text("state IN ('planned', 'waiting', 'applying')"),
    )
    op.create_table(
        "scan_accounts",
        sa.Column("scan_id", sa.Uuid(), nullable=False, comment="The scan"),
        sa.Column("cloud", sa.Text(), nullable=False, comment="aws or azure"),
        sa.Column(
            "account",
            sa.Text(),
            nullable=False,
            comment="AWS account number or Azure subscription id (lower case)",
        ),
        sa.Column(
            "status", sa.Text(), nullable=False, comment="pending, covered, failed or skipped"
        ),
        sa.Column(
            "reason",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="Why it failed or was skipped",
        ),
        sa.Column(
            "observed_at",
            sa.DateTime(timezone=True),
            nullable=True,
            comment="As of when its resources were read",
        ),
        sa.Column(
            "resources",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Resources seen",
        ),
        sa.Column(
            "passed",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Verdicts pass",
        ),
        sa.Column(
            "failed",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Verdicts fail",
        ),
        sa.Column(
            "unknown",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Verdicts unknown",
        ),
        sa.Column(
            "failed_critical",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Verdicts fail of critical severity",
        ),
        sa.Column(
            "failed_high",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Verdicts fail of high severity",
        ),
        sa.Column(
            "failed_medium",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Verdicts fail of medium severity",
        ),
        sa.Column(
            "failed_low",
            sa.Integer(),
            server_default=sa.text("0"),
            nullable=False,
            comment="Verdicts fail of low severity",
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'covered', 'failed', 'skipped')",
            name=op.f("scan_accounts_status_check"),
        ),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name=op.f("scan_accounts_scan_id_fkey")),
        sa.PrimaryKeyConstraint("scan_id", "cloud", "account", name=op.f("scan_accounts_pkey")),
        comment="How each account fared in each scan",
    )
    op.create_index(
        op.f("scan_accounts_cloud_account_observed_at_idx"),
        "scan_accounts",
        ["cloud", "account", "observed_at"],
        unique=False,
    )
    op.create_table(
        "scan_coverage",
        sa.Column("scan_id", sa.Uuid(), nullable=False, comment="The scan"),
        sa.Column("cloud", sa.Text(), nullable=False, comment="aws or azure"),
        sa.Column(
            "account",
            sa.Text(),
            nullable=False,
            comment="AWS account number or Azure subscription id (lower case)",
        ),
        sa.Column(
            "region",
            sa.Text(),
            nullable=False,
            comment="Region or location; global: the kind in every region",
        ),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="Kind of resource: cloud.service.resource"
        ),
        sa.Column(
            "resource",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="The one resource that was read; empty: all of them",
        ),
        sa.Column("ok", sa.Boolean(), nullable=False, comment="Read to the end without error"),
        sa.Column(
            "reason",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="Why it could not be read",
        ),
        sa.Column(
            "observed_at",
            sa.DateTime(timezone=True),
            nullable=False,
            comment="As of when it was read",
        ),
        sa.ForeignKeyConstraint(["scan_id"], ["scans.id"], name=op.f("scan_coverage_scan_id_fkey")),
        sa.PrimaryKeyConstraint(
            "scan_id",
            "cloud",
            "account",
            "region",
            "kind",
            "resource",
            name=op.f("scan_coverage_pkey"),
        ),
        comment="What each scan really read: only this can resolve a finding as gone",
    )
    op.create_index(
        op.f("scan_coverage_cloud_account_observed_at_idx"),
        "scan_coverage",
        ["cloud", "account", "observed_at"],
        unique=False,
    )
    op.create_table(
        "snapshots",
        sa.Column(
            "id", sa.BigInteger(), sa.Identity(always=True), nullable=False, comment="The snapshot"
        ),
        sa.Column(
            "remediation_id", sa.Uuid(), nullable=False, comment="The remediation it was taken for"
        ),
        sa.Column("stage", sa.Text(), nullable=False, comment="before, during, after or undone"),
        sa.Column(
            "taken_at", sa.DateTime(timezone=True), nullable=False, comment="When it was taken"
        ),
        sa.Column("cloud", sa.Text(), nullable=False, comment="aws or azure"),
        sa.Column(
            "account",
            sa.Text(),
            nullable=False,
            comment="AWS account number or Azure subscription id (lower case)",
        ),
        sa.Column(
            "region",
            sa.Text(),
            nullable=False,
            comment="Region or location; global for what has none",
        ),
        sa.Column(
            "kind", sa.Text(), nullable=False, comment="Kind of resource: cloud.service.resource"
        ),
        sa.Column("resource", sa.Text(), nullable=False, comment="The resource's id"),
        sa.Column(
            "name", sa.Text(), server_default="", nullable=False, comment="Its name or short id"
        ),
        sa.Column(
            "tags",
            postgresql.JSON(astext_type=sa.Text()),
            nullable=False,
            comment="Tags of the resource",
        ),
        sa.Column(
            "config",
            postgresql.JSON(astext_type=sa.Text()),
            nullable=False,
            comment="Configuration, character by character",
        ),
        sa.Column(
            "gaps",
            postgresql.JSON(astext_type=sa.Text()),
            nullable=False,
            comment="Parts that could not be read, with the reason",
        ),
        sa.Column(
            "etag", sa.Text(), server_default="", nullable=False, comment="ARM's ETag; empty on AWS"
        ),
        sa.Column(
            "fingerprint", sa.Text(), nullable=False, comment="sha256 of id, configuration and gaps"
        ),
        sa.CheckConstraint(
            "stage IN ('before', 'during', 'after', 'undone')", name=op.f("snapshots_stage_check")
        ),
        sa.ForeignKeyConstraint(
            ["remediation_id"], ["remediations.id"], name=op.f("snapshots_remediation_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("snapshots_pkey")),
        comment="A resource's configuration around a fix: what restore puts back",
    )
    op.create_index(
        op.f("snapshots_remediation_id_idx"), "snapshots", ["remediation_id"], unique=False
    )
    by_hand()


def by_hand() -> None:
    """What table metadata cannot say: the safety-net partition, the loads' numbers, no rewriting."""
    op.execute("CREATE TABLE observations_other PARTITION OF observations DEFAULT")
    op.execute(
        "COMMENT ON TABLE observations_other IS 'Observations of months without a partition'"
    )
    op.execute("CREATE SEQUENCE load_ids CACHE 100")
    op.execute(
        """
        CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only', TG_TABLE_NAME;
        END
        $$
        """
    )
    op.execute(
        """
        CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
        FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting()
        """
    )
