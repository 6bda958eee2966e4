"""DynamoDB's rules: tables are encrypted with KMS keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.errors import BadInput
from tasks.model import Change, Resource, Rule, Severity, Step, Unknown
from tasks.rules.aws.keys import encrypt, key_input
from tasks.rules.guide import written
from tasks.rules.shape import mapping, odd, sequence, text

_KEY = key_input(empty="AWS's own key for DynamoDB")
_PART = "Encryption"


def _table(resource: Resource) -> Mapping[str, Any]:
    return {"TableName": text(resource.config["TableName"], "TableName")}


def encrypted(resource: Resource) -> bool | Unknown:
    """Without a word of encryption a table has the key that DynamoDB owns, of which nobody sees."""
    part = mapping(resource.config[_PART], _PART)
    if "SSEDescription" not in part:
        raise odd(_PART)
    if part["SSEDescription"] is None:
        return False
    found = mapping(part["SSEDescription"], _PART)
    status = text(found.get("Status"), f"{_PART}.Status")
    if status in ("UPDATING", "ENABLING", "DISABLING"):
        return Unknown("the table's encryption is being changed")
    if status not in ("ENABLED", "DISABLED"):
        raise odd(f"{_PART}.Status")
    return status == "ENABLED" and found.get("SSEType") == "KMS"


def _with_key(_table: Resource, key: str) -> Mapping[str, Any]:
    named = {"KMSMasterKeyId": key} if key else {}
    return {"SSESpecification": {"Enabled": True, "SSEType": "KMS", **named}}


_ENCRYPT = encrypt(
    "dynamodb:UpdateTable",
    "dynamodb",
    "UpdateTable",
    key=_KEY,
    passes=encrypted,
    names=_table,
    good=_with_key,
    old=lambda _table, _key: {"SSESpecification": {"Enabled": False}},
    changes=lambda _table, key: (
        Change("encryption", "DynamoDB's own key", f"KMS, with {key or 'alias/aws/dynamodb'}"),
    ),
)


def use_kms(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Raises BadInput for a global table, whose replicas must change together."""
    steps = _ENCRYPT(resource, values)
    if steps and sequence(resource.config[_PART].get("Replicas", ()), f"{_PART}.Replicas"):
        raise BadInput(
            _PART,
            "the table has replicas in other regions, which must have the same kind of key.",
            "Follow the guide of this rule by hand, for all of its regions.",
        )
    return steps


RULES = (
    Rule(
        id="aws_dynamodb_table_encrypted_with_kms",
        kind="aws.dynamodb.table",
        severity=Severity.LOW,
        title="DynamoDB table is encrypted with a KMS key of the account",
        passes=encrypted,
        fix=use_kms,
        inputs=(_KEY,),
        reads=("dynamodb:ListTables", "dynamodb:DescribeTable"),
        writes=("dynamodb:UpdateTable",),
        events=("dynamodb:CreateTable", "dynamodb:UpdateTable"),
        aka=(
            "cloudsploit:dynamoKmsEncryption",
            "prowler:dynamodb_tables_kms_cmk_encryption_enabled",
        ),
        guide=written(
            means="""The table is encrypted with a key that DynamoDB owns and shares among its
                customers, which is the default, and not with a KMS key of the account.""",
            matters="""Of DynamoDB's own key nobody sees a use, and nobody can revoke it. The use of
                a KMS key is in CloudTrail, and a key of yours can be disabled.""",
            console="DynamoDB > Tables > the table > Additional settings > Encryption > Manage.",
            cli="""
                aws dynamodb update-table --table-name NAME \\
                  --sse-specification Enabled=true,SSEType=KMS""",
            terraform="""
                resource "aws_dynamodb_table" "this" {
                  server_side_encryption {
                    enabled     = true
                    kms_key_arn = aws_kms_key.tables.arn
                  }
                }""",
            fix="""It sets the key that the approver names, or AWS's own for DynamoDB. The table
                stays usable meanwhile. Global tables are left alone: their replicas must change
                together.""",
            breaks="""KMS charges for its calls. With a key of yours, whoever uses the table needs
                it, too, and the table cannot be read while the key is disabled. DynamoDB takes
                four such changes a day, and one more every six hours.""",
            back="Suture's undo goes back to DynamoDB's own key.",
        ),
    ),
)
