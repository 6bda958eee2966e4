"""Azure network security groups that the internet can enter, judged in priority order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Config, Fix, Predicate, Resource, Rule, Severity, Step
from tasks.rules.guide import guide
from tasks.rules.network import (
    ALL_PORTS,
    ALLOWED_CIDRS,
    ANYWHERE,
    Door,
    Network,
    PortRange,
    allowed_networks,
    covers,
    exposing,
    inside,
    is_internet,
    minus,
    network,
    overlap,
    port_text,
    ports_text,
    public,
    refuse_internet,
    segments,
    subtract,
    tcp,
)
from tasks.rules.ports import AMPLIFIERS, EXPOSED, HIGH_RISK, Exposed
from tasks.rules.shape import mapping, number, odd, sequence, text

API_VERSION = "2024-05-01"
GROUP = "Microsoft.Network/networkSecurityGroups"
WRITE = f"{GROUP}/securityRules/write"
DELETE = f"{GROUP}/securityRules/delete"

_PART = "properties.securityRules"
_ANY = "*"
_ANY_PORT: PortRange = (0, 65535)
_ANYWHERE_WORDS = {"*", "any", "internet"}
_PRIORITIES = range(100, 4097)
_READ_ONLY = {"provisioningState", "etag", "resourceGuid"}
_NAME_LENGTH = 80
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


# --- a security rule as ARM gives it ----------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Inbound:
    """One inbound security rule. ``body`` is its properties as ARM takes them back in a PUT.

    ``sources`` and ``destinations`` are prefixes, service tags and ids of application security
    groups, as written; ``protocol`` is in lower case.
    """

    name: str
    priority: int
    allows: bool
    protocol: str
    ports: tuple[PortRange, ...]
    sources: tuple[str, ...]
    source_ports: tuple[PortRange, ...]
    destinations: tuple[str, ...]
    body: Mapping[str, Any]

    def speaks(self, protocol: str) -> bool:
        return self.protocol in (_ANY, protocol)

    @property
    def networks(self) -> list[Network]:
        return [one for source in self.sources for one in addresses(source)]

    def through(self, door: Door) -> tuple[PortRange, ...]:
        """The ports of ``door`` that this rule is about."""
        if not self.speaks(door.protocol):
            return ()
        return tuple(shared for one in self.ports if (shared := overlap(one, door.ports)))

    def __str__(self) -> str:
        verb = "allows" if self.allows else "denies"
        protocol = "every protocol" if self.protocol == _ANY else self.protocol
        return (
            f"{verb} {protocol} to ports {ports_text(self.ports)} "
            f"from {', '.join(self.sources)}, priority {self.priority}"
        )


def addresses(source: str) -> tuple[Network, ...]:
    """The addresses that a source names.

    A service tag other than Internet and an application security group name no part of the
    internet that anybody could count on: none. So they neither open a rule nor shadow one.
    """
    if source.lower() in _ANYWHERE_WORDS:
        return ANYWHERE
    try:
        return (network(source),)
    except ValueError:
        return ()


def inbound(resource: Resource) -> tuple[Inbound, ...]:
    """A group's inbound rules, in the order Azure tries them. MissingData when unreadable.

    The default rules are left out: after the last of these, nothing from the internet gets in.
    """
    return resource.config.derived(_inbound_rules)


def _inbound_rules(config: Config) -> tuple[Inbound, ...]:
    rules = [_inbound(name, body) for name, body in _bodies(config) if _is_inbound(body)]
    if len({rule.name.lower() for rule in rules}) != len(rules):
        raise odd(f"{_PART}.name")
    return tuple(sorted(rules, key=lambda rule: rule.priority))


def _bodies(config: Config) -> Iterator[tuple[str, Mapping[str, Any]]]:
    properties = mapping(config["properties"], "properties")
    for entry in sequence(properties.get("securityRules"), _PART):
        rule = mapping(entry, _PART)
        body = mapping(rule.get("properties"), f"{_PART}.properties")
        writable = {name: value for name, value in body.items() if name not in _READ_ONLY}
        yield text(rule.get("name"), f"{_PART}.name"), writable


def _is_inbound(body: Mapping[str, Any]) -> bool:
    return _word(body, "direction", "inbound", "outbound") == "inbound"


def _inbound(name: str, body: Mapping[str, Any]) -> Inbound:
    allows = _word(body, "access", "allow", "deny") == "allow"
    source_ports = _ports(body, "sourcePort")
    ports = _ports(body, "destinationPort")
    sources = _ends(body, "source")
    if not ports or not sources:
        raise odd(f"{_PART}.{'source' if ports else 'destinationPortRange'}")
    if allows and not source_ports:
        source_ports = (_ANY_PORT,)  # a deny that names none shadows nothing
    return Inbound(
        name=name,
        priority=number(body.get("priority"), f"{_PART}.priority"),
        allows=allows,
        protocol=text(body.get("protocol"), f"{_PART}.protocol").lower(),
        ports=ports,
        sources=sources,
        source_ports=source_ports,
        destinations=_ends(body, "destination"),
        body=body,
    )


def _word(body: Mapping[str, Any], field: str, *known: str) -> str:
    word = text(body.get(field), f"{_PART}.{field}").lower()
    if word not in known:
        raise odd(f"{_PART}.{field}")
    return word


def _both_spellings(body: Mapping[str, Any], one: str, many: str) -> list[str]:
    """ARM writes one value in the singular field and several in the plural; either may be empty."""
    listed = body.get(many)
    values = [*([body.get(one)] if body.get(one) else [])]
    values += sequence(listed, f"{_PART}.{many}") if listed is not None else []
    return [text(value, f"{_PART}.{one}") for value in values]


def _ports(body: Mapping[str, Any], side: str) -> tuple[PortRange, ...]:
    written = _both_spellings(body, f"{side}Range", f"{side}Ranges")
    return tuple(_port_range(one, f"{_PART}.{side}Range") for one in written)


def _port_range(written: str, part: str) -> PortRange:
    if written == _ANY:
        return _ANY_PORT
    match = _PORTS.fullmatch(written)
    if not match:
        raise odd(part)
    ports = int(match[1]), int(match[2] or match[1])
    if not ports[0] <= ports[1] <= 65535:
        raise odd(part)
    return ports


def _ends(body: Mapping[str, Any], side: str) -> tuple[str, ...]:
    prefixes = _both_spellings(body, f"{side}AddressPrefix", f"{side}AddressPrefixes")
    field = f"{side}ApplicationSecurityGroups"
    groups = sequence(body.get(field) or (), f"{_PART}.{field}")
    ids = [
        text(mapping(one, f"{_PART}.{field}").get("id"), f"{_PART}.{field}.id") for one in groups
    ]
    return (*prefixes, *ids)


# --- the one predicate ------------------------------------------------------------------------


def _shadows(deny: Inbound, rule: Inbound, protocol: str, segment: PortRange) -> bool:
    """Whether ``deny`` stands above ``rule`` and stops all it lets in there, its sources aside."""
    return (
        not deny.allows
        and deny.priority < rule.priority
        and deny.speaks(protocol)
        and covers(deny.ports, [segment])
        and covers(deny.source_ports, rule.source_ports)
        and _reaches_all(deny.destinations, rule.destinations)
    )


def _reaches_all(wide: Sequence[str], narrow: Sequence[str]) -> bool:
    """Whether every destination of ``narrow`` surely lies in ``wide``."""
    if any(one.lower() in {_ANY, "any"} for one in wide):
        return True
    known = {one.lower() for one in wide}
    networks = [found for one in wide for found in _prefix(one)]
    return bool(narrow) and all(
        one.lower() in known
        or any(inside(mine, other) for mine in _prefix(one) for other in networks)
        for one in narrow
    )


def _prefix(destination: str) -> list[Network]:
    try:
        return [network(destination)]
    except ValueError:
        return []


def _let_in(
    rules: Sequence[Inbound], rule: Inbound, protocol: str, segment: PortRange
) -> list[Network]:
    """The public addresses that reach ``segment`` through ``rule``, after the denies above it."""
    left = public(rule.networks)
    for other in rules:
        if left and _shadows(other, rule, protocol, segment):
            left = subtract(left, other.networks)
    return left


def _opening(
    rules: Sequence[Inbound], allowing: Sequence[Inbound], door: Door, segment: PortRange
) -> dict[Inbound, frozenset[str]]:
    """Those of ``allowing`` that open ``segment`` to the internet, and the sources that do it.

    A rule for the whole internet counts as soon as any of it gets past the denies above: denying
    some networks does not close a port. Rules for parts of it count where what gets past adds up
    to the whole.
    """
    reach = {
        rule: reached
        for rule in allowing
        if (reached := _let_in(rules, rule, door.protocol, segment))
    }
    whole = any(is_internet(rule.networks) for rule in reach)
    if not whole and not is_internet(one for reached in reach.values() for one in reached):
        return {}
    worlds = exposing(one for rule in reach for one in rule.networks)
    guilty = {
        rule: frozenset(source for source in rule.sources if worlds & set(addresses(source)))
        for rule in reach
    }
    return {rule: sources for rule, sources in guilty.items() if sources}


def _outermost(rules: Sequence[Inbound], door: Door) -> dict[Inbound, frozenset[str]]:
    """The widest rules that open every port of ``door``, with their sources; empty when closed.

    Allow rules must name every port for the internet, and some of it must get past the denies
    above: denying port 22 does not make a harmless rule of one that allows everything.
    """
    spans = {rule: rule.through(door) for rule in rules}
    guilty: dict[Inbound, frozenset[str]] = {}
    for segment in segments((one for span in spans.values() for one in span), door.ports):
        allowing = [rule for rule in rules if rule.allows and covers(spans[rule], [segment])]
        if not is_internet(one for rule in allowing for one in rule.networks):
            return {}
        for rule, sources in _opening(rules, allowing, door, segment).items():
            guilty[rule] = guilty.get(rule, frozenset()) | sources
    return {
        rule: sources
        for rule, sources in guilty.items()
        if not any(
            covers(spans[other], spans[rule]) and not covers(spans[rule], spans[other])
            for other in guilty
        )
    }


def closed_to_internet(*doors: Door) -> Predicate:
    """A predicate: none of ``doors`` is open to the whole internet."""

    def passes(resource: Resource) -> bool:
        rules = inbound(resource)
        if not resource.config.derived(_lets_strangers_in):
            return True
        return not any(_outermost(rules, door) for door in doors)

    return passes


def _lets_strangers_in(config: Config) -> bool:
    """Whether any rule allows a public address at all: most groups have none for forty rules."""
    return any(rule.allows and public(rule.networks) for rule in config.derived(_inbound_rules))


# --- the one planner --------------------------------------------------------------------------


@dataclass(slots=True)
class _Guilt:
    """What is wrong with one rule: the sources that are the internet and the doors they open."""

    sources: set[str]
    doors: list[Door]


def _culprits(rules: Sequence[Inbound], doors: Iterable[Door]) -> dict[str, _Guilt]:
    """By name, what must go of each rule until every door is closed."""
    found: dict[str, _Guilt] = {}
    for door in doors:
        left = list(rules)
        while guilty := _outermost(left, door):
            for rule, sources in guilty.items():
                guilt = found.setdefault(rule.name, _Guilt(set(), []))
                guilt.sources |= sources
                if door not in guilt.doors:
                    guilt.doors.append(door)
            left = [_without_sources(rule, guilty.get(rule, frozenset())) for rule in left]
    return found


def _without_sources(rule: Inbound, sources: frozenset[str]) -> Inbound:
    if not sources:
        return rule
    return replace(rule, sources=tuple(one for one in rule.sources if one not in sources))


def close(*doors: Door, whole: bool = False) -> Fix:
    """A planner: takes the internet out of the very rules that open ``doors``.

    A deny is never stacked on an open rule, which would do nothing below priority 100. A rule
    about more ports keeps them for everybody as before; those who may still use the door (the
    rule's other sources and ``allowed_cidrs``) get it through a rule of their own beside it. With
    ``whole``, the internet loses all the rule's ports. Raises BadInput where no free priority is
    left beside the rule.
    """

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        rules = inbound(resource)
        guilty = _culprits(rules, doors)
        allowed = allowed_networks(values)
        if not guilty:
            return ()
        plan = _Plan(resource, rules)
        for rule in rules:
            if guilt := guilty.get(rule.name):
                plan.close(rule, guilt, allowed, whole=whole)
        if any(_outermost(plan.rules, door) for door in doors):
            refuse_internet([*allowed, *(one for rule in plan.rules for one in rule.networks)])
        return plan.steps

    return fix


class _Plan:
    """A group's rules as they become, and the steps that make them so: added, changed, deleted."""

    def __init__(self, resource: Resource, rules: Sequence[Inbound]) -> None:
        self.rules = list(rules)
        self._group = resource.id
        self._names = {name.lower() for name, _ in _bodies(resource.config)}
        # A deleted rule keeps its priority to the end: additions are made before it goes.
        self._priorities = {rule.priority for rule in rules}
        self._added: list[Step] = []
        self._changed: list[Step] = []
        self._deleted: list[Step] = []

    @property
    def steps(self) -> tuple[Step, ...]:
        """Additions first, so that nobody who may connect is ever shut out."""
        return (*self._added, *self._changed, *self._deleted)

    def close(
        self, rule: Inbound, guilt: _Guilt, allowed: Sequence[Network], *, whole: bool
    ) -> None:
        rest = [] if whole else list(rule.ports)
        for door in guilt.doors:
            rest = minus(rest, door.ports)
        closed = list(rule.ports)
        for ports in rest:
            closed = minus(closed, ports)
        families = _families(rule, guilt, allowed)
        if rest:
            for sources in families:
                self._add(rule, sources, closed)
            self._change(rule, rule.sources, rest, closed, guilt)
        elif families:
            for sources in families[1:]:
                self._add(rule, sources, closed)
            self._change(rule, families[0], list(rule.ports), closed, guilt)
        else:
            self._delete(rule, closed)

    def _add(self, rule: Inbound, sources: Sequence[str], ports: Sequence[PortRange]) -> None:
        name = self._free_name(f"{rule.name}-suture-{port_text(ports[0])}")
        body = _rewritten(rule.body, sources, ports)
        body["priority"] = self._free_priority(rule, ports)
        body["description"] = f"Split from {rule.name} when Suture closed it to the internet."[:140]
        new = _inbound(name, body)
        self.rules.append(new)
        change = Change(f"rule {name}", "not there", f"added: {new}")
        self._added.append(
            Step(WRITE, self._put(name, body), (self._remove(name),), (change,)),
        )

    def _change(
        self,
        rule: Inbound,
        sources: Sequence[str],
        ports: Sequence[PortRange],
        closed: Sequence[PortRange],
        guilt: _Guilt,
    ) -> None:
        body = _rewritten(rule.body, sources, ports)
        self.rules[self.rules.index(rule)] = new = _inbound(rule.name, body)
        self._changed.append(
            Step(
                WRITE,
                self._put(rule.name, body),
                (self._put(rule.name, rule.body),),
                _changes(rule, new, closed, guilt),
            )
        )

    def _delete(self, rule: Inbound, closed: Sequence[PortRange]) -> None:
        self.rules.remove(rule)
        after = f"deleted: it was about nothing but {ports_text(closed)} from the internet"
        self._deleted.append(
            Step(
                DELETE,
                self._remove(rule.name),
                (self._put(rule.name, rule.body),),
                (Change(f"rule {rule.name}", str(rule), after + _every_protocol(rule)),),
            )
        )

    def _target(self, name: str) -> str:
        return f"{self._group}/securityRules/{name}"

    def _put(self, name: str, body: Mapping[str, Any]) -> Call:
        return Call(Cloud.AZURE, API_VERSION, "PUT", {"properties": body}, self._target(name))

    def _remove(self, name: str) -> Call:
        return Call(Cloud.AZURE, API_VERSION, "DELETE", {}, self._target(name))

    def _free_name(self, wanted: str) -> str:
        name, number = wanted[-_NAME_LENGTH:].lstrip("-._"), 2
        base = name
        while name.lower() in self._names:
            suffix = f"-{number}"
            name, number = base[: _NAME_LENGTH - len(suffix)] + suffix, number + 1
        self._names.add(name.lower())
        return name

    def _free_priority(self, rule: Inbound, ports: Sequence[PortRange]) -> int:
        """The nearest free priority with the meaning of the rule's own, after it if possible.

        Allow rules may change places without changing what gets in. A deny about these ports may
        not be crossed: below it the new rule would be shadowed, above it, it would override it.
        """
        taken = self._priorities
        fences = {one.priority for one in self.rules if _may_deny(one, rule, ports)}
        after = _first_free(range(rule.priority + 1, _PRIORITIES.stop), taken, fences)
        before = _first_free(range(rule.priority - 1, _PRIORITIES.start - 1, -1), taken, fences)
        found = [one for one in (after, before) if one is not None]
        if not found:
            raise BadInput(
                f"rule {rule.name}",
                f"has no free priority beside {rule.priority} for a rule of its other sources.",
                "Make room there, or leave allowed_cidrs empty if it has no other sources.",
            )
        nearest = min(found, key=lambda priority: abs(priority - rule.priority))
        taken.add(nearest)
        return nearest


def _first_free(priorities: Iterable[int], taken: set[int], fences: set[int]) -> int | None:
    for priority in priorities:
        if priority in fences:
            return None
        if priority not in taken:
            return priority
    return None


def _may_deny(deny: Inbound, rule: Inbound, ports: Sequence[PortRange]) -> bool:
    return (
        not deny.allows
        and (rule.protocol == _ANY or deny.speaks(rule.protocol))
        and any(overlap(one, other) for one in deny.ports for other in ports)
    )


def _families(rule: Inbound, guilt: _Guilt, allowed: Sequence[Network]) -> list[list[str]]:
    """Who may still use the door, grouped as Azure takes them.

    One rule holds the networks of one IP version, or one service tag, or application security
    groups: Azure refuses a mixture. So an allowed network of an IP version that the rule's
    destination does not have is left out; nothing could come from it anyway.
    """
    kept = [source for source in rule.sources if source not in guilt.sources]
    known = [one for source in kept for one in addresses(source)]
    versions = {one.version for place in rule.destinations for one in _prefix(place)} or {4, 6}
    added = [
        str(one)
        for one in allowed
        if one.version in versions and not any(inside(one, other) for other in known)
    ]
    groups: dict[str, list[str]] = {}
    for source in [*kept, *added]:
        found = addresses(source)
        if found:
            family = f"IPv{found[0].version}"
        else:
            family = "application security groups" if source.startswith("/") else source
        groups.setdefault(family, []).append(source)
    return list(groups.values())


def _rewritten(
    body: Mapping[str, Any], sources: Sequence[str], ports: Sequence[PortRange]
) -> dict[str, Any]:
    """The body of a rule with other sources and destination ports, every other property as was."""
    new = dict(body)
    if list(sources) != list(_ends(body, "source")):
        groups = [one for one in sources if one.startswith("/")]
        prefixes = [one for one in sources if one not in groups]
        _spell(new, "sourceAddressPrefix", "sourceAddressPrefixes", prefixes)
        _drop(new, "sourceApplicationSecurityGroups")
        if groups:
            new["sourceApplicationSecurityGroups"] = [{"id": one} for one in groups]
    if list(ports) != list(_ports(body, "destinationPort")):
        written = ["*" if one == _ANY_PORT else port_text(one) for one in ports]
        _spell(new, "destinationPortRange", "destinationPortRanges", written)
    return new


def _spell(body: dict[str, Any], one: str, many: str, values: Sequence[str]) -> None:
    """One value goes in the singular field, several in the plural: ARM refuses both at once."""
    _drop(body, one, many)
    if len(values) == 1:
        body[one] = values[0]
    elif values:
        body[many] = list(values)


def _drop(body: dict[str, Any], *fields: str) -> None:
    for field in fields:
        body.pop(field, None)


def _changes(
    old: Inbound, new: Inbound, closed: Sequence[PortRange], guilt: _Guilt
) -> tuple[Change, ...]:
    rows = []
    if old.sources != new.sources:
        kept = ", ".join(new.sources) + _every_protocol(old)
        rows.append(Change(f"rule {old.name}: source", ", ".join(old.sources), kept))
    if old.ports != new.ports:
        after = (
            f"{ports_text(new.ports)}, still open to {', '.join(sorted(guilt.sources))}; "
            f"{ports_text(closed)} closed to it{_every_protocol(old)}"
        )
        rows.append(Change(f"rule {old.name}: destination ports", ports_text(old.ports), after))
    return tuple(rows)


def _every_protocol(rule: Inbound) -> str:
    """A rule for every protocol loses the port for all of them.

    Splitting it by protocol would take three rules where one was and keep nothing but UDP on an
    administrator's port.
    """
    return " (for every protocol, as the rule has it)" if rule.protocol == _ANY else ""


# --- the rows ---------------------------------------------------------------------------------


def _port(one: Exposed) -> Rule:
    """The row of one service's ports: everything but the words of the table is shared."""
    return _group_rule(
        one.name,
        f"Network security group does not open {one.service} ({one.ports}) to the internet",
        one.doors,
        one.severity,
        aka=one.azure,
        guide_text=_port_guide(one.service, one.doors, one.risk),
    )


def _port_guide(service: str, doors: tuple[Door, ...], risk: str) -> str:
    return guide(
        "azure_network_security_group_port_not_open",
        service=service,
        port=port_text(doors[0].ports),
        protocol=doors[0].protocol.capitalize(),
        ports=", ".join(dict.fromkeys(port_text(door.ports) for door in doors)),
        risk=risk,
    )


def _group_rule(
    name: str,
    title: str,
    doors: tuple[Door, ...],
    severity: Severity,
    *,
    aka: tuple[str, ...] = (),
    guide_text: str,
    whole: bool = False,
) -> Rule:
    return Rule(
        id=f"azure_network_security_group_{name}_not_open",
        kind="azure.network.security_group",
        severity=severity,
        title=title,
        passes=closed_to_internet(*doors),
        fix=close(*doors, whole=whole),
        inputs=(ALLOWED_CIDRS,),
        reads=(f"{GROUP}/read",),
        writes=(WRITE, DELETE),
        events=(f"{GROUP}/write", WRITE, DELETE),
        aka=aka,
        guide=guide_text,
    )


PORT_RULES = tuple(_port(one) for one in EXPOSED)
_HIGH_RISK = "Each of these ports is scanned all day, and each has been the way in of many."
_UDP = "A forged sender makes these services flood somebody else, and pay for it."
_HTTP = "Plain HTTP can be read and changed on its way, and scanners try every known hole on it."

RULES = (
    *PORT_RULES,
    _group_rule(
        "any_port",
        "Network security group does not open every port to the internet",
        ALL_PORTS,
        Severity.CRITICAL,
        guide_text=guide("azure_network_security_group_any_port_not_open"),
        whole=True,
    ),
    _group_rule(
        "high_risk_ports",
        "Network security group opens no port of high risk to the internet",
        HIGH_RISK,
        Severity.HIGH,
        guide_text=_port_guide("a service of high risk", HIGH_RISK, _HIGH_RISK),
    ),
    _group_rule(
        "udp_amplifiers",
        "Network security group opens no UDP service to the internet that multiplies traffic",
        AMPLIFIERS,
        Severity.HIGH,
        aka=("prowler:network_udp_internet_access_restricted", "cis-azure-5.0:7.3"),
        guide_text=_port_guide("UDP services that multiply traffic", AMPLIFIERS, _UDP),
    ),
    _group_rule(
        "http",
        "Network security group does not open HTTP (80) to the internet",
        tcp(80),
        Severity.MEDIUM,
        aka=("prowler:network_http_internet_access_restricted", "cis-azure-5.0:7.4"),
        guide_text=_port_guide("HTTP", tcp(80), _HTTP),
    ),
)
