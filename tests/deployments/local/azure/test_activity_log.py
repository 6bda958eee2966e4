"""Events of what is written on the emulated Azure: which, what they say, and how they come."""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from azure.identity import ClientAssertionCredential

from deployments.local.azure.event_grid import as_cloud_event, prefixes
from deployments.local.azure.network import SecurityGroup
from deployments.local.azure.storage import StorageAccount

CLAIMS = "http://schemas.microsoft.com/identity/claims"
UPN = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn"
CLI = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"  # the Azure CLI's application, for all tenants


class Told:
    """The events since a moment: all that were made, and those that came to the queue."""

    def __init__(self, fleet: Any) -> None:
        self.fleet = fleet
        self.queue = fleet.azure.queues.find(fleet.azure.tenant.queues[0])
        self.queue.messages.clear()
        self.before = {one["id"] for one in fleet.azure.events}

    @property
    def made(self) -> list[dict[str, Any]]:
        return [one for one in self.fleet.azure.events if one["id"] not in self.before]

    @property
    def operations(self) -> list[tuple[str, str]]:
        return [(one["data"]["operationName"], one["data"]["status"]) for one in self.made]

    def came(self, count: int = 1, seconds: float = 5.0) -> list[dict[str, Any]]:
        """What is in the queue, once there are so many of ours."""
        ends = time.monotonic() + seconds
        while True:
            bodies = [base64.b64decode(one.text) for one in list(self.queue.messages.values())]
            found = [one for one in map(json.loads, bodies) if one["id"] not in self.before]
            if len(found) >= count or time.monotonic() > ends:
                assert len(found) == count
                return found
            time.sleep(0.01)


@pytest.fixture
def told(fleet: Any) -> Iterator[Told]:
    yield Told(fleet)
    azure = fleet.azure
    azure.event_delay = azure.event_duplicates = azure.event_reordering = 0.0


def rule_path(fleet: Any, name: str = "Told") -> str:
    return f"{fleet.resources_of(SecurityGroup)[0].id}/securityRules/{name}"


class TestWhatIsTold:
    def test_a_rule_that_is_written_and_deleted(
        self, fleet: Any, told: Told, security_rule: Callable[..., dict[str, Any]]
    ) -> None:
        path = rule_path(fleet)
        asked = {"x-ms-client-request-id": str(uuid.uuid4())}
        began = datetime.now(UTC)
        put = fleet.call("PUT", path, json=security_rule(priority=3999), headers=asked)
        assert put.status_code == 201
        assert told.made == [], "it has not ended yet"
        fleet.settle(put)
        [event] = told.came()
        assert event == told.made[0]
        subscription, data = fleet.live[0], event["data"]
        assert event["topic"] == f"/subscriptions/{subscription}"
        assert event["subject"] == data["resourceUri"] == path
        assert event["eventType"] == "Microsoft.Resources.ResourceWriteSuccess"
        assert (event["dataVersion"], event["metadataVersion"]) == ("2", "1")
        assert uuid.UUID(event["id"])
        at = datetime.fromisoformat(event["eventTime"])
        assert abs((at - began).total_seconds()) < 60
        assert (
            data["operationName"] == "Microsoft.Network/networkSecurityGroups/securityRules/write"
        )
        assert data["status"] == "Succeeded"
        assert data["resourceProvider"] == "Microsoft.Network"
        assert (data["subscriptionId"], data["tenantId"]) == (subscription, fleet.about["tenant"])
        assert data["correlationId"] == put.headers["x-ms-correlation-request-id"]
        assert data["httpRequest"] == {
            "clientRequestId": asked["x-ms-client-request-id"],
            "clientIpAddress": "127.0.0.1",
            "method": "PUT",
            "url": f"{fleet.about['resource_manager']}{path}?api-version=2024-05-01",
        }
        deleted = fleet.call("DELETE", path)
        assert deleted.status_code == 202
        fleet.settle(deleted)
        gone = told.came(2)[1]
        assert gone["eventType"] == "Microsoft.Resources.ResourceDeleteSuccess"
        assert gone["data"]["operationName"].endswith("/securityRules/delete")
        assert gone["subject"] == path

    def test_a_storage_account_that_is_patched(self, fleet: Any, told: Told) -> None:
        account = fleet.resources_of(StorageAccount)[0]
        body = {"properties": {"supportsHttpsTrafficOnly": False}}
        patched = fleet.call("PATCH", account.id, fleet.STORAGE, json=body)
        assert patched.status_code == 200
        [event] = told.came()
        assert event["data"]["operationName"] == "Microsoft.Storage/storageAccounts/write"
        assert event["data"]["httpRequest"]["method"] == "PATCH"
        evidence = event["data"]["authorization"]["evidence"]
        assert evidence["role"] == "Owner"
        assert evidence["roleAssignmentScope"] == f"/subscriptions/{fleet.live[0]}"
        assert evidence["principalType"] == "ServicePrincipal"

    def test_a_diagnostic_setting_of_a_vault_and_the_vault(self, fleet: Any, told: Told) -> None:
        group = fleet.resources_of(StorageAccount)[0].id.partition("/providers/")[0]
        vault = f"{group}/providers/Microsoft.KeyVault/vaults/kv{uuid.uuid4().hex[:12]}"
        made = {
            "location": "westeurope",
            "properties": {
                "tenantId": fleet.about["tenant"],
                "sku": {"family": "A", "name": "standard"},
                "accessPolicies": [],
            },
        }
        fleet.call("PUT", vault, "2023-07-01", json=made).raise_for_status()
        setting = f"{vault}/providers/Microsoft.Insights/diagnosticSettings/audit"
        body = {"properties": {"storageAccountId": fleet.resources_of(StorageAccount)[0].id}}
        fleet.call("PUT", setting, "2021-05-01-preview", json=body).raise_for_status()
        fleet.call("DELETE", setting, "2021-05-01-preview").raise_for_status()
        assert [(one["data"]["operationName"], one["subject"]) for one in told.came(3)] == [
            ("Microsoft.KeyVault/vaults/write", vault),
            ("Microsoft.Insights/diagnosticSettings/write", setting),
            ("Microsoft.Insights/diagnosticSettings/delete", setting),
        ]

    def test_what_fails_is_told_of_as_such_and_does_not_come_to_the_queue(
        self, fleet: Any, told: Told, security_rule: Callable[..., dict[str, Any]]
    ) -> None:
        path = rule_path(fleet, "Refused")
        refused = fleet.call("PUT", path, json=security_rule(), who="scanner")
        assert refused.status_code == 403
        wrong = fleet.call("PUT", path, json=security_rule(protocol="Carrier pigeon"))
        assert wrong.status_code == 400
        fleet.azure.faults.fail_operation(path)
        accepted = fleet.call("PUT", path, json=security_rule(priority=3998))
        assert fleet.settle(accepted)["status"] == "Failed"
        name = "Microsoft.Network/networkSecurityGroups/securityRules/write"
        assert told.operations == [(name, "Failed")] * 3
        assert {one["eventType"] for one in told.made} == {
            "Microsoft.Resources.ResourceWriteFailure"
        }
        assert "evidence" not in told.made[0]["data"]["authorization"]
        time.sleep(0.05)
        assert told.came(0) == []

    def test_reads_and_what_nobody_asked_for_with_a_token_are_not_told_of(
        self, fleet: Any, told: Told
    ) -> None:
        group = fleet.resources_of(SecurityGroup)[0].id
        assert fleet.call("GET", group).status_code == 200
        assert fleet.call("HEAD", group).status_code == 204
        query = {"subscriptions": [fleet.live[0]], "query": "Resources | project id"}
        graph = "/providers/Microsoft.ResourceGraph/resources"
        assert fleet.call("POST", graph, "2024-04-01", json=query).status_code == 200
        assert fleet.call("PUT", group, token="none", json={}).status_code == 401
        assert told.made == []

    def test_an_action_is_told_of_with_what_it_was_made_on(self, fleet: Any, told: Told) -> None:
        scope = f"/subscriptions/{fleet.live[0]}"
        path = f"{scope}/providers/Microsoft.Network/register"
        assert fleet.call("POST", path, fleet.RESOURCES).status_code == 200
        [event] = told.made
        assert event["eventType"] == "Microsoft.Resources.ResourceActionSuccess"
        assert event["subject"] == scope
        assert event["data"]["operationName"] == "Microsoft.Network/register/action"

    def test_what_nobody_polls_is_told_of_when_it_ends_by_itself(
        self, make_fleet: Callable[..., Any], security_rule: Callable[..., dict[str, Any]]
    ) -> None:
        fleet = make_fleet(1)
        fleet.azure.tenant.operations.longest = 0.2
        told = Told(fleet)
        put = fleet.call("PUT", rule_path(fleet), json=security_rule(priority=3999))
        assert put.status_code == 201
        assert told.came()[0]["data"]["status"] == "Succeeded"

    def test_the_callers_own_correlation_id_is_kept(self, fleet: Any, told: Told) -> None:
        account = fleet.resources_of(StorageAccount)[0]
        number = str(uuid.uuid4())
        sent = {"x-ms-correlation-request-id": number}
        answer = fleet.call("PATCH", account.id, fleet.STORAGE, json={}, headers=sent)
        assert answer.headers["x-ms-correlation-request-id"] == number
        assert answer.headers["x-ms-request-id"] != number
        assert told.made[0]["data"]["correlationId"] == number

    def test_what_a_template_writes_is_told_of_one_by_one(self, fleet: Any, told: Told) -> None:
        name = f"id-{uuid.uuid4().hex[:8]}"
        home = next(iter(fleet.azure.tenant.subscriptions[fleet.live[0]].groups.values())).id
        identity = {
            "type": "Microsoft.ManagedIdentity/userAssignedIdentities",
            "apiVersion": fleet.IDENTITY,
            "name": name,
            "location": "westeurope",
        }
        schema = "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#"
        template = {"$schema": schema, "contentVersion": "1.0.0.0", "resources": [identity]}
        path = f"{home}/providers/Microsoft.Resources/deployments/told"
        body = {"properties": {"mode": "Incremental", "template": template}}
        put = fleet.call("PUT", path, "2022-09-01", json=body)
        assert put.status_code == 201, put.text
        for _ in range(10):
            answer = fleet.call("GET", put.headers["Azure-AsyncOperation"])
            if answer.json()["status"] == "Succeeded":
                break
        assert [one["data"]["operationName"] for one in told.made] == [
            "Microsoft.ManagedIdentity/userAssignedIdentities/write",
            "Microsoft.Resources/deployments/write",
        ]
        assert len({one["data"]["correlationId"] for one in told.made}) == 1


class TestWhoDidIt:
    def test_a_user(self, fleet: Any, told: Told) -> None:
        """By the Azure CLI: the user's token, with the CLI's application in it."""
        customer = fleet.azure.tenant.principals[fleet.about["customer"]["client_id"]]
        token = fleet.azure.tokens.sign(
            customer,
            "https://management.azure.com",
            appid=CLI,
            appidacr="0",
            idtyp="user",
            amr=["pwd", "mfa"],
            ipaddr="203.0.113.9",
            name="Ada Example",
            upn="ada@contoso.example",
            scp="user_impersonation",
        )
        account = fleet.resources_of(StorageAccount)[0]
        fleet.call("PATCH", account.id, fleet.STORAGE, json={}, token=token).raise_for_status()
        [event] = told.made
        claims = event["data"]["claims"]
        assert claims[UPN] == "ada@contoso.example"
        assert claims["name"] == "Ada Example"
        assert claims["ipaddr"] == "203.0.113.9"
        assert claims["appid"] == CLI
        assert claims[f"{CLAIMS}/objectidentifier"] == customer.object_id
        assert claims[f"{CLAIMS}/scope"] == "user_impersonation"
        methods = claims["http://schemas.microsoft.com/claims/authnmethodsreferences"]
        assert methods == "pwd,mfa"
        assert event["data"]["authorization"]["evidence"]["principalType"] == "User"

    def test_an_application(self, fleet: Any, told: Told) -> None:
        account = fleet.resources_of(StorageAccount)[0]
        fleet.call("PATCH", account.id, fleet.STORAGE, json={}).raise_for_status()
        claims = told.made[0]["data"]["claims"]
        assert claims["appid"] == fleet.about["customer"]["client_id"]
        assert claims["appidacr"] == "1"
        assert claims[f"{CLAIMS}/tenantid"] == fleet.about["tenant"]
        assert claims["iss"] == f"https://sts.windows.net/{fleet.about['tenant']}/"
        assert {"aud", "iat", "nbf", "exp"} <= claims.keys()
        assert all(isinstance(one, str) for one in claims.values())
        assert UPN not in claims
        assert "xms_mirid" not in claims

    def test_a_managed_identity_whose_secret_subject_stays_a_secret(
        self, fleet: Any, told: Told, security_rule: Callable[..., dict[str, Any]]
    ) -> None:
        subject, about = uuid.uuid4().hex, fleet.about["remediator"]
        fleet.trust("told", subject)
        group = fleet.resources_of(SecurityGroup)[0].id
        fleet.grant(group, about["principal_id"], fleet.about["remediator_role_definition_id"])
        with ClientAssertionCredential(
            fleet.about["tenant"],
            about["client_id"],
            lambda: fleet.assertion(subject),
            **fleet.transport,
        ) as credential:
            token = credential.get_token("https://management.azure.com/.default").token
        put = fleet.call("PUT", rule_path(fleet), json=security_rule(priority=3997), token=token)
        fleet.settle(put)
        event = next(one for one in told.made if one["subject"] == rule_path(fleet))
        claims = event["data"]["claims"]
        assert claims["appid"] == about["client_id"]
        assert claims["appidacr"] == "2"
        assert claims["xms_mirid"] == about["resource_id"]
        evidence = event["data"]["authorization"]["evidence"]
        assert evidence["role"] == "Suture Remediator"
        assert evidence["roleAssignmentScope"] == group
        assert subject not in json.dumps(told.made)
        assert token not in json.dumps(told.made)


class TestHowItComes:
    def write(self, fleet: Any, count: int) -> list[str]:
        """So many writes; the ids of their events, in their order."""
        before = {one["id"] for one in fleet.azure.events}
        account = fleet.resources_of(StorageAccount)[0]
        for _ in range(count):
            fleet.call("PATCH", account.id, fleet.STORAGE, json={}).raise_for_status()
        return [one["id"] for one in fleet.azure.events if one["id"] not in before]

    def test_at_once_and_in_order(self, fleet: Any, told: Told) -> None:
        made = self.write(fleet, 20)
        assert [one["id"] for one in told.came(20)] == made

    def test_late(self, fleet: Any, told: Told) -> None:
        fleet.azure.event_delay = 2
        began = time.monotonic()
        self.write(fleet, 1)
        assert told.came(0, seconds=0) == [], "the caller must not wait"
        told.came(1)
        assert time.monotonic() - began >= 2

    def test_twice(self, fleet: Any, told: Told) -> None:
        fleet.azure.event_duplicates = 1.0
        made = self.write(fleet, 3)
        assert Counter(one["id"] for one in told.came(6)) == dict.fromkeys(made, 2)

    def test_out_of_order(self, fleet: Any, told: Told) -> None:
        fleet.azure.event_reordering = 0.5
        made = self.write(fleet, 20)
        came = [one["id"] for one in told.came(20)]
        assert came != made
        assert sorted(came) == sorted(made)

    def test_only_what_the_rules_are_about_comes(self, fleet: Any, told: Told) -> None:
        scope = f"/subscriptions/{fleet.live[0]}/resourceGroups/rg-told-{uuid.uuid4().hex[:6]}"
        made = fleet.call("PUT", scope, fleet.RESOURCES, json={"location": "westeurope"})
        assert made.status_code == 201
        assert told.operations == [
            ("Microsoft.Resources/subscriptions/resourceGroups/write", "Succeeded")
        ]
        self.write(fleet, 1)
        [event] = told.came(1)
        assert event["data"]["operationName"] == "Microsoft.Storage/storageAccounts/write"

    def test_from_every_subscription(self, fleet: Any, told: Told) -> None:
        other = fleet.resources_of(StorageAccount, fleet.live[1])[0]
        fleet.call("PATCH", other.id, fleet.STORAGE, json={}).raise_for_status()
        [event] = told.came(1)
        assert event["topic"] == f"/subscriptions/{fleet.live[1]}"


def test_a_filter_names_resource_types_and_when_they_are_too_many_providers() -> None:
    few = [
        "Microsoft.Network/networkSecurityGroups/securityRules/write",
        "Microsoft.Web/sites/write",
    ]
    assert prefixes(few) == ("Microsoft.Network/networkSecurityGroups/", "Microsoft.Web/sites/")
    many = [f"Microsoft.Network/type{n}/write" for n in range(26)]
    assert prefixes(many) == ("Microsoft.Network/",)


def test_a_cloud_event_has_the_same_data_under_its_own_names(fleet: Any, told: Told) -> None:
    account = fleet.resources_of(StorageAccount)[0]
    fleet.call("PATCH", account.id, fleet.STORAGE, json={}).raise_for_status()
    [event] = told.made
    assert as_cloud_event(event) == {
        "specversion": "1.0",
        "id": event["id"],
        "source": event["topic"],
        "subject": account.id,
        "type": "Microsoft.Resources.ResourceWriteSuccess",
        "time": event["eventTime"],
        "data": event["data"],
    }
