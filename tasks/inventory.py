"""The inventory: which clouds there are, how to reach them and as whom. Read from one YAML file.

``load_inventory`` answers with frozen values or raises BadInventory, which names the file, the
line, the field and what to write instead. Secrets never stand in the file: it names the
environment variables that hold them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit

from tasks.errors import BadInput, BadInventory
from tasks.model import Cloud
from tasks.yaml_file import Section, parse_yaml, read_text

VERSION = 1
PARTITIONS = (
    "aws",
    "aws-cn",
    "aws-us-gov",
    "aws-eusc",
    "aws-iso",
    "aws-iso-b",
    "aws-iso-e",
    "aws-iso-f",
)
SCANNER_ROLE = "SutureScanner"
REMEDIATOR_ROLE = "SutureRemediator"
# The public cloud; sovereign and private ones are named in the file.
AUTHORITY = "https://login.microsoftonline.com"
RESOURCE_MANAGER = "https://management.azure.com"
AUDIENCE = "https://management.azure.com/"


@dataclass(frozen=True, slots=True, kw_only=True)
class HubCredentials:
    """Where Suture's own AWS identity comes from: a profile, or two environment variables."""

    profile: str = ""
    access_key_id_env: str = ""
    secret_access_key_env: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AwsSource:
    """One AWS organization, or a list of plain accounts.

    Either ``organization`` is true and the accounts are discovered, or ``accounts`` lists them.
    ``endpoint`` is empty for AWS itself. ``credentials`` is None for the SDK's own chain.
    ``hub_principal`` is the ARN those credentials have, where the customer's gate must name it.
    ``presents_codes``: an approver's code opens the gate itself, at the opener that
    ``token_endpoint`` names; without it somebody has opened the gate before it is typed.
    ``event_queue`` is the URL of the SQS queue that CloudTrail's events come by, and
    ``event_dead_letter_queue`` of the one that takes what cannot be read; empty: none.
    """

    name: str
    regions: tuple[str, ...]
    external_id: str
    organization: bool = False
    accounts: tuple[str, ...] = ()
    management_account: str = ""
    discovery_role: str = ""
    scanner_role: str = SCANNER_ROLE
    remediator_role: str = REMEDIATOR_ROLE
    partition: str = "aws"
    endpoint: str = ""
    ca_file: str = ""
    credentials: HubCredentials | None = None
    hub_principal: str = ""
    token_endpoint: str = ""
    token_endpoint_ca_file: str = ""
    presents_codes: bool = False
    event_queue: str = ""
    event_dead_letter_queue: str = ""

    @property
    def cloud(self) -> Cloud:
        return Cloud.AWS

    def role_arn(self, account: str, role: str) -> str:
        """The ARN of ``role`` (which may carry a path) in ``account``."""
        return f"arn:{self.partition}:iam::{account}:role/{role}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSource:
    """One Azure tenant as one application sees it.

    ``subscriptions`` is empty when they are to be discovered. Exactly one of
    ``client_secret_env`` and ``client_certificate`` is set. ``graph`` false keeps Resource Graph,
    which lags behind by seconds to minutes, out of fleet scans. The four ``remediator_*`` and
    ``gate_id`` fields are all set or all empty; empty means that Suture only reads there.
    ``presents_codes`` is as for AWS. ``event_queue`` and ``event_dead_letter_queue`` are the URLs
    of Storage queues that the activity log's events come by; empty: none.
    """

    name: str
    tenant: str
    client_id: str
    subscriptions: tuple[str, ...] = ()
    client_secret_env: str = ""
    client_certificate: str = ""
    authority: str = AUTHORITY
    resource_manager: str = RESOURCE_MANAGER
    audience: str = AUDIENCE
    ca_file: str = ""
    graph: bool = True
    remediator_client_id: str = ""
    remediator_identity: str = ""
    remediator_role: str = ""
    gate_id: str = ""
    token_endpoint: str = ""
    token_endpoint_ca_file: str = ""
    presents_codes: bool = False
    event_queue: str = ""
    event_dead_letter_queue: str = ""

    @property
    def cloud(self) -> Cloud:
        return Cloud.AZURE

    @property
    def remediates(self) -> bool:
        return bool(self.gate_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """The OpenID issuer that signs Suture's own assertions.

    ``url`` is where its public key is published, ``key_file`` the private key in PEM, ``key_id``
    its name in the published set.
    """

    url: str
    key_file: str
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Everything one inventory file says. Names of sources are unique across both clouds."""

    aws: tuple[AwsSource, ...] = ()
    azure: tuple[AzureSource, ...] = ()
    issuer: Issuer | None = None

    @property
    def sources(self) -> tuple[AwsSource | AzureSource, ...]:
        return (*self.aws, *self.azure)

    def source(self, name: str) -> AwsSource | AzureSource:
        """The entry called ``name``; BadInput when there is none."""
        for source in self.sources:
            if source.name == name:
                return source
        known = ", ".join(source.name for source in self.sources)
        raise BadInput("source", f"the inventory has no entry named {name!r}.", f"It has: {known}.")


def load_inventory(path: str | Path) -> Inventory:
    """Read and check the inventory at ``path``. Relative paths in it are relative to its folder."""
    file = Path(path)
    return _read(read_text(file, BadInventory), str(file))


@lru_cache(maxsize=8)
def _read(text: str, file: str) -> Inventory:
    """A process that closes findings asks many times, and YAML takes long: once for each text."""
    return parse_inventory(text, file=file, folder=Path(file).parent)


def parse_inventory(
    text: str, *, file: str = "inventory.yaml", folder: Path | None = None
) -> Inventory:
    """The inventory that ``text`` describes. ``file`` is for messages only."""
    return _inventory(parse_yaml(text, file, BadInventory), folder or Path())


# --- The sections --------------------------------------------------------------------------------


def _inventory(top: Section, folder: Path) -> Inventory:
    top.only(("suture", "aws", "azure", "issuer"))
    if top.data.get("suture") != VERSION:
        problem = "is not a version Suture reads." if top.has("suture") else "is missing."
        raise top.bad("suture", problem, f"Begin the file with suture: {VERSION}.")
    aws, azure, issuer = top.sections("aws"), top.sections("azure"), top.section("issuer")
    inventory = Inventory(
        aws=tuple(_aws(section, folder) for section in aws),
        azure=tuple(_azure(section, folder) for section in azure),
        issuer=_issuer(issuer, folder) if issuer else None,
    )
    if not inventory.sources:
        raise top.bad("", "names no cloud.", "List at least one source under aws or azure.")
    _check_across(inventory, (*aws, *azure))
    return inventory


def _aws(section: Section, folder: Path) -> AwsSource:
    _only_fields(section, AwsSource)
    organization = _flag(section, "organization")
    if organization and section.has("accounts"):
        raise section.bad("accounts", "stands beside organization: true.", "Keep one of the two.")
    if organization and not section.has("management_account"):
        raise section.bad(
            "management_account",
            "is missing: an organization is asked for its accounts there.",
            'Add management_account: "012345678901".',
        )
    if not organization and not section.has("accounts"):
        raise section.bad(
            "accounts",
            "is missing, and so is organization: true.",
            'Write organization: true, or accounts: ["012345678901"].',
        )
    for key in ("management_account", "discovery_role"):
        if section.has(key) and not organization:
            raise section.bad(key, "has a meaning only with organization: true.", "Leave it out.")
    credentials = section.section("credentials")
    return AwsSource(
        name=_word(section, "name", _NAME),
        regions=_words(section, "regions", _REGION, required=True),
        external_id=_external_id(section),
        organization=organization,
        accounts=_words(section, "accounts", _ACCOUNT),
        management_account=_word(section, "management_account", _ACCOUNT, ""),
        discovery_role=_word(section, "discovery_role", _ROLE, ""),
        scanner_role=_word(section, "scanner_role", _ROLE, SCANNER_ROLE),
        remediator_role=_word(section, "remediator_role", _ROLE, REMEDIATOR_ROLE),
        partition=_word(section, "partition", _PARTITION, "aws"),
        endpoint=_url(section, "endpoint", "", schemes=("https", "http")).rstrip("/"),
        ca_file=_path(section, "ca_file", folder, ""),
        credentials=_hub_credentials(credentials) if credentials else None,
        hub_principal=_word(section, "hub_principal", _PRINCIPAL, ""),
        token_endpoint=_url(section, "token_endpoint", ""),
        token_endpoint_ca_file=_path(section, "token_endpoint_ca_file", folder, ""),
        presents_codes=_presents_codes(section),
        event_queue=_queue(section, "event_queue", schemes=("https", "http")),
        event_dead_letter_queue=_queue(
            section, "event_dead_letter_queue", schemes=("https", "http")
        ),
    )


def _queue(section: Section, key: str, *, schemes: Sequence[str] = ("https",)) -> str:
    """The URL of a queue; one for dead letters stands beside the one whose letters they are."""
    url = _url(section, key, "", schemes=schemes).rstrip("/")
    if url and key != "event_queue" and not section.has("event_queue"):
        raise section.bad(key, "stands without an event_queue.", "Add the queue of the events.")
    if url and key != "event_queue" and url == section.text("event_queue").rstrip("/"):
        raise section.bad(key, "is the event_queue itself.", "Name another queue.")
    return url


def _hub_credentials(section: Section) -> HubCredentials:
    _only_fields(section, HubCredentials)
    pair = ("access_key_id_env", "secret_access_key_env")
    missing = [key for key in pair if not section.has(key)]
    if section.has("profile") and len(missing) < len(pair):
        raise section.bad("profile", "stands beside access keys.", "Keep one way or the other.")
    if missing and not section.has("profile"):
        raise section.bad(
            missing[0], "is missing.", "Name a profile, or both environment variables."
        )
    return HubCredentials(
        profile=section.text("profile", ""),
        access_key_id_env=_word(section, "access_key_id_env", _ENV, ""),
        secret_access_key_env=_word(section, "secret_access_key_env", _ENV, ""),
    )


def _azure(section: Section, folder: Path) -> AzureSource:
    _only_fields(section, AzureSource)
    by_secret, by_certificate = section.has("client_secret_env"), section.has("client_certificate")
    if by_secret and by_certificate:
        raise section.bad(
            "client_certificate", "stands beside client_secret_env.", "Keep one of the two."
        )
    if not by_secret and not by_certificate:
        raise section.bad(
            "client_secret_env",
            "is missing, and so is client_certificate.",
            "Name the environment variable that holds the secret, or the certificate's file.",
        )
    remediator = ("remediator_client_id", "remediator_identity", "remediator_role", "gate_id")
    missing = [key for key in remediator if not section.has(key)]
    wanted = [key for key in (*remediator, "token_endpoint") if section.has(key)]
    if missing and wanted:
        raise section.bad(
            missing[0],
            f"is missing, but {wanted[0]} is there.",
            f"Remediation needs all of {', '.join(remediator)}.",
        )
    return AzureSource(
        name=_word(section, "name", _NAME),
        tenant=_uuid(section, "tenant"),
        client_id=_uuid(section, "client_id"),
        subscriptions=_words(section, "subscriptions", _UUID, lower=True),
        client_secret_env=_word(section, "client_secret_env", _ENV, ""),
        client_certificate=_path(section, "client_certificate", folder, ""),
        authority=_url(section, "authority", AUTHORITY).rstrip("/"),
        resource_manager=_url(section, "resource_manager", RESOURCE_MANAGER).rstrip("/"),
        audience=_url(section, "audience", AUDIENCE),
        ca_file=_path(section, "ca_file", folder, ""),
        graph=_flag(section, "graph", True),
        remediator_client_id=_uuid(section, "remediator_client_id", ""),
        remediator_identity=_word(section, "remediator_identity", _IDENTITY, ""),
        remediator_role=_word(section, "remediator_role", _ROLE_DEFINITION, ""),
        gate_id=_uuid(section, "gate_id", ""),
        token_endpoint=_url(section, "token_endpoint", ""),
        token_endpoint_ca_file=_path(section, "token_endpoint_ca_file", folder, ""),
        presents_codes=_presents_codes(section),
        event_queue=_queue(section, "event_queue"),
        event_dead_letter_queue=_queue(section, "event_dead_letter_queue"),
    )


def _presents_codes(section: Section) -> bool:
    presents = _flag(section, "presents_codes")
    if presents and not section.has("token_endpoint"):
        raise section.bad(
            "presents_codes",
            "needs a token_endpoint: somebody must take the codes.",
            "Add the address of the customer's opener, or leave it out.",
        )
    return presents


def _issuer(section: Section, folder: Path) -> Issuer:
    _only_fields(section, Issuer)
    return Issuer(
        url=_url(section, "url").rstrip("/"),
        key_file=_path(section, "key_file", folder),
        key_id=section.text("key_id"),
    )


def _check_across(inventory: Inventory, sections: Sequence[Section]) -> None:
    """What no source can see alone: doubles, and an issuer that somebody needs."""
    seen: set[str] = set()
    for source, section in zip(inventory.sources, sections, strict=True):
        aws = isinstance(source, AwsSource)
        key, listed = (
            ("accounts", source.accounts)
            if isinstance(source, AwsSource)
            else ("subscriptions", source.subscriptions)
        )
        if source.name in seen:
            raise section.bad("name", "is taken by a source above.", "Give each its own name.")
        if again := seen.intersection(listed):
            raise section.bad(key, f"{min(again)} is listed above.", "List each of them once.")
        seen.update((source.name, *listed))
        needs = "token_endpoint" if source.token_endpoint else "" if aws else "gate_id"
        if inventory.issuer is None and needs and section.has(needs):
            raise section.bad(
                needs,
                "needs an issuer.",
                "Add issuer: {url: https://…, key_file: …, key_id: …}.",
            )


# --- One value -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Form:
    """How a value must look, and what to say when it does not."""

    pattern: re.Pattern[str]
    problem: str
    fix: str

    def __call__(self, value: str) -> bool:
        return self.pattern.fullmatch(value) is not None


def _form(pattern: str, problem: str, fix: str, flags: re.RegexFlag = re.ASCII) -> _Form:
    return _Form(re.compile(pattern, flags), problem, fix)


_HEX = r"[0-9a-fA-F]"
_UUID_PATTERN = rf"{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}"
_UUID = _form(_UUID_PATTERN, "is not a UUID.", "Write hex digits in 5 groups: 8-4-4-4-12.")
_ACCOUNT = _form(
    r"\d{12}", "is not an account id: it has exactly 12 digits.", 'Write it like "012345678901".'
)
_REGION = _form(
    r"[a-z]{2,4}(-[a-z]+){1,3}-\d{1,2}",
    "is not the name of a region.",
    "Write it like eu-central-1.",
)
_PARTITION = _form(
    "|".join(PARTITIONS), "is not a partition of AWS.", f"Write one of {', '.join(PARTITIONS)}."
)
_NAME = _form(
    r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}",
    "is no name: letters, digits, '.', '_' and '-', 63 at the most.",
    "Write it like acme-production.",
)
_ROLE = _form(
    r"([\w+=,.@-]+/)*[\w+=,.@-]{1,64}",
    "is not the name of an IAM role.",
    "Write its name, without the ARN before it.",
)
_PRINCIPAL = _form(
    r"arn:aws[a-z-]*:(iam|sts)::\d{12}:(root|(user|role|assumed-role)/[\w+=,.@/-]+)",
    "is not the ARN of a user or a role.",
    "Write it like arn:aws:iam::012345678901:role/suture.",
)
_ENV = _form(
    r"[A-Za-z_][A-Za-z0-9_]*",
    "is not the name of an environment variable.",
    "Write the variable's name, never the secret itself.",
)
_IDENTITY = _form(
    rf"/subscriptions/{_UUID_PATTERN}/resourcegroups/[^/]+"
    r"/providers/microsoft\.managedidentity/userassignedidentities/[^/]+",
    "is not the ARM id of a user-assigned identity.",
    "Write /subscriptions/…/resourceGroups/…/providers/"
    "Microsoft.ManagedIdentity/userAssignedIdentities/….",
    re.IGNORECASE,
)
_ROLE_DEFINITION = _form(
    rf"((/subscriptions/{_UUID_PATTERN})?/providers/microsoft\.authorization/roledefinitions/)?"
    + _UUID_PATTERN,
    "is not the id of a role definition.",
    "Write its UUID or ARM id.",
    re.IGNORECASE,
)
_SECRET_KEYS = {
    "client_secret": "client_secret_env",
    "access_key_id": "access_key_id_env",
    "secret_access_key": "secret_access_key_env",
}


def _only_fields(section: Section, shape: type) -> None:
    """Refuse keys that ``shape`` has no field for. A secret is told where it belongs instead."""
    known = [field.name for field in fields(shape)]
    for secret, instead in _SECRET_KEYS.items():
        if section.has(secret) and instead in known:
            raise section.bad(
                secret,
                "is a secret, and secrets never stand in the inventory.",
                f"Put it into an environment variable and name that: {instead}: NAME.",
            )
    section.only(known)


def _word(section: Section, key: str, form: _Form, default: str | None = None) -> str:
    """A text of one form. Without a default it must be there; an empty default means 'none'."""
    value = section.text(key, default)
    if section.has(key) and not form(value):
        raise section.bad(key, form.problem, form.fix)
    return value


def _words(
    section: Section, key: str, form: _Form, *, required: bool = False, lower: bool = False
) -> tuple[str, ...]:
    """A list of texts of one form, none twice. It may be left out unless it is required."""
    if not section.has(key) and not required:
        return ()
    values: list[str] = []
    for index, written in enumerate(section.items(key)):
        if not isinstance(written, str):
            raise section.bad_item(
                key, index, "is not text: YAML reads it otherwise.", "Put it in quotes."
            )
        value = written.lower() if lower else written
        if not form(value):
            raise section.bad_item(key, index, form.problem, form.fix)
        if value in values:
            raise section.bad_item(key, index, "is in this list twice.", "Keep one of them.")
        values.append(value)
    return tuple(values)


def _uuid(section: Section, key: str, default: str | None = None) -> str:
    return _word(section, key, _UUID, default).lower()


def _external_id(section: Section) -> str:
    """Kept as written, unlike other UUIDs: a trust policy compares it letter by letter."""
    return _word(section, "external_id", _UUID)


def _flag(section: Section, key: str, default: bool = False) -> bool:
    value = section.data.get(key, default)
    if not isinstance(value, bool):
        raise section.bad(key, "is neither true nor false.", "Write true or false.")
    return value


def _path(section: Section, key: str, folder: Path, default: str | None = None) -> str:
    value = section.text(key, default)
    if not value:
        return ""
    try:
        return str(folder / Path(value).expanduser())
    except RuntimeError:  # no such user in ~user
        raise section.bad(key, "begins with a ~ that names nobody here.", "Write it out.") from None


def _url(
    section: Section,
    key: str,
    default: str | None = None,
    *,
    schemes: Sequence[str] = ("https",),
) -> str:
    value = section.text(key, default)
    problem = _url_problem(value, schemes) if section.has(key) else ""
    if problem:
        wanted = " or ".join(f"{scheme}://" for scheme in schemes)
        raise section.bad(key, problem, f"Write an address that begins with {wanted}.")
    return value


def _url_problem(value: str, schemes: Sequence[str]) -> str:
    try:
        parts = urlsplit(value)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "is not an address."
    if parts.scheme not in schemes:
        return f"is not {' or '.join(schemes)}."
    if not host or not value.isprintable() or " " in value:
        return "is not an address."
    if parts.username is not None or parts.password is not None:
        return "holds a user name or password: secrets never stand in the inventory."
    if parts.query or parts.fragment:
        return "has a query or a fragment."
    return ""
