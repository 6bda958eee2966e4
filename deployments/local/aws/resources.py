"""What a call is about: the ARN that a policy must allow, told by the call's own parameters.

After the Service Authorization Reference, for services whose calls name one resource at a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

# service -> the parameters that name a resource, and its ARN with the name as {}. The first that a
# call has counts. A name that is an ARN already stands for itself, and no parameter for what a
# region has once.
NAMED: dict[str, tuple[tuple[str, str], ...]] = {
    "athena": (("WorkGroup", "arn:aws:athena:{region}:{account}:workgroup/{}"),),
    "dynamodb": (("TableName", "arn:aws:dynamodb:{region}:{account}:table/{}"),),
    "ec2": (
        ("ImageId", "arn:aws:ec2:{region}::image/{}"),
        ("SnapshotId", "arn:aws:ec2:{region}::snapshot/{}"),
        ("InstanceId", "arn:aws:ec2:{region}:{account}:instance/{}"),
    ),
    "ecr": (("repositoryName", "arn:aws:ecr:{region}:{account}:repository/{}"),),
    "glacier": (("vaultName", "arn:aws:glacier:{region}:{account}:vaults/{}"),),
    "kinesis": (("StreamName", "arn:aws:kinesis:{region}:{account}:stream/{}"),),
    "kms": (("KeyId", "arn:aws:kms:{region}:{account}:key/{}"),),
    "lambda": (("FunctionName", "arn:aws:lambda:{region}:{account}:function:{}"),),
    "access-analyzer": (
        ("analyzerName", "arn:aws:access-analyzer:{region}:{account}:analyzer/{}"),
    ),
    "cloudfront": (("Id", "arn:aws:cloudfront::{account}:distribution/{}"),),
    "cloudtrail": (
        ("Name", "arn:aws:cloudtrail:{region}:{account}:trail/{}"),
        ("TrailName", "arn:aws:cloudtrail:{region}:{account}:trail/{}"),
    ),
    "config": (
        (
            "ConfigurationRecorderName",
            "arn:aws:config:{region}:{account}:configuration-recorder/{}/emulated",
        ),
    ),
    "eks": (("name", "arn:aws:eks:{region}:{account}:cluster/{}"),),
    "elasticloadbalancing": (("ListenerArn", "{}"),),
    "es": (("DomainName", "arn:aws:es:{region}:{account}:domain/{}"),),
    "guardduty": (("DetectorId", "arn:aws:guardduty:{region}:{account}:detector/{}"),),
    "rds": (
        ("DBInstanceIdentifier", "arn:aws:rds:{region}:{account}:db:{}"),
        ("DBSnapshotIdentifier", "arn:aws:rds:{region}:{account}:snapshot:{}"),
        ("DBClusterSnapshotIdentifier", "arn:aws:rds:{region}:{account}:cluster-snapshot:{}"),
        ("DBParameterGroupName", "arn:aws:rds:{region}:{account}:pg:{}"),
    ),
    "securityhub": (("", "arn:aws:securityhub:{region}:{account}:hub/default"),),
    "sns": (("TopicArn", "{}"),),
    "sqs": (("QueueUrl", "arn:aws:sqs:{region}:{account}:{}"),),
}


def parameters(protocol: str, uri: Mapping[str, str], form: Mapping[str, str], body: bytes) -> Any:
    """A call's parameters by name, as far as they can be read without its model."""
    found: dict[str, Any] = {name: unquote(value) for name, value in uri.items() if value}
    if protocol in ("query", "ec2"):
        return {**form, **found}
    if body[:1] == b"{":
        try:
            found = {**json.loads(body), **found}
        except ValueError:
            return found
    return found


def resource_of(service: str, params: Mapping[str, Any], region: str, account: str) -> str:
    """The ARN that a call is about; "*" where it names nothing."""
    for parameter, arn in NAMED.get(service, ()):
        name = params.get(parameter) if parameter else "default"
        if isinstance(name, str) and name:
            if name.startswith("arn:"):
                return name
            if name.startswith(("http://", "https://")):  # a queue's, which says whose it is
                rest, _, name = name.rpartition("/")
                account = rest.rpartition("/")[2]
            return arn.replace("{}", name).format(region=region, account=account)
    return "*"
