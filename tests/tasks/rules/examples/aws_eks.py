"""EKS's rules: examples, what EKS makes of their calls, and how to plant them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

_numbers = itertools.count(1)
TYPES = ["api", "audit", "authenticator", "controllerManager", "scheduler"]


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.operation == "UpdateClusterConfig"
    assert call.params["name"] == config["name"]
    on = set(config["Logs"])
    for group in call.params["logging"]["clusterLogging"]:
        assert set(group["types"]) <= set(TYPES)
        on = on | set(group["types"]) if group["enabled"] else on - set(group["types"])
    config["Logs"] = sorted(on)


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    off = [one for one in TYPES if one not in config["Logs"]]
    groups = [
        {"types": kinds, "enabled": on} for kinds, on in ((config["Logs"], True), (off, False))
    ]
    made = cloud.client("eks").create_cluster(
        name=f"cluster-{next(_numbers)}",
        roleArn=f"arn:aws:iam::{cloud.account}:role/eks",
        resourcesVpcConfig={},
        logging={"clusterLogging": [one for one in groups if one["types"]]},
    )
    return str(made["cluster"]["arn"])


def cluster(*logs: str) -> dict[str, Any]:
    return {"name": "orders", "Logs": list(logs)}


EXAMPLES: dict[str, Any] = {
    "aws_eks_cluster_control_plane_logged": (
        [cluster(*TYPES)],
        [cluster("api", "audit"), cluster(), cluster(*TYPES[:4])],
        "Logs",
    ),
}
KINDS: dict[str, Any] = {
    "aws.eks.cluster": {
        "id": "arn:aws:eks:eu-central-1:111122223333:cluster/orders",
        "apply": apply,
        "plant": plant,
    },
}
