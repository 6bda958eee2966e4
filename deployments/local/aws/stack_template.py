"""CloudFormation templates: read, checked and resolved. Pure, and strict: what it does not know it
refuses, where CloudFormation would often go on.

Semantics after the CloudFormation User Guide ("Template anatomy", "Intrinsic function reference").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

LARGEST = 51_200  # bytes of a TemplateBody

_SECTIONS = {
    "AWSTemplateFormatVersion",
    "Conditions",
    "Description",
    "Metadata",
    "Outputs",
    "Parameters",
    "Resources",
}
_ATTRIBUTES = {"Condition", "DependsOn", "Metadata", "Properties", "Type"}
_PARAMETER = {
    "AllowedPattern",
    "AllowedValues",
    "ConstraintDescription",
    "Default",
    "Description",
    "MaxLength",
    "MinLength",
    "NoEcho",
    "Type",
}
_PLACEHOLDER = re.compile(r"\$\{([^}!][^}]*)\}")


class InvalidTemplate(ValueError):
    """A template, or parameters for one, that CreateStack answers with ValidationError."""


@dataclass(frozen=True)
class Template:
    """A checked template with its parameters' values, ready to be resolved in ``order``."""

    raw: Mapping[str, Any]
    values: Mapping[str, str]  # of parameters and pseudo parameters
    conditions: Mapping[str, bool]
    order: tuple[str, ...]  # logical ids of the resources to make, each after what it needs

    def resource(self, logical_id: str) -> Mapping[str, Any]:
        return self.raw["Resources"][logical_id]

    def parameters(self) -> dict[str, str]:
        return {name: self.values[name] for name in self.raw.get("Parameters", {})}

    def outputs(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for name, output in self.raw.get("Outputs", {}).items():
            if self.conditions.get(output.get("Condition"), True):
                yield name, output

    def resolve(self, value: Any, made: Mapping[str, Mapping[str, str]]) -> Any:
        """``made`` maps the logical ids of what exists to its attributes, "Ref" among them."""
        if isinstance(value, list):
            return [self.resolve(one, made) for one in value]
        if not isinstance(value, dict):
            return value
        function = _function(value)
        if function is None:
            return {key: self.resolve(one, made) for key, one in value.items()}
        argument = value[function]
        if function == "Ref":
            return self._attribute(argument, "Ref", made)
        if function == "Fn::GetAtt":
            return self._attribute(*_get_att(argument), made)
        return _PLACEHOLDER.sub(
            lambda match: self._attribute(*_placeholder(match[1]), made), argument
        ).replace("${!", "${")

    def _attribute(self, name: str, attribute: str, made: Mapping[str, Mapping[str, str]]) -> str:
        if attribute == "Ref" and name in self.values:
            return self.values[name]
        try:
            return made[name][attribute]
        except KeyError:
            raise InvalidTemplate(
                f"Template error: resource {name} does not support attribute type {attribute} in "
                "Fn::GetAtt"
            ) from None


def read_template(text: str, given: Mapping[str, str], pseudo: Mapping[str, str]) -> Template:
    """The template of that text (JSON) for the parameters ``given``. Raises InvalidTemplate.

    ``pseudo`` are the pseudo parameters, such as AWS::AccountId.
    """
    if len(text.encode()) > LARGEST:
        raise InvalidTemplate(
            "1 validation error detected: Value at 'templateBody' failed to satisfy constraint: "
            f"Member must have length less than or equal to {LARGEST}"
        )
    try:
        raw = json.loads(text)
    except ValueError:
        raise InvalidTemplate("Template format error: JSON not well-formed.") from None
    _check_shape(raw)
    values = {**pseudo, **_parameters(raw.get("Parameters", {}), given)}
    _check_references(raw, values)
    conditions = {
        name: _holds(condition, values) for name, condition in raw.get("Conditions", {}).items()
    }
    wanted = {
        name: one
        for name, one in raw["Resources"].items()
        if conditions.get(one.get("Condition"), True)
    }
    return Template(raw, values, conditions, tuple(_in_order(wanted)))


def _check_shape(raw: Any) -> None:
    if not isinstance(raw, dict):
        raise InvalidTemplate("Template format error: unsupported structure.")
    if unknown := sorted(set(raw) - _SECTIONS):
        raise InvalidTemplate(f"Invalid template property or properties {_listed(unknown)}")
    if raw.get("AWSTemplateFormatVersion", "2010-09-09") != "2010-09-09":
        raise InvalidTemplate("Template format error: unsupported value for the format version.")
    resources = raw.get("Resources")
    if not isinstance(resources, dict) or not resources:
        raise InvalidTemplate(
            "Template format error: At least one Resources member must be defined."
        )
    for logical_id, resource in resources.items():
        if not re.fullmatch(r"[A-Za-z0-9]{1,255}", logical_id):
            raise InvalidTemplate(
                f"Template format error: Resource name {logical_id} is non alphanumeric."
            )
        if unknown := sorted(set(resource) - _ATTRIBUTES):
            raise InvalidTemplate(
                f"Invalid template resource property {unknown[0]!r} of {logical_id}"
            )


def _parameters(declared: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    if unknown := sorted(set(given) - set(declared)):
        raise InvalidTemplate(f"Parameters: {_listed(unknown)} do not exist in the template")
    values = {}
    for name, parameter in declared.items():
        if unknown := sorted(set(parameter) - _PARAMETER):
            raise InvalidTemplate(
                f"Invalid template parameter property {unknown[0]!r} of parameter {name}"
            )
        if parameter.get("Type") != "String":
            raise InvalidTemplate(
                f"Template format error: Unrecognized parameter type: {parameter.get('Type')}"
            )
        value = given.get(name, parameter.get("Default"))
        if value is None:
            raise InvalidTemplate(f"Parameters: [{name}] must have values")
        _check_value(name, parameter, value)
        values[name] = value
    return values


def _check_value(name: str, parameter: Mapping[str, Any], value: str) -> None:
    pattern, allowed = parameter.get("AllowedPattern"), parameter.get("AllowedValues")
    least, most = int(parameter.get("MinLength", 0)), int(parameter.get("MaxLength", 4096))
    if (
        (pattern is not None and not re.fullmatch(pattern, value, re.ASCII))
        or (allowed is not None and value not in allowed)
        or not least <= len(value) <= most
    ):
        reason = parameter.get("ConstraintDescription") or f"must match pattern {pattern}"
        raise InvalidTemplate(f"Parameter '{name}' {reason}")


def _check_references(raw: Mapping[str, Any], values: Mapping[str, str]) -> None:
    resources = raw["Resources"]
    for section in ("Resources", "Outputs"):
        parts = [
            {key: part for key, part in one.items() if key not in {"Metadata", "Condition"}}
            for one in raw.get(section, {}).values()
        ]
        named = {name for part in parts for name in _named(part)}
        if missing := sorted(named - set(values) - set(resources)):
            raise InvalidTemplate(
                f"Template format error: Unresolved resource dependencies {_listed(missing)} in "
                f"the {section} block of the template"
            )
        for one in raw.get(section, {}).values():
            if "Condition" in one and one["Condition"] not in raw.get("Conditions", {}):
                raise InvalidTemplate(
                    f"Template format error: Unresolved condition dependency {one['Condition']}"
                )


def _named(value: Any) -> Iterator[str]:
    """Every parameter and resource that a part of a template names."""
    if isinstance(value, list):
        for one in value:
            yield from _named(one)
    elif isinstance(value, dict):
        function = _function(value)
        if function is None:
            for one in value.values():
                yield from _named(one)
        elif function == "Ref":
            yield value["Ref"]
        elif function == "Fn::GetAtt":
            yield _get_att(value[function])[0]
        else:
            for match in _PLACEHOLDER.finditer(value[function]):
                yield _placeholder(match[1])[0]


def _function(value: Mapping[str, Any]) -> str | None:
    """The intrinsic function that an object is, or None. Refuses those that are not emulated."""
    functions = [key for key in value if key == "Ref" or key.startswith("Fn::")]
    if not functions:
        return None
    if len(value) != 1:
        raise InvalidTemplate(f"Template format error: {functions[0]} stands beside other keys.")
    if functions[0] not in {"Ref", "Fn::GetAtt", "Fn::Sub"}:
        raise InvalidTemplate(
            f"Template error: {functions[0]} is not emulated here, or not known at all."
        )
    if functions[0] != "Fn::GetAtt" and not isinstance(value[functions[0]], str):
        raise InvalidTemplate(f"Template error: {functions[0]} takes a text here.")
    return functions[0]


def _get_att(argument: Any) -> tuple[str, str]:
    parts = argument.split(".", 1) if isinstance(argument, str) else argument
    if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(p, str) for p in parts):
        raise InvalidTemplate(
            "Template error: every Fn::GetAtt object requires two non-empty parameters, the "
            "resource name and the resource attribute"
        )
    return parts[0], parts[1]


def _placeholder(text: str) -> tuple[str, str]:
    name, _, attribute = text.partition(".")
    return name, attribute or "Ref"


def _holds(condition: Any, values: Mapping[str, str]) -> bool:
    match condition:
        case {"Fn::Equals": [left, right], **rest} if not rest:
            return _plain(left, values) == _plain(right, values)
        case {"Fn::Not": [inner], **rest} if not rest:
            return not _holds(inner, values)
    raise InvalidTemplate(
        "Template error: a condition is made of Fn::Not and Fn::Equals here; others are not "
        "emulated."
    )


def _plain(value: Any, values: Mapping[str, str]) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and _function(value) == "Ref" and value["Ref"] in values:
        return values[value["Ref"]]
    raise InvalidTemplate(
        "Template format error: Every value of a condition is a text or a parameter."
    )


def _in_order(resources: Mapping[str, Any]) -> Iterator[str]:
    """Each after those it names or depends on."""
    waiting = {}
    for name, one in resources.items():
        needed = {*_named(one.get("Properties", {})), *_depends_on(one)}
        waiting[name] = needed & set(resources)
    while waiting:
        ready = [name for name, needed in waiting.items() if not needed & set(waiting)]
        if not ready:
            raise InvalidTemplate(
                f"Circular dependency between resources: {_listed(sorted(waiting))}"
            )
        for name in ready:
            del waiting[name]
            yield name


def _depends_on(resource: Mapping[str, Any]) -> list[str]:
    named = resource.get("DependsOn", [])
    return [named] if isinstance(named, str) else named


def _listed(names: list[str]) -> str:
    return f"[{', '.join(names)}]"
