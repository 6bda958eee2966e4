"""The opener's configuration: one YAML (or JSON) file of the customer's, without secrets.

```yaml
suture_opener: 1
inventory: inventory.yaml              # whose gates, and who signs: Suture's own file will do
url: https://gate.acme.example         # its own address, as Suture's token_endpoint without /open
store: dynamodb://eu-central-1/suture-opener
journal: "log:"
seed: secretsmanager://eu-central-1/suture/gate-seed   # left out: no codes are taken
allow:                                 # for requests that Suture signed
  - accounts: ["111122223333"]
    rules: ["aws_s3_*"]                # or actions: ["s3:PutBucket*"]
    resources: ["arn:aws:s3:::acme-*"]
    minutes: 10
warm:                                  # left out: no gate is kept warm
  key: secretsmanager://eu-central-1/suture/gate-warm-key
  gates:
    - {source: acme, account: "111122223333", rules: [aws_s3_bucket_tls_only],
       resources: ["arn:aws:s3:::acme-*"], from: "08:00", until: "18:00"}
```
"""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Callable
from datetime import time
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import SecretStr

from deployments.opener.allow import Allowed
from deployments.opener.core import Opener, Settings
from deployments.opener.journal import open_journal
from deployments.opener.secret import read_secret
from deployments.opener.store import open_store
from deployments.opener.warm import MOST_HOURS, WarmGate
from tasks.clouds.gate import MOST_MINUTES, CustomerCredentials
from tasks.errors import BadFile
from tasks.inventory import Inventory, load_inventory
from tasks.model import Account, Cloud
from tasks.rules import RULES
from tasks.yaml_file import Section, parse_yaml, read_text

VARIABLE = "SUTURE_OPENER_CONFIG"
DEFAULT_FILE = "opener.yaml"
AWS_ROLE = "SutureOpener"

_KEYS = ("suture_opener", "inventory", "url", "store", "journal", "seed", "aws_role", "ca_file")


@functools.cache
def configured_opener() -> Opener:
    """The opener that ``SUTURE_OPENER_CONFIG`` describes, once for the process."""
    return load_opener(Path(os.environ.get(VARIABLE) or DEFAULT_FILE))


def load_opener(path: Path) -> Opener:
    """The opener that a file describes. Raises BadFile with the line and the fix."""
    top = parse_yaml(read_text(path, BadFile), str(path), BadFile)
    top.only((*_KEYS, "allow", "warm"))
    if top.data.get("suture_opener") != 1:
        raise top.bad("suture_opener", "is not 1.", "Begin the file with `suture_opener: 1`.")
    url = top.text("url")
    if not url.startswith("https://"):
        raise top.bad("url", "is no https address.", "Write it like https://gate.acme.example.")
    inventory = load_inventory(path.parent / top.text("inventory"))
    role = top.text("aws_role", AWS_ROLE)
    warm = top.section("warm")
    settings = Settings(
        url=url.rstrip("/").removesuffix("/open"),
        allow=tuple(_allowed(one) for one in top.sections("allow")),
        seed=_secret(top, "seed"),
        credentials=lambda _: CustomerCredentials(admin_role=role),
        warm=_warm_gates(warm, inventory) if warm else (),
        warm_key=_secret(warm, "key") if warm else None,
    )
    ca_file = top.text("ca_file", "")
    return Opener(
        settings,
        inventory,
        open_store(top.text("store")),
        open_journal(top.text("journal")),
        trust=ssl.create_default_context(cafile=str(path.parent / ca_file)) if ca_file else None,
    )


def _secret(section: Section, key: str) -> Callable[[], SecretStr] | None:
    """Reads the secret when it is needed: one that was changed counts from then on."""
    address = section.text(key, "")
    return functools.partial(read_secret, address) if address else None


def _allowed(section: Section) -> Allowed:
    section.only(("accounts", "rules", "actions", "resources", "minutes"))
    return Allowed(
        _listed(section, "accounts"),
        _actions(section),
        _listed(section, "resources"),
        section.number("minutes", MOST_MINUTES, least=1, most=MOST_MINUTES),
    )


def _warm_gates(section: Section, inventory: Inventory) -> tuple[WarmGate, ...]:
    section.only(("key", "gates"))
    section.text("key")
    return tuple(_warm_gate(one, inventory) for one in section.sections("gates"))


def _warm_gate(section: Section, inventory: Inventory) -> WarmGate:
    section.only(("source", "account", "rules", "actions", "resources", "from", "until"))
    source = inventory.source(section.text("source"))
    cloud = source.cloud
    starts, ends = _clock(section, "from"), _clock(section, "until")
    if not 0 < _minutes(ends) - _minutes(starts) <= MOST_HOURS * 60:
        raise section.bad("until", f"is not within {MOST_HOURS} hours after from.", "In UTC.")
    account = Account(cloud, section.text("account").lower(), source=source.name)
    resources = _listed(section, "resources")
    if cloud is Cloud.AZURE and any("*" in one for one in resources):
        raise section.bad("resources", "has a *: Azure opens for named ones.", "Name each.")
    return WarmGate(account, _actions(section), resources, starts, ends)


def _actions(section: Section) -> tuple[str, ...]:
    """The actions an entry names, and those that the rules it names may write."""
    patterns = section.texts("rules")
    found = [
        action
        for rule in RULES
        if any(fnmatchcase(rule.id, pattern) for pattern in patterns)
        for action in rule.writes
    ]
    if patterns and not found:
        raise section.bad("rules", "matches no rule.", "`suture rules` lists them.")
    actions = (*section.texts("actions"), *dict.fromkeys(found))
    if not actions:
        raise section.bad("actions", "is missing, and so is rules.", "Name what it may do.")
    return actions


def _listed(section: Section, key: str) -> tuple[str, ...]:
    section.items(key)
    return section.texts(key)


def _clock(section: Section, key: str) -> time:
    try:
        found = time.fromisoformat(section.text(key))
    except ValueError:
        raise section.bad(key, "is no time of day.", 'Write it like "08:00", in UTC.') from None
    return found.replace(tzinfo=None)


def _minutes(clock: time) -> int:
    return clock.hour * 60 + clock.minute
