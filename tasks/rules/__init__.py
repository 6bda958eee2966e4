"""The rule table: every rule of both clouds, as values. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache

from tasks.errors import BadInput
from tasks.model import Rule
from tasks.rules.aws import (
    accessanalyzer,
    athena,
    cloudformation,
    cloudfront,
    cloudtrail,
    config,
    dynamodb,
    ec2,
    ec2_compute,
    ec2_defaults,
    ec2_network,
    ecr,
    efs,
    eks,
    elb,
    elbv2,
    glacier,
    glue,
    guardduty,
    iam,
    iam_account,
    iam_users,
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
from tasks.rules.azure import (
    assessments,
    authorization,
    compute,
    databases,
    databricks,
    gateway,
    keyvault,
    monitor,
    network,
    network_watch,
    owners,
    security,
    security_contact,
    sql,
    storage,
    virtual_network,
    web,
)

RULES: tuple[Rule, ...] = (
    *ec2.RULES,
    *ec2_compute.RULES,
    *ec2_defaults.RULES,
    *ec2_network.RULES,
    *s3.RULES,
    *iam.RULES,
    *iam_account.RULES,
    *iam_users.RULES,
    *kms.RULES,
    *sqs.RULES,
    *sns.RULES,
    *kinesis.RULES,
    *dynamodb.RULES,
    *xray.RULES,
    *athena.RULES,
    *glue.RULES,
    *ecr.RULES,
    *glacier.RULES,
    *lambda_.RULES,
    *cloudtrail.RULES,
    *guardduty.RULES,
    *rds.RULES,
    *cloudfront.RULES,
    *cloudformation.RULES,
    *eks.RULES,
    *opensearch.RULES,
    *efs.RULES,
    *elb.RULES,
    *elbv2.RULES,
    *securityhub.RULES,
    *accessanalyzer.RULES,
    *config.RULES,
    *network.RULES,
    *storage.RULES,
    *keyvault.RULES,
    *compute.RULES,
    *monitor.RULES,
    *web.RULES,
    *security.RULES,
    *security_contact.RULES,
    *sql.RULES,
    *databases.RULES,
    *virtual_network.RULES,
    *authorization.RULES,
    *gateway.RULES,
    *owners.RULES,
    *network_watch.RULES,
    *databricks.RULES,
    *assessments.RULES,
)

_BY_ID = {one.id: one for one in RULES}


def rule(rule_id: str) -> Rule:
    """The rule of that id; BadInput when there is none."""
    try:
        return _BY_ID[rule_id]
    except KeyError:
        raise BadInput(
            "rule", "is not in the rule table.", "List them with: suture rules"
        ) from None


def rules_of(patterns: Sequence[str], named: str = "SUTURE_RULES") -> tuple[Rule, ...]:
    """The rules whose ids match one of the patterns ("aws_s3_*"); the whole table without any.

    Raises BadInput for a pattern that no rule matches; ``named`` is what the patterns stand in.
    """
    return _matching(tuple(patterns), named)


@lru_cache(maxsize=64)
def _matching(patterns: tuple[str, ...], named: str) -> tuple[Rule, ...]:
    for pattern in patterns:
        if not any(fnmatchcase(rule_id, pattern) for rule_id in _BY_ID):
            raise BadInput(named, f"{pattern} matches no rule.", "List them with: suture rules")
    return tuple(
        one
        for one in RULES
        if not patterns or any(fnmatchcase(one.id, pattern) for pattern in patterns)
    )
