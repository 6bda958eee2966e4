"""How often a long-lived process looks for cycles among its objects."""

from __future__ import annotations

import gc


def collect_rarely() -> None:
    """Leave alone what there is by now, and look for cycles a good deal later than Python would.

    What is imported stays, and most of what comes is freed by its last reference. To look through a
    few hundred thousand objects so often takes up to a quarter of the time of a busy process.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
