"""What a control-plane event is about: resources as scans have them, and whether it is our own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from tasks.clouds.aws_events import NAMINGS
from tasks.clouds.aws_kinds import COLLECTORS as AWS_COLLECTORS
from tasks.clouds.aws_view import GLOBAL
from tasks.clouds.azure_collect import COLLECTORS as AZURE_COLLECTORS
from tasks.clouds.azure_collect import EVERY_REGION, Collector
from tasks.formats.event import ControlPlaneEvent, Target
from tasks.inventory import AwsSource, AzureSource
from tasks.model import Cloud, Rule
from tasks.rules import RULES

# Types that can hang on any resource, and of which a subscription's own are those it has itself.
_EXTENSIONS = frozenset(
    {"microsoft.authorization/roleassignments", "microsoft.insights/diagnosticsettings"}
)


def targets_of(event: ControlPlaneEvent, partition: str = "aws") -> tuple[Target, ...]:
    """What of the rule table's kinds the event is about; nothing where no rule waits for it.

    Where it does not say which resource, or where several may be meant, a target is all of a kind
    in the account and, on AWS, the event's region. On Azure a target's region is "global": events
    do not say where a resource is, and its id is enough to read it.
    """
    kinds = _kinds(event.cloud).get(_folded(event.cloud, event.operation), ())
    found = (
        target
        for kind in kinds
        for target in (
            _on_aws(event, kind, partition)
            if event.cloud is Cloud.AWS
            else _on_azure(event, AZURE_COLLECTORS[kind])
        )
    )
    return tuple(dict.fromkeys(found))


def watched_operations(cloud: Cloud, rules: Sequence[Rule] | None = None) -> tuple[str, ...]:
    """The operations that may change a verdict, or take away what there is one on, in order.

    ``rules`` are those in force; None: the whole table. They are written as the clouds do.
    """
    wanted = [one for one in (RULES if rules is None else rules) if one.cloud is cloud]
    operations = {event for one in wanted for event in one.events}
    for kind in {one.kind for one in wanted}:
        operations.update(_deleting(cloud, kind))
    return tuple(sorted(operations))


def own_write(event: ControlPlaneEvent, source: AwsSource | AzureSource) -> bool:
    """Whether Suture's own remediator made it, which has verified what it did by itself."""
    if isinstance(source, AzureSource):
        own = source.remediator_client_id.lower()
        return event.cloud is Cloud.AZURE and bool(own) and event.identity.lower() == own
    if event.cloud is not Cloud.AWS:
        return False
    role = source.role_arn(event.account, source.remediator_role)
    # Where a session's issuer is not told, its own ARN has the role's name without the path.
    name = source.remediator_role.rpartition("/")[2]
    session = f"arn:{source.partition}:sts::{event.account}:assumed-role/{name}/"
    return event.identity == role or event.identity.startswith(session)


@cache
def _kinds(cloud: Cloud) -> Mapping[str, tuple[str, ...]]:
    """The kinds that an operation may be about, by its name."""
    kinds: dict[str, dict[str, None]] = {}
    for rule in RULES:
        if rule.cloud is cloud:
            for operation in (*rule.events, *_deleting(cloud, rule.kind)):
                kinds.setdefault(_folded(cloud, operation), {})[rule.kind] = None
    return {operation: tuple(found) for operation, found in kinds.items()}


def _folded(cloud: Cloud, operation: str) -> str:
    """Azure writes one operation in several ways: microsoft.insights, Microsoft.Insights."""
    return operation.lower() if cloud is Cloud.AZURE else operation


def _deleting(cloud: Cloud, kind: str) -> tuple[str, ...]:
    """The operations that take a resource of a kind away; a subscription's own stays with it."""
    if cloud is Cloud.AWS:
        return NAMINGS[kind].deletes
    collector = AZURE_COLLECTORS[kind]
    return () if collector.itself else (f"{collector.type}/delete",)


def _on_aws(event: ControlPlaneEvent, kind: str, partition: str) -> Iterator[Target]:
    naming, regional = NAMINGS[kind], AWS_COLLECTORS[kind].regional
    all_of_it = event.region if regional else GLOBAL
    region = all_of_it if regional or not naming.home else naming.region(event)
    ids = naming.ids(event, partition)
    if ids is None:
        yield Target(Cloud.AWS, event.account, all_of_it, kind)
        return
    for id in ids:
        yield Target(Cloud.AWS, event.account, region, kind, id)


def _on_azure(event: ControlPlaneEvent, collector: Collector) -> Iterator[Target]:
    """A child is about its parent, which scans read it as a part of."""
    kind = collector.kind
    changed = event.operation.lower().rpartition("/")[0]
    if collector.itself:
        if changed not in _EXTENSIONS or _hangs_on_the_subscription(event):
            id = f"/subscriptions/{event.account}{collector.view}"
            yield Target(Cloud.AZURE, event.account, EVERY_REGION, kind, id)
        return
    type = collector.type.lower()
    id = _cut(event, type)
    if id or not event.resource or f"{changed}/".startswith(f"{type}/"):
        yield Target(Cloud.AZURE, event.account, EVERY_REGION, kind, id)


def _hangs_on_the_subscription(event: ControlPlaneEvent) -> bool:
    """Or above it, or somewhere that the event does not tell."""
    on = event.resource.rpartition("/providers/")[0]
    return on in ("", f"/subscriptions/{event.account}") or not on.startswith("/subscriptions/")


def _cut(event: ControlPlaneEvent, type: str) -> str:
    """The id of the resource of ``type`` that the event's is, or lies below; "" if there is none.

    What is defined above subscriptions is read in each of them under the subscription's own path.
    """
    namespace, *names = type.split("/")
    scope, found, below = event.resource.partition(f"/providers/{namespace}/")
    parts = below.split("/")
    deep = 2 * len(names)
    if not found or parts[0:deep:2] != names or len(parts) < deep or not all(parts[:deep]):
        return ""
    if not scope.startswith("/subscriptions/"):
        scope = f"/subscriptions/{event.account}"
    return f"{scope}{found}{'/'.join(parts[:deep])}"
