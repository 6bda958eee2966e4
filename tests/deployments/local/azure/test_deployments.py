"""Microsoft.Resources/deployments as the emulator answers it, and identities made by PUT."""

from __future__ import annotations

import copy
import uuid
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from deployments.local.azure.rbac import CONTRIBUTOR, RoleDefinition
from deployments.local.azure.tenant import ServicePrincipal
from deployments.templates import template
from tasks.model import Cloud

if TYPE_CHECKING:
    from tests.deployments.local.azure.conftest import Fleet

pytestmark = pytest.mark.slow

VERSION = "2022-09-01"
SCHEMAS = "https://schema.management.azure.com/schemas"
GROUP = {
    "type": "Microsoft.Resources/resourceGroups",
    "apiVersion": VERSION,
    "name": "rg-made",
    "location": "westeurope",
}


def wide(*resources: dict[str, Any], **sections: Any) -> dict[str, Any]:
    return {
        "$schema": f"{SCHEMAS}/2018-05-01/subscriptionDeploymentTemplate.json#",
        "contentVersion": "1.0.0.0",
        "resources": list(resources),
        **sections,
    }


def narrow(*resources: dict[str, Any], **sections: Any) -> dict[str, Any]:
    schema = f"{SCHEMAS}/2019-04-01/deploymentTemplate.json#"
    return {**wide(*resources, **sections), "$schema": schema}


def body(raw: Any, location: str | None = "westeurope", **properties: Any) -> dict[str, Any]:
    where = {"location": location} if location else {}
    return {**where, "properties": {"mode": "Incremental", "template": raw, **properties}}


def at(scope: str, name: str = "") -> str:
    drawn = name or f"d-{uuid.uuid4().hex[:8]}"
    return f"{scope}/providers/Microsoft.Resources/deployments/{drawn}"


def subscription(fleet: Fleet) -> str:
    return f"/subscriptions/{fleet.live[0]}"


def put(fleet: Fleet, path: str, sent: Any, **more: Any) -> httpx.Response:
    return fleet.call("PUT", path, VERSION, json=sent, **more)


def ended(fleet: Fleet, answer: httpx.Response, **more: Any) -> dict[str, Any]:
    """How the operation of a deployment ends."""
    for _ in range(5):
        state: dict[str, Any] = fleet.call(
            "GET", answer.headers["Azure-AsyncOperation"], **more
        ).json()
        if state["status"] != "Running":
            return state
    raise AssertionError("the deployment does not end")


def person(fleet: Fleet, role: RoleDefinition, scope: str) -> str:
    """Somebody new with a role; a token of theirs."""
    who = ServicePrincipal(str(uuid.uuid4()), str(uuid.uuid4()), "someone")
    who.add_secret("secret")
    fleet.azure.tenant.add_principal(who)
    if role.id not in fleet.azure.tenant.roles:
        fleet.azure.tenant.add_role(role)
    fleet.grant(
        scope,
        who.object_id,
        f"{scope}/providers/Microsoft.Authorization/roleDefinitions/{role.id}",
    )
    answer = fleet.token_request(client_id=who.client_id, client_secret="secret")
    token: str = answer.raise_for_status().json()["access_token"]
    return token


def test_a_deployment_runs_and_ends_as_arms_do(fleet: Fleet) -> None:
    path = at(subscription(fleet))
    sent = body(
        wide(
            GROUP,
            parameters={"p": {"type": "string", "defaultValue": "x"}},
            outputs={"o": {"type": "string", "value": "[concat(parameters('p'), 'y')]"}},
        )
    )
    answer = put(fleet, path, sent)
    assert answer.status_code == 201
    assert answer.json()["properties"]["provisioningState"] == "Accepted"
    assert "outputs" not in answer.json()["properties"]
    again = put(fleet, path, sent)
    assert fleet.error(again) == (409, "DeploymentActive")
    first = fleet.call("GET", answer.headers["Azure-AsyncOperation"]).json()
    assert first == {"status": "Running"}
    assert ended(fleet, answer) == {"status": "Succeeded"}
    done = fleet.call("GET", path, VERSION).json()
    assert (done["id"], done["type"]) == (path, "Microsoft.Resources/deployments")
    assert done["properties"]["provisioningState"] == "Succeeded"
    assert done["properties"]["outputs"] == {"o": {"type": "string", "value": "xy"}}
    assert done["properties"]["parameters"] == {"p": {"type": "String", "value": "x"}}
    assert [one["id"] for one in done["properties"]["outputResources"]] == [
        f"{subscription(fleet)}/resourceGroups/rg-made"
    ]
    listed = fleet.call("GET", path.rpartition("/")[0], VERSION).json()["value"]
    assert path in [one["id"] for one in listed]
    assert put(fleet, path, sent).status_code == 200  # once more


def test_validation_writes_nothing(fleet: Fleet) -> None:
    path = at(subscription(fleet))
    group = {**GROUP, "name": "rg-never"}
    answer = fleet.call("POST", f"{path}/validate", VERSION, json=body(wide(group)))
    assert answer.status_code == 200
    assert answer.json()["properties"]["provisioningState"] == "Succeeded"
    assert fleet.error(fleet.call("GET", path, VERSION)) == (404, "DeploymentNotFound")
    never = fleet.call("GET", f"{subscription(fleet)}/resourceGroups/rg-never", VERSION)
    assert fleet.error(never) == (404, "ResourceGroupNotFound")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"location": None}, "LocationRequired"),
        ({"location": "the moon"}, "LocationNotAvailableForDeployment"),
        ({"identity": {}}, "InvalidRequestContent"),
        ({"properties": {"mode": "Complete", "template": wide()}}, "InvalidDeploymentMode"),
        ({"properties": {"mode": "Incremental", "templateLink": {}}}, "InvalidRequestContent"),
        ({"properties": {"mode": "Incremental"}}, "InvalidTemplate"),
        ({"properties": {"mode": "Incremental", "template": narrow()}}, "InvalidTemplate"),
    ],
)
def test_what_arm_refuses_at_once(fleet: Fleet, change: dict[str, Any], code: str) -> None:
    sent = {key: value for key, value in {**body(wide()), **change}.items() if value is not None}
    for method, ending in (("PUT", ""), ("POST", "/validate")):
        answer = fleet.call(method, at(subscription(fleet)) + ending, VERSION, json=sent)
        assert fleet.error(answer) == (400, code)


def test_a_mistake_in_a_nested_template_is_found_before_anything_is_written(fleet: Fleet) -> None:
    unknown = {**GROUP, "type": "Microsoft.Sql/servers", "name": "s"}
    nested = {
        "type": "Microsoft.Resources/deployments",
        "apiVersion": VERSION,
        "name": "inner",
        "location": "westeurope",
        "properties": {
            "mode": "Incremental",
            "expressionEvaluationOptions": {"scope": "inner"},
            "template": wide(unknown),
        },
    }
    group = {**GROUP, "name": "rg-too-early"}
    answer = put(fleet, at(subscription(fleet)), body(wide(group, nested)))
    assert fleet.error(answer) == (400, "InvalidTemplate")
    assert "Microsoft.Sql/servers" in answer.json()["error"]["message"]
    early = fleet.call("GET", f"{subscription(fleet)}/resourceGroups/rg-too-early", VERSION)
    assert early.status_code == 404


def test_a_resource_group_takes_deployments_without_a_location(fleet: Fleet) -> None:
    group = next(iter(fleet.azure.tenant.subscriptions[fleet.live[0]].groups.values())).id
    path = at(group)
    identity = {
        "type": "Microsoft.ManagedIdentity/userAssignedIdentities",
        "apiVersion": fleet.IDENTITY,
        "name": f"id-{uuid.uuid4().hex[:8]}",
        "location": "westeurope",
    }
    located = put(fleet, path, body(narrow(identity)))
    assert fleet.error(located) == (400, "InvalidDeployment")
    answer = put(fleet, path, body(narrow(identity), location=None))
    assert ended(fleet, answer) == {"status": "Succeeded"}
    assert put(fleet, at(f"{group}-not-there"), body(narrow(), None)).status_code == 404


def test_it_takes_permissions_to_deploy_and_to_validate(fleet: Fleet) -> None:
    path = at(subscription(fleet))
    for method, ending in (("PUT", ""), ("POST", "/validate"), ("GET", "")):
        answer = fleet.call(method, path + ending, VERSION, json=body(wide()), who="scanner")
        assert fleet.error(answer) == (403, "AuthorizationFailed")


def test_what_is_made_takes_the_deployers_permissions(fleet: Fleet) -> None:
    """A contributor may deploy, but gives nobody a role: the deployment fails, and says so."""
    scope, made = subscription(fleet), f"rg-{uuid.uuid4().hex[:8]}"
    token = person(fleet, CONTRIBUTOR, scope)
    role = {
        "type": "Microsoft.Authorization/roleDefinitions",
        "apiVersion": fleet.AUTHORIZATION,
        "name": str(uuid.uuid4()),
        "dependsOn": [f"[subscriptionResourceId('Microsoft.Resources/resourceGroups', '{made}')]"],
        "properties": {
            "roleName": "Sly",
            "permissions": [{"actions": ["*"]}],
            "assignableScopes": ["[subscription().id]"],
        },
    }
    answer = put(fleet, path := at(scope), body(wide(role, {**GROUP, "name": made})), token=token)
    assert answer.status_code == 201
    state = ended(fleet, answer, token=token)
    assert (state["status"], state["error"]["code"]) == ("Failed", "DeploymentFailed")
    (detail,) = state["error"]["details"]
    assert detail["code"] == "AuthorizationFailed"
    done = fleet.call("GET", path, VERSION).json()["properties"]
    assert done["provisioningState"] == "Failed"
    assert done["error"] == state["error"]
    assert role["name"] not in fleet.azure.tenant.roles
    # What came before stays, as in Azure.
    assert fleet.call("GET", f"{scope}/resourceGroups/{made}", VERSION).status_code == 200


def test_a_nested_deployment_that_fails_fails_the_outer_one(fleet: Fleet) -> None:
    """Suture's own template, where the deployer has no rights in one of the subscriptions."""
    first, second = fleet.live
    owner = RoleDefinition(
        str(uuid.uuid4()), "First Only", "", ("*",), assignable_scopes=(f"/subscriptions/{first}",)
    )
    token = person(fleet, owner, f"/subscriptions/{first}")
    parameters = {
        "scannerPrincipalId": {"value": str(uuid.uuid4())},
        "scopes": {"value": [f"/subscriptions/{first}", f"/subscriptions/{second}"]},
        "scannerRoleName": {"value": f"S {uuid.uuid4()}"},
        "remediatorRoleName": {"value": f"R {uuid.uuid4()}"},
    }
    sent = body(template(Cloud.AZURE), parameters=parameters)
    answer = put(fleet, at(f"/subscriptions/{first}"), sent, token=token)
    state = ended(fleet, answer, token=token)
    assert state["status"] == "Failed"
    (detail,) = state["error"]["details"]
    assert detail["code"] == "LinkedAuthorizationFailed"

    # With the roles there, it is the nested deployment to the other subscription that fails.
    alone = copy.deepcopy(template(Cloud.AZURE))
    for resource in alone["resources"]:
        resource["properties"] = resource.get("properties", {})
        if "assignableScopes" in resource["properties"]:
            resource["properties"]["assignableScopes"] = ["[subscription().id]"]
    known = {
        **parameters,
        "scannerPrincipalId": {"value": fleet.about["remediator"]["principal_id"]},
    }
    sent = body(alone, parameters=known)
    answer = put(fleet, at(f"/subscriptions/{first}"), sent, token=token)
    state = ended(fleet, answer, token=token)
    assert state["status"] == "Failed"
    (detail,) = state["error"]["details"]
    assert detail["code"] == "AuthorizationFailed"
    assert f"/subscriptions/{second}" in detail["message"]


def test_an_update_of_a_role_reaches_those_who_have_it(fleet: Fleet) -> None:
    scope, name = subscription(fleet), str(uuid.uuid4())
    path = f"{scope}/providers/Microsoft.Authorization/roleDefinitions/{name}"

    def write(*actions: str) -> None:
        properties = {
            "roleName": f"Changing {name}",
            "permissions": [{"actions": list(actions)}],
            "assignableScopes": [scope],
        }
        answer = fleet.call("PUT", path, fleet.AUTHORIZATION, json={"properties": properties})
        assert answer.status_code == 201

    write("Microsoft.Storage/storageAccounts/read")
    token = person(fleet, fleet.azure.tenant.roles[name], scope)
    accounts = f"{scope}/providers/Microsoft.Storage/storageAccounts"
    groups = f"{scope}/providers/Microsoft.Network/networkSecurityGroups"
    assert fleet.call("GET", accounts, fleet.STORAGE, token=token).status_code == 200
    assert fleet.call("GET", groups, token=token).status_code == 403
    write("Microsoft.Network/networkSecurityGroups/read")
    assert fleet.call("GET", accounts, fleet.STORAGE, token=token).status_code == 403
    assert fleet.call("GET", groups, token=token).status_code == 200


@pytest.mark.parametrize("scopes", [["/"], ["/subscriptions/x"], [7]])
def test_a_role_is_offered_at_places_that_there_are(fleet: Fleet, scopes: list[Any]) -> None:
    path = f"{subscription(fleet)}/providers/Microsoft.Authorization/roleDefinitions/{uuid.uuid4()}"
    properties = {
        "roleName": "Nowhere",
        "permissions": [{"actions": ["*/read"]}],
        "assignableScopes": scopes,
    }
    answer = fleet.call("PUT", path, fleet.AUTHORIZATION, json={"properties": properties})
    assert fleet.error(answer) == (400, "InvalidAssignableScopes")


def test_identities_are_made_kept_and_deleted(fleet: Fleet) -> None:
    group = next(iter(fleet.azure.tenant.subscriptions[fleet.live[0]].groups.values())).id
    kind = "Microsoft.ManagedIdentity/userAssignedIdentities"
    path = f"{group}/providers/{kind}/id-{uuid.uuid4().hex[:8]}"

    def write(sent: dict[str, Any], where: str = path, **more: Any) -> httpx.Response:
        return fleet.call("PUT", where, fleet.IDENTITY, json=sent, **more)

    assert fleet.error(write({})) == (400, "LocationRequired")
    assert fleet.error(write({"location": "westeurope"}, f"{group}/providers/{kind}/a!"))[0] == 400
    assert fleet.error(write({"location": "westeurope"}, who="scanner"))[0] == 403
    made = write({"location": "West Europe"})
    assert (made.status_code, made.json()["location"]) == (201, "westeurope")
    principal = made.json()["properties"]["principalId"]
    assert fleet.azure.tenant.principal_of(principal) is not None
    again = write({"location": "westeurope", "tags": {"env": "x"}})
    assert (again.status_code, again.json()["tags"]) == (200, {"env": "x"})
    assert again.json()["properties"] == made.json()["properties"]
    assert fleet.error(write({"location": "eastus"})) == (409, "InvalidResourceLocation")
    assert fleet.call("DELETE", path, fleet.IDENTITY).status_code == 200
    assert fleet.azure.tenant.principal_of(principal) is None
    assert fleet.call("DELETE", path, fleet.IDENTITY).status_code == 204
