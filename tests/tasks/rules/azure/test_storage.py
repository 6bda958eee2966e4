"""Storage's rules where the table of examples does not reach: refusals, and what is read at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tasks.clouds.azure_collect import read_one
from tasks.errors import BadInput, CloudError
from tasks.model import Cloud, Config, Resource, Verdict
from tasks.rules import rule

ID = "/subscriptions/s/resourcegroups/rg/providers/microsoft.storage/storageaccounts/acme"
KIND = "azure.storage.account"


def account(parts: dict[str, Any]) -> Resource:
    return Resource(Cloud.AZURE, "s", "westeurope", KIND, ID, "acme", Config(parts))


def fix(name: str, parts: dict[str, Any]) -> Any:
    planner = rule(f"azure_storage_account_{name}").fix
    assert planner is not None
    return planner(account(parts), {})


def judge(name: str, parts: dict[str, Any]) -> Verdict:
    return rule(f"azure_storage_account_{name}").judge(account(parts))[0]


@pytest.mark.parametrize("made", [None, {}, {"key1": "2024-01-01T00:00:00Z", "key2": None}])
def test_no_reminder_before_both_keys_have_a_date(made: Any) -> None:
    with pytest.raises(BadInput, match="Rotate key1 and key2"):
        fix("key_expiration_reminder", {"properties": {"keyCreationTime": made}})


def test_general_purpose_v1_has_to_be_upgraded_by_hand() -> None:
    with pytest.raises(BadInput, match="general-purpose v2"):
        fix("blob_versioning", {"kind": "Storage", "properties": {}, "blobServices": {}})


@pytest.mark.parametrize("bypass", ["AzureServices, Everybody", "", None, 7])
def test_an_unknown_bypass_is_unknown(bypass: Any) -> None:
    parts = {"properties": {"networkAcls": {"bypass": bypass}}}
    assert judge("trusts_azure_services", parts) is Verdict.UNKNOWN


def test_bypass_keeps_what_stands_there() -> None:
    parts = {"properties": {"networkAcls": {"bypass": "Logging, Metrics", "ipRules": []}}}
    (step,) = fix("trusts_azure_services", parts)
    acls = step.call.params["properties"]["networkAcls"]
    assert acls == {"bypass": "Logging, Metrics, AzureServices", "ipRules": []}


@pytest.mark.parametrize("versions", ["SMB4.0", "SMB3.1.1;SMB9", ";", 3])
def test_an_unknown_smb_version_is_unknown(versions: Any) -> None:
    parts = {"fileServices": {"protocolSettings": {"smb": {"versions": versions}}}}
    assert judge("smb_version", parts) is Verdict.UNKNOWN


def test_a_service_is_sent_back_whole() -> None:
    cors = {"corsRules": [{"allowedOrigins": ["https://example.com"]}]}
    old = {"cors": cors, "restorePolicy": {"enabled": False}}
    (step,) = fix("blob_soft_delete", {"properties": {}, "blobServices": old})
    assert step.call.params["properties"] == {
        **old,
        "deleteRetentionPolicy": {"enabled": True, "days": 7},
    }
    (undo,) = step.undo
    assert undo.params["properties"] == {**old, "deleteRetentionPolicy": {"enabled": False}}


# --- what is read -------------------------------------------------------------------------------


class Arm:
    """ARM's answers by the end of the path; asking for anything else is an error."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self.answers = answers

    async def get(self, path: str, version: str) -> Any:
        answer = self.answers[path.removeprefix(ID)]
        if isinstance(answer, CloudError):
            raise answer
        return answer

    async def items(self, path: str, version: str) -> AsyncIterator[Any]:
        for item in await self.get(path, version):
            yield item


def read(kind: str, **answers: Any) -> Config:
    own = {"id": ID, "name": "acme", "kind": kind, "properties": {}}
    paths = {
        "blobs": "/blobServices/default",
        "files": "/fileServices/default",
        "containers": "/blobServices/default/containers",
    }
    arm: Any = Arm({"": own, **{paths[name]: one for name, one in answers.items()}})
    return asyncio.run(read_one(arm, "s", KIND, ID)).config


def service(**properties: Any) -> dict[str, Any]:
    return {"name": "default", "properties": properties}


def test_kinds_without_a_service_are_not_asked_for_it() -> None:
    config = read("FileStorage", files=service())
    assert (config["blobServices"], config["containers"]) == (None, [])
    config = read("BlockBlobStorage", blobs=service(), containers=[])
    assert config["fileServices"] is None


def test_an_account_that_lacks_the_feature_has_no_part() -> None:
    """Premium page blobs are of kind StorageV2, too, and have no file service."""
    refused = CloudError("File is not supported", code="FeatureNotSupportedForAccount")
    config = read("StorageV2", blobs=service(), containers=[], files=refused)
    assert config["fileServices"] is None
    assert not config.gaps
    refused = CloudError("no", code="AuthorizationFailed")
    config = read("StorageV2", blobs=service(), containers=[], files=refused)
    assert set(config.gaps) == {"fileServices"}


def test_of_containers_only_public_ones_are_kept_and_nothing_that_moves() -> None:
    listed = [
        {"name": "private", "properties": {"publicAccess": "None", "leaseState": "Leased"}},
        {"name": "odd", "properties": {"publicAccess": 7}},
        {
            "name": "web",
            "etag": '"0x1"',
            "properties": {"publicAccess": "Blob", "lastModifiedTime": "2026-01-01T00:00:00Z"},
        },
        {"name": "unsaid", "properties": {"leaseState": "Available"}},
    ]
    restore = {"enabled": True, "days": 6, "minRestoreTime": "2026-01-01T00:00:00Z"}
    blobs = service(restorePolicy=restore)
    config = read("StorageV2", blobs=blobs, containers=listed, files=service())
    assert config["containers"] == [
        {"name": "odd", "properties": {"publicAccess": 7}},
        {"name": "web", "properties": {"publicAccess": "Blob"}},
    ]
    assert config["blobServices"] == {"restorePolicy": {"enabled": True, "days": 6}}
    assert judge("containers_private", config.as_dict()) is Verdict.UNKNOWN
