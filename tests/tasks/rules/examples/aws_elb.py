"""Classic load balancers: examples, and how to plant them. Their rules are guided."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

_numbers = itertools.count(1)
ARN = "arn:aws:elasticloadbalancing:{}:{}:loadbalancer/{}"


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    name = f"classic-{next(_numbers)}"
    cloud.client("elb").create_load_balancer(
        LoadBalancerName=name,
        Listeners=[{**one, "InstancePort": 80} for one in config["Listeners"]],
        AvailabilityZones=[f"{cloud.region}a"],
    )
    return ARN.format(cloud.region, cloud.account, name)


def balancer(*protocols: str, instances: bool = True) -> dict[str, Any]:
    return {
        "LoadBalancerName": "classic",
        "Listeners": [
            {"Protocol": one, "LoadBalancerPort": 8000 + at} for at, one in enumerate(protocols)
        ],
        "HasInstances": instances,
    }


EXAMPLES: dict[str, Any] = {
    "aws_elb_load_balancer_https_only": (
        [balancer("HTTPS", "SSL"), balancer("TCP")],
        [balancer("HTTP"), balancer("HTTPS", "HTTP")],
        "Listeners",
    ),
    "aws_elb_load_balancer_has_instances": (
        [balancer("HTTPS")],
        [balancer("HTTP", instances=False)],
        "HasInstances",
    ),
}
KINDS: dict[str, Any] = {
    "aws.elb.load_balancer": {
        "id": ARN.format("eu-central-1", "111122223333", "classic"),
        "plant": plant,
    },
}
