"""ARM's front door: tokens, versions, ids, paging, filters, faults, and what is not there."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError

from deployments.local.azure.network import SecurityGroup
from deployments.local.azure.protocol import parse_path
from deployments.local.azure.storage import StorageAccount


@pytest.mark.parametrize(
    ("text", "scope", "namespace", "types", "names"),
    [
        ("/subscriptions", "", "", (), ()),
        ("//subscriptions/S/", "", "", (), ()),
        ("/subscriptions/S/providers/N.S/t", "/subscriptions/S", "N.S", ("t",), ()),
        (
            "/subscriptions/S/resourceGroups/g/providers/N.S/t/a/u/b",
            "/subscriptions/S/resourceGroups/g",
            "N.S",
            ("t", "u"),
            ("a", "b"),
        ),
        (
            "/subscriptions/S/resourceGroups/g/providers/N.S/t/a/Providers/A.B/x/y",
            "/subscriptions/S/resourceGroups/g/providers/N.S/t/a",
            "A.B",
            ("x",),
            ("y",),
        ),
        ("/providers/A.B/x", "", "A.B", ("x",), ()),
    ],
)
def test_paths_are_read_as_arm_reads_them(
    text: str, scope: str, namespace: str, types: tuple[str, ...], names: tuple[str, ...]
) -> None:
    path = parse_path(text)
    assert (path.scope, path.namespace, path.types, path.names) == (
        scope,
        namespace,
        types,
        names,
    )


def nsgs(subscription: str) -> str:
    return f"/subscriptions/{subscription}/providers/Microsoft.Network/networkSecurityGroups"


# Tokens


@pytest.mark.slow
class TestTokens:
    def refused(self, fleet: Any, header: str | None) -> tuple[str, str]:
        headers = {"Authorization": header} if header else {}
        answer = fleet.http.get(
            f"{fleet.about['resource_manager']}/subscriptions?api-version=2022-12-01",
            headers=headers,
        )
        status, code = fleet.error(answer)
        assert status == 401
        return code, answer.headers["WWW-Authenticate"]

    def token(self, fleet: Any, **claims: Any) -> str:
        principal = fleet.azure.tenant.principals[fleet.about["scanner"]["client_id"]]
        audience = claims.pop("audience", "https://management.azure.com/")
        return f"Bearer {fleet.azure.tokens.sign(principal, audience, **claims)}"

    def test_a_good_token_is_taken(self, fleet: Any) -> None:
        answer = fleet.call("GET", "/subscriptions", "2022-12-01", token=self.token(fleet)[7:])
        assert answer.status_code == 200

    def test_a_missing_token(self, fleet: Any) -> None:
        code, challenge = self.refused(fleet, None)
        assert code == "AuthenticationFailed"
        assert challenge.startswith("Bearer authorization_uri=")
        assert fleet.about["tenant"] in challenge

    def test_another_scheme(self, fleet: Any) -> None:
        assert self.refused(fleet, "Basic eDp5")[0] == "AuthenticationFailedInvalidHeader"

    def test_a_forged_token(self, fleet: Any) -> None:
        good = self.token(fleet)
        assert self.refused(fleet, good[:-8] + "AAAAAAAA")[0] == "InvalidAuthenticationToken"
        assert self.refused(fleet, "Bearer x")[0] == "InvalidAuthenticationToken"

    def test_an_expired_token(self, fleet: Any) -> None:
        old = self.token(fleet, exp=int(fleet.clock()) - 1)
        assert self.refused(fleet, old)[0] == "ExpiredAuthenticationToken"

    def test_another_audience(self, fleet: Any) -> None:
        token = self.token(fleet, audience="https://graph.microsoft.com")
        assert self.refused(fleet, token)[0] == "InvalidAuthenticationTokenAudience"

    def test_another_tenant(self, fleet: Any) -> None:
        token = self.token(fleet, tid=str(uuid.uuid4()))
        assert self.refused(fleet, token)[0] == "InvalidAuthenticationTokenTenant"

    def test_a_token_expires_while_it_is_in_use(self, make_fleet: Any) -> None:
        fleet = make_fleet(1, token_lifetime=60)
        assert fleet.call("GET", "/subscriptions", "2022-12-01").status_code == 200
        fleet.clock.ahead = 61
        code = fleet.error(fleet.call("GET", "/subscriptions", "2022-12-01"))
        assert code == (401, "ExpiredAuthenticationToken")


# Requests that make no sense


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "path", "version", "expected"),
    [
        ("GET", "/subscriptions", None, (400, "MissingApiVersionParameter")),
        ("GET", "/subscriptions", "1999-01-01", (400, "InvalidApiVersionParameter")),
        ("GET", "{nsgs}", "1999-01-01", (400, "NoRegisteredProviderFound")),
        ("GET", "{sub}/providers/A.Nope/x", "2024-05-01", (404, "InvalidResourceNamespace")),
        ("GET", "{sub}/providers/Microsoft.Network/x", "2024-05-01", (404, "InvalidResourceType")),
        ("GET", "/subscriptions/{none}", "2022-12-01", (404, "SubscriptionNotFound")),
        (
            "GET",
            "/subscriptions/{none}/providers/Microsoft.Network/networkSecurityGroups",
            "2024-05-01",
            (404, "SubscriptionNotFound"),
        ),
        ("GET", "{sub}/resourceGroups/none", "2021-04-01", (404, "ResourceGroupNotFound")),
        (
            "GET",
            "{sub}/resourceGroups/none/providers/Microsoft.Network/networkSecurityGroups/x",
            "2024-05-01",
            (404, "ResourceGroupNotFound"),
        ),
        (
            "GET",
            "{sub}/resourceGroups/none/providers/Microsoft.Network/networkSecurityGroups",
            "2024-05-01",
            (404, "ResourceGroupNotFound"),
        ),
        ("GET", "{group}/providers/Microsoft.Network/networkSecurityGroups/x", "2024-05-01",
         (404, "ResourceNotFound")),
        ("GET", "{group}/providers/Microsoft.Network/networkSecurityGroups/x/securityRules/y",
         "2024-05-01", (404, "ParentResourceNotFound")),
        ("POST", "{nsgs}", "2024-05-01", (405, "MethodNotAllowed")),
        ("DELETE", "/subscriptions", "2022-12-01", (405, "MethodNotAllowed")),
        ("PUT", "{nsgs}", "2024-05-01", (405, "MethodNotAllowed")),
        ("GET", "/no/such/place", "2022-12-01", (404, "NotFound")),
        ("GET", "{sub}/resources?$filter=size gt 3", "2021-04-01",
         (400, "InvalidFilterInQueryString")),
        ("GET", "{nsgs}?$skiptoken=_w==", "2024-05-01", (400, "InvalidSkipToken")),
        ("GET", "{sub}/providers/Microsoft.Network/locations/x/operations/y", "2024-05-01",
         (404, "OperationNotFound")),
    ],
)  # fmt: skip
def test_error_bodies(
    fleet: Any, method: str, path: str, version: str | None, expected: tuple[int, str]
) -> None:
    subscription = fleet.live[0]
    group = next(iter(fleet.azure.tenant.subscriptions[subscription].groups.values())).id
    filled = path.format(
        nsgs=nsgs(subscription),
        sub=f"/subscriptions/{subscription}",
        group=group,
        none=uuid.uuid4(),
    )
    address, _, query = filled.partition("?")
    params = dict([query.split("=", 1)]) if query else {}
    answer = fleet.call(method, address, version, params=params)
    assert fleet.error(answer) == expected
    if version == "1999-01-01":
        assert "2024-" in answer.json()["error"]["message"]


@pytest.mark.slow
def test_a_body_that_is_no_json(fleet: Any) -> None:
    path = fleet.new_group()
    answer = fleet.call("PUT", path, content=b"{nope")
    assert fleet.error(answer) == (400, "InvalidRequestContent")


# Lists


@pytest.fixture(scope="module")
def large(make_fleet: Any) -> Any:
    return make_fleet(12, page_size=5)


@pytest.mark.slow
class TestLists:
    def pages(self, fleet: Any, path: str, version: str, who: str = "scanner") -> list[list[Any]]:
        pages, address = [], path
        while address:
            body = fleet.call("GET", address, version, who=who).raise_for_status().json()
            pages.append(body["value"])
            address = body.get("nextLink")
        return pages

    def test_subscriptions_come_in_pages(self, large: Any) -> None:
        pages = self.pages(large, "/subscriptions", large.RESOURCES)
        assert [len(page) for page in pages] == [5, 5, 3]
        listed = [item for page in pages for item in page]
        assert {s["subscriptionId"] for s in listed} == {
            s["id"] for s in large.about["subscriptions"]
        }
        assert sorted({s["state"] for s in listed}) == ["Disabled", "Enabled"]
        assert all(s["id"] == f"/subscriptions/{s['subscriptionId']}" for s in listed)

    def test_a_next_link_stands_on_its_own(self, large: Any) -> None:
        first = large.call("GET", "/subscriptions", large.RESOURCES, who="scanner").json()
        assert first["nextLink"].startswith(large.about["resource_manager"])
        assert "api-version=2022-12-01" in first["nextLink"]
        assert "skiptoken" in first["nextLink"].lower()

    def test_the_sdk_follows_pages_of_security_groups(self, large: Any) -> None:
        subscription = large.live[0]
        for _ in range(7):
            large.new_group()
        planted = {g.id for g in large.resources_of(SecurityGroup)}
        client = large.network(subscription, large.credential("scanner"))
        by_page = [list(page) for page in client.network_security_groups.list_all().by_page()]
        assert len(by_page) > 1
        assert max(len(page) for page in by_page) == 5
        assert {group.id for page in by_page for group in page} == planted

    def test_the_generic_list_filters_by_type_and_shows_no_properties(self, large: Any) -> None:
        subscription = large.live[0]
        client = large.resources(subscription, large.credential("scanner"))
        wanted = "resourceType eq 'microsoft.storage/STORAGEACCOUNTS'"
        listed = list(client.resources.list(filter=wanted))
        assert {x.id for x in listed} == {
            a.id for a in large.resources_of(StorageAccount, subscription)
        }
        assert all(x.sku.name == "Standard_LRS" and x.kind == "StorageV2" for x in listed)
        everything = list(client.resources.list())
        assert {x.id for x in listed} < {x.id for x in everything}
        assert all(not x.properties for x in everything)

    def test_filters_join_with_and(self, large: Any) -> None:
        group = large.resources_of(SecurityGroup)[0]
        terms = f"tagName eq 'env' and tagValue eq '{group.tags['env']}' and name eq '{group.name}'"
        path = f"/subscriptions/{large.live[0]}/resources"
        answer = large.call("GET", path, "2021-04-01", params={"$filter": terms})
        assert [x["id"] for x in answer.json()["value"]] == [group.id]

    def test_lists_by_resource_group(self, large: Any) -> None:
        group = large.resources_of(SecurityGroup)[0]
        home = group.id.partition("/providers/")[0]
        client = large.network(large.live[0], large.credential("scanner"))
        listed = list(client.network_security_groups.list(home.split("/")[4].upper()))
        assert group.id in {x.id for x in listed}
        assert all(x.id.startswith(f"{home}/") for x in listed)

    def test_top_makes_pages_smaller(self, large: Any) -> None:
        path = f"/subscriptions/{large.live[0]}/resources"
        answer = large.call("GET", path, "2021-04-01", params={"$top": "2"}).json()
        assert len(answer["value"]) == 2
        assert "$top=2" in answer["nextLink"].replace("%24", "$")

    def test_resource_groups_and_providers(self, large: Any) -> None:
        client = large.resources(large.live[0], large.credential("customer"))
        names = {g.name for g in client.resource_groups.list()}
        assert "rg-Platform" in names
        assert client.resource_groups.check_existence("RG-PLATFORM")
        assert not client.resource_groups.check_existence("nope")
        provider = client.providers.get("Microsoft.Network")
        assert provider.registration_state == "Registered"
        assert "networkSecurityGroups" in {t.resource_type for t in provider.resource_types}


# Ids


@pytest.mark.slow
def test_ids_are_answered_in_their_stored_case_however_they_are_asked(fleet: Any) -> None:
    group = fleet.resources_of(SecurityGroup)[0]
    assert group.id not in {group.id.lower(), group.id.upper()}
    for asked in (group.id.lower(), group.id.upper(), group.id):
        body = fleet.call("GET", asked, who="scanner").raise_for_status().json()
        assert (body["id"], body["name"]) == (group.id, group.name)


@pytest.mark.slow
def test_existence_by_id(fleet: Any) -> None:
    group = fleet.resources_of(SecurityGroup)[0]
    client = fleet.resources(fleet.live[0], fleet.credential("scanner"))
    assert client.resources.check_existence_by_id(group.id.lower(), api_version=fleet.NETWORK)
    with pytest.raises(ResourceNotFoundError):
        client.resources.get_by_id(f"{group.id}-gone", api_version=fleet.NETWORK)


@pytest.mark.slow
def test_cloud_metadata_needs_no_token(fleet: Any) -> None:
    address = f"{fleet.about['resource_manager']}/metadata/endpoints?api-version=2022-09-01"
    document = fleet.http.get(address).json()[0]
    assert document["authentication"]["loginEndpoint"] == fleet.about["authority"]
    assert document["resourceManager"] == fleet.about["resource_manager"]


# Faults


@pytest.mark.slow
class TestThrottling:
    def test_the_sdk_rides_out_a_few_429(self, make_fleet: Any) -> None:
        fleet = make_fleet(1)
        fleet.azure.faults.throttle(fleet.live[0], times=1, retry_after=1)
        client = fleet.network(fleet.live[0], fleet.credential("scanner"), retry_total=3)
        assert list(client.network_security_groups.list_all())

    def test_every_nth_request(self, fleet: Any) -> None:
        fleet.azure.faults.throttle(fleet.live[1], every=3)
        try:
            path = nsgs(fleet.live[1].upper())
            statuses = [fleet.call("GET", path, who="scanner").status_code for _ in range(6)]
        finally:
            fleet.azure.faults.stop_throttling(fleet.live[1])
        assert statuses == [200, 200, 429, 200, 200, 429]

    def test_one_subscription_throttles_for_ever_and_one_refuses(self, make_fleet: Any) -> None:
        fleet = make_fleet(6)
        fate = {why: subscription for subscription, why in fleet.azure.failing.items()}
        for _ in range(3):
            answer = fleet.call("GET", nsgs(fate["throttled"]), who="scanner")
            assert fleet.error(answer) == (429, "SubscriptionRequestsThrottled")
            assert answer.headers["Retry-After"] == "1"
        listed = fleet.call("GET", "/subscriptions", fleet.RESOURCES, who="scanner").json()
        assert set(fate.values()) <= {s["subscriptionId"] for s in listed["value"]}
        client = fleet.network(fate["refused"], fleet.credential("scanner"))
        with pytest.raises(HttpResponseError, match="AuthorizationFailed") as caught:
            list(client.network_security_groups.list_all())
        assert caught.value.status_code == 403
        answer = fleet.call(
            "GET", f"/subscriptions/{fate['refused']}/resources", "2021-04-01", who="scanner"
        )
        assert fleet.error(answer) == (403, "AuthorizationFailed")


@pytest.mark.slow
def test_a_disabled_subscription_reads_but_does_not_write(fleet: Any) -> None:
    disabled = fleet.about["subscriptions"][-1]["id"]
    group = fleet.resources_of(SecurityGroup, disabled)[0]
    assert fleet.call("GET", group.id, who="scanner").status_code == 200
    answer = fleet.call("PATCH", group.id, json={"tags": {}})
    assert fleet.error(answer) == (409, "ReadOnlyDisabledSubscription")


# The server itself


@pytest.mark.slow
def test_it_serves_again_and_again_in_one_process(make_fleet: Any) -> None:
    first, second = make_fleet(1), make_fleet(1)
    assert first.about["authority"] != second.about["authority"]
    assert fleet_answers(first)
    assert fleet_answers(second)
    foreign = second.call("GET", "/subscriptions", "2022-12-01", token=first.token("scanner"))
    assert foreign.status_code == 401
    first.azure.stop()
    first.azure.stop()
    assert fleet_answers(second)


def fleet_answers(fleet: Any) -> bool:
    return bool(fleet.call("GET", "/subscriptions", "2022-12-01").status_code == 200)
