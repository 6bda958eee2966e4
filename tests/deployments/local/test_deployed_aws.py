"""The CloudFormation template, deployed by a customer: are its roles what Suture needs?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr

from deployments.local.aws.server import EmulatedAws
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.gate import CustomerCredentials, close_gate, gate_status, open_gate
from tasks.clouds.remediator import Propagation, Session, apply_all, open_session
from tasks.clouds.scanner import Scanner
from tasks.errors import GateRefused
from tasks.inventory import AwsSource, HubCredentials, Inventory
from tasks.model import Account, AccountScan, Cloud, Observation, Resource, Step, Verdict
from tasks.rules import RULES, rule

pytestmark = pytest.mark.slow

TEMPLATE = Path(__file__).parents[3] / "deployments" / "aws" / "suture.json"
AT_ONCE = Propagation(code=0, access=0)


@dataclass
class Deployed:
    """An account without Suture's roles, in which the customer has deployed the template."""

    emulated: EmulatedAws
    account: Account
    inventory: Inventory

    @property
    def customer(self) -> CustomerCredentials:
        keys = self.emulated.description["customer"]
        own = AwsCredentials(keys["access_key_id"], keys["secret_access_key"])
        return CustomerCredentials(aws=own)

    def findings(self) -> set[tuple[str, str]]:
        mine = [one for one in self.emulated.truth if one["account"] == self.account.id]
        return {(one["rule"], one["resource"]) for one in mine}

    def scan(self) -> AccountScan:
        async def scan() -> AccountScan:
            async with Scanner(self.inventory, rules=RULES) as scanner:
                return await scanner.scan(self.account)

        return asyncio.run(scan())

    def failing(self) -> list[Observation]:
        """What fails now, of the rules that something was planted for and that have a fix."""
        rules = {its_rule for its_rule, _ in self.findings() if rule(its_rule).fix is not None}
        found = self.scan().observations
        return [one for one in found if one.verdict is Verdict.FAIL and one.rule in rules]

    def read(self, kind: str, resource: str, region: str) -> Resource:
        async def read() -> Resource:
            async with Scanner(self.inventory, rules=RULES) as scanner:
                account = self.account
                return await scanner.read(
                    account.cloud, account.id, account.source, kind, resource, region
                )

        return asyncio.run(read())

    def session(self, resource: Resource, steps: tuple[Step, ...], code: SecretStr) -> Session:
        return open_session(
            self.inventory, self.account, resource, steps, code, propagation=AT_ONCE
        )


def client(emulated: EmulatedAws, service: str, keys: dict[str, str]) -> Any:
    return closing(
        boto3.client(
            service,
            region_name="us-east-1",
            endpoint_url=emulated.endpoint,
            aws_access_key_id=keys.get("access_key_id") or keys["AccessKeyId"],
            aws_secret_access_key=keys.get("secret_access_key") or keys["SecretAccessKey"],
            aws_session_token=keys.get("SessionToken"),
        )
    )


def admin(emulated: EmulatedAws, account: str) -> dict[str, str]:
    """What the customer's administrators are in a member account."""
    told = emulated.description
    with client(emulated, "sts", told["customer"]) as sts:
        keys: dict[str, str] = sts.assume_role(
            RoleArn=f"arn:aws:iam::{account}:role/{told['admin_role']}",
            RoleSessionName="administrator",
        )["Credentials"]
    return keys


def without_roles(emulated: EmulatedAws, keys: dict[str, str]) -> None:
    """An account as a customer's is before Suture comes: the fleet's has both roles."""
    with client(emulated, "iam", keys) as iam:
        for role in ("SutureScanner", "SutureRemediator"):
            for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
                iam.delete_role_policy(RoleName=role, PolicyName=name)
            iam.delete_role(RoleName=role)


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    with (
        EmulatedAws(accounts=3, seed=5501, failing=False) as emulated,
        pytest.MonkeyPatch.context() as patch,
    ):
        told = emulated.description
        management = told["organization"]["management_account"]
        account = next(
            one["id"]
            for one in told["accounts"]
            if one["status"] == "ACTIVE" and one["id"] != management
        )
        patch.setenv("TEST_HUB_KEY", told["hub"]["access_key_id"])
        patch.setenv("TEST_HUB_SECRET", told["hub"]["secret_access_key"])
        source = AwsSource(
            name="acme",
            accounts=(account,),
            regions=tuple(told["regions"]),
            external_id=told["external_id"],
            hub_principal=told["hub"]["arn"],
            endpoint=told["endpoint"],
            credentials=HubCredentials(
                access_key_id_env="TEST_HUB_KEY", secret_access_key_env="TEST_HUB_SECRET"
            ),
        )
        one = Account(Cloud.AWS, account, source="acme")
        deployed = Deployed(emulated, one, Inventory(aws=(source,)))
        without_roles(emulated, admin(emulated, account))
        assert deployed.scan().failed, "there should be nothing to scan with yet"
        with client(emulated, "cloudformation", admin(emulated, account)) as cloudformation:
            cloudformation.create_stack(
                StackName="suture",
                TemplateBody=TEMPLATE.read_text("utf-8"),
                Capabilities=["CAPABILITY_NAMED_IAM"],
                Parameters=[
                    {"ParameterKey": "HubPrincipal", "ParameterValue": source.hub_principal},
                    {"ParameterKey": "ExternalId", "ParameterValue": source.external_id},
                ],
            )
            waiter = cloudformation.get_waiter("stack_create_complete")
            waiter.wait(StackName="suture", WaiterConfig={"Delay": 1, "MaxAttempts": 5})
        yield deployed


def test_the_stack_says_what_the_inventory_needs(deployed: Deployed) -> None:
    account, source = deployed.account.id, deployed.inventory.aws[0]
    with client(
        deployed.emulated, "cloudformation", admin(deployed.emulated, account)
    ) as cloudformation:
        (stack,) = cloudformation.describe_stacks(StackName="suture")["Stacks"]
    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    assert outputs == {
        "ScannerRole": source.role_arn(account, source.scanner_role),
        "RemediatorRole": source.role_arn(account, source.remediator_role),
    }


def test_the_scanner_made_reads_all_that_the_rules_judge(deployed: Deployed) -> None:
    scan = deployed.scan()
    assert not scan.failed
    assert all(covered.ok for covered in scan.coverage)
    assert not [one for one in scan.observations if one.verdict is Verdict.UNKNOWN]
    planted = deployed.findings()
    rules = {its_rule for its_rule, _ in planted}
    failing = {
        (one.rule, one.resource)
        for one in scan.observations
        if one.verdict is Verdict.FAIL and one.rule in rules
    }
    assert failing == planted != set()


def test_the_scanner_made_writes_nothing_and_sees_no_open_gate(deployed: Deployed) -> None:
    source = deployed.inventory.aws[0]
    with client(deployed.emulated, "sts", deployed.emulated.description["hub"]) as sts:
        keys = sts.assume_role(
            RoleArn=source.role_arn(deployed.account.id, source.scanner_role),
            RoleSessionName="suture",
            ExternalId=source.external_id,
        )["Credentials"]
    with client(deployed.emulated, "iam", keys) as iam:
        refused(iam.get_role, RoleName="SutureRemediator")
        refused(iam.delete_account_password_policy)
    # Not even where someone gives it more than the template did: the deny stays.
    with client(
        deployed.emulated, "iam", admin(deployed.emulated, deployed.account.id)
    ) as iam_of_admin:
        everything = {"Effect": "Allow", "Action": "iam:*", "Resource": "*"}
        more = {"RoleName": "SutureScanner", "PolicyName": "more"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
        iam_of_admin.put_role_policy(**more, PolicyDocument=document)
        with client(deployed.emulated, "iam", keys) as iam:
            assert iam.list_users()
            refused(iam.get_role, RoleName="SutureRemediator")
            refused(iam.list_roles)
            refused(iam.get_account_authorization_details)
        iam_of_admin.delete_role_policy(**more)


def refused(call: Any, **params: Any) -> None:
    with pytest.raises(ClientError) as caught:
        call(**params)
    assert caught.value.response["Error"]["Code"] == "AccessDenied"


def test_the_remediator_made_is_closed_opens_fixes_and_closes(deployed: Deployed) -> None:
    rule_id = "aws_iam_password_policy_length"
    # One that every account has; made to fail, whatever the seed dealt.
    with client(deployed.emulated, "iam", admin(deployed.emulated, deployed.account.id)) as iam:
        iam.update_account_password_policy(MinimumPasswordLength=8)
    policy = f"arn:aws:iam::{deployed.account.id}:account-password-policy"
    where = (rule(rule_id).kind, policy, "global")
    before = deployed.read(*where)
    fix = rule(rule_id).fix
    assert fix is not None
    steps = fix(before, {"minimum_length": 14})

    assert not gate_status(deployed.inventory, deployed.account, customer=deployed.customer).is_open
    for guess in ("123456", "x" * 32):
        with pytest.raises(GateRefused):
            deployed.session(before, steps, SecretStr(guess))
    assert rule(rule_id).judge(deployed.read(*where))[0] is Verdict.FAIL

    opened = open_gate(
        deployed.inventory, deployed.account, machine=True, customer=deployed.customer
    )
    with pytest.raises(GateRefused):
        deployed.session(before, steps, SecretStr("y" * 32))
    with deployed.session(before, steps, opened.code) as session:
        apply_all(session, steps)
        after = deployed.read(*where)
        assert rule(rule_id).judge(after)[0] is Verdict.PASS
        for step in reversed(steps):
            session.undo(step)
    assert deployed.read(*where).fingerprint == before.fingerprint

    close_gate(deployed.inventory, deployed.account, customer=deployed.customer)
    with pytest.raises(GateRefused):
        deployed.session(before, steps, opened.code)


def test_the_ceiling_holds_whatever_is_attached_and_whatever_is_asked(deployed: Deployed) -> None:
    """A session policy asks for more, and so does a policy that somebody attached: in vain."""
    emulated, account = deployed.emulated, deployed.account
    everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [everything]})
    source = deployed.inventory.aws[0]
    opened = open_gate(deployed.inventory, account, machine=True, customer=deployed.customer)
    external_id = f"{source.external_id}:{opened.code.get_secret_value()}"
    with client(emulated, "iam", admin(emulated, account.id)) as iam:
        more = {"RoleName": "SutureRemediator", "PolicyName": "more"}
        iam.put_role_policy(**more, PolicyDocument=document)
        with client(emulated, "sts", emulated.description["hub"]) as sts:
            keys = sts.assume_role(
                RoleArn=source.role_arn(account.id, source.remediator_role),
                RoleSessionName="suture",
                ExternalId=external_id,
                Policy=document,
            )["Credentials"]
        with client(emulated, "iam", keys) as remediator:
            remediator.update_account_password_policy(MinimumPasswordLength=8)
            mine = {"RoleName": source.remediator_role}
            for call, params in (
                (remediator.create_user, {"UserName": "intruder"}),
                (remediator.update_assume_role_policy, {**mine, "PolicyDocument": _everyone()}),
                (remediator.delete_role_permissions_boundary, mine),
                (remediator.list_users, {}),
            ):
                refused(call, **params)
        iam.delete_role_policy(**more)
    close_gate(deployed.inventory, account, customer=deployed.customer)


def _everyone() -> str:
    statement = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def test_all_that_is_found_can_be_fixed_below_the_ceiling(deployed: Deployed) -> None:
    """Each finding that was planted, for real, through the gate, with the role made.

    What the fleet does not plant has its own test: tasks/clouds/test_contract.py.
    """
    found = deployed.failing()
    assert len({one.rule for one in found}) >= 4
    opened = open_gate(
        deployed.inventory, deployed.account, machine=True, customer=deployed.customer
    )
    for finding in found:
        its_rule = rule(finding.rule)
        resource = deployed.read(its_rule.kind, finding.resource, finding.region)
        values = {one.name: () if one.kind == "cidrs" else 14 for one in its_rule.inputs}
        assert its_rule.fix is not None
        steps = its_rule.fix(resource, values)
        if not steps:  # another rule's fix has closed it, too
            continue
        with deployed.session(resource, steps, opened.code) as session:
            apply_all(session, steps)
    close_gate(deployed.inventory, deployed.account, customer=deployed.customer)
    assert deployed.failing() == []


def test_the_external_id_is_asked_for(deployed: Deployed) -> None:
    source = deployed.inventory.aws[0]
    with client(deployed.emulated, "sts", deployed.emulated.description["hub"]) as sts:
        arn = source.role_arn(deployed.account.id, source.scanner_role)
        refused(sts.assume_role, RoleArn=arn, RoleSessionName="suture")
