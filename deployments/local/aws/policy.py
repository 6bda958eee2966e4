"""Deciding IAM requests: statements, wildcards, conditions. Pure: no moto, no HTTP, no clock.

Semantics after the IAM User Guide ("Policy evaluation logic", "IAM JSON policy elements").
"""

from __future__ import annotations

import functools
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum

Context = Mapping[str, Sequence[str]]


class MalformedPolicy(ValueError):
    """A policy document that AWS would not accept."""


class Effect(Enum):
    ALLOWED = "allowed"
    NOT_ALLOWED = "not allowed"  # no statement speaks for it
    DENIED = "denied"  # a statement speaks against it


@dataclass(frozen=True, slots=True)
class Request:
    """One action on one resource.

    ``resource`` is an ARN, or "*" for an action without resource-level permissions. ``context``
    maps lower-cased condition keys to their values. ``principals`` are the names under which a
    resource's or a role's own policy may know the caller.
    """

    action: str
    resource: str
    context: Context
    principals: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Condition:
    operator: str  # without quantifier and IfExists
    quantifier: str  # "", "forallvalues" or "foranyvalue"
    if_exists: bool
    key: str  # lower case
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    allows: bool
    actions: tuple[str, ...]
    except_actions: bool
    resources: tuple[str, ...]
    except_resources: bool
    principals: tuple[str, ...]
    except_principals: bool
    conditions: tuple[Condition, ...]

    def covers(self, request: Request) -> bool:
        return (
            self._covers_action(request.action)
            and self._covers_resource(request)
            and all(holds(condition, request.context) for condition in self.conditions)
        )

    def _covers_action(self, action: str) -> bool:
        return _any_like(action.lower(), self.actions) != self.except_actions

    def _covers_resource(self, request: Request) -> bool:
        if not self.resources:  # trust policies name no resource: they sit on it
            return True
        named = any(
            arn_like(request.resource, _filled(pattern, request.context))
            for pattern in self.resources
        )
        return named != self.except_resources

    def names(self, principals: frozenset[str]) -> bool:
        named = "*" in self.principals or not principals.isdisjoint(self.principals)
        return named != self.except_principals


Policy = tuple[Statement, ...]


# ---------------------------------------------------------------- evaluation


def evaluate(policies: Iterable[Policy], request: Request) -> Effect:
    """Identity-based policies (also session policies and boundaries): an explicit deny wins."""
    return _strongest(
        statement.allows for policy in policies for statement in policy if statement.covers(request)
    )


def evaluate_resource_policy(policy: Policy, request: Request) -> Effect:
    """A resource's own policy or a role's trust policy: also the principal must be named."""
    return _strongest(
        statement.allows
        for statement in policy
        if statement.names(request.principals) and statement.covers(request)
    )


def _strongest(verdicts: Iterable[bool]) -> Effect:
    effect = Effect.NOT_ALLOWED
    for allows in verdicts:
        if not allows:
            return Effect.DENIED
        effect = Effect.ALLOWED
    return effect


@dataclass(frozen=True, slots=True)
class Decision:
    """``why`` continues AWS's sentence "… is not authorized to perform: … on resource: … "."""

    allowed: bool
    why: str = ""


def decide(
    request: Request,
    identity: Sequence[Policy],
    *,
    session: Sequence[Policy] | None = None,
    boundary: Policy | None = None,
    resource_policy: Policy | None = None,
    must_be_let_in: bool = False,
    same_account: bool = True,
) -> Decision:
    """Identity policies, cut down by boundary and session policies, beside the resource's own.

    ``session`` and ``boundary`` are None where there is none; an empty list of session policies
    allows nothing. Within one account a resource's policy that names the caller itself allows
    without an identity policy, one that names the account's root leaves it to them; across
    accounts both sides must allow. ``must_be_let_in``: the resource's policy must allow in any
    case, as a role's trust policy must.
    """
    ceilings = {"identity-based policy": evaluate(identity, request)}
    if session is not None:
        ceilings["session policy"] = evaluate(session, request)
    if boundary is not None:
        ceilings["permissions boundary"] = evaluate([boundary], request)
    on_resource = evaluate_resource_policy(resource_policy or (), request)
    for name, effect in {**ceilings, "resource-based policy": on_resource}.items():
        if effect is Effect.DENIED:
            article = "an" if name.startswith("identity") else "a"
            return Decision(False, f"with an explicit deny in {article} {name}")
    if same_account and _named_itself(resource_policy or (), request):
        del ceilings["identity-based policy"]
    if must_be_let_in or not same_account:
        ceilings["resource-based policy"] = on_resource
    for name, effect in ceilings.items():
        if effect is not Effect.ALLOWED:
            return Decision(False, f"because no {name} allows the {request.action} action")
    return Decision(True)


def _named_itself(policy: Policy, request: Request) -> bool:
    """Whether the resource's policy allows the caller by name, not through its account's root."""
    itself = frozenset(name for name in request.principals if not name.endswith(":root"))
    return evaluate_resource_policy(policy, replace(request, principals=itself)) is Effect.ALLOWED


# ---------------------------------------------------------------- matching


@functools.lru_cache(maxsize=4096)
def _pattern(pattern: str) -> re.Pattern[str]:
    escaped = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(escaped, re.DOTALL)


def like(value: str, pattern: str) -> bool:
    """``*`` stands for any text, ``?`` for one character."""
    return _pattern(pattern).fullmatch(value) is not None


@functools.lru_cache(maxsize=65_536)
def _any_like(action: str, patterns: tuple[str, ...]) -> bool:
    return any(like(action, pattern.lower()) for pattern in patterns)


def arn_like(value: str, pattern: str) -> bool:
    """Part by part: a wildcard never reaches over one of the first five colons."""
    if pattern == "*":
        return True
    wanted, found = pattern.split(":", 5), value.split(":", 5)
    return len(wanted) == len(found) == 6 and all(map(like, found, wanted))


def _filled(pattern: str, context: Context) -> str:
    """Policy variables such as ``${aws:username}``; an unknown one stands and matches nothing."""

    def value(match: re.Match[str]) -> str:
        key = match.group(1)
        if key in {"*", "?", "$"}:
            return key
        known = context.get(key.lower(), ())
        return known[0] if len(known) == 1 else match.group(0)

    return re.sub(r"\$\{([^}]+)\}", value, pattern) if "${" in pattern else pattern


# ---------------------------------------------------------------- conditions


def _date(text: str) -> datetime:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return datetime.fromtimestamp(float(text), UTC)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _in_network(value: str, network: str) -> bool:
    address, within = ipaddress.ip_address(value), ipaddress.ip_network(network, strict=False)
    return address.version == within.version and address in within


_OPERATORS = {
    "stringequals": lambda value, wanted: value == wanted,
    "stringequalsignorecase": lambda value, wanted: value.lower() == wanted.lower(),
    "stringlike": like,
    "numericequals": lambda value, wanted: float(value) == float(wanted),
    "numericlessthan": lambda value, wanted: float(value) < float(wanted),
    "numericlessthanequals": lambda value, wanted: float(value) <= float(wanted),
    "numericgreaterthan": lambda value, wanted: float(value) > float(wanted),
    "numericgreaterthanequals": lambda value, wanted: float(value) >= float(wanted),
    "dateequals": lambda value, wanted: _date(value) == _date(wanted),
    "datelessthan": lambda value, wanted: _date(value) < _date(wanted),
    "datelessthanequals": lambda value, wanted: _date(value) <= _date(wanted),
    "dategreaterthan": lambda value, wanted: _date(value) > _date(wanted),
    "dategreaterthanequals": lambda value, wanted: _date(value) >= _date(wanted),
    "bool": lambda value, wanted: value.lower() == wanted.lower(),
    "ipaddress": _in_network,
    "arnequals": arn_like,
    "arnlike": arn_like,
}

# A negated operator holds where none of the wanted values is met, also where the key is missing.
_NEGATED = {
    "stringnotequals": "stringequals",
    "stringnotequalsignorecase": "stringequalsignorecase",
    "stringnotlike": "stringlike",
    "numericnotequals": "numericequals",
    "datenotequals": "dateequals",
    "notipaddress": "ipaddress",
    "arnnotequals": "arnequals",
    "arnnotlike": "arnlike",
}


def holds(condition: Condition, context: Context) -> bool:
    """One condition: its values are alternatives."""
    found = context.get(condition.key)
    if condition.operator == "null":
        return (found is None) == (condition.values[0].lower() == "true")
    if found is None:
        return (
            condition.if_exists
            or condition.quantifier == "forallvalues"
            or (condition.operator in _NEGATED and not condition.quantifier)
        )
    wanted = [_filled(value, context) for value in condition.values]
    negated = condition.operator in _NEGATED
    compare = _OPERATORS[_NEGATED.get(condition.operator, condition.operator)]

    def meets(value: str) -> bool:
        try:
            return any(compare(value, one) for one in wanted) != negated
        except ValueError:  # not a number, date or address: comparable to nothing
            return negated

    if condition.quantifier == "forallvalues":
        return all(map(meets, found))
    if condition.quantifier == "foranyvalue":
        return any(map(meets, found))
    return bool(found) and meets(found[0])


# ---------------------------------------------------------------- parsing


@functools.lru_cache(maxsize=4096)
def parse_policy(text: str) -> Policy:
    """An identity-based or session policy. Raises MalformedPolicy."""
    return _parse(text, with_principal=False, with_resource=True)


@functools.lru_cache(maxsize=4096)
def parse_trust_policy(text: str) -> Policy:
    """A role's trust policy. Raises MalformedPolicy."""
    return _parse(text, with_principal=True, with_resource=False)


@functools.lru_cache(maxsize=4096)
def parse_resource_policy(text: str) -> Policy:
    """A resource's own policy, such as a bucket's. Raises MalformedPolicy."""
    return _parse(text, with_principal=True, with_resource=True)


def _parse(text: str, *, with_principal: bool, with_resource: bool) -> Policy:
    try:
        document = json.loads(text)
    except ValueError:
        raise MalformedPolicy("This policy contains invalid Json") from None
    if not isinstance(document, dict):
        raise MalformedPolicy("Syntax errors in policy.")
    if document.get("Version", "2008-10-17") not in {"2012-10-17", "2008-10-17"}:
        raise MalformedPolicy("The policy must contain a valid version string")
    unknown = set(document) - {"Version", "Id", "Statement"}
    statements = document.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if unknown or not isinstance(statements, list) or not statements:
        raise MalformedPolicy("Syntax errors in policy.")
    return tuple(_statement(one, with_principal, with_resource) for one in statements)


_ELEMENTS = {"Sid", "Effect", "Action", "NotAction", "Condition"}
_PRINCIPAL = {"Principal", "NotPrincipal"}
_RESOURCE = {"Resource", "NotResource"}


def _statement(raw: object, with_principal: bool, with_resource: bool) -> Statement:
    allowed = (
        _ELEMENTS
        | (_PRINCIPAL if with_principal else set())
        | (_RESOURCE if with_resource else set())
    )
    if not isinstance(raw, dict) or not set(raw) <= allowed:
        raise MalformedPolicy("Policy document should not specify these elements.")
    if raw.get("Effect") not in {"Allow", "Deny"}:
        raise MalformedPolicy("Statement/effects must be Allow or Deny.")
    actions, except_actions = _either(raw, "Action", "NotAction")
    for action in actions:
        if action != "*" and not re.fullmatch(r"[\w*?-]+:[\w*?]+", action):
            raise MalformedPolicy("Actions/Conditions must be prefaced by a vendor.")
    resources, except_resources = (
        _either(raw, "Resource", "NotResource") if with_resource else ((), False)
    )
    for resource in resources:
        if resource != "*" and not re.fullmatch(r"arn:([^:]*:){4}.+", resource, re.DOTALL):
            raise MalformedPolicy(f'Resource {resource} must be in ARN format or "*".')
    principals, except_principals = _principals(raw) if with_principal else ((), False)
    return Statement(
        allows=raw["Effect"] == "Allow",
        actions=actions,
        except_actions=except_actions,
        resources=resources,
        except_resources=except_resources,
        principals=principals,
        except_principals=except_principals,
        conditions=tuple(_conditions(raw.get("Condition", {}))),
    )


def _texts(value: object) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    texts = []
    for one in values:
        if isinstance(one, bool):
            texts.append(str(one).lower())
        elif isinstance(one, str | int | float):
            texts.append(str(one))
        else:
            raise MalformedPolicy("Syntax errors in policy.")
    return tuple(texts)


def _either(raw: Mapping[str, object], name: str, negated: str) -> tuple[tuple[str, ...], bool]:
    if (name in raw) == (negated in raw):
        raise MalformedPolicy(f"Policy statement must contain one of {name} and {negated}.")
    values = _texts(raw.get(name, raw.get(negated)))
    if not values:
        raise MalformedPolicy(f"Policy statement must contain {name.lower()}s.")
    return values, negated in raw


def _principals(raw: Mapping[str, object]) -> tuple[tuple[str, ...], bool]:
    if ("Principal" in raw) == ("NotPrincipal" in raw):
        raise MalformedPolicy("Policy statement must contain a principal.")
    value = raw.get("Principal", raw.get("NotPrincipal"))
    if value == "*":
        names: tuple[str, ...] = ("*",)
    elif isinstance(value, dict) and value and set(value) <= {"AWS", "Service", "Federated"}:
        names = tuple(_root(name) for group in value.values() for name in _texts(group))
    else:
        raise MalformedPolicy("Invalid principal in policy.")
    return names, "NotPrincipal" in raw


def _root(principal: str) -> str:
    """A bare account number stands for its root."""
    return f"arn:aws:iam::{principal}:root" if re.fullmatch(r"\d{12}", principal) else principal


def _conditions(raw: object) -> Iterable[Condition]:
    if not isinstance(raw, dict):
        raise MalformedPolicy("Syntax errors in policy.")
    for written, keys in raw.items():
        quantifier, _, rest = written.lower().rpartition(":")
        operator = rest.removesuffix("ifexists")
        known = operator in _OPERATORS or operator in _NEGATED or operator == "null"
        if (
            not known
            or quantifier not in {"", "forallvalues", "foranyvalue"}
            or not isinstance(keys, dict)
        ):
            raise MalformedPolicy(f"Invalid Condition type : {written}.")
        for key, values in keys.items():
            texts = _texts(values)
            _check_values(operator, texts)
            yield Condition(operator, quantifier, rest != operator, key.lower(), texts)


def _check_values(operator: str, values: Sequence[str]) -> None:
    """A value that its operator cannot read is refused here, not found out at midnight."""
    if not values:
        raise MalformedPolicy("A condition needs at least one value.")
    base = _NEGATED.get(operator, operator)
    reads = next((read for kind, read in _READERS.items() if base.startswith(kind)), str)
    for value in values:
        if "${" in value:
            continue
        try:
            reads(value)
        except ValueError:
            raise MalformedPolicy(f"Invalid value for condition {operator}.") from None


_READERS = {
    "numeric": float,
    "date": _date,
    "ipaddress": lambda value: ipaddress.ip_network(value, strict=False),
}
