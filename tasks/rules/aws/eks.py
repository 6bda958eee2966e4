"""EKS's rules: the control plane's logs are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.model import Call, Change, Cloud, Resource, Rule, Severity, Step
from tasks.rules.guide import written
from tasks.rules.shape import sequence, text

_TYPES = ("api", "audit", "authenticator", "controllerManager", "scheduler")


def _off(resource: Resource) -> Sequence[str]:
    on = [text(one, "Logs") for one in sequence(resource.config["Logs"], "Logs")]
    return [one for one in _TYPES if one not in on]


def logs_everything(resource: Resource) -> bool:
    """All five types of the control plane's log go to CloudWatch."""
    return not _off(resource)


def log_everything(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Turns on the types that are off; the undo turns off the same."""
    off = _off(resource)
    if not off:
        return ()

    def update(enabled: bool) -> Call:
        logging = {"clusterLogging": [{"types": list(off), "enabled": enabled}]}
        named = {"name": text(resource.config["name"], "name")}
        return Call(Cloud.AWS, "eks", "UpdateClusterConfig", {**named, "logging": logging})

    change = Change(f"logs of {', '.join(off)}", "off", "on: to CloudWatch Logs")
    return (Step("eks:UpdateClusterConfig", update(True), (update(False),), (change,)),)


RULES = (
    Rule(
        id="aws_eks_cluster_control_plane_logged",
        kind="aws.eks.cluster",
        severity=Severity.MEDIUM,
        title="EKS cluster keeps its control plane's logs",
        passes=logs_everything,
        fix=log_everything,
        reads=("eks:ListClusters", "eks:DescribeCluster"),
        writes=("eks:UpdateClusterConfig",),
        events=("eks:CreateCluster", "eks:UpdateClusterConfig"),
        aka=(
            "cloudsploit:eksLoggingEnabled",
            "prowler:eks_control_plane_logging_all_types_enabled",
        ),
        settles=600,
        guide=written(
            means="""At least one of the five types of the control plane's log (api, audit,
                authenticator, controllerManager, scheduler) does not go to CloudWatch.""",
            matters="""The control plane belongs to AWS: what is not sent to CloudWatch, nobody can
                look up afterwards. The audit log says who did what in the cluster.""",
            console="""EKS > Clusters > the cluster > Observability > Manage logging > all five
                on.""",
            cli="""
                aws eks update-cluster-config --name CLUSTER --logging '{"clusterLogging":[
                  {"types":["api","audit","authenticator","controllerManager","scheduler"],
                   "enabled":true}]}'""",
            terraform="""
                resource "aws_eks_cluster" "this" {
                  enabled_cluster_log_types = [
                    "api", "audit", "authenticator", "controllerManager", "scheduler"
                  ]
                }""",
            fix="""It turns on the types that are off. EKS takes a few minutes, and no other change
                of the cluster's configuration meanwhile.""",
            breaks="""Nothing stops working. CloudWatch charges for what comes in and what is kept:
                the audit log of a busy cluster is large. Give its log group a retention.""",
            back="""Suture's undo turns off the types that its fix turned on. What was logged
                stays.""",
        ),
    ),
)
