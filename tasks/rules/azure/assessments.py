"""What Defender for Cloud has found on machines: its judgement, not Suture's own."""

from __future__ import annotations

from collections.abc import Collection

from tasks.errors import MissingData
from tasks.model import Predicate, Resource, Rule, Severity
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, odd, sequence, text

TYPE = "Microsoft.Security/assessments"
_READS = (
    "Microsoft.Resources/subscriptions/read",
    f"{TYPE}/read",
    "Microsoft.Compute/virtualMachines/read",
)

# Defender's keys of what it looks for, which are the assessments' names; older ones are still met.
ENDPOINT_PROTECTION = frozenset(
    {
        "06e3a6db-6c0c-4ad9-943f-31d9d73ecf6c",
        "4fb67663-9ab9-475d-b026-8c544cced439",
        "83f577bd-a1b6-b7e1-0891-12ca19d1e6df",
    }
)
SYSTEM_UPDATES = frozenset(
    {
        "4ab6e3c5-74dd-8b35-9ab9-f61b30875b27",
        "e1145ab1-eb4f-43d8-911b-36ddf771d13f",
    }
)
ASSESSED = ENDPOINT_PROTECTION | SYSTEM_UPDATES
_CODES = {"healthy", "unhealthy", "notapplicable"}


def _finds_nothing(keys: Collection[str]) -> Predicate:
    def passes(resource: Resource) -> bool:
        """No machine is unhealthy; where there are machines, Defender must have looked at one."""
        part = "assessments"
        codes = set()
        for one in sequence(resource.config[part], part):
            assessment = mapping(one, part)
            if text(assessment.get("name"), f"{part}.name").lower() in keys:
                status = mapping(assessment.get("properties"), part).get("status")
                code = text(mapping(status, f"{part}.status").get("code"), f"{part}.status.code")
                codes.add(code.lower())
        if not codes <= _CODES:
            raise odd(f"{part}.status.code")
        if not codes and flag(resource.config["machines"], "machines"):
            raise MissingData(part, "say nothing of it: Defender for Cloud has not looked")
        return "unhealthy" not in codes

    return passes


def _row(
    name: str,
    severity: Severity,
    title: str,
    keys: Collection[str],
    aka: tuple[str, ...],
    guide: str,
) -> Rule:
    return Rule(
        id=f"azure_security_subscription_{name}",
        kind="azure.security.subscription",
        severity=severity,
        title=title,
        passes=_finds_nothing(keys),
        fix=None,
        reads=_READS,
        writes=(),
        events=(f"{TYPE}/write",),
        aka=aka,
        guide=guide,
    )


RULES = (
    _row(
        "endpoint_protection_installed",
        Severity.HIGH,
        "Every machine has endpoint protection, by what Defender finds",
        ENDPOINT_PROTECTION,
        (
            "prowler:defender_assessments_vm_endpoint_protection_installed",
            "cis-azure-5.0:8.1.3.3",
        ),
        written(
            means="""Defender for Cloud says of at least one machine of the subscription that it has
                no endpoint protection (EDR) that works. Suture repeats what Defender found; where
                there are machines, and Defender has looked at none, it says unknown.""",
            matters="""Malware on such a machine is seen when it has done its work: when files are
                encrypted, or the bill comes.""",
            portal="""Microsoft Defender for Cloud > Recommendations > EDR solution should be
                installed on Virtual Machines > the machines > Fix.""",
            cli="""
                az security assessment list --query "[?status.code=='Unhealthy' &&
                  name=='06e3a6db-6c0c-4ad9-943f-31d9d73ecf6c'].id" --output tsv
                az vm extension set --resource-group GROUP --vm-name MACHINE \\
                  --publisher Microsoft.Azure.AzureDefenderForServers --name MDE.Linux""",
            terraform="""
                resource "azurerm_security_center_setting" "mde" {
                  setting_name = "WDATP" # Defender for Servers brings it to machines by itself
                  enabled      = true
                }""",
            by_hand="""Software that watches a machine has to be chosen and licensed, and must not
                meet another of its kind there.""",
            breaks="""Two protections on one machine block each other; some databases and build
                machines need exclusions, or they become slow.""",
            back="Take the extension off the machine, or the product by its own uninstaller.",
        ),
    ),
    _row(
        "system_updates_applied",
        Severity.HIGH,
        "Every machine has its updates, by what Defender finds",
        SYSTEM_UPDATES,
        ("prowler:defender_ensure_system_updates_are_applied", "cis-azure-5.0:8.1.10"),
        written(
            means="""Defender for Cloud says of at least one machine of the subscription that
                security or critical updates of its system are missing. Suture repeats what Defender
                found; where there are machines, and Defender has looked at none, it says
                unknown.""",
            matters="""What an update closes is public from the day it comes out, and is tried
                everywhere within days.""",
            portal="""Microsoft Defender for Cloud > Recommendations > System updates should be
                installed on your machines > the machines > Fix; or Azure Update Manager > Machines
                > One-time update.""",
            cli="""
                az vm assess-patches --resource-group GROUP --name MACHINE
                az vm install-patches --resource-group GROUP --name MACHINE \\
                  --maximum-duration PT2H --reboot-setting IfRequired \\
                  --classifications-to-include-linux Critical Security""",
            terraform="""
                resource "azurerm_linux_virtual_machine" "this" {
                  # ... and a maintenance configuration that says when
                  patch_mode            = "AutomaticByPlatform"
                  patch_assessment_mode = "AutomaticByPlatform"
                }""",
            by_hand="""Updates restart machines and what runs on them. When that may be is for
                those who run it to say.""",
            breaks="""Now and then what runs on the machine: take a snapshot of its disk, and begin
                with the machines that matter least.""",
            back="""Updates of Windows can be uninstalled one by one, packages of Linux set back to
                the version before; the disk's snapshot brings back all.""",
        ),
    ),
)
