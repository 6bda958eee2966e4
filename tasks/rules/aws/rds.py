"""RDS's rules: instances, the parameters that ask for TLS, and snapshots that anybody may take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.errors import BadInput, MissingData
from tasks.model import Call, Change, Cloud, Fix, Predicate, Resource, Rule, Severity, Step
from tasks.rules.aws.switch import Params, becomes, switch
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, odd, sequence, text

_INSTANCES = ("rds:DescribeDBInstances",)
_MODIFIED_WITHIN = 300  # seconds in which an instance is "modifying", and as it was before
_MADE = (
    "rds:CreateDBInstance",
    "rds:CreateDBInstanceReadReplica",
    "rds:RestoreDBInstanceFromDBSnapshot",
    "rds:RestoreDBInstanceToPointInTime",
)


def _named(parameter: str) -> Params:
    return lambda resource: {parameter: text(resource.config[parameter], parameter)}


# --- instances ----------------------------------------------------------------------------------


def is_private(resource: Resource) -> bool:
    """It has no public address."""
    return not flag(resource.config["PubliclyAccessible"], "PubliclyAccessible")


def takes_minor_upgrades(resource: Resource) -> bool:
    return flag(resource.config["AutoMinorVersionUpgrade"], "AutoMinorVersionUpgrade")


def is_encrypted(resource: Resource) -> bool:
    return flag(resource.config["StorageEncrypted"], "StorageEncrypted")


def _modify(setting: str, good: bool, passes: Predicate, change: Change) -> Fix:
    """A planner that sets one flag of an instance, and no other change that waits with it."""
    return switch(
        "rds:ModifyDBInstance",
        "rds",
        "ModifyDBInstance",
        passes=passes,
        names=_named("DBInstanceIdentifier"),
        good={setting: good},
        old=lambda _resource: {setting: not good},
        changes=becomes(change.field, change.before, change.after),
    )


_take_minor_upgrades = _modify(
    "AutoMinorVersionUpgrade",
    True,
    takes_minor_upgrades,
    Change("AutoMinorVersionUpgrade", "off", "on: in the maintenance window"),
)


def take_minor_upgrades(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Raises BadInput for RDS Custom, which does not take the setting."""
    engine = text(resource.config.get("Engine", "unknown"), "Engine")
    if not takes_minor_upgrades(resource) and engine.startswith("custom-"):
        raise BadInput(
            "Engine",
            "RDS Custom does not upgrade its engines by itself.",
            "Patch the instance by hand, as the guide says.",
        )
    return _take_minor_upgrades(resource, values)


# --- TLS ----------------------------------------------------------------------------------------

_ON, _OFF = ("1", "ON"), ("0", "OFF")


def _tls(resource: Resource) -> Mapping[str, Any]:
    """The parameter; without one, nothing can be said of an engine's version."""
    parameter = resource.config["Tls"]
    if parameter is None:
        raise MissingData("Tls", "is no parameter of this version of the engine")
    return mapping(parameter, "Tls")


def asks_for_tls(resource: Resource) -> bool:
    """The engine refuses connections without TLS; a parameter without a value is off."""
    parameter = _tls(resource)
    text(parameter.get("ParameterName"), "Tls.ParameterName")
    value = parameter.get("ParameterValue")
    if value is None:
        return False
    if str(value).upper() not in (*_ON, *_OFF):
        raise odd("Tls.ParameterValue")
    return str(value).upper() in _ON


def ask_for_tls(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Sets the parameter; the undo sets the old value, or resets what was the engine's own."""
    if asks_for_tls(resource):
        return ()
    parameter = _tls(resource)
    group = text(resource.config["DBParameterGroupName"], "DBParameterGroupName")
    if group.startswith("default.") or not flag(parameter.get("Modifiable"), "Tls.Modifiable"):
        raise BadInput(
            "DBParameterGroupName",
            "this is AWS's own group or parameter, which nobody can change.",
            "Make a group of your own and give it to the instances, as the guide says.",
        )
    name = text(parameter["ParameterName"], "Tls.ParameterName")
    at_once = parameter.get("ApplyType") == "dynamic"
    named = {"ParameterName": name, "ApplyMethod": "immediate" if at_once else "pending-reboot"}
    allowed = str(parameter.get("AllowedValues") or "").upper().split(",")
    good = "ON" if "ON" in allowed else "1"
    old = parameter.get("ParameterValue")
    if flag(parameter.get("Own"), "Tls.Own"):
        undo = _parameters("ModifyDBParameterGroup", group, {**named, "ParameterValue": old})
    else:
        undo = _parameters("ResetDBParameterGroup", group, named)
    call = _parameters("ModifyDBParameterGroup", group, {**named, "ParameterValue": good})
    when = "at once" if at_once else "when an instance is restarted"
    change = Change(name, str(old or "the engine's own: off"), f"{good}, {when}")
    return (Step("rds:ModifyDBParameterGroup", call, (undo,), (change,)),)


def _parameters(operation: str, group: str, parameter: Mapping[str, Any]) -> Call:
    params = {"DBParameterGroupName": group, "Parameters": [parameter]}
    return Call(Cloud.AWS, "rds", operation, params)


# --- snapshots ----------------------------------------------------------------------------------


def is_nobodys(resource: Resource) -> bool:
    """Not every AWS account may restore the snapshot; some, by their number, may."""
    shared = sequence(resource.config["SharedWith"], "SharedWith")
    return "all" not in [text(one, "SharedWith") for one in shared]


def _attribute(change: str) -> Params:
    return lambda _resource: {"AttributeName": "restore", change: ["all"]}


def _snapshots_rule(
    word: str, kind: str, what: str, by_name: str, block: str, aka: tuple[str, ...]
) -> Rule:
    """``word`` is the API's, "DB" or "DBCluster"; ``block`` Terraform's."""
    modify = f"Modify{word}SnapshotAttribute"
    return Rule(
        id=f"{kind.replace('.', '_')}_not_public",
        kind=kind,
        severity=Severity.CRITICAL,
        title=f"Snapshot of {what} is not public",
        passes=is_nobodys,
        fix=switch(
            f"rds:{modify}",
            "rds",
            modify,
            passes=is_nobodys,
            names=_named(f"{word}SnapshotIdentifier"),
            good=_attribute("ValuesToRemove"),
            old=_attribute("ValuesToAdd"),
            changes=becomes("restore", "every AWS account", "not every account"),
        ),
        reads=(f"rds:Describe{word}Snapshots", f"rds:Describe{word}SnapshotAttributes"),
        writes=(f"rds:{modify}",),
        events=(f"rds:{modify}",),
        aka=aka,
        guide=written(
            means=f"""The snapshot of {what} is shared with "all": every AWS account, whosever it
                is, may make a database of its own from it.""",
            matters="""The snapshot holds the whole data. People search for public snapshots, and
                who has copied one keeps it.""",
            console="""RDS > Snapshots > the snapshot > Actions > Share snapshot > Private. Leave
                the account numbers that are meant to have it.""",
            cli=f"""
                aws rds modify-{by_name}-snapshot-attribute \\
                    --{by_name}-snapshot-identifier SNAPSHOT \\
                    --attribute-name restore --values-to-remove all""",
            terraform=f"""
                resource "{block}" "this" {{
                  shared_accounts = []
                }}""",
            fix="""It takes "all" away from those who may restore the snapshot. Accounts that are
                named there keep what they have.""",
            breaks="""Accounts that restored the snapshot because everybody could are refused: name
                them. Copies that others have made already are out of reach. Treat what is in it,
                passwords first, as known.""",
            back="""Suture's undo makes the snapshot public again.""",
        ),
    )


RULES = (
    Rule(
        id="aws_rds_instance_not_public",
        kind="aws.rds.instance",
        severity=Severity.HIGH,
        title="RDS instance has no public address",
        passes=is_private,
        fix=_modify(
            "PubliclyAccessible",
            False,
            is_private,
            Change("PubliclyAccessible", "true", "false: private addresses only, at once"),
        ),
        reads=_INSTANCES,
        writes=("rds:ModifyDBInstance",),
        events=(*_MADE, "rds:ModifyDBInstance"),
        aka=("prowler:rds_instance_no_public_access", "securityhub:RDS.2", "cis-aws-6.0:3.2.3"),
        settles=_MODIFIED_WITHIN,
        guide=written(
            means="""The instance's name resolves to a public address for everybody outside its
                network. Its security groups are all that is left between it and the internet.""",
            matters="""One rule too wide in a security group, and the database answers to password
                guessing from anywhere.""",
            console="""RDS > Databases > the instance > Modify > Connectivity > Additional
                configuration > Not publicly accessible.""",
            cli="""
                aws rds modify-db-instance --db-instance-identifier INSTANCE \\
                    --no-publicly-accessible""",
            terraform="""
                resource "aws_db_instance" "this" {
                  publicly_accessible = false
                }""",
            fix="""It takes the public address away. RDS does that at once, without a restart;
                other changes that wait for the maintenance window go on waiting.""",
            breaks="""Clients outside the network lose their connection, and cannot come back but
                by VPN, peering or a bastion. Clients inside may keep to an old answer of DNS for a
                few minutes.""",
            back="""Suture's undo makes the instance publicly accessible again. The address may be
                another one; the name stays.""",
        ),
    ),
    Rule(
        id="aws_rds_instance_minor_upgrades_taken",
        kind="aws.rds.instance",
        severity=Severity.LOW,
        title="RDS instance takes minor upgrades by itself",
        passes=takes_minor_upgrades,
        fix=take_minor_upgrades,
        reads=_INSTANCES,
        writes=("rds:ModifyDBInstance",),
        events=(*_MADE, "rds:ModifyDBInstance"),
        aka=(
            "prowler:rds_instance_minor_version_upgrade_enabled",
            "securityhub:RDS.13",
            "cis-aws-6.0:3.2.2",
        ),
        settles=_MODIFIED_WITHIN,
        guide=written(
            means="""RDS does not install minor versions of the engine in the maintenance window:
                somebody has to.""",
            matters="""Security fixes of the engine come as minor versions. Those that wait for
                somebody's time are installed late.""",
            console="""RDS > Databases > the instance > Modify > Maintenance > Enable auto minor
                version upgrade.""",
            cli="""
                aws rds modify-db-instance --db-instance-identifier INSTANCE \\
                    --auto-minor-version-upgrade""",
            terraform="""
                resource "aws_db_instance" "this" {
                  auto_minor_version_upgrade = true
                }""",
            fix="""It turns the setting on. It refuses for RDS Custom, which has none.""",
            breaks="""When a minor version that RDS has chosen comes, the instance is restarted in
                its maintenance window: some minutes without it, less with a standby. An application
                that needs one exact version should say so first.""",
            back="""Suture's undo turns the setting off again. A version that was installed
                meanwhile stays.""",
        ),
    ),
    Rule(
        id="aws_rds_instance_storage_encrypted",
        kind="aws.rds.instance",
        severity=Severity.MEDIUM,
        title="RDS instance encrypts its storage",
        passes=is_encrypted,
        fix=None,
        reads=_INSTANCES,
        writes=(),
        events=_MADE,
        aka=(
            "prowler:rds_instance_storage_encrypted",
            "securityhub:RDS.3",
            "cis-aws-6.0:3.2.1",
        ),
        guide=written(
            means="""The instance's storage, its logs, its backups and its replicas are not
                encrypted at rest.""",
            matters="""Snapshots of such an instance can be shared with anybody, and read by anybody
                who gets one. With a key, reading takes a permission on that key as well.""",
            console="""RDS > Databases > the instance > Actions > Take snapshot. Then Snapshots >
                the snapshot > Actions > Copy snapshot, with encryption, and Restore snapshot.""",
            cli="""
                aws rds create-db-snapshot --db-instance-identifier OLD \\
                    --db-snapshot-identifier plain
                aws rds copy-db-snapshot --source-db-snapshot-identifier plain \\
                    --target-db-snapshot-identifier sealed --kms-key-id KEY
                aws rds restore-db-instance-from-db-snapshot \\
                    --db-instance-identifier NEW --db-snapshot-identifier sealed""",
            terraform="""
                resource "aws_db_instance" "this" {
                  storage_encrypted = true
                  kms_key_id        = aws_kms_key.this.arn
                }
                # Terraform replaces the instance: take a snapshot, and restore from its copy.""",
            by_hand="""Storage is encrypted when an instance is made, or never. The way there is a
                new instance from an encrypted copy of a snapshot: writes must stop meanwhile, and
                the application must be pointed at the new one. When, its owner has to say.""",
            breaks="""What is written between the snapshot and the change of instance is lost,
                unless writes are stopped. Read replicas have to be made anew.""",
            back="""Keep the old instance, stopped, until the new one has proved itself; going back
                is pointing the application at it again.""",
        ),
    ),
    Rule(
        id="aws_rds_parameter_group_tls_required",
        kind="aws.rds.parameter_group",
        severity=Severity.MEDIUM,
        title="RDS parameter group asks clients for TLS",
        passes=asks_for_tls,
        fix=ask_for_tls,
        reads=("rds:DescribeDBParameterGroups", "rds:DescribeDBParameters"),
        writes=("rds:ModifyDBParameterGroup", "rds:ResetDBParameterGroup"),
        events=(
            "rds:CreateDBParameterGroup",
            "rds:ModifyDBParameterGroup",
            "rds:ResetDBParameterGroup",
        ),
        aka=("prowler:rds_instance_transport_encrypted",),
        guide=written(
            means="""Instances with this parameter group take connections without TLS.
                PostgreSQL and SQL Server ask for it by rds.force_ssl, MySQL and MariaDB by
                require_secure_transport. Versions that have neither are not judged.""",
            matters="""Without TLS, passwords and rows cross the network in the clear, for everybody
                who can listen on the way.""",
            console="""RDS > Parameter groups > the group > Edit > rds.force_ssl or
                require_secure_transport > 1. AWS's default groups cannot be edited: make a group of
                your own, and give it to the instances.""",
            cli="""
                aws rds modify-db-parameter-group --db-parameter-group-name GROUP --parameters \\
                    ParameterName=rds.force_ssl,ParameterValue=1,ApplyMethod=immediate""",
            terraform="""
                resource "aws_db_parameter_group" "this" {
                  parameter {
                    name  = "rds.force_ssl"
                    value = "1"
                  }
                }""",
            fix="""It sets the parameter: at once, or for SQL Server with the next restart, which it
                leaves to the owner. It refuses for AWS's default groups.""",
            breaks="""Clients that do not use TLS are refused from then on, in every instance of the
                group. Look first who they are: in pg_stat_ssl, or in the engine's log of
                connections.""",
            back="""Suture's undo sets the old value, or resets the parameter where it had none of
                its own.""",
        ),
    ),
    _snapshots_rule(
        "DB",
        "aws.rds.snapshot",
        "an RDS instance",
        "db",
        "aws_db_snapshot",
        ("prowler:rds_snapshots_public_access", "securityhub:RDS.1"),
    ),
    _snapshots_rule(
        "DBCluster",
        "aws.rds.cluster_snapshot",
        "an Aurora, DocumentDB or Neptune cluster",
        "db-cluster",
        "aws_db_cluster_snapshot",
        ("prowler:documentdb_cluster_public_snapshot", "prowler:neptune_cluster_public_snapshot"),
    ),
)
