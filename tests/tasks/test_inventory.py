"""The inventory file: what it becomes, and what each mistake in it is answered with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tasks.errors import BadInput, BadInventory
from tasks.inventory import (
    AwsSource,
    AzureSource,
    HubCredentials,
    Inventory,
    load_inventory,
    parse_inventory,
)

IDENTITY = (
    "/subscriptions/9a0c2a0e-1111-4222-8333-444455556602/resourceGroups/suture/providers/"
    "Microsoft.ManagedIdentity/userAssignedIdentities/remediator"
)
FULL = f"""\
suture: 1
aws:
  - name: acme
    organization: true
    management_account: "000000000000"
    discovery_role: SutureDiscovery
    regions: [eu-central-1, us-east-1]
    external_id: 7b0c2a0e-1111-4222-8333-44445555666a
    endpoint: http://127.0.0.1:4566/
    ca_file: trust/ca.pem
    credentials:
      access_key_id_env: HUB_KEY
      secret_access_key_env: HUB_SECRET
    token_endpoint: https://tokens.example.com/open
  - name: plain
    accounts: ["111122223333", "012345678901"]
    regions: [us-gov-west-1]
    partition: aws-us-gov
    scanner_role: security/Reader
    external_id: 7B0C2A0E-2222-4222-8333-44445555666B
azure:
  - name: contoso
    tenant: 9A0C2A0E-1111-4222-8333-444455556601
    subscriptions: [9a0c2a0e-1111-4222-8333-444455556602]
    client_id: 9a0c2a0e-1111-4222-8333-444455556603
    client_secret_env: CONTOSO_SECRET
    remediator_client_id: 9a0c2a0e-1111-4222-8333-444455556604
    remediator_identity: {IDENTITY}
    remediator_role: 9a0c2a0e-1111-4222-8333-444455556605
    gate_id: 9a0c2a0e-1111-4222-8333-444455556606
issuer:
  url: https://issuer.example.com/suture/
  key_file: keys/issuer.pem
  key_id: "1"
"""


QUEUE = "https://sqs.eu-central-1.amazonaws.com/012345678901/suture-events"


def _with_queues(*lines: str) -> str:
    return FULL.replace(
        "  - name: plain\n", "\n".join([*(f"    {line}" for line in lines), "  - name: plain\n"])
    )


def test_queues_of_events_are_read() -> None:
    dead = QUEUE.replace("events", "dead")
    text = _with_queues(f"event_queue: {QUEUE}/", f"event_dead_letter_queue: {dead}")
    acme, plain = parse_inventory(text).aws
    assert (acme.event_queue, acme.event_dead_letter_queue) == (QUEUE, dead)
    assert (plain.event_queue, plain.event_dead_letter_queue) == ("", "")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((f"event_dead_letter_queue: {QUEUE}",), "stands without an event_queue"),
        ((f"event_queue: {QUEUE}", f"event_dead_letter_queue: {QUEUE}"), "event_queue itself"),
        (("event_queue: sqs",), "is not"),
    ],
)
def test_queue_that_cannot_be_is_refused(lines: tuple[str, ...], words: str) -> None:
    with pytest.raises(BadInventory, match=words):
        parse_inventory(_with_queues(*lines))


def test_file_becomes_values(tmp_path: Path) -> None:
    path = tmp_path / "inventory.yaml"
    path.write_text(FULL)
    inventory = load_inventory(path)

    acme, plain = inventory.aws
    assert acme.organization
    assert acme.management_account == "000000000000"
    assert acme.regions == ("eu-central-1", "us-east-1")
    assert acme.endpoint == "http://127.0.0.1:4566"
    assert acme.ca_file == str(tmp_path / "trust/ca.pem")
    assert acme.credentials == HubCredentials(
        access_key_id_env="HUB_KEY", secret_access_key_env="HUB_SECRET"
    )
    assert (acme.scanner_role, acme.remediator_role) == ("SutureScanner", "SutureRemediator")
    assert acme.partition == "aws"
    assert plain.accounts == ("111122223333", "012345678901")
    assert plain.role_arn("111122223333", plain.scanner_role) == (
        "arn:aws-us-gov:iam::111122223333:role/security/Reader"
    )
    # A trust policy compares it letter by letter: it stays as written.
    assert plain.external_id == "7B0C2A0E-2222-4222-8333-44445555666B"

    (contoso,) = inventory.azure
    assert contoso.tenant == "9a0c2a0e-1111-4222-8333-444455556601"
    assert contoso.authority == "https://login.microsoftonline.com"
    assert contoso.resource_manager == "https://management.azure.com"
    assert contoso.audience == "https://management.azure.com/"
    assert contoso.remediates
    assert not any(source.presents_codes for source in inventory.sources)
    presents = "token_endpoint: https://tokens.example.com/open\n    presents_codes: true"
    acme, *others = parse_inventory(
        FULL.replace("token_endpoint: https://tokens.example.com/open", presents)
    ).sources
    assert [one.presents_codes for one in (acme, *others)] == [True, False, False]
    assert inventory.issuer is not None
    assert inventory.issuer.url == "https://issuer.example.com/suture"
    assert inventory.issuer.key_file == str(tmp_path / "keys/issuer.pem")


def test_sources_are_found_by_name() -> None:
    inventory = parse_inventory(FULL)
    assert isinstance(inventory.source("acme"), AwsSource)
    assert isinstance(inventory.source("contoso"), AzureSource)
    with pytest.raises(BadInput, match=r"no entry named 'nobody'.*acme, plain, contoso"):
        inventory.source("nobody")


def test_one_source_is_enough() -> None:
    text = 'suture: 1\naws: [{name: a, accounts: ["111122223333"], regions: [eu-west-1], %s}]'
    inventory = parse_inventory(text % "external_id: 7b0c2a0e-1111-4222-8333-44445555666a")
    assert inventory.aws[0].credentials is None
    assert inventory.azure == ()


@pytest.mark.parametrize(("written", "graph"), [("", True), ("true", True), ("false", False)])
def test_resource_graph_is_used_unless_told_otherwise(written: str, graph: bool) -> None:
    option = f"name: contoso\n    graph: {written}" if written else "name: contoso"
    inventory = parse_inventory(FULL.replace("name: contoso", option))
    assert inventory.azure[0].graph is graph


def test_principal_of_the_hub() -> None:
    arn = "arn:aws-us-gov:iam::111122223333:role/security/suture"
    inventory = parse_inventory(
        FULL.replace("name: plain", f"name: plain\n    hub_principal: {arn}")
    )
    assert inventory.aws[1].hub_principal == arn
    with pytest.raises(BadInventory, match="not the ARN of a user or a role"):
        parse_inventory(FULL.replace("name: plain", 'name: plain\n    hub_principal: "*"'))


# (what is replaced in FULL, by what, the line that is wrong, the field, a word of the fix)
MISTAKES = [
    ("suture: 1", "suture: 2", 1, "suture", "suture: 1"),
    ("suture: 1", "suture: '1'", 1, "suture", "suture: 1"),
    ("suture: 1\n", "", 1, "suture", "suture: 1"),
    ("aws:\n", "aws: &x\n", 15, None, None),  # an anchor alone harms nothing
    ("aws:\n", "awz:\n", 2, "awz", "Did you mean aws"),
    ("    organization: true\n", "", 3, "aws[0].accounts", "organization: true"),
    (
        "client_secret_env: CONTOSO_SECRET",
        "client_secret_env: CONTOSO_SECRET\n    graph: often",
        27,
        "azure[0].graph",
        "true or false",
    ),
    ("organization: true", "organization: maybe", 4, "aws[0].organization", "true or false"),
    ("organization: true", "organization: false", 3, "aws[0].accounts", "accounts"),
    (
        "    organization: true\n",
        '    organization: true\n    accounts: ["111122223344"]\n',
        5,
        "aws[0].accounts",
        "one of the two",
    ),
    ('"000000000000"', "000000000000", 5, "aws[0].management_account", "quotes"),
    ('"000000000000"', '"00000000000"', 5, "aws[0].management_account", "12 digits"),
    ('"000000000000"', '"００００００００００００"', 5, "aws[0].management_account", "12 digits"),
    ('    management_account: "000000000000"\n', "", 3, "aws[0].management_account", "Add"),
    ('["111122223333", "012345678901"]', "[012345678901]", 16, "aws[1].accounts[0]", "quotes"),
    ('["111122223333", "012345678901"]', "[111122223333]", 16, "aws[1].accounts[0]", "quotes"),
    ('"012345678901"]', '"111122223333"]', 16, "aws[1].accounts[1]", "Keep one"),
    ('["111122223333", "012345678901"]', "[]", 16, "aws[1].accounts", "Write accounts: ["),
    ('["111122223333", "012345678901"]', '"111122223333"', 16, "aws[1].accounts", "list"),
    ("name: plain", "name: acme", 15, "aws[1].name", "own name"),
    ("name: contoso", "name: plain", 22, "azure[0].name", "own name"),
    ("name: plain", "name: 'pl ain'", 15, "aws[1].name", "acme-production"),
    ("name: plain", "name: 7", 15, "aws[1].name", "quotes"),
    ("name: plain", "name: ''", 15, "aws[1].name", "empty"),
    ("regions: [us-gov-west-1]", "regions: [us-gov-west1]", 17, "aws[1].regions[0]", "eu-central"),
    ("regions: [us-gov-west-1]", "regions: all", 17, "aws[1].regions", "list"),
    ("    regions: [us-gov-west-1]\n", "", 15, "aws[1].regions", "Add it"),
    ("regions: [us-gov-west-1]", "region: [us-gov-west-1]", 17, "aws[1].region", "regions?"),
    ("partition: aws-us-gov", "partition: aws-gov", 18, "aws[1].partition", "aws-us-gov"),
    ("security/Reader", "arn:aws:iam::1:role/x", 19, "aws[1].scanner_role", "without the ARN"),
    ("7B0C2A0E-2222", "7B0C2A0E2222", 20, "aws[1].external_id", "8-4-4-4-12"),
    (
        "    external_id: 7B0C2A0E-2222-4222-8333-44445555666B\n",
        "",
        15,
        "aws[1].external_id",
        "Add",
    ),
    ("http://127.0.0.1:4566/", "ftp://127.0.0.1", 9, "aws[0].endpoint", "https:// or http://"),
    ("http://127.0.0.1:4566/", "http://me:pass@host", 9, "aws[0].endpoint", "password"),
    ("http://127.0.0.1:4566/", "http://host:99999", 9, "aws[0].endpoint", "not an address"),
    ("http://127.0.0.1:4566/", "http://host/?a=b", 9, "aws[0].endpoint", "query"),
    (
        "https://tokens.example.com/open",
        "http://tokens.example.com",
        14,
        "aws[0].token_endpoint",
        "https",
    ),
    (
        "token_endpoint: https://tokens.example.com/open",
        "presents_codes: true",
        14,
        "aws[0].presents_codes",
        "needs a token_endpoint",
    ),
    (
        "      secret_access_key_env: HUB_SECRET\n",
        "",
        11,
        "aws[0].credentials.secret_access_key_env",
        "both",
    ),
    ("access_key_id_env: HUB_KEY", "profile: x", 12, "aws[0].credentials.profile", "one way"),
    (
        "access_key_id_env: HUB_KEY",
        "access_key_id_env: AKIA+/8",
        12,
        "aws[0].credentials.access_key_id_env",
        "never the secret",
    ),
    (
        "access_key_id_env: HUB_KEY",
        "access_key_id: AKIAX",
        12,
        "aws[0].credentials.access_key_id",
        "access_key_id_env: NAME",
    ),
    (
        "regions: [us-gov-west-1]",
        "regions: [us-gov-west-1]\n    discovery_role: X",
        18,
        "aws[1].discovery_role",
        "Leave it out",
    ),
    (
        "client_secret_env: CONTOSO_SECRET",
        "client_secret: hunter2",
        26,
        "azure[0].client_secret",
        "client_secret_env: NAME",
    ),
    (
        "    client_secret_env: CONTOSO_SECRET\n",
        "",
        22,
        "azure[0].client_secret_env",
        "certificate",
    ),
    (
        "client_secret_env: CONTOSO_SECRET",
        "client_secret_env: X\n    client_certificate: c.pem",
        27,
        "azure[0].client_certificate",
        "one of the two",
    ),
    (
        "tenant: 9A0C2A0E-1111-4222-8333-444455556601",
        "tenant: contoso.com",
        23,
        "azure[0].tenant",
        "UUID",
    ),
    ("    tenant: 9A0C2A0E-1111-4222-8333-444455556601\n", "", 22, "azure[0].tenant", "Add it"),
    (
        "[9a0c2a0e-1111-4222-8333-444455556602]",
        "[]",
        24,
        "azure[0].subscriptions",
        "Write subscriptions: [",
    ),
    (
        "    remediator_role: 9a0c2a0e-1111-4222-8333-444455556605\n",
        "",
        22,
        "azure[0].remediator_role",
        "all of",
    ),
    (
        "remediator_role: 9a0c2a0e",
        "remediator_role: Contributor9a0c2a0e",
        29,
        "azure[0].remediator_role",
        "UUID or ARM id",
    ),
    (
        "userAssignedIdentities/remediator",
        "userAssignedIdentities",
        28,
        "azure[0].remediator_identity",
        "ARM id",
    ),
    (
        "client_secret_env: CONTOSO_SECRET",
        "client_secret_env: X\n    authority: http://localhost",
        27,
        "azure[0].authority",
        "https",
    ),
    ("  url: https://issuer", "  url: http://issuer", 32, "issuer.url", "https"),
    ('key_id: "1"', "key_id: 1", 34, "issuer.key_id", "quotes"),
    ('  key_id: "1"\n', "", 31, "issuer.key_id", "Add it"),
    ("name: plain", "name: plain\n    name: twice", 16, "file", "duplicate key"),
    ("name: plain", "name: plain\n    ? [a]\n    : b", 15, "aws[1].('a',)", "not a known key"),
    ("name: plain", "name: [plain]", 15, "aws[1].name", "not text"),
    ("issuer:\n", "issuer: [\n", 33, "file", "not YAML"),
    ("suture: 1\n", "suture: 1\n\tx: 1\n", 2, "file", "not YAML"),
]


@pytest.mark.parametrize(("old", "new", "line", "field", "says"), MISTAKES)
def test_mistake_is_named_with_its_line_and_its_fix(
    old: str, new: str, line: int, field: str | None, says: str | None
) -> None:
    assert old in FULL
    text = FULL.replace(old, new, 1)
    if field is None or says is None:
        parse_inventory(text)
        return
    with pytest.raises(BadInventory) as caught:
        parse_inventory(text, file="clouds.yaml")
    assert (caught.value.field, caught.value.line) == (field, line)
    assert says in str(caught.value)
    assert str(caught.value).startswith(f"clouds.yaml:{line}: {field}")


@pytest.mark.parametrize(
    "secret", ["client_secret: hunter2hunter2", "client_secret_env: hunter-2!"]
)
def test_secret_in_the_file_is_not_repeated(secret: str) -> None:
    with pytest.raises(BadInventory) as caught:
        parse_inventory(FULL.replace("client_secret_env: CONTOSO_SECRET", secret))
    assert "hunter" not in str(caught.value)


def test_issuer_is_asked_for_where_it_is_needed() -> None:
    without = FULL[: FULL.index("issuer:")]
    with pytest.raises(BadInventory, match=r"aws\[0\]\.token_endpoint: needs an issuer"):
        parse_inventory(without)
    without = re.sub(r".*token_endpoint.*\n", "", without)
    with pytest.raises(BadInventory, match=r"azure\[0\]\.gate_id: needs an issuer"):
        parse_inventory(without)


def test_account_listed_twice_in_two_sources() -> None:
    again = FULL.replace("name: plain", 'name: third\n    accounts: ["111122223333"]\n'
        "    regions: [us-east-1]\n    external_id: 7b0c2a0e-1111-4222-8333-44445555666c\n"
        "  - name: plain")  # fmt: skip
    with pytest.raises(BadInventory, match=r"aws\[2\]\.accounts: 111122223333 is listed above"):
        parse_inventory(again)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "[]", "- 1", "hello", "42", "null", "suture: 1"]
)
def test_file_without_sources(text: str) -> None:
    with pytest.raises(BadInventory):
        parse_inventory(text)


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(BadInventory, match="No such file"):
        load_inventory(tmp_path / "none.yaml")
    with pytest.raises(BadInventory, match="cannot be read"):
        load_inventory(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInventory, match="UTF-8"):
        load_inventory(tmp_path / "binary.yaml")


# --- Whatever happens to a file, the answer is an Inventory or BadInventory -----------------------

LINES = FULL.splitlines(keepends=True)
PIECES = st.one_of(
    st.sampled_from(LINES),
    st.sampled_from(
        ["&a [*a]\n", "? \n", "- \n", "<<: *x\n", "!!python/object:os.system x\n", "%YAML 9.9\n",
         "---\n", "...\n", "{a: {b: [\n", "'", '"', "*nope\n", "!!binary x\n", "\t", "\x00",
         "aws: !!set {a}\n", "name: 2026-11-23\n", "regions: [1.5, .inf, ~]\n", "|\n", "\ufeff"]
    ),
    st.text(max_size=12),
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """FULL with some of its text cut, replaced or doubled."""
    text = FULL
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 60)))
        text = text[:start] + draw(PIECES) + text[end:]
    return text


@settings(deadline=None)
@given(st.one_of(mutated(), st.lists(PIECES, max_size=8).map("".join)))
@example("aws: " + "[" * 400)
@example("&a\nsuture: *a")
@example("aws: &a [*a]\nsuture: 1")
@example("!!int suture: !!bool 1")
@example("1: 2\n1: 3")
@example("aws:\n%YAML 9.9\n")
def test_any_text_is_an_inventory_or_bad_inventory(text: str) -> None:
    try:
        answer: Inventory | BadInventory = parse_inventory(text)
    except BadInventory as error:
        answer = error
    if isinstance(answer, BadInventory):
        assert 0 < answer.line <= len(text.splitlines()) + 1
        assert answer.problem
    else:
        assert answer.sources
