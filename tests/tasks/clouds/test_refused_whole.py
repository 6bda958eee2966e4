"""An account that gives nothing away, before the whole rule table."""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Any

import pytest

from deployments.local.azure.rbac import RoleAssignment, RoleDefinition
from tasks.clouds.aws_write import aws_client
from tasks.clouds.scanner import Scanner
from tasks.clouds.transport import Limits
from tasks.inventory import AwsSource, AzureSource, Inventory
from tasks.model import Account, AccountScan, Cloud
from tasks.rules import RULES

pytestmark = pytest.mark.slow
NAMED_ONLY = ("Microsoft.Resources/subscriptions/read",)


async def scanned(source: AwsSource | AzureSource, account: str, quick: Limits) -> AccountScan:
    aws, azure = ([source], []) if isinstance(source, AwsSource) else ([], [source])
    inventory = Inventory(aws=tuple(aws), azure=tuple(azure))  # type: ignore[arg-type]
    cloud = Cloud.AWS if aws else Cloud.AZURE
    async with Scanner(inventory, quick, rules=RULES) as scanner:
        return await scanner.scan(Account(cloud, account, source=source.name))


async def test_aws_account_whose_role_may_nothing_is_failed_and_not_clean(
    gated: Any, quick: Limits
) -> None:
    source = gated.inventory.aws[0]
    account = next(
        one["id"] for one in gated.fleet.description["aws"]["accounts"] if one["status"] == "ACTIVE"
    )
    iam = aws_client(source, "iam", "us-east-1", gated.admin_keys(account))
    trust = iam.get_role(RoleName=source.scanner_role)["Role"]["AssumeRolePolicyDocument"]
    iam.create_role(RoleName="MayNothing", AssumeRolePolicyDocument=json.dumps(trust))
    iam.close()
    scan = await scanned(replace(source, scanner_role="MayNothing"), account, quick)
    assert scan.failed.startswith("refused: "), [one for one in scan.coverage if one.ok]
    assert (len(scan.resources), len(scan.observations), len(scan.coverage)) == (0, 0, 0)


async def test_aws_account_that_throttles_whatever_is_asked_says_so_in_time(
    gated: Any, quick: Limits
) -> None:
    """One patience for each of thirty services in each region would outlast its time."""
    accounts = gated.fleet.description["aws"]["accounts"]
    account = [one["id"] for one in accounts if one["status"] == "ACTIVE"][-1]
    gated.aws.fail(account, "throttled")
    try:
        scan = await scanned(gated.inventory.aws[0], account, quick)
    finally:
        gated.aws.recover(account)
    assert scan.failed.startswith("throttled: ")
    assert "\n" not in scan.failed
    assert len(scan.coverage) == 0


async def test_azure_subscription_that_is_only_named_is_failed_and_not_clean(
    gated: Any, quick: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, tenant = gated.inventory.azure[0], gated.azure.tenant
    told = gated.fleet.description["azure"]["subscriptions"]
    subscription = next(one["id"] for one in told if one["state"] == "Enabled")
    scanner = tenant.principals[source.client_id]
    client, principal, secret = (str(uuid.uuid4()) for _ in range(3))
    tenant.add_principal(type(scanner)(client, principal, "names only")).add_secret(secret)
    role = RoleDefinition(str(uuid.uuid4()), "Names only", "", NAMED_ONLY)
    tenant.access.assign(
        RoleAssignment(str(uuid.uuid4()), f"/subscriptions/{subscription}", principal, role)
    )
    monkeypatch.setenv("TEST_NAMES_ONLY", secret)
    names_only = replace(source, client_id=client, client_secret_env="TEST_NAMES_ONLY")
    scan = await scanned(names_only, subscription, quick)
    assert scan.failed.startswith("refused: "), [one for one in scan.coverage if one.ok]
    assert (len(scan.resources), len(scan.observations), len(scan.coverage)) == (0, 0, 0)
