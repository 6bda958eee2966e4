"""Defender for Cloud's rules: which of its plans are on. A plan is a resource of a subscription."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call, Change, Cloud, Fix, Predicate, Resource, Rule, Severity, Step
from tasks.rules.azure.setting import PROPERTIES, value_at
from tasks.rules.guide import written
from tasks.rules.shape import mapping, odd, text

API_VERSION = "2024-01-01"
READ = "Microsoft.Security/pricings/read"
WRITE = "Microsoft.Security/pricings/write"
_WRITABLE = ("pricingTier", "subPlan", "extensions", "enforce")


def _tier(resource: Resource) -> str:
    tier = text(value_at(resource, PROPERTIES, "pricingTier"), "properties.pricingTier")
    if tier not in {"Free", "Standard"}:
        raise odd("properties.pricingTier")
    return tier


def _plan_of(resource: Resource) -> str:
    return text(resource.config["name"], "name").lower()


def plan_is_on(plan: str) -> Predicate:
    """The plan of that name is paid for. Every other plan passes: it has a rule of its own."""

    def passes(resource: Resource) -> bool:
        return _tier(resource) == "Standard" or _plan_of(resource) != plan.lower()

    return passes


def turn_on(passes: Predicate, variant: str) -> Fix:
    """A planner: the plan is bought, as ``variant`` where it is sold in several.

    Azure's own choice of extensions comes with it.
    """
    wanted = {"pricingTier": "Standard", **({"subPlan": variant} if variant else {})}

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        if passes(resource):
            return ()
        own = mapping(resource.config[PROPERTIES], PROPERTIES)
        old = {name: own[name] for name in _WRITABLE if own.get(name) is not None}
        enforced = {"enforce": old["enforce"]} if "enforce" in old else {}
        bought = f"Standard{f' ({variant})' if variant else ''}: costs money from the first hour"
        return (
            Step(
                WRITE,
                _put(resource, wanted | enforced),
                (_put(resource, old),),
                (Change("properties.pricingTier", "Free", bought),),
            ),
        )

    return fix


def _put(resource: Resource, properties: Mapping[str, Any]) -> Call:
    return Call(Cloud.AZURE, API_VERSION, "PUT", {"properties": dict(properties)}, resource.id)


def _plan(
    name: str,
    plan: str,
    what: str,
    matters: str,
    price: str,
    aka: tuple[str, ...],
    *,
    severity: Severity = Severity.MEDIUM,
    variant: str = "",
) -> Rule:
    """The row of one plan. ``what`` it watches, ``price`` is what it is paid by."""
    passes = plan_is_on(plan)
    sub_plan = f" --subplan {variant}" if variant else ""
    chosen = f'\n  subplan       = "{variant}"' if variant else ""
    return Rule(
        id=f"azure_security_pricing_{name}_on",
        kind="azure.security.pricing",
        severity=severity,
        title=f"Defender for Cloud watches {what}",
        passes=passes,
        fix=turn_on(passes, variant),
        reads=(READ,),
        writes=(WRITE,),
        events=(WRITE,),
        aka=aka,
        guide=written(
            means=f"""The subscription has Defender's plan {plan} in the tier Free: nothing of it
                watches {what}. Each plan is a resource of the subscription, and each has a rule of
                its own.""",
            matters=matters,
            portal=f"""Microsoft Defender for Cloud > Environment settings > the subscription >
                Defender plans > {plan} > On > Save.""",
            cli=f"az security pricing create --name {plan} --tier Standard{sub_plan}",
            terraform=f"""
resource "azurerm_security_center_subscription_pricing" "this" {{
  resource_type = "{plan}"
  tier          = "Standard"{chosen}
}}""",
            fix=f"""It sets the plan's tier to Standard, with the extensions that Azure turns on by
                itself. This costs money: the plan is paid by {price}, for everything in the
                subscription, from the first hour. Look at the price before you approve.""",
            breaks="""Nothing stops working. Some plans put agents on machines or policies on
                clusters, and alerts go to the security contact from then on.""",
            back="""Suture's undo sets the tier back to Free, and nothing more is charged from then
                on. What was charged stays; alerts that were raised stay for their time.""",
        ),
    )


RULES = (
    _plan(
        "servers",
        "VirtualMachines",
        "virtual machines",
        """A machine that was taken over mines, sends spam, or is the way to the next one. The plan
        sees processes, sign-ins and known holes that nobody looks at otherwise.""",
        "machine and hour",
        ("prowler:defender_ensure_defender_for_server_is_on", "cis-azure-5.0:8.1.3.1"),
        severity=Severity.HIGH,
        variant="P2",
    ),
    _plan(
        "app_services",
        "AppServices",
        "App Service",
        """It sees attacks on sites that look like any other request to their own logs: scanners,
        shells that somebody has uploaded, names that point to a site that is gone.""",
        "instance and hour",
        ("prowler:defender_ensure_defender_for_app_services_is_on", "cis-azure-5.0:8.1.6.1"),
    ),
    _plan(
        "sql_databases",
        "SqlServers",
        "Azure SQL databases",
        """Injected queries, guessed passwords and exports at an odd hour show in how a database is
        asked, not in the app in front of it. The plan looks at that, and at weak settings.""",
        "logical server and month",
        ("prowler:defender_ensure_defender_for_azure_sql_databases_is_on", "cis-azure-5.0:8.1.7.3"),
        severity=Severity.HIGH,
    ),
    _plan(
        "sql_on_machines",
        "SqlServerVirtualMachines",
        "SQL servers on machines",
        """A SQL Server on a machine of its own is seldom patched as soon as Azure's are, and is
        attacked the same way. The plan watches its queries and its settings.""",
        "SQL Server instance and hour",
        ("prowler:defender_ensure_defender_for_sql_servers_is_on", "cis-azure-5.0:8.1.7.4"),
        severity=Severity.HIGH,
    ),
    _plan(
        "open_source_databases",
        "OpenSourceRelationalDatabases",
        "PostgreSQL, MySQL and MariaDB",
        """Passwords of these databases are guessed all day where their ports are open. The plan
        says when somebody guesses, and when somebody has guessed right.""",
        "server and hour",
        (
            "prowler:defender_ensure_defender_for_os_relational_databases_is_on",
            "cis-azure-5.0:8.1.7.2",
        ),
    ),
    _plan(
        "cosmos_db",
        "CosmosDbs",
        "Cosmos DB",
        """Keys of a Cosmos DB account open all of it, from anywhere. The plan sees keys that are
        listed or used in a way they never were, and queries that were injected.""",
        "the accounts' request units",
        ("prowler:defender_ensure_defender_for_cosmosdb_is_on", "cis-azure-5.0:8.1.7.1"),
    ),
    _plan(
        "storage",
        "StorageAccounts",
        "storage accounts",
        """Stolen keys, containers that were made public, and files with malware in them are seen
        by how an account is used, which its own settings do not tell.""",
        "storage account and month, and by volume where malware is looked for",
        ("prowler:defender_ensure_defender_for_storage_is_on", "cis-azure-5.0:8.1.5.1"),
        severity=Severity.HIGH,
        variant="DefenderForStorageV2",
    ),
    _plan(
        "containers",
        "Containers",
        "containers and their registries",
        """Images bring known holes with them, and a container that breaks out has the node. The
        plan looks through registries and watches clusters while they run.""",
        "core of the clusters and hour",
        ("prowler:defender_ensure_defender_for_containers_is_on", "cis-azure-5.0:8.1.4.1"),
        severity=Severity.HIGH,
    ),
    _plan(
        "key_vaults",
        "KeyVaults",
        "key vaults",
        """Whoever reads a vault has the keys to all else. The plan says when one is read from an
        odd place, by somebody new, or all of it at once.""",
        "vault and month",
        ("prowler:defender_ensure_defender_for_keyvault_is_on", "cis-azure-5.0:8.1.8.1"),
        severity=Severity.HIGH,
    ),
    _plan(
        "resource_manager",
        "Arm",
        "Azure Resource Manager",
        """With a stolen sign-in, an attacker first asks what there is, then gives himself roles.
        Both go through Resource Manager, where this plan looks.""",
        "subscription and month",
        ("prowler:defender_ensure_defender_for_arm_is_on", "cis-azure-5.0:8.1.9.1"),
        severity=Severity.HIGH,
    ),
    _plan(
        "apis",
        "Api",
        "APIs in API Management",
        """Whoever calls an API with somebody else's token, or asks for one record after another,
        looks like a customer to the gateway. The plan sees which calls are unlike the others.""",
        "subscription and month in its smallest variant, P1, and by calls above a million",
        ("cis-azure-5.0:8.1.2.1",),
        variant="P1",
    ),
    _plan(
        "posture",
        "CloudPosture",
        "how weaknesses add up (CSPM)",
        """A small hole here and a role too many there make a way through. The plan puts them
        together as attack paths, and looks into disks without an agent.""",
        "machine, storage account and database, and month",
        ("prowler:defender_ensure_defender_cspm_is_on", "cis-azure-5.0:8.1.1.1"),
    ),
)
