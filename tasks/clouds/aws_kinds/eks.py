"""What Suture reads of EKS: clusters, and which logs of their control planes are kept."""

from __future__ import annotations

from tasks.clouds.aws_reading import Call, Item, listed


def _cluster(item: Item) -> Item:
    """EKS groups the types of log by whether they are on, in no fixed way."""
    if "logging" not in item:
        return {"name": item["name"]}
    groups = item["logging"].get("clusterLogging") or []
    on = {kind for one in groups if one.get("enabled") for kind in one.get("types") or []}
    return {"name": item["name"], "Logs": sorted(on)}


COLLECTORS = (
    listed(
        "aws.eks.cluster",
        Call(call="eks:ListClusters", take="clusters", plain="name"),
        id="{arn}",
        name="{name}",
        detail=Call(call="eks:DescribeCluster", params={"name": "{name}"}, take="cluster"),
        again={"name": "{last}"},
        keep=("name", "logging"),
        shape=_cluster,
        tags="tags",
    ),
)
