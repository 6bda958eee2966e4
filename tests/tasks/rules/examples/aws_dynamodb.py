"""DynamoDB's rules: examples, what DynamoDB makes of their calls, and how to plant them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.operation == "UpdateTable"
    assert call.params["TableName"] == config["TableName"]
    wanted = call.params["SSESpecification"]
    assert wanted["Enabled"] or wanted == {"Enabled": False}
    config["Encryption"]["SSEDescription"] = described() if wanted["Enabled"] else None


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    made = cloud.client("dynamodb").create_table(
        TableName=f"planted-{uuid.uuid4().hex}",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
        SSESpecification={"Enabled": config["Encryption"]["SSEDescription"] is not None},
    )
    return str(made["TableDescription"]["TableArn"])


def described(status: str = "ENABLED") -> dict[str, Any]:
    return {"Status": status, "SSEType": "KMS", "KMSMasterKeyArn": KEY}


def table(description: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "TableName": "orders",
        "Encryption": {"SSEDescription": description, "Replicas": []},
    }


EXAMPLES: dict[str, Any] = {
    "aws_dynamodb_table_encrypted_with_kms": (
        [table(described())],
        [table(None)],
        "Encryption",
    ),
}
KINDS: dict[str, Any] = {
    "aws.dynamodb.table": {
        "id": "arn:aws:dynamodb:eu-central-1:111122223333:table/orders",
        "apply": apply,
        "plant": plant,
        "values": {"kms_key": ""},
    },
}
