"""EC2's rules: security groups that the internet can enter, EBS encryption by default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tasks.model import Call, Change, Cloud, Config, Fix, Predicate, Resource, Rule, Severity, Step
from tasks.rules.guide import guide
from tasks.rules.network import (
    ALL_PORTS,
    ALLOWED_CIDRS,
    Door,
    Network,
    PortRange,
    allowed_networks,
    exposing,
    inside,
    minus,
    network,
    overlap,
    port_text,
    ports_text,
    public,
    refuse_internet,
    segments,
)
from tasks.rules.ports import EXPOSED, HIGH_RISK, Exposed
from tasks.rules.shape import flag, mapping, number, odd, sequence, text

AUTHORIZE = "ec2:AuthorizeSecurityGroupIngress"
REVOKE = "ec2:RevokeSecurityGroupIngress"

_PART = "IpPermissions"
_EVERY_PROTOCOL = "-1"
_PROTOCOL_NUMBERS = {"1": "icmp", "6": "tcp", "17": "udp", "58": "icmpv6"}
_ALLOWED_DESCRIPTION = "Still allowed when Suture closed this to the internet"


# --- a security group as a set of grants ------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Grant:
    """One network that a security group lets in: a row of IpPermissions taken apart.

    ``protocol``, ``ports``, ``cidr`` and ``description`` are as EC2 gave them, because a revoke
    must name them so and an undo must bring them back so. Prefix lists and referenced groups are
    no grants: they are neither judged nor touched.
    """

    protocol: str
    ports: PortRange | None
    cidr: str
    description: str | None = None

    @property
    def network(self) -> Network:
        return network(self.cidr)

    @property
    def name(self) -> str:
        """The protocol's name: EC2 takes "6" for "tcp"."""
        return _PROTOCOL_NUMBERS.get(self.protocol, self.protocol.lower())

    @property
    def key(self) -> tuple[str, PortRange | None, Network]:
        """What EC2 tells grants apart by; two with one key cannot be in a group."""
        return (self.name, self.ports, self.network)

    def through(self, door: Door) -> PortRange | None:
        """The ports of ``door`` that this grant opens."""
        if self.protocol == _EVERY_PROTOCOL:
            return door.ports
        if self.name != door.protocol or self.ports is None:
            return None
        return overlap(self.ports, door.ports)

    def holds(self, other: Grant) -> bool:
        """Whether all that ``other`` lets in is let in by this one too."""
        if not inside(other.network, self.network):
            return False
        if self.protocol == _EVERY_PROTOCOL:
            return True
        if self.name != other.name or self.ports is None or other.ports is None:
            return self.key[:2] == other.key[:2]
        return overlap(self.ports, other.ports) == other.ports

    def __str__(self) -> str:
        return f"{self.traffic} from {self.cidr}"

    @property
    def traffic(self) -> str:
        if self.protocol == _EVERY_PROTOCOL:
            return "every protocol and port"
        return f"{self.name} {port_text(self.ports)}" if self.ports else self.name


def grants(resource: Resource) -> tuple[Grant, ...]:
    """What IpPermissions lets in, network by network. MissingData when it cannot be read."""
    return resource.config.derived(_grants)


def _grants(config: Config) -> tuple[Grant, ...]:
    found: list[Grant] = []
    for entry in sequence(config[_PART], _PART):
        permission = mapping(entry, _PART)
        protocol = text(permission.get("IpProtocol"), f"{_PART}.IpProtocol")
        ports = _ports(permission, protocol)
        for ranges, field, version in (("IpRanges", "CidrIp", 4), ("Ipv6Ranges", "CidrIpv6", 6)):
            for source in sequence(permission.get(ranges, ()), f"{_PART}.{ranges}"):
                found.append(_grant(protocol, ports, mapping(source, _PART), field, version))
    return tuple(found)


def _public_grants(config: Config) -> tuple[Grant, ...]:
    """Those that let some of the internet in: all that forty rules of ports need to look at."""
    return tuple(grant for grant in config.derived(_grants) if public([grant.network]))


def _ports(permission: Mapping[str, Any], protocol: str) -> PortRange | None:
    """FromPort and ToPort: always there for TCP and UDP, for others as EC2 has them."""
    first, last = permission.get("FromPort"), permission.get("ToPort")
    named = _PROTOCOL_NUMBERS.get(protocol, protocol.lower())
    if named not in {"tcp", "udp"} and first is None and last is None:
        return None
    ports = number(first, f"{_PART}.FromPort"), number(last, f"{_PART}.ToPort")
    if named in {"tcp", "udp"} and not 0 <= ports[0] <= ports[1] <= 65535:
        raise odd(f"{_PART}.FromPort")
    return ports


def _grant(
    protocol: str, ports: PortRange | None, source: Mapping[str, Any], field: str, version: int
) -> Grant:
    cidr = text(source.get(field), f"{_PART}.{field}")
    description = source.get("Description")
    try:
        right_family = network(cidr).version == version
    except ValueError:
        right_family = False
    if not right_family or not isinstance(description, str | None):
        raise odd(f"{_PART}.{field}")
    return Grant(protocol, ports, cidr, description)


def permissions(some: Iterable[Grant]) -> list[dict[str, Any]]:
    """Grants as IpPermissions, one entry per protocol and ports, as EC2 merges them."""
    entries: dict[tuple[str, PortRange | None], dict[str, Any]] = {}
    for grant in some:
        entry = entries.setdefault((grant.protocol, grant.ports), {"IpProtocol": grant.protocol})
        if grant.ports is not None:
            entry["FromPort"], entry["ToPort"] = grant.ports
        ranges, field = (
            ("IpRanges", "CidrIp") if grant.network.version == 4 else ("Ipv6Ranges", "CidrIpv6")
        )
        source = {field: grant.cidr}
        if grant.description is not None:
            source["Description"] = grant.description
        entry.setdefault(ranges, []).append(source)
    return list(entries.values())


# --- the one predicate and the one planner of all port rules ----------------------------------


def _culprits(some: Iterable[Grant], door: Door) -> list[Grant]:
    """The grants without which ``door`` is not open to the internet; none when it is closed."""
    left = list(some)
    found: list[Grant] = []
    while outermost := _outermost(left, door):
        found += [grant for grant in left if grant in outermost]
        left = [grant for grant in left if grant not in outermost]
    return found


def _outermost(some: Sequence[Grant], door: Door) -> set[Grant]:
    """The widest grants that open every port of ``door`` to the internet; none when it is closed.

    443 from anywhere is not one of them where 0-65535 from anywhere stands beside it.
    """
    spans = {grant: span for grant in some if (span := grant.through(door))}
    guilty: set[Grant] = set()
    for segment in segments(spans.values(), door.ports):
        here = [grant for grant, span in spans.items() if overlap(span, segment)]
        worlds = exposing(grant.network for grant in here)
        if not worlds:
            return set()
        guilty |= {grant for grant in here if grant.network in worlds}
    return {
        grant
        for grant in guilty
        if not any(_narrower(spans[grant], spans[other]) for other in guilty)
    }


def _narrower(one: PortRange, other: PortRange) -> bool:
    return one != other and overlap(one, other) == one


def closed_to_internet(*doors: Door) -> Predicate:
    """A predicate: none of ``doors`` is open to the whole internet, over IPv4 or IPv6."""

    def passes(resource: Resource) -> bool:
        strangers = resource.config.derived(_public_grants)
        return not any(_outermost(strangers, door) for door in doors)

    return passes


def close(*doors: Door, whole: bool = False) -> Fix:
    """A planner: takes the internet out of ``doors`` and leaves every other source as it is.

    A range that holds more than the door is split and its other ports stay as they were, or, with
    ``whole``, goes altogether. The networks of ``allowed_cidrs`` get the door (with ``whole``: what
    the grant gave). Additions come before removals, so nobody who may connect is ever shut out.
    """

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        present = grants(resource)
        guilty: dict[Grant, list[Door]] = {}
        for door in doors:
            for grant in _culprits(present, door):
                guilty.setdefault(grant, []).append(door)
        allowed = allowed_networks(values)
        if not guilty:
            return ()
        after = _after(present, guilty, allowed, whole=whole)
        if any(_outermost(after, door) for door in doors):
            refuse_internet([*allowed, *(grant.network for grant in after)])
        return _steps(resource, present, after, guilty, whole=whole)

    return fix


def _after(
    present: Sequence[Grant],
    guilty: Mapping[Grant, Sequence[Door]],
    allowed: Sequence[Network],
    *,
    whole: bool,
) -> list[Grant]:
    """The grants that a group shall have: the innocent, what is left of the guilty, the allowed."""
    before = {grant.key: grant for grant in present}
    after = {grant.key: grant for grant in present if grant not in guilty}
    for grant, doors in guilty.items():
        for piece in _pieces(grant, doors, whole=whole):
            # A grant that is there already is kept as it is: EC2 refuses a duplicate.
            after.setdefault(piece.key, before.get(piece.key, piece))
    for grant, doors in guilty.items():
        for wanted in _allowed(grant, doors, allowed, whole=whole):
            if not any(kept.holds(wanted) for kept in after.values()):
                after[wanted.key] = before.get(wanted.key, wanted)
    return list(after.values())


def _pieces(grant: Grant, doors: Sequence[Door], *, whole: bool) -> list[Grant]:
    """What stays open of a guilty grant: its ports beside the doors. Protocol -1 has no rest."""
    if whole or grant.ports is None or grant.protocol == _EVERY_PROTOCOL:
        return []
    ranges = [grant.ports]
    for door in doors:
        ranges = minus(ranges, door.ports)
    return [replace(grant, ports=ports) for ports in ranges]


def _allowed(
    grant: Grant, doors: Sequence[Door], allowed: Sequence[Network], *, whole: bool
) -> list[Grant]:
    if whole:
        shapes = [(grant.protocol, grant.ports)]
    elif grant.protocol == _EVERY_PROTOCOL:
        shapes = [(door.protocol, door.ports) for door in doors]
    else:
        shapes = [(grant.protocol, span) for door in doors if (span := grant.through(door))]
    return [
        Grant(protocol, ports, str(one), _ALLOWED_DESCRIPTION)
        for protocol, ports in shapes
        for one in allowed
    ]


def _steps(
    resource: Resource,
    present: Sequence[Grant],
    after: Sequence[Grant],
    guilty: Mapping[Grant, Sequence[Door]],
    *,
    whole: bool,
) -> tuple[Step, ...]:
    old, new = {grant.key for grant in present}, {grant.key for grant in after}
    added = [grant for grant in after if grant.key not in old]
    removed = [grant for grant in present if grant.key not in new]
    steps: list[Step] = []
    if added:
        changes = tuple(_added(grant, guilty) for grant in added)
        steps.append(_step(resource, AUTHORIZE, REVOKE, added, changes))
    if removed:
        changes = tuple(_removed(grant, guilty[grant], whole=whole) for grant in removed)
        steps.append(_step(resource, REVOKE, AUTHORIZE, removed, changes))
    return tuple(steps)


def _step(
    resource: Resource, action: str, reverse: str, some: list[Grant], changes: tuple[Change, ...]
) -> Step:
    params = {
        "GroupId": text(resource.config["GroupId"], "GroupId"),
        "IpPermissions": permissions(some),
    }
    return Step(action, _call(action, params), (_call(reverse, params),), changes)


def _call(action: str, params: Mapping[str, Any]) -> Call:
    return Call(Cloud.AWS, "ec2", action.partition(":")[2], params)


def _added(grant: Grant, guilty: Mapping[Grant, Sequence[Door]]) -> Change:
    for wide in guilty:
        if wide.cidr == grant.cidr and wide.holds(grant):
            return Change(
                f"inbound {grant}",
                f"allowed, as part of {wide.traffic}",
                "allowed as before, now on its own",
            )
    return Change(f"inbound {grant}", "not allowed on its own", "allowed")


def _removed(grant: Grant, doors: Sequence[Door], *, whole: bool) -> Change:
    before = "allowed" + (f' ("{grant.description}")' if grant.description else "")
    rest = [piece.ports for piece in _pieces(grant, doors, whole=whole) if piece.ports]
    if grant.protocol == _EVERY_PROTOCOL:
        after = "removed: every protocol and port from this source; nothing of it is added back"
    elif rest:
        after = f"{_doors(doors)} removed; {ports_text(rest)} stays open to {grant.cidr}"
    else:
        after = "removed"
    return Change(f"inbound {grant}", before, after)


def _doors(doors: Sequence[Door]) -> str:
    return ", ".join(map(str, doors))


# --- EBS --------------------------------------------------------------------------------------


def encrypts_by_default(resource: Resource) -> bool:
    """New EBS volumes of this region are encrypted whether or not their creator asks for it."""
    return flag(resource.config["EbsEncryptionByDefault"], "EbsEncryptionByDefault")


def encrypt_by_default(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Turns the region's default on. Volumes that exist are not touched."""
    if encrypts_by_default(resource):
        return ()
    return (
        Step(
            "ec2:EnableEbsEncryptionByDefault",
            Call(Cloud.AWS, "ec2", "EnableEbsEncryptionByDefault", {}),
            (Call(Cloud.AWS, "ec2", "DisableEbsEncryptionByDefault", {}),),
            (
                Change(
                    f"EbsEncryptionByDefault in {resource.region}",
                    "false: new volumes are encrypted only when asked for",
                    "true: every new volume and snapshot copy is encrypted",
                ),
            ),
        ),
    )


# --- the rows ---------------------------------------------------------------------------------


def _port(one: Exposed) -> Rule:
    """The row of one service's ports: everything but the words of the table is shared."""
    return _security_group_rule(
        one.name,
        f"Security group does not open {one.service} ({one.ports}) to the internet",
        one.doors,
        one.severity,
        aka=one.aws,
        guide_text=guide(
            "aws_ec2_security_group_port_not_open",
            service=one.service,
            port=port_text(one.doors[0].ports),
            protocol=one.doors[0].protocol,
            ports=one.ports,
            risk=one.risk,
        ),
    )


def _security_group_rule(
    name: str,
    title: str,
    doors: tuple[Door, ...],
    severity: Severity,
    *,
    aka: tuple[str, ...],
    guide_text: str,
    whole: bool = False,
) -> Rule:
    return Rule(
        id=f"aws_ec2_security_group_{name}_not_open",
        kind="aws.ec2.security_group",
        severity=severity,
        title=title,
        passes=closed_to_internet(*doors),
        fix=close(*doors, whole=whole),
        inputs=(ALLOWED_CIDRS,),
        reads=("ec2:DescribeSecurityGroups",),
        writes=(AUTHORIZE, REVOKE),
        events=(AUTHORIZE, REVOKE, "ec2:ModifySecurityGroupRules"),
        aka=aka,
        guide=guide_text,
    )


PORT_RULES = tuple(_port(one) for one in EXPOSED)

RULES = (
    *PORT_RULES,
    _security_group_rule(
        "all_ports",
        "Security group does not open every port to the internet",
        ALL_PORTS,
        Severity.CRITICAL,
        aka=(
            "prowler:ec2_securitygroup_allow_ingress_from_internet_to_all_ports",
            "cis-aws-6.0:6.3",
            "cis-aws-6.0:6.4",
        ),
        guide_text=guide("aws_ec2_security_group_all_ports_not_open"),
        whole=True,
    ),
    _security_group_rule(
        "high_risk_ports",
        "Security group opens no port of high risk to the internet",
        HIGH_RISK,
        Severity.HIGH,
        aka=(
            "prowler:ec2_securitygroup_allow_ingress_from_internet_to_high_risk_tcp_ports",
            "securityhub:EC2.19",
        ),
        guide_text=guide(
            "aws_ec2_security_group_port_not_open",
            service="a service of high risk",
            port=port_text(HIGH_RISK[0].ports),
            protocol="tcp",
            ports=", ".join(port_text(door.ports) for door in HIGH_RISK),
            risk="Each of these ports is scanned all day, and each has been the way in of many.",
        ),
    ),
    Rule(
        id="aws_ec2_ebs_encrypted_by_default",
        kind="aws.ec2.ebs_defaults",
        severity=Severity.MEDIUM,
        title="New EBS volumes are encrypted by default",
        passes=encrypts_by_default,
        fix=encrypt_by_default,
        reads=("ec2:GetEbsEncryptionByDefault",),
        writes=("ec2:EnableEbsEncryptionByDefault", "ec2:DisableEbsEncryptionByDefault"),
        events=("ec2:EnableEbsEncryptionByDefault", "ec2:DisableEbsEncryptionByDefault"),
        aka=("prowler:ec2_ebs_default_encryption", "securityhub:EC2.7", "cis-aws-6.0:6.1.1"),
        guide=guide("aws_ec2_ebs_encrypted_by_default"),
    ),
)
