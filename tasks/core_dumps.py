"""No core dumps from processes that hold codes."""

from __future__ import annotations

import resource


def forbid_core_dumps() -> None:
    """A core dump would put the codes in this process's memory on a disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
