"""SNS's rules: examples, what SNS makes of their calls, and how to plant them."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

TOPIC = "arn:aws:sns:eu-central-1:111122223333:news"


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.operation == "SetTopicAttributes"
    attributes = config["Attributes"]
    assert call.params["TopicArn"] == attributes["TopicArn"]
    assert call.params["AttributeName"] == "KmsMasterKeyId"
    attributes["KmsMasterKeyId"] = call.params["AttributeValue"]
    if not attributes["KmsMasterKeyId"]:
        del attributes["KmsMasterKeyId"]


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    key = config["Attributes"].get("KmsMasterKeyId")
    made = cloud.client("sns").create_topic(
        Name=f"planted-{uuid.uuid4().hex}", Attributes={"KmsMasterKeyId": key} if key else {}
    )
    return str(made["TopicArn"])


def topic(**attributes: Any) -> dict[str, Any]:
    return {"Attributes": {"TopicArn": TOPIC, **attributes}}


EXAMPLES: dict[str, Any] = {
    "aws_sns_topic_encrypted": (
        [topic(KmsMasterKeyId="alias/topics"), topic(KmsMasterKeyId="alias/aws/sns")],
        [topic(), topic(DisplayName="News", FifoTopic="true")],
        "Attributes",
    ),
}
KINDS: dict[str, Any] = {
    "aws.sns.topic": {
        "id": TOPIC,
        "apply": apply,
        "plant": plant,
        "values": {"kms_key": "alias/topics"},
    },
}
