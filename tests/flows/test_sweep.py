"""The customer's sweep as a flow run of theirs: what it closes, and what it says of the rest."""

from __future__ import annotations

import importlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from azure.identity import ClientSecretCredential
from prefect import Flow
from prefect.logging import disable_run_logger
from pydantic import SecretStr
from ruamel.yaml import YAML

from deployments.local.fleet import Fleet
from flows.sweep import sweep
from tasks.clouds.azure_gate import AzureGate
from tasks.clouds.azure_write import identity_options
from tasks.inventory import load_inventory

pytestmark = pytest.mark.slow

FILE = Path(__file__).parents[2] / "deployments/azure/prefect.yaml"
STORAGE = "azure_storage_account_https_only"


def test_what_is_left_open_is_closed_and_what_cannot_be_looked_at_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Fleet(aws=1, azure=3, seed=5, data_dir=tmp_path, failing=False) as fleet:
        told = fleet.description["azure"]
        inventory = load_inventory(fleet.description["inventory"])
        (source,), issuer = inventory.azure, inventory.issuer
        assert issuer is not None
        login = told["customer"]
        credential = ClientSecretCredential(
            source.tenant, login["client_id"], login["client_secret"], **identity_options(source)
        )
        finding = next(one for one in fleet.truth["findings"] if one["rule"] == STORAGE)
        gate = AzureGate(source, issuer, finding["account"], credential)
        past = datetime.now(UTC) - timedelta(minutes=1)
        gate.open("left", SecretStr("a-code-of-yesterday"), past, [finding["resource"]])

        monkeypatch.setenv("SUTURE_INVENTORY", fleet.description["inventory"])
        monkeypatch.setenv("AZURE_TENANT_ID", source.tenant)
        monkeypatch.setenv("AZURE_CLIENT_ID", login["client_id"])
        monkeypatch.setenv("AZURE_CLIENT_SECRET", login["client_secret"])
        with disable_run_logger():
            state = sweep.fn()
            assert state.name == "Swept"
            assert str(state.message).startswith("1 closed that stood past their time, in 4 ")
            assert gate.status() == ()
            assert list(gate._assignments()) == []
            monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
            state = sweep.fn()
            assert (state.type.value, state.name) == ("FAILED", "Cannot sweep")
            assert "nobody" in str(sweep.fn("nobody").message)


def test_its_deployment_names_the_flow_and_a_pool_of_the_customers() -> None:
    (entry,) = YAML(typ="safe").load(FILE.read_text())["deployments"]
    module, _, name = entry["entrypoint"].rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert isinstance(found, Flow)
    ours = YAML(typ="safe").load((FILE.parents[2] / "prefect.yaml").read_text())
    pools = {one["work_pool"]["name"] for one in ours["deployments"]}
    assert entry["work_pool"]["name"] not in pools
    assert entry["entrypoint"] not in {one["entrypoint"] for one in ours["deployments"]}
    assert entry["schedules"] == [{"interval": 300, "active": True}]
