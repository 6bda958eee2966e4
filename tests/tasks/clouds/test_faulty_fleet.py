"""A fleet in which every account breaks in a way of its own: each is one account's reason only."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from tasks.clouds.retrying import Patience
from tasks.clouds.scanner import Scanner
from tasks.clouds.transport import Limits
from tasks.inventory import AwsSource, HubCredentials, Inventory
from tasks.model import Account, AccountScan, Cloud

sys.path.insert(0, str(Path(__file__).parents[2] / "simulator"))  # scripts, not a package

from harness import Simulator, simulator

pytestmark = pytest.mark.slow

ACCOUNTS = 40
# account -> (what it does, what its record says)
FAULTS: dict[str, tuple[dict[str, Any] | str, str]] = {
    "100000000003": ("hang", "timed out: DescribeSecurityGroups: 127.0.0.1"),
    "100000000006": ("cut", "failed: DescribeSecurityGroups: the connection to 127.0.0.1"),
    "100000000009": ("html", "with a body that is not"),
    "100000000012": ("500", "failed: DescribeSecurityGroups InternalError"),
    "100000000015": ("truncated", "with a body that is not"),
    "100000000018": ("skewed", "the clock of this machine is wrong"),
    "100000000021": ({"fault": "expired", "after": 0}, "refused: DescribeSecurityGroups"),
    "100000000024": ("refused", "refused: AssumeRole AccessDenied"),
    "100000000027": ("garbage", "does not speak HTTP"),
    "100000000030": ("reset", "failed: DescribeSecurityGroups: the connection to 127.0.0.1"),
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    path = tmp_path_factory.mktemp("faults") / "faults.json"
    path.write_text(json.dumps({account: fault for account, (fault, _) in FAULTS.items()}))
    with simulator(
        *("--aws", str(ACCOUNTS), "--azure", "0", "--latency-ms", "5", "--faults", str(path))
    ) as running:
        yield running


def source(fleet: Simulator, monkeypatch: pytest.MonkeyPatch) -> AwsSource:
    aws = fleet.told["aws"]
    monkeypatch.setenv("SIMULATED_KEY", aws["hub"]["access_key_id"])
    monkeypatch.setenv("SIMULATED_SECRET", aws["hub"]["secret_access_key"])
    first = int(aws["first_account"])
    return AwsSource(
        name="simulated",
        regions=tuple(aws["regions"]),
        accounts=tuple(str(first + number) for number in range(aws["accounts"])),
        external_id=aws["external_id"],
        scanner_role=aws["role"],
        endpoint=fleet.told["endpoint"],
        ca_file=fleet.told["ca_file"],
        credentials=HubCredentials(
            access_key_id_env="SIMULATED_KEY", secret_access_key_env="SIMULATED_SECRET"
        ),
    )


async def scan(source: AwsSource, limits: Limits) -> dict[str, AccountScan]:
    accounts = [Account(Cloud.AWS, id, source=source.name) for id in source.accounts]
    async with (
        Scanner(Inventory(aws=(source,)), limits) as scanner,
        aclosing(scanner.scan_all(accounts)) as results,
    ):
        return {result.account.id: result async for result in results}


async def test_what_one_account_does_wrong_is_its_own_reason(
    fleet: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = Limits(
        request_seconds=1.0,
        patience=Patience(attempts=3, seconds=3, first_wait=0.01, longest_wait=0.02),
    )
    results = await scan(source(fleet, monkeypatch), impatient)
    assert len(results) == ACCOUNTS
    said = {account: result.failed for account, result in results.items() if result.failed}
    assert said.keys() == FAULTS.keys()
    wrong = {
        account: said[account]
        for account, (_, words) in FAULTS.items()
        if words not in said[account]
    }
    assert wrong == {}
    healthy = [result for account, result in results.items() if account not in FAULTS]
    assert all(covered.ok for result in healthy for covered in result.coverage)
    assert {len(result.resources) for result in healthy} == {25}


async def test_session_that_expires_in_mid_scan_leaves_nothing_called_clean(
    fleet: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "faults.json"
    path.write_text(json.dumps({"100000000001": {"fault": "expired", "after": 20}}))
    with simulator("--aws", "3", "--azure", "0", "--faults", str(path)) as running:
        results = await scan(source(running, monkeypatch), Limits())
    cut_off = results["100000000001"]
    reasons = [one.reason for one in cut_off.coverage if not one.ok]
    gaps = [gap for resource in cut_off.resources for gap in resource.config.gaps.values()]
    assert any("ExpiredToken" in reason for reason in [cut_off.failed, *reasons, *gaps])
    unknown = [one for one in cut_off.observations if one.reason]
    assert all("ExpiredToken" in one.reason for one in unknown)
    assert not any(results[other].failed for other in ("100000000000", "100000000002"))


async def test_a_throttled_fleet_is_covered_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with simulator("--aws", "100", "--azure", "0", "--throttled", "0.05") as running:
        results = await scan(source(running, monkeypatch), Limits())
        assert running.stats()["throttled"] > 100
    assert [result.failed for result in results.values() if result.failed] == []
    assert all(covered.ok for result in results.values() for covered in result.coverage)
    assert not any(resource.config.gaps for r in results.values() for resource in r.resources)
