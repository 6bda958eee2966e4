"""Rules of classic load balancers. All guided: what stands behind them is their owner's to move."""

from __future__ import annotations

from tasks.model import Resource, Rule, Severity
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, odd, sequence, text

_KIND = "aws.elb.load_balancer"
_READS = ("elasticloadbalancing:DescribeLoadBalancers",)
_PROTOCOLS = ("HTTP", "HTTPS", "SSL", "TCP")


def speaks_https(resource: Resource) -> bool:
    """No listener speaks HTTP in the clear. TCP is passed through: what it carries, nobody sees."""
    found = sequence(resource.config["Listeners"], "Listeners")
    spoken = [text(mapping(one, "Listeners").get("Protocol"), "Listeners") for one in found]
    if any(one.upper() not in _PROTOCOLS for one in spoken):
        raise odd("Listeners.Protocol")
    return "HTTP" not in [one.upper() for one in spoken]


def has_instances(resource: Resource) -> bool:
    return flag(resource.config["HasInstances"], "HasInstances")


RULES = (
    Rule(
        id="aws_elb_load_balancer_https_only",
        kind=_KIND,
        severity=Severity.MEDIUM,
        title="Classic load balancer does not speak plain HTTP",
        passes=speaks_https,
        fix=None,
        reads=_READS,
        writes=(),
        events=(
            "elasticloadbalancing:CreateLoadBalancer",
            "elasticloadbalancing:CreateLoadBalancerListeners",
            "elasticloadbalancing:DeleteLoadBalancerListeners",
        ),
        aka=("cloudsploit:elbHttpsOnly",),
        guide=written(
            means="A listener of this classic load balancer takes requests over plain HTTP.",
            matters="""Pages, cookies and passwords of those requests cross the network in the
                clear.""",
            console="""EC2 > Load balancers > the load balancer > Migrate launch wizard, which makes
                an application load balancer of it. There, a redirect replaces the HTTP
                listener.""",
            cli="""
                aws elb describe-load-balancers --load-balancer-name NAME
                aws elb create-load-balancer-listeners --load-balancer-name NAME --listeners \\
                    Protocol=HTTPS,LoadBalancerPort=443,InstancePort=80,SSLCertificateId=ARN
                # Once every client uses HTTPS:
                aws elb delete-load-balancer-listeners --load-balancer-name NAME \\
                    --load-balancer-ports 80""",
            terraform="""
                resource "aws_elb" "this" {
                  listener {
                    lb_port            = 443
                    lb_protocol        = "https"
                    instance_port      = 80
                    instance_protocol  = "http"
                    ssl_certificate_id = aws_acm_certificate.this.arn
                  }
                }""",
            by_hand="""A classic load balancer cannot redirect. Other tools delete the listener,
                which turns every visitor who comes over HTTP away, and puts nothing in its place.
                A redirect takes another kind of load balancer, which its owner has to move to.""",
            breaks="""Visitors and bookmarks with http:// fail once the listener is gone: redirect
                them, here or in the application, before.""",
            back="Create the listener again, with the instance port it had.",
        ),
    ),
    Rule(
        id="aws_elb_load_balancer_has_instances",
        kind=_KIND,
        severity=Severity.LOW,
        title="Classic load balancer has instances behind it",
        passes=has_instances,
        fix=None,
        reads=_READS,
        writes=(),
        events=(
            "elasticloadbalancing:CreateLoadBalancer",
            "elasticloadbalancing:RegisterInstancesWithLoadBalancer",
            "elasticloadbalancing:DeregisterInstancesFromLoadBalancer",
        ),
        aka=("cloudsploit:elbNoInstances",),
        guide=written(
            means="No instance is registered with this classic load balancer: it can only fail.",
            matters="""It costs money for nothing, and a name that still points at it is an address
                that nobody looks after.""",
            console="""EC2 > Load balancers > the load balancer > Target instances > Manage
                instances; or, when nobody needs it, Actions > Delete load balancer.""",
            cli="""
                aws elb register-instances-with-load-balancer --load-balancer-name NAME \\
                    --instances INSTANCE
                # or, when nobody needs it:
                aws elb delete-load-balancer --load-balancer-name NAME""",
            terraform="""
                resource "aws_elb_attachment" "this" {
                  elb      = aws_elb.this.id
                  instance = aws_instance.this.id
                }""",
            by_hand="""Other tools delete it. It may be waiting for instances: a group that is
                scaled to nothing for the night, a standby. Whether anybody needs it, its owner
                knows.""",
            breaks="""Deleting it gives its DNS name up for good: whatever points at that name stops
                working, and may be taken by somebody else.""",
            back="A deleted load balancer does not come back: a new one has another name.",
        ),
    ),
)
