"""What can be planted in an account, and for each variant the rules it fails.

The truth is written down here by hand, beside the configuration; nothing is computed from the
rules under test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deployments.local.exposed import exposed_services

ALL_PORTS = "aws_ec2_security_group_all_ports_not_open"
PUBLIC_ACCESS = "aws_s3_bucket_public_access_blocked"
VERSIONING = "aws_s3_bucket_versioning_enabled"
TLS = "aws_s3_bucket_tls_only"
EBS = "aws_ec2_ebs_encrypted_by_default"
PASSWORD = "aws_iam_password_policy_length"

# Stand-ins that the seeder replaces by ids of the account and region.
PEER_GROUP = "sg-peer"
PREFIX_LIST = "pl-s3"


@dataclass(frozen=True, slots=True)
class GroupVariant:
    """A security group: its ingress, as the API takes it, and the rules it fails."""

    name: str
    description: str
    ingress: Sequence[Mapping[str, Any]]
    fails: frozenset[str]


def _allow(
    protocol: str,
    first: int | None,
    last: int | None,
    *sources: str,
    note: str = "",
) -> dict[str, Any]:
    """One permission. A source is a network, PEER_GROUP or PREFIX_LIST."""
    described = {"Description": note} if note else {}
    v6 = [{"CidrIpv6": one, **described} for one in sources if ":" in one]
    v4 = [{"CidrIp": one, **described} for one in sources if "/" in one and ":" not in one]
    permission: dict[str, Any] = {"IpProtocol": protocol, "IpRanges": v4, "Ipv6Ranges": v6}
    if first is not None:
        permission |= {"FromPort": first, "ToPort": last}
    permission["UserIdGroupPairs"] = [{"GroupId": one} for one in sources if one == PEER_GROUP]
    permission["PrefixListIds"] = [{"PrefixListId": one} for one in sources if one == PREFIX_LIST]
    return permission


def _group(
    name: str,
    description: str,
    *ingress: Mapping[str, Any],
    opens: Sequence[tuple[str, int, int]] = (),
    all_ports: bool = False,
) -> GroupVariant:
    """``opens`` are the ports that the whole internet may enter, by protocol, first and last."""
    fails = {f"aws_ec2_security_group_{one}_not_open" for one in exposed_services(opens)}
    return GroupVariant(
        name, description, ingress, frozenset(fails | ({ALL_PORTS} if all_ports else set()))
    )


V4, V6, OFFICE = "0.0.0.0/0", "::/0", "10.0.0.0/8"

GROUPS = (
    _group(
        "bastion",
        "jump host, opened while the VPN was down",
        _allow("tcp", 22, 22, V4, OFFICE, note="ssh"),
        opens=[("tcp", 22, 22)],
    ),
    _group(
        "web",
        "public web servers",
        _allow("tcp", 443, 443, V4, V6),
        _allow("tcp", 80, 80, V4),
        opens=[("tcp", 443, 443), ("tcp", 80, 80)],
    ),
    _group(
        "build",
        "build agents, IPv6 only",
        _allow("tcp", 22, 22, V6),
        opens=[("tcp", 22, 22)],
    ),
    _group(
        "legacy-range",
        "old firewall rule, ports as they came",
        _allow("tcp", 20, 30, V4, OFFICE, note="ftp and friends"),
        opens=[("tcp", 20, 30)],
    ),
    _group("private-ssh", "administration from the office", _allow("tcp", 22, 22, OFFICE)),
    _group(
        "desktops",
        "remote desktops",
        _allow("tcp", 3389, 3389, V4, V6),
        opens=[("tcp", 3389, 3389)],
    ),
    _group(
        "migration",
        "lift and shift, to be tidied",
        _allow("-1", None, None, V4),
        _allow("-1", None, None, PEER_GROUP),
        opens=[("-1", 0, 65535)],
        all_ports=True,
    ),
    _group("database", "only from the application", _allow("tcp", 5432, 5432, PEER_GROUP)),
    _group(
        "windows-admin",
        "a vendor's wish list",
        _allow("tcp", 22, 3389, V4, "192.0.2.0/24"),
        opens=[("tcp", 22, 3389)],
    ),
    _group(
        "lab",
        "every tcp port",
        _allow("tcp", 0, 65535, V4, "172.16.0.0/12"),
        opens=[("tcp", 0, 65535)],
        all_ports=True,
    ),
    _group(
        "edge",
        "administration from the provider's prefix list",
        _allow("tcp", 22, 22, PREFIX_LIST),
        _allow("icmp", -1, -1, V4),
    ),
    _group(
        "lab-v6",
        "tcp from one up, IPv6",
        _allow("tcp", 1, 65535, V6),
        opens=[("tcp", 1, 65535)],
        all_ports=True,
    ),
    _group(
        "voice",
        "every udp port",
        _allow("udp", 0, 65535, V4),
        opens=[("udp", 0, 65535)],
        all_ports=True,
    ),
    _group(
        "mixed",
        "two mistakes in two rules",
        _allow("tcp", 22, 22, V4, note="temporary"),
        _allow("tcp", 3380, 3390, V6, "fd00::/8"),
        _allow("tcp", 8443, 8443, V4),
        opens=[("tcp", 22, 22), ("tcp", 3380, 3390), ("tcp", 8443, 8443)],
    ),
    _group(
        "resolver",
        "udp on an ssh number, harmless",
        _allow("udp", 22, 22, V4),
        opens=[("udp", 22, 22)],
    ),
    _group(
        "half-world", "wide, and not the world", _allow("tcp", 22, 22, "128.0.0.0/1", "2000::/4")
    ),
    _group("mesh", "all traffic inside the company", _allow("-1", None, None, OFFICE, PEER_GROUP)),
    _group("empty", "nothing comes in"),
)


@dataclass(frozen=True, slots=True)
class BucketVariant:
    """A bucket: four public access flags or None, versioning status or None, policy or None.

    ``policy`` is a template: "BUCKET" and "ACCOUNT" stand for the names.
    """

    name: str
    public_access_block: tuple[bool, bool, bool, bool] | None
    versioning: str | None
    policy: str | None
    fails: frozenset[str]


_BOTH = ["arn:aws:s3:::BUCKET", "arn:aws:s3:::BUCKET/*"]
_INSECURE = {"Bool": {"aws:SecureTransport": "false"}}


def _policy(*statements: Mapping[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def _deny_plain(
    principal: Any = "*", action: str = "s3:*", resource: Any = None, condition: Any = None
) -> dict[str, Any]:
    return {
        "Sid": "TlsOnly",
        "Effect": "Deny",
        "Principal": principal,
        "Action": action,
        "Resource": resource or _BOTH,
        "Condition": condition or _INSECURE,
    }


_READERS = {
    "Sid": "Readers",
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::ACCOUNT:root"},
    "Action": ["s3:GetObject", "s3:ListBucket"],
    "Resource": _BOTH,
}

BLOCKED = (True, True, True, True)

BUCKETS = (
    BucketVariant("logs", BLOCKED, "Enabled", _policy(_deny_plain()), frozenset()),
    BucketVariant("scratch", None, None, None, frozenset({PUBLIC_ACCESS, VERSIONING, TLS})),
    BucketVariant(
        "exports",
        (True, True, True, False),
        "Suspended",
        _policy(_READERS),
        frozenset({PUBLIC_ACCESS, VERSIONING, TLS}),
    ),
    BucketVariant(
        "backups",
        BLOCKED,
        "Enabled",
        _policy(_READERS, _deny_plain({"AWS": "*"})),
        frozenset(),
    ),
    BucketVariant(
        "objects-only",
        BLOCKED,
        "Enabled",
        _policy(_deny_plain(resource="arn:aws:s3:::BUCKET/*")),
        frozenset({TLS}),
    ),
    BucketVariant("website", (False,) * 4, "Enabled", None, frozenset({PUBLIC_ACCESS, TLS})),
    BucketVariant(
        "partner",
        BLOCKED,
        None,
        _policy(_deny_plain({"AWS": "arn:aws:iam::ACCOUNT:root"})),
        frozenset({VERSIONING, TLS}),
    ),
    BucketVariant(
        "reads-only",
        BLOCKED,
        "Suspended",
        _policy(_deny_plain(action="s3:GetObject")),
        frozenset({VERSIONING, TLS}),
    ),
    BucketVariant("archive", BLOCKED, "Enabled", None, frozenset({TLS})),
)


@dataclass(frozen=True, slots=True)
class PasswordVariant:
    """``settings`` as UpdateAccountPasswordPolicy takes them; None sets no policy."""

    settings: Mapping[str, Any] | None
    fails: frozenset[str]


_STRICT = {
    "RequireSymbols": True,
    "RequireNumbers": True,
    "RequireUppercaseCharacters": True,
    "RequireLowercaseCharacters": True,
    "AllowUsersToChangePassword": True,
}

PASSWORDS = (
    PasswordVariant(None, frozenset({PASSWORD})),
    PasswordVariant({**_STRICT, "MinimumPasswordLength": 14}, frozenset()),
    PasswordVariant(
        {**_STRICT, "MinimumPasswordLength": 8, "PasswordReusePrevention": 5, "MaxPasswordAge": 90},
        frozenset({PASSWORD}),
    ),
    PasswordVariant({"MinimumPasswordLength": 20}, frozenset()),
    PasswordVariant({**_STRICT, "MinimumPasswordLength": 13}, frozenset({PASSWORD})),
)
