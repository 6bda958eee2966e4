"""What Suture reads of SNS: topics and their attributes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tasks.clouds.aws_reading import Call, Part, listed

_KEPT = ("TopicArn", "DisplayName", "FifoTopic", "KmsMasterKeyId", "Policy", "SignatureVersion")


def _attributes(answered: Mapping[str, Any]) -> dict[str, Any]:
    """Without counts of subscriptions; the policy is JSON in a text."""
    kept = {key: answered[key] for key in _KEPT if answered.get(key)}
    if "Policy" in kept:
        kept["Policy"] = json.loads(kept["Policy"])
    return kept


COLLECTORS = (
    listed(
        "aws.sns.topic",
        Call(call="sns:ListTopics", take="Topics"),
        id="{TopicArn}",
        name="{TopicArn:last}",
        again={"TopicArn": "{id}"},
        drop=("TopicArn",),
        parts=(
            Part(
                name="Attributes",
                call=Call(
                    call="sns:GetTopicAttributes",
                    params={"TopicArn": "{TopicArn}"},
                    take="Attributes",
                ),
                shape=_attributes,
            ),
        ),
    ),
)
