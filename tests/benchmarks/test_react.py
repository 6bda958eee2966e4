"""The react benchmark runs, and what it times is closed: the whole way on both clouds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "react" / "run.py"


@pytest.mark.slow
def test_a_bad_change_is_fixed_on_both_clouds_and_timed() -> None:
    command = [sys.executable, RUN, "--quick", "--json", "--rates", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert set(told) == {"aws", "azure"}
    for cloud in told.values():
        (timing,) = cloud.values()
        assert (timing["lost"], timing["duplicated"]) == (0, 0)
        assert 0 < timing["median_s"] <= timing["p95_s"] <= timing["p99_s"]
