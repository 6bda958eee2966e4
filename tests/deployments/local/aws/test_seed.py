"""The seeder: the same for the same seed, quick, and leaving nothing behind."""

from __future__ import annotations

import time

import boto3
import pytest
from botocore.exceptions import ClientError

from deployments.local.aws.server import EmulatedAws

pytestmark = pytest.mark.slow


def planted(**params):
    with EmulatedAws(**params) as emulator:
        here = emulator.endpoint  # on another port each time
        told = {
            name: one.replace(here, "") if isinstance(one, str) else one
            for name, one in emulator.description.items()
        }
        return told, emulator.truth, emulator.failing


def test_the_same_seed_plants_the_same_fleet():
    assert planted(accounts=7, seed=3) == planted(accounts=7, seed=3)
    assert planted(accounts=7, seed=3) != planted(accounts=7, seed=4)


@pytest.mark.parametrize("accounts", [1, 2, 5])
def test_a_small_fleet_has_no_failing_accounts(accounts):
    told, truth, failing = planted(accounts=accounts, seed=1)
    assert not failing
    active = [a["id"] for a in told["accounts"] if a["status"] == "ACTIVE"]
    assert len(active) == accounts == len(told["accounts"]) - 1
    assert {finding["account"] for finding in truth} <= set(active)


def test_failures_can_be_left_out():
    assert planted(accounts=8, seed=1, failing=False)[2] == {}


def test_twenty_accounts_take_less_than_five_seconds():
    started = time.monotonic()
    planted(accounts=20, seed=11)
    assert time.monotonic() - started < 5


def test_two_may_run_side_by_side_and_one_ends_alone():
    with EmulatedAws(accounts=2, seed=1) as one:
        with EmulatedAws(accounts=2, seed=2) as other:
            assert one.endpoint != other.endpoint
            with pytest.raises(RuntimeError, match="seed 1"):
                EmulatedAws(accounts=2, seed=1).start()
            hub, wrong = one.description["hub"], other.description["hub"]
            assert arn_of(one.endpoint, hub) == hub["arn"]
            with pytest.raises(ClientError):
                arn_of(one.endpoint, wrong)
        assert arn_of(one.endpoint, hub) == hub["arn"]


def arn_of(endpoint, keys):
    sts = boto3.client(
        "sts",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=keys["secret_access_key"],
    )
    try:
        return sts.get_caller_identity()["Arn"]
    finally:
        sts.close()


def test_stopping_twice_is_harmless_and_interrupts_what_hangs():
    emulator = EmulatedAws(accounts=1, seed=12).start()
    emulator.stop()
    started = time.monotonic()
    emulator.stop()
    assert time.monotonic() - started < 1
