"""Policies of resources: which of their statements let strangers in, judged by what they mean.

After the IAM User Guide ("IAM JSON policy elements", "AWS global condition context keys") and what
S3 calls public ("The meaning of public"). A stranger is anybody whom the policy does not name: no
account, organization, network or endpoint of somebody known. Pure.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.model import Call, Change, Fix, Resource, Step
from tasks.rules.shape import mapping, odd, sequence

Policy = Mapping[str, Any]
Statement = Mapping[str, Any]


# --- reading ----------------------------------------------------------------------------------


def statements_of(policy: Policy, part: str = "Policy") -> list[Statement]:
    """Its statements; IAM takes a single one without a list, too."""
    name = f"{part}.Statement"
    statements = policy.get("Statement")
    if isinstance(statements, Mapping):
        statements = [statements]
    return [mapping(one, name) for one in sequence(statements, name)]


def texts(value: Any) -> list[str]:
    """A policy element that may be one text or a list of texts; anything else names nothing."""
    if isinstance(value, str):
        return [value]
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def document(policy: Policy) -> str:
    """The policy as a text, without white space: its length is limited everywhere."""
    return json.dumps(policy, separators=(",", ":"))


def like(pattern: str, value: str) -> bool:
    """IAM's wildcards: * is any run of characters, ? any single one."""
    if "?" in pattern:
        wild = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
        return re.fullmatch(wild, value, re.DOTALL) is not None
    # Nearly every pattern names one thing: no regular expression is worth making for it.
    first, *others = pattern.split("*")
    if not others:
        return pattern == value
    *middle, last = others
    if not value.startswith(first):
        return False
    at = len(first)
    for piece in middle:
        found = value.find(piece, at)
        if found < 0:
            return False
        at = found + len(piece)
    return len(value) - at >= len(last) and value.endswith(last)


# --- who is open to strangers -----------------------------------------------------------------


def open_statements(policy: Policy, part: str = "Policy") -> list[int]:
    """The places of the statements that let strangers in.

    Those are statements that allow everyone something, are tied to nobody known by a condition,
    and are not taken back from strangers by a Deny beside them. Raises MissingData for a policy
    that is not in the documented form.
    """
    statements = statements_of(policy, part)
    allowing = [
        place
        for place, one in enumerate(statements)
        if _effect(one, part) == "Allow" and is_open(one, part)
    ]
    if not allowing:
        return []
    denying = [
        one for one in statements if one["Effect"] == "Deny" and _hits_every_stranger(one, part)
    ]
    return [
        place
        for place in allowing
        if not any(_takes_back(one, statements[place]) for one in denying)
    ]


def is_open(statement: Statement, part: str = "Policy") -> bool:
    """Whether an Allow statement by itself lets somebody in whom nobody named."""
    return (
        _names_strangers(statement, part)
        and _does_something(statement, part)
        and not _tied(list(_tests(statement, part)))
    )


def lets_no_stranger_in(policy: Any, part: str = "Policy") -> bool:
    """A resource without a policy lets nobody in but its own account."""
    return policy is None or not open_statements(mapping(policy, part), part)


def _effect(statement: Statement, part: str) -> str:
    effect = statement.get("Effect")
    if effect not in ("Allow", "Deny"):
        raise odd(f"{part}.Statement.Effect")
    return str(effect)


def _names_strangers(statement: Statement, part: str) -> bool:
    """Everyone is "*", alone or among others, or everybody but those whom NotPrincipal names."""
    if ("Principal" in statement) == ("NotPrincipal" in statement):
        raise odd(f"{part}.Statement.Principal")
    if "NotPrincipal" in statement:
        return "*" not in _principals(statement["NotPrincipal"], part)
    return "*" in _principals(statement["Principal"], part)


def _principals(value: Any, part: str) -> list[str]:
    if value == "*":
        return ["*"]
    named: list[str] = []
    for some in mapping(value, f"{part}.Statement.Principal").values():
        several = some if isinstance(some, list) else [some]
        if not several or not all(isinstance(one, str) for one in several):
            raise odd(f"{part}.Statement.Principal")
        named += several
    return named


def _does_something(statement: Statement, part: str) -> bool:
    actions, others = texts(statement.get("Action")), texts(statement.get("NotAction"))
    if bool(actions) == bool(others):
        raise odd(f"{part}.Statement.Action")
    return "*" not in others


# --- conditions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Test:
    """One condition: all of a statement's must hold, each for one of its values."""

    operator: str  # lower case, without quantifier and IfExists
    quantifier: str  # "", "forallvalues" or "foranyvalue"
    if_exists: bool
    key: str  # lower case
    values: tuple[str, ...]


def _tests(statement: Statement, part: str) -> Iterator[_Test]:
    name = f"{part}.Statement.Condition"
    for written, keys in mapping(statement.get("Condition", {}), name).items():
        quantifier, _, rest = written.lower().rpartition(":")
        operator = rest.removesuffix("ifexists")
        for key, values in mapping(keys, name).items():
            several = values if isinstance(values, list) else [values]
            if not several or not all(isinstance(one, str | bool | int) for one in several):
                raise odd(name)
            read = tuple(str(one).lower() if isinstance(one, bool) else str(one) for one in several)
            yield _Test(operator, quantifier, rest != operator, key.lower(), read)


def _whole(value: str) -> bool:
    """One value and no other: neither wildcards nor policy variables in it."""
    return bool(value) and not any(mark in value for mark in ("*", "?", "${"))


def _of_path(value: str) -> bool:
    """An organization's path, by its first step, which is the organization's id."""
    return _whole(value.partition("/")[0])


def _of_user(value: str) -> bool:
    """A user's or a role's unique id; after a colon comes the session's name."""
    return _whole(value.partition(":")[0])


def _of_arn(value: str) -> bool:
    """An ARN of one account, or of one thing whose ARN names no account, such as a bucket."""
    pieces = value.split(":", 5)
    if len(pieces) < 6 or pieces[0] != "arn":
        return False
    _, _, service, _, account, name = pieces
    if re.fullmatch(r"\d{12}", account, re.ASCII):
        return True
    if service == "s3" and account == "":
        return _whole(name.partition("/")[0])
    if service == "s3" and account == "*":  # as examples for notifications write a bucket
        return _whole(name) and "/" not in name
    return account == "" and _whole(service) and _whole(name)


def _of_network(value: str) -> bool:
    return _narrow((value,))


# What a request says of who makes it, and of nobody else can say; and when a value names somebody.
# Not among them is what a stranger may choose: tags, names, the referer, private addresses.
_KEYS: Mapping[str, Callable[[str], bool]] = {
    "aws:principalaccount": _whole,
    "aws:principalarn": _of_arn,
    "aws:principalorgid": _whole,
    "aws:principalorgpaths": _of_path,
    "aws:principalservicename": _whole,
    "aws:principalservicenameslist": _whole,
    "aws:sourceaccount": _whole,
    "aws:sourcearn": _of_arn,
    "aws:sourceorgid": _whole,
    "aws:sourceorgpaths": _of_path,
    "aws:sourceowner": _whole,
    "aws:sourcevpc": _whole,
    "aws:sourcevpcarn": _of_arn,
    "aws:sourcevpce": _whole,
    "aws:userid": _of_user,
    "aws:vpceaccount": _whole,
    "aws:vpceorgid": _whole,
    "aws:vpceorgpaths": _of_path,
    "s3:dataaccesspointaccount": _whole,
    "s3:dataaccesspointarn": _of_arn,
}
# The resource's own owner compared with the caller's, in either direction.
_OWNER = frozenset({"aws:resourceaccount", "aws:resourceorgid"})
_CALLER = frozenset(
    {"aws:principalaccount", "aws:principalorgid", "aws:sourceaccount", "aws:sourceorgid"}
)
_POSITIVE = frozenset(
    {"arnequals", "arnlike", "stringequals", "stringequalsignorecase", "stringlike"}
)
_NEGATIVE = frozenset(
    {"arnnotequals", "arnnotlike", "stringnotequals", "stringnotequalsignorecase", "stringnotlike"}
)


def _tied(tests: Sequence[_Test]) -> bool:
    """Whether one of a statement's conditions holds for nobody but somebody known.

    An operator with IfExists or ForAllValues also holds where the request does not have the key;
    it ties only beside a Null that asks for the key.
    """
    there = {
        test.key
        for test in tests
        if test.operator == "null" and all(value.lower() == "false" for value in test.values)
    }
    return any(
        _names_somebody(test, _POSITIVE, "ipaddress")
        and (test.key in there or not (test.if_exists or test.quantifier == "forallvalues"))
        for test in tests
    )


def _names_somebody(test: _Test, operators: frozenset[str], network: str) -> bool:
    """Whether every value that the condition compares with is somebody known."""
    if test.key == "aws:sourceip":
        return (test.operator == network or test.operator in operators) and _narrow(test.values)
    if test.key == "aws:principalisawsservice":
        # A service by itself, as one that Principal names.
        wanted = "true" if operators is _POSITIVE else "false"
        return test.operator == "bool" and all(one.lower() == wanted for one in test.values)
    if test.operator not in operators:
        return False
    if test.key in _OWNER:
        return all(_variable(value) in _CALLER for value in test.values)
    known = _KEYS.get(test.key)
    return known is not None and all(
        known(value) or (test.key in _CALLER and _variable(value) in _OWNER)
        for value in test.values
    )


def _variable(value: str) -> str:
    """The key of a value that is one policy variable and nothing else."""
    return value[2:-1].lower() if value.startswith("${") and value.endswith("}") else ""


_PRIVATE = tuple(
    ipaddress.IPv4Network(one) for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")
)


def _narrow(values: Sequence[str]) -> bool:
    """Networks that, put together, are of somebody: S3 calls wider ones public.

    Two halves of the world are the world. Private addresses reach nothing from outside.
    """
    fours: list[ipaddress.IPv4Network] = []
    sixes: list[ipaddress.IPv6Network] = []
    for value in values:
        try:
            network = ipaddress.ip_network(value, strict=False)
        except ValueError:
            return False
        if isinstance(network, ipaddress.IPv6Network):
            sixes.append(network)
        elif not any(network.subnet_of(one) for one in _PRIVATE):
            fours.append(network)
    return all(one.prefixlen >= 8 for one in ipaddress.collapse_addresses(fours)) and all(
        one.prefixlen >= 32 for one in ipaddress.collapse_addresses(sixes)
    )


# --- what a Deny takes back -------------------------------------------------------------------


def _hits_every_stranger(statement: Statement, part: str) -> bool:
    """A Deny for everyone whose conditions, if any, hold for all but somebody known.

    A negated operator also holds where the request does not have the key.
    """
    return _names_strangers(statement, part) and all(
        _names_somebody(test, _NEGATIVE, "notipaddress")
        and test.quantifier in ("", "forallvalues")
        # A request without the key would pass Bool by.
        and (test.operator != "bool" or test.if_exists)
        for test in _tests(statement, part)
    )


def _takes_back(deny: Statement, allow: Statement) -> bool:
    """Whether the Deny is about all that the Allow is about."""
    actions = [one.lower() for one in texts(allow.get("Action"))]
    denied = [one.lower() for one in texts(deny.get("Action"))]
    return _all_within(actions, denied, _within) and (
        # A repository's or a function's policy may leave out what it sits on.
        not deny.keys() & {"Resource", "NotResource"}
        or _all_within(texts(allow.get("Resource")), texts(deny.get("Resource")), _arn_within)
    )


def _all_within(
    inner: Sequence[str], outer: Sequence[str], within: Callable[[str, str], bool]
) -> bool:
    return "*" in outer or (
        bool(inner) and all(any(within(one, pattern) for pattern in outer) for one in inner)
    )


def _within(inner: str, outer: str) -> bool:
    """Whether ``outer`` matches whatever ``inner`` matches.

    Sound because without a ? in it a pattern that matches the text of another, its wildcards
    included, has a * wherever that has a wildcard.
    """
    return "?" not in outer and like(outer, inner)


def _arn_within(inner: str, outer: str) -> bool:
    """In ARNs no wildcard reaches over one of the first five colons."""
    pieces = inner.split(":", 5), outer.split(":", 5)
    return len(pieces[0]) == len(pieces[1]) and all(map(_within, *pieces))


# --- the fix ----------------------------------------------------------------------------------


def without(policy: Policy, places: Sequence[int], part: str = "Policy") -> Policy | None:
    """The policy without these statements; None where none would be left."""
    left = [one for place, one in enumerate(statements_of(policy, part)) if place not in places]
    return {**policy, "Statement": left} if left else None


def in_words(statement: Statement) -> str:
    """What an open statement allows, for people."""
    actions = ", ".join(texts(statement.get("Action")))
    if not actions:
        actions = f"all but {', '.join(texts(statement.get('NotAction')))}"
    condition = statement.get("Condition")
    return f"lets everyone do {actions}" + (f", if {document(condition)}" if condition else "")


def title_of(statement: Statement, place: int) -> str:
    return f"Policy, statement {statement.get('Sid') or place + 1}"


def shut(
    *,
    put: Callable[[Resource, str], Call],
    put_action: str,
    drop: Callable[[Resource], Call],
    drop_action: str,
    policy: Callable[[Resource], Any] = lambda resource: resource.config["Policy"],
) -> Fix:
    """A planner that takes the open statements out of a policy, and nothing else.

    ``put`` writes a policy's text, ``drop`` takes the policy away: what is done where no statement
    would be left. The undo writes the old policy again.
    """

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        found = policy(resource)
        if lets_no_stranger_in(found):
            return ()
        old = mapping(found, "Policy")
        places, statements = open_statements(old), statements_of(old)
        others = len(statements) - len(places)
        stays = f"taken out; others stay: {others}" if others else "taken out, the policy with it"
        changes = tuple(
            Change(title_of(statements[place], place), in_words(statements[place]), stays)
            for place in places
        )
        left, undo = without(old, places), put(resource, document(old))
        if left is None:
            return (Step(drop_action, drop(resource), (undo,), changes),)
        return (Step(put_action, put(resource, document(left)), (undo,), changes),)

    return fix
