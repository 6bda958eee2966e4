"""Storage accounts through the SDK's generic resource operations."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.resource.resources.models import GenericResource
from hypothesis import given
from hypothesis import strategies as st

from deployments.local.azure.protocol import ArmError
from deployments.local.azure.storage import (
    NEVER_ABSENT,
    StorageAccount,
    checked_properties,
    default_properties,
    merged,
)

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "allowBlobPublicAccess": st.booleans(),
    "supportsHttpsTrafficOnly": st.booleans(),
    "minimumTlsVersion": st.sampled_from(["TLS1_0", "TLS1_2"]),
    "publicNetworkAccess": st.sampled_from(["Enabled", "Disabled"]),
}
changes = st.fixed_dictionaries({}, optional={k: st.none() | v for k, v in VALUES.items()})


@given(changes, changes)
def test_a_patch_changes_what_it_names_and_null_takes_away(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    before = merged(default_properties(), first)
    after = merged(before, second)
    for name in {*before, *after}:
        if name not in second:
            assert after.get(name) == before.get(name)
        elif second[name] is not None:
            assert after[name] == second[name]
        elif name in NEVER_ABSENT:
            assert after.get(name) == before.get(name)
        else:
            assert name not in after


@pytest.mark.parametrize(
    ("properties", "code"),
    [
        ({"minimumTlsVersion": "TLS1_9"}, "InvalidValuesForRequestParameters"),
        ({"allowBlobPublicAccess": "no"}, "InvalidRequestContent"),
        ({"allowBlobPublicAcess": True}, "InvalidRequestContent"),
        ({"networkAcls": {"bypass": "None"}}, "InvalidRequestContent"),
    ],
)
def test_bad_settings(properties: dict[str, Any], code: str) -> None:
    with pytest.raises(ArmError) as caught:
        checked_properties(properties)
    assert (caught.value.status, caught.value.code) == (400, code)


def test_read_only_settings_are_ignored() -> None:
    assert checked_properties({"provisioningState": "x", "creationTime": "y"}) == {}


def fresh_path(fleet: Any) -> str:
    home = fleet.resources_of(StorageAccount)[0].id.rpartition("/")[0]
    return f"{home}/fresh{uuid.uuid4().hex[:12]}"


BODY = {"location": "westeurope", "kind": "StorageV2", "sku": {"name": "Standard_LRS"}}


@pytest.mark.slow
class TestAccounts:
    def test_creation_is_followed_by_its_location(self, fleet: Any) -> None:
        path = fresh_path(fleet)
        answer = fleet.call("PUT", path, fleet.STORAGE, json=BODY)
        assert (answer.status_code, answer.content) == (202, b"")
        assert "Azure-AsyncOperation" not in answer.headers
        location = answer.headers["Location"]
        assert "/providers/Microsoft.Storage/locations/westeurope/asyncoperations/" in location
        first, second = fleet.call("GET", location), fleet.call("GET", location)
        assert (first.status_code, second.status_code) == (202, 200)
        assert second.json()["id"] == path
        assert second.json()["properties"]["provisioningState"] == "Succeeded"

    def test_the_sdk_creates_reads_patches_and_deletes(self, fleet: Any) -> None:
        path = fresh_path(fleet)
        resources = fleet.resources(fleet.live[0], fleet.credential("customer")).resources
        version = {"api_version": fleet.STORAGE}
        body = GenericResource({**BODY, "tags": {"env": "test"}})
        made = resources.begin_create_or_update_by_id(path, parameters=body, **version).result()
        assert made.properties["supportsHttpsTrafficOnly"] is True
        assert made.properties["primaryEndpoints"]["blob"].endswith(".blob.core.windows.net/")
        patch = {"properties": {"minimumTlsVersion": "TLS1_2"}}
        done = resources.begin_update_by_id(path, parameters=patch, **version).result()
        assert done.properties["minimumTlsVersion"] == "TLS1_2"
        assert done.tags == {"env": "test"}
        assert resources.get_by_id(path.upper(), **version).name == made.name
        resources.begin_delete_by_id(path, **version).result()
        resources.begin_delete_by_id(path, **version).result()
        assert not resources.check_existence_by_id(path, **version)

    def test_a_failed_creation_leaves_nothing(self, fleet: Any) -> None:
        path = fresh_path(fleet)
        fleet.azure.faults.fail_operation(path)
        resources = fleet.resources(fleet.live[0], fleet.credential("customer")).resources
        with pytest.raises(HttpResponseError):
            resources.begin_create_or_update_by_id(
                path, api_version=fleet.STORAGE, parameters=GenericResource(BODY)
            ).result()
        assert fleet.call("GET", path, fleet.STORAGE).status_code == 404

    def test_a_fix_and_its_undo_restore_the_account(self, fleet: Any) -> None:
        account = fleet.resources_of(StorageAccount)[0]
        before = fleet.call("GET", account.id, fleet.STORAGE).json()
        wanted = {
            "supportsHttpsTrafficOnly": not before["properties"]["supportsHttpsTrafficOnly"],
            "allowBlobPublicAccess": not before["properties"].get("allowBlobPublicAccess"),
            "minimumTlsVersion": "TLS1_3",
        }
        undo = {name: before["properties"].get(name) for name in wanted}
        for properties in (wanted, undo):
            answer = fleet.call("PATCH", account.id, fleet.STORAGE, json={"properties": properties})
            assert answer.status_code == 200
        assert fleet.call("GET", account.id, fleet.STORAGE).json() == before

    def test_null_removes_an_optional_setting(self, fleet: Any) -> None:
        path = fresh_path(fleet)
        location = fleet.call("PUT", path, fleet.STORAGE, json=BODY).headers["Location"]
        fleet.call("GET", location)
        body = {"properties": {"allowBlobPublicAccess": None}}
        after = fleet.call("PATCH", path, fleet.STORAGE, json=body).json()["properties"]
        assert "allowBlobPublicAccess" not in after

    def test_a_second_put_updates(self, fleet: Any) -> None:
        account = fleet.resources_of(StorageAccount)[0]
        body = {**BODY, "location": account.location, "tags": account.tags}
        body["properties"] = {"publicNetworkAccess": "Enabled"}
        answer = fleet.call("PUT", account.id, fleet.STORAGE, json=body)
        assert answer.status_code == 200
        kept = answer.json()["properties"]
        assert kept["publicNetworkAccess"] == "Enabled"
        assert "supportsHttpsTrafficOnly" in kept

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"location": ""}, (400, "LocationRequired")),
            ({"sku": {"name": "Cheap"}}, (400, "InvalidSkuName")),
            ({"sku": None}, (400, "InvalidSkuName")),
            ({"kind": "StorageV9"}, (400, "AccountPropertyIsInvalid")),
        ],
    )
    def test_bad_accounts(
        self, fleet: Any, change: dict[str, Any], expected: tuple[int, str]
    ) -> None:
        answer = fleet.call("PUT", fresh_path(fleet), fleet.STORAGE, json={**BODY, **change})
        assert fleet.error(answer) == expected

    def test_names_are_unique_in_the_world(self, fleet: Any) -> None:
        taken = fleet.resources_of(StorageAccount, fleet.live[1])[0].name
        home = fleet.resources_of(StorageAccount)[0].id.rpartition("/")[0]
        answer = fleet.call("PUT", f"{home}/{taken}", fleet.STORAGE, json=BODY)
        assert fleet.error(answer) == (409, "StorageAccountAlreadyTaken")
        answer = fleet.call("PUT", f"{home}/Not_Valid", fleet.STORAGE, json=BODY)
        assert fleet.error(answer) == (400, "AccountNameInvalid")

    def test_there_is_no_etag(self, fleet: Any) -> None:
        account = fleet.resources_of(StorageAccount)[0]
        answer = fleet.call("GET", account.id, fleet.STORAGE)
        assert "ETag" not in answer.headers
        assert "etag" not in answer.json()
