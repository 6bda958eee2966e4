"""Data services of the emulated cloud, driven by real boto3: are they as strict as AWS?"""

from __future__ import annotations

import io
import json
import uuid
import zipfile

import pytest
from botocore.exceptions import ClientError

from tasks.clouds.aws_request import plain_address

pytestmark = pytest.mark.slow

ON = dict.fromkeys(
    ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True
)


def code(call, **params) -> str:
    """The error code of a call that must fail."""
    with pytest.raises(ClientError) as caught:
        call(**params)
    return caught.value.response["Error"]["Code"]


@pytest.fixture
def admin(cloud):
    keys = cloud.admin()
    return lambda service: cloud.client(service, keys)


@pytest.fixture
def name() -> str:
    return f"made-{uuid.uuid4().hex}"


def policy(resource: str, action: str, principal="*") -> str:
    statement = {"Effect": "Allow", "Principal": principal, "Action": action, "Resource": resource}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def test_a_queue_keeps_its_policy_and_has_one_kind_of_key(admin, cloud, name):
    sqs = admin("sqs")
    queue = {"QueueUrl": sqs.create_queue(QueueName=name)["QueueUrl"]}

    def attributes() -> dict:
        return sqs.get_queue_attributes(**queue, AttributeNames=["All"])["Attributes"]

    text = policy(f"arn:aws:sqs:eu-central-1:{cloud.member}:{name}", "sqs:SendMessage")
    sqs.set_queue_attributes(**queue, Attributes={"Policy": text})
    sqs.set_queue_attributes(**queue, Attributes={"KmsMasterKeyId": "alias/queues"})
    assert json.loads(attributes()["Policy"]) == json.loads(text)
    assert attributes()["SqsManagedSseEnabled"] == "false"
    sqs.set_queue_attributes(**queue, Attributes={"SqsManagedSseEnabled": "true", "Policy": ""})
    assert not attributes().keys() & {"KmsMasterKeyId", "Policy"}
    bad = code(sqs.set_queue_attributes, **queue, Attributes={"Policy": '{"Statement": 7}'})
    assert bad == "InvalidAttributeValue"


def test_streams_are_listed_page_by_page(admin, name):
    kinesis = admin("kinesis")
    made = {f"{name}-{number}" for number in range(5)}
    for one in made:
        kinesis.create_stream(StreamName=one, ShardCount=1)
    pages = kinesis.get_paginator("list_streams").paginate(PaginationConfig={"PageSize": 2})
    assert made <= {one for page in pages for one in page["StreamNames"]}


def test_a_block_of_bucket_or_account_forbids_what_is_public(admin, cloud, name):
    s3, s3control = admin("s3"), admin("s3control")
    s3control.meta.events.register(
        "before-call", lambda params, **_: params.update(url=plain_address(params["url"]))
    )
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    encryption = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]
    default = encryption["Rules"][0]["ApplyServerSideEncryptionByDefault"]
    assert default == {"SSEAlgorithm": "AES256"}
    text = policy(f"arn:aws:s3:::{name}/*", "s3:GetObject")

    def refusals() -> list[str]:
        return [
            code(s3.put_bucket_acl, Bucket=name, ACL="public-read"),
            code(s3.put_bucket_policy, Bucket=name, Policy=text),
        ]

    s3.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=ON)
    assert refusals() == ["AccessDenied"] * 2
    s3.delete_public_access_block(Bucket=name)
    whose = {"AccountId": cloud.member}
    s3control.put_public_access_block(**whose, PublicAccessBlockConfiguration=ON)
    assert refusals() == ["AccessDenied"] * 2
    s3control.delete_public_access_block(**whose)
    missing = code(s3control.get_public_access_block, **whose)
    assert missing == "NoSuchPublicAccessBlockConfiguration"
    assert code(s3control.get_public_access_block, AccountId="1" * 12) == "AccessDenied"
    s3.put_bucket_acl(Bucket=name, ACL="public-read")
    s3.put_bucket_policy(Bucket=name, Policy=text)


def test_a_function_has_each_statement_once_and_with_all_its_conditions(admin, name):
    trust = json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": {
                "Effect": "Allow",
                "Principal": {"Service": "lambda.amazonaws.com"},
                "Action": "sts:AssumeRole",
            },
        }
    )
    role = admin("iam").create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    code_of_it = io.BytesIO()
    with zipfile.ZipFile(code_of_it, "w") as archive:
        archive.writestr("main.py", "")
    functions = admin("lambda")
    functions.create_function(
        FunctionName=name,
        Runtime="python3.12",
        Role=role,
        Handler="main.handle",
        Code={"ZipFile": code_of_it.getvalue()},
    )
    function = {"FunctionName": name}
    assert code(functions.get_policy, **function) == "ResourceNotFoundException"
    wanted = {
        **function,
        "StatementId": "s",
        "Action": "lambda:InvokeFunction",
        "Principal": "s3.amazonaws.com",
        "SourceArn": "arn:aws:s3:::acme",
        "SourceAccount": "111122223333",
        "PrincipalOrgID": "o-a1b2c3d4e5",
        "EventSourceToken": "t",
    }
    functions.add_permission(**wanted)
    assert code(functions.add_permission, **wanted) == "ResourceConflictException"
    (statement,) = json.loads(functions.get_policy(**function)["Policy"])["Statement"]
    assert statement["Condition"] == {
        "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::acme"},
        "StringEquals": {
            "AWS:SourceAccount": "111122223333",
            "aws:PrincipalOrgID": "o-a1b2c3d4e5",
            "lambda:EventSourceToken": "t",
        },
    }
    functions.remove_permission(**function, StatementId="s")
    gone = code(functions.remove_permission, **function, StatementId="s")
    assert gone == "ResourceNotFoundException"


def test_what_moto_lacks_refuses_what_aws_refuses(admin, name):
    xray, athena, glacier = admin("xray"), admin("athena"), admin("glacier")
    assert code(xray.put_encryption_config, Type="KMS") == "InvalidRequestException"
    assert code(athena.update_work_group, WorkGroup=name) == "InvalidRequestException"
    both = {
        "EncryptionConfiguration": {"EncryptionOption": "SSE_S3"},
        "RemoveEncryptionConfiguration": True,
    }
    updates = {"ResultConfigurationUpdates": both}
    refused = code(athena.update_work_group, WorkGroup="primary", ConfigurationUpdates=updates)
    assert refused == "InvalidRequestException"
    nowhere = code(glacier.get_vault_access_policy, vaultName=name)
    assert nowhere == "ResourceNotFoundException"
    glacier.create_vault(vaultName=name)
    assert code(glacier.get_vault_access_policy, vaultName=name) == "ResourceNotFoundException"
    odd = code(glacier.set_vault_access_policy, vaultName=name, policy={"Policy": "{}"})
    assert odd == "InvalidParameterValueException"
