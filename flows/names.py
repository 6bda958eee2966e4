"""What flow runs are called in the UI's lists."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime


def dated(what: str) -> Callable[[], str]:
    """A name for each run: what it is and when it began, in UTC."""

    def name() -> str:
        return f"{what} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"

    return name
