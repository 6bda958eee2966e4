"""Cloud Custodian beside Suture: the same change on the same fleet, by its own handler."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import boto3

sys.path.append(str(Path(__file__).parents[1] / "fleet"))  # scripts, not a package

from peer import environment

HERE = Path(__file__).parent
CACHE = HERE.parents[2] / "build" / "benchmark"


class Group(Protocol):
    """A security group that can be opened, in an account with these keys."""

    id: str
    account: str
    keys: Mapping[str, str]

    def spoil(self) -> None: ...


def measure(fleet: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, Any]:
    """Open each group and hand its event to Custodian's handler, which is warm from the second on.

    Seconds from the event taken out of the queue to the end of the handler; ``closed`` counts the
    groups that were closed then. Custodian does not check that itself.
    """
    aws = fleet["aws"]
    own = {"endpoint_url": aws["endpoint"], "region_name": aws["regions"][0]}
    hub = aws["hub"]
    sqs = boto3.client(
        "sqs",
        aws_access_key_id=hub["access_key_id"],
        aws_secret_access_key=hub["secret_access_key"],
        **own,
    )
    _drain(sqs, aws["event_queue"])
    first = groups[0]
    told = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    told |= {
        "AWS_ENDPOINT_URL": aws["endpoint"],
        "AWS_DEFAULT_REGION": aws["regions"][0],
        "AWS_ACCESS_KEY_ID": first.keys["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": first.keys["SecretAccessKey"],
        "AWS_SESSION_TOKEN": first.keys["SessionToken"],
        "AWS_EC2_METADATA_DISABLED": "true",
        "C7N_DEBUG_EVENT": "no",
    }
    ec2 = boto3.client(
        "ec2",
        aws_access_key_id=first.keys["AccessKeyId"],
        aws_secret_access_key=first.keys["SecretAccessKey"],
        aws_session_token=first.keys["SessionToken"],
        **own,
    )
    taken, closed = [], 0
    program = environment("c7n-org", CACHE) / "python"
    with tempfile.TemporaryDirectory(prefix="custodian-") as folder:
        command = [program, HERE / "peers" / "custodian.py", first.account, aws["regions"][0]]
        with subprocess.Popen(
            command,
            cwd=folder,
            env=told,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as handler:
            assert handler.stdin is not None
            assert handler.stdout is not None
            for group in groups:
                group.spoil()
                event = next(
                    one
                    for one in _drain(sqs, aws["event_queue"], wait=5)
                    if one["detail"]["eventName"].startswith("Authorize")  # not its own
                    and one["detail"]["requestParameters"]["groupId"] == group.id
                )
                handler.stdin.write(json.dumps(event) + "\n")
                handler.stdin.flush()
                taken.append(json.loads(handler.stdout.readline())["seconds"])
                open_ = ec2.describe_security_groups(GroupIds=[group.id])["SecurityGroups"][0]
                closed += not open_["IpPermissions"]
            handler.stdin.close()
    return {
        "first_s": round(taken[0], 2),
        "median_s": round(statistics.median(taken[1:]), 2),
        "events": len(taken),
        "closed": closed,
    }


def _drain(sqs: Any, queue: str, wait: int = 0) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while more := sqs.receive_message(
        QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=0 if found else wait
    ).get("Messages"):
        for one in more:
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=one["ReceiptHandle"])
            found.append(json.loads(one["Body"]))
    return found
