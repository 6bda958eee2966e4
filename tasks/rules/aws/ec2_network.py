"""EC2's rules about networks: default security groups, network ACLs, flow logs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.model import Call, Change, Cloud, Resource, Rule, Severity, Step
from tasks.rules.guide import written
from tasks.rules.shape import mapping, sequence, text

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


# --- the rows ---------------------------------------------------------------------------------

_GROUP_WRITES = tuple(
    f"ec2:{verb}SecurityGroup{way}" for verb in ("Revoke", "Authorize") for _, way, _ in _WAYS
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
)
