"""How CloudTrail's events tell which resource of a kind they are about: one row per AWS kind.

A row is data: the id that scans give, with "{name}" in it, and where in an event that name stands.
CloudTrail has no one way of naming things: it spells parameters as the API does in JSON, mostly in
lowerCamelCase, wraps some of EC2's in "ModifySecurityGroupRulesRequest", and leaves out what is too
large. So the letter case, such wrappers and lists are looked through, and where no name is found
the event is about all of the kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.formats.event import ControlPlaneEvent

# What a place in an event starts with: what was asked for, what was answered, what was listed.
_ROOTS = {"asked": "requestParameters", "answered": "responseElements", "listed": "resources"}
# What EC2 and others put between a list and what is in it.
_BETWEEN = frozenset({"items", "item", "member", "content"})
_WRAPPED = ("Request", "Response")


def _as_it_is(said: str) -> str:
    return said


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How events name the resources of one kind.

    ``id`` is a resource's as scans have it, with "{partition}", "{region}", "{account}" and
    "{name}"; without a name it is the one resource of the region or account; "{arn}" is an ARN that
    events give whole. ``places`` are where a name, or an ARN, may stand; all are looked at.
    ``cut`` makes the name of what stands there, "" where that names none of this kind, and names
    start with ``like``. ``deletes`` are the operations that take a resource of the kind away; all
    others that an event may be about stand with the rules. ``other``: where something stands in one
    of these places, the event is about another kind. ``home`` is the place of a resource's region,
    where that may be another than the event's. ``more`` finds names that stand elsewhere.
    """

    kind: str
    id: str
    places: tuple[str, ...] = ()
    cut: Callable[[str], str] = _as_it_is
    like: str = ""
    deletes: tuple[str, ...] = ()
    other: tuple[str, ...] = ()
    home: str = ""
    more: Callable[[ControlPlaneEvent], Iterable[str]] = lambda _event: ()

    def ids(self, event: ControlPlaneEvent, partition: str) -> tuple[str, ...] | None:
        """The ids that the event names; none where it is about another kind or account.

        None: it does not say which, so that it is about all of the kind.
        """
        if any(_said(event, place) for place in self.other):
            return ()
        known = {"partition": partition, "region": event.region, "account": event.account}
        if "{name}" not in self.id and "{arn}" not in self.id:
            return (self.id.format(**known),)
        said = [*self.more(event)]
        for place in self.places:
            said += _said(event, place)
        names = [name for one in said if (name := self.cut(one))]
        found = dict.fromkeys(self._id(name, known) for name in names)
        found.pop("", None)
        # A name that is no ARN, where scans have ARNs, says nothing.
        vague = "{arn}" in self.id and not any(name.startswith("arn:") for name in names)
        return None if not names or vague else tuple(found)

    def _id(self, name: str, known: Mapping[str, str]) -> str:
        """The id of a name or an ARN; "" for what is of another kind, region or account."""
        if "{arn}" in self.id:
            own = name.startswith("arn:") and name.split(":")[4:5] == [known["account"]]
            return name if own else ""
        start = self.id.removesuffix("{name}").format(**known)
        if name.startswith("arn:"):
            if not name.startswith(start):
                return ""
            name = name.removeprefix(start)
        return f"{start}{name}" if name and name.startswith(self.like) else ""

    def region(self, event: ControlPlaneEvent) -> str:
        """Where a resource that the event names lives."""
        place = next(iter(_said(event, self.home)), "") if self.home else ""
        return {"": event.region, "EU": "eu-west-1"}.get(place, place)


def _said(event: ControlPlaneEvent, place: str) -> list[str]:
    """The texts that stand in one place of an event."""
    root, _, rest = place.partition(".")
    whole = event.details.get(_ROOTS[root])
    wrapped = (
        [one for name, one in whole.items() if name.endswith(_WRAPPED) and isinstance(one, dict)]
        if isinstance(whole, dict)
        else []
    )
    steps = tuple(rest.lower().split("."))
    return [found for one in (whole, *wrapped) for found in _texts(one, steps)]


def _texts(value: Any, steps: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, list):
        for one in value:
            yield from _texts(one, steps)
    elif isinstance(value, dict):
        for name, one in value.items():
            if steps and name.lower() == steps[0]:
                yield from _texts(one, steps[1:])
            elif name.lower() in _BETWEEN:
                yield from _texts(one, steps)
    elif isinstance(value, str) and value and not steps:
        yield value


# --- how names are cut -----------------------------------------------------------------------


def _queue(said: str) -> str:
    """The last part of a queue's URL."""
    return said.rpartition("/")[2]


def _key(said: str) -> str:
    """Nothing of an alias, which may stand for any key."""
    return "" if said.startswith("alias/") or ":alias/" in said else said


def _bare(said: str) -> str:
    """Without an index, a consumer or the like after a name or an ARN."""
    head, slash, rest = said.partition("/")
    return f"{head}{slash}{rest.partition('/')[0]}" if said.startswith("arn:") else head


_FUNCTION = re.compile(r"(?:(arn:[^:]+:lambda:[^:]*:\d+|\d+):function:)?([\w-]+)(?::[^:]*)?")


def _function(said: str) -> str:
    """A function goes by its name, its ARN or a part of that, with a version after any of them."""
    fits = _FUNCTION.fullmatch(said)
    if fits is None:
        return ""
    return f"{fits[1]}:function:{fits[2]}" if (fits[1] or "").startswith("arn:") else fits[2]


def _balancer(said: str) -> str:
    """A listener's ARN is its load balancer's, with one part more."""
    if ":listener/" in said:
        return said.replace(":listener/", ":loadbalancer/").rpartition("/")[0]
    return said


def _listener(said: str) -> str:
    """A rule's ARN is its listener's, with one part more."""
    if ":listener-rule/" in said:
        said = said.replace(":listener-rule/", ":listener/").rpartition("/")[0]
    return said


def _lower(said: str) -> str:
    """RDS keeps names in lower case, however they were typed."""
    return said if said.startswith("arn:") else said.lower()


def _own_user(event: ControlPlaneEvent) -> Iterator[str]:
    """Events name a user without its path, but for the one who acts: whole."""
    named = _said(event, "asked.userName")
    if ":user/" in event.actor and (not named or named == [event.actor.rpartition("/")[2]]):
        yield event.actor


# --- the rows ---------------------------------------------------------------------------------

_EC2 = "arn:{partition}:ec2:{region}:{account}"
_RDS = "arn:{partition}:rds:{region}:{account}"
_IAM = "arn:{partition}:iam::{account}"
_ELB = "arn:{partition}:elasticloadbalancing:{region}:{account}"


def _named(*names: str) -> tuple[str, ...]:
    """Names that stand both in what is asked for and in what is answered."""
    return tuple(f"{root}.{name}" for name in names for root in ("asked", "answered"))


NAMINGS: Mapping[str, Naming] = {
    naming.kind: naming
    for naming in (
        Naming(
            kind="aws.ec2.security_group",
            id=f"{_EC2}:security-group/{{name}}",
            places=("asked.groupId", "answered.securityGroupRuleSet.groupId"),
            like="sg-",
            deletes=("ec2:DeleteSecurityGroup", "ec2:DeleteVpc"),  # which has a default one
        ),
        Naming(
            kind="aws.ec2.instance",
            id=f"{_EC2}:instance/{{name}}",
            places=(
                *_named("instanceId", "instancesSet.instanceId"),
                "answered.iamInstanceProfileAssociation.instanceId",
            ),
            like="i-",
            deletes=("ec2:TerminateInstances",),
        ),
        Naming(
            kind="aws.ec2.image",
            id="arn:{partition}:ec2:{region}::image/{name}",
            places=_named("imageId"),
            like="ami-",
            deletes=("ec2:DeregisterImage",),
        ),
        Naming(
            kind="aws.ec2.snapshot",
            id="arn:{partition}:ec2:{region}::snapshot/{name}",
            places=_named("snapshotId"),
            like="snap-",
            deletes=("ec2:DeleteSnapshot",),
        ),
        Naming(
            kind="aws.ec2.volume",
            id=f"{_EC2}:volume/{{name}}",
            places=_named("volumeId"),
            like="vol-",
            deletes=("ec2:DeleteVolume",),
        ),
        Naming(
            kind="aws.ec2.network_acl",
            id=f"{_EC2}:network-acl/{{name}}",
            places=("asked.networkAclId", "answered.networkAcl.networkAclId"),
            like="acl-",
            deletes=("ec2:DeleteNetworkAcl", "ec2:DeleteVpc"),
        ),
        Naming(
            kind="aws.ec2.vpc",
            id=f"{_EC2}:vpc/{{name}}",
            places=("asked.vpcId", "asked.resourceId", "answered.vpc.vpcId"),
            like="vpc-",  # flow logs may be a subnet's or an interface's as well
            deletes=("ec2:DeleteVpc",),
        ),
        Naming(kind="aws.ec2.ebs_defaults", id=f"{_EC2}:ebs-encryption-by-default"),
        Naming(kind="aws.ec2.snapshot_defaults", id=f"{_EC2}:snapshot-block-public-access"),
        Naming(kind="aws.ec2.image_defaults", id=f"{_EC2}:image-block-public-access"),
        Naming(kind="aws.ec2.instance_defaults", id=f"{_EC2}:instance-metadata-defaults"),
        Naming(
            kind="aws.s3.bucket",
            id="arn:{partition}:s3:::{name}",
            places=("asked.bucketName",),
            deletes=("s3:DeleteBucket",),
            home="asked.CreateBucketConfiguration.LocationConstraint",
        ),
        Naming(kind="aws.s3.account", id="arn:{partition}:s3::{account}:account"),
        Naming(kind="aws.iam.password_policy", id=f"{_IAM}:account-password-policy"),
        Naming(kind="aws.iam.account", id=f"{_IAM}:root"),
        Naming(
            kind="aws.iam.user",
            id="{arn}",
            places=("answered.user.arn",),
            more=_own_user,
            deletes=("iam:DeleteUser",),
        ),
        Naming(
            kind="aws.iam.policy",
            id="{arn}",
            places=("asked.policyArn", "answered.policy.arn"),
            # One that nothing has any more is no longer among those that scans read.
            deletes=(
                "iam:DeletePolicy",
                "iam:DetachGroupPolicy",
                "iam:DetachRolePolicy",
                "iam:DetachUserPolicy",
            ),
        ),
        Naming(
            kind="aws.iam.server_certificate",
            id="{arn}",
            places=("answered.serverCertificateMetadata.arn",),
            deletes=("iam:DeleteServerCertificate",),
        ),
        Naming(
            kind="aws.kms.key",
            id="arn:{partition}:kms:{region}:{account}:key/{name}",
            places=("listed.ARN", *_named("keyId"), "answered.keyMetadata.arn"),
            cut=_key,
            deletes=("kms:DeleteKey",),
        ),
        Naming(
            kind="aws.sqs.queue",
            id="arn:{partition}:sqs:{region}:{account}:{name}",
            places=("asked.queueName", *_named("queueUrl")),
            cut=_queue,
            deletes=("sqs:DeleteQueue",),
        ),
        Naming(
            kind="aws.sns.topic",
            id="arn:{partition}:sns:{region}:{account}:{name}",
            places=("asked.name", *_named("topicArn")),
            deletes=("sns:DeleteTopic",),
        ),
        Naming(
            kind="aws.kinesis.stream",
            id="arn:{partition}:kinesis:{region}:{account}:stream/{name}",
            places=("asked.streamName", "asked.streamARN"),
            cut=_bare,
            deletes=("kinesis:DeleteStream",),
        ),
        Naming(
            kind="aws.dynamodb.table",
            id="arn:{partition}:dynamodb:{region}:{account}:table/{name}",
            places=("asked.tableName",),
            cut=_bare,
            deletes=("dynamodb:DeleteTable",),
        ),
        Naming(
            kind="aws.xray.settings",
            id="arn:{partition}:xray:{region}:{account}:encryption-config",
        ),
        Naming(
            kind="aws.athena.workgroup",
            id="arn:{partition}:athena:{region}:{account}:workgroup/{name}",
            places=("asked.name", "asked.workGroup"),
            deletes=("athena:DeleteWorkGroup",),
        ),
        Naming(
            kind="aws.glue.data_catalog",
            id="arn:{partition}:glue:{region}:{account}:catalog",
        ),
        Naming(
            kind="aws.ecr.repository",
            id="arn:{partition}:ecr:{region}:{account}:repository/{name}",
            places=("asked.repositoryName", "answered.repository.repositoryArn"),
            deletes=("ecr:DeleteRepository",),
        ),
        Naming(
            kind="aws.glacier.vault",
            id="arn:{partition}:glacier:{region}:{account}:vaults/{name}",
            places=("asked.vaultName",),
            deletes=("glacier:DeleteVault",),
        ),
        Naming(
            kind="aws.lambda.function",
            id="arn:{partition}:lambda:{region}:{account}:function:{name}",
            places=("asked.functionName", "answered.functionArn"),
            cut=_function,
            deletes=("lambda:DeleteFunction20150331",),
        ),
        Naming(
            kind="aws.cloudtrail.trail",
            id="arn:{partition}:cloudtrail:{region}:{account}:trail/{name}",
            places=("asked.name", "asked.trailName", "answered.trailARN"),
            deletes=("cloudtrail:DeleteTrail",),
        ),
        Naming(
            kind="aws.guardduty.detector",
            id="arn:{partition}:guardduty:{region}:{account}:detector",
        ),
        Naming(
            kind="aws.rds.instance",
            id=f"{_RDS}:db:{{name}}",
            places=(
                "asked.dBInstanceIdentifier",
                "asked.newDBInstanceIdentifier",
                "asked.targetDBInstanceIdentifier",
                "answered.dBInstanceArn",
            ),
            cut=_lower,
            deletes=("rds:DeleteDBInstance",),
        ),
        Naming(
            kind="aws.rds.parameter_group",
            id=f"{_RDS}:pg:{{name}}",
            places=_named("dBParameterGroupName"),
            cut=_lower,
            deletes=("rds:DeleteDBParameterGroup",),
        ),
        Naming(
            kind="aws.rds.snapshot",
            id=f"{_RDS}:snapshot:{{name}}",
            places=_named("dBSnapshotIdentifier"),
            cut=_lower,
            deletes=("rds:DeleteDBSnapshot",),
        ),
        Naming(
            kind="aws.rds.cluster_snapshot",
            id=f"{_RDS}:cluster-snapshot:{{name}}",
            places=_named("dBClusterSnapshotIdentifier"),
            cut=_lower,
            deletes=("rds:DeleteDBClusterSnapshot",),
        ),
        Naming(
            kind="aws.cloudfront.distribution",
            id="arn:{partition}:cloudfront::{account}:distribution/{name}",
            places=("asked.id", "answered.distribution.id"),
            deletes=("cloudfront:DeleteDistribution",),
        ),
        Naming(
            kind="aws.cloudformation.stack",
            id="{arn}",
            places=("asked.stackName", "answered.stackId"),
            deletes=("cloudformation:DeleteStack",),
        ),
        Naming(
            kind="aws.eks.cluster",
            id="arn:{partition}:eks:{region}:{account}:cluster/{name}",
            places=("asked.name",),
            deletes=("eks:DeleteCluster",),
        ),
        Naming(
            kind="aws.opensearch.domain",
            id="arn:{partition}:es:{region}:{account}:domain/{name}",
            places=("asked.domainName",),
            deletes=("es:DeleteDomain", "es:DeleteElasticsearchDomain"),
        ),
        Naming(
            kind="aws.efs.file_system",
            id="arn:{partition}:elasticfilesystem:{region}:{account}:file-system/{name}",
            places=_named("fileSystemId"),
            deletes=("elasticfilesystem:DeleteFileSystem",),
        ),
        Naming(
            kind="aws.elb.load_balancer",
            id=f"{_ELB}:loadbalancer/{{name}}",
            places=("asked.loadBalancerName",),
            other=("asked.name", "asked.loadBalancerArn", "answered.loadBalancers.loadBalancerArn"),
            deletes=("elasticloadbalancing:DeleteLoadBalancer",),
        ),
        Naming(
            kind="aws.elbv2.listener",
            id=f"{_ELB}:listener/{{name}}",
            places=(
                *("asked.listenerArn", "asked.ruleArn"),
                *("answered.listeners.listenerArn", "answered.rules.ruleArn"),
            ),
            cut=_listener,
            like="app/",  # scans have no others
            other=("asked.loadBalancerName",),
            deletes=(
                "elasticloadbalancing:DeleteListener",
                "elasticloadbalancing:DeleteLoadBalancer",
            ),
        ),
        Naming(
            kind="aws.elbv2.load_balancer",
            id="{arn}",
            places=(
                *("asked.loadBalancerArn", "asked.listenerArn"),
                "answered.loadBalancers.loadBalancerArn",
                *("answered.listeners.loadBalancerArn", "answered.listeners.listenerArn"),
            ),
            cut=_balancer,
            other=("asked.loadBalancerName",),
            deletes=("elasticloadbalancing:DeleteLoadBalancer",),
        ),
        Naming(
            kind="aws.securityhub.hub",
            id="arn:{partition}:securityhub:{region}:{account}:hub/default",
        ),
        Naming(
            kind="aws.accessanalyzer.analyzers",
            id="arn:{partition}:access-analyzer:{region}:{account}:analyzer",
        ),
        Naming(
            kind="aws.config.recorder",
            id="arn:{partition}:config:{region}:{account}:configuration-recorder",
        ),
    )
}
