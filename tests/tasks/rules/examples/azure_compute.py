"""Azure Compute's rules: examples, what ARM makes of their calls, and how to plant them."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

DISKS, MACHINES = "2024-03-02", "2024-07-01"


class Refused(Exception):
    """The simulated API's error."""


def apply(config: dict[str, Any], call: Call) -> None:
    assert call.service == (DISKS if "/disks/" in call.target else MACHINES)
    assert call.operation == "PATCH"
    assert call.target.endswith("/acme")
    for name, value in call.params["properties"].items():
        if value is None:
            raise Refused("what null does is not documented")
        if name == "securityProfile":
            raise Refused("PropertyChangeNotAllowed")
        config["properties"][name] = copy.deepcopy(value)


def plant_disk(cloud: Any, config: Mapping[str, Any]) -> str:
    body = {"location": "westeurope", "sku": SKU, "properties": config["properties"]}
    return str(cloud.put(f"Microsoft.Compute/disks/{_name()}", DISKS, body))


def plant_machine(cloud: Any, config: Mapping[str, Any]) -> str:
    body = {"location": "westeurope", "properties": config["properties"]}
    return str(cloud.put(f"Microsoft.Compute/virtualMachines/{_name()}", MACHINES, body))


def _name() -> str:
    return f"planted{uuid.uuid4().hex[:16]}"


SKU = {"name": "Premium_LRS"}


def disk(**properties: Any) -> dict[str, Any]:
    size = {"creationData": {"createOption": "Empty"}, "diskSizeGB": 32}
    return {"name": "acme", "location": "westeurope", "properties": {**size, **properties}}


def machine(*data: dict[str, Any], os: Any = None, **profiles: Any) -> dict[str, Any]:
    system = {"osType": "Linux", "createOption": "FromImage", **(os or MANAGED)}
    return {
        "name": "acme",
        "location": "westeurope",
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
            "storageProfile": {"osDisk": system, "dataDisks": list(data)},
            **profiles,
        },
    }


MANAGED = {"managedDisk": {"storageAccountType": "Premium_LRS"}}
EPHEMERAL = {**MANAGED, "diffDiskSettings": {"option": "Local"}}
BLOB = {"vhd": {"uri": "https://acme.blob.core.windows.net/vhds/os.vhd"}}


def boot(**settings: Any) -> dict[str, Any]:
    return machine(diagnosticsProfile={"bootDiagnostics": settings})


def launch(type: str | None, **settings: bool) -> dict[str, Any]:
    named = {} if type is None else {"securityType": type}
    return machine(securityProfile={**named, "uefiSettings": settings})


BOTH = {"secureBootEnabled": True, "vTpmEnabled": True}
ACCOUNT = {"storageUri": "https://acme.blob.core.windows.net/"}
OWN = "properties"
RULE = "azure_compute_virtual_machine_"
EXAMPLES: dict[str, Any] = {
    "azure_compute_disk_not_public": (
        [
            disk(networkAccessPolicy="DenyAll", publicNetworkAccess="Disabled"),
            disk(networkAccessPolicy="AllowAll", publicNetworkAccess="Disabled"),
            disk(networkAccessPolicy="DenyAll", publicNetworkAccess="Enabled"),
            disk(networkAccessPolicy="AllowPrivate", diskAccessId="/subscriptions/s/access"),
        ],
        [
            disk(networkAccessPolicy="AllowAll", publicNetworkAccess="Enabled"),
            disk(networkAccessPolicy="AllowAll"),
            disk(),
        ],
        OWN,
    ),
    f"{RULE}boot_diagnostics_on": (
        [boot(enabled=True), boot(enabled=True, **ACCOUNT)],
        [
            machine(),
            boot(enabled=False),
            boot(enabled=False, **ACCOUNT),
            machine(diagnosticsProfile={}),
        ],
        OWN,
    ),
    f"{RULE}managed_disks": (
        [machine(), machine({"lun": 0, **MANAGED}), machine(os=EPHEMERAL)],
        [machine(os=BLOB), machine({"lun": 0, **MANAGED}, {"lun": 1, **BLOB})],
        OWN,
    ),
    f"{RULE}trusted_launch": (
        [launch("TrustedLaunch", **BOTH), launch("ConfidentialVM", **BOTH)],
        [
            machine(),
            launch("TrustedLaunch", secureBootEnabled=False, vTpmEnabled=True),
            launch("TrustedLaunch"),
            launch(None, **BOTH),
        ],
        OWN,
    ),
    f"{RULE}encryption_at_host": (
        [machine(securityProfile={"encryptionAtHost": True})],
        [machine(), machine(securityProfile={"encryptionAtHost": False})],
        OWN,
    ),
}
PREFIX = "/subscriptions/s/resourcegroups/rg/providers/microsoft.compute"
KINDS: dict[str, Any] = {
    "azure.compute.disk": {
        "id": f"{PREFIX}/disks/acme",
        "apply": apply,
        "plant": plant_disk,
    },
    "azure.compute.virtual_machine": {
        "id": f"{PREFIX}/virtualmachines/acme",
        "apply": apply,
        "plant": plant_machine,
    },
}
