"""Conditions on role assignments, as far as they say which assignments may be made and taken away.

A subset of Azure's attribute-based access control: clauses joined by AND, each "not this action, or
all of these comparisons", where a comparison is of the role or the principal of a role assignment
with GUIDs. Anything else is refused, never ignored.
"""

from __future__ import annotations

import re

_ACTION = re.compile(r"!\(ActionMatches\{'([\w./*]+)'\}\)")
_COMPARISON = re.compile(
    r"@(?:Request|Resource)\[Microsoft\.Authorization/roleAssignments:"
    r"(RoleDefinitionId|PrincipalId)\] ForAnyOfAnyValues:GuidEquals \{([0-9a-f, -]+)\}",
    re.IGNORECASE,
)
_CLAUSE = re.compile(r"\( \( (!\(ActionMatches\{'[\w./*]+'\}\)) \) OR \( ([^()]*) \) \)")


def permits(condition: str, operation: str, role: str, principal: str) -> bool:
    """Whether the condition lets an assignment of ``role`` to ``principal`` be written or deleted.

    Raises ValueError for a condition that is not understood.
    """
    return all(
        action.lower() != operation.lower()
        or all(
            {"roledefinitionid": role, "principalid": principal}[attribute].lower() in values
            for attribute, values in comparisons
        )
        for action, comparisons in _clauses(condition)
    )


def check(condition: str) -> None:
    """Raise ValueError for a condition that is not understood."""
    _clauses(condition)


def _clauses(condition: str) -> list[tuple[str, list[tuple[str, set[str]]]]]:
    text = " ".join(condition.replace("(", " ( ").replace(")", " ) ").split())
    text = re.sub(r"! \( ActionMatches(\{[^}]*\}) \)", r"!(ActionMatches\1)", text)
    found, position = [], 0
    while True:
        clause = _CLAUSE.match(text, position)
        if clause is None:
            raise ValueError("this condition is not understood")
        action = _ACTION.fullmatch(clause[1])
        comparisons = [_COMPARISON.fullmatch(one.strip()) for one in clause[2].split(" AND ")]
        if action is None or not all(comparisons):
            raise ValueError("this condition is not understood")
        found.append(
            (
                action[1],
                [
                    (one[1].lower(), {value.strip().lower() for value in one[2].split(",")})
                    for one in comparisons
                ],
            )
        )
        position = clause.end()
        if position == len(text):
            return found
        if not text.startswith(" AND ", position):
            raise ValueError("this condition is not understood")
        position += len(" AND ")
