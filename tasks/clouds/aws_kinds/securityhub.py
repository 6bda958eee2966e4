"""What Suture reads of Security Hub: whether a region has it."""

from __future__ import annotations

from tasks.clouds.aws_reading import Call, Item, Part, settings


def _hub(answer: Item) -> Item:
    return {"HubArn": answer["HubArn"]}


COLLECTORS = (
    settings(
        "aws.securityhub.hub",
        (
            Part(
                name="Hub",
                call=Call(call="securityhub:DescribeHub"),
                # It says that the account is not subscribed; a refusal is AccessDeniedException.
                absent=("InvalidAccessException", "ResourceNotFoundException"),
                shape=_hub,
            ),
        ),
        id="arn:{partition}:securityhub:{region}:{account}:hub/default",
        name="Security Hub in {region}",
    ),
)
