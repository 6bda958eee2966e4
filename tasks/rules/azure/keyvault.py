"""Key Vault's rules: who reaches a vault, what survives a deletion, and what never expires."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tasks.model import Predicate, Resource, Rule, Severity
from tasks.rules.azure.private import endpoint_guide, has_private_endpoint
from tasks.rules.azure.setting import Home, Wanted, is_set, judged, value_at
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, odd, sequence, text

API_VERSION = "2023-07-01"
KIND = "azure.keyvault.vault"
TYPE = "Microsoft.KeyVault/vaults"
READ, WRITE = f"{TYPE}/read", f"{TYPE}/write"
LOGS = "Microsoft.Insights/diagnosticSettings"
VAULT = Home(method="PATCH", api_version=API_VERSION, action=WRITE)

PURGE, SOFT = "enablePurgeProtection", "enableSoftDelete"


# --- what passes --------------------------------------------------------------------------------


_purge_protected = is_set(VAULT, PURGE, (True,), (False,), absent=False)
_soft = is_set(VAULT, SOFT, (True,), (False,), absent=True)


def keeps_deleted(resource: Resource) -> bool:
    """A vault that says nothing of it has it on; every vault names its tenant."""
    text(value_at(resource, VAULT.part, "tenantId"), f"{VAULT.part}.tenantId")
    return bool(_soft(resource))


def is_recoverable(resource: Resource) -> bool:
    """Purge protection means nothing without soft delete."""
    return bool(_purge_protected(resource)) and keeps_deleted(resource)


def all_expire(part: str) -> Predicate:
    """The collector leaves in the part only what is enabled and never expires."""

    def passes(resource: Resource) -> bool:
        for entry in sequence(resource.config[part], part):
            inside = mapping(mapping(entry, part).get("properties"), part)
            attributes = mapping(inside.get("attributes"), f"{part}.attributes")
            if attributes.get("exp") is not None:
                raise odd(f"{part}.attributes.exp")
            return False
        return True

    return passes


def keys_rotate(resource: Resource) -> bool:
    """The collector leaves in the part only keys that are enabled and have no rotation."""
    return all(_rotates(entry) for entry in sequence(resource.config["rotation"], "rotation"))


def _rotates(entry: Any) -> bool:
    inside = mapping(mapping(entry, "rotation").get("properties"), "rotation")
    mapping(inside.get("attributes"), "rotation.attributes")
    if inside.get("rotationPolicy") is None:
        return False
    where = "rotation.rotationPolicy.lifetimeActions"
    actions = mapping(inside["rotationPolicy"], "rotation.rotationPolicy").get("lifetimeActions")
    types = []
    for one in sequence(actions if actions is not None else (), where):
        action = mapping(mapping(one, where).get("action"), where)
        types.append(text(action.get("type"), where).lower())
    return "rotate" in types


def logs_who_reads(resource: Resource) -> bool:
    """Some diagnostic setting takes the audit log, by its name or by a group that has it."""
    return any(_AUDITS & names for names in _logged(resource))


_AUDITS = {"AuditEvent", "audit", "allLogs"}


def _logged(resource: Resource) -> Iterable[set[str]]:
    part = "diagnosticSettings"
    for entry in sequence(resource.config[part], part):
        inside = mapping(mapping(entry, part).get("properties"), part)
        logs = inside.get("logs")
        for one in sequence(logs if logs is not None else (), f"{part}.logs"):
            log = mapping(one, f"{part}.logs")
            names = [log.get(name) for name in ("category", "categoryGroup")]
            known = {text(name, f"{part}.logs.category") for name in names if name is not None}
            yield known if flag(log.get("enabled"), f"{part}.logs.enabled") else set()


# --- the rows -----------------------------------------------------------------------------------


def _row(
    name: str,
    severity: Severity,
    title: str,
    wanted: tuple[Wanted, ...],
    passes: Predicate,
    aka: tuple[str, ...],
    guide: str,
    *,
    reads: tuple[str, ...] = (),
    events: tuple[str, ...] = (),
) -> Rule:
    """None wanted: it is guided only. ``reads`` and ``events`` come beside the vault's own."""
    return judged(
        f"azure_keyvault_vault_{name}",
        KIND,
        severity,
        title,
        VAULT,
        wanted,
        passes=passes,
        reads=(READ, *reads),
        events=(WRITE, *events),
        guide=guide,
        aka=aka,
        fixable=bool(wanted),
    )


def _expiring(what: str, severity: Severity, aka: tuple[str, ...], command: str) -> Rule:
    """The row of keys or of secrets."""
    one = what.removesuffix("s")
    return _row(
        f"{what}_expire",
        severity,
        f"Every {one} of the vault has an expiration date",
        (),
        all_expire(what),
        aka,
        written(
            means=f"""At least one enabled {one} of the vault has no expiration date. Suture reads
                names and dates only, by the management plane, and never what a {one} is.""",
            matters=f"""A {one} without an end is used until it leaks, and after that. A date makes
                somebody renew it, and ends those that everybody has forgotten.""",
            portal=f"""Key vaults > the vault > Objects > {what.capitalize()} > the {one} > its
                current version > Set expiration date > Apply.""",
            cli=f"""
                az keyvault {one} list --vault-name VAULT \\
                  --query "[?attributes.enabled && !attributes.expires].name"
                az keyvault {command} --vault-name VAULT --name NAME \\
                  --expires 2030-01-01T00:00:00Z""",
            terraform=f"""
                resource "azurerm_key_vault_{one}" "this" {{
                  # ...
                  expiration_date = "2030-01-01T00:00:00Z"
                }}""",
            by_hand=f"""A date is a promise that somebody renews the {one} before, and changes it
                wherever it is used. Set by a program, it is an outage with a delay.""",
            breaks=f"""Nothing at once. On the date the {one} stops working: renew it before, or
                rotate keys by the vault's own policy, and let Event Grid tell you when it
                comes near.""",
            back="Set the date again, or take it away: dates can be changed at any time.",
        ),
        reads=(f"{TYPE}/{what}/read",),
        events=(f"{TYPE}/{what}/write",),
    )


def _kept(old: Any, otherwise: Any) -> Any:
    return otherwise if old is None else old


_DEFAULT = "as Azure has it where nothing is said"
_FIREWALL = (
    Wanted(
        "networkAcls.defaultAction",
        "Deny",
        "only the networks and private endpoints that the vault names may connect; where it names "
        "none, nobody may",
        unset="Allow",
    ),
    Wanted(
        "networkAcls.bypass",
        lambda old: _kept(old, "AzureServices"),
        f"trusted Azure services, {_DEFAULT}",
        unset="AzureServices",
    ),
    Wanted("networkAcls.ipRules", lambda old: _kept(old, []), _DEFAULT, unset=[]),
    Wanted("networkAcls.virtualNetworkRules", lambda old: _kept(old, []), _DEFAULT, unset=[]),
)
# Both spellings are in use: the API's own default is written small.
_OPEN, _CLOSED = ("Enabled", "enabled"), ("Disabled", "disabled", "SecuredByPerimeter")

RULES = (
    _row(
        "purge_protection_on",
        Severity.MEDIUM,
        "Key vault cannot be purged before its time",
        (
            Wanted(SOFT, lambda old: None if old is None else True, "kept", for_good=True),
            Wanted(
                PURGE,
                True,
                "nobody can destroy what was deleted before its days are over; can never be "
                "turned off again",
                for_good=True,
            ),
        ),
        is_recoverable,
        ("prowler:keyvault_recoverable", "cis-azure-5.0:8.3.5"),
        written(
            means="""The vault has no purge protection (or, an old one, not even soft delete): what
                was deleted in it can be destroyed at once.""",
            matters="""Whoever may purge can destroy the keys that your disks and databases are
                encrypted with, and all their data with that. Storage and SQL ask for the protection
                where a key of yours encrypts them.""",
            portal="""Key vaults > the vault > Settings > Properties > Enable purge protection >
                Save.""",
            cli="""
                az keyvault update --resource-group GROUP --name VAULT \\
                  --enable-purge-protection true""",
            terraform="""
                resource "azurerm_key_vault" "this" {
                  # ...
                  purge_protection_enabled = true
                }""",
            fix="""It turns purge protection on, and soft delete with it where that is off. Both are
                for good: Azure has no way to turn them off again.""",
            breaks="""Deployments that delete a vault and make one of the same name again: the name
                is taken until the deleted vault's days (7 to 90) are over. Vaults that live for
                minutes, in tests, are better left by an exception.""",
            back="""There is none. Suture's undo leaves the protection on, and says so before the
                fix.""",
        ),
    ),
    _row(
        "soft_delete_on",
        Severity.HIGH,
        "Key vault keeps what was deleted for a while",
        (Wanted(SOFT, True, "can never be turned off again", for_good=True),),
        keeps_deleted,
        (),
        written(
            means="""Soft delete is off, which only old vaults can have: a key, secret or
                certificate that is deleted is gone. A vault that says nothing has it on.""",
            matters="""A slip or an attacker with the right to delete takes the keys of your data,
                and with them the data.""",
            portal="""Key vaults > the vault > Settings > Properties > Soft-delete > Enable recovery
                of this vault and its objects > Save.""",
            cli="""
                az resource update --ids VAULT_ID \\
                  --set properties.enableSoftDelete=true""",
            terraform="""
                resource "azurerm_key_vault" "this" {
                  # ... soft delete is always on; choose the days
                  soft_delete_retention_days = 90
                }""",
            fix="It turns soft delete on. That is for good: Azure cannot turn it off again.",
            breaks="""Deployments that delete something and make it again under the same name: the
                name is taken until the deleted thing is recovered or purged.""",
            back="""There is none. Suture's undo leaves it on, and says so before the fix.""",
        ),
    ),
    _row(
        "rbac_on",
        Severity.MEDIUM,
        "Key vault gives access by Azure roles",
        (),
        is_set(VAULT, "enableRbacAuthorization", (True,), (False,), absent=False),
        ("prowler:keyvault_rbac_enabled", "cis-azure-5.0:8.3.6"),
        written(
            means="""The vault's data is guarded by access policies of its own, not by Azure's
                roles.""",
            matters="""With access policies everybody who may write the vault (any contributor) can
                give themselves its secrets, and nobody can be given a single secret. Roles keep the
                two apart and have conditions, reviews and activation on demand.""",
            portal="""Key vaults > the vault > Access policies (write down who may do what) > Access
                control (IAM) > give the roles > Access configuration > Azure role-based access
                control > Apply.""",
            cli="""
                az keyvault show --name VAULT --query properties.accessPolicies
                az role assignment create --role "Key Vault Secrets User" \\
                  --assignee-object-id OBJECT --assignee-principal-type ServicePrincipal \\
                  --scope VAULT_ID                 # for each of them, and wait some minutes
                az keyvault update --resource-group GROUP --name VAULT \\
                  --enable-rbac-authorization true""",
            terraform="""
                resource "azurerm_key_vault" "this" {
                  # ...
                  rbac_authorization_enabled = true
                }""",
            by_hand="""The moment roles count, access policies do not: whoever has no role is shut
                out at once. And Azure lets only those change the model who may give roles away
                (roleAssignments/write); Suture's remediator must never be one of them.""",
            breaks="""Every reader of the vault that was not given a role before. Give the roles
                first, let them settle, change the model when somebody is there to watch.""",
            back="""Set the model back to access policies: they are still there, and count again at
                once.""",
        ),
    ),
    _row(
        "public_network_access_off",
        Severity.HIGH,
        "Key vault is closed to public networks",
        (
            Wanted(
                "publicNetworkAccess",
                "Disabled",
                "only private endpoints, and trusted Azure services where they may pass, reach it; "
                "its network rules do not count any more",
                unset="Enabled",
            ),
        ),
        is_set(VAULT, "publicNetworkAccess", _CLOSED, _OPEN, absent=False),
        ("cis-azure-5.0:8.3.7",),
        written(
            means="""The vault's public endpoint answers: publicNetworkAccess is Enabled, or was
                never set, which means that.""",
            matters="""A stolen token then opens the vault from anywhere. Without a public endpoint
                its thief must be in your network, too.""",
            portal="""Key vaults > the vault > Settings > Networking > Firewalls and virtual
                networks > Disable public access > Apply.""",
            cli="""
                az keyvault update --resource-group GROUP --name VAULT \\
                  --public-network-access Disabled""",
            terraform="""
                resource "azurerm_key_vault" "this" {
                  # ...
                  public_network_access_enabled = false
                }""",
            fix="It sets publicNetworkAccess to Disabled. Network rules stay, without effect.",
            breaks="""Everybody without a private endpoint of the vault is shut out at once: people
                in the portal, build agents, applications in other networks. Make the endpoints
                first, and look in the vault's audit log for who calls from where.""",
            back="""Suture's undo sets the old value; where it was never set, Enabled, which is
                what that means.""",
        ),
    ),
    _row(
        "network_default_deny",
        Severity.HIGH,
        "Key vault denies every network that it does not name",
        _FIREWALL,
        is_set(VAULT, "networkAcls.defaultAction", ("Deny",), ("Allow",), absent=False),
        (),
        written(
            means="""The vault's firewall lets every network through: its default action is Allow,
                or it has no network rules.""",
            matters="""A token or secret of a client, once stolen, then opens the vault from
                anywhere in the world.""",
            portal="""Key vaults > the vault > Settings > Networking > Firewalls and virtual
                networks > Allow public access from specific virtual networks and IP addresses > add
                yours > Apply.""",
            cli="""
                az keyvault network-rule add --resource-group GROUP --name VAULT \\
                  --ip-address 203.0.113.0/24
                az keyvault update --resource-group GROUP --name VAULT --default-action Deny""",
            terraform="""
                resource "azurerm_key_vault" "this" {
                  # ...
                  network_acls {
                    default_action = "Deny"
                    bypass         = "AzureServices"
                    ip_rules       = ["203.0.113.0/24"]
                  }
                }""",
            fix="""It sets the default action to Deny. Networks and exceptions that stand there
                already are kept; it adds none. Where the vault had no rules at all, trusted Azure
                services stay allowed, as they were.""",
            breaks="""Whoever calls from anywhere else is shut out at once. Add the networks of your
                applications, agents and people before the fix; the vault's audit log has their
                addresses.""",
            back="""Suture's undo sets Allow again; where there were no network rules, it sets
                Azure's own defaults outright.""",
        ),
    ),
    _row(
        "private_endpoint",
        Severity.MEDIUM,
        "Key vault has a private endpoint",
        (),
        has_private_endpoint,
        ("prowler:keyvault_private_endpoints", "cis-azure-5.0:8.3.8"),
        endpoint_guide("vault", "Key vaults > the vault > Settings", "vault"),
    ),
    _expiring(
        "keys",
        Severity.MEDIUM,
        (
            "prowler:keyvault_rbac_key_expiration_set",
            "prowler:keyvault_key_expiration_set_in_non_rbac",
            "cis-azure-5.0:8.3.1",
            "cis-azure-5.0:8.3.2",
        ),
        "key set-attributes",
    ),
    _expiring(
        "secrets",
        Severity.MEDIUM,
        (
            "prowler:keyvault_rbac_secret_expiration_set",
            "prowler:keyvault_non_rbac_secret_expiration_set",
            "cis-azure-5.0:8.3.3",
            "cis-azure-5.0:8.3.4",
        ),
        "secret set-attributes",
    ),
    _row(
        "keys_rotate",
        Severity.LOW,
        "Every key of the vault rotates by itself",
        (),
        keys_rotate,
        ("prowler:keyvault_key_rotation_enabled", "cis-azure-5.0:8.3.9"),
        written(
            means="""At least one enabled key of the vault has no rotation policy that makes new
                versions: none at all, or one that only tells somebody. Keys that belong to
                certificates are renewed with those, and may stand here by mistake.""",
            matters="""The older a key, the more it has encrypted and the more people have met it.
                One that rotates by itself does so before its date, without anybody's
                thinking of it.""",
            portal="""Key vaults > the vault > Objects > Keys > the key > Rotation policy > Enable
                auto rotation > Save.""",
            cli="""
                az keyvault key rotation-policy show --vault-name VAULT --name KEY
                az keyvault key rotation-policy update --vault-name VAULT --name KEY \
                  --value policy.json   # lifetimeActions with an action of type Rotate""",
            terraform="""
                resource "azurerm_key_vault_key" "this" {
                  # ...
                  rotation_policy {
                    automatic {
                      time_before_expiry = "P30D"
                    }
                    expire_after = "P1Y"
                  }
                }""",
            by_hand="""A key that is named with its version somewhere is not taken over by itself:
                what uses it goes on with the old one until that ends. And the management plane
                can only make keys, not change their policies.""",
            breaks="""Whatever names a version of the key. Services of Azure that name the key alone
                take the new version within a day; programs have to ask again.""",
            back="Take the policy off. Old versions stay, and still decrypt what they encrypted.",
        ),
        reads=(f"{TYPE}/keys/read",),
        events=(f"{TYPE}/keys/write",),
    ),
    _row(
        "audit_logged",
        Severity.MEDIUM,
        "Key vault logs who reads what",
        (),
        logs_who_reads,
        ("prowler:keyvault_logging_enabled", "cis-azure-5.0:6.1.1.4"),
        written(
            means="""No diagnostic setting of the vault takes its audit log: neither the category
                AuditEvent nor a group that has it.""",
            matters="""Without it nobody can say who read which secret, and when: after a leak you
                have to rotate everything.""",
            portal="""Key vaults > the vault > Monitoring > Diagnostic settings > Add diagnostic
                setting > audit and allLogs > Send to Log Analytics workspace > Save.""",
            cli="""
                az monitor diagnostic-settings create --name audit --resource VAULT_ID \\
                  --workspace WORKSPACE_ID \\
                  --logs '[{"categoryGroup": "audit", "enabled": true},
                           {"categoryGroup": "allLogs", "enabled": true}]'""",
            terraform="""
                resource "azurerm_monitor_diagnostic_setting" "vault" {
                  name                       = "audit"
                  target_resource_id         = azurerm_key_vault.this.id
                  log_analytics_workspace_id = azurerm_log_analytics_workspace.this.id
                  enabled_log {
                    category_group = "allLogs"
                  }
                }""",
            by_hand="""Where the logs go, for how long and who reads them is your choice, and what
                is stored is paid for. A policy (Deploy diagnostic settings for Key Vault) does it
                for all vaults at once.""",
            breaks="Nothing. A busy vault writes many lines: mind what the workspace costs.",
            back="Delete the diagnostic setting; what was logged stays for its time.",
        ),
        reads=(f"{LOGS}/read",),
        events=(f"{LOGS}/write", f"{LOGS}/delete"),
    ),
)
