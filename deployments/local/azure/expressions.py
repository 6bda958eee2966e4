"""The expressions of ARM templates: "[concat('a', parameters('b'))]". Pure, and strict.

After "Template functions" and "Template syntax" in the ARM documentation. A function that is not
here is refused: InvalidTemplate, as ARM answers one that it does not know.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from deployments.local.azure.protocol import ArmError

_GUID_NAMESPACE = uuid.UUID("11fb06fb-712d-4ddd-98c7-e71bbd588830")  # what ARM's guid() hashes in
_TOKEN = re.compile(r"\s*('(?:[^']|'')*'|-?\d+|[A-Za-z_]\w*|[()\[\],.])")


class Later:
    """A value that is known only once what it comes from has been deployed."""


LATER = Later()


def invalid(message: str) -> NoReturn:
    raise ArmError(400, "InvalidTemplate", f"Deployment template validation failed: '{message}'.")


@dataclass(frozen=True)
class Scope:
    """Where an expression stands: what it may name.

    ``group`` is empty in a template for a subscription. ``referenced`` answers reference(id,
    version): the properties of what is deployed, or LATER.
    """

    tenant: str
    subscription: str
    group: str
    deployment: Mapping[str, Any]
    referenced: Callable[[str, str], Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    index: int | None = None  # of the copy that is being made

    @property
    def id(self) -> str:
        group = f"/resourceGroups/{self.group}" if self.group else ""
        return f"/subscriptions/{self.subscription}{group}"


def evaluated(value: Any, scope: Scope) -> Any:
    """The value with every expression in it worked out."""
    if isinstance(value, dict):
        return {key: evaluated(one, scope) for key, one in value.items()}
    if isinstance(value, list):
        return [evaluated(one, scope) for one in value]
    if not isinstance(value, str) or not value.startswith("[") or not value.endswith("]"):
        return value
    if value.startswith("[["):
        return value[1:]
    return _Expression(value[1:-1], scope).value()


class _Expression:
    """One expression, read from left to right and evaluated as it is read."""

    def __init__(self, text: str, scope: Scope) -> None:
        self._text, self._scope = text, scope
        self._tokens, self._at = self._read(), 0

    def value(self) -> Any:
        found = self._operand()
        if self._at != len(self._tokens):
            self._bad()
        return found

    def _read(self) -> list[str]:
        tokens, at = [], 0
        while at < len(self._text.rstrip()):
            match = _TOKEN.match(self._text, at)
            if match is None:
                self._bad()
            tokens.append(match[1])
            at = match.end()
        return tokens

    def _operand(self) -> Any:
        token = self._next()
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if re.fullmatch(r"-?\d+", token):
            return int(token)
        if not re.fullmatch(r"[A-Za-z_]\w*", token) or self._peek() != "(":
            self._bad()
        found = self._call(token)
        while self._peek() in {".", "["}:
            found = self._member(found)
        return found

    def _call(self, name: str) -> Any:
        self._expect("(")
        arguments = []
        while self._peek() != ")":
            if arguments:
                self._expect(",")
            arguments.append(self._operand())
        self._expect(")")
        function = _FUNCTIONS.get(name.lower())
        if function is None:
            invalid(f"The template function '{name}' is not valid, or not emulated")
        if any(isinstance(one, Later) for one in arguments):
            return LATER
        return function(self._scope, arguments)

    def _member(self, owner: Any) -> Any:
        if self._next() == ".":
            key: Any = self._next()
        else:
            key = self._operand()
            self._expect("]")
        if isinstance(owner, Later):
            return LATER
        if isinstance(owner, Mapping) and isinstance(key, str):
            for name, value in owner.items():  # ARM looks properties up without regard to case
                if name.lower() == key.lower():
                    return value
        elif isinstance(owner, list) and isinstance(key, int) and 0 <= key < len(owner):
            return owner[key]
        invalid(f"The language expression property '{key}' doesn't exist in '[{self._text}]'")

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        if not token:
            self._bad()
        self._at += 1
        return token

    def _expect(self, token: str) -> None:
        if self._next() != token:
            self._bad()

    def _bad(self) -> NoReturn:
        invalid(f"The template language expression '[{self._text}]' is not valid")


# ---------------------------------------------------------------- functions


def _check(name: str, fits: bool) -> None:
    if not fits:
        invalid(f"The arguments of the template function '{name}' are not valid")


def _texts(name: str, arguments: Sequence[Any], least: int, most: int | None = None) -> None:
    fits = least <= len(arguments) <= (most or len(arguments))
    _check(name, fits and all(isinstance(one, str) for one in arguments))


def _concat(scope: Scope, arguments: Sequence[Any]) -> Any:
    if arguments and all(isinstance(one, list) for one in arguments):
        return [one for part in arguments for one in part]
    _check("concat", bool(arguments) and all(isinstance(one, str | int) for one in arguments))
    return "".join(str(one) for one in arguments)


def _copy_index(scope: Scope, arguments: Sequence[Any]) -> int:
    _check("copyIndex", not arguments)
    if scope.index is None:
        invalid("The template function 'copyIndex' is not expected at this location")
    return scope.index


def _named(what: str) -> Callable[[Scope, Sequence[Any]], Any]:
    def look_up(scope: Scope, arguments: Sequence[Any]) -> Any:
        _texts(what, arguments, 1, 1)
        known: Mapping[str, Any] = getattr(scope, what)
        for name, value in known.items():
            if name.lower() == arguments[0].lower():
                return value
        invalid(f"The template {what[:-1]} '{arguments[0]}' is not found")

    return look_up


def _guid(scope: Scope, arguments: Sequence[Any]) -> str:
    _texts("guid", arguments, 1)
    return str(uuid.uuid5(_GUID_NAMESPACE, "-".join(arguments)))


def _last(scope: Scope, arguments: Sequence[Any]) -> Any:
    _check("last", len(arguments) == 1 and isinstance(arguments[0], str | list))
    _check("last", bool(arguments[0]))
    return arguments[0][-1]


def _length(scope: Scope, arguments: Sequence[Any]) -> int:
    _check("length", len(arguments) == 1 and isinstance(arguments[0], str | list | dict))
    return len(arguments[0])


def _split(scope: Scope, arguments: Sequence[Any]) -> list[str]:
    _texts("split", arguments, 2, 2)
    return list(arguments[0].split(arguments[1]))


def _reference(scope: Scope, arguments: Sequence[Any]) -> Any:
    _texts("reference", arguments, 2, 2)
    return scope.referenced(arguments[0], arguments[1])


def _subscription(scope: Scope, arguments: Sequence[Any]) -> dict[str, str]:
    _check("subscription", not arguments)
    return {
        "id": f"/subscriptions/{scope.subscription}",
        "subscriptionId": scope.subscription,
        "tenantId": scope.tenant,
    }


def _deployment(scope: Scope, arguments: Sequence[Any]) -> Mapping[str, Any]:
    _check("deployment", not arguments)
    return scope.deployment


def _resource_id(scope: Scope, arguments: Sequence[Any]) -> str:
    """resourceId([subscription], [resource group], type, name, …)."""
    _texts("resourceId", arguments, 2)
    at = next((i for i, one in enumerate(arguments) if "/" in one), -1)
    _check("resourceId", 0 <= at <= 2)
    before, subscription, group = arguments[:at], scope.subscription, scope.group
    if before:
        group = before[-1]
    if len(before) == 2:
        subscription = before[0]
    inside = f"/resourceGroups/{group}" if group else ""
    return f"/subscriptions/{subscription}{inside}{_below('resourceId', arguments[at:])}"


def _subscription_resource_id(scope: Scope, arguments: Sequence[Any]) -> str:
    """subscriptionResourceId([subscription], type, name, …)."""
    _texts("subscriptionResourceId", arguments, 2)
    given = "/" not in arguments[0]
    subscription = arguments[0] if given else scope.subscription
    rest = arguments[1:] if given else arguments
    if [one.lower() for one in rest[:1]] == ["microsoft.resources/resourcegroups"]:
        _check("subscriptionResourceId", len(rest) == 2)
        return f"/subscriptions/{subscription}/resourceGroups/{rest[1]}"
    return f"/subscriptions/{subscription}{_below('subscriptionResourceId', rest)}"


def _below(name: str, arguments: Sequence[str]) -> str:
    namespace, *types = arguments[0].split("/") if arguments else [""]
    names = arguments[1:]
    _check(name, bool(types) and len(types) == len(names) and all(names))
    pairs = "/".join(f"{kind}/{one}" for kind, one in zip(types, names, strict=True))
    return f"/providers/{namespace}/{pairs}"


_FUNCTIONS: dict[str, Callable[[Scope, Sequence[Any]], Any]] = {
    "concat": _concat,
    "copyindex": _copy_index,
    "deployment": _deployment,
    "guid": _guid,
    "last": _last,
    "length": _length,
    "parameters": _named("parameters"),
    "reference": _reference,
    "resourceid": _resource_id,
    "split": _split,
    "subscription": _subscription,
    "subscriptionresourceid": _subscription_resource_id,
    "variables": _named("variables"),
}
