"""Who may do what where: role definitions, assignments, scopes. Pure; compares without case."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class RoleDefinition:
    """A role: it allows what an action matches and no notAction does, and of data as much.

    ``data_actions`` are about what is inside a resource, such as a queue's messages: a role that
    allows everything else (Owner) allows none of them. ``id`` is the role's GUID, ``kind``
    "BuiltInRole" or "CustomRole", ``assignable_scopes`` where the role exists ("/" for the built-in
    ones).
    """

    id: str
    name: str
    description: str
    actions: tuple[str, ...]
    not_actions: tuple[str, ...] = ()
    kind: str = "CustomRole"
    assignable_scopes: tuple[str, ...] = ("/",)
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()

    def allows(self, operation: str, *, data: bool = False) -> bool:
        """Whether it allows an operation on a resource, or on the ``data`` that is inside."""
        actions = self.data_actions if data else self.actions
        exceptions = self.not_data_actions if data else self.not_actions
        return _any_matches(actions, operation) and not _any_matches(exceptions, operation)

    def exists_at(self, scope: str) -> bool:
        """Roles are known at their assignable scopes and everywhere below."""
        return any(covers(assignable, scope) for assignable in self.assignable_scopes)


@dataclass(slots=True)
class RoleAssignment:
    """A role given to a principal at a scope, in force from ``starts`` until ``ends`` (epoch s).

    ``condition`` narrows which role assignments the principal may write and delete with it.
    """

    name: str
    scope: str
    principal: str
    role: RoleDefinition
    starts: float = -math.inf
    ends: float = math.inf
    created: str = ""
    description: str | None = None
    condition: str | None = None

    def in_force(self, now: float) -> bool:
        return self.starts <= now < self.ends


@dataclass
class AccessBook:
    """All role assignments of a tenant, found by principal and scope."""

    _by_principal: dict[str, dict[str, list[RoleAssignment]]] = field(default_factory=dict)
    _by_id: dict[str, RoleAssignment] = field(default_factory=dict)

    def assign(self, assignment: RoleAssignment) -> None:
        scopes = self._by_principal.setdefault(assignment.principal.lower(), {})
        scopes.setdefault(normal_scope(assignment.scope), []).append(assignment)
        self._by_id[_assignment_key(assignment.scope, assignment.name)] = assignment

    def find(self, scope: str, name: str) -> RoleAssignment | None:
        return self._by_id.get(_assignment_key(scope, name))

    def remove(self, assignment: RoleAssignment, ends: float) -> None:
        """Take the assignment off the books; it stays in force until ``ends``."""
        del self._by_id[_assignment_key(assignment.scope, assignment.name)]
        assignment.ends = ends

    def all(self) -> list[RoleAssignment]:
        return list(self._by_id.values())

    def roles(self, principal: str, scope: str, now: float) -> Iterator[RoleDefinition]:
        """The roles in force at the scope or above it."""
        return (one.role for one in self.in_force(principal, scope, now))

    def in_force(self, principal: str, scope: str, now: float) -> Iterator[RoleAssignment]:
        """The assignments in force at the scope or above it."""
        scopes = self._by_principal.get(principal.lower(), {})
        for ancestor in ancestors(scope):
            for assignment in scopes.get(ancestor, ()):
                if assignment.in_force(now):
                    yield assignment

    def allowed(
        self, principal: str, operation: str, scope: str, now: float, *, data: bool = False
    ) -> bool:
        """True when a role in force at the scope or above it allows the operation."""
        return any(role.allows(operation, data=data) for role in self.roles(principal, scope, now))

    def evidence(
        self, principal: str, operation: str, scope: str, now: float
    ) -> RoleAssignment | None:
        """The assignment that allows the operation: the nearest to the scope, or none."""
        every = self.in_force(principal, scope, now)
        return next((one for one in every if one.role.allows(operation)), None)

    def allowed_somewhere(self, principal: str, operation: str, scope: str, now: float) -> bool:
        """True when a role in force at the scope, above it or inside it allows the operation."""
        if self.allowed(principal, operation, scope, now):
            return True
        scopes = self._by_principal.get(principal.lower(), {})
        return any(
            assignment.in_force(now) and assignment.role.allows(operation)
            for given, assignments in scopes.items()
            if covers(scope, given)
            for assignment in assignments
        )

    def touches(self, principal: str, scope: str, now: float) -> bool:
        """True when the principal has any role at the scope, above it or below it."""
        scopes = self._by_principal.get(principal.lower(), {})
        return any(
            assignment.in_force(now)
            for given, assignments in scopes.items()
            if covers(given, scope) or covers(scope, given)
            for assignment in assignments
        )


def normal_scope(scope: str) -> str:
    """Lower case, one leading slash, none at the end; the root is "/"."""
    return "/" + scope.strip("/").lower()


def covers(scope: str, path: str) -> bool:
    """True when ``path`` is the scope or lies below it, on whole segments."""
    upper, lower = normal_scope(scope), normal_scope(path)
    return upper == "/" or lower == upper or lower.startswith(upper + "/")


def ancestors(scope: str) -> Iterator[str]:
    """The scope and everything above it, the root last, in lower case."""
    path = normal_scope(scope)
    while path:
        yield path
        path = path.rpartition("/")[0]
    if scope.strip("/"):
        yield "/"


def _assignment_key(scope: str, name: str) -> str:
    return f"{normal_scope(scope)}|{name.lower()}"


def _any_matches(patterns: tuple[str, ...], operation: str) -> bool:
    return any(_pattern(pattern).fullmatch(operation) for pattern in patterns)


@lru_cache(maxsize=1024)
def _pattern(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\*", ".*"), re.IGNORECASE)


OWNER = RoleDefinition(
    id="8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
    name="Owner",
    description="Manages everything, access included.",
    actions=("*",),
    kind="BuiltInRole",
)
CONTRIBUTOR = RoleDefinition(
    id="b24988ac-6180-42a0-ab88-20f7382dd24c",
    name="Contributor",
    description="Manages everything but access.",
    actions=("*",),
    not_actions=(
        "Microsoft.Authorization/*/Delete",
        "Microsoft.Authorization/*/Write",
        "Microsoft.Authorization/elevateAccess/Action",
        "Microsoft.Blueprint/blueprintAssignments/write",
        "Microsoft.Blueprint/blueprintAssignments/delete",
    ),
    kind="BuiltInRole",
)
READER = RoleDefinition(
    id="acdd72a7-3385-48ef-bd42-f606fba81ae7",
    name="Reader",
    description="Reads everything, changes nothing.",
    actions=("*/read",),
    kind="BuiltInRole",
)
ACCESS_ADMINISTRATOR = RoleDefinition(
    id="18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",
    name="User Access Administrator",
    description="Gives and takes away access.",
    actions=("*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"),
    kind="BuiltInRole",
)
_QUEUES = "Microsoft.Storage/storageAccounts/queueServices/queues"
QUEUE_CONTRIBUTOR = RoleDefinition(
    id="974c5e8b-45b9-4653-ba55-5f855dd0fb88",
    name="Storage Queue Data Contributor",
    description="Reads, writes and deletes queues and their messages.",
    actions=(f"{_QUEUES}/delete", f"{_QUEUES}/read", f"{_QUEUES}/write"),
    kind="BuiltInRole",
    data_actions=(
        f"{_QUEUES}/messages/delete",
        f"{_QUEUES}/messages/read",
        f"{_QUEUES}/messages/write",
        f"{_QUEUES}/messages/process/action",
    ),
)
QUEUE_PROCESSOR = RoleDefinition(
    id="8a0f0c08-91a1-4084-bc3d-661d67233fed",
    name="Storage Queue Data Message Processor",
    description="Peeks at messages, and takes them out of a queue.",
    actions=(),
    kind="BuiltInRole",
    data_actions=(f"{_QUEUES}/messages/read", f"{_QUEUES}/messages/process/action"),
)
QUEUE_SENDER = RoleDefinition(
    id="c6a89b2d-59bc-44d0-9896-0f6e12d7b80a",
    name="Storage Queue Data Message Sender",
    description="Adds messages to a queue.",
    actions=(),
    kind="BuiltInRole",
    data_actions=(f"{_QUEUES}/messages/add/action",),
)
QUEUE_READER = RoleDefinition(
    id="19e7f393-937e-4f77-808e-94535e297925",
    name="Storage Queue Data Reader",
    description="Reads queues and peeks at their messages.",
    actions=(f"{_QUEUES}/read",),
    kind="BuiltInRole",
    data_actions=(f"{_QUEUES}/messages/read",),
)
BUILT_IN = (
    OWNER,
    CONTRIBUTOR,
    READER,
    ACCESS_ADMINISTRATOR,
    QUEUE_CONTRIBUTOR,
    QUEUE_PROCESSOR,
    QUEUE_SENDER,
    QUEUE_READER,
)
