"""EC2's rules about networks: default security groups, network ACLs, flow logs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.model import Call, Change, Cloud, Config, Predicate, Resource, Rule, Severity, Step
from tasks.rules.guide import written
from tasks.rules.network import (
    ALL_PORTS,
    Door,
    Network,
    PortRange,
    is_internet,
    network,
    subtract,
    tcp,
)
from tasks.rules.shape import flag, mapping, number, odd, sequence, text

# --- default security groups ------------------------------------------------------------------

_INGRESS, _EGRESS = "IpPermissions", "IpPermissionsEgress"
_WAYS = ((_INGRESS, "Ingress", "inbound"), (_EGRESS, "Egress", "outbound"))
# What a permission may name as its other end, and what of that EC2 takes back again.
_ENDS = {
    "IpRanges": ("CidrIp", "Description"),
    "Ipv6Ranges": ("CidrIpv6", "Description"),
    "PrefixListIds": ("PrefixListId", "Description"),
    "UserIdGroupPairs": ("GroupId", "UserId", "VpcPeeringConnectionId", "Description"),
}


def _permissions(resource: Resource, part: str) -> Sequence[Mapping[str, Any]]:
    return [mapping(one, part) for one in sequence(resource.config[part], part)]


def default_group_is_closed(resource: Resource) -> bool:
    """A network's default group has no rules at all. Other groups are not this rule's to judge."""
    inbound, outbound = (_permissions(resource, part) for part in (_INGRESS, _EGRESS))
    if text(resource.config["GroupName"], "GroupName") != "default":
        return True
    return not inbound and not outbound


def close_default_group(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Takes every rule out, and the undo puts every one back as it was."""
    if default_group_is_closed(resource):
        return ()
    group = text(resource.config["GroupId"], "GroupId")
    steps = []
    for part, way, word in _WAYS:
        present = _permissions(resource, part)
        if not present:
            continue
        params = {
            "GroupId": group,
            "IpPermissions": [_sendable(one, part) for one in present],
        }
        steps.append(
            Step(
                f"ec2:RevokeSecurityGroup{way}",
                Call(Cloud.AWS, "ec2", f"RevokeSecurityGroup{way}", params),
                (Call(Cloud.AWS, "ec2", f"AuthorizeSecurityGroup{way}", params),),
                tuple(Change(f"{word} {_words(one)}", "allowed", "removed") for one in present),
            )
        )
    return tuple(steps)


def _sendable(permission: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A permission as EC2 takes it: without what it only tells, such as a peering's status."""
    sent: dict[str, Any] = {"IpProtocol": text(permission.get("IpProtocol"), part)}
    for port in ("FromPort", "ToPort"):
        if permission.get(port) is not None:
            sent[port] = permission[port]
    for kind, fields in _ENDS.items():
        ends = [mapping(one, part) for one in sequence(permission.get(kind, ()), part)]
        if ends:
            sent[kind] = [
                {field: one[field] for field in fields if one.get(field) is not None}
                for one in ends
            ]
    return sent


def _words(permission: Mapping[str, Any]) -> str:
    """Which traffic, with whom: "tcp 22-22 with 10.0.0.0/8"."""
    protocol = permission.get("IpProtocol")
    ports = (
        f" {permission['FromPort']}-{permission.get('ToPort')}" if "FromPort" in permission else ""
    )
    ends = [
        str(one.get(fields[0]))
        for kind, fields in _ENDS.items()
        for one in permission.get(kind, ())
    ]
    traffic = "every protocol and port" if protocol == "-1" else f"{protocol}{ports}"
    return f"{traffic} with {', '.join(ends)}"


# --- network ACLs -----------------------------------------------------------------------------

_ENTRIES = "Entries"
_PROTOCOLS = {"6": "tcp", "17": "udp"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One inbound rule of a network ACL. Without ``ports`` it is about all of them."""

    number: int
    allows: bool
    protocol: str
    network: Network
    ports: PortRange | None

    def holds(self, door: Door) -> bool:
        """Whether it decides about every port of ``door``."""
        if self.protocol == "-1":
            return True
        if _PROTOCOLS.get(self.protocol) != door.protocol:
            return False
        return self.ports is None or (self.ports[0] <= door.first and door.last <= self.ports[1])


def _inbound(config: Config) -> tuple[Entry, ...]:
    """In the order in which EC2 asks them. MissingData where they cannot be read."""
    entries = [mapping(one, _ENTRIES) for one in sequence(config[_ENTRIES], _ENTRIES)]
    inbound = [_entry(one) for one in entries if not flag(one.get("Egress"), f"{_ENTRIES}.Egress")]
    if not inbound:
        raise odd(_ENTRIES)  # the last one, which denies the rest, is always there
    return tuple(sorted(inbound, key=lambda entry: entry.number))


def _entry(entry: Mapping[str, Any]) -> Entry:
    action, ports = entry.get("RuleAction"), entry.get("PortRange")
    if action not in ("allow", "deny"):
        raise odd(f"{_ENTRIES}.RuleAction")
    cidr = text(entry.get("CidrBlock") or entry.get("Ipv6CidrBlock"), f"{_ENTRIES}.CidrBlock")
    try:
        source = network(cidr)
    except ValueError:
        raise odd(f"{_ENTRIES}.CidrBlock") from None
    return Entry(
        number(entry.get("RuleNumber"), f"{_ENTRIES}.RuleNumber"),
        action == "allow",
        text(entry.get("Protocol"), f"{_ENTRIES}.Protocol"),
        source,
        None if ports is None else _ports(mapping(ports, f"{_ENTRIES}.PortRange")),
    )


def _ports(ports: Mapping[str, Any]) -> PortRange:
    first, last = (number(ports.get(end), f"{_ENTRIES}.PortRange") for end in ("From", "To"))
    return first, last


def _is_open(entries: Iterable[Entry], door: Door) -> bool:
    """Whether the internet comes through ``door``.

    An entry that allows counts unless those asked before it deny all of its network: who is denied
    beforehand, such as a few bad addresses, does not make the rest of the internet any smaller.
    """
    denied: list[Network] = []
    allowed: list[Network] = []
    for entry in entries:
        if not entry.holds(door):
            continue
        if not entry.allows:
            denied.append(entry.network)
        elif subtract([entry.network], denied):
            allowed.append(entry.network)
    return is_internet(allowed)


def acl_is_closed(*doors: Door) -> Predicate:
    """The internet comes through none of ``doors``."""

    def passes(resource: Resource) -> bool:
        entries = resource.config.derived(_inbound)
        return not any(_is_open(entries, door) for door in doors)

    return passes


# --- flow logs --------------------------------------------------------------------------------


def has_flow_logs(resource: Resource) -> bool:
    """An active flow log of the network itself records what was rejected, at least."""
    logs = [mapping(one, "FlowLogs") for one in sequence(resource.config["FlowLogs"], "FlowLogs")]
    return any(_records(one) for one in logs)


def _records(log: Mapping[str, Any]) -> bool:
    status = text(log.get("FlowLogStatus"), "FlowLogs.FlowLogStatus")
    traffic = text(log.get("TrafficType"), "FlowLogs.TrafficType")
    return status == "ACTIVE" and traffic in ("ALL", "REJECT")


# --- the rows ---------------------------------------------------------------------------------

_GROUP_WRITES = tuple(
    f"ec2:{verb}SecurityGroup{way}" for verb in ("Revoke", "Authorize") for _, way, _ in _WAYS
)

_ACL_CHANGES = ("Create", "Replace", "Delete")


_LOOK = "aws ec2 describe-network-acls --network-acl-ids ACL"


def _closing(port: int) -> tuple[str, str]:
    """How one port is closed by hand: on the command line, and in Terraform."""
    traffic = f"--protocol tcp --port-range From={port},To={port}"
    cli = f"""
        {_LOOK}
        aws ec2 create-network-acl-entry --network-acl-id ACL --ingress --rule-number 80 \\
          {traffic} --rule-action allow --cidr-block 10.0.0.0/8
        aws ec2 create-network-acl-entry --network-acl-id ACL --ingress --rule-number 90 \\
          {traffic} --rule-action deny --cidr-block 0.0.0.0/0
        # And the same with --ipv6-cidr-block ::/0, where the network has IPv6."""
    terraform = f"""
        resource "aws_network_acl_rule" "closed" {{
          network_acl_id = aws_network_acl.this.id
          rule_number    = 90
          rule_action    = "deny"
          protocol       = "tcp"
          from_port      = {port}
          to_port        = {port}
          cidr_block     = "0.0.0.0/0"
        }}"""
    return cli, terraform


# What takes the place of "everything": the service's own port, and replies to clients inside.
_NARROWING = (
    f"""
        {_LOOK}
        aws ec2 create-network-acl-entry --network-acl-id ACL --ingress --rule-number 80 \\
          --protocol tcp --port-range From=443,To=443 --rule-action allow --cidr-block 0.0.0.0/0
        aws ec2 create-network-acl-entry --network-acl-id ACL --ingress --rule-number 90 \\
          --protocol tcp --port-range From=1024,To=65535 --rule-action allow --cidr-block 0.0.0.0/0
        aws ec2 delete-network-acl-entry --network-acl-id ACL --ingress --rule-number 100""",
    """
        resource "aws_network_acl_rule" "https" {
          network_acl_id = aws_network_acl.this.id
          rule_number    = 80
          rule_action    = "allow"
          protocol       = "tcp"
          from_port      = 443
          to_port        = 443
          cidr_block     = "0.0.0.0/0"
        }""",
)


def _acl_rule(
    name: str,
    what: str,
    doors: tuple[Door, ...],
    aka: str,
    matters: str,
    by_hand: tuple[str, str],
) -> Rule:
    """The row of one way in. ``by_hand`` is how people close it: by the CLI, and in Terraform."""
    cli, terraform = by_hand
    return Rule(
        id=f"aws_ec2_network_acl_{name}_not_open",
        kind="aws.ec2.network_acl",
        severity=Severity.MEDIUM,
        title=f"Network ACL does not open {what} to the internet",
        passes=acl_is_closed(*doors),
        fix=None,
        reads=("ec2:DescribeNetworkAcls",),
        writes=(),
        events=(
            "ec2:CreateNetworkAcl",
            *(f"ec2:{change}NetworkAclEntry" for change in _ACL_CHANGES),
        ),
        aka=(aka, "cis-aws-6.0:6.2"),
        guide=written(
            means=f"""Of the ACL's inbound rules, asked in the order of their numbers, one lets the
                whole internet come through to {what}, over IPv4 or IPv6, and none before it denies
                all of that. A new network's default ACL lets everything through.""",
            matters=f"""{matters} An ACL goes for every subnet that has it, and still stands when
                somebody opens a security group by mistake.""",
            console="""VPC > Network ACLs > the ACL > Inbound rules > Edit inbound rules: rules for
                what must pass, numbered below the one that lets everything through; then a deny, or
                no such rule any more.""",
            cli=cli,
            terraform=terraform,
            by_hand="""An ACL keeps no state: what comes back to a client inside is inbound traffic
                too, to whichever port the client took, and a NAT gateway takes any from 1024 up. A
                rule that closes one port for everybody cuts off some of that, and the networks of
                your own as well. Which of them must pass only their owners know.""",
            breaks="""Connections from networks that were not allowed first, and replies to clients
                that happen to use a port that is closed, where it is above 1023.""",
            back="aws ec2 delete-network-acl-entry with the number of what was added.",
        ),
    )


RULES = (
    Rule(
        id="aws_ec2_security_group_default_closed",
        kind="aws.ec2.security_group",
        severity=Severity.MEDIUM,
        title="Default security group lets nothing in or out",
        passes=default_group_is_closed,
        fix=close_default_group,
        reads=("ec2:DescribeSecurityGroups",),
        writes=_GROUP_WRITES,
        events=(*_GROUP_WRITES, "ec2:ModifySecurityGroupRules", "ec2:CreateVpc"),
        aka=(
            "prowler:ec2_securitygroup_default_restrict_traffic",
            "securityhub:EC2.2",
            "cis-aws-6.0:6.5",
        ),
        guide=written(
            means="""The security group called "default" of this network has rules. A new network's
                lets its members reach one another on every port, and the whole internet from
                inside. Groups of other names pass.""",
            matters="""EC2 puts into the default group whatever is launched without one. Nobody
                decided what that may reach, and all of it may reach all the rest. Without rules,
                what was forgotten does not work, which is noticed.""",
            console="""VPC > Security groups > the group "default" > Inbound rules > Edit > delete
                all; the same under Outbound rules. First look at Network interfaces, filtered by
                this group, to see what uses it.""",
            cli="""
                aws ec2 describe-network-interfaces --filters Name=group-id,Values=GROUP
                aws ec2 describe-security-groups --group-ids GROUP > group.json
                aws ec2 revoke-security-group-ingress --group-id GROUP --ip-permissions INBOUND
                aws ec2 revoke-security-group-egress --group-id GROUP --ip-permissions OUTBOUND""",
            terraform="""
                resource "aws_default_security_group" "this" {
                  vpc_id = aws_vpc.this.id
                }""",
            fix="""It takes out every inbound and outbound rule. The group itself cannot be deleted
                and stays attached where it is.""",
            breaks="""What still uses the group loses its network at once, except for connections
                that stand. Give it a group of its own first: the first command shows what that
                is.""",
            back="""Suture's undo puts back every rule as it was, with its description. The rules
                have new ids then.""",
        ),
    ),
    _acl_rule(
        "ssh",
        "SSH (22)",
        tcp(22),
        "prowler:ec2_networkacl_allow_ingress_tcp_port_22",
        "Machines try passwords and stolen keys at every SSH server that answers.",
        _closing(22),
    ),
    _acl_rule(
        "rdp",
        "Remote Desktop (3389)",
        tcp(3389),
        "prowler:ec2_networkacl_allow_ingress_tcp_port_3389",
        "Remote Desktop open to everybody is how much ransomware comes in.",
        _closing(3389),
    ),
    _acl_rule(
        "all_ports",
        "every port",
        ALL_PORTS,
        "prowler:ec2_networkacl_allow_ingress_any_port",
        "An ACL that lets everything through is none.",
        _NARROWING,
    ),
    Rule(
        id="aws_ec2_vpc_flow_logs_enabled",
        kind="aws.ec2.vpc",
        severity=Severity.MEDIUM,
        title="VPC has flow logs of rejected traffic",
        passes=has_flow_logs,
        fix=None,
        reads=("ec2:DescribeVpcs", "ec2:DescribeFlowLogs"),
        writes=(),
        events=("ec2:CreateVpc", "ec2:CreateFlowLogs", "ec2:DeleteFlowLogs"),
        aka=("prowler:vpc_flow_logs_enabled", "securityhub:EC2.6", "cis-aws-6.0:4.7"),
        guide=written(
            means="""No active flow log of this network records what was rejected: there is none, it
                is about single subnets or interfaces, or it records accepted traffic only.""",
            matters="""After a break-in the first question is who talked to whom. Flow logs are the
                only answer for traffic that no load balancer and no application has logged, and
                they cannot be had afterwards.""",
            console="""VPC > Your VPCs > the VPC > Flow logs > Create flow log > Filter: Reject or
                All > a bucket, or a log group with a role that may write there.""",
            cli="""
                aws ec2 create-flow-logs --resource-type VPC --resource-ids VPC \\
                  --traffic-type REJECT --log-destination-type s3 \\
                  --log-destination arn:aws:s3:::BUCKET""",
            terraform="""
                resource "aws_flow_log" "this" {
                  vpc_id               = aws_vpc.this.id
                  traffic_type         = "REJECT"
                  log_destination_type = "s3"
                  log_destination      = aws_s3_bucket.logs.arn
                }""",
            by_hand="""Where logs go, for how long, and who pays for them is for you to say. And a
                flow log gets its id when it is made: an undo that is written down beforehand, as
                all of Suture's are, could not name the one to delete.""",
            breaks="""Nothing: flow logs are taken beside the traffic. They cost by volume; rejected
                traffic alone is a small part of all.""",
            back="aws ec2 delete-flow-logs with its id. What was logged stays.",
        ),
    ),
)
