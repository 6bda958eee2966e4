"""Roles and federated credentials over HTTP: given, felt at their scope only, and taken away."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientAssertionCredential

from deployments.local.azure.network import SecurityGroup
from deployments.local.azure.rbac import CONTRIBUTOR, OWNER, READER
from deployments.local.azure.storage import StorageAccount

pytestmark = pytest.mark.slow


def assignments(scope: str) -> str:
    return f"{scope}/providers/Microsoft.Authorization/roleAssignments"


def put_assignment(fleet: Any, scope: str, name: str = "", **properties: Any) -> Any:
    body = {
        "roleDefinitionId": fleet.about["remediator_role_definition_id"],
        "principalId": fleet.about["remediator"]["principal_id"],
        **properties,
    }
    path = f"{assignments(scope)}/{name or uuid.uuid4()}"
    return fleet.call("PUT", path, fleet.AUTHORIZATION, json={"properties": body})


@pytest.fixture
def remediator(fleet: Any) -> Any:
    """A token of the remediator, through a federated credential that is gone again."""
    subject = uuid.uuid4().hex
    fleet.trust("test", subject)
    with ClientAssertionCredential(
        fleet.about["tenant"],
        fleet.about["remediator"]["client_id"],
        lambda: fleet.assertion(subject),
        **fleet.transport,
    ) as credential:
        token = credential.get_token("https://management.azure.com/.default").token
        fleet.call("DELETE", fleet.credential_path("test"), fleet.IDENTITY)
        yield token


class TestTheGate:
    def test_a_role_on_one_group_opens_that_group_alone(
        self, fleet: Any, remediator: str, security_rule: Any
    ) -> None:
        opened, sibling = fleet.new_group(), fleet.new_group()
        storage = fleet.resources_of(StorageAccount)[0]
        role = fleet.about["remediator_role_definition_id"]

        def write(group: str) -> int:
            path = f"{group}/securityRules/Fix"
            answer = fleet.call("PUT", path, token=remediator, json=security_rule())
            return int(answer.status_code)

        assert write(opened) == 403
        given = fleet.grant(opened, fleet.about["remediator"]["principal_id"], role)
        assert write(opened) == 201
        assert write(sibling) == 403
        assert fleet.call("GET", sibling, token=remediator).status_code == 403
        assert fleet.call("GET", opened.upper(), token=remediator).status_code == 200
        # The role lets rules be written, not the group itself, and nothing be deleted above.
        whole = fleet.call("PUT", opened, token=remediator, json={"location": "westeurope"})
        assert fleet.error(whole) == (403, "AuthorizationFailed")
        assert fleet.call("DELETE", opened, token=remediator).status_code == 403
        assert fleet.call("GET", storage.id, fleet.STORAGE, token=remediator).status_code == 403
        removed = fleet.call("DELETE", given, fleet.AUTHORIZATION)
        assert removed.status_code == 200
        assert write(opened) == 403

    def test_the_remediator_may_follow_its_own_operation(
        self, fleet: Any, remediator: str, security_rule: Any
    ) -> None:
        group = fleet.new_group()
        role = fleet.about["remediator_role_definition_id"]
        fleet.grant(group, fleet.about["remediator"]["principal_id"], role)
        path = f"{group}/securityRules/Fix"
        own = fleet.call("PUT", path, token=remediator, json=security_rule())
        address = own.headers["Azure-AsyncOperation"]
        assert fleet.call("GET", address, token=remediator).status_code == 200
        theirs = fleet.call("PUT", path, json=security_rule())
        answer = fleet.call("GET", theirs.headers["Azure-AsyncOperation"], token=remediator)
        assert fleet.error(answer) == (403, "AuthorizationFailed")

    def test_it_sees_only_what_it_was_given(self, fleet: Any, remediator: str) -> None:
        group = fleet.new_group()
        role = fleet.about["remediator_role_definition_id"]
        given = fleet.grant(group, fleet.about["remediator"]["principal_id"], role)
        subscription = f"/subscriptions/{fleet.live[0]}"
        groups = f"{subscription}/providers/Microsoft.Network/networkSecurityGroups"
        accounts = f"{subscription}/providers/Microsoft.Storage/storageAccounts"
        listed = fleet.call("GET", groups, token=remediator).json()["value"]
        assert group in [item["id"] for item in listed]
        assert len(listed) < len(fleet.resources_of(SecurityGroup))
        nothing = fleet.call("GET", accounts, fleet.STORAGE, token=remediator)
        assert fleet.error(nothing) == (403, "AuthorizationFailed")
        seen = fleet.call("GET", "/subscriptions", fleet.RESOURCES, token=remediator).json()
        assert [s["subscriptionId"] for s in seen["value"]] == [fleet.live[0]]
        fleet.call("DELETE", given, fleet.AUTHORIZATION)

    def test_roles_take_their_time_both_ways(self, make_fleet: Any) -> None:
        fleet = make_fleet(rbac_delay=30.0)
        group = fleet.resources_of(SecurityGroup)[0].id
        scanner = fleet.azure.tenant.principals[fleet.about["scanner"]["client_id"]]

        def tag() -> int:
            body = {"tags": {}}
            return int(fleet.call("PATCH", group, who="scanner", json=body).status_code)

        given = fleet.grant(group, scanner.object_id, CONTRIBUTOR.id)
        assert tag() == 403
        fleet.clock.ahead += 31
        assert tag() == 200
        fleet.call("DELETE", given, fleet.AUTHORIZATION)
        assert tag() == 200
        fleet.clock.ahead += 31
        assert tag() == 403


class TestRefusals:
    def test_the_scanner_reads_and_never_writes(self, fleet: Any, security_rule: Any) -> None:
        group = fleet.resources_of(SecurityGroup)[0]
        account = fleet.resources_of(StorageAccount)[0]
        credential = fleet.credential("scanner")
        client = fleet.network(fleet.live[0], credential)
        home, name = group.id.split("/")[4], group.name
        assert client.network_security_groups.get(home, name).id == group.id
        with pytest.raises(HttpResponseError) as caught:
            client.security_rules.begin_create_or_update(home, name, "X", security_rule())
        assert caught.value.status_code == 403
        message = caught.value.error.message
        principal = fleet.azure.tenant.principals[fleet.about["scanner"]["client_id"]]
        assert f"The client '{principal.client_id}'" in message
        assert f"object id '{principal.object_id}'" in message
        assert (
            "perform action 'Microsoft.Network/networkSecurityGroups/securityRules/write' over "
            f"scope '{group.id}/securityRules/X'" in message
        )
        body = {"properties": {"minimumTlsVersion": "TLS1_2"}}
        for method, path, version in (
            ("PATCH", account.id, fleet.STORAGE),
            ("DELETE", account.id, fleet.STORAGE),
            ("PUT", fleet.credential_path("evil"), fleet.IDENTITY),
            ("PUT", f"{assignments(group.id)}/{uuid.uuid4()}", fleet.AUTHORIZATION),
        ):
            answer = fleet.call(method, path, version, who="scanner", json=body)
            assert fleet.error(answer) == (403, "AuthorizationFailed")

    def test_existence_is_not_told_to_those_who_may_not_read(
        self, fleet: Any, remediator: str
    ) -> None:
        group = fleet.resources_of(SecurityGroup)[0].id
        for path in (group, f"{group}-gone", group.replace("/rg-", "/no-rg-")):
            answer = fleet.call("GET", path, token=remediator)
            assert fleet.error(answer) == (403, "AuthorizationFailed")


class TestAssignments:
    def test_put_get_list_delete(self, fleet: Any) -> None:
        group = fleet.new_group()
        made = put_assignment(fleet, group)
        assert made.status_code == 201
        body = made.json()
        assert body["properties"]["scope"] == group
        role_id = fleet.about["remediator_role_definition_id"].rpartition("/")[2]
        assert body["properties"]["roleDefinitionId"].endswith(f"/roleDefinitions/{role_id}")
        assert fleet.call("GET", body["id"], fleet.AUTHORIZATION).json() == body
        principal = fleet.about["remediator"]["principal_id"]
        listed = fleet.call(
            "GET",
            assignments(group),
            fleet.AUTHORIZATION,
            params={"$filter": f"principalId eq '{principal}'"},
        ).json()["value"]
        assert [item["id"] for item in listed] == [body["id"]]
        gone = fleet.call("DELETE", body["id"].upper(), fleet.AUTHORIZATION)
        assert gone.json() == body
        assert fleet.call("DELETE", body["id"], fleet.AUTHORIZATION).status_code == 204
        missing = fleet.call("GET", body["id"], fleet.AUTHORIZATION)
        assert fleet.error(missing) == (404, "RoleAssignmentNotFound")

    def test_at_scope_leaves_out_what_lies_below(self, fleet: Any) -> None:
        group = fleet.new_group()
        subscription = f"/subscriptions/{fleet.live[0]}"
        below = put_assignment(fleet, group).json()["id"]

        def listed(**params: str) -> set[str]:
            found, address = set(), assignments(subscription)
            while address:
                page = fleet.call("GET", address, fleet.AUTHORIZATION, params=params).json()
                found |= {item["id"] for item in page["value"]}
                address, params = page.get("nextLink"), {}
            return found

        everything, at_scope = listed(), listed(**{"$filter": "atScope()"})
        assert below in everything
        assert below not in at_scope
        assert at_scope < everything
        fleet.call("DELETE", below, fleet.AUTHORIZATION)

    def test_the_same_again_is_fine_under_its_name_only(self, fleet: Any) -> None:
        group, name = fleet.new_group(), str(uuid.uuid4())
        assert put_assignment(fleet, group, name).status_code == 201
        assert put_assignment(fleet, group, name).status_code == 200
        twin = put_assignment(fleet, group.upper())
        assert fleet.error(twin) == (409, "RoleAssignmentExists")
        changed = put_assignment(fleet, group, name, roleDefinitionId=READER.id)
        assert fleet.error(changed) == (409, "RoleAssignmentUpdateNotPermitted")

    @pytest.mark.parametrize(
        ("name", "properties", "expected"),
        [
            ("not-a-guid", {}, (400, "InvalidRoleAssignmentId")),
            ("", {"roleDefinitionId": str(uuid.uuid4())}, (404, "RoleDefinitionDoesNotExist")),
            ("", {"roleDefinitionId": None}, (400, "InvalidCreateRoleAssignmentRequest")),
            ("", {"principalId": str(uuid.uuid4())}, (400, "PrincipalNotFound")),
        ],
    )
    def test_bad_assignments(
        self, fleet: Any, name: str, properties: dict[str, Any], expected: tuple[int, str]
    ) -> None:
        group = fleet.resources_of(SecurityGroup)[0].id
        assert fleet.error(put_assignment(fleet, group, name, **properties)) == expected

    def test_the_scope_must_exist(self, fleet: Any) -> None:
        answer = put_assignment(fleet, f"{fleet.new_group()}-gone")
        assert fleet.error(answer) == (404, "ResourceNotFound")

    def test_the_sdks_generic_operations_assign_roles(self, fleet: Any) -> None:
        group = fleet.new_group()
        resources = fleet.resources(fleet.live[0], fleet.credential("customer")).resources
        path, version = f"{assignments(group)}/{uuid.uuid4()}", {"api_version": "2022-04-01"}
        body = {
            "properties": {
                "roleDefinitionId": fleet.about["remediator_role_definition_id"],
                "principalId": fleet.about["remediator"]["principal_id"],
            }
        }
        made = resources.begin_create_or_update_by_id(path, parameters=body, **version).result()
        assert made.properties["principalId"] == fleet.about["remediator"]["principal_id"]
        resources.begin_delete_by_id(path, **version).result()


class TestRoleDefinitions:
    def definitions(self, scope: str) -> str:
        return f"{scope}/providers/Microsoft.Authorization/roleDefinitions"

    def test_the_remediator_role_exists_in_every_subscription(self, fleet: Any) -> None:
        guid = fleet.about["remediator_role_definition_id"].rpartition("/")[2]
        for subscription in fleet.live:
            path = f"{self.definitions(f'/subscriptions/{subscription}')}/{guid}"
            role = fleet.call("GET", path, fleet.AUTHORIZATION).json()
            assert role["properties"]["roleName"] == "Suture Remediator"
            actions = role["properties"]["permissions"][0]["actions"]
            assert not any("*" in action for action in actions)
            assert "Microsoft.Network/networkSecurityGroups/write" not in actions

    def test_they_are_found_by_name_and_kind(self, fleet: Any) -> None:
        path = self.definitions(f"/subscriptions/{fleet.live[0]}")

        def names(filter_text: str) -> set[str]:
            params = {"$filter": filter_text} if filter_text else {}
            answer = fleet.call("GET", path, fleet.AUTHORIZATION, params=params)
            return {item["properties"]["roleName"] for item in answer.json()["value"]}

        assert names("roleName eq 'Reader'") == {"Reader"}
        assert {OWNER.name, CONTRIBUTOR.name, READER.name, "Suture Remediator"} <= names("")
        assert "Reader" not in names("type eq 'CustomRole'")

    def test_custom_roles_are_written_used_and_deleted(self, fleet: Any) -> None:
        scope = f"/subscriptions/{fleet.live[0]}"
        path = f"{self.definitions(scope)}/{uuid.uuid4()}"
        body = {
            "properties": {
                "roleName": "Tagger",
                "assignableScopes": [scope],
                "permissions": [{"actions": ["Microsoft.Network/*/read"], "notActions": []}],
            }
        }
        assert fleet.call("PUT", path, fleet.AUTHORIZATION, json=body).status_code == 201
        given = put_assignment(fleet, scope, roleDefinitionId=path).json()["id"]
        used = fleet.call("DELETE", path, fleet.AUTHORIZATION)
        assert fleet.error(used) == (400, "RoleDefinitionHasAssignments")
        elsewhere = put_assignment(fleet, f"/subscriptions/{fleet.live[1]}", roleDefinitionId=path)
        assert fleet.error(elsewhere) == (404, "RoleDefinitionDoesNotExist")
        fleet.call("DELETE", given, fleet.AUTHORIZATION)
        assert fleet.call("DELETE", path, fleet.AUTHORIZATION).status_code == 200
        builtin = f"{self.definitions(scope)}/{READER.id}"
        answer = fleet.call("DELETE", builtin, fleet.AUTHORIZATION)
        assert fleet.error(answer) == (400, "InvalidRoleDefinitionId")


class TestFederatedCredentials:
    def test_put_get_list_delete(self, fleet: Any) -> None:
        made = fleet.trust("One", "subject-one")
        assert made.status_code == 201
        path = fleet.credential_path("one")
        assert fleet.call("GET", path, fleet.IDENTITY).json() == made.json()
        again = fleet.trust("one", "subject-two")
        assert again.status_code == 200
        listed = fleet.call("GET", path.rpartition("/")[0], fleet.IDENTITY).json()["value"]
        assert [item["properties"]["subject"] for item in listed] == ["subject-two"]
        assert fleet.call("DELETE", path, fleet.IDENTITY).status_code == 200
        assert fleet.call("DELETE", path, fleet.IDENTITY).status_code == 204
        assert fleet.error(fleet.call("GET", path, fleet.IDENTITY)) == (404, "ResourceNotFound")

    def test_the_scanner_cannot_read_them(self, fleet: Any) -> None:
        """A subject holds an open gate's code: Reader would show it, the scanner's role not."""
        path = fleet.credential_path("x").rpartition("/")[0]
        answer = fleet.call("GET", path, fleet.IDENTITY, who="scanner")
        assert fleet.error(answer) == (403, "AuthorizationFailed")

    def test_issuer_and_subject_are_unique(self, fleet: Any) -> None:
        subject = uuid.uuid4().hex
        fleet.trust("first", subject)
        answer = fleet.trust("second", subject)
        assert fleet.error(answer) == (409, "Conflict")
        assert subject not in answer.text
        fleet.call("DELETE", fleet.credential_path("first"), fleet.IDENTITY)

    def test_twenty_and_no_more(self, fleet: Any) -> None:
        for n in range(20):
            assert fleet.trust(f"many-{n}", f"s{n}").status_code == 201
        assert fleet.error(fleet.trust("many-20", "s20")) == (400, "BadRequest")
        assert fleet.trust("many-0", "other").status_code == 200
        for n in range(20):
            fleet.call("DELETE", fleet.credential_path(f"many-{n}"), fleet.IDENTITY)

    @pytest.mark.parametrize(
        "properties",
        [
            {"issuer": "http://plain.example"},
            {"issuer": None},
            {"subject": ""},
            {"subject": "x" * 601},
            {"audiences": []},
            {"audiences": ["a", "b"]},
            {"audiences": "api://AzureADTokenExchange"},
        ],
    )
    def test_bad_credentials(self, fleet: Any, properties: dict[str, Any]) -> None:
        answer = fleet.trust("bad", **{"subject": "s", **properties})
        assert fleet.error(answer) == (400, "BadRequest")

    def test_names_have_a_shape(self, fleet: Any) -> None:
        assert fleet.error(fleet.trust("a", "s")) == (400, "BadRequest")

    def test_the_identity_tells_its_principal(self, fleet: Any) -> None:
        about = fleet.about["remediator"]
        body = fleet.call("GET", about["resource_id"].lower(), fleet.IDENTITY).json()
        assert body["id"] == about["resource_id"]
        assert body["properties"] == {
            "tenantId": fleet.about["tenant"],
            "principalId": about["principal_id"],
            "clientId": about["client_id"],
        }
