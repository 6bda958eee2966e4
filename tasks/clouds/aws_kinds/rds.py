"""What Suture reads of RDS: instances, parameter groups, and what snapshots are shared with."""

from __future__ import annotations

from typing import Any

from tasks.clouds.aws_reading import Call, Item, Part, listed
from tasks.clouds.aws_view import Collector

_TLS = ("rds.force_ssl", "require_secure_transport")
_ENGINES = ("mariadb", "mysql", "postgres", "sqlserver")


def _tls(found: list[Any]) -> dict[str, Any] | None:
    """The parameter that asks for TLS; None where the engine's version has none."""
    known = {one.get("ParameterName"): one for one in found}
    for name in _TLS:
        if name in known:
            fields = ("ParameterName", "ParameterValue", "AllowedValues", "ApplyType")
            wanted = {field: known[name].get(field) for field in fields}
            own = known[name].get("Source") == "user"
            return {**wanted, "Modifiable": known[name].get("IsModifiable"), "Own": own}
    return None


def _shared_with(found: list[Any]) -> list[str]:
    return sorted(
        value
        for one in found
        if one["AttributeName"] == "restore"
        for value in one["AttributeValues"]
    )


def _manual(item: Item) -> bool:
    """Only what a person made can be shared."""
    return bool(item["SnapshotType"] == "manual")


def _snapshots(kind: str, word: str) -> Collector:
    """Snapshots of instances ("DB") or of clusters ("DBCluster")."""
    named = f"{word}SnapshotIdentifier"
    listing = f"rds:Describe{word}Snapshots"
    return listed(
        kind,
        Call(call=listing, params={"SnapshotType": "manual"}, take=f"{word}Snapshots"),
        id=f"{{{word}SnapshotArn}}",
        name=f"{{{named}}}",
        again=Call(call=listing, params={named: "{last}"}, take=f"{word}Snapshots"),
        keep=(named, "Engine"),
        only=_manual,
        parts=(
            Part(
                name="SharedWith",
                call=Call(
                    call=f"rds:Describe{word}SnapshotAttributes",
                    params={named: f"{{{named}}}"},
                    take=f"{word}SnapshotAttributesResult.{word}SnapshotAttributes",
                ),
                shape=_shared_with,
            ),
        ),
    )


COLLECTORS = (
    listed(
        "aws.rds.instance",
        Call(call="rds:DescribeDBInstances", take="DBInstances"),
        id="{DBInstanceArn}",
        name="{DBInstanceIdentifier}",
        again=Call(
            call="rds:DescribeDBInstances",
            params={"DBInstanceIdentifier": "{last}"},
            take="DBInstances",
        ),
        keep=(
            "DBInstanceIdentifier",
            "DBClusterIdentifier",
            "Engine",
            "PubliclyAccessible",
            "AutoMinorVersionUpgrade",
            "StorageEncrypted",
        ),
        tags="TagList",
    ),
    listed(
        "aws.rds.parameter_group",
        Call(call="rds:DescribeDBParameterGroups", take="DBParameterGroups"),
        id="{DBParameterGroupArn}",
        name="{DBParameterGroupName}",
        again=Call(
            call="rds:DescribeDBParameterGroups",
            params={"DBParameterGroupName": "{last}"},
            take="DBParameterGroups",
        ),
        keep=("DBParameterGroupName", "DBParameterGroupFamily"),
        only=lambda group: str(group["DBParameterGroupFamily"]).startswith(_ENGINES),
        parts=(
            Part(
                name="Tls",
                call=Call(
                    call="rds:DescribeDBParameters",
                    params={
                        "DBParameterGroupName": "{DBParameterGroupName}",
                        "Filters": [{"Name": "parameter-name", "Values": list(_TLS)}],
                    },
                    take="Parameters",
                ),
                shape=_tls,
            ),
        ),
    ),
    _snapshots("aws.rds.snapshot", "DB"),
    _snapshots("aws.rds.cluster_snapshot", "DBCluster"),
)
