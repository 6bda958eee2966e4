"""ARM templates: read, checked, and laid out as resources in the order to make them. Pure, strict.

After "Understand the structure and syntax of ARM templates".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from deployments.local.azure.expressions import Later, Scope, evaluated, invalid

DEPLOYMENT = "Microsoft.Resources/deployments"
RESOURCE_GROUP = "Microsoft.Resources/resourceGroups"

_SECTIONS = {
    "$schema",
    "contentVersion",
    "metadata",
    "outputs",
    "parameters",
    "resources",
    "variables",
}
_PARAMETER = {"allowedValues", "defaultValue", "maxLength", "metadata", "minLength", "type"}
_RESOURCE = {"apiVersion", "copy", "dependsOn", "location", "name", "properties", "tags", "type"}
_ELSEWHERE = {"resourceGroup", "subscriptionId"}  # of nested deployments only
_TYPES: dict[str, type | tuple[type, ...]] = {
    "array": list,
    "bool": bool,
    "int": int,
    "object": dict,
    "string": str,
}
_SCHEMAS = "https://schema.management.azure.com/schemas/"
MOST_COPIES = 800


@dataclass(frozen=True)
class Planned:
    """One resource of a template: where it goes, and what its expressions see."""

    id: str
    type: str
    version: str
    raw: Mapping[str, Any]
    scope: Scope
    needs: frozenset[str]  # lower-case ids

    def body(self) -> dict[str, Any]:
        """The body of its PUT. A nested template is left as it is: it has a scope of its own."""
        body = {
            key: evaluated(self.raw[key], self.scope)
            for key in ("location", "tags")
            if key in self.raw
        }
        properties = dict(self.raw.get("properties") or {})
        nested = properties.pop("template", None) if self.type == DEPLOYMENT else None
        if properties or "properties" in self.raw:
            body["properties"] = evaluated(properties, self.scope)
        if nested is not None:
            body["properties"]["template"] = nested
        return body


@dataclass(frozen=True)
class Plan:
    """A template with its parameters: resources in order, then outputs."""

    resources: tuple[Planned, ...]
    scope: Scope
    raw_outputs: Mapping[str, Any]

    @property
    def parameters(self) -> dict[str, Any]:
        return dict(self.scope.parameters)

    def outputs(self) -> dict[str, dict[str, Any]]:
        found = {}
        for name, output in self.raw_outputs.items():
            kind = str(output.get("type", "")).lower()
            if kind not in _TYPES or set(output) - {"type", "value", "metadata"}:
                invalid(f"The template output '{name}' is not valid")
            value = evaluated(output.get("value"), self.scope)
            if not isinstance(value, Later):
                _check_type("output", name, kind, value)
            found[name] = {"type": kind, "value": value}
        return found


def plan(template: Any, given: Mapping[str, Any], scope: Scope, deployable: frozenset[str]) -> Plan:
    """Lay a template out. ``given`` are parameters as a deployment takes them: {"value": …}.

    ``deployable`` are the resource types that are emulated, in lower case. Raises ArmError,
    InvalidTemplate.
    """
    _check_shape(template, scope)
    scope = replace(scope, parameters=_parameters(template.get("parameters", {}), given, scope))
    variables = template.get("variables", {})
    if "copy" in variables:
        invalid("'copy' in variables is not emulated")
    scope = replace(scope, variables=evaluated(variables, _without_reference(scope)))
    planned = [
        one for resource in template["resources"] for one in _planned(resource, scope, deployable)
    ]
    ids = [one.id.lower() for one in planned]
    if twice := next((one for one in ids if ids.count(one) > 1), ""):
        invalid(f"The resource '{twice}' is defined multiple times in the template")
    return Plan(tuple(_in_order(planned)), scope, template.get("outputs", {}))


def _without_reference(scope: Scope) -> Scope:
    """Parameters and variables are worked out before anything is deployed."""

    def referenced(resource: str, version: str) -> NoReturn:
        invalid("The template function 'reference' is not expected at this location")

    return replace(scope, referenced=referenced)


def _check_shape(template: Any, scope: Scope) -> None:
    if not isinstance(template, dict):
        invalid("The template is not an object")
    if unknown := set(template) - _SECTIONS:
        invalid(f"The template property '{min(unknown)}' is not expected, or not emulated")
    kind = "deploymentTemplate" if scope.group else "subscriptionDeploymentTemplate"
    schema = str(template.get("$schema", ""))
    if not re.fullmatch(rf"{re.escape(_SCHEMAS)}\d{{4}}-\d\d-\d\d/{kind}\.json#?", schema):
        invalid(f"The template schema '{schema}' is not supported at this scope")
    if not re.fullmatch(r"\d+(\.\d+){3}", str(template.get("contentVersion", ""))):
        invalid("The template must have a contentVersion such as '1.0.0.0'")
    if not isinstance(template.get("resources"), list):
        invalid("The template must have a list of resources")


def _parameters(
    declared: Mapping[str, Any], given: Mapping[str, Any], scope: Scope
) -> dict[str, Any]:
    known = {name.lower() for name in declared}
    if strange := sorted(name for name in given if name.lower() not in known):
        invalid(
            f"The template parameters '{', '.join(strange)}' in the parameters file are not valid; "
            "they are not present in the original template"
        )
    by_name = {name.lower(): value for name, value in given.items()}
    values = {}
    for name, parameter in declared.items():
        kind = str(parameter.get("type", "")).lower()
        if kind not in _TYPES or set(parameter) - _PARAMETER:
            invalid(f"The template parameter '{name}' is not valid, or not emulated")
        if name.lower() in by_name:
            holder = by_name[name.lower()]
            if not isinstance(holder, dict) or set(holder) != {"value"}:
                invalid(f"The value of the parameter '{name}' must be given as an object 'value'")
            value = holder["value"]
        elif "defaultValue" in parameter:
            value = evaluated(parameter["defaultValue"], _without_reference(scope))
        else:
            invalid(f"The value for the template parameter '{name}' is not provided")
        _check_value(name, kind, parameter, value)
        values[name] = value
    return values


def _check_value(name: str, kind: str, parameter: Mapping[str, Any], value: Any) -> None:
    if isinstance(value, Later):
        return
    _check_type("parameter", name, kind, value)
    if "allowedValues" in parameter and value not in parameter["allowedValues"]:
        invalid(f"The provided value for the template parameter '{name}' is not an allowed value")
    if isinstance(value, str | list):
        least, most = parameter.get("minLength", 0), parameter.get("maxLength", len(value))
        if not least <= len(value) <= most:
            invalid(f"The length of the template parameter '{name}' is not valid")


def _check_type(what: str, name: str, kind: str, value: Any) -> None:
    fits = isinstance(value, _TYPES[kind]) and not (kind == "int" and isinstance(value, bool))
    if not fits:
        invalid(f"The value of the template {what} '{name}' is not of the type '{kind}'")


def _planned(resource: Any, scope: Scope, deployable: frozenset[str]) -> Iterator[Planned]:
    if not isinstance(resource, dict):
        invalid("A resource of the template is not an object")
    for key in ("type", "apiVersion", "name"):
        if not isinstance(resource.get(key), str):
            invalid(f"A resource of the template has no '{key}'")
    kind = resource["type"]
    allowed = _RESOURCE | (_ELSEWHERE if kind == DEPLOYMENT else set())
    if unknown := set(resource) - allowed:
        invalid(f"The resource property '{min(unknown)}' of '{kind}' is not valid, or not emulated")
    if kind.lower() not in deployable:
        invalid(f"The resource type '{kind}' is not known, or not emulated in templates")
    if kind == DEPLOYMENT:
        _check_nested(resource.get("properties") or {})
    for one in _copies(resource, scope):
        needs = [evaluated(need, one) for need in resource.get("dependsOn", [])]
        yield Planned(
            id=_id(resource, one),
            type=kind,
            version=resource["apiVersion"],
            raw=resource,
            scope=one,
            needs=frozenset(need.lower() for need in needs),
        )


def _copies(resource: Mapping[str, Any], scope: Scope) -> Iterator[Scope]:
    if "copy" not in resource:
        yield scope
        return
    loop = resource["copy"]
    if not isinstance(loop, dict) or set(loop) != {"name", "count"}:
        invalid("A copy loop has a name and a count here; its mode is not emulated")
    count = evaluated(loop["count"], scope)
    if not isinstance(count, int) or not 0 <= count <= MOST_COPIES:
        invalid(f"The count of the copy loop '{loop['name']}' is not from 0 to {MOST_COPIES}")
    for index in range(count):
        yield replace(scope, index=index)


def _check_nested(properties: Mapping[str, Any]) -> None:
    options = properties.get("expressionEvaluationOptions") or {}
    if options != {"scope": "inner"}:
        invalid("Nested deployments whose expressionEvaluationOptions are not inner: not emulated")
    if "templateLink" in properties:
        invalid("templateLink is not emulated")


def _id(resource: Mapping[str, Any], scope: Scope) -> str:
    name = evaluated(resource["name"], scope)
    subscription = evaluated(resource.get("subscriptionId", scope.subscription), scope)
    group = evaluated(resource.get("resourceGroup", ""), scope)
    if not all(isinstance(one, str) for one in (name, subscription, group)) or not name:
        invalid("The name and place of a resource must be known before anything is deployed")
    if resource["type"] == RESOURCE_GROUP:
        if scope.group:
            invalid("A resource group is made at the scope of its subscription")
        return f"{scope.id}/resourceGroups/{name}"
    # A deployment to a subscription leaves the resource group that holds it.
    if "resourceGroup" in resource:
        place = f"/subscriptions/{subscription}/resourceGroups/{group}"
    elif "subscriptionId" in resource:
        place = f"/subscriptions/{subscription}"
    else:
        place = scope.id
    types, names = resource["type"].split("/"), name.split("/")
    if len(types) != len(names) + 1:
        invalid(f"The resource '{name}' has incorrect segment lengths for its type")
    pairs = "/".join(f"{one}/{its}" for one, its in zip(types[1:], names, strict=True))
    return f"{place}/providers/{types[0]}/{pairs}"


def _in_order(planned: list[Planned]) -> Iterator[Planned]:
    """Each after what it depends on, otherwise as the template has them."""
    known = {one.id.lower() for one in planned}
    for one in planned:
        if missing := one.needs - known:
            invalid(f"The resource '{min(missing)}' is not defined in the template")
    waiting = list(planned)
    while waiting:
        left = {one.id.lower() for one in waiting}
        ready = [one for one in waiting if not one.needs & left]
        if not ready:
            invalid("Circular dependency detected on resources of the template")
        yield from ready
        waiting = [one for one in waiting if one.needs & left]
