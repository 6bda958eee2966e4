"""Rules of load balancers: visitors who come over HTTP are sent to HTTPS, and something answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Resource, Rule, Severity, Step
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, number, odd, sequence, text

_ANSWERS = {"fixed-response", "redirect"}  # without any target


def _actions(value: Any, part: str) -> Sequence[Mapping[str, Any]]:
    return [mapping(one, part) for one in sequence(value, part)]


def _sends_to_https(actions: Sequence[Mapping[str, Any]]) -> bool:
    if len(actions) != 1 or actions[0].get("Type") != "redirect":
        return False
    target = mapping(actions[0].get("RedirectConfig"), "RedirectConfig")
    return target.get("Protocol") == "HTTPS"


def _other_rules(resource: Resource) -> list[Sequence[Mapping[str, Any]]]:
    found = sequence(resource.config["RuleActions"], "RuleActions")
    return [_actions(one, "RuleActions") for one in found]


def speaks_https(resource: Resource) -> bool:
    """A listener of HTTPS; or one of HTTP that does nothing but send visitors there."""
    protocol = text(resource.config["Protocol"], "Protocol")
    if protocol not in ("HTTP", "HTTPS"):
        raise odd("Protocol")
    default = _actions(resource.config["DefaultActions"], "DefaultActions")
    return protocol == "HTTPS" or all(
        _sends_to_https(one) for one in (default, *_other_rules(resource))
    )


def send_to_https(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Makes the default action a redirect to the HTTPS listener beside it.

    Raises BadInput where there is none, because then nobody would answer; and where other rules of
    the listener do something else, which nobody but its owner should change.
    """
    if speaks_https(resource):
        return ()
    ports = [number(one, "HttpsPorts") for one in sequence(resource.config["HttpsPorts"], "Ports")]
    if not ports:
        raise BadInput(
            "HttpsPorts",
            "the load balancer has no HTTPS listener that visitors could be sent to.",
            "Make one first, with a certificate for its names.",
        )
    if not all(_sends_to_https(one) for one in _other_rules(resource)):
        raise BadInput(
            "RuleActions",
            "rules of this listener do other things than to redirect to HTTPS.",
            "Move them to the HTTPS listener by hand first, as the guide says.",
        )
    port = str(443 if 443 in ports else min(ports))
    redirect = {
        "Type": "redirect",
        "RedirectConfig": {"Protocol": "HTTPS", "Port": port, "StatusCode": "HTTP_301"},
    }
    old = _actions(resource.config["DefaultActions"], "DefaultActions")
    does = ", ".join(text(one.get("Type"), "DefaultActions.Type") for one in old)
    return (
        Step(
            "elasticloadbalancing:ModifyListener",
            _modify(resource, [redirect]),
            (_modify(resource, [dict(one) for one in old]),),
            (Change("DefaultActions", does or "nothing", f"redirect to HTTPS, port {port}"),),
        ),
    )


def _modify(resource: Resource, actions: Sequence[Mapping[str, Any]]) -> Call:
    named = {"ListenerArn": text(resource.config["ListenerArn"], "ListenerArn")}
    return Call(Cloud.AWS, "elbv2", "ModifyListener", {**named, "DefaultActions": actions})


def has_targets(resource: Resource) -> bool:
    """Something is registered behind it, or it answers by itself."""
    found = sequence(resource.config["Actions"], "Actions")
    actions = {text(one, "Actions") for one in found}
    registered = flag(resource.config["HasTargets"], "HasTargets")
    return registered or (bool(actions) and actions <= _ANSWERS)


RULES = (
    Rule(
        id="aws_elbv2_listener_https_only",
        kind="aws.elbv2.listener",
        severity=Severity.MEDIUM,
        title="Load balancer's listener speaks HTTPS, or sends visitors there",
        passes=speaks_https,
        fix=send_to_https,
        reads=(
            "elasticloadbalancing:DescribeLoadBalancers",
            "elasticloadbalancing:DescribeListeners",
            "elasticloadbalancing:DescribeRules",
        ),
        writes=("elasticloadbalancing:ModifyListener",),
        events=(
            "elasticloadbalancing:CreateListener",
            "elasticloadbalancing:ModifyListener",
            "elasticloadbalancing:CreateRule",
            "elasticloadbalancing:ModifyRule",
        ),
        aka=("cloudsploit:elbv2HttpsOnly", "prowler:elbv2_ssl_listeners"),
        guide=written(
            means="""A listener of an application load balancer answers over plain HTTP with
                something else than a redirect to HTTPS.""",
            matters="""Pages, cookies and passwords of those requests cross the network in the
                clear, and can be changed on the way.""",
            console="""EC2 > Load balancers > the load balancer > Listeners and rules > the HTTP
                listener > Edit > Redirect to URL > HTTPS, 443, 301.""",
            cli="""
                aws elbv2 modify-listener --listener-arn ARN --default-actions '[{
                  "Type": "redirect", "RedirectConfig":
                  {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"}}]'""",
            terraform="""
                resource "aws_lb_listener" "http" {
                  port     = 80
                  protocol = "HTTP"
                  default_action {
                    type = "redirect"
                    redirect {
                      protocol    = "HTTPS"
                      port        = "443"
                      status_code = "HTTP_301"
                    }
                  }
                }""",
            fix="""It makes the listener's default action a redirect to the HTTPS listener of the
                same load balancer. Other tools delete the listener, which turns visitors away. It
                refuses where there is no HTTPS listener, and where the listener has other rules
                that do not redirect.""",
            breaks="""Clients that do not follow redirects, or send a body with a POST, fail until
                they use HTTPS. The certificate must have every name that visitors use. Browsers
                remember a 301.""",
            back="Suture's undo puts the old default actions back.",
        ),
    ),
    Rule(
        id="aws_elbv2_load_balancer_has_targets",
        kind="aws.elbv2.load_balancer",
        severity=Severity.LOW,
        title="Load balancer has targets behind it",
        passes=has_targets,
        fix=None,
        reads=(
            "elasticloadbalancing:DescribeLoadBalancers",
            "elasticloadbalancing:DescribeListeners",
            "elasticloadbalancing:DescribeTargetGroups",
            "elasticloadbalancing:DescribeTargetHealth",
        ),
        writes=(),
        events=(
            "elasticloadbalancing:CreateLoadBalancer",
            "elasticloadbalancing:RegisterTargets",
            "elasticloadbalancing:DeregisterTargets",
            "elasticloadbalancing:ModifyListener",
        ),
        aka=("cloudsploit:elbv2NoInstances",),
        guide=written(
            means="""No target is registered in any target group of this load balancer, and its
                listeners do more than to redirect or to give a fixed answer.""",
            matters="""It costs money for nothing, and a name that still points at it is an address
                that nobody looks after.""",
            console="""EC2 > Target groups > the group > Register targets; or, when nobody needs it,
                Load balancers > the load balancer > Actions > Delete.""",
            cli="""
                aws elbv2 describe-target-groups --load-balancer-arn ARN
                aws elbv2 register-targets --target-group-arn GROUP --targets Id=INSTANCE
                # or, when nobody needs it:
                aws elbv2 delete-load-balancer --load-balancer-arn ARN""",
            terraform="""
                resource "aws_lb_target_group_attachment" "this" {
                  target_group_arn = aws_lb_target_group.this.arn
                  target_id        = aws_instance.this.id
                }""",
            by_hand="""Other tools delete it. It may be waiting for targets: a service that is
                scaled to nothing for the night, a standby, one side of a blue/green deployment.
                Whether anybody needs it, its owner knows.""",
            breaks="""Deleting it gives its DNS name up for good: whatever points at that name stops
                working, and may be taken by somebody else.""",
            back="A deleted load balancer does not come back: a new one has another name.",
        ),
    ),
)
