"""The few words of Kusto that Resource Graph is asked in: parsed and run. Anything else is 400.

table | where COLUMN =~ 'x' | where COLUMN in~ ('x', 'y') | project COLUMN, …
      | order by COLUMN asc, … | summarize NAME = count() by COLUMN
      | join kind=leftouter (TABLE | …) on COLUMN
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Tables = Mapping[str, Callable[[], list[Row]]]

_NAME = r"[A-Za-z_]\w*"
_TEXT = r"'[^'|]*'"
_EQUALS = re.compile(rf"({_NAME})\s*=~\s*({_TEXT})")
_IN = re.compile(rf"({_NAME})\s+in~\s*\(\s*({_TEXT}(?:\s*,\s*{_TEXT})*)\s*\)")
_NAMES = re.compile(rf"{_NAME}(?:\s*,\s*{_NAME})*")
_ORDER = re.compile(rf"{_NAME}\s+asc(?:\s*,\s*{_NAME}\s+asc)*")
_COUNT = re.compile(rf"({_NAME})\s*=\s*count\(\)\s+by\s+({_NAME})")
_JOIN = re.compile(rf"kind\s*=\s*leftouter\s*\((.*)\)\s*on\s+({_NAME})", re.DOTALL)


class BadQuery(Exception):
    """The query is not one that is understood. ``code`` is the graph's own for it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def run(query: str, tables: Tables) -> list[Row]:
    """The rows that the query gives; BadQuery when it says anything but the above."""
    table, *operators = _split(query)
    source = tables.get(table.lower())
    if source is None:
        raise BadQuery("UnknownTable", f"Table {table} is invalid or not supported here.")
    rows = source()
    for operator in operators:
        word, _, rest = operator.partition(" ")
        apply = _OPERATORS.get(word)
        if apply is None:
            raise _failure(operator)
        rows = apply(rows, rest.strip(), tables)
    return rows


def columns(query: str) -> set[str]:
    """The columns of the last project, which is what the rows have; empty without one."""
    projected = [one for one in _split(query) if one.startswith("project ")]
    return {name.strip() for name in projected[-1][8:].split(",")} if projected else set()


def _split(query: str) -> list[str]:
    """The query at its pipes, but not at those inside brackets."""
    parts, depth, begun = [], 0, 0
    for at, letter in enumerate(query):
        depth += (letter == "(") - (letter == ")")
        if letter == "|" and depth == 0:
            parts.append(query[begun:at].strip())
            begun = at + 1
    return [*parts, query[begun:].strip()]


def _where(rows: list[Row], text: str, tables: Tables) -> list[Row]:
    if found := _EQUALS.fullmatch(text):
        column, wanted = found[1], {found[2][1:-1].lower()}
    elif found := _IN.fullmatch(text):
        column, wanted = found[1], {one[1:-1].lower() for one in re.findall(_TEXT, found[2])}
    else:
        raise _failure(f"where {text}")
    return [row for row in rows if str(_value(row, column)).lower() in wanted]


def _project(rows: list[Row], text: str, tables: Tables) -> list[Row]:
    names = _names(_NAMES, text, "project")
    return [{name: _value(row, name) for name in names} for row in rows]


def _order(rows: list[Row], text: str, tables: Tables) -> list[Row]:
    by, _, rest = text.partition(" ")
    if by != "by" or not _ORDER.fullmatch(rest.strip()):
        raise _failure(f"order {text}")
    names = [one.split()[0] for one in rest.split(",")]
    return sorted(rows, key=lambda row: [str(_value(row, name)) for name in names])


def _summarize(rows: list[Row], text: str, tables: Tables) -> list[Row]:
    found = _COUNT.fullmatch(text)
    if found is None:
        raise _failure(f"summarize {text}")
    name, column = found.groups()
    counted: dict[Any, int] = {}
    for row in rows:
        value = _value(row, column)
        counted[value] = counted.get(value, 0) + 1
    return [{column: value, name: number} for value, number in counted.items()]


def _join(rows: list[Row], text: str, tables: Tables) -> list[Row]:
    """The left rows, each with what the right ones add; a left row without any is kept."""
    found = _JOIN.fullmatch(text)
    if found is None:
        raise _failure(f"join {text}")
    query, column = found.groups()
    right: dict[Any, list[Row]] = {}
    names: dict[str, None] = {}
    for row in run(query.strip(), tables):
        right.setdefault(_value(row, column), []).append(row)
        names |= dict.fromkeys(row)
    nothing = [dict.fromkeys(names)]
    return [
        {**{key: value for key, value in other.items() if key not in row}, **row}
        for row in rows
        for other in right.get(_value(row, column), nothing)
    ]


_OPERATORS: dict[str, Callable[[list[Row], str, Tables], list[Row]]] = {
    "where": _where,
    "project": _project,
    "order": _order,
    "summarize": _summarize,
    "join": _join,
}


def _names(form: re.Pattern[str], text: str, operator: str) -> Sequence[str]:
    if not form.fullmatch(text):
        raise _failure(f"{operator} {text}")
    return [name.strip() for name in text.split(",")]


def _value(row: Row, column: str) -> Any:
    """A column that a join found nothing for is null; one that no row has is a mistake."""
    if column not in row:
        raise BadQuery("InvalidQuery", f"Failed to resolve column '{column}'.")
    return row[column]


def _failure(text: str) -> BadQuery:
    return BadQuery("ParserFailure", f"'{text[:80]}' is not understood.")
