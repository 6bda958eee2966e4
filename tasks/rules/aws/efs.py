"""EFS's rules: file systems are encrypted."""

from __future__ import annotations

from tasks.model import Resource, Rule, Severity
from tasks.rules.guide import written
from tasks.rules.shape import flag


def is_encrypted(resource: Resource) -> bool:
    return flag(resource.config["Encrypted"], "Encrypted")


RULES = (
    Rule(
        id="aws_efs_file_system_encrypted_at_rest",
        kind="aws.efs.file_system",
        severity=Severity.MEDIUM,
        title="EFS file system is encrypted at rest",
        passes=is_encrypted,
        fix=None,
        reads=("elasticfilesystem:DescribeFileSystems",),
        writes=(),
        events=("elasticfilesystem:CreateFileSystem",),
        aka=("prowler:efs_encryption_at_rest_enabled", "securityhub:EFS.1", "cis-aws-6.0:3.3.1"),
        guide=written(
            means="The file system keeps its files and their names unencrypted on disk.",
            matters="""With encryption, reading takes a permission on the key as well, and each use
                of the key is recorded.""",
            console="""EFS > Create file system > Customize > Enable encryption of data at rest.
                Then DataSync > Create task, from the old file system to the new one.""",
            cli="""
                aws efs create-file-system --encrypted --kms-key-id KEY
                aws datasync create-task --source-location-arn OLD \\
                    --destination-location-arn NEW""",
            terraform="""
                resource "aws_efs_file_system" "this" {
                  encrypted  = true
                  kms_key_id = aws_kms_key.this.arn
                }
                # Terraform replaces the file system: copy the files before it does.""",
            by_hand="""A file system is encrypted when it is made, or never. The way there is a new
                one and a copy of all files, with the clients mounted anew: when that can be, its
                owner has to say.""",
            breaks="""What is written to the old file system after the copy is missing in the new
                one: stop the writers for the last pass. Mount targets, access points and backup
                plans have to be made again.""",
            back="""Keep the old file system until the new one has proved itself; going back is
                mounting it again.""",
        ),
    ),
)
