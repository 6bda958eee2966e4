"""Network ACLs and networks: examples, and how to plant them. None of them has a fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

LAST = 32767  # the rule that every ACL ends with


def _network(cloud: Any) -> str:
    return str(cloud.client("ec2").create_vpc(CidrBlock="10.8.0.0/16")["Vpc"]["VpcId"])


def plant_acl(cloud: Any, config: Mapping[str, Any]) -> str:
    ec2 = cloud.client("ec2")
    acl = ec2.create_network_acl(VpcId=_network(cloud))["NetworkAcl"]["NetworkAclId"]
    for entry in config["Entries"]:
        if entry["RuleNumber"] != LAST:
            ec2.create_network_acl_entry(NetworkAclId=acl, **entry)
    return f"arn:aws:ec2:{cloud.region}:{cloud.account}:network-acl/{acl}"


def plant_network(cloud: Any, _config: Mapping[str, Any]) -> str:
    return f"arn:aws:ec2:{cloud.region}:{cloud.account}:vpc/{_network(cloud)}"


def entry(
    number: int, action: str, cidr: str, *ports: int, protocol: str = "", egress: bool = False
) -> dict[str, Any]:
    """About every protocol and port, or about TCP's from the first of ``ports`` to the last."""
    return {
        "RuleNumber": number,
        "RuleAction": action,
        "Egress": egress,
        "Protocol": protocol or ("6" if ports else "-1"),
        **({"PortRange": {"From": ports[0], "To": ports[-1]}} if ports else {}),
        ("Ipv6CidrBlock" if ":" in cidr else "CidrBlock"): cidr,
    }


def acl(*entries: dict[str, Any]) -> dict[str, Any]:
    """As EC2 lists them: in no order that could be relied on."""
    ends = [
        entry(100, "allow", "0.0.0.0/0", egress=True),
        entry(LAST, "deny", "0.0.0.0/0", egress=True),
        entry(LAST, "deny", "0.0.0.0/0"),
    ]
    return {
        "NetworkAclId": "acl-0123456789abcdef0",
        "VpcId": "vpc-0123456789abcdef0",
        "IsDefault": False,
        "Entries": [*ends, *reversed(entries)],
    }


def door(port: int) -> tuple[list[Any], list[Any], str]:
    """What leaves one TCP port closed, and what opens it."""
    allow_all = entry(100, "allow", "0.0.0.0/0")
    return (
        [
            acl(entry(100, "allow", "10.0.0.0/8")),
            acl(entry(90, "deny", "0.0.0.0/0", port), allow_all),
            acl(
                entry(80, "deny", "128.0.0.0/1", port),
                entry(90, "deny", "0.0.0.0/1", 1, 65535),
                allow_all,
            ),
            acl(entry(100, "allow", "0.0.0.0/0", 443), entry(110, "allow", "::/0", 80)),
            acl(entry(100, "allow", "0.0.0.0/0", port, protocol="17")),
            acl(),
        ],
        [
            acl(allow_all),
            acl(entry(110, "deny", "0.0.0.0/0", port), allow_all),
            acl(entry(90, "deny", "0.0.0.0/0", port), entry(100, "allow", "::/0")),
            acl(entry(90, "deny", "203.0.113.0/24"), entry(100, "allow", "0.0.0.0/0", 1, 65535)),
            acl(
                entry(100, "allow", "0.0.0.0/1", port), entry(110, "allow", "128.0.0.0/1", 0, port)
            ),
        ],
        "Entries",
    )


def vpc(*logs: dict[str, Any]) -> dict[str, Any]:
    return {
        "VpcId": "vpc-0123456789abcdef0",
        "CidrBlock": "10.8.0.0/16",
        "IsDefault": False,
        "FlowLogs": list(logs),
    }


def log(traffic: str = "ALL", status: str = "ACTIVE") -> dict[str, Any]:
    return {
        "FlowLogId": "fl-0123456789abcdef0",
        "FlowLogStatus": status,
        "TrafficType": traffic,
        "LogDestinationType": "s3",
    }


EXAMPLES: dict[str, Any] = {
    "aws_ec2_network_acl_ssh_not_open": door(22),
    "aws_ec2_network_acl_rdp_not_open": door(3389),
    "aws_ec2_network_acl_all_ports_not_open": (
        [
            acl(entry(100, "allow", "0.0.0.0/0", 443)),
            acl(entry(90, "deny", "0.0.0.0/0"), entry(100, "allow", "0.0.0.0/0")),
            acl(entry(100, "allow", "0.0.0.0/0", 1024, 65535)),
        ],
        [
            acl(entry(100, "allow", "0.0.0.0/0")),
            acl(entry(90, "deny", "0.0.0.0/0", 22), entry(100, "allow", "::/0")),
            acl(entry(100, "allow", "0.0.0.0/0", 0, 65535, protocol="17")),
        ],
        "Entries",
    ),
    "aws_ec2_vpc_flow_logs_enabled": (
        [vpc(log()), vpc(log("ACCEPT"), log("REJECT"))],
        [vpc(), vpc(log("ACCEPT"))],
        "FlowLogs",
    ),
}
HERE = "arn:aws:ec2:eu-central-1:111122223333"
KINDS: dict[str, Any] = {
    "aws.ec2.network_acl": {
        "id": f"{HERE}:network-acl/acl-0123456789abcdef0",
        "plant": plant_acl,
    },
    "aws.ec2.vpc": {"id": f"{HERE}:vpc/vpc-0123456789abcdef0", "plant": plant_network},
}
