"""SQS's rules: queues are encrypted, and their policies let no stranger in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call, Change, Cloud, Resource, Rule, Severity
from tasks.rules.aws.keys import encrypt, key_input
from tasks.rules.aws.policies import lets_no_stranger_in, shut
from tasks.rules.guide import written
from tasks.rules.shape import mapping, odd, text

_READS = ("sqs:ListQueues", "sqs:GetQueueUrl", "sqs:GetQueueAttributes")
_EVENTS = ("sqs:CreateQueue", "sqs:SetQueueAttributes")
_KEY = key_input(empty="SQS's own key")


def _queue(resource: Resource) -> Mapping[str, Any]:
    return {"QueueUrl": text(resource.config["QueueUrl"], "QueueUrl")}


def _attributes(resource: Resource) -> Mapping[str, Any]:
    """Unset ones are left out, the queue's ARN never: without it this is no such answer."""
    attributes = mapping(resource.config["Attributes"], "Attributes")
    text(attributes.get("QueueArn"), "Attributes.QueueArn")
    return attributes


def encrypted(resource: Resource) -> bool:
    """With a KMS key, or with SQS's own."""
    attributes = _attributes(resource)
    managed = attributes.get("SqsManagedSseEnabled")
    if managed not in ("true", "false"):
        raise odd("Attributes.SqsManagedSseEnabled")
    key = attributes.get("KmsMasterKeyId") or ""
    if not isinstance(key, str):
        raise odd("Attributes.KmsMasterKeyId")
    return managed == "true" or key != ""


def _set(**attributes: str) -> Mapping[str, Any]:
    return {"Attributes": attributes}


def _with_key(_queue: Resource, key: str) -> Mapping[str, Any]:
    return _set(KmsMasterKeyId=key) if key else _set(SqsManagedSseEnabled="true")


def _unencrypted(_queue: Resource, key: str) -> Mapping[str, Any]:
    """A queue whose KMS key is taken away must not be left with SQS's own."""
    without = {"KmsMasterKeyId": ""} if key else {}
    return _set(**without, SqsManagedSseEnabled="false")


def _encryption_changes(_queue: Resource, key: str) -> tuple[Change, ...]:
    return (Change("encryption at rest", "off", f"on, with {key or 'the key of SQS itself'}"),)


def _policy(resource: Resource) -> Any:
    return _attributes(resource).get("Policy")


def closed(resource: Resource) -> bool:
    return lets_no_stranger_in(_policy(resource))


def _put(resource: Resource, policy: str) -> Call:
    return Call(Cloud.AWS, "sqs", "SetQueueAttributes", {**_queue(resource), **_set(Policy=policy)})


RULES = (
    Rule(
        id="aws_sqs_queue_encrypted",
        kind="aws.sqs.queue",
        severity=Severity.MEDIUM,
        title="SQS queue is encrypted at rest",
        passes=encrypted,
        fix=encrypt(
            "sqs:SetQueueAttributes",
            "sqs",
            "SetQueueAttributes",
            key=_KEY,
            passes=encrypted,
            names=_queue,
            good=_with_key,
            old=_unencrypted,
            changes=_encryption_changes,
        ),
        inputs=(_KEY,),
        reads=_READS,
        writes=("sqs:SetQueueAttributes",),
        events=_EVENTS,
        aka=("cloudsploit:sqsEncrypted", "prowler:sqs_queues_server_side_encryption_enabled"),
        guide=written(
            means="""Messages wait in the queue unencrypted: neither SQS's own key (SSE-SQS) nor
                a KMS key (SSE-KMS) is set. New queues have SSE-SQS; older ones, and those made by
                old templates, may have none.""",
            matters="""Messages often carry personal or order data. Encryption at rest is what most
                standards ask for first, and with SSE-SQS it costs nothing.""",
            console="SQS > the queue > Edit > Encryption > Server-side encryption: Enabled.",
            cli="""
                aws sqs set-queue-attributes --queue-url URL \\
                  --attributes SqsManagedSseEnabled=true""",
            terraform="""
                resource "aws_sqs_queue" "this" {
                  sqs_managed_sse_enabled = true
                }""",
            fix="""It turns SSE-SQS on. Where the approver names a KMS key, it sets that key
                instead. Messages that wait already stay as they are; new ones are encrypted.""",
            breaks="""With SSE-SQS nothing. With a KMS key, whoever sends needs
                kms:GenerateDataKey and whoever receives kms:Decrypt: services such as S3 and SNS
                cannot send to the queue unless the key's policy lets them.""",
            back="Suture's undo turns encryption off again, as it was.",
        ),
    ),
    Rule(
        id="aws_sqs_queue_policy_closed_to_strangers",
        kind="aws.sqs.queue",
        severity=Severity.HIGH,
        title="SQS queue policy lets no stranger in",
        passes=closed,
        fix=shut(
            policy=_policy,
            put=_put,
            put_action="sqs:SetQueueAttributes",
            drop=lambda queue: _put(queue, ""),  # how SQS takes a policy away
            drop_action="sqs:SetQueueAttributes",
        ),
        reads=_READS,
        writes=("sqs:SetQueueAttributes",),
        events=(*_EVENTS, "sqs:AddPermission", "sqs:RemovePermission"),
        aka=("prowler:sqs_queues_not_publicly_accessible",),
        guide=written(
            means="""A statement of the queue's policy allows everyone ("*", or all but some), and
                no condition ties it to an account, an organization, a source ARN, a network or a
                VPC endpoint, nor does a Deny take it back.""",
            matters="""Anybody with an AWS account, or with none, may send messages that your
                workers will trust, read those that wait, or delete them.""",
            console="SQS > the queue > Access policy > Edit: name accounts, or add a condition.",
            cli="""
                aws sqs get-queue-attributes --queue-url URL --attribute-names Policy
                aws sqs set-queue-attributes --queue-url URL --attributes file://policy.json""",
            terraform="""
                data "aws_iam_policy_document" "queue" {
                  statement {
                    actions   = ["sqs:SendMessage"]
                    resources = [aws_sqs_queue.this.arn]
                    principals {
                      type        = "Service"
                      identifiers = ["sns.amazonaws.com"]
                    }
                  }
                }""",
            fix="""It takes out the statements that let strangers in, and leaves every other
                statement as it is. Where none would be left, it takes the policy away.""",
            breaks="""Whoever came in by such a statement: look at CloudTrail's data events, or at
                the senders you know, and give them a statement that names them first.""",
            back="Suture's undo writes the old policy again, statement by statement.",
        ),
    ),
)
