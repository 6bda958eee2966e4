"""Every kind of AWS resource that Suture reads, by its name. One file per service."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.clouds.aws_kinds import (
    accessanalyzer,
    athena,
    cloudformation,
    cloudfront,
    cloudtrail,
    config,
    dynamodb,
    ec2,
    ecr,
    efs,
    eks,
    elb,
    elbv2,
    glacier,
    glue,
    guardduty,
    iam,
    kinesis,
    kms,
    lambda_,
    opensearch,
    rds,
    s3,
    securityhub,
    sns,
    sqs,
    xray,
)
from tasks.clouds.aws_view import Collector

COLLECTORS: Mapping[str, Collector] = {
    collector.kind: collector
    for collector in (
        *ec2.COLLECTORS,
        *s3.COLLECTORS,
        *iam.COLLECTORS,
        *kms.COLLECTORS,
        *sqs.COLLECTORS,
        *sns.COLLECTORS,
        *kinesis.COLLECTORS,
        *dynamodb.COLLECTORS,
        *xray.COLLECTORS,
        *athena.COLLECTORS,
        *glue.COLLECTORS,
        *ecr.COLLECTORS,
        *glacier.COLLECTORS,
        *lambda_.COLLECTORS,
        *cloudtrail.COLLECTORS,
        *guardduty.COLLECTORS,
        *rds.COLLECTORS,
        *cloudfront.COLLECTORS,
        *cloudformation.COLLECTORS,
        *eks.COLLECTORS,
        *opensearch.COLLECTORS,
        *efs.COLLECTORS,
        *elb.COLLECTORS,
        *elbv2.COLLECTORS,
        *securityhub.COLLECTORS,
        *accessanalyzer.COLLECTORS,
        *config.COLLECTORS,
    )
}
