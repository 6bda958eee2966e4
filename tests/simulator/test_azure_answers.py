"""What ARM's clients read from the simulator is what the generator says that there is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fleet_azure
import httpx
import pytest
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


@pytest.mark.parametrize("body", [{"query": "resources"}, {"options": {}}, []])
def test_resource_graph_refuses_what_it_does_not_know(arm: httpx.Client, body: Any) -> None:
    answer = arm.post(GRAPH, json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "BadRequest"
