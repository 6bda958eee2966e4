"""Athena's rules: examples, what Athena makes of their calls, and how to plant them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

KMS = {"EncryptionOption": "SSE_KMS", "KmsKey": "alias/results"}


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.operation == "UpdateWorkGroup"
    assert call.params["WorkGroup"] == config["Name"]
    updates = call.params["ConfigurationUpdates"]["ResultConfigurationUpdates"]
    results = config["Configuration"]["ResultConfiguration"]
    if updates.get("RemoveEncryptionConfiguration"):
        results.pop("EncryptionConfiguration", None)
    else:
        results["EncryptionConfiguration"] = updates["EncryptionConfiguration"]


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    name = f"planted-{uuid.uuid4().hex}"
    made = config["Configuration"]
    cloud.client("athena").create_work_group(Name=name, Configuration=made)
    return f"arn:aws:athena:{cloud.region}:{cloud.account}:workgroup/{name}"


def workgroup(results: dict[str, Any], **more: Any) -> dict[str, Any]:
    configuration = {"EnforceWorkGroupConfiguration": True, "ResultConfiguration": results, **more}
    return {"Name": "analysts", "Configuration": configuration}


EXAMPLES: dict[str, Any] = {
    "aws_athena_workgroup_encrypts_results": (
        [
            workgroup({"EncryptionConfiguration": {"EncryptionOption": "SSE_S3"}}),
            workgroup({"EncryptionConfiguration": KMS, "OutputLocation": "s3://results/"}),
            workgroup({}, ManagedQueryResultsConfiguration={"Enabled": True}),
        ],
        [
            workgroup({"OutputLocation": "s3://results/"}),
            workgroup({}, EnforceWorkGroupConfiguration=False),
            workgroup({}, ManagedQueryResultsConfiguration={"Enabled": False}),
        ],
        "Configuration",
    ),
}
KINDS: dict[str, Any] = {
    "aws.athena.workgroup": {
        "id": "arn:aws:athena:eu-central-1:111122223333:workgroup/analysts",
        "apply": apply,
        "plant": plant,
        "values": {"kms_key": ""},
    },
}
