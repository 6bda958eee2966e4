"""CloudFormation's rules: nobody deletes a stack by mistake."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Resource, Rule, Severity
from tasks.rules.aws.switch import becomes, switch
from tasks.rules.guide import written
from tasks.rules.shape import flag, text

_SETTING = "EnableTerminationProtection"


def _stack(resource: Resource) -> Mapping[str, Any]:
    return {"StackName": text(resource.config["StackId"], "StackId")}


def is_protected(resource: Resource) -> bool:
    """DeleteStack is refused until somebody takes the protection away."""
    return flag(resource.config[_SETTING], _SETTING)


RULES = (
    Rule(
        id="aws_cloudformation_stack_termination_protected",
        kind="aws.cloudformation.stack",
        severity=Severity.LOW,
        title="CloudFormation stack is protected from being deleted",
        passes=is_protected,
        fix=switch(
            "cloudformation:UpdateTerminationProtection",
            "cloudformation",
            "UpdateTerminationProtection",
            passes=is_protected,
            names=_stack,
            good={_SETTING: True},
            old=lambda _resource: {_SETTING: False},
            changes=becomes("termination protection", "off", "on"),
        ),
        reads=("cloudformation:DescribeStacks",),
        writes=("cloudformation:UpdateTerminationProtection",),
        events=("cloudformation:CreateStack", "cloudformation:UpdateTerminationProtection"),
        aka=(
            "cloudsploit:stackTerminationProtection",
            "prowler:cloudformation_stacks_termination_protection_enabled",
        ),
        guide=written(
            means="""The stack can be deleted with one call, with everything in it. Nested stacks
                follow their root and are not judged by themselves.""",
            matters="""A slip of the hand, or a script with the wrong name in it, takes databases
                and networks away at once.""",
            console="""CloudFormation > Stacks > the stack > Stack actions > Edit termination
                protection > Activated.""",
            cli="""
                aws cloudformation update-termination-protection --stack-name STACK \\
                    --enable-termination-protection""",
            terraform="""
                # The provider's stack resource does not know the setting. Set it by the command
                # line, or with the CDK:
                #   new Stack(app, "this", { terminationProtection: true })""",
            fix="It turns termination protection on for the stack and the stacks in it.",
            breaks="""Pipelines that delete the stack, such as those of test environments, are
                refused until they turn the protection off first. Updates go on as before.""",
            back="Suture's undo turns the protection off again.",
        ),
    ),
)
