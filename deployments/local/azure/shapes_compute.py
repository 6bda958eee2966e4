"""Microsoft.Compute: managed disks and virtual machines, as far as they are settings."""

from __future__ import annotations

from deployments.local.azure.plain import (
    BOOLEAN,
    LIST,
    OBJECT,
    TEXT,
    Plain,
    Shape,
    one_of,
    shape,
    whole,
)
from deployments.local.azure.protocol import ArmError, ArmRequest

_OPEN = {"networkAccessPolicy": "AllowAll", "publicNetworkAccess": "Enabled"}


def _disk(disk: Plain, _request: ArmRequest) -> None:
    """What Azure says of a disk unasked; private access is by a disk access that exists."""
    policy = disk.properties.get("networkAccessPolicy")
    if policy == "AllowPrivate" and not disk.properties.get("diskAccessId"):
        raise _bad("Required parameter 'diskAccessId' is missing (null).", "InvalidParameter")
    if policy != "AllowPrivate" and disk.properties.get("diskAccessId"):
        raise _bad("'diskAccessId' goes with the AllowPrivate policy only.", "InvalidParameter")
    disk.properties.setdefault("diskState", "Unattached")


def _machine(machine: Plain, request: ArmRequest) -> None:
    """Security types are for new machines; encryption at host for those that are deallocated."""
    given = request.body.get("properties", {})
    if request.method == "PATCH" and "securityProfile" in given:
        raise _bad(
            "Changing property 'securityProfile' is not allowed.", "PropertyChangeNotAllowed"
        )
    boot = machine.properties.get("diagnosticsProfile", {}).get("bootDiagnostics", {})
    if boot.get("storageUri") == "":
        raise _bad("The storage uri is not valid.", "InvalidParameter")


def _bad(message: str, code: str) -> ArmError:
    return ArmError(409 if code == "PropertyChangeNotAllowed" else 400, code, message)


COMPUTE = (
    Shape(
        type="Microsoft.Compute/disks",
        api_versions=("2024-03-02", "2023-10-02"),
        top={"sku": OBJECT, "zones": LIST},
        properties={
            "creationData": OBJECT,
            "diskSizeGB": whole(1, 65536),
            "osType": one_of("Windows", "Linux"),
            "hyperVGeneration": one_of("V1", "V2"),
            "encryption": OBJECT,
            "networkAccessPolicy": one_of("AllowAll", "AllowPrivate", "DenyAll"),
            "publicNetworkAccess": one_of("Enabled", "Disabled"),
            "diskAccessId": TEXT,
            "dataAccessAuthMode": TEXT,
        },
        read_only=frozenset({"diskState", "timeCreated", "uniqueId", "diskSizeBytes"}),
        defaults=_OPEN,
        after=_disk,
    ),
    Shape(
        type="Microsoft.Compute/virtualMachines",
        api_versions=("2024-07-01", "2024-03-01"),
        top={"identity": OBJECT, "zones": LIST, "plan": OBJECT},
        properties={
            "hardwareProfile": OBJECT,
            "storageProfile": shape(
                imageReference=OBJECT, osDisk=OBJECT, dataDisks=LIST, diskControllerType=TEXT
            ),
            "osProfile": OBJECT,
            "networkProfile": OBJECT,
            "securityProfile": shape(
                securityType=one_of("TrustedLaunch", "ConfidentialVM"),
                uefiSettings=shape(secureBootEnabled=BOOLEAN, vTpmEnabled=BOOLEAN),
                encryptionAtHost=BOOLEAN,
            ),
            "diagnosticsProfile": shape(bootDiagnostics=shape(enabled=BOOLEAN, storageUri=TEXT)),
            "licenseType": TEXT,
            "availabilitySet": OBJECT,
        },
        read_only=frozenset({"vmId", "timeCreated", "instanceView"}),
        etags=True,
        after=_machine,
    ),
)
