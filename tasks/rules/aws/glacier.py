"""Glacier's rules: policies of vaults let no stranger in."""

from __future__ import annotations

from typing import Any

from tasks.model import Call, Cloud, Resource, Rule, Severity
from tasks.rules.aws.policies import lets_no_stranger_in, shut
from tasks.rules.guide import written
from tasks.rules.shape import text


def closed(resource: Resource) -> bool:
    return lets_no_stranger_in(resource.config["Policy"])


def _call(operation: str, resource: Resource, **params: Any) -> Call:
    """ "-" stands for the account that asks."""
    named = {"accountId": "-", "vaultName": text(resource.config["VaultName"], "VaultName")}
    return Call(Cloud.AWS, "glacier", operation, {**named, **params})


RULES = (
    Rule(
        id="aws_glacier_vault_policy_closed_to_strangers",
        kind="aws.glacier.vault",
        severity=Severity.HIGH,
        title="Glacier vault policy lets no stranger in",
        passes=closed,
        fix=shut(
            put=lambda vault, policy: _call(
                "SetVaultAccessPolicy", vault, policy={"Policy": policy}
            ),
            put_action="glacier:SetVaultAccessPolicy",
            drop=lambda vault: _call("DeleteVaultAccessPolicy", vault),
            drop_action="glacier:DeleteVaultAccessPolicy",
        ),
        reads=("glacier:ListVaults", "glacier:GetVaultAccessPolicy"),
        writes=("glacier:SetVaultAccessPolicy", "glacier:DeleteVaultAccessPolicy"),
        events=(
            "glacier:CreateVault",
            "glacier:SetVaultAccessPolicy",
            "glacier:DeleteVaultAccessPolicy",
        ),
        aka=("prowler:glacier_vaults_policy_public_access",),
        guide=written(
            means="""A statement of the vault's access policy allows everyone ("*", or all but
                some), and no condition ties it to an account, an organization or a network, nor
                does a Deny take it back.""",
            matters="""Vaults hold backups and archives: copies of everything, for years. Whoever
                has an AWS account may do there what the statement says.""",
            console="S3 Glacier > Vaults > the vault > Vault policies > Edit access policy.",
            cli="""
                aws glacier get-vault-access-policy --account-id - --vault-name NAME
                aws glacier set-vault-access-policy --account-id - --vault-name NAME \\
                  --policy file://policy.json""",
            terraform="""
                resource "aws_glacier_vault" "this" {
                  name          = "archive"
                  access_policy = data.aws_iam_policy_document.our_accounts_only.json
                }""",
            fix="""It takes out the statements that let strangers in, and leaves every other
                statement as it is. Where none would be left, it deletes the policy. The vault's
                lock policy is never touched: what it once says stays.""",
            breaks="""Whoever reached the vault by such a statement: name them in a statement of
                their own first. The own account's roles need no policy here.""",
            back="Suture's undo writes the old policy again, statement by statement.",
        ),
    ),
)
