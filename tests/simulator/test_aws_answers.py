"""What boto3 reads from the simulator is what the generator says that there is."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import fleet_aws
import pytest
from botocore.exceptions import ClientError

pytestmark = pytest.mark.slow

ACCOUNTS = [fleet_aws.account_id(index) for index in (0, 1, 2, 3, 17, 59)]


def _answer(call: Any, **params: Any) -> dict[str, Any]:
    answer: dict[str, Any] = call(**params)
    answer.pop("ResponseMetadata")
    return answer


def _refusal(call: Any, **params: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        call(**params)
    answer = caught.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]


@pytest.mark.parametrize("region", ["eu-central-1", "us-east-1"])
@pytest.mark.parametrize("account", ACCOUNTS[:3])
def test_security_groups(running: Any, fleet: Any, account: str, region: str) -> None:
    ec2 = running.client("ec2", account, region_name=region)
    answer = _answer(ec2.describe_security_groups)
    assert answer == {"SecurityGroups": fleet_aws.security_groups(fleet, account, region)}
    assert len(answer["SecurityGroups"]) == 12


def test_every_account_has_its_own_groups_and_many_are_open(fleet: Any) -> None:
    groups = [
        group
        for index in range(fleet.accounts)
        for group in fleet_aws.security_groups(fleet, fleet_aws.account_id(index), "eu-central-1")
    ]
    assert len({group["GroupId"] for group in groups}) == 12 * fleet.accounts
    is_open = [
        any(
            permission.get("FromPort", 0) <= 22 <= permission.get("ToPort", 65535)
            and {"CidrIp": "0.0.0.0/0"} in permission["IpRanges"]
            for permission in group["IpPermissions"]
        )
        for group in groups
    ]
    assert 0.05 < sum(is_open) / len(is_open) < 0.4


def test_security_groups_by_id_by_filter_and_by_page(running: Any, fleet: Any) -> None:
    account = ACCOUNTS[1]
    truth = fleet_aws.security_groups(fleet, account, "eu-central-1")
    ec2 = running.client("ec2", account)
    wanted = [truth[5]["GroupId"], truth[2]["GroupId"]]
    assert ec2.describe_security_groups(GroupIds=wanted)["SecurityGroups"] == [truth[5], truth[2]]
    named = [{"Name": "group-name", "Values": [truth[3]["GroupName"]]}]
    assert ec2.describe_security_groups(Filters=named)["SecurityGroups"] == [truth[3]]
    pages = list(
        ec2.get_paginator("describe_security_groups").paginate(PaginationConfig={"PageSize": 5})
    )
    assert [len(page["SecurityGroups"]) for page in pages] == [5, 5, 2]
    assert [group for page in pages for group in page["SecurityGroups"]] == truth
    assert _refusal(ec2.describe_security_groups, GroupIds=["sg-0"]) == (
        "InvalidGroup.NotFound",
        400,
    )


def test_ebs_and_regions(running: Any) -> None:
    found = {
        account: _answer(running.client("ec2", account).get_ebs_encryption_by_default)
        for account in ACCOUNTS
    }
    assert {account: answer["EbsEncryptionByDefault"] for account, answer in found.items()} == {
        account: fleet_aws.ebs_encrypted(account) for account in ACCOUNTS
    }
    regions = running.client("ec2", ACCOUNTS[0]).describe_regions()["Regions"]
    assert [region["RegionName"] for region in regions] == ["eu-central-1", "us-east-1"]


@pytest.mark.parametrize("account", ACCOUNTS)
def test_password_policy(running: Any, account: str) -> None:
    iam = running.client("iam", account)
    truth = fleet_aws.password_policy(account)
    if truth is None:
        assert _refusal(iam.get_account_password_policy) == ("NoSuchEntity", 404)
    else:
        assert _answer(iam.get_account_password_policy) == {"PasswordPolicy": truth}


def test_every_kind_of_password_policy_is_seen(fleet: Any) -> None:
    found = [
        fleet_aws.password_policy(fleet_aws.account_id(index)) for index in range(fleet.accounts)
    ]
    assert None in found
    assert len({json.dumps(policy) for policy in found}) == 5


def test_buckets(running: Any, fleet: Any) -> None:
    account = ACCOUNTS[2]
    s3 = running.client("s3", account)
    buckets = s3.list_buckets()["Buckets"]
    assert buckets == fleet_aws.buckets(fleet, account)
    assert len(buckets) == 11
    assert [b["Name"] for b in buckets if "BucketRegion" not in b] == [buckets[1]["Name"]]
    pages = s3.get_paginator("list_buckets").paginate(PaginationConfig={"PageSize": 4})
    assert [bucket for page in pages for bucket in page["Buckets"]] == buckets
    located = [s3.get_bucket_location(Bucket=b["Name"])["LocationConstraint"] for b in buckets[:2]]
    assert located == ["eu-central-1", None]  # S3 says nothing for us-east-1
    assert s3.head_bucket(Bucket=buckets[1]["Name"])["BucketRegion"] == "us-east-1"


@pytest.mark.parametrize("account", ACCOUNTS[:2])
def test_bucket_configuration(running: Any, fleet: Any, account: str) -> None:
    s3 = running.client("s3", account)
    for index in range(fleet.buckets):
        name = fleet_aws.bucket_name(account, index)
        kind = fleet_aws.bucket_kind(account, index)
        truth = fleet_aws.bucket_configuration(account, name, kind)
        assert _answer(s3.get_bucket_versioning, Bucket=name) == truth.versioning
        for call, wanted, never_set in (
            (
                s3.get_public_access_block,
                {"PublicAccessBlockConfiguration": truth.public_access_block},
                "NoSuchPublicAccessBlockConfiguration",
            ),
            (s3.get_bucket_tagging, {"TagSet": truth.tags}, "NoSuchTagSet"),
        ):
            if None in wanted.values():
                assert _refusal(call, Bucket=name) == (never_set, 404)
            else:
                assert _answer(call, Bucket=name) == wanted
        if truth.policy is None:
            assert _refusal(s3.get_bucket_policy, Bucket=name) == ("NoSuchBucketPolicy", 404)
        else:
            assert json.loads(s3.get_bucket_policy(Bucket=name)["Policy"]) == truth.policy


def test_every_part_of_a_bucket_is_sometimes_never_set() -> None:
    found = [
        fleet_aws.bucket_configuration("1" * 12, "name", kind)
        for kind in range(fleet_aws.BUCKET_KINDS)
    ]
    for part in ("public_access_block", "versioning", "policy", "tags"):
        unset = [not getattr(configuration, part) for configuration in found]
        assert any(unset), part
        assert not all(unset), part


def test_buckets_of_others_and_of_nobody_are_refused(running: Any) -> None:
    s3 = running.client("s3", ACCOUNTS[0])
    foreign, unknown = fleet_aws.bucket_name(ACCOUNTS[1], 0), fleet_aws.bucket_name(ACCOUNTS[0], 11)
    assert _refusal(s3.get_bucket_policy, Bucket=foreign) == ("AccessDenied", 403)
    assert _refusal(s3.get_bucket_policy, Bucket=unknown) == ("NoSuchBucket", 404)
    assert _refusal(s3.get_bucket_policy, Bucket="another-name") == ("NoSuchBucket", 404)


def test_a_bucket_is_found_by_host_as_by_path(running: Any) -> None:
    account = ACCOUNTS[3]
    bucket = fleet_aws.bucket_name(account, 0)
    by_path = running.ask("s3", "GET", f"/{bucket}?versioning", account=account)
    host = f"{bucket}.s3.eu-central-1.amazonaws.com"
    by_host = running.ask("s3", "GET", "/?versioning", account=account, host=host)
    as_javascript = running.ask(
        "s3", "GET", "/?versioning=&x-id=GetBucketVersioning", account=account, host=host
    )
    assert by_path.status_code == 200
    assert by_path.content == by_host.content == as_javascript.content


def test_a_role_is_assumed_and_its_keys_work(running: Any) -> None:
    told, account = running.told["aws"], ACCOUNTS[4]
    sts = running.client("sts")
    assert sts.get_caller_identity()["Account"] == told["management_account"]
    session = sts.assume_role(
        RoleArn=f"arn:aws:iam::{account}:role/{told['role']}",
        RoleSessionName="suture",
        ExternalId=told["external_id"],
    )["Credentials"]
    ahead = session["Expiration"] - datetime.now(UTC)
    assert timedelta(minutes=59) < ahead <= timedelta(minutes=60)
    assert len(session["AccessKeyId"]) == 20
    assert account in session["AccessKeyId"]
    mine = running.client(
        "sts",
        aws_access_key_id=session["AccessKeyId"],
        aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
    )
    identity = mine.get_caller_identity()
    assert identity["Account"] == account
    assert identity["Arn"] == f"arn:aws:sts::{account}:assumed-role/{told['role']}/session"


@pytest.mark.parametrize(
    ("account", "external_id"),
    [(ACCOUNTS[0], "wrong-external-id"), (fleet_aws.account_id(60), ""), ("222222222222", "")],
)
def test_a_role_is_refused(running: Any, account: str, external_id: str) -> None:
    refusal = _refusal(
        running.client("sts").assume_role,
        RoleArn=f"arn:aws:iam::{account}:role/{running.told['aws']['role']}",
        RoleSessionName="suture",
        ExternalId=external_id or running.told["aws"]["external_id"],
    )
    assert refusal == ("AccessDenied", 403)


def test_the_organization_lists_every_account_twenty_a_page(running: Any, fleet: Any) -> None:
    organizations = running.client("organizations")
    pages = list(organizations.get_paginator("list_accounts").paginate())
    assert [len(page["Accounts"]) for page in pages] == [20, 20, 20]
    found = [account for page in pages for account in page["Accounts"]]
    assert found == [
        fleet_aws.organization_account(fleet_aws.account_id(index))
        for index in range(fleet.accounts)
    ]
    assert len(organizations.list_accounts(MaxResults=7)["Accounts"]) == 7


def test_unknown_keys_and_wrong_secrets_are_refused(running: Any) -> None:
    unknown = {"aws_access_key_id": f"ASIA{fleet_aws.account_id(60)}ROLE"}
    assert _refusal(running.client("sts", **unknown).get_caller_identity) == (
        "InvalidClientTokenId",
        403,
    )
    before = running.stats()["wrong_signatures"]
    wrong = {"aws_secret_access_key": "not-the-secret"}
    for service, call, code, status in (
        ("sts", "get_caller_identity", "SignatureDoesNotMatch", 403),
        ("s3", "list_buckets", "SignatureDoesNotMatch", 403),
        ("ec2", "describe_security_groups", "AuthFailure", 401),
        ("organizations", "list_accounts", "InvalidSignatureException", 400),
    ):
        client = running.client(service, ACCOUNTS[0], **wrong)
        assert _refusal(getattr(client, call)) == (code, status)
    assert running.stats()["wrong_signatures"] == before + 4


def test_an_unsigned_request_is_refused(running: Any) -> None:
    with running.http() as http:
        answer = http.post("/", content=b"Action=GetCallerIdentity&Version=2011-06-15")
    assert answer.status_code == 403
    assert "MissingAuthenticationToken" in answer.text


@pytest.mark.parametrize(
    ("service", "call", "member"),
    [
        ("iam", "list_users", "Users"),
        ("iam", "get_account_summary", "SummaryMap"),
        ("ec2", "describe_instances", "Reservations"),
        ("rds", "describe_db_instances", "DBInstances"),
        ("elbv2", "describe_load_balancers", "LoadBalancers"),
        ("elb", "describe_load_balancers", "LoadBalancerDescriptions"),
        ("cloudwatch", "describe_alarms", "MetricAlarms"),
        ("cloudtrail", "describe_trails", "trailList"),
        ("dynamodb", "list_tables", "TableNames"),
        ("kms", "list_keys", "Keys"),
        ("lambda", "list_functions", "Functions"),
        ("eks", "list_clusters", "clusters"),
        ("account", "list_regions", "Regions"),
        ("route53", "list_hosted_zones", "HostedZones"),
        ("cloudfront", "list_distributions", "DistributionList"),
        ("organizations", "describe_organization", "Organization"),
    ],
)
def test_whatever_else_is_asked_is_empty(
    running: Any, service: str, call: str, member: str
) -> None:
    before = running.stats()["operations"].get("other", 0)
    answer = _answer(getattr(running.client(service, ACCOUNTS[0]), call))
    assert member in answer
    assert running.stats()["operations"]["other"] == before + 1


@pytest.mark.parametrize(
    ("service", "call", "answer"),
    [
        (
            "ec2",
            "get_snapshot_block_public_access_state",
            {"State": "unblocked", "ManagedBy": "account"},
        ),
        (
            "ec2",
            "get_image_block_public_access_state",
            {"ImageBlockPublicAccessState": "block-new-sharing", "ManagedBy": "account"},
        ),
        ("glacier", "list_vaults", {"VaultList": []}),
        (
            "xray",
            "get_encryption_config",
            {"EncryptionConfig": {"Status": "ACTIVE", "Type": "NONE"}},
        ),
        (
            "glue",
            "get_data_catalog_encryption_settings",
            {
                "DataCatalogEncryptionSettings": {
                    "EncryptionAtRest": {"CatalogEncryptionMode": "DISABLED"},
                    "ConnectionPasswordEncryption": {"ReturnConnectionPasswordEncrypted": False},
                }
            },
        ),
    ],
)
def test_a_setting_that_was_never_made_has_its_default(
    running: Any, service: str, call: str, answer: dict[str, Any]
) -> None:
    assert _answer(getattr(running.client(service, ACCOUNTS[0]), call)) == answer


def test_the_root_user_of_an_account_that_was_just_made(running: Any) -> None:
    summary = running.client("iam", ACCOUNTS[0]).get_account_summary()["SummaryMap"]
    root = ("AccountPasswordPresent", "AccountAccessKeysPresent", "AccountMFAEnabled")
    assert [summary[name] for name in root] == [1, 0, 0]


def test_a_region_without_security_hub(running: Any) -> None:
    hub = running.client("securityhub", ACCOUNTS[1])
    assert _refusal(hub.describe_hub) == ("InvalidAccessException", 401)
    with pytest.raises(ClientError, match=f"Account {ACCOUNTS[1]} is not subscribed"):
        hub.describe_hub()


@pytest.mark.parametrize(
    ("target", "named", "code", "status"),
    [
        ("configuration/publicAccessBlock", 0, "NoSuchPublicAccessBlockConfiguration", 404),
        ("configuration/publicAccessBlock", 1, "AccessDenied", 403),
        ("jobs", 0, "ListJobsResult", 200),
        ("nowhere", 0, "MethodNotAllowed", 405),
    ],
)
def test_the_settings_of_s3_that_are_an_account_s(
    running: Any, target: str, named: int, code: str, status: int
) -> None:
    # botocore would put the account before the host, and there is no such host here.
    path = f"/v20180820/{target}"
    headers = running.signed("s3", "GET", path, account=ACCOUNTS[0])
    with running.http() as http:
        answer = http.get(path, headers=headers | {"x-amz-account-id": ACCOUNTS[named]})
    assert (answer.status_code, code in answer.text) == (status, True)


def test_the_paths_of_the_statistics_are_glacier_s_where_they_are_signed(running: Any) -> None:
    answer = running.ask("glacier", "GET", "/-/vaults", account=ACCOUNTS[0])
    assert answer.json() == {"VaultList": []}
    with running.http() as http:
        assert http.get("/-/vaults").status_code == 404
        assert http.get("/-/stats").json()["requests"] > 0


def test_the_same_account_answers_the_same_bytes_twice(running: Any, start: Any) -> None:
    again = start("--aws", "60", "--regions", "eu-central-1", "us-east-1")
    bucket = fleet_aws.bucket_name(ACCOUNTS[0], 4)
    for service, method, target, body in (
        ("ec2", "POST", "/", b"Action=DescribeSecurityGroups&Version=2016-11-15"),
        ("iam", "POST", "/", b"Action=GetAccountPasswordPolicy&Version=2010-05-08"),
        ("s3", "GET", "/", b""),
        ("s3", "GET", f"/{bucket}?policy", b""),
    ):
        answers = {
            one.ask(service, method, target, body).content for one in (running, running, again)
        }
        assert len(answers) == 1


@pytest.mark.parametrize(
    ("service", "target", "body"),
    [
        ("ec2", "/", b"Action=DescribeSecurityGroups&Version=2016-11-15&MaxResults=few"),
        ("ec2", "/", b"Action=DescribeSecurityGroups&Version=2016-11-15&NextToken=far"),
        ("iam", "/", b"Action=\xff\xfe&Version=2010-05-08"),
        ("s3", "/?max-buckets=many", b""),
    ],
)
def test_what_cannot_be_read_is_a_bad_request_and_no_end(
    running: Any, service: str, target: str, body: bytes
) -> None:
    answer = running.ask(service, "POST" if body else "GET", target, body)
    assert answer.status_code == 400
    assert "ValidationError" in answer.text
    assert running.stats()["connections_opened"] > 0
