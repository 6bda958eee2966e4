"""The record on the command line: told, compared, exported and checked, in words and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import Result
from typer.testing import CliRunner

from deployments.cli import app
from deployments.local.postgres import EmbeddedPostgres
from tasks.calls import CallMade, calls_json
from tasks.model import (
    Account,
    AccountScan,
    Cloud,
    Config,
    Observation,
    Resource,
    Severity,
    Verdict,
    finding_id,
)
from tasks.warehouse import audit, database, remediations, scans
from tasks.warehouse.remediations import NewRemediation

RULE = "aws_s3_bucket_versioning_enabled"
OFF = Resource(
    *(Cloud.AWS, "111122223333", "eu", "aws.s3.bucket", "arn:aws:s3:::b", "b"),
    Config({"Name": "b", "Versioning": {}}),
)
ON = replace(OFF, config=Config({"Name": "b", "Versioning": {"Status": "Enabled"}}))
WRITE = CallMade(operation="s3:PutBucketVersioning", target="b", request_id="REQ1", status=200)


@pytest.fixture
def suture(warehouse_url: str) -> Any:
    def run(*arguments: str, code: int = 0, **more: str | None) -> Result:
        env = {"SUTURE_WAREHOUSE_URL": warehouse_url, "COLUMNS": "300", **more}
        result = CliRunner().invoke(app, arguments, env=env)
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def fixed(conn: psycopg.Connection) -> str:
    """The id of a remediation that is recorded from before to after, with others around it."""
    key = finding_id(OFF.cloud, OFF.account, OFF.region, RULE, OFF.id)
    observation = Observation(
        *(key, OFF.account, OFF.cloud, OFF.region, RULE, Severity.HIGH, OFF.kind, OFF.id),
        Verdict.FAIL,
    )
    scans.merge_one(conn, AccountScan(Account(Cloud.AWS, OFF.account), [OFF], [observation]), "t")
    new = NewRemediation(finding_id=key, number=1, mode="assisted")
    (row,) = remediations.save_plan(conn, "run-1", [new])
    audit.append(conn, "bob", "approved", "something else", {"secret": "of others"})
    before = remediations.add_snapshot(conn, row.id, "before", OFF)
    asked = {"requested_by": "ann", "rule": RULE, "resource": OFF.id, "snapshot": before}
    audit.append(conn, "flow run run-1", "planned", row.id, asked)
    audit.append(conn, "Ada", "approved", row.id, {"verified": True})
    audit.append(conn, "bob", "approved", "something else", {"secret": "of others"})
    after = remediations.add_snapshot(conn, row.id, "after", ON)
    done = {"message": "Verified.", "calls": calls_json([WRITE]), "snapshot": after}
    audit.append(conn, "flow run run-1", "remediated", row.id, done)
    audit.append(conn, "bob", "approved", "something else", {"secret": "of others"})
    return row.id


def test_a_remediation_is_told_like_a_story(suture: Any, fixed: str) -> None:
    words = suture("audit", "show", fixed).stdout
    assert f"ann asked to close {RULE} on arn:aws:s3:::b." in words
    assert "Ada (as the authenticating proxy says) approved it." in words
    assert "s3:PutBucketVersioning b answered 200, request REQ1" in words
    assert words.index("ann asked") < words.index("Ada (") < words.index("Verified.")
    assert "something else" not in words
    told = json.loads(suture("audit", "show", fixed, "--format", "json").stdout)
    assert [one["action"] for one in told] == ["planned", "approved", "remediated"]
    assert (
        "there is no remediation"
        in suture("audit", "show", "00000000-0000-0000-0000-000000000000", code=2).stderr
    )


def test_snapshots_are_compared_field_by_field(suture: Any, fixed: str) -> None:
    changes = json.loads(suture("snapshot", "diff", fixed, "--format", "json").stdout)
    field = "resource.config.Versioning.Status"
    assert changes == [{"field": field, "before": "–", "after": "Enabled"}]
    assert field in suture("snapshot", "diff", fixed, "--from", "after", "--to", "before").stdout
    line = suture("snapshot", "diff", fixed, "--to", "undone", code=2).stderr
    assert "--to: there is no snapshot 'undone'. There are: before, after." in line


def test_an_exported_head_is_met_and_a_cut_log_is_not(
    suture: Any,
    fixed: str,
    conn: psycopg.Connection,
    postgres: EmbeddedPostgres,
    tmp_path: Path,
) -> None:
    kept = tmp_path / "head"
    kept.write_text(suture("audit", "head").stdout)
    assert kept.read_text().startswith("6:")
    audit.append(conn, "ann", "did", "more")
    assert "holds: yes" in suture("audit", "verify", "--head", str(kept)).stdout
    with database.connect(postgres.url(conn.info.dbname, "postgres")) as admin:
        admin.execute("ALTER TABLE audit_log DISABLE TRIGGER append_only")
        admin.execute("DELETE FROM audit_log WHERE number > 4")
        admin.execute(
            "UPDATE audit_head SET number = 4, hash = (SELECT hash FROM audit_log WHERE number = 4)"
        )
    assert "holds: yes" in suture("audit", "verify").stdout  # it cannot know
    assert "broken at: 6" in suture("audit", "verify", "--head", str(kept), code=1).stdout
    kept.write_text("nonsense")
    assert (
        "--head: is not NUMBER:HASH"
        in suture("audit", "verify", "--head", str(kept), code=2).stderr
    )


def test_evidence_is_made_and_verified_without_a_database(
    suture: Any, fixed: str, tmp_path: Path
) -> None:
    kept = tmp_path / "head"
    kept.write_text(suture("audit", "head").stdout)
    made = json.loads(
        suture("evidence", fixed, "--output", str(tmp_path / "e"), "--format", "json").stdout
    )
    file, page = Path(made["evidence"]), Path(made["page"])
    assert "of others" not in file.read_text() + page.read_text()
    assert "REQ1" in page.read_text()
    offline = {"SUTURE_WAREHOUSE_URL": None}
    said = suture("evidence", "verify", str(file), "--head", str(kept), **offline).stdout
    assert "holds: yes" in said
    assert "head met: yes" in said
    assert "head met: not asked" in suture("evidence", "verify", str(file), **offline).stdout
    file.write_text(file.read_text().replace("REQ1", "REQ2"))
    broken = suture("evidence", "verify", str(file), code=1, **offline).stdout
    assert "Entry 5 was altered after it was written." in broken
    file.write_text("{")
    assert "is not JSON" in suture("evidence", "verify", str(file), code=2, **offline).stderr


def test_evidence_goes_to_the_file_that_is_named(suture: Any, fixed: str, tmp_path: Path) -> None:
    file = tmp_path / "one.json"
    suture("evidence", "make", fixed, "--output", str(file))
    assert json.loads(file.read_text())["remediation"] == fixed
    assert file.with_suffix(".html").exists()
