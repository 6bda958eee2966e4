"""What ARM's clients read from the simulator is what the generator says that there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fleet_azure
import httpx
import pytest
import unset_azure
from azure.identity import ClientSecretCredential

pytestmark = pytest.mark.slow

FLEET = fleet_azure.AzureFleet(7, page=6)
IDS = [fleet_azure.subscription_id(index) for index in range(7)]
GROUPS = "/providers/Microsoft.Network/networkSecurityGroups?api-version=2024-05-01"
STORAGE = "/providers/Microsoft.Storage/storageAccounts?api-version=2023-05-01"
GRAPH = "/providers/Microsoft.ResourceGraph/resources?api-version=2024-04-01"


def _token(running: Any, http: httpx.Client, **changes: str) -> httpx.Response:
    told = running.told["azure"]
    form = {
        "grant_type": "client_credentials",
        "client_id": told["client_id"],
        "client_secret": told["client_secret"],
        "scope": "https://management.azure.com/.default",
    }
    return http.post(f"/{told['tenant']}/oauth2/v2.0/token", data=form | changes)


@pytest.fixture
def arm(running: Any) -> Iterator[httpx.Client]:
    with running.http() as http:
        token = _token(running, http).raise_for_status().json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        yield http


def _pages(arm: httpx.Client, path: str) -> list[list[Any]]:
    pages: list[list[Any]] = []
    while path:
        answer = arm.get(path).raise_for_status().json()
        pages.append(answer["value"])
        path = answer.get("nextLink", "")
    return pages


def _joined(pages: list[list[Any]]) -> list[Any]:
    return [item for page in pages for item in page]


def test_azure_identity_gets_a_token(running: Any) -> None:
    told = running.told["azure"]
    with ClientSecretCredential(
        told["tenant"],
        told["client_id"],
        told["client_secret"],
        authority=told["authority"],
        disable_instance_discovery=True,
        connection_verify=running.told["ca_file"],
    ) as credential:
        token = credential.get_token("https://management.azure.com//.default").token
    with running.http() as http:
        path = f"/subscriptions/{IDS[0]}{GROUPS}"
        answer = http.get(path, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("changes", "status", "number"),
    [
        ({"client_secret": "wrong"}, 401, 7000215),
        ({"client_id": "nobody"}, 400, 700016),
        ({"grant_type": "password"}, 400, 70003),
    ],
)
def test_a_token_is_refused(
    running: Any, changes: dict[str, str], status: int, number: int
) -> None:
    with running.http() as http:
        answer = _token(running, http, **changes)
    assert answer.status_code == status
    assert answer.json()["error_codes"] == [number]


def test_a_request_without_a_token_is_refused(running: Any) -> None:
    with running.http() as http:
        bare = http.get("/subscriptions?api-version=2022-12-01")
        foreign = http.get(
            "/subscriptions?api-version=2022-12-01", headers={"Authorization": "Bearer a.b.c"}
        )
    assert [bare.status_code, foreign.status_code] == [401, 401]
    assert bare.json()["error"]["code"] == "AuthenticationFailed"


def test_subscriptions_come_in_pages(arm: httpx.Client) -> None:
    pages = _pages(arm, "/subscriptions?api-version=2022-12-01")
    assert [len(page) for page in pages] == [6, 1]
    assert _joined(pages) == [fleet_azure.subscription(index) for index in range(7)]


def test_lists_of_a_subscription(arm: httpx.Client) -> None:
    for id in IDS[:3]:
        pages = _pages(arm, f"/subscriptions/{id}{GROUPS}")
        assert [len(page) for page in pages] == [6, 6, 6, 2]
        assert _joined(pages) == fleet_azure.security_groups(FLEET, id)
        pages = _pages(arm, f"/subscriptions/{id}{STORAGE}")
        assert [len(page) for page in pages] == [5]
        assert _joined(pages) == fleet_azure.storage_accounts(FLEET, id)


def test_one_resource_and_one_that_is_not_there(arm: httpx.Client) -> None:
    truth = fleet_azure.security_groups(FLEET, IDS[1])[12]
    assert arm.get(f"{truth['id']}?api-version=2024-05-01").json() == truth
    gone = arm.get(f"{truth['id']}x?api-version=2024-05-01")
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "ResourceNotFound"
    strange = fleet_azure.subscription_id(7)
    assert arm.get(f"/subscriptions/{strange}{GROUPS}").json()["error"]["code"] == (
        "SubscriptionNotFound"
    )
    bare = arm.get(f"/subscriptions/{IDS[0]}{GROUPS.partition('?')[0]}")
    assert bare.json()["error"]["code"] == "MissingApiVersionParameter"


def test_permissions(arm: httpx.Client) -> None:
    path = f"/subscriptions/{IDS[0]}/providers/Microsoft.Authorization/permissions"
    answer = arm.get(f"{path}?api-version=2022-04-01").json()
    assert answer["value"][0]["actions"] == ["*/read"]


@pytest.mark.parametrize("type", unset_azure.LISTS)
def test_of_other_types_there_are_none_but_the_defaults(arm: httpx.Client, type: str) -> None:
    ask = {"api-version": "2024-01-01", "$filter": min(unset_azure.FILTERS.get(type, {""}))}
    answer = arm.get(f"/subscriptions/{IDS[1]}/providers/{type}", params=ask).raise_for_status()
    found = answer.json()["value"]
    assert len(found) == len(unset_azure.LISTS[type])
    for one in found:
        assert one["id"] == f"/subscriptions/{IDS[1]}/providers/{one['type']}/{one['name']}"
        assert arm.get(f"{one['id']}?api-version=2024-01-01").json() == one
        assert fleet_azure.SUBSCRIPTION not in str(one)


def test_every_plan_of_defender_is_free(arm: httpx.Client) -> None:
    path = f"/subscriptions/{IDS[0]}/providers/Microsoft.Security/pricings"
    plans = arm.get(f"{path}?api-version=2024-01-01").json()["value"]
    assert {plan["properties"]["pricingTier"] for plan in plans} == {"Free"}
    assert {"VirtualMachines", "CloudPosture", "Api"} <= {plan["name"] for plan in plans}


def test_an_account_s_services_are_as_they_are_made(arm: httpx.Client) -> None:
    account = fleet_azure.storage_accounts(FLEET, IDS[2])[3]["id"]
    blobs = arm.get(f"{account}/blobServices/default?api-version=2023-05-01").json()
    assert blobs["id"] == f"{account}/blobServices/default"
    assert blobs["properties"]["deleteRetentionPolicy"]["enabled"] is False
    files = arm.get(f"{account}/fileServices/default?api-version=2023-05-01").json()
    assert files["properties"]["shareDeleteRetentionPolicy"] == {"enabled": True, "days": 7}
    containers = f"{account}/blobServices/default/containers?api-version=2023-05-01"
    assert arm.get(containers).json() == {"value": []}


RG = "resourceGroups/rg-000/providers"


@pytest.mark.parametrize(
    ("path", "code", "status"),
    [
        ("providers/Microsoft.Web/sites?api-version=latest", "InvalidApiVersionParameter", 400),
        ("providers/Microsoft.Web/certificates", "InvalidResourceType", 404),
        ("providers/Microsoft.Nothing/things", "InvalidResourceNamespace", 404),
        (f"{RG}/Microsoft.Web/sites", "BadRequest", 400),
        (f"{RG}/Microsoft.Storage/storageAccounts", "BadRequest", 400),
        (f"{RG}/Microsoft.Web/sites/shop", "ResourceNotFound", 404),
        (f"{RG}/Microsoft.Web/sites/shop/config/web", "ParentResourceNotFound", 404),
        (
            f"{RG}/Microsoft.Storage/storageAccounts/store99999/blobServices/default",
            "ParentResourceNotFound",
            404,
        ),
        (
            f"{RG}/Microsoft.Storage/storageAccounts/store00000/queueServices/default",
            "InvalidResourceType",
            404,
        ),
        ("providers/Microsoft.Security/securityContacts/default", "ResourceNotFound", 404),
        ("providers/Microsoft.Security/pricings/Nothing", "ResourceNotFound", 404),
        ("providers/Microsoft.Authorization/roleDefinitions", "UnsupportedQuery", 400),
        ("providers/Microsoft.Web/sites?$filter=name eq 'a'", "UnsupportedQuery", 400),
    ],
)
def test_what_is_not_there_or_not_simulated_is_no_empty_list(
    arm: httpx.Client, path: str, code: str, status: int
) -> None:
    path, _, query = path.partition("?")
    ask = {"api-version": "2024-01-01"} | dict([query.split("=", 1)] if query else [])
    answer = arm.get(f"/subscriptions/{IDS[0]}/{path}", params=ask)
    assert (answer.json()["error"]["code"], answer.status_code) == (code, status)


def test_nothing_can_be_written_and_nothing_is_outside_a_subscription(arm: httpx.Client) -> None:
    account = fleet_azure.storage_accounts(FLEET, IDS[0])[0]["id"]
    written = arm.put(f"{account}?api-version=2023-05-01", json={})
    assert (written.json()["error"]["code"], written.status_code) == ("MethodNotAllowed", 405)
    assert arm.get(GRAPH).status_code == 405
    outside = arm.get("/providers/Microsoft.Management/managementGroups?api-version=2020-05-01")
    assert (outside.json()["error"]["code"], outside.status_code) == ("MissingSubscription", 404)


def _rows(
    arm: httpx.Client, query: str, subscriptions: list[str] | None, top: int
) -> tuple[list[Any], list[dict[str, Any]]]:
    """All rows, and each page without its rows."""
    rows: list[Any] = []
    pages: list[dict[str, Any]] = []
    options: dict[str, Any] = {"$top": top, "resultFormat": "objectArray"}
    while True:
        asked: dict[str, Any] = {"query": query, "options": options}
        if subscriptions is not None:
            asked["subscriptions"] = subscriptions
        answer = arm.post(GRAPH, json=asked).raise_for_status()
        assert answer.headers["x-ms-user-quota-remaining"].isdecimal()
        page = answer.json()
        assert page["count"] == len(page["data"])
        rows += page.pop("data")
        pages.append(page)
        if "$skipToken" not in page:
            return rows, pages
        options = options | {"$skipToken": page["$skipToken"]}


@pytest.mark.parametrize("top", [1, 7, 33, 1000])
def test_resource_graph_pages_through_the_rows_of_many_subscriptions(
    arm: httpx.Client, top: int
) -> None:
    asked = [IDS[5], IDS[2], IDS[4], "00000000-0000-0000-0000-000000000000"]
    query = "resources | where type =~ 'Microsoft.Storage/storageAccounts' | order by id asc"
    rows, pages = _rows(arm, query, asked, top)
    truth = [
        fleet_azure.graph_row(item)
        for id in (IDS[2], IDS[4], IDS[5])
        for item in fleet_azure.storage_accounts(FLEET, id)
    ]
    assert rows == truth
    assert {page["totalRecords"] for page in pages} == {15}
    assert [page["count"] for page in pages] == [
        min(top, 15 - start) for start in range(0, 15, top)
    ]


def test_resource_graph_projects_and_knows_every_subscription(arm: httpx.Client) -> None:
    query = "Resources | where type =~ 'microsoft.network/networksecuritygroups' | project id, name"
    rows, _ = _rows(arm, query, None, 1000)
    assert rows == [
        {"id": item["id"], "name": item["name"]}
        for id in IDS
        for item in fleet_azure.security_groups(FLEET, id)
    ]
    assert [row["id"].lower() for row in rows] == sorted(row["id"].lower() for row in rows)


def test_resource_graph_answers_several_types_in_one_order(arm: httpx.Client) -> None:
    query = (
        "resources | where type =~ 'Microsoft.Network/networkSecurityGroups' "
        "or type =~ 'Microsoft.Storage/storageAccounts' | order by id asc"
    )
    rows, _ = _rows(arm, query, IDS[:2], 9)
    assert len(rows) == 50
    assert [row["id"].lower() for row in rows] == sorted(row["id"].lower() for row in rows)


BOTH = "('microsoft.network/networksecuritygroups', 'Microsoft.Storage/storageAccounts')"


def test_resource_graph_takes_a_list_of_types(arm: httpx.Client) -> None:
    listed = f"resources | where type in~ {BOTH} | project id, subscriptionId | order by id asc"
    rows, _ = _rows(arm, listed, IDS[:3], 1000)
    truth = [
        item["id"]
        for id in IDS[:3]
        for item in fleet_azure.security_groups(FLEET, id) + fleet_azure.storage_accounts(FLEET, id)
    ]
    assert sorted(row["id"] for row in rows) == sorted(truth)
    assert [row["subscriptionId"] for row in rows] == [id for id in IDS[:3] for _ in range(25)]


@pytest.mark.parametrize("top", [2, 1000])
def test_resource_graph_counts_what_each_subscription_has(arm: httpx.Client, top: int) -> None:
    query = (
        "resourcecontainers | where type =~ 'microsoft.resources/subscriptions'"
        f" | join kind=leftouter (resources | where type in~ {BOTH}"
        " | summarize found = count() by subscriptionId)"
        " on subscriptionId | project subscriptionId, found"
    )
    strange = "00000000-0000-0000-0000-000000000000"
    rows, _ = _rows(arm, query, [*IDS[:5], strange], top)
    assert rows == [{"subscriptionId": id, "found": 25} for id in IDS[:5]]


@pytest.mark.parametrize(
    "body",
    [
        {"query": "resources"},
        {"query": "resources | where type in~ ('microsoft.web/sites')"},
        {"query": "resourcecontainers | where type =~ 'microsoft.resources/subscriptions'"},
        {"options": {}},
        [],
    ],
)
def test_resource_graph_refuses_what_it_does_not_know(arm: httpx.Client, body: Any) -> None:
    answer = arm.post(GRAPH, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "BadRequest"
