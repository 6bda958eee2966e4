"""The inventory file that points Suture at the simulator."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contender import Job
from ruamel.yaml import YAML

KEY_ID, SECRET = "BENCHMARK_AWS_ACCESS_KEY_ID", "BENCHMARK_AWS_SECRET_ACCESS_KEY"


@contextmanager
def write_inventory(job: Job) -> Iterator[tuple[Path, dict[str, str]]]:
    """The file, in a folder of its own, and the environment variables that it names."""
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
    with tempfile.TemporaryDirectory(prefix="suture-benchmark-") as folder:
        path = Path(folder) / "inventory.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML(typ="safe").dump({"suture": 1, "aws": [source]}, file)
        yield (
            path,
            {
                KEY_ID: hub["access_key_id"],
                SECRET: hub["secret_access_key"],
                "SUTURE_RULES": job.rules,
            },
        )
