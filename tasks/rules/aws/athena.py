"""Athena's rules: workgroups encrypt what queries find."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Change, Resource, Rule, Severity
from tasks.rules.aws.keys import encrypt, key_input
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, odd, text

_KEY = key_input(empty="S3's own keys")
_PART = "Configuration"
_OPTIONS = ("SSE_S3", "SSE_KMS", "CSE_KMS")


def _workgroup(resource: Resource) -> Mapping[str, Any]:
    return {"WorkGroup": text(resource.config["Name"], "Name")}


def encrypted(resource: Resource) -> bool:
    """By its own configuration, or because Athena keeps the results itself, always encrypted."""
    configuration = mapping(resource.config[_PART], _PART)
    results = mapping(configuration.get("ResultConfiguration"), f"{_PART}.ResultConfiguration")
    managed = mapping(
        configuration.get("ManagedQueryResultsConfiguration", {}),
        f"{_PART}.ManagedQueryResultsConfiguration",
    )
    if flag(managed.get("Enabled", False), f"{_PART}.ManagedQueryResultsConfiguration.Enabled"):
        return True
    if results.get("EncryptionConfiguration") is None:
        return False
    found = mapping(results["EncryptionConfiguration"], f"{_PART}.EncryptionConfiguration")
    if found.get("EncryptionOption") not in _OPTIONS:
        raise odd(f"{_PART}.EncryptionConfiguration.EncryptionOption")
    return True


def _results(**updates: Any) -> Mapping[str, Any]:
    return {"ConfigurationUpdates": {"ResultConfigurationUpdates": updates}}


def _with_key(_workgroup: Resource, key: str) -> Mapping[str, Any]:
    how = {"EncryptionOption": "SSE_KMS", "KmsKey": key} if key else {"EncryptionOption": "SSE_S3"}
    return _results(EncryptionConfiguration=how)


RULES = (
    Rule(
        id="aws_athena_workgroup_encrypts_results",
        kind="aws.athena.workgroup",
        severity=Severity.MEDIUM,
        title="Athena workgroup encrypts the results of queries",
        passes=encrypted,
        fix=encrypt(
            "athena:UpdateWorkGroup",
            "athena",
            "UpdateWorkGroup",
            key=_KEY,
            passes=encrypted,
            names=_workgroup,
            good=_with_key,
            old=lambda _workgroup, _key: _results(RemoveEncryptionConfiguration=True),
            changes=lambda _workgroup, key: (
                Change("encryption of results", "not set", f"KMS, with {key}" if key else "SSE-S3"),
            ),
        ),
        inputs=(_KEY,),
        reads=("athena:ListWorkGroups", "athena:GetWorkGroup"),
        writes=("athena:UpdateWorkGroup",),
        events=("athena:CreateWorkGroup", "athena:UpdateWorkGroup"),
        aka=("cloudsploit:workgroupEncrypted", "prowler:athena_workgroup_encryption"),
        guide=written(
            means="""The workgroup's configuration does not say how results of queries are encrypted
                in S3, and Athena does not keep them itself.""",
            matters="""Results are copies of the data that was asked for. They lie in a bucket of
                their own, which is easily forgotten when the data itself is protected.""",
            console="Athena > Workgroups > the workgroup > Edit > Query result configuration.",
            cli="""
                aws athena update-work-group --work-group NAME \\
                  --configuration-updates file://encrypt-results.json""",
            terraform="""
                resource "aws_athena_workgroup" "this" {
                  configuration {
                    result_configuration {
                      encryption_configuration { encryption_option = "SSE_S3" }
                    }
                  }
                }""",
            fix="""It makes the workgroup encrypt results with S3's own keys, or with the KMS key
                that the approver names. Where the workgroup does not override the settings of
                clients, those still count: turn that on, too.""",
            breaks="""With S3's own keys nothing. With a KMS key, whoever runs queries or reads
                their results needs that key.""",
            back="Suture's undo takes the setting out again. Results that were written stay so.",
        ),
    ),
)
