"""What Suture reads of DynamoDB: tables, and how they are encrypted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.clouds.aws_reading import Call, Part, listed

_KEPT = ("Status", "SSEType", "KMSMasterKeyArn")


def _encryption(table: Mapping[str, Any]) -> dict[str, Any]:
    """None where DynamoDB's own key is used, of which it says nothing."""
    found = table.get("SSEDescription")
    return {
        "SSEDescription": {key: found[key] for key in _KEPT if key in found} if found else None,
        "Replicas": sorted(one["RegionName"] for one in table.get("Replicas") or ()),
    }


COLLECTORS = (
    listed(
        "aws.dynamodb.table",
        Call(call="dynamodb:ListTables", take="TableNames", plain="TableName"),
        id="arn:{partition}:dynamodb:{region}:{account}:table/{TableName}",
        name="{TableName}",
        again={"TableName": "{last}"},
        keep=("TableName",),
        parts=(
            Part(
                name="Encryption",
                call=Call(
                    call="dynamodb:DescribeTable", params={"TableName": "{TableName}"}, take="Table"
                ),
                shape=_encryption,
            ),
        ),
    ),
)
