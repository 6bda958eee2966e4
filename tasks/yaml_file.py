"""Read a YAML file so that every complaint can name its line. Pure but for the reading."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tasks.errors import BadFile


class Section:
    """One mapping of a YAML file, with the lines its keys stand on.

    ``error`` is the exception class to raise; ``name`` is how messages call this mapping.
    """

    def __init__(self, data: Any, *, name: str, file: str, line: int, error: type[BadFile]) -> None:
        self.name = name
        self.file = file
        self.line = line
        self.error = error
        if not isinstance(data, Mapping):
            raise self.bad(
                "", f"is {_kind(data)}, not a mapping.", "Write it as `key: value` lines."
            )
        self.data = data

    def line_of(self, key: str) -> int:
        """The line ``key`` stands on, from 1; the section's own line when it is not there."""
        try:
            return int(self.data.lc.key(key)[0]) + 1  # type: ignore[attr-defined]
        except (KeyError, AttributeError):
            return self.line

    def bad(self, key: str, problem: str, fix: str = "") -> BadFile:
        """The error about one key, ready to be raised."""
        field = ".".join(part for part in (self.name, key) if part)
        line = self.line_of(key) if key and hasattr(self, "data") else self.line
        return self.error(field, problem, fix, file=self.file, line=line)

    def has(self, key: str) -> bool:
        """Whether ``key`` is there with a value."""
        return self.data.get(key) is not None

    def items(self, key: str) -> list[Any]:
        """The list under ``key``, which must be there and not be empty."""
        value = self.data.get(key)
        if value is None:
            raise self.bad(key, "is missing.", "Add it.")
        if not isinstance(value, list) or not value:
            raise self.bad(key, "is not a list with something in it.", f"Write {key}: [ … ].")
        return value

    def bad_item(self, key: str, index: int, problem: str, fix: str = "") -> BadFile:
        """The error about one item of the list under ``key``, ready to be raised."""
        field = ".".join(part for part in (self.name, f"{key}[{index}]") if part)
        return self.error(field, problem, fix, file=self.file, line=self._item_line(key, index))

    def _item_line(self, key: str, index: int) -> int:
        try:
            return int(self.data[key].lc.item(index)[0]) + 1
        except (KeyError, AttributeError):
            return self.line_of(key)

    def only(self, known: Iterable[str]) -> None:
        """Refuse keys that mean nothing here, suggesting the nearest that does."""
        known = list(known)
        for key in self.data:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                fix = f"Did you mean {near[0]}?" if near else f"Known here: {', '.join(known)}."
                raise self.bad(str(key), "is not a known key.", fix)

    def text(self, key: str, default: str | None = None) -> str:
        """A text value. Without a default it must be there and not be empty."""
        value = self.data.get(key)
        if value is None:
            if default is None:
                raise self.bad(key, "is missing.", "Add it.")
            return default
        if not isinstance(value, str):
            raise self.bad(key, f"is {_kind(value)}, not text.", "Put it in quotes.")
        if not value.strip() and default is None:
            raise self.bad(key, "is empty.")
        return str(value)

    def texts(self, key: str, default: Iterable[str] = ()) -> tuple[str, ...]:
        """A list of texts; a single text counts as a list of one."""
        value = self.data.get(key)
        if value is None:
            return tuple(default)
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise self.bad(key, f"is {_kind(value)}, not a list of texts.", "Quote each entry.")
        return tuple(str(item) for item in items)

    def number(self, key: str, default: int, *, least: int, most: int) -> int:
        """A whole number within bounds."""
        value = self.data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.bad(key, f"is {_kind(value)}, not a whole number.")
        if not least <= value <= most:
            raise self.bad(key, f"is {value}.", f"Choose from {least} to {most}.")
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        """true or false."""
        value = self.data.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.bad(key, f"is {_kind(value)}, not true or false.", "Write true or false.")
        return value

    def section(self, key: str) -> Section | None:
        """The mapping under ``key``, or None where it is left out."""
        if self.data.get(key) is None:
            return None
        name = ".".join(part for part in (self.name, key) if part)
        return Section(
            self.data[key], name=name, file=self.file, line=self.line_of(key), error=self.error
        )

    def sections(self, key: str) -> tuple[Section, ...]:
        """The list of mappings under ``key``."""
        items = self.data.get(key)
        if items is None:
            return ()
        if not isinstance(items, list):
            raise self.bad(key, f"is {_kind(items)}, not a list.", "Start each entry with `- `.")
        found = []
        for index, item in enumerate(items):
            line = self._item_line(key, index)
            name = f"{self.name}.{key}[{index}]".lstrip(".")
            found.append(Section(item, name=name, file=self.file, line=line, error=self.error))
        return tuple(found)


def read_text(path: Path, error: type[BadFile]) -> str:
    """The text of the file at ``path``. Raises ``error`` when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = getattr(problem, "strerror", None) or "is not UTF-8 text"
        raise error("file", f"cannot be read: {reason}.", file=str(path)) from None


def parse_yaml(text: str, file: str, error: type[BadFile]) -> Section:
    """The top mapping of YAML ``text``; ``file`` is only for messages."""
    try:
        data = YAML(typ="rt").load(text)
    except MarkedYAMLError as problem:
        mark = problem.problem_mark
        line = mark.line + 1 if mark else 1
        raise error("file", f"is not YAML: {problem.problem}.", file=file, line=line) from None
    except (YAMLError, ValueError) as problem:
        raise error("file", f"is not YAML: {problem}.", file=file, line=1) from None
    except (LookupError, TypeError, AttributeError, RecursionError, NotImplementedError):
        # The parser's own slips: an unknown %YAML version, for one, is a KeyError in it.
        raise error("file", "is not YAML that can be read.", file=file, line=1) from None
    return Section(data, name="", file=file, line=1, error=error)


def _kind(value: Any) -> str:
    if value is None:
        return "empty"
    names = {bool: "true/false", int: "a number", float: "a number", str: "text"}
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return next((name for kind, name in names.items() if isinstance(value, kind)), "something else")
