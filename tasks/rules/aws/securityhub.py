"""Security Hub's rules: it is on."""

from __future__ import annotations

from tasks.model import Resource, Rule, Severity
from tasks.rules.aws.switch import becomes, nothing, switch
from tasks.rules.guide import written
from tasks.rules.shape import mapping, text


def has_hub(resource: Resource) -> bool:
    """The account has subscribed to Security Hub in this region."""
    hub = resource.config["Hub"]
    return hub is not None and bool(text(mapping(hub, "Hub").get("HubArn"), "Hub"))


RULES = (
    Rule(
        id="aws_securityhub_hub_enabled",
        kind="aws.securityhub.hub",
        severity=Severity.MEDIUM,
        title="Security Hub is on in the region",
        passes=has_hub,
        fix=switch(
            "securityhub:EnableSecurityHub",
            "securityhub",
            "EnableSecurityHub",
            passes=has_hub,
            names=nothing,
            good={"EnableDefaultStandards": True},
            old=nothing,
            back="DisableSecurityHub",
            changes=becomes("Security Hub", "off", "on, with AWS's default standards"),
        ),
        reads=("securityhub:DescribeHub",),
        writes=("securityhub:EnableSecurityHub", "securityhub:DisableSecurityHub"),
        events=("securityhub:EnableSecurityHub", "securityhub:DisableSecurityHub"),
        aka=("prowler:securityhub_enabled", "cis-aws-6.0:5.16"),
        guide=written(
            means="""The account has not subscribed to Security Hub in this region.""",
            matters="""Security Hub gathers what GuardDuty, Inspector, Macie and others find, checks
                resources against standards, and shows it in one place and one form. Without it,
                findings lie about where nobody looks.""",
            console="Security Hub CSPM, in the region > Go to Security Hub > Enable.",
            cli="aws securityhub enable-security-hub --enable-default-standards --region REGION",
            terraform="""
                resource "aws_securityhub_account" "this" {
                  enable_default_standards = true
                }""",
            fix="""It turns Security Hub on, with the standards that AWS turns on by default. An
                account that has never had it needs its service-linked role first, which a
                remediator must not make: aws iam create-service-linked-role --aws-service-name
                securityhub.amazonaws.com""",
            breaks="""Nothing stops working. Security Hub charges for each check, after 30 days on
                trial; its checks need AWS Config, which charges too. Where an organization manages
                Security Hub, let its administrator turn it on.""",
            back="""Suture's undo turns Security Hub off again, with the findings and settings that
                came meanwhile.""",
        ),
    ),
)
