"""Plants an AWS organization into moto, the same for the same seed, and says what it planted."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from random import Random
from typing import Any

from moto.ec2.models import ec2_backends
from moto.iam.models import iam_backends
from moto.moto_api._internal import mock_random
from moto.organizations.models import organizations_backends
from moto.s3.models import s3_backends

from deployments.local.aws.event_bridge import DEAD_LETTERS, QUEUE
from deployments.local.aws.variants import (
    BUCKETS,
    EBS,
    GROUPS,
    PASSWORDS,
    PEER_GROUP,
    PREFIX_LIST,
    BucketVariant,
    GroupVariant,
    PasswordVariant,
)
from deployments.templates import remediator_permissions, scanner_permissions
from tasks.clouds.aws_gate import CLOSED
from tasks.clouds.sqs_queue import DEAD_LETTER_PERMISSIONS, QUEUE_PERMISSIONS
from tasks.model import Cloud

SCANNER, REMEDIATOR, DISCOVERY = "SutureScanner", "SutureRemediator", "SutureDiscovery"
ADMIN = "OrganizationAccountAccessRole"

DISCOVERS = (
    "organizations:DescribeOrganization",
    "organizations:DescribeAccount",
    "organizations:ListAccounts",
    "organizations:ListTagsForResource",
)

FAILURES = ("refused", "throttled", "timeout")
_TEAMS = ("payments", "search", "platform", "data", "mobile", "identity")


@dataclass(frozen=True, slots=True)
class Member:
    """An account of the organization, as planted."""

    id: str
    name: str
    status: str
    tags: dict[str, str]


@dataclass(slots=True)
class Planted:
    """What was planted. Secrets never show in its repr."""

    management: str
    tooling: str
    organization: str
    members: list[Member]
    external_id: str = field(repr=False)
    hub_arn: str = ""
    hub_key: tuple[str, str] = field(default=("", ""), repr=False)
    customer_key: tuple[str, str] = field(default=("", ""), repr=False)
    truth: list[dict[str, str]] = field(default_factory=list)
    failing: dict[str, str] = field(default_factory=dict)

    @property
    def accounts(self) -> frozenset[str]:
        """Every account number of the emulated cloud, the tooling account's too."""
        return frozenset({self.tooling, *(member.id for member in self.members)})


def plant(accounts: int, seed: int, regions: Sequence[str], *, failing: bool) -> Planted:
    """An organization of ``accounts`` active accounts, the management account being one of them.

    One SUSPENDED account comes on top. From six accounts on, and if ``failing``, three of the
    members fail: see ``failing``; the truth leaves them and the suspended one out.
    """
    random = Random(seed)  # noqa: S311 - the same for the same seed is the point
    mock_random.seed(seed)
    members = _members(accounts, random)
    management, tooling = members[0].id, _account_id(random)
    planted = Planted(
        management=management,
        tooling=tooling,
        organization=_organization(members),
        members=members,
        external_id=str(uuid.UUID(int=random.getrandbits(128), version=4)),
    )
    planted.hub_arn, planted.hub_key = _hub(tooling, regions[0])
    planted.customer_key = _customer(management)
    _role(management, DISCOVERY, _trust(planted.hub_arn, planted.external_id), _allow(DISCOVERS))
    if failing and accounts >= 6:
        chosen = random.sample([one.id for one in members[1:] if one.status == "ACTIVE"], 3)
        planted.failing = dict(zip(chosen, FAILURES, strict=True))
    decks = _Decks(random)
    for member in members:
        open_to_scan(member.id, planted, refused=planted.failing.get(member.id) == "refused")
        _remediator(member.id)
        findings = list(_resources(member, regions, random, decks))
        if member.status == "ACTIVE" and member.id not in planted.failing:
            planted.truth += findings
    return planted


# ---------------------------------------------------------------- organization and identities


def _account_id(random: Random) -> str:
    return str(random.randrange(10**11, 10**12))


def _members(accounts: int, random: Random) -> list[Member]:
    ids: dict[str, None] = {}
    while len(ids) < accounts + 1:
        ids[_account_id(random)] = None
    members = []
    for number, account in enumerate(ids):
        team = random.choice(_TEAMS)
        env = random.choice(("prod", "dev"))
        name = "management" if number == 0 else f"{team}-{env}-{number:03}"
        status = "SUSPENDED" if number == accounts else "ACTIVE"
        members.append(Member(account, name, status, {"env": env, "owner": team}))
    return members


def _organization(members: Sequence[Member]) -> str:
    management = members[0]
    backend = organizations_backends[management.id]["aws"]
    backend.create_organization(region="us-east-1", FeatureSet="ALL")
    _adopt(backend.accounts[0], management)
    for member in members[1:]:
        backend.create_account(AccountName=member.name, Email=f"{member.name}@example.com")
        _adopt(backend.accounts[-1], member)
        organizations_backends.master_accounts[member.id] = (management.id, "aws")
        if member.status == "SUSPENDED":
            backend.accounts[-1].close()
    return backend.org.id


def _adopt(account: Any, member: Member) -> None:
    """moto numbers accounts by itself and gives each an admin role: both under our number."""
    stray = account.id
    organizations_backends.master_accounts.pop(stray, None)
    if stray != member.id:
        iam_backends.pop(stray, None)
    account.id, account.name = member.id, member.name
    account.tags = dict(member.tags)
    management = account.master_account_id
    _role(member.id, ADMIN, _trust(f"arn:aws:iam::{management}:root"), _allow("*"))


def _hub(tooling: str, region: str) -> tuple[str, tuple[str, str]]:
    """Suture's own identity: it may take its roles on and work at its queues, and nothing else."""
    iam = iam_backends[tooling]["aws"]
    user = iam.create_user("us-east-1", "suture")
    roles = [f"arn:aws:iam::*:role/{name}" for name in (SCANNER, REMEDIATOR, DISCOVERY)]
    iam.put_user_policy("suture", "take-roles-on", _allow("sts:AssumeRole", roles))
    queues = f"arn:aws:sqs:{region}:{tooling}"
    iam.put_user_policy("suture", "events", _allow(QUEUE_PERMISSIONS, f"{queues}:{QUEUE}"))
    dead = _allow(DEAD_LETTER_PERMISSIONS, f"{queues}:{DEAD_LETTERS}")
    iam.put_user_policy("suture", "dead-letters", dead)
    key = iam.create_access_key("suture")
    return user.arn, (key.access_key_id, key.secret_access_key)


def _customer(management: str) -> tuple[str, str]:
    iam = iam_backends[management]["aws"]
    iam.create_user("us-east-1", "admin")
    iam.put_user_policy("admin", "administrator", _allow("*"))
    key = iam.create_access_key("admin")
    return key.access_key_id, key.secret_access_key


def open_to_scan(account: str, planted: Planted, *, refused: bool = False) -> None:
    """The scanner's role with a trust policy for the hub; ``refused``: for somebody else."""
    hub = f"arn:aws:iam::{planted.management}:root" if refused else planted.hub_arn
    _role(
        account, SCANNER, _trust(hub, planted.external_id), _allow(scanner_permissions(Cloud.AWS))
    )


def _remediator(account: str) -> None:
    """The ceiling of what a fix may do, behind a gate that is closed."""
    _role(account, REMEDIATOR, _document(CLOSED), _allow(remediator_permissions(Cloud.AWS)))


def _role(account: str, name: str, trust: str, permissions: str) -> None:
    """Makes the role, or gives the one there this trust and these permissions."""
    iam = iam_backends[account]["aws"]
    if any(role.name == name for role in iam.get_roles()):
        iam.update_assume_role_policy(name, trust)
    else:
        iam.create_role(name, trust, "/", None, "", [], "3600")
    iam.put_role_policy(name, "permissions", permissions)


def _document(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def _allow(actions: str | Sequence[str], resources: str | Sequence[str] = "*") -> str:
    listed = [actions] if isinstance(actions, str) else list(actions)
    return _document({"Effect": "Allow", "Action": listed, "Resource": resources})


def _trust(principal: str, external_id: str = "") -> str:
    statement: dict[str, Any] = {
        "Effect": "Allow",
        "Principal": {"AWS": principal},
        "Action": "sts:AssumeRole",
    }
    if external_id:
        statement["Condition"] = {"StringEquals": {"sts:ExternalId": external_id}}
    return _document(statement)


# ---------------------------------------------------------------- resources


class _Decks:
    """Variants dealt in turn from shuffled decks, so that a fleet of some size has them all."""

    def __init__(self, random: Random) -> None:
        def shuffled(variants: Sequence[Any]) -> Iterator[Any]:
            return cycle(random.sample(variants, len(variants)))

        self.groups: Iterator[GroupVariant] = shuffled(GROUPS)
        self.buckets: Iterator[BucketVariant] = shuffled(BUCKETS)
        self.passwords: Iterator[PasswordVariant] = shuffled(PASSWORDS)


def _resources(
    member: Member, regions: Sequence[str], random: Random, decks: _Decks
) -> Iterator[dict[str, str]]:
    for region in regions:
        ec2 = ec2_backends[member.id][region]
        peer = _default_group(ec2)
        for variant in islice(decks.groups, random.randint(1, max(1, 5 // len(regions)))):
            group = _plant_group(ec2, variant, peer, _tags(member, random))
            yield from _failing(member.id, region, group.arn, variant.fails)
        encrypted = random.random() < 0.4
        ec2.ebs_encryption_by_default = encrypted
        if not encrypted:
            defaults = f"arn:aws:ec2:{region}:{member.id}:ebs-encryption-by-default"
            yield from _failing(member.id, region, defaults, {EBS})
    for variant in islice(decks.buckets, random.randint(1, 3)):
        region = random.choice(regions)
        name = f"{variant.name}-{member.id}-{random.randrange(16**4):04x}"
        _plant_bucket(member, region, name, variant, _tags(member, random))
        yield from _failing(member.id, region, f"arn:aws:s3:::{name}", variant.fails)
    password = next(decks.passwords)
    _plant_password_policy(member.id, password)
    policy = f"arn:aws:iam::{member.id}:account-password-policy"
    yield from _failing(member.id, "global", policy, password.fails)


def _failing(account: str, region: str, resource: str, rules: Any) -> Iterator[dict[str, str]]:
    for rule in sorted(rules):
        yield {
            "cloud": "aws",
            "account": account,
            "region": region,
            "rule": rule,
            "resource": resource,
        }


def _tags(member: Member, random: Random) -> dict[str, str]:
    return dict(member.tags) if random.random() < 0.8 else {"env": member.tags["env"]}


def _default_group(ec2: Any) -> str:
    """The default VPC's own group, as AWS makes it: open to itself only. It fails nothing."""
    group = ec2.get_default_security_group()
    ec2.authorize_security_group_ingress(
        group.id, "-1", None, None, [], source_groups=[{"GroupId": group.id}]
    )
    return group.id


def _plant_group(ec2: Any, variant: GroupVariant, peer: str, tags: dict[str, str]) -> Any:
    prefix_list = next(
        one.id for one in ec2.managed_prefix_lists.values() if one.prefix_list_name.endswith(".s3")
    )
    group = ec2.create_security_group(variant.name, variant.description, tags=tags)
    for permission in variant.ingress:
        assert all(one["GroupId"] == PEER_GROUP for one in permission["UserIdGroupPairs"])
        assert all(one["PrefixListId"] == PREFIX_LIST for one in permission["PrefixListIds"])
        ec2.authorize_security_group_ingress(
            group.id,
            permission["IpProtocol"],
            permission.get("FromPort"),
            permission.get("ToPort"),
            [dict(one) for one in (*permission["IpRanges"], *permission["Ipv6Ranges"])],
            source_groups=[{"GroupId": peer} for _ in permission["UserIdGroupPairs"]],
            prefix_list_ids=[{"PrefixListId": prefix_list} for _ in permission["PrefixListIds"]],
        )
    return group


def _plant_bucket(
    member: Member, region: str, name: str, variant: BucketVariant, tags: dict[str, str]
) -> None:
    s3 = s3_backends[member.id]["aws"]
    s3.create_bucket(name, region)
    if variant.public_access_block:
        acls, ignored, policy, restricted = variant.public_access_block
        s3.put_public_access_block(
            name,
            {
                "BlockPublicAcls": acls,
                "IgnorePublicAcls": ignored,
                "BlockPublicPolicy": policy,
                "RestrictPublicBuckets": restricted,
            },
        )
    if variant.versioning:
        s3.put_bucket_versioning(name, variant.versioning)
    if variant.policy:
        text = variant.policy.replace("BUCKET", name).replace("ACCOUNT", member.id)
        s3.put_bucket_policy(name, text.encode())
    s3.put_bucket_tagging(name, tags)


def _plant_password_policy(account: str, variant: PasswordVariant) -> None:
    if variant.settings is None:
        return
    settings = variant.settings
    iam_backends[account]["aws"].update_account_password_policy(
        allow_change_password=settings.get("AllowUsersToChangePassword", False),
        hard_expiry=False,
        max_password_age=settings.get("MaxPasswordAge", 0),
        minimum_password_length=settings["MinimumPasswordLength"],
        password_reuse_prevention=settings.get("PasswordReusePrevention"),
        require_lowercase_characters=settings.get("RequireLowercaseCharacters", False),
        require_numbers=settings.get("RequireNumbers", False),
        require_symbols=settings.get("RequireSymbols", False),
        require_uppercase_characters=settings.get("RequireUppercaseCharacters", False),
    )
