"""The emulated tenant's state: directory, subscriptions, resources, access, operations, faults."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from cryptography import x509

from deployments.local.azure.operations import OperationFailure, Operations
from deployments.local.azure.protocol import ArmError
from deployments.local.azure.rbac import AccessBook, RoleDefinition, covers


@dataclass(slots=True)
class FederatedCredential:
    """Trust in tokens of one issuer for one subject. The subject can hold a secret: no repr."""

    name: str
    issuer: str
    subject: str = field(repr=False)
    audiences: tuple[str, ...] = ()
    starts: float = 0.0
    ends: float = float("inf")


@dataclass(slots=True)
class ServicePrincipal:
    """An application or a user-assigned identity: who asks Entra for tokens.

    ``secret_hashes`` are (sha256, expiry in epoch seconds): secrets themselves are not kept.
    """

    client_id: str
    object_id: str
    name: str
    secret_hashes: list[tuple[bytes, float]] = field(default_factory=list, repr=False)
    certificates: list[x509.Certificate] = field(default_factory=list, repr=False)
    federated: dict[str, FederatedCredential] = field(default_factory=dict, repr=False)
    retired: list[FederatedCredential] = field(default_factory=list, repr=False)

    def add_secret(self, secret: str, expires: float = float("inf")) -> None:
        self.secret_hashes.append((hashlib.sha256(secret.encode()).digest(), expires))

    def secret_expiry(self, secret: str) -> float | None:
        """When the presented secret expires, or None when it is not one of ours."""
        presented = hashlib.sha256(secret.encode()).digest()
        for known, expires in self.secret_hashes:
            if hmac.compare_digest(known, presented):
                return expires
        return None

    def federated_in_force(self, now: float) -> list[FederatedCredential]:
        """Credentials that have propagated, deleted ones included until that has propagated."""
        every = [*self.federated.values(), *self.retired]
        return [credential for credential in every if credential.starts <= now < credential.ends]


@dataclass(slots=True)
class ResourceGroup:
    id: str
    name: str
    location: str
    tags: dict[str, str] = field(default_factory=dict)

    def render(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "name": self.name,
            "type": "Microsoft.Resources/resourceGroups",
            "location": self.location,
            "tags": dict(self.tags),
            "properties": {"provisioningState": "Succeeded"},
        }


@dataclass(slots=True)
class Subscription:
    """One subscription; ``groups`` and ``resources`` are keyed by lower-case name and id."""

    id: str
    name: str
    state: str = "Enabled"
    groups: dict[str, ResourceGroup] = field(default_factory=dict)
    resources: dict[str, Resource] = field(default_factory=dict)


@dataclass(kw_only=True)
class Resource:
    """A tracked resource. Subclasses render what only their own provider answers."""

    id: str
    type: str
    name: str
    location: str
    tags: dict[str, str] = field(default_factory=dict)

    def render(self) -> dict[str, Any]:
        raise NotImplementedError

    def summary(self) -> dict[str, Any]:
        """The generic list's view: no properties."""
        return {
            "id": self.id,
            "name": self.name,
            "type": self.type,
            "location": self.location,
            "tags": dict(self.tags),
        }


@dataclass(frozen=True, slots=True)
class EventSubscription:
    """Which events of the activity log go where.

    ``scope`` is an ARM id, or "/" for the whole tenant; ``types`` are event types, and
    ``operations`` what ``data.operationName`` begins with, without regard to letter case.
    ``destination`` is a queue's ARM id, or the name of a webhook.
    """

    name: str
    scope: str
    destination: str
    types: tuple[str, ...]
    operations: tuple[str, ...]

    def wants(self, event: Mapping[str, Any]) -> bool:
        operation = event["data"]["operationName"].lower()
        return (
            event["eventType"] in self.types
            and covers(self.scope, event["subject"])
            and operation.startswith(tuple(one.lower() for one in self.operations))
        )


@dataclass
class _RateFault:
    every: int
    times: float
    retry_after: int
    seen: int = 0


@dataclass
class Faults:
    """What is to go wrong on purpose."""

    _rates: dict[str, _RateFault] = field(default_factory=dict)
    _operations: list[tuple[str, OperationFailure]] = field(default_factory=list)

    def throttle(
        self,
        subscription: str,
        *,
        every: int = 1,
        times: float = float("inf"),
        retry_after: int = 1,
    ) -> None:
        """Answer 429 to every Nth request on the subscription, ``times`` times (for ever)."""
        self._rates[subscription.lower()] = _RateFault(every, times, retry_after)

    def stop_throttling(self, subscription: str) -> None:
        self._rates.pop(subscription.lower(), None)

    def fail_operation(self, target: str, failure: OperationFailure | None = None) -> None:
        """Let the next asynchronous write on this id or below it end Failed."""
        self._operations.append((target.lower(), failure or OperationFailure()))

    def check_rate(self, subscription: str, actor: str) -> None:
        fault = self._rates.get(subscription)
        if fault is None:
            return
        fault.seen += 1
        if fault.seen % fault.every or fault.times <= 0:
            return
        fault.times -= 1
        raise ArmError(
            429,
            "SubscriptionRequestsThrottled",
            f"Number of requests for subscription '{subscription}' actor '{actor}' exceeded. "
            f"Please try again after '{fault.retry_after}' seconds.",
            headers={"Retry-After": str(fault.retry_after)},
        )

    def take_failure(self, target: str) -> OperationFailure | None:
        for index, (prefix, failure) in enumerate(self._operations):
            if (target + "/").startswith(prefix + "/"):
                del self._operations[index]
                return failure
        return None


@dataclass
class Tenant:
    """Everything one emulated tenant knows. All of it is touched from one event loop only.

    ``*_delay`` are propagation delays in seconds. ``roles`` is keyed by lower-case GUID. ``queues``
    are the ARM ids of the queues that there are to begin with.
    """

    id: str
    audience: str = "https://management.azure.com/"
    clock: Callable[[], float] = time.time
    page_size: int = 10
    rbac_delay: float = 0.0
    federation_delay: float = 0.0
    operations: Operations = field(init=False)
    principals: dict[str, ServicePrincipal] = field(default_factory=dict)
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    roles: dict[str, RoleDefinition] = field(default_factory=dict)
    access: AccessBook = field(default_factory=AccessBook)
    faults: Faults = field(default_factory=Faults)
    queues: list[str] = field(default_factory=list)
    event_subscriptions: list[EventSubscription] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.operations = Operations(lambda: self.clock())

    def add_principal(self, principal: ServicePrincipal) -> ServicePrincipal:
        self.principals[principal.client_id.lower()] = principal
        return principal

    def principal_of(self, object_id: str) -> ServicePrincipal | None:
        wanted = object_id.lower()
        return next((p for p in self.principals.values() if p.object_id == wanted), None)

    def add_role(self, role: RoleDefinition) -> RoleDefinition:
        self.roles[role.id.lower()] = role
        return role

    def subscription(self, subscription_id: str) -> Subscription:
        found = self.subscriptions.get(subscription_id.lower())
        if found is None:
            raise ArmError(
                404,
                "SubscriptionNotFound",
                f"The subscription '{subscription_id}' could not be found.",
            )
        return found

    def group(self, subscription_id: str, name: str) -> ResourceGroup:
        found = self.subscription(subscription_id).groups.get(name.lower())
        if found is None:
            raise ArmError(
                404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found."
            )
        return found

    def resource(self, resource_id: str) -> Resource | None:
        parts = resource_id.strip("/").split("/")
        subscription = self.subscriptions.get(parts[1].lower()) if len(parts) > 1 else None
        return subscription.resources.get(resource_id.lower()) if subscription else None

    def add_resource(self, resource: Resource) -> None:
        owner = self.subscription(resource.id.split("/")[2])
        owner.resources[resource.id.lower()] = resource

    def remove_resource(self, resource: Resource) -> None:
        owner = self.subscription(resource.id.split("/")[2])
        owner.resources.pop(resource.id.lower(), None)

    def resources(self, subscription_id: str, group: str = "", type: str = "") -> list[Resource]:
        """The resources of a subscription, narrowed to a group or a type, in the order of ids."""
        inside = f"/resourcegroups/{group.lower()}/" if group else ""
        found = self.subscription(subscription_id).resources.items()
        return [
            resource
            for key, resource in sorted(found)
            if inside in key and (not type or resource.type.lower() == type.lower())
        ]

    def every_resource(self) -> Iterator[Resource]:
        for subscription in self.subscriptions.values():
            yield from subscription.resources.values()

    def now_text(self) -> str:
        return datetime.fromtimestamp(self.clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
