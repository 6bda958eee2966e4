"""What Suture reads of SQS: queues and their attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tasks.clouds.aws_reading import Call, Part, listed

# What is counted, and what every change changes, is no configuration.
_CHANGING = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesDelayed",
    "ApproximateNumberOfMessagesNotVisible",
    "CreatedTimestamp",
    "LastModifiedTimestamp",
)


def _attributes(answered: Mapping[str, str]) -> dict[str, Any]:
    """They are all texts; a policy is JSON in one."""
    kept: dict[str, Any] = {key: one for key, one in answered.items() if key not in _CHANGING}
    if kept.get("Policy"):
        kept["Policy"] = json.loads(kept["Policy"])
    return kept


COLLECTORS = (
    listed(
        "aws.sqs.queue",
        Call(
            call="sqs:ListQueues",
            params={"MaxResults": 1000},
            take="QueueUrls",
            plain="QueueUrl",
            sparse=True,
        ),
        id="arn:{partition}:sqs:{region}:{account}:{name}",
        name="{QueueUrl:last}",
        again=Call(
            call="sqs:GetQueueUrl",
            params={"QueueName": "{last}"},
            take="QueueUrl",
            plain="QueueUrl",
        ),
        keep=("QueueUrl",),
        parts=(
            Part(
                name="Attributes",
                call=Call(
                    call="sqs:GetQueueAttributes",
                    params={"QueueUrl": "{QueueUrl}", "AttributeNames": ["All"]},
                    take="Attributes",
                ),
                shape=_attributes,
            ),
        ),
    ),
)
