"""What Suture reads of Glacier: vaults and their access policies."""

from __future__ import annotations

import json

from tasks.clouds.aws_reading import Call, Part, listed

COLLECTORS = (
    listed(
        "aws.glacier.vault",
        Call(call="glacier:ListVaults", params={"accountId": "-"}, take="VaultList"),
        id="{VaultARN}",
        name="{VaultName}",
        again={"VaultName": "{last}", "VaultARN": "{id}"},
        keep=("VaultName",),
        parts=(
            Part(
                name="Policy",
                call=Call(
                    call="glacier:GetVaultAccessPolicy",
                    params={"accountId": "-", "vaultName": "{VaultName}"},
                    take="policy.Policy",
                ),
                absent=("ResourceNotFoundException",),
                shape=json.loads,
            ),
        ),
    ),
)
