"""Azure Storage's rules: the account's own settings, and those of its blob and file services."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Predicate, Resource, Rule, Severity, Step, Unknown
from tasks.rules.azure.private import endpoint_guide, has_private_endpoint
from tasks.rules.azure.setting import Home, Wanted, is_set, judged, setting, value_at
from tasks.rules.guide import guide, written
from tasks.rules.shape import flag, mapping, number, odd, sequence, text

API_VERSION = "2023-05-01"
KIND = "azure.storage.account"
TYPE = "Microsoft.Storage/storageAccounts"
READ, WRITE = f"{TYPE}/read", f"{TYPE}/write"

ACCOUNT = Home(method="PATCH", api_version=API_VERSION, action=WRITE)
BLOBS = Home(
    method="PUT",
    api_version=API_VERSION,
    action=f"{TYPE}/blobServices/write",
    part="blobServices",
    path="/blobServices/default",
    optional=True,
)
FILES = Home(
    method="PUT",
    api_version=API_VERSION,
    action=f"{TYPE}/fileServices/write",
    part="fileServices",
    path="/fileServices/default",
    optional=True,
)
CONTAINERS = f"{TYPE}/blobServices/containers"

READS = {
    ACCOUNT: (READ,),
    BLOBS: (READ, f"{TYPE}/blobServices/read"),
    FILES: (READ, f"{TYPE}/fileServices/read"),
}
EVENTS = {ACCOUNT: (WRITE,), BLOBS: (WRITE, BLOBS.action), FILES: (WRITE, FILES.action)}
DAYS = 7


# --- what passes --------------------------------------------------------------------------------


def trusts_azure_services(resource: Resource) -> bool:
    """``bypass`` is a list in one text; ARM always says it, so that absence tells nothing."""
    return "AzureServices" in _words(value_at(resource, "properties", BYPASS), BYPASS)


def _words(value: Any, path: str) -> list[str]:
    words = [one.strip() for one in text(value, f"properties.{path}").split(",")]
    if not {*words} <= {"None", "Logging", "Metrics", "AzureServices"}:
        raise odd(f"properties.{path}")
    return words


def reminds_of_keys(resource: Resource) -> bool:
    days = value_at(resource, "properties", EXPIRY)
    return days is not None and 0 < number(days, f"properties.{EXPIRY}") <= MOST_DAYS


def encrypts_twice(resource: Resource) -> bool:
    path = "encryption.requireInfrastructureEncryption"
    twice = value_at(resource, "properties", path)
    return twice is not None and flag(twice, f"properties.{path}")


def is_geo_redundant(resource: Resource) -> bool:
    sku = text(value_at(resource, "sku", "name"), "sku.name")
    how = sku.partition("_")[2]
    if how not in {"LRS", "ZRS", *_GEO}:
        raise odd("sku.name")
    return how in _GEO


_GEO = {"GRS", "RAGRS", "GZRS", "RAGZRS"}


def keeps_versions(resource: Resource) -> bool | Unknown:
    """Accounts with a hierarchical namespace cannot, and pass."""
    name = "isHnsEnabled"
    versions = _versioning(resource)
    hierarchical = value_at(resource, "properties", name)
    if hierarchical is None or not flag(hierarchical, f"properties.{name}"):
        return versions
    return True


_versioning = is_set(BLOBS, "isVersioningEnabled", (True,), (False,), absent=False)


def takes_only(path: str, strong: set[str], weak: set[str]) -> Predicate:
    """Of a list in one text, whose absence means all: nothing weak is taken."""

    def passes(resource: Resource) -> bool:
        if FILES.lacks(resource):
            return True
        where = f"{FILES.part}.{path}"
        value = value_at(resource, FILES.part, path)
        if value is None or value == "":
            return False
        taken = {one.strip() for one in text(value, where).split(";")} - {""}
        if not taken or not taken <= strong | weak:
            raise odd(where)
        return taken <= strong

    return passes


def no_public_container(resource: Resource) -> bool:
    """Where the account forbids anonymous access, what a container says has no effect."""
    return not list(_public(resource)) or not _may_be_public(resource)


def _may_be_public(resource: Resource) -> bool:
    name = "allowBlobPublicAccess"
    value = value_at(resource, "properties", name)
    return value is None or flag(value, f"properties.{name}")


def _public(resource: Resource) -> Iterable[tuple[str, str]]:
    """(name, what of it is public); the part has no other containers."""
    part = "containers"
    listed = resource.config[part]
    for entry in sequence(listed if listed is not None else (), part):
        one = mapping(entry, part)
        access = mapping(one.get("properties"), part).get("publicAccess")
        if access not in ("Blob", "Container"):
            raise odd(f"{part}.publicAccess")
        yield text(one.get("name"), f"{part}.name"), str(access)


# --- what is set --------------------------------------------------------------------------------

BYPASS = "networkAcls.bypass"
EXPIRY = "keyPolicy.keyExpirationPeriodInDays"
MOST_DAYS = 90


def _with_azure_services(old: Any) -> str:
    return ", ".join([*(one for one in _words(old, BYPASS) if one != "None"), "AzureServices"])


def _keys_have_dates(resource: Resource) -> None:
    """Azure takes no expiration before it knows how old both keys are."""
    made = value_at(resource, "properties", "keyCreationTime")
    ages = mapping(made if made is not None else {}, "properties.keyCreationTime")
    if not ages.get("key1") or not ages.get("key2"):
        raise BadInput(
            "keyCreationTime",
            "is not known for both keys: Azure sets no expiration before each was rotated once.",
            "Rotate key1 and key2 once, their users with them; then apply the fix.",
        )


def _can_keep_versions(resource: Resource) -> None:
    if resource.config.get("kind") == "Storage":
        raise BadInput(
            "kind",
            "is general-purpose v1, which keeps no versions.",
            "Upgrade the account to general-purpose v2 first; that cannot be taken back.",
        )


def _close_containers(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    if no_public_container(resource):
        return ()
    return tuple(_closed(resource, name, access) for name, access in _public(resource))


def _closed(resource: Resource, name: str, access: str) -> Step:
    target = f"{resource.id}/blobServices/default/containers/{name}"

    def call(value: str) -> Call:
        body = {"properties": {"publicAccess": value}}
        return Call(Cloud.AZURE, API_VERSION, "PATCH", body, target)

    what = {"Blob": "Blob: its blobs", "Container": "Container: its blobs and their list"}[access]
    before = f"{what} can be read by everybody"
    change = Change(f"container {name}: publicAccess", before, "None: only with credentials")
    return Step(f"{CONTAINERS}/write", call("None"), (call(access),), (change,))


# --- the rows -----------------------------------------------------------------------------------


def _own(
    name: str,
    severity: Severity,
    title: str,
    path: str,
    good: tuple[Any, ...],
    bad: tuple[Any, ...],
    meaning: str,
    aka: tuple[str, ...],
    *,
    absent: bool | None = False,
    unset: Any = None,
    guide_text: str = "",
) -> Rule:
    """The row of one property of the account; without ``guide_text`` its guide is a file."""
    rule_id = f"azure_storage_account_{name}"
    return setting(
        rule_id,
        KIND,
        severity,
        title,
        ACCOUNT,
        path,
        good=good,
        bad=bad,
        meaning=meaning,
        reads=READS[ACCOUNT],
        guide=guide_text or guide(rule_id),
        absent=absent,
        unset=unset,
        aka=aka,
    )


def _judged(
    name: str,
    severity: Severity,
    title: str,
    home: Home,
    wanted: tuple[Wanted, ...],
    passes: Predicate,
    aka: tuple[str, ...],
    guide_text: str,
    refuses: Callable[[Resource], None] = lambda _resource: None,
) -> Rule:
    """The row of settings that a predicate of its own judges; none wanted: it is guided only."""
    return judged(
        f"azure_storage_account_{name}",
        KIND,
        severity,
        title,
        home,
        wanted,
        passes=passes,
        reads=READS[home],
        events=EVENTS[home],
        guide=guide_text,
        aka=aka,
        fixable=bool(wanted),
        refuses=refuses,
    )


def _soft_delete(
    name: str,
    title: str,
    home: Home,
    policy: str,
    aka: tuple[str, ...],
    *,
    what: str,
    option: str,
    portal: str,
    terraform: str,
) -> Rule:
    """The row of one thing that is kept for a while after its deletion."""
    keep = f"deleted {what} can be brought back"
    service = "blob" if home is BLOBS else "file"
    return _judged(
        name,
        Severity.MEDIUM,
        title,
        home,
        (
            Wanted(f"{policy}.enabled", True, keep, unset=False),
            Wanted(f"{policy}.days", lambda old: DAYS if old is None else old, "that many days"),
        ),
        is_set(home, f"{policy}.enabled", (True,), (False,), absent=False),
        aka,
        written(
            means=f"""Soft delete of {what} is off: the account's {service} service has no
                {policy} that is enabled. Kinds of accounts without that service pass.""",
            matters=f"""A slip, a script gone wrong or an attacker who deletes {what} is final at
                once. With soft delete they can be brought back for some days.""",
            portal=f"""Storage accounts > the account > Data management > Data protection >
                {portal}.""",
            cli=f"""
                az storage account {service}-service-properties update \\
                  --resource-group GROUP --account-name ACCOUNT {option}""",
            terraform=terraform,
            fix=f"""It enables {policy}, with the days that stand there, or {DAYS} where none do.
                The service's other settings are sent along as they were.""",
            breaks=f"""Nothing stops working. What is deleted is kept, and paid for, until its days
                are over. Raise the days where a slip may stay unseen for longer, and turn on the
                account's lock as well: with the account itself, its deleted {what} go, too.""",
            back="""Suture's undo turns it off again; where it was never set, it says so outright,
                which means the same. What was deleted meanwhile stays until its days are over.""",
        ),
    )


def _smb(
    name: str,
    title: str,
    field: str,
    good: str,
    weak: tuple[str, ...],
    aka: tuple[str, ...],
    *,
    option: str,
    attribute: str,
    portal: str,
    means: str,
    matters: str,
    breaks: str,
) -> Rule:
    """The row of one list of what SMB clients of the file shares may use."""
    path = f"protocolSettings.smb.{field}"
    every = ";".join((*weak, good))
    return _judged(
        name,
        Severity.MEDIUM,
        title,
        FILES,
        (Wanted(path, good, "nothing older or weaker is taken", unset=every),),
        takes_only(path, {good}, {*weak}),
        aka,
        written(
            means=f"""{means} Where nothing is set, all are taken: {every}. Kinds of accounts
                without file shares pass.""",
            matters=matters,
            portal=f"""Storage accounts > the account > Data storage > File shares > Security >
                Custom > {portal} > Save.""",
            cli=f"""
                az storage account file-service-properties update \\
                  --resource-group GROUP --account-name ACCOUNT \\
                  {option} {good}""",
            terraform=f"""
                resource "azurerm_storage_account" "this" {{
                  # ...
                  share_properties {{
                    smb {{
                      {attribute} = ["{good}"]
                    }}
                  }}
                }}""",
            fix=f"""It sets {path} of the file service to {good}. The service's other settings are
                sent along as they were.""",
            breaks=breaks,
            back="""Suture's undo sets the old list. Where it was never set, it sets the list of
                all, which is what that means.""",
        ),
    )


NETWORK_BREAKS = """Whoever connects from anywhere else is shut out at once: people in the portal,
    build agents, other clouds. Look through the account's resource logs for callers first, and
    add their networks or private endpoints before the fix."""

RULES = (
    _own(
        "https_only",
        Severity.HIGH,
        "Storage account takes HTTPS only",
        "supportsHttpsTrafficOnly",
        (True,),
        (False,),
        "requests over plain HTTP are refused",
        aka=(
            "prowler:storage_secure_transfer_required_is_enabled",
            "cis-azure-5.0:9.3.4",
            "cloudsploit:storageAccountsHttps",
        ),
        absent=None,  # the default was false before API version 2019-04-01 and true since
    ),
    _own(
        "public_blob_access_off",
        Severity.HIGH,
        "Storage account lets nobody read blobs anonymously",
        "allowBlobPublicAccess",
        (False,),
        (True,),
        "no container can be read without credentials",
        aka=("prowler:storage_blob_public_access_level_is_disabled", "cis-azure-5.0:9.3.8"),
        unset=True,  # it is an account from before Azure turned the default round, in 2023
    ),
    _own(
        "minimum_tls",
        Severity.MEDIUM,
        "Storage account asks for TLS 1.2 or newer",
        "minimumTlsVersion",
        ("TLS1_2", "TLS1_3"),
        ("TLS1_0", "TLS1_1"),
        "clients that speak only TLS 1.0 or 1.1 are refused",
        aka=(
            "prowler:storage_ensure_minimum_tls_version_12",
            "cis-azure-5.0:9.3.6",
            "cloudsploit:storageAccountsTlsVersion",
        ),
        unset="TLS1_0",  # the documented default
    ),
    _own(
        "network_default_deny",
        Severity.HIGH,
        "Storage account denies every network that it does not name",
        "networkAcls.defaultAction",
        ("Deny",),
        ("Allow",),
        "only the networks, instances and private endpoints that the account names may connect; "
        "where it names none, nobody may",
        aka=(
            "prowler:storage_default_network_access_rule_is_denied",
            "cis-azure-5.0:9.3.2.3",
            "cloudsploit:networkAccessDefaultAction",
        ),
        unset="Allow",
        guide_text=written(
            means="""The account's firewall lets every network through: the default action of its
                network rules is Allow, or there are none.""",
            matters="""A leaked key or SAS token then works from anywhere in the world. Behind the
                firewall it works only from the networks that you name.""",
            portal="""Storage accounts > the account > Security + networking > Networking > Public
                access > Enabled from selected networks > add your networks > Save.""",
            cli="""
                az storage account network-rule add --resource-group GROUP \\
                  --account-name ACCOUNT --ip-address 203.0.113.0/24
                az storage account update --resource-group GROUP --name ACCOUNT \\
                  --default-action Deny""",
            terraform="""
                resource "azurerm_storage_account_network_rules" "this" {
                  storage_account_id = azurerm_storage_account.this.id
                  default_action     = "Deny"
                  bypass             = ["AzureServices"]
                  ip_rules           = ["203.0.113.0/24"]
                }""",
            fix="""It sets the default action to Deny. Networks, virtual networks and exceptions
                for Azure's services that stand there already are kept as they are; it adds
                none.""",
            breaks=NETWORK_BREAKS,
            back="""Suture's undo sets Allow again, with the network rules as they were. It takes
                effect within a minute.""",
        ),
    ),
    _own(
        "public_network_access_off",
        Severity.HIGH,
        "Storage account is closed to public networks",
        "publicNetworkAccess",
        ("Disabled", "SecuredByPerimeter"),
        ("Enabled",),
        "only private endpoints reach the account; its network rules do not count any more",
        aka=(
            "prowler:storage_account_public_network_access_disabled",
            "cis-azure-5.0:9.3.2.2",
        ),
        unset="Enabled",
        guide_text=written(
            means="""The account's public endpoint answers: publicNetworkAccess is Enabled, or was
                never set, which means that. An account in a network security perimeter passes.""",
            matters="""Data that is meant for a few of your own networks needs no address that the
                whole internet can knock at.""",
            portal="""Storage accounts > the account > Security + networking > Networking > Public
                network access > Disabled > Save.""",
            cli="""
                az storage account update --resource-group GROUP --name ACCOUNT \\
                  --public-network-access Disabled""",
            terraform="""
                resource "azurerm_storage_account" "this" {
                  # ...
                  public_network_access_enabled = false
                }""",
            fix="It sets publicNetworkAccess to Disabled. The network rules stay, without effect.",
            breaks="""Everybody without a private endpoint of the account is shut out at once, and
                so are virtual networks with a service endpoint. Without any private endpoint only
                trusted Azure services still get in: make the endpoints first.""",
            back="""Suture's undo sets the old value; where it was never set, Enabled, which is
                what that means.""",
        ),
    ),
    _own(
        "shared_key_access_off",
        Severity.MEDIUM,
        "Storage account takes no shared keys",
        "allowSharedKeyAccess",
        (False,),
        (True,),
        "requests signed with an account key, and SAS tokens made with one, are refused",
        aka=("prowler:storage_account_key_access_disabled", "cis-azure-5.0:9.3.1.3"),
        unset=True,
        guide_text=written(
            means="""Requests that are signed with one of the account's two keys are taken. That is
                so when allowSharedKeyAccess is true, and when it was never set.""",
            matters="""A key opens all of the account, is shared by all its users, names none of
                them in the logs, and is good until somebody rotates it. Entra's identities can be
                given little, watched, and taken away.""",
            portal="""Storage accounts > the account > Settings > Configuration > Allow storage
                account key access > Disabled > Save.""",
            cli="""
                az storage account update --resource-group GROUP --name ACCOUNT \\
                  --allow-shared-key-access false""",
            terraform="""
                resource "azurerm_storage_account" "this" {
                  # ...
                  shared_access_key_enabled = false
                }
                # and in the provider's block: storage_use_azuread = true""",
            fix="It sets allowSharedKeyAccess to false. The keys themselves stay.",
            breaks="""Clients with a connection string or a key, service and account SAS tokens,
                SMB shares mounted with the key, and services that keep their own data by key (some
                plans of Functions and Logic Apps, boot diagnostics, Cloud Shell). The resource
                logs say of each request how it was authorized: look for AccountKey and SAS
                first.""",
            back="""Suture's undo sets true again, also where it was never set, which means that.
                Keys and tokens then work as before.""",
        ),
    ),
    _own(
        "entra_authorization_by_default",
        Severity.LOW,
        "Storage account asks the portal for Entra authorization by default",
        "defaultToOAuthAuthentication",
        (True,),
        (False,),
        "the portal opens its data with the user's own rights, not with the account key",
        aka=(
            "prowler:storage_default_to_entra_authorization_enabled",
            "cis-azure-5.0:9.3.3.1",
        ),
        unset=False,
        guide_text=written(
            means="""The portal opens the account's data with the account key by default:
                defaultToOAuthAuthentication is false, or was never set.""",
            matters="""With the key, everybody who may list keys reads and changes everything, and
                the logs do not say who. With Entra each has the rights that were given, under a
                name.""",
            portal="""Storage accounts > the account > Settings > Configuration > Default to
                Microsoft Entra authorization in the Azure portal > Enabled > Save.""",
            cli="""
                az rest --method patch \\
                  --uri "ACCOUNT_ID?api-version=2023-05-01" \\
                  --body '{"properties": {"defaultToOAuthAuthentication": true}}'""",
            terraform="""
                resource "azurerm_storage_account" "this" {
                  # ...
                  default_to_oauth_authentication = true
                }""",
            fix="It sets defaultToOAuthAuthentication to true.",
            breaks="""Programs notice nothing. People without a data role (such as Storage Blob
                Data Reader) see a refusal in the portal until they switch to the key by hand.""",
            back="""Suture's undo sets the old value; where it was never set, false, which is what
                that means.""",
        ),
    ),
    _own(
        "cross_tenant_replication_off",
        Severity.MEDIUM,
        "Storage account replicates nothing to other tenants",
        "allowCrossTenantReplication",
        (False,),
        (True,),
        "no replication policy can name an account of another Entra tenant",
        aka=("prowler:storage_cross_tenant_replication_disabled", "cis-azure-5.0:9.3.7"),
        unset=True,
        guide_text=written(
            means="""Object replication from or to accounts of other Entra tenants is allowed. On
                accounts from before December 2023 that is so when it was never set.""",
            matters="""Whoever may write replication policies here can have blobs copied, silently
                and for ever, to an account that your organization does not own.""",
            portal="""Storage accounts > the account > Data management > Object replication >
                Advanced settings > Allow cross-tenant replication: off > OK.""",
            cli="""
                az storage account update --resource-group GROUP --name ACCOUNT \\
                  --allow-cross-tenant-replication false""",
            terraform="""
                resource "azurerm_storage_account" "this" {
                  # ...
                  cross_tenant_replication_enabled = false
                }""",
            fix="It sets allowCrossTenantReplication to false.",
            breaks="""Nothing inside your tenant. Azure refuses the change while a policy with
                another tenant is in use: look at the policies, and remove those that nobody
                wants.""",
            back="""Suture's undo sets the old value; where it was never set, true, which is what
                that means on such an account.""",
        ),
    ),
    _judged(
        "trusts_azure_services",
        Severity.LOW,
        "Storage account lets trusted Azure services through its firewall",
        ACCOUNT,
        (Wanted(BYPASS, _with_azure_services, "Azure's trusted services pass the firewall"),),
        trusts_azure_services,
        (
            "prowler:storage_ensure_azure_services_are_trusted_to_access_is_enabled",
            "cis-azure-5.0:9.3.5",
        ),
        written(
            means="""The account's firewall has no exception for trusted Azure services: bypass
                lacks AzureServices.""",
            matters="""Backup, Monitor, Event Grid, Site Recovery and others write to the account
                from networks of their own. A firewall that shuts them out stops backups and logs,
                or tempts people to open it for everybody.""",
            portal="""Storage accounts > the account > Security + networking > Networking >
                Exceptions > Allow trusted Microsoft services to access this resource > Save.""",
            cli="""
                az storage account update --resource-group GROUP --name ACCOUNT \\
                  --bypass Logging Metrics AzureServices""",
            terraform="""
                resource "azurerm_storage_account_network_rules" "this" {
                  storage_account_id = azurerm_storage_account.this.id
                  default_action     = "Deny"
                  bypass             = ["AzureServices"]
                }""",
            fix="It adds AzureServices to bypass. Logging and Metrics stay where they stand.",
            breaks="""Nothing: the services still need a role or a key. Who wants none of them here
                leaves the account as it is, by an exception.""",
        ),
    ),
    _judged(
        "key_expiration_reminder",
        Severity.LOW,
        "Storage account reminds of keys older than 90 days",
        ACCOUNT,
        (Wanted(EXPIRY, MOST_DAYS, "older keys are reported, and go on working", for_good=True),),
        reminds_of_keys,
        ("prowler:storage_key_rotation_90_days", "cis-azure-5.0:9.3.1.2"),
        written(
            means="""The account has no key expiration policy, or one of more than 90 days.""",
            matters="""A key that nobody is reminded of is never rotated, and works for whoever
                once copied it.""",
            portal="""Storage accounts > the account > Security + networking > Access keys > Set
                rotation reminder > every 90 days > Save.""",
            cli="""
                az storage account update --resource-group GROUP --name ACCOUNT \\
                  --key-exp-days 90""",
            terraform="""
                resource "azapi_update_resource" "reminder" {
                  type        = "Microsoft.Storage/storageAccounts@2023-05-01"
                  resource_id = azurerm_storage_account.this.id
                  body = {
                    properties = { keyPolicy = { keyExpirationPeriodInDays = 90 } }
                  }
                }""",
            fix="""It sets keyExpirationPeriodInDays to 90. It refuses an account whose keys are of
                unknown age: Azure wants each of them rotated once before.""",
            breaks="""Nothing: it is a reminder. Keys that are older go on working; Azure Policy
                and Advisor report them.""",
            back="""Suture's undo sets the old number of days. Where there was no policy it leaves
                the 90 days: nothing is documented that takes a policy away.""",
        ),
        refuses=_keys_have_dates,
    ),
    _judged(
        "infrastructure_encryption",
        Severity.LOW,
        "Storage account is encrypted twice",
        ACCOUNT,
        (),
        encrypts_twice,
        ("prowler:storage_infrastructure_encryption_is_enabled", "cis-azure-5.0:9.3.1.1"),
        written(
            means="""Data is encrypted by the service, as always, but not a second time by the
                infrastructure below it.""",
            matters="""Two algorithms with two keys: a flaw or a leak in one does not lay the data
                open. Some regulations ask for that.""",
            portal="""Only in the making: Storage accounts > Create > Encryption > Enable
                infrastructure encryption.""",
            cli="""
                az storage account create --resource-group GROUP --name NEW \\
                  --require-infrastructure-encryption true
                azcopy copy "https://ACCOUNT.blob.core.windows.net/CONTAINER" \\
                  "https://NEW.blob.core.windows.net/" --recursive""",
            terraform="""
                resource "azurerm_storage_account" "this" {
                  # ...
                  infrastructure_encryption_enabled = true   # a change replaces the account!
                }""",
            by_hand="""Azure takes the setting when an account is made and never again: the data
                has to move to a new account, which has another name. An encryption scope with
                infrastructure encryption covers new blobs of an account that stays.""",
            breaks="""Everything that knows the old account's name, until it is told the new
                one.""",
            back="Keep the old account until nobody reads it any more.",
        ),
    ),
    _judged(
        "geo_redundant",
        Severity.LOW,
        "Storage account is kept in two regions",
        ACCOUNT,
        (),
        is_geo_redundant,
        ("prowler:storage_geo_redundant_enabled", "cis-azure-5.0:9.3.11"),
        written(
            means="""All copies of the data are in one region: the SKU is LRS or ZRS.""",
            matters="A disaster that takes the region takes the data as well.",
            portal="""Storage accounts > the account > Data management > Redundancy > GRS, GZRS or
                their read-access kinds > Save.""",
            cli="""
                az storage account update --resource-group GROUP --name ACCOUNT \\
                  --sku Standard_GRS        # from Standard_ZRS: Standard_GZRS""",
            terraform="""
                resource "azurerm_storage_account" "this" {
                  # ...
                  account_replication_type = "GRS"
                }""",
            by_hand="""It copies all data to another region, which may be one where the data must
                not be, costs about twice as much, and is charged once for the copying. Premium
                accounts and some features cannot have it. Somebody who knows the data decides.""",
            breaks="""Nothing stops working. Bills grow; data leaves its region.""",
            back="""Set the old SKU again. The second copies are deleted; what the copying cost is
                spent.""",
        ),
    ),
    _judged(
        "private_endpoint",
        Severity.MEDIUM,
        "Storage account has a private endpoint",
        ACCOUNT,
        (),
        has_private_endpoint,
        (
            "prowler:storage_ensure_private_endpoints_in_storage_accounts",
            "cis-azure-5.0:9.3.2.1",
        ),
        endpoint_guide("account", "Storage accounts > the account > Security + networking", "blob"),
    ),
    _soft_delete(
        "blob_soft_delete",
        "Storage account keeps deleted blobs for a while",
        BLOBS,
        "deleteRetentionPolicy",
        ("prowler:storage_ensure_soft_delete_is_enabled", "cis-azure-5.0:9.2.1"),
        what="blobs",
        option="\\\n                  --enable-delete-retention true --delete-retention-days 7",
        portal="Enable soft delete for blobs > Save",
        terraform="""
            resource "azurerm_storage_account" "this" {
              # ...
              blob_properties {
                delete_retention_policy {
                  days = 7
                }
              }
            }""",
    ),
    _soft_delete(
        "container_soft_delete",
        "Storage account keeps deleted containers for a while",
        BLOBS,
        "containerDeleteRetentionPolicy",
        ("cis-azure-5.0:9.2.2",),
        what="containers",
        option="\\\n                  --enable-container-delete-retention true "
        "--container-delete-retention-days 7",
        portal="Enable soft delete for containers > Save",
        terraform="""
            resource "azurerm_storage_account" "this" {
              # ...
              blob_properties {
                container_delete_retention_policy {
                  days = 7
                }
              }
            }""",
    ),
    _judged(
        "blob_versioning",
        Severity.LOW,
        "Storage account keeps old versions of blobs",
        BLOBS,
        (Wanted("isVersioningEnabled", True, "overwritten blobs are kept", unset=False),),
        keeps_versions,
        ("prowler:storage_blob_versioning_is_enabled", "cis-azure-5.0:9.2.3"),
        written(
            means="""Blob versioning is off. Accounts that cannot have it pass: those with a
                hierarchical namespace, and those without blobs.""",
            matters="""What is overwritten, by mistake or by ransomware, is lost. With versions the
                old content is one click away.""",
            portal="""Storage accounts > the account > Data management > Data protection > Enable
                versioning for blobs > Save.""",
            cli="""
                az storage account blob-service-properties update \\
                  --resource-group GROUP --account-name ACCOUNT --enable-versioning true""",
            terraform="""
                resource "azurerm_storage_account" "this" {
                  # ...
                  blob_properties {
                    versioning_enabled = true
                  }
                }""",
            fix="""It sets isVersioningEnabled to true; the service's other settings are sent along
                as they were. It refuses a general-purpose v1 account, which cannot have it.""",
            breaks="""Nothing stops working. Every overwritten blob is kept, and paid for, without
                end: add a lifecycle rule that deletes old versions. Blobs that are written all day
                make it dear.""",
            back="""Suture's undo turns it off; where it was never set it says so outright, which
                means the same. Versions made meanwhile stay until somebody deletes them.""",
        ),
        refuses=_can_keep_versions,
    ),
    _soft_delete(
        "file_share_soft_delete",
        "Storage account keeps deleted file shares for a while",
        FILES,
        "shareDeleteRetentionPolicy",
        (
            "prowler:storage_ensure_file_shares_soft_delete_is_enabled",
            "cis-azure-5.0:9.1.1",
        ),
        what="file shares",
        option="\\\n                  --enable-delete-retention true --delete-retention-days 7",
        portal="Enable soft delete for file shares > Save",
        terraform="""
            resource "azurerm_storage_account" "this" {
              # ...
              share_properties {
                retention_policy {
                  days = 7
                }
              }
            }""",
    ),
    _smb(
        "smb_version",
        "Storage account takes SMB 3.1.1 only",
        "versions",
        "SMB3.1.1",
        ("SMB2.1", "SMB3.0"),
        ("prowler:storage_smb_protocol_version_is_latest", "cis-azure-5.0:9.1.2"),
        option="--versions",
        attribute="versions",
        portal="SMB protocol versions: SMB 3.1.1 alone",
        means="The account's file shares take SMB versions before 3.1.1.",
        matters="""SMB 2.1 does not encrypt at all, and 3.0 does not protect the negotiation of what
            is used: an attacker on the way can talk both sides down.""",
        breaks="""Clients that speak no SMB 3.1.1: Windows before Windows 10 and Server 2016, and
            Linux kernels before 4.17. They are refused when they connect again.""",
    ),
    _smb(
        "smb_channel_encryption",
        "Storage account encrypts SMB with AES-256-GCM only",
        "channelEncryption",
        "AES-256-GCM",
        ("AES-128-CCM", "AES-128-GCM"),
        (
            "prowler:storage_smb_channel_encryption_with_secure_algorithm",
            "cis-azure-5.0:9.1.3",
        ),
        option="--channel-encryption",
        attribute="channel_encryption_type",
        portal="SMB channel encryption: AES-256-GCM alone",
        means="The account's file shares take SMB connections with weaker ciphers.",
        matters="""The shorter keys are not broken, but what is recorded today can be tried for
            decades. Regulations ask for 256 bits.""",
        breaks="""Clients without AES-256-GCM: it came with Windows Server 2022 and Windows 11, and
            Linux needs a recent kernel. Windows 10 and Server 2019 cannot connect any more: know
            your clients first.""",
    ),
    Rule(
        id="azure_storage_account_containers_private",
        kind=KIND,
        severity=Severity.CRITICAL,
        title="Storage account has no container that everybody can read",
        passes=no_public_container,
        fix=_close_containers,
        reads=(READ, f"{CONTAINERS}/read"),
        writes=(f"{CONTAINERS}/write",),
        events=(WRITE, f"{CONTAINERS}/write"),
        aka=("cloudsploit:blobContainersPrivateAccess",),
        guide=written(
            means="""At least one container of the account is set to Blob or Container: its blobs
                can be read without credentials, with Container its list of blobs as well. Where
                the account itself forbids anonymous access, such a setting has no effect, and the
                account passes.""",
            matters="""Names of accounts and containers are guessed and found by search engines made
                for that. Much of what leaked from Azure leaked this way.""",
            portal="""Storage accounts > the account > Data storage > Containers > the container >
                Change access level > Private.""",
            cli="""
                az storage container set-permission --account-name ACCOUNT \\
                  --name CONTAINER --public-access off""",
            terraform="""
                resource "azurerm_storage_container" "this" {
                  # ...
                  container_access_type = "private"
                }""",
            fix="""It sets publicAccess of each public container to None, one call for each. The
                account's own setting stays: another rule of Suture's is about that.""",
            breaks="""Anonymous readers: downloads and pictures linked straight to blobs. Static
                websites go on working. Serve public files through Front Door, or hand out SAS
                tokens.""",
            back="Suture's undo sets each container to what it was.",
        ),
    ),
)
