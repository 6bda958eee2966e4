"""Key Vault's rules where the table of examples does not reach: what of a vault is read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tasks.clouds.azure_collect import read_one
from tasks.model import Verdict
from tasks.rules import rule

ID = "/subscriptions/s/resourcegroups/rg/providers/microsoft.keyvault/vaults/acme"
KIND = "azure.keyvault.vault"


class Arm:
    """A vault with these secrets, and nothing else."""

    def __init__(self, secrets: list[Any]) -> None:
        self.secrets = secrets

    async def get(self, path: str, version: str) -> Any:
        return {"id": ID, "name": "acme", "properties": {"tenantId": "t"}}

    async def items(self, path: str, version: str) -> AsyncIterator[Any]:
        for item in self.secrets if path.endswith("/secrets") else []:
            yield item


def secret(name: str, attributes: Any) -> dict[str, Any]:
    return {"name": name, "properties": {"attributes": attributes, "secretUri": "https://x"}}


def judge(*secrets: dict[str, Any]) -> tuple[Any, Verdict]:
    arm: Any = Arm(list(secrets))
    vault = asyncio.run(read_one(arm, "s", KIND, ID))
    return vault.config["secrets"], rule("azure_keyvault_vault_secrets_expire").judge(vault)[0]


def test_what_expires_or_is_disabled_is_no_matter() -> None:
    ends = secret("ends", {"enabled": True, "exp": 1893456000})
    off = secret("off", {"enabled": False})
    assert judge(ends, off) == ([], Verdict.PASS)


def test_what_never_expires_is_kept_without_what_moves() -> None:
    moving = {"enabled": True, "created": 1, "updated": 2, "recoveryLevel": "Purgeable"}
    kept = [{"name": "ever", "properties": {"attributes": {"enabled": True}}}]
    assert judge(secret("ever", moving)) == (kept, Verdict.FAIL)


@pytest.mark.parametrize("attributes", [None, [], "text", {"exp": "soon"}])
def test_what_cannot_be_read_is_unknown(attributes: Any) -> None:
    assert judge(secret("odd", attributes))[1] is Verdict.UNKNOWN
