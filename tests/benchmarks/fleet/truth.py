"""How many findings the simulated fleet holds, worked out from what the simulator made up.

Suture's rules for what it holds in the fewest words, written apart from them on purpose.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from contender import Job
from simulator import SERVE

from deployments.local.exposed import exposed_services

sys.path.append(str(SERVE.parent))

import fleet_aws
import fleet_azure

INTERNET = {"0.0.0.0/0", "::/0"}
ANYWHERE = INTERNET | {"*", "Internet"}  # as Azure has it
COMPARED = {"ssh", "rdp"}  # the peers have no policies on other ports


def findings(job: Job) -> int:
    """The findings in what ``job`` is to scan, by the rules that its cloud is compared by."""
    if job.cloud == "azure":
        subscriptions = fleet_azure.AzureFleet(job.azure["subscriptions"])
        kinds = map(fleet_azure.kind_of, job.account_ids())
        return sum(_in_subscription(kind, subscriptions) for kind in kinds)
    made = fleet_aws.AwsFleet(job.aws["accounts"], tuple(job.aws["regions"]))
    return sum(_in_account(account, made) for account in job.account_ids())


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
    opened = sum(_opened(list(_doors(group))) for group in groups)
    unencrypted = 0 if fleet_aws.ebs_encrypted(fleet_aws.ACCOUNT, kind) else len(made.regions)
    policy = fleet_aws.password_policy(fleet_aws.ACCOUNT, kind)
    return opened + unencrypted + (policy is None or policy["MinimumPasswordLength"] < 14)


_Door = tuple[str, int, int]  # protocol or "-1", first and last port


def _doors(group: Mapping[str, Any]) -> Iterator[_Door]:
    for permission in group["IpPermissions"]:
        sources = {one["CidrIp"] for one in permission["IpRanges"]}
        sources |= {one["CidrIpv6"] for one in permission["Ipv6Ranges"]}
        if sources & INTERNET:
            first, last = permission.get("FromPort", 0), permission.get("ToPort", 65535)
            yield permission["IpProtocol"], first, last


def _opened(doors: list[_Door]) -> int:
    """How many of the compared services the internet reaches, and one more where it reaches every
    port.
    """
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


@cache
def _in_subscription(kind: int, made: fleet_azure.AzureFleet) -> int:
    groups = fleet_azure.security_groups(made, fleet_azure.SUBSCRIPTION, kind)
    accounts = fleet_azure.storage_accounts(made, fleet_azure.SUBSCRIPTION, kind)
    opened = sum(_opened(list(_azure_doors(group))) for group in groups)
    return opened + sum(_in_storage_account(one["properties"]) for one in accounts)


def _azure_doors(group: Mapping[str, Any]) -> Iterator[_Door]:
    """What the rules of a group let in: all of them allow, so that their order says nothing."""
    for rule in (one["properties"] for one in group["properties"]["securityRules"]):
        sources = {rule.get("sourceAddressPrefix"), *rule["sourceAddressPrefixes"]}
        if not sources & ANYWHERE:
            continue
        protocol = "-1" if rule["protocol"] == "*" else rule["protocol"].lower()
        ports = {rule.get("destinationPortRange"), *rule["destinationPortRanges"]} - {None}
        for one in ports:
            first, _, last = one.replace("*", "0-65535").partition("-")
            yield protocol, int(first), int(last or first)


def _in_storage_account(properties: Mapping[str, Any]) -> int:
    return sum(
        (
            not properties["supportsHttpsTrafficOnly"],
            properties["allowBlobPublicAccess"],
            properties["minimumTlsVersion"] != "TLS1_2",
            properties["allowSharedKeyAccess"],
            properties["networkAcls"]["defaultAction"] != "Deny",
        )
    )
