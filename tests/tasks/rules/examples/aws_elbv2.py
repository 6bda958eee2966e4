"""Load balancers: examples, what the service makes of their calls, and how to plant them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

_numbers = itertools.count(1)
HERE = "arn:aws:elasticloadbalancing:eu-central-1:111122223333"
LISTENER = f"{HERE}:listener/app/shop/50dc6c495c0c9188/f2f7dc8efc522ab2"
GROUP = f"{HERE}:targetgroup/shop/73e2d6bc24d8a067"


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.operation == "ModifyListener"
    assert call.params.keys() == {"ListenerArn", "DefaultActions"}
    assert call.params["ListenerArn"] == config["ListenerArn"]
    config["DefaultActions"] = copy.deepcopy(list(call.params["DefaultActions"]))


class Planted:
    """A load balancer of its own, with a target group that nothing is registered in."""

    def __init__(self, cloud: Any) -> None:
        ec2, self.client = cloud.client("ec2"), cloud.client("elbv2")
        vpc = ec2.create_vpc(CidrBlock="10.7.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            ec2.create_subnet(
                VpcId=vpc, CidrBlock=f"10.7.{at}.0/24", AvailabilityZone=f"{cloud.region}{zone}"
            )["Subnet"]["SubnetId"]
            for at, zone in enumerate("ab")
        ]
        name = f"shop-{next(_numbers)}"
        made = self.client.create_load_balancer(Name=name, Subnets=subnets)
        self.arn = str(made["LoadBalancers"][0]["LoadBalancerArn"])
        group = self.client.create_target_group(Name=name, Protocol="HTTP", Port=80, VpcId=vpc)
        self.group = group["TargetGroups"][0]["TargetGroupArn"]

    def listener(self, protocol: str, port: int, actions: Any, **more: Any) -> str:
        own = [
            {**one, "TargetGroupArn": self.group} if "TargetGroupArn" in one else one
            for one in actions
        ]
        made = self.client.create_listener(
            LoadBalancerArn=self.arn, Protocol=protocol, Port=port, DefaultActions=own, **more
        )
        return str(made["Listeners"][0]["ListenerArn"])


def plant_listener(cloud: Any, config: Mapping[str, Any]) -> str:
    planted = Planted(cloud)
    certificate = cloud.client("acm").request_certificate(DomainName="shop.example.com")
    named = [{"CertificateArn": certificate["CertificateArn"]}]
    for port in config["HttpsPorts"]:
        planted.listener("HTTPS", port, [FORWARD], Certificates=named)
    return planted.listener(config["Protocol"], config["Port"], config["DefaultActions"])


def plant_load_balancer(cloud: Any, config: Mapping[str, Any]) -> str:
    planted = Planted(cloud)
    planted.listener("HTTP", 80, [FORWARD])
    return planted.arn


FORWARD = {"Type": "forward", "TargetGroupArn": GROUP}
GONE = {"Type": "fixed-response", "FixedResponseConfig": {"StatusCode": "410"}}


def redirect(protocol: str = "HTTPS") -> dict[str, Any]:
    to = {"Protocol": protocol, "Port": "443", "Host": "#{host}", "StatusCode": "HTTP_302"}
    return {"Type": "redirect", "RedirectConfig": to}


def listener(*actions: Any, protocol: str = "HTTP", rules: Any = (), https: Any = (443,)) -> Any:
    return {
        "ListenerArn": LISTENER,
        "Protocol": protocol,
        "Port": 80 if protocol == "HTTP" else 443,
        "DefaultActions": list(actions),
        "RuleActions": [list(one) for one in rules],
        "HttpsPorts": list(https),
    }


def balancer(targets: bool, *actions: str) -> dict[str, Any]:
    return {
        "LoadBalancerName": "shop",
        "Type": "application",
        "Scheme": "internet-facing",
        "HasTargets": targets,
        "Actions": list(actions),
    }


EXAMPLES: dict[str, Any] = {
    "aws_elbv2_listener_https_only": (
        [
            listener(redirect()),
            listener(redirect(), rules=[[redirect()]]),
            listener(FORWARD, protocol="HTTPS"),
        ],
        [
            listener(FORWARD),
            listener(redirect("HTTP"), https=(8443, 9443)),
            listener(GONE, rules=[[redirect()]]),
        ],
        "DefaultActions",
    ),
    "aws_elbv2_load_balancer_has_targets": (
        [balancer(True, "forward"), balancer(False, "fixed-response", "redirect")],
        [
            balancer(False, "forward", "redirect"),
            balancer(False),
        ],
        "Actions",
    ),
}
KINDS: dict[str, Any] = {
    "aws.elbv2.listener": {"id": LISTENER, "apply": apply, "plant": plant_listener},
    "aws.elbv2.load_balancer": {
        "id": f"{HERE}:loadbalancer/app/shop/50dc6c495c0c9188",
        "plant": plant_load_balancer,
    },
}
