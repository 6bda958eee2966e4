"""The `suture` command: what each verb prints, and that whatever is wrong is one line of words."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
import segno
import typer
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner, Result

from deployments.cli import app
from deployments.local.postgres import OWNER, EmbeddedPostgres
from deployments.local.stack import Stack
from deployments.prefect_server import need_server
from tasks.errors import BadInput
from tasks.rules import RULES
from tasks.warehouse import audit, database

GUIDED = "suture: 1\npolicies:\n  - name: by-hand\n    match: {rule: '*'}\n    mode: guided\n"
INVENTORY = """\
suture: 1
aws:
  - name: acme
    accounts: ["111122223333"]
    external_id: 6f9619ff-8b86-4d01-b42d-00cf4fc964ff
    regions: [eu-central-1]
"""
NUMBERS = count(1)
NOBODY = "postgresql://suture:top-secret@127.0.0.1:1/warehouse"
UNSET = dict.fromkeys(
    ("SUTURE_INVENTORY", "SUTURE_POLICIES", "SUTURE_WAREHOUSE_URL", "PREFECT_API_URL")
)


def suture(*arguments: str, env: Mapping[str, str | None] | None = None) -> Result:
    """Run the command in this process, with none of its variables set but those given."""
    return CliRunner().invoke(app, list(arguments), env={**UNSET, **(env or {})})


def refused(result: Result) -> str:
    """The one line that a refused command printed."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("suture: ")
    return line.removeprefix("suture: ")


# --- help --------------------------------------------------------------------------------------


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            yield from commands(command, (*path, name))  # type: ignore[arg-type]
        else:
            yield (*path, name)


ALL = sorted(commands(typer.main.get_command(app)))  # type: ignore[arg-type]


def test_every_verb_is_there() -> None:
    assert {" ".join(path) for path in ALL} == {
        *("scan", "rules", "guide", "plan", "remediate", "findings", "triage", "restore"),
        *("local", "server", "serve", "demo", "db upgrade", "policy test", "audit verify"),
        *("gate open", "gate close", "gate status", "gate enroll", "issuer documents"),
        *("gate template", "gate sweep", "halt", "controls", "kinds", "react template"),
        *("audit show", "audit head", "snapshot diff", "evidence make", "evidence verify"),
    }


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_verb_explains_itself(path: tuple[str, ...]) -> None:
    result = suture(*path, "--help")
    assert result.exit_code == 0
    said = re.sub(r"\x1b\[[0-9;]*m", "", result.stdout)
    assert "Usage:" in said
    assert re.search(r"^\s{0,3}[A-Z][a-z].{20,}", said, re.MULTILINE), (
        "no sentence says what it does"
    )


@pytest.mark.parametrize("path", [("no-such-verb",), ("gate", "ajar"), ("rules", "--cloud", "gcp")])
def test_a_verb_or_option_that_is_not_there_is_said(path: tuple[str, ...]) -> None:
    result = suture(*path)
    assert result.exit_code == 2
    assert path[-1] in result.stderr
    assert result.stdout == ""


# --- the rule table ----------------------------------------------------------------------------


def test_rules_as_json_are_the_whole_table() -> None:
    rows = json.loads(suture("rules", "--format", "json").stdout)
    assert [row["id"] for row in rows] == [rule.id for rule in RULES]
    first = rows[0]
    assert {
        *("id", "cloud", "service", "kind", "severity", "title", "fix", "undo"),
        *("inputs", "reads", "writes", "events", "aka", "controls", "proved"),
    } <= set(first)
    assert first["fix"] is True
    assert first["inputs"] == ["allowed_cidrs"]
    assert {row["cloud"] for row in rows} == {"aws", "azure"}


def test_rules_can_be_narrowed() -> None:
    def ids(*options: str) -> set[str]:
        return {row["id"] for row in json.loads(suture("rules", *options, "--format=json").stdout)}

    assert ids("--cloud", "aws", "--service", "s3") == {
        rule.id for rule in RULES if rule.cloud == "aws" and rule.service == "s3"
    }
    assert ids("--severity", "critical") == {r.id for r in RULES if r.severity == "critical"}
    assert ids("--service", "none-such") == set()
    assert ids("--aka", "cloudsploit:openSSH") == {
        "aws_ec2_security_group_ssh_not_open",
        "azure_network_security_group_ssh_not_open",
    }
    assert "azure_network_security_group_http_not_open" in ids("--aka", "cis-azure-5.0:7.4")
    assert ids("--fix") == {rule.id for rule in RULES if rule.fix is not None}
    assert ids("--guided") == {rule.id for rule in RULES if rule.fix is None}


def test_kinds_are_told_with_what_they_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUTURE_RULES")
    rows = json.loads(suture("kinds", "--cloud", "azure", "--format=json").stdout)
    assert {row["kind"] for row in rows} == {one.kind for one in RULES if one.cloud == "azure"}
    monkeypatch.setenv("SUTURE_RULES", "aws_s3_bucket_versioning_enabled")
    (bucket,) = json.loads(suture("kinds", "--format=json").stdout)
    assert bucket["once"] == ["s3:ListBuckets"]
    assert "s3:GetBucketVersioning" in bucket["each"]
    assert "1 per account" in suture("kinds").stdout
    monkeypatch.setenv("SUTURE_RULES", "no_such_*")
    assert "SUTURE_RULES" in refused(suture("kinds"))


def test_controls_have_rules_or_a_reason() -> None:
    def told(*options: str) -> dict[str, tuple[list[str], str]]:
        rows = json.loads(suture("controls", *options, "--format=json").stdout)
        return {row["control"]: (row["rules"], row["reason"]) for row in rows}

    every = told()
    assert all(bool(rules) != bool(reason) for rules, reason in every.values())
    assert every["cis-aws-6.0:2.7"] == (["aws_iam_password_policy_length"], "")
    assert told("--unanswered").keys() == {one for one, (rules, _) in every.items() if not rules}
    aws, azure = told("--cloud", "aws"), told("--cloud", "azure")
    assert (len(aws), len(azure)) == (35, 93)
    assert aws | azure == every


def test_rules_as_a_table_into_a_pipe_are_one_line_each() -> None:
    lines = suture("rules").stdout.splitlines()
    assert len(lines) == 1 + len(RULES)
    for rule, line in zip(RULES, lines[1:], strict=True):
        assert line.startswith(f"{rule.id} ")
        assert rule.title in line


def test_a_guide_is_printed_and_an_unknown_rule_is_refused() -> None:
    assert suture("guide", RULES[0].id).stdout.strip() == RULES[0].guide.strip()
    assert "suture rules" in refused(suture("guide", "no_such_rule"))
    told = json.loads(suture("guide", RULES[0].id, "--format", "json").stdout)
    assert told == {"rule": RULES[0].id, "title": RULES[0].title, "guide": RULES[0].guide}


def modules(output: str) -> tuple[bytearray, ...]:
    """The dark modules of a QR code that was printed in half blocks, light on dark, border 4."""
    halves = {" ": (1, 1), "█": (0, 0), "▀": (0, 1), "▄": (1, 0)}
    drawn = [line for line in output.splitlines()[1:] if line]
    rows = []
    for line in drawn:
        rows += [bytearray(halves[one][half] for one in line) for half in (0, 1)]
    size = len(rows[0])
    return tuple(row[4:-4] for row in rows[4 : size - 4])


def test_an_enrolment_is_told_in_either_form(tmp_path: Path) -> None:
    plain = suture("gate", "enroll", "--seed-file", str(tmp_path / "one"))
    assert plain.stdout.startswith("otpauth://totp/")
    assert modules(plain.stdout) == segno.make(plain.stdout.splitlines()[0], error="m").matrix
    file = str(tmp_path / "two")
    told = json.loads(suture("gate", "enroll", "--seed-file", file, "--format", "json").stdout)
    assert told["seed_file"] == file
    assert told["otpauth"].startswith("otpauth://totp/")


def test_the_openers_code_is_asked_for_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def opened(account: str, **options: Any) -> dict[str, Any]:
        given.update(options, account=account)
        return {"account": account, "open_until": "2026-11-26T10:00:00+00:00"}

    monkeypatch.setattr("deployments.gate.open_by_opener", opened)
    command = ["gate", "open", "1", "--opener", "--minutes", "3", "--format", "json"]
    answer = CliRunner().invoke(app, command, input="739211\n")
    assert answer.exit_code == 0
    assert json.loads(answer.stdout)["account"] == "1"
    assert "739211" not in answer.output
    assert (given["code"].get_secret_value(), given["minutes"]) == ("739211", 3)


def test_a_closing_is_told_in_either_form(monkeypatch: pytest.MonkeyPatch) -> None:
    answer: dict[str, Any] = {"account": "1", "open": False, "closed": {"machine": 1}}
    monkeypatch.setattr("deployments.gate.close_by_hand", lambda *_, **__: answer)
    assert suture("gate", "close", "1").stdout == "The gate of 1 is closed.\n"
    told = json.loads(suture("gate", "close", "1", "--format", "json").stdout)
    assert told == answer
    answer["closed"] = {"warm": 2}
    assert "take it out of the opener's configuration" in suture("gate", "close", "1").stdout


# --- what is missing or wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (("scan",), "SUTURE_INVENTORY"),
        (("triage",), "SUTURE_INVENTORY"),
        (("issuer", "documents"), "SUTURE_INVENTORY"),
        (("gate", "open", "111122223333"), "SUTURE_INVENTORY"),
        (("gate", "status", "111122223333"), "SUTURE_INVENTORY"),
        (("policy", "test", "abc"), "SUTURE_POLICIES"),
        (("findings",), "SUTURE_WAREHOUSE_URL"),
        (("plan", "abc"), "SUTURE_WAREHOUSE_URL"),
        (("remediate", "abc"), "SUTURE_WAREHOUSE_URL"),
        (("restore", "abc"), "SUTURE_WAREHOUSE_URL"),
        (("db", "upgrade"), "SUTURE_WAREHOUSE_URL"),
        (("audit", "verify"), "SUTURE_WAREHOUSE_URL"),
    ],
    ids=" ".join,
)
def test_a_variable_that_is_not_set_is_named(arguments: tuple[str, ...], variable: str) -> None:
    assert refused(suture(*arguments)).startswith(f"{variable}: is not set.")


@pytest.mark.parametrize("verb", [("findings",), ("db", "upgrade"), ("plan", "abc")], ids=" ".join)
def test_a_warehouse_out_of_reach_is_said_without_its_password(verb: tuple[str, ...]) -> None:
    line = refused(suture(*verb, env={"SUTURE_WAREHOUSE_URL": NOBODY}))
    assert line.startswith("SUTURE_WAREHOUSE_URL: no connection")
    assert "top-secret" not in line


def test_a_bad_inventory_is_said_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "inventory.yaml"
    file.write_text(INVENTORY.replace("[eu-central-1]", "7"))
    line = refused(suture("scan", env={"SUTURE_INVENTORY": str(file)}))
    assert line.startswith(f"{file}:6: aws[0].regions")
    line = refused(suture("scan", env={"SUTURE_INVENTORY": str(tmp_path / "none.yaml")}))
    assert "none.yaml, which is not a file" in line


def test_an_inventory_without_an_issuer_has_no_documents(tmp_path: Path) -> None:
    file = tmp_path / "inventory.yaml"
    file.write_text(INVENTORY)
    line = refused(suture("issuer", "documents", env={"SUTURE_INVENTORY": str(file)}))
    assert line.startswith("issuer: is not in the inventory.")


@pytest.mark.slow
def test_a_warehouse_without_tables_is_upgraded_on_advice(postgres: EmbeddedPostgres) -> None:
    postgres.create_warehouse("empty_for_the_command")
    env = {"SUTURE_WAREHOUSE_URL": postgres.url("empty_for_the_command")}
    owner = {"SUTURE_WAREHOUSE_OWNER_URL": postgres.url("empty_for_the_command", OWNER)}
    assert "Run `suture db upgrade`" in refused(suture("findings", env=env))
    line = refused(suture("db", "upgrade", env=env))
    assert line.startswith("SUTURE_WAREHOUSE_OWNER_URL: is not set. The audit log")
    for more in (owner, owner, {}):  # again, and nothing happens: nor is the owner needed for it
        assert suture("db", "upgrade", env=env | more).stdout == "The warehouse is up to date.\n"
    told = json.loads(suture("db", "upgrade", "--format", "json", env=env).stdout)
    assert told == {"up_to_date": True}
    assert json.loads(suture("findings", "--format", "json", env=env).stdout) == []


# --- a scanned warehouse of one's own, on the shared stack's clouds -----------------------------


@pytest.fixture(scope="module")
def accounts(stack: Stack) -> dict[str, str]:
    """One account of each cloud that can be read and has an open port to close."""
    truth = json.loads(Path(stack.fleet["truth"]).read_text())["findings"]
    ports = {one["cloud"]: one["account"] for one in truth if "_ssh_not_open" in one["rule"]}
    assert set(ports) == {"aws", "azure"}
    return ports


@pytest.fixture(scope="module")
def env(
    stack: Stack, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """Suture's environment, with a warehouse of its own and policies that change nothing."""
    name = f"command_{next(NUMBERS)}"
    postgres.create_warehouse(name, template="template_warehouse")
    policies = tmp_path_factory.mktemp("command") / "policies.yaml"
    policies.write_text(GUIDED)
    return {
        **stack.env,
        "SUTURE_WAREHOUSE_URL": postgres.url(name),
        "SUTURE_POLICIES": str(policies),
    }


def run(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command as a process of its own: Prefect reads its settings once for a process."""
    command = [sys.executable, "-m", "deployments.cli", *arguments]
    return subprocess.run(command, env=dict(env), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def scanned(env: dict[str, str], accounts: dict[str, str]) -> dict[str, Any]:
    """What `suture scan --format json` printed for those two accounts."""
    named = [part for account in accounts.values() for part in ("--account", account)]
    done = run("scan", "--no-triage", "--format", "json", *named, env=env)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    summary: dict[str, Any] = json.loads(done.stdout)  # and nothing else
    return summary


@pytest.fixture
def findings(env: dict[str, str], scanned: dict[str, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(suture("findings", "--format", "json", env=env).stdout)
    return rows


@pytest.mark.slow
def test_a_scan_prints_its_posture_and_nothing_else(
    scanned: dict[str, Any], stack: Stack, accounts: dict[str, str]
) -> None:
    assert scanned["state"] == "Completed"
    assert scanned["accounts"]["scanned"] == scanned["subscriptions"]["scanned"] == 1
    truth = json.loads(Path(stack.fleet["truth"]).read_text())["findings"]
    planted = [one for one in truth if one["account"] in accounts.values()]
    assert scanned["findings"]["open"] == len(planted)


@pytest.mark.slow
def test_a_scan_of_an_account_that_is_not_there_is_one_line(env: dict[str, str]) -> None:
    done = run("scan", "--account", "000000000001", env=env)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert "000000000001" in line


@pytest.mark.slow
def test_findings_are_listed_filtered_and_exported(
    env: dict[str, str], findings: list[dict[str, Any]], tmp_path: Path
) -> None:
    assert {row["cloud"] for row in findings} == {"aws", "azure"}
    only = suture("findings", "--cloud", "aws", "--severity", "high", "--format=json", env=env)
    wanted = [r["id"] for r in findings if (r["cloud"], r["severity"]) == ("aws", "high")]
    assert [row["id"] for row in json.loads(only.stdout)] == wanted
    table = suture("findings", env=env).stdout.splitlines()
    assert len(table) == 1 + len(findings)
    assert table[1].split()[0] == findings[0]["id"][:12]
    file = tmp_path / "findings.parquet"
    assert suture("findings", "--parquet", str(file), env=env).exit_code == 0
    assert file.read_bytes()[:4] == b"PAR1"
    filtered = suture("findings", "--parquet", str(file), "--cloud", "aws", env=env)
    assert "all findings" in refused(filtered)
    nowhere = str(tmp_path / "no" / "such" / "folder.parquet")
    assert "no/such" in refused(suture("findings", "--parquet", nowhere, env=env))


@pytest.mark.slow
def test_a_plan_shows_the_change_and_takes_values(
    env: dict[str, str], findings: list[dict[str, Any]]
) -> None:
    finding = next(row for row in findings if row["rule"] == "aws_ec2_security_group_ssh_not_open")
    planned = json.loads(
        suture(
            *("plan", finding["id"], "--value", "allowed_cidrs=10.20.30.0/24"),
            *("--format", "json"),
            env=env,
        ).stdout
    )
    assert "10.20.30.0/24" in json.dumps(planned["steps"])
    assert planned["hash"]
    table = suture("plan", finding["id"][:12], env=env).stdout
    assert finding["resource"] in table
    assert "needs: ec2:" in table
    bad = refused(suture("plan", finding["id"], "--value", "allowed_cidrs=ten", env=env))
    assert "allowed_cidrs" in bad
    assert "NAME=VALUE" in refused(suture("plan", finding["id"], "--value", "ten", env=env))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [("plan", "feedfacefeedface"), ("policy", "test", "feedface"), ("remediate", "feedfacefeed")],
    ids=" ".join,
)
def test_an_unknown_finding_is_refused(env: dict[str, str], arguments: tuple[str, ...]) -> None:
    assert "feedface" in refused(suture(*arguments, env=env))


@pytest.mark.slow
def test_a_policy_says_why_it_is_met(env: dict[str, str], findings: list[dict[str, Any]]) -> None:
    met = json.loads(
        suture("policy", "test", findings[0]["id"], "--format", "json", env=env).stdout
    )
    assert (met["policy"], met["mode"]) == ("by-hand", "guided")
    assert met["why"]


@pytest.mark.slow
def test_triage_hands_findings_to_their_policies(
    env: dict[str, str], findings: list[dict[str, Any]]
) -> None:
    done = run("triage", "--format", "json", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said["state"] == "Completed"
    assert f"{len(findings)} findings left to people" in said["result"]


@pytest.mark.slow
def test_a_remediation_is_started_as_a_run_of_its_deployment(
    env: dict[str, str], findings: list[dict[str, Any]], stack: Stack
) -> None:
    done = run("remediate", findings[0]["id"][:16], "--format", "json", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    started = json.loads(done.stdout)
    assert started["address"].startswith(stack.env["SUTURE_UI_URL"])
    assert started["address"].endswith(f"/runs/flow-run/{started['run']}")
    # The stack's own warehouse does not know this finding, so nothing will come of the run.
    unknown = refused(suture("remediate", findings[0]["id"], "--policy", "none-such", env=env))
    assert "none-such" in unknown


@pytest.mark.slow
def test_a_restore_of_what_is_not_there_is_refused(env: dict[str, str]) -> None:
    missing = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"
    assert missing in refused(suture("restore", missing, env=env))
    assert "not a remediation's id" in refused(suture("restore", "1", env=env))


def test_a_server_that_is_not_named_is_asked_for() -> None:
    """Prefect would start one of its own: without deployments, without the guard."""
    with (
        temporary_settings({PREFECT_API_URL: None}),
        pytest.raises(BadInput, match=r"PREFECT_API_URL: is not set\. Set it to the API of"),
    ):
        need_server()


@pytest.mark.slow
def test_a_server_that_does_not_answer_is_said_in_a_line(env: dict[str, str]) -> None:
    done = run("triage", env={**env, "PREFECT_API_URL": "http://127.0.0.1:1/api"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "suture: Prefect's server at http://127.0.0.1:1/api does not answer. "
        "Is `suture server` running there?"
    ]


@pytest.mark.slow
def test_the_issuers_documents_are_what_a_team_hosts(env: dict[str, str], tmp_path: Path) -> None:
    pages = json.loads(suture("issuer", "documents", env=env).stdout)
    configuration, keys = pages.values()
    url = configuration["issuer"]
    assert list(pages) == [f"{url}/.well-known/openid-configuration", configuration["jwks_uri"]]
    assert {key["kty"] for key in keys["keys"]} == {"RSA"}
    assert "d" not in keys["keys"][0]  # the private half
    assert suture("issuer", "documents", "--to", str(tmp_path), env=env).exit_code == 0
    assert json.loads((tmp_path / "jwks.json").read_text()) == keys
    assert json.loads((tmp_path / ".well-known" / "openid-configuration").read_text())


# --- the audit log -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_audit_log_is_verified_and_tampering_is_told(
    conn: psycopg.Connection, warehouse_url: str, postgres: EmbeddedPostgres
) -> None:
    env = {"SUTURE_WAREHOUSE_URL": warehouse_url}

    def verified(*more: str) -> tuple[int, dict[str, Any]]:
        result = suture("audit", "verify", "--format", "json", *more, env=env)
        return result.exit_code, json.loads(result.stdout)

    assert verified() == (0, {"holds": True, "entries": 0, "head": ""})
    for number in range(3):
        audit.append(conn, "ada", "approved", f"remediation {number}")
    code, said = verified()
    assert (code, said["holds"], said["entries"]) == (0, True, 3)
    assert verified("--expected", said["head"])[0] == 0
    code, other = verified("--expected", f"3:{'0' * 64}")
    assert (code, other["holds"], other["broken_at"]) == (1, False, 3)
    bad = refused(suture("audit", "verify", "--expected", "head", env=env))
    assert "NUMBER:HASH" in bad
    name = warehouse_url.rpartition("/")[2]
    with database.connect(postgres.url(name, "postgres")) as admin:
        admin.execute("ALTER TABLE audit_log DISABLE TRIGGER USER")
        admin.execute("UPDATE audit_log SET actor = 'eve' WHERE number = 2")
    code, said = verified()
    assert (code, said["holds"], said["broken_at"]) == (1, False, 2)


# --- the module itself -------------------------------------------------------------------------


def test_the_command_starts_quickly_because_it_imports_little() -> None:
    code = (
        "import sys, deployments.cli\n"
        "heavy = {'prefect', 'boto3', 'azure', 'moto', 'pandas', 'psycopg', 'aiohttp'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_remediation_is_halted_shown_and_lifted(warehouse_url: str, tmp_path: Path) -> None:
    policies = tmp_path / "policies.yaml"
    policies.write_text(GUIDED)
    env = {"SUTURE_WAREHOUSE_URL": warehouse_url, "SUTURE_POLICIES": str(policies)}
    assert suture("halt", env=env).stdout == "Nothing is halted.\n"
    said = suture("halt", "--reason", "too many", "--by", "Grace", "--format", "json", env=env)
    (made,) = json.loads(said.stdout)
    assert (made["what"], made["reason"], made["halted_by"]) == (
        *("Automatic remediation", "too many", "Grace"),
    )
    assert "too many" in suture("halt", "--status", env=env).stdout
    lifted = suture("halt", "--lift", "--reason", "all is well", "--by", "Ada", env=env)
    assert lifted.exit_code == 0, lifted.stderr
    assert "Ada" in lifted.stdout
    assert suture("halt", env=env).stdout == "Nothing is halted.\n"
    with database.connect(warehouse_url) as conn:
        assert [(one.actor, one.action) for one in audit.entries(conn)] == [
            ("Grace", "halted"),
            ("Ada", "lifted"),
        ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lift"], "--reason: is empty"),
        (["--lift", "--reason", "well"], "--lift: nothing is halted"),
        (["--all"], "--reason: is empty"),
        (["--policy", "by-hands", "--reason", "x"], "by-hands does not exist"),
        (["--lift", "--all", "--reason", "x"], "--all: means nothing with --lift"),
    ],
)
def test_what_cannot_be_halted_or_lifted_is_said(
    warehouse_url: str, tmp_path: Path, arguments: list[str], words: str
) -> None:
    policies = tmp_path / "policies.yaml"
    policies.write_text(GUIDED)
    env = {"SUTURE_WAREHOUSE_URL": warehouse_url, "SUTURE_POLICIES": str(policies)}
    assert words in refused(suture("halt", *arguments, env=env))


def test_without_a_warehouse_nothing_is_said_to_be_halted() -> None:
    line = refused(suture("halt", "--reason", "x", env={"SUTURE_WAREHOUSE_URL": NOBODY}))
    assert "no connection" in line


def test_an_inventory_without_azure_has_nothing_to_sweep(tmp_path: Path) -> None:
    inventory = tmp_path / "inventory.yaml"
    inventory.write_text(INVENTORY)
    env = {"SUTURE_INVENTORY": str(inventory)}
    swept = suture("gate", "sweep", "--format", "json", env=env)
    assert (swept.exit_code, json.loads(swept.stdout)) == (0, [])
    assert "nobody" in refused(suture("gate", "sweep", "--source", "nobody", env=env))
