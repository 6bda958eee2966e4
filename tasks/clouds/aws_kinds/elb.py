"""What Suture reads of classic load balancers."""

from __future__ import annotations

from tasks.clouds.aws_reading import Call, Item, listed


def _load_balancer(item: Item) -> Item:
    """Instances come and go: only whether there are any is configuration."""
    listeners = [one["Listener"] for one in item["ListenerDescriptions"]]
    return {
        "LoadBalancerName": item["LoadBalancerName"],
        "Listeners": [
            {"Protocol": one["Protocol"], "LoadBalancerPort": one["LoadBalancerPort"]}
            for one in listeners
        ],
        "HasInstances": bool(item["Instances"]),
    }


COLLECTORS = (
    listed(
        "aws.elb.load_balancer",
        Call(call="elb:DescribeLoadBalancers", take="LoadBalancerDescriptions"),
        id="arn:{partition}:elasticloadbalancing:{region}:{account}:loadbalancer/{name}",
        name="{LoadBalancerName}",
        again=Call(
            call="elb:DescribeLoadBalancers",
            params={"LoadBalancerNames": ["{last}"]},
            take="LoadBalancerDescriptions",
        ),
        shape=_load_balancer,
    ),
)
