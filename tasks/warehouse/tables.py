"""The warehouse's tables as SQLAlchemy metadata, each column with the comment analysts read."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, DOUBLE_PRECISION, JSON, JSONB

from tasks.lifecycle import ACTIVE_STATES, REMEDIATION_STATES

metadata = MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

EMPTY_OBJECT = text("'{}'")


def _text(name: str, comment: str, **options: Any) -> Column[str]:
    options.setdefault("nullable", False)
    return Column(name, Text, comment=comment, **options)


def _time(name: str, comment: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, DateTime(timezone=True), comment=comment, nullable=nullable)


def _count(name: str, comment: str) -> Column[int]:
    return Column(name, Integer, comment=comment, nullable=False, server_default=text("0"))


def _flag(name: str, comment: str) -> Column[bool]:
    return Column(name, Boolean, comment=comment, nullable=False, server_default=text("false"))


def _json(name: str, comment: str, *, nullable: bool = False) -> Column[Any]:
    default = None if nullable else EMPTY_OBJECT
    return Column(name, JSONB, comment=comment, nullable=nullable, server_default=default)


def _one_of(column: str, *values: str) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=column)


CLOUD = "aws or azure"
ACCOUNT = "AWS account number or Azure subscription id (lower case)"
REGION = "Region or location; global for what has none"
KIND = "Kind of resource: cloud.service.resource"
SEVERITIES = ("critical", "high", "medium", "low")
VERDICTS = ("pass", "fail", "unknown")

accounts = Table(
    "accounts",
    metadata,
    _text("cloud", CLOUD),
    _text("id", ACCOUNT),
    _text("name", "Its name in the organization or tenant", server_default=""),
    _text("source", "Inventory entry that it came from", server_default=""),
    _text("status", "The cloud's own word for its state, lower case", server_default=""),
    _json("tags", "Tags of the account itself"),
    _time("first_seen_at", "When a scan first knew of it"),
    _time("last_scanned_at", "When it was last read with success by a fleet scan", nullable=True),
    _time("last_outcome_at", "When last_outcome was learned", nullable=True),
    _text("last_outcome", "covered, failed or skipped: the last fleet scan's", nullable=True),
    _text("last_reason", "Why it failed or was skipped", server_default=""),
    _time("touched_at", "When an event last told of a change in it", nullable=True),
    PrimaryKeyConstraint("cloud", "id"),
    _one_of("last_outcome", "covered", "failed", "skipped"),
    comment="AWS accounts and Azure subscriptions that Suture knows",
)

scans = Table(
    "scans",
    metadata,
    Column("id", Uuid, primary_key=True, comment="The scan"),
    _text("trigger", "What started it: schedule, manual, event, verify, ..."),
    _flag("targeted", "It read a few resources, not whole accounts: no posture is drawn from it"),
    _text("flow_run_id", "Prefect flow run that did it", nullable=True),
    _text("state", "running, interrupted, merged, finished or failed", server_default="running"),
    _text("message", "Why it failed or was interrupted, in words", server_default=""),
    _time("started_at", "When it began"),
    _time("merged_at", "When what it saw was merged into findings and resources", nullable=True),
    _time("finished_at", "When it ended", nullable=True),
    _count("accounts_covered", "Accounts read"),
    _count("accounts_failed", "Accounts that refused, throttled, timed out or never reported"),
    _count("accounts_skipped", "Accounts that answer no reads: suspended, disabled"),
    _count("resources", "Resources seen"),
    _count("observations", "Verdicts given, those on unchanged resources too"),
    _count("opened", "Findings new in this scan"),
    _count("seen_again", "Open findings that still fail"),
    _count("resolved", "Open findings that pass now, or whose resource is gone"),
    _count("reopened", "Resolved findings that fail again"),
    _count("unknown", "Verdicts that could not be given"),
    _count("gone", "Resources that are not there any more"),
    Column(
        "failed_sources",
        JSONB,
        nullable=False,
        server_default=text("'[]'"),
        comment="Inventory entries whose accounts could not be listed: [[source, reason], ...]",
    ),
    _text("selection", "What was asked for, as one text; empty: everything", server_default=""),
    _count("unchanged", "Resources as they were before: nothing was written for them"),
    _one_of("state", "running", "interrupted", "merged", "finished", "failed"),
    Index(None, "started_at"),
    comment="One row per scan: of the fleet, or of a few resources (targeted)",
)

scan_accounts = Table(
    "scan_accounts",
    metadata,
    Column("scan_id", Uuid, ForeignKey("scans.id"), nullable=False, comment="The scan"),
    _text("cloud", CLOUD),
    _text("account", ACCOUNT),
    _text("status", "pending, covered, failed or skipped"),
    _text("reason", "Why it failed or was skipped", server_default=""),
    _time("observed_at", "As of when its resources were read", nullable=True),
    _count("resources", "Resources seen"),
    _count("passed", "Verdicts pass"),
    _count("failed", "Verdicts fail"),
    _count("unknown", "Verdicts unknown"),
    _count("failed_critical", "Verdicts fail of critical severity"),
    _count("failed_high", "Verdicts fail of high severity"),
    _count("failed_medium", "Verdicts fail of medium severity"),
    _count("failed_low", "Verdicts fail of low severity"),
    _count("unchanged", "Resources as they were before: nothing was written for them"),
    _text("source", "Inventory entry that it came from", server_default=""),
    Column(
        "claim",
        Integer,
        nullable=True,
        comment="Advisory lock of the process that took it to scan it; empty: nobody has",
    ),
    PrimaryKeyConstraint("scan_id", "cloud", "account"),
    _one_of("status", "pending", "covered", "failed", "skipped"),
    Index(None, "cloud", "account", "observed_at"),
    Index(
        "scan_accounts_unclaimed",
        *("scan_id", "cloud", "source", "account"),
        postgresql_where=text("status = 'pending' AND claim IS NULL"),
    ),
    comment="How each account fared in each scan",
)

scan_coverage = Table(
    "scan_coverage",
    metadata,
    # No foreign key: checking it for each of a fleet's rows costs more than writing them.
    Column("scan_id", Uuid, nullable=False, comment="The scan"),
    _text("cloud", CLOUD),
    _text("account", ACCOUNT),
    _text("region", "Region or location; global: the kind in every region"),
    _text("kind", KIND),
    _text("resource", "The one resource that was read; empty: all of them", server_default=""),
    Column("ok", Boolean, nullable=False, comment="Read to the end without error"),
    _text("reason", "Why it could not be read", server_default=""),
    _time("observed_at", "As of when it was read"),
    _count("resources", "Resources seen there"),
    _count("unchanged", "Those of them that were as before: their last verdicts hold still"),
    PrimaryKeyConstraint("scan_id", "cloud", "account", "region", "kind", "resource"),
    Index(None, "cloud", "account", "observed_at"),
    Index(None, "observed_at", postgresql_using="brin", postgresql_with={"autosummarize": "on"}),
    comment="What each scan really read: only this can resolve a finding as gone, or confirm a "
    "verdict without a new observation",
)

resources = Table(
    "resources",
    metadata,
    _text("cloud", CLOUD),
    _text("account", ACCOUNT),
    _text("id", "ARN, or ARM resource id in lower case"),
    _text("region", REGION),
    _text("kind", KIND),
    _text("name", "Its name or short id", server_default=""),
    _json("tags", "Tags of the resource"),
    _json("config", "Configuration as the cloud's API gave it"),
    _json("gaps", "Parts of the configuration that could not be read, with the reason"),
    _text("etag", "ARM's ETag; empty on AWS", server_default=""),
    _text("fingerprint", "sha256 of id, configuration and gaps"),
    _time("first_seen_at", "First seen"),
    _time("changed_at", "When its configuration was first seen as it is now"),
    _time(
        "last_seen_at", "Last written: while it is unchanged, scan_coverage says when it was seen"
    ),
    _time("gone_at", "When a scan that covered its place did not find it", nullable=True),
    Column("last_scan_id", Uuid, nullable=False, comment="The scan that wrote it last"),
    _text(
        "digest",
        "sha256 of all that is kept of it and of the rules that judged it; empty: not to be relied "
        "on",
        server_default="",
    ),
    PrimaryKeyConstraint("cloud", "account", "id"),
    Index(None, "kind"),
    comment="Resources as they were last seen",
)

findings = Table(
    "findings",
    metadata,
    _text("id", "sha256 of cloud|account|region|rule|resource|detail", primary_key=True),
    _text("cloud", CLOUD),
    _text("account", ACCOUNT),
    _text("region", REGION),
    _text("rule", "The rule that fails"),
    _text("severity", "critical, high, medium or low: as last observed"),
    _text("kind", KIND),
    _text("resource", "The resource's id"),
    _text(
        "detail", "Which part of the resource, where a rule tells parts apart", server_default=""
    ),
    _text("status", "open or resolved"),
    _text("verdict", "The last observation's: pass, fail or unknown"),
    _text("reason", "Why the last verdict was unknown", server_default=""),
    _time("first_seen_at", "When it failed for the first time"),
    _time("opened_at", "When it was opened, the last time"),
    _time("last_seen_at", "When it was last seen failing"),
    _time("last_observed_at", "When it was last observed at all"),
    _time("resolved_at", "When it was resolved; empty while open", nullable=True),
    _text("resolution", "pass or resource_gone; empty while open", nullable=True),
    _count("reopened", "How often it came back"),
    Column("last_scan_id", Uuid, nullable=False, comment="The scan that changed it last"),
    _one_of("status", "open", "resolved"),
    _one_of("verdict", *VERDICTS),
    _one_of("severity", *SEVERITIES),
    _one_of("resolution", "pass", "resource_gone"),
    CheckConstraint("(status = 'open') = (resolved_at IS NULL)", name="resolved_at"),
    # Of all, not of the open ones: else each that opens or resolves would write all indexes anew.
    Index(None, "cloud", "account", "kind"),
    # Room on each page for the next scan's version of all its rows, which then touches no index.
    postgresql_with={"fillfactor": 45},
    comment="One rule failing on one resource, now or once",
)

finding_episodes = Table(
    "finding_episodes",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="The episode"),
    # No foreign key: only the merge writes here, with the finding, and findings are never deleted.
    _text("finding_id", "The finding"),
    _text("severity", "critical, high, medium or low: when it was opened"),
    _time("opened_at", "When it began"),
    Column("opened_by_scan", Uuid, nullable=False, comment="The scan that saw it begin"),
    _time("closed_at", "When it ended; empty while open", nullable=True),
    Column("closed_by_scan", Uuid, nullable=True, comment="The scan that saw it end"),
    _text("resolution", "pass or resource_gone; empty while open", nullable=True),
    CheckConstraint("(closed_at IS NULL) = (resolution IS NULL)", name="closed"),
    # One of them open at most: an empty closed_at equals another. And all of one finding.
    Index(
        "finding_episodes_one_open",
        *("finding_id", "closed_at"),
        unique=True,
        postgresql_nulls_not_distinct=True,
    ),
    comment="One row per interval in which a finding was open",
)

observations = Table(
    "observations",
    metadata,
    _time("observed_at", "As of when its resource was read"),
    Column("scan_id", Uuid, nullable=False, comment="The scan"),
    _text("finding_id", "The finding it speaks of, also where there is none"),
    _text("cloud", CLOUD),
    _text("account", ACCOUNT),
    _text("region", REGION),
    _text("rule", "The rule"),
    _text("severity", "critical, high, medium or low"),
    _text("kind", KIND),
    _text("resource", "The resource's id"),
    _text("verdict", "pass, fail or unknown"),
    _text("reason", "Why it is unknown"),
    _text("detail", "Which part of the resource"),
    _one_of("verdict", *VERDICTS),
    _one_of("severity", *SEVERITIES),
    # By account: rows come account by account, so that it grows where it is warm.
    Index(None, "account", "rule", "observed_at"),
    postgresql_partition_by="RANGE (observed_at)",
    comment="Verdicts, append-only, partitioned by month: one holds until the next on its finding, "
    "as long as scan_coverage says that its place was read",
)

exceptions = Table(
    "exceptions",
    metadata,
    Column("id", Uuid, primary_key=True, comment="The exception"),
    _text("finding_id", "Only this finding", nullable=True),
    _text("rule", "Only this rule", nullable=True),
    _text("cloud", "Only this cloud", nullable=True),
    _text("account", "Only this account", nullable=True),
    _text("reason", "Why the risk is accepted"),
    _text("created_by", "Who accepted it"),
    _time("created_at", "Since when"),
    _time("expires_at", "Until when; empty: for good", nullable=True),
    CheckConstraint(
        "num_nonnulls(finding_id, rule, cloud, account) > 0",
        name="scope",
    ),
    comment="Accepted risks: what they match is not handed to triage",
)

remediations = Table(
    "remediations",
    metadata,
    Column("id", Uuid, primary_key=True, comment="The remediation of one finding in one run"),
    _text("run_id", "Prefect flow run that carries it"),
    Column("finding_id", Text, ForeignKey("findings.id"), nullable=False, comment="The finding"),
    _text("cloud", CLOUD),
    _text("account", ACCOUNT),
    Column("number", Integer, nullable=False, comment="Its number in the approver's table"),
    _text("policy", "The policy that matched", server_default=""),
    _text("mode", "guided, assisted or automatic"),
    _text("state", "Where it stands"),
    _text("message", "Why it stands there, in words", server_default=""),
    _json("values", "Values that an approver or the policy gave; never a code"),
    Column("plan", JSON, nullable=False, comment="What would change, exactly as shown and hashed"),
    _text("plan_hash", "sha256 of the plan", server_default=""),
    _text(
        "fingerprint", "The resource's fingerprint that the plan was made from", server_default=""
    ),
    _text("approver", "Who decided", server_default=""),
    _flag("approver_verified", "The name came from the authenticating proxy, not from the form"),
    _text("requested_by", "Who or what asked for it", server_default=""),
    _time("expires_at", "Until when it may be approved", nullable=True),
    _time("created_at", "When it was planned"),
    _time("decided_at", "When it was approved, denied or left out", nullable=True),
    _time("began_at", "When its resource was last begun to be changed", nullable=True),
    _time("finished_at", "When it ended", nullable=True),
    _flag("half_applied", "Its change stands in part: a run that puts it back is due"),
    UniqueConstraint("run_id", "finding_id"),
    UniqueConstraint("run_id", "number"),
    _one_of("mode", "guided", "assisted", "automatic"),
    _one_of("state", *REMEDIATION_STATES),
    Index(
        "remediations_one_active",
        "finding_id",
        unique=True,
        postgresql_where=text(
            "state IN (" + ", ".join(f"'{state}'" for state in ACTIVE_STATES) + ")"
        ),
    ),
    Index(None, "finding_id"),
    Index(None, "began_at", postgresql_where=text("began_at IS NOT NULL")),
    comment="Fixes planned, waiting, applied or refused",
)

halts = Table(
    "halts",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="The halt"),
    _text("policy", "Only this policy; empty: every one", server_default=""),
    _flag("everything", "Approved runs too, not only automatic ones"),
    _text("reason", "Why remediation was halted"),
    _text("halted_by", "Who halted it"),
    _time("halted_at", "Since when"),
    _text("lift_reason", "Why it was lifted", server_default=""),
    _text("lifted_by", "Who lifted it", server_default=""),
    _time("lifted_at", "Since when it does not hold any more; empty: it stands", nullable=True),
    comment="When remediation was stopped, by whom and why: it stands until it is lifted",
)

gate_requests = Table(
    "gate_requests",
    metadata,
    _text("run_id", "Prefect flow run that asked", primary_key=True),
    _text("cloud", CLOUD),
    _text("account", ACCOUNT),
    _time("asked_at", "When the customer's token endpoint was last asked to open"),
    _time("released_at", "When it last confirmed that it has closed", nullable=True),
    _time("given_up_at", "When asking it to close was given up", nullable=True),
    comment="Gates that token endpoints were asked to open: each is to be closed again",
)

# The record: these belong to a role of their own (tasks/warehouse/record.py).

snapshot_contents = Table(
    "snapshot_contents",
    metadata,
    _text("hash", "sha256 of content", primary_key=True),
    _text("content", "The resource and what hangs on it, as canonical JSON"),
    Column(
        "config",
        JSON,
        nullable=False,
        comment="The resource's configuration in the cloud's own order of keys",
    ),
    CheckConstraint("hash = encode(sha256(convert_to(content, 'UTF8')), 'hex')", name="hash"),
    comment="What snapshots hold, each content once, under its hash",
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True, comment="The snapshot"),
    # No foreign key: remediations are the application's to delete, and these are not.
    Column("remediation_id", Uuid, nullable=False, comment="The remediation it was taken for"),
    _text("stage", "before, during, after or undone"),
    _time("taken_at", "When it was taken"),
    _text("cloud", CLOUD),
    _text("account", ACCOUNT),
    _text("region", REGION),
    _text("kind", KIND),
    _text("resource", "The resource's id"),
    _text("name", "Its name or short id", server_default=""),
    Column(
        "content",
        Text,
        ForeignKey("snapshot_contents.hash"),
        nullable=False,
        comment="The hash of what was read: see snapshot_contents",
    ),
    Column(
        "config",
        JSON,
        nullable=True,
        comment="Configuration in the cloud's own order of keys, where that is not its content's",
    ),
    Column(
        "calls",
        JSON,
        nullable=False,
        comment="The calls that gave it: operation, target, request id, status, time",
    ),
    _text("etag", "ARM's ETag; empty on AWS", server_default=""),
    _text("fingerprint", "sha256 of id, configuration and gaps"),
    _one_of("stage", "before", "during", "after", "undone"),
    Index(None, "remediation_id"),
    comment="A resource as it was read around a fix: what restore puts back",
)

audit_log = Table(
    "audit_log",
    metadata,
    Column(
        "number",
        BigInteger,
        primary_key=True,
        autoincrement=False,
        comment="Counts from 1 without gaps",
    ),
    _time("at", "When it was written down"),
    _text("actor", "Who did it: a person, a flow run, Suture"),
    _text("action", "What was done"),
    _text("subject", "To what: a finding, a remediation, an account"),
    Column("details", JSON, nullable=False, comment="More, as the canonical JSON that was hashed"),
    _text("prev_hash", "The hash of the row before"),
    _text("hash", "sha256 over prev_hash, number and all that the row says: tasks/audit.py"),
    Column("version", SmallInteger, nullable=False, comment="How its hash is made: 1, 2 or 3"),
    _text("salt", "Random, so that a row's hash does not tell what it says; empty in version 1"),
    Index(None, "subject"),
    comment="What Suture did and who decided it: an append-only hash chain",
)

audit_head = Table(
    "audit_head",
    metadata,
    Column(
        "single", Boolean, primary_key=True, server_default=text("true"), comment="One row only"
    ),
    Column("number", BigInteger, nullable=False, comment="The last row's number; 0: none"),
    _text("hash", "The last row's hash: keep a copy elsewhere to prove that none was cut off"),
    CheckConstraint("single", name="single"),
    comment="The end of the audit log's hash chain",
)

# What the clouds tell of changes, as they happen.

events = Table(
    "events",
    metadata,
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
    PrimaryKeyConstraint("cloud", "id"),
    Index(None, "received_at"),
    comment="Control-plane events that may have changed a verdict: reads, failed calls and "
    "Suture's own writes are not kept",
)

event_targets = Table(
    "event_targets",
    metadata,
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
    _count("tries", "How often its resource could not be read, or what was found not be acted on"),
    _time("not_before", "When it is next tried"),
    _time("done_at", "When all that follows from it was done", nullable=True),
    Column("scan_id", Uuid, nullable=True, comment="The scan that read its resource after it"),
    PrimaryKeyConstraint("cloud", "event_id", "kind", "region", "resource"),
    ForeignKeyConstraint(["cloud", "event_id"], ["events.cloud", "events.id"], ondelete="CASCADE"),
    _one_of("state", "pending", "done", "failed"),
    Index(
        "event_targets_pending",
        *("not_before", "received_at"),
        postgresql_where=text("state = 'pending'"),
    ),
    Index(None, "cloud", "account", "kind", "resource", "at"),
    Index(None, "done_at"),
    comment="What each event was about: the resources to be read again, and what became of that",
)

listeners = Table(
    "listeners",
    metadata,
    Column("id", Uuid, primary_key=True, comment="The listener"),
    _text("host", "The machine and the process"),
    _text("flow_run_id", "Prefect flow run that it is", server_default=""),
    _time("started_at", "When it began"),
    _time("seen_at", "When it last said so; after half a minute of silence it is gone"),
    _json("counts", "What it has taken in and done since it began, and how deep its queues are"),
    comment="Who listens for events right now",
    prefixes=["UNLOGGED"],
)

UNLOGGED: dict[str, Any] = {"prefixes": ["UNLOGGED"], "info": {"stage": True}}

stage_accounts = Table(
    "stage_accounts",
    metadata,
    Column("scan_id", Uuid, nullable=False, comment="The scan"),
    _text("cloud", CLOUD),
    _text("account", ACCOUNT),
    Column(
        "load_id",
        BigInteger,
        nullable=False,
        comment="The load that counts: a repeated one replaces the first",
    ),
    _time("observed_at", "As of when its resources were read"),
    _text("name", "Its name"),
    _text("source", "Inventory entry"),
    _text("status", "The cloud's word for its state"),
    _json("tags", "Tags of the account itself"),
    _text("failed", "Why it could not be scanned; empty where it was"),
    *(
        _count(name, "As in scan_accounts")
        for name in (
            *("resources", "unchanged", "passed", "failed_verdicts", "unknown"),
            *(f"failed_{severity}" for severity in SEVERITIES),
        )
    ),
    Column("unchanged_ids", ARRAY(Text), nullable=True, comment="Resources that are as they were"),
    Column(
        "unchanged_digests",
        ARRAY(BigInteger),
        nullable=True,
        comment="The beginnings of their digests, in the same order",
    ),
    PrimaryKeyConstraint("scan_id", "cloud", "account"),
    comment="Loading dock: accounts of a scan not merged yet",
    **UNLOGGED,
)

stage_coverage = Table(
    "stage_coverage",
    metadata,
    Column("load_id", BigInteger, nullable=False, comment="The account's load"),
    _text("region", REGION),
    _text("kind", KIND),
    _text("resource", "The one resource that was read; empty: all of them"),
    Column("ok", Boolean, nullable=False, comment="Read to the end without error"),
    _text("reason", "Why it could not be read"),
    _count("resources", "Resources seen there"),
    _count("unchanged", "Those of them that are as they were"),
    comment="Loading dock: coverage of a scan not merged yet",
    **UNLOGGED,
)

stage_resources = Table(
    "stage_resources",
    metadata,
    Column("load_id", BigInteger, nullable=False, comment="The account's load"),
    _text("region", REGION),
    _text("kind", KIND),
    _text("id", "The resource's id"),
    _text("name", "Its name"),
    _json("tags", "Its tags"),
    _json("config", "Its configuration"),
    _json("gaps", "Parts that could not be read"),
    _text("etag", "ARM's ETag"),
    _text("fingerprint", "sha256 of id, configuration and gaps"),
    _text("digest", "sha256 of all that is kept of it and of the rules; empty: none was taken"),
    comment="Loading dock: resources of a scan not merged yet",
    **UNLOGGED,
)

stage_observations = Table(
    "stage_observations",
    metadata,
    Column("load_id", BigInteger, nullable=False, comment="The account's load"),
    _text("finding_id", "The finding it speaks of"),
    _text("region", REGION),
    _text("rule", "The rule"),
    _text("severity", "Its severity"),
    _text("kind", KIND),
    _text("resource", "The resource's id"),
    _text("verdict", "pass, fail or unknown"),
    _text("reason", "Why it is unknown"),
    _text("detail", "Which part of the resource"),
    comment="Loading dock: observations of a scan not merged yet",
    **UNLOGGED,
)

rate_budgets = Table(
    "rate_budgets",
    metadata,
    _text("budget", "What is shared: cloud/account/region/service"),
    Column("holder", Uuid, nullable=False, comment="The process that uses it"),
    _time("seen_at", "When it last said so; after ten seconds of silence it does not count"),
    Column(
        "per_second",
        DOUBLE_PRECISION,
        comment="Calls a second that a throttle left it; null: not throttled lately",
    ),
    _time("cut_at", "When it was throttled", nullable=True),
    PrimaryKeyConstraint("budget", "holder"),
    comment="Who asks the clouds how fast right now: what processes share of a rate limit",
    prefixes=["UNLOGGED"],
)

STAGE_TABLES = tuple(table for table in metadata.sorted_tables if table.info.get("stage"))
ANALYST_TABLES = tuple(table for table in metadata.sorted_tables if not table.info.get("stage"))
