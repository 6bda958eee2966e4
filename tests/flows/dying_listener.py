"""Listeners that are killed at chosen moments, one after another: a child that the test starts.

Its arguments are the moments, or "never". It forks for each but the last, so that what takes long
to import is imported once, and prints how each ended, as dying.py does. What others wait for before
they take over what the dead have left is a second or two here.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from dying import MOMENTS as IN_THE_FIX
from dying import after, before, die

from flows.react import react
from tasks import triage
from tasks.clouds import azure_write
from tasks.reacting import answering, listener, rereading
from tasks.warehouse import carriers, events


def when_it_has_work() -> None:
    real = events.claim

    def claim(*args: Any, **named: Any) -> Any:
        found = real(*args, **named)
        if found:
            die()
        return found

    events.claim = claim


MOMENTS: dict[str, Callable[[], None]] = {
    "never": lambda: None,
    "taken in": lambda: after(events, "take_in"),
    "claimed": when_it_has_work,
    "read again": lambda: before(rereading, "merge"),
    "merged": lambda: after(rereading, "merge"),
    "about to close": lambda: after(answering, "note_causes"),
    "closed": lambda: before(events, "done"),
    **IN_THE_FIX,
}


def run(moment: str) -> None:
    MOMENTS[moment]()
    react(return_state=True)


def main() -> None:
    azure_write.POLL_SECONDS = 0.05
    carriers.SETTLING = timedelta(0)
    triage.STARTING = timedelta(seconds=1)
    listener.RECONCILE_SECONDS = 1.0
    listener.BUSY_AGAIN = timedelta(seconds=0.5)
    *deaths, last = sys.argv[1:]
    for moment in deaths:
        pid = os.fork()
        if pid == 0:
            try:
                run(moment)
            except BaseException:  # noqa: BLE001 - the child of a fork goes no further
                traceback.print_exc()
            os._exit(0)
        _, status = os.wait()
        ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        print(json.dumps({"at": moment, "ended": ended}), flush=True)
    run(last)


if __name__ == "__main__":
    main()
