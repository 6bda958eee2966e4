"""What every simulated Azure subscription holds, as ARM shows it: the truth that tests compare to.

As for AWS: a subscription follows from its number, there are a few kinds of them, and an answer is
a template with the subscription's id (always 36 characters) put in.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any
from zlib import crc32

TENANT = "7e0a0000-5175-4000-8000-000000000001"
CLIENT_ID = "7e0a0000-5175-4000-8000-000000000002"
OBJECT_ID = "7e0a0000-5175-4000-8000-000000000003"
CLIENT_SECRET = "simulated~client~secret"

KINDS = 8
SUBSCRIPTION = "@SUBSCRIPTION@@@@@@@@@@@@@@@@@@@@@@@"  # 36 characters, as every id
GROUP_TYPE = "Microsoft.Network/networkSecurityGroups"
STORAGE_TYPE = "Microsoft.Storage/storageAccounts"
_LOCATIONS = ("westeurope", "northeurope", "germanywestcentral")
_TEAMS = ("payments", "search", "platform", "data")


@dataclass(frozen=True, slots=True)
class AzureFleet:
    """How many subscriptions there are, what each holds, and how long a page of a list is."""

    subscriptions: int
    groups: int = 20
    storage_accounts: int = 5
    page: int = 100

    def index_of(self, subscription: str) -> int:
        """The number of a subscription; -1 for one that is not of this fleet."""
        head, _, tail = subscription.rpartition("-")
        known = head == _HEAD and len(tail) == 12 and tail.isdecimal()
        return int(tail) if known and int(tail) < self.subscriptions else -1


_HEAD = "50000000-0000-4000-8000"


def subscription_id(index: int) -> str:
    return f"{_HEAD}-{index:012}"


def kind_of(subscription: str) -> int:
    return crc32(subscription.encode()) % KINDS


def subscription(index: int) -> dict[str, Any]:
    """One value of GET /subscriptions."""
    id = subscription_id(index)
    return {
        "id": f"/subscriptions/{id}",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": id,
        "tenantId": TENANT,
        "displayName": f"subscription-{index:06}",
        "state": "Enabled",
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "EnterpriseAgreement_2014-09-01",
            "spendingLimit": "Off",
        },
    }


# --- Security groups -----------------------------------------------------------------------------

# (name, description, priority, direction, access, from, to): what Azure adds to every group.
_VNET = "VirtualNetwork"
_DEFAULTS = (
    ("AllowVnetInBound", "Allow inbound traffic from all VMs in VNET",
     65000, "Inbound", "Allow", _VNET, _VNET),
    ("AllowAzureLoadBalancerInBound", "Allow inbound traffic from azure load balancer",
     65001, "Inbound", "Allow", "AzureLoadBalancer", "*"),
    ("DenyAllInBound", "Deny all inbound traffic", 65500, "Inbound", "Deny", "*", "*"),
    ("AllowVnetOutBound", "Allow outbound traffic from all VMs to all VMs in VNET",
     65000, "Outbound", "Allow", _VNET, _VNET),
    ("AllowInternetOutBound", "Allow outbound traffic from all VMs to Internet",
     65001, "Outbound", "Allow", "*", "Internet"),
    ("DenyAllOutBound", "Deny all outbound traffic", 65500, "Outbound", "Deny", "*", "*"),
)  # fmt: skip
# (name, protocol, port or ports, source or sources): about one in three is open to the world.
_RULES: tuple[tuple[str, str, str | list[str], str | list[str]], ...] = (
    ("ssh-office", "Tcp", "22", "10.0.0.0/8"),
    ("ssh-any", "Tcp", "22", "*"),
    ("rdp-any", "Tcp", "3389", "Internet"),
    ("https", "Tcp", "443", "*"),
    ("web", "Tcp", ["80", "443"], "*"),
    ("wide", "*", "*", "0.0.0.0/0"),
    ("database", "Tcp", "5432", ["10.1.0.0/16", "10.2.0.0/16"]),
    ("range", "Tcp", "20-30", "*"),
)
_PLURALS = (
    "sourcePortRanges",
    "destinationPortRanges",
    "sourceAddressPrefixes",
    "destinationAddressPrefixes",
)


def security_groups(
    fleet: AzureFleet, subscription: str, kind: int | None = None
) -> list[dict[str, Any]]:
    """The values of the list, ordered by id. ``kind`` is given where SUBSCRIPTION is no id."""
    kind = kind_of(subscription) if kind is None else kind
    random = Random(f"azure groups {kind}")
    return [_group(subscription, index, kind, random) for index in range(fleet.groups)]


def _group(subscription: str, index: int, kind: int, random: Random) -> dict[str, Any]:
    name = f"nsg-{index:04}"
    id = _id(subscription, index, GROUP_TYPE, name)
    etag = f'W/"00000000-0000-4000-8000-{kind:04}{index:08}"'
    rules = random.sample(_RULES, random.randrange(4))
    return {
        "name": name,
        "id": id,
        "etag": etag,
        "type": GROUP_TYPE,
        "location": random.choice(_LOCATIONS),
        "tags": {"owner": random.choice(_TEAMS)} if random.random() < 0.6 else {},
        "properties": {
            "provisioningState": "Succeeded",
            "resourceGuid": f"00000000-0000-4000-8001-{kind:04}{index:08}",
            "securityRules": [
                _rule(id, etag, 100 + 10 * place, *rule) for place, rule in enumerate(rules)
            ],
            "defaultSecurityRules": [_default_rule(id, etag, *rule) for rule in _DEFAULTS],
        },
    }


def _rule(
    group: str,
    etag: str,
    priority: int,
    name: str,
    protocol: str,
    ports: str | list[str],
    sources: str | list[str],
) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "provisioningState": "Succeeded",
        "protocol": protocol,
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "access": "Allow",
        "priority": priority,
        "direction": "Inbound",
        **{name: [] for name in _PLURALS},
    }
    for value, one, many in (
        (ports, "destinationPortRange", "destinationPortRanges"),
        (sources, "sourceAddressPrefix", "sourceAddressPrefixes"),
    ):
        properties[one if isinstance(value, str) else many] = value
    return {
        "name": name,
        "id": f"{group}/securityRules/{name}",
        "etag": etag,
        "type": f"{GROUP_TYPE}/securityRules",
        "properties": properties,
    }


def _default_rule(
    group: str,
    etag: str,
    name: str,
    description: str,
    priority: int,
    direction: str,
    access: str,
    source: str,
    destination: str,
) -> dict[str, Any]:
    return {
        "name": name,
        "id": f"{group}/defaultSecurityRules/{name}",
        "etag": etag,
        "type": f"{GROUP_TYPE}/defaultSecurityRules",
        "properties": {
            "provisioningState": "Succeeded",
            "description": description,
            "protocol": "*",
            "sourcePortRange": "*",
            "destinationPortRange": "*",
            "sourceAddressPrefix": source,
            "destinationAddressPrefix": destination,
            "access": access,
            "priority": priority,
            "direction": direction,
            **{name: [] for name in _PLURALS},
        },
    }


def _id(subscription: str, index: int, type: str, name: str) -> str:
    group = f"rg-{index // 10:03}"
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{type}/{name}"


# --- Storage accounts ----------------------------------------------------------------------------


def storage_accounts(
    fleet: AzureFleet, subscription: str, kind: int | None = None
) -> list[dict[str, Any]]:
    """The values of the list, ordered by id."""
    kind = kind_of(subscription) if kind is None else kind
    random = Random(f"azure storage {kind}")
    return [
        _storage_account(subscription, index, random) for index in range(fleet.storage_accounts)
    ]


def _storage_account(subscription: str, index: int, random: Random) -> dict[str, Any]:
    name = f"store{index:05}"
    location = random.choice(_LOCATIONS)
    created = "2023-05-14T08:30:00.0000000Z"
    return {
        "sku": {"name": "Standard_LRS", "tier": "Standard"},
        "kind": "StorageV2",
        "id": _id(subscription, index, STORAGE_TYPE, name),
        "name": name,
        "type": STORAGE_TYPE,
        "location": location,
        "tags": {"owner": random.choice(_TEAMS)} if random.random() < 0.6 else {},
        "properties": {
            "keyCreationTime": {"key1": created, "key2": created},
            "privateEndpointConnections": [],
            "supportsHttpsTrafficOnly": random.random() < 0.8,
            "allowBlobPublicAccess": random.random() < 0.2,
            "allowSharedKeyAccess": random.random() < 0.5,
            "minimumTlsVersion": random.choice(("TLS1_2", "TLS1_2", "TLS1_0")),
            "publicNetworkAccess": random.choice(("Enabled", "Disabled")),
            "networkAcls": {
                "bypass": "AzureServices",
                "virtualNetworkRules": [],
                "ipRules": [],
                "defaultAction": random.choice(("Allow", "Deny")),
            },
            "encryption": {
                "services": {
                    service: {"keyType": "Account", "enabled": True, "lastEnabledTime": created}
                    for service in ("file", "blob")
                },
                "keySource": "Microsoft.Storage",
            },
            "accessTier": "Hot",
            "provisioningState": "Succeeded",
            "creationTime": created,
            "primaryEndpoints": {
                service: f"https://{name}.{service}.core.windows.net/"
                for service in ("blob", "dfs", "file", "queue", "table", "web")
            },
            "primaryLocation": location,
            "statusOfPrimary": "available",
        },
    }


# --- Resource Graph ------------------------------------------------------------------------------


def graph_row(item: dict[str, Any]) -> dict[str, Any]:
    """A row of Resource Graph's table "resources" for an item of a list."""
    parts = item["id"].split("/")
    return {
        "id": item["id"],
        "name": item["name"],
        "type": item["type"].lower(),
        "tenantId": TENANT,
        "kind": item.get("kind", ""),
        "location": item["location"],
        "resourceGroup": parts[4],
        "subscriptionId": parts[2],
        "managedBy": "",
        "sku": item.get("sku"),
        "plan": None,
        "properties": item["properties"],
        "tags": item["tags"] or None,
        "identity": None,
        "zones": None,
        "extendedLocation": None,
        "etag": item.get("etag", ""),
    }
