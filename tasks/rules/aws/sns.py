"""SNS's rules: topics are encrypted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Change, Resource, Rule, Severity
from tasks.rules.aws.keys import encrypt, key_input
from tasks.rules.guide import written
from tasks.rules.shape import mapping, odd, text

_KEY = key_input(required=True)
_PART = "Attributes"


def _topic(resource: Resource) -> Mapping[str, Any]:
    """SNS always says a topic's ARN: without it this is no such answer."""
    attributes = mapping(resource.config[_PART], _PART)
    return {"TopicArn": text(attributes.get("TopicArn"), f"{_PART}.TopicArn")}


def encrypted(resource: Resource) -> bool:
    _topic(resource)
    key = resource.config[_PART].get("KmsMasterKeyId", "")
    if not isinstance(key, str):
        raise odd(f"{_PART}.KmsMasterKeyId")
    return key != ""


def _key_is(key: str) -> Mapping[str, Any]:
    return {"AttributeName": "KmsMasterKeyId", "AttributeValue": key}


RULES = (
    Rule(
        id="aws_sns_topic_encrypted",
        kind="aws.sns.topic",
        severity=Severity.MEDIUM,
        title="SNS topic is encrypted at rest with KMS",
        passes=encrypted,
        fix=encrypt(
            "sns:SetTopicAttributes",
            "sns",
            "SetTopicAttributes",
            key=_KEY,
            passes=encrypted,
            names=_topic,
            good=lambda _topic, key: _key_is(key),
            old=lambda _topic, _key: _key_is(""),
            changes=lambda _topic, key: (Change("KMS key", "none", key),),
        ),
        inputs=(_KEY,),
        reads=("sns:ListTopics", "sns:GetTopicAttributes"),
        writes=("sns:SetTopicAttributes",),
        events=("sns:CreateTopic", "sns:SetTopicAttributes"),
        aka=("cloudsploit:topicEncrypted", "prowler:sns_topics_kms_encryption_at_rest_enabled"),
        guide=written(
            means="""The topic has no KMS key. Its messages are kept with SNS's own disk
                encryption, with no key that you could see used, limit or revoke.""",
            matters="""With a KMS key, who may read messages at rest is up to the key's policy, and
                every use of the key is in CloudTrail.""",
            console="SNS > Topics > the topic > Edit > Encryption > a customer managed key.",
            cli="""
                aws sns set-topic-attributes --topic-arn ARN \\
                  --attribute-name KmsMasterKeyId --attribute-value KEY""",
            terraform="""
                resource "aws_sns_topic" "this" {
                  kms_master_key_id = aws_kms_key.topics.arn
                }""",
            fix="It sets the key the approver names; why there is no default is said below.",
            breaks="""Publishers need kms:GenerateDataKey and kms:Decrypt on the key. AWS's own key,
                alias/aws/sns, gives that to no other service: CloudWatch alarms, EventBridge, S3
                and others stop publishing, without an error that you would see. Name a key of
                yours whose policy lets in the services that publish to the topic.""",
            back="Suture's undo takes the key away again. Messages that wait stay readable.",
        ),
    ),
)
