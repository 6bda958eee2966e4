"""What Suture reads of EFS: file systems."""

from __future__ import annotations

from tasks.clouds.aws_reading import Call, listed

COLLECTORS = (
    listed(
        "aws.efs.file_system",
        Call(call="efs:DescribeFileSystems", take="FileSystems"),
        id="{FileSystemArn}",
        name="{FileSystemId}",
        again=Call(
            call="efs:DescribeFileSystems", params={"FileSystemId": "{last}"}, take="FileSystems"
        ),
        keep=("FileSystemId", "Encrypted"),
        tags="Tags",
    ),
)
