"""Plants a tenant by seed: subscriptions, resources, identities, and the truth a scan must find.

The truth comes from the tables below, where every variant names the rules it breaks; nothing here
evaluates a rule.
"""

from __future__ import annotations

import copy
import random
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from deployments.local.azure.event_grid import prefixes
from deployments.local.azure.identity import IDENTITY_TYPE, UserAssignedIdentity
from deployments.local.azure.network import GROUP_TYPE, SecurityGroup, check_conflicts, checked_rule
from deployments.local.azure.rbac import (
    BUILT_IN,
    OWNER,
    QUEUE_PROCESSOR,
    QUEUE_READER,
    QUEUE_SENDER,
    RoleAssignment,
    RoleDefinition,
)
from deployments.local.azure.storage import ACCOUNT_TYPE, StorageAccount, default_properties
from deployments.local.azure.tenant import (
    EventSubscription,
    ResourceGroup,
    ServicePrincipal,
    Subscription,
    Tenant,
)
from deployments.local.exposed import exposed_services
from deployments.templates import remediator_permissions, scanner_permissions
from tasks.model import Cloud
from tasks.rules import RULES

ANY_PORT = "azure_network_security_group_any_port_not_open"
HTTPS_ONLY = "azure_storage_account_https_only"
PUBLIC_BLOBS = "azure_storage_account_public_blob_access_off"
MINIMUM_TLS = "azure_storage_account_minimum_tls"

EVENT_QUEUE, POISON_QUEUE = "suture-events", "suture-events-poison"
# What the event subscriptions let through: what changed something.
EVENT_TYPES = tuple(
    f"Microsoft.Resources.Resource{word}Success" for word in ("Write", "Delete", "Action")
)

LOCATIONS = ("germanywestcentral", "westeurope")
ENVIRONMENTS = ("prod", "staging", "dev")
OWNERS = ("platform", "payments", "data", "web")
# Too few subscriptions to lose two of them to faults.
FEWEST_WITH_FAILURES = 5


def _rule(
    name: str,
    priority: int,
    ports: str | list[str],
    source: str | list[str] = "*",
    access: str = "Allow",
    protocol: str = "Tcp",
    direction: str = "Inbound",
    destination: str = "*",
    source_port: str = "*",
) -> tuple[str, dict[str, Any]]:
    """One security rule; a list goes to the plural field."""
    properties = {
        "protocol": protocol,
        "sourcePortRange": source_port,
        ("destinationPortRanges" if isinstance(ports, list) else "destinationPortRange"): ports,
        ("sourceAddressPrefixes" if isinstance(source, list) else "sourceAddressPrefix"): source,
        "destinationAddressPrefix": destination,
        "access": access,
        "priority": priority,
        "direction": direction,
    }
    return name, properties


def _deny(name: str, priority: int, ports: str | list[str], **other: Any) -> Any:
    return _rule(name, priority, ports, access="Deny", **other)


@dataclass(frozen=True)
class _Group:
    """A security group to plant: its rules, and the rules of the rule table it breaks."""

    name: str
    rules: tuple[tuple[str, dict[str, Any]], ...]
    breaks: frozenset[str] = frozenset()


def _group(
    name: str,
    *rules: Any,
    opens: Sequence[tuple[str, int, int]] = (),
    any_port: bool = False,
) -> _Group:
    """``opens`` are the ports that the whole internet may enter, by protocol, first and last."""
    services = exposed_services(opens, azure=True)
    breaks = {f"azure_network_security_group_{one}_not_open" for one in services}
    return _Group(name, rules, frozenset(breaks | ({ANY_PORT} if any_port else set())))


GROUPS = (
    # Open, one way each.
    _group("ssh-star", _rule("AllowSsh", 100, "22"), opens=[("tcp", 22, 22)]),
    _group(
        "ssh-internet",
        _rule("Allow_22", 110, "22", "Internet", protocol="TCP"),
        opens=[("tcp", 22, 22)],
    ),
    _group("rdp-ipv4", _rule("AllowRdp", 120, "3389", "0.0.0.0/0"), opens=[("tcp", 3389, 3389)]),
    _group(
        "rdp-ipv6",
        _rule("AllowRdp6", 120, "3389", "::/0", protocol="*"),
        opens=[("-1", 3389, 3389)],
    ),
    _group(
        "ssh-beside-legitimate",
        _rule("AllowAdmins", 200, "22", ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.0/24"]),
        opens=[("tcp", 22, 22)],
    ),
    _group(
        "rdp-beside-legitimate6",
        _rule("AllowAdmins", 200, "3389", ["2001:db8::/32", "::/0"]),
        opens=[("tcp", 3389, 3389)],
    ),
    _group(
        "ssh-in-range",
        _rule("AllowLegacy", 300, ["20-30", "443"], "Internet"),
        opens=[("tcp", 20, 30), ("tcp", 443, 443)],
    ),
    _group(
        "both-in-lists",
        _rule("AllowTools", 300, ["22", "3300-3400"], "*", protocol="*"),
        opens=[("-1", 22, 22), ("-1", 3300, 3400)],
    ),
    _group(
        "all-ports",
        _rule("AllowAll", 400, "*", "*", protocol="*"),
        opens=[("-1", 0, 65535)],
        any_port=True,
    ),
    _group(
        "all-ports-range",
        _rule("AllowAllRange", 400, "0-65535", "Internet", protocol="tcp"),
        opens=[("tcp", 0, 65535)],
        any_port=True,
    ),
    _group(
        "ssh-to-one-host",
        _rule("AllowBastion", 150, "22", "*", destination="10.1.0.4/32"),
        opens=[("tcp", 22, 22)],
    ),
    # Denied, but not wholly or not in time: still open.
    _group(
        "deny-comes-later",
        _rule("AllowSsh", 100, "22", "*"),
        _deny("DenySsh", 200, "22"),
        opens=[("tcp", 22, 22)],
    ),
    _group(
        "deny-other-protocol",
        _deny("DenyUdp", 100, "22", protocol="Udp"),
        _rule("AllowSsh", 200, "22", "Internet"),
        opens=[("tcp", 22, 22)],
    ),
    _group(
        "deny-some-sources",
        _deny("DenyPartner", 100, "3389", source="203.0.113.0/24"),
        _rule("AllowRdp", 200, "3389", "*"),
        opens=[("tcp", 3389, 3389)],
    ),
    _group(
        "deny-some-ports",
        _deny("DenySsh", 100, "22"),
        _rule("AllowRange", 200, "20-4000", "*"),
        opens=[("tcp", 20, 21), ("tcp", 23, 4000)],
    ),
    _group(
        "deny-some-hosts",
        _deny("DenyOneSubnet", 100, "22", destination="10.2.0.0/16"),
        _rule("AllowSsh", 200, "22", "*"),
        opens=[("tcp", 22, 22)],
    ),
    _group(
        "deny-some-source-ports",
        _deny("DenyOddPort", 100, "3389", source_port="53"),
        _rule("AllowRdp", 200, "3389", "*"),
        opens=[("tcp", 3389, 3389)],
    ),
    _group(
        "deny-one-family",
        _deny("DenyIpv6", 100, "22", source="::/0"),
        _rule("AllowSsh", 200, "22", "*"),
        opens=[("tcp", 22, 22)],
    ),
    # Denied wholly by a rule above: closed.
    _group("shadowed-ssh", _deny("DenySsh", 100, "22"), _rule("AllowSsh", 200, "22", "Internet")),
    _group(
        "shadowed-all",
        _deny("DenyEverything", 100, "*", protocol="*"),
        _rule("AllowAll", 4096, "*", "*", protocol="*"),
    ),
    _group(
        "shadowed-by-range",
        _deny("DenyAdminPorts", 100, ["20-25", "3380-3400"]),
        _rule("AllowAdmin", 200, ["22", "3389"], "0.0.0.0/0"),
    ),
    # Closed for other reasons.
    _group("https-only", _rule("AllowHttps", 100, "443", "Internet"), opens=[("tcp", 443, 443)]),
    _group(
        "web-range",
        _rule("AllowWeb", 100, ["80", "443", "8000-8100"], "*", protocol="TCP"),
        opens=[("tcp", 80, 80), ("tcp", 443, 443), ("tcp", 8000, 8100)],
    ),
    _group("office-only", _rule("AllowOffice", 100, ["22", "3389"], ["198.51.100.0/24"])),
    _group("private-any", _rule("AllowPrivate", 100, "*", "10.0.0.0/8", protocol="*")),
    _group("vnet-tag", _rule("AllowVnet", 100, "22", "VirtualNetwork")),
    _group("balancer-tag", _rule("AllowProbes", 100, "*", "AzureLoadBalancer", protocol="*")),
    _group("outbound-only", _rule("AllowOut", 100, "22", "*", direction="Outbound")),
    _group("udp-ssh", _rule("AllowUdp22", 100, "22", "*", protocol="Udp"), opens=[("udp", 22, 22)]),
    _group("no-rules"),
    _group(
        "range-beside",
        _rule("AllowBeside", 100, ["23-3388", "3390-4000"], "Internet"),
        opens=[("tcp", 23, 3388), ("tcp", 3390, 4000)],
    ),
)


@dataclass(frozen=True)
class _Account:
    """A storage account to plant: what differs from a good one (None: not there at all)."""

    differs: dict[str, Any] = field(default_factory=dict)
    breaks: frozenset[str] = frozenset()


def _account(breaks: tuple[str, ...] = (), **differs: Any) -> _Account:
    return _Account(differs, frozenset(breaks))


PLAIN_HTTP = _account((HTTPS_ONLY,), supportsHttpsTrafficOnly=False)
ACCOUNTS = (
    _account(),
    PLAIN_HTTP,
    _account((PUBLIC_BLOBS,), allowBlobPublicAccess=True),
    _account((MINIMUM_TLS,), minimumTlsVersion="TLS1_0"),
    _account((MINIMUM_TLS,), minimumTlsVersion="TLS1_1"),
    _account((MINIMUM_TLS,), minimumTlsVersion=None),
    _account(minimumTlsVersion="TLS1_3"),
    _account(allowSharedKeyAccess=False, publicNetworkAccess="Disabled"),
    _account(
        (HTTPS_ONLY, PUBLIC_BLOBS, MINIMUM_TLS),
        supportsHttpsTrafficOnly=False,
        allowBlobPublicAccess=True,
        minimumTlsVersion=None,
    ),
)


@dataclass
class Seeded:
    """A planted tenant. ``description`` holds credentials: keep it out of logs."""

    tenant: Tenant
    description: dict[str, Any] = field(repr=False)
    truth: list[dict[str, str]]
    failing: dict[str, str]


def seed_tenant(subscriptions: int, seed: int, failing: bool = True, plain_http: int = 0) -> Seeded:
    """Plant ``subscriptions`` live subscriptions and a disabled one, the same for the same seed.

    Only the two client secrets differ from run to run. ``plain_http`` storage accounts more in each
    live subscription take plain HTTP, and are good otherwise; what else is planted stays the same.
    """
    if subscriptions < 1:
        raise ValueError("a tenant needs at least one subscription")
    return _Seeder(subscriptions, seed, failing).plant(plain_http)


class _Seeder:
    def __init__(self, subscriptions: int, seed: int, failing: bool) -> None:
        self._random = random.Random(f"azure-{seed}")  # noqa: S311 - repeatable on purpose
        self._count = subscriptions
        self._failing = failing and subscriptions >= FEWEST_WITH_FAILURES
        self._tenant = Tenant(self._uuid())
        self._truth: list[dict[str, str]] = []
        # Each variant comes up once before any comes up again.
        self._groups = self._shuffled(GROUPS)
        self._accounts = self._shuffled(ACCOUNTS)
        self._planted_groups = self._planted_accounts = 0

    def plant(self, plain_http: int) -> Seeded:
        for role in BUILT_IN:
            self._tenant.add_role(role)
        live = [self._subscription(f"sub-{n:03}") for n in range(1, self._count + 1)]
        disabled = self._subscription("sub-closed", state="Disabled")
        for subscription in (*live, disabled):
            self._fill(subscription)
        failing = self._fail_two(live) if self._failing else {}
        description = self._people(live, disabled, failing)
        for subscription in live:
            group = next(iter(subscription.groups.values()))
            for _ in range(plain_http):
                self._storage_account(subscription, group, PLAIN_HTTP)
        skipped = {*failing, disabled.id}
        return Seeded(
            self._tenant,
            description,
            [finding for finding in self._truth if finding["account"] not in skipped],
            failing,
        )

    def _subscription(self, name: str, state: str = "Enabled") -> Subscription:
        subscription = Subscription(self._uuid(), name, state)
        self._tenant.subscriptions[subscription.id] = subscription
        return subscription

    def _fill(self, subscription: Subscription) -> None:
        groups = [
            self._resource_group(subscription, name)
            for name in ("rg-Platform", "rg-apps")[: self._random.randint(1, 2)]
        ]
        for _ in range(self._random.randint(3, 5)):
            self._security_group(subscription, self._random.choice(groups))
        for _ in range(self._random.randint(1, 3)):
            variant = self._accounts[self._planted_accounts % len(self._accounts)]
            self._storage_account(subscription, self._random.choice(groups), variant)

    def _resource_group(self, subscription: Subscription, name: str) -> ResourceGroup:
        group = ResourceGroup(
            f"/subscriptions/{subscription.id}/resourceGroups/{name}",
            name,
            self._random.choice(LOCATIONS),
            self._tags(),
        )
        subscription.groups[name.lower()] = group
        return group

    def _security_group(self, subscription: Subscription, group: ResourceGroup) -> None:
        variant = self._groups[self._planted_groups % len(self._groups)]
        self._planted_groups += 1
        name = f"NSG-{variant.name}-{self._planted_groups:04}"
        planted = SecurityGroup(
            id=f"{group.id}/providers/{GROUP_TYPE}/{name}",
            name=name,
            location=self._random.choice(LOCATIONS),
            tags=self._tags(),
            guid=self._uuid(),
            etag=f'W/"{self._uuid()}"',
            rules={n.lower(): (n, checked_rule(n, given)) for n, given in variant.rules},
        )
        check_conflicts(planted.rules)
        self._tenant.add_resource(planted)
        self._note(subscription, planted.location, planted.id, variant.breaks)

    def _storage_account(
        self, subscription: Subscription, group: ResourceGroup, variant: _Account
    ) -> None:
        self._planted_accounts += 1
        name = f"st{self._planted_accounts:04}{self._random.randrange(16**8):08x}"
        good = default_properties() | {"minimumTlsVersion": "TLS1_2"}
        properties = good | copy.deepcopy(variant.differs)
        planted = StorageAccount(
            id=f"{group.id}/providers/{ACCOUNT_TYPE}/{name}",
            name=name,
            location=self._random.choice(LOCATIONS),
            tags=self._tags(),
            properties={key: value for key, value in properties.items() if value is not None},
        )
        self._tenant.add_resource(planted)
        self._note(subscription, planted.location, planted.id, variant.breaks)

    def _note(
        self, subscription: Subscription, location: str, resource: str, breaks: frozenset[str]
    ) -> None:
        self._truth += [
            {
                "cloud": "azure",
                "account": subscription.id,
                "region": location,
                "rule": rule,
                "resource": resource.lower(),
            }
            for rule in sorted(breaks)
        ]

    def _fail_two(self, live: list[Subscription]) -> dict[str, str]:
        """One refuses the scanner, one throttles everybody; never the first: it has the gate."""
        refused, throttled = self._random.sample(live[1:], 2)
        self._tenant.faults.throttle(throttled.id)
        return {refused.id: "refused", throttled.id: "throttled"}

    def _people(
        self, live: list[Subscription], disabled: Subscription, failing: dict[str, str]
    ) -> dict[str, Any]:
        """Scanner, remediator and customer, with their roles; the description of it all."""
        every = [*live, disabled]
        scanner, scanner_secret = self._application("suture-scanner")
        customer, customer_secret = self._application("customer-admin")
        remediator_role = self._custom_role(
            "Suture Remediator", remediator_permissions(Cloud.AZURE), every
        )
        # Not Reader: that may read federated credentials, and an open gate's code is in one.
        scanner_role = self._custom_role("Suture Scanner", scanner_permissions(Cloud.AZURE), every)
        # Enough to be discovered, not enough to be read: how a missing role shows.
        discovery_role = self._custom_role(
            "Subscription Lister", ("Microsoft.Resources/subscriptions/read",), every
        )
        for subscription in every:
            refused = failing.get(subscription.id) == "refused"
            self._assign(subscription, scanner, discovery_role if refused else scanner_role)
            self._assign(subscription, customer, OWNER)
        home = live[0]
        remediator = self._identity(home)
        gate_id = self._uuid()
        queues = self._event_queues(home, scanner, every)
        return {
            "subscriptions": [{"id": s.id, "name": s.name, "state": s.state} for s in every],
            "scanner": {"client_id": scanner.client_id, "client_secret": scanner_secret},
            "remediator": {
                "client_id": remediator.principal.client_id,
                "principal_id": remediator.principal.object_id,
                "resource_id": remediator.id,
            },
            "remediator_role_definition_id": f"/subscriptions/{home.id}/providers"
            f"/Microsoft.Authorization/roleDefinitions/{remediator_role.id}",
            "gate_id": gate_id,
            "customer": {"client_id": customer.client_id, "client_secret": customer_secret},
            "event_queue": queues[0],
            "event_dead_letter_queue": queues[1],
        }

    def _event_queues(
        self, home: Subscription, scanner: ServicePrincipal, every: list[Subscription]
    ) -> list[str]:
        """The queues that events come by and that take the unreadable ones, as they stand in URLs:
        "/<account>/<queue>". All subscriptions' events come to the one account.
        """
        group = home.groups["rg-suture"]
        name = f"stsuture{self._random.randrange(16**8):08x}"
        account = StorageAccount(
            id=f"{group.id}/providers/{ACCOUNT_TYPE}/{name}",
            name=name,
            location=group.location,
            tags=self._tags(),
            properties=default_properties()
            | {"minimumTlsVersion": "TLS1_2", "allowSharedKeyAccess": False},
        )
        self._tenant.add_resource(account)
        named = {
            one: f"{account.id}/queueServices/default/queues/{one}"
            for one in (EVENT_QUEUE, POISON_QUEUE)
        }
        self._tenant.queues += named.values()
        for queue, role in (
            (EVENT_QUEUE, QUEUE_PROCESSOR),
            (EVENT_QUEUE, QUEUE_READER),  # how full it is: no role for messages tells
            (POISON_QUEUE, QUEUE_SENDER),
        ):
            self._tenant.access.assign(
                RoleAssignment(self._uuid(), named[queue], scanner.object_id, role)
            )
        wanted = prefixes(
            operation for row in RULES if row.cloud is Cloud.AZURE for operation in row.events
        )
        self._tenant.event_subscriptions += [
            EventSubscription(
                EVENT_QUEUE, f"/subscriptions/{one.id}", named[EVENT_QUEUE], EVENT_TYPES, wanted
            )
            for one in every
        ]
        return [f"/{name}/{queue}" for queue in named]

    def _application(self, name: str) -> tuple[ServicePrincipal, str]:
        principal = self._tenant.add_principal(ServicePrincipal(self._uuid(), self._uuid(), name))
        secret = secrets.token_urlsafe(30)
        principal.add_secret(secret)
        return principal, secret

    def _identity(self, home: Subscription) -> UserAssignedIdentity:
        group = self._resource_group(home, "rg-Suture")
        name = "id-Suture-remediator"
        principal = self._tenant.add_principal(ServicePrincipal(self._uuid(), self._uuid(), name))
        identity = UserAssignedIdentity(
            id=f"{group.id}/providers/{IDENTITY_TYPE}/{name}",
            name=name,
            location=group.location,
            tags=self._tags(),
            tenant_id=self._tenant.id,
            principal=principal,
        )
        self._tenant.add_resource(identity)
        return identity

    def _custom_role(
        self, name: str, actions: Sequence[str], where: list[Subscription]
    ) -> RoleDefinition:
        return self._tenant.add_role(
            RoleDefinition(
                id=self._uuid(),
                name=name,
                description="",
                actions=tuple(actions),
                assignable_scopes=tuple(f"/subscriptions/{s.id}" for s in where),
            )
        )

    def _assign(
        self, subscription: Subscription, principal: ServicePrincipal, role: RoleDefinition
    ) -> None:
        scope = f"/subscriptions/{subscription.id}"
        self._tenant.access.assign(RoleAssignment(self._uuid(), scope, principal.object_id, role))

    def _tags(self) -> dict[str, str]:
        return {
            "env": self._random.choice(ENVIRONMENTS),
            "owner": self._random.choice(OWNERS),
        }

    def _shuffled(self, variants: Any) -> list[Any]:
        return self._random.sample(variants, len(variants))

    def _uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))
