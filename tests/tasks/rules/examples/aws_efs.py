"""EFS's rules: examples, and how to plant them. They are guided: no call to make anything of."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

_numbers = itertools.count(1)


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    made = cloud.client("efs").create_file_system(
        CreationToken=f"files-{next(_numbers)}", Encrypted=config["Encrypted"]
    )
    return str(made["FileSystemArn"])


def files(encrypted: bool) -> dict[str, Any]:
    return {"FileSystemId": "fs-0123456789abcdef0", "Encrypted": encrypted}


EXAMPLES: dict[str, Any] = {
    "aws_efs_file_system_encrypted_at_rest": ([files(True)], [files(False)], "Encrypted"),
}
KINDS: dict[str, Any] = {
    "aws.efs.file_system": {
        "id": (
            "arn:aws:elasticfilesystem:eu-central-1:111122223333:file-system/fs-0123456789abcdef0"
        ),
        "plant": plant,
    },
}
