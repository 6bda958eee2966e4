"""Suture end to end: a run of the scan_fleet flow on a Prefect server and embedded PostgreSQL.

Both servers are this program's children, so that what they use counts; their share is also told
apart. They run with the settings of the embedded default. The clock runs while the flow does: from
the inventory to merged findings, the posture page included.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from contender import Job, Outcome, Prepared, contend
from inventory import write_inventory

from deployments.local.children import Child, free_port
from deployments.local.postgres import OWNER, EmbeddedPostgres
from deployments.local.stack import SERVER_SETTINGS
from tasks.warehouse.database import connect, upgrade


@contextmanager
def prepare(job: Job) -> Iterator[Prepared]:
    folder = Path(tempfile.mkdtemp(prefix="suture-benchmark-"))
    folder.chmod(0o755)  # PostgreSQL may run as a system user of its own
    try:
        with (
            EmbeddedPostgres(
                folder / "postgres", databases=["prefect"], warehouses=["warehouse"]
            ) as postgres,
            write_inventory(job) as (inventory, variables),
        ):
            port = free_port()
            api = f"http://127.0.0.1:{port}/api"
            os.environ.update(variables)
            os.environ.update(
                SERVER_SETTINGS
                | {
                    "DO_NOT_TRACK": "1",
                    # Block types are a third of the start, and nothing here uses one.
                    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
                    "PREFECT_HOME": str(folder / "prefect"),
                    "PREFECT_API_URL": api,
                    "PREFECT_API_DATABASE_CONNECTION_URL": postgres.url(
                        "prefect", driver="asyncpg"
                    ),
                    "PREFECT_LOGGING_LEVEL": "WARNING",
                    "SUTURE_INVENTORY": str(inventory),
                    "SUTURE_UI_URL": f"http://127.0.0.1:{port}",
                    "SUTURE_WAREHOUSE_URL": postgres.url("warehouse"),
                }
            )
            os.environ.pop("PREFECT_API_KEY", None)
            command = [sys.executable, "-m", "deployments.cli", "server", "--port", str(port)]
            server = Child("server", command, os.environ, folder / "server.log")
            try:
                upgrade(postgres.url("warehouse"), postgres.url("warehouse", OWNER))
                server.wait_until(lambda: _answers(api), seconds=90)
                # Not before: Prefect reads its settings when it is imported.
                from flows.scan import scan_fleet

                def work() -> Outcome:
                    state = scan_fleet(hand_to_triage=False, return_state=True)
                    outcome = _recorded(os.environ["SUTURE_WAREHOUSE_URL"])
                    if not state.is_completed():
                        outcome.errors.insert(0, f"the flow ended {state.name}: {state.message}")
                    return outcome

                yield Prepared(work, apart=(server.process.pid, postgres.pid or 0))
            finally:
                server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answers(api: str) -> bool:
    try:
        return httpx.get(f"{api}/health", timeout=2, trust_env=False).is_success
    except httpx.TransportError:
        return False


def _recorded(url: str) -> Outcome:
    """What the warehouse says of the scan: it is the record, not Prefect."""
    with connect(url) as warehouse:
        covered, failed = warehouse.execute(
            "SELECT count(*) FILTER (WHERE status = 'covered'), "
            "count(*) FILTER (WHERE status <> 'covered') FROM scan_accounts"
        ).fetchone() or (0, 0)
        gaps = warehouse.execute(
            "SELECT account, coalesce(reason, status) FROM scan_accounts "
            "WHERE status <> 'covered' LIMIT 5"
        ).fetchall()
        (findings,) = warehouse.execute(
            "SELECT count(*) FROM findings WHERE status = 'open'"
        ).fetchone() or (0,)
    errors = [f"{account}: {reason}" for account, reason in gaps]
    if failed > len(errors):
        errors.append(f"{failed} accounts were not covered")
    return Outcome(covered=covered, errors=errors, findings=findings)


if __name__ == "__main__":
    contend(prepare)
