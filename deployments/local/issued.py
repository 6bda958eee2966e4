"""What the emulated clouds and their customer hand out, written down for a search for leaks.

Only where SUTURE_LOCAL_ISSUED names a file, which tests do: nothing else knows these secrets.
"""

from __future__ import annotations

import json
import os


def note(kind: str, secret: str) -> None:
    """Append one secret that somebody has just been given: a line of JSON, [kind, secret]."""
    if path := os.environ.get("SUTURE_LOCAL_ISSUED"):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps([kind, secret]) + "\n")
