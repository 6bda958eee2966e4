"""What a customer deploys: generated from the rules, committed as generated, and no wider."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cfnlint.api import ManualArgs, lint
from typer.testing import CliRunner

from deployments.cli import app
from deployments.templates import (
    remediator_permissions,
    scanner_permissions,
    template,
    template_text,
)
from tasks.clouds.aws_gate import CLOSED
from tasks.clouds.azure_collect import COLLECTORS
from tasks.inventory import REMEDIATOR_ROLE, SCANNER_ROLE
from tasks.model import Cloud
from tasks.rules import RULES, rules_of

FOLDER = Path(__file__).parents[2] / "deployments"
COMMITTED = {cloud: FOLDER / cloud.value / "suture.json" for cloud in Cloud}
BOTH = pytest.mark.parametrize("cloud", list(Cloud))

# What AWS takes, white space not counted: "IAM and AWS STS quotas".
MANAGED_POLICY, INLINE_POLICIES = 6_144, 10_240


def role(name: str) -> dict[str, Any]:
    """Properties of a role of the CloudFormation template."""
    properties: dict[str, Any] = template(Cloud.AWS)["Resources"][name]["Properties"]
    return properties


def role_definition(parameter: str) -> list[str]:
    """The actions of one of the ARM template's roles."""
    for resource in template(Cloud.AZURE)["resources"]:
        if resource["properties"].get("roleName") == f"[parameters('{parameter}')]":
            (permission,) = resource["properties"]["permissions"]
            actions: list[str] = permission["actions"]
            return actions
    raise AssertionError(parameter)


@BOTH
def test_the_committed_template_is_what_the_rules_say(cloud: Cloud) -> None:
    words = f"run: suture gate template --cloud {cloud} --output {COMMITTED[cloud]}"
    assert COMMITTED[cloud].read_text("utf-8") == template_text(cloud), words


@BOTH
def test_the_command_prints_or_writes_it(cloud: Cloud, tmp_path: Path) -> None:
    command, file = ["gate", "template", "--cloud", cloud.value], tmp_path / "made.json"
    printed = CliRunner().invoke(app, command)
    written = CliRunner().invoke(app, [*command, "--output", str(file)])
    assert (printed.exit_code, written.exit_code) == (0, 0)
    assert printed.stdout == file.read_text("utf-8") == template_text(cloud)
    assert written.stdout == ""


def test_roles_can_be_as_narrow_as_the_rules_that_are_wanted() -> None:
    command = ["gate", "template", "--cloud", "aws", "--rule", "aws_s3_bucket_versioning_enabled"]
    made = CliRunner().invoke(app, [*command, "--rule", "aws_ec2_ebs_*"])
    assert made.exit_code == 0
    wanted = rules_of(["aws_s3_bucket_versioning_enabled", "aws_ec2_ebs_*"])
    assert json.loads(made.stdout) == template(Cloud.AWS, wanted)
    assert "s3:PutBucketVersioning" in made.stdout
    assert "ec2:EnableEbsEncryptionByDefault" in made.stdout
    assert "PutBucketPolicy" not in made.stdout
    assert "iam:UpdateAccountPasswordPolicy" not in made.stdout


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("aws_s9_*", "--rule"),
        ("azure_*", "none of these rules is of aws"),
        ("aws_iam_user_no_policies", "has a fix"),
    ],
)
def test_a_template_of_no_fix_is_refused(wanted: str, said: str) -> None:
    result = CliRunner().invoke(app, ["gate", "template", "--cloud", "aws", "--rule", wanted])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


@BOTH
def test_every_list_has_been_filled_in(cloud: Cloud) -> None:
    assert not re.search(r'"<\w+>"', template_text(cloud))


@BOTH
def test_a_rule_that_reads_and_writes_more_widens_its_template_alone(cloud: Cloud) -> None:
    first = next(rule for rule in RULES if rule.cloud is cloud)
    more = {
        Cloud.AWS: ("workmail:DescribeUser", "workmail:UpdateUser"),
        Cloud.AZURE: ("Microsoft.Batch/batchAccounts/read", "Microsoft.Batch/batchAccounts/write"),
    }[cloud]
    wider = replace(first, reads=(*first.reads, more[0]), writes=(*first.writes, more[1]))
    rules = [wider if rule is first else rule for rule in RULES]
    assert set(scanner_permissions(cloud, rules)) - set(scanner_permissions(cloud)) == {more[0]}
    added = set(remediator_permissions(cloud, rules)) - set(remediator_permissions(cloud))
    assert more[1] in added <= set(more)
    other = next(one for one in Cloud if one is not cloud)
    assert template(other, rules) == template(other)
    assert template(cloud, rules) != template(cloud)


@BOTH
def test_the_scanner_only_reads(cloud: Cloud) -> None:
    allowed = scanner_permissions(cloud)
    reading = {
        Cloud.AWS: r"[\w-]+:(Get|List|Describe)\w+",
        Cloud.AZURE: r"Microsoft\.[\w/]+/read",
    }[cloud]
    assert all(re.fullmatch(reading, permission) for permission in allowed)
    assert not any("federatedIdentityCredentials" in permission for permission in allowed)
    assert "iam:GetRole" not in allowed


def test_a_rule_without_a_fix_writes_nothing() -> None:
    guided = [replace(rule, fix=None) for rule in RULES]
    assert all(remediator_permissions(cloud, guided) == [] for cloud in Cloud)


# --- CloudFormation -----------------------------------------------------------------------------


def test_cfn_lint_finds_nothing_in_any_region() -> None:
    text = template_text(Cloud.AWS)
    regions = ["us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1"]
    assert lint(text, config=ManualArgs(regions=regions)) == []


def test_cfn_lint_would_find_something() -> None:
    broken = json.loads(template_text(Cloud.AWS))
    broken["Resources"]["Remediator"]["Properties"]["Bogus"] = 1
    assert lint(json.dumps(broken), config=ManualArgs(regions=["us-east-1"]))


def test_the_template_names_no_account() -> None:
    assert not re.search(r"\d{12}", template_text(Cloud.AWS))


def test_the_roles_are_called_as_the_inventory_calls_them() -> None:
    parameters = template(Cloud.AWS)["Parameters"]
    assert parameters["ScannerRoleName"]["Default"] == SCANNER_ROLE
    assert parameters["RemediatorRoleName"]["Default"] == REMEDIATOR_ROLE
    assert {name for name, one in parameters.items() if "Default" not in one} == {
        "HubPrincipal",
        "ExternalId",
    }


def test_the_remediators_trust_is_closed() -> None:
    assert role("Remediator")["AssumeRolePolicyDocument"]["Statement"] == [CLOSED]


def test_the_ceiling_is_all_that_the_remediator_has_and_its_boundary() -> None:
    remediator, ceiling = role("Remediator"), {"Ref": "RemediatorCeiling"}
    assert remediator["ManagedPolicyArns"] == [ceiling]
    assert remediator["PermissionsBoundary"] == ceiling
    assert "Policies" not in remediator
    (statement,) = role("RemediatorCeiling")["PolicyDocument"]["Statement"]
    written = {write for rule in RULES if rule.cloud is Cloud.AWS for write in rule.writes}
    assert set(statement["Action"]) == written


def test_the_scanner_is_denied_what_shows_an_open_gates_code() -> None:
    (policy,) = role("Scanner")["Policies"]
    allowed, denied = policy["PolicyDocument"]["Statement"]
    assert (allowed["Effect"], denied["Effect"]) == ("Allow", "Deny")
    assert {"iam:GetRole", "iam:ListRoles", "iam:GetAccountAuthorizationDetails"} == set(
        denied["Action"]
    )


def test_the_policies_are_within_what_aws_takes() -> None:
    def size(document: Any) -> int:
        return len("".join(json.dumps(document).split()))

    assert size(role("RemediatorCeiling")["PolicyDocument"]) <= MANAGED_POLICY
    assert size(role("Scanner")["Policies"][0]["PolicyDocument"]) <= INLINE_POLICIES
    assert size(template(Cloud.AWS)) <= 51_200


# --- ARM ----------------------------------------------------------------------------------------


def test_the_azure_roles_are_made_of_the_tables_permissions() -> None:
    assert role_definition("scannerRoleName") == scanner_permissions(Cloud.AZURE)
    assert role_definition("remediatorRoleName") == remediator_permissions(Cloud.AZURE)


def test_the_remediator_may_read_what_it_writes_because_it_asks_for_the_etag() -> None:
    allowed = set(remediator_permissions(Cloud.AZURE))
    writes = {write for rule in RULES if rule.cloud is Cloud.AZURE for write in rule.writes}
    assert writes <= allowed
    assert {f"{write.rpartition('/')[0]}/read" for write in writes} <= allowed
    assert all(one in writes or one.endswith("/read") for one in allowed)


def test_nobody_gets_the_remediators_role_from_the_template() -> None:
    text = template_text(Cloud.AZURE)
    named = re.findall(r"Microsoft\.Authorization/roleAssignments(/\w+)?\"", text)
    assert sorted(named) == ["", "/read"]  # the scanner's assignment, and what it may read
    (assigned,) = [
        resource
        for resource in template(Cloud.AZURE)["resources"]
        if resource["type"] == "Microsoft.Resources/deployments" and "copy" in resource
    ]
    assert assigned["properties"]["parameters"]["role"]["value"] == "[variables('scannerRole')]"
    assert "federatedIdentityCredentials" not in text


@pytest.mark.attack
@pytest.mark.parametrize(
    "kind", sorted({r.kind for r in RULES if r.cloud is Cloud.AZURE and r.fix is not None})
)
def test_at_a_resource_the_remediators_role_is_no_wider_than_a_role_for_its_kind(kind: str) -> None:
    """A role's actions on other types say nothing where it is assigned on a single resource."""
    rules = [rule for rule in RULES if rule.kind == kind]
    only = {one.lower() for one in remediator_permissions(Cloud.AZURE, rules)}
    everything = {one.lower() for one in remediator_permissions(Cloud.AZURE)}
    around = f"{COLLECTORS[kind].type.lower()}/"
    assert {one for one in everything if one.startswith(around)} == {
        one for one in only if one.startswith(around)
    }
