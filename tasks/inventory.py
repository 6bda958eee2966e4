"""The inventory: which clouds there are, how to reach them and as whom. Read from one YAML file.

``load_inventory`` answers with frozen values or raises BadInventory, which names the file, the
line, the field and what to write instead. Secrets never stand in the file: it names the
environment variables that hold them.
"""

from __future__ import annotations

import difflib
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from tasks.errors import BadInput, BadInventory

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
    """

    name: str
    regions: tuple[str, ...]
    external_id: str
    organization: bool = False
    accounts: tuple[str, ...] = ()
    management_account: str = ""
    discovery_role: str = ""
    scanner_role: str = "SutureScanner"
    remediator_role: str = "SutureRemediator"
    partition: str = "aws"
    endpoint: str = ""
    ca_file: str = ""
    credentials: HubCredentials | None = None
    token_endpoint: str = ""
    token_endpoint_ca_file: str = ""

    def role_arn(self, account: str, role: str) -> str:
        """The ARN of ``role`` (which may carry a path) in ``account``."""
        return f"arn:{self.partition}:iam::{account}:role/{role}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AzureSource:
    """One Azure tenant as one application sees it.

    ``subscriptions`` is empty when they are to be discovered. Exactly one of
    ``client_secret_env`` and ``client_certificate`` is set. The four ``remediator_*`` and
    ``gate_id`` fields are all set or all empty; empty means that Suture only reads there.
    """

    name: str
    tenant: str
    client_id: str
    subscriptions: tuple[str, ...] = ()
    client_secret_env: str = ""
    client_certificate: str = ""
    authority: str = "https://login.microsoftonline.com"
    resource_manager: str = "https://management.azure.com"
    audience: str = "https://management.azure.com/"
    ca_file: str = ""
    remediator_client_id: str = ""
    remediator_identity: str = ""
    remediator_role: str = ""
    gate_id: str = ""
    token_endpoint: str = ""
    token_endpoint_ca_file: str = ""

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
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInventory("inventory", "there is no such file.", file=str(path)) from None
    except UnicodeDecodeError:
        raise BadInventory(
            "inventory", "this is not UTF-8 text.", "Save it as UTF-8.", file=str(path)
        ) from None
    except OSError as error:
        problem = f"cannot be read: {error.strerror}."
        raise BadInventory("inventory", problem, file=str(path)) from None
    return parse_inventory(text, file=str(path), folder=file.parent)


def parse_inventory(
    text: str, *, file: str = "inventory.yaml", folder: Path | None = None
) -> Inventory:
    """The inventory that ``text`` describes. ``file`` is for messages only."""
    reader = _Reader(file, folder or Path())
    top = reader.section(_compose(text, file), "", _TOP)
    aws = tuple(AwsSource(**entry) for entry in top.get("aws", ()))
    azure = tuple(AzureSource(**entry) for entry in top.get("azure", ()))
    return Inventory(aws=aws, azure=azure, issuer=top.get("issuer"))


def _compose(text: str, file: str) -> Node:
    """The document as nodes: they know their lines, and show duplicate keys and quoting."""

    def bad(line: int, problem: str, fix: str = "") -> BadInventory:
        return BadInventory("inventory", problem, fix, file=file, line=line)

    try:
        node: Node | None = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "malformed"
        raise bad(mark.line + 1 if mark else 1, f"this is not YAML: {problem}.") from None
    except YAMLError as error:  # characters that YAML does not allow have an offset, not a mark
        offset = getattr(error, "position", 0)
        line = text.count("\n", 0, offset) + 1
        raise bad(line, "this is not YAML: it holds a control character.") from None
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # The parser's own slips: an unknown %YAML version, for one, is a KeyError in it.
        raise bad(1, "this is not YAML that Suture can read.") from None
    if node is None:
        raise bad(1, "the file is empty.", "Begin it with 'suture: 1'.")
    return node


# --- One value -----------------------------------------------------------------------------------

_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_REGION = re.compile(r"[a-z]{2,4}(-[a-z]+){1,3}-\d{1,2}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)
_ROLE = re.compile(r"([\w+=,.@-]+/)*[\w+=,.@-]{1,64}", re.ASCII)
_ENV = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_IDENTITY = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourcegroups/[^/]+"
    r"/providers/microsoft\.managedidentity/userassignedidentities/[^/]+",
    re.IGNORECASE,
)
_ROLE_DEFINITION = re.compile(
    r"(/subscriptions/[0-9a-f-]{36})?/providers/microsoft\.authorization/roledefinitions/",
    re.IGNORECASE,
)
_STRING_TAG = "tag:yaml.org,2002:str"
_BOOL_TAG = "tag:yaml.org,2002:bool"
_INT_TAG = "tag:yaml.org,2002:int"
_SECRET_KEYS = {
    "client_secret": "client_secret_env",
    "access_key_id": "access_key_id_env",
    "secret_access_key": "secret_access_key_env",
}


@dataclass(frozen=True, slots=True)
class _Reader:
    """Turns nodes into values, raising BadInventory with the place of the first that is wrong."""

    file: str
    folder: Path

    def fail(self, node: Node, field: str, problem: str, fix: str = "") -> NoReturn:
        line = node.start_mark.line + 1
        raise BadInventory(field or "inventory", problem, fix, file=self.file, line=line)

    def section(self, node: Node, where: str, schema: _Schema) -> dict[str, Any]:
        """A mapping with the keys of ``schema``: their values, checked, by key."""
        if not isinstance(node, MappingNode):
            self.fail(node, where, "must be a mapping.", f"Write keys: {', '.join(schema.keys)}.")
        nodes = self._keys(node, where, schema)
        values = {
            key: schema.keys[key].read(self, value, _join(where, key))
            for key, value in nodes.items()
        }
        for key, wanted in schema.keys.items():
            if wanted.required and key not in values:
                self.fail(node, _join(where, key), "is missing.", f"Add {key}: {wanted.example}")
        schema.check(_Checked(self, node, where, nodes, values))
        return values

    def _keys(self, node: MappingNode, where: str, schema: _Schema) -> dict[str, Node]:
        nodes: dict[str, Node] = {}
        for key_node, value in node.value:
            key = key_node.value if isinstance(key_node, ScalarNode) else None
            if not isinstance(key, str):
                self.fail(key_node, where, "has a key that is not a word.")
            if key in nodes:
                self.fail(key_node, _join(where, key), "stands here twice.", "Keep one of them.")
            if key not in schema.keys:
                self.fail(key_node, _join(where, key), *_unknown_key(key, schema.keys))
            nodes[key] = value
        return nodes

    def items(self, node: Node, where: str, what: str) -> list[tuple[Node, str]]:
        """The items of a non-empty list, each with the name of its place."""
        if not isinstance(node, SequenceNode):
            self.fail(node, where, f"must be a list of {what}.", f"Write {where}: [ … ].")
        if not node.value:
            self.fail(node, where, "is empty.", f"Name at least one of the {what}, or leave it out")
        return [(item, f"{where}[{index}]") for index, item in enumerate(node.value)]

    def text(self, node: Node, where: str) -> str:
        """A plain string, not empty, on one line."""
        if not isinstance(node, ScalarNode):
            self.fail(node, where, "must be text.")
        if str(node.tag) != _STRING_TAG:
            kind = str(node.tag).rpartition(":")[2]
            self.fail(node, where, f"must be text, and YAML reads a {kind}.", "Put it in quotes.")
        value = str(node.value)
        if not value.strip() or not value.isprintable():
            self.fail(node, where, "must be one line of text.")
        return value


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def _unknown_key(key: str, known: Iterable[str]) -> tuple[str, str]:
    if key in _SECRET_KEYS:
        better = _SECRET_KEYS[key]
        return (
            "secrets never stand in the inventory.",
            f"Put it into an environment variable and name that here: {better}: NAME.",
        )
    if key == "<<":
        return "merge keys are not read.", "Write the keys out."
    near = difflib.get_close_matches(key, list(known), n=1)
    if near:
        return "is not a key Suture knows.", f"Did you mean {near[0]}?"
    return "is not a key Suture knows.", f"It knows: {', '.join(known)}."


def _matching(pattern: re.Pattern[str], problem: str, fix: str) -> _Read:
    def read(reader: _Reader, node: Node, where: str) -> str:
        value = reader.text(node, where)
        if not pattern.fullmatch(value):
            reader.fail(node, where, problem, fix)
        return value

    return read


def _account(reader: _Reader, node: Node, where: str) -> str:
    if isinstance(node, ScalarNode) and str(node.tag) != _STRING_TAG:
        # An unquoted account id is a number to YAML, an octal one when it begins with 0.
        reader.fail(
            node,
            where,
            "an account id must be in quotes: YAML reads a bare one as a number.",
            'Write it like "012345678901".',
        )
    value = reader.text(node, where)
    if not _ACCOUNT.fullmatch(value):
        reader.fail(
            node, where, "an account id has exactly 12 digits.", 'Write it like "012345678901".'
        )
    return value


_region = _matching(_REGION, "this is not the name of a region.", "Write it like eu-central-1.")
_name = _matching(
    _NAME,
    "a name has letters, digits, '.', '_' and '-', 63 at the most.",
    "Write it like acme-production.",
)
_role = _matching(
    _ROLE, "this is not the name of an IAM role.", "Write its name, without the ARN before it."
)
_env = _matching(
    _ENV,
    "this is not the name of an environment variable.",
    "Write the variable's name, never the secret itself.",
)


def _uuid(reader: _Reader, node: Node, where: str) -> str:
    value = reader.text(node, where)
    try:
        parsed = str(uuid.UUID(value))
    except ValueError:
        parsed = ""
    if parsed != value.lower():
        reader.fail(
            node, where, "this is not a UUID.", "Write 32 hex digits in 5 groups: 8-4-4-4-12."
        )
    return parsed


def _external_id(reader: _Reader, node: Node, where: str) -> str:
    """Kept as written, unlike other UUIDs: a trust policy compares it letter by letter."""
    _uuid(reader, node, where)
    return reader.text(node, where)


def _url(*schemes: str) -> _Read:
    wanted = " or ".join(f"{scheme}://" for scheme in schemes)

    def read(reader: _Reader, node: Node, where: str) -> str:
        value = reader.text(node, where)
        problem = _url_problem(value, schemes)
        if problem:
            reader.fail(node, where, problem, f"Write an address that begins with {wanted}.")
        return value

    return read


def _url_problem(value: str, schemes: tuple[str, ...]) -> str:
    try:
        parts = urlsplit(value)
        host, _port = parts.hostname, parts.port
    except ValueError:
        return "this is not an address."
    if parts.scheme not in schemes:
        return f"must be {' or '.join(schemes)}."
    if not host or re.search(r"\s", value):
        return "this is not an address."
    if parts.username is not None or parts.password is not None:
        return "must not hold a user name or password."
    if parts.query or parts.fragment:
        return "must not have a query or a fragment."
    return ""


def _base_url(*schemes: str) -> _Read:
    """An address that paths are appended to: kept without its trailing slash."""
    read_url = _url(*schemes)

    def read(reader: _Reader, node: Node, where: str) -> str:
        return str(read_url(reader, node, where)).rstrip("/")

    return read


def _path(reader: _Reader, node: Node, where: str) -> str:
    value = reader.text(node, where)
    try:
        return str(reader.folder / Path(value).expanduser())
    except RuntimeError:  # no such user in ~user
        reader.fail(node, where, "its ~ names nobody here.", "Write the path out.")


def _flag(reader: _Reader, node: Node, where: str) -> bool:
    if not isinstance(node, ScalarNode) or str(node.tag) != _BOOL_TAG:
        reader.fail(node, where, "must be true or false.")
    return str(node.value).lower() == "true"


def _version(reader: _Reader, node: Node, where: str) -> int:
    is_ours = isinstance(node, ScalarNode) and str(node.tag) == _INT_TAG
    if not is_ours or node.value != str(VERSION):
        reader.fail(node, where, "is not a version of the inventory.", f"Write suture: {VERSION}.")
    return VERSION


def _one_of(choices: tuple[str, ...]) -> _Read:
    def read(reader: _Reader, node: Node, where: str) -> str:
        value = reader.text(node, where)
        if value not in choices:
            reader.fail(node, where, "is not one Suture knows.", f"Write {', '.join(choices)}.")
        return value

    return read


def _list_of(item: _Read, what: str) -> _Read:
    """A non-empty list without doubles."""

    def read(reader: _Reader, node: Node, where: str) -> tuple[Any, ...]:
        values: list[Any] = []
        for item_node, place in reader.items(node, where, what):
            value = item(reader, item_node, place)
            if value in values:
                reader.fail(item_node, place, "stands in this list twice.", "Keep one of them.")
            values.append(value)
        return tuple(values)

    return read


def _sections(schema: _Schema, what: str) -> _Read:
    def read(reader: _Reader, node: Node, where: str) -> list[dict[str, Any]]:
        return [
            reader.section(item, place, schema) for item, place in reader.items(node, where, what)
        ]

    return read


def _issuer(reader: _Reader, node: Node, where: str) -> Issuer:
    return Issuer(**reader.section(node, where, _ISSUER))


def _hub_credentials(reader: _Reader, node: Node, where: str) -> HubCredentials:
    return HubCredentials(**reader.section(node, where, _HUB_CREDENTIALS))


def _role_definition(reader: _Reader, node: Node, where: str) -> str:
    """The id of a role definition: a bare UUID, or an ARM id that ends in one."""
    value = reader.text(node, where)
    prefix = _ROLE_DEFINITION.match(value)
    bare = value[prefix.end() :] if prefix else value
    if not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", bare, re.IGNORECASE):
        reader.fail(
            node, where, "this is not the id of a role definition.", "Write its UUID or ARM id."
        )
    return value


# --- The sections --------------------------------------------------------------------------------

_Read = Callable[[_Reader, Node, str], Any]


@dataclass(frozen=True, slots=True)
class _Key:
    """How one key is read, and what to show someone who left it out."""

    read: _Read
    required: bool = False
    example: str = "…"


@dataclass(frozen=True, slots=True)
class _Checked:
    """A section whose keys are right one by one, for the checks that look across them."""

    reader: _Reader
    node: Node
    where: str
    nodes: Mapping[str, Node]
    values: dict[str, Any]

    def has(self, key: str) -> bool:
        return key in self.values

    def fail(self, key: str, problem: str, fix: str = "") -> NoReturn:
        node = self.nodes.get(key, self.node)
        self.reader.fail(node, _join(self.where, key), problem, fix)


@dataclass(frozen=True, slots=True)
class _Schema:
    keys: Mapping[str, _Key]
    check: Callable[[_Checked], None] = lambda _section: None


def _check_hub_credentials(section: _Checked) -> None:
    pair = ("access_key_id_env", "secret_access_key_env")
    missing = [key for key in pair if not section.has(key)]
    if section.has("profile"):
        if len(missing) < len(pair):
            section.fail("profile", "stands beside access keys.", "Keep one way or the other.")
    elif missing:
        section.fail(missing[0], "is missing.", "Name a profile, or both environment variables.")


def _check_aws(section: _Checked) -> None:
    values = section.values
    if values.get("organization") and section.has("accounts"):
        section.fail("accounts", "stands beside organization: true.", "Keep one of the two.")
    if values.get("organization"):
        if not section.has("management_account"):
            section.fail(
                "management_account",
                "is missing: an organization is asked for its accounts there.",
                'Add management_account: "012345678901".',
            )
        return
    if not section.has("accounts"):
        section.fail(
            "accounts",
            "is missing, and so is organization: true.",
            'Write organization: true, or accounts: ["012345678901"].',
        )
    for key in ("management_account", "discovery_role"):
        if section.has(key):
            section.fail(key, "has a meaning only with organization: true.", "Leave it out.")


def _check_azure(section: _Checked) -> None:
    if section.has("client_secret_env") and section.has("client_certificate"):
        section.fail(
            "client_certificate", "stands beside client_secret_env.", "Keep one of the two."
        )
    if not section.has("client_secret_env") and not section.has("client_certificate"):
        section.fail(
            "client_secret_env",
            "is missing, and so is client_certificate.",
            "Name the environment variable that holds the secret, or the certificate's file.",
        )
    together = ("remediator_client_id", "remediator_identity", "remediator_role", "gate_id")
    missing = [key for key in together if not section.has(key)]
    if missing and len(missing) < len(together):
        present = next(key for key in together if section.has(key))
        section.fail(
            missing[0],
            f"is missing, but {present} is there.",
            f"Remediation needs all of {', '.join(together)}.",
        )
    if section.has("token_endpoint") and missing:
        section.fail("token_endpoint", "has no remediator.", f"Add {', '.join(together)}.")


def _check_top(section: _Checked) -> None:
    values = section.values
    if not values.get("aws") and not values.get("azure"):
        section.fail("aws", "is missing, and so is azure.", "List at least one source under either")
    _check_unique(section, "name", "a source of this name stands above.", "Give each its own name.")
    _check_unique(section, "accounts", "this account stands above.", "List it once.")
    _check_unique(section, "subscriptions", "this subscription stands above.", "List it once.")
    if section.has("issuer"):
        return
    for cloud, place, entry in _entries(values):
        needs = "token_endpoint" if entry.get("token_endpoint") else "gate_id"
        if entry.get(needs):
            section.fail(
                cloud,
                f"{place}.{needs} needs an issuer.",
                "Add issuer: {url: https://…, key_file: …, key_id: …}.",
            )


def _check_unique(section: _Checked, key: str, problem: str, fix: str) -> None:
    seen: set[str] = set()
    for cloud, place, entry in _entries(section.values):
        value = entry.get(key, ())
        for one in (value,) if isinstance(value, str) else value:
            if one in seen:
                index = int(place[len(cloud) + 1 : -1])
                listed = section.nodes[cloud].value[index]
                section.reader.fail(listed, f"{place}.{key}", problem, fix)
            seen.add(one)


def _entries(values: Mapping[str, Any]) -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    for cloud in ("aws", "azure"):
        for index, entry in enumerate(values.get(cloud, ())):
            yield cloud, f"{cloud}[{index}]", entry


_HUB_CREDENTIALS = _Schema(
    {
        "profile": _Key(_Reader.text),
        "access_key_id_env": _Key(_env),
        "secret_access_key_env": _Key(_env),
    },
    _check_hub_credentials,
)

_AWS = _Schema(
    {
        "name": _Key(_name, required=True, example="acme"),
        "organization": _Key(_flag),
        "accounts": _Key(_list_of(_account, "account ids")),
        "management_account": _Key(_account),
        "discovery_role": _Key(_role),
        "regions": _Key(_list_of(_region, "regions"), required=True, example="[eu-central-1]"),
        "scanner_role": _Key(_role),
        "remediator_role": _Key(_role),
        "external_id": _Key(_external_id, required=True, example="a UUID of your own"),
        "partition": _Key(_one_of(PARTITIONS)),
        "endpoint": _Key(_base_url("https", "http")),
        "ca_file": _Key(_path),
        "credentials": _Key(_hub_credentials),
        "token_endpoint": _Key(_url("https")),
        "token_endpoint_ca_file": _Key(_path),
    },
    _check_aws,
)

_AZURE = _Schema(
    {
        "name": _Key(_name, required=True, example="contoso"),
        "tenant": _Key(_uuid, required=True, example="the tenant's UUID"),
        "subscriptions": _Key(_list_of(_uuid, "subscription ids")),
        "client_id": _Key(_uuid, required=True, example="the application's UUID"),
        "client_secret_env": _Key(_env),
        "client_certificate": _Key(_path),
        "authority": _Key(_base_url("https")),
        "resource_manager": _Key(_base_url("https")),
        "audience": _Key(_url("https")),
        "ca_file": _Key(_path),
        "remediator_client_id": _Key(_uuid),
        "remediator_identity": _Key(
            _matching(
                _IDENTITY,
                "this is not the ARM id of a user-assigned identity.",
                "Write /subscriptions/…/resourceGroups/…/providers/"
                "Microsoft.ManagedIdentity/userAssignedIdentities/….",
            )
        ),
        "remediator_role": _Key(_role_definition),
        "gate_id": _Key(_uuid),
        "token_endpoint": _Key(_url("https")),
        "token_endpoint_ca_file": _Key(_path),
    },
    _check_azure,
)

_ISSUER = _Schema(
    {
        "url": _Key(_base_url("https"), required=True, example="https://…"),
        "key_file": _Key(_path, required=True, example="the private key's file"),
        "key_id": _Key(_Reader.text, required=True, example="the key's name in the published set"),
    }
)

_TOP = _Schema(
    {
        "suture": _Key(_version, required=True, example="1"),
        "aws": _Key(_sections(_AWS, "AWS sources")),
        "azure": _Key(_sections(_AZURE, "Azure sources")),
        "issuer": _Key(_issuer),
    },
    _check_top,
)
