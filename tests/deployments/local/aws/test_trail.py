"""Events of what is written on the emulated AWS: which there are, what they say, how they come."""

from __future__ import annotations

import json
import time

import boto3
import pytest
from botocore.exceptions import ClientError

from deployments.local.aws.server import EmulatedAws
from tasks.clouds.events import targets_of
from tasks.formats.cloudtrail import read_cloudtrail

SSH = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}


@pytest.fixture(scope="module")
def aws():
    with EmulatedAws(accounts=3, seed=89, failing=False) as running:
        yield running


@pytest.fixture
def told(aws):
    """The records of what was written in this test."""
    aws.bridge.events.clear()
    return lambda: [one["detail"] for one in aws.bridge.events]


def client(aws, service, **keys):
    own = aws.description["customer"]
    given = keys or {
        "aws_access_key_id": own["access_key_id"],
        "aws_secret_access_key": own["secret_access_key"],
    }
    return boto3.client(service, endpoint_url=aws.endpoint, region_name="eu-central-1", **given)


def group_of(ec2):
    return ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]


def hub_receives(aws):
    hub = aws.description["hub"]
    sqs = client(
        aws,
        "sqs",
        aws_access_key_id=hub["access_key_id"],
        aws_secret_access_key=hub["secret_access_key"],
    )
    found = []
    while more := sqs.receive_message(
        QueueUrl=aws.event_queue, MaxNumberOfMessages=10, WaitTimeSeconds=1
    ).get("Messages"):
        found += [json.loads(one["Body"]) for one in more]
        for one in more:
            sqs.delete_message(QueueUrl=aws.event_queue, ReceiptHandle=one["ReceiptHandle"])
    return found


def test_an_opened_group_is_told_of_as_cloudtrail_does(aws, told):
    ec2 = client(aws, "ec2")
    group = group_of(ec2)
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[SSH])
    (record,) = told()
    assert record["eventName"] == "AuthorizeSecurityGroupIngress"
    assert record["eventSource"] == "ec2.amazonaws.com"
    assert (record["readOnly"], record["sourceIPAddress"]) == (False, "127.0.0.1")
    permission = record["requestParameters"]["ipPermissions"]["items"][0]
    assert record["requestParameters"]["groupId"] == group
    assert permission["ipRanges"]["items"] == [{"cidrIp": "0.0.0.0/0"}]
    identity = record["userIdentity"]
    assert (identity["type"], identity["userName"]) == ("IAMUser", "admin")
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[SSH])


def test_reads_are_not_told_of(aws, told):
    client(aws, "ec2").describe_security_groups()
    client(aws, "s3").list_buckets()
    client(aws, "iam").list_users()
    assert told() == []


def test_a_refused_call_is_told_of_with_its_code_and_not_delivered(aws, told):
    hub_receives(aws)
    ec2 = client(aws, "ec2")
    with pytest.raises(ClientError):
        ec2.authorize_security_group_ingress(GroupId="sg-0a1b2c3d", IpPermissions=[SSH])
    (record,) = told()
    assert record["errorCode"] == "Client.InvalidGroup.NotFound"
    assert record["responseElements"] is None
    assert hub_receives(aws) == []


def test_the_names_are_cloudtrail_s(aws, told):
    s3 = client(aws, "s3")
    s3.create_bucket(
        Bucket="trail-names", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    s3.put_public_access_block(
        Bucket="trail-names", PublicAccessBlockConfiguration={"BlockPublicAcls": True}
    )
    s3.delete_public_access_block(Bucket="trail-names")
    s3.put_object(Bucket="trail-names", Key="data", Body=b"no management event")
    client(aws, "iam").update_account_password_policy(MinimumPasswordLength=9)
    assert [(one["eventName"], one["awsRegion"]) for one in told()] == [
        ("CreateBucket", "eu-central-1"),
        ("PutBucketPublicAccessBlock", "eu-central-1"),
        ("DeleteBucketPublicAccessBlock", "eu-central-1"),
        ("UpdateAccountPasswordPolicy", "us-east-1"),
    ]
    assert told()[0]["requestParameters"]["bucketName"] == "trail-names"


def test_secrets_are_not_told(aws, told):
    iam = client(aws, "iam")
    iam.create_user(UserName="told")
    iam.create_login_profile(UserName="told", Password="hunter2-hunter2")
    key = iam.create_access_key(UserName="told")["AccessKey"]
    text = json.dumps(told())
    assert "hunter2" not in text
    assert key["SecretAccessKey"] not in text
    assert key["AccessKeyId"] in text


def test_a_session_is_told_by_its_role(aws, told):
    account = next(
        one["id"]
        for one in aws.description["accounts"]
        if one["status"] == "ACTIVE"
        and one["id"] != aws.description["organization"]["management_account"]
    )
    role = f"arn:aws:iam::{account}:role/{aws.description['admin_role']}"
    given = client(aws, "sts").assume_role(RoleArn=role, RoleSessionName="told")["Credentials"]
    ec2 = client(
        aws,
        "ec2",
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )
    ec2.enable_ebs_encryption_by_default()
    (record,) = told()
    identity = record["userIdentity"]
    assert identity["type"] == "AssumedRole"
    assert identity["sessionContext"]["sessionIssuer"]["arn"] == role
    assert record["recipientAccountId"] == account


def test_what_a_service_does_for_somebody_is_told_of_as_the_service_s(aws, told):
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": aws.description["hub"]["arn"]},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    role = {
        "Type": "AWS::IAM::Role",
        "Properties": {"RoleName": "told-of", "AssumeRolePolicyDocument": trust},
    }
    client(aws, "cloudformation").create_stack(
        StackName="told-of",
        TemplateBody=json.dumps({"Resources": {"Role": role}}),
        Capabilities=["CAPABILITY_NAMED_IAM"],
    )
    records = {one["eventName"]: one for one in told()}
    made, stack = records["CreateRole"], records["CreateStack"]
    assert made["userIdentity"]["invokedBy"] == "cloudformation.amazonaws.com"
    assert made["sourceIPAddress"] == made["userAgent"] == "cloudformation.amazonaws.com"
    assert made["userIdentity"]["userName"] == stack["userIdentity"]["userName"]
    assert "invokedBy" not in stack["userIdentity"]


def test_s3_and_kms_say_which_resource_it_was(aws, told):
    s3, kms = client(aws, "s3"), client(aws, "kms")
    s3.create_bucket(
        Bucket="trail-says", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    key = kms.create_key()["KeyMetadata"]
    kms.enable_key_rotation(KeyId=key["KeyId"])
    bucket, created, rotated = told()
    assert bucket["resources"][0]["ARN"] == "arn:aws:s3:::trail-says"
    assert bucket["userAgent"].startswith("[Boto3/")
    assert created["resources"][0]["ARN"] == rotated["resources"][0]["ARN"] == key["Arn"]


def test_a_database_is_told_of_by_itself_and_without_its_password(aws, told):
    client(aws, "rds").create_db_instance(
        DBInstanceIdentifier="told-of",
        DBInstanceClass="db.t3.micro",
        Engine="postgres",
        AllocatedStorage=20,
        MasterUsername="boss",
        MasterUserPassword="not-for-any-log",
    )
    (record,) = told()
    assert record["responseElements"]["dBInstanceArn"].endswith(":db:told-of")
    assert "not-for-any-log" not in json.dumps(record)


def test_ec2_answers_that_it_did_it_and_newer_calls_stand_whole(aws, told):
    ec2 = client(aws, "ec2")
    ec2.enable_ebs_encryption_by_default()
    ec2.create_tags(Resources=[group_of(ec2)], Tags=[{"Key": "told", "Value": "of"}])
    enabled, tagged = told()
    assert enabled["requestParameters"] == {"EnableEbsEncryptionByDefaultRequest": {}}
    whole = enabled["responseElements"]["EnableEbsEncryptionByDefaultResponse"]
    assert whole["ebsEncryptionByDefault"] is True
    assert tagged["responseElements"] == {"requestId": tagged["requestID"], "_return": True}


def test_what_is_too_long_is_left_out(aws, told):
    document = {"Statement": [{"Sid": "x" * 200, "Effect": "Allow"}] * 500}
    with pytest.raises(ClientError):
        client(aws, "iam").create_policy(PolicyName="long", PolicyDocument=json.dumps(document))
    (record,) = told()
    assert record["requestParameters"]["omitted"] is True
    assert record["errorCode"] == "MalformedPolicyDocument"


def test_what_the_queue_gets_leads_back_to_the_resource(aws):
    hub_receives(aws)
    ec2, s3, iam = client(aws, "ec2"), client(aws, "s3"), client(aws, "iam")
    group = group_of(ec2)
    ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[SSH])
    ec2.revoke_security_group_ingress(GroupId=group, IpPermissions=[SSH])
    s3.create_bucket(
        Bucket="trail-leads", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    iam.update_account_password_policy(MinimumPasswordLength=10)
    account = aws.description["organization"]["management_account"]
    found = {
        target.resource
        for body in hub_receives(aws)
        for target in targets_of(read_cloudtrail(json.dumps(body)))
    }
    assert found == {
        f"arn:aws:ec2:eu-central-1:{account}:security-group/{group}",
        "arn:aws:s3:::trail-leads",
        f"arn:aws:iam::{account}:account-password-policy",
    }


def test_events_come_late_twice_and_out_of_order_when_told_to(aws):
    hub_receives(aws)
    iam = client(aws, "iam")
    try:
        aws.bridge.duplicates = 1.0
        iam.update_account_password_policy(MinimumPasswordLength=11)
        twice = hub_receives(aws)
        assert len(twice) == 2
        assert twice[0]["detail"]["eventID"] == twice[1]["detail"]["eventID"]
        aws.bridge.duplicates, aws.bridge.reordering = 0.0, 1.0
        for length in range(12, 22):
            iam.update_account_password_policy(MinimumPasswordLength=length)
        time.sleep(1.1)
        lengths = [
            one["detail"]["requestParameters"]["minimumPasswordLength"] for one in hub_receives(aws)
        ]
        assert sorted(lengths) == list(range(12, 22))
        assert lengths != sorted(lengths)
        aws.bridge.reordering, aws.bridge.delay = 0.0, 1.5
        iam.update_account_password_policy(MinimumPasswordLength=22)
        assert hub_receives(aws) == []
        time.sleep(0.7)
        assert len(hub_receives(aws)) == 1
    finally:
        aws.bridge.delay = aws.bridge.duplicates = aws.bridge.reordering = 0.0
