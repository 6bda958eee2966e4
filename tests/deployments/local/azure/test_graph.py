"""The emulated Resource Graph: what it answers, leaves out, refuses and counts."""

from __future__ import annotations

import base64
import re
import uuid
from typing import Any

import pytest

from deployments.local.azure import kql
from deployments.local.azure.graph import GraphOptions
from deployments.local.azure.network import SecurityGroup
from deployments.local.azure.rbac import READER, RoleAssignment, RoleDefinition
from deployments.local.azure.storage import StorageAccount

PATH, VERSION = "/providers/Microsoft.ResourceGraph/resources", "2024-04-01"
GROUPS = "resources | where type =~ 'microsoft.network/networksecuritygroups'"
BOTH = (
    "resources | where type in~ ('microsoft.network/networksecuritygroups', "
    "'Microsoft.Storage/storageAccounts')"
)
FREE = GraphOptions(quota=10_000)


def ask(
    fleet: Any,
    query: str,
    subscriptions: list[str] | None = None,
    *,
    who: str = "scanner",
    **options: Any,
) -> Any:
    body: dict[str, Any] = {"query": query}
    if subscriptions is not None:
        body["subscriptions"] = subscriptions
    if options:
        body["options"] = options
    return fleet.call("POST", PATH, VERSION, who=who, json=body)


def why(answer: Any) -> tuple[int, str, str]:
    """Status, code and the code of the last detail."""
    status, code = answer.status_code, answer.json()["error"]["code"]
    assert answer.json()["error"]["message"].startswith("Please provide below info")
    return status, code, answer.json()["error"]["details"][-1]["code"]


def application(fleet: Any, scope: str, *actions: str) -> str:
    """A new application with one role at the scope; a token of its own."""
    tenant = fleet.azure.tenant
    scanner = tenant.principals[fleet.about["scanner"]["client_id"]]
    client, object_id = str(uuid.uuid4()), str(uuid.uuid4())
    principal = tenant.add_principal(type(scanner)(client, object_id, "partial"))
    role = RoleDefinition(str(uuid.uuid4()), "Partial", "", actions)
    tenant.access.assign(RoleAssignment(str(uuid.uuid4()), scope, object_id, role))
    return str(fleet.azure.tokens.sign(principal, "https://management.azure.com/"))


@pytest.fixture(scope="module")
def fleet(make_fleet: Any) -> Any:
    return make_fleet(3, graph=FREE)


# --- Kusto ---------------------------------------------------------------------------------------

ROWS = [
    {"id": "b", "type": "T/One", "sub": "s1", "n": 1},
    {"id": "a", "type": "t/two", "sub": "s2", "n": None},
    {"id": "c", "type": "t/one", "sub": "s1", "n": 3},
]
TABLES = {
    "resources": lambda: list(ROWS),
    "resourcecontainers": lambda: [{"sub": "s1"}, {"sub": "s2"}, {"sub": "s3"}],
}


def ids(query: str) -> list[Any]:
    return [row["id"] for row in kql.run(query, TABLES)]


def test_the_operators_that_are_offered() -> None:
    assert ids("Resources | where type =~ 't/ONE' | order by id asc") == ["b", "c"]
    assert ids("resources|where type in~ ('t/one','T/TWO')|order by sub asc, id asc") == list("bca")
    assert kql.run("resources | project id, n", TABLES)[1] == {"id": "a", "n": None}
    counted = kql.run("resources | summarize found = count() by sub", TABLES)
    assert counted == [{"sub": "s1", "found": 2}, {"sub": "s2", "found": 1}]


def test_a_left_row_without_a_right_one_is_kept() -> None:
    query = (
        "resourcecontainers | join kind=leftouter (resources | where type =~ 't/one' "
        "| summarize found = count() by sub) on sub | project sub, found | order by sub asc"
    )
    assert kql.run(query, TABLES) == [
        {"sub": "s1", "found": 2},
        {"sub": "s2", "found": None},
        {"sub": "s3", "found": None},
    ]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("virtualmachines", "UnknownTable"),
        ("resources | take 5", "ParserFailure"),
        ("resources | where type == 'x'", "ParserFailure"),
        ("resources | where n > 1", "ParserFailure"),
        ("resources | where type =~ x", "ParserFailure"),
        ("resources | order by id", "ParserFailure"),
        ("resources | order by id desc", "ParserFailure"),
        ("resources | summarize count() by sub", "ParserFailure"),
        ("resources | project upper = toupper(id)", "ParserFailure"),
        ("resources | join (resourcecontainers) on sub", "ParserFailure"),
        ("resources | join kind=inner (resourcecontainers) on sub", "ParserFailure"),
        ("resources | project colour", "InvalidQuery"),
        ("resources |", "ParserFailure"),
    ],
)
def test_what_is_not_understood_is_refused(query: str, code: str) -> None:
    with pytest.raises(kql.BadQuery) as caught:
        kql.run(query, TABLES)
    assert caught.value.code == code


# --- Answers -------------------------------------------------------------------------------------


@pytest.mark.slow
class TestAnswers:
    def test_rows_as_the_graph_gives_them(self, fleet: Any) -> None:
        planted = fleet.resources_of(SecurityGroup)[0]
        answer = ask(fleet, f"{GROUPS} | order by id asc", [fleet.live[0].upper()])
        body = answer.json()
        assert set(body) == {"totalRecords", "count", "data", "facets", "resultTruncated"}
        assert body["resultTruncated"] == "false"
        assert body["totalRecords"] == body["count"] == len(fleet.resources_of(SecurityGroup))
        (row,) = [row for row in body["data"] if row["id"] == planted.id]
        listed = fleet.call("GET", planted.id).json()
        assert "etag" not in row
        assert row["type"] == "microsoft.network/networksecuritygroups"
        assert row["subscriptionId"] == fleet.live[0]
        assert row["resourceGroup"] == planted.id.split("/")[4].lower()
        assert row["tenantId"] == fleet.about["tenant"]
        assert (row["kind"], row["sku"], row["managedBy"], row["plan"]) == ("", None, "", None)
        assert row["properties"] == listed["properties"]
        assert row["tags"] == listed["tags"]

    def test_every_subscription_that_is_named_and_no_other(self, fleet: Any) -> None:
        body = ask(fleet, f"{BOTH} | project id, subscriptionId", fleet.live[:2]).json()
        assert {row["subscriptionId"] for row in body["data"]} == set(fleet.live[:2])
        everything = ask(fleet, f"{BOTH} | project id, subscriptionId").json()
        assert {row["subscriptionId"] for row in everything["data"]} > set(fleet.live[:2])

    def test_pages(self, fleet: Any) -> None:
        query = f"{BOTH} | project id | order by id asc"
        whole = ask(fleet, query, fleet.live).json()["data"]
        assert len(whole) > 6
        got: list[Any] = []
        token: dict[str, str] = {}
        while True:
            page = ask(fleet, query, fleet.live, **{"$top": 4}, **token).json()
            assert page["totalRecords"] == len(whole)
            assert page["count"] == len(page["data"]) <= 4
            got += page["data"]
            if "$skipToken" not in page:
                break
            token = {"$skipToken": page["$skipToken"]}
            assert page["count"] == 4
        assert got == whole

    def test_a_token_is_for_its_own_query(self, fleet: Any) -> None:
        query = f"{BOTH} | project id | order by id asc"
        token = ask(fleet, query, fleet.live, **{"$top": 1}).json()["$skipToken"]
        for other, subscriptions, given in (
            (query + ", id asc", fleet.live, token),
            (query, fleet.live[:1], token),
            (query, fleet.live, "nonsense"),
            (query, fleet.live, base64.b64encode(b"1|2").decode()),
        ):
            answer = ask(fleet, other, subscriptions, **{"$skipToken": given})
            assert why(answer) == (400, "BadRequest", "InvalidSkipToken")

    def test_without_an_id_there_is_no_second_page(self, fleet: Any) -> None:
        body = ask(fleet, f"{BOTH} | project name", fleet.live, **{"$top": 2}).json()
        assert (body["count"], body["resultTruncated"]) == (2, "true")
        assert "$skipToken" not in body

    def test_an_answer_has_a_largest_size(self, make_fleet: Any) -> None:
        fleet = make_fleet(1, graph=GraphOptions(payload=20_000))
        answer = ask(fleet, GROUPS, fleet.live)
        assert why(answer) == (400, "BadRequest", "ResponsePayloadTooLarge")
        assert ask(fleet, GROUPS, fleet.live, **{"$top": 1}).status_code == 200

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({}, "InvalidPayload"),
            ({"query": ""}, "InvalidPayload"),
            ({"query": GROUPS, "subscriptions": ["x"]}, "SubscriptionsContainInvalidGuids"),
            ({"query": GROUPS, "subscriptions": "x"}, "SubscriptionsContainInvalidGuids"),
            ({"query": GROUPS, "options": {"$top": 0}}, "InvalidOptions"),
            ({"query": GROUPS, "options": {"$top": 1001}}, "InvalidOptions"),
            ({"query": GROUPS, "options": {"top": 5}}, "InvalidOptions"),
            ({"query": GROUPS, "options": {"resultFormat": "table"}}, "InvalidOptions"),
            ({"query": "resources | take 1"}, "ParserFailure"),
            (
                {"query": GROUPS, "subscriptions": [str(uuid.UUID(int=n)) for n in range(1001)]},
                "SubscriptionsExceededLimit",
            ),
        ],
    )
    def test_bad_questions(self, fleet: Any, body: dict[str, Any], code: str) -> None:
        answer = fleet.call("POST", PATH, VERSION, who="scanner", json=body)
        assert why(answer) == (400, "BadRequest", code)

    def test_only_posts_at_the_tenant_are_answered(self, fleet: Any) -> None:
        assert fleet.error(fleet.call("GET", PATH, VERSION))[0] == 405
        below = f"/subscriptions/{fleet.live[0]}{PATH}"
        assert fleet.error(fleet.call("POST", below, VERSION, json={"query": GROUPS}))[0] == 404
        old = fleet.call("POST", PATH, "1999-01-01", json={"query": GROUPS})
        assert fleet.error(old) == (400, "NoRegisteredProviderFound")


# --- Who sees what -------------------------------------------------------------------------------


@pytest.mark.slow
class TestAccess:
    GRAPH = "Microsoft.ResourceGraph/resources/read"

    def test_what_may_not_be_read_is_left_out_without_a_word(self, fleet: Any) -> None:
        scope = f"/subscriptions/{fleet.live[0]}"
        token = application(
            fleet, scope, self.GRAPH, "Microsoft.Network/networkSecurityGroups/read"
        )
        body = fleet.call(
            "POST", PATH, VERSION, token=token, json={"query": BOTH, "subscriptions": fleet.live}
        ).json()
        assert body["resultTruncated"] == "false"
        assert body["totalRecords"] == len(fleet.resources_of(SecurityGroup))
        assert {row["subscriptionId"] for row in body["data"]} == {fleet.live[0]}

    def test_a_role_on_one_resource_shows_that_resource(self, fleet: Any) -> None:
        account = fleet.resources_of(StorageAccount)[0].id
        token = application(fleet, account, self.GRAPH, "Microsoft.Storage/*/read")
        question = {"query": BOTH, "subscriptions": fleet.live}
        body = fleet.call("POST", PATH, VERSION, token=token, json=question).json()
        assert [row["id"] for row in body["data"]] == [account]

    @pytest.mark.parametrize("actions", [("Microsoft.Network/*/read",), ()])
    def test_no_subscription_that_may_be_queried(
        self, fleet: Any, actions: tuple[str, ...]
    ) -> None:
        token = application(fleet, f"/subscriptions/{fleet.live[0]}", *actions)
        question = {"query": BOTH, "subscriptions": fleet.live}
        answer = fleet.call("POST", PATH, VERSION, token=token, json=question)
        assert why(answer) == (400, "BadRequest", "NoValidSubscriptionsInQueryRequest")
        nowhere = ask(fleet, BOTH, [str(uuid.uuid4())])
        assert why(nowhere) == (400, "BadRequest", "NoValidSubscriptionsInQueryRequest")

    def test_containers_are_the_subscriptions_that_may_be_read(self, fleet: Any) -> None:
        query = (
            "resourcecontainers | where type =~ 'microsoft.resources/subscriptions' "
            "| project subscriptionId"
        )
        seen = ask(fleet, query, [*fleet.live, str(uuid.uuid4())]).json()["data"]
        assert {row["subscriptionId"] for row in seen} == set(fleet.live)
        token = application(fleet, f"/subscriptions/{fleet.live[1]}", self.GRAPH)
        question = {"query": query, "subscriptions": fleet.live}
        answer = fleet.call("POST", PATH, VERSION, token=token, json=question).json()
        assert answer["data"] == []

    def test_permissions_are_those_of_every_role_from_the_scope_up(self, fleet: Any) -> None:
        scope = f"/subscriptions/{fleet.live[0]}"
        path = f"{scope}/providers/Microsoft.Authorization/permissions"
        told = fleet.call("GET", path, fleet.AUTHORIZATION, who="scanner").json()["value"]
        assert [set(entry) for entry in told] == [
            {"actions", "notActions", "dataActions", "notDataActions"}
        ]
        assert "Microsoft.Storage/storageAccounts/read" in told[0]["actions"]
        scanner = fleet.azure.tenant.principals[fleet.about["scanner"]["client_id"]]
        group = fleet.new_group()
        given = fleet.grant(group, scanner.object_id, READER.id)
        above = fleet.call("GET", path, fleet.AUTHORIZATION, who="scanner").json()["value"]
        assert above == told
        at = f"{group}/providers/Microsoft.Authorization/permissions"
        inside = fleet.call("GET", at, fleet.AUTHORIZATION, who="scanner").json()["value"]
        assert [entry["actions"] for entry in inside] == [["*/read"], told[0]["actions"]]
        fleet.call("DELETE", given, fleet.AUTHORIZATION)

    def test_permissions_are_refused_to_those_who_may_not_ask(self, fleet: Any) -> None:
        scope = f"/subscriptions/{fleet.live[0]}"
        token = application(fleet, scope, "Microsoft.Network/*/read")
        path = f"{scope}/providers/Microsoft.Authorization/permissions"
        answer = fleet.call("GET", path, fleet.AUTHORIZATION, token=token)
        assert fleet.error(answer) == (403, "AuthorizationFailed")
        assert fleet.error(fleet.call("POST", path, fleet.AUTHORIZATION))[0] == 405


# --- Quota and lag -------------------------------------------------------------------------------


@pytest.mark.slow
class TestQuota:
    def test_fifteen_queries_in_five_seconds_for_each_caller(self, make_fleet: Any) -> None:
        fleet = make_fleet(1)
        fleet.token("scanner")
        fleet.token("customer")
        left = []
        for _ in range(15):
            answer = ask(fleet, GROUPS)
            assert re.fullmatch("00:00:0[1-5]", answer.headers["x-ms-user-quota-resets-after"])
            left.append(int(answer.headers["x-ms-user-quota-remaining"]))
        assert left == [*range(14, -1, -1)]
        refused = ask(fleet, GROUPS)
        assert why(refused) == (429, "RateLimiting", "RateLimiting")
        assert 1 <= int(refused.headers["Retry-After"]) <= 5
        assert refused.headers["x-ms-user-quota-remaining"] == "0"
        assert ask(fleet, GROUPS, who="customer").status_code == 200
        fleet.clock.ahead += 5
        assert ask(fleet, GROUPS).status_code == 200

    def test_bad_queries_count_too(self, make_fleet: Any) -> None:
        fleet = make_fleet(1, graph=GraphOptions(quota=1))
        bad = ask(fleet, "resources | take 1")
        assert bad.status_code == 400
        assert bad.headers["x-ms-user-quota-remaining"] == "0"
        assert ask(fleet, GROUPS).status_code == 429


@pytest.mark.slow
def test_the_graph_lags_behind(make_fleet: Any, security_rule: Any) -> None:
    fleet = make_fleet(1, graph=GraphOptions(quota=1000, lag=60.0))
    query = f"{GROUPS} | project id, properties"

    def known() -> dict[str, int]:
        rows = ask(fleet, query, fleet.live).json()["data"]
        return {row["id"]: len(row["properties"]["securityRules"]) for row in rows}

    planted = known()
    assert set(planted) == {group.id for group in fleet.resources_of(SecurityGroup)}
    made = fleet.new_group()
    changed = next(iter(planted))
    body = security_rule(priority=3999)
    fleet.settle(fleet.call("PUT", f"{changed}/securityRules/New", json=body))
    assert known() == planted
    fleet.clock.ahead += 61
    assert known() == {**planted, changed: planted[changed] + 1, made: 0}
    fleet.settle(fleet.call("DELETE", made))
    fleet.settle(fleet.call("PUT", f"{changed}/securityRules/New", json=body))
    assert made in known()
    fleet.clock.ahead += 61
    assert made not in known()
