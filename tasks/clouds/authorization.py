"""How finely IAM can hold each write of the rule table to its resource. Pure.

From AWS's Service Authorization Reference, "Actions, resources, and condition keys" of each
service. A rule whose write is not in the table gets no session: first look the action up there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tasks.errors import BadInput
from tasks.model import Resource

# Services without a region are asked in the one that leads their partition.
LEADING_REGIONS = {
    "aws-cn": "cn-north-1",
    "aws-us-gov": "us-gov-west-1",
    "aws-eusc": "eusc-de-east-1",
    "aws-iso": "us-iso-east-1",
    "aws-iso-b": "us-isob-east-1",
    "aws-iso-e": "eu-isoe-west-1",
    "aws-iso-f": "us-isof-south-1",
}


@dataclass(frozen=True, slots=True)
class Grain:
    """What a policy can say of an action.

    ``pattern`` is the ARN that it must name, with {partition}, {region} and {account} to be filled
    in; None for an action without resource-level permissions, for which IAM takes "*" and nothing
    else. ``account_key`` is a condition key for the account of a resource whose ARN does not say.
    ``below`` follows the ARN for an action on what hangs on the resource under names that nobody
    knows before it is made.
    """

    pattern: str | None = None
    account_key: str = ""
    below: str = ""


# security-group-rule is a resource of AuthorizeSecurityGroupIngress too, and looked at only when
# the call tags the rules it adds, which no fix does.
_GROUP = Grain(r"arn:{partition}:ec2:{region}:{account}:security-group/[\w-]+")
_INSTANCE = Grain(r"arn:{partition}:ec2:{region}:{account}:instance/[\w-]+")
_IMAGE = Grain(r"arn:{partition}:ec2:{region}::image/[\w-]+")  # EC2's ARN names no account
_SNAPSHOT = Grain(r"arn:{partition}:ec2:{region}::snapshot/[\w-]+")
_BUCKET = Grain(r"arn:{partition}:s3:::[\w.-]+", "s3:ResourceAccount")
_KEY = Grain(r"arn:{partition}:kms:{region}:{account}:key/[\w-]+")
# A user's path may hold nearly any character; what means something in a policy is left out.
_USER = Grain(r"arn:{partition}:iam::{account}:user/[^*?$\s]+")
_QUEUE = Grain(r"arn:{partition}:sqs:{region}:{account}:[\w-]+(\.fifo)?")
_TOPIC = Grain(r"arn:{partition}:sns:{region}:{account}:[\w-]+(\.fifo)?")
_STREAM = Grain(r"arn:{partition}:kinesis:{region}:{account}:stream/[\w.-]+")
_TABLE = Grain(r"arn:{partition}:dynamodb:{region}:{account}:table/[\w.-]+")
_WORKGROUP = Grain(r"arn:{partition}:athena:{region}:{account}:workgroup/[\w.-]+")
_REPOSITORY = Grain(r"arn:{partition}:ecr:{region}:{account}:repository/[\w./-]+")
_VAULT = Grain(r"arn:{partition}:glacier:{region}:{account}:vaults/[\w.-]+")
_FUNCTION = Grain(r"arn:{partition}:lambda:{region}:{account}:function:[\w-]+")
_WHOLE = Grain()
_TRAIL = Grain(r"arn:{partition}:cloudtrail:{region}:{account}:trail/[\w.-]+")
_DETECTORS = Grain(r"arn:{partition}:guardduty:{region}:{account}:detector", below="/*")
_HUB = Grain(r"arn:{partition}:securityhub:{region}:{account}:hub/default")
_ANALYZERS = Grain(r"arn:{partition}:access-analyzer:{region}:{account}:analyzer", below="/*")
_RECORDERS = Grain(r"arn:{partition}:config:{region}:{account}:configuration-recorder", below="/*")
_STACK = Grain(r"arn:{partition}:cloudformation:{region}:{account}:stack/[\w-]+/[\w-]+")
_CLUSTER = Grain(r"arn:{partition}:eks:{region}:{account}:cluster/[\w-]+")
_DATABASE = Grain(r"arn:{partition}:rds:{region}:{account}:db:[\w-]+")
_DATABASE_SNAPSHOT = Grain(r"arn:{partition}:rds:{region}:{account}:snapshot:[\w-]+")
_CLUSTER_SNAPSHOT = Grain(r"arn:{partition}:rds:{region}:{account}:cluster-snapshot:[\w-]+")
_PARAMETERS = Grain(r"arn:{partition}:rds:{region}:{account}:pg:[\w.-]+")
_DOMAIN = Grain(r"arn:{partition}:es:{region}:{account}:domain/[\w-]+")
_LISTENER = Grain(
    r"arn:{partition}:elasticloadbalancing:{region}:{account}:listener/app/[\w-]+/\w+/\w+"
)
_DISTRIBUTION = Grain(r"arn:{partition}:cloudfront::{account}:distribution/\w+")

GRAINS = {
    "ec2:AuthorizeSecurityGroupIngress": _GROUP,
    "ec2:RevokeSecurityGroupIngress": _GROUP,
    "ec2:AuthorizeSecurityGroupEgress": _GROUP,
    "ec2:RevokeSecurityGroupEgress": _GROUP,
    "ec2:EnableEbsEncryptionByDefault": _WHOLE,
    "ec2:DisableEbsEncryptionByDefault": _WHOLE,
    "ec2:EnableSnapshotBlockPublicAccess": _WHOLE,
    "ec2:DisableSnapshotBlockPublicAccess": _WHOLE,
    "ec2:EnableImageBlockPublicAccess": _WHOLE,
    "ec2:DisableImageBlockPublicAccess": _WHOLE,
    "ec2:ModifyInstanceMetadataDefaults": _WHOLE,
    "ec2:ModifyInstanceMetadataOptions": _INSTANCE,
    "ec2:ModifyImageAttribute": _IMAGE,
    "ec2:ModifySnapshotAttribute": _SNAPSHOT,
    "s3:PutBucketPublicAccessBlock": _BUCKET,
    "s3:PutBucketVersioning": _BUCKET,
    "s3:PutBucketPolicy": _BUCKET,
    "s3:DeleteBucketPolicy": _BUCKET,
    "s3:PutBucketAcl": _BUCKET,
    "s3:PutEncryptionConfiguration": _BUCKET,
    "s3:PutAccountPublicAccessBlock": _WHOLE,
    "iam:UpdateAccountPasswordPolicy": _WHOLE,
    "iam:DeleteAccountPasswordPolicy": _WHOLE,
    "iam:UpdateAccessKey": _USER,
    "kms:EnableKeyRotation": _KEY,
    "kms:DisableKeyRotation": _KEY,
    # SQS
    "sqs:SetQueueAttributes": _QUEUE,
    # SNS
    "sns:SetTopicAttributes": _TOPIC,
    # Kinesis
    "kinesis:StartStreamEncryption": _STREAM,
    "kinesis:StopStreamEncryption": _STREAM,
    # DynamoDB
    "dynamodb:UpdateTable": _TABLE,
    # X-Ray
    "xray:PutEncryptionConfig": _WHOLE,
    # Athena
    "athena:UpdateWorkGroup": _WORKGROUP,
    # Glue
    "glue:PutDataCatalogEncryptionSettings": _WHOLE,
    # ECR
    "ecr:SetRepositoryPolicy": _REPOSITORY,
    "ecr:DeleteRepositoryPolicy": _REPOSITORY,
    # Glacier
    "glacier:SetVaultAccessPolicy": _VAULT,
    "glacier:DeleteVaultAccessPolicy": _VAULT,
    # Lambda
    "lambda:AddPermission": _FUNCTION,
    "lambda:RemovePermission": _FUNCTION,
    "kms:CancelKeyDeletion": _KEY,
    "kms:ScheduleKeyDeletion": _KEY,
    # CloudTrail
    "cloudtrail:UpdateTrail": _TRAIL,
    "cloudtrail:PutEventSelectors": _TRAIL,
    # GuardDuty
    "guardduty:CreateDetector": _WHOLE,
    "guardduty:UpdateDetector": _DETECTORS,
    "guardduty:DeleteDetector": _DETECTORS,
    # Security Hub
    "securityhub:EnableSecurityHub": _HUB,
    "securityhub:DisableSecurityHub": _HUB,
    # IAM Access Analyzer
    "access-analyzer:CreateAnalyzer": _ANALYZERS,
    "access-analyzer:DeleteAnalyzer": _ANALYZERS,
    # Config
    "config:StartConfigurationRecorder": _RECORDERS,
    "config:StopConfigurationRecorder": _RECORDERS,
    # CloudFormation
    "cloudformation:UpdateTerminationProtection": _STACK,
    # EKS
    "eks:UpdateClusterConfig": _CLUSTER,
    # RDS
    "rds:ModifyDBInstance": _DATABASE,
    "rds:ModifyDBSnapshotAttribute": _DATABASE_SNAPSHOT,
    "rds:ModifyDBClusterSnapshotAttribute": _CLUSTER_SNAPSHOT,
    "rds:ModifyDBParameterGroup": _PARAMETERS,
    "rds:ResetDBParameterGroup": _PARAMETERS,
    # OpenSearch
    "es:UpdateDomainConfig": _DOMAIN,
    # Elastic Load Balancing
    "elasticloadbalancing:ModifyListener": _LISTENER,
    # CloudFront
    "cloudfront:UpdateDistribution": _DISTRIBUTION,
}


@dataclass(frozen=True, slots=True)
class Reach:
    """What an action may be done to: the Resource and the Condition of a policy statement."""

    resource: str
    conditions: tuple[tuple[str, str], ...]

    @property
    def statement(self) -> dict[str, Any]:
        return {"Resource": self.resource, "Condition": {"StringEquals": dict(self.conditions)}}


def reach(action: str, resource: Resource) -> Reach:
    """The narrowest reach with which ``action`` can still be done to ``resource``.

    The region always counts: S3's calls about a bucket go to the bucket's region, and what has no
    region is asked in the one that leads its partition. Raises BadInput for an action that is not
    in the table, and for a resource that it cannot be about.
    """
    grain = GRAINS.get(action)
    if grain is None:
        raise BadInput(
            "steps",
            f"{action} is not among the writes whose permissions are known.",
            "Look it up in the Service Authorization Reference, and add it to GRAINS.",
        )
    partition = resource.id.split(":")[1] if resource.id.count(":") >= 5 else "aws"
    region = resource.region
    if region == "global":
        region = LEADING_REGIONS.get(partition, "us-east-1")
    conditions = [("aws:RequestedRegion", region)]
    if grain.account_key:
        conditions.append((grain.account_key, resource.account))
    if grain.pattern is None:
        return Reach("*", tuple(conditions))
    # Checked in full: a name with a wildcard in it would let in more than its resource.
    pattern = grain.pattern.format(
        partition=re.escape(partition), region=re.escape(region), account=resource.account
    )
    if not re.fullmatch(pattern, resource.id, re.ASCII):
        raise BadInput("steps", f"{action} is not done to resources such as {resource.id!r}.")
    return Reach(f"{resource.id}{grain.below}", tuple(conditions))
