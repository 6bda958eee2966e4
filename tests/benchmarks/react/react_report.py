"""What a recorded run of the react benchmark says, as the README's table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CLOUDS = {
    "aws": "AWS: a security group that opens port 22",
    "azure": "Azure: a storage account that takes plain HTTP",
}

CUSTODIAN = "Cloud Custodian's handler on the same AWS change, warm"


def markdown(record: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """``record`` is {cloud: {changes a second: Timing.json()}}, as run.py prints it."""
    lines = [
        "|  | Changes/s | Changes | Median s | p95 s | p99 s | Lost | Twice |",
        "| :-- | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for cloud, what in CLOUDS.items():
        for rate, one in record[cloud].items():
            figures = (one["median_s"], one["p95_s"], one["p99_s"], one["lost"], one["duplicated"])
            cells = " | ".join(str(figure) for figure in (rate, one["events"], *figures))
            lines.append(f"| {what} | {cells} |")
    if beside := record.get("custodian"):
        cells = f"one by one | {beside['events']} | {beside['median_s']} |  |  |  |  |"
        lines.append(f"| {CUSTODIAN} | {cells}")
    return "\n".join(lines)
