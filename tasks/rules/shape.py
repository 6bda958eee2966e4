"""Reading a cloud's answer by its documented shape: anything else is missing data, never a pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.errors import MissingData

_ODD = "is not in the documented form"


def mapping(value: Any, part: str) -> Mapping[str, Any]:
    """``value``, where it is an object with text keys; MissingData names ``part`` otherwise."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise MissingData(part, _ODD)
    return value


def sequence(value: Any, part: str) -> Sequence[Any]:
    """``value``, where it is a list; a text is none."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise MissingData(part, _ODD)
    return value


def text(value: Any, part: str) -> str:
    """``value``, where it is a text that is not empty."""
    if not isinstance(value, str) or not value:
        raise MissingData(part, _ODD)
    return value


def number(value: Any, part: str) -> int:
    """``value``, where it is a whole number; true and false are none."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise MissingData(part, _ODD)
    return value


def flag(value: Any, part: str) -> bool:
    """``value``, where it is true or false."""
    if not isinstance(value, bool):
        raise MissingData(part, _ODD)
    return value


def odd(part: str) -> MissingData:
    """The error for a part whose form no documentation knows."""
    return MissingData(part, _ODD)
