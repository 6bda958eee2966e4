"""`suture local`: the emulated clouds as another tool sees them, from one line of JSON."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
from azure.identity import ClientSecretCredential
from azure.mgmt.resource.resources import ResourceManagementClient
from botocore.exceptions import ClientError
from moto.core.utils import get_service_model

from deployments.local.aws import calls
from deployments.local.aws.server import EmulatedAws
from tasks.inventory import load_inventory

pytestmark = pytest.mark.slow

COMMAND = [sys.executable, "-m", "deployments.cli", "local", "--json"]


@dataclass
class Local:
    """A running `suture local`: what it printed, and where it may leave files."""

    process: subprocess.Popen[str]
    fleet: dict[str, Any]
    folder: Path


def begin(folder: Path, *arguments: str) -> Local:
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return Local(process, json.loads(process.stdout.readline()), folder)


@pytest.fixture(scope="module")
def local() -> Iterator[Local]:
    with tempfile.TemporaryDirectory() as folder:
        running = begin(Path(folder), "--aws", "7", "--azure", "5", "--seed", "21")
        yield running
        running.process.kill()
        running.process.communicate()


def aws(local: Local, service: str, keys: dict[str, str], **more: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=local.fleet["aws"]["endpoint"],
        region_name=local.fleet["aws"]["regions"][0],
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=keys["secret_access_key"],
        **more,
    )


def assumed(local: Local, keys: dict[str, str], account: str, role: str, **more: str) -> Any:
    """An IAM client with a role of an account."""
    answer = aws(local, "sts", keys).assume_role(
        RoleArn=f"arn:aws:iam::{account}:role/{role}", RoleSessionName="a-tool", **more
    )["Credentials"]
    keys = {
        "access_key_id": answer["AccessKeyId"],
        "secret_access_key": answer["SecretAccessKey"],
    }
    return aws(local, "iam", keys, aws_session_token=answer["SessionToken"])


def member(local: Local) -> str:
    """An account that neither manages the organization nor is made to fail."""
    failing = json.loads(Path(local.fleet["truth"]).read_text())["failing"]
    management = local.fleet["aws"]["organization"]["management_account"]
    return next(
        one["id"]
        for one in local.fleet["aws"]["accounts"]
        if one["status"] == "ACTIVE" and one["id"] not in {management, *failing}
    )


def test_it_has_the_sizes_asked_for_with_one_of_each_switched_off(local: Local) -> None:
    accounts = [one["status"] for one in local.fleet["aws"]["accounts"]]
    assert (accounts.count("ACTIVE"), accounts.count("SUSPENDED")) == (7, 1)
    states = [one["state"] for one in local.fleet["azure"]["subscriptions"]]
    assert (states.count("Enabled"), states.count("Disabled")) == (5, 1)
    assert local.fleet["seed"] == 21


def test_the_customer_administers_a_member_account(local: Local) -> None:
    fleet = local.fleet["aws"]
    iam = assumed(local, fleet["customer"], member(local), fleet["admin_role"])
    roles = {role["RoleName"] for role in iam.list_roles()["Roles"]}
    assert {fleet["scanner_role"], fleet["remediator_role"], fleet["admin_role"]} <= roles


def test_the_hub_reads_a_member_account_and_only_with_the_external_id(local: Local) -> None:
    fleet, account = local.fleet["aws"], member(local)
    with pytest.raises(ClientError, match="AccessDenied"):
        assumed(local, fleet["hub"], account, fleet["scanner_role"])
    iam = assumed(
        local, fleet["hub"], account, fleet["scanner_role"], ExternalId=fleet["external_id"]
    )
    with pytest.raises(ClientError, match="AccessDenied"):
        iam.create_user(UserName="intruder")


def test_the_hub_discovers_the_organization(local: Local) -> None:
    fleet = local.fleet["aws"]
    answer = aws(local, "sts", fleet["hub"]).assume_role(
        RoleArn=f"arn:aws:iam::{fleet['organization']['management_account']}"
        f":role/{fleet['discovery_role']}",
        RoleSessionName="a-tool",
        ExternalId=fleet["external_id"],
    )["Credentials"]
    keys = {
        "access_key_id": answer["AccessKeyId"],
        "secret_access_key": answer["SecretAccessKey"],
    }
    organizations = aws(local, "organizations", keys, aws_session_token=answer["SessionToken"])
    pages = organizations.get_paginator("list_accounts").paginate()
    found = {one["Id"] for page in pages for one in page["Accounts"]}
    assert found == {one["id"] for one in fleet["accounts"]}


def test_azure_is_reached_with_its_own_sdks_and_the_printed_authority(local: Local) -> None:
    fleet, ca_file = local.fleet["azure"], local.fleet["ca_file"]
    credential = ClientSecretCredential(
        fleet["tenant"],
        fleet["customer"]["client_id"],
        fleet["customer"]["client_secret"],
        authority=fleet["authority"],
        disable_instance_discovery=True,
        connection_verify=ca_file,
    )
    options: dict[str, Any] = {
        "base_url": fleet["resource_manager"],
        "credential_scopes": [f"{fleet['audience'].rstrip('/')}/.default"],
        "connection_verify": ca_file,
    }
    token = credential.get_token(*options["credential_scopes"]).token
    answer = httpx.get(
        f"{fleet['resource_manager']}/subscriptions?api-version=2022-12-01",
        headers={"Authorization": f"Bearer {token}"},
        verify=ssl.create_default_context(cafile=ca_file),
        trust_env=False,
    ).raise_for_status()
    page = answer.json()
    assert {one["subscriptionId"] for one in page["value"]} == {
        one["id"] for one in fleet["subscriptions"]
    }
    enabled = next(one["id"] for one in fleet["subscriptions"] if one["state"] == "Enabled")
    with ResourceManagementClient(credential, enabled, **options) as resources:
        assert list(resources.resource_groups.list())
    credential.close()


def test_its_inventory_can_be_used_as_it_is(local: Local) -> None:
    inventory = load_inventory(Path(local.fleet["inventory"]))
    assert [source.name for source in inventory.sources] == [
        "emulated-organization",
        "emulated-tenant",
    ]
    assert inventory.issuer is not None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_at_once_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    running = begin(tmp_path, "--aws", "2", "--azure", "1", "--seed", "22")
    assert list(tmp_path.iterdir())
    begun = time.monotonic()
    running.process.send_signal(number)
    said, errors = running.process.communicate(timeout=10)
    assert time.monotonic() - begun < 3
    assert (running.process.returncode, said, errors) == (0, "", "")
    assert not list(tmp_path.iterdir())


def test_a_fleet_without_one_of_the_clouds_is_refused_in_words() -> None:
    done = subprocess.run([*COMMAND, "--azure", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--azure" in done.stderr
    assert done.stdout == ""


def test_a_hundred_first_calls_at_once_are_answered() -> None:
    """Each used to read the service's model for itself: half a minute of nothing else."""
    get_service_model.cache_clear()
    calls._protocol.cache_clear()  # what earlier tests of this process left warm
    calls._read.clear()
    with EmulatedAws(accounts=1, seed=23) as cloud:
        read = get_service_model.cache_info().misses
        keys = cloud.description["customer"]
        ec2 = boto3.client(
            "ec2",
            endpoint_url=cloud.endpoint,
            region_name="us-east-1",
            aws_access_key_id=keys["access_key_id"],
            aws_secret_access_key=keys["secret_access_key"],
        )
        with ThreadPoolExecutor(40) as threads:
            answers = list(threads.map(lambda _: ec2.describe_security_groups(), range(40)))
        assert all(answer["SecurityGroups"] for answer in answers)
        assert get_service_model.cache_info().misses == read
