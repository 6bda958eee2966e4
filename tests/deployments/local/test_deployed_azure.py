"""The ARM template, deployed by a customer: are its roles and identity what Suture needs?"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import ssl
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from azure.identity import ClientSecretCredential
from pydantic import SecretStr

from deployments.local.azure.server import EmulatedAzure
from deployments.local.azure.tenant import ServicePrincipal
from tasks.clouds import azure_write
from tasks.clouds.azure_write import Arm, identity_options
from tasks.clouds.gate import CustomerCredentials, close_gate, gate_status, open_gate
from tasks.clouds.issuer import generate_key
from tasks.clouds.remediator import Propagation, Session, apply_all, open_session
from tasks.clouds.scanner import Scanner
from tasks.errors import AccessRefused, GateRefused
from tasks.inventory import AzureSource, Inventory, Issuer
from tasks.model import Account, AccountScan, Cloud, Observation, Resource, Step, Verdict
from tasks.rules import RULES, rule

pytestmark = pytest.mark.slow

TEMPLATE = Path(__file__).parents[3] / "deployments" / "azure" / "suture.json"
VERSION = "2022-09-01"
AT_ONCE = Propagation(code=0, access=0)


@dataclass
class Deployed:
    """A tenant with an application of Suture's, in which the customer deployed the template."""

    emulated: EmulatedAzure
    inventory: Inventory
    outputs: dict[str, str]
    customer: CustomerCredentials

    @property
    def source(self) -> AzureSource:
        return self.inventory.azure[0]

    @property
    def home(self) -> str:
        return live(self.emulated)[0]

    def account(self, subscription: str) -> Account:
        return Account(Cloud.AZURE, subscription, source=self.source.name, status="enabled")

    def scan(self, subscription: str) -> AccountScan:
        async def scan() -> AccountScan:
            async with Scanner(self.inventory, rules=RULES) as scanner:
                return await scanner.scan(self.account(subscription))

        return asyncio.run(scan())

    def failing(self, subscription: str) -> list[Observation]:
        """What fails now, of the rules that something was planted for and that have a fix.

        What the fleet does not plant has its own test: tasks/clouds/test_contract.py.
        """
        planted = {one["rule"] for one in self.emulated.truth}
        rules = {its_rule for its_rule in planted if rule(its_rule).fix is not None}
        found = self.scan(subscription).observations
        return [one for one in found if one.verdict is Verdict.FAIL and one.rule in rules]

    def read(self, finding: Observation) -> Resource:
        async def read() -> Resource:
            async with Scanner(self.inventory, rules=RULES) as scanner:
                return await scanner.read(
                    Cloud.AZURE,
                    finding.account,
                    self.source.name,
                    finding.kind,
                    finding.resource,
                    finding.region,
                )

        return asyncio.run(read())

    def session(
        self, finding: Observation, resource: Resource, steps: tuple[Step, ...], code: SecretStr
    ) -> Session:
        account = self.account(finding.account)
        return open_session(self.inventory, account, resource, steps, code, propagation=AT_ONCE)


def credential(source: AzureSource, login: dict[str, str]) -> ClientSecretCredential:
    return ClientSecretCredential(
        source.tenant, login["client_id"], login["client_secret"], **identity_options(source)
    )


def live(emulated: EmulatedAzure) -> list[str]:
    return [one["id"] for one in emulated.description["subscriptions"] if one["state"] == "Enabled"]


@contextmanager
def as_customer(emulated: EmulatedAzure) -> Iterator[httpx.Client]:
    """ARM with a token of the customer's administrator."""
    told = emulated.description
    context = ssl.create_default_context(cafile=str(emulated.ca_file))
    with httpx.Client(verify=context, base_url=told["resource_manager"]) as http:
        token = http.post(
            f"{told['authority']}/{told['tenant']}/oauth2/v2.0/token",
            data={
                "grant_type": "client_credentials",
                "scope": "https://management.azure.com/.default",
                **told["customer"],
            },
        ).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        yield http


def deploy(http: httpx.Client, subscription: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """As `az deployment sub create` does: validate, deploy, poll, and read the outputs."""
    path = f"/subscriptions/{subscription}/providers/Microsoft.Resources/deployments/suture"
    version = {"api-version": VERSION}
    body = {
        "location": "westeurope",
        "properties": {
            "mode": "Incremental",
            "template": json.loads(TEMPLATE.read_text("utf-8")),
            "parameters": {name: {"value": value} for name, value in parameters.items()},
        },
    }
    http.post(f"{path}/validate", params=version, json=body).raise_for_status()
    answer = http.put(path, params=version, json=body).raise_for_status()
    for _ in range(10):
        state = http.get(answer.headers["Azure-AsyncOperation"]).json()
        if state["status"] != "Running":
            break
    assert state == {"status": "Succeeded"}
    deployed: dict[str, Any] = http.get(path, params=version).json()["properties"]
    return deployed


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("azure")
    key = folder / "issuer.pem"
    with (
        EmulatedAzure(
            2,
            5501,
            folder,
            issuer_public_key_pem=generate_key(key),
            issuer_key_id="suture-1",
            retry_after=None,
        ) as emulated,
        pytest.MonkeyPatch.context() as patch,
        as_customer(emulated) as http,
    ):
        patch.setattr(azure_write, "POLL_SECONDS", 0.05)
        application = ServicePrincipal(str(uuid.uuid4()), str(uuid.uuid4()), "suture")
        secret = secrets.token_urlsafe(30)
        application.add_secret(secret)
        emulated.tenant.add_principal(application)
        patch.setenv("TEST_AZURE_SECRET", secret)
        told = emulated.description
        only_reads = AzureSource(
            name="contoso",
            tenant=told["tenant"],
            client_id=application.client_id,
            client_secret_env="TEST_AZURE_SECRET",
            authority=told["authority"],
            resource_manager=told["resource_manager"],
            audience=told["audience"],
            ca_file=str(emulated.ca_file),
        )
        issuer = Issuer(url=emulated.issuer_url, key_file=str(key), key_id="suture-1")
        customer = CustomerCredentials(azure=credential(only_reads, told["customer"]))
        before = Deployed(emulated, Inventory(azure=(only_reads,), issuer=issuer), {}, customer)
        assert before.scan(before.home).failed, "there should be nothing to scan with yet"
        properties = deploy(
            http,
            before.home,
            {
                "scannerPrincipalId": application.object_id,
                "scopes": [f"/subscriptions/{one}" for one in live(emulated)],
                # The emulated tenant has roles of the usual names already.
                "scannerRoleName": "Contoso's Suture Scanner",
                "remediatorRoleName": "Contoso's Suture Remediator",
            },
        )
        outputs = {name: one["value"] for name, one in properties["outputs"].items()}
        source = replace(only_reads, gate_id=told["gate_id"], **outputs)
        with closing(customer.azure):
            yield Deployed(emulated, Inventory(azure=(source,), issuer=issuer), outputs, customer)


def test_the_outputs_are_what_the_inventory_needs(deployed: Deployed) -> None:
    assert set(deployed.outputs) == {
        "remediator_client_id",
        "remediator_identity",
        "remediator_role",
    }
    assert deployed.outputs["remediator_identity"] == (
        f"/subscriptions/{deployed.home}/resourceGroups/suture/providers"
        "/Microsoft.ManagedIdentity/userAssignedIdentities/suture-remediator"
    )
    assert deployed.source.remediates


def test_the_scanner_reads_every_subscription_that_was_named(deployed: Deployed) -> None:
    for subscription in live(deployed.emulated):
        scan = deployed.scan(subscription)
        assert not scan.failed
        assert all(covered.ok for covered in scan.coverage)
        assert not [one for one in scan.observations if one.verdict is Verdict.UNKNOWN]
        truth = deployed.emulated.truth
        rules = {one["rule"] for one in truth}
        planted = {
            (one["rule"], one["resource"]) for one in truth if one["account"] == subscription
        }
        found = {
            (one.rule, one.resource)
            for one in scan.observations
            if one.verdict is Verdict.FAIL and one.rule in rules
        }
        assert found == planted != set()


def test_the_scanner_writes_nothing_and_sees_no_federated_credential(deployed: Deployed) -> None:
    source = deployed.source
    login = {
        "client_id": source.client_id,
        "client_secret": os.environ["TEST_AZURE_SECRET"],
    }
    scanner = credential(source, login)
    arm = Arm(source, deployed.home, scanner)
    with closing(scanner), closing(arm):
        identity = source.remediator_identity
        for method, path in (
            ("GET", identity),
            ("GET", f"{identity}/federatedIdentityCredentials"),
            ("DELETE", identity),
        ):
            with pytest.raises(AccessRefused):
                arm.request(method, path, "2023-01-31")


def test_the_remediator_made_is_closed_opens_fixes_and_closes(deployed: Deployed) -> None:
    for subscription in live(deployed.emulated):
        finding = deployed.failing(subscription)[0]
        account = deployed.account(subscription)
        resource, its_rule = deployed.read(finding), rule(finding.rule)
        assert its_rule.fix is not None
        steps = its_rule.fix(resource, {one.name: () for one in its_rule.inputs})
        status = gate_status(deployed.inventory, account, customer=deployed.customer)
        assert not status.is_open
        for guess in ("123456", "x" * 32):
            with pytest.raises(GateRefused):
                deployed.session(finding, resource, steps, SecretStr(guess))

        opened = open_gate(
            deployed.inventory,
            account,
            machine=True,
            resources=[finding.resource],
            customer=deployed.customer,
        )
        with deployed.session(finding, resource, steps, opened.code) as session:
            apply_all(session, steps)
            assert its_rule.judge(deployed.read(finding))[0] is Verdict.PASS
            for step in reversed(steps):
                session.undo(step)
        assert its_rule.judge(deployed.read(finding))[0] is Verdict.FAIL

        close_gate(deployed.inventory, account, customer=deployed.customer)
        with pytest.raises(GateRefused):
            deployed.session(finding, resource, steps, opened.code)


def test_all_that_is_found_can_be_fixed_below_the_ceiling(deployed: Deployed) -> None:
    """Each finding that was planted, for real, with the identity and the role made."""
    fixed = set()
    for subscription in live(deployed.emulated):
        account = deployed.account(subscription)
        found = deployed.failing(subscription)
        opened = open_gate(
            deployed.inventory,
            account,
            machine=True,
            resources=sorted({one.resource for one in found}),
            customer=deployed.customer,
        )
        for finding in found:
            resource, its_rule = deployed.read(finding), rule(finding.rule)
            assert its_rule.fix is not None
            steps = its_rule.fix(resource, {one.name: () for one in its_rule.inputs})
            if not steps:  # another rule's fix has closed it, too
                continue
            with deployed.session(finding, resource, steps, opened.code) as session:
                apply_all(session, steps)
            fixed.add(finding.rule)
        close_gate(deployed.inventory, account, customer=deployed.customer)
        assert deployed.failing(subscription) == []
    assert len(fixed) >= 3


def test_deploying_again_changes_nothing_but_the_permissions(deployed: Deployed) -> None:
    """As after an update of Suture: who has a role has what it says now."""
    with as_customer(deployed.emulated) as http:
        known = http.get(
            f"/subscriptions/{deployed.home}/providers/Microsoft.Resources/deployments/suture",
            params={"api-version": VERSION},
        ).json()["properties"]
        parameters = {name: one["value"] for name, one in known["parameters"].items()}
        again = deploy(http, deployed.home, parameters)
        assert {name: one["value"] for name, one in again["outputs"].items()} == deployed.outputs
        assert not deployed.scan(deployed.home).failed
