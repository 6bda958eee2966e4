"""Azure Compute's rules: disks that nobody downloads, machines that start what they should."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tasks.model import Predicate, Resource, Rule, Severity
from tasks.rules.azure.setting import Home, Wanted, is_set, judged, value_at
from tasks.rules.guide import written
from tasks.rules.shape import mapping, odd, sequence

DISKS = "Microsoft.Compute/disks"
MACHINES = "Microsoft.Compute/virtualMachines"
DISK = Home(method="PATCH", api_version="2024-03-02", action=f"{DISKS}/write")
MACHINE = Home(method="PATCH", api_version="2024-07-01", action=f"{MACHINES}/write")

POLICY, PUBLIC = "networkAccessPolicy", "publicNetworkAccess"


# --- what passes --------------------------------------------------------------------------------


_by_policy = is_set(DISK, POLICY, ("AllowPrivate", "DenyAll"), ("AllowAll",), absent=False)
_by_network = is_set(DISK, PUBLIC, ("Disabled",), ("Enabled",), absent=False)


def nobody_downloads(resource: Resource) -> bool:
    """Either setting alone keeps the internet out, as both are documented."""
    by_policy, by_network = _by_policy(resource), _by_network(resource)
    return bool(by_policy or by_network)


def uses_managed_disks(resource: Resource) -> bool:
    """A disk is managed, or a blob (vhd) in some storage account; all of a machine's count."""
    return all(_is_managed(disk) for disk in _disks(resource))


def _disks(resource: Resource) -> Iterable[Mapping[str, Any]]:
    where = "properties.storageProfile"
    profile = mapping(value_at(resource, "properties", "storageProfile"), where)
    yield mapping(profile.get("osDisk"), f"{where}.osDisk")
    data = profile.get("dataDisks")
    for one in sequence(data if data is not None else (), f"{where}.dataDisks"):
        yield mapping(one, f"{where}.dataDisks")


def _is_managed(disk: Mapping[str, Any]) -> bool:
    if disk.get("managedDisk") is not None:
        return bool(mapping(disk["managedDisk"], "managedDisk"))
    if disk.get("vhd") is not None:
        return False
    raise odd("properties.storageProfile.managedDisk")


_SECURE = ("TrustedLaunch", "ConfidentialVM")
_TRUSTED = (
    is_set(MACHINE, "securityProfile.securityType", _SECURE, ("Standard",), absent=False),
    is_set(
        MACHINE,
        "securityProfile.uefiSettings.secureBootEnabled",
        (True,),
        (False,),
        absent=False,
    ),
    is_set(MACHINE, "securityProfile.uefiSettings.vTpmEnabled", (True,), (False,), absent=False),
)


def starts_trusted(resource: Resource) -> bool:
    return all(passes(resource) for passes in _TRUSTED)


# --- the rows -----------------------------------------------------------------------------------


def _machine(
    name: str,
    severity: Severity,
    title: str,
    wanted: tuple[Wanted, ...],
    passes: Predicate,
    aka: tuple[str, ...],
    guide: str,
) -> Rule:
    """None wanted: it is guided only."""
    return judged(
        f"azure_compute_virtual_machine_{name}",
        "azure.compute.virtual_machine",
        severity,
        title,
        MACHINE,
        wanted,
        passes=passes,
        reads=(f"{MACHINES}/read",),
        guide=guide,
        aka=aka,
        events=(MACHINE.action,),
        fixable=bool(wanted),
    )


RULES = (
    judged(
        "azure_compute_disk_not_public",
        "azure.compute.disk",
        Severity.HIGH,
        "Disk cannot be downloaded over the internet",
        DISK,
        (
            Wanted(POLICY, "DenyAll", "nobody can export the disk", unset="AllowAll"),
            Wanted(PUBLIC, "Disabled", "no address of it answers the internet", unset="Enabled"),
        ),
        passes=nobody_downloads,
        reads=(f"{DISKS}/read",),
        guide=written(
            means="""Whoever is allowed to make a download link (SAS) of the disk can hand it to
                anybody: networkAccessPolicy is AllowAll and publicNetworkAccess is Enabled, or
                neither was ever set.""",
            matters="""One link carries the whole disk out, with all its data, keys and password
                hashes, past every firewall of your networks.""",
            portal="""Disks > the disk > Settings > Networking > Disable public and private access >
                Save.""",
            cli="""
                az disk update --resource-group GROUP --name DISK \\
                  --network-access-policy DenyAll --public-network-access Disabled""",
            terraform="""
                resource "azurerm_managed_disk" "this" {
                  # ...
                  network_access_policy         = "DenyAll"
                  public_network_access_enabled = false
                }""",
            fix="""It sets networkAccessPolicy to DenyAll and publicNetworkAccess to Disabled. A
                disk that is reached by private endpoints (AllowPrivate) passes and stays as it
                is.""",
            breaks="""Exports and uploads of the disk, and backup products that read disks by links
                instead of snapshots. The machine that uses the disk notices nothing and goes on
                running. Azure refuses the change while a link is in use: end that first.""",
            back="""Suture's undo sets the old values; where one was never set, AllowAll or
                Enabled, which is what that means.""",
        ),
    ),
    _machine(
        "boot_diagnostics_on",
        Severity.LOW,
        "Virtual machine keeps the log and the screen of its start",
        (
            Wanted(
                "diagnosticsProfile.bootDiagnostics.enabled",
                True,
                "the serial log and a picture of the screen are kept",
                unset=False,
            ),
        ),
        is_set(
            MACHINE, "diagnosticsProfile.bootDiagnostics.enabled", (True,), (False,), absent=False
        ),
        (),
        written(
            means="""Boot diagnostics are off: bootDiagnostics is not enabled, or was never
                set.""",
            matters="""A machine that does not come up, or that somebody tampered with, shows what
                happens only on its console. Without boot diagnostics nobody sees that, and the
                serial console stays shut.""",
            portal="""Virtual machines > the machine > Help > Boot diagnostics > Settings > Enable
                with managed storage account > Save.""",
            cli="""
                az vm boot-diagnostics enable --resource-group GROUP --name MACHINE""",
            terraform="""
                resource "azurerm_linux_virtual_machine" "this" {
                  # ...
                  boot_diagnostics {}
                }""",
            fix="""It enables boot diagnostics: in the storage account that is named there, or in
                Azure's own where none is. The machine is not restarted.""",
            breaks="""Nothing. What the machine writes to its serial port, secrets of careless
                start scripts included, can be read by those who may read the machine's
                diagnostics.""",
            back="""Suture's undo turns them off; where they were never set it says so outright,
                which means the same.""",
        ),
    ),
    _machine(
        "managed_disks",
        Severity.MEDIUM,
        "Virtual machine uses managed disks only",
        (),
        uses_managed_disks,
        ("prowler:vm_ensure_using_managed_disks",),
        written(
            means="""At least one disk of the machine, its own or a data disk, is a blob in a
                storage account and not a managed disk.""",
            matters="""Whoever has the account's key has the disk, without a trace in the machine's
                logs. Such disks are encrypted and backed up only if somebody saw to that, and Azure
                retires machines that have them.""",
            portal="""Virtual machines > the machine > Settings > Disks > Migrate to managed
                disks.""",
            cli="""
                az vm deallocate --resource-group GROUP --name MACHINE
                az vm convert --resource-group GROUP --name MACHINE
                az vm start --resource-group GROUP --name MACHINE""",
            terraform="""
                resource "azurerm_linux_virtual_machine" "this" {
                  # ... its disks are always managed
                  os_disk {
                    caching              = "ReadWrite"
                    storage_account_type = "Premium_LRS"
                  }
                }""",
            by_hand="""The machine has to stop for it, all machines of an availability set one after
                the other, and there is no way back.""",
            breaks="""The machine is down for some minutes, and gets another public address where
                that is dynamic. Backup has to be set up anew for some products.""",
            back="""There is none: the blobs stay, to be deleted when all is well, but a machine
                does not return to them. Snapshot them before.""",
        ),
    ),
    _machine(
        "trusted_launch",
        Severity.MEDIUM,
        "Virtual machine starts only what is signed",
        (),
        starts_trusted,
        ("prowler:vm_trusted_launch_enabled",),
        written(
            means="""The machine lacks trusted launch, secure boot or its virtual TPM. Confidential
                machines with both pass.""",
            matters="""A boot kit below the operating system survives every cleaning of it, unseen.
                Secure boot starts only signed code, and the TPM lets others verify what was
                started.""",
            portal="""Virtual machines > the machine > stop it > Settings > Configuration > Security
                type > Trusted launch > Secure boot and vTPM > Save > start it.""",
            cli="""
                az vm deallocate --resource-group GROUP --name MACHINE
                az vm update --resource-group GROUP --name MACHINE \\
                  --security-type TrustedLaunch --enable-secure-boot true --enable-vtpm true
                az vm start --resource-group GROUP --name MACHINE""",
            terraform="""
                resource "azurerm_linux_virtual_machine" "this" {
                  # ...
                  secure_boot_enabled = true
                  vtpm_enabled        = true
                }""",
            by_hand="""The machine has to stop for it and must be of generation 2; whether its
                drivers are signed shows only when it starts, or does not.""",
            breaks="""Machines with unsigned drivers or kernel modules do not start. Some sizes and
                features cannot have it; images of generation 1 have to be converted before.
                Take a backup of the machine, and try a copy first.""",
            back="""Secure boot and vTPM can be turned off again while the machine is deallocated;
                the security type goes back to Standard only where Azure's documentation for the
                machine says so.""",
        ),
    ),
    _machine(
        "encryption_at_host",
        Severity.MEDIUM,
        "Virtual machine is encrypted down to its host",
        (),
        is_set(MACHINE, "securityProfile.encryptionAtHost", (True,), (False,), absent=False),
        (),
        written(
            means="""Encryption at host is off. The machine's disks are encrypted where they are
                stored, but its temporary disk and the host's caches are not.""",
            matters="""Swap files and caches hold what is secret on the disks. Whoever gets at a
                host's drive reads them in the clear.""",
            portal="""Virtual machines > the machine > stop it > Settings > Disks > Additional
                settings > Encryption at host > Yes > Save > start it.""",
            cli="""
                az feature register --namespace Microsoft.Compute --name EncryptionAtHost
                az vm deallocate --resource-group GROUP --name MACHINE
                az vm update --resource-group GROUP --name MACHINE \\
                  --set securityProfile.encryptionAtHost=true
                az vm start --resource-group GROUP --name MACHINE""",
            terraform="""
                resource "azurerm_linux_virtual_machine" "this" {
                  # ...
                  encryption_at_host_enabled = true
                }""",
            by_hand="""The machine has to be deallocated for it, the subscription needs the feature
                registered, and not every size offers it.""",
            breaks="""The machine is down for some minutes; what is on its temporary disk is lost,
                as at every deallocation. Machines with Azure Disk Encryption, past or present,
                cannot have it.""",
            back="Deallocate the machine, set it to false, and start it again.",
        ),
    ),
)
