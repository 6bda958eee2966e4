"""Security groups and rules: validation, ETags, conflicts, and operations that end or fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.mgmt.network.models import NetworkSecurityGroup, SecurityRule

from deployments.local.azure.network import SecurityGroup, checked_rule
from deployments.local.azure.operations import OperationFailure, Operations
from deployments.local.azure.protocol import ArmError, Reply

MakeRule = Callable[..., dict[str, Any]]


def names_of(path: str) -> tuple[str, str]:
    """(resource group, security group) of an id."""
    parts = path.split("/")
    return parts[4], parts[8]


def rule_path(group: str, name: str) -> str:
    return f"{group}/securityRules/{name}"


# Validation, without a server


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"priority": 99}, "SecurityRuleInvalidPriority"),
        ({"priority": 4097}, "SecurityRuleInvalidPriority"),
        ({"priority": "100"}, "SecurityRuleInvalidPriority"),
        ({"priority": None}, "InvalidRequestFormat"),
        ({"access": None}, "InvalidRequestFormat"),
        ({"direction": "Sideways"}, "InvalidRequestFormat"),
        ({"protocol": "Http"}, "InvalidRequestFormat"),
        ({"sourcePrefix": "*"}, "InvalidRequestFormat"),
        ({"destinationPortRange": "99999"}, "SecurityRuleInvalidPortRange"),
        ({"destinationPortRange": "30-20"}, "SecurityRuleInvalidPortRange"),
        ({"destinationPortRange": "22,23"}, "SecurityRuleInvalidPortRange"),
        ({"destinationPortRange": 22}, "SecurityRuleInvalidPortRange"),
        ({"destinationPortRange": None}, "SecurityRuleParameterMissing"),
        ({"destinationPortRanges": ["22"]}, "SecurityRuleInvalidParameters"),
        (
            {"destinationPortRange": None, "destinationPortRanges": ["22", "*"]},
            "SecurityRuleInvalidPortRange",
        ),
        ({"sourceAddressPrefix": "10.0.0.0/33"}, "SecurityRuleInvalidAddressPrefix"),
        ({"sourceAddressPrefix": "not a tag"}, "SecurityRuleInvalidAddressPrefix"),
        ({"sourceAddressPrefix": None}, "SecurityRuleParameterMissing"),
        ({"sourceAddressPrefixes": ["10.0.0.0/8"]}, "SecurityRuleInvalidParameters"),
        (
            {"sourceAddressPrefix": None, "sourceAddressPrefixes": ["10.0.0.0/8", "Internet"]},
            "SecurityRuleParameterContainsUnsupportedValue",
        ),
        (
            {"sourceAddressPrefix": None, "sourceAddressPrefixes": ["10.0.0.0/8"] * 2},
            "SecurityRuleParameterContainsDuplicateValue",
        ),
        (
            {"sourceAddressPrefix": None, "sourceAddressPrefixes": ["10.0.0.0/8", "::/0"]},
            "ResourceCannotContainAddressPrefixesFromDifferentAddressFamilies",
        ),
        (
            {"sourceAddressPrefix": "::/0", "destinationAddressPrefix": "10.0.0.4"},
            "ResourceCannotContainAddressPrefixesFromDifferentAddressFamilies",
        ),
    ],
)
def test_rules_are_refused_for_the_providers_reasons(
    security_rule: MakeRule, change: dict[str, Any], code: str
) -> None:
    with pytest.raises(ArmError) as caught:
        checked_rule("r", security_rule(**change)["properties"])
    assert (caught.value.status, caught.value.code) == (400, code)


@pytest.mark.parametrize(
    "change",
    [
        {"protocol": "TCP"},
        {"protocol": "*", "destinationPortRange": "*"},
        {"protocol": "Icmp", "destinationPortRange": "0-65535"},
        {"destinationPortRange": None, "destinationPortRanges": ["20-30", "443"]},
        {"sourceAddressPrefix": "Internet"},
        {"sourceAddressPrefix": "Storage.WestEurope"},
        {"sourceAddressPrefix": "192.0.2.1"},
        {"sourceAddressPrefix": None, "sourceAddressPrefixes": ["0.0.0.0/0", "10.0.0.0/8"]},
        {"description": "why", "provisioningState": "Succeeded"},
        {"sourceAddressPrefix": None, "sourceApplicationSecurityGroups": [{"id": "/x"}]},
    ],
)
def test_rules_azure_takes_are_taken_and_kept_as_given(
    security_rule: MakeRule, change: dict[str, Any]
) -> None:
    given = security_rule(**change)["properties"]
    kept = checked_rule("r", given)
    given.pop("provisioningState", None)
    assert given.items() <= kept.items()
    assert checked_rule("r", kept) == kept


# Operations, without a server


def test_an_operation_ends_by_polls_by_age_or_by_the_next_write() -> None:
    clock = [0.0]
    operations, ended = Operations(lambda: clock[0], polls=2, longest=5), []

    def begin(target: str) -> Any:
        return operations.begin(target, "me", lambda f: ended.append(target), lambda: Reply())

    polled = begin("a")
    assert [operations.poll(polled) for _ in range(4)] == ["InProgress"] * 2 + ["Succeeded"] * 2
    begin("b")
    clock[0] = 4.9
    operations.settle_overdue()
    assert ended == ["a"]
    clock[0] = 5.0
    operations.settle_overdue()
    assert ended == ["a", "b"]
    begin("c")
    begin("c")
    assert ended == ["a", "b", "c"]


# Against the server


@pytest.mark.slow
class TestGroups:
    def test_the_sdk_creates_reads_tags_and_deletes(self, fleet: Any) -> None:
        home, _ = names_of(fleet.resources_of(SecurityGroup)[0].id)
        client = fleet.network(fleet.live[0], fleet.credential("customer"))
        groups = client.network_security_groups
        body = NetworkSecurityGroup({"location": "West Europe", "tags": {"env": "test"}})
        created = groups.begin_create_or_update(home, "Fresh", body).result()
        assert created.properties.provisioning_state == "Succeeded"
        assert created.location == "westeurope"
        assert [r.name for r in created.properties.default_security_rules] == [
            "AllowVnetInBound",
            "AllowAzureLoadBalancerInBound",
            "DenyAllInBound",
            "AllowVnetOutBound",
            "AllowInternetOutBound",
            "DenyAllOutBound",
        ]
        tagged = groups.update_tags(home, "fresh", {"tags": {"owner": "me"}})
        assert tagged.tags == {"owner": "me"}
        assert tagged.etag != created.etag
        groups.begin_delete(home, "FRESH").result()
        with pytest.raises(ResourceNotFoundError, match="ResourceNotFound"):
            groups.get(home, "Fresh")
        groups.begin_delete(home, "Fresh").result()

    def test_a_put_replaces_rules_and_tags(self, fleet: Any, security_rule: MakeRule) -> None:
        path = fleet.new_group([security_rule("Old")])
        body = {
            "location": "westeurope",
            "tags": {"a": "b"},
            "properties": {"securityRules": [security_rule("New", priority=200)]},
        }
        answer = fleet.call("PUT", path, json=body)
        assert answer.status_code == 200
        fleet.settle(answer)
        after = fleet.call("GET", path).json()
        assert [r["name"] for r in after["properties"]["securityRules"]] == ["New"]
        assert after["tags"] == {"a": "b"}

    def test_what_is_read_can_be_put_back(self, fleet: Any, security_rule: MakeRule) -> None:
        ranges = {"destinationPortRange": None, "destinationPortRanges": ["20-30", "443"]}
        path = fleet.new_group([security_rule(protocol="TCP", description="why", **ranges)])
        before = fleet.call("GET", path).json()
        fleet.settle(fleet.call("PUT", path, json=before))
        assert without_volatile(fleet.call("GET", path).json()) == without_volatile(before)

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"location": None}, (400, "LocationRequired")),
            ({"location": "eastus"}, (409, "InvalidResourceLocation")),
            ({"tags": {"n": 1}}, (400, "InvalidTags")),
            ({"properties": {"securityRules": [{}]}}, (400, "InvalidRequestFormat")),
            ({"properties": []}, (400, "InvalidRequestContent")),
        ],
    )
    def test_bad_groups(
        self, fleet: Any, change: dict[str, Any], expected: tuple[int, str]
    ) -> None:
        path = fleet.new_group()
        answer = fleet.call("PUT", path, json={"location": "westeurope", **change})
        assert fleet.error(answer) == expected

    def test_bad_names(self, fleet: Any) -> None:
        path = fleet.new_group().rpartition("/")[0]
        answer = fleet.call("PUT", f"{path}/-bad-", json={"location": "westeurope"})
        assert fleet.error(answer) == (400, "InvalidResourceName")

    def test_only_tags_can_be_patched(self, fleet: Any) -> None:
        answer = fleet.call("PATCH", fleet.new_group(), json={"properties": {}})
        assert fleet.error(answer) == (400, "InvalidRequestContent")


@pytest.mark.slow
class TestRules:
    def test_the_sdk_writes_reads_lists_and_deletes(self, fleet: Any) -> None:
        path = fleet.new_group()
        home, group = names_of(path)
        client = fleet.network(fleet.live[0], fleet.credential("customer"))
        body = SecurityRule(
            {
                "properties": {
                    "protocol": "Tcp",
                    "sourcePortRange": "*",
                    "destinationPortRanges": ["22", "80-90"],
                    "sourceAddressPrefixes": ["10.0.0.0/8", "192.0.2.0/24"],
                    "destinationAddressPrefix": "*",
                    "access": "Allow",
                    "priority": 150,
                    "direction": "Inbound",
                }
            }
        )
        rules = client.security_rules
        made = rules.begin_create_or_update(home, group, "Admin", body).result()
        assert made.properties.destination_port_ranges == ["22", "80-90"]
        assert made.properties.provisioning_state == "Succeeded"
        assert made.id == f"{path}/securityRules/Admin"
        assert [r.name for r in rules.list(home, group)] == ["Admin"]
        assert rules.get(home, group.upper(), "ADMIN").name == "Admin"
        defaults = client.default_security_rules
        assert defaults.get(home, group, "denyallinbound").properties.priority == 65500
        assert len(list(defaults.list(home, group))) == 6
        rules.begin_delete(home, group, "admin").result()
        rules.begin_delete(home, group, "admin").result()
        assert list(rules.list(home, group)) == []

    def test_missing_rules_and_groups(self, fleet: Any, security_rule: MakeRule) -> None:
        path = fleet.new_group()
        missing = fleet.call("GET", rule_path(path, "nope"))
        assert fleet.error(missing) == (404, "NotFound")
        orphan = fleet.call("PUT", rule_path(f"{path}-gone", "x"), json=security_rule())
        assert fleet.error(orphan) == (404, "ParentResourceNotFound")
        default = fleet.call("PUT", f"{path}/defaultSecurityRules/x", json=security_rule())
        assert fleet.error(default) == (405, "MethodNotAllowed")

    def test_priorities_are_unique_in_each_direction(
        self, fleet: Any, security_rule: MakeRule
    ) -> None:
        path = fleet.new_group([security_rule("First", priority=100)])
        same = fleet.call("PUT", rule_path(path, "Second"), json=security_rule(priority=100))
        assert fleet.error(same) == (400, "SecurityRuleConflict")
        assert "First" in same.json()["error"]["message"]
        outward = security_rule(priority=100, direction="Outbound")
        assert fleet.call("PUT", rule_path(path, "Out"), json=outward).status_code == 201
        again = security_rule(priority=100, destinationPortRange="80")
        assert fleet.call("PUT", rule_path(path, "first"), json=again).status_code == 200
        names = [r["name"] for r in fleet.call("GET", f"{path}/securityRules").json()["value"]]
        assert names == ["First", "Out"]


@pytest.mark.slow
class TestEtags:
    def test_any_rule_write_changes_the_etags_of_group_and_rules(
        self, fleet: Any, security_rule: MakeRule
    ) -> None:
        path = fleet.new_group([security_rule("A", priority=100)])

        def etags() -> list[str]:
            body = fleet.call("GET", path).json()["properties"]
            rules = [*body["securityRules"], *body["defaultSecurityRules"]]
            return [fleet.call("GET", path).json()["etag"], *(rule["etag"] for rule in rules)]

        before = etags()
        fleet.settle(fleet.call("PUT", rule_path(path, "B"), json=security_rule(priority=200)))
        after = etags()
        assert len(set(before)) == len(set(after)) == 1
        assert before[0].startswith('W/"')
        assert set(before).isdisjoint(after)
        header = fleet.call("GET", rule_path(path, "A")).headers["ETag"]
        assert header == after[0]

    def test_a_stale_etag_is_412_and_changes_nothing(
        self, fleet: Any, security_rule: MakeRule
    ) -> None:
        path = fleet.new_group([security_rule("A")])
        stale = fleet.call("GET", rule_path(path, "A")).json()["etag"]
        fleet.settle(fleet.call("PUT", rule_path(path, "B"), json=security_rule(priority=200)))
        before = fleet.call("GET", path).json()
        for method, target, body in (
            ("PUT", rule_path(path, "A"), security_rule(priority=300)),
            ("DELETE", rule_path(path, "A"), None),
            ("PUT", path, {"location": "westeurope"}),
            ("PATCH", path, {"tags": {}}),
            ("DELETE", path, None),
        ):
            answer = fleet.call(method, target, json=body, headers={"If-Match": stale})
            assert fleet.error(answer) == (412, "PreconditionFailed")
            detail = answer.json()["error"]["details"][0]["code"]
            assert detail == "PreconditionFailedEtagMismatch"
        assert fleet.call("GET", path).json() == before

    def test_the_etag_of_the_first_answer_is_stale_once_the_write_is_done(
        self, fleet: Any, security_rule: MakeRule
    ) -> None:
        group = fleet.new_group()
        before = fleet.call("GET", group).json()["etag"]
        answer = fleet.call("PUT", rule_path(group, "A"), json=security_rule())
        path = answer.json()["id"]
        assert answer.json()["etag"] != before
        assert answer.json()["properties"]["provisioningState"] == "Updating"
        fleet.settle(answer)
        settled = fleet.call("GET", path).json()
        assert settled["properties"]["provisioningState"] == "Succeeded"
        assert settled["etag"] != answer.json()["etag"]

    def test_a_fresh_etag_and_a_star_are_let_through(
        self, fleet: Any, security_rule: MakeRule
    ) -> None:
        path = rule_path(fleet.new_group([security_rule("A")]), "A")
        for match in (fleet.call("GET", path).json()["etag"], "*"):
            answer = fleet.call("PUT", path, json=security_rule(), headers={"If-Match": match})
            assert answer.status_code == 200
            fleet.settle(answer)

    def test_if_match_on_nothing_and_if_none_match_on_something(
        self, fleet: Any, security_rule: MakeRule
    ) -> None:
        path = fleet.new_group([security_rule("A")])
        absent = fleet.call(
            "PUT",
            rule_path(path, "New"),
            json=security_rule(priority=200),
            headers={"If-Match": "*"},
        )
        assert absent.status_code == 412
        for target, body in (
            (rule_path(path, "A"), security_rule()),
            (path, {"location": "westeurope"}),
        ):
            present = fleet.call("PUT", target, json=body, headers={"If-None-Match": "*"})
            assert present.status_code == 412

    def test_the_sdk_sends_if_match(self, fleet: Any, security_rule: MakeRule) -> None:
        path = rule_path(fleet.new_group([security_rule("A")]), "A")
        client = fleet.resources(fleet.live[0], fleet.credential("customer"))
        etag = fleet.call("GET", path).json()["etag"]

        def put() -> Any:
            return client.resources.begin_create_or_update_by_id(
                path,
                api_version=fleet.NETWORK,
                parameters=security_rule(),
                headers={"If-Match": etag},
            ).result()

        put()
        with pytest.raises(HttpResponseError) as caught:
            put()
        assert caught.value.status_code == 412
        assert caught.value.error.code == "PreconditionFailed"


@pytest.mark.slow
class TestOperations:
    def test_writes_tell_where_to_ask(self, fleet: Any, security_rule: MakeRule) -> None:
        path = fleet.new_group()
        answer = fleet.call("PUT", rule_path(path, "A"), json=security_rule())
        assert answer.status_code == 201
        address = answer.headers["Azure-AsyncOperation"]
        assert address.startswith(fleet.about["resource_manager"])
        assert "/providers/Microsoft.Network/locations/westeurope/operations/" in address
        states = [fleet.call("GET", address).json() for _ in range(3)]
        assert [state["status"] for state in states] == ["InProgress", "Succeeded", "Succeeded"]
        gone = fleet.call("DELETE", rule_path(path, "A"))
        assert (gone.status_code, gone.content) == (202, b"")
        location = gone.headers["Location"]
        polls = [fleet.call("GET", location).status_code for _ in range(3)]
        assert polls == [202, 204, 204]

    def test_retry_after_is_a_whole_second_and_paces_the_sdk(self, make_fleet: Any) -> None:
        fleet = make_fleet(1, retry_after=1, operation_polls=0)
        home, _ = names_of(fleet.resources_of(SecurityGroup)[0].id)
        client = fleet.network(fleet.live[0], fleet.credential("customer"), polling_interval=60)
        body = NetworkSecurityGroup({"location": "westeurope"})
        poller = client.network_security_groups.begin_create_or_update(home, "paced", body)
        assert poller.result(timeout=10).properties.provisioning_state == "Succeeded"

    @pytest.mark.parametrize("keeps_change", [False, True])
    def test_a_write_can_end_failed(
        self, fleet: Any, security_rule: MakeRule, keeps_change: bool
    ) -> None:
        path = fleet.new_group([security_rule("A")])
        home, group = names_of(path)
        failure = OperationFailure("InternalServerError", "Boom.", keeps_change)
        fleet.azure.faults.fail_operation(path, failure)
        client = fleet.network(fleet.live[0], fleet.credential("customer"))
        with pytest.raises(HttpResponseError, match="Boom") as caught:
            client.security_rules.begin_create_or_update(
                home, group, "A", security_rule(destinationPortRange="8080")
            ).result()
        assert caught.value.error.code == "InternalServerError"
        after = client.network_security_groups.get(home, group)
        assert after.properties.provisioning_state == "Failed"
        ports = [r.properties.destination_port_range for r in after.properties.security_rules]
        assert ports == (["8080"] if keeps_change else ["443"])
        client.security_rules.begin_delete(home, group, "A").result()

    def test_a_failed_creation_leaves_nothing(self, fleet: Any) -> None:
        path = f"{fleet.new_group()}-never"
        fleet.azure.faults.fail_operation(path)
        answer = fleet.call("PUT", path, json={"location": "westeurope"})
        assert fleet.settle(answer)["error"]["code"] == "InternalServerError"
        assert fleet.call("GET", path).status_code == 404

    def test_a_failed_deletion_leaves_everything(self, fleet: Any, security_rule: MakeRule) -> None:
        path = fleet.new_group([security_rule("A")])
        fleet.azure.faults.fail_operation(rule_path(path, "A"))
        answer = fleet.call("DELETE", rule_path(path, "A"))
        codes = [fleet.call("GET", answer.headers["Location"]) for _ in range(2)]
        assert fleet.error(codes[1]) == (409, "InternalServerError")
        assert fleet.call("GET", rule_path(path, "A")).status_code == 200

    def test_an_operation_nobody_polls_ends_by_itself(
        self, make_fleet: Any, security_rule: MakeRule
    ) -> None:
        fleet = make_fleet(1)
        path = fleet.new_group()
        fleet.call("PUT", rule_path(path, "A"), json=security_rule())
        states = []
        for ahead in (0, 10):
            fleet.clock.ahead = ahead
            states.append(fleet.call("GET", path).json()["properties"]["provisioningState"])
        assert states == ["Updating", "Succeeded"]

    def test_an_operation_is_known_in_its_own_subscription_only(
        self, fleet: Any, security_rule: MakeRule
    ) -> None:
        answer = fleet.call("PUT", rule_path(fleet.new_group(), "A"), json=security_rule())
        address = answer.headers["Azure-AsyncOperation"]
        assert fleet.call("GET", address).status_code == 200
        elsewhere = fleet.call("GET", address.replace(fleet.live[0], fleet.live[1]))
        assert fleet.error(elsewhere) == (404, "OperationNotFound")


def without_volatile(value: Any) -> Any:
    if isinstance(value, dict):
        volatile = {"etag", "provisioningState"}
        return {k: without_volatile(v) for k, v in value.items() if k not in volatile}
    if isinstance(value, list):
        return [without_volatile(item) for item in value]
    return value
