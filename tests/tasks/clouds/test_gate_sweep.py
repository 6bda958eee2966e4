"""The customer's sweep: what is past its time goes, in every subscription; nothing else does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr

from tasks.clouds.azure_gate import AzureGate
from tasks.clouds.gate_sweep import sweep_gates

if TYPE_CHECKING:
    from tests.tasks.clouds.conftest import Gated

STORAGE = "azure_storage_account_https_only"

pytestmark = pytest.mark.slow


def test_what_is_past_its_time_goes_everywhere_and_what_stands_stays(gated: Gated) -> None:
    found = [one for one in gated.fleet.truth["findings"] if one["cloud"] == "azure"]
    by_subscription = {one["account"]: one for one in found}
    first, second, third = list(by_subscription.values())[:3]
    credential = gated.customer(first).azure
    source, issuer = gated.inventory.azure[0], gated.inventory.issuer
    assert credential is not None
    assert issuer is not None
    now = datetime.now(UTC)
    gates = []
    for finding, until in (
        (first, now - timedelta(minutes=1)),
        (second, now - timedelta(hours=5)),
        (third, now + timedelta(minutes=5)),
    ):
        gate = AzureGate(source, issuer, finding["account"], credential)
        gate.close()
        code = f"{finding['account'][:8]}-sweep"
        gate.open("left", SecretStr(code), until, [finding["resource"]])
        gates.append(gate)
    # A closing that was cut off: the credential is gone, the role assignment is not.
    gates[1]._forget(next(gates[1]._credentials()))
    assert len(list(gates[1]._assignments())) == 1

    swept = {one.subscription: one for one in sweep_gates(gated.inventory, credential=credential)}

    assert {one["account"] for one in by_subscription.values()} <= swept.keys()
    closed = {subscription for subscription, one in swept.items() if one.closed}
    assert closed == {first["account"], second["account"]}
    assert [len(gate.status()) for gate in gates] == [0, 0, 1]
    assert [len(list(gate._assignments())) for gate in gates] == [0, 0, 1]
    assert not any(one.closed for one in sweep_gates(gated.inventory, credential=credential))
    gates[2].close()


def test_a_subscription_that_fails_is_said_and_others_go_on(gated: Gated) -> None:
    finding = gated.findings(STORAGE)[0]
    unknown = "00000000-0000-4000-8000-00000000dead"
    source = replace(gated.inventory.azure[0], subscriptions=(unknown, finding["account"]))
    inventory = replace(gated.inventory, azure=(source,))
    swept = {
        one.subscription: one.problem
        for one in sweep_gates(inventory, credential=gated.customer(finding).azure)
    }
    assert swept.keys() == {unknown, finding["account"]}
    assert swept[unknown]
    assert not swept[finding["account"]]
