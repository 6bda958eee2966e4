"""The opener's file: what it says, and one sentence for what it should not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from deployments.opener import config
from deployments.opener.core import Opener
from deployments.opener.journal import FileJournal, LogJournal, open_journal
from deployments.opener.secret import read_secret
from tasks.errors import BadFile, BadInput, CloudError
from tasks.model import Cloud
from tasks.rules import rule

INVENTORY = """\
suture: 1
aws:
  - name: acme
    accounts: ["111122223333"]
    regions: [eu-central-1]
    external_id: 7c1f9a52-33f2-4a6c-9c0c-8d1f0a4f2b11
azure:
  - name: contoso
    tenant: 0d9b6c1e-6a59-4d0e-9a51-2f6f0f1b7a33
    client_id: 5b0b3a53-0f0e-4b8c-8a9e-6f6a3c1d2e4f
    client_secret_env: NAME
issuer: {url: "https://id.acme.example", key_file: none.pem, key_id: k}
"""
EXAMPLE = config.__doc__.split("```yaml\n")[1].split("```")[0]  # type: ignore[union-attr]


@pytest.fixture
def load(tmp_path: Path) -> Callable[[str], Opener]:
    """The opener of a file; it keeps its things in a folder, whatever the file says."""
    (tmp_path / "inventory.yaml").write_text(INVENTORY)

    def loaded(text: str) -> Opener:
        file = tmp_path / "opener.yaml"
        text = text.replace("dynamodb://eu-central-1/suture-opener", (tmp_path / "s").as_uri())
        file.write_text(text)
        return config.load_opener(file)

    return loaded


def test_the_example_of_the_documentation_loads(load: Callable[[str], Opener]) -> None:
    settings = load(EXAMPLE)._settings
    assert settings.url == "https://gate.acme.example"
    (allowed,) = settings.allow
    assert allowed.minutes == 10
    assert set(rule("aws_s3_bucket_tls_only").writes) <= set(allowed.actions)
    assert not any(action.startswith("ec2:") for action in allowed.actions)
    (gate,) = settings.warm
    assert (gate.account.cloud, gate.starts, gate.ends) == (Cloud.AWS, time(8), time(18))
    assert settings.seed is not None
    assert settings.warm_key is not None


def test_it_may_be_json_and_take_no_codes(load: Callable[[str], Opener]) -> None:
    entries = {
        "suture_opener": 1,
        "inventory": "inventory.yaml",
        "url": "https://gate.acme.example/open",
        "store": "dynamodb://eu-central-1/suture-opener",
        "journal": "log:",
    }
    settings = load(json.dumps(entries))._settings
    assert (settings.url, settings.seed, settings.allow, settings.warm) == (
        "https://gate.acme.example",
        None,
        (),
        (),
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("suture_opener: 1", "suture_opener: 2", "suture_opener: is not 1"),
        ("url: https", "url: http", "url: is no https"),
        ("store: dynamodb", "store: s3", "is no store"),
        ('journal: "log:"', 'journal: "syslog:"', "is no journal"),
        ("minutes: 10", "minutes: 16", "Choose from 1 to 15"),
        ("minutes: 10", "minuets: 10", "Did you mean minutes"),
        ('rules: ["aws_s3_*"]', 'rules: ["aws_s9_*"]', "matches no rule"),
        ('    rules: ["aws_s3_*"]', "", "actions: is missing"),
        ('    resources: ["arn:aws:s3:::acme-*"]\n    minutes', "    minutes", "resources"),
        ('- accounts: ["111122223333"]', "- accounts: []", "accounts"),
        ('until: "18:00"', 'until: "21:00"', "within 12 hours"),
        ('until: "18:00"', 'until: "07:00"', "within 12 hours"),
        ('until: "18:00"', 'until: "late"', "no time of day"),
        ("source: acme", "source: nobody", "no entry named"),
        ("source: acme", "source: contoso", "Azure opens for named ones"),
        ("  key: secretsmanager://eu-central-1/suture/gate-warm-key\n", "", "key: is missing"),
    ],
)
def test_a_mistake_is_said_in_one_sentence(
    load: Callable[[str], Opener], old: str, new: str, says: str
) -> None:
    assert old in EXAMPLE
    with pytest.raises(BadInput, match=says) as caught:
        load(EXAMPLE.replace(old, new))
    if isinstance(caught.value, BadFile):
        assert "opener.yaml:" in str(caught.value)


def test_the_file_is_named_by_the_environment(
    load: Callable[[str], Opener], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(EXAMPLE)
    monkeypatch.setenv(config.VARIABLE, str(tmp_path / "opener.yaml"))
    config.configured_opener.cache_clear()
    assert config.configured_opener() is config.configured_opener()
    config.configured_opener.cache_clear()


# --- secrets and journals -----------------------------------------------------------------------


def test_a_secret_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "seed").write_text("JBSWY3DP\n")
    assert read_secret((tmp_path / "seed").as_uri()).get_secret_value() == "JBSWY3DP"
    with pytest.raises(CloudError, match="No such file"):
        read_secret((tmp_path / "none").as_uri())


@pytest.mark.slow
def test_a_secret_in_secrets_manager(customer_env: Mapping[str, str]) -> None:
    secrets = boto3.client("secretsmanager", region_name="eu-central-1")
    secrets.create_secret(Name="suture/one", SecretString="JBSWY3DP")
    secrets.create_secret(Name="suture/two", SecretBinary=b"\0")
    where = "secretsmanager://eu-central-1/suture/"
    assert read_secret(f"{where}one").get_secret_value() == "JBSWY3DP"
    for name, says in (("two", "binary"), ("three", "ResourceNotFoundException")):
        with pytest.raises(CloudError, match=says):
            read_secret(f"{where}{name}")


def test_an_address_that_is_none_is_not_repeated() -> None:
    for address in ("JBSWY3DPEHPK3PXP", "secretsmanager://eu-central-1", "file:///", ""):
        with pytest.raises(BadInput, match="file:///path") as caught:
            read_secret(address)
        assert "JBSWY3DP" not in str(caught.value)


def test_a_journal_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    journal = open_journal("log:")
    assert isinstance(journal, LogJournal)
    journal.write({"what": "opened", "resources": ["a" * 900]})
    line: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert line["what"] == "opened"
    assert len(line["resources"][0]) == 500


def test_a_journal_in_a_file_is_its_owners(tmp_path: Path) -> None:
    journal = open_journal((tmp_path / "journal").as_uri())
    assert isinstance(journal, FileJournal)
    journal.write({"what": "opened"})
    assert (tmp_path / "journal").stat().st_mode & 0o077 == 0
