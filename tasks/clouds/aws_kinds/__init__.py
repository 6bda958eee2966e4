"""Every kind of AWS resource that Suture reads, by its name. One file per service."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.clouds.aws_kinds import ec2, iam, kms, s3
from tasks.clouds.aws_view import Collector

COLLECTORS: Mapping[str, Collector] = {
    collector.kind: collector
    for collector in (
        *ec2.COLLECTORS,
        *s3.COLLECTORS,
        *iam.COLLECTORS,
        *kms.COLLECTORS,
    )
}
