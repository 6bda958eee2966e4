"""EC2's rules: examples, what EC2 makes of their calls, and how to plant them."""

from __future__ import annotations

import ipaddress
import itertools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from hypothesis import strategies as st

from tasks.model import Call, Rule
from tasks.rules import rule as rule_of
from tasks.rules.network import Door
from tasks.rules.ports import EXPOSED, HIGH_RISK

SOURCES = (
    ("IpRanges", "CidrIp"),
    ("Ipv6Ranges", "CidrIpv6"),
    ("PrefixListIds", "PrefixListId"),
    ("UserIdGroupPairs", "GroupId"),
)
Rows = dict[tuple[Any, ...], dict[str, Any]]
DOORS = {
    **{f"aws_ec2_security_group_{one.name}_not_open": one.doors for one in EXPOSED},
    "aws_ec2_security_group_high_risk_ports_not_open": HIGH_RISK,
}
DEFAULT = "aws_ec2_security_group_default_closed"
number = itertools.count()


class Refused(Exception):
    """The simulated API's error."""


def _entry_key(permission: Mapping[str, Any]) -> tuple[Any, ...]:
    return permission["IpProtocol"], permission.get("FromPort"), permission.get("ToPort")


def flat(permissions: Iterable[Mapping[str, Any]]) -> Rows:
    """IpPermissions as {(protocol, from, to, field, source): its description and the like}."""
    rows: Rows = {}
    for permission in permissions:
        for ranges, field in SOURCES:
            for source in permission.get(ranges, []):
                key = (*_entry_key(permission), field, source[field])
                if key in rows:
                    raise Refused("InvalidPermission.Duplicate")
                rows[key] = {name: one for name, one in source.items() if name != field}
    return rows


def nested(rows: Rows) -> list[dict[str, Any]]:
    """The inverse of flat: merged by protocol and ports, as EC2 describes a group."""
    entries: dict[tuple[Any, ...], dict[str, Any]] = {}
    for (protocol, first, last, field, source), rest in rows.items():
        entry = entries.setdefault((protocol, first, last), {"IpProtocol": protocol})
        if first is not None:
            entry |= {"FromPort": first, "ToPort": last}
        ranges = next(ranges for ranges, known in SOURCES if known == field)
        entry.setdefault(ranges, []).append({field: source, **rest})
    return list(entries.values())


def apply(config: dict[str, Any], call: Call) -> None:
    if call.operation.endswith("EbsEncryptionByDefault"):
        config["EbsEncryptionByDefault"] = call.operation.startswith("Enable")
        return
    assert call.params["GroupId"] == config["GroupId"]
    part = "IpPermissionsEgress" if call.operation.endswith("Egress") else "IpPermissions"
    rows, named = flat(config[part]), flat(call.params["IpPermissions"])
    if not named:
        raise Refused("MissingParameter")
    if call.operation.startswith("AuthorizeSecurityGroup"):
        if rows.keys() & named.keys():
            raise Refused("InvalidPermission.Duplicate")
        rows |= named
    elif call.operation.startswith("RevokeSecurityGroup"):
        if named.keys() - rows.keys():
            raise Refused("InvalidPermission.NotFound")
        rows = {key: text for key, text in rows.items() if key not in named}
    else:
        raise Refused(call.operation)
    config[part] = nested(rows)


def snapshot(config: dict[str, Any]) -> Any:
    """Without the order of what has none in EC2."""
    parts = {"IpPermissions", "IpPermissionsEgress"} & config.keys()
    return {**config, **{part: flat(config[part]) for part in parts}}


def plant_group(cloud: Any, config: Mapping[str, Any]) -> str:
    ec2 = cloud.client("ec2")
    if config["GroupName"] == "default":
        return plant_default_group(cloud, config)
    group = ec2.create_security_group(GroupName=f"g{next(number)}", Description="d")["GroupId"]
    if config["IpPermissions"]:
        ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=config["IpPermissions"])
    return f"arn:aws:ec2:{cloud.region}:{cloud.account}:security-group/{group}"


def plant_default_group(cloud: Any, config: Mapping[str, Any]) -> str:
    """A network of its own, whose default group it is."""
    ec2 = cloud.client("ec2")
    network = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
    wanted = [
        {"Name": "vpc-id", "Values": [network]},
        {"Name": "group-name", "Values": ["default"]},
    ]
    (group,) = ec2.describe_security_groups(Filters=wanted)["SecurityGroups"]
    own = json.loads(json.dumps(config).replace("sg-1", group["GroupId"]))
    for part, way in (("IpPermissions", "ingress"), ("IpPermissionsEgress", "egress")):
        if group[part]:
            revoke = getattr(ec2, f"revoke_security_group_{way}")
            revoke(GroupId=group["GroupId"], IpPermissions=group[part])
        if own[part]:
            authorize = getattr(ec2, f"authorize_security_group_{way}")
            authorize(GroupId=group["GroupId"], IpPermissions=own[part])
    return f"arn:aws:ec2:{cloud.region}:{cloud.account}:security-group/{group['GroupId']}"


def plant_ebs(cloud: Any, _config: Mapping[str, Any]) -> str:
    cloud.client("ec2").disable_ebs_encryption_by_default()
    return f"arn:aws:ec2:{cloud.region}:{cloud.account}:ebs-encryption-by-default"


# --- generated ---------------------------------------------------------------------------------

WORLD = st.sampled_from(["0.0.0.0/0", "::/0"])
NETWORKS = st.sampled_from(
    ["10.0.0.0/8", "10.1.0.0/16", "203.0.113.0/24", "198.51.100.7/32", "2001:db8::/32"]
)
WORDS = st.text("abcXYZ 019._-:/()#,@[]+=&;{}!$*", min_size=1, max_size=30)  # as EC2 takes them


Ports = tuple[str, int | None, int | None]
SHAPES: st.SearchStrategy[Ports] = st.one_of(
    st.tuples(st.sampled_from(["tcp", "udp"]), st.integers(0, 32_000), st.integers(32_001, 65_535)),
    st.sampled_from([("tcp", 443, 443), ("tcp", 22, 22), ("icmp", -1, -1), ("-1", None, None)]),
)


ALL = rule_of("aws_ec2_security_group_all_ports_not_open")


def culprits(rule: Rule) -> st.SearchStrategy[Ports]:
    """Ports that a rule about security groups does not want open to everybody."""
    if "all_ports" in rule.id:
        return st.sampled_from([("-1", None, None), ("tcp", 0, 65_535), ("udp", 1, 65_535)])
    return st.sampled_from(DOORS[rule.id]).flatmap(_through)


def _through(door: Door) -> st.SearchStrategy[Ports]:
    port = door.first
    around = st.tuples(st.just(door.protocol), st.integers(0, port), st.integers(port, 65_535))
    return st.one_of(around, st.sampled_from([(door.protocol, port, port), ("-1", None, None)]))


def failing_groups(rule: Rule) -> st.SearchStrategy[dict[str, Any]]:
    return default_groups() if rule.id == DEFAULT else security_groups(rule)


@st.composite
def security_groups(draw: st.DrawFn, rule: Rule) -> dict[str, Any]:
    rows: dict[tuple[Ports, str], str | None] = {(draw(culprits(rule)), draw(WORLD)): None}
    more = st.tuples(SHAPES, st.one_of(WORLD, NETWORKS))
    for key in draw(st.lists(more, max_size=6)):
        rows.setdefault(key, None)
    for key in rows:
        rows[key] = draw(st.none() | WORDS)
    entries: dict[Ports, dict[str, Any]] = {}
    for ((protocol, first, last), cidr), why in rows.items():
        entry = entries.setdefault((protocol, first, last), {"IpProtocol": protocol})
        if first is not None:
            entry |= {"FromPort": first, "ToPort": last}
        v6 = ipaddress.ip_network(cidr).version == 6
        source = {"CidrIpv6" if v6 else "CidrIp": cidr}
        source |= {} if why is None else {"Description": why}
        entry.setdefault("Ipv6Ranges" if v6 else "IpRanges", []).append(source)
    return {"GroupId": "sg-1", "GroupName": "web", "IpPermissions": list(entries.values())}


SELF = {"GroupId": "sg-1", "UserId": "111122223333"}
OTHERS: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        {"IpProtocol": "-1", "UserIdGroupPairs": [SELF]},
        {"IpProtocol": "-1", "UserIdGroupPairs": [{**SELF, "Description": "members"}]},
        {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": "sg-2", "UserId": "444455556666"}]},
        {"IpProtocol": "-1", "PrefixListIds": [{"PrefixListId": "pl-1", "Description": "S3"}]},
    ]
)


@st.composite
def default_groups(draw: st.DrawFn) -> dict[str, Any]:
    """With rules in, rules out, or both."""
    ways: dict[str, Any] = {"IpPermissions": [], "IpPermissionsEgress": []}
    for part in draw(st.sampled_from([*map(list, ([way] for way in ways)), list(ways)])):
        ways[part] = nested(
            flat(draw(security_groups(ALL))["IpPermissions"]) | flat([draw(OTHERS)])
        )
    return {"GroupId": "sg-1", "GroupName": "default", **ways}


# --- examples ----------------------------------------------------------------------------------


def group(*permissions: tuple[str, int | None, int | None, str]) -> dict[str, Any]:
    entries = []
    for protocol, first, last, cidr in permissions:
        v6 = ":" in cidr
        entry: dict[str, Any] = {"IpProtocol": protocol}
        if first is not None:
            entry |= {"FromPort": first, "ToPort": last}
        entry["Ipv6Ranges" if v6 else "IpRanges"] = [{"CidrIpv6" if v6 else "CidrIp": cidr}]
        entries.append(entry)
    return {"GroupId": "sg-1", "GroupName": "web", "IpPermissions": entries}


def open_door(door: Door) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    port, other = door.first, "udp" if door.protocol == "tcp" else "tcp"
    same = (door.protocol, port, port)
    return (
        [
            group(),
            group((*same, "10.0.0.0/8")),
            group(("tcp", 443, 443, "0.0.0.0/0")),
            group((*same, "0.0.0.0/1")),
            group((other, 1, 1, "0.0.0.0/0")),
        ],
        [
            group((*same, "0.0.0.0/0")),
            group(
                (
                    {"tcp": "6", "udp": "17"}[door.protocol],
                    max(0, port - 2),
                    min(65535, port + 8),
                    "::/0",
                )
            ),
            group(("-1", None, None, "0.0.0.0/0")),
            group((*same, "0.0.0.0/1"), (*same, "128.0.0.0/1")),
        ],
    )


def default_group(*ways: list[dict[str, Any]]) -> dict[str, Any]:
    parts = dict(zip(("IpPermissions", "IpPermissionsEgress"), ways, strict=True))
    return {"GroupId": "sg-1", "GroupName": "default", **parts}


# What EC2 gives every new network's default group.
MEMBERS = {"IpProtocol": "-1", "UserIdGroupPairs": [SELF]}
ANYWHERE = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
WORLD_6 = {"CidrIpv6": "::/0"}
OFFICE = {"IpRanges": [{"CidrIp": "198.51.100.0/24", "Description": "the office"}]}
PART = "IpPermissions"
EXAMPLES: dict[str, Any] = {
    **{rule_id: (*open_door(doors[-1]), PART) for rule_id, doors in DOORS.items()},
    "aws_ec2_security_group_all_ports_not_open": (
        [group(("tcp", 443, 443, "0.0.0.0/0")), group(("-1", None, None, "10.0.0.0/8"))],
        [
            group(("-1", None, None, "::/0")),
            group(("udp", 0, 65535, "0.0.0.0/0")),
            group(("tcp", 1, 65535, "0.0.0.0/0"), ("tcp", 443, 443, "0.0.0.0/0")),
        ],
        PART,
    ),
    DEFAULT: (
        [default_group([], []), {**default_group([MEMBERS], [ANYWHERE]), "GroupName": "web"}],
        [
            default_group([MEMBERS], [ANYWHERE]),
            default_group([], [ANYWHERE, {"IpProtocol": "-1", "Ipv6Ranges": [WORLD_6]}]),
            default_group([{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, **OFFICE}], []),
        ],
        PART,
    ),
    "aws_ec2_ebs_encrypted_by_default": (
        [{"EbsEncryptionByDefault": True}],
        [{"EbsEncryptionByDefault": False}],
        "EbsEncryptionByDefault",
    ),
}
KINDS: dict[str, Any] = {
    "aws.ec2.security_group": {
        "id": "arn:aws:ec2:eu-central-1:111122223333:security-group/sg-1",
        "apply": apply,
        "snapshot": snapshot,
        "failing": failing_groups,
        "plant": plant_group,
    },
    "aws.ec2.ebs_defaults": {
        "id": "arn:aws:ec2:eu-central-1:111122223333:ebs-encryption-by-default",
        "apply": apply,
        "plant": plant_ebs,
    },
}
