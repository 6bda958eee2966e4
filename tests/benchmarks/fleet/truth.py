"""How many findings the simulated fleet holds, worked out from what the simulator made up.

Suture's rules for what it holds in the fewest words, written apart from them on purpose.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from simulator import SERVE

from deployments.local.exposed import exposed_services

sys.path.append(str(SERVE.parent))

import fleet_aws

INTERNET = {"0.0.0.0/0", "::/0"}
COMPARED = {"ssh", "rdp"}  # the peers have no policies on other ports


def findings(accounts: Sequence[str], fleet: Mapping[str, Any]) -> int:
    """The findings in ``accounts``. ``fleet`` is the simulator's description of its AWS."""
    made = fleet_aws.AwsFleet(fleet["accounts"], tuple(fleet["regions"]))
    return sum(_in_account(account, made) for account in accounts)


def _in_account(account: str, made: fleet_aws.AwsFleet) -> int:
    kind = fleet_aws.kind_of(account)
    buckets = (fleet_aws.bucket_kind(account, index) for index in range(made.buckets))
    return _in_groups_and_settings(kind, made) + sum(map(_in_bucket, buckets))


@cache
def _in_groups_and_settings(kind: int, made: fleet_aws.AwsFleet) -> int:
    groups = [
        group
        for region in made.regions
        for group in fleet_aws.security_groups(made, fleet_aws.ACCOUNT, region, kind)
    ]
    opened = sum(map(_open_doors, groups))
    unencrypted = 0 if fleet_aws.ebs_encrypted(fleet_aws.ACCOUNT, kind) else len(made.regions)
    policy = fleet_aws.password_policy(fleet_aws.ACCOUNT, kind)
    return opened + unencrypted + (policy is None or policy["MinimumPasswordLength"] < 14)


def _open_doors(group: Mapping[str, Any]) -> int:
    """How many of the compared services the internet reaches, and one more where it reaches every
    port.
    """
    doors = []
    for permission in group["IpPermissions"]:
        sources = {one["CidrIp"] for one in permission["IpRanges"]}
        sources |= {one["CidrIpv6"] for one in permission["Ipv6Ranges"]}
        if sources & INTERNET:
            first, last = permission.get("FromPort", 0), permission.get("ToPort", 65535)
            doors.append((permission["IpProtocol"], first, last))
    whole = any(
        protocol in ("tcp", "udp", "-1") and first <= 1 and last == 65535
        for protocol, first, last in doors
    )
    return len(COMPARED.intersection(exposed_services(doors))) + whole


@cache
def _in_bucket(kind: int) -> int:
    held = fleet_aws.bucket_configuration(fleet_aws.ACCOUNT, fleet_aws.BUCKET, kind)
    statements = held.policy["Statement"] if held.policy else []
    return sum(
        (
            held.public_access_block is None or not all(held.public_access_block.values()),
            held.versioning.get("Status") != "Enabled",
            not any(one["Effect"] == "Deny" for one in statements),
        )
    )
