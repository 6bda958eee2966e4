"""What Suture reads of CloudFormation: stacks that somebody made. Nested ones follow their root."""

from __future__ import annotations

from tasks.clouds.aws_reading import Call, Item, listed


def _own(stack: Item) -> bool:
    return not stack.get("ParentId") and not str(stack["StackStatus"]).startswith("DELETE_COMP")


COLLECTORS = (
    listed(
        "aws.cloudformation.stack",
        Call(call="cloudformation:DescribeStacks", take="Stacks"),
        id="{StackId}",
        name="{StackName}",
        again=Call(
            call="cloudformation:DescribeStacks", params={"StackName": "{id}"}, take="Stacks"
        ),
        only=_own,
        keep=("StackId", "StackName", "EnableTerminationProtection"),
        tags="Tags",
    ),
)
