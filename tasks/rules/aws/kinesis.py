"""Kinesis's rules: streams are encrypted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Change, Resource, Rule, Severity
from tasks.rules.aws.keys import encrypt, key_input
from tasks.rules.guide import written
from tasks.rules.shape import mapping, odd, text

_KEY = key_input("alias/aws/kinesis")
_TYPE = "Encryption.EncryptionType"


def _stream(resource: Resource) -> Mapping[str, Any]:
    return {"StreamName": text(resource.config["StreamName"], "StreamName")}


def encrypted(resource: Resource) -> bool:
    kind = mapping(resource.config["Encryption"], "Encryption").get("EncryptionType")
    if kind not in ("NONE", "KMS"):
        raise odd(_TYPE)
    return bool(kind == "KMS")


def _with_key(_stream: Resource, key: str) -> Mapping[str, Any]:
    return {"EncryptionType": "KMS", "KeyId": key}


RULES = (
    Rule(
        id="aws_kinesis_stream_encrypted",
        kind="aws.kinesis.stream",
        severity=Severity.MEDIUM,
        title="Kinesis stream is encrypted with KMS",
        passes=encrypted,
        fix=encrypt(
            "kinesis:StartStreamEncryption",
            "kinesis",
            "StartStreamEncryption",
            key=_KEY,
            passes=encrypted,
            names=_stream,
            good=_with_key,
            old=_with_key,
            back="StopStreamEncryption",
            changes=lambda _stream, key: (Change("encryption", "none", f"KMS, with {key}"),),
        ),
        inputs=(_KEY,),
        reads=("kinesis:ListStreams", "kinesis:DescribeStreamSummary"),
        writes=("kinesis:StartStreamEncryption", "kinesis:StopStreamEncryption"),
        events=(
            "kinesis:CreateStream",
            "kinesis:StartStreamEncryption",
            "kinesis:StopStreamEncryption",
        ),
        aka=("cloudsploit:kinesisEncrypted", "prowler:kinesis_stream_encrypted_at_rest"),
        guide=written(
            means="Server-side encryption of the stream is off: its records are kept as they came.",
            matters="""A stream holds a day of records or more, often the rawest data there is.
                Encryption with KMS is what most standards ask of it.""",
            console="Kinesis > Data streams > the stream > Configuration > Server-side encryption.",
            cli="""
                aws kinesis start-stream-encryption --stream-name NAME \\
                  --encryption-type KMS --key-id alias/aws/kinesis""",
            terraform="""
                resource "aws_kinesis_stream" "this" {
                  encryption_type = "KMS"
                  kms_key_id      = "alias/aws/kinesis"
                }""",
            fix="""It starts encryption with the key that the approver names, or with AWS's own
                for Kinesis. Records that are there already stay as they are until they expire.""",
            breaks="""With AWS's own key nothing within the account; producers and consumers of
                other accounts cannot use that key, so name one of yours for them. With a key of
                yours, producers need kms:GenerateDataKey and consumers kms:Decrypt. Kinesis takes
                25 such changes a day for one stream.""",
            back="""Suture's undo stops encryption again. Records that were encrypted meanwhile
                stay so, and readable, until they expire.""",
        ),
    ),
)
