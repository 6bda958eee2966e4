"""What the simulator's tests share: its modules on the path, and running simulators."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # its modules are scripts, not a package

import fleet_aws
from harness import Simulator, simulator


@pytest.fixture
def start() -> Iterator[Any]:
    """Starts simulators by their options; they end with the test."""
    with ExitStack() as running:
        yield lambda *options: running.enter_context(simulator(*options))


@pytest.fixture(scope="module")
def fleet() -> fleet_aws.AwsFleet:
    return fleet_aws.AwsFleet(60, ("eu-central-1", "us-east-1"))


@pytest.fixture(scope="module")
def running(fleet: fleet_aws.AwsFleet) -> Iterator[Simulator]:
    """A simulator of that fleet, and of seven subscriptions, which verifies every signature."""
    with simulator(
        "--aws", str(fleet.accounts), "--regions", *fleet.regions, "--verify", "1",
        "--azure", "7", "--azure-page", "6",
    ) as one:  # fmt: skip
        yield one
