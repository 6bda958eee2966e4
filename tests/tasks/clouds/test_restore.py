"""Fix and restore through the gate, on generated configurations planted in the emulated clouds.

Few examples for each rule: tests/tasks/rules/test_restore.py has many, on a model of the clouds.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tasks.clouds.aws_write import aws_client
from tasks.clouds.azure_write import Arm
from tasks.clouds.remediator import apply_all
from tasks.clouds.session_policy import permission_of
from tasks.errors import BadInput
from tasks.model import Call, Cloud, Rule, Verdict
from tasks.plan import make_plan, restore_plan
from tasks.rules import RULES
from tasks.snapshot import content_of

if TYPE_CHECKING:
    from tests.tasks.clouds.conftest import Gated

pytestmark = pytest.mark.slow

NETWORK, STORAGE = "2024-05-01", "2023-05-01"
FIXING = [one for one in RULES if one.fix is not None]
number = itertools.count()


@dataclass
class Planter:
    """Makes resources with a configuration, as the customer's administrator, in one account."""

    gated: Gated
    clients: dict[str, Any] = field(default_factory=dict)
    arms: list[Arm] = field(default_factory=list)

    def __post_init__(self) -> None:
        findings = self.gated.fleet.truth["findings"]
        self.aws = next(one for one in findings if one["region"] == "eu-central-1")
        self.azure = next(one for one in findings if one["cloud"] == "azure")

    def plant(self, rule: Rule, config: Mapping[str, Any]) -> dict[str, str]:
        """A resource with this configuration; returns it as a finding of the rule."""
        made = {
            "aws.ec2.security_group": self._security_group,
            "aws.ec2.ebs_defaults": self._ebs,
            "aws.s3.bucket": self._bucket,
            "aws.iam.password_policy": self._passwords,
            "azure.network.security_group": self._network_group,
            "azure.storage.account": self._storage,
        }[rule.kind](config)
        where = self.aws if rule.cloud is Cloud.AWS else self.azure
        return {**where, "rule": rule.id, "resource": made} | (
            {"region": "global"} if rule.service == "iam" else {}
        )

    def _client(self, service: str) -> Any:
        if service not in self.clients:
            source, keys = self.gated.inventory.aws[0], self.gated.admin_keys(self.aws["account"])
            region = "us-east-1" if service == "iam" else "eu-central-1"
            self.clients[service] = aws_client(source, service, region, keys)
        return self.clients[service]

    def _security_group(self, config: Mapping[str, Any]) -> str:
        ec2 = self._client("ec2")
        group = ec2.create_security_group(GroupName=f"g{next(number)}", Description="d")["GroupId"]
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=config["IpPermissions"])
        return f"arn:aws:ec2:eu-central-1:{self.aws['account']}:security-group/{group}"

    def _ebs(self, _: Mapping[str, Any]) -> str:
        self._client("ec2").disable_ebs_encryption_by_default()
        return f"arn:aws:ec2:eu-central-1:{self.aws['account']}:ebs-encryption-by-default"

    def _bucket(self, config: Mapping[str, Any]) -> str:
        s3, name = self._client("s3"), f"planted-{uuid.uuid4().hex}"
        where = {"LocationConstraint": "eu-central-1"}
        s3.create_bucket(Bucket=name, CreateBucketConfiguration=where)
        s3.delete_public_access_block(Bucket=name)
        if config["Policy"]:
            text = json.dumps(config["Policy"]).replace("acme-logs", name)
            s3.put_bucket_policy(Bucket=name, Policy=text)
        if config["PublicAccessBlock"]:
            block = config["PublicAccessBlock"]
            s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block)
        if config["Versioning"]:
            versioning = config["Versioning"]
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=versioning)
        return f"arn:aws:s3:::{name}"

    def _passwords(self, config: Mapping[str, Any]) -> str:
        iam, policy = self._client("iam"), config["PasswordPolicy"]
        if policy is None:
            try:
                iam.delete_account_password_policy()
            except ClientError as error:
                if error.response["Error"]["Code"] != "NoSuchEntity":
                    raise
        else:
            taken = {name: one for name, one in policy.items() if name != "ExpirePasswords"}
            iam.update_account_password_policy(**taken)
        return f"arn:aws:iam::{self.aws['account']}:account-password-policy"

    def _put(self, target: str, version: str, body: Mapping[str, Any]) -> str:
        if not self.arms:
            credential = self.gated.customer(self.azure).azure
            assert credential is not None
            source = self.gated.inventory.azure[0]
            self.arms.append(Arm(source, self.azure["account"], credential))
        self.arms[0].write(Call(Cloud.AZURE, version, "PUT", body, target), None)
        return target.lower()

    def _around(self) -> str:
        return self.azure["resource"].partition("/providers/")[0]

    def _network_group(self, config: Mapping[str, Any]) -> str:
        name = f"nsg{next(number)}"
        target = f"{self._around()}/providers/Microsoft.Network/networkSecurityGroups/{name}"
        body = {"location": config["location"], "properties": config["properties"]}
        return self._put(target, NETWORK, body)

    def _storage(self, config: Mapping[str, Any]) -> str:
        name = f"planted{uuid.uuid4().hex[:16]}"
        target = f"{self._around()}/providers/Microsoft.Storage/storageAccounts/{name}"
        head = {"location": "westeurope", "kind": "StorageV2", "sku": {"name": "Standard_LRS"}}
        # What the account never had is taken away again: Azure's own accounts of old have none.
        unset = {"allowBlobPublicAccess": None, "minimumTlsVersion": None}
        made = self._put(target, STORAGE, head)
        self.arms[0].write(
            Call(
                Cloud.AZURE,
                STORAGE,
                "PATCH",
                {"properties": {**unset, **config["properties"]}},
                target,
            ),
            "",
        )
        return made


@pytest.fixture(scope="module")
def planter(gated: Gated) -> Iterator[Planter]:
    made = Planter(gated)
    yield made
    for client in (*made.clients.values(), *made.arms):
        client.close()


@pytest.mark.parametrize("row", FIXING, ids=lambda one: one.id)
def test_fix_then_restore_is_the_identity_in_the_cloud(
    row: Rule, gated: Gated, planter: Planter, failing_configs: Any
) -> None:
    @settings(max_examples=4, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(failing_configs(row), st.lists(st.sampled_from(["10.9.0.0/16", "2001:db8:1::/48"])))
    def holds(config: dict[str, Any], allowed: list[str]) -> None:
        finding = planter.plant(row, config)
        before = gated.read(finding)
        assert row.judge(before) == (Verdict.FAIL, "")
        values = {"allowed_cidrs": tuple(allowed)} if row.service != "iam" else {}
        try:
            plan = make_plan(row, before, values, finding_id="f")
        except BadInput as stuck:
            assume("priority" not in stuck.problem)
            raise
        opened = gated.open(finding)
        seen = [before]
        for _ in range(3):  # the fix, its restore, and the restore of that
            with gated.session(finding, seen[-1], plan.steps, opened.code) as session:
                apply_all(session, plan.steps)
            now = gated.read(finding)
            assert plan.achieved(row, now)
            plan = restore_plan(plan, seen[-1], now, permission=permission_of)
            seen.append(now)
        gated.close(finding)
        assert content_of(seen[2]) == content_of(row.undone(before))  # what a snapshot keeps
        assert content_of(seen[3]) == content_of(seen[1])
        assert row.judge(seen[1])[0] is Verdict.PASS

    holds()
