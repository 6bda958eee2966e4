"""SQS's rules: examples, what SQS makes of their calls, and how to plant them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

QUEUE = "arn:aws:sqs:eu-central-1:111122223333:orders"
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.operation == "SetQueueAttributes"
    assert call.params["QueueUrl"] == config["QueueUrl"]
    attributes = config["Attributes"]
    for name, value in call.params["Attributes"].items():
        if name == "Policy":
            attributes["Policy"] = json.loads(value) if value else None
        else:
            attributes[name] = value
        if name == "KmsMasterKeyId" and value:
            attributes["SqsManagedSseEnabled"] = "false"
        if name == "SqsManagedSseEnabled" and value == "true":
            attributes["KmsMasterKeyId"] = ""
    for name in ("KmsMasterKeyId", "Policy"):
        if not attributes.get(name):
            attributes.pop(name, None)


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    sqs, name = cloud.client("sqs"), f"planted-{uuid.uuid4().hex}"
    wanted = {key: one for key, one in config["Attributes"].items() if key != "QueueArn"}
    if "Policy" in wanted:
        text = json.dumps(wanted["Policy"]).replace(
            "111122223333:orders", f"{cloud.account}:{name}"
        )
        wanted["Policy"] = text
    sqs.create_queue(QueueName=name, Attributes=wanted)
    return f"arn:aws:sqs:{cloud.region}:{cloud.account}:{name}"


def queue(**attributes: Any) -> dict[str, Any]:
    return {
        "QueueUrl": "https://sqs.eu-central-1.amazonaws.com/111122223333/orders",
        "Attributes": {"QueueArn": QUEUE, "SqsManagedSseEnabled": "true", **attributes},
    }


def policy(*statements: dict[str, Any]) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


OWN = {
    "Sid": "own",
    "Effect": "Allow",
    "Principal": {"AWS": "arn:aws:iam::111122223333:root"},
    "Action": "SQS:*",
    "Resource": QUEUE,
}
PUBLIC = {**OWN, "Sid": "public", "Principal": "*", "Action": ["SQS:SendMessage"]}
FROM_TOPIC = {
    **PUBLIC,
    "Sid": "topic",
    "Condition": {"ArnEquals": {"aws:SourceArn": "arn:aws:sns:eu-central-1:111122223333:news"}},
}
FROM_ANY_TOPIC = {
    **PUBLIC,
    "Principal": {"AWS": "*"},
    "Condition": {"ArnLike": {"aws:SourceArn": "arn:aws:sns:*:*:*"}},
}

EXAMPLES: dict[str, Any] = {
    "aws_sqs_queue_encrypted": (
        [queue(), queue(SqsManagedSseEnabled="false", KmsMasterKeyId=KEY)],
        [
            queue(SqsManagedSseEnabled="false"),
            queue(SqsManagedSseEnabled="false", Policy=policy(OWN)),
        ],
        "Attributes",
    ),
    "aws_sqs_queue_policy_closed_to_strangers": (
        [queue(), queue(Policy=policy(OWN)), queue(Policy=policy(OWN, FROM_TOPIC))],
        [
            queue(Policy=policy(OWN, PUBLIC)),
            queue(Policy=policy(PUBLIC)),
            queue(Policy=policy(FROM_ANY_TOPIC, FROM_TOPIC, PUBLIC), SqsManagedSseEnabled="false"),
        ],
        "Attributes",
    ),
}
KINDS: dict[str, Any] = {
    "aws.sqs.queue": {"id": QUEUE, "apply": apply, "plant": plant, "values": {"kms_key": ""}},
}
