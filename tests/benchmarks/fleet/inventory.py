"""The inventory file that points Suture at the simulator."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contender import Job
from ruamel.yaml import YAML

KEY_ID, SECRET = "BENCHMARK_AWS_ACCESS_KEY_ID", "BENCHMARK_AWS_SECRET_ACCESS_KEY"
CLIENT_SECRET = "BENCHMARK_AZURE_CLIENT_SECRET"


@contextmanager
def write_inventory(job: Job) -> Iterator[tuple[Path, dict[str, str]]]:
    """The file, in a folder of its own, and the environment variables that it names."""
    source, secrets = _azure(job) if job.cloud == "azure" else _aws(job)
    with tempfile.TemporaryDirectory(prefix="suture-benchmark-") as folder:
        path = Path(folder) / "inventory.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump({"suture": 1, job.cloud: [source]}, file)
        yield path, {**secrets, "SUTURE_RULES": job.rules}


def _aws(job: Job) -> tuple[dict[str, Any], dict[str, str]]:
    source = {
        "name": "simulator",
        "regions": job.aws["regions"],
        "accounts": job.account_ids(),
        "external_id": job.aws["external_id"],
        "scanner_role": job.aws["role"],
        "endpoint": job.endpoint,
        "ca_file": job.ca_file,
        "credentials": {"access_key_id_env": KEY_ID, "secret_access_key_env": SECRET},
    }
    hub = job.aws["hub"]
    return source, {KEY_ID: hub["access_key_id"], SECRET: hub["secret_access_key"]}


def _azure(job: Job) -> tuple[dict[str, Any], dict[str, str]]:
    told = job.azure
    source = {
        "name": "simulator",
        "tenant": told["tenant"],
        "client_id": told["client_id"],
        "client_secret_env": CLIENT_SECRET,
        "subscriptions": job.account_ids(),
        "authority": told["authority"],
        "resource_manager": told["resource_manager"],
        "ca_file": job.ca_file,
    }
    return source, {CLIENT_SECRET: told["client_secret"]}
