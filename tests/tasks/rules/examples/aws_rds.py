"""RDS's rules: examples, what RDS makes of their calls, and how to plant them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import strategies as st

from tasks.model import Call

HERE = "arn:aws:rds:eu-central-1:111122223333"
_numbers = itertools.count(1)


def drawn(kind: str) -> str:
    return f"{kind}-{next(_numbers)}"


# --- instances ----------------------------------------------------------------------------------


def apply_to_instance(config: dict[str, Any], call: Call) -> None:
    params = dict(call.params)
    assert call.operation == "ModifyDBInstance"
    assert params.pop("DBInstanceIdentifier") == config["DBInstanceIdentifier"]
    assert params.keys() <= {"PubliclyAccessible", "AutoMinorVersionUpgrade"}
    config |= params


def plant_instance(cloud: Any, config: Mapping[str, Any]) -> str:
    made = cloud.client("rds").create_db_instance(
        DBInstanceIdentifier=drawn("database"),
        DBInstanceClass="db.t3.medium",
        Engine=config["Engine"],
        AllocatedStorage=20,
        MasterUsername="owner",
        MasterUserPassword="not-a-secret-1",
        PubliclyAccessible=config["PubliclyAccessible"],
        AutoMinorVersionUpgrade=config["AutoMinorVersionUpgrade"],
        StorageEncrypted=config["StorageEncrypted"],
    )
    return str(made["DBInstance"]["DBInstanceArn"])


def instance(**parts: Any) -> dict[str, Any]:
    return {
        "DBInstanceIdentifier": "orders",
        "Engine": "postgres",
        "PubliclyAccessible": False,
        "AutoMinorVersionUpgrade": True,
        "StorageEncrypted": True,
        **parts,
    }


# --- parameter groups ---------------------------------------------------------------------------


def apply_to_group(config: dict[str, Any], call: Call) -> None:
    assert call.params["DBParameterGroupName"] == config["DBParameterGroupName"]
    (parameter,) = call.params["Parameters"]
    tls = config["Tls"]
    assert parameter["ParameterName"] == tls["ParameterName"]
    assert (parameter["ApplyMethod"] == "immediate") == (tls["ApplyType"] == "dynamic")
    if call.operation == "ResetDBParameterGroup":
        config["Tls"] = {**tls, "ParameterValue": DEFAULTS[tls["ParameterName"]], "Own": False}
    else:
        assert parameter["ParameterValue"] in tls["AllowedValues"].split(",")
        config["Tls"] = {**tls, "ParameterValue": parameter["ParameterValue"], "Own": True}


def plant_group(cloud: Any, config: Mapping[str, Any]) -> str:
    rds, tls = cloud.client("rds"), config["Tls"]
    made = rds.create_db_parameter_group(
        DBParameterGroupName=drawn("parameters"),
        DBParameterGroupFamily=config["DBParameterGroupFamily"],
        Description="examples",
    )["DBParameterGroup"]
    if tls["Own"]:
        rds.modify_db_parameter_group(
            DBParameterGroupName=made["DBParameterGroupName"],
            Parameters=[
                {
                    "ParameterName": tls["ParameterName"],
                    "ParameterValue": tls["ParameterValue"],
                    "ApplyMethod": "immediate",
                }
            ],
        )
    return str(made["DBParameterGroupArn"])


DEFAULTS = {"rds.force_ssl": "0", "require_secure_transport": None}


def group(family: str, value: str | None, *, own: bool = True, static: bool = False) -> Any:
    mysql = family.startswith(("mysql", "mariadb"))
    return {
        "DBParameterGroupName": "own-parameters",
        "DBParameterGroupFamily": family,
        "Tls": {
            "ParameterName": "require_secure_transport" if mysql else "rds.force_ssl",
            "ParameterValue": value,
            "AllowedValues": "ON,OFF" if family.startswith("mariadb") else "0,1",
            "ApplyType": "static" if static else "dynamic",
            "Modifiable": True,
            "Own": own,
        },
    }


# --- snapshots ----------------------------------------------------------------------------------


def snapshot_kind(word: str, kind: str, plant: Callable[[Any, str], str]) -> dict[str, Any]:
    named = f"{word}SnapshotIdentifier"

    def apply(config: dict[str, Any], call: Call) -> None:
        params = dict(call.params)
        assert call.operation == f"Modify{word}SnapshotAttribute"
        assert params.pop(named) == config[named]
        assert params.pop("AttributeName") == "restore"
        shared = set(config["SharedWith"]) | set(params.pop("ValuesToAdd", ()))
        config["SharedWith"] = sorted(shared - set(params.pop("ValuesToRemove", ())))
        assert not params

    def plant_shared(cloud: Any, config: Mapping[str, Any]) -> str:
        name = drawn("snapshot")
        arn = plant(cloud, name)
        change = getattr(
            cloud.client("rds"),
            "modify_db_snapshot_attribute"
            if word == "DB"
            else "modify_db_cluster_snapshot_attribute",
        )
        change(**{named: name}, AttributeName="restore", ValuesToAdd=config["SharedWith"])
        return arn

    return {"id": f"{HERE}:{kind}:before", "apply": apply, "plant": plant_shared}


def plant_snapshot(cloud: Any, name: str) -> str:
    arn = plant_instance(cloud, instance(StorageEncrypted=False))
    made = cloud.client("rds").create_db_snapshot(
        DBSnapshotIdentifier=name, DBInstanceIdentifier=arn.rpartition(":")[2]
    )
    return str(made["DBSnapshot"]["DBSnapshotArn"])


def plant_cluster_snapshot(cloud: Any, name: str) -> str:
    cluster = drawn("cluster")
    cloud.client("rds").create_db_cluster(
        DBClusterIdentifier=cluster,
        Engine="aurora-postgresql",
        MasterUsername="owner",
        MasterUserPassword="not-a-secret-1",
    )
    made = cloud.client("rds").create_db_cluster_snapshot(
        DBClusterSnapshotIdentifier=name, DBClusterIdentifier=cluster
    )
    return str(made["DBClusterSnapshot"]["DBClusterSnapshotArn"])


def shared(word: str) -> tuple[list[Any], list[Any], str]:
    def one(*accounts: str) -> dict[str, Any]:
        return {
            f"{word}SnapshotIdentifier": "before",
            "Engine": "postgres",
            "SharedWith": list(accounts),
        }

    return (
        [one(), one("444455556666")],
        [one("444455556666", "all"), one("all")],
        "SharedWith",
    )


EXAMPLES: dict[str, Any] = {
    "aws_rds_instance_not_public": (
        [instance()],
        [
            instance(PubliclyAccessible=True),
            instance(PubliclyAccessible=True, DBClusterIdentifier="c", Engine="aurora-mysql"),
        ],
        "PubliclyAccessible",
    ),
    "aws_rds_instance_minor_upgrades_taken": (
        [instance(), instance(Engine="oracle-ee")],
        [instance(AutoMinorVersionUpgrade=False)],
        "AutoMinorVersionUpgrade",
    ),
    "aws_rds_instance_storage_encrypted": (
        [instance()],
        [instance(StorageEncrypted=False)],
        "StorageEncrypted",
    ),
    "aws_rds_parameter_group_tls_required": (
        [
            group("postgres16", "1", own=False),
            group("mysql8.0", "ON"),
            group("mariadb10.11", "1"),
        ],
        [
            group("postgres14", "0", own=False),
            group("postgres14", "0"),
            group("mysql8.0", None, own=False),
            group("mariadb10.11", "OFF"),
            group("sqlserver-se-16.0", "0", own=False, static=True),
        ],
        "Tls",
    ),
    "aws_rds_snapshot_not_public": shared("DB"),
    "aws_rds_cluster_snapshot_not_public": shared("DBCluster"),
}
KINDS: dict[str, Any] = {
    "aws.rds.instance": {
        "id": f"{HERE}:db:orders",
        "apply": apply_to_instance,
        "plant": plant_instance,
    },
    "aws.rds.parameter_group": {
        "id": f"{HERE}:pg:own-parameters",
        "apply": apply_to_group,
        "plant": plant_group,
        "failing": lambda row: st.sampled_from(EXAMPLES[row.id][1]),
    },
    "aws.rds.snapshot": snapshot_kind("DB", "snapshot", plant_snapshot),
    "aws.rds.cluster_snapshot": snapshot_kind(
        "DBCluster", "cluster-snapshot", plant_cluster_snapshot
    ),
}
