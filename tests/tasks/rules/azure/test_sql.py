"""Azure SQL: which firewall rules are deleted, and what auditing cannot be turned on blindly."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import BadInput
from tasks.model import Cloud, Config, Resource, Verdict
from tasks.rules import rule

INTERNET = rule("azure_sql_server_internet_not_let_in")
AZURE = rule("azure_sql_server_azure_not_let_in")
AUDIT = rule("azure_sql_server_auditing_on")
ID = "/subscriptions/s/resourcegroups/rg/providers/microsoft.sql/servers/acme"


def server(**parts: Any) -> Resource:
    config = {"properties": {"publicNetworkAccess": "Enabled"}, **parts}
    return Resource(Cloud.AZURE, "s", "westeurope", AUDIT.kind, ID, "acme", Config(config))


def walls(*ranges: str) -> Resource:
    rules = [
        {
            "name": one,
            "properties": dict(
                zip(("startIpAddress", "endIpAddress"), one.split("-"), strict=True)
            ),
        }
        for one in ranges
    ]
    return server(firewallRules=rules)


def deleted(resource: Resource) -> list[str]:
    assert INTERNET.fix is not None
    return [step.call.target.rpartition("/")[2] for step in INTERNET.fix(resource, {})]


WORLD = "0.0.0.0-255.255.255.255"
LOW, HIGH = "0.0.0.0-127.255.255.255", "128.0.0.0-255.255.255.255"
OFFICE = "203.0.114.1-203.0.114.9"


@pytest.mark.parametrize(
    ("ranges", "gone"),
    [
        ([OFFICE], []),
        ([LOW, OFFICE], []),
        ([WORLD, LOW], [WORLD]),
        ([WORLD, OFFICE], [WORLD]),
        ([LOW, HIGH, OFFICE], [LOW, HIGH]),
        ([WORLD, LOW, HIGH], [WORLD, LOW, HIGH]),
        (["0.0.0.0-0.0.0.0", WORLD], [WORLD]),
    ],
)
def test_only_the_rules_that_open_it_go(ranges: list[str], gone: list[str]) -> None:
    assert deleted(walls(*ranges)) == gone
    assert INTERNET.judge(walls(*ranges))[0] is (Verdict.FAIL if gone else Verdict.PASS)


@pytest.mark.parametrize("odd", ["9.9.9.9-1.1.1.1", "x-y", "::-::1", "1.1.1-2.2.2"])
def test_a_range_that_is_none_is_unknown(odd: str) -> None:
    for one in (INTERNET, AZURE):
        assert one.judge(walls(odd))[0] is Verdict.UNKNOWN


def test_auditing_to_a_storage_account_by_key_is_not_touched() -> None:
    settings = {"state": "Disabled", "storageEndpoint": "https://a.blob.core.windows.net/"}
    assert AUDIT.fix is not None
    with pytest.raises(BadInput, match="by hand"):
        AUDIT.fix(server(auditingSettings=settings), {})
