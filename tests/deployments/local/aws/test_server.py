"""The emulated organization, driven by real boto3: is it as strict as AWS?"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError, ReadTimeoutError

from deployments.local.exposed import SERVICES

pytestmark = pytest.mark.slow


def code(call, **params) -> str:
    """The error code of a call that must fail."""
    with pytest.raises(ClientError) as caught:
        call(**params)
    return caught.value.response["Error"]["Code"]


# ---------------------------------------------------------------- authentication

PROBES = [
    ("ec2", "describe_regions", "AuthFailure", "AuthFailure"),
    ("iam", "get_account_password_policy", "InvalidClientTokenId", "SignatureDoesNotMatch"),
    ("sts", "get_caller_identity", "InvalidClientTokenId", "SignatureDoesNotMatch"),
    ("s3", "list_buckets", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    ("organizations", "list_accounts", "UnrecognizedClientException", "InvalidSignatureException"),
]


@pytest.mark.parametrize(("service", "operation", "unknown", "_wrong"), PROBES)
def test_an_unknown_key_is_refused(cloud, service, operation, unknown, _wrong):
    keys = {"access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "x" * 40}
    assert code(getattr(cloud.client(service, keys), operation)) == unknown


@pytest.mark.parametrize(("service", "operation", "_unknown", "wrong"), PROBES)
def test_a_wrong_secret_is_refused(cloud, service, operation, _unknown, wrong):
    keys = {**cloud.told["hub"], "secret_access_key": "x" * 40}
    assert code(getattr(cloud.client(service, keys), operation)) == wrong


def test_a_session_needs_its_own_token(cloud):
    session, other = cloud.scanner(), cloud.scanner()
    for token in (None, other["SessionToken"], "nonsense"):
        assert (
            code(cloud.client("s3", {**session, "SessionToken": token}).list_buckets)
            == "InvalidToken"
        )


def signed(cloud, *, at: datetime | None = None, body: str = "") -> AWSRequest:
    hub = cloud.told["hub"]
    body = body or "Action=GetCallerIdentity&Version=2011-06-15"
    request = AWSRequest(
        "POST",
        cloud.told["endpoint"] + "/",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        data=body,
    )
    credentials = Credentials(hub["access_key_id"], hub["secret_access_key"])
    SigV4Auth(credentials, "sts", "us-east-1").add_auth(request)
    if at:
        signer = SigV4Auth(credentials, "sts", "us-east-1")
        request.context["timestamp"] = at.strftime("%Y%m%dT%H%M%SZ")
        del request.headers["Authorization"]
        request.headers.replace_header("X-Amz-Date", request.context["timestamp"])
        signer._inject_signature_to_request(
            request,
            signer.signature(
                signer.string_to_sign(request, signer.canonical_request(request)), request
            ),
        )
    return request


def send(request: AWSRequest, **headers: str) -> tuple[int, str]:
    plain = urllib.request.Request(
        request.url,
        data=request.data.encode() or None,
        headers={**dict(request.headers.items()), **headers},
        method=request.method,
    )
    try:
        with urllib.request.urlopen(plain, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_signature_covers_body_and_headers_and_grows_old(cloud):
    assert send(signed(cloud))[0] == 200
    altered = signed(cloud)
    altered.data = altered.data.replace("GetCallerIdentity", "GetSessionToken")
    assert "SignatureDoesNotMatch" in send(altered)[1]
    assert "SignatureDoesNotMatch" in send(signed(cloud), **{"X-Amz-Target": "Other.Call"})[1]
    just, late = (datetime.now(UTC) - timedelta(minutes=minutes) for minutes in (14, 16))
    assert send(signed(cloud, at=just))[0] == 200
    assert "Signature expired" in send(signed(cloud, at=late))[1]


def test_nobody_gets_in_unsigned_or_by_motos_own_doors(cloud):
    for path in ("/", "/some-bucket", "/moto-api/reset", "/moto-api/data.json"):
        request = urllib.request.Request(cloud.told["endpoint"] + path, method="POST", data=b"")
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=5)
        assert caught.value.code == 403
        caught.value.close()
    s3 = cloud.client("s3", cloud.told["customer"])
    assert code(s3.get_bucket_location, Bucket="moto-api") == "NoSuchBucket"


def test_the_account_is_the_gates_to_say(cloud):
    ec2 = cloud.client("ec2", cloud.scanner())
    ec2.meta.events.register(
        "before-sign.ec2",
        lambda request, **_: request.headers.add_header("x-moto-account-id", cloud.management),
    )
    groups = ec2.describe_security_groups()["SecurityGroups"]
    assert {group["OwnerId"] for group in groups} == {cloud.member}


# ---------------------------------------------------------------- AssumeRole

REMEDIATOR = "SutureRemediator"


def open_gate(cloud, account="", *, until: datetime, code="123456", principal=""):
    """What a customer does: trust the hub, with the code, until a time."""
    external_id = f"{cloud.told['external_id']}:{code}"
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": principal or cloud.told["hub"]["arn"]},
                "Action": "sts:AssumeRole",
                "Condition": {
                    "StringEquals": {"sts:ExternalId": external_id},
                    "DateLessThan": {"aws:CurrentTime": until.strftime("%Y-%m-%dT%H:%M:%SZ")},
                },
            }
        ],
    }
    iam = cloud.client("iam", cloud.admin(account))
    iam.update_assume_role_policy(RoleName=REMEDIATOR, PolicyDocument=json.dumps(policy))
    return external_id


def soon() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=10)


def test_the_scanner_role_wants_the_external_id(cloud):
    session = cloud.scanner()
    assert session["AccessKeyId"].startswith("ASIA")
    who = cloud.client("sts", session).get_caller_identity()
    assert who["Account"] == cloud.member
    assert who["Arn"].endswith(":assumed-role/SutureScanner/suture-test")
    for wrong in ({}, {"ExternalId": "wrong"}, {"ExternalId": cloud.told["external_id"].upper()}):
        assert code(lambda w=wrong: cloud.assume("SutureScanner", **w)) == "AccessDenied"


def test_every_refusal_reads_the_same(cloud):
    def words(role, account="", **params):
        with pytest.raises(ClientError) as caught:
            cloud.assume(role, account, **params)
        return caught.value.response["Error"]["Message"].partition(" on resource: ")[0]

    open_gate(cloud, until=soon())
    hidden = [
        words("SutureScanner", ExternalId="wrong"),
        words("SutureScanner", cloud.failing("refused"), ExternalId=cloud.told["external_id"]),
        words("NoSuchRole"),
        words("SutureScanner", "000000000001"),
        words(REMEDIATOR, ExternalId=cloud.told["external_id"]),
        words(cloud.told["admin_role"]),
    ]
    assert len(set(hidden)) == 1


def test_the_remediator_is_closed_until_its_gate_opens_and_closes_by_itself(cloud, emulator):
    account = cloud.healthy[2]
    guess = f"{cloud.told['external_id']}:123456"
    assert code(lambda: cloud.assume(REMEDIATOR, account, ExternalId=guess)) == "AccessDenied"

    right = open_gate(cloud, account, until=soon())
    assert cloud.assume(REMEDIATOR, account, ExternalId=right)
    wrong = right.replace("123456", "123457")
    assert code(lambda: cloud.assume(REMEDIATOR, account, ExternalId=wrong)) == "AccessDenied"
    try:
        emulator.advance(timedelta(minutes=11))
        assert code(lambda: cloud.assume(REMEDIATOR, account, ExternalId=right)) == "AccessDenied"
    finally:
        emulator.advance(timedelta(minutes=-11))

    past = open_gate(cloud, account, until=datetime.now(UTC) - timedelta(minutes=1))
    assert code(lambda: cloud.assume(REMEDIATOR, account, ExternalId=past)) == "AccessDenied"


def test_trust_in_somebody_else_is_no_trust_in_the_hub(cloud):
    stranger = f"arn:aws:iam::{cloud.management}:root"
    right = open_gate(cloud, until=soon(), principal=stranger)
    assert code(lambda: cloud.assume(REMEDIATOR, ExternalId=right)) == "AccessDenied"
    assert cloud.assume(REMEDIATOR, by=cloud.told["customer"], ExternalId=right)


def test_the_callers_own_policy_must_allow_it_too(cloud):
    iam = cloud.client("iam", cloud.admin())
    hub = {"AWS": cloud.told["hub"]["arn"]}
    trust = {"Effect": "Allow", "Principal": hub, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName="NotForSuture", AssumeRolePolicyDocument=document)
    assert code(lambda: cloud.assume("NotForSuture")) == "AccessDenied"


def test_a_suspended_account_cannot_be_assumed_into(cloud):
    suspended = next(a["id"] for a in cloud.told["accounts"] if a["status"] == "SUSPENDED")
    assert code(lambda: cloud.scanner(suspended)) == "AccessDenied"
    assert code(lambda: cloud.admin(suspended)) == "AccessDenied"


@pytest.mark.parametrize(
    ("params", "refused"),
    [
        ({"DurationSeconds": 3601}, "ValidationError"),
        ({"DurationSeconds": 43201}, "ValidationError"),
        ({"Policy": '{"Version": "2012-10-17"}'}, "MalformedPolicyDocument"),
        ({"Policy": json.dumps({"Statement": "x" * 2048})}, "ValidationError"),
    ],
)
def test_parameters_out_of_bounds_are_named(cloud, params, refused):
    external_id = cloud.told["external_id"]
    assert code(lambda: cloud.assume("SutureScanner", ExternalId=external_id, **params)) == refused


def test_a_session_ends(cloud, emulator):
    session = cloud.scanner()
    s3, ec2, iam = (cloud.client(name, session) for name in ("s3", "ec2", "iam"))
    s3.list_buckets()
    try:
        emulator.advance(timedelta(hours=1, seconds=1))
        assert code(s3.list_buckets) == "ExpiredToken"
        assert code(ec2.describe_security_groups) == "RequestExpired"
        assert code(iam.get_account_password_policy) == "ExpiredToken"
    finally:
        emulator.advance(-timedelta(hours=1, seconds=1))
    s3.list_buckets()


# ---------------------------------------------------------------- permissions


def test_the_scanner_writes_nothing(cloud):
    session = cloud.scanner()
    ec2, s3, iam = (cloud.client(name, session) for name in ("ec2", "s3", "iam"))
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    world = [
        {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    ]
    refused = [
        code(ec2.authorize_security_group_ingress, GroupId=group, IpPermissions=world),
        code(ec2.revoke_security_group_ingress, GroupId=group, IpPermissions=world),
        code(ec2.enable_ebs_encryption_by_default),
    ]
    assert set(refused) == {"UnauthorizedOperation"}
    bucket = s3.list_buckets(MaxBuckets=1)["Buckets"][0]
    there = cloud.client("s3", session, bucket["BucketRegion"])
    refused = [
        code(there.delete_bucket_policy, Bucket=bucket["Name"]),
        code(there.delete_public_access_block, Bucket=bucket["Name"]),
        code(there.put_object, Bucket=bucket["Name"], Key="k", Body=b"x"),
        code(there.list_objects_v2, Bucket=bucket["Name"]),
        code(iam.update_account_password_policy, MinimumPasswordLength=20),
        code(iam.get_role, RoleName="SutureRemediator"),
        code(iam.create_access_key, UserName="suture"),
    ]
    assert set(refused) == {"AccessDenied"}


def test_the_hub_may_take_on_roles_and_nothing_else(cloud):
    hub = cloud.told["hub"]
    assert code(cloud.client("iam", hub).list_users) == "AccessDenied"
    assert code(cloud.client("organizations", hub).list_accounts) == "AccessDeniedException"
    assert code(cloud.client("ec2", hub).describe_security_groups) == "UnauthorizedOperation"


SSH = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
WORLD = [{**SSH, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]


def test_a_session_policy_narrows_to_one_group_and_one_write(cloud):
    admin = cloud.client("ec2", cloud.admin())
    mine, sibling = (
        admin.create_security_group(GroupName=f"narrow-{n}", Description="d")["GroupId"]
        for n in range(2)
    )
    for group in (mine, sibling):
        admin.authorize_security_group_ingress(GroupId=group, IpPermissions=WORLD)
    arn = f"arn:aws:ec2:eu-central-1:{cloud.member}:security-group/{mine}"
    narrow = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": "ec2:RevokeSecurityGroupIngress", "Resource": arn}
        ],
    }
    external_id = open_gate(cloud, until=soon())
    session = cloud.assume(
        REMEDIATOR, ExternalId=external_id, DurationSeconds=900, Policy=json.dumps(narrow)
    )
    ec2 = cloud.client("ec2", session)
    revoke, authorize = ec2.revoke_security_group_ingress, ec2.authorize_security_group_ingress
    assert code(revoke, GroupId=sibling, IpPermissions=WORLD) == "UnauthorizedOperation"
    assert code(authorize, GroupId=mine, IpPermissions=WORLD) == "UnauthorizedOperation"
    assert code(ec2.enable_ebs_encryption_by_default) == "UnauthorizedOperation"
    assert code(ec2.describe_security_groups) == "UnauthorizedOperation"
    iam = cloud.client("iam", session)
    assert code(iam.delete_account_password_policy) == "AccessDenied"
    elsewhere = cloud.client("ec2", session, "us-east-1").revoke_security_group_ingress
    assert code(elsewhere, GroupId=mine, IpPermissions=WORLD) == "UnauthorizedOperation"
    assert revoke(GroupId=mine, IpPermissions=WORLD)["Return"]


def test_the_ceiling_stays_over_the_session_policy(cloud):
    everything = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
    }
    external_id = open_gate(cloud, until=soon())
    session = cloud.assume(REMEDIATOR, ExternalId=external_id, Policy=json.dumps(everything))
    ec2 = cloud.client("ec2", session)
    assert (
        code(ec2.create_security_group, GroupName="x", Description="x") == "UnauthorizedOperation"
    )
    assert ec2.enable_ebs_encryption_by_default()["EbsEncryptionByDefault"]
    assert not ec2.disable_ebs_encryption_by_default()["EbsEncryptionByDefault"]


def test_a_change_of_a_role_by_ordinary_iam_takes_effect_at_once(cloud):
    account = cloud.healthy[3]
    session = cloud.scanner(account)
    ec2, iam = cloud.client("ec2", session), cloud.client("iam", cloud.admin(account))
    ec2.describe_security_groups()
    stop = {"Effect": "Deny", "Action": "ec2:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [stop]})
    iam.put_role_policy(RoleName="SutureScanner", PolicyName="stop", PolicyDocument=document)
    assert code(ec2.describe_security_groups) == "UnauthorizedOperation"
    iam.delete_role_policy(RoleName="SutureScanner", PolicyName="stop")
    ec2.describe_security_groups()
    arn = iam.create_policy(PolicyName="fence", PolicyDocument=document)["Policy"]["Arn"]
    iam.put_role_permissions_boundary(RoleName="SutureScanner", PermissionsBoundary=arn)
    assert code(ec2.describe_security_groups) == "UnauthorizedOperation"


def test_new_keys_work_and_inactive_ones_do_not(cloud):
    iam = cloud.client("iam", cloud.told["customer"])
    iam.create_user(UserName="temp")
    made = iam.create_access_key(UserName="temp")["AccessKey"]
    sts = cloud.client("sts", {k: made[k] for k in ("AccessKeyId", "SecretAccessKey")})
    assert sts.get_caller_identity()["Arn"].endswith("user/temp")
    iam.update_access_key(UserName="temp", AccessKeyId=made["AccessKeyId"], Status="Inactive")
    assert code(sts.get_caller_identity) == "InvalidClientTokenId"


def test_a_policy_that_is_none_is_refused(cloud):
    iam = cloud.client("iam", cloud.admin())
    bad = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Maybe"}]})
    update = iam.update_assume_role_policy
    assert code(update, RoleName=REMEDIATOR, PolicyDocument=bad) == "MalformedPolicyDocument"


# ---------------------------------------------------------------- failing accounts


def test_a_refused_account(cloud):
    assert code(lambda: cloud.scanner(cloud.failing("refused"))) == "AccessDenied"


def test_a_throttled_account_throttles_every_service_in_its_own_words(cloud):
    session = cloud.scanner(cloud.failing("throttled"))
    assert code(cloud.client("ec2", session).describe_regions) == "RequestLimitExceeded"
    assert code(cloud.client("s3", session).list_buckets) == "SlowDown"
    assert code(cloud.client("iam", session).get_account_password_policy) == "Throttling"


def test_a_hanging_account_outlasts_any_sane_client(cloud):
    impatient = Config(retries={"total_max_attempts": 1}, read_timeout=0.5)
    session = cloud.scanner(cloud.failing("timeout"))
    with pytest.raises(ReadTimeoutError):
        cloud.client("ec2", session, config=impatient).describe_regions()


def test_faults_come_and_go(cloud, emulator):
    account = cloud.healthy[4]
    emulator.fail(account, "throttled")
    ec2 = cloud.client("ec2", cloud.scanner(account))
    assert code(ec2.describe_security_groups) == "RequestLimitExceeded"
    emulator.fail(account, "refused")
    ec2.describe_security_groups()
    assert code(lambda: cloud.scanner(account)) == "AccessDenied"
    emulator.recover(account)
    cloud.scanner(account)


# ---------------------------------------------------------------- organization, paging


def test_the_organization_is_listed_page_by_page(cloud):
    session = cloud.assume(
        "SutureDiscovery", cloud.management, ExternalId=cloud.told["external_id"]
    )
    organizations = cloud.client("organizations", session)
    first = organizations.list_accounts()
    assert len(first["Accounts"]) == 20
    pages = list(
        organizations.get_paginator("list_accounts").paginate(PaginationConfig={"PageSize": 7})
    )
    assert [len(page["Accounts"]) for page in pages] == [7, 7, 7, 4]
    listed = [
        (account["Id"], account["Name"], account["Status"])
        for page in pages
        for account in page["Accounts"]
    ]
    assert listed == [(a["id"], a["name"], a["status"]) for a in cloud.told["accounts"]]
    assert Counter(status for *_, status in listed) == {"ACTIVE": 24, "SUSPENDED": 1}
    assert code(organizations.list_accounts, NextToken="mine") == "InvalidInputException"
    assert code(organizations.list_roots) == "AccessDeniedException"
    assert (
        organizations.describe_organization()["Organization"]["Id"]
        == cloud.told["organization"]["id"]
    )
    tags = organizations.list_tags_for_resource(ResourceId=cloud.member)["Tags"]
    assert {tag["Key"] for tag in tags} == {"env", "owner"}


def test_only_regions_in_use_are_listed_unless_all_are_asked_for(cloud):
    ec2 = cloud.client("ec2", cloud.admin())
    used = {region["RegionName"] for region in ec2.describe_regions()["Regions"]}
    every = {region["RegionName"] for region in ec2.describe_regions(AllRegions=True)["Regions"]}
    assert set(cloud.told["regions"]) <= used < every


def test_a_service_that_is_not_emulated_says_so(cloud):
    grafana = cloud.client("grafana", cloud.told["customer"])
    assert code(grafana.list_workspaces) == "UnknownOperationException"
    assert code(cloud.client("sts", cloud.told["customer"]).get_session_token) == "InvalidAction"


def test_security_groups_are_paged(cloud):
    account = cloud.healthy[5]
    admin, ec2 = (
        cloud.client("ec2", keys) for keys in (cloud.admin(account), cloud.scanner(account))
    )
    for number in range(8):
        admin.create_security_group(GroupName=f"page-{number}", Description="d")
    whole = [group["GroupId"] for group in ec2.describe_security_groups()["SecurityGroups"]]
    pages = list(
        ec2.get_paginator("describe_security_groups").paginate(PaginationConfig={"PageSize": 5})
    )
    assert [g["GroupId"] for page in pages for g in page["SecurityGroups"]] == whole
    assert len(pages) == -(-len(whole) // 5) > 1
    assert code(ec2.describe_security_groups, MaxResults=1001) == "InvalidParameterValue"
    assert code(ec2.describe_security_groups, NextToken="mine") == "InvalidNextToken"
    both = {"MaxResults": 5, "GroupIds": whole[:1]}
    assert code(ec2.describe_security_groups, **both) == "InvalidParameterCombination"


# ---------------------------------------------------------------- writes, as AWS takes them


def test_rules_of_a_group_are_changed_whole_or_not_at_all(cloud):
    ec2 = cloud.client("ec2", cloud.admin())
    group = ec2.create_security_group(GroupName="rules", Description="d")["GroupId"]
    ranges = {
        **SSH,
        "IpRanges": [{"CidrIp": "10.1.2.3/8", "Description": "office"}, {"CidrIp": "0.0.0.0/0"}],
        "Ipv6Ranges": [{"CidrIpv6": "::/0", "Description": "v6"}],
        "UserIdGroupPairs": [{"GroupId": group}],
    }
    rdp = {**SSH, "FromPort": 3389, "ToPort": 3389, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    added = ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[ranges, rdp])
    assert len(added["SecurityGroupRules"]) == 5

    def seen():
        described = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
        return described["IpPermissions"]

    before = seen()
    assert before[0]["IpRanges"][0] == {"CidrIp": "10.0.0.0/8", "Description": "office"}
    assert before[0]["Ipv6Ranges"] == [{"CidrIpv6": "::/0", "Description": "v6"}]

    fresh = {**SSH, "FromPort": 80, "ToPort": 80, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}
    authorize, revoke = ec2.authorize_security_group_ingress, ec2.revoke_security_group_ingress
    assert (
        code(authorize, GroupId=group, IpPermissions=[fresh, rdp]) == "InvalidPermission.Duplicate"
    )
    assert code(revoke, GroupId=group, IpPermissions=[rdp, fresh]) == "InvalidPermission.NotFound"
    assert seen() == before

    world = {**SSH, "IpRanges": [{"CidrIp": "0.0.0.0/0"}], "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}
    revoke(GroupId=group, IpPermissions=[world])
    kept = seen()[0]
    assert kept["IpRanges"] == [{"CidrIp": "10.0.0.0/8", "Description": "office"}]
    assert kept["Ipv6Ranges"] == []
    assert kept["UserIdGroupPairs"][0]["GroupId"] == group

    assert (
        code(authorize, GroupId="sg-0123456789abcdef0", IpPermissions=[rdp])
        == "InvalidGroup.NotFound"
    )
    backwards = {**rdp, "FromPort": 30, "ToPort": 20}
    assert code(authorize, GroupId=group, IpPermissions=[backwards]) == "InvalidParameterValue"


def test_a_rule_is_modified_by_its_id(cloud):
    ec2 = cloud.client("ec2", cloud.admin())
    group = ec2.create_security_group(GroupName="modified", Description="d")["GroupId"]
    rules = ec2.authorize_security_group_ingress(
        GroupId=group, IpPermissions=[{**SSH, "Ipv6Ranges": [{"CidrIpv6": "::/0"}]}]
    )["SecurityGroupRules"]
    rule_id = rules[0]["SecurityGroupRuleId"]
    wanted = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIpv6": "fd00::/8"}

    def modify(rule):
        ec2.modify_security_group_rules(
            GroupId=group,
            SecurityGroupRules=[{"SecurityGroupRuleId": rule_id, "SecurityGroupRule": rule}],
        )

    modify(wanted)
    described = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]
    assert described["IpPermissions"][0]["Ipv6Ranges"] == [{"CidrIpv6": "fd00::/8"}]
    v4 = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIpv4": "10.0.0.0/8"}
    assert code(lambda: modify(v4)) == "InvalidParameterValue"


def test_the_password_policy_comes_back_as_it_was_set(cloud):
    iam = cloud.client("iam", cloud.admin(cloud.healthy[6]))
    iam.update_account_password_policy(MinimumPasswordLength=9)
    read = iam.get_account_password_policy()["PasswordPolicy"]
    assert read["MinimumPasswordLength"] == 9
    assert not read["ExpirePasswords"]
    assert not {"MaxPasswordAge", "PasswordReusePrevention"} & set(read)
    assert code(iam.update_account_password_policy, MaxPasswordAge=2000) == "ValidationError"
    iam.delete_account_password_policy()
    assert code(iam.get_account_password_policy) == "NoSuchEntity"
    assert code(iam.delete_account_password_policy) == "NoSuchEntity"


def test_a_buckets_settings_come_and_go(cloud):
    s3 = cloud.client("s3", cloud.admin())
    bucket = f"settings-{cloud.member}"
    s3.create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    assert code(s3.get_public_access_block, Bucket=bucket) == "NoSuchPublicAccessBlockConfiguration"
    assert code(s3.get_bucket_policy, Bucket=bucket) == "NoSuchBucketPolicy"
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)

    flags = dict.fromkeys(
        ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
    )
    s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=flags)
    assert s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"] == flags
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert s3.get_bucket_versioning(Bucket=bucket)["Status"] == "Enabled"

    arns = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    tls = {"Effect": "Deny", "Principal": "*", "Action": "s3:*", "Resource": arns}
    tls["Condition"] = {"Bool": {"aws:SecureTransport": "false"}}

    def put(statement):
        text = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        s3.put_bucket_policy(Bucket=bucket, Policy=text)
        return text

    text = put(tls)
    assert s3.get_bucket_policy(Bucket=bucket)["Policy"] == text
    s3.put_object(Bucket=bucket, Key="a b/ü+c.txt", Body=b"over TLS, as far as S3 can tell")
    assert s3.get_object(Bucket=bucket, Key="a b/ü+c.txt")["ContentLength"] == 31
    assert code(lambda: put({**tls, "Resource": "arn:aws:s3:::other"})) == "MalformedPolicy"
    public = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": arns[1]}
    assert code(lambda: put(public)) == "AccessDenied"

    lock = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": "s3:GetBucketVersioning",
        "Resource": arns,
    }
    put(lock)
    assert code(s3.get_bucket_versioning, Bucket=bucket) == "AccessDenied"
    s3.delete_bucket_policy(Bucket=bucket)
    s3.delete_public_access_block(Bucket=bucket)
    assert code(s3.get_bucket_policy, Bucket=bucket) == "NoSuchBucketPolicy"


def test_a_bucket_answers_in_its_own_region_and_account(cloud):
    admin = cloud.admin()
    name = f"regional-{cloud.member}"
    cloud.client("s3", admin).create_bucket(
        Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    elsewhere = cloud.client("s3", admin, "us-east-1")
    assert elsewhere.get_bucket_location(Bucket=name)["LocationConstraint"] == "eu-central-1"

    def read(region):
        """One signed request without boto3, which would follow the hint by itself."""
        url = f"{cloud.told['endpoint']}/{name}?versioning"
        request = AWSRequest("GET", url, data="")
        keys = (admin["AccessKeyId"], admin["SecretAccessKey"], admin["SessionToken"])
        S3SigV4Auth(Credentials(*keys), "s3", region).add_auth(request)
        return send(request)

    assert read("eu-central-1")[0] == 200
    status, body = read("us-east-1")
    assert status == 400
    assert "<Code>AuthorizationHeaderMalformed</Code>" in body
    assert "<Region>eu-central-1</Region>" in body
    stranger = cloud.client("s3", cloud.admin(cloud.healthy[2]))
    assert code(stranger.get_bucket_versioning, Bucket=name) == "AccessDenied"


# ---------------------------------------------------------------- truth


def open_to_world(permission):
    ranges = [r["CidrIp"] for r in permission["IpRanges"]]
    ranges += [r["CidrIpv6"] for r in permission["Ipv6Ranges"]]
    return bool({"0.0.0.0/0", "::/0"} & set(ranges))


def reaches(permission, port):
    if permission["IpProtocol"] == "-1":
        return True
    tcp = permission["IpProtocol"] == "tcp"
    return tcp and permission["FromPort"] <= port <= permission["ToPort"]


def test_the_truth_is_what_the_api_shows_of_security_groups(cloud, emulator):
    """Told twice: by the table of variants, and by reading back what was planted."""
    for account in cloud.healthy[8:16]:
        session = cloud.scanner(account)
        for region in cloud.told["regions"]:
            read = set()
            for group in cloud.client("ec2", session, region).describe_security_groups()[
                "SecurityGroups"
            ]:
                for name, port in (("ssh", 22), ("rdp", 3389)):
                    if any(open_to_world(p) and reaches(p, port) for p in group["IpPermissions"]):
                        read.add((name, group["SecurityGroupArn"]))
            told = {
                (name, finding["resource"])
                for finding in emulator.truth
                for name in ("ssh", "rdp")
                if finding["account"] == account
                and finding["region"] == region
                and finding["rule"] == f"aws_ec2_security_group_{name}_not_open"
            }
            assert told == read


def test_the_truth_is_what_the_api_shows_of_the_rest(cloud, emulator):
    for account in cloud.healthy[8:16]:
        session, told = (
            cloud.scanner(account),
            [f for f in emulator.truth if f["account"] == account],
        )
        rules = {(finding["rule"], finding["region"], finding["resource"]) for finding in told}
        for region in cloud.told["regions"]:
            encrypted = cloud.client("ec2", session, region).get_ebs_encryption_by_default()
            resource = f"arn:aws:ec2:{region}:{account}:ebs-encryption-by-default"
            failing = ("aws_ec2_ebs_encrypted_by_default", region, resource) in rules
            assert failing != encrypted["EbsEncryptionByDefault"]
        for bucket in cloud.client("s3", session).list_buckets(MaxBuckets=100)["Buckets"]:
            region, name = bucket["BucketRegion"], bucket["Name"]
            s3 = cloud.client("s3", session, region)
            versioned = s3.get_bucket_versioning(Bucket=name).get("Status") == "Enabled"
            rule = ("aws_s3_bucket_versioning_enabled", region, f"arn:aws:s3:::{name}")
            assert (rule in rules) != versioned


def test_every_rule_is_failed_somewhere_and_nothing_is_told_twice(emulator):
    rules = Counter(finding["rule"] for finding in emulator.truth)
    doors = {name for name in rules if name.startswith("aws_ec2_security_group_")}
    services = (*SERVICES, "all_ports")
    assert doors == {f"aws_ec2_security_group_{service}_not_open" for service in services}
    assert sorted(set(rules) - doors) == [
        "aws_ec2_ebs_encrypted_by_default",
        "aws_iam_password_policy_length",
        "aws_s3_bucket_public_access_blocked",
        "aws_s3_bucket_tls_only",
        "aws_s3_bucket_versioning_enabled",
    ]
    assert len({json.dumps(f, sort_keys=True) for f in emulator.truth}) == len(emulator.truth)
    assert not {f["account"] for f in emulator.truth} & set(emulator.failing)
    assert sorted(emulator.failing.values()) == ["refused", "throttled", "timeout"]


# ---------------------------------------------------------------- as one object


def test_calls_in_parallel_do_not_get_mixed_up(cloud):
    sessions = {account: cloud.scanner(account) for account in cloud.healthy[8:14]}
    clients = {account: cloud.client("ec2", keys) for account, keys in sessions.items()}
    wrong = []

    def read(account):
        for _ in range(5):
            groups = clients[account].describe_security_groups()["SecurityGroups"]
            if {group["OwnerId"] for group in groups} != {account}:
                wrong.append(account)

    threads = [threading.Thread(target=read, args=(account,)) for account in clients for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_secrets_are_not_in_the_way_of_a_log(cloud, emulator, capfd, caplog):
    session = cloud.scanner()
    code(lambda: cloud.assume("SutureScanner", ExternalId="a-wrong-external-id"))
    shown = "".join((*capfd.readouterr(), caplog.text, repr(vars(emulator))))
    for secret in (session["SessionToken"], cloud.told["external_id"], "a-wrong-external-id"):
        assert secret not in shown
