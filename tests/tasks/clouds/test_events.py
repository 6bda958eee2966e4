"""Events lead to the resources they are about, under the very ids that scans give them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clouds.aws_events import NAMINGS
from tasks.clouds.aws_kinds import COLLECTORS as AWS_COLLECTORS
from tasks.clouds.azure_collect import COLLECTORS as AZURE_COLLECTORS
from tasks.clouds.events import own_write, targets_of, watched_operations
from tasks.clouds.scanner import Scanner
from tasks.clouds.transport import Limits
from tasks.formats.event import ControlPlaneEvent, Target
from tasks.inventory import AwsSource, AzureSource, Inventory
from tasks.model import Account, Cloud
from tasks.rules import RULES

ACCOUNT, REGION = "111122223333", "eu-central-1"
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
ELB = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}"
BALANCER = f"{ELB}:loadbalancer/app/shop/50dc6c495c0c9188"
LISTENER = f"{ELB}:listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2"
LISTENER_RULE = f"{ELB}:listener-rule/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2/9683b2d02a6cabee"
STACK = f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/network/1a2b3c4d-0000-11ee-be56"
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:news"
TRAIL = f"arn:aws:cloudtrail:{REGION}:{ACCOUNT}:trail/main"
POLICY = f"arn:aws:iam::{ACCOUNT}:policy/ours"
KEY_ID = "1234abcd-12ab-34cd-56ef-1234567890ab"
KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{KEY_ID}"
QUEUE_URL = f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/orders"
USER = f"arn:aws:iam::{ACCOUNT}:user/people/jo+ops@example.com"
USER_NAME = "jo+ops@example.com"
BUCKET = {"bucketName": "acme-logs", "Host": "acme-logs.s3.eu-central-1.amazonaws.com"}
GROUP, INSTANCE, VOLUME = "sg-1", "i-0123456789abcdef0", "vol-0123456789abcdef0"
ACL, VPC = "acl-0123456789abcdef0", "vpc-0123456789abcdef0"
PROFILE = {"iamInstanceProfileAssociation": {"instanceId": INSTANCE, "state": "associating"}}
INSTANCES = {"instancesSet": {"items": [{"instanceId": INSTANCE}]}}
RULE_SET = {"items": [{"groupId": "sg-other", "userId": ACCOUNT}]}


def opening() -> dict[str, Any]:
    """What is asked for, with a group that the new rule lets in."""
    permission = {"ipProtocol": "tcp", "fromPort": 22, "toPort": 22, "groups": RULE_SET}
    return {"groupId": GROUP, "ipPermissions": {"items": [permission]}}


# For each kind that has names: operation -> what was asked for, answered and listed. Each names the
# example resource of its kind (tests/tasks/rules/examples).
Told = dict[str, tuple[Any, Any] | tuple[Any, Any, Any]]
NAMED: dict[str, Told] = {
    "aws.ec2.security_group": {
        "ec2:AuthorizeSecurityGroupIngress": (opening(), {"_return": True}),
        "ec2:RevokeSecurityGroupIngress": (opening(), {"_return": True}),
        "ec2:AuthorizeSecurityGroupEgress": (opening(), None),
        "ec2:RevokeSecurityGroupEgress": (
            {"groupName": "ours"},
            {"securityGroupRuleSet": {"items": [{"groupId": GROUP, "isEgress": True}]}},
        ),
        "ec2:ModifySecurityGroupRules": (
            {
                "ModifySecurityGroupRulesRequest": {
                    "GroupId": GROUP,
                    "SecurityGroupRule": {
                        "SecurityGroupRuleId": "sgr-1",
                        "SecurityGroupRule": {"ReferencedGroupId": "sg-other"},
                        "tag": 1,
                    },
                }
            },
            {"ModifySecurityGroupRulesResponse": {"return": True}},
        ),
        "ec2:DeleteSecurityGroup": ({"groupId": GROUP}, {"_return": True}),
    },
    "aws.ec2.instance": {
        "ec2:RunInstances": (
            {"instancesSet": {"items": [{"imageId": "ami-1", "minCount": 1}]}},
            {**INSTANCES, "ownerId": ACCOUNT},
        ),
        "ec2:ModifyInstanceMetadataOptions": (
            {
                "ModifyInstanceMetadataOptionsRequest": {
                    "HttpTokens": "optional",
                    "InstanceId": INSTANCE,
                }
            },
            {"ModifyInstanceMetadataOptionsResponse": {"instanceId": INSTANCE}},
        ),
        "ec2:AssociateIamInstanceProfile": (
            {"AssociateIamInstanceProfileRequest": {"InstanceId": INSTANCE}},
            {"AssociateIamInstanceProfileResponse": PROFILE},
        ),
        "ec2:DisassociateIamInstanceProfile": (
            {"DisassociateIamInstanceProfileRequest": {"AssociationId": "iip-assoc-1"}},
            {"DisassociateIamInstanceProfileResponse": PROFILE},
        ),
        "ec2:ReplaceIamInstanceProfileAssociation": (
            {"ReplaceIamInstanceProfileAssociationRequest": {"AssociationId": "iip-assoc-1"}},
            {"ReplaceIamInstanceProfileAssociationResponse": PROFILE},
        ),
        "ec2:TerminateInstances": (INSTANCES, INSTANCES),
    },
    "aws.ec2.image": {
        "ec2:CreateImage": ({"instanceId": INSTANCE}, {"imageId": "ami-0123456789abcdef0"}),
        "ec2:RegisterImage": ({"name": "x"}, {"imageId": "ami-0123456789abcdef0"}),
        "ec2:ModifyImageAttribute": (
            {"imageId": "ami-0123456789abcdef0", "attributeType": "launchPermission"},
            {"_return": True},
        ),
        "ec2:DeregisterImage": ({"imageId": "ami-0123456789abcdef0"}, {"_return": True}),
    },
    "aws.ec2.snapshot": {
        "ec2:CreateSnapshot": ({"volumeId": VOLUME}, {"snapshotId": "snap-0123456789abcdef0"}),
        "ec2:CopySnapshot": (
            {"sourceSnapshotId": "snap-0aaaaaaaaaaaaaaaa", "sourceRegion": "eu-west-1"},
            {"snapshotId": "snap-0123456789abcdef0"},
        ),
        "ec2:ModifySnapshotAttribute": ({"snapshotId": "snap-0123456789abcdef0"}, None),
        "ec2:DeleteSnapshot": ({"snapshotId": "snap-0123456789abcdef0"}, {"_return": True}),
    },
    "aws.ec2.volume": {
        "ec2:CreateVolume": ({"size": "8", "snapshotId": "snap-1"}, {"volumeId": VOLUME}),
        "ec2:DeleteVolume": ({"volumeId": VOLUME}, {"_return": True}),
    },
    "aws.ec2.network_acl": {
        "ec2:CreateNetworkAcl": ({"vpcId": VPC}, {"networkAcl": {"networkAclId": ACL}}),
        "ec2:CreateNetworkAclEntry": ({"networkAclId": ACL, "ruleNumber": 100}, None),
        "ec2:ReplaceNetworkAclEntry": ({"networkAclId": ACL, "ruleNumber": 100}, None),
        "ec2:DeleteNetworkAclEntry": ({"networkAclId": ACL, "ruleNumber": 100}, None),
        "ec2:DeleteNetworkAcl": ({"networkAclId": ACL}, None),
    },
    "aws.ec2.vpc": {
        "ec2:CreateVpc": ({"cidrBlock": "10.0.0.0/16"}, {"vpc": {"vpcId": VPC}}),
        "ec2:CreateFlowLogs": (
            {"CreateFlowLogsRequest": {"ResourceId": {"tag": 1, "content": VPC}}},
            {"CreateFlowLogsResponse": {"flowLogIdSet": {"item": "fl-1"}}},
        ),
        "ec2:DeleteVpc": ({"vpcId": VPC}, {"_return": True}),
    },
    "aws.s3.bucket": {
        **{
            f"s3:{one}": (BUCKET, None)
            for one in (
                *("PutBucketPublicAccessBlock", "DeleteBucketPublicAccessBlock"),
                *("PutBucketVersioning", "PutBucketPolicy", "DeleteBucketPolicy", "PutBucketAcl"),
                *("PutBucketEncryption", "DeleteBucketEncryption", "DeleteBucket"),
            )
        },
        "s3:CreateBucket": (
            {**BUCKET, "CreateBucketConfiguration": {"LocationConstraint": REGION}},
            None,
        ),
    },
    "aws.iam.user": {
        "iam:CreateUser": ({"userName": USER_NAME}, {"user": {"arn": USER, "path": "/people/"}})
    },
    "aws.iam.policy": {
        "iam:CreatePolicy": ({"policyName": "ours"}, {"policy": {"arn": POLICY}}),
        "iam:CreatePolicyVersion": ({"policyArn": POLICY}, {"policyVersion": {}}),
        "iam:DeletePolicy": ({"policyArn": POLICY}, None),
        "iam:SetDefaultPolicyVersion": ({"policyArn": POLICY, "versionId": "v2"}, None),
        **{
            f"iam:{verb}{who}Policy": ({"policyArn": POLICY, "userName": "jo"}, None)
            for verb in ("Attach", "Detach")
            for who in ("User", "Group", "Role")
        },
    },
    "aws.iam.server_certificate": {
        "iam:UploadServerCertificate": (
            {"serverCertificateName": "www"},
            {
                "serverCertificateMetadata": {
                    "arn": f"arn:aws:iam::{ACCOUNT}:server-certificate/www"
                }
            },
        )
    },
    "aws.kms.key": {
        "kms:CreateKey": (None, {"keyMetadata": {"arn": KEY}}, [{"ARN": KEY}]),
        "kms:EnableKeyRotation": ({"keyId": KEY_ID}, None, [{"ARN": KEY, "accountId": ACCOUNT}]),
        "kms:DisableKeyRotation": ({"keyId": KEY}, None),
        "kms:ScheduleKeyDeletion": ({"keyId": KEY_ID}, {"keyId": KEY, "keyState": "Pending"}),
        "kms:CancelKeyDeletion": ({"keyId": KEY_ID}, {"keyId": KEY}),
        "kms:DeleteKey": (None, None, [{"ARN": KEY, "type": "AWS::KMS::Key"}]),
    },
    "aws.sqs.queue": {
        "sqs:CreateQueue": ({"queueName": "orders"}, {"queueUrl": QUEUE_URL}),
        **{
            f"sqs:{one}": ({"queueUrl": QUEUE_URL}, None)
            for one in ("SetQueueAttributes", "AddPermission", "RemovePermission", "DeleteQueue")
        },
    },
    "aws.sns.topic": {
        "sns:CreateTopic": ({"name": "news"}, {"topicArn": TOPIC}),
        "sns:SetTopicAttributes": ({"topicArn": TOPIC, "attributeName": "Policy"}, None),
        "sns:DeleteTopic": ({"topicArn": TOPIC}, None),
    },
    "aws.kinesis.stream": {
        "kinesis:CreateStream": ({"streamName": "clicks", "shardCount": 1}, None),
        "kinesis:StartStreamEncryption": ({"streamName": "clicks"}, None),
        "kinesis:StopStreamEncryption": (
            {"streamARN": f"arn:aws:kinesis:{REGION}:{ACCOUNT}:stream/clicks"},
            None,
        ),
        "kinesis:DeleteStream": ({"streamName": "clicks"}, None),
    },
    "aws.dynamodb.table": {
        "dynamodb:CreateTable": ({"tableName": "orders"}, {"tableDescription": {}}),
        "dynamodb:UpdateTable": (
            {"tableName": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/orders"},
            None,
        ),
        "dynamodb:DeleteTable": ({"tableName": "orders"}, None),
    },
    "aws.athena.workgroup": {
        "athena:CreateWorkGroup": ({"name": "analysts"}, None),
        "athena:UpdateWorkGroup": ({"workGroup": "analysts"}, None),
        "athena:DeleteWorkGroup": ({"workGroup": "analysts"}, None),
    },
    "aws.ecr.repository": {
        f"ecr:{one}": ({"repositoryName": "team/app"}, None)
        for one in (
            *("CreateRepository", "SetRepositoryPolicy"),
            *("DeleteRepositoryPolicy", "DeleteRepository"),
        )
    },
    "aws.glacier.vault": {
        f"glacier:{one}": ({"accountId": "-", "vaultName": "archive"}, None)
        for one in (
            *("CreateVault", "SetVaultAccessPolicy"),
            *("DeleteVaultAccessPolicy", "DeleteVault"),
        )
    },
    "aws.lambda.function": {
        "lambda:CreateFunction20150331": (
            {"functionName": "resize", "runtime": "python3.11"},
            {"functionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:resize"},
        ),
        "lambda:AddPermission20150331v2": (
            {"functionName": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:resize"},
            {"statement": "{}"},
        ),
        "lambda:RemovePermission20150331v2": ({"functionName": "resize:live"}, None),
        "lambda:DeleteFunction20150331": ({"functionName": f"{ACCOUNT}:function:resize"}, None),
    },
    "aws.cloudtrail.trail": {
        "cloudtrail:CreateTrail": ({"name": "main"}, {"trailARN": TRAIL, "name": "main"}),
        "cloudtrail:UpdateTrail": ({"name": TRAIL}, {"trailARN": TRAIL}),
        "cloudtrail:PutEventSelectors": ({"trailName": "main"}, {"trailARN": TRAIL}),
        "cloudtrail:DeleteTrail": ({"name": "main"}, None),
    },
    "aws.rds.instance": {
        "rds:CreateDBInstance": (
            {"dBInstanceIdentifier": "Orders"},
            {"dBInstanceArn": f"arn:aws:rds:{REGION}:{ACCOUNT}:db:orders"},
        ),
        "rds:CreateDBInstanceReadReplica": (
            {"dBInstanceIdentifier": "orders", "sourceDBInstanceIdentifier": "first"},
            None,
        ),
        "rds:RestoreDBInstanceFromDBSnapshot": (
            {"dBInstanceIdentifier": "orders", "dBSnapshotIdentifier": "before"},
            None,
        ),
        "rds:RestoreDBInstanceToPointInTime": (
            {"targetDBInstanceIdentifier": "orders", "sourceDBInstanceIdentifier": "first"},
            None,
        ),
        "rds:ModifyDBInstance": ({"dBInstanceIdentifier": "orders"}, None),
        "rds:DeleteDBInstance": ({"dBInstanceIdentifier": "orders"}, None),
    },
    "aws.rds.parameter_group": {
        f"rds:{one}": ({"dBParameterGroupName": "own-parameters"}, None)
        for one in (
            *("CreateDBParameterGroup", "ModifyDBParameterGroup"),
            *("ResetDBParameterGroup", "DeleteDBParameterGroup"),
        )
    },
    "aws.rds.snapshot": {
        f"rds:{one}": ({"dBSnapshotIdentifier": "before"}, None)
        for one in ("ModifyDBSnapshotAttribute", "DeleteDBSnapshot")
    },
    "aws.rds.cluster_snapshot": {
        f"rds:{one}": ({"dBClusterSnapshotIdentifier": "before"}, None)
        for one in ("ModifyDBClusterSnapshotAttribute", "DeleteDBClusterSnapshot")
    },
    "aws.cloudfront.distribution": {
        **{
            f"cloudfront:{one}": (
                {"distributionConfig": {"origins": {"items": [{"id": "origin"}]}}},
                {"distribution": {"id": "EDFDVBD632BHDS5"}},
            )
            for one in ("CreateDistribution", "CreateDistributionWithTags")
        },
        "cloudfront:UpdateDistribution": ({"id": "EDFDVBD632BHDS5", "ifMatch": "E2"}, None),
        "cloudfront:DeleteDistribution": ({"id": "EDFDVBD632BHDS5", "ifMatch": "E2"}, None),
    },
    "aws.cloudformation.stack": {
        "cloudformation:CreateStack": ({"stackName": "network"}, {"stackId": STACK}),
        "cloudformation:UpdateTerminationProtection": (
            {"stackName": "network"},
            {"stackId": STACK},
        ),
        "cloudformation:DeleteStack": ({"stackName": STACK}, None),
    },
    "aws.eks.cluster": {
        f"eks:{one}": ({"name": "orders"}, None)
        for one in ("CreateCluster", "UpdateClusterConfig", "DeleteCluster")
    },
    "aws.opensearch.domain": {
        f"es:{one}": ({"domainName": "logs"}, None)
        for one in (
            *("CreateDomain", "UpdateDomainConfig", "DeleteDomain"),
            *("CreateElasticsearchDomain", "UpdateElasticsearchDomainConfig"),
            "DeleteElasticsearchDomain",
        )
    },
    "aws.efs.file_system": {
        "elasticfilesystem:CreateFileSystem": (
            {"creationToken": "x", "encrypted": False},
            {"fileSystemId": "fs-0123456789abcdef0"},
        ),
        "elasticfilesystem:DeleteFileSystem": ({"fileSystemId": "fs-0123456789abcdef0"}, None),
    },
    "aws.elb.load_balancer": {
        f"elasticloadbalancing:{one}": ({"loadBalancerName": "classic"}, None)
        for one in (
            *("CreateLoadBalancer", "DeleteLoadBalancer"),
            *("CreateLoadBalancerListeners", "DeleteLoadBalancerListeners"),
            *("RegisterInstancesWithLoadBalancer", "DeregisterInstancesFromLoadBalancer"),
        )
    },
    "aws.elbv2.listener": {
        "elasticloadbalancing:CreateListener": (
            {"loadBalancerArn": BALANCER, "port": 80},
            {"listeners": [{"listenerArn": LISTENER, "loadBalancerArn": BALANCER}]},
        ),
        "elasticloadbalancing:ModifyListener": ({"listenerArn": LISTENER}, None),
        "elasticloadbalancing:CreateRule": (
            {"listenerArn": LISTENER},
            {"rules": [{"ruleArn": LISTENER_RULE}]},
        ),
        "elasticloadbalancing:ModifyRule": ({"ruleArn": LISTENER_RULE}, None),
        "elasticloadbalancing:DeleteListener": ({"listenerArn": LISTENER}, None),
    },
    "aws.elbv2.load_balancer": {
        "elasticloadbalancing:CreateLoadBalancer": (
            {"name": "shop"},
            {"loadBalancers": [{"loadBalancerArn": BALANCER}]},
        ),
        "elasticloadbalancing:ModifyListener": ({"listenerArn": LISTENER}, None),
        "elasticloadbalancing:DeleteLoadBalancer": ({"loadBalancerArn": BALANCER}, None),
    },
}
GROUP_OF_TARGETS = {"targetGroupArn": f"{ELB}:targetgroup/shop/73e2d6bc24d8a067"}
# What never says which one, or says it without the path that its ARN has: all of the kind.
ALL_OF_IT: dict[str, dict[str, Any]] = {
    "aws.ec2.security_group": {
        "ec2:CreateVpc": {"cidrBlock": "10.0.0.0/16"},  # with a default group
        "ec2:DeleteVpc": {"vpcId": VPC},
    },
    "aws.ec2.network_acl": {"ec2:DeleteVpc": {"vpcId": VPC}},
    "aws.ec2.volume": {"ec2:RunInstances": INSTANCES},  # they are made a little later
    "aws.ec2.vpc": {"ec2:DeleteFlowLogs": {"DeleteFlowLogsRequest": {"FlowLogId": "fl-1"}}},
    "aws.iam.user": {
        f"iam:{one}": {"userName": USER_NAME}
        for one in (
            *("CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey", "CreateLoginProfile"),
            *("DeleteLoginProfile", "DeleteUser", "EnableMFADevice", "DeactivateMFADevice"),
            *("AttachUserPolicy", "DetachUserPolicy", "PutUserPolicy", "DeleteUserPolicy"),
        )
    },
    "aws.iam.server_certificate": {"iam:DeleteServerCertificate": {"serverCertificateName": "www"}},
    "aws.elbv2.listener": {
        "elasticloadbalancing:DeleteLoadBalancer": {"loadBalancerArn": BALANCER}
    },
    "aws.elbv2.load_balancer": {
        "elasticloadbalancing:RegisterTargets": GROUP_OF_TARGETS,
        "elasticloadbalancing:DeregisterTargets": GROUP_OF_TARGETS,
    },
}


def event(operation: str, asked: Any = None, answered: Any = None, listed: Any = None) -> Any:
    found = {"requestParameters": asked, "responseElements": answered, "resources": listed}
    return ControlPlaneEvent(
        cloud=Cloud.AWS,
        id="e-1",
        account=ACCOUNT,
        region=REGION,
        operation=operation,
        at=AT,
        actor=f"arn:aws:sts::{ACCOUNT}:assumed-role/Admin/ann",
        details={name: said for name, said in found.items() if said is not None},
    )


def of_kind(kind: str, found: tuple[Target, ...]) -> list[Target]:
    return [one for one in found if one.kind == kind]


def waited_for(kind: str) -> set[str]:
    return {
        *(event for rule in RULES if rule.kind == kind for event in rule.events),
        *(NAMINGS[kind].deletes if kind in NAMINGS else ()),
    }


SAMPLES = [
    pytest.param(kind, operation, told, id=f"{kind}-{operation}")
    for kind, samples in NAMED.items()
    for operation, told in samples.items()
]


def test_every_kind_has_a_row_and_every_event_of_it_a_sample() -> None:
    assert NAMINGS.keys() == AWS_COLLECTORS.keys()
    for kind, naming in NAMINGS.items():
        if naming.places:
            assert waited_for(kind) == NAMED[kind].keys() | ALL_OF_IT.get(kind, {}).keys()
            assert not NAMED[kind].keys() & ALL_OF_IT.get(kind, {}).keys()


@pytest.mark.parametrize(("kind", "operation", "told"), SAMPLES)
def test_events_name_the_resource_that_scans_know(
    kind: str, operation: str, told: Any, table: Any
) -> None:
    known = table.kinds[kind]
    wanted = Target(Cloud.AWS, ACCOUNT, known.get("region", REGION), kind, known["id"])
    assert of_kind(kind, targets_of(event(operation, *told))) == [wanted]


@pytest.mark.parametrize(
    ("kind", "operation", "asked"),
    [(kind, name, asked) for kind, one in ALL_OF_IT.items() for name, asked in one.items()],
)
def test_what_does_not_say_which_one_is_about_all_of_the_kind(
    kind: str, operation: str, asked: Any
) -> None:
    region = REGION if AWS_COLLECTORS[kind].regional else "global"
    wanted = Target(Cloud.AWS, ACCOUNT, region, kind, "")
    assert of_kind(kind, targets_of(event(operation, asked))) == [wanted]


@pytest.mark.parametrize(("kind", "operation", "told"), SAMPLES)
def test_an_event_without_its_parameters_is_about_all_of_the_kind(
    kind: str, operation: str, told: Any
) -> None:
    """CloudTrail leaves out what is too large."""
    cut = {"omitted": True, "originalSize": 149893, "reason": "requestParameters too large"}
    region = REGION if AWS_COLLECTORS[kind].regional else "global"
    wanted = Target(Cloud.AWS, ACCOUNT, region, kind, "")
    for one in (event(operation), event(operation, cut, cut)):
        assert of_kind(kind, targets_of(one)) == [wanted]


@pytest.mark.parametrize("kind", [kind for kind, one in NAMINGS.items() if not one.places], ids=str)
def test_settings_are_one_resource_whatever_the_event_says(kind: str, table: Any) -> None:
    known = table.kinds[kind]
    wanted = Target(Cloud.AWS, ACCOUNT, known.get("region", REGION), kind, known["id"])
    assert waited_for(kind)
    for operation in waited_for(kind):
        assert of_kind(kind, targets_of(event(operation, {"name": "odd"}))) == [wanted]


@pytest.mark.slow
async def test_rows_make_the_ids_that_scans_give(aws_source: AwsSource, quick: Limits) -> None:
    """Every setting of the emulated account to the letter; of what has names all before them."""
    async with Scanner(Inventory(aws=(aws_source,)), quick) as scanner:
        account = (await scanner.discover()).accounts[-1].id
        scan = await scanner.scan(Account(Cloud.AWS, account, source=aws_source.name), RULES)
    seen = set()
    for resource in scan.resources:
        naming = NAMINGS[resource.kind]
        here = replace(event("x:Y"), account=account, region=resource.region)
        before = naming.id.removesuffix("{name}").removesuffix("{arn}")
        start = before.format(partition="aws", region=here.region, account=account)
        assert resource.id == start if not naming.places else resource.id.startswith(start)
        seen.add(resource.kind)
    assert {kind for kind, one in NAMINGS.items() if not one.places} <= seen


@pytest.mark.parametrize(
    "told",
    [
        ("ec2:CreateFlowLogs", {"CreateFlowLogsRequest": {"ResourceId": {"content": "subnet-1"}}}),
        ("iam:AttachUserPolicy", {"policyArn": "arn:aws:iam::aws:policy/AdministratorAccess"}),
        ("sns:SetTopicAttributes", {"topicArn": "arn:aws:sns:eu-central-1:444455556666:theirs"}),
        ("elasticloadbalancing:ModifyListener", {"listenerArn": "arn:aws:x:listener/net/a/b/c"}),
    ],
)
def test_what_is_about_something_else_has_no_target(told: Any) -> None:
    found = targets_of(event(*told))
    assert {one.kind for one in found} <= {"aws.iam.user"}


def test_the_two_makes_of_load_balancers_are_told_apart() -> None:
    for operation in ("CreateLoadBalancer", "DeleteLoadBalancer"):
        name = f"elasticloadbalancing:{operation}"
        classic = targets_of(event(name, {"loadBalancerName": "classic"}))
        assert {one.kind for one in classic} == {"aws.elb.load_balancer"}
        new = {"loadBalancers": [{"loadBalancerArn": BALANCER}]}
        later = targets_of(event(name, {"loadBalancerArn": BALANCER}, new))
        assert "aws.elb.load_balancer" not in {one.kind for one in later}
        assert [one.resource for one in of_kind("aws.elbv2.load_balancer", later)] == [BALANCER]


def test_several_resources_of_one_event_are_several_targets() -> None:
    made = {"instancesSet": {"items": [{"instanceId": "i-1"}, {"instanceId": "i-2"}]}}
    found = targets_of(event("ec2:RunInstances", None, made))
    assert [one.resource.rpartition("/")[2] for one in found] == ["i-1", "i-2", ""]
    logs = {"ResourceId": [{"tag": 1, "content": "vpc-1"}, {"tag": 2, "content": "vpc-2"}]}
    found = targets_of(event("ec2:CreateFlowLogs", {"CreateFlowLogsRequest": logs}))
    assert [one.resource.rpartition("/")[2] for one in found] == ["vpc-1", "vpc-2"]


def test_a_user_that_acts_on_itself_is_known_by_its_path() -> None:
    for asked in (None, {"userName": USER_NAME}):
        own = replace(event("iam:CreateAccessKey", asked), actor=USER)
        found = of_kind("aws.iam.user", targets_of(own))
        assert found == [Target(Cloud.AWS, ACCOUNT, "global", "aws.iam.user", USER)]
    other = replace(event("iam:CreateAccessKey", {"userName": "else"}), actor=USER)
    assert of_kind("aws.iam.user", targets_of(other))[0].resource == ""


def test_a_bucket_lives_where_it_was_put() -> None:
    for location, region in (("EU", "eu-west-1"), ("eu-north-1", "eu-north-1")):
        asked = {**BUCKET, "CreateBucketConfiguration": {"LocationConstraint": location}}
        assert {one.region for one in targets_of(event("s3:CreateBucket", asked))} == {region}


def test_other_partitions_have_other_arns() -> None:
    found = targets_of(event("ec2:AuthorizeSecurityGroupIngress", opening()), "aws-cn")
    assert found[0].resource == f"arn:aws-cn:ec2:{REGION}:{ACCOUNT}:security-group/sg-1"


def test_what_no_rule_waits_for_has_no_target() -> None:
    assert targets_of(event("ec2:CreateTags", {"groupId": GROUP})) == ()
    assert targets_of(replace(event("Microsoft.Network/x/write"), cloud=Cloud.AZURE)) == ()


# --- Azure -----------------------------------------------------------------------------------


def on_azure(operation: str, resource: str, account: str = "s") -> ControlPlaneEvent:
    return ControlPlaneEvent(
        cloud=Cloud.AZURE,
        id="e-1",
        account=account,
        operation=operation,
        at=AT,
        resource=resource,
    )


AZURE_SAMPLES = [
    pytest.param(kind, operation, id=f"{kind}-{operation}")
    for kind, collector in AZURE_COLLECTORS.items()
    for operation in sorted(
        {
            *waited_for(kind),
            *(() if collector.itself else (f"{collector.type}/delete",)),
        }
    )
]


@pytest.mark.parametrize("spelling", [str, str.lower, str.upper])
@pytest.mark.parametrize(("kind", "operation"), AZURE_SAMPLES)
def test_an_azure_event_is_about_the_resource_or_its_parent(
    kind: str, operation: str, spelling: Any, table: Any
) -> None:
    known, collector = table.kinds[kind]["id"], AZURE_COLLECTORS[kind]
    account = known.split("/")[2]
    changed, names = operation.rpartition("/")[0], iter(("a", "b", "c"))
    if collector.itself:
        namespace, *types = changed.split("/")
        at = f"/subscriptions/{account}/providers/{namespace}"
        resource = at + "".join(f"/{one}/{next(names)}" for one in types)
    elif changed.startswith(collector.type):
        below = changed.removeprefix(collector.type).strip("/").split("/")
        resource = known + "".join(f"/{one}/{next(names)}" for one in below if one)
    else:
        resource = f"{known}/providers/{changed}/x"
    found = targets_of(on_azure(spelling(operation), resource.lower(), account))
    assert of_kind(kind, found) == [Target(Cloud.AZURE, account, "global", kind, known)]


VAULT = "/subscriptions/s/resourcegroups/rg/providers/microsoft.keyvault/vaults/acme"
DIAGNOSED = "providers/microsoft.insights/diagnosticsettings/all"


def test_a_diagnostic_setting_is_about_what_it_hangs_on_alone() -> None:
    name = "microsoft.insights/diagnosticSettings/write"
    of_the_vault = targets_of(on_azure(name, f"{VAULT}/{DIAGNOSED}"))
    assert [(one.kind, one.resource) for one in of_the_vault] == [("azure.keyvault.vault", VAULT)]
    own = targets_of(on_azure(name, f"/subscriptions/s/{DIAGNOSED}"))
    assert [(one.kind, one.resource) for one in own] == [
        ("azure.monitor.activity_log", "/subscriptions/s")
    ]


def test_roles_given_further_down_are_no_matter_of_the_subscription() -> None:
    name, rest = "Microsoft.Authorization/roleAssignments/write", "microsoft.authorization"
    given = f"providers/{rest}/roleassignments/1"
    assert targets_of(on_azure(name, f"/subscriptions/s/resourcegroups/rg/{given}")) == ()
    above = f"/providers/microsoft.management/managementgroups/all/{given}"
    for scope in (f"/subscriptions/s/{given}", above, ""):
        assert {one.resource for one in targets_of(on_azure(name, scope))} == {
            f"/subscriptions/s/providers/{rest}"
        }


def test_a_role_that_is_defined_above_is_read_in_the_subscription() -> None:
    path = "/providers/microsoft.authorization/roledefinitions/5c2c0b0c"
    found = targets_of(on_azure("Microsoft.Authorization/roleDefinitions/write", path))
    assert [one.resource for one in found] == [f"/subscriptions/s{path}"]


def test_an_azure_event_that_names_nothing_is_about_all_of_the_kind() -> None:
    for resource in ("", "/subscriptions/s/resourcegroups/rg", f"{VAULT.rpartition('/')[0]}/"):
        found = targets_of(on_azure("Microsoft.KeyVault/vaults/write", resource))
        assert found == (Target(Cloud.AZURE, "s", "global", "azure.keyvault.vault", ""),)


# --- what is watched, and what is our own ------------------------------------------------------

OPERATIONS = json.loads(
    (Path(__file__).parents[1] / "rules" / "operations.json").read_text("utf-8")
)
SERVICES = {
    "access-analyzer": ("accessanalyzer",),
    "elasticfilesystem": ("efs",),
    "elasticloadbalancing": ("elb", "elbv2"),
    "es": ("opensearch", "es"),
}


@cache
def sdk_model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"))


@pytest.mark.parametrize("operation", watched_operations(Cloud.AWS))
def test_watched_operations_are_ones_that_cloudtrail_names(operation: str) -> None:
    if operation in OPERATIONS["cloudtrail"]:
        return
    service, _, name = operation.partition(":")
    models = [sdk_model(one) for one in SERVICES.get(service, (service,))]
    assert any(name in model.operation_names for model in models)
    assert service != "lambda", "its calls have other names in CloudTrail: see operations.json"


@pytest.mark.parametrize("operation", watched_operations(Cloud.AZURE))
def test_watched_operations_are_ones_that_azure_documents(operation: str) -> None:
    kind, _, verb = operation.rpartition("/")
    assert verb in OPERATIONS["azure"][kind].split()
    assert verb != "read"


def test_watched_operations_are_those_of_the_rules_in_force() -> None:
    assert watched_operations(Cloud.AWS, []) == ()
    encrypted = [one for one in RULES if one.kind == "aws.efs.file_system"]
    assert watched_operations(Cloud.AZURE, encrypted) == ()
    assert watched_operations(Cloud.AWS, encrypted) == (
        "elasticfilesystem:CreateFileSystem",
        "elasticfilesystem:DeleteFileSystem",
    )
    whole = watched_operations(Cloud.AZURE)
    assert list(whole) == sorted(set(whole))
    assert {"Microsoft.KeyVault/vaults/delete", "Microsoft.KeyVault/vaults/write"} <= set(whole)
    assert {event for rule in RULES for event in rule.events} <= {
        *whole,
        *watched_operations(Cloud.AWS),
    }


def aws(role: str = "SutureRemediator", partition: str = "aws") -> AwsSource:
    return AwsSource(
        name="acme",
        regions=(REGION,),
        external_id="x",
        accounts=(ACCOUNT,),
        remediator_role=role,
        partition=partition,
    )


@pytest.mark.parametrize(
    ("identity", "role", "own"),
    [
        (f"arn:aws:iam::{ACCOUNT}:role/SutureRemediator", "SutureRemediator", True),
        (f"arn:aws:iam::{ACCOUNT}:role/sec/SutureRemediator", "sec/SutureRemediator", True),
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/SutureRemediator/s", "sec/SutureRemediator", True),
        (f"arn:aws:iam::{ACCOUNT}:role/SutureRemediator", "sec/SutureRemediator", False),
        (f"arn:aws:iam::{ACCOUNT}:role/SutureRemediator2", "SutureRemediator", False),
        (f"arn:aws:sts::{ACCOUNT}:assumed-role/SutureRemediator2/s", "SutureRemediator", False),
        ("arn:aws:iam::444455556666:role/SutureRemediator", "SutureRemediator", False),
        (f"arn:aws:iam::{ACCOUNT}:user/SutureRemediator", "SutureRemediator", False),
        ("", "SutureRemediator", False),
    ],
)
def test_own_writes_on_aws_are_the_remediator_roles(identity: str, role: str, own: bool) -> None:
    one = replace(event("s3:PutBucketPolicy", BUCKET), identity=identity)
    assert own_write(one, aws(role)) is own
    assert own_write(one, aws(role, "aws-cn")) is False
    assert own_write(replace(one, cloud=Cloud.AZURE), aws(role)) is False


def test_own_writes_on_azure_are_the_remediators() -> None:
    source = AzureSource(name="acme", tenant="t", client_id="c", remediator_client_id="ABC-1")
    one = replace(on_azure("Microsoft.KeyVault/vaults/write", VAULT), identity="abc-1")
    assert own_write(one, source)
    assert not own_write(replace(one, identity="c"), source)
    assert not own_write(replace(one, identity=""), replace(source, remediator_client_id=""))
    assert not own_write(replace(one, cloud=Cloud.AWS), source)


# --- nothing crashes --------------------------------------------------------------------------

JUNK: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["arn:aws:", "arn:aws:iam::111122223333:user/x", "i-1", "{name}", "a/b/"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["items", "item", "groupId", "name", "XRequest", "functionName"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(
    operation=st.sampled_from(watched_operations(Cloud.AWS)),
    asked=JUNK,
    answered=JUNK,
    listed=JUNK,
    region=st.sampled_from(["", REGION]),
)
def test_no_parameters_crash_it(
    operation: str, asked: Any, answered: Any, listed: Any, region: str
) -> None:
    found = targets_of(replace(event(operation, asked, answered, listed), region=region))
    assert len(found) == len(set(found))
    for one in found:
        assert one.account == ACCOUNT
        assert "{name}" not in one.resource.replace("/{name}", "").replace(":{name}", "")


@settings(max_examples=300, deadline=None)
@given(
    operation=st.sampled_from(watched_operations(Cloud.AZURE)),
    resource=st.text(max_size=5)
    | st.lists(
        st.sampled_from(["subscriptions", "s", "", "providers", "microsoft.keyvault", "vaults"]),
        max_size=8,
    ).map("/".join),
)
def test_no_resource_crashes_it(operation: str, resource: str) -> None:
    for one in targets_of(on_azure(operation, resource)):
        assert one.resource == "" or one.resource.startswith("/subscriptions/")
