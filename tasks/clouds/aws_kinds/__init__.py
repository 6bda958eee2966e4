"""Every kind of AWS resource that Suture reads, by its name. One file per service."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.clouds.aws_kinds import (
    athena,
    dynamodb,
    ec2,
    ecr,
    glacier,
    glue,
    iam,
    kinesis,
    kms,
    lambda_,
    s3,
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
    )
}
