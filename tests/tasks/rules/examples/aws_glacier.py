"""Glacier's rules: examples, what Glacier makes of their calls, and how to plant them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

VAULT = "arn:aws:glacier:eu-central-1:111122223333:vaults/archive"


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.params["accountId"] == "-"
    assert call.params["vaultName"] == config["VaultName"]
    if call.operation == "SetVaultAccessPolicy":
        config["Policy"] = json.loads(call.params["policy"]["Policy"])
    else:
        assert call.operation == "DeleteVaultAccessPolicy"
        config["Policy"] = None


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    glacier, name = cloud.client("glacier"), f"planted-{uuid.uuid4().hex}"
    glacier.create_vault(vaultName=name)
    arn = f"arn:aws:glacier:{cloud.region}:{cloud.account}:vaults/{name}"
    if config["Policy"]:
        text = json.dumps(config["Policy"]).replace(VAULT, arn)
        glacier.set_vault_access_policy(vaultName=name, policy={"Policy": text})
    return arn


def vault(*statements: dict[str, Any]) -> dict[str, Any]:
    policy = {"Version": "2012-10-17", "Statement": list(statements)} if statements else None
    return {"VaultName": "archive", "Policy": policy}


PUBLIC = {
    "Sid": "read",
    "Effect": "Allow",
    "Principal": {"AWS": "*"},
    "Action": ["glacier:InitiateJob", "glacier:GetJobOutput"],
    "Resource": VAULT,
}
PARTNER = {**PUBLIC, "Sid": "partner", "Principal": {"AWS": ["arn:aws:iam::444455556666:root"]}}
KEEP = {**PUBLIC, "Effect": "Deny", "Principal": "*", "Action": "glacier:DeleteArchive"}

EXAMPLES: dict[str, Any] = {
    "aws_glacier_vault_policy_closed_to_strangers": (
        [vault(), vault(PARTNER), vault(PARTNER, KEEP)],
        [vault(PUBLIC, PARTNER, KEEP), vault(PUBLIC)],
        "Policy",
    ),
}
KINDS: dict[str, Any] = {
    "aws.glacier.vault": {"id": VAULT, "apply": apply, "plant": plant},
}
