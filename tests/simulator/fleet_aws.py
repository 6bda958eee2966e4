"""What every simulated AWS account holds, as boto3 would show it: the truth that tests compare to.

Everything follows from the account's number; nothing is stored per account. Accounts come in a
few dozen kinds, so that an answer is a template with the account's number put in. Numbers, bucket
names and group ids have a fixed length: a template's Content-Length stays right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from random import Random
from typing import Any
from zlib import crc32

FIRST_ACCOUNT = 100_000_000_000
MANAGEMENT = "999999999999"  # owns the hub keys; the organization's list leaves it out
ORGANIZATION = "o-simulator0"
ROLE = "SutureScanner"
EXTERNAL_ID = "7d1c9c52-2f0a-4f0e-9c4b-5a3e8f2b6d10"

KINDS = 32  # how many different accounts there are, apart from their numbers
ACCOUNT = "@ACCOUNT@@@@"  # stands for the number in a template: 12 characters as well
BUCKET = f"fleet-{ACCOUNT}-@@@"  # stands for a bucket's name: as long as every bucket's name
CREATED = datetime(2023, 5, 14, 8, 30, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AwsFleet:
    """How many accounts there are, where, and how much each of them holds."""

    accounts: int
    regions: tuple[str, ...] = ("eu-central-1",)
    buckets: int = 11
    groups: int = 12

    def holds(self, account: str) -> bool:
        return account.isdecimal() and 0 <= int(account) - FIRST_ACCOUNT < self.accounts


def account_id(index: int) -> str:
    return str(FIRST_ACCOUNT + index)


def kind_of(account: str) -> int:
    """Which of the KINDS an account is."""
    return crc32(account.encode()) % KINDS


# --- ec2 -----------------------------------------------------------------------------------------

_V4, _V6, _OFFICE, _PEER = "0.0.0.0/0", "::/0", "10.0.0.0/8", "peer"
# (name, description, rules); a rule is (protocol, from, to, sources). About one in three is open.
_Rule = tuple[str, int | None, int | None, tuple[str, ...]]
_GROUPS: tuple[tuple[str, str, tuple[_Rule, ...]], ...] = (
    ("default", "default VPC security group", (("-1", None, None, (_PEER,)),)),
    ("web", "public web servers", (("tcp", 443, 443, (_V4, _V6)), ("tcp", 80, 80, (_V4,)))),
    ("bastion", "jump host, opened while the VPN was down", (("tcp", 22, 22, (_V4, _OFFICE)),)),
    ("private-ssh", "administration from the office", (("tcp", 22, 22, (_OFFICE,)),)),
    ("database", "only from the application", (("tcp", 5432, 5432, (_PEER, _OFFICE)),)),
    ("desktops", "remote desktops", (("tcp", 3389, 3389, (_V4,)),)),
    ("cache", "Redis", (("tcp", 6379, 6379, (_PEER,)),)),
    ("migration", "lift and shift, to be tidied", (("-1", None, None, (_V4,)),)),
    ("queue", "brokers & their <clients>", (("tcp", 5671, 5672, (_OFFICE, "172.16.0.0/12")),)),
    ("legacy-range", "old firewall rule, ports as they came", (("tcp", 20, 30, (_V4, _OFFICE)),)),
    ("build", "build agents, IPv6 only", (("tcp", 22, 22, (_V6,)),)),
    ("balancer", "public entry", (("tcp", 443, 443, (_V4, _V6)),)),
    ("mesh", "all traffic inside the company", (("-1", None, None, (_OFFICE, _PEER)),)),
    ("empty", "nothing comes in", ()),
    ("files", "SMB", (("tcp", 445, 445, (_OFFICE,)),)),
    ("monitoring", "exporters", (("udp", 8125, 8125, (_OFFICE,)),)),
)  # fmt: skip
_TEAMS = ("payments", "search", "platform", "data", "mobile", "identity")


def security_groups(
    fleet: AwsFleet, account: str, region: str, kind: int | None = None
) -> list[dict[str, Any]]:
    """SecurityGroups of DescribeSecurityGroups. ``kind`` is given where ACCOUNT is no number."""
    kind = kind_of(account) if kind is None else kind
    random = Random(f"groups {kind} {region}")
    place = crc32(region.encode()) % 100
    return [_group(account, region, f"{place:02}", index, random) for index in range(fleet.groups)]


def _group(account: str, region: str, place: str, index: int, random: Random) -> dict[str, Any]:
    group_id = f"sg-{account}{place}{index:03}"
    # The default group comes first; the others by chance, the same for the same kind.
    name, description, rules = _GROUPS[0] if index == 0 else random.choice(_GROUPS[1:])
    group: dict[str, Any] = {
        "GroupId": group_id,
        "GroupName": name if index == 0 else f"{name}-{index:03}",
        "Description": description,
        "OwnerId": account,
        "VpcId": f"vpc-{account}{place}{index // 8:03}",
        "SecurityGroupArn": f"arn:aws:ec2:{region}:{account}:security-group/{group_id}",
        "IpPermissions": [_permission(account, group_id, *rule) for rule in rules],
        "IpPermissionsEgress": [_permission(account, group_id, "-1", None, None, (_V4,))],
    }
    if index and random.random() < 0.4:
        group["Tags"] = [
            {"Key": "owner", "Value": random.choice(_TEAMS)},
            {"Key": "env", "Value": random.choice(("prod", "dev"))},
        ]
    return group


def _permission(
    account: str,
    group_id: str,
    protocol: str,
    first: int | None,
    last: int | None,
    sources: tuple[str, ...],
) -> dict[str, Any]:
    permission: dict[str, Any] = {
        "IpProtocol": protocol,
        "UserIdGroupPairs": [
            {"UserId": account, "GroupId": group_id} for source in sources if source == _PEER
        ],
        "IpRanges": [
            {"CidrIp": one, "Description": "the office"} if one == _OFFICE else {"CidrIp": one}
            for one in sources
            if "." in one
        ],
        "Ipv6Ranges": [{"CidrIpv6": one} for one in sources if ":" in one],
        "PrefixListIds": [],
    }
    if first is not None:
        permission |= {"FromPort": first, "ToPort": last}
    return permission


def ebs_encrypted(account: str, kind: int | None = None) -> bool:
    return (kind_of(account) if kind is None else kind) % 3 != 0


# --- s3 ------------------------------------------------------------------------------------------

BUCKET_KINDS, BUCKET_STEP = 24, 7  # how many there are; from one bucket to the next


@dataclass(frozen=True, slots=True)
class BucketConfiguration:
    """What the four calls about a bucket answer; None where S3 says that it was never set."""

    public_access_block: dict[str, bool] | None
    versioning: dict[str, str]
    policy: dict[str, Any] | None
    tags: list[dict[str, str]] | None


def bucket_name(account: str, index: int) -> str:
    return f"fleet-{account}-{index:03}"


def bucket_kind(account: str, index: int) -> int:
    return (crc32(account.encode()) // KINDS + BUCKET_STEP * index) % BUCKET_KINDS


def bucket_region(fleet: AwsFleet, index: int) -> str:
    return fleet.regions[index % len(fleet.regions)]


def without_region(fleet: AwsFleet, index: int) -> bool:
    """Whether ListBuckets leaves the bucket's region out: one of them, and S3 is asked for it."""
    return index == 1 or fleet.buckets == 1


def buckets(fleet: AwsFleet, account: str) -> list[dict[str, Any]]:
    """Buckets of ListBuckets."""
    return [
        {"Name": bucket_name(account, index), "CreationDate": CREATED}
        | ({} if without_region(fleet, index) else {"BucketRegion": bucket_region(fleet, index)})
        for index in range(fleet.buckets)
    ]


def bucket_configuration(account: str, name: str, kind: int) -> BucketConfiguration:
    random = Random(f"bucket {kind}")
    flags = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    block = random.choice(((True,) * 4, (True,) * 4, (False,) * 4, (True, True, True, False), None))
    status = random.choice(("Enabled", "Enabled", "Suspended", ""))
    statements = list(_statements(account, name, random.randrange(4)))
    tagged = random.random() < 0.7
    return BucketConfiguration(
        public_access_block=dict(zip(flags, block, strict=True)) if block else None,
        versioning={"Status": status} if status else {},
        policy={"Version": "2012-10-17", "Statement": statements} if statements else None,
        tags=[
            {"Key": "owner", "Value": random.choice(_TEAMS)},
            {"Key": "env", "Value": random.choice(("prod", "dev"))},
        ]
        if tagged
        else None,
    )


def _statements(account: str, name: str, choice: int) -> Iterator[dict[str, Any]]:
    both = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
    if choice in (1, 2):
        yield {
            "Sid": "Readers",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{account}:root"},
            "Action": ["s3:GetObject", "s3:ListBucket"],
            "Resource": both,
        }
    if choice in (2, 3):
        yield {
            "Sid": "TlsOnly",
            "Effect": "Deny",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": both,
            "Condition": {"Bool": {"aws:SecureTransport": "false"}},
        }


# --- iam, organizations --------------------------------------------------------------------------

_STRICT = {
    "RequireSymbols": True,
    "RequireNumbers": True,
    "RequireUppercaseCharacters": True,
    "RequireLowercaseCharacters": True,
    "AllowUsersToChangePassword": True,
}
_LAX = dict.fromkeys(_STRICT, False)
_PASSWORDS: tuple[dict[str, Any] | None, ...] = (
    {"MinimumPasswordLength": 14, **_STRICT, "ExpirePasswords": False},
    {
        "MinimumPasswordLength": 8,
        **_STRICT,
        "ExpirePasswords": True,
        "MaxPasswordAge": 90,
        "PasswordReusePrevention": 5,
    },
    None,
    {"MinimumPasswordLength": 20, **_LAX, "ExpirePasswords": False},
    {"MinimumPasswordLength": 13, **_STRICT, "ExpirePasswords": False},
)


def password_policy(account: str, kind: int | None = None) -> dict[str, Any] | None:
    """PasswordPolicy of GetAccountPasswordPolicy; None answers NoSuchEntity."""
    return _PASSWORDS[(kind_of(account) if kind is None else kind) % len(_PASSWORDS)]


def organization_account(account: str) -> dict[str, Any]:
    """One of Accounts of ListAccounts."""
    return {
        "Id": account,
        "Arn": f"arn:aws:organizations::{MANAGEMENT}:account/{ORGANIZATION}/{account}",
        "Email": f"account-{account}@example.com",
        "Name": f"account-{account}",
        "Status": "ACTIVE",
        "State": "ACTIVE",
        "JoinedMethod": "CREATED",
        "JoinedTimestamp": CREATED,
    }


@cache
def policy_text(kind: int) -> str:
    """A bucket's policy as S3 answers it: a template; "" where there is none."""
    policy = bucket_configuration(ACCOUNT, BUCKET, kind).policy
    return json.dumps(policy) if policy else ""
