"""Housekeeping as a flow run: what it did, and what it refuses."""

from __future__ import annotations

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from deployments.local.stack import Stack
from flows.housekeeping import housekeeping
from tasks.warehouse.database import connect

pytestmark = pytest.mark.slow


def test_it_makes_the_next_months_and_says_so(
    warehouse_url: str, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUTURE_WAREHOUSE_URL", warehouse_url)
    with temporary_settings({PREFECT_API_URL: stack.api_url}):
        state = housekeeping(return_state=True)
        assert (state.name, state.message) == (
            "Completed",
            "3 partitions made, 0 dropped, 0 scans retired",
        )
        refused = housekeeping(observations_months=0, return_state=True)
        assert refused.name == "Cannot start"
        assert "observations_months" in str(refused.message)
    with connect(warehouse_url) as conn:
        assert conn.execute(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'observations'::regclass"
        ).fetchone() == (4,)
