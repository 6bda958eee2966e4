"""What is read of an AWS account: the shapes, the gaps, and what was covered."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from deployments.local.aws.server import EmulatedAws
from tasks.calls import recording
from tasks.clouds.aws_api import AwsApi
from tasks.clouds.aws_collect import (
    COLLECTORS,
    AwsView,
    collect,
    discover,
    look,
    read_one,
)
from tasks.clouds.aws_credentials import AwsKeyring
from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.transport import Limits
from tasks.errors import AccessRefused, CloudError, CloudTimeout, MissingData, ResourceGone
from tasks.inventory import AwsSource
from tasks.model import Covered, Resource
from tasks.rules import RULES

ACCOUNT = "111122223333"
SOURCE = AwsSource(
    name="acme",
    regions=("eu-central-1", "us-east-1"),
    external_id="7b0c2a0e-1111-4222-8333-44445555666a",
    accounts=(ACCOUNT,),
)
GROUP = {
    "GroupId": "sg-1",
    "GroupName": "web",
    "Description": "",
    "OwnerId": ACCOUNT,
    "IpPermissions": [],
    "Tags": [{"Key": "env", "Value": "dev"}],
}
# The kinds whose answers are scripted here; what every row reads is proved by test_contract.py.
SCRIPTED = (
    *("aws.ec2.security_group", "aws.ec2.ebs_defaults"),
    *("aws.s3.bucket", "aws.iam.password_policy"),
)
NEEDED = frozenset(
    (
        *("ec2:DescribeSecurityGroups", "ec2:GetEbsEncryptionByDefault"),
        *("s3:ListAllMyBuckets", "s3:GetBucketLocation", "s3:GetBucketPublicAccessBlock"),
        *("s3:GetBucketVersioning", "s3:GetBucketPolicy", "s3:GetBucketTagging"),
        "iam:GetAccountPasswordPolicy",
    )
)
BLOCK = {"BlockPublicAcls": True}
POLICY = {"Version": "2012-10-17", "Statement": []}


def gone(code: str) -> ResourceGone:
    return ResourceGone("not there", code=code)


def refused(code: str = "AccessDenied") -> AccessRefused:
    return AccessRefused("not you", code=code)


class ScriptedApi(AwsApi):
    """Answers from a table: (operation, region or bucket) or operation -> answer or error."""

    def __init__(self, changes: dict[Any, Any] | None = None) -> None:
        super().__init__()
        self.asked: list[tuple[str, str]] = []
        self._answers: dict[Any, Any] = {
            "DescribeSecurityGroups": {"SecurityGroups": [GROUP]},
            "GetEbsEncryptionByDefault": {"EbsEncryptionByDefault": True},
            "ListBuckets": {"Buckets": [{"Name": "logs", "BucketRegion": "us-east-1"}]},
            "GetPublicAccessBlock": {"PublicAccessBlockConfiguration": BLOCK},
            "GetBucketVersioning": {"Status": "Enabled"},
            "GetBucketPolicy": {"Policy": json.dumps(POLICY)},
            "GetBucketTagging": {"TagSet": [{"Key": "team", "Value": "data"}]},
            "GetAccountPasswordPolicy": {"PasswordPolicy": {"MinimumPasswordLength": 14}},
            **(changes or {}),
        }

    async def call(
        self, service: str, operation: str, params: Any, *, region: str, credentials: Any
    ) -> dict[str, Any]:
        self.asked.append((operation, region))
        place = params.get("Bucket", region)
        answer = self._answers.get((operation, place), self._answers.get(operation))
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(answer, dict), f"nothing is scripted for {operation}"
        return dict(answer)


def view(changes: dict[Any, Any] | None = None) -> AwsView:
    return AwsView(
        api=ScriptedApi(changes),
        source=SOURCE,
        account=ACCOUNT,
        credentials=AwsCredentials("AKIA", "secret"),
        slots_free=asyncio.Semaphore(4),
        needed=NEEDED,
    )


async def only(kind: str, changes: dict[Any, Any] | None = None) -> tuple[list[Resource], Covered]:
    """All resources of a kind, and the one Covered that a kind asked once has."""
    resources, (covered,) = await collect(view(changes), [kind])
    return resources, covered


# --- Shapes --------------------------------------------------------------------------------------


async def test_every_kind_in_the_shape_rules_read() -> None:
    resources, coverage = await collect(view(), SCRIPTED)
    found = {(resource.kind, resource.region): resource for resource in resources}
    assert len(found) == len(resources) == 6
    group = found["aws.ec2.security_group", "us-east-1"]
    assert group.id == f"arn:aws:ec2:us-east-1:{ACCOUNT}:security-group/sg-1"
    assert (group.name, group.tags) == ("web", {"env": "dev"})
    assert set(group.config) == {"GroupId", "GroupName", "Description", "IpPermissions"}
    defaults = found["aws.ec2.ebs_defaults", "eu-central-1"]
    assert defaults.id == f"arn:aws:ec2:eu-central-1:{ACCOUNT}:ebs-encryption-by-default"
    assert defaults.config.as_dict() == {"EbsEncryptionByDefault": True}
    bucket = found["aws.s3.bucket", "us-east-1"]
    assert (bucket.id, bucket.name, bucket.tags) == ("arn:aws:s3:::logs", "logs", {"team": "data"})
    assert bucket.config.as_dict() == {
        "Name": "logs",
        "PublicAccessBlock": BLOCK,
        "Versioning": {"Status": "Enabled"},
        "Policy": POLICY,
    }
    policy = found["aws.iam.password_policy", "global"]
    assert policy.id == f"arn:aws:iam::{ACCOUNT}:account-password-policy"
    assert policy.config["PasswordPolicy"] == {"MinimumPasswordLength": 14}
    assert {(one.region, one.kind) for one in coverage if one.ok} == {
        ("eu-central-1", "aws.ec2.security_group"),
        ("us-east-1", "aws.ec2.security_group"),
        ("eu-central-1", "aws.ec2.ebs_defaults"),
        ("us-east-1", "aws.ec2.ebs_defaults"),
        ("global", "aws.s3.bucket"),
        ("global", "aws.iam.password_policy"),
    }


async def test_what_was_never_set_is_none_not_a_gap() -> None:
    (bucket,), _ = await only(
        "aws.s3.bucket",
        {
            "GetPublicAccessBlock": gone("NoSuchPublicAccessBlockConfiguration"),
            "GetBucketVersioning": {},
            "GetBucketPolicy": gone("NoSuchBucketPolicy"),
            "GetBucketTagging": gone("NoSuchTagSet"),
        },
    )
    assert bucket.config.gaps == {}
    assert bucket.config["PublicAccessBlock"] is None
    assert bucket.config["Versioning"] == {}
    assert bucket.config["Policy"] is None
    assert bucket.tags == {}
    (policy,), _ = await only(
        "aws.iam.password_policy", {"GetAccountPasswordPolicy": gone("NoSuchEntity")}
    )
    assert policy.config["PasswordPolicy"] is None


@pytest.mark.parametrize("partition", ["aws-cn", "aws-us-gov"])
async def test_ids_name_the_partition(partition: str) -> None:
    elsewhere = replace(view(), source=replace(SOURCE, partition=partition))
    resources, _ = await collect(elsewhere, SCRIPTED)
    assert all(resource.id.startswith(f"arn:{partition}:") for resource in resources)


@pytest.mark.parametrize(
    ("location", "region"), [(None, "us-east-1"), ("EU", "eu-west-1"), ("sa-east-1", "sa-east-1")]
)
async def test_bucket_without_a_region_in_the_list_is_asked_for_it(
    location: str | None, region: str
) -> None:
    (bucket,), covered = await only(
        "aws.s3.bucket",
        {
            "ListBuckets": {"Buckets": [{"Name": "logs"}]},
            "GetBucketLocation": {"LocationConstraint": location},
        },
    )
    assert (bucket.region, covered.ok) == (region, True)


async def test_no_buckets_no_calls_about_buckets() -> None:
    looking = view({"ListBuckets": {"Buckets": []}})
    resources, _ = await collect(looking, ["aws.s3.bucket"])
    assert resources == []
    assert looking.api.calls == 0
    assert isinstance(looking.api, ScriptedApi)
    assert [operation for operation, _ in looking.api.asked] == ["ListBuckets"]


# --- What could not be read ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("GetPublicAccessBlock", "PublicAccessBlock"),
        ("GetBucketVersioning", "Versioning"),
        ("GetBucketPolicy", "Policy"),
        ("GetBucketTagging", "Tags"),
    ],
)
async def test_part_that_is_refused_is_a_gap(operation: str, part: str) -> None:
    (bucket,), covered = await only("aws.s3.bucket", {operation: refused()})
    assert covered.ok
    assert list(bucket.config.gaps) == [part]
    with pytest.raises(MissingData, match="refused: AccessDenied: not you"):
        bucket.config[part]


@pytest.mark.parametrize("policy", [{"Policy": "{"}, {}])
async def test_policy_that_cannot_be_read_is_a_gap(policy: dict[str, str]) -> None:
    (bucket,), _ = await only("aws.s3.bucket", {"GetBucketPolicy": policy})
    assert list(bucket.config.gaps) == ["Policy"]


async def test_bucket_that_goes_while_it_is_read_is_left_out() -> None:
    resources, covered = await only("aws.s3.bucket", {"GetBucketVersioning": gone("NoSuchBucket")})
    assert resources == []
    assert covered.ok


async def test_bucket_that_cannot_be_placed_leaves_the_kind_uncovered() -> None:
    """Its old findings stand under a region: they must not be resolved as gone."""
    resources, covered = await only(
        "aws.s3.bucket",
        {
            "ListBuckets": {"Buckets": [{"Name": "open"}, {"Name": "closed"}]},
            ("GetBucketLocation", "open"): {"LocationConstraint": "us-east-1"},
            ("GetBucketLocation", "closed"): refused(),
        },
    )
    assert [resource.name for resource in resources] == ["open"]
    assert covered == Covered(
        "global", "aws.s3.bucket", ok=False, reason="bucket closed refused: AccessDenied: not you"
    )


async def test_one_region_refusing_harms_no_other() -> None:
    changes = {("DescribeSecurityGroups", "us-east-1"): refused("UnauthorizedOperation")}
    resources, coverage = await collect(view(changes), ["aws.ec2.security_group"])
    assert [resource.region for resource in resources] == ["eu-central-1"]
    assert [(covered.region, covered.ok) for covered in coverage] == [
        ("eu-central-1", True),
        ("us-east-1", False),
    ]
    assert coverage[1].reason == "refused: UnauthorizedOperation: not you"


@pytest.mark.parametrize("kind", SCRIPTED)
async def test_answer_without_its_main_part_is_no_empty_account(kind: str) -> None:
    strange = {
        operation: {}
        for operation in (
            "DescribeSecurityGroups",
            "GetEbsEncryptionByDefault",
            "ListBuckets",
            "GetAccountPasswordPolicy",
        )
    }
    resources, coverage = await collect(view(strange), [kind])
    assert resources == []
    assert not any(covered.ok for covered in coverage)
    assert all("the answer has no" in covered.reason for covered in coverage)


@pytest.mark.parametrize(
    "error", [CloudTimeout("slow"), refused(), CloudError("broken", code="InternalError")]
)
async def test_collect_never_raises_for_what_a_cloud_does(error: CloudError) -> None:
    changes = dict.fromkeys(("DescribeSecurityGroups", "ListBuckets"), error)
    _, coverage = await collect(view(changes), ["aws.ec2.security_group", "aws.s3.bucket"])
    assert [covered.ok for covered in coverage] == [False, False, False]


# --- One resource again --------------------------------------------------------------------------


async def test_resource_re_read_is_the_resource_collected() -> None:
    looking = view()
    resources, _ = await collect(looking, SCRIPTED)
    for resource in resources:
        again = await read_one(looking, resource.kind, resource.id, resource.region)
        assert again == resource
        assert again.fingerprint == resource.fingerprint


@pytest.mark.parametrize(
    ("kind", "id", "changes"),
    [
        (
            "aws.ec2.security_group",
            f"arn:aws:ec2:us-east-1:{ACCOUNT}:security-group/sg-9",
            {"DescribeSecurityGroups": {"SecurityGroups": []}},
        ),
        (
            "aws.ec2.security_group",
            f"arn:aws:ec2:us-east-1:{ACCOUNT}:security-group/sg-9",
            {"DescribeSecurityGroups": gone("InvalidGroup.NotFound")},
        ),
        ("aws.s3.bucket", "arn:aws:s3:::gone", {"GetBucketPolicy": gone("NoSuchBucket")}),
    ],
)
async def test_resource_that_is_gone(kind: str, id: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ResourceGone):
        await read_one(view(changes), kind, id, "us-east-1")


async def test_what_hangs_on_a_group_and_cannot_be_read_is_said() -> None:
    class HalfBlind(ScriptedApi):
        async def call(self, service: str, operation: str, params: Any, **rest: Any) -> Any:
            if "Filters" in params:
                raise refused()
            return await super().call(service, operation, params, **rest)

    looking = replace(view(), api=HalfBlind())
    seen = await look(looking, "aws.ec2.security_group", "arn:x/sg-1", "us-east-1")
    assert seen.resource.config["GroupId"] == "sg-1"
    assert seen.around == {"unread": "refused: AccessDenied: not you"}
    bucket = await look(view(), "aws.s3.bucket", "arn:aws:s3:::logs", "us-east-1")
    assert bucket.around == {}


def naming(group: Resource, others: list[Resource]) -> list[dict[str, str]]:
    """The groups of its region whose rules let the members of ``group`` in."""
    named = [
        {"GroupId": one.config["GroupId"], "GroupName": one.name}
        for one in others
        if one.region == group.region
        and any(
            pair.get("GroupId") == group.config["GroupId"]
            for permission in one.config["IpPermissions"]
            for pair in permission.get("UserIdGroupPairs", ())
        )
    ]
    return sorted(named, key=lambda one: one["GroupId"])


# --- Accounts ------------------------------------------------------------------------------------


async def test_plain_accounts_need_no_call() -> None:
    api = ScriptedApi()
    (account,) = await discover(SOURCE, api, AwsKeyring(SOURCE, api))
    assert (account.id, account.source, account.scannable) == (ACCOUNT, "acme", True)
    assert api.asked == []


@pytest.mark.parametrize("key", ["Status", "State"])
async def test_status_of_an_account_under_its_old_and_its_new_name(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = [{"Id": "111122223333", "Name": "a", key: "ACTIVE"},
              {"Id": "111122223334", "Name": "b", key: "PENDING_CLOSURE"}]  # fmt: skip
    api = ScriptedApi({"ListAccounts": {"Accounts": listed}})
    source = replace(SOURCE, organization=True, accounts=(), management_account=ACCOUNT)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    accounts = await discover(source, api, AwsKeyring(source, api))
    assert [(one.name, one.status, one.scannable) for one in accounts] == [
        ("a", "active", True),
        ("b", "pending_closure", False),
    ]


# --- The table -----------------------------------------------------------------------------------


def test_every_aws_rule_has_a_collector_that_reads_what_it_reads() -> None:
    for rule in RULES:
        if rule.cloud == "aws":
            assert set(rule.reads) <= set(COLLECTORS[rule.kind].reads), rule.id


@pytest.mark.slow
async def test_emulated_account_in_full(
    aws: EmulatedAws, aws_source: AwsSource, aws_account: str, quick: Limits
) -> None:
    """Against answers of the cloud's own making: everything is found, and re-read the same."""
    async with AwsApi(endpoint=aws_source.endpoint, limits=quick) as api:
        looking = AwsView(
            api=api,
            source=aws_source,
            account=aws_account,
            credentials=await AwsKeyring(aws_source, api).assume(
                aws_account, aws_source.scanner_role
            ),
            slots_free=asyncio.Semaphore(8),
        )
        resources, coverage = await collect(looking, COLLECTORS)
        assert all(covered.ok for covered in coverage)
        assert {resource.kind for resource in resources} >= set(SCRIPTED)
        assert not any(resource.config.gaps for resource in resources)
        for resource in resources:
            again = await read_one(looking, resource.kind, resource.id, resource.region)
            assert again == resource
        groups = [one for one in resources if one.kind == "aws.ec2.security_group"]
        for group in groups:
            with recording() as calls:
                seen = await look(looking, group.kind, group.id, group.region)
            assert seen.resource == group
            assert seen.around == {"NamedInRulesOf": naming(group, groups)}
            assert [(one.operation, one.status) for one in calls] == [
                ("ec2:DescribeSecurityGroups", 200)
            ] * 2
            assert all(one.request_id for one in calls)
            assert group.config["GroupId"] in calls[0].target
        with pytest.raises(ResourceGone):
            await read_one(looking, "aws.s3.bucket", "arn:aws:s3:::no-such-bucket-9", "us-east-1")
        missing = f"arn:aws:ec2:us-east-1:{aws_account}:security-group/sg-00000000000000000"
        with pytest.raises(ResourceGone):
            await read_one(looking, "aws.ec2.security_group", missing, "us-east-1")
