"""The customer's side: what opens, what closes, and what of theirs is left alone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyotp
import pytest
from pydantic import SecretStr

from tasks.clouds import gate as gate_module
from tasks.clouds.aws_gate import CLOSED, AwsGate
from tasks.clouds.azure_gate import AzureGate
from tasks.clouds.azure_write import Arm
from tasks.clouds.gate import close_gate, open_gate
from tasks.clouds.sdk_errors import UnsettledWrite
from tasks.errors import AccessRefused, BadInput, CloudError, CloudTimeout, Conflict, Throttled
from tasks.model import Cloud

if TYPE_CHECKING:
    from tests.tasks.clouds.conftest import Gated

BUCKET = "aws_s3_bucket_public_access_blocked"
STORAGE = "azure_storage_account_https_only"
BOTH = pytest.mark.parametrize("rule_id", [BUCKET, STORAGE])

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def closed_afterwards(gated: Gated) -> Iterator[None]:
    yield
    while gated.opened:
        gated.close(gated.opened.pop())


def trust(gated: Gated, finding: dict[str, str]) -> AwsGate:
    keys = gated.customer(finding).aws
    assert keys is not None
    return AwsGate(gated.inventory.aws[0], finding["account"], keys)


def statements(gated: Gated, finding: dict[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = trust(gated, finding)._read()["Statement"]
    return found


def azure_gate(gated: Gated, finding: dict[str, str]) -> AzureGate:
    issuer, credential = gated.inventory.issuer, gated.customer(finding).azure
    assert issuer is not None
    assert credential is not None
    return AzureGate(gated.inventory.azure[0], issuer, finding["account"], credential)


@BOTH
def test_it_opens_until_the_time_given_and_closes(gated: Gated, rule_id: str) -> None:
    finding = gated.findings(rule_id)[0]
    assert not gated.status(finding).is_open
    opened = gated.open(finding, minutes=3)
    assert timedelta(0) < opened.expires_at - datetime.now(UTC) <= timedelta(minutes=3)
    (standing,) = gated.status(finding).openings
    assert standing.id == opened.opening
    assert standing.expires_at == opened.expires_at.replace(microsecond=0)
    assert opened.closes_itself is (rule_id == BUCKET)
    gated.close(finding)
    assert gated.status(finding).openings == ()


def test_a_persons_code_is_what_the_authenticator_shows(gated: Gated) -> None:
    opened = gated.open(gated.findings(BUCKET)[0], seed=gated.SEED)
    totp = pyotp.TOTP(gated.SEED.get_secret_value())
    assert totp.verify(opened.code.get_secret_value(), valid_window=1)
    assert opened.authenticator_seconds is not None
    assert 0 <= opened.authenticator_seconds <= 30
    assert opened.code.get_secret_value() not in repr(opened)


def test_a_machines_code_is_long_and_drawn(gated: Gated) -> None:
    finding = gated.findings(BUCKET)[0]
    codes = {gated.open(finding).code.get_secret_value() for _ in range(2)}
    assert len(codes) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{32}", code) for code in codes)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"minutes": 0, "machine": True}, "minutes"),
        ({"minutes": 16, "machine": True}, "minutes"),
        ({}, "seed"),
        ({"seed": SecretStr("JBSWY3DPEHPK3PXP"), "machine": True}, "seed"),
        ({"seed": SecretStr("not base32!")}, "seed"),
        ({"machine": True, "opening": "no spaces"}, "opening"),
    ],
)
def test_what_cannot_be_opened_is_said(gated: Gated, options: Any, field: str) -> None:
    finding = gated.findings(BUCKET)[0]
    with pytest.raises(BadInput) as caught:
        open_gate(
            gated.inventory,
            gated.account(finding),
            customer=gated.customer(finding),
            **options,
        )
    assert caught.value.field == field
    assert "base32!" not in str(caught.value)
    assert not gated.status(finding).is_open


# --- AWS ----------------------------------------------------------------------------------------


def test_the_trust_policy_names_hub_code_and_time(gated: Gated) -> None:
    finding, source = gated.findings(BUCKET)[0], gated.inventory.aws[0]
    code = gated.open(finding).code.get_secret_value()
    (statement,) = statements(gated, finding)
    assert statement["Principal"] == {"AWS": source.hub_principal}
    assert statement["Condition"]["StringEquals"] == {
        "sts:ExternalId": f"{source.external_id}:{code}"
    }
    assert set(statement["Condition"]["DateLessThan"]) == {"aws:CurrentTime"}


def test_the_management_account_opens_without_another_role(gated: Gated) -> None:
    management = gated.inventory.aws[0].management_account
    finding = {"cloud": "aws", "account": management, "resource": "", "rule": BUCKET}
    gated.open(finding)
    assert gated.status(finding).is_open


def test_statements_that_are_not_ours_stay(gated: Gated) -> None:
    finding = gated.findings(BUCKET)[0]
    gate = trust(gated, finding)
    theirs = {
        "Sid": "BreakGlass",
        "Effect": "Allow",
        "Principal": {"AWS": f"arn:aws:iam::{finding['account']}:root"},
        "Action": "sts:AssumeRole",
    }
    gate._write({"Version": "2012-10-17"}, [theirs])
    try:
        gated.open(finding)
        assert theirs in statements(gated, finding)
        gated.close(finding)
        assert statements(gated, finding) == [theirs]
    finally:
        gate._write({"Version": "2012-10-17"}, [CLOSED])


@BOTH
def test_openings_stand_side_by_side_and_close_one_by_one(gated: Gated, rule_id: str) -> None:
    finding = gated.findings(rule_id)[0]
    first = gated.open(finding, opening="first")
    gated.open(finding, opening="second")
    gated.close(finding, first.opening)
    assert [one.id for one in gated.status(finding).openings] == ["second"]
    again = gated.open(finding, opening="second")
    assert [one.id for one in gated.status(finding).openings] == ["second"]
    assert again.code
    gated.close(finding, "unknown")
    assert gated.status(finding).is_open
    gated.close(finding)
    assert not gated.status(finding).is_open


def test_what_is_over_makes_room(gated: Gated) -> None:
    finding = gated.findings(BUCKET)[0]
    gate = trust(gated, finding)
    past = datetime.now(UTC) - timedelta(minutes=1)
    gate.open("old", SecretStr("123456"), past, ())
    assert gate.status() == ()
    gated.open(finding, opening="new")
    assert [one["Sid"] for one in statements(gated, finding)] == ["SutureGatenew"]
    gated.close(finding, "new")
    assert statements(gated, finding) == [CLOSED]


def test_without_the_hubs_name_nobody_is_let_in(gated: Gated) -> None:
    finding = gated.findings(BUCKET)[0]
    source = replace(gated.inventory.aws[0], hub_principal="")
    blind = replace(gated, inventory=replace(gated.inventory, aws=(source,)))
    with pytest.raises(BadInput, match="hub_principal"):
        blind.open(finding)
    assert not gated.status(finding).is_open


def test_who_is_not_the_customer_cannot_open(gated: Gated) -> None:
    finding = gated.findings(BUCKET)[0]
    hub = gated.fleet.description["aws"]["hub"]
    keys = replace(
        gated.customer(finding).aws or pytest.fail("no keys"),
        access_key=hub["access_key_id"],
        secret_key=hub["secret_access_key"],
    )
    with pytest.raises(CloudError):
        open_gate(
            gated.inventory,
            gated.account(finding),
            machine=True,
            customer=replace(gated.customer(finding), aws=keys),
        )
    assert not gated.status(finding).is_open


# --- Azure --------------------------------------------------------------------------------------


def assigned(gated: Gated) -> list[Any]:
    """The remediator's role assignments, in all subscriptions."""
    remediator = gated.fleet.description["azure"]["remediator"]["principal_id"]
    return [one for one in gated.azure.tenant.access.all() if one.principal == remediator]


def test_azure_opens_for_the_resources_named_and_no_others(gated: Gated) -> None:
    finding = gated.findings(STORAGE)[0]
    gated.open(finding)
    (standing,) = gated.status(finding).openings
    assert [one.lower() for one in standing.resources] == [finding["resource"]]


@pytest.mark.parametrize(
    "scopes",
    [
        [],
        ["/"],
        ["/subscriptions/{account}"],
        ["/subscriptions/{account}/resourcegroups/rg"],
        ["/subscriptions/{account}/resourcegroups/rg/providers/microsoft.storage"],
        ["/subscriptions/00000000-0000-0000-0000-000000000000{rest}"],
        ["{resource}", "/subscriptions/{account}"],
        ["{resource}/../.."],
        ["{resource}/../../../.."],
        ["{resource}?x=/a/b"],
    ],
)
def test_nothing_wider_than_a_resource_is_opened(gated: Gated, scopes: list[str]) -> None:
    finding = gated.findings(STORAGE)[0]
    rest = finding["resource"].partition(finding["account"])[2]
    named = [
        one.format(account=finding["account"], resource=finding["resource"], rest=rest)
        for one in scopes
    ]
    with pytest.raises(BadInput, match="resource"):
        open_gate(
            gated.inventory,
            gated.account(finding),
            machine=True,
            resources=named,
            customer=gated.customer(finding),
        )
    assert not gated.status(finding).is_open


PLAN = "/subscriptions/{account}/providers/microsoft.security/pricings/virtualmachines"


def test_a_setting_of_the_subscription_is_opened_and_closed(gated: Gated) -> None:
    finding = gated.findings(STORAGE)[0]
    plan = PLAN.format(account=finding["account"])
    gated.open({**finding, "resource": plan})
    (standing,) = gated.status(finding).openings
    assert [one.lower() for one in standing.resources] == [plan]
    assert {one.scope.lower() for one in assigned(gated)} == {plan}
    gated.close(finding)
    assert not assigned(gated)


@pytest.mark.attack
@pytest.mark.parametrize(
    "scope",
    [
        "/subscriptions/{account}",
        "/subscriptions/{account}/",
        "/subscriptions/{account}/providers",
        "/subscriptions/{account}/providers/microsoft.security",
        "/subscriptions/{account}/providers/microsoft.security/pricings",
        "/subscriptions/{account}/providers/microsoft.security/pricings/",
        "/subscriptions/{account}/providers/microsoft.security/pricings/..",
        "/subscriptions/{account}/providers/microsoft.security/pricings//",
        f"{PLAN}/..",
        f"{PLAN}/x",
        f"{PLAN}/providers/microsoft.security/pricings/x",
        "/subscriptions/{account}/providers/microsoft.resources/resourcegroups/rg",
        "/subscriptions/{account}/providers/microsoft.resources/subscriptions/{account}",
        "/subscriptions/{account}/providers/microsoft.management/managementgroups/root",
        "/subscriptions/{account}/providers/microsoft.authorization/roledefinitions/owner",
        "/subscriptions/00000000-0000-0000-0000-000000000000/providers"
        "/microsoft.security/pricings/virtualmachines",
        "/providers/microsoft.security/pricings/virtualmachines",
        "/subscriptions/{account}/x/microsoft.security/pricings/virtualmachines",
    ],
)
def test_no_more_of_the_subscription_than_one_setting_is_opened(gated: Gated, scope: str) -> None:
    finding = gated.findings(STORAGE)[0]
    named = [PLAN.format(account=finding["account"]), scope.format(account=finding["account"])]
    with pytest.raises(BadInput, match="no resource of this subscription"):
        open_gate(
            gated.inventory,
            gated.account(finding),
            machine=True,
            resources=named,
            customer=gated.customer(finding),
        )
    assert not assigned(gated)


def test_what_fails_halfway_is_closed_again(gated: Gated) -> None:
    finding = gated.findings(STORAGE)[0]
    gone = finding["resource"].rpartition("/")[0] + "/notthere"
    with pytest.raises(CloudError):
        open_gate(
            gated.inventory,
            gated.account(finding),
            machine=True,
            resources=[finding["resource"], gone],
            customer=gated.customer(finding),
        )
    assert not assigned(gated)
    assert not gated.status(finding).is_open


def test_an_interrupt_halfway_closes_again(gated: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = gated.findings(STORAGE)[0]

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(AzureGate, "_trust", interrupt)
    with pytest.raises(KeyboardInterrupt):
        gated.open(finding)
    assert not assigned(gated)


def test_an_opening_that_nobody_closed_in_time_is_closed_by_the_next(gated: Gated) -> None:
    finding = gated.findings(STORAGE)[0]
    others = [
        one["resource"]
        for one in gated.fleet.truth["findings"]
        if one["account"] == finding["account"] and one["resource"] != finding["resource"]
    ]
    gate = azure_gate(gated, finding)
    past = datetime.now(UTC) - timedelta(minutes=1)
    gate.open("old", SecretStr("123456"), past, others[:1])
    gated.open(finding, opening="standing")
    assert [one.id for one in gated.status(finding).openings] == ["standing"]
    gated.open(finding, opening="new")
    assert {one.id for one in gated.status(finding).openings} == {"standing", "new"}
    assert {one.scope.lower() for one in assigned(gated)} == {finding["resource"]}


@pytest.mark.attack
def test_a_code_whose_role_was_anothers_is_closed_by_its_own_time(gated: Gated) -> None:
    """Azure takes one assignment of a role: the second opening of a resource has none that tells
    its time, and its process has died. Its code must not open what is opened next.
    """
    finding = gated.findings(STORAGE)[0]
    gate = azure_gate(gated, finding)
    resources, code = [finding["resource"]], SecretStr("a code of last week")
    now = datetime.now(UTC)
    gate.open("first", SecretStr("another code"), now + timedelta(minutes=1), resources)
    gate.open("second", code, now + timedelta(seconds=2), resources)
    gate.close("first")
    (left,) = gate.status()
    assert (left.id, left.resources) == ("second", ())
    assert left.expires_at == (now + timedelta(seconds=2)).replace(microsecond=0)
    assert gate.close_overdue() == 0
    time.sleep(2)
    assert gate.close_overdue() == 1
    assert gate.status() == ()


def test_one_code_opens_one_subscription(gated: Gated, monkeypatch: pytest.MonkeyPatch) -> None:
    """Azure takes a subject once for each identity, so the second one waits for the next code."""
    first = gated.findings(STORAGE)[0]
    other = next(
        one
        for one in gated.fleet.truth["findings"]
        if one["cloud"] == Cloud.AZURE and one["account"] != first["account"]
    )
    moment = [time.time()]
    monkeypatch.setattr(gate_module.time, "time", lambda: moment[0])
    monkeypatch.setattr(
        gate_module.time, "sleep", lambda seconds: moment.__setitem__(0, moment[0] + seconds)
    )
    codes = [gated.open(one, seed=gated.SEED).code.get_secret_value() for one in (first, other)]
    assert codes[0] != codes[1]
    assert gated.status(first).is_open
    assert gated.status(other).is_open
    gated.close(first)
    assert gated.status(other).is_open


def test_closing_takes_the_credential_and_the_role(gated: Gated) -> None:
    finding = gated.findings(STORAGE)[0]
    gated.open(finding)
    told = gated.fleet.description["azure"]["remediator"]
    principal = gated.azure.tenant.principals[told["client_id"]]
    assert principal.federated
    close_gate(gated.inventory, gated.account(finding), customer=gated.customer(finding))
    assert not principal.federated
    assert not [
        one for one in gated.azure.tenant.access.all() if one.principal == told["principal_id"]
    ]


class Failing:
    """Makes deletions of what an ARM id names fail, ``times`` times, with an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, named: str, error: BaseException) -> None:
        self.left = 0
        self._named, self._error = named.lower(), error
        request = Arm.request

        def failing(arm: Arm, method: str, resource_id: str, *rest: Any, **named: Any) -> Any:
            if method == "DELETE" and self._named in resource_id.lower() and self.left:
                self.left -= 1
                raise self._error
            return request(arm, method, resource_id, *rest, **named)

        monkeypatch.setattr(Arm, "request", failing)


LEFT = {"federatedIdentityCredentials": "roleAssignments"}
LEFT |= {second: first for first, second in LEFT.items()}


def standing(gated: Gated) -> dict[str, bool]:
    """Which of the two halves of an Azure gate stand."""
    told = gated.fleet.description["azure"]["remediator"]
    federated = gated.azure.tenant.principals[told["client_id"]].federated
    return {
        "federatedIdentityCredentials": bool(federated),
        "roleAssignments": bool(assigned(gated)),
    }


@pytest.mark.attack
@pytest.mark.parametrize("named", LEFT)
@pytest.mark.parametrize("error", [AccessRefused("no"), KeyboardInterrupt(), OSError("cut")])
def test_a_deletion_that_fails_keeps_no_other_from_being_made(
    gated: Gated, named: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    finding = gated.findings(STORAGE)[0]
    gated.open(finding)
    assert standing(gated) == dict.fromkeys(LEFT, True)
    Failing(monkeypatch, named, error).left = 1
    with pytest.raises(type(error)):
        gated.close(finding)
    assert standing(gated) == {named: True, LEFT[named]: False}
    gated.close(finding)
    assert standing(gated) == dict.fromkeys(LEFT, False)


@pytest.mark.parametrize("named", LEFT)
@pytest.mark.parametrize(
    "error", [Throttled("later"), CloudTimeout("slow"), Conflict("busy"), UnsettledWrite("lost")]
)
def test_a_deletion_that_may_pass_is_tried_again(
    gated: Gated, named: str, error: CloudError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    finding = gated.findings(STORAGE)[0]
    gated.open(finding)
    failing = Failing(monkeypatch, named, error)
    failing.left = 2
    gated.close(finding)
    assert not failing.left
    assert standing(gated) == dict.fromkeys(LEFT, False)


@pytest.mark.parametrize(
    ("error", "raised"),
    [(CloudError("full"), AccessRefused), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_an_opening_that_fails_and_cannot_be_closed_says_the_worse(
    gated: Gated,
    error: BaseException,
    raised: type[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    finding = gated.findings(STORAGE)[0]

    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(AzureGate, "_trust", broken)
    Failing(monkeypatch, "roleAssignments", AccessRefused("no longer")).left = 1
    with pytest.raises(raised):
        gated.open(finding)
    assert ("could not be closed again" in caplog.text) is (raised is KeyboardInterrupt)
    gated.close(finding)
    assert standing(gated) == dict.fromkeys(LEFT, False)
