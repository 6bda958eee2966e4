"""What Suture reads of an Azure subscription: one row per kind of resource.

ARM lists every type the same way, so a kind is data: its type, its api-version and which parts of
an answer are configuration. ``COLLECTORS`` is all there is to add to for a new kind.

A kind is read by ARM's list of a subscription, or, where many subscriptions are scanned at once, by
Resource Graph for all of them. Lists are one call for each kind; the graph is one for all kinds,
the question what the identity may read there (see azure_graph), and two queries or more that many
subscriptions share. So it pays from two kinds on: half the calls, for about the same CPU. And since
an identity has 3 queries a second, it pays only with many subscriptions a query: with fewer than
FEWEST_GRAPH_SUBSCRIPTIONS, batches that run side by side would wait for the quota, not for ARM.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from tasks.clouds.azure_api import AzureApi
from tasks.clouds.azure_graph import SharedGraph, permissions
from tasks.clouds.transport import reason
from tasks.errors import CloudError, ResourceGone, Throttled
from tasks.inventory import AzureSource
from tasks.model import Account, Cloud, Config, Covered, Resource
from tasks.rules.azure.assessments import ASSESSED
from tasks.rules.azure.owners import ACCESS_ADMINISTRATOR, OWNER
from tasks.snapshot import Seen

EVERY_REGION = "global"  # Covered.region of what one list answers for all regions at once
SUBSCRIPTIONS_API = "2022-12-01"
SUBSCRIPTION = "Microsoft.Resources/subscriptions"
DISCOVERY_READS = ("Microsoft.Resources/subscriptions/read",)

FEWEST_GRAPH_KINDS = 2
FEWEST_GRAPH_SUBSCRIPTIONS = 50

# What ARM changes by itself: no rule reads it, and it must not look like drift.
VOLATILE = frozenset({"etag", "provisioningState", "resourceGuid"})
# An identity that is taken away and given again is another one.
_IDENTITY = frozenset({"principalId", "tenantId", "clientId"})
_SITE_STATE = frozenset(
    {
        "availabilityState",
        "inboundIpAddress",
        "inProgressOperationId",
        "lastModifiedTimeUtc",
        "outboundIpAddresses",
        "possibleInboundIpAddresses",
        "possibleOutboundIpAddresses",
        "siteConfig",  # a part of config/web, which is read by itself
        "slotSwapStatus",
        "suspendedTill",
        "trafficManagerHostNames",
        "usageState",
    }
)
_DATABASE_STATE = frozenset({"state", "userVisibleState", "earliestRestoreDate"})
WEB_API = "2023-12-01"
SQL_API = "2021-11-01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A child of a resource that rules read as a part of it: by its path below, with a call.

    ``name`` is the part's in the configuration, which gets its properties; of ``many`` (a list) it
    gets {"name", "properties"} each. ``absent`` are the error codes that say that there is none.
    ``where`` says for which resources it is asked for at all: for others there is none. Of its
    properties those in ``only`` are read (all, where that is empty) but for ``volatile`` ones; of
    ``many`` those children of which ``which`` is true, so that what no rule reads is no drift.
    ``located``: each of ``many`` gets its "location" as well. ``names``: of ``many`` those only,
    where a name says what one is about. ``exists``: of ``many`` rules read only whether there is
    any, so that the part is true or false, and the rest of a long list is not asked for. ``each``:
    the list of ``many`` says too little; those that ``which`` keeps are asked for one by one.
    ``filter`` is the list's, where it gives more than is wanted.
    """

    name: str
    path: str
    api_version: str
    many: bool = False
    absent: tuple[str, ...] = ()
    where: Callable[[Mapping[str, Any]], bool] = lambda _item: True
    only: frozenset[str] = frozenset()
    volatile: frozenset[str] = VOLATILE
    which: Callable[[Mapping[str, Any]], bool] = lambda _properties: True
    located: bool = False
    names: frozenset[str] = frozenset()
    exists: bool = False
    each: bool = False
    filter: str = ""

    @property
    def none(self) -> Any:
        if self.exists:
            return False
        return [] if self.many else None

    def read(self, type: str) -> str:
        """The operation that reading it needs, below a resource of ``type``."""
        _, extends, own = self.path.rpartition("/providers/")
        if extends:
            namespace, *rest = own.split("/")
            return "/".join([namespace, *rest[::2], "read"])
        return "/".join([type, *self.path.strip("/").split("/")[::2], "read"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """How one kind is read: the ARM type it has, and the top-level keys that are configuration.

    ``graph`` says that Resource Graph answers the kind fully: every property that a rule reads,
    with the value ARM gives it. ``around`` are the properties that say what hangs on one, for its
    snapshots: of the volatile ones, those that a re-reading gives. ``parts`` are read by calls of
    their own for each resource. ``itself``: it is the subscription, of which there is one, its
    parts lie below that, and ``view`` goes on its id: what different kinds make of one subscription
    are different resources. ``filter`` is the list's, where it gives more than is wanted.
    ``always`` names the settings that a subscription has though the list leaves out those that
    nobody has made: they are read as ones without properties.
    """

    kind: str
    type: str
    api_version: str
    keys: tuple[str, ...]
    volatile: frozenset[str] = VOLATILE
    around: tuple[str, ...] = ()
    graph: bool = False
    parts: tuple[Part, ...] = ()
    itself: bool = False
    view: str = ""
    filter: str = ""
    always: tuple[str, ...] = ()

    @property
    def read(self) -> str:
        return f"{self.type}/read"

    def narrowed(self, needed: frozenset[str] | None) -> Collector:
        """The same without the parts that nobody needs."""
        if needed is None:
            return self
        parts = tuple(part for part in self.parts if part.read(self.type) in needed)
        return replace(self, parts=parts)

    @property
    def reads(self) -> tuple[str, ...]:
        """The Azure operations that listing and re-reading need."""
        return tuple(dict.fromkeys((self.read, *(part.read(self.type) for part in self.parts))))


def _has_blobs(account: Mapping[str, Any]) -> bool:
    return account.get("kind") != "FileStorage"


def _has_files(account: Mapping[str, Any]) -> bool:
    return account.get("kind") not in ("BlobStorage", "BlockBlobStorage")


def _is_public(container: Mapping[str, Any]) -> bool:
    """An account has many containers, most of them private, and no rule is about those."""
    return container.get("publicAccess") not in (None, "None")


def _never_expires(entry: Mapping[str, Any]) -> bool:
    """What expires, or is disabled, is no rule's matter; what cannot be read is kept."""
    attributes = entry.get("attributes")
    if not isinstance(attributes, Mapping):
        return True
    return attributes.get("enabled") is not False and type(attributes.get("exp")) is not int


def _in_vault(name: str) -> Part:
    """Keys or secrets, by the management plane: names and dates, never what is in them."""
    return Part(
        name=name,
        path=f"/{name}",
        api_version="2023-07-01",
        many=True,
        only=frozenset({"attributes"}),
        volatile=VOLATILE | {"created", "updated", "recoveryLevel"},
        which=_never_expires,
    )


def _does_not_rotate(key: Mapping[str, Any]) -> bool:
    """What is disabled, or rotates, is no rule's matter; what cannot be read is kept."""
    try:
        actions = (key.get("rotationPolicy") or {}).get("lifetimeActions") or ()
        rotates = any(one["action"]["type"].lower() == "rotate" for one in actions)
        return not rotates and key["attributes"].get("enabled") is not False
    except (KeyError, TypeError, AttributeError):
        return True


DIAGNOSTICS = Part(
    name="diagnosticSettings",
    path="/providers/Microsoft.Insights/diagnosticSettings",
    api_version="2021-05-01-preview",
    many=True,
)

# A machine is asked for where it decides whether a rule matters: one is enough.
MACHINES = Part(
    name="machines",
    path="/providers/Microsoft.Compute/virtualMachines",
    api_version="2024-07-01",
    many=True,
    exists=True,
)

_NOTHING = frozenset({""})  # of the properties: names and places are all that is wanted


def _gives_it_all(assignment: Mapping[str, Any]) -> bool:
    """The roles that give away all that they are given on; what cannot be read is kept."""
    role = assignment.get("roleDefinitionId")
    if not isinstance(role, str):
        return True
    return role.lower().rpartition("/")[2] in (OWNER, ACCESS_ADMINISTRATOR)


def _configurations(api_version: str, *names: str) -> tuple[Part, ...]:
    """A flexible server's: their values alone, for whether one was ever set changes nothing."""
    return tuple(
        Part(
            name=one,
            path=f"/configurations/{one}",
            api_version=api_version,
            only=frozenset({"value"}),
        )
        for one in names
    )


COLLECTORS: Mapping[str, Collector] = {
    collector.kind: collector
    for collector in (
        Collector(
            kind="azure.network.security_group",
            type="Microsoft.Network/networkSecurityGroups",
            api_version="2024-05-01",
            keys=("name", "location", "properties"),
            # What is attached to a group changes with every machine, and no rule reads it.
            volatile=VOLATILE | {"networkInterfaces", "subnets", "flowLogs"},
            around=("networkInterfaces", "subnets", "flowLogs"),
            graph=True,
        ),
        Collector(
            kind="azure.storage.account",
            type="Microsoft.Storage/storageAccounts",
            api_version="2023-05-01",
            keys=("name", "location", "kind", "sku", "properties"),
            volatile=VOLATILE | {"statusOfPrimary", "statusOfSecondary", "lastGeoFailoverTime"},
            graph=True,
            parts=(
                Part(
                    name="blobServices",
                    path="/blobServices/default",
                    api_version="2023-05-01",
                    absent=("FeatureNotSupportedForAccount",),
                    where=_has_blobs,
                    volatile=VOLATILE | {"minRestoreTime", "lastEnabledTime"},
                ),
                Part(
                    name="fileServices",
                    path="/fileServices/default",
                    api_version="2023-05-01",
                    absent=("FeatureNotSupportedForAccount",),
                    where=_has_files,
                ),
                Part(
                    name="containers",
                    path="/blobServices/default/containers",
                    api_version="2023-05-01",
                    many=True,
                    absent=("FeatureNotSupportedForAccount",),
                    where=_has_blobs,
                    only=frozenset({"publicAccess"}),
                    which=_is_public,
                ),
            ),
        ),
        Collector(
            kind="azure.keyvault.vault",
            type="Microsoft.KeyVault/vaults",
            api_version="2023-07-01",
            keys=("name", "location", "properties"),
            parts=(
                _in_vault("keys"),
                _in_vault("secrets"),
                replace(
                    _in_vault("keys"),
                    name="rotation",
                    only=frozenset({"attributes", "rotationPolicy"}),
                    which=_does_not_rotate,
                    each=True,
                ),
                DIAGNOSTICS,
            ),
        ),
        Collector(
            kind="azure.compute.disk",
            type="Microsoft.Compute/disks",
            api_version="2024-03-02",
            keys=("name", "location", "sku", "properties"),
            # Whether it is in use, by whom and how much of it changes all day.
            volatile=VOLATILE
            | {
                "diskState",
                "lastOwnershipUpdateTime",
                "LastOwnershipUpdateTime",
                "propertyUpdatesInProgress",
                "completionPercent",
                "shareInfo",
            },
        ),
        Collector(
            kind="azure.compute.virtual_machine",
            type="Microsoft.Compute/virtualMachines",
            api_version="2024-07-01",
            keys=("name", "location", "properties"),
            volatile=VOLATILE | {"instanceView"},
        ),
        Collector(
            kind="azure.network.application_gateway",
            type="Microsoft.Network/applicationGateways",
            api_version="2024-05-01",
            keys=("name", "location", "properties"),
            # Where requests go changes with every deployment behind it, and no rule reads it.
            volatile=VOLATILE
            | {
                "operationalState",
                "backendAddressPools",
                "backendHttpSettingsCollection",
                "backendIPConfigurations",
                "backendSettingsCollection",
                "privateEndpointConnections",
                "probes",
                "requestRoutingRules",
                "rewriteRuleSets",
                "routingRules",
                "urlPathMaps",
            },
        ),
        Collector(
            kind="azure.network.waf_policy",
            type="Microsoft.Network/ApplicationGatewayWebApplicationFirewallPolicies",
            api_version="2024-05-01",
            # With the tags, because a policy can only be written whole.
            keys=("name", "location", "tags", "properties"),
            volatile=VOLATILE
            | {
                "applicationGateways",
                "applicationGatewayForContainers",
                "httpListeners",
                "pathBasedRules",
                "resourceState",
            },
        ),
        Collector(
            kind="azure.authorization.subscription",
            type=SUBSCRIPTION,
            api_version=SUBSCRIPTIONS_API,
            keys=(),
            itself=True,
            view="/providers/microsoft.authorization",
            parts=(
                Part(
                    name="roleAssignments",
                    path="/providers/Microsoft.Authorization/roleAssignments",
                    api_version="2022-04-01",
                    many=True,
                    only=frozenset({"roleDefinitionId", "scope", "principalId", "principalType"}),
                    which=_gives_it_all,
                    filter="atScope()",  # and above it: those further down are no rule's matter
                ),
            ),
        ),
        Collector(
            kind="azure.network.subscription",
            type=SUBSCRIPTION,
            api_version=SUBSCRIPTIONS_API,
            keys=(),
            itself=True,
            view="/providers/microsoft.network",
            parts=(
                Part(
                    name="watchers",
                    path="/providers/Microsoft.Network/networkWatchers",
                    api_version="2024-05-01",
                    many=True,
                    located=True,
                    only=_NOTHING,
                ),
                Part(
                    name="networks",
                    path="/providers/Microsoft.Network/virtualNetworks",
                    api_version="2024-05-01",
                    many=True,
                    located=True,
                    only=_NOTHING,
                ),
                Part(
                    name="bastions",
                    path="/providers/Microsoft.Network/bastionHosts",
                    api_version="2024-05-01",
                    many=True,
                    exists=True,
                ),
                MACHINES,
            ),
        ),
        Collector(
            kind="azure.security.subscription",
            type=SUBSCRIPTION,
            api_version=SUBSCRIPTIONS_API,
            keys=(),
            itself=True,
            view="/providers/microsoft.security",
            parts=(
                Part(
                    name="assessments",
                    path="/providers/Microsoft.Security/assessments",
                    api_version="2020-01-01",
                    many=True,
                    names=ASSESSED,
                    only=frozenset({"status"}),
                    volatile=VOLATILE
                    | {"cause", "description", "firstEvaluationDate", "statusChangeDate"},
                ),
                MACHINES,
            ),
        ),
        Collector(
            kind="azure.monitor.subscription",
            type=SUBSCRIPTION,
            api_version=SUBSCRIPTIONS_API,
            keys=(),
            itself=True,
            view="/providers/microsoft.insights",
            parts=(
                Part(
                    name="components",
                    path="/providers/Microsoft.Insights/components",
                    api_version="2020-02-02",
                    many=True,
                    exists=True,
                ),
            ),
        ),
        Collector(
            kind="azure.databricks.workspace",
            type="Microsoft.Databricks/workspaces",
            api_version="2024-05-01",
            keys=("name", "location", "sku", "properties"),
            volatile=VOLATILE | {"createdBy", "createdDateTime", "updatedBy"},
            parts=(DIAGNOSTICS,),
        ),
        Collector(
            kind="azure.monitor.activity_log",
            type=SUBSCRIPTION,
            api_version=SUBSCRIPTIONS_API,
            keys=(),
            itself=True,
            parts=(
                Part(
                    name="alerts",
                    path="/providers/Microsoft.Insights/activityLogAlerts",
                    api_version="2020-10-01",
                    many=True,
                    only=frozenset({"enabled", "scopes", "condition"}),
                ),
                Part(
                    name="exports",
                    path="/providers/Microsoft.Insights/diagnosticSettings",
                    api_version="2021-05-01-preview",
                    many=True,
                ),
            ),
        ),
        Collector(
            kind="azure.web.site",
            type="Microsoft.Web/sites",
            api_version=WEB_API,
            keys=("name", "location", "kind", "identity", "properties"),
            volatile=VOLATILE | _IDENTITY | _SITE_STATE,
            parts=(
                Part(
                    name="config/web",
                    path="/config/web",
                    api_version=WEB_API,
                    only=frozenset(
                        {
                            "minTlsVersion",
                            "http20Enabled",
                            "ftpsState",
                            "remoteDebuggingEnabled",
                            "ipSecurityRestrictions",
                            "ipSecurityRestrictionsDefaultAction",
                            "scmIpSecurityRestrictionsUseMain",
                        }
                    ),
                ),
                Part(
                    name="config/authsettingsV2",
                    path="/config/authsettingsV2",
                    api_version=WEB_API,
                    only=frozenset({"platform", "globalValidation"}),
                ),
                DIAGNOSTICS,
            ),
        ),
        Collector(
            kind="azure.sql.server",
            type="Microsoft.Sql/servers",
            api_version=SQL_API,
            keys=("name", "location", "properties"),
            parts=(
                Part(name="firewallRules", path="/firewallRules", api_version=SQL_API, many=True),
                Part(
                    name="auditingSettings",
                    path="/auditingSettings/default",
                    api_version=SQL_API,
                ),
                Part(
                    name="azureADOnlyAuthentications",
                    path="/azureADOnlyAuthentications/Default",
                    api_version=SQL_API,
                    absent=("ResourceNotFound", "NotFound"),
                ),
            ),
        ),
        *(
            Collector(
                kind=f"azure.{service.lower()}.server",
                type=f"Microsoft.{service}/servers",
                api_version="2017-12-01",
                keys=("name", "location", "properties"),
                volatile=VOLATILE | _DATABASE_STATE,
            )
            for service in ("DBforMySQL", "DBforPostgreSQL")
        ),
        Collector(
            kind="azure.dbformysql.flexible_server",
            type="Microsoft.DBforMySQL/flexibleServers",
            api_version="2023-12-30",
            keys=("name", "location", "properties"),
            volatile=VOLATILE | _DATABASE_STATE,
            parts=_configurations("2023-12-30", "require_secure_transport"),
        ),
        Collector(
            kind="azure.dbforpostgresql.flexible_server",
            type="Microsoft.DBforPostgreSQL/flexibleServers",
            api_version="2024-08-01",
            keys=("name", "location", "properties"),
            volatile=VOLATILE | _DATABASE_STATE,
            parts=_configurations(
                "2024-08-01",
                "require_secure_transport",
                "log_checkpoints",
                "log_connections",
                "log_disconnections",
                "connection_throttle.enable",
            ),
        ),
        Collector(
            kind="azure.network.virtual_network",
            type="Microsoft.Network/virtualNetworks",
            api_version="2024-05-01",
            keys=("name", "location", "properties"),
            # What stands in a subnet changes with every machine, and no rule reads it.
            volatile=VOLATILE
            | {
                "ipConfigurations",
                "ipConfigurationProfiles",
                "privateEndpoints",
                "resourceNavigationLinks",
                "serviceAssociationLinks",
            },
        ),
        Collector(
            kind="azure.network.flow_log",
            type="Microsoft.Network/networkWatchers",
            api_version="2024-05-01",
            keys=("name", "location", "properties"),
            volatile=VOLATILE | {"runningOperationIds"},
            parts=(Part(name="flowLogs", path="/flowLogs", api_version="2024-05-01", many=True),),
        ),
        Collector(
            kind="azure.authorization.role_definition",
            type="Microsoft.Authorization/roleDefinitions",
            api_version="2022-04-01",
            keys=("name", "properties"),
            volatile=VOLATILE | {"createdBy", "createdOn", "updatedBy", "updatedOn"},
            filter="type eq 'CustomRole'",
        ),
        Collector(
            kind="azure.security.contact",
            type="Microsoft.Security/securityContacts",
            api_version="2023-12-01-preview",
            keys=("name", "properties"),
            always=("default",),
        ),
        Collector(
            kind="azure.security.pricing",
            type="Microsoft.Security/pricings",
            api_version="2024-01-01",
            keys=("name", "properties"),
            volatile=VOLATILE
            | {
                "enablementTime",
                "freeTrialRemainingTime",
                "operationStatus",
                "resourcesCoverageStatus",
            },
        ),
    )
}


_BY_TYPE = {collector.type.lower(): collector for collector in COLLECTORS.values()}


def share_graph(subscriptions: Iterable[str], kinds: Iterable[str]) -> SharedGraph[Resource] | None:
    """One reading of the graph for at most 1,000 subscriptions of a source; None where lists of
    ``kinds`` are as cheap."""
    types = [COLLECTORS[kind].type for kind in kinds if COLLECTORS[kind].graph]
    asked = tuple(subscriptions)
    if len(types) < FEWEST_GRAPH_KINDS or len(asked) < FEWEST_GRAPH_SUBSCRIPTIONS:
        return None
    return SharedGraph(asked, types, _from_row)


async def collect(
    api: AzureApi,
    subscription: str,
    kinds: Iterable[str],
    graph: SharedGraph[Resource] | None = None,
    needed: frozenset[str] | None = None,
) -> tuple[list[Resource], list[Covered]]:
    """Everything of ``kinds`` in the subscription, and what of it was read to the end.

    ``graph`` is one that this subscription shares, made for the same kinds; ARM is asked for what
    it does not answer. ``needed`` are the reads of the rules in force: parts that none of them
    needs are not asked for; None: all are. Never raises CloudError: a kind that ARM refuses is a
    Covered that is not ok.
    """
    collectors = [COLLECTORS[kind].narrowed(needed) for kind in kinds]
    answers: dict[str, _Answer] = {}
    if graph is None:
        may, listed = await asyncio.gather(
            _allowed(api, subscription), _lists(api, subscription, collectors)
        )
    else:
        may = await _allowed(api, subscription)
        if isinstance(may, Throttled):  # it has no breath for lists either
            graph.drop(subscription)
            return [], [_not_covered(one, reason(may)) for one in collectors]
        answers = await _from_graph(api, subscription, collectors, graph, may)
        rest = [collector for collector in collectors if collector.kind not in answers]
        listed = await _lists(api, subscription, rest)
    for one in collectors:
        if one.kind in listed:
            answers[one.kind] = _as_allowed(one, listed[one.kind], may)
    in_turn = [answers[collector.kind] for collector in collectors]
    resources = [resource for found, _ in in_turn for resource in found]
    return resources, [covered for _, covered in in_turn]


_Answer = tuple[list[Resource], Covered]
_May = Callable[[str], bool]


async def _allowed(api: AzureApi, subscription: str) -> _May | CloudError:
    """What the identity may do on the whole subscription, or why that cannot be asked."""
    try:
        return await permissions(api, subscription)
    except CloudError as error:
        return error


async def _from_graph(
    api: AzureApi,
    subscription: str,
    collectors: Sequence[Collector],
    graph: SharedGraph[Resource],
    may: _May | CloudError,
) -> dict[str, _Answer]:
    """What the graph answers of each kind that the identity may read whole.

    ARM is to be asked for the kinds that are missing, the others too: it refuses in its own words.
    """
    offered = [collector for collector in collectors if collector.graph]
    allowed = [one for one in offered if not isinstance(may, CloudError) and may(one.read)]
    if not allowed:
        graph.drop(subscription)
        return {}
    found = await graph.take(api, subscription)
    if found is None:
        return {}
    by_kind: dict[str, list[Resource]] = {collector.kind: [] for collector in offered}
    for resource in found:
        by_kind[resource.kind].append(resource)
    whole = await asyncio.gather(
        *(_with_parts(api, collector, by_kind[collector.kind]) for collector in allowed)
    )
    return {
        one.kind: (resources, Covered(EVERY_REGION, one.kind, ok=True))
        for one, resources in zip(allowed, whole, strict=True)
    }


def _as_allowed(collector: Collector, answer: _Answer, may: _May | CloudError) -> _Answer:
    """What ARM listed, as far as the identity may read it on the whole subscription.

    To one with a role on a part ARM lists what that may see, and says nothing of the rest.
    """
    resources, covered = answer
    if not covered.ok or isinstance(may, CloudError):
        return answer
    if not may(collector.read):
        return [], _not_covered(collector, _only_a_part(collector.read))
    if not collector.itself:
        return answer
    reads = {part.name: part.read(collector.type) for part in collector.parts}
    hidden = {name: _only_a_part(read) for name, read in reads.items() if not may(read)}
    if hidden and len(hidden) == len(reads):
        return [], _not_covered(collector, next(iter(hidden.values())))
    return [replace(one, config=one.config.without(hidden)) for one in resources], covered


def _only_a_part(read: str) -> str:
    return f"refused: {read} is not allowed on the whole subscription"


def _not_covered(collector: Collector, why: str) -> Covered:
    return Covered(EVERY_REGION, collector.kind, ok=False, reason=why)


async def _lists(
    api: AzureApi, subscription: str, collectors: Sequence[Collector]
) -> dict[str, _Answer]:
    """What ARM's lists give of each kind."""
    listed = await asyncio.gather(*(_collect_one(api, subscription, one) for one in collectors))
    return {one.kind: answer for one, answer in zip(collectors, listed, strict=True)}


async def _collect_one(api: AzureApi, subscription: str, collector: Collector) -> _Answer:
    path = f"/subscriptions/{subscription}"
    try:
        if collector.itself:
            resources = [await _subscription(api, path, collector)]
        else:
            resources = await _listed(api, f"{path}/providers/{collector.type}", collector)
        resources = await _with_parts(api, collector, resources)
    except CloudError as error:
        return [], _not_covered(collector, reason(error))
    return resources, Covered(EVERY_REGION, collector.kind, ok=True)


async def _listed(api: AzureApi, path: str, collector: Collector) -> list[Resource]:
    """What ARM lists of a kind, and the settings that it leaves out while nobody has made them."""
    subscription = path.split("/")[2]
    query = {"$filter": collector.filter} if collector.filter else {}
    items = [item async for item in api.items(path, collector.api_version, **query)]
    resources = [_resource(subscription, collector, item) for item in items]
    known = {one.name.lower() for one in resources}
    unmade = [name for name in collector.always if name.lower() not in known]
    return resources + [_resource(subscription, collector, _unmade(path, name)) for name in unmade]


async def _subscription(api: AzureApi, path: str, collector: Collector) -> Resource:
    """The subscription as a resource: what hangs on it are its parts."""
    item = await api.get(path, collector.api_version)
    named = {
        "id": f"{path}{collector.view}",
        "name": item.get("displayName") or path.rpartition("/")[2],
    }
    return _resource(path.rpartition("/")[2], collector, named)


def _unmade(collection: str, name: str) -> dict[str, Any]:
    """A setting as ARM would give it if it gave those that nobody has made."""
    return {"id": f"{collection}/{name}", "name": name, "properties": {}}


async def _with_parts(
    api: AzureApi, collector: Collector, resources: list[Resource]
) -> list[Resource]:
    """The resources with the parts that calls of their own read; without those gone meanwhile."""
    if not collector.parts:
        return resources
    whole = await asyncio.gather(
        *(_whole(api, collector, one) for one in resources), return_exceptions=True
    )
    found = []
    for one in whole:
        if isinstance(one, BaseException) and not isinstance(one, ResourceGone):
            raise one
        if not isinstance(one, BaseException):
            found.append(one)
    return found


async def _whole(api: AzureApi, collector: Collector, resource: Resource) -> Resource:
    """The resource with its parts; one that cannot be read is a gap. Raises ResourceGone.

    A subscription of which no part can be read has not been read, though it may be seen: anybody
    whom it was given to discover may. Raises what its first part raised.
    """
    asked = (_part(api, collector, part, resource) for part in collector.parts)
    names = (part.name for part in collector.parts)
    read = dict(zip(names, await asyncio.gather(*asked), strict=True))
    unread = {name: one for name, one in read.items() if isinstance(one, CloudError)}
    if collector.itself and unread and len(unread) == len(read):
        raise next(iter(unread.values()))
    values = {name: one for name, one in read.items() if name not in unread}
    gaps = {name: reason(one) for name, one in unread.items()}
    config = Config({**resource.config.as_dict(), **values}, {**dict(resource.config.gaps), **gaps})
    return replace(resource, config=config)


async def _part(api: AzureApi, collector: Collector, part: Part, resource: Resource) -> Any:
    """The part's value, or the CloudError that says why it could not be read."""
    if not part.where(resource.config.as_dict()):
        return part.none
    above = f"/subscriptions/{resource.account}" if collector.itself else resource.id
    path = f"{above}{part.path}"
    try:
        if part.exists:
            return await _is_any(api.items(path, part.api_version))
        if not part.many:
            return _properties(part, await api.get(path, part.api_version))
        query = {"$filter": part.filter} if part.filter else {}
        kept = _children(part, [one async for one in api.items(path, part.api_version, **query)])
        if part.each:
            asked = (_one(api, part, f"{path}/{one['name']}") for one in kept)
            there = [one for one in await asyncio.gather(*asked) if one is not None]
            kept = _children(part, there)
        return _once(settled(kept, VOLATILE))
    except ResourceGone as gone:
        if gone.code in part.absent:
            return part.none
        if collector.itself:  # a provider that is not there does not take the subscription along
            return CloudError(gone.message, code=gone.code, operation=gone.operation)
        raise
    except CloudError as error:
        return part.none if error.code in part.absent else error
    except (KeyError, TypeError, AttributeError):
        return CloudError(f"{part.path} was described in a way that Suture cannot read")


def _children(part: Part, items: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Those of a list that rules read, as they read them."""
    named = (item for item in items if not part.names or item["name"].lower() in part.names)
    children = [_child(part, item) for item in named]
    return [one for one in children if part.which(one["properties"])]


async def _one(api: AzureApi, part: Part, path: str) -> Any:
    """A child by a call of its own; None for one that is gone since it was listed."""
    try:
        return await api.get(path, part.api_version)
    except ResourceGone:
        return None


async def _is_any(items: AsyncIterator[Any]) -> bool:
    async for _ in items:
        return True
    return False


def _child(part: Part, item: Mapping[str, Any]) -> dict[str, Any]:
    child = {"name": item["name"], "properties": _properties(part, item)}
    return {**child, "location": item["location"]} if part.located else child


def _once(children: list[Any]) -> list[Any]:
    """In order as they are: what says the same is there once."""
    return [one for one, _ in itertools.groupby(children)]


def _properties(part: Part, item: Mapping[str, Any]) -> Any:
    said = settled(item["properties"], part.volatile)
    return {key: value for key, value in said.items() if key in part.only} if part.only else said


async def read_one(
    api: AzureApi,
    subscription: str,
    kind: str,
    resource_id: str,
    needed: frozenset[str] | None = None,
) -> Resource:
    """One resource as it is now. Raises ResourceGone, or another CloudError.

    ``needed`` are the reads of the parts that are asked for; None: all are.
    """
    return (await look(api, subscription, kind, resource_id, needed)).resource


async def look(
    api: AzureApi,
    subscription: str,
    kind: str,
    resource_id: str,
    needed: frozenset[str] | None = None,
) -> Seen:
    """One resource as ``read_one`` gives it, with what hangs on it. Raises as that does."""
    collector = COLLECTORS[kind].narrowed(needed)
    if collector.itself:
        whole = await _subscription(api, f"/subscriptions/{subscription}", collector)
        return Seen(await _whole(api, collector, whole))
    item = await _item(api, collector, resource_id)
    resource = _resource(subscription, collector, item)
    said = item.get("properties") or {}
    around = {part: settled(said[part], VOLATILE) for part in collector.around if part in said}
    return Seen(await _whole(api, collector, resource), around)


async def _item(api: AzureApi, collector: Collector, resource_id: str) -> dict[str, Any]:
    try:
        return await api.get(resource_id, collector.api_version)
    except ResourceGone:
        collection, _, name = resource_id.rpartition("/")
        for one in collector.always:
            if one.lower() == name.lower():
                return _unmade(collection, one)
        raise


def _from_row(subscription: str, row: dict[str, Any]) -> Resource:
    """A row of the graph, where what is not there is a column with null or nothing in it."""
    try:
        collector = _BY_TYPE[row["type"].lower()]
    except (KeyError, AttributeError):
        raise CloudError("the graph gave a row of a type it was not asked for") from None
    return _resource(
        subscription, collector, {key: part for key, part in row.items() if part not in (None, "")}
    )


def _resource(subscription: str, collector: Collector, item: Any) -> Resource:
    try:
        location = item.get("location", EVERY_REGION).lower().replace(" ", "")
        config = {
            key: settled(item[key], collector.volatile) for key in collector.keys if key in item
        }
        if "location" in config:
            config["location"] = location  # "West Europe" in some answers, westeurope in others
        if "identity" in collector.keys and not config.get("identity"):
            config["identity"] = {"type": "None"}  # which some answers say, and some leave out
        return Resource(
            cloud=Cloud.AZURE,
            account=subscription,
            region=location,
            kind=collector.kind,
            id=item["id"].lower(),
            name=item["name"],
            config=Config(config),
            tags={key: value or "" for key, value in (item.get("tags") or {}).items()},
            etag=item.get("etag", ""),
        )
    except (KeyError, TypeError, AttributeError) as error:
        problem = f"ARM described a {collector.type} that Suture cannot read: {error!r}"
        raise CloudError(problem, operation=f"GET {collector.type}") from None


def settled(value: Any, volatile: frozenset[str]) -> Any:
    """``value`` without the ``volatile`` keys and with lists of objects in order, at any depth.

    The same as model.in_order of what is left, in one pass: it runs for all that is read.
    """
    kind = type(value)
    if kind is dict:
        return {
            key: settled(part, volatile) if type(part) in _CONTAINERS and part else part
            for key, part in value.items()
            if key not in volatile
        }
    if kind is not list:
        return value
    parts = [settled(part, volatile) if type(part) in _CONTAINERS else part for part in value]
    if len(parts) > 1 and all(type(part) is dict for part in parts):
        parts.sort(key=_order)
    return parts


_CONTAINERS = frozenset({dict, list})
_canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode


def _order(part: dict[str, Any]) -> str:
    """model.canonical_json, which orjson writes alike, and faster, where all is ASCII.

    But for the exponents of very large and very small floats: ARM has none in its configurations.
    """
    text = orjson.dumps(part, option=orjson.OPT_SORT_KEYS)
    return text.decode() if text.isascii() else _canonical_json(part)


async def discover(source: AzureSource, api: AzureApi) -> list[Account]:
    """The subscriptions of a source, disabled ones too.

    One that the inventory lists but the identity does not see is still there: scanning it will
    say why it cannot be read.
    """
    seen = {
        account.id: account
        async for account in _subscriptions(source, api)
        if not source.subscriptions or account.id in source.subscriptions
    }
    for id in source.subscriptions:
        if id not in seen:
            seen[id] = Account(cloud=Cloud.AZURE, id=id, source=source.name, status="enabled")
    return list(seen.values())


async def _subscriptions(source: AzureSource, api: AzureApi) -> Any:
    async for item in api.items("/subscriptions", SUBSCRIPTIONS_API):
        try:
            yield Account(
                cloud=Cloud.AZURE,
                id=item["subscriptionId"].lower(),
                name=item.get("displayName", ""),
                source=source.name,
                status=item["state"].lower(),
                tags=item.get("tags") or {},
            )
        except (KeyError, TypeError, AttributeError):
            problem = "ARM described a subscription that Suture cannot read"
            raise CloudError(problem, operation="GET /subscriptions") from None
