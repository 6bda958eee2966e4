"""What Suture reads of load balancers: whether anything is behind them, and their HTTP listeners.

A listener's fix needs to know its siblings: where else the same load balancer answers over TLS.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.clouds.aws_view import AwsView, Collector, Found, part_of
from tasks.errors import ResourceGone
from tasks.model import Config, Resource, in_order

LOAD_BALANCER = "aws.elbv2.load_balancer"
LISTENER = "aws.elbv2.listener"

Item = Mapping[str, Any]


def _of(item: Item, name: str) -> Any:
    """A field that the answer must have. Raises CloudError."""
    return part_of(item, name, "list")


async def _every(view: AwsView, region: str, **params: Any) -> list[Any]:
    return await view.list("elbv2", "DescribeLoadBalancers", region, "LoadBalancers", **params)


async def _listeners_of(view: AwsView, region: str, arn: str) -> list[Any]:
    return await view.list("elbv2", "DescribeListeners", region, "Listeners", LoadBalancerArn=arn)


# --- load balancers -----------------------------------------------------------------------------


async def _load_balancers(view: AwsView, region: str) -> Found:
    found = await _every(view, region)
    whole = await asyncio.gather(*(_load_balancer(view, region, one) for one in found))
    return Found(list(whole))


async def _read_load_balancer(view: AwsView, resource_id: str, region: str) -> Resource:
    for one in await _every(view, region, LoadBalancerArns=[resource_id]):
        return await _load_balancer(view, region, one)
    raise ResourceGone(f"there is no {resource_id}", operation="DescribeLoadBalancers")


async def _load_balancer(view: AwsView, region: str, item: Item) -> Resource:
    """Targets come and go: only whether there are any is configuration."""
    arn = _of(item, "LoadBalancerArn")
    listeners = await _listeners_of(view, region, arn)
    groups = await view.list(
        "elbv2", "DescribeTargetGroups", region, "TargetGroups", LoadBalancerArn=arn
    )
    answers = await asyncio.gather(
        *(
            view.get(
                "elbv2", "DescribeTargetHealth", region, TargetGroupArn=_of(one, "TargetGroupArn")
            )
            for one in groups
        )
    )
    does = {_of(action, "Type") for one in listeners for action in one.get("DefaultActions", ())}
    parts = {
        "LoadBalancerName": _of(item, "LoadBalancerName"),
        "Type": _of(item, "Type"),
        "Scheme": item.get("Scheme"),
        "HasTargets": any(one.get("TargetHealthDescriptions") for one in answers),
        "Actions": sorted(does),
    }
    return view.resource(LOAD_BALANCER, region, arn, _of(item, "LoadBalancerName"), Config(parts))


# --- listeners ----------------------------------------------------------------------------------


async def _listeners(view: AwsView, region: str) -> Found:
    found = await _every(view, region)
    applications = [one for one in found if _of(one, "Type") == "application"]
    whole = await asyncio.gather(*(_of_one(view, region, one) for one in applications))
    return Found([listener for some in whole for listener in some])


async def _of_one(view: AwsView, region: str, item: Item) -> list[Resource]:
    listeners = await _listeners_of(view, region, _of(item, "LoadBalancerArn"))
    made = [_listener(view, region, one, listeners) for one in listeners]
    return list(await asyncio.gather(*made))


async def _read_listener(view: AwsView, resource_id: str, region: str) -> Resource:
    """A listener's ARN is its load balancer's, with one part more."""
    own = resource_id.replace(":listener/", ":loadbalancer/").rpartition("/")[0]
    listeners = await _listeners_of(view, region, own)
    for one in listeners:
        if _of(one, "ListenerArn") == resource_id:
            return await _listener(view, region, one, listeners)
    raise ResourceGone(f"there is no {resource_id}", operation="DescribeListeners")


async def _listener(view: AwsView, region: str, item: Item, siblings: Sequence[Item]) -> Resource:
    arn, rules = _of(item, "ListenerArn"), []
    if _of(item, "Protocol") == "HTTP":
        found = await view.list("elbv2", "DescribeRules", region, "Rules", ListenerArn=arn)
        rules = [_of(one, "Actions") for one in found if not one.get("IsDefault")]
    parts = {
        "ListenerArn": arn,
        "Protocol": _of(item, "Protocol"),
        "Port": _of(item, "Port"),
        "DefaultActions": _of(item, "DefaultActions"),
        "RuleActions": rules,
        "HttpsPorts": sorted(
            _of(one, "Port") for one in siblings if _of(one, "Protocol") == "HTTPS"
        ),
    }
    name = f"{arn.split('/')[2]}:{item['Port']}"
    return view.resource(LISTENER, region, arn, name, Config(in_order(parts)))


_READS = (
    "elasticloadbalancing:DescribeLoadBalancers",
    "elasticloadbalancing:DescribeListeners",
)
COLLECTORS = (
    Collector(
        kind=LOAD_BALANCER,
        reads=(
            *_READS,
            "elasticloadbalancing:DescribeTargetGroups",
            "elasticloadbalancing:DescribeTargetHealth",
        ),
        collect=_load_balancers,
        read=_read_load_balancer,
        once=("elbv2:DescribeLoadBalancers",),
        each=("elbv2:DescribeListeners", "elbv2:DescribeTargetGroups"),
        deeper=("elbv2:DescribeTargetHealth",),
    ),
    Collector(
        kind=LISTENER,
        reads=(*_READS, "elasticloadbalancing:DescribeRules"),
        collect=_listeners,
        read=_read_listener,
        once=("elbv2:DescribeLoadBalancers",),
        # A balancer's listeners are asked for once: counted for each listener, never too few.
        each=("elbv2:DescribeListeners", "elbv2:DescribeRules"),
    ),
)
