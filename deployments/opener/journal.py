"""The opener's own record of what it was asked and what it did: appended to, never rewritten.

One JSON object a line. Codes, seeds and signed requests never get here: entries are made of what
was understood, not of what was sent.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from tasks.errors import BadInput

MOST_CHARACTERS = 500  # of one text in an entry


class Journal(Protocol):
    """Where entries go."""

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append one entry; it is kept when this returns. Raises OSError."""
        ...


class FileJournal:
    """Lines at the end of a file, each written at once and synced."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, entry: Mapping[str, Any]) -> None:
        line = (_line(entry) + "\n").encode()
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class LogJournal:
    """Lines on the standard output, for CloudWatch Logs or a container's log to keep.

    The opener's role may add to its log and not change it.
    """

    def write(self, entry: Mapping[str, Any]) -> None:
        sys.stdout.write(_line(entry) + "\n")
        sys.stdout.flush()


def open_journal(address: str) -> Journal:
    """The journal at ``address``: file:///file, or log:."""
    parts = urlsplit(address)
    if parts.scheme == "file" and parts.path.strip("/"):
        return FileJournal(Path(parts.path))
    if address == "log:":
        return LogJournal()
    raise BadInput("journal", f"{address!r} is no journal.", "Write file:///file or log:.")


def _line(entry: Mapping[str, Any]) -> str:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"at": at, **{name: _short(value) for name, value in entry.items()}})


def _short(value: Any) -> Any:
    """A text of others cut to a length that nobody can fill a disk with."""
    if isinstance(value, list | tuple):
        return [_short(one) for one in value[:100]]
    return value[:MOST_CHARACTERS] if isinstance(value, str) else value
