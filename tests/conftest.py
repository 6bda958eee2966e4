"""What many tests stand on: PostgreSQL, a warehouse for each, and the whole embedded stack."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile

# Before anything imports Prefect: no test reads or writes the home of the person who runs it.
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="suture-test-prefect-")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
os.environ["DO_NOT_TRACK"] = "1"
# What the emulated fleets are judged by: the rules that their truth is written down for. Every
# other row of the table is proved on resources of its own (tests/tasks/clouds/test_contract.py).
os.environ["SUTURE_RULES"] = ",".join(
    (
        *("aws_ec2_security_group_*_not_open", "aws_ec2_ebs_encrypted_by_default"),
        *("aws_s3_bucket_public_access_blocked", "aws_s3_bucket_versioning_enabled"),
        *("aws_s3_bucket_tls_only", "aws_iam_password_policy_length"),
        "azure_network_security_group_*_not_open",
        *("azure_storage_account_https_only", "azure_storage_account_public_blob_access_off"),
        "azure_storage_account_minimum_tls",
    )
)
# In the emulated fleets some accounts throttle every call: each scan waits for them to the end.
os.environ["SUTURE_SCAN_PATIENCE"] = "5"
# Each takes more than a second to start. What several do together has tests that ask for them.
os.environ["SUTURE_SCAN_PROCESSES"] = "1"

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest

from deployments.local.postgres import OWNER, EmbeddedPostgres
from deployments.local.stack import Stack
from tasks.warehouse import database

NUMBERS = count(1)
gc.set_threshold(10_000)  # as in commands


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A running server with a migrated database ``template_warehouse``.

    Not under pytest's own temporary folder: under root another user must reach it.
    """
    parent = Path(tempfile.mkdtemp(prefix="suture-test-"))
    parent.chmod(0o755)
    settings = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
    server = EmbeddedPostgres(
        parent / "postgres", warehouses=["template_warehouse"], settings=settings
    )
    try:
        with server:
            owner = server.url("template_warehouse", OWNER)
            database.upgrade(server.url("template_warehouse"), owner)
            yield server
    finally:
        shutil.rmtree(parent)


@pytest.fixture
def warehouse_url(postgres: EmbeddedPostgres) -> Iterator[str]:
    """The address of an empty warehouse that only this test uses."""
    name = f"warehouse_{next(NUMBERS)}"
    postgres.create_warehouse(name, template="template_warehouse")
    yield postgres.url(name)
    postgres.drop_database(name)


@pytest.fixture
def conn(warehouse_url: str) -> Iterator[psycopg.Connection]:
    with database.connect(warehouse_url) as connection:
        yield connection


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The embedded default, once for all tests: servers, emulated clouds, served deployments.

    Its fleet has twelve accounts and seven subscriptions, five of which fail. Nothing is scanned
    yet.
    """
    with tempfile.TemporaryDirectory(prefix="suture-issued-") as folder:
        # What the emulators hand out is written down, for the search for leaks.
        os.environ["SUTURE_LOCAL_ISSUED"] = str(Path(folder) / "issued")
        with Stack(aws=12, azure=7, seed=11) as running:
            yield running
        del os.environ["SUTURE_LOCAL_ISSUED"]


def pytest_collection_finish() -> None:
    """Ten thousand collected tests stay: no collection of garbage looks through them again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that need the embedded stack first: they take longest, and none may end alone."""
    long = {item.path for item in items if "stack" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in long)


def pytest_sessionfinish() -> None:
    shutil.rmtree(os.environ["PREFECT_HOME"], ignore_errors=True)
