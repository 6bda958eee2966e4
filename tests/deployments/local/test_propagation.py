"""`propagation_seconds`: the emulated clouds take their time to know of an opened gate."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.local.aws.propagation import Trusts
from deployments.local.fleet import Fleet
from deployments.local.stack import fleet_env
from tasks.clouds.propagation import Propagation
from tasks.clouds.remediator import open_session
from tasks.clouds.token_request import request_code
from tasks.errors import GateRefused
from tasks.inventory import load_inventory
from tasks.model import Account, Call, Cloud, Resource, Step

NOW = datetime(2026, 11, 26, tzinfo=UTC)
ROLE = SimpleNamespace(arn="arn:aws:iam::111122223333:role/r", assume_role_policy_document="third")


def test_sts_goes_from_one_trust_policy_to_the_next() -> None:
    trusts = Trusts(timedelta(seconds=10))
    trusts.changed(ROLE.arn, "first", NOW)
    trusts.changed(ROLE.arn, "second", NOW + timedelta(seconds=5))
    found = [trusts.known(ROLE, NOW + timedelta(seconds=one)) for one in (0, 9, 10, 14, 15, 99)]
    assert found == ["first", "first", "second", "second", "third", "third"]


def test_without_a_delay_it_knows_at_once() -> None:
    trusts = Trusts()
    trusts.changed(ROLE.arn, "first", NOW)
    assert trusts.known(ROLE, NOW) == "third"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with (
        Fleet(
            aws=1, azure=1, seed=61, data_dir=folder, failing=False, propagation_seconds=1.5
        ) as running,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in fleet_env(running.description).items():
            patch.setenv(name, value)
        yield running


@pytest.mark.slow
@pytest.mark.parametrize("cloud", [Cloud.AWS, Cloud.AZURE])
def test_a_machine_waits_for_its_gate_and_says_so(fleet: Fleet, cloud: Cloud) -> None:
    inventory = load_inventory(Path(fleet.description["inventory"]))
    kind = "aws.s3.bucket" if cloud is Cloud.AWS else "azure.storage.account"
    part = "s3_bucket" if cloud is Cloud.AWS else "storage_account"
    found = next(
        one
        for one in fleet.truth["findings"]
        if one["cloud"] == cloud.value and part in one["rule"]
    )
    source = (inventory.aws if cloud is Cloud.AWS else inventory.azure)[0].name
    account = Account(cloud, found["account"], source=source)
    resource = Resource(cloud, found["account"], found["region"], kind, found["resource"], "", {})
    call = Call(cloud, "s3", "PutBucketVersioning", {}, found["resource"])
    action = "s3:PutBucketVersioning"
    if cloud is Cloud.AZURE:
        call = Call(cloud, "2023-05-01", "PATCH", {}, found["resource"])
        action = "Microsoft.Storage/storageAccounts/write"
    opened = request_code(
        inventory,
        account,
        remediation="run-1",
        plan="f00d",
        resources=[found["resource"]],
        actions=[action],
    )
    said: list[str] = []

    def enter(patience: Propagation) -> Any:
        step = Step(action, call, (), ())
        return open_session(inventory, account, resource, [step], opened.code, propagation=patience)

    with pytest.raises(GateRefused):
        enter(Propagation(code=0, access=0))
    enter(Propagation(say=said.append).until(opened.expires_at)).close()
    assert "does not let us in yet" in said[0]
    assert "let us through" in said[1]
